/* Partition tables. */
#ifndef IMAGE_GPT_H
#define IMAGE_GPT_H

#include "base/error.h"

#define GPT_SECTOR      512
#define GPT_FIRST_BYTES (1ULL << 20) /* partitions begin at a multiple of 1 MiB */

enum gpt_type { GPT_ESP, GPT_LINUX_ROOT };

struct gpt_partition {
    enum gpt_type type;
    const char *name;    /* ASCII, at most 36 characters */
    uint64_t size_bytes; /* multiple of 1 MiB; 0 (the last only): all that is left */
};

/** Write a GPT with @n (at most 16) partitions for architecture @arch (Debian's name) to the file
 * @fd of @disk_bytes, which is all zeros. -EINVAL if they do not fit. */
must_check int gpt_write(int fd, uint64_t disk_bytes, const char *arch,
                         const struct gpt_partition *parts, size_t n, struct error *err);

/** CRC-32 as GPT, zlib and Ethernet compute it. */
uint32_t gpt_crc32(const void *data, size_t size);

#endif
