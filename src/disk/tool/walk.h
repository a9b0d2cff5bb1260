/* Several threads go through a disk piece by piece. Pieces are found in order, one at a time;
 * worked on at the same time; and what must be done in order is done in order: a thread that is
 * early leaves its piece to the others and takes the next one. */
#ifndef DISK_TOOL_WALK_H
#define DISK_TOOL_WALK_H

#include "base/thread.h"
#include "disk/tool/tool.h"

struct piece {
    uint64_t offset, size;
    int kind; /* find()'s own business; PIECE_SKIP: nothing to do */
};

enum { PIECE_SKIP = 0 };

struct walk_slot;

struct walk {
    /* Set by the caller. */
    uint64_t size_bytes;
    size_t buffer_bytes; /* for each piece under way, aligned to a page */
    void *arg;
    /* The piece at ret->offset: set size (1 to what is left) and kind. Called under the lock. */
    int (*find)(void *arg, struct piece *ret);
    /* Any thread. */
    int (*work)(struct walk *w, const struct piece *p, uint8_t *buf);
    /* NULL, or what follows work() with the same buffer: piece after piece in the order of the
     * disk, by any thread, one at a time. */
    int (*finish)(struct walk *w, const struct piece *p, uint8_t *buf);

    /* walk.c's own. */
    struct mutex lock;
    struct cond slot_freed;
    const struct disk_job *job;
    struct walk_slot *slots; /* [init] */
    unsigned slot_count;     /* [init] */
    uint64_t cursor;         /* [lock] */
    uint64_t done;           /* [lock] */
    uint64_t number;         /* [lock] of the next piece */
    uint64_t turn;           /* [lock] number of the piece to be finished next */
    bool finishing;          /* [lock] somebody does so */
    bool stop;               /* [lock] */
    int rc;                  /* [lock] of the first failure */
    uint64_t failed;         /* [lock] its offset */
};

/** Go through all. 0, or the error of the failing piece, with *@ret_failed its offset. */
must_check int walk_run(struct walk *w, const struct disk_job *job, uint64_t *ret_failed);

/** End the walk without an error: no more pieces are begun. */
void walk_stop(struct walk *w);

#endif
