/* Copy-on-write over another disk, gone at close: --snapshot.
 *
 * An unlinked sparse file holds changed blocks at their own offsets, a bitmap says which.
 *
 * Invariants:
 *  1. A block's bit is set only after the whole block is in the file, and is never cleared.
 *  2. A block's first partial write, which copies the rest of it from the base, happens under
 *     `copy_lock`; so two of them to one block do not undo each other.
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
    struct disk *base;      /* [init] */
    int fd;                 /* [init] */
    uint8_t *present;       /* [init] one bit a block; [atomic] content */
    struct mutex copy_lock; /* see invariant 2 */
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

static int overlay_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct overlay *o = (struct overlay *)d;
    struct iovec part[DISK_MAX_IOV];
    uint64_t start = offset;
    uint64_t end = offset + iov_bytes(iov, (unsigned)iovcnt);

    while (offset < end) { /* one run of blocks from the same place each turn */
        bool ours = is_present(o, offset / BLOCK);
        uint64_t stop = align_down(offset, BLOCK) + BLOCK;

        while (stop < end && is_present(o, stop / BLOCK) == ours)
            stop += BLOCK;
        stop = MIN(stop, end);
        int n = (int)iov_slice(part, iov, (unsigned)iovcnt, offset - start, stop - offset);
        int rc =
            ours ? fd_preadv_all(o->fd, part, n, offset) : disk_preadv(o->base, part, n, offset);
        if (rc)
            return rc;
        offset = stop;
    }
    return 0;
}

/** Make sure that block @b is in the file, so that a part of it can be written. */
static int copy_block(struct overlay *o, uint64_t b)
{
    uint8_t buf[BLOCK] = {0};
    uint64_t at = b * BLOCK;
    size_t size = (size_t)MIN((uint64_t)BLOCK, o->d.size_bytes - at);
    struct iovec iov = {.iov_base = buf, .iov_len = size};
    int rc = 0;

    mutex_lock(&o->copy_lock);
    if (!is_present(o, b)) {
        rc = disk_preadv(o->base, &iov, 1, at);
        if (!rc)
            rc = fd_pwritev_all(o->fd, &iov, 1, at);
        if (!rc)
            set_present(o, b, b + 1);
    }
    mutex_unlock(&o->copy_lock);
    return rc;
}

/** Prepare the edges of a write to [offset, end); *@ret_first..*@ret_end are the whole blocks. */
static int copy_edges(struct overlay *o, uint64_t offset, uint64_t end, uint64_t *ret_first,
                      uint64_t *ret_end)
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

static int overlay_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct overlay *o = (struct overlay *)d;
    uint64_t first;
    uint64_t end;
    int rc = copy_edges(o, offset, offset + iov_bytes(iov, (unsigned)iovcnt), &first, &end);

    if (!rc)
        rc = fd_pwritev_all(o->fd, iov, iovcnt, offset);
    if (!rc)
        set_present(o, first, end);
    return rc;
}

/** Nothing has to survive. */
static int overlay_flush(struct disk *d)
{
    return 0;
}

static int overlay_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    struct overlay *o = (struct overlay *)d;
    uint64_t first;
    uint64_t end;
    int rc = copy_edges(o, offset, offset + size, &first, &end);

    if (!rc)
        rc = fd_write_zeroes(o->fd, offset, size, true);
    if (!rc)
        set_present(o, first, end);
    return rc;
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

    disk_close(o->base);
    fd_close(o->fd);
    free(o->present);
    mutex_done(&o->copy_lock);
    free(o);
}

/** Not a file's format: the whole of it is ours. */
static int overlay_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    (void)d;
    (void)offset;
    *ret = (struct disk_extent){.kind = DISK_PACKED, .size = size};
    return 0;
}

static int overlay_get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    const struct overlay *o = (const struct overlay *)d;

    disk_info_text(info, "snapshot-of", o->base->path ? o->base->path : "");
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
    int fd = -1;
    int rc = o && present ? temporary(base->size_bytes, &fd, err)
                          : error_set(err, ENOMEM, "out of memory");

    if (rc) {
        free(present);
        free(o);
        return rc;
    }
    o->d = (struct disk){.ops = &overlay_ops, .size_bytes = base->size_bytes};
    o->d.path = base->path ? strdup(base->path) : NULL;
    o->base = base;
    o->fd = fd;
    o->present = present;
    mutex_init(&o->copy_lock);
    *ret = &o->d;
    return 0;
}
