/* Several threads over one disk. See walk.h.
 *
 * Invariants: (1) pieces are found in the order of their offsets and numbered in that order; (2)
 * after `stop` none is begun or finished; (3) the piece whose turn it is has a slot: so whoever
 * waits for a slot waits for work that goes on. Threads: the caller's and its own. */
#include "disk/tool/walk.h"
#include "base/bits.h"
#include "base/fd.h"

#include <string.h>
#include <sys/mman.h>

#define THREADS_DEFAULT_MIN 2 /* one waits for storage while the other copies */
#define THREADS_DEFAULT_MAX 8
#define HUGE_PAGE           (2u << 20)
#define SLOTS_PER_THREAD    3u /* where pieces wait for their turn */

enum slot_state { SLOT_FREE, SLOT_WORKING, SLOT_READY };

struct walk_slot {
    enum slot_state state; /* [lock] */
    struct piece piece;    /* whose slot it is */
    uint64_t number;       /* likewise */
    uint8_t *buf;          /* likewise; NULL until it is needed first */
};

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
    cond_broadcast(&w->slot_freed);
}

/** Find the next piece that is to be worked on; false at the end. */
static bool next_piece_locked(struct walk *w, struct walk_slot *slot) REQUIRES(w->lock)
{
    while (!w->stop && w->cursor < w->size_bytes) {
        slot->piece = (struct piece){.offset = w->cursor};
        int rc = w->find(w->arg, &slot->piece);

        if (rc) {
            fail_locked(w, rc, w->cursor);
            return false;
        }
        w->cursor += slot->piece.size;
        if (slot->piece.kind != PIECE_SKIP) {
            slot->number = w->number++;
            slot->state = SLOT_WORKING;
            return true;
        }
        w->done += slot->piece.size;
    }
    return false;
}

static void report_locked(struct walk *w) REQUIRES(w->lock)
{
    if (w->job && w->job->progress && w->job->progress(w->job->arg, w->done, w->size_bytes))
        fail_locked(w, -ECANCELED, w->cursor);
}

static struct walk_slot *find_slot_locked(struct walk *w, enum slot_state state) REQUIRES(w->lock)
{
    for (unsigned i = 0; i < w->slot_count; i++) {
        struct walk_slot *s = &w->slots[i];

        if (s->state == state && (state == SLOT_FREE || s->number == w->turn))
            return s;
    }
    return NULL;
}

static void end_piece_locked(struct walk *w, struct walk_slot *slot, int rc) REQUIRES(w->lock)
{
    if (rc)
        fail_locked(w, rc, slot->piece.offset);
    w->done += slot->piece.size;
    slot->state = SLOT_FREE;
    cond_signal(&w->slot_freed);
    report_locked(w);
}

/** Finish what is ready and has its turn, unless somebody is at it: he will come to it. */
static void finish_ready_locked(struct walk *w) REQUIRES(w->lock)
{
    struct walk_slot *slot;

    if (w->finishing)
        return;
    w->finishing = true;
    while (!w->stop && (slot = find_slot_locked(w, SLOT_READY))) {
        mutex_unlock(&w->lock);
        int rc = w->finish(w, &slot->piece, slot->buf);
        mutex_lock(&w->lock);
        w->turn++;
        end_piece_locked(w, slot, rc);
    }
    w->finishing = false;
}

/** A slot with a buffer; NULL: there is nothing more to do. */
static struct walk_slot *take_slot_locked(struct walk *w) REQUIRES(w->lock)
{
    struct walk_slot *slot;

    while (!w->stop && !(slot = find_slot_locked(w, SLOT_FREE)))
        cond_wait(&w->slot_freed, &w->lock);
    if (w->stop || slot->buf)
        return w->stop ? NULL : slot;
    size_t size = align_up(w->buffer_bytes, HUGE_PAGE);
    slot->buf = aligned_alloc(HUGE_PAGE, size);
    if (slot->buf) /* a hint: the kernel pins and copies large pages many times faster */
        (void)madvise(slot->buf, size, MADV_HUGEPAGE);
    else
        fail_locked(w, -ENOMEM, w->cursor);
    return slot->buf ? slot : NULL;
}

static void *worker_main(void *arg)
{
    struct walk *w = arg;
    struct walk_slot *slot;

    mutex_lock(&w->lock);
    while ((slot = take_slot_locked(w)) && next_piece_locked(w, slot)) {
        mutex_unlock(&w->lock);
        int rc = w->work(w, &slot->piece, slot->buf);
        mutex_lock(&w->lock);
        if (rc || !w->finish) {
            end_piece_locked(w, slot, rc);
        } else {
            slot->state = SLOT_READY;
            finish_ready_locked(w);
        }
    }
    mutex_unlock(&w->lock);
    return NULL;
}

static void run_threads(struct walk *w, unsigned wanted)
{
    pthread_t threads[DISK_JOB_MAX_THREADS];
    unsigned started = 0;

    /* fewer threads than wanted do the same work */
    while (started + 1 < wanted && !thread_start(&threads[started], "disk-worker", worker_main, w))
        started++;
    (void)worker_main(w);
    while (started)
        thread_join(threads[--started]);
}

int walk_run(struct walk *w, const struct disk_job *job, uint64_t *ret_failed)
{
    unsigned wanted = thread_count(job);

    w->slot_count = wanted * (w->finish ? SLOTS_PER_THREAD : 1);
    w->slots = calloc(w->slot_count, sizeof(*w->slots));
    *ret_failed = 0;
    if (!w->slots)
        return -ENOMEM;
    mutex_init(&w->lock);
    cond_init(&w->slot_freed);
    w->job = job;
    mutex_lock(&w->lock);
    report_locked(w);
    mutex_unlock(&w->lock);
    run_threads(w, wanted);
    mutex_lock(&w->lock);
    if (!w->rc)
        report_locked(w);
    *ret_failed = w->failed;
    mutex_unlock(&w->lock);
    mutex_done(&w->lock);
    cond_done(&w->slot_freed);
    for (unsigned i = 0; i < w->slot_count; i++)
        free(w->slots[i].buf);
    free(w->slots);
    return w->rc;
}

void walk_stop(struct walk *w)
{
    mutex_lock(&w->lock);
    w->stop = true;
    cond_broadcast(&w->slot_freed);
    mutex_unlock(&w->lock);
}
