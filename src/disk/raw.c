/* Raw disks: byte n of the disk is byte n of a file or block device.
 *
 * A file whose size is no multiple of 512 is followed by zeroes up to the next one; writing there
 * makes the file longer.
 *
 * Threads: any; the kernel serializes.
 */
#include "base/fd.h"
#include "disk/disk_internal.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

struct raw {
    struct disk d; /* must be first */
    int fd;        /* [init] */
    bool is_block; /* [init] */
};

static int raw_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return fd_preadv_all(((struct raw *)d)->fd, iov, iovcnt, offset);
}

static int raw_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return fd_pwritev_all(((struct raw *)d)->fd, iov, iovcnt, offset);
}

static int raw_flush(struct disk *d)
{
    return fdatasync(((struct raw *)d)->fd) ? -errno : 0;
}

/** A discard is a hint: what cannot be done is not an error. */
static int raw_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    const struct raw *r = (const struct raw *)d;
    uint64_t range[2] = {offset, size};
    int rc;

    if (r->is_block)
        rc = ioctl(r->fd, BLKDISCARD, range);
    else
        rc = fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                       (off_t)size);
    return rc && errno == EIO ? -EIO : 0;
}

static int raw_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    return fd_write_zeroes(((struct raw *)d)->fd, offset, size, may_unmap);
}

static void raw_close(struct disk *d)
{
    struct raw *r = (struct raw *)d;

    fd_close(r->fd);
    free(r);
}

static const struct disk_ops raw_ops = {
    .name = "raw",
    .preadv = raw_preadv,
    .pwritev = raw_pwritev,
    .flush = raw_flush,
    .discard = raw_discard,
    .write_zeroes = raw_write_zeroes,
    .close = raw_close,
};

int raw_new(int fd, bool is_block, uint64_t size_bytes, bool readonly, struct disk **ret,
            struct error *err)
{
    struct raw *r = calloc(1, sizeof(*r));

    if (!r)
        return error_set(err, ENOMEM, "out of memory");
    r->d = (struct disk){.ops = &raw_ops, .size_bytes = size_bytes, .readonly = readonly};
    r->fd = fd;
    r->is_block = is_block;
    *ret = &r->d;
    return 0;
}
