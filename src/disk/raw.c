/* Raw disks: byte n of the disk is byte n of a file or block device.
 *
 * A file whose size is no multiple of 512 is followed by zeroes up to the next one; writing there
 * makes the file longer. Holes of the file are reported as zeroes.
 *
 * Threads: any; the kernel serializes.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/format.h"

#include <string.h>

struct raw {
    struct disk d;        /* must be first */
    struct file *file;    /* [init] */
    uint64_t plain_bytes; /* [init] the file's length when it was opened */
};

static struct raw *raw_of(struct disk *d)
{
    return (struct raw *)d;
}

static int raw_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return file_preadv(raw_of(d)->file, iov, iovcnt, offset);
}

static int raw_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return file_pwritev(raw_of(d)->file, iov, iovcnt, offset);
}

static int raw_flush(struct disk *d)
{
    return file_flush(raw_of(d)->file);
}

static int raw_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    return file_discard(raw_of(d)->file, offset, size);
}

static int raw_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    return file_write_zeroes(raw_of(d)->file, offset, size, may_unmap);
}

static int raw_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct file *file = raw_of(d)->file;
    uint64_t start;
    uint64_t end;
    int rc = file_find_data(file, offset, &start, &end);

    if (rc && rc != -ENXIO)
        return rc;
    if (rc || start >= offset + size)
        *ret = (struct disk_extent){.kind = DISK_ZERO, .size = size};
    else if (start > offset)
        *ret = (struct disk_extent){.kind = DISK_ZERO, .size = start - offset};
    else
        *ret = (struct disk_extent){
            .kind = DISK_DATA,
            .size = MIN(size, end - offset),
            .file = file,
            .file_offset = offset,
        };
    return 0;
}

/** Anywhere but beyond the end of the file, which a write would make longer. */
static int raw_place(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    uint64_t end = raw_of(d)->plain_bytes;

    *ret = (struct disk_extent){.kind = DISK_PACKED, .size = size};
    if (offset < end)
        *ret = (struct disk_extent){
            .kind = DISK_DATA,
            .size = MIN(size, end - offset),
            .file = raw_of(d)->file,
            .file_offset = offset,
        };
    return 0;
}

static int raw_get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    disk_info_file(info, raw_of(d)->file);
    (void)err; /* cannot fail */
    return 0;
}

static int raw_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err)
{
    (void)shrink; /* the caller has checked */
    int rc = file_truncate(raw_of(d)->file, size_bytes);

    if (rc)
        return error_set(err, -rc, "cannot resize '%s': %s", raw_of(d)->file->path, strerror(-rc));
    __atomic_store_n(&d->size_bytes, size_bytes,
                     __ATOMIC_RELAXED); /* a size alone: orders nothing */
    return 0;
}

static void raw_close(struct disk *d)
{
    file_close(raw_of(d)->file);
    free(d);
}

static const struct disk_ops raw_ops = {
    .preadv = raw_preadv,
    .pwritev = raw_pwritev,
    .flush = raw_flush,
    .discard = raw_discard,
    .write_zeroes = raw_write_zeroes,
    .status = raw_status,
    .get_info = raw_get_info,
    .close = raw_close,
    .place = raw_place,
    .resize = raw_resize,
};

static int raw_open(const struct disk_open *open, struct file *file, struct disk **ret,
                    struct error *err)
{
    uint64_t size = 0;
    int rc = file_get_size(file, &size);

    if (rc)
        return error_set(err, -rc, "cannot find the size of disk '%s': %s", file->path,
                         strerror(-rc));
    if (!size)
        return error_set(err, EINVAL, "disk '%s' is empty", file->path);
    if (size > DISK_MAX_BYTES)
        return error_set(err, EINVAL, "disk '%s' is too large", file->path);
    struct raw *r = calloc(1, sizeof(*r));
    if (!r)
        return error_set(err, ENOMEM, "out of memory");
    r->d = (struct disk){
        .ops = &raw_ops,
        .size_bytes = align_up(size, DISK_SECTOR),
        .readonly = open->flags & DISK_READONLY,
    };
    r->file = file;
    r->plain_bytes = size;
    *ret = &r->d;
    return 0;
}

static int raw_create(const struct disk_create *create, struct file *file, struct disk_files *files,
                      struct error *err)
{
    bool full;
    int rc = disk_create_get_bool(create, "preallocation", false, &full, err);

    (void)files; /* one is enough */
    if (rc)
        return rc;
    if (create->backing_path)
        return error_set(err, EINVAL, "a raw disk cannot have a backing image");
    rc = full ? file_write_zeroes(file, 0, create->size_bytes, false)
              : file_truncate(file, create->size_bytes);
    return rc ? error_set(err, -rc, "cannot make '%s' %llu MiB large: %s", file->path,
                          (unsigned long long)(create->size_bytes >> 20), strerror(-rc))
              : 0;
}

static const struct disk_create_option raw_options[] = {
    {"preallocation",                              "off|full", "reserve the whole space now (default off)"},
    {0},
};

const struct disk_format raw_format = {
    .name = "raw",
    .title = "raw",
    .suffixes = "raw img",
    .open = raw_open,
    .create = raw_create,
    .options = raw_options,
};
