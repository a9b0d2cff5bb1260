/* Threads that do what may take long, so that a loop need not wait. Threads are started as they are
 * needed, up to a number, and kept. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/macros.h"

struct pool;

/** One thing to do, in the caller's storage until @fn is called. */
struct pool_job {
    void (*fn)(struct pool_job *job);
    struct pool_job *next; /* the pool's */
};

/** At most @max_threads threads named @name, the first of them started. NULL: no memory, no thread.
 */
struct pool *pool_new(const char *name, unsigned max_threads);

/** Does all that was added, then ends. Takes NULL. Nobody adds any more. */
void pool_free(struct pool *p);

/** Call job->fn on one of the threads; jobs are begun in the order of their adding. Any thread. */
void pool_add(struct pool *p, struct pool_job *job);

#endif
