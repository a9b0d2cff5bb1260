/* Reading and writing where a map says for each block of a disk where it lies in a file, fresh
 * blocks come at the file's end, and none is ever given up for another: the part that VDI and VMDK
 * have in common.
 *
 * A fresh block becomes part of the map only when its data, and what was copied from below for the
 * rest of it, have been written. Until then its number is claimed, and other writers to it wait; so
 * the map never names what is not there, and a flush may take the map at any moment. */
#ifndef DISK_BLOCKS_H
#define DISK_BLOCKS_H

#include "base/thread.h"
#include "disk/format.h"

struct blocks;
struct blocks_claim;

/** Blocks that are alike. */
struct blocks_run {
    enum disk_extent_kind kind;
    uint64_t count;       /* >= 1 */
    uint64_t file_offset; /* DISK_DATA: of the first; the others follow it */
};

/** Any thread; each locks what it must. Numbers lie within the disk. 0 or -errno. */
struct blocks_ops {
    /** What the blocks from @index are, at most @max. */
    int (*find)(struct blocks *b, uint64_t index, uint64_t max, struct blocks_run *ret);

    /** Take room in the file that reads as zeroes, for at most *@count blocks from @index: at least
     * one; *@count may come back smaller. */
    int (*reserve)(struct blocks *b, uint64_t index, uint64_t *count, uint64_t *ret_offset);

    /** Give back room that reserve() took and that was not published; it may hold anything. */
    void (*release)(struct blocks *b, uint64_t count, uint64_t offset);

    /** From now on blocks [index, index+run->count) are @run: DISK_DATA or, with can_zero,
     * DISK_ZERO. */
    int (*publish)(struct blocks *b, uint64_t index, const struct blocks_run *run);

    /** A part of the DISK_PACKED block @index, from byte @skip of it. NULL: there are none. */
    int (*read_packed)(struct blocks *b, uint64_t index, uint64_t skip, const struct iovec *iov,
                       int iovcnt);
};

struct blocks {
    const struct blocks_ops *ops; /* [init] */
    struct disk *d;               /* [init] whose below shows through */
    struct file *file;            /* [init] */
    uint64_t start;               /* [init] byte of the disk where block 0 begins */
    uint64_t size_bytes;          /* of the part of the disk; the last block may be cut off */
    uint32_t block_bytes;         /* [init] a power of two */
    bool can_zero;                /* [init] the map can say zero */
    struct mutex lock;
    struct cond released;
    struct blocks_claim *claims; /* [lock] */
};

/** The caller has filled what is [init]; a blocks_done() must follow. */
void blocks_init(struct blocks *b);
void blocks_done(struct blocks *b);

/** As the ops of a disk; @offset counts from the beginning of the part (b->start). */
must_check int blocks_preadv(struct blocks *b, const struct iovec *iov, int iovcnt,
                             uint64_t offset);
must_check int blocks_pwritev(struct blocks *b, const struct iovec *iov, int iovcnt,
                              uint64_t offset);
must_check int blocks_write_zeroes(struct blocks *b, uint64_t offset, uint64_t size,
                                   bool may_unmap);
must_check int blocks_allocate(struct blocks *b, uint64_t offset, uint64_t size);
must_check int blocks_discard(struct blocks *b, uint64_t offset, uint64_t size);
must_check int blocks_status(struct blocks *b, uint64_t offset, uint64_t size,
                             struct disk_extent *ret);
must_check int blocks_place(struct blocks *b, uint64_t offset, uint64_t size,
                            struct disk_extent *ret);

#endif
