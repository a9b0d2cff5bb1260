/* Event loop on epoll, one timerfd and one eventfd.
 *
 * Invariants:
 *  1. `timers` is sorted by deadline; timer_fd is armed for its head or earlier.
 *  2. A callback runs with `lock` free.
 *  3. `posted` and `ran` count tasks; a task's number is its place in the order of posting.
 */
#include "base/loop.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/thread.h"

#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

struct task {
    void (*fn)(void *arg);
    void *arg;
    struct task *next;
};

struct loop {
    char name[16];    /* [init] */
    int epoll_fd;     /* [init] */
    int timer_fd;     /* [init] */
    int event_fd;     /* [init] wakes the loop for tasks and stop */
    pthread_t thread; /* [init] valid when started */
    bool started;     /* [init] */

    struct mutex lock;
    struct loop_timer *timers; /* [lock] */
    int64_t armed_ns;          /* [lock] what timer_fd is set to, INT64_MAX = nothing */
    struct task *first;        /* [lock] */
    struct task **last;        /* [lock] */
    uint64_t generation;       /* [lock] callbacks rounds finished */
    struct cond round_done;    /* [lock] */
    bool running;              /* [lock] a thread is in loop_run() */
    pthread_t runner;          /* [lock] valid when running */
    bool stop;                 /* [lock] */
    struct loop_hook *hooks;   /* [lock] */

    struct epoll_event *events; /* [loop] the round's events not yet called back, */
    int event_count;            /* [loop] of which one whose watch goes away is forgotten */
};

struct loop *loop_new(const char *name)
{
    struct loop *loop = calloc(1, sizeof(*loop));

    if (!loop)
        return NULL;
    (void)snprintf(loop->name, sizeof(loop->name), "%s", name);
    mutex_init(&loop->lock);
    cond_init(&loop->round_done);
    loop->last = &loop->first;
    loop->armed_ns = INT64_MAX;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event timer = {.events = EPOLLIN, .data.ptr = &loop->timer_fd};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &loop->event_fd};
    if (loop->epoll_fd < 0 || loop->timer_fd < 0 || loop->event_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->timer_fd, &timer) ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->event_fd, &event)) {
        loop_free(loop);
        return NULL;
    }
    return loop;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    if (loop->started) {
        loop_stop(loop);
        thread_join(loop->thread);
    }
    for (struct task *t = loop->first; t;) {
        struct task *next = t->next;

        free(t);
        t = next;
    }
    fd_close(loop->epoll_fd);
    fd_close(loop->timer_fd);
    fd_close(loop->event_fd);
    cond_done(&loop->round_done);
    mutex_done(&loop->lock);
    free(loop);
}

static void *thread_main(void *arg)
{
    loop_run(arg);
    return NULL;
}

int loop_start(struct loop *loop)
{
    /* The loop counts as running from here on, so that loop_sync() waits for a thread that has not
     * got going yet. */
    mutex_lock(&loop->lock);
    int rc = thread_start(&loop->thread, loop->name, thread_main, loop);
    loop->started = !rc;
    loop->running = !rc;
    loop->runner = loop->thread;
    mutex_unlock(&loop->lock);
    return rc;
}

static void wake(struct loop *loop)
{
    uint64_t one = 1;

    if (write(loop->event_fd, &one, sizeof(one)) < 0) {
        /* EAGAIN: the counter is at its end, so the loop is awake already */
    }
}

void loop_stop(struct loop *loop)
{
    mutex_lock(&loop->lock);
    loop->stop = true;
    mutex_unlock(&loop->lock);
    wake(loop);
}

bool loop_is_self(const struct loop *loop)
{
    struct loop *l = (struct loop *)loop;

    mutex_lock(&l->lock);
    bool self = !l->running || pthread_equal(l->runner, pthread_self());
    mutex_unlock(&l->lock);
    return self;
}

int loop_fd_add(struct loop *loop, struct loop_fd *w, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = w};

    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, w->fd, &e) ? -errno : 0;
}

void loop_fd_change(struct loop *loop, struct loop_fd *w, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = w};

    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, w->fd,
                    &e); /* fails only for a watch never added */
}

void loop_fd_remove(struct loop *loop, struct loop_fd *w)
{
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL); /* as above */
    if (!loop_is_self(loop))
        return;
    for (int i = 0; i < loop->event_count; i++) {
        if (loop->events[i].data.ptr == w)
            loop->events[i].data.ptr = NULL;
    }
}

void loop_hook_add(struct loop *loop, struct loop_hook *h)
{
    mutex_lock(&loop->lock);
    h->next = loop->hooks;
    loop->hooks = h;
    mutex_unlock(&loop->lock);
    wake(loop); /* a wait under way knows nothing of it */
}

void loop_hook_remove(struct loop *loop, struct loop_hook *h)
{
    mutex_lock(&loop->lock);
    for (struct loop_hook **p = &loop->hooks; *p; p = &(*p)->next) {
        if (*p == h) {
            *p = h->next;
            break;
        }
    }
    mutex_unlock(&loop->lock);
}

static void arm(struct loop *loop) REQUIRES(loop->lock)
{
    int64_t ns = loop->timers ? loop->timers->deadline_ns : INT64_MAX;

    /* An alarm that is too early only costs one empty round; moving it later each time would cost a
     * system call. */
    if (ns >= loop->armed_ns)
        return;
    loop->armed_ns = ns;
    ns = MAX(ns, (int64_t)1);
    struct itimerspec t = {
        .it_value = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}
    };
    (void)timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &t,
                          NULL); /* cannot fail with these arguments */
}

static void unlink_timer(struct loop *loop, struct loop_timer *t) REQUIRES(loop->lock)
{
    for (struct loop_timer **p = &loop->timers; t->armed && *p; p = &(*p)->next) {
        if (*p == t) {
            *p = t->next;
            break;
        }
    }
    t->armed = false;
}

void loop_timer_set(struct loop *loop, struct loop_timer *t, int64_t deadline_ns)
{
    struct loop_timer **p = &loop->timers;

    mutex_lock(&loop->lock);
    unlink_timer(loop, t);
    t->deadline_ns = deadline_ns;
    while (*p && (*p)->deadline_ns <= deadline_ns)
        p = &(*p)->next;
    t->next = *p;
    *p = t;
    t->armed = true;
    arm(loop);
    mutex_unlock(&loop->lock);
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *t)
{
    mutex_lock(&loop->lock);
    unlink_timer(loop, t);
    mutex_unlock(&loop->lock);
}

int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct task *t = malloc(sizeof(*t));

    if (!t)
        return -ENOMEM;
    *t = (struct task){.fn = fn, .arg = arg};
    mutex_lock(&loop->lock);
    bool was_empty = !loop->first;
    *loop->last = t;
    loop->last = &t->next;
    mutex_unlock(&loop->lock);
    if (was_empty)
        wake(loop);
    return 0;
}

void loop_sync(struct loop *loop)
{
    mutex_lock(&loop->lock);
    if (loop->running && !pthread_equal(loop->runner, pthread_self())) {
        /* The round in progress may have begun before the call: two more ends cover it and all
         * tasks posted. */
        uint64_t target = loop->generation + 2;

        while (loop->running && loop->generation < target) {
            wake(loop);
            cond_wait(&loop->round_done, &loop->lock);
        }
    }
    mutex_unlock(&loop->lock);
}

static void run_timers(struct loop *loop) REQUIRES(loop->lock)
{
    int64_t now = host_now_ns();

    while (loop->timers && loop->timers->deadline_ns <= now && !loop->stop) {
        struct loop_timer *t = loop->timers;

        unlink_timer(loop, t);
        mutex_unlock(&loop->lock);
        t->fn(t);
        mutex_lock(&loop->lock);
    }
}

static void run_tasks(struct loop *loop) REQUIRES(loop->lock)
{
    struct task *t = loop->first;

    loop->first = NULL;
    loop->last = &loop->first;
    while (t) {
        struct task *next = t->next;

        mutex_unlock(&loop->lock);
        t->fn(t->arg);
        free(t);
        mutex_lock(&loop->lock);
        t = next;
    }
}

static void run_hooks(struct loop *loop) REQUIRES(loop->lock)
{
    for (struct loop_hook *h = loop->hooks; h;) {
        struct loop_hook *next = h->next;

        mutex_unlock(&loop->lock);
        h->fn(h);
        mutex_lock(&loop->lock);
        h = next;
    }
}

/** Wait once and call back the descriptors that are ready. True if the timer went off. */
static bool run_events(struct loop *loop)
{
    struct epoll_event events[32];
    bool timer = false;
    int n = epoll_wait(loop->epoll_fd, events, ARRAY_SIZE(events), -1);

    loop->events = events;
    loop->event_count = MAX(n, 0);
    for (int i = 0; i < n; i++) {
        struct loop_fd *w = events[i].data.ptr;
        uint64_t count;

        if ((void *)w == &loop->timer_fd)
            timer = read(loop->timer_fd, &count, sizeof(count)) > 0;
        else if ((void *)w == &loop->event_fd)
            (void)!read(loop->event_fd, &count,
                        sizeof(count)); /* level-triggered: only clears it */
        else if (w)
            w->fn(w, events[i].events);
    }
    loop->event_count = 0;
    return timer;
}

void loop_run(struct loop *loop)
{
    mutex_lock(&loop->lock);
    loop->running = true;
    loop->runner = pthread_self();
    while (!loop->stop) {
        run_hooks(loop);
        mutex_unlock(&loop->lock);
        bool timer = run_events(loop);
        mutex_lock(&loop->lock);
        if (timer) {
            loop->armed_ns = INT64_MAX;
            run_timers(loop);
            arm(loop);
        }
        run_tasks(loop);
        loop->generation++;
        cond_broadcast(&loop->round_done);
    }
    loop->running = false;
    loop->stop = false;
    cond_broadcast(&loop->round_done);
    mutex_unlock(&loop->lock);
}
