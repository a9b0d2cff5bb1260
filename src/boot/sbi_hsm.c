/* Built-in SBI: hart states, system suspend and reset. Spec: RISC-V SBI 3.0 §9 (HSM), §10 (SRST),
 * §13 (SUSP).
 *
 *                hart_start                thread
 *     STOPPED ───────────────> START_PENDING ──────> STARTED ── suspend ──> SUSPENDED
 *        ^                                            │  ^                     │
 *        └──────────────── hart_stop ─────────────────┘  └──── interrupt ──────┘
 *
 * The pending states that the specification has between are entered and left within one call. */
#include "boot/sbi_internal.h"

enum { SRST_SHUTDOWN = 0, SRST_COLD = 1, SRST_WARM = 2 };

#define TYPE_NON_RETENTIVE 0x80000000u
#define TYPE_PLATFORM      0x10000000u

static void set_state(struct sbi_hart *h, enum sbi_hart_state state)
{
    /* release: what the state promises is there before it; pairs with get_state() */
    __atomic_store_n(&h->state, (int)state, __ATOMIC_RELEASE);
}

static enum sbi_hart_state get_state(const struct sbi_hart *h)
{
    return (enum sbi_hart_state)__atomic_load_n(&h->state, __ATOMIC_ACQUIRE);
}

/* §9: registers of a hart that starts or resumes at an address. */
static void enter(struct sbi *s, unsigned index)
{
    struct sbi_hart *h = &s->harts[index];
    struct vcpu *v = h->vcpu;

    vcpu_reset(v);
    (void)vcpu_set_reg(v, REG_PC, h->start_addr); /* these registers exist on every hart */
    (void)vcpu_set_reg(v, REG_A0, index);
    (void)vcpu_set_reg(v, REG_A1, h->start_value);
}

void sbi_reset(struct sbi *s, gpa_t entry, uint64_t opaque)
{
    mutex_lock(&s->lock);
    for (unsigned i = 0; i < s->config.count; i++) {
        set_state(&s->harts[i], SBI_HART_STOPPED);
        sbi_pmu_reset(&s->harts[i]);
    }
    s->harts[0].start_addr = entry.v;
    s->harts[0].start_value = opaque;
    set_state(&s->harts[0], SBI_HART_STARTED);
    mutex_unlock(&s->lock);
    enter(s, 0); /* at once: a debugger looks before the hart runs */
    s->config.host.wake(s->config.host.arg, 0);
}

static uint64_t get_csr(const struct sbi_hart *h, unsigned csr)
{
    uint64_t value = 0;

    (void)vcpu_get_reg(h->vcpu, REG_CSR + csr, &value); /* absent reads as zero */
    return value;
}

/* CLOCK_MONOTONIC time at which stimecmp will interrupt. */
static int64_t timer_deadline(const struct sbi *s, const struct sbi_hart *h)
{
    unsigned __int128 ns = (unsigned __int128)get_csr(h, CSR_STIMECMP) * 1000000000;

    ns = (ns + s->config.timebase_hz - 1) / s->config.timebase_hz;
    if (ns > INT64_MAX)
        return INT64_MAX;
    return vclock_to_host_ns(s->config.clock, (int64_t)ns);
}

bool sbi_hart_ready(struct sbi *s, unsigned index, int64_t *ret_deadline_ns)
{
    struct sbi_hart *h = &s->harts[index];

    *ret_deadline_ns = INT64_MAX;
    switch (get_state(h)) {
    case SBI_HART_STARTED:
        return true;
    case SBI_HART_STOPPED:
        return false;
    case SBI_HART_SUSPENDED:
        if (!(get_csr(h, CSR_SIP) & get_csr(h, CSR_SIE))) {
            *ret_deadline_ns = timer_deadline(s, h);
            return false;
        }
        if (!h->retentive)
            enter(s, index);
        break;
    case SBI_HART_START_PENDING:
        enter(s, index);
        break;
    }
    mutex_lock(&s->lock);
    set_state(h, SBI_HART_STARTED);
    mutex_unlock(&s->lock);
    return true;
}

static struct sbi_return hart_start(struct sbi *s, const struct sbi_args *args)
{
    uint64_t id = args->a[0];

    if (id >= s->config.count)
        return sbi_error(SBI_INVALID_PARAM);
    if (!sbi_can_execute(s, args->a[1]))
        return sbi_error(SBI_INVALID_ADDRESS);
    struct sbi_hart *h = &s->harts[id];
    mutex_lock(&s->lock);
    bool stopped = get_state(h) == SBI_HART_STOPPED;
    if (stopped) {
        h->start_addr = args->a[1];
        h->start_value = args->a[2];
        set_state(h, SBI_HART_START_PENDING);
    }
    mutex_unlock(&s->lock);
    if (!stopped)
        return sbi_error(SBI_ALREADY_AVAILABLE);
    s->config.host.wake(s->config.host.arg, (unsigned)id);
    return sbi_error(SBI_SUCCESS);
}

/* Suspend the calling hart; with @resume, it comes back at args a1 with a1 = a2. */
static void suspend(struct sbi *s, const struct sbi_args *args, bool resume)
{
    struct sbi_hart *h = &s->harts[args->hart];

    mutex_lock(&s->lock);
    h->retentive = !resume;
    if (resume) {
        h->start_addr = args->a[1];
        h->start_value = args->a[2];
    }
    set_state(h, SBI_HART_SUSPENDED);
    mutex_unlock(&s->lock);
}

static struct sbi_return hart_suspend(struct sbi *s, const struct sbi_args *args)
{
    uint32_t type = (uint32_t)args->a[0];

    if ((type & ~TYPE_NON_RETENTIVE) >= TYPE_PLATFORM)
        return sbi_error(SBI_NOT_SUPPORTED);
    if (type & ~TYPE_NON_RETENTIVE)
        return sbi_error(SBI_INVALID_PARAM); /* reserved */
    if (type & TYPE_NON_RETENTIVE && !sbi_can_execute(s, args->a[1]))
        return sbi_error(SBI_INVALID_ADDRESS);
    suspend(s, args, type & TYPE_NON_RETENTIVE);
    return sbi_error(SBI_SUCCESS);
}

struct sbi_return sbi_hsm(struct sbi *s, const struct sbi_args *args, uint64_t fid)
{
    switch (fid) {
    case 0:
        return hart_start(s, args);
    case 1:
        mutex_lock(&s->lock);
        set_state(&s->harts[args->hart], SBI_HART_STOPPED);
        mutex_unlock(&s->lock);
        return sbi_error(SBI_SUCCESS); /* seen by nobody: the hart runs no more */
    case 2:
        if (args->a[0] >= s->config.count)
            return sbi_error(SBI_INVALID_PARAM);
        return sbi_value(get_state(&s->harts[args->a[0]]));
    case 3:
        return hart_suspend(s, args);
    default:
        return sbi_error(SBI_NOT_SUPPORTED);
    }
}

struct sbi_return sbi_susp(struct sbi *s, const struct sbi_args *args, uint64_t fid)
{
    uint32_t type = (uint32_t)args->a[0];
    bool alone = true;

    if (fid != 0)
        return sbi_error(SBI_NOT_SUPPORTED);
    if (type >= TYPE_NON_RETENTIVE)
        return sbi_error(SBI_NOT_SUPPORTED);
    if (type != 0)
        return sbi_error(SBI_INVALID_PARAM);
    if (!sbi_can_execute(s, args->a[1]))
        return sbi_error(SBI_INVALID_ADDRESS);
    for (unsigned i = 0; i < s->config.count; i++)
        alone = alone && (i == args->hart || get_state(&s->harts[i]) == SBI_HART_STOPPED);
    if (!alone)
        return sbi_error(SBI_DENIED);
    suspend(s, args, true);
    return sbi_error(SBI_SUCCESS);
}

struct sbi_return sbi_srst(struct sbi *s, const struct sbi_args *args, uint64_t fid)
{
    const struct sbi_host *host = &s->config.host;
    uint32_t type = (uint32_t)args->a[0];
    uint32_t reason = (uint32_t)args->a[1];

    if (fid != 0)
        return sbi_error(SBI_NOT_SUPPORTED);
    if (reason > 1 && reason < 0xe0000000u)
        return sbi_error(SBI_INVALID_PARAM);
    if (type >= 0xf0000000u)
        return sbi_error(SBI_NOT_SUPPORTED);
    switch (type) {
    case SRST_SHUTDOWN:
        host->reset(host->arg, SBI_RESET_SHUTDOWN, reason == 1);
        return sbi_error(SBI_SUCCESS);
    case SRST_COLD:
        host->reset(host->arg, SBI_RESET_COLD, reason == 1);
        return sbi_error(SBI_SUCCESS);
    case SRST_WARM:
        host->reset(host->arg, SBI_RESET_WARM, reason == 1);
        return sbi_error(SBI_SUCCESS);
    default:
        return sbi_error(SBI_INVALID_PARAM);
    }
}
