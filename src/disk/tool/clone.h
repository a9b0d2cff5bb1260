/* Copying by letting the host share blocks, where its file system can (XFS, btrfs): nothing is
 * read, and the copy takes no space until one of the two is written to. */
#ifndef DISK_TOOL_CLONE_H
#define DISK_TOOL_CLONE_H

#include "disk/disk.h"

#include <sys/types.h>

struct clone {
    struct disk *source, *target; /* [init] borrowed; the target has nothing below */
    dev_t target_dev;             /* [init] its file system */
    bool may;                     /* [atomic] nothing has spoken against it so far */
};

/** Look whether it is possible at all. */
void clone_init(struct clone *c, struct disk *source, struct disk *target);

/** Has nothing spoken against it so far? Any thread. */
static inline bool clone_may(const struct clone *c)
{
    return __atomic_load_n(&c->may, __ATOMIC_RELAXED); /* a hint */
}

/** May blocks be shared at byte @offset of extent @e of the source? Any thread. */
bool clone_fits(const struct clone *c, const struct disk_extent *e, uint64_t offset);

/** Share what can be shared of [offset, offset+size), from its beginning on: how many bytes that
 * was. Any thread. */
uint64_t clone_run(struct clone *c, uint64_t offset, uint64_t size);

#endif
