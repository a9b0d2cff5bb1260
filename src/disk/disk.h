/* A virtual disk: one ops struct over every format, and chains of them.
 *
 * A disk that is opened is a chain of layers: the image that was named, its backing image `below`
 * it, and so on. The top layer's own functions read what is below where they hold nothing
 * themselves; the layers below are read-only, and are resolved into one map.
 *
 * Calls are synchronous, run on an I/O thread, and several threads may use one disk at once: a
 * format locks what it must. Offsets and lengths are bytes; any alignment is allowed; a request
 * beyond disk_size() is -EINVAL.
 *
 * What changes what an image says about itself is for the disk's only user, who has no other call
 * or place (disk_place()) under way: disk_check() with repairs, disk_resize(), disk_set_backing(),
 * disk_make_empty(), disk_bitmap(), disk_close(). One exception: while a QCOW2 layer is given
 * another backing image, it may be read and written. */
#ifndef DISK_DISK_H
#define DISK_DISK_H

#include "base/error.h"
#include "base/macros.h"

#include <sys/uio.h>

#define DISK_MAX_IOV   1024         /* buffers in one request */
#define DISK_MAX_DEPTH 256          /* layers of a chain */
#define DISK_MAX_BYTES (1ULL << 62) /* of a virtual disk */

struct chain_map;
struct disk;
struct disk_ops;
struct disk_format;
struct file;

/** Requests in flight; see disk_io_begin(). All zero at first. */
struct disk_guard {
    uint64_t epoch;        /* [atomic] */
    unsigned in_flight[2]; /* [atomic] requests of this epoch and of the one before, by epoch % 2 */
};

/** What every layer begins with. A format fills it before its open() returns; `below` is set by
 * disk_open() after. */
struct disk {
    const struct disk_ops *ops;
    const struct disk_format
        *format;            /* [init] set by disk_open(); NULL for what is not a file's format */
    uint64_t size_bytes;    /* [atomic] virtual size, a multiple of 512; changed by resize() only */
    bool readonly;          /* [init] */
    uint32_t cluster_bytes; /* [init] unit of allocation; 0 = none (raw) */
    struct disk *below; /* [init] what reads where this layer holds nothing; owned; NULL = zeroes */
    struct chain_map
        *map;   /* [init] `below` and all under it, resolved; owned; NULL = layer by layer */
    char *path; /* [init] of the image, for messages; owned */
    char *backing_path;   /* as the image names it; owned; NULL = it names none */
    char *backing_format; /* as the image names it; owned; NULL = it does not say */
    struct disk_guard guard;
};

/** Which other files (backing, data file, extents) an image may name. */
enum disk_refs {
    DISK_REFS_FOLDER, /* those in the image's own folder or below it, symbolic links followed and
                         checked */
    DISK_REFS_ANY,    /* any: the user trusts the image */
    DISK_REFS_NONE,   /* none: an image that names another file is refused */
};

enum disk_open_flags {
    DISK_READONLY = 1 << 0,
    DISK_SNAPSHOT = 1 << 1,   /* writes go to an unlinked temporary overlay and are gone at close */
    DISK_DIRECT = 1 << 2,     /* past the host's page cache */
    DISK_NO_BACKING = 1 << 3, /* this layer alone: where it holds nothing, zeroes are read */
    DISK_NO_LOCK = 1 << 4, /* read though another process writes to it: what is read may be torn */
    DISK_CHECK = 1 << 5,   /* to be checked or repaired: open it even if it is marked corrupt */
    DISK_LOCK_OVER = 1 << 6, /* in place of another opening of ours, which ends soon: whether
                                somebody holds the file is not looked at */
};

struct disk_options {   /* all zero: a writable disk of probed format */
    const char *format; /* NULL: by the file's beginning; see disk_open() */
    unsigned flags;
    enum disk_refs refs;
    const char *key_file; /* passphrase of all encrypted images of the chain; NULL = none */
    unsigned write_depth; /* the layer so far below the top is opened for writing too; 0 = none */
};

/** Open @path and the chain below it. @options may be NULL. Format NULL: known by its magic, else
 * raw; but a file with a magic whose name ends in .raw or .img is refused with a sentence that asks
 * for the format, since a guest can write any magic into its raw disk. The format of a backing
 * image is never guessed: the image must say it. Backing images are opened read-only. On success
 * *@ret is the caller's, for disk_close(). Errors: -ENOENT, -EACCES, -EROFS, -EBUSY (locked: names
 * the holder), -EINVAL, -ELOOP (a chain that comes back to itself or is too deep), -EPERM (a
 * reference that @options does not allow), -ENOTSUP (a feature that is not known). */
must_check int disk_open(const char *path, const struct disk_options *options, struct disk **ret,
                         struct error *err);

/** Open @file, which must hold @format, over @below (NULL = nothing); other references are refused.
 * Takes both on success. For tests, fuzz targets and temporary images. */
must_check int disk_open_file(struct file *file, const struct disk_format *format, unsigned flags,
                              struct disk *below, struct disk **ret, struct error *err);

/** Flushes metadata, marks the image clean, closes the layers below. Takes NULL. */
void disk_close(struct disk *d);

/** Whole transfers: 0 or -errno (-EINVAL beyond the end, -EROFS on a read-only disk). Any thread.
 */
must_check int disk_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
must_check int disk_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
must_check int disk_pread(struct disk *d, void *buf, size_t size, uint64_t offset);
must_check int disk_pwrite(struct disk *d, const void *buf, size_t size, uint64_t offset);

/** Like disk_preadv(), but without waiting for storage: -EAGAIN, with any content in the buffers,
 * if the host does not have all of it in memory or cannot tell, or if it must be unpacked. Tables
 * that are not cached yet are still waited for. */
must_check int disk_preadv_cached(struct disk *d, const struct iovec *iov, int iovcnt,
                                  uint64_t offset);

/** What was written before this call survives a power cut after it. */
must_check int disk_flush(struct disk *d);

/** A hint. What is discarded reads afterwards as before or as zeroes, never as what a layer below
 * holds. */
must_check int disk_discard(struct disk *d, uint64_t offset, uint64_t size);

/** Recorded as zeroes in the top layer, whatever the layers below hold; with @may_unmap storage is
 * given back. */
must_check int disk_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap);

/** Copy what the top layer does not hold of the range from below into it, whole clusters at a time.
 * It reads as before, at any moment; others may write to the disk meanwhile, and win. Not flushed.
 * -ENOTSUP: the format cannot. */
must_check int disk_fill(struct disk *d, uint64_t offset, uint64_t size);

enum disk_extent_kind {
    DISK_ABSENT, /* the layer holds nothing here: what is below shows through */
    DISK_ZERO,   /* reads as zeroes, without data */
    DISK_DATA,   /* plain bytes of `file` at `file_offset` */
    DISK_PACKED, /* data that only preadv can read: compressed, encrypted */
};

struct disk_extent {
    enum disk_extent_kind kind;
    uint64_t size;        /* bytes from the asked offset that are alike, >= 1 */
    struct file *file;    /* DISK_DATA: borrowed from the layer */
    uint64_t file_offset; /* DISK_DATA */
    unsigned depth;       /* disk_map(): 0 = the top layer; absent in all: depth of the lowest */
};

/** What the top layer itself holds at @offset, at most @size bytes of it. A lower bound is allowed:
 * the next call goes on. For DISK_DATA the place stays valid for reading until the layer is written
 * to, discarded or closed; with disk_io_begin() before, until disk_io_end(). */
must_check int disk_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret);

/** The same through the chain: DISK_ABSENT only where no layer holds anything. */
must_check int disk_map(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret);

/** From now on (@on), or no longer, requests do not wait for limits: they are to end soon. */
void disk_hurry(struct disk *d, bool on);

/** Where to read: disk_map() without caring for holes of files, which are data here; so a raw disk
 * is found without asking the host. */
must_check int disk_locate(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret);

/** Where a write to [offset, offset+size) may go past the format, straight to a file: DISK_DATA
 * with the place and how much of the range it holds; any other kind: use disk_pwritev(). Only
 * between disk_io_begin() and disk_io_end(), which comes after the write has ended. */
must_check int disk_place(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret);

/** Make places for what the top layer does not hold of [offset, offset+size), which read as zeroes:
 * for a disk without a layer below, whose places disk_place() will then tell. -ENOTSUP: it cannot.
 */
must_check int disk_allocate(struct disk *d, uint64_t offset, uint64_t size);

/** A request that uses places of disk_map() or disk_place() begins and ends: in between, what they
 * name is not given to another part of the disk. Returns the ticket for disk_io_end(), which any
 * thread may call. Never waits. disk_preadv() and the other calls do this by themselves. */
must_check unsigned disk_io_begin(struct disk *d);
void disk_io_end(struct disk *d, unsigned ticket);

/* Facts about an image, for `info`. Keys are qemu-img's JSON names where it has them. */

enum disk_fact_kind { DISK_FACT_TEXT, DISK_FACT_NUMBER, DISK_FACT_BOOL };

struct disk_fact {
    struct disk_fact *next;
    char *name;
    enum disk_fact_kind kind;
    char *text;
    uint64_t number;
};

struct disk_snapshot {
    struct disk_snapshot *next;
    char *id, *name;
    uint64_t size_bytes, state_bytes;
    int64_t date_s, clock_ns;
};

struct disk_bitmap {
    struct disk_bitmap *next;
    char *name;
    uint64_t granularity_bytes;
    bool enabled, inconsistent;
};

struct disk_info {
    uint64_t file_bytes;  /* length of the image's files */
    uint64_t space_bytes; /* what they take on the host */
    bool is_dirty, is_corrupt, is_encrypted, is_packed;
    struct disk_fact *facts; /* the format's own, in order */
    struct disk_snapshot *snapshots;
    struct disk_bitmap *bitmaps;
};

/** About the top layer. *@ret is the caller's, for disk_info_done(). */
must_check int disk_get_info(struct disk *d, struct disk_info *ret, struct error *err);
void disk_info_done(struct disk_info *info);

/** Add the length and the space of one of the image's files. For formats. */
void disk_info_file(struct disk_info *info, struct file *file);

/** Append a fact (the texts are copied; out of memory drops it). For formats. */
void disk_info_text(struct disk_info *info, const char *name, const char *text);
void disk_info_number(struct disk_info *info, const char *name, uint64_t value);
void disk_info_bool(struct disk_info *info, const char *name, bool value);

enum disk_check_flags {
    DISK_REPAIR_LEAKS = 1 << 0, /* give back clusters that nothing refers to */
    DISK_REPAIR_ALL = 1 << 1,   /* and mend what is wrong */
};

struct disk_check {
    uint64_t errors, leaks;             /* found, those mended included */
    uint64_t errors_fixed, leaks_fixed; /* mended */
    uint64_t clusters, allocated, packed, fragmented;
    uint64_t end_bytes; /* where the used part of the file ends */
    /* NULL or called for each finding, a sentence without full stop. */
    void (*report)(void *arg, const char *text);
    void *arg;
};

/** Check the top layer's metadata, and mend it as @flags say. 0 even if errors are found: they are
 * counted. -ENOTSUP: the format has nothing to check. */
must_check int disk_check(struct disk *d, unsigned flags, struct disk_check *check,
                          struct error *err);

/** Change the virtual size; new bytes read as zero (also where a layer below is longer). Shrinking
 * must be allowed by @shrink. */
must_check int disk_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err);

/** Name another backing image in the top layer (NULL = none), without looking at any content. */
must_check int disk_set_backing(struct disk *d, const char *path, const char *format,
                                struct error *err);

/** Drop everything that the top layer holds, as after committing it: all shows what is below. */
must_check int disk_make_empty(struct disk *d, struct error *err);

enum disk_bitmap_action {
    DISK_BITMAP_ADD,
    DISK_BITMAP_REMOVE,
    DISK_BITMAP_CLEAR,
    DISK_BITMAP_ENABLE,
    DISK_BITMAP_DISABLE,
    DISK_BITMAP_MERGE,
};

/** @granularity_bytes (0 = default) is for ADD, @source for MERGE: a bitmap of @source_disk (may be
 * @d). */
must_check int disk_bitmap(struct disk *d, enum disk_bitmap_action action, const char *name,
                           uint64_t granularity_bytes, struct disk *source_disk, const char *source,
                           struct error *err);

/** Has bitmap @name recorded the byte at @offset? *@ret_size says for how many bytes from there, at
 * most @size, the answer is the same (a lower bound). The bitmap of the topmost layer that has one
 * of that name. -ENOENT: none has; -EUCLEAN: it was in use when its program ended. Any thread. */
must_check int disk_bitmap_find(struct disk *d, const char *name, uint64_t offset, uint64_t size,
                                bool *ret_set, uint64_t *ret_size);

/* Formats */

/** One option of `create -o`. */
struct disk_create_option {
    const char *name; /* qemu-img's where it has it; NULL ends a table */
    const char *arg;  /* what help calls the value: "SIZE", "on|off", "a|b|c" */
    const char *help; /* a phrase, with the default */
};

/** The value of one -o option, or of several, as a NULL-named end. */
struct disk_create_value {
    const char *name, *value;
};

struct disk_create {
    uint64_t size_bytes;
    const char *backing_path, *backing_format; /* as they shall stand in the image; NULL = none */
    struct disk *backing; /* opened, for its size and identifiers; borrowed; NULL = none */
    const struct disk_create_value *values; /* ends with a NULL name; NULL = none */
    const char *key_file;
    bool force; /* replace what is there */
};

extern const struct disk_format *const disk_formats[]; /* NULL-terminated */

/** By name or alias ("vpc" is vhd, "vhdx"...), or NULL. */
const struct disk_format *disk_format_find(const char *name);
/** By the usual ending of an image's name ("disk.qcow2"), or NULL. For images that are made; what
 * an existing file holds, its name does not say. */
const struct disk_format *disk_format_of_name(const char *path);
const char *disk_format_name(const struct disk_format *f);
const char *disk_format_title(const struct disk_format *f);
const struct disk_create_option *disk_format_options(const struct disk_format *f);

/** Make an image. Its files appear under their names only when they are whole; a failure leaves
 * nothing. -EEXIST unless create->force. */
must_check int disk_create(const char *path, const struct disk_format *format,
                           const struct disk_create *create, struct error *err);

/** Make an image in the empty @file, alone: an image of several files is -EINVAL. For tests and
 * temporary images. */
must_check int disk_create_file(struct file *file, const struct disk_format *format,
                                const struct disk_create *create, struct error *err);

/** What an image of @create would take: for @data_bytes of data in whole clusters, and with all of
 * it written. */
must_check int disk_measure(const struct disk_format *format, const struct disk_create *create,
                            struct disk *source, uint64_t *ret_required, uint64_t *ret_full,
                            struct error *err);

#endif
