/* The PC's real-time clock and memory. Spec: Motorola MC146818A data sheet; IBM PC/AT Technical
 * Reference for what lies behind register 0x0d; ACPI for the century (register 0x32).
 *
 * Invariants:
 *  1. The time is the host's plus offset_s; registers 0 to 9 are computed when they are read, so
 *     they never change half-way: UIP always reads as 0.
 *  2. The timer runs only while register B enables an interrupt.
 *
 * Not there: the square wave, daylight saving, a 12-hour alarm's "don't care" beyond the specified.
 *
 * Threads: vCPUs, loop (timer); one lock, taken before the interrupt controller's. */
#include "device/pc/cmos.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/thread.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SECONDS = 0,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    CENTURY = 0x32,
};

enum { B_24H = 2, B_BINARY = 4, B_UPDATE = 0x10, B_ALARM = 0x20, B_PERIODIC = 0x40, B_SET = 0x80 };
enum { C_UPDATE = 0x10, C_ALARM = 0x20, C_PERIODIC = 0x40, C_IRQ = 0x80 };
enum { D_VALID = 0x80, A_DIVIDER = 0x20, A_RATE_MASK = 15, HOUR_PM = 0x80, ALARM_ANY = 0xc0 };

#define NS_PER_S 1000000000LL

struct cmos {
    struct cmos_config config; /* [init] */
    struct mutex lock;
    struct loop_timer timer;
    uint8_t index;          /* [lock] register chosen by port 0x70 */
    uint8_t ram[CMOS_SIZE]; /* [lock] 0 to 9 only hold the alarm, and the time while B_SET */
    int64_t offset_s;       /* [lock] guest's time minus the host's */
    int64_t seen_s;         /* [lock] the second of the last update interrupt */
    int64_t periodic_ns;    /* [lock] host_now_ns() of the next periodic interrupt */
};

static int64_t host_seconds(void)
{
    return (int64_t)time(NULL);
}

static uint8_t encode(const struct cmos *c, int value)
{
    return (uint8_t)(c->ram[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static int decode(const struct cmos *c, uint8_t value)
{
    return c->ram[REG_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 15);
}

static uint8_t encode_hour(const struct cmos *c, int hour)
{
    if (c->ram[REG_B] & B_24H)
        return encode(c, hour);
    return (uint8_t)(encode(c, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0));
}

static int decode_hour(const struct cmos *c, uint8_t value)
{
    if (c->ram[REG_B] & B_24H)
        return decode(c, value);
    return decode(c, value & 0x7f) % 12 + (value & HOUR_PM ? 12 : 0);
}

/** Registers 0, 2, 4, 6 to 9 and the century from the clock. */
static void show_time_locked(struct cmos *c) REQUIRES(c->lock)
{
    time_t now = (time_t)(host_seconds() + c->offset_s);
    struct tm tm;

    if (c->ram[REG_B] & B_SET || !gmtime_r(&now, &tm))
        return;
    c->ram[SECONDS] = encode(c, tm.tm_sec);
    c->ram[MINUTES] = encode(c, tm.tm_min);
    c->ram[HOURS] = encode_hour(c, tm.tm_hour);
    c->ram[WEEKDAY] = encode(c, tm.tm_wday + 1);
    c->ram[DAY] = encode(c, tm.tm_mday);
    c->ram[MONTH] = encode(c, tm.tm_mon + 1);
    c->ram[YEAR] = encode(c, tm.tm_year % 100);
    c->ram[CENTURY] = (uint8_t)((19 + tm.tm_year / 100) / 10 << 4 | (19 + tm.tm_year / 100) % 10);
}

/** The clock from those registers. */
static void take_time_locked(struct cmos *c) REQUIRES(c->lock)
{
    int century = (c->ram[CENTURY] >> 4) * 10 + (c->ram[CENTURY] & 15);
    struct tm tm = {
        .tm_sec = decode(c, c->ram[SECONDS]),
        .tm_min = decode(c, c->ram[MINUTES]),
        .tm_hour = decode_hour(c, c->ram[HOURS]),
        .tm_mday = decode(c, c->ram[DAY]),
        .tm_mon = decode(c, c->ram[MONTH]) - 1,
        .tm_year = century * 100 + decode(c, c->ram[YEAR]) - 1900,
    };

    c->offset_s = (int64_t)timegm(&tm) - host_seconds(); /* any registers give some time */
}

static bool alarm_matches_locked(const struct cmos *c) REQUIRES(c->lock)
{
    static const uint8_t pairs[3] = {SECONDS, MINUTES, HOURS};

    for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++) {
        uint8_t alarm = c->ram[pairs[i] + 1];

        if (alarm < ALARM_ANY && alarm != c->ram[pairs[i]])
            return false;
    }
    return true;
}

/** Period of the rate in register A; 0 = none. */
static int64_t period_ns(const struct cmos *c)
{
    unsigned rate = c->ram[REG_A] & A_RATE_MASK;

    if (!rate)
        return 0;
    if (rate < 3)
        rate += 7; /* table 5: with the usual divider, 1 and 2 are as 8 and 9 */
    return NS_PER_S / (32768 >> (rate - 1));
}

/** The output follows the flags and what B enables. */
static void drive_locked(struct cmos *c) REQUIRES(c->lock)
{
    bool up = c->ram[REG_C] & c->ram[REG_B] & (C_UPDATE | C_ALARM | C_PERIODIC);

    c->ram[REG_C] = (uint8_t)((c->ram[REG_C] & ~C_IRQ) | (up ? C_IRQ : 0));
    irq_set(&c->config.irq, up);
}

static void arm_locked(struct cmos *c) REQUIRES(c->lock)
{
    int64_t now = host_now_ns();
    int64_t at = INT64_MAX;

    if (c->ram[REG_B] & (B_UPDATE | B_ALARM)) {
        struct timespec real;

        clock_gettime(CLOCK_REALTIME, &real);
        at = now + NS_PER_S - real.tv_nsec;
    }
    if (c->ram[REG_B] & B_PERIODIC && period_ns(c)) {
        if (c->periodic_ns <= now)
            c->periodic_ns = now + period_ns(c);
        at = MIN(at, c->periodic_ns);
    }
    if (at == INT64_MAX)
        loop_timer_cancel(c->config.loop, &c->timer);
    else
        loop_timer_set(c->config.loop, &c->timer, at);
}

static void tick(struct loop_timer *t)
{
    struct cmos *c = t->arg;
    int64_t now = host_seconds();

    mutex_lock(&c->lock);
    if (c->ram[REG_B] & B_PERIODIC && host_now_ns() >= c->periodic_ns)
        c->ram[REG_C] |= C_PERIODIC;
    if (now != c->seen_s && !(c->ram[REG_B] & B_SET)) {
        c->seen_s = now;
        show_time_locked(c);
        c->ram[REG_C] |= C_UPDATE;
        if (alarm_matches_locked(c))
            c->ram[REG_C] |= C_ALARM;
    }
    drive_locked(c);
    arm_locked(c);
    mutex_unlock(&c->lock);
}

static uint8_t read_locked(struct cmos *c) REQUIRES(c->lock)
{
    uint8_t value;

    switch (c->index) {
    case REG_C: /* reading acknowledges */
        value = c->ram[REG_C];
        c->ram[REG_C] = 0;
        drive_locked(c);
        return value;
    case REG_D:
        return D_VALID;
    default:
        if (c->index <= YEAR || c->index == CENTURY)
            show_time_locked(c);
        return c->ram[c->index];
    }
}

static void write_locked(struct cmos *c, uint8_t value) REQUIRES(c->lock)
{
    bool was_set = c->ram[REG_B] & B_SET;

    switch (c->index) {
    case REG_A:
        c->ram[REG_A] = value & 0x7f;
        arm_locked(c);
        return;
    case REG_B:
        if (value & B_SET && !was_set)
            show_time_locked(c);
        c->ram[REG_B] = value & B_SET ? value & (uint8_t)~B_UPDATE : value;
        if (was_set && !(value & B_SET))
            take_time_locked(c);
        c->seen_s = host_seconds();
        drive_locked(c);
        arm_locked(c);
        return;
    case REG_C:
    case REG_D:
        return;
    case SECONDS_ALARM:
    case MINUTES_ALARM:
    case HOURS_ALARM:
        c->ram[c->index] = value;
        return;
    default:
        if (c->index > YEAR && c->index != CENTURY) {
            c->ram[c->index] = value;
            return;
        }
        show_time_locked(c);
        c->ram[c->index] = value;
        if (!was_set)
            take_time_locked(c);
    }
}

static enum bus_result cmos_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct cmos *c = dev;

    *ret = 0xff; /* the index cannot be read back */
    if (offset == 1) {
        mutex_lock(&c->lock);
        *ret = read_locked(c);
        mutex_unlock(&c->lock);
    }
    return BUS_OK;
}

static enum bus_result cmos_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct cmos *c = dev;

    mutex_lock(&c->lock);
    if (offset == 1)
        write_locked(c, (uint8_t)value);
    else
        c->index = value & (CMOS_SIZE - 1); /* bit 7 masks NMI, of which there is none */
    mutex_unlock(&c->lock);
    return BUS_OK;
}

static const struct mmio_ops cmos_ops = {
    .name = "cmos",
    .read = cmos_read,
    .write = cmos_write,
    .max_size = 1,
};

int cmos_new(struct mem *ports, const struct cmos_config *config, struct cmos **ret,
             struct error *err)
{
    struct cmos *c = calloc(1, sizeof(*c));

    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    c->config = *config;
    c->timer = (struct loop_timer){.fn = tick, .arg = c};
    mutex_init(&c->lock);
    int rc = mem_add_mmio(ports, GPA(CMOS_PORT), 2, &cmos_ops, c, err);
    if (rc) {
        cmos_free(c);
        return rc;
    }
    c->ram[REG_A] = A_DIVIDER | 6;
    c->ram[REG_B] = B_24H;
    *ret = c;
    return 0;
}

void cmos_free(struct cmos *c)
{
    if (!c)
        return;
    loop_timer_cancel(c->config.loop, &c->timer);
    mutex_done(&c->lock);
    free(c);
}

void cmos_reset(struct cmos *c)
{
    mutex_lock(&c->lock);
    c->index = 0;
    c->ram[REG_B] &= (uint8_t) ~(B_UPDATE | B_ALARM | B_PERIODIC);
    c->ram[REG_C] = 0;
    drive_locked(c);
    arm_locked(c);
    mutex_unlock(&c->lock);
}

void cmos_set(struct cmos *c, unsigned at, uint8_t value)
{
    assert(at > REG_D && at < CMOS_SIZE);
    mutex_lock(&c->lock);
    c->ram[at] = value;
    mutex_unlock(&c->lock);
}

static const struct state_field cmos_fields[] = {
    STATE_FIELD(struct cmos, index),
    STATE_ARRAY(struct cmos, ram),
    STATE_FIELD(struct cmos, offset_s),
    {0},
};

void cmos_save(struct cmos *c, struct state_out *out)
{
    mutex_lock(&c->lock);
    state_save(out, "cmos", 0, 1, cmos_fields, c);
    mutex_unlock(&c->lock);
}

int cmos_load(struct cmos *c, const struct state_in *in, struct error *err)
{
    mutex_lock(&c->lock);
    int rc = state_load(in, "cmos", 0, 1, cmos_fields, c, err);
    c->index &= CMOS_SIZE - 1;
    if (!rc && (c->offset_s > INT32_MAX * 1000LL || c->offset_s < INT32_MIN * 1000LL))
        rc = error_set(err, EINVAL, "saved state of cmos: the clock is out of bounds");
    if (!rc) {
        c->ram[REG_A] &= 0x7f;
        c->seen_s = host_seconds();
        drive_locked(c);
        arm_locked(c);
    }
    mutex_unlock(&c->lock);
    return rc;
}
