/* What the files of disk/ share that is not a format's business. */
#ifndef DISK_DISK_INTERNAL_H
#define DISK_DISK_INTERNAL_H

#include "base/iov.h"
#include "disk/format.h"

/** A regular file that is open at @fd, for reading and writing and without a lock; @fd is taken,
 * also on failure. @path is for messages. */
must_check int file_new(int fd, const char *path, struct file **ret, struct error *err);

/** Copy-on-write over @base, which becomes what is below on success, into an unlinked temporary
 * file. */
must_check int overlay_new(struct disk *base, struct disk **ret, struct error *err);

/** A map over @highest and the layers below it, all read-only and alive until chain_map_free():
 * chain_map.c. -ENOMEM. */
must_check int chain_map_new(struct disk *highest, struct chain_map **ret);
void chain_map_free(struct chain_map *m); /* takes NULL */

/** Read within the highest layer's size, whatever layer has it. */
must_check int chain_map_preadv(struct chain_map *m, const struct iovec *iov, int iovcnt,
                                uint64_t offset);

/** As disk_map() of the highest layer. */
must_check int chain_map_find(struct chain_map *m, uint64_t offset, uint64_t size,
                              struct disk_extent *ret);

/** Lock @fd of file @path as qemu does: readers exclude writers, writers exclude all; -EBUSY names
 * the holder, unless @check is false: then others are not looked at. File systems without locks are
 * left unlocked. Lasts until the last close of this opening. */
must_check int disk_lock(int fd, const char *path, bool write, bool check, struct error *err);

/** Whole transfers at @offset of @fd; what lies past its end reads as zero. 0 or -errno. */
must_check int fd_preadv_all(int fd, const struct iovec *iov, int n, uint64_t offset);
must_check int fd_pwritev_all(int fd, const struct iovec *iov, int n, uint64_t offset);

/** Make [offset, offset+size) read as zero; with @may_unmap, free its storage if possible. The file
 * does not grow. */
must_check int fd_write_zeroes(int fd, uint64_t offset, uint64_t size, bool may_unmap);

/** The format of @file by its beginning and @path's suffix; *@ret is raw if none is known. */
must_check int disk_probe(struct file *file, const char *path, const struct disk_format **ret,
                          struct error *err);

#endif
