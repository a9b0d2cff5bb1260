/* Compressed clusters. See packing.h.
 *
 * zlib makes the raw streams, since libdeflate knows no smaller window than 32 KiB: QEMU reads
 * them with one of 4 KiB. Everything else of deflate is libdeflate's, which takes a fraction of
 * zlib's time; what it will not read, zlib decides about: it takes a stream that is cut off behind
 * the last byte that is wanted.
 *
 * Threads: any. A compressor is one thread's while it is used; `lock` guards the idle ones. */
#include "disk/packing.h"
#include "base/thread.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define WINDOW_BITS    12
#define MEMORY_LEVEL   9
#define LEVEL          6
#define ZSTD_WINDOW    23 /* bits: more than any cluster has; else a file decides on our memory */
#define HASH_BITS      12
#define SIGNS_OF_SENSE 2048u /* one repetition in so many bytes */

/** What one thread uses at a time; each is made when it is needed first. */
struct tools {
    struct tools *next;
    z_stream deflate;
    bool has_deflate;
    struct libdeflate_compressor *zlib, *stored;
    struct libdeflate_decompressor *inflate;
    ZSTD_CCtx *zstd;
    ZSTD_DCtx *unzstd;
};

struct packer {
    struct mutex lock;
    struct tools *idle; /* [lock] as many as threads have used at once */
};

struct packer *packer_new(void)
{
    struct packer *p = calloc(1, sizeof(*p));

    if (p)
        mutex_init(&p->lock);
    return p;
}

void packer_free(struct packer *p)
{
    struct tools *t;

    if (!p)
        return;
    while ((t = p->idle)) {
        p->idle = t->next;
        if (t->has_deflate)
            (void)deflateEnd(&t->deflate); /* frees; says only whether a stream was at its end */
        libdeflate_free_compressor(t->zlib);
        libdeflate_free_compressor(t->stored);
        libdeflate_free_decompressor(t->inflate);
        ZSTD_freeCCtx(t->zstd);
        ZSTD_freeDCtx(t->unzstd);
        free(t);
    }
    mutex_done(&p->lock);
    free(p);
}

static struct tools *take_tools(struct packer *p)
{
    mutex_lock(&p->lock);
    struct tools *t = p->idle;
    if (t)
        p->idle = t->next;
    mutex_unlock(&p->lock);
    return t ? t : calloc(1, sizeof(*t));
}

static void put_tools(struct packer *p, struct tools *t)
{
    mutex_lock(&p->lock);
    t->next = p->idle;
    p->idle = t;
    mutex_unlock(&p->lock);
}

/** Does anything occur twice in @p? Looked for at each third byte, noted at each fourth, so that
 * whatever is long enough to matter is met. */
static bool has_repetitions(const uint8_t *p, size_t size)
{
    uint32_t at[1u << HASH_BITS] = {0};
    size_t wanted = size / SIGNS_OF_SENSE;
    uint32_t value;
    size_t found = 0;

    for (size_t i = 0; i + sizeof(value) <= size; i++) {
        if (i % 3 && i % 4)
            continue;
        memcpy(&value, p + i, sizeof(value));
        uint32_t *place = &at[value * 2654435761u >> (32 - HASH_BITS)];
        if (!(i % 3)) {
            uint32_t before;

            memcpy(&before, p + *place, sizeof(before));
            found += before == value && *place != i;
            if (found > wanted)
                return true;
        }
        if (!(i % 4))
            *place = (uint32_t)i;
    }
    return false;
}

/** Are all bytes about as frequent as each other? Then their codes are as long as they are. */
static bool is_level(const uint8_t *p, size_t size)
{
    uint32_t counts[4][256] = {0};
    uint64_t squares = 0;

    for (size_t i = 0; i + 4 <= size; i += 4) {
        for (unsigned k = 0; k < 4; k++)
            counts[k][p[i + k]]++;
    }
    for (unsigned v = 0; v < 256; v++) {
        uint64_t n = (uint64_t)counts[0][v] + counts[1][v] + counts[2][v] + counts[3][v];

        squares += n * n;
    }
    /* 256 * sum(p^2) is 1 for noise; 1.07 is 0.05 of 8 bits less information a byte. */
    return squares * 256 < (uint64_t)size * size / 100 * 107;
}

/** Compressed or random already: a fifteenth of the time that deflate takes to find that out. */
static bool is_noise(const void *p, size_t size)
{
    return size <= UINT32_MAX && size >= 4096 && !has_repetitions(p, size) && is_level(p, size);
}

static int pack_deflate(struct tools *t, const void *from, size_t size, void *to, size_t room,
                        size_t *ret)
{
    z_stream *z = &t->deflate;

    if (is_noise(from, size))
        return -E2BIG;
    if (t->has_deflate ? deflateReset(z) != Z_OK
                       : deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -WINDOW_BITS,
                                      MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    t->has_deflate = true;
    z->next_in = (Bytef *)from;
    z->avail_in = (uInt)size;
    z->next_out = to;
    z->avail_out = (uInt)room;
    if (deflate(z, Z_FINISH) != Z_STREAM_END)
        return -E2BIG;
    *ret = room - z->avail_out;
    return 0;
}

static int pack_zlib(struct tools *t, const void *from, size_t size, void *to, size_t room,
                     size_t *ret)
{
    struct libdeflate_compressor **c = is_noise(from, size) ? &t->stored : &t->zlib;

    if (!*c)
        *c = libdeflate_alloc_compressor(c == &t->zlib ? LEVEL : 0);
    if (!*c)
        return -ENOMEM;
    *ret = libdeflate_zlib_compress(*c, from, size, to, room);
    return *ret ? 0 : -E2BIG;
}

static int pack_zstd(struct tools *t, const void *from, size_t size, void *to, size_t room,
                     size_t *ret)
{
    if (!t->zstd)
        t->zstd = ZSTD_createCCtx();
    if (!t->zstd)
        return -ENOMEM;
    size_t n = ZSTD_compressCCtx(t->zstd, to, room, from, size, ZSTD_CLEVEL_DEFAULT);
    if (ZSTD_isError(n))
        return -E2BIG;
    *ret = n;
    return 0;
}

int packer_pack(struct packer *p, enum pack_kind kind, const void *from, size_t size, void *to,
                size_t room, size_t *ret_size)
{
    struct tools *t = take_tools(p);
    int rc = -EINVAL;

    if (!t)
        return -ENOMEM;
    switch (kind) {
    case PACK_DEFLATE:
        rc = pack_deflate(t, from, size, to, room, ret_size);
        break;
    case PACK_ZLIB:
        rc = pack_zlib(t, from, size, to, room, ret_size);
        break;
    case PACK_ZSTD:
        rc = pack_zstd(t, from, size, to, room, ret_size);
        break;
    }
    put_tools(p, t);
    return rc;
}

/** Until @to is full, though the stream may not be at its end. */
static int inflate_slowly(const void *from, size_t size, void *to, size_t room, size_t *ret)
{
    z_stream z = {
        .next_in = (Bytef *)from,
        .avail_in = (uInt)size,
        .next_out = to,
        .avail_out = (uInt)room,
    };

    if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
        return -ENOMEM;
    int rc = inflate(&z, Z_FINISH);
    bool good = rc == Z_STREAM_END || (!z.avail_out && (rc == Z_BUF_ERROR || rc == Z_OK));
    *ret = room - z.avail_out;
    (void)inflateEnd(&z); /* frees; says only whether the stream was at its end */
    return good ? 0 : -EIO;
}

static int unpack_deflate(struct tools *t, enum pack_kind kind, const void *from, size_t size,
                          void *to, size_t room, size_t *ret)
{
    enum libdeflate_result rc;
    size_t taken;

    if (!t->inflate)
        t->inflate = libdeflate_alloc_decompressor();
    if (!t->inflate)
        return -ENOMEM;
    if (kind == PACK_ZLIB)
        rc = libdeflate_zlib_decompress_ex(t->inflate, from, size, to, room, &taken, ret);
    else
        rc = libdeflate_deflate_decompress_ex(t->inflate, from, size, to, room, &taken, ret);
    if (rc == LIBDEFLATE_SUCCESS)
        return 0;
    return kind == PACK_ZLIB ? -EIO : inflate_slowly(from, size, to, room, ret);
}

/** Likewise, of a frame that is not whole or too long. */
static int unzstd_slowly(struct tools *t, const void *from, size_t size, void *to, size_t room,
                         size_t *ret)
{
    ZSTD_inBuffer in = {.src = from, .size = size};
    ZSTD_outBuffer out = {.dst = to, .size = room};
    size_t before;

    (void)ZSTD_DCtx_reset(t->unzstd, ZSTD_reset_session_only); /* cannot fail */
    do {
        before = in.pos + out.pos;
        if (ZSTD_isError(ZSTD_decompressStream(t->unzstd, &out, &in)))
            return -EIO;
    } while (out.pos < out.size && in.pos + out.pos != before);
    *ret = out.pos;
    return 0;
}

static int unpack_zstd(struct tools *t, const void *from, size_t size, void *to, size_t room,
                       size_t *ret)
{
    if (!t->unzstd) {
        t->unzstd = ZSTD_createDCtx();
        if (!t->unzstd)
            return -ENOMEM;
        (void)ZSTD_DCtx_setParameter(t->unzstd, ZSTD_d_windowLogMax, ZSTD_WINDOW); /* is allowed */
    }
    size_t frame = ZSTD_findFrameCompressedSize(from, size);
    size_t n = ZSTD_isError(frame) ? frame : ZSTD_decompressDCtx(t->unzstd, to, room, from, frame);
    if (ZSTD_isError(n))
        return unzstd_slowly(t, from, size, to, room, ret);
    *ret = n;
    return 0;
}

int packer_unpack(struct packer *p, enum pack_kind kind, const void *from, size_t size, void *to,
                  size_t room, size_t *ret_size)
{
    struct tools *t = take_tools(p);

    if (!t)
        return -ENOMEM;
    int rc = kind == PACK_ZSTD ? unpack_zstd(t, from, size, to, room, ret_size)
                               : unpack_deflate(t, kind, from, size, to, room, ret_size);
    put_tools(p, t);
    return rc;
}
