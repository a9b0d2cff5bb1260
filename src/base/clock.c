/* Host and guest time. The guest clock is two words, so readers never lock. */
#include "base/clock.h"

#include <time.h>

int64_t host_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void vclock_init(struct vclock *c, int64_t start_ns)
{
    c->offset_ns = host_now_ns() - start_ns;
    c->paused_ns = -1;
}

int64_t vclock_now_ns(const struct vclock *c)
{
    /* acquire: pairs with the release in vclock_resume(), so a running clock is read with its new
     * offset */
    int64_t paused = __atomic_load_n(&c->paused_ns, __ATOMIC_ACQUIRE);

    if (paused >= 0)
        return paused;
    return host_now_ns() - __atomic_load_n(&c->offset_ns, __ATOMIC_RELAXED);
}

int64_t vclock_to_host_ns(const struct vclock *c, int64_t guest_ns)
{
    int64_t host;

    if (!checked_add(guest_ns, __atomic_load_n(&c->offset_ns, __ATOMIC_RELAXED), &host))
        return INT64_MAX;
    return host;
}

void vclock_pause(struct vclock *c)
{
    if (__atomic_load_n(&c->paused_ns, __ATOMIC_RELAXED) < 0)
        __atomic_store_n(&c->paused_ns, vclock_now_ns(c), __ATOMIC_RELEASE);
}

void vclock_resume(struct vclock *c)
{
    int64_t paused = __atomic_load_n(&c->paused_ns, __ATOMIC_RELAXED);

    if (paused < 0)
        return;
    __atomic_store_n(&c->offset_ns, host_now_ns() - paused, __ATOMIC_RELAXED);
    __atomic_store_n(&c->paused_ns, -1, __ATOMIC_RELEASE); /* pairs with vclock_now_ns() */
}
