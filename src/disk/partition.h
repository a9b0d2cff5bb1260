/* The partitions of a disk: MBR (with logical ones) and GPT. */
#ifndef DISK_PARTITION_H
#define DISK_PARTITION_H

#include "disk/disk.h"

#define DISK_MAX_PARTITIONS 128

struct disk_partition {
    unsigned number;       /* as Linux counts: GPT's entry, MBR's entry, logical ones from 5 */
    uint64_t offset, size; /* bytes, within the disk */
};

/** Find the partitions of @d, at most DISK_MAX_PARTITIONS into @ret, in the table's order. The
 * number of them, 0 if there is no table; -errno of reading. What lies outside of the disk is left
 * out. Any thread. Spec: UEFI 2.10 §5.2, §5.3. */
must_check int disk_find_partitions(struct disk *d, struct disk_partition *ret);

#endif
