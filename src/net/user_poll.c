/* User-mode network: slirp's descriptors and timers on an event loop.
 *
 * libslirp is written for poll(): before each wait it is asked for all descriptors and what to wait
 * for, after it, it looks at each one's result. Here epoll keeps the set, and a loop hook, once a
 * round, hands slirp what was seen and tells epoll only of the differences, of which there are few.
 *
 * Invariants:
 *  1. watches[fd]->added says whether the loop knows the descriptor; slirp says so before it closes
 *     one (unregister_poll_fd).
 *  2. After each round in which slirp has run, the loop watches for what slirp last asked for.
 *
 * Threads: all on the loop's thread.
 */
#include "base/clock.h"
#include "base/log.h"
#include "net/user_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

/** With this much waiting for the guest, nothing more is read from the host's sockets. */
#define BACKLOG_PAUSE (256u << 10)

struct user_timer {
    struct loop_timer t;
    struct user *user;
    SlirpTimerCb cb;
    void *opaque;
};

static uint32_t to_epoll(int events)
{
    return (events & SLIRP_POLL_IN ? EPOLLIN : 0u) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0u) |
           (events & SLIRP_POLL_PRI ? EPOLLPRI : 0u);
}

static int from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? SLIRP_POLL_IN : 0) | (events & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
           (events & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (events & EPOLLERR ? SLIRP_POLL_ERR : 0) |
           (events & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

static void watch_ready(struct loop_fd *w, uint32_t events)
{
    struct user *u = w->arg;
    struct user_watch *watch = container_of(w, struct user_watch, w);

    watch->revents |= events;
    u->ready = true;
}

/** The record of descriptor @fd, made when there is none; NULL when out of memory. */
static struct user_watch *watch_get(struct user *u, int fd)
{
    size_t n = (size_t)fd;

    if (n >= u->watch_count) {
        size_t count = MAX(n + 1, u->watch_count * 2);
        struct user_watch **grown = reallocarray(u->watches, count, sizeof(struct user_watch *));

        if (!grown)
            return NULL;
        for (size_t i = u->watch_count; i < count; i++)
            grown[i] = NULL;
        u->watches = grown;
        u->watch_count = count;
    }
    if (!u->watches[n]) {
        struct user_watch *w = calloc(1, sizeof(*w));

        if (w)
            w->w = (struct loop_fd){.fd = fd, .fn = watch_ready, .arg = u};
        u->watches[n] = w;
    }
    return u->watches[n];
}

static void watch_forget(struct user *u, int fd)
{
    struct user_watch *watch = fd >= 0 && (size_t)fd < u->watch_count ? u->watches[fd] : NULL;

    if (!watch)
        return;
    if (watch->added)
        loop_fd_remove(u->loop, &watch->w);
    watch->added = false;
    watch->events = watch->wanted = watch->revents = 0;
}

/** Tell the loop what @watch is wanted for. A descriptor wanted for nothing is taken out, since
 * epoll reports hang-ups even so, again and again. */
static void watch_apply(struct user *u, struct user_watch *watch)
{
    uint32_t wanted = watch->wanted;

    if (watch->added && wanted == watch->events)
        return;
    if (watch->added && wanted)
        loop_fd_change(u->loop, &watch->w, wanted);
    else if (watch->added)
        loop_fd_remove(u->loop, &watch->w);
    else if (!wanted || loop_fd_add(u->loop, &watch->w, wanted))
        return; /* a descriptor that epoll refuses makes no progress: its connection times out */
    watch->added = wanted != 0;
    watch->events = wanted;
}

void user_register_fd(int fd, void *opaque)
{
    watch_forget(opaque, fd); /* should slirp ever close without a word, the number is new now */
}

void user_unregister_fd(int fd, void *opaque)
{
    watch_forget(opaque, fd);
}

static int add_poll(int fd, int events, void *opaque)
{
    struct user *u = opaque;
    struct user_fds *polled = &u->polled;
    struct user_watch *watch = fd < 0 ? NULL : watch_get(u, fd);

    if (!watch)
        return -1;
    if (polled->count == polled->room) {
        size_t room = polled->room ? 2 * polled->room : 64;
        int *grown = reallocarray(polled->fds, room, sizeof(int));

        if (!grown)
            return -1;
        polled->fds = grown;
        polled->room = room;
    }
    watch->wanted = to_epoll(events);
    if (u->backlog.bytes > BACKLOG_PAUSE)
        watch->wanted &= ~(uint32_t)EPOLLIN;
    polled->fds[polled->count] = fd;
    return (int)polled->count++;
}

static int get_revents(int idx, void *opaque)
{
    struct user *u = opaque;

    if (idx < 0 || (size_t)idx >= u->polled.count)
        return 0;
    return from_epoll(u->watches[u->polled.fds[idx]]->revents);
}

static void poll_slirp(struct user *u)
{
    u->ready = false;
    u->dirty = true;
    slirp_pollfds_poll(u->slirp, 0, get_revents, u);
    for (size_t i = 0; i < u->polled.count; i++)
        u->watches[u->polled.fds[i]]->revents = 0;
}

static void apply(struct user *u, const struct user_fds *set)
{
    for (size_t i = 0; i < set->count; i++)
        watch_apply(u, u->watches[set->fds[i]]);
}

static void fill_slirp(struct user *u)
{
    uint32_t timeout_ms = UINT32_MAX;
    struct user_fds last = u->polled;

    /* What was polled and is not any more shall be wanted for nothing. */
    for (size_t i = 0; i < last.count; i++)
        u->watches[last.fds[i]]->wanted = 0;
    u->dirty = false;
    u->polled = u->previous;
    u->polled.count = 0;
    slirp_pollfds_fill(u->slirp, &timeout_ms, add_poll, u);
    u->previous = last;
    apply(u, &u->previous);
    apply(u, &u->polled);
    if (timeout_ms == UINT32_MAX)
        return;
    int64_t deadline = host_now_ns() + (int64_t)timeout_ms * 1000000;
    if (deadline < u->timer_ns) { /* one that is too early costs an empty poll, no more */
        u->timer_ns = deadline;
        loop_timer_set(u->loop, &u->timer, deadline);
    }
}

static void run_hook(struct loop_hook *h)
{
    struct user *u = h->arg;

    if (u->ready)
        poll_slirp(u);
    if (u->dirty)
        fill_slirp(u);
    user_flush(u);
}

static void run_timer(struct loop_timer *t)
{
    struct user *u = t->arg;

    u->timer_ns = INT64_MAX;
    u->ready = true;
}

void user_poll_start(struct user *u)
{
    u->hook = (struct loop_hook){.fn = run_hook, .arg = u};
    u->timer = (struct loop_timer){.fn = run_timer, .arg = u};
    u->timer_ns = INT64_MAX;
    u->dirty = true;
    u->hooked = true;
    loop_hook_add(u->loop, &u->hook);
}

void user_poll_stop(struct user *u)
{
    if (u->hooked) {
        loop_hook_remove(u->loop, &u->hook);
        loop_timer_cancel(u->loop, &u->timer);
    }
    for (size_t i = 0; i < u->watch_count; i++) {
        if (u->watches[i])
            watch_forget(u, (int)i);
        free(u->watches[i]);
    }
    free(u->watches);
    free(u->polled.fds);
    free(u->previous.fds);
}

static void timer_expired(struct loop_timer *t)
{
    struct user_timer *timer = container_of(t, struct user_timer, t);

    timer->user->dirty = true;
    timer->cb(timer->opaque);
}

void *user_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
    struct user_timer *timer = calloc(1, sizeof(*timer));

    if (timer) {
        timer->t = (struct loop_timer){.fn = timer_expired};
        timer->user = opaque;
        timer->cb = cb;
        timer->opaque = cb_opaque;
    }
    return timer;
}

void user_timer_free(void *timer, void *opaque)
{
    struct user *u = opaque;
    struct user_timer *t = timer;

    if (t)
        loop_timer_cancel(u->loop, &t->t);
    free(t);
}

void user_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    struct user *u = opaque;
    struct user_timer *t = timer;

    if (t)
        loop_timer_set(u->loop, &t->t, expire_ms * 1000000);
}
