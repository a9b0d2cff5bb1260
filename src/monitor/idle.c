/* A machine that has nothing to do gives memory back (vm_trim()).
 *
 * A boot leaves tens of MiB of translated code that never runs again: the first time that the
 * machine is idle it is forgotten, and what the guest goes on with is translated anew. Later the
 * same happens only where the host's memory gets short, since a machine that has just been trimmed
 * answers its first command slowly.
 *
 * Threads: the loop looks every TICK_NS at what the process has used of the host's processors;
 * `trim` does it, one at a time. */
#include "monitor/idle.h"

#include "base/clock.h"
#include "base/loop.h"
#include "base/thread.h"
#include "monitor/keeper.h"
#include "monitor/monitor_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define TICK_NS     (10LL * 1000000000)
#define IDLE_NS     (TICK_NS / 33) /* of a processor's time in a tick */
#define QUIET_TICKS 3

struct idle {
    struct monitor *monitor; /* [init] */
    struct loop_timer timer;
    int64_t cpu_ns; /* [loop] used until the last tick */
    unsigned quiet; /* [loop] ticks in a row without work */
    bool booted;    /* [loop] the first time is over */
    bool trimmed;   /* [loop] since it was last busy */
    struct mutex lock;
    pthread_t thread; /* [lock] to be joined if has_thread */
    bool has_thread;  /* [lock] */
    bool stop;        /* [lock] no more are started */
    bool running;     /* [lock] the thread is not at its end */
};

static int64_t cpu_time(void)
{
    struct timespec t;

    return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) ? 0 : t.tv_sec * 1000000000LL + t.tv_nsec;
}

/** Is less than half of the host's memory available? */
static bool memory_is_short(void)
{
    unsigned long long total = 0, available = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];

    while (f && fgets(line, sizeof(line), f)) {
        (void)sscanf(line, "MemTotal: %llu", &total); /* other lines do not match */
        (void)sscanf(line, "MemAvailable: %llu", &available);
    }
    if (f)
        (void)fclose(f); /* was read */
    return available < total / 2;
}

static void *trim_main(void *arg)
{
    struct idle *i = arg;

    keeper_enter(monitor_keeper(i->monitor));
    struct vm *vm = monitor_hold(i->monitor);
    if (vm) {
        if (vm_get_state(vm) == VM_RUNNING)
            vm_trim(vm);
        monitor_release(i->monitor);
    }
    keeper_leave(monitor_keeper(i->monitor));
    mutex_lock(&i->lock);
    i->running = false;
    mutex_unlock(&i->lock);
    return NULL;
}

static void trim(struct idle *i)
{
    mutex_lock(&i->lock);
    if (!i->stop && !i->running) {
        if (i->has_thread)
            thread_join(i->thread); /* it has ended, or is about to */
        i->has_thread = i->running = !thread_start(&i->thread, "trim", trim_main, i);
    }
    mutex_unlock(&i->lock);
}

static void tick(struct loop_timer *t)
{
    struct idle *i = t->arg;
    int64_t now_ns = cpu_time();

    i->quiet = now_ns - i->cpu_ns < IDLE_NS ? i->quiet + 1 : 0;
    i->trimmed &= i->quiet > 0;
    i->booted |= monitor_is_sharing(i->monitor); /* what it gave back, clones would keep */
    i->cpu_ns = now_ns;
    if (!i->trimmed && i->quiet && (!i->booted || (i->quiet >= QUIET_TICKS && memory_is_short()))) {
        i->booted = i->trimmed = true;
        trim(i);
        i->cpu_ns += IDLE_NS; /* what that takes is not work */
    }
    loop_timer_set(monitor_loop(i->monitor), t, host_now_ns() + TICK_NS);
}

int idle_new(struct monitor *m, struct idle **ret, struct error *err)
{
    struct idle *i = calloc(1, sizeof(*i));

    if (!i)
        return error_set(err, ENOMEM, "out of memory");
    i->monitor = m;
    i->timer = (struct loop_timer){.fn = tick, .arg = i};
    mutex_init(&i->lock);
    *ret = i;
    return 0;
}

void idle_start(struct idle *i)
{
    i->booted = false;
    loop_timer_set(monitor_loop(i->monitor), &i->timer, host_now_ns() + TICK_NS);
}

void idle_free(struct idle *i)
{
    if (!i)
        return;
    mutex_lock(&i->lock);
    i->stop = true;
    mutex_unlock(&i->lock);
    loop_timer_cancel(monitor_loop(i->monitor), &i->timer);
    loop_sync(monitor_loop(i->monitor)); /* tick() is over, which starts threads */
    loop_timer_cancel(monitor_loop(i->monitor), &i->timer); /* as it has set it again */
    if (i->has_thread)
        thread_join(i->thread);
    mutex_done(&i->lock);
    free(i);
}
