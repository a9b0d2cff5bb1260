/* File systems, by the magic numbers in them. What is found is a hint only: whoever mounts it has
 * to check the rest. Any thread. The numbers: Linux 6.1 include/uapi/linux/magic.h and each file
 * system's own headers; swap, LUKS and LVM as util-linux's libblkid 2.38 knows them. */
#include "disk/filesystem.h"

#include <string.h>

#define MAGIC_MAX 8

static const struct {
    const char *name;
    uint32_t offset; /* bytes from the partition's beginning */
    uint32_t size;
    char magic[MAGIC_MAX];
} known[] = {
    {"luks",     0,       6, "LUKS\xba\xbe"},
    {"lvm",      512,     8, "LABELONE"    },
    {"xfs",      0,       4, "XFSB"        },
    {"squashfs", 0,       4, "hsqs"        },
    {"ntfs",     3,       8, "NTFS    "    },
    {"exfat",    3,       8, "EXFAT   "    },
    {"vfat",     82,      8, "FAT32   "    },
    {"vfat",     54,      8, "FAT16   "    },
    {"vfat",     54,      8, "FAT12   "    },
    {"ext4",     0x438,   2, "\x53\xef"    },
    {"swap",     4086,    8, "SWAPSPAC"    },
    {"iso9660",  0x8001,  5, "CD001"       },
    {"btrfs",    0x10040, 8, "_BHRfS_M"    },
};

const char *disk_find_filesystem(struct disk *d, uint64_t offset, uint64_t size)
{
    char got[MAGIC_MAX];

    if (offset > d->size_bytes)
        return NULL;
    size = MIN(size, d->size_bytes - offset);
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (known[i].offset + known[i].size <= size &&
            !disk_pread(d, got, known[i].size, offset + known[i].offset) &&
            !memcmp(got, known[i].magic, known[i].size))
            return known[i].name;
    }
    return NULL;
}
