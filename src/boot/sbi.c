/* Built-in SBI: dispatch, base, timer, IPI and remote fences.
 * Spec: RISC-V SBI 3.0 §3-§8; legacy extensions §5.
 *
 * Invariants:
 *  1. A call from a hostile guest ends in an error code, never in the monitor's failure; addresses
 *     are used through mem_copy_*() only.
 *  2. Hart states change under the lock; it is innermost and released before vCPUs or the host are
 *     called.
 *
 * Threads: every hart's own. */
#include "boot/sbi_internal.h"
#include "boot/trace_boot.h"

#include <errno.h>
#include <stdlib.h>

#define SPEC_VERSION   (3u << 24)
#define IMPLEMENTATION 0x706f73u /* not assigned to anyone */
#define VERSION        1u

enum { IRQ_SSI = 1 };

enum {
    LEGACY_SET_TIMER = 0,
    LEGACY_PUTCHAR = 1,
    LEGACY_GETCHAR = 2,
    LEGACY_CLEAR_IPI = 3,
    LEGACY_SHUTDOWN = 8,
    LEGACY_END = 0x10,
};

static uint64_t get_reg(const struct sbi *s, unsigned hart, unsigned id)
{
    uint64_t value = 0;

    /* A register that the vCPU does not have reads as zero. */
    (void)vcpu_get_reg(s->config.vcpus[hart], id, &value);
    return value;
}

static void set_reg(struct sbi *s, unsigned hart, unsigned id, uint64_t value)
{
    int rc = vcpu_set_reg(s->config.vcpus[hart], id, value);

    assert(!rc || id >= REG_CSR);
    (void)rc;
}

static bool is_present(uint64_t eid)
{
    switch (eid) {
    case SBI_EID_BASE:
    case SBI_EID_TIME:
    case SBI_EID_IPI:
    case SBI_EID_RFNC:
    case SBI_EID_HSM:
    case SBI_EID_SRST:
    case SBI_EID_PMU:
    case SBI_EID_DBCN:
    case SBI_EID_SUSP:
    case LEGACY_SET_TIMER:
    case LEGACY_PUTCHAR:
    case LEGACY_GETCHAR:
    case LEGACY_CLEAR_IPI:
    case LEGACY_SHUTDOWN:
        return true;
    default:
        return false;
    }
}

static struct sbi_return base(struct sbi *s, const struct sbi_args *args, uint64_t fid)
{
    switch (fid) {
    case 0:
        return sbi_value(SPEC_VERSION);
    case 1:
        return sbi_value(IMPLEMENTATION);
    case 2:
        return sbi_value(VERSION);
    case 3:
        return sbi_value(is_present(args->a[0]));
    case 4:
        return sbi_value(get_reg(s, args->hart, REG_CSR + CSR_MVENDORID));
    case 5:
        return sbi_value(get_reg(s, args->hart, REG_CSR + CSR_MARCHID));
    case 6:
        return sbi_value(get_reg(s, args->hart, REG_CSR + CSR_MIMPID));
    default:
        return sbi_error(SBI_NOT_SUPPORTED);
    }
}

struct sbi_return sbi_time(struct sbi *s, const struct sbi_args *args, uint64_t fid)
{
    if (fid != 0)
        return sbi_error(SBI_NOT_SUPPORTED);
    sbi_count_event(s, args->hart, SBI_EVENT_SET_TIMER);
    /* Sstc: the compare register raises and clears the interrupt. */
    set_reg(s, args->hart, REG_CSR + CSR_STIMECMP, args->a[0]);
    return sbi_error(SBI_SUCCESS);
}

/* §3.1: the harts that @mask and @base name, as bits; false if one of them does not exist. */
static bool hart_set(const struct sbi *s, uint64_t mask, uint64_t base_id, uint64_t *ret)
{
    uint64_t all = MASK(s->config.count);

    if (base_id == UINT64_MAX) {
        *ret = all;
        return true;
    }
    if (base_id >= s->config.count || mask >> (s->config.count - base_id))
        return false;
    *ret = mask << base_id;
    return true;
}

static struct sbi_return send_ipi(struct sbi *s, const struct sbi_args *args, uint64_t fid)
{
    uint64_t harts;

    if (fid != 0)
        return sbi_error(SBI_NOT_SUPPORTED);
    if (!hart_set(s, args->a[0], args->a[1], &harts))
        return sbi_error(SBI_INVALID_PARAM);
    for (; harts; harts &= harts - 1) {
        unsigned i = (unsigned)__builtin_ctzll(harts);

        sbi_count_event(s, args->hart, SBI_EVENT_IPI_SENT);
        sbi_count_event(s, i, SBI_EVENT_IPI_RECEIVED);
        vcpu_set_irq(s->config.vcpus[i], IRQ_SSI, true);
        s->config.host.wake(s->config.host.arg, i);
    }
    return sbi_error(SBI_SUCCESS);
}

/* §8.2, §8.3: what a hart is to forget. */
static struct vcpu_fence fence_of(const struct sbi_args *args, uint64_t fid)
{
    bool all = args->a[3] == UINT64_MAX || (!args->a[2] && !args->a[3]);

    return (struct vcpu_fence){
        .start = all ? 0 : args->a[2],
        .size = all ? UINT64_MAX : args->a[3],
        .has_asid = fid == 2,
        .asid = (uint16_t)args->a[4],
    };
}

static struct sbi_return remote_fence(struct sbi *s, const struct sbi_args *args, uint64_t fid)
{
    static const struct {
        enum sbi_event sent, received;
    } fences[] = {
        {SBI_EVENT_FENCE_I_SENT,     SBI_EVENT_FENCE_I_RECEIVED    },
        {SBI_EVENT_SFENCE_SENT,      SBI_EVENT_SFENCE_RECEIVED     },
        {SBI_EVENT_SFENCE_ASID_SENT, SBI_EVENT_SFENCE_ASID_RECEIVED},
    };
    struct vcpu_fence fence = fence_of(args, fid);
    uint64_t harts;

    if (fid >= ARRAY_SIZE(fences)) /* the rest is for the hypervisor extension */
        return sbi_error(SBI_NOT_SUPPORTED);
    if (!hart_set(s, args->a[0], args->a[1], &harts))
        return sbi_error(SBI_INVALID_PARAM);
    for (; harts; harts &= harts - 1) {
        unsigned i = (unsigned)__builtin_ctzll(harts);

        sbi_count_event(s, args->hart, fences[fid].sent);
        sbi_count_event(s, i, fences[fid].received);
        if (fid == 0)
            vcpu_request(s->config.vcpus[i], VCPU_REQ_ICACHE);
        else
            vcpu_fence(s->config.vcpus[i], &fence);
    }
    return sbi_error(SBI_SUCCESS);
}

static struct sbi_return dispatch(struct sbi *s, const struct sbi_args *args, uint64_t eid,
                                  uint64_t fid)
{
    switch (eid) {
    case SBI_EID_BASE:
        return base(s, args, fid);
    case SBI_EID_TIME:
        return sbi_time(s, args, fid);
    case SBI_EID_IPI:
        return send_ipi(s, args, fid);
    case SBI_EID_RFNC:
        return remote_fence(s, args, fid);
    case SBI_EID_HSM:
        return sbi_hsm(s, args, fid);
    case SBI_EID_SRST:
        return sbi_srst(s, args, fid);
    case SBI_EID_PMU:
        return sbi_pmu(s, args, fid);
    case SBI_EID_DBCN:
        return sbi_dbcn(s, args, fid);
    case SBI_EID_SUSP:
        return sbi_susp(s, args, fid);
    default:
        return sbi_error(SBI_NOT_SUPPORTED);
    }
}

/* §5: legacy calls return one value, in a0. */
static int64_t legacy(struct sbi *s, const struct sbi_args *args, uint64_t eid)
{
    const struct sbi_host *host = &s->config.host;
    uint8_t byte = (uint8_t)args->a[0];

    switch (eid) {
    case LEGACY_SET_TIMER:
        return sbi_time(s, args, 0).error;
    case LEGACY_PUTCHAR:
        /* A console that is full loses the byte: the call has no way to say so and may not block.
         */
        (void)host->console_write(host->arg, &byte, 1);
        return 0;
    case LEGACY_GETCHAR:
        return host->console_read(host->arg, &byte, 1) ? byte : -1;
    case LEGACY_CLEAR_IPI:
        vcpu_set_irq(s->config.vcpus[args->hart], IRQ_SSI, false);
        return 0;
    case LEGACY_SHUTDOWN:
        host->reset(host->arg, SBI_RESET_SHUTDOWN, false);
        return 0;
    default:
        return SBI_NOT_SUPPORTED;
    }
}

void sbi_call(struct sbi *s, unsigned index)
{
    struct sbi_args args = {.hart = index};
    uint64_t eid = (uint32_t)get_reg(s, index, REG_A7);
    uint64_t fid = get_reg(s, index, REG_A6);

    for (unsigned i = 0; i < ARRAY_SIZE(args.a); i++)
        args.a[i] = get_reg(s, index, REG_A0 + i);
    trace_sbi_call(index, eid, fid, args.a[0], args.a[1]);
    if (eid < LEGACY_END) {
        set_reg(s, index, REG_A0, (uint64_t)legacy(s, &args, eid));
        return;
    }
    struct sbi_return r = dispatch(s, &args, eid, fid);
    trace_sbi_return(index, r.error, r.value);
    set_reg(s, index, REG_A0, (uint64_t)r.error);
    set_reg(s, index, REG_A1, r.value);
}

int sbi_new(const struct sbi_config *config, struct sbi **ret, struct error *err)
{
    struct sbi *s = calloc(1, sizeof(*s));

    assert(config->count >= 1 && config->count <= SBI_MAX_HARTS);
    if (!s)
        return error_set(err, ENOMEM, "out of memory");
    s->config = *config;
    mutex_init(&s->lock);
    for (unsigned i = 0; i < config->count; i++) {
        s->harts[i].vcpu = config->vcpus[i];
        s->harts[i].state = SBI_HART_STOPPED;
        sbi_pmu_reset(&s->harts[i]);
    }
    *ret = s;
    return 0;
}

void sbi_free(struct sbi *s)
{
    if (!s)
        return;
    mutex_done(&s->lock);
    free(s);
}
