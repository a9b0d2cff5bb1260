/* Unpacking of compressed kernels, bounded. */
#ifndef BOOT_DECOMPRESS_H
#define BOOT_DECOMPRESS_H

#include "base/error.h"
#include "base/macros.h"

enum compression {
    COMPRESSION_NONE,
    COMPRESSION_GZIP,
    COMPRESSION_ZSTD,
    COMPRESSION_XZ,
    COMPRESSION_LZMA,
};

/** What the first bytes say. */
enum compression compression_probe(const uint8_t *data, size_t size);
/** By the name a zboot header uses: "gzip", "zstd", "xzkern", "lzma". COMPRESSION_NONE: unknown. */
enum compression compression_by_name(const char *name);
const char *compression_name(enum compression c);

/** Unpack @data. On success *@ret (for free()) of *@ret_size bytes is the caller's. Data behind the
 * compressed stream is ignored. Errors: -EINVAL for damaged data, -EFBIG beyond @max_size,
 * -ENOMEM. */
must_check int decompress(enum compression c, const uint8_t *data, size_t size, size_t max_size,
                          uint8_t **ret, size_t *ret_size, struct error *err);

#endif
