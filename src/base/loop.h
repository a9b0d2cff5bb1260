/* Event loop: descriptors, timers, and tasks posted from other threads. One loop, one thread.
 *
 *   struct loop *loop = loop_new("io");   loop_start(loop) runs it on its own thread, or
 * loop_run(loop) here.
 *
 * Callbacks run on the loop's thread, one at a time, without any lock held. */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/macros.h"

struct loop;

/** A loop with no thread yet; NULL when out of descriptors or memory. Freed by loop_free(), which
 * stops and joins its thread first if loop_start() was used. Descriptors and timers still
 * registered are forgotten, not closed. */
struct loop *loop_new(const char *name);
void loop_free(struct loop *loop);

/** Run on a new thread named after the loop; 0 or -errno. */
must_check int loop_start(struct loop *loop);

/** Run on this thread until loop_stop(). */
void loop_run(struct loop *loop);

/** Make the loop return after the callback in progress. Any thread. */
void loop_stop(struct loop *loop);

/** Is the caller on the loop's thread? (True as well while no thread runs it.) */
bool loop_is_self(const struct loop *loop);

/** A watched descriptor. @events is EPOLLIN, EPOLLOUT..., level-triggered. The watch is the
 * caller's storage and must live until loop_fd_remove(). Any thread may add and remove; after
 * loop_fd_remove() returns on the loop's own thread the callback runs no more; from another thread
 * one last call may be under way: use loop_sync(). */
struct loop_fd {
    int fd;
    void (*fn)(struct loop_fd *w, uint32_t events);
    void *arg;
};
must_check int loop_fd_add(struct loop *loop, struct loop_fd *w, uint32_t events);
void loop_fd_change(struct loop *loop, struct loop_fd *w, uint32_t events);
void loop_fd_remove(struct loop *loop, struct loop_fd *w);

/** A one-shot timer in the caller's storage, zero-initialised but for fn and arg. Deadlines are
 * CLOCK_MONOTONIC ns. Setting an armed timer moves it. Any thread; a callback may set its own timer
 * again. */
struct loop_timer {
    void (*fn)(struct loop_timer *t);
    void *arg;
    int64_t deadline_ns;     /* [lock] */
    struct loop_timer *next; /* [lock] */
    bool armed;              /* [lock] */
};
void loop_timer_set(struct loop *loop, struct loop_timer *t, int64_t deadline_ns);
void loop_timer_cancel(struct loop *loop, struct loop_timer *t);

/** Something to do each time before the loop waits, after the callbacks of a round: for a library
 * that must be asked what it waits for. The caller's storage; any thread adds and removes, and the
 * hook may remove itself. Removal from another thread is followed by loop_sync(), as with
 * loop_fd_remove(). */
struct loop_hook {
    void (*fn)(struct loop_hook *h);
    void *arg;
    struct loop_hook *next; /* [lock] */
};
void loop_hook_add(struct loop *loop, struct loop_hook *h);
void loop_hook_remove(struct loop *loop, struct loop_hook *h);

/** Run @fn(@arg) on the loop's thread soon, in the order posted. Any thread. 0 or -ENOMEM. */
must_check int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/** Wait until every callback begun and every task posted before this call has ended. Not from the
 * loop's own thread (there it returns at once). */
void loop_sync(struct loop *loop);

#endif
