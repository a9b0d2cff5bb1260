/* A hostile VHDX image: patches over a good one, checksums put right or not, then requests, a check
 * with repair, and requests again. One of the good images has a log to be replayed.
 *
 * Input: kind, patches (area, offset, length, bytes) up to area 0xff, requests (what, place, size).
 */
#include "base/bits.h"
#include "base/log.h"
#include "disk/file_memory.h"
#include "disk/vhdx/vhdx.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_FILE (24u << 20)
#define SIZE     (5u << 20)

enum { KIND_OVER = 1, KIND_LOG = 2, KIND_SIGN = 4, KIND_READONLY = 8, KIND_FIXED = 16 };

struct input {
    const uint8_t *p;
    size_t left;
};

static uint32_t take(struct input *in, unsigned bytes)
{
    uint32_t v = 0;

    while (bytes-- && in->left) {
        v = v << 8 | *in->p++;
        in->left--;
    }
    return v;
}

static struct file *make(bool fixed, struct disk *below)
{
    const struct disk_create_value values[] = {
        {"subformat", fixed ? "fixed" : "dynamic"},
        {"block_size",           "1M"},
        {0},
    };
    struct file *f = file_memory_new(NULL, 0, MAX_FILE);
    struct disk_create c = {
        .size_bytes = SIZE,
        .values = values,
        .backing = below,
        .backing_path = below ? "b" : NULL,
    };

    assert(!disk_create_file(f, &vhdx_format, &c, NULL));
    return f;
}

/** Good images with data: dynamic, differencing, the same with a log, fixed. */
static struct file *base_of(unsigned kind)
{
    static struct file *bases[4];
    unsigned i = kind & KIND_FIXED ? 3 : !(kind & KIND_OVER) ? 0 : kind & KIND_LOG ? 2 : 1;
    struct disk *below = NULL;
    struct disk *d = NULL;
    uint8_t buf[3000];

    if (bases[i])
        return bases[i];
    if (i == 1 || i == 2)
        assert(!disk_open_file(make(false, NULL), &vhdx_format, 0, NULL, &below, NULL));
    struct file *f = make(i == 3, below);
    assert(!disk_open_file(f, &vhdx_format, 0, below, &d, NULL));
    memset(buf, 0x5a, sizeof(buf));
    for (unsigned n = 0; n < 3; n++) {
        assert(!disk_pwrite(d, buf, sizeof(buf), 1000 + n * 1500000));
        assert(!disk_flush(d));
    }
    if (i == 2)
        bases[i] = file_memory_copy(f);
    else /* a clean one: the copy of a file that was closed is made through a second opening */
        (void)vhdx_log_close(vhdx_of(d));
    if (i != 2)
        bases[i] = file_memory_copy(f);
    disk_close(d);
    return bases[i];
}

static void sign(struct file *f, uint64_t at, size_t size)
{
    uint8_t *b = malloc(size);

    assert(b);
    if (!file_pread(f, b, size, at)) {
        store_le32(b + 4, vhdx_crc(b, size, 4));
        (void)!file_pwrite(f, b, size, at);
    }
    free(b);
}

static void patch(struct input *in, struct file *f, unsigned kind)
{
    /* Headers, region table, log, metadata table and items, table, first bitmap block. */
    static const uint64_t places[] = {
        64 << 10, 128 << 10,         192 << 10, 1 << 20, (1 << 20) + 8192,
        2 << 20,  (2 << 20) + 65536, 3 << 20,   4 << 20, 6 << 20,
    };
    uint8_t length[4];

    while (in->left) {
        unsigned area = take(in, 1);
        if (area == 0xff)
            break;
        uint64_t offset = take(in, 2);
        size_t size = MIN((size_t)take(in, 1) % 32, in->left);
        offset += places[area % ARRAY_SIZE(places)];
        (void)!file_pwrite(f, in->p, size, offset);
        in->p += size;
        in->left -= size;
    }
    if (!(kind & KIND_SIGN))
        return;
    sign(f, 64 << 10, VHDX_HEADER_BYTES);
    sign(f, 128 << 10, VHDX_HEADER_BYTES);
    sign(f, VHDX_REGION_TABLE1, VHDX_REGION_BYTES);
    for (uint64_t at = 1 << 20; at < (1 << 20) + 65536; at += VHDX_PAGE) {
        uint8_t magic[4];

        if (file_pread(f, magic, 4, at) || memcmp(magic, "loge", 4) != 0 ||
            file_pread(f, length, 4, at + 8))
            continue;
        sign(f, at, MAX(MIN(load_le32(length), 1u << 20), 64u));
    }
}

static void request(struct disk *d, struct input *in)
{
    static uint8_t buf[1 << 18];
    unsigned what = take(in, 1);
    uint64_t disk_size = d->size_bytes;
    uint64_t offset = (uint64_t)take(in, 3) * 97 % disk_size;
    uint64_t size = MIN((uint64_t)take(in, 2) * 3 + 1, disk_size - offset);
    struct disk_check check = {0};
    struct disk_extent e;
    struct error err = {0};

    switch (what % 10) {
    case 0:
    case 1:
        (void)!disk_pread(d, buf, size, offset);
        break;
    case 2:
    case 3:
        (void)!disk_pwrite(d, buf, size, offset);
        break;
    case 4:
        (void)!disk_flush(d);
        break;
    case 5:
        (void)!disk_write_zeroes(d, offset, size, what & 16);
        break;
    case 6:
        (void)!disk_discard(d, offset, size);
        break;
    case 7:
        (void)!disk_check(d,
                          d->readonly ? 0
                          : what & 16 ? DISK_REPAIR_ALL
                                      : DISK_REPAIR_LEAKS,
                          &check, &err);
        break;
    case 8:
        if (!disk_status(d, offset, size, &e))
            assert(e.size && e.size <= size);
        break;
    case 9:
        if (what & 16)
            (void)!disk_make_empty(d, &err);
        else if (what & 32 && !d->readonly)
            (void)!disk_set_backing(d, NULL, NULL, &err);
        else
            (void)!disk_resize(d, align_down(offset, 4096) + 4096, true, &err);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct disk *d = NULL;
    struct error err = {0};
    struct disk_check check = {0};

    log_set_level(LOG_ERROR);
    unsigned kind = take(&in, 1);
    struct file *f = file_memory_copy(base_of(kind));
    patch(&in, f, kind);
    if (disk_open_file(f, &vhdx_format, kind & KIND_READONLY ? DISK_READONLY : 0, NULL, &d, &err)) {
        assert(err.code && *err.text);
        file_close(f);
        return 0;
    }
    struct disk_info info;
    if (!disk_get_info(d, &info, NULL))
        disk_info_done(&info);
    for (int i = 0; i < 40 && in.left; i++)
        request(d, &in);
    /* After a repair nothing is wrong. */
    if (!d->readonly && !disk_check(d, DISK_REPAIR_ALL, &check, NULL)) {
        check = (struct disk_check){0};
        if (!disk_check(d, 0, &check, NULL))
            assert(!check.errors);
    }
    disk_close(d);
    return 0;
}
