/* Blocks that a map places in a file; see blocks.h.
 *
 * Invariants:
 *  1. What find() says is DISK_DATA stays there: blocks are not moved or given up while the disk is
 * in use. So data is read and written in place without a lock.
 *  2. A block that is not DISK_DATA is changed only by the holder of a claim on it.
 *  3. What is published is written before: data, and a copy of what was below for the rest.
 *
 * Threads: any. `lock` guards the claims alone and is not held over any call.
 */
#include "disk/blocks.h"
#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"

#include <string.h>

#define COPY_BYTES (1u << 20) /* from below, at once */

/** Blocks [first, end), on the stack of the one who fills them. */
struct blocks_claim {
    struct blocks_claim *next;
    uint64_t first, end;
};

void blocks_init(struct blocks *b)
{
    mutex_init(&b->lock);
    cond_init(&b->released);
}

void blocks_done(struct blocks *b)
{
    assert(!b->claims);
    mutex_done(&b->lock);
    cond_done(&b->released);
}

/** Claim as many of the blocks [c->first, c->end) from the first as nobody else has; wait for at
 * least one. */
static void claim(struct blocks *b, struct blocks_claim *c)
{
    mutex_lock(&b->lock);
    for (;;) {
        struct blocks_claim *o = b->claims;

        while (o && !(o->first <= c->first && c->first < o->end))
            o = o->next;
        if (!o)
            break;
        cond_wait(&b->released, &b->lock);
    }
    for (struct blocks_claim *o = b->claims; o; o = o->next) {
        if (o->first > c->first)
            c->end = MIN(c->end, o->first);
    }
    c->next = b->claims;
    b->claims = c;
    mutex_unlock(&b->lock);
}

static void unclaim(struct blocks *b, struct blocks_claim *c)
{
    struct blocks_claim **at = &b->claims;

    mutex_lock(&b->lock);
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    cond_broadcast(&b->released);
    mutex_unlock(&b->lock);
}

static int find(struct blocks *b, uint64_t offset, uint64_t end, struct blocks_run *ret)
{
    uint64_t first = offset / b->block_bytes;

    return b->ops->find(b, first, (end - 1) / b->block_bytes - first + 1, ret);
}

/** Where the @run that begins in @offset's block ends, at most @end. */
static uint64_t run_end(const struct blocks *b, uint64_t offset, const struct blocks_run *run,
                        uint64_t end)
{
    return MIN(end, align_down(offset, b->block_bytes) + run->count * b->block_bytes);
}

static void zero_iov(const struct iovec *iov, int n)
{
    for (int i = 0; i < n; i++)
        memset(iov[i].iov_base, 0, iov[i].iov_len);
}

static int read_packed(struct blocks *b, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    uint64_t end = offset + iov_bytes(iov, (unsigned)iovcnt);
    uint64_t start = offset;
    struct iovec part[DISK_MAX_IOV];
    int rc = 0;

    while (!rc && offset < end) {
        uint64_t stop = MIN(end, align_down(offset, b->block_bytes) + b->block_bytes);
        int n = (int)iov_slice(part, iov, (unsigned)iovcnt, offset - start, stop - offset);

        rc = b->ops->read_packed(b, offset / b->block_bytes, offset % b->block_bytes, part, n);
        offset = stop;
    }
    return rc;
}

int blocks_preadv(struct blocks *b, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    uint64_t end = offset + iov_bytes(iov, (unsigned)iovcnt);
    uint64_t start = offset;
    struct iovec part[DISK_MAX_IOV];
    int rc = 0;

    while (!rc && offset < end) {
        struct blocks_run run;

        rc = find(b, offset, end, &run);
        if (rc)
            break;
        uint64_t stop = run_end(b, offset, &run, end);
        int n = (int)iov_slice(part, iov, (unsigned)iovcnt, offset - start, stop - offset);
        switch (run.kind) {
        case DISK_DATA:
            rc = file_preadv(b->file, part, n, run.file_offset + offset % b->block_bytes);
            break;
        case DISK_ZERO:
            zero_iov(part, n);
            break;
        case DISK_ABSENT:
            rc = disk_below_preadv(b->d, part, n, b->start + offset);
            break;
        case DISK_PACKED:
            rc = read_packed(b, part, n, offset);
            break;
        }
        offset = stop;
    }
    return rc;
}

static bool is_zero(const uint8_t *buf, size_t size)
{
    return !size || (!buf[0] && !memcmp(buf, buf + 1, size - 1));
}

/** Copy [offset, end) from below to @to, where the file reads as zeroes. */
static int copy_below(struct blocks *b, uint64_t offset, uint64_t end, uint64_t to)
{
    cleanup(freep) uint8_t *buf = NULL;
    int rc = 0;

    end = MIN(end, b->size_bytes);
    if (offset >= end || !b->d->below)
        return 0;
    buf = malloc((size_t)MIN(end - offset, (uint64_t)COPY_BYTES));
    if (!buf)
        return -ENOMEM;
    while (!rc && offset < end) {
        size_t size = (size_t)MIN(end - offset, (uint64_t)COPY_BYTES);
        struct iovec iov = {.iov_base = buf, .iov_len = size};

        rc = disk_below_preadv(b->d, &iov, 1, b->start + offset);
        if (!rc && !is_zero(buf, size))
            rc = file_pwrite(b->file, buf, size, to);
        offset += size;
        to += size;
    }
    return rc;
}

/** Write @iov (NULL: zeroes) to [offset, end) in fresh room at @room for whole blocks, of which
 * nothing was in this layer but @was. */
static int fill_room(struct blocks *b, enum disk_extent_kind was, const struct iovec *iov, int n,
                     uint64_t offset, uint64_t end, uint64_t room)
{
    uint64_t first = align_down(offset, b->block_bytes);
    uint64_t last = align_up(end, b->block_bytes);
    int rc = 0;

    if (iov)
        rc = file_pwritev(b->file, iov, n, room + (offset - first));
    if (!rc && was == DISK_ABSENT)
        rc = copy_below(b, first, offset, room);
    if (!rc && was == DISK_ABSENT)
        rc = copy_below(b, end, last, room + (end - first));
    return rc;
}

/** Write to blocks that this layer does not hold, as many as there is room for at once. *@ret_end
 * says where it ended: where it began, if somebody else was faster. @iov, NULL for zeroes, covers
 * [start, end). */
static int write_fresh(struct blocks *b, const struct iovec *iov, int n, uint64_t start,
                       uint64_t offset, uint64_t end, uint64_t *ret_end)
{
    struct blocks_claim c = {.first = offset / b->block_bytes,
                             .end = (end - 1) / b->block_bytes + 1};
    struct iovec part[DISK_MAX_IOV];
    struct blocks_run run;
    uint64_t room = 0;

    *ret_end = offset;
    claim(b, &c);
    int rc = b->ops->find(b, c.first, c.end - c.first, &run);
    if (rc || run.kind == DISK_DATA)
        goto out;
    if (run.kind == DISK_PACKED) {
        rc = -ENOTSUP; /* such images are not for changing */
        goto out;
    }
    struct blocks_run fresh = {.kind = DISK_DATA, .count = run.count};
    rc = b->ops->reserve(b, c.first, &fresh.count, &room);
    if (rc)
        goto out;
    fresh.file_offset = room;
    uint64_t stop = run_end(b, offset, &fresh, end);
    int parts = iov ? (int)iov_slice(part, iov, (unsigned)n, offset - start, stop - offset) : 0;
    rc = fill_room(b, run.kind, iov ? part : NULL, parts, offset, stop, room);
    if (!rc)
        rc = b->ops->publish(b, c.first, &fresh);
    if (rc)
        b->ops->release(b, fresh.count, room);
    else
        *ret_end = stop;
out:
    unclaim(b, &c);
    return rc;
}

int blocks_pwritev(struct blocks *b, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    uint64_t end = offset + iov_bytes(iov, (unsigned)iovcnt);
    uint64_t start = offset;
    struct iovec part[DISK_MAX_IOV];
    int rc = 0;

    while (!rc && offset < end) {
        struct blocks_run run;

        rc = find(b, offset, end, &run);
        if (rc)
            break;
        uint64_t stop = run_end(b, offset, &run, end);
        if (run.kind == DISK_DATA) {
            int n = (int)iov_slice(part, iov, (unsigned)iovcnt, offset - start, stop - offset);

            rc = file_pwritev(b->file, part, n, run.file_offset + offset % b->block_bytes);
            offset = stop;
        } else {
            rc = write_fresh(b, iov, iovcnt, start, offset, stop, &offset);
        }
    }
    return rc;
}

/** Record that the blocks [first, end) read as zeroes, those that this layer holds excepted.
 * *@ret_end: where it ended. */
static int publish_zero(struct blocks *b, uint64_t first, uint64_t end, uint64_t *ret_end)
{
    struct blocks_claim c = {.first = first, .end = end};
    struct blocks_run run;

    *ret_end = first;
    claim(b, &c);
    int rc = b->ops->find(b, c.first, c.end - c.first, &run);
    if (!rc && run.kind == DISK_ABSENT) {
        run.kind = DISK_ZERO;
        rc = b->ops->publish(b, c.first, &run);
        *ret_end = first + run.count;
    }
    unclaim(b, &c);
    return rc;
}

/** Zeroes over blocks [offset, end) of which this layer holds nothing. */
static int zero_absent(struct blocks *b, uint64_t offset, uint64_t end, uint64_t *ret_end)
{
    uint64_t bytes = b->block_bytes;
    uint64_t whole_end = end == b->size_bytes ? align_up(end, bytes) : align_down(end, bytes);
    bool whole = !(offset % bytes) && whole_end > offset;

    *ret_end = end;
    if (!b->d->below && !b->d->backing_path)
        return 0; /* reads as zeroes already */
    if (whole && b->can_zero) {
        int rc = publish_zero(b, offset / bytes, whole_end / bytes, ret_end);

        *ret_end = MIN(*ret_end * bytes, end);
        return rc;
    }
    if (!whole) /* one block at a time: the next may be whole */
        end = MIN(end, align_down(offset, bytes) + bytes);
    return write_fresh(b, NULL, 0, offset, offset, end, ret_end);
}

int blocks_write_zeroes(struct blocks *b, uint64_t offset, uint64_t size, bool may_unmap)
{
    uint64_t end = offset + size;
    int rc = 0;

    while (!rc && offset < end) {
        struct blocks_run run;

        rc = find(b, offset, end, &run);
        if (rc)
            break;
        uint64_t stop = run_end(b, offset, &run, end);
        switch (run.kind) {
        case DISK_DATA:
            rc = file_write_zeroes(b->file, run.file_offset + offset % b->block_bytes,
                                   stop - offset, may_unmap);
            break;
        case DISK_ZERO:
            break;
        case DISK_ABSENT:
            rc = zero_absent(b, offset, stop, &stop);
            break;
        case DISK_PACKED:
            rc = -ENOTSUP;
            break;
        }
        offset = stop;
    }
    return rc;
}

int blocks_allocate(struct blocks *b, uint64_t offset, uint64_t size)
{
    uint64_t end = offset + size;
    int rc = 0;

    while (!rc && offset < end) {
        struct blocks_run run;

        rc = find(b, offset, end, &run);
        if (rc)
            break;
        uint64_t stop = run_end(b, offset, &run, end);
        if (run.kind == DISK_DATA)
            offset = stop;
        else
            rc = write_fresh(b, NULL, 0, offset, offset, stop, &offset);
    }
    return rc;
}

int blocks_discard(struct blocks *b, uint64_t offset, uint64_t size)
{
    uint64_t end = offset + size;
    int rc = 0;

    while (!rc && offset < end) {
        struct blocks_run run;

        rc = find(b, offset, end, &run);
        if (rc)
            break;
        uint64_t stop = run_end(b, offset, &run, end);
        if (run.kind == DISK_DATA)
            rc = file_discard(b->file, run.file_offset + offset % b->block_bytes, stop - offset);
        offset = stop;
    }
    return rc;
}

int blocks_status(struct blocks *b, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct blocks_run run;
    uint64_t start = 0;
    uint64_t end = 0;
    int rc = find(b, offset, offset + size, &run);

    if (rc)
        return rc;
    *ret = (struct disk_extent){
        .kind = run.kind,
        .size = run_end(b, offset, &run, offset + size) - offset,
    };
    if (run.kind != DISK_DATA)
        return 0;
    ret->file = b->file;
    ret->file_offset = run.file_offset + offset % b->block_bytes;
    rc = file_find_data(b->file, ret->file_offset, &start, &end);
    if (rc && rc != -ENXIO)
        return rc;
    if (rc || start > ret->file_offset) { /* a hole of the file: freed, or never written */
        uint64_t hole = rc ? ret->size : start - ret->file_offset;

        *ret = (struct disk_extent){.kind = DISK_ZERO, .size = MIN(ret->size, hole)};
    } else {
        ret->size = MIN(ret->size, end - ret->file_offset);
    }
    return 0;
}

int blocks_place(struct blocks *b, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct blocks_run run;
    int rc = find(b, offset, offset + size, &run);

    if (rc)
        return rc;
    *ret = (struct disk_extent){
        .kind = run.kind == DISK_DATA ? DISK_DATA : DISK_PACKED,
        .size = run_end(b, offset, &run, offset + size) - offset,
    };
    if (run.kind == DISK_DATA) {
        ret->file = b->file;
        ret->file_offset = run.file_offset + offset % b->block_bytes;
    }
    return 0;
}
