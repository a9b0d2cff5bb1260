/* Partition tables, and what the partitions hold: the input is the disk's beginning. */
#include "base/macros.h"
#include "disk/file_memory.h"
#include "disk/filesystem.h"
#include "disk/format.h"
#include "disk/partition.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct disk_partition found[DISK_MAX_PARTITIONS];
    struct disk *d = NULL;
    struct file *file = file_memory_new(data, size, 1 << 20);

    if (disk_open_file(file, &raw_format, DISK_READONLY, NULL, &d, NULL)) {
        file_close(file);
        return 0;
    }
    int n = disk_find_partitions(d, found);
    for (int i = 0; i < n; i++) {
        if (found[i].offset > d->size_bytes || found[i].size > d->size_bytes - found[i].offset)
            abort();
        (void)disk_find_filesystem(d, found[i].offset, found[i].size);
    }
    (void)disk_find_filesystem(d, 0, d->size_bytes);
    disk_close(d);
    return 0;
}
