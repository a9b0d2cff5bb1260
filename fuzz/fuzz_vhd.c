/* A hostile VHD image: patches over a good one, checksums put right or not, then requests, a check
 * with repair, and requests again.
 *
 * Input: kind, patches (area, offset, length, bytes) up to area 0xff, requests (what, place, size).
 */
#include "base/bits.h"
#include "base/log.h"
#include "disk/file_memory.h"
#include "disk/vhd/vhd.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_FILE (16u << 20)
#define SIZE     (5u << 20)

enum { KIND_FIXED = 1, KIND_OVER = 2, KIND_SIGN = 4, KIND_READONLY = 8, KIND_TAIL = 16 };

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
    static const struct disk_create_value values[] = {
        {"subformat", "fixed"},
        {0          },
    };
    struct file *f = file_memory_new(NULL, 0, MAX_FILE);
    struct disk_create c = {
        .size_bytes = fixed ? 1 << 20 : SIZE,
        .values = fixed ? values : NULL,
        .backing = below,
        .backing_path = below ? "b" : NULL,
    };

    assert(!disk_create_file(f, &vhd_format, &c, NULL));
    return f;
}

/** Good images with two blocks: fixed, dynamic, differencing. */
static struct file *base_of(unsigned kind)
{
    static struct file *bases[3];
    unsigned i = kind & KIND_FIXED ? 0 : kind & KIND_OVER ? 2 : 1;
    struct disk *below = NULL;
    struct disk *d = NULL;
    uint8_t buf[3000];

    if (bases[i])
        return bases[i];
    if (i == 2)
        assert(!disk_open_file(make(false, NULL), &vhd_format, 0, NULL, &below, NULL));
    struct file *f = make(i == 0, below);
    assert(!disk_open_file(f, &vhd_format, 0, below, &d, NULL));
    memset(buf, 0x5a, sizeof(buf));
    assert(!disk_pwrite(d, buf, sizeof(buf), 1000));
    assert(!disk_pwrite(d, buf, sizeof(buf), d->size_bytes - 4000));
    assert(!disk_flush(d));
    bases[i] = file_memory_copy(f);
    disk_close(d);
    return bases[i];
}

static void sign(struct file *f, uint64_t at, size_t size, size_t checksum_at)
{
    uint8_t b[VHD_HEADER_BYTES];

    if (file_pread(f, b, size, at))
        return;
    store_be32(b + checksum_at, vhd_checksum(b, size, checksum_at));
    (void)!file_pwrite(f, b, size, at);
}

static void patch(struct input *in, struct file *f, unsigned kind)
{
    uint64_t end = 0;

    (void)!file_get_size(f, &end);
    uint64_t tail = end - VHD_FOOTER_BYTES;
    while (in->left) {
        unsigned area = take(in, 1);
        if (area == 0xff)
            break;
        uint64_t offset = take(in, 2);
        size_t size = MIN((size_t)take(in, 1) % 32, in->left);
        const uint64_t places[] = {0, 512, 1536, tail, 4096, tail - (2u << 20)};
        offset += places[area % ARRAY_SIZE(places)];
        if (offset + size <= MAX_FILE)
            (void)!file_pwrite(f, in->p, size, offset);
        in->p += size;
        in->left -= size;
    }
    if (kind & KIND_SIGN) {
        sign(f, kind & KIND_TAIL ? tail : 0, VHD_FOOTER_BYTES, 64);
        sign(f, 512, VHD_HEADER_BYTES, 36);
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
        else
            (void)!disk_resize(d, align_down(offset, 512) + 512, true, &err);
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
    if (disk_open_file(f, &vhd_format, kind & KIND_READONLY ? DISK_READONLY : 0, NULL, &d, &err)) {
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
