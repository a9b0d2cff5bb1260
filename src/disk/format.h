/* What a disk format is to disk/: its name, how it is known, opened, made, and its ops. One table,
 * in formats.c.
 *
 * Rules for formats
 *  1. The file is hostile. Every size, offset, table length and count is checked against the file's
 * length or a fixed limit before anything is allocated or looped over by it; arithmetic is
 * checked_add()/checked_mul(). A cluster that two places claim, or that lies on metadata, is never
 * written to: mark corrupt, -EIO.
 *  2. All I/O goes through struct file. Metadata is cached with a fixed limit.
 *  3. Data of the guest moves outside of locks. Finding a place takes a lock for reading,
 * allocating one for writing. A cluster that a request in flight uses must not be given to another
 * place before that request ends; requests may go past the format (place(), status()), so it cannot
 * count them itself. Therefore: after the last pointer to a cluster is gone from memory, take
 * disk_io_stamp() and keep it with the freed cluster; use the cluster again only when
 * disk_io_is_past() that stamp (and rule 4 allows); until then take another one. Neither waits, and
 * both may be called with locks held. One stamp may serve for all that one flush() frees. Every
 * call of an op is itself such a request, so what it frees it cannot use again itself.
 *  4. A power cut at any point, with any subset of the writes since the last flush done, in any
 * order, torn at 512 bytes, leaves an image that opens, whose flushed bytes are all there, and
 * whose worst fault is a leak. So what is pointed to is flushed before what points to it is
 * written. Metadata gathers in memory until flush(), which costs at most two flushes of the file:
 * [data, new tables, counts] flush [pointers] flush. With nothing dirty: one, always, since data
 * may have been written in place past the format. A cluster that was freed is used again only after
 * the pointer's removal is flushed.
 *  5. Fresh clusters are taken at the end of the file (or from holes known to read as zeroes), so
 * that the rest of a partly written cluster needs no zeroes written. Only sectors that changed are
 * written of a table.
 *  6. Where a layer holds nothing it reads through disk_below_preadv(); a partial write to a fresh
 * cluster of a layer with something below copies the rest of the cluster (or uses sub-clusters
 * where the format has them).
 *  7. A zero written over something below is recorded as zero, never as absent.
 */
#ifndef DISK_FORMAT_H
#define DISK_FORMAT_H

#include "disk/disk.h"
#include "disk/file.h"

struct disk_ops {
    /* Required. Ranges have been checked, and that the disk is writable; sizes are not 0. */
    int (*preadv)(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
    int (*pwritev)(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
    int (*flush)(struct disk *d);
    int (*discard)(struct disk *d, uint64_t offset, uint64_t size);
    int (*write_zeroes)(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap);
    int (*status)(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret);
    int (*get_info)(struct disk *d, struct disk_info *info, struct error *err);
    /* Frees what the format added, and its files; not struct disk's own members, nor `below`. */
    void (*close)(struct disk *d);

    /* Where may [offset, offset+size) be written past the format? DISK_DATA with place and size in
     * *ret only if what is there is plain, this layer's alone (not shared with a snapshot, not
     * compressed), and writing it changes no metadata (no enabled bitmap); it may be called at any
     * time, also without a write following. Any other kind: nowhere. NULL: never. */
    int (*place)(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret);

    /* NULL = the format cannot. */
    int (*check)(struct disk *d, unsigned flags, struct disk_check *check, struct error *err);
    int (*resize)(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err);
    int (*set_backing)(struct disk *d, const char *path, const char *format, struct error *err);
    int (*make_empty)(struct disk *d, struct error *err);
    int (*bitmap)(struct disk *d, enum disk_bitmap_action action, const char *name,
                  uint64_t granularity_bytes, struct disk *source_disk, const char *source,
                  struct error *err);

    /* disk_fill(). */
    int (*fill)(struct disk *d, uint64_t offset, uint64_t size);

    /* disk_allocate(); there is nothing below. */
    int (*allocate)(struct disk *d, uint64_t offset, uint64_t size);

    /* disk_bitmap_find(), of this layer alone. */
    int (*bitmap_find)(struct disk *d, const char *name, uint64_t offset, uint64_t size,
                       bool *ret_set, uint64_t *ret_size);

    /* disk_hurry(). */
    void (*hurry)(struct disk *d, bool on);

    /* The layer below has been opened: is it the right one (identifiers)? */
    int (*match_below)(struct disk *d, const struct disk *below, struct error *err);

    /* Compressed writing, by convert: pack() any thread, at the same time; write_packed() one
     * thread. @data holds cluster_bytes. pack() returns -E2BIG if it gains nothing: then the
     * cluster is written plain. */
    int (*pack)(struct disk *d, const void *data, void *dst, size_t dst_size, size_t *ret_size);
    int (*write_packed)(struct disk *d, uint64_t offset, const void *packed, size_t size);
};

/** How an image is opened. */
struct disk_open {
    const char *path; /* of the image; NULL for disk_open_file() */
    int dir_fd;       /* its folder; -1 for disk_open_file() */
    unsigned flags;   /* DISK_*: readonly is already folded in */
    enum disk_refs refs;
    const char *key_file;
};

/** Open file @name that an image names (extent, data file), by @open's rules. Writable unless the
 * image is read-only. */
must_check int disk_open_ref(const struct disk_open *open, const char *name, struct file **ret,
                             struct error *err);

/** The files of an image that is being made: each has a temporary name until all are whole. */
struct disk_files;

/** Another file beside the main one, of the final name @name (no folder). *@ret is closed by
 * disk_create(). */
must_check int disk_files_add(struct disk_files *files, const char *name, struct file **ret,
                              struct error *err);

/** Last component of the main file's final name. */
const char *disk_files_name(const struct disk_files *files);

struct disk_format {
    const char *name;     /* "qcow2" */
    const char *alias;    /* "vpc"; NULL = none */
    const char *title;    /* "QCOW2", for people */
    const char *suffixes; /* usual ends of names, separated by spaces: "qcow2 qcow" */

    /** Is this the format, by its first @size bytes (zero-padded to 4096) or, for VHD, its last
     * 512? NULL: never found so (raw). */
    bool (*probe)(const uint8_t *head, const uint8_t *tail);

    /** Takes @file on success. Fills struct disk (not format, path, below). */
    int (*open)(const struct disk_open *open, struct file *file, struct disk **ret,
                struct error *err);

    /** Fill the empty @file. */
    int (*create)(const struct disk_create *create, struct file *file, struct disk_files *files,
                  struct error *err);
    const struct disk_create_option *options; /* NULL = none */

    /** Bytes of the files for a disk of which @data_bytes in whole clusters hold data. NULL: data
     * alone. */
    int (*measure)(const struct disk_create *create, uint64_t data_bytes, uint64_t *ret,
                   struct error *err);

    /** The backing image's path of a layer whose format does not store one (VDI): look for it in
     * open->dir_fd. NULL: backing_path says it. *@ret is heap. */
    int (*find_backing)(const struct disk_open *open, struct disk *d, char **ret,
                        struct error *err);
};

/** Rule 3: the moment at which a cluster was freed, and whether every request that may have known
 * it has ended. */
uint64_t disk_io_stamp(struct disk *d);
bool disk_io_is_past(struct disk *d, uint64_t stamp);

/** Read what is below @d: zeroes where there is nothing or beyond its end. */
must_check int disk_below_preadv(struct disk *d, const struct iovec *iov, int iovcnt,
                                 uint64_t offset);

/** The value of option @name, or NULL; the rest convert it: -EINVAL with a sentence naming the
 * option. */
const char *disk_create_get(const struct disk_create *c, const char *name);
must_check int disk_create_get_size(const struct disk_create *c, const char *name, uint64_t def,
                                    uint64_t *ret, struct error *err);
must_check int disk_create_get_bool(const struct disk_create *c, const char *name, bool def,
                                    bool *ret, struct error *err);

#define DISK_SECTOR 512u

extern const struct disk_format raw_format;
extern const struct disk_format vdi_format;
extern const struct disk_format vhd_format;
extern const struct disk_format vhdx_format;
extern const struct disk_format vmdk_format;
extern const struct disk_format qcow2_format;

#endif
