/* Mutexes, condition variables and threads, with the annotations clang's thread-safety analysis
 * reads. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include "base/macros.h"

#include <pthread.h>

#ifdef __clang__
#define CAPABILITY(name) __attribute__((capability(name)))
#define REQUIRES(...)    __attribute__((requires_capability(__VA_ARGS__)))
#define ACQUIRES(...)    __attribute__((acquire_capability(__VA_ARGS__)))
#define RELEASES(...)    __attribute__((release_capability(__VA_ARGS__)))
#define EXCLUDES(...)    __attribute__((locks_excluded(__VA_ARGS__)))
#define NO_THREAD_SAFETY __attribute__((no_thread_safety_analysis))
#else
#define CAPABILITY(name)
#define REQUIRES(...)
#define ACQUIRES(...)
#define RELEASES(...)
#define EXCLUDES(...)
#define NO_THREAD_SAFETY
#endif

struct CAPABILITY("mutex") mutex {
    pthread_mutex_t m;
};

#define MUTEX_INIT                     \
    {                                  \
        .m = PTHREAD_MUTEX_INITIALIZER \
    }

void mutex_init(struct mutex *m);
void mutex_done(struct mutex *m);
void mutex_lock(struct mutex *m) ACQUIRES(*m);
void mutex_unlock(struct mutex *m) RELEASES(*m);

/** Condition variable on CLOCK_MONOTONIC. Spurious wake-ups happen: wait in a loop. */
struct cond {
    pthread_cond_t c;
};

void cond_init(struct cond *c);
void cond_done(struct cond *c);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);
void cond_wait(struct cond *c, struct mutex *m) REQUIRES(*m);

/** Wait until signalled or until CLOCK_MONOTONIC reads @deadline_ns. False when the time has come.
 */
bool cond_wait_until(struct cond *c, struct mutex *m, int64_t deadline_ns) REQUIRES(*m);

/** Start a thread named @name (at most 15 characters are kept), all signals blocked.
 *  0 or -errno. It must be joined by thread_join(). */
must_check int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg);
void thread_join(pthread_t thread);

/** Wait while *@word == @expected, until futex_wake() or CLOCK_MONOTONIC @deadline_ns (INT64_MAX:
 * no limit). Returns for any reason; look at the word again. */
void futex_wait(const uint32_t *word, uint32_t expected, int64_t deadline_ns);
void futex_wake(const uint32_t *word);

#endif
