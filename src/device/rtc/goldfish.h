/* Goldfish real-time clock with alarm. */
#ifndef DEVICE_RTC_GOLDFISH_H
#define DEVICE_RTC_GOLDFISH_H

#include "base/loop.h"
#include "device/irq.h"
#include "mem/mem.h"

#define GOLDFISH_RTC_SIZE 0x1000ULL

struct state_in;
struct state_out;
struct goldfish_rtc;

struct goldfish_rtc_config {
    struct irq_line irq;
    struct loop *loop; /* runs the alarm; borrowed */
};

/** Add the clock at @base of @mem; it shows the host's CLOCK_REALTIME until the guest sets it.
 * *@ret is the caller's, freed after @mem. */
must_check int goldfish_rtc_new(struct mem *mem, gpa_t base,
                                const struct goldfish_rtc_config *config, struct goldfish_rtc **ret,
                                struct error *err);
void goldfish_rtc_free(struct goldfish_rtc *r);

/** Alarm and interrupt off; the time goes on. */
void goldfish_rtc_reset(struct goldfish_rtc *r);

/** State for a snapshot: vCPUs and loops stand still. A failed load leaves the device in any state:
 * reset or free it. */
void goldfish_rtc_save(struct goldfish_rtc *r, struct state_out *out);
must_check int goldfish_rtc_load(struct goldfish_rtc *r, const struct state_in *in,
                                 struct error *err);

#endif
