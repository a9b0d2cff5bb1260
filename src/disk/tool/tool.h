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
    unsigned threads; /* 0: as many as the host has processors, at most 8 */
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
    enum disk_packing packing;
    uint64_t sparse_bytes; /* zeroes of fewer bytes than this are written as data; 0: all are */
};

#define DISK_SPARSE_DEFAULT 4096

/** Copy what the source shows. Not flushed. Errors name the offset. */
must_check int disk_copy(const struct disk_copy *copy, const struct disk_job *job,
                         struct error *err);

/** A new image of what a disk shows. */
struct disk_convert {
    struct disk *source;
    const char *path; /* of the new image */
    const struct disk_format *format;
    struct disk_create create; /* with create.backing, only what differs from it is written */
    enum disk_packing packing;
    uint64_t sparse_bytes;
    unsigned target_flags; /* DISK_DIRECT */
};

/** Make it; it gets its name when it is whole, and a failure leaves nothing. */
must_check int disk_convert(const struct disk_convert *convert, const struct disk_job *job,
                            struct error *err);

/** Compare two disks; where one ends earlier, zeroes follow. 0 with *@ret_equal; if false,
 * *@ret_offset is the first byte that differs. */
must_check int disk_compare(struct disk *a, struct disk *b, const struct disk_job *job,
                            bool *ret_equal, uint64_t *ret_offset, struct error *err);

/** A folder beside @path in which its image can be made; the image's files get their names when
 * they are whole. */
struct disk_stage;

/** Begin; -EEXIST if there is a file @path, unless @force; -EBUSY if it is in use. *@ret is the
 * caller's, for disk_stage_free(). */
must_check int disk_stage_new(const char *path, bool force, struct disk_stage **ret,
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
