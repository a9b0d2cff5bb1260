/* Several threads over one disk. See walk.h.
 *
 * Invariants: (1) pieces are found in the order of their offsets and numbered in that order; (2)
 * after `stop` none is begun, and nobody waits for a turn. Threads: the caller's and its own. */
#include "disk/tool/walk.h"
#include "base/bits.h"
#include "base/fd.h"

#include <string.h>
#include <sys/mman.h>

#define THREADS_DEFAULT_MIN 2 /* one waits for storage while another copies */
#define THREADS_DEFAULT_MAX 8
#define HUGE_PAGE           (2u << 20)

static unsigned thread_count(const struct disk_job *job)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (job && job->threads)
        return MIN(job->threads, (unsigned)DISK_JOB_MAX_THREADS);
    cpus = MAX(cpus, (long)THREADS_DEFAULT_MIN);
    return (unsigned)MIN(cpus, (long)THREADS_DEFAULT_MAX);
}

static void fail_locked(struct walk *w, int rc, uint64_t offset) REQUIRES(w->lock)
{
    if (!w->rc) {
        w->rc = rc;
        w->failed = offset;
    }
    w->stop = true;
    cond_broadcast(&w->turn_moved);
}

/** Find the next piece that is to be worked on; false at the end. */
static bool next_piece_locked(struct walk *w, struct piece *ret) REQUIRES(w->lock)
{
    while (!w->stop && w->cursor < w->size_bytes) {
        *ret = (struct piece){.offset = w->cursor};
        int rc = w->find(w->arg, ret);

        if (rc) {
            fail_locked(w, rc, w->cursor);
            return false;
        }
        w->cursor += ret->size;
        if (ret->kind != PIECE_SKIP) {
            ret->number = w->number++;
            return true;
        }
        w->done += ret->size;
    }
    return false;
}

static void report_locked(struct walk *w) REQUIRES(w->lock)
{
    if (w->job && w->job->progress && w->job->progress(w->job->arg, w->done, w->size_bytes))
        fail_locked(w, -ECANCELED, w->cursor);
}

static void *worker_main(void *arg)
{
    struct walk *w = arg;
    size_t size = align_up(w->buffer_bytes, HUGE_PAGE);
    uint8_t *buf = aligned_alloc(HUGE_PAGE, size);
    struct piece piece;

    if (buf) /* a hint: the kernel pins and copies large pages many times faster */
        (void)madvise(buf, size, MADV_HUGEPAGE);

    mutex_lock(&w->lock);
    if (!buf)
        fail_locked(w, -ENOMEM, 0);
    while (next_piece_locked(w, &piece)) {
        mutex_unlock(&w->lock);
        int rc = w->work(w, &piece, buf);
        mutex_lock(&w->lock);
        if (rc)
            fail_locked(w, rc, piece.offset);
        w->done += piece.size;
        report_locked(w);
    }
    mutex_unlock(&w->lock);
    free(buf);
    return NULL;
}

int walk_run(struct walk *w, const struct disk_job *job, uint64_t *ret_failed)
{
    pthread_t threads[DISK_JOB_MAX_THREADS];
    unsigned wanted = thread_count(job);
    unsigned started = 0;

    mutex_init(&w->lock);
    cond_init(&w->turn_moved);
    w->job = job;
    mutex_lock(&w->lock);
    report_locked(w);
    mutex_unlock(&w->lock);
    /* fewer threads than wanted do the same work */
    while (started + 1 < wanted && !thread_start(&threads[started], "disk-worker", worker_main, w))
        started++;
    (void)worker_main(w);
    while (started)
        thread_join(threads[--started]);
    mutex_lock(&w->lock);
    if (!w->rc)
        report_locked(w);
    mutex_unlock(&w->lock);
    mutex_done(&w->lock);
    cond_done(&w->turn_moved);
    *ret_failed = w->failed;
    return w->rc;
}

int walk_wait_turn(struct walk *w, const struct piece *p)
{
    mutex_lock(&w->lock);
    while (!w->stop && w->turn != p->number)
        cond_wait(&w->turn_moved, &w->lock);
    int rc = w->stop ? -ECANCELED : 0;
    mutex_unlock(&w->lock);
    return rc;
}

void walk_end_turn(struct walk *w)
{
    mutex_lock(&w->lock);
    w->turn++;
    cond_broadcast(&w->turn_moved);
    mutex_unlock(&w->lock);
}

void walk_stop(struct walk *w)
{
    mutex_lock(&w->lock);
    w->stop = true;
    cond_broadcast(&w->turn_moved);
    mutex_unlock(&w->lock);
}
