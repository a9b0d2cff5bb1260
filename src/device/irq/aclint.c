/* RISC-V core-local interruptor: MSWI and MTIMER in the layout of SiFive's CLINT.
 * Spec: RISC-V ACLINT 1.0-rc4 §2, §3.
 *
 * Invariants:
 *  1. mtip[h] is up if and only if mtime >= mtimecmp[h] was true at the last look; the loop's timer
 *     looks again when that changes by the passing of time.
 *  2. mtime is the guest clock, which the time CSR reads too: it is not writable here.
 *
 * Threads: any; one lock, held while outputs are driven. */
#include "device/irq/aclint.h"
#include "base/log.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>

enum { MSIP_BASE = 0, MTIMECMP_BASE = 0x4000, MTIME = 0xbff8 };

struct hart {
    struct aclint *a;
    unsigned index;
    struct loop_timer timer;
    uint64_t mtimecmp; /* [lock] */
    bool msip;         /* [lock] */
    bool mtip;         /* [lock] */
};

struct aclint {
    struct aclint_config config; /* [init] */
    struct mutex lock;
    struct hart harts[ACLINT_MAX_HARTS];
};

static uint64_t now(const struct aclint *a)
{
    unsigned __int128 ns = (unsigned __int128)vclock_now_ns(a->config.clock);

    return (uint64_t)(ns * a->config.timebase_hz / 1000000000);
}

/* First guest ns at which mtime is at least @ticks, saturated. */
static int64_t ticks_to_ns(const struct aclint *a, uint64_t ticks)
{
    unsigned __int128 ns = (unsigned __int128)ticks * 1000000000;

    ns = (ns + a->config.timebase_hz - 1) / a->config.timebase_hz;
    return ns > INT64_MAX ? INT64_MAX : (int64_t)ns;
}

static void update_locked(struct aclint *a, struct hart *h) REQUIRES(a->lock)
{
    bool up = now(a) >= h->mtimecmp;

    if (up != h->mtip) {
        h->mtip = up;
        irq_set(&a->config.mtip[h->index], up);
    }
    int64_t deadline = vclock_to_host_ns(a->config.clock, ticks_to_ns(a, h->mtimecmp));
    /* While the guest clock stands, the deadline passes in vain: aclint_resume() sets it again. */
    if (up || deadline == INT64_MAX)
        loop_timer_cancel(a->config.loop, &h->timer);
    else if (deadline > host_now_ns() ||
             __atomic_load_n(&a->config.clock->paused_ns, __ATOMIC_RELAXED) < 0)
        loop_timer_set(a->config.loop, &h->timer, deadline);
}

static void timer_fired(struct loop_timer *t)
{
    struct hart *h = t->arg;

    mutex_lock(&h->a->lock);
    update_locked(h->a, h);
    mutex_unlock(&h->a->lock);
}

static void set_msip_locked(struct aclint *a, struct hart *h, bool level) REQUIRES(a->lock)
{
    if (!level && !h->msip)
        return;
    h->msip = level; /* raising it again is an event for a hart that waits with it pending */
    irq_set(&a->config.msip[h->index], level);
}

static enum bus_result aclint_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct aclint *a = dev;
    uint64_t value = 0;

    mutex_lock(&a->lock);
    if (offset < MTIMECMP_BASE) {
        if (offset / 4 < a->config.harts)
            value = a->harts[offset / 4].msip;
    } else if (offset >= MTIME) {
        value = now(a);
    } else if ((offset - MTIMECMP_BASE) / 8 < a->config.harts) {
        value = a->harts[(offset - MTIMECMP_BASE) / 8].mtimecmp;
    }
    mutex_unlock(&a->lock);
    *ret = offset % 8 && offset >= MTIMECMP_BASE ? value >> 32 : value;
    return BUS_OK;
}

static enum bus_result aclint_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct aclint *a = dev;

    mutex_lock(&a->lock);
    if (offset < MTIMECMP_BASE) {
        if (offset / 4 < a->config.harts)
            set_msip_locked(a, &a->harts[offset / 4], value & 1);
        /* an 8-byte write covers two harts' registers */
        if (size == 8 && offset / 4 + 1 < a->config.harts)
            set_msip_locked(a, &a->harts[offset / 4 + 1], value >> 32 & 1);
    } else if (offset >= MTIME) {
        guest_error("aclint", "write to mtime");
    } else if ((offset - MTIMECMP_BASE) / 8 < a->config.harts) {
        struct hart *h = &a->harts[(offset - MTIMECMP_BASE) / 8];

        if (size == 8)
            h->mtimecmp = value;
        else if (offset % 8)
            h->mtimecmp = (uint32_t)h->mtimecmp | value << 32;
        else
            h->mtimecmp = (h->mtimecmp & ~0xffffffffULL) | value;
        update_locked(a, h);
    }
    mutex_unlock(&a->lock);
    return BUS_OK;
}

static const struct mmio_ops aclint_ops = {
    .name = "aclint",
    .read = aclint_read,
    .write = aclint_write,
    .min_size = 4,
};

int aclint_new(struct mem *mem, gpa_t base, const struct aclint_config *config, struct aclint **ret,
               struct error *err)
{
    struct aclint *a = calloc(1, sizeof(*a));

    assert(config->harts <= ACLINT_MAX_HARTS);
    if (!a)
        return error_set(err, ENOMEM, "out of memory");
    a->config = *config;
    mutex_init(&a->lock);
    for (unsigned i = 0; i < config->harts; i++)
        a->harts[i] = (struct hart){
            .a = a,
            .index = i,
            .timer = {.fn = timer_fired, .arg = &a->harts[i]},
            .mtimecmp = UINT64_MAX
        };
    int rc = mem_add_mmio(mem, base, ACLINT_SIZE, &aclint_ops, a, err);
    if (rc) {
        aclint_free(a);
        return rc;
    }
    *ret = a;
    return 0;
}

void aclint_free(struct aclint *a)
{
    if (!a)
        return;
    for (unsigned i = 0; i < a->config.harts; i++)
        loop_timer_cancel(a->config.loop, &a->harts[i].timer);
    mutex_done(&a->lock);
    free(a);
}

void aclint_reset(struct aclint *a)
{
    mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->config.harts; i++) {
        set_msip_locked(a, &a->harts[i], false);
        a->harts[i].mtimecmp = UINT64_MAX;
        update_locked(a, &a->harts[i]);
    }
    mutex_unlock(&a->lock);
}

void aclint_resume(struct aclint *a)
{
    mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->config.harts; i++)
        update_locked(a, &a->harts[i]);
    mutex_unlock(&a->lock);
}

static const struct state_field hart_fields[] = {
    STATE_FIELD(struct hart, mtimecmp),
    STATE_FIELD(struct hart, msip),
    {0},
};

void aclint_save(struct aclint *a, struct state_out *out)
{
    mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->config.harts; i++)
        state_save(out, "aclint", i, 1, hart_fields, &a->harts[i]);
    mutex_unlock(&a->lock);
}

int aclint_load(struct aclint *a, const struct state_in *in, struct error *err)
{
    int rc = 0;

    mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->config.harts && !rc; i++) {
        struct hart *h = &a->harts[i];
        struct hart loaded;

        rc = state_load(in, "aclint", i, 1, hart_fields, &loaded, err);
        if (rc)
            break;
        h->mtimecmp = loaded.mtimecmp;
        set_msip_locked(a, h, loaded.msip);
        update_locked(a, h);
    }
    mutex_unlock(&a->lock);
    return rc;
}
