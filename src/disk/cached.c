/* Reading what the host has in its page cache, without waiting for storage. Any thread. */
#include "disk/disk_internal.h"

#include <errno.h>

/** Read all of the list at @e's place. */
static int read_place(const struct disk_extent *e, const struct iovec *iov, int n)
{
    ssize_t want = (ssize_t)iov_bytes(iov, (unsigned)n);

    switch (e->kind) {
    case DISK_ABSENT:
    case DISK_ZERO:
        iov_zero(iov, (unsigned)n);
        return 0;
    case DISK_PACKED:
        return -EAGAIN;
    case DISK_DATA:
        break;
    }
    if (e->file->fd < 0 || e->file->is_direct)
        return -EAGAIN;
    return preadv2(e->file->fd, iov, n, (off_t)e->file_offset, RWF_NOWAIT) == want ? 0 : -EAGAIN;
}

int disk_preadv_cached(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct iovec part[DISK_MAX_IOV];
    uint64_t size = iov_bytes(iov, (unsigned)iovcnt);
    uint64_t end = __atomic_load_n(&d->size_bytes, __ATOMIC_RELAXED); /* orders nothing */
    uint64_t done = 0;
    int rc = 0;

    if (iovcnt < 0 || iovcnt > DISK_MAX_IOV || offset > end || size > end - offset)
        return -EINVAL;
    unsigned ticket = disk_io_begin(d);
    while (!rc && done < size) {
        struct disk_extent e;

        rc = disk_locate(d, offset + done, size - done, &e);
        if (rc)
            break;
        if (e.size == size) {
            rc = read_place(&e, iov, iovcnt);
        } else {
            int n = (int)iov_slice(part, iov, (unsigned)iovcnt, (size_t)done, (size_t)e.size);

            rc = read_place(&e, part, n);
        }
        done += e.size;
    }
    disk_io_end(d, ticket);
    return rc;
}
