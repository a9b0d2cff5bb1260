/* Unpacking of compressed kernels: gzip, zstd, xz and lzma streams of untrusted content. The output
 * grows as data comes, so a small file cannot claim much memory without filling it. */
#include "boot/decompress.h"

#include <errno.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define FIRST_SIZE      (4u << 20)
#define LZMA_MEMORY_MAX (256ULL << 20)
#define ZSTD_WINDOW_LOG 27 /* 128 MiB, what `zstd --ultra` needs */

struct output {
    uint8_t *data;
    size_t used, size, max;
};

/* Make room for more; 0, -EFBIG or -ENOMEM. */
static int grow(struct output *o)
{
    size_t size = o->size ? o->size * 2 : FIRST_SIZE;

    if (o->size >= o->max)
        return -EFBIG;
    size = MIN(size, o->max);
    uint8_t *data = realloc(o->data, size);
    if (!data)
        return -ENOMEM;
    o->data = data;
    o->size = size;
    return 0;
}

static int gunzip(struct output *o, const uint8_t *data, size_t size)
{
    z_stream z = {.next_in = (uint8_t *)data, .avail_in = (unsigned)MIN(size, (size_t)UINT32_MAX)};
    int rc = inflateInit2(&z, 16 + MAX_WBITS) == Z_OK ? 0 : -ENOMEM;
    int status = Z_OK;

    while (!rc && status != Z_STREAM_END) {
        if (o->used == o->size && (rc = grow(o)) != 0)
            break;
        size_t room = MIN(o->size - o->used, (size_t)1 << 30);
        z.next_out = o->data + o->used;
        z.avail_out = (unsigned)room;
        status = inflate(&z, Z_NO_FLUSH);
        o->used += room - z.avail_out;
        if (status != Z_OK && status != Z_STREAM_END)
            rc = status == Z_MEM_ERROR ? -ENOMEM : -EINVAL;
    }
    (void)inflateEnd(&z); /* only frees */
    return rc;
}

static int unzstd(struct output *o, const uint8_t *data, size_t size)
{
    ZSTD_DStream *z = ZSTD_createDStream();
    ZSTD_inBuffer in = {.src = data, .size = size};
    int rc = z ? 0 : -ENOMEM;
    size_t left = 1;

    if (z)
        (void)ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
    while (!rc && left) {
        if (o->used == o->size && (rc = grow(o)) != 0)
            break;
        ZSTD_outBuffer out = {.dst = o->data, .size = o->size, .pos = o->used};
        size_t consumed = in.pos;
        left = ZSTD_decompressStream(z, &out, &in);
        bool stuck = in.pos == consumed && out.pos == o->used;
        o->used = out.pos;
        if (ZSTD_isError(left) || (left && stuck))
            rc = -EINVAL;
    }
    ZSTD_freeDStream(z);
    return rc;
}

static int unxz(struct output *o, enum compression c, const uint8_t *data, size_t size)
{
    lzma_stream z = LZMA_STREAM_INIT;
    lzma_ret status = c == COMPRESSION_XZ ? lzma_stream_decoder(&z, LZMA_MEMORY_MAX, 0)
                                          : lzma_alone_decoder(&z, LZMA_MEMORY_MAX);
    int rc = status == LZMA_OK ? 0 : -ENOMEM;

    z.next_in = data;
    z.avail_in = size;
    while (!rc && status != LZMA_STREAM_END) {
        if (o->used == o->size && (rc = grow(o)) != 0)
            break;
        z.next_out = o->data + o->used;
        z.avail_out = o->size - o->used;
        status = lzma_code(&z, LZMA_RUN);
        o->used = o->size - z.avail_out;
        if (status != LZMA_OK && status != LZMA_STREAM_END)
            rc = status == LZMA_MEM_ERROR || status == LZMA_MEMLIMIT_ERROR ? -ENOMEM : -EINVAL;
        else if (status == LZMA_OK && !z.avail_in && z.avail_out)
            rc = -EINVAL; /* ends too early */
    }
    lzma_end(&z);
    return rc;
}

enum compression compression_probe(const uint8_t *data, size_t size)
{
    if (size >= 3 && !memcmp(data, "\x1f\x8b\x08", 3))
        return COMPRESSION_GZIP;
    if (size >= 4 && !memcmp(data, "\x28\xb5\x2f\xfd", 4))
        return COMPRESSION_ZSTD;
    if (size >= 6 && !memcmp(data,
                             "\xfd"
                             "7zXZ",
                             6))
        return COMPRESSION_XZ;
    return COMPRESSION_NONE;
}

static const char *const names[] = {
    [COMPRESSION_NONE] = "none", [COMPRESSION_GZIP] = "gzip", [COMPRESSION_ZSTD] = "zstd",
    [COMPRESSION_XZ] = "xz",     [COMPRESSION_LZMA] = "lzma",
};

const char *compression_name(enum compression c)
{
    return names[c];
}

enum compression compression_by_name(const char *name)
{
    if (!strcmp(name, "zstd22"))
        return COMPRESSION_ZSTD;
    if (!strcmp(name, "xzkern"))
        return COMPRESSION_XZ;
    for (unsigned c = COMPRESSION_GZIP; c < ARRAY_SIZE(names); c++) {
        if (!strcmp(name, names[c]))
            return (enum compression)c;
    }
    return COMPRESSION_NONE;
}

int decompress(enum compression c, const uint8_t *data, size_t size, size_t max_size, uint8_t **ret,
               size_t *ret_size, struct error *err)
{
    struct output o = {.max = max_size};
    int rc = -EINVAL;

    switch (c) {
    case COMPRESSION_NONE:
        break;
    case COMPRESSION_GZIP:
        rc = gunzip(&o, data, size);
        break;
    case COMPRESSION_ZSTD:
        rc = unzstd(&o, data, size);
        break;
    case COMPRESSION_XZ:
    case COMPRESSION_LZMA:
        rc = unxz(&o, c, data, size);
        break;
    }
    if (rc) {
        free(o.data);
        if (rc == -EFBIG)
            return error_set(err, EFBIG, "unpacks to more than %zu MiB", max_size >> 20);
        return error_set(err, -rc, "%s data is %s", compression_name(c),
                         rc == -ENOMEM ? "too large to unpack" : "damaged or cut short");
    }
    *ret = o.data;
    *ret_size = o.used;
    return 0;
}
