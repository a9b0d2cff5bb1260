/* Built-in SBI: performance monitoring. Spec: RISC-V SBI 3.0 §11; Sscofpmf.
 *
 * Logical counters: 0 is cycle, 2 is instret (1, the time CSR, is not a counter), 3..31 are the
 * programmable ones that the hart has: their event selectors take SBI event numbers as they are.
 * 32..47 are firmware counters, which count what this SBI does. */
#include "boot/sbi_internal.h"

enum { COUNTER_CYCLE = 0, COUNTER_INSTRET = 2 };
enum { EVENT_HW_CYCLES = 1, EVENT_HW_INSTRUCTIONS = 2 };
enum { EVENT_TYPE_HW = 0, EVENT_TYPE_RAW = 2, EVENT_TYPE_FW = 15 };

#define FIRST_PROGRAMMABLE 3
#define EVENT_OVERFLOWED   BIT(63)
#define EVENT_CODE_MASK    MASK(56)

enum {
    CONFIG_SKIP_MATCH = 1 << 0,
    CONFIG_CLEAR = 1 << 1,
    CONFIG_AUTO_START = 1 << 2,
    CONFIG_UINH = 1 << 5,
    CONFIG_SINH = 1 << 6,
    CONFIG_MINH = 1 << 7,
    CONFIG_MASK = 0xff,
    START_INIT_VALUE = 1 << 0,
    START_INIT_SNAPSHOT = 1 << 1,
    STOP_RESET = 1 << 0,
    STOP_SNAPSHOT = 1 << 1,
};

#define COUNTERS   (SBI_HW_COUNTERS + SBI_FW_COUNTERS)
#define INFO_FW    (1ULL << 63)
#define INFO_WIDTH (63ULL << 12) /* 64 bits */

static bool is_programmable(uint64_t i)
{
    return i >= FIRST_PROGRAMMABLE && i < SBI_HW_COUNTERS;
}

static bool exists(const struct sbi_hart *h, uint64_t i)
{
    if (is_programmable(i))
        return h->programmable & BIT(i);
    return i == COUNTER_CYCLE || i == COUNTER_INSTRET || (i >= SBI_HW_COUNTERS && i < COUNTERS);
}

static struct sbi_counter *counter_at(struct sbi_hart *h, uint64_t i)
{
    return i < SBI_HW_COUNTERS ? &h->hw[i] : &h->fw[i - SBI_HW_COUNTERS];
}

static uint64_t event_count(const struct sbi_hart *h, uint32_t event)
{
    return __atomic_load_n(&h->events[event], __ATOMIC_RELAXED);
}

static uint64_t fw_value(const struct sbi_hart *h, const struct sbi_counter *c)
{
    return c->started ? c->value + event_count(h, c->event) : c->value;
}

/* mcountinhibit stops a hardware counter. */
static void inhibit(struct sbi_hart *h, uint64_t i, bool stop)
{
    uint64_t bits = 0;

    (void)vcpu_get_reg(h->vcpu, REG_CSR + CSR_MCOUNTINHIBIT, &bits);
    bits = stop ? bits | BIT(i) : bits & ~BIT(i);
    (void)vcpu_set_reg(h->vcpu, REG_CSR + CSR_MCOUNTINHIBIT, bits); /* optional register */
}

static void set_value(struct sbi_hart *h, uint64_t i, uint64_t value)
{
    struct sbi_counter *c = counter_at(h, i);

    if (i >= SBI_HW_COUNTERS)
        c->value = c->started ? value - event_count(h, c->event) : value;
    else
        (void)vcpu_set_reg(h->vcpu, REG_CSR + CSR_MCYCLE + (unsigned)i, value);
}

static uint64_t get_selector(struct sbi_hart *h, uint64_t i)
{
    uint64_t value = 0;

    (void)vcpu_get_reg(h->vcpu, REG_CSR + CSR_MHPMEVENT0 + (unsigned)i, &value); /* it exists */
    return value;
}

static void set_selector(struct sbi_hart *h, uint64_t i, uint64_t value)
{
    (void)vcpu_set_reg(h->vcpu, REG_CSR + CSR_MHPMEVENT0 + (unsigned)i, value); /* it exists */
}

static void start(struct sbi_hart *h, uint64_t i)
{
    struct sbi_counter *c = counter_at(h, i);

    if (is_programmable(i)) /* it may interrupt once more */
        set_selector(h, i, get_selector(h, i) & ~EVENT_OVERFLOWED);
    if (i >= SBI_HW_COUNTERS)
        c->value -= event_count(h, c->event);
    else
        inhibit(h, i, false);
    c->started = true;
}

static void stop(struct sbi_hart *h, uint64_t i)
{
    struct sbi_counter *c = counter_at(h, i);

    if (i >= SBI_HW_COUNTERS)
        c->value = fw_value(h, c);
    else
        inhibit(h, i, true);
    c->started = false;
}

void sbi_pmu_reset(struct sbi_hart *h)
{
    for (unsigned i = 0; i < SBI_HW_COUNTERS; i++)
        h->hw[i] = (struct sbi_counter){0};
    for (unsigned i = 0; i < SBI_FW_COUNTERS; i++)
        h->fw[i] = (struct sbi_counter){0};
    h->programmable = 0;
    for (unsigned i = FIRST_PROGRAMMABLE; i < SBI_HW_COUNTERS; i++) {
        uint64_t ignored;

        if (vcpu_get_reg(h->vcpu, REG_CSR + CSR_MHPMEVENT0 + i, &ignored) == 0)
            h->programmable |= (uint32_t)BIT(i);
    }
}

static bool is_counted(uint32_t event)
{
    return event >= SBI_EVENT_SET_TIMER && event <= SBI_EVENT_SFENCE_ASID_RECEIVED;
}

/* Have programmable counter @i count @code, but in the modes that @flags exclude. The selector
 * keeps only events that the hart knows. */
static bool select_event(struct sbi_hart *h, uint64_t i, uint64_t code, uint64_t flags)
{
    /* §11.9: the flags are in mhpmevent's order, from bit 58 up */
    uint64_t inhibits = (flags & (CONFIG_UINH | CONFIG_SINH | CONFIG_MINH)) << (58 - 3);

    set_selector(h, i, code | inhibits);
    if (code && (get_selector(h, i) & EVENT_CODE_MASK) == code)
        return true;
    set_selector(h, i, 0);
    return false;
}

/* Set counter @i up for event @index; false if it cannot count that. */
static bool configure(struct sbi_hart *h, uint64_t i, uint64_t index, uint64_t data, uint64_t flags)
{
    uint32_t type = index >> 16 & 0xf;
    uint32_t code = index & 0xffff;

    if (i >= SBI_HW_COUNTERS)
        return type == EVENT_TYPE_FW && is_counted(code);
    if (type == EVENT_TYPE_FW)
        return false;
    if (is_programmable(i))
        return select_event(h, i, type == EVENT_TYPE_RAW ? data & EVENT_CODE_MASK : index, flags);
    return type == EVENT_TYPE_HW && ((code == EVENT_HW_CYCLES && i == COUNTER_CYCLE) ||
                                     (code == EVENT_HW_INSTRUCTIONS && i == COUNTER_INSTRET));
}

static struct sbi_return get_info(const struct sbi_hart *h, const struct sbi_args *args)
{
    uint64_t i = args->a[0];

    if (!exists(h, i))
        return sbi_error(SBI_INVALID_PARAM);
    return sbi_value(i >= SBI_HW_COUNTERS ? INFO_FW : (CSR_CYCLE + i) | INFO_WIDTH);
}

/* Do base a0 and mask a1 name only numbers below the count? With @present, only counters there are?
 */
static bool names_counters(const struct sbi_hart *h, const struct sbi_args *args, bool present)
{
    uint64_t base = args->a[0];

    if (base >= COUNTERS)
        return false;
    for (uint64_t mask = args->a[1]; mask; mask &= mask - 1) {
        uint64_t i = base + (unsigned)__builtin_ctzll(mask);

        if (i >= COUNTERS || (present && !exists(h, i)))
            return false;
    }
    return true;
}

/* The counter to use among those named, or COUNTERS. The two fixed ones are the last choice: they
 * cannot interrupt. */
static uint64_t choose(struct sbi_hart *h, const struct sbi_args *args)
{
    bool skip_match = args->a[2] & CONFIG_SKIP_MATCH;

    for (int fixed = 0; fixed <= 1; fixed++) {
        for (uint64_t mask = args->a[1]; mask; mask &= mask - 1) {
            uint64_t i = args->a[0] + (unsigned)__builtin_ctzll(mask);

            if (!exists(h, i) || (i < FIRST_PROGRAMMABLE) != fixed)
                continue;
            if (skip_match ? counter_at(h, i)->configured
                           : !counter_at(h, i)->configured &&
                                 configure(h, i, args->a[3], args->a[4], args->a[2]))
                return i;
        }
    }
    return COUNTERS;
}

/* §11.9: counters named by base a0 and mask a1, flags a2, event a3, its data a4. */
static struct sbi_return config_matching(struct sbi_hart *h, const struct sbi_args *args)
{
    uint64_t flags = args->a[2];

    if (!names_counters(h, args, false) || flags & ~(uint64_t)CONFIG_MASK || args->a[3] >> 20)
        return sbi_error(SBI_INVALID_PARAM);
    uint64_t i = choose(h, args);
    if (i == COUNTERS)
        return sbi_error(flags & CONFIG_SKIP_MATCH ? SBI_INVALID_PARAM : SBI_NOT_SUPPORTED);
    struct sbi_counter *c = counter_at(h, i);
    if (!(flags & CONFIG_SKIP_MATCH))
        *c = (struct sbi_counter){.configured = true, .event = args->a[3] & 0xffff};
    if (flags & CONFIG_CLEAR)
        set_value(h, i, 0);
    if (flags & CONFIG_AUTO_START && !c->started)
        start(h, i);
    return sbi_value(i);
}

static struct sbi_return counter_start(struct sbi_hart *h, const struct sbi_args *args)
{
    bool any_started = false;

    if (args->a[2] & START_INIT_SNAPSHOT)
        return sbi_error(SBI_NO_SHMEM);
    if (!names_counters(h, args, true) || args->a[2] & ~(uint64_t)START_INIT_VALUE)
        return sbi_error(SBI_INVALID_PARAM);
    for (uint64_t mask = args->a[1]; mask; mask &= mask - 1) {
        uint64_t i = args->a[0] + (unsigned)__builtin_ctzll(mask);
        struct sbi_counter *c = counter_at(h, i);

        if (!c->configured)
            return sbi_error(SBI_INVALID_PARAM);
        if (c->started) {
            any_started = true;
            continue;
        }
        if (args->a[2] & START_INIT_VALUE)
            set_value(h, i, args->a[3]);
        start(h, i);
    }
    return sbi_error(any_started ? SBI_ALREADY_STARTED : SBI_SUCCESS);
}

static struct sbi_return counter_stop(struct sbi_hart *h, const struct sbi_args *args)
{
    bool any_stopped = false;

    if (args->a[2] & STOP_SNAPSHOT)
        return sbi_error(SBI_NO_SHMEM);
    if (!names_counters(h, args, true) || args->a[2] & ~(uint64_t)STOP_RESET)
        return sbi_error(SBI_INVALID_PARAM);
    for (uint64_t mask = args->a[1]; mask; mask &= mask - 1) {
        uint64_t i = args->a[0] + (unsigned)__builtin_ctzll(mask);
        struct sbi_counter *c = counter_at(h, i);

        if (c->started)
            stop(h, i);
        else
            any_stopped = true;
        if (args->a[2] & STOP_RESET) {
            c->configured = false;
            if (is_programmable(i))
                set_selector(h, i, 0);
        }
    }
    return sbi_error(any_stopped ? SBI_ALREADY_STOPPED : SBI_SUCCESS);
}

static struct sbi_return fw_read(struct sbi_hart *h, const struct sbi_args *args, bool high)
{
    uint64_t i = args->a[0];

    if (i < SBI_HW_COUNTERS || i >= COUNTERS || !counter_at(h, i)->configured)
        return sbi_error(SBI_INVALID_PARAM);
    return sbi_value(high ? 0 : fw_value(h, counter_at(h, i))); /* the high part is for RV32 */
}

struct sbi_return sbi_pmu(struct sbi *s, const struct sbi_args *args, uint64_t fid)
{
    struct sbi_hart *h = &s->harts[args->hart];

    switch (fid) {
    case 0:
        return sbi_value(COUNTERS);
    case 1:
        return get_info(h, args);
    case 2:
        return config_matching(h, args);
    case 3:
        return counter_start(h, args);
    case 4:
        return counter_stop(h, args);
    case 5:
        return fw_read(h, args, false);
    case 6:
        return fw_read(h, args, true);
    default: /* snapshots and event information are optional */
        return sbi_error(SBI_NOT_SUPPORTED);
    }
}
