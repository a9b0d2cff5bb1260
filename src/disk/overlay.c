/* Copy-on-write over another disk, gone at close: --snapshot.
 *
 * An unlinked sparse file holds changed blocks at their own offsets, a bitmap says which.
 *
 * Invariants:
 *  1. A block's bit is set only after the whole block is in the file, and is never cleared.
 *  2. Who changes a block that is not in the file yet does all of it under `fill_lock`: copying
 * what he does not write from the base, writing, and setting the bit. So a copy never undoes
 * another write. Blocks that are in the file are written without it.
 *
 * Threads: any.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "base/thread.h"
#include "disk/disk_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define BLOCK 4096u

struct overlay {
    struct disk d;          /* must be first */
    struct file *file;      /* [init] */
    uint8_t *present;       /* [init] one bit a block; [atomic] content */
    struct mutex fill_lock; /* see invariant 2 */
};

static bool is_present(const struct overlay *o, uint64_t block)
{
    /* Acquire: pairs with set_present(), so the block's bytes are in the file. */
    return __atomic_load_n(&o->present[block / 8], __ATOMIC_ACQUIRE) >> (block % 8) & 1;
}

static void set_present(struct overlay *o, uint64_t first, uint64_t end)
{
    /* Release: pairs with is_present(). Whole bytes at once: a discard may cover a whole disk. */
    while (first < end) {
        if (first % 8 == 0 && end - first >= 8) {
            __atomic_store_n(&o->present[first / 8], 0xff, __ATOMIC_RELEASE);
            first += 8;
        } else {
            __atomic_fetch_or(&o->present[first / 8], (uint8_t)(1u << (first % 8)),
                              __ATOMIC_RELEASE);
            first++;
        }
    }
}

/** The end of the blocks from @offset's on, at most @end, that are present or absent as it is. */
static uint64_t find_end(const struct overlay *o, uint64_t offset, uint64_t end)
{
    bool is_there = is_present(o, offset / BLOCK);
    uint64_t stop = align_down(offset, BLOCK) + BLOCK;

    while (stop < end && is_present(o, stop / BLOCK) == is_there)
        stop += BLOCK;
    return MIN(stop, end);
}

static int overlay_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct overlay *o = (struct overlay *)d;
    struct iovec part[DISK_MAX_IOV];
    uint64_t start = offset;
    uint64_t end = offset + iov_bytes(iov, (unsigned)iovcnt);

    while (offset < end) { /* one run of blocks from the same place each turn */
        bool ours = is_present(o, offset / BLOCK);
        /* A block that comes meanwhile only ends the run early or is read from the base. */
        uint64_t stop = find_end(o, offset, end);
        int n = (int)iov_slice(part, iov, (unsigned)iovcnt, offset - start, stop - offset);
        int rc =
            ours ? file_preadv(o->file, part, n, offset) : disk_below_preadv(d, part, n, offset);
        if (rc)
            return rc;
        offset = stop;
    }
    return 0;
}

/** Make sure that block @b is in the file, so that a part of it can be written. */
static int copy_block(struct overlay *o, uint64_t b) REQUIRES(o->fill_lock)
{
    uint8_t buf[BLOCK] = {0};
    uint64_t at = b * BLOCK;
    size_t size = (size_t)MIN((uint64_t)BLOCK, o->d.size_bytes - at);
    struct iovec iov = {.iov_base = buf, .iov_len = size};

    if (is_present(o, b))
        return 0;
    int rc = disk_below_preadv(&o->d, &iov, 1, at);
    if (!rc)
        rc = file_pwritev(o->file, &iov, 1, at);
    if (!rc)
        set_present(o, b, b + 1);
    return rc;
}

/** Prepare the edges of a change of [offset, end); *@ret_first..*@ret_end are the whole blocks. */
static int copy_edges(struct overlay *o, uint64_t offset, uint64_t end, uint64_t *ret_first,
                      uint64_t *ret_end) REQUIRES(o->fill_lock)
{
    int rc = 0;

    *ret_first = (offset + BLOCK - 1) / BLOCK;
    *ret_end = end == o->d.size_bytes ? (end + BLOCK - 1) / BLOCK : end / BLOCK;
    if (offset % BLOCK)
        rc = copy_block(o, offset / BLOCK);
    if (!rc && end % BLOCK && end != o->d.size_bytes && end / BLOCK >= *ret_first)
        rc = copy_block(o, end / BLOCK);
    return rc;
}

/** Write the list, or @size zeroes where it is NULL. */
static int put(struct overlay *o, const struct iovec *iov, int n, uint64_t offset, uint64_t size)
{
    return iov ? file_pwritev(o->file, iov, n, offset)
               : file_write_zeroes(o->file, offset, size, true);
}

static int change(struct overlay *o, const struct iovec *iov, int n, uint64_t offset, uint64_t size)
{
    uint64_t first;
    uint64_t end;

    if (is_present(o, offset / BLOCK) && find_end(o, offset, offset + size) == offset + size)
        return put(o, iov, n, offset, size);
    mutex_lock(&o->fill_lock);
    int rc = copy_edges(o, offset, offset + size, &first, &end);
    if (!rc)
        rc = put(o, iov, n, offset, size);
    if (!rc)
        set_present(o, first, end);
    mutex_unlock(&o->fill_lock);
    return rc;
}

static int overlay_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return change((struct overlay *)d, iov, iovcnt, offset, iov_bytes(iov, (unsigned)iovcnt));
}

/** Nothing has to survive. */
static int overlay_flush(struct disk *d)
{
    return 0;
}

static int overlay_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    (void)may_unmap; /* nobody has to reserve anything for what is gone at the end */
    return change((struct overlay *)d, NULL, 0, offset, size);
}

/** Whole blocks become holes, which frees the host's space; edges stay. */
static int overlay_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    uint64_t first = align_up(offset, BLOCK);
    uint64_t end = align_down(offset + size, BLOCK);

    return first < end ? overlay_write_zeroes(d, first, end - first, true) : 0;
}

static void overlay_close(struct disk *d)
{
    struct overlay *o = (struct overlay *)d;

    file_close(o->file);
    free(o->present);
    mutex_done(&o->fill_lock);
    free(o);
}

static int overlay_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct overlay *o = (struct overlay *)d;
    uint64_t end = MIN(offset + size, offset + (1u << 20)); /* bounds the work */

    *ret = (struct disk_extent){
        .kind = is_present(o, offset / BLOCK) ? DISK_DATA : DISK_ABSENT,
        .size = find_end(o, offset, end) - offset,
        .file = o->file,
        .file_offset = offset,
    };
    return 0;
}

/** Blocks stay where they are, so wherever all is present. */
static int overlay_place(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    int rc = overlay_status(d, offset, size, ret);

    if (ret->kind == DISK_ABSENT)
        ret->kind = DISK_PACKED;
    return rc;
}

static int overlay_get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    const struct overlay *o = (const struct overlay *)d;

    disk_info_text(info, "snapshot-of", o->d.path ? o->d.path : "");
    (void)err;
    return 0;
}

static const struct disk_ops overlay_ops = {
    .preadv = overlay_preadv,
    .pwritev = overlay_pwritev,
    .flush = overlay_flush,
    .discard = overlay_discard,
    .write_zeroes = overlay_write_zeroes,
    .status = overlay_status,
    .place = overlay_place,
    .get_info = overlay_get_info,
    .close = overlay_close,
};

/** A nameless file of @size bytes, all holes. */
static int temporary(uint64_t size, int *ret, struct error *err)
{
    const char *dir = getenv("TMPDIR");
    char path[4096];

    dir = dir && *dir ? dir : "/var/tmp"; /* may be large; /tmp is often in memory */
    cleanup(fd_closep) int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) { /* not every file system can */
        if (snprintf(path, sizeof(path), "%s/posada-XXXXXX", dir) >= (int)sizeof(path))
            return error_set(err, ENAMETOOLONG, "the path of TMPDIR is too long");
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0)
            (void)unlink(path); /* at worst an empty file stays */
    }
    if (fd < 0 || ftruncate(fd, (off_t)size))
        return error_set(err, errno, "cannot make a temporary file of %llu MiB in '%s': %s",
                         (unsigned long long)(size >> 20), dir, strerror(errno));
    *ret = fd_take(&fd);
    return 0;
}

int overlay_new(struct disk *base, struct disk **ret, struct error *err)
{
    uint64_t blocks = base->size_bytes / BLOCK + 1;
    struct overlay *o = calloc(1, sizeof(*o));
    uint8_t *present = calloc((size_t)(blocks / 8 + 1), 1);
    struct file *file = NULL;
    int fd = -1;
    int rc = o && present ? temporary(base->size_bytes, &fd, err)
                          : error_set(err, ENOMEM, "out of memory");

    if (!rc)
        rc = file_new(fd, "(snapshot)", &file, err);
    if (rc) {
        free(present);
        free(o);
        return rc;
    }
    o->d = (struct disk){.ops = &overlay_ops, .size_bytes = base->size_bytes, .below = base};
    o->d.path = base->path ? strdup(base->path) : NULL;
    o->file = file;
    o->present = present;
    mutex_init(&o->fill_lock);
    *ret = &o->d;
    return 0;
}
