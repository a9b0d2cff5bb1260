/* The bytes under an image: a file or block device of the host, or, in tests and fuzz targets,
 * memory that records what was done to it.
 *
 * A format does all its reading and writing through this, so that the power-cut tests see every
 * write, flush and truncation. Any thread; calls may overlap. */
#ifndef DISK_FILE_H
#define DISK_FILE_H

#include "base/error.h"
#include "base/macros.h"

#include <sys/uio.h>

struct file;

struct file_ops {
    int (*preadv)(struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset);
    int (*pwritev)(struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset);
    int (*flush)(struct file *f);
    int (*truncate)(struct file *f, uint64_t size);
    int (*discard)(struct file *f, uint64_t offset, uint64_t size);
    int (*write_zeroes)(struct file *f, uint64_t offset, uint64_t size, bool may_unmap);
    int (*find_data)(struct file *f, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end);
    int (*get_size)(struct file *f, uint64_t *ret);
    void (*close)(struct file *f);
};

/** What every kind of file begins with. */
struct file {
    const struct file_ops *ops; /* [init] */
    char *path;                 /* [init] for messages; never NULL */
    int fd;         /* [init] the host's descriptor, for io_uring and reflinks; -1 = none */
    bool readonly;  /* [init] */
    bool is_block;  /* [init] a block device: its size is fixed */
    bool is_direct; /* [init] O_DIRECT: the file bounces what is not aligned */
};

enum file_flags {
    FILE_WRITE = 1 << 0,
    FILE_DIRECT = 1 << 1,  /* past the host's page cache */
    FILE_NO_LOCK = 1 << 2, /* look at it though somebody writes to it (reading only) */
    FILE_CREATE = 1 << 3,  /* make it, empty; -EEXIST if there is one */
    FILE_BENEATH =
        1
        << 4, /* only what lies in @dir_fd's folder or below it, symbolic links included (-EXDEV) */
    FILE_LOCK_OVER = 1 << 5, /* lock it, but do not mind who holds it: an opening of our own that is
                                about to end */
};

/** Open @path, relative to @dir_fd (AT_FDCWD), a regular file or a block device. Locks it as qemu
 * does: writers exclude all, readers exclude writers. On success *@ret is the caller's, for
 * file_close(). Errors: those of open(), -EINVAL (neither file nor device), -EBUSY (locked: names
 * the holder), -EXDEV. */
must_check int file_open(int dir_fd, const char *path, unsigned flags, struct file **ret,
                         struct error *err);
void file_close(struct file *f); /* takes NULL */

/** Whole transfers: 0 or -errno. What lies past the end reads as zero; writing there makes the file
 * longer and what is between reads as zero. */
must_check int file_preadv(struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset);
must_check int file_pwritev(struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset);
must_check int file_pread(struct file *f, void *buf, size_t size, uint64_t offset);
must_check int file_pwrite(struct file *f, const void *buf, size_t size, uint64_t offset);

/** May the caller give this transfer to the kernel himself, at f->fd? Not if it would have to be
 * bounced, or there is no descriptor. Transfers may then be short. */
bool file_takes(const struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset);

/** Everything written before this call survives a power cut after it. */
must_check int file_flush(struct file *f);

/** New bytes read as zero. -ENOTSUP on a block device unless it is @size already. */
must_check int file_truncate(struct file *f, uint64_t size);

/** A hint; what cannot be done is not an error. Content afterwards: old bytes or zeroes. */
must_check int file_discard(struct file *f, uint64_t offset, uint64_t size);

/** Make [offset, offset+size) read as zero, making the file longer if it ends before; with
 * @may_unmap the storage under it is freed if possible. */
must_check int file_write_zeroes(struct file *f, uint64_t offset, uint64_t size, bool may_unmap);

/** The first run of bytes at or after @offset that may be other than zero: [*@ret_start,
 * *@ret_end). -ENXIO: there is none. A file that cannot tell says that all is data. */
must_check int file_find_data(struct file *f, uint64_t offset, uint64_t *ret_start,
                              uint64_t *ret_end);

must_check int file_get_size(struct file *f, uint64_t *ret);

#endif
