/* A hostile QCOW2 image is opened, used, checked, repaired and used on.
 *
 * Input: a script of 64 bytes, then records of the image's sectors: a little-endian 16-bit number
 * and 512 bytes. After a repair that says that it mended everything, a check must find nothing. */
#include "base/bits.h"
#include "disk/file_memory.h"
#include "disk/format.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCRIPT_BYTES 64u
#define MAX_BYTES    (64u << 20)
#define BUF_BYTES    (256u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct script {
    uint8_t bytes[SCRIPT_BYTES];
    unsigned at;
};

static uint8_t next(struct script *s)
{
    return s->at < SCRIPT_BYTES ? s->bytes[s->at++] : 0;
}

static struct file *unfold(const uint8_t *data, size_t size)
{
    struct file *f = file_memory_new(NULL, 0, MAX_BYTES);

    for (size_t at = 0; at + 2 < size; at += 2 + DISK_SECTOR) {
        uint8_t sector[DISK_SECTOR] = {0};
        uint64_t offset = (uint64_t)load_le16(data + at) * DISK_SECTOR;

        memcpy(sector, data + at + 2, MIN((size_t)DISK_SECTOR, size - at - 2));
        if (file_pwrite(f, sector, sizeof(sector), offset))
            abort();
    }
    return f;
}

/** Somewhere: near the beginning, anywhere, or near the end. */
static uint64_t place(const struct disk *d, struct script *s, uint64_t bytes)
{
    uint64_t v = next(s);
    uint64_t room = d->size_bytes - MIN(bytes, d->size_bytes);
    uint64_t at = v & 128 ? room - MIN(room, (v & 127) << 9) : v << 8;

    if (v & 64)
        at = room / 64 * (v & 63);
    return MIN(at, room);
}

/** For whoever looks at a finding: what the first check found, and what it left. */
static void say(void *arg, const char *text)
{
    if (getenv("FUZZ_SAY"))
        fprintf(stderr, "%s check: %s\n", (const char *)arg, text);
}

static void check_twice(struct disk *d, unsigned flags)
{
    struct disk_check check = {.report = say, .arg = (char *)"first"};
    struct disk_check again = {.report = say, .arg = (char *)"second"};

    if (disk_check(d, d->readonly ? 0 : flags, &check, NULL) || !(flags & DISK_REPAIR_ALL) ||
        d->readonly || check.errors != check.errors_fixed)
        return;
    if (!disk_check(d, 0, &again, NULL) && again.errors)
        abort();
}

static void one_bitmap(struct disk *d, struct script *s)
{
    static const char *const names[] = {"a", "b", "c"};
    enum disk_bitmap_action action = (enum disk_bitmap_action)(next(s) % 6);
    const char *name = names[next(s) % 3];

    if (!d->readonly && !disk_bitmap(d, action, name, 512, d, names[next(s) % 3], NULL))
        return; /* fine either way */
}

static int change(struct disk *d, struct script *s, uint8_t what, uint8_t *buf)
{
    static const uint64_t sizes[] = {1, 512, 700, 4096, 65536, 100000, 262144};
    uint64_t size = MIN(sizes[next(s) % 7], d->size_bytes);
    uint64_t at = place(d, s, size);
    uint64_t far = MIN(d->size_bytes - at, size << (what & 7));
    size_t packed = 0;

    switch (what % 8) {
    case 0:
        return disk_write_zeroes(d, at, size, what & 128);
    case 1:
        return disk_discard(d, at, far);
    case 2:
        return disk_flush(d);
    case 3:
        return disk_resize(d, MIN((uint64_t)next(s) << 12, 1u << 20) + DISK_SECTOR, true, NULL);
    case 4:
        return disk_make_empty(d, NULL);
    case 5:
        return disk_set_backing(d, what & 64 ? "base" : NULL, "raw", NULL);
    case 6:
        at = align_down(at, d->cluster_bytes);
        if (d->readonly || d->cluster_bytes > BUF_BYTES / 2 ||
            d->ops->pack(d, buf, buf + BUF_BYTES / 2, d->cluster_bytes, &packed))
            return 0;
        return d->ops->write_packed(d, at, buf + BUF_BYTES / 2, packed);
    default:
        return disk_pwrite(d, buf, size, at);
    }
}

static void one_step(struct disk *d, struct script *s, uint8_t *buf)
{
    uint8_t what = next(s);
    struct disk_extent e;
    uint64_t size = MIN((uint64_t)(what & 15) << 12 | 1, d->size_bytes);
    uint64_t at = place(d, s, size);
    int rc = 0;

    switch (what >> 4) {
    case 0:
    case 1:
        rc = disk_pread(d, buf, size, at);
        break;
    case 2:
        rc = disk_status(d, at, d->size_bytes - at ? d->size_bytes - at : 1, &e);
        break;
    case 3:
        check_twice(d, what & 1 ? DISK_REPAIR_ALL : what & 2 ? DISK_REPAIR_LEAKS : 0);
        break;
    case 4:
        one_bitmap(d, s);
        break;
    default:
        memset(buf, what, BUF_BYTES / 4);
        rc = change(d, s, next(s), buf);
        break;
    }
    (void)rc; /* an error is fine: the image is hostile */
}

static void use(struct disk *d, struct script *s, uint8_t *buf)
{
    struct disk_info info;

    if (!disk_get_info(d, &info, NULL))
        disk_info_done(&info);
    for (unsigned i = 0; i < 20; i++)
        one_step(d, s, buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t buf[BUF_BYTES];
    struct script s = {.at = 0};
    struct disk *d = NULL;

    if (size < SCRIPT_BYTES)
        return 0;
    memcpy(s.bytes, data, SCRIPT_BYTES);
    struct file *f = unfold(data + SCRIPT_BYTES, size - SCRIPT_BYTES);
    uint8_t how = next(&s);
    unsigned flags = (how & 1 ? DISK_READONLY : 0) | (how & 2 ? DISK_CHECK : 0);
    if (disk_open_file(f, &qcow2_format, flags, NULL, &d, NULL)) {
        file_close(f);
        return 0;
    }
    if (how & 4) /* the file system fills up, or a device fails */
        file_memory_fail(f, how >> 3, how & 128 ? ENOSPC : EIO, false);
    use(d, &s, buf);
    disk_close(d);
    return 0;
}
