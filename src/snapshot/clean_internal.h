/* What the files of cleaning share. */
#ifndef SNAPSHOT_CLEAN_INTERNAL_H
#define SNAPSHOT_CLEAN_INTERNAL_H

#include "snapshot/instance.h"
#include "store/store.h"

struct cleaning {
    struct snapshots_clean *c;
    struct instance *held; /* ours to close; NULL: the caller's */
    const struct instance *in;
    int dir_fd;
    struct tree *tree;
    struct tree_step step;
    struct tree_over over; /* what the child shall lie on; owned */
    char *foreign;         /* the instance that the layer is of; owned; NULL: this one */
    size_t left;
    unsigned pushes; /* new tops made so that what was the top can be merged down */
};

/** Take the lock, unless the caller of snapshots_clean() has it, and load the tree. */
must_check int cleaning_begin(struct cleaning *k, struct error *err);
/** And give both back. */
void cleaning_let_go(struct cleaning *k);

/** What the step's layer lies on, as seen from this instance: k->over. */
must_check int cleaning_find_over(struct cleaning *k, struct error *err);

/** Do the step's merge, one way or the other. The lock is held, and may be given back and taken
 * again. On success the child's file lies on k->over, and only the tree is to follow. merge.c */
must_check int cleaning_merge(struct cleaning *k, struct error *err);

#endif
