/* Time, cycle, instret and the 29 programmable counters with overflow interrupts.
 *
 * Cycles are nanoseconds of guest time, as of a 1 GHz clock. Programmable counters count what enum
 * rv_hpm_event names, which are the SBI's event numbers. A counter of time or instructions that
 * will overflow asks for a timer at the earliest moment that it can; others are polled.
 * Invariants: 1. running == should_run() for each counter, whenever the guest executes. 2. A
 * counter is folded (value brought up to date) before running, event or privilege change. Threads:
 * the hart's own. Spec: Privileged 1.13 §3.1.10 to §3.1.12; Sscofpmf. */
#include "cpu/guest/riscv/csr_internal.h"

#define CYCLE          0
#define INSTRET        2
#define EVENT_CODE(e)  ((e)&MASK(56))
#define EVENT_INHIBITS (MHPMEVENT_MINH | MHPMEVENT_SINH | MHPMEVENT_UINH)
#define NS_PER_S       1000000000
#define POLL_NS        1000000
#define LEAST_WAIT_NS  20000ULL
#define POLLED_REMAINING \
    (1ULL << 32) /* an engine event that is further from overflow is not polled */

uint64_t rv_time(struct rv_hart *h)
{
    uint64_t ns = (uint64_t)cpu_now_ns(&h->cpu);

    if (NS_PER_S % h->timebase_hz == 0)
        return ns / (NS_PER_S / h->timebase_hz);
    return (uint64_t)((unsigned __int128)ns * h->timebase_hz / NS_PER_S);
}

int64_t rv_ticks_to_ns(const struct rv_hart *h, uint64_t ticks)
{
    unsigned __int128 ns =
        ((unsigned __int128)ticks * NS_PER_S + h->timebase_hz - 1) / h->timebase_hz;

    return ns > INT64_MAX ? INT64_MAX : (int64_t)ns;
}

/** What counter @i counts; RV_HPM_NONE for an event that is not known. */
static unsigned source_of(const struct rv_hart *h, unsigned i)
{
    if (i == CYCLE)
        return RV_HPM_CYCLES;
    if (i == INSTRET)
        return RV_HPM_INSTRUCTIONS;
    return (unsigned)EVENT_CODE(h->event[i]);
}

static bool is_known(uint64_t code)
{
    switch (code) {
    case RV_HPM_CYCLES:
    case RV_HPM_INSTRUCTIONS:
    case RV_HPM_DTLB_READ_MISS:
    case RV_HPM_DTLB_WRITE_MISS:
    case RV_HPM_ITLB_READ_MISS:
    case RV_HPM_EXCEPTIONS:
    case RV_HPM_INTERRUPTS:
        return true;
    default:
        return false;
    }
}

static uint64_t source_now(struct rv_hart *h, unsigned i)
{
    switch (source_of(h, i)) {
    case RV_HPM_CYCLES:
        return (uint64_t)cpu_now_ns(&h->cpu);
    case RV_HPM_INSTRUCTIONS:
        return h->cpu.instret;
    case RV_HPM_DTLB_READ_MISS:
        return h->events[RV_EVENT_LOAD_WALK];
    case RV_HPM_DTLB_WRITE_MISS:
        return h->events[RV_EVENT_STORE_WALK];
    case RV_HPM_ITLB_READ_MISS:
        return h->events[RV_EVENT_FETCH_WALK];
    case RV_HPM_EXCEPTIONS:
        return h->events[RV_EVENT_EXCEPTION];
    case RV_HPM_INTERRUPTS:
        return h->events[RV_EVENT_INTERRUPT];
    default:
        return 0;
    }
}

static bool should_run(const struct rv_hart *h, unsigned i)
{
    if (i == 1 || h->mcountinhibit >> i & 1)
        return false;
    if (i <= INSTRET)
        return true;
    uint64_t inhibit = h->priv == RV_M   ? MHPMEVENT_MINH
                       : h->priv == RV_S ? MHPMEVENT_SINH
                                         : MHPMEVENT_UINH;
    return EVENT_CODE(h->event[i]) && !(h->event[i] & inhibit);
}

/** Overflow interrupts once, when OF goes from 0 to 1. */
static bool is_armed(const struct rv_hart *h, unsigned i)
{
    return i > INSTRET && h->counter[i].running && !(h->event[i] & MHPMEVENT_OF);
}

/** Bring the value of counter @i up to date. */
static void fold(struct rv_hart *h, unsigned i)
{
    struct rv_counter *c = &h->counter[i];

    if (!c->running)
        return;
    uint64_t now = source_now(h, i);
    bool overflow = !checked_add(c->value, now - c->base, &c->value);
    c->base = now;
    if (overflow && is_armed(h, i)) {
        h->event[i] |= MHPMEVENT_OF;
        h->mip |= MIP_LCOFIP;
        rv_check_interrupts(h);
    }
}

/** Let counter @i, which is folded, run or stand as it should from now on. */
static void restart(struct rv_hart *h, unsigned i)
{
    struct rv_counter *c = &h->counter[i];

    c->running = should_run(h, i);
    if (c->running)
        c->base = source_now(h, i);
}

static void update_summary(struct rv_hart *h)
{
    bool was_armed = h->overflow_armed;

    h->counters_filtered = false;
    h->overflow_armed = false;
    for (unsigned i = INSTRET + 1; i < RV_COUNTERS; i++) {
        if (EVENT_CODE(h->event[i]) && h->event[i] & EVENT_INHIBITS)
            h->counters_filtered = true;
        if (is_armed(h, i))
            h->overflow_armed = true;
    }
    if (h->overflow_armed || was_armed)
        cpu_timer_changed(&h->cpu);
}

void rv_counters_refresh(struct rv_hart *h)
{
    for (unsigned i = 0; i < RV_COUNTERS; i++) {
        fold(h, i);
        restart(h, i);
    }
    update_summary(h);
}

uint64_t rv_counter_read(struct rv_hart *h, unsigned i)
{
    fold(h, i);
    return h->counter[i].value;
}

void rv_counter_write(struct rv_hart *h, unsigned i, uint64_t value)
{
    fold(h, i); /* an overflow so far still counts */
    h->counter[i].value = value;
    if (i > INSTRET)
        update_summary(h);
}

void rv_counter_skip_insn(struct rv_hart *h, unsigned i)
{
    if (h->counter[i].running && source_of(h, i) == RV_HPM_INSTRUCTIONS)
        h->counter[i].base++;
}

void rv_set_mcountinhibit(struct rv_hart *h, uint64_t value)
{
    h->mcountinhibit = value & (UINT32_MAX & ~BIT(1));
    rv_counters_refresh(h);
}

void rv_set_mhpmevent(struct rv_hart *h, unsigned i, uint64_t value)
{
    uint64_t code = EVENT_CODE(value);

    fold(h, i);
    h->event[i] = (value & (MHPMEVENT_OF | EVENT_INHIBITS)) | (is_known(code) ? code : 0);
    restart(h, i);
    update_summary(h);
}

void rv_counters_poll(struct rv_hart *h)
{
    for (unsigned i = INSTRET + 1; i < RV_COUNTERS; i++) {
        if (is_armed(h, i))
            fold(h, i);
    }
    update_summary(h);
}

int64_t rv_counters_deadline_ns(struct rv_hart *h)
{
    int64_t deadline = INT64_MAX;
    int64_t now = cpu_now_ns(&h->cpu);

    for (unsigned i = INSTRET + 1; i < RV_COUNTERS; i++) {
        uint64_t wait = is_armed(h, i) ? -rv_counter_read(h, i) : 0;

        if (!wait) /* 0 stands for 2^64 */
            continue;
        if (source_of(h, i) == RV_HPM_INSTRUCTIONS)
            wait =
                MAX(wait / 4, LEAST_WAIT_NS); /* no faster than 4 a ns; a little late is allowed */
        else if (source_of(h, i) != RV_HPM_CYCLES)
            wait = wait > POLLED_REMAINING ? INT64_MAX : POLL_NS;
        if (wait < (uint64_t)(INT64_MAX - now))
            deadline = MIN(deadline, now + (int64_t)wait);
    }
    return deadline;
}

uint64_t rv_scountovf(const struct rv_hart *h)
{
    uint64_t overflows = 0;

    for (unsigned i = INSTRET + 1; i < RV_COUNTERS; i++) {
        if (h->event[i] & MHPMEVENT_OF)
            overflows |= BIT(i);
    }
    return h->priv == RV_M ? overflows : overflows & h->mcounteren;
}

void rv_counters_reset(struct rv_hart *h)
{
    h->mcountinhibit = 0;
    h->counters_filtered = false;
    h->overflow_armed = false;
    for (unsigned i = 0; i < RV_COUNTERS; i++) {
        h->event[i] = 0;
        h->counter[i].value = 0;
        restart(h, i);
    }
}
