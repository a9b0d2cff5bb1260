/* The calls of a disk, and the checks that no format has to repeat. Any thread. */
#include "disk/disk.h"
#include "disk/disk_internal.h"

#include <errno.h>
#include <string.h>

static uint64_t size_of(const struct disk *d)
{
    return __atomic_load_n(&d->size_bytes, __ATOMIC_RELAXED); /* a size alone: orders nothing */
}

/** Is [offset, offset+size) within the disk and, to change it, allowed? */
static int check(const struct disk *d, uint64_t offset, uint64_t size, bool change)
{
    uint64_t end = size_of(d);

    if (offset > end || size > end - offset)
        return -EINVAL;
    return change && d->readonly ? -EROFS : 0;
}

static int check_iov(const struct disk *d, const struct iovec *iov, int n, uint64_t offset,
                     bool change)
{
    if (n < 0 || n > DISK_MAX_IOV)
        return -EINVAL;
    return check(d, offset, iov_bytes(iov, (unsigned)n), change);
}

int disk_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    int rc = check_iov(d, iov, iovcnt, offset, false);

    if (rc || !iov_bytes(iov, (unsigned)iovcnt))
        return rc;
    unsigned ticket = disk_io_begin(d);
    rc = d->ops->preadv(d, iov, iovcnt, offset);
    disk_io_end(d, ticket);
    return rc;
}

int disk_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    int rc = check_iov(d, iov, iovcnt, offset, true);

    if (rc || !iov_bytes(iov, (unsigned)iovcnt))
        return rc;
    unsigned ticket = disk_io_begin(d);
    rc = d->ops->pwritev(d, iov, iovcnt, offset);
    disk_io_end(d, ticket);
    return rc;
}

int disk_pread(struct disk *d, void *buf, size_t size, uint64_t offset)
{
    struct iovec iov = {.iov_base = buf, .iov_len = size};

    return disk_preadv(d, &iov, 1, offset);
}

int disk_pwrite(struct disk *d, const void *buf, size_t size, uint64_t offset)
{
    struct iovec iov = {.iov_base = (void *)buf, .iov_len = size};

    return disk_pwritev(d, &iov, 1, offset);
}

int disk_flush(struct disk *d)
{
    return d->readonly ? 0 : d->ops->flush(d);
}

int disk_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    int rc = check(d, offset, size, true);

    if (rc || !size)
        return rc;
    unsigned ticket = disk_io_begin(d);
    rc = d->ops->discard(d, offset, size);
    disk_io_end(d, ticket);
    return rc;
}

int disk_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    int rc = check(d, offset, size, true);

    if (rc || !size)
        return rc;
    unsigned ticket = disk_io_begin(d);
    rc = d->ops->write_zeroes(d, offset, size, may_unmap);
    disk_io_end(d, ticket);
    return rc;
}

int disk_fill(struct disk *d, uint64_t offset, uint64_t size)
{
    int rc = check(d, offset, size, true);

    if (rc || !size)
        return rc;
    if (!d->ops->fill)
        return -ENOTSUP;
    unsigned ticket = disk_io_begin(d);
    rc = d->ops->fill(d, offset, size);
    disk_io_end(d, ticket);
    return rc;
}

static int read_below(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    if (d->map)
        return chain_map_preadv(d->map, iov, iovcnt, offset);
    return disk_preadv(d->below, iov, iovcnt, offset);
}

int disk_below_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    uint64_t total = iov_bytes(iov, (unsigned)iovcnt);
    uint64_t end = d->below ? size_of(d->below) : 0;
    struct iovec part[DISK_MAX_IOV];

    if (!d->below || offset >= end) {
        iov_zero(iov, (unsigned)iovcnt);
        return 0;
    }
    if (total <= end - offset)
        return read_below(d, iov, iovcnt, offset);
    int n = (int)iov_slice(part, iov, (unsigned)iovcnt, (size_t)(end - offset), total);
    iov_zero(part, (unsigned)n);
    n = (int)iov_slice(part, iov, (unsigned)iovcnt, 0, (size_t)(end - offset));
    return read_below(d, part, n, offset);
}

int disk_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    int rc = size ? check(d, offset, size, false) : -EINVAL;

    if (!rc)
        rc = d->ops->status(d, offset, size, ret);
    if (!rc)
        ret->depth = 0;
    return rc;
}

int disk_map(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    unsigned depth = 0;
    int rc = disk_status(d, offset, size, ret);

    while (!rc && ret->kind == DISK_ABSENT && d->below) {
        struct chain_map *map = d->map;
        uint64_t end;

        d = d->below;
        depth++;
        end = size_of(d);
        if (offset >= end) { /* a layer that ends here hides what is below it */
            *ret = (struct disk_extent){.kind = DISK_ZERO, .size = ret->size};
            break;
        }
        if (map) { /* knows it through all of them */
            rc = chain_map_find(map, offset, MIN(ret->size, end - offset), ret);
            depth += ret->depth;
            break;
        }
        rc = disk_status(d, offset, MIN(ret->size, end - offset), ret);
    }
    if (!rc)
        ret->depth = depth;
    return rc;
}

int disk_place(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    int rc = size ? check(d, offset, size, true) : -EINVAL;

    if (rc)
        return rc;
    if (d->ops->place)
        return d->ops->place(d, offset, size, ret);
    *ret = (struct disk_extent){.kind = DISK_PACKED, .size = size};
    return 0;
}

int disk_allocate(struct disk *d, uint64_t offset, uint64_t size)
{
    int rc = check(d, offset, size, true);

    if (rc || !size)
        return rc;
    if (!d->ops->allocate || d->below || d->backing_path)
        return -ENOTSUP;
    unsigned ticket = disk_io_begin(d);
    rc = d->ops->allocate(d, offset, size);
    disk_io_end(d, ticket);
    return rc;
}

void disk_hurry(struct disk *d, bool on)
{
    if (d->ops->hurry)
        d->ops->hurry(d, on);
}

int disk_locate(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    int rc = size ? check(d, offset, size, false) : -EINVAL;

    ret->kind = DISK_ABSENT;
    if (!rc && d->ops->place && !d->below)
        rc = d->ops->place(d, offset, size, ret);
    return rc || ret->kind == DISK_DATA ? rc : disk_map(d, offset, size, ret);
}

static int unsupported(const struct disk *d, const char *what, struct error *err)
{
    return error_set(err, ENOTSUP, "%s images cannot be %s", d->format ? d->format->title : "such",
                     what);
}

int disk_check(struct disk *d, unsigned flags, struct disk_check *check_result, struct error *err)
{
    if (!d->ops->check)
        return unsupported(d, "checked: they have nothing to check", err);
    if (flags && d->readonly)
        return error_set(err, EROFS, "'%s' is open for reading only", d->path);
    return d->ops->check(d, flags, check_result, err);
}

int disk_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err)
{
    if (!d->ops->resize)
        return unsupported(d, "resized", err);
    if (d->readonly)
        return error_set(err, EROFS, "'%s' is open for reading only", d->path);
    if (!size_bytes || size_bytes % DISK_SECTOR || size_bytes > DISK_MAX_BYTES)
        return error_set(err, EINVAL, "a disk's size is a multiple of 512 bytes, from 512");
    if (size_bytes < d->size_bytes && !shrink)
        return error_set(
            err, EINVAL,
            "'%s' is larger: making it smaller loses what lies beyond, and must be asked for",
            d->path);
    return size_bytes == d->size_bytes ? 0 : d->ops->resize(d, size_bytes, shrink, err);
}

int disk_set_backing(struct disk *d, const char *path, const char *format, struct error *err)
{
    if (!d->ops->set_backing)
        return unsupported(d, "given a backing image", err);
    if (d->readonly)
        return error_set(err, EROFS, "'%s' is open for reading only", d->path);
    return d->ops->set_backing(d, path, format, err);
}

int disk_make_empty(struct disk *d, struct error *err)
{
    if (!d->ops->make_empty)
        return unsupported(d, "emptied", err);
    if (d->readonly)
        return error_set(err, EROFS, "'%s' is open for reading only", d->path);
    return d->ops->make_empty(d, err);
}

int disk_bitmap(struct disk *d, enum disk_bitmap_action action, const char *name,
                uint64_t granularity_bytes, struct disk *source_disk, const char *source,
                struct error *err)
{
    if (!d->ops->bitmap)
        return unsupported(d, "given bitmaps", err);
    if (d->readonly)
        return error_set(err, EROFS, "'%s' is open for reading only", d->path);
    return d->ops->bitmap(d, action, name, granularity_bytes, source_disk, source, err);
}

int disk_bitmap_find(struct disk *d, const char *name, uint64_t offset, uint64_t size,
                     bool *ret_set, uint64_t *ret_size)
{
    int rc = size ? check(d, offset, size, false) : -EINVAL;

    if (rc)
        return rc;
    for (rc = -ENOENT; d && rc == -ENOENT; d = d->below) {
        if (d->ops->bitmap_find)
            rc = d->ops->bitmap_find(d, name, offset, size, ret_set, ret_size);
    }
    return rc;
}
