/* A virtual disk: one ops struct over every format.
 *
 * Calls are synchronous, run on an I/O thread, and several threads may use one disk at once: a
 * format locks what it must. Offsets and lengths are bytes; any alignment is allowed; a request
 * beyond disk_size() is -EINVAL. */
#ifndef DISK_DISK_H
#define DISK_DISK_H

#include "base/error.h"
#include "base/macros.h"

#include <sys/uio.h>

struct disk;

struct disk_ops {
    const char *name; /* "raw" */
    int (*preadv)(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
    int (*pwritev)(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
    int (*flush)(struct disk *d);
    int (*discard)(struct disk *d, uint64_t offset, uint64_t size);
    int (*write_zeroes)(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap);
    void (*close)(struct disk *d);
};

/** What every format begins with. */
struct disk {
    const struct disk_ops *ops; /* [init] */
    uint64_t size_bytes;        /* [init] */
    bool readonly;              /* [init] */
};

enum disk_open_flags {
    DISK_READONLY = 1 << 0,
    DISK_SNAPSHOT = 1 << 1, /* writes go to an unlinked temporary overlay and are gone at close */
};

/** Open @path. @format is "raw" (the only one yet) or NULL: NULL means raw unless the file begins
 * with another known format's magic, which is refused by name, since guessing is how files name
 * other files. A file opened for writing is locked (OFD write lock on byte range as qemu uses); a
 * second writer is refused. On success *@ret is the caller's, for disk_close(). Errors: -ENOENT,
 * -EACCES, -EROFS, -EBUSY (locked), -EINVAL. */
must_check int disk_open(const char *path, const char *format, unsigned flags, struct disk **ret,
                         struct error *err);
void disk_close(struct disk *d);

/** Whole transfers: 0 or -errno (-EINVAL beyond the end, -EROFS on a read-only disk). Any thread.
 */
must_check int disk_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
must_check int disk_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
must_check int disk_flush(struct disk *d);
must_check int disk_discard(struct disk *d, uint64_t offset, uint64_t size);
must_check int disk_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap);

#endif
