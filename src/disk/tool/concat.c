/* Disks one behind the other, as one that can be read: for converting several into one.
 *
 * What a part shows where none of its layers holds anything is absent here too, and reads as
 * zeroes. Threads: any. */
#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "disk/format.h"
#include "disk/tool/tool.h"

#include <errno.h>
#include <string.h>

struct concat {
    struct disk d;       /* must be first */
    uint64_t *ends;      /* [init] where each part ends here */
    struct disk **parts; /* [init] borrowed */
};

/** The part that @offset, within the disk, lies in, and where that begins. */
static struct disk *find_part(const struct disk *d, uint64_t offset, uint64_t *ret_start,
                              uint64_t *ret_end)
{
    const struct concat *c = (const struct concat *)d;
    unsigned i = 0;

    while (c->ends[i] <= offset)
        i++;
    *ret_start = i ? c->ends[i - 1] : 0;
    *ret_end = c->ends[i];
    return c->parts[i];
}

static int concat_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    uint64_t end = offset + iov_bytes(iov, (unsigned)iovcnt);
    uint64_t from = offset;
    struct iovec piece[DISK_MAX_IOV];
    int rc = 0;

    while (!rc && offset < end) {
        uint64_t start, stop;
        struct disk *part = find_part(d, offset, &start, &stop);

        stop = MIN(stop, end);
        int n = (int)iov_slice(piece, iov, (unsigned)iovcnt, offset - from, stop - offset);
        rc = disk_preadv(part, piece, n, offset - start);
        offset = stop;
    }
    return rc;
}

static int concat_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    uint64_t start, stop;
    struct disk *part = find_part(d, offset, &start, &stop);

    return disk_map(part, offset - start, MIN(size, stop - offset), ret);
}

static int concat_get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    return error_set(err, ENOTSUP, "several disks at once cannot be described");
}

static void concat_close(struct disk *d)
{
    struct concat *c = (struct concat *)d;

    free(c->ends);
    free(c->parts);
    free(c);
}

/* It is read-only: disk.c refuses what is not here. */
static const struct disk_ops concat_ops = {
    .preadv = concat_preadv,
    .status = concat_status,
    .get_info = concat_get_info,
    .close = concat_close,
};

int disk_concat_new(struct disk *const *parts, unsigned count, struct disk **ret, struct error *err)
{
    struct concat *c = calloc(1, sizeof(*c));
    uint64_t size = 0;

    assert(count);
    if (c) {
        c->d = (struct disk){.ops = &concat_ops, .readonly = true, .path = strdup(parts[0]->path)};
        c->ends = calloc(count, sizeof(*c->ends));
        c->parts = calloc(count, sizeof(struct disk *));
    }
    if (!c || !c->d.path || !c->ends || !c->parts) {
        if (c)
            disk_close(&c->d);
        return error_set(err, ENOMEM, "out of memory");
    }
    for (unsigned i = 0; i < count; i++) {
        size += parts[i]->size_bytes; /* each at most 2^62 */
        if (size > DISK_MAX_BYTES) {
            disk_close(&c->d);
            return error_set(err, EFBIG, "together the disks are too large");
        }
        c->parts[i] = parts[i];
        c->ends[i] = size;
    }
    c->d.size_bytes = size;
    *ret = &c->d;
    return 0;
}
