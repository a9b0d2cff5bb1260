/* Blocks of a disk that lie anywhere in a file, each with a bitmap of the sectors it holds: what
 * VHD and VHDX have in common. A format keeps the table and the bitmaps on the disk; the map keeps
 * them in memory, moves the data, and hands what changed to the format's commit().
 *
 * Bit n of a bitmap (bit n % 8 of byte n / 8) is sector n of the block: 1 = it lies in the block,
 * 0 = what is below shows through. */
#ifndef DISK_VHD_MAP_H
#define DISK_VHD_MAP_H

#include "base/thread.h"
#include "disk/format.h"

#define VHD_MAX_BLOCKS (1ULL << 24)

enum vhd_kind {
    VHD_NONE,    /* what is below shows through */
    VHD_ZERO,    /* zeroes, whatever is below */
    VHD_FULL,    /* all of it lies in the file */
    VHD_PARTIAL, /* the sectors that the bitmap says */
    VHD_BAD,     /* the table makes no sense: -EIO */
};

/** What a commit shall write about one block. */
struct vhd_change {
    uint64_t block;
    enum vhd_kind kind;
    uint64_t offset;           /* of the data in the file; FULL, PARTIAL */
    bool is_fresh;             /* the table on the disk does not point to it yet */
    uint8_t *bits;             /* bitmap; NULL = none or all ones */
    uint32_t bits_lo, bits_hi; /* bytes of the bitmap that changed; equal = none */
};

struct vhd_map;

struct vhd_map_ops {
    /** Read the bitmap of @block, whose data lie at @offset. */
    int (*load_bits)(struct vhd_map *m, uint64_t block, uint64_t offset, uint8_t *bits);
    /** Before the first change of this opening. */
    int (*begin)(struct vhd_map *m);
    /** Make everything written so far durable, then these changes (sorted by block). @end_bytes:
     * where the next block would begin. One at a time. */
    int (*commit)(struct vhd_map *m, const struct vhd_change *v, size_t n, uint64_t end_bytes);
};

struct vhd_bits;
struct vhd_claim;

/** Where the data of fresh blocks begins: at a page, for direct I/O. VHD's bitmap of 512 bytes lies
 * right before it, so up to 3584 bytes before that are given up. */
#define VHD_DATA_ALIGN 4096u

struct vhd_block {
    uint64_t word; /* offset of the data, flags, kind */
    struct vhd_bits *bits;
};

struct vhd_map {
    struct disk d;                 /* must be first */
    const struct vhd_map_ops *ops; /* [init] */
    struct file *file;             /* [init] */
    uint32_t block_bytes;          /* [init] a power of two */
    uint32_t sector_bytes;         /* [init] what a bit stands for */
    uint32_t bits_bytes;           /* [init] of a block's bitmap */
    uint32_t lead_bytes;           /* [init] of the file, before each block's data */
    uint32_t align_bytes;          /* [init] of where lead and data begin */
    uint64_t max_end_bytes;        /* [init] where the last block may end */
    bool is_over;                  /* blocks of kind NONE show what is below; else zeroes */
    bool can_zero;                 /* [init] the table can say ZERO */

    struct mutex lock;
    struct cond claim_ended;
    struct vhd_block *blocks;       /* [lock] */
    uint64_t count;                 /* [lock] of blocks */
    uint64_t end_bytes;             /* [lock] where the next block goes */
    struct vhd_claim *claims;       /* [lock] */
    uint64_t *dirty;                /* [lock] numbers of changed blocks */
    size_t dirty_count, dirty_room; /* [lock] */
    uint64_t *cached;               /* [lock] blocks with a bitmap in memory; a ring */
    size_t cached_room, hand;       /* [init]; [lock] */
    uint64_t shared;                /* [lock] blocks that overlap others or metadata */
    uint64_t bad;                   /* [lock] blocks of kind BAD */

    struct mutex load_lock;   /* one bitmap at a time is read */
    struct mutex commit_lock; /* one commit at a time; taken before `lock` */
    bool has_begun;           /* [atomic] */
    bool has_failed;          /* [commit_lock] the last commit */
};

struct vhd_region {
    uint64_t offset, size;
};

static inline struct vhd_map *vhd_map_of(struct disk *d)
{
    return (struct vhd_map *)d;
}

/** The caller has filled what is [init] and d.size_bytes; the blocks are all NONE. After a failure
 * as well as after success vhd_map_done() must follow. */
must_check int vhd_map_init(struct vhd_map *m);
void vhd_map_done(struct vhd_map *m);

/** While opening: block @block is @kind, its data at @offset. */
void vhd_map_set(struct vhd_map *m, uint64_t block, enum vhd_kind kind, uint64_t offset);

/** After all vhd_map_set(): find blocks that overlap each other, the end of the file or @regions,
 * and where the free space begins. */
must_check int vhd_map_verify(struct vhd_map *m, const struct vhd_region *regions, size_t n);

/** Room in the file for metadata; zeroes unless the file is a block device. */
uint64_t vhd_map_reserve(struct vhd_map *m, uint64_t size, uint64_t align);

/** Call ops->begin once. */
must_check int vhd_map_begin(struct vhd_map *m);

/** All ops of a disk that need not know the format. */
int vhd_map_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
int vhd_map_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
int vhd_map_flush(struct disk *d);
int vhd_map_discard(struct disk *d, uint64_t offset, uint64_t size);
int vhd_map_disk_allocate(struct disk *d, uint64_t offset, uint64_t size);
int vhd_map_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap);
int vhd_map_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret);
int vhd_map_place(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret);

/** Find and mend, as ops->check(): the blocks, and gaps between them; not what follows the last
 * one. */
must_check int vhd_map_check(struct vhd_map *m, unsigned flags, const struct vhd_region *regions,
                             size_t n, struct disk_check *check, struct error *err);
void vhd_check_report(struct disk_check *check, const char *fmt, ...) printf_like(2, 3);

/** Forget blocks from @first on, and give back their space if they were the last. For resize() and
 * make_empty(): no request runs. Committed by the next flush. */
must_check int vhd_map_forget(struct vhd_map *m, uint64_t first);

/** Change the number of blocks; new ones are NONE. No request runs. */
must_check int vhd_map_resize(struct vhd_map *m, uint64_t count);

/** Take space for @block if it has none, all zeroes: for fixed disks. */
must_check int vhd_map_fill(struct vhd_map *m, uint64_t block);

/* For map_*.c */

#define VHD_KIND_MASK  7ULL
#define VHD_FRESH      8ULL  /* the table on the disk does not point to it yet */
#define VHD_DIRTY      16ULL /* in m->dirty */
#define VHD_SHARED     32ULL /* overlaps something: never written to */
#define VHD_TAKEN      64ULL /* in a commit that runs */
#define VHD_FLAGS_MASK 511ULL

struct vhd_bits {
    uint32_t unset;  /* bits that are 0 */
    uint32_t lo, hi; /* bytes changed since the last commit took them */
    uint32_t pins;   /* claims that will set bits */
    uint8_t v[];
};

static inline enum vhd_kind vhd_kind_of(uint64_t word)
{
    return (enum vhd_kind)(word & VHD_KIND_MASK);
}

static inline uint64_t vhd_offset_of(uint64_t word)
{
    return word & ~VHD_FLAGS_MASK;
}

/** Put the block on the list for the next commit. */
must_check int vhd_map_mark(struct vhd_map *m, uint64_t block) REQUIRES(m->lock);
/** Space for a block: the offset of its data, or 0: the format can name no more. */
uint64_t vhd_map_allocate(struct vhd_map *m) REQUIRES(m->lock);
/** Give @block an empty bitmap. -EBUSY: too many in memory, flush first. */
must_check int vhd_map_new_bits(struct vhd_map *m, uint64_t block) REQUIRES(m->lock);
/** Have the bitmap of @block in memory, if it is PARTIAL. */
must_check int vhd_map_load(struct vhd_map *m, uint64_t block) EXCLUDES(m->lock);

#endif
