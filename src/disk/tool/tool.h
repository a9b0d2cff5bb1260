/* Work on whole disks: copy, compare, move changes between the layers of a chain, measure speed.
 * The command line only opens the disks and renders the outcome.
 *
 * All of these are long: they report how far they are and may be cancelled; they use several
 * threads of their own, and return when those have ended. */
#ifndef DISK_TOOL_TOOL_H
#define DISK_TOOL_TOOL_H

#include "disk/disk.h"

#define DISK_JOB_MAX_THREADS 16

/** How a long job reports, and with how many threads it works. NULL in its place: neither. */
struct disk_job {
    /* Bytes done of @total so far; called by one thread at a time. Other than 0 cancels the job,
     * which then returns -ECANCELED. NULL = none. */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    unsigned threads; /* 0: as many as the host has processors, 2 to 8 */
};

enum disk_packing {
    DISK_PACK_NONE, /* all plain */
    DISK_PACK_KEEP, /* what is compressed in the source's top layer stays so */
    DISK_PACK_ALL,  /* all, where it gains something */
};

struct disk_copy {
    struct disk *source, *target; /* both borrowed; the target is no smaller */
    struct disk *base;   /* what the target shows where nothing is written to it: only what differs
                            from it is written; borrowed; NULL = none */
    bool target_is_zero; /* without a base: it shows zeroes where nothing is written */
    unsigned depth;      /* only what this many upper layers of the source hold; 0 = all */
    unsigned from_depth; /* only what the source's layers from this one down show, ... */
    unsigned to_depth;   /* ...to the one before this; 0 = all */
    enum disk_packing packing;
    uint64_t sparse_bytes; /* zeroes of fewer bytes than this are written as data; 0: all are */
};

#define DISK_SPARSE_DEFAULT 4096

/** Copy what the source shows. Not flushed. Errors name the offset. */
must_check int disk_copy(const struct disk_copy *copy, const struct disk_job *job,
                         struct error *err);

/** The @count disks (1 or more) one behind the other, as a read-only disk; they are borrowed until
 * disk_close(). Messages name the first. -EFBIG, -ENOMEM. */
must_check int disk_concat_new(struct disk *const *parts, unsigned count, struct disk **ret,
                               struct error *err);

/** How a new image is written. */
enum disk_cache {
    DISK_CACHE_AUTO,      /* past the host's page cache where that is faster */
    DISK_CACHE_WRITEBACK, /* through it */
    DISK_CACHE_DIRECT,    /* past it */
};

/** A new image of what a disk shows. */
struct disk_convert {
    struct disk *source;
    const char *path; /* of the new image */
    const struct disk_format *format;
    struct disk_create create; /* with create.backing, only what differs from it is written */
    enum disk_packing packing;
    uint64_t sparse_bytes;
    enum disk_cache cache;
    bool in_place; /* the source's own file is replaced */
};

/** Make it; it gets its name when it is whole, and a failure leaves nothing. */
must_check int disk_convert(const struct disk_convert *convert, const struct disk_job *job,
                            struct error *err);

/** Rewrite an image in place of the old one, without what it does not need: lost clusters, zeroes,
 * and what shows the same from below. What was compressed stays so. @options as for disk_open().
 * -ENOTSUP: it holds what would be lost (snapshots, bitmaps) or is of several files. */
must_check int disk_compact(const char *path, const struct disk_options *options,
                            const struct disk_job *job, struct error *err);

/** Write what image @path and the images between it and @base hold into @base, which reads
 * afterwards as @path does; grow it if it is shorter. Then, unless @keep, @path becomes an empty
 * image over @base. @base NULL: the image right below. Images between, if there are, are of no more
 * use. A power cut at any point leaves @path reading as before; of a format that stamps its
 * backing image (VDI, VMDK) @path may have to be told so first: disk_rebase(), unsafe. */
must_check int disk_commit(const char *path, const struct disk_options *options, const char *base,
                           bool keep, const struct disk_job *job, struct error *err);

struct disk_rebase {
    const char *path;
    const struct disk_options *options; /* for both images */
    const char *backing;                /* as it shall stand in the image; NULL = none */
    const char *backing_format;
    bool unsafe; /* write the name alone: the new one is known to show the same */
};

/** Put image @path over another backing image; it reads as before, what differs is copied into it.
 */
must_check int disk_rebase(const struct disk_rebase *rebase, const struct disk_job *job,
                           struct error *err);

/** Path of the image @depth below @top, an open chain whose own path is @path: heap; NULL: there is
 * none, or no memory. */
char *disk_layer_path(const struct disk *top, const char *path, unsigned depth);

/** @name as seen from the folder of @path; heap; NULL = no memory. */
char *disk_path_beside(const char *path, const char *name);

struct disk_bench {
    uint64_t count;                          /* requests */
    uint64_t size_bytes, offset, step_bytes; /* step 0: one after the other */
    unsigned depth;                          /* so many at a time */
    bool write, random;
    uint64_t flush_interval; /* after so many writes; 0 = at the end alone */
};

struct disk_bench_result {
    double seconds, user_seconds, system_seconds;
    uint64_t requests;
};

/** Time requests to a disk; what is written is a pattern: the content is lost. */
must_check int disk_bench(struct disk *d, const struct disk_bench *bench,
                          struct disk_bench_result *ret, struct error *err);

/** Compare two disks; where one ends earlier, zeroes follow. 0 with *@ret_equal; if false,
 * *@ret_offset is the first byte that differs. */
must_check int disk_compare(struct disk *a, struct disk *b, const struct disk_job *job,
                            bool *ret_equal, uint64_t *ret_offset, struct error *err);

/** A folder beside @path in which its image can be made; the image's files get their names when
 * they are whole. */
struct disk_stage;

enum disk_stage_mode {
    DISK_STAGE_NEW,      /* -EEXIST if there is a file of that name */
    DISK_STAGE_REPLACE,  /* it is replaced; -EBUSY if it is in use */
    DISK_STAGE_IN_PLACE, /* it is replaced, by the caller who holds it; its mode and owner stay;
                            -ENOTSUP for images of several files */
};

/** Begin. *@ret is the caller's, for disk_stage_free(). */
must_check int disk_stage_new(const char *path, enum disk_stage_mode mode, struct disk_stage **ret,
                              struct error *err);

/** The name under which to make the image. */
const char *disk_stage_path(const struct disk_stage *stage);

/** Flush all files of the folder and move them to their names, the image's own last. */
must_check int disk_stage_commit(struct disk_stage *stage, struct error *err);

/** Removes what was not committed. Takes NULL. */
void disk_stage_free(struct disk_stage *stage);

/** Is [p, p+size) all zero? */
bool disk_is_zero(const void *p, size_t size);

#endif
