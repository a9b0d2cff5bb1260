/* Host time, and the clock of one guest, which stands still while the guest is paused. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include "base/macros.h"
#include "base/thread.h"

/** CLOCK_MONOTONIC in nanoseconds. */
int64_t host_now_ns(void);

struct vclock {
    int64_t offset_ns; /* [atomic] guest time = host time - offset while running */
    int64_t paused_ns; /* [atomic] guest time at the pause, or -1 while running */
};

/** A running clock that reads @start_ns now. */
void vclock_init(struct vclock *c, int64_t start_ns);

/** Guest time in ns. Any thread. */
int64_t vclock_now_ns(const struct vclock *c);

/** The CLOCK_MONOTONIC time at which the guest clock will read @guest_ns, provided it is not
 * paused; saturates at INT64_MAX. Any thread. */
int64_t vclock_to_host_ns(const struct vclock *c, int64_t guest_ns);

/** Stop and restart the clock; idempotent. One thread at a time, vCPUs stopped. */
void vclock_pause(struct vclock *c);
void vclock_resume(struct vclock *c);

#endif
