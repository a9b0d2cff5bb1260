/* Several threads go through a disk piece by piece. Pieces are found in order, one at a time;
 * worked on at the same time; and what must be written in order can wait for its turn. */
#ifndef DISK_TOOL_WALK_H
#define DISK_TOOL_WALK_H

#include "base/thread.h"
#include "disk/tool/tool.h"

struct piece {
    uint64_t offset, size;
    uint64_t number; /* of the pieces that are worked on; for walk_wait_turn() */
    int kind;        /* find()'s own business; PIECE_SKIP: nothing to do */
};

enum { PIECE_SKIP = 0 };

struct walk {
    /* Set by the caller. */
    uint64_t size_bytes;
    size_t buffer_bytes; /* for each thread, aligned to a page */
    void *arg;
    /* The piece at ret->offset: set size (1 to what is left) and kind. Called under the lock. */
    int (*find)(void *arg, struct piece *ret);
    /* Any thread. */
    int (*work)(struct walk *w, const struct piece *p, uint8_t *buf);

    /* walk.c's own. */
    struct mutex lock;
    struct cond turn_moved;
    const struct disk_job *job;
    uint64_t cursor; /* [lock] */
    uint64_t done;   /* [lock] */
    uint64_t number; /* [lock] of the next piece */
    uint64_t turn;   /* [lock] whose turn it is */
    bool stop;       /* [lock] */
    int rc;          /* [lock] of the first failure */
    uint64_t failed; /* [lock] its offset */
};

/** Go through all. 0, or the error of the failing piece, with *@ret_failed its offset. */
must_check int walk_run(struct walk *w, const struct disk_job *job, uint64_t *ret_failed);

/** Wait until all earlier pieces have ended their turns. Each worked piece must take its turn once,
 * or none of them does. -ECANCELED: the walk has failed elsewhere. */
must_check int walk_wait_turn(struct walk *w, const struct piece *p);
void walk_end_turn(struct walk *w);

/** End the walk without an error: no more pieces are begun. */
void walk_stop(struct walk *w);

#endif
