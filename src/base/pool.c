/* A queue of jobs and the threads that take from it. Any thread adds. */
#include "base/pool.h"
#include "base/thread.h"

#include <stdlib.h>
#include <string.h>

#define POOL_MAX 64

struct pool {
    struct mutex lock;
    struct cond wake;
    struct pool_job *first, **last; /* [lock] */
    unsigned count, idle;           /* [lock] threads; those that wait and were not called */
    bool ending;                    /* [lock] */
    unsigned max;                   /* [init] */
    char name[16];                  /* [init] */
    pthread_t threads[POOL_MAX];    /* [lock] */
};

static void *run(void *arg)
{
    struct pool *p = arg;

    mutex_lock(&p->lock);
    while (p->first || !p->ending) {
        struct pool_job *job = p->first;

        if (!job) {
            p->idle++;
            cond_wait(&p->wake, &p->lock);
            p->idle--;
            continue;
        }
        p->first = job->next;
        if (!p->first)
            p->last = &p->first;
        mutex_unlock(&p->lock);
        job->fn(job);
        mutex_lock(&p->lock);
    }
    mutex_unlock(&p->lock);
    return NULL;
}

static bool start_one(struct pool *p) REQUIRES(p->lock)
{
    if (thread_start(&p->threads[p->count], p->name, run, p))
        return false;
    p->count++;
    return true;
}

struct pool *pool_new(const char *name, unsigned max_threads)
{
    struct pool *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->max = MIN(max_threads, (unsigned)POOL_MAX);
    p->last = &p->first;
    (void)strncpy(p->name, name, sizeof(p->name) - 1);
    mutex_init(&p->lock);
    cond_init(&p->wake);
    mutex_lock(&p->lock);
    bool started = start_one(p);
    mutex_unlock(&p->lock);
    if (!started) {
        pool_free(p);
        return NULL;
    }
    return p;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    mutex_lock(&p->lock);
    p->ending = true;
    cond_broadcast(&p->wake);
    mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->count; i++)
        thread_join(p->threads[i]);
    mutex_done(&p->lock);
    cond_done(&p->wake);
    free(p);
}

void pool_add(struct pool *p, struct pool_job *job)
{
    job->next = NULL;
    mutex_lock(&p->lock);
    /* Those called before may not have taken their job yet: count what waits, not who sleeps. */
    bool all_busy = p->first || !p->idle;
    *p->last = job;
    p->last = &job->next;
    if (all_busy && p->count < p->max)
        (void)start_one(p); /* one less: it only takes longer */
    cond_signal(&p->wake);
    mutex_unlock(&p->lock);
}
