/* What the fuzz targets of disk formats share: a hostile image, and everything one can do with it.
 *
 * The first 16 bytes of the input say what is done, the rest is the file. Header only. */
#ifndef FUZZ_DISK_IMAGE_H
#define FUZZ_DISK_IMAGE_H

#include "disk/file_memory.h"
#include "disk/format.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FUZZ_PROGRAM  16
#define FUZZ_FILE_MAX (1u << 22)

static inline void fuzz_say(void *arg, const char *text)
{
    assert(text && *text);
    (void)arg;
}

/** What the disk says it holds, a hundred runs of it. */
static inline void fuzz_walk(struct disk *d)
{
    struct disk_extent e;
    uint64_t at = 0;

    for (int i = 0; i < 100 && at < d->size_bytes; i++) {
        if (disk_map(d, at, d->size_bytes - at, &e))
            return;
        assert(e.size && e.size <= d->size_bytes - at);
        at += e.size;
    }
}

static inline void fuzz_op(struct disk *d, uint8_t op, uint8_t where)
{
    static uint8_t buf[80000];
    struct disk_check check = {.report = fuzz_say};
    struct disk_info info;
    uint64_t offset = d->size_bytes / 64 * (where & 63);
    uint64_t size = MIN(d->size_bytes - offset, (uint64_t)(1 + ((where * 977u) % sizeof(buf))));

    switch (op % 12) {
    case 0:
        (void)!disk_pread(d, buf, size, offset);
        break;
    case 1:
    case 2:
        (void)!disk_pwrite(d, buf, size, offset);
        break;
    case 3:
        (void)!disk_write_zeroes(d, offset, size, where & 1);
        break;
    case 4:
        (void)!disk_discard(d, offset, size);
        break;
    case 5:
        (void)!disk_flush(d);
        break;
    case 6:
        fuzz_walk(d);
        break;
    case 7:
        (void)!disk_check(d, d->readonly ? 0 : where % 4, &check, NULL);
        break;
    case 8:
        if (!disk_get_info(d, &info, NULL))
            disk_info_done(&info);
        break;
    case 9:
        (void)!disk_resize(d, d->size_bytes + (uint64_t)where * 65536, true, NULL);
        break;
    case 10:
        (void)!disk_resize(d, MAX(size / 512 * 512, (uint64_t)512), true, NULL);
        break;
    default:
        (void)!(where & 1 ? disk_make_empty(d, NULL) : disk_set_backing(d, NULL, NULL, NULL));
    }
}

/** Open the image, do what the input says, close it; and again, in the state in which it is left.
 */
static inline void fuzz_image(const struct disk_format *format, const uint8_t *data, size_t size)
{
    if (size < FUZZ_PROGRAM || size > FUZZ_FILE_MAX)
        return;
    struct file *f =
        file_memory_new(data + FUZZ_PROGRAM, size - FUZZ_PROGRAM, size + FUZZ_FILE_MAX);
    struct disk *below = NULL;
    struct disk *d = NULL;

    if (data[0] & 4)
        (void)!disk_open_file(file_memory_new(NULL, 100000, 100000), &raw_format, DISK_READONLY,
                              NULL, &below, NULL);
    unsigned flags = (data[0] & 1 ? DISK_READONLY : 0) | (data[0] & 2 ? DISK_CHECK : 0);
    if (disk_open_file(f, format, flags, below, &d, NULL)) {
        disk_close(below);
        file_close(f);
        return;
    }
    for (int i = 2; i + 1 < FUZZ_PROGRAM; i += 2)
        fuzz_op(d, data[i], data[i + 1]);
    disk_close(d);
}

#endif
