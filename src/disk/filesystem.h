/* What a partition holds, by its beginning. */
#ifndef DISK_FILESYSTEM_H
#define DISK_FILESYSTEM_H

#include "disk/disk.h"

/** The name by which Linux mounts the file system in bytes [@offset, @offset+@size) of @d ("ext4"
 * for ext2 and ext3 too), or "swap", "luks" or "lvm", which hold no files; NULL if none is known or
 * nothing can be read. Any thread. */
const char *disk_find_filesystem(struct disk *d, uint64_t offset, uint64_t size);

#endif
