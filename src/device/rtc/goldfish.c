/* Goldfish real-time clock. Spec: Android's docs/GOLDFISH-VIRTUAL-HARDWARE, "Goldfish timer"; as
 * the Linux driver rtc-goldfish uses it.
 *
 * Invariants:
 *  1. The time in ns is the host's CLOCK_REALTIME plus `offset_ns`. It goes on while the guest is
 *     paused, as a battery clock does.
 *  2. A read of TIME_LOW latches the upper half for TIME_HIGH; a write of TIME_HIGH is kept until
 *     TIME_LOW is written; so both halves belong together.
 *
 * Threads: vCPUs, loop; one lock, taken before the interrupt controller's. */
#include "device/rtc/goldfish.h"
#include "base/clock.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum {
    TIME_LOW = 0x00,
    TIME_HIGH = 0x04,
    ALARM_LOW = 0x08,
    ALARM_HIGH = 0x0c,
    IRQ_ENABLED = 0x10,
    CLEAR_ALARM = 0x14,
    ALARM_STATUS = 0x18,
    CLEAR_INTERRUPT = 0x1c,
};

struct goldfish_rtc {
    struct goldfish_rtc_config config; /* [init] */
    struct mutex lock;
    struct loop_timer timer;
    int64_t offset_ns;      /* [lock] */
    uint32_t time_high;     /* [lock] latched by a read of TIME_LOW */
    uint32_t set_time_high; /* [lock] written, waiting for TIME_LOW */
    uint32_t alarm_high;    /* [lock] written, waiting for ALARM_LOW */
    uint64_t alarm_ns;      /* [lock] */
    bool armed;             /* [lock] */
    bool pending;           /* [lock] */
    bool irq_enabled;       /* [lock] */
};

static uint64_t now_locked(const struct goldfish_rtc *r) REQUIRES(r->lock)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec + (uint64_t)r->offset_ns;
}

static void update_locked(struct goldfish_rtc *r) REQUIRES(r->lock)
{
    if (r->armed) {
        uint64_t now = now_locked(r);

        if (now >= r->alarm_ns) {
            r->armed = false;
            r->pending = true;
        } else {
            /* The wall clock may jump: look again at least every minute. */
            uint64_t left = MIN(r->alarm_ns - now, (uint64_t)60 * 1000000000);

            loop_timer_set(r->config.loop, &r->timer, host_now_ns() + (int64_t)left);
        }
    }
    irq_set(&r->config.irq, r->pending && r->irq_enabled);
}

static void timer_fired(struct loop_timer *t)
{
    struct goldfish_rtc *r = t->arg;

    mutex_lock(&r->lock);
    update_locked(r);
    mutex_unlock(&r->lock);
}

static uint32_t read_locked(struct goldfish_rtc *r, uint64_t offset) REQUIRES(r->lock)
{
    switch (offset) {
    case TIME_LOW: {
        uint64_t now = now_locked(r);

        r->time_high = (uint32_t)(now >> 32);
        return (uint32_t)now;
    }
    case TIME_HIGH:
        return r->time_high;
    case ALARM_LOW:
        return (uint32_t)r->alarm_ns;
    case ALARM_HIGH:
        return (uint32_t)(r->alarm_ns >> 32);
    case IRQ_ENABLED:
        return r->irq_enabled;
    case ALARM_STATUS:
        return r->armed;
    default:
        return 0;
    }
}

static void write_locked(struct goldfish_rtc *r, uint64_t offset, uint32_t value) REQUIRES(r->lock)
{
    switch (offset) {
    case TIME_LOW:
        r->offset_ns += (int64_t)(((uint64_t)r->set_time_high << 32 | value) - now_locked(r));
        break;
    case TIME_HIGH:
        r->set_time_high = value;
        break;
    case ALARM_LOW:
        r->alarm_ns = (uint64_t)r->alarm_high << 32 | value;
        r->armed = true;
        break;
    case ALARM_HIGH:
        r->alarm_high = value;
        break;
    case IRQ_ENABLED:
        r->irq_enabled = value & 1;
        break;
    case CLEAR_ALARM:
        r->armed = false;
        break;
    case CLEAR_INTERRUPT:
        r->pending = false;
        break;
    default:
        break;
    }
    update_locked(r);
}

static enum bus_result rtc_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct goldfish_rtc *r = dev;

    mutex_lock(&r->lock);
    *ret = read_locked(r, offset);
    mutex_unlock(&r->lock);
    return BUS_OK;
}

static enum bus_result rtc_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct goldfish_rtc *r = dev;

    mutex_lock(&r->lock);
    write_locked(r, offset, (uint32_t)value);
    mutex_unlock(&r->lock);
    return BUS_OK;
}

static const struct mmio_ops rtc_ops = {
    .name = "rtc",
    .read = rtc_read,
    .write = rtc_write,
    .min_size = 4,
    .max_size = 4,
};

int goldfish_rtc_new(struct mem *mem, gpa_t base, const struct goldfish_rtc_config *config,
                     struct goldfish_rtc **ret, struct error *err)
{
    struct goldfish_rtc *r = calloc(1, sizeof(*r));

    if (!r)
        return error_set(err, ENOMEM, "out of memory");
    r->config = *config;
    r->timer = (struct loop_timer){.fn = timer_fired, .arg = r};
    mutex_init(&r->lock);
    int rc = mem_add_mmio(mem, base, GOLDFISH_RTC_SIZE, &rtc_ops, r, err);
    if (rc) {
        goldfish_rtc_free(r);
        return rc;
    }
    *ret = r;
    return 0;
}

void goldfish_rtc_free(struct goldfish_rtc *r)
{
    if (!r)
        return;
    loop_timer_cancel(r->config.loop, &r->timer);
    mutex_done(&r->lock);
    free(r);
}

void goldfish_rtc_reset(struct goldfish_rtc *r)
{
    mutex_lock(&r->lock);
    r->armed = r->pending = r->irq_enabled = false;
    r->alarm_ns = 0;
    r->alarm_high = r->set_time_high = r->time_high = 0;
    update_locked(r);
    mutex_unlock(&r->lock);
}

static const struct state_field rtc_fields[] = {
    STATE_FIELD(struct goldfish_rtc, offset_ns),
    STATE_FIELD(struct goldfish_rtc, time_high),
    STATE_FIELD(struct goldfish_rtc, set_time_high),
    STATE_FIELD(struct goldfish_rtc, alarm_high),
    STATE_FIELD(struct goldfish_rtc, alarm_ns),
    STATE_FIELD(struct goldfish_rtc, armed),
    STATE_FIELD(struct goldfish_rtc, pending),
    STATE_FIELD(struct goldfish_rtc, irq_enabled),
    {0},
};

void goldfish_rtc_save(struct goldfish_rtc *r, struct state_out *out)
{
    mutex_lock(&r->lock);
    state_save(out, "rtc", 0, 1, rtc_fields, r);
    mutex_unlock(&r->lock);
}

/* The offset is to the host's clock, which may be another's now: wall time goes on, as it does for
 * a battery clock. */
int goldfish_rtc_load(struct goldfish_rtc *r, const struct state_in *in, struct error *err)
{
    mutex_lock(&r->lock);
    int rc = state_load(in, "rtc", 0, 1, rtc_fields, r, err);
    update_locked(r);
    mutex_unlock(&r->lock);
    return rc;
}
