/* What the files of disk/ share. */
#ifndef DISK_DISK_INTERNAL_H
#define DISK_DISK_INTERNAL_H

#include "base/iov.h"
#include "disk/disk.h"

#define DISK_SECTOR  512u
#define DISK_MAX_IOV 1024 /* buffers in one request */

/** Take @fd (a regular file or block device), its size known: the caller's until success. */
must_check int raw_new(int fd, bool is_block, uint64_t size_bytes, bool readonly, struct disk **ret,
                       struct error *err);

/** Copy-on-write over @base, which it takes on success, into an unlinked temporary file. */
must_check int overlay_new(struct disk *base, struct disk **ret, struct error *err);

/** Lock @fd of file @path as qemu does: readers exclude writers, writers exclude all; -EBUSY names
 * the holder. File systems without locks are left unlocked. Lasts until the last close of this
 * opening. */
must_check int disk_lock(int fd, const char *path, bool write, struct error *err);

/** Whole transfers at @offset of @fd; what lies past its end reads as zero. 0 or -errno. */
must_check int fd_preadv_all(int fd, const struct iovec *iov, int n, uint64_t offset);
must_check int fd_pwritev_all(int fd, const struct iovec *iov, int n, uint64_t offset);

/** Make [offset, offset+size) read as zero; with @may_unmap, free its storage if possible. */
must_check int fd_write_zeroes(int fd, uint64_t offset, uint64_t size, bool may_unmap);

#endif
