/* Vectored transfers that are whole, and zeroes. Any thread. */
#include "base/fd.h"
#include "disk/disk_internal.h"

#include <fcntl.h>
#include <limits.h>

#define ZERO_CHUNK 65536u
#define ZERO_IOV   16

static int transfer(int fd, const struct iovec *iov, int n, uint64_t offset, bool write)
{
    struct iovec rest[DISK_MAX_IOV];
    size_t total = iov_bytes(iov, (unsigned)n);
    size_t done = 0;

    while (done < total) {
        ssize_t moved = write ? pwritev(fd, iov, n, (off_t)(offset + done))
                              : preadv(fd, iov, n, (off_t)(offset + done));

        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0)
            return -errno;
        if (moved == 0) {
            if (write)
                return -EIO;
            iov_zero(iov, (unsigned)n);
            return 0;
        }
        done += (size_t)moved;
        if (done < total) { /* short: go on with what is left (in place the second time) */
            n = (int)iov_slice(rest, iov, (unsigned)n, (size_t)moved, total);
            iov = rest;
        }
    }
    return 0;
}

int fd_preadv_all(int fd, const struct iovec *iov, int n, uint64_t offset)
{
    return transfer(fd, iov, n, offset, false);
}

int fd_pwritev_all(int fd, const struct iovec *iov, int n, uint64_t offset)
{
    return transfer(fd, iov, n, offset, true);
}

static bool is_unsupported(int rc)
{
    return rc == -EOPNOTSUPP || rc == -ENOSYS || rc == -ENODEV || rc == -EINVAL;
}

static int try_fallocate(int fd, int mode, uint64_t offset, uint64_t size)
{
    int rc;

    do {
        rc = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) ? -errno : 0;
    } while (rc == -EINTR);
    return rc;
}

int fd_write_zeroes(int fd, uint64_t offset, uint64_t size, bool may_unmap)
{
    static const uint8_t zeroes[ZERO_CHUNK];
    int rc = -EOPNOTSUPP;

    if (!size)
        return 0;
    if (may_unmap)
        rc = try_fallocate(fd, FALLOC_FL_PUNCH_HOLE, offset, size);
    if (is_unsupported(rc))
        rc = try_fallocate(fd, FALLOC_FL_ZERO_RANGE, offset, size);
    if (!is_unsupported(rc))
        return rc;
    rc = 0;
    while (!rc && size) {
        struct iovec iov[ZERO_IOV];
        uint64_t batch = 0;
        int n = 0;

        for (; n < ZERO_IOV && batch < size; n++) {
            size_t part = (size_t)MIN(size - batch, (uint64_t)ZERO_CHUNK);

            iov[n] = (struct iovec){.iov_base = (void *)zeroes, .iov_len = part};
            batch += part;
        }
        rc = fd_pwritev_all(fd, iov, n, offset);
        offset += batch;
        size -= batch;
    }
    return rc;
}
