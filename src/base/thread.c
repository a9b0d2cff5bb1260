/* Thin checked wrappers over pthreads: a failing lock is our bug, so it asserts. */
#include "base/thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void check(int rc)
{
    if (rc)
        abort();
}

void mutex_init(struct mutex *m)
{
    check(pthread_mutex_init(&m->m, NULL));
}

void mutex_done(struct mutex *m)
{
    check(pthread_mutex_destroy(&m->m));
}

void mutex_lock(struct mutex *m) NO_THREAD_SAFETY
{
    check(pthread_mutex_lock(&m->m));
}

void mutex_unlock(struct mutex *m) NO_THREAD_SAFETY
{
    check(pthread_mutex_unlock(&m->m));
}

void cond_init(struct cond *c)
{
    pthread_condattr_t attr;

    check(pthread_condattr_init(&attr));
    check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
    check(pthread_cond_init(&c->c, &attr));
    check(pthread_condattr_destroy(&attr));
}

void cond_done(struct cond *c)
{
    check(pthread_cond_destroy(&c->c));
}

void cond_signal(struct cond *c)
{
    check(pthread_cond_signal(&c->c));
}

void cond_broadcast(struct cond *c)
{
    check(pthread_cond_broadcast(&c->c));
}

void cond_wait(struct cond *c, struct mutex *m)
{
    check(pthread_cond_wait(&c->c, &m->m));
}

static struct timespec to_timespec(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

bool cond_wait_until(struct cond *c, struct mutex *m, int64_t deadline_ns)
{
    struct timespec t = to_timespec(MAX(deadline_ns, (int64_t)0));
    int rc = pthread_cond_timedwait(&c->c, &m->m, &t);

    check(rc == ETIMEDOUT ? 0 : rc);
    return rc != ETIMEDOUT;
}

int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg)
{
    sigset_t all;
    sigset_t old;
    char short_name[16];
    int rc;

    sigfillset(&all);
    check(pthread_sigmask(SIG_SETMASK, &all, &old));
    rc = pthread_create(ret, NULL, fn, arg);
    check(pthread_sigmask(SIG_SETMASK, &old, NULL));
    if (rc)
        return -rc;
    (void)snprintf(short_name, sizeof(short_name), "%s", name);
    (void)pthread_setname_np(*ret, short_name); /* only for people */
    return 0;
}

void thread_join(pthread_t thread)
{
    check(pthread_join(thread, NULL));
}

void futex_wait(const uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
    struct timespec t = to_timespec(MAX(deadline_ns, (int64_t)0));

    /* FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time. */
    (void)syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected,
                  deadline_ns == INT64_MAX ? NULL : &t, NULL, FUTEX_BITSET_MATCH_ANY);
}

void futex_wake(const uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}
