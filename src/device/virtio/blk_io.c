/* virtio block device: how requests reach the disk. Spec: VIRTIO 1.2 §5.2.6.
 *
 *   read   in the host's memory already        here, at once
 *          plain bytes of files                the queue's ring
 *   write  in place, to plain bytes of files   the queue's ring
 *   else   (tables change, packed data, flush, discard, zeroes; or no io_uring)   a worker
 *
 * A request with nothing beside it that would need a worker, or a cached write, is executed here:
 * handing it over costs more than it can gain.
 *
 * Invariants:
 *  1. Between disk_io_begin() and disk_io_end() lie the finding of the places and the end of the
 *     last transfer, so no place is given to something else meanwhile.
 *  2. A transfer that fails or is short is no answer yet: the request is done again by a worker
 *     through the format, which knows ends of files and says what is wrong.
 *  3. Data moves between guest RAM and the files directly.
 *  4. A change for which the host has no room is carried out again as a whole when there is: the
 * guest has not been answered, so what its buffers hold is the same.
 *
 * Threads: blk_start() and the rings' callbacks on the queue's loop; work() on the workers.
 */
#include "base/bits.h"
#include "base/iov.h"
#include "device/virtio/blk_internal.h"
#include "disk/disk.h"
#include "disk/file.h"

#include <errno.h>
#include <string.h>

static uint8_t get_id(struct blk_request *r)
{
    const struct virtio_blk *b = r->b;
    size_t done = 0;

    for (unsigned i = 0; i < r->data_count && done < sizeof(b->serial); i++) {
        size_t n = MIN(r->data[i].iov_len, sizeof(b->serial) - done);

        memcpy(r->data[i].iov_base, b->serial + done, n);
        done += n;
    }
    return BLK_OK;
}

/** What a change of the disk came to: a status, or BLK_FULL with @r->code. */
static int write_status(struct blk_request *r, int rc)
{
    r->code = -rc;
    return rc == -ENOSPC || rc == -EDQUOT ? BLK_FULL : rc ? BLK_IOERR : BLK_OK;
}

/** One range of a discard or write-zeroes request. */
static int handle_range(struct blk_request *r, uint32_t type, const uint8_t *range)
{
    uint64_t sector = load_le64(range);
    uint64_t size = (uint64_t)load_le32(range + 8) * BLK_SECTOR;
    uint32_t flags = load_le32(range + 12);
    uint32_t max = type == BLK_DISCARD ? BLK_DISCARD_SECTORS_MAX : BLK_ZEROES_SECTORS_MAX;
    const struct virtio_blk *b = r->b;
    uint64_t offset;

    if (flags & ~BLK_RANGE_UNMAP || (type == BLK_DISCARD && flags))
        return BLK_UNSUPP; /* §5.2.6.2 */
    if (!checked_mul(sector, (uint64_t)BLK_SECTOR, &offset) || size > (uint64_t)max * BLK_SECTOR)
        return BLK_IOERR;
    int rc = type == BLK_DISCARD
                 ? disk_discard(b->disk, offset, size)
                 : disk_write_zeroes(b->disk, offset, size, flags & BLK_RANGE_UNMAP);
    return write_status(r, rc);
}

static int handle_ranges(struct blk_request *r)
{
    uint8_t ranges[BLK_RANGES_MAX * BLK_RANGE_SIZE];
    int status = BLK_OK;

    if (!r->data_bytes || r->data_bytes % BLK_RANGE_SIZE || r->data_bytes > sizeof(ranges))
        return BLK_IOERR;
    size_t size = vq_read(&r->chain, BLK_HEADER_SIZE, ranges, r->data_bytes);
    for (size_t at = 0; at < size && status == BLK_OK; at += BLK_RANGE_SIZE)
        status = handle_range(r, r->type, ranges + at);
    if (status == BLK_OK && r->write_through)
        status = write_status(r, disk_flush(r->b->disk));
    return status;
}

static uint8_t read_status(struct blk_request *r, int rc)
{
    if (rc) /* the used length says that all was written */
        iov_zero(r->data, r->data_count);
    return rc ? BLK_IOERR : BLK_OK;
}

/** Through the format, waiting for it: a status, or BLK_FULL. */
static int execute(struct blk_request *r)
{
    struct disk *d = r->b->disk;
    int rc;

    switch (r->type) {
    case BLK_IN:
        return read_status(r, disk_preadv(d, r->data, (int)r->data_count, r->offset));
    case BLK_OUT:
        rc = disk_pwritev(d, r->data, (int)r->data_count, r->offset);
        if (!rc && r->write_through)
            rc = disk_flush(d);
        return write_status(r, rc);
    case BLK_FLUSH:
        return write_status(r, disk_flush(d));
    default:
        return handle_ranges(r);
    }
}

static void work(struct pool_job *job)
{
    struct blk_request *r = container_of(job, struct blk_request, job);

    int status = execute(r);

    if (status == BLK_FULL)
        blk_stall(r, r->code);
    else
        blk_finish(r, (uint8_t)status);
}

/** On the queue's loop: a status, or BLK_LATER. */
static int execute_here(struct blk_request *r)
{
    int status = execute(r);

    if (status != BLK_FULL)
        return status;
    blk_stall(r, r->code);
    return BLK_LATER;
}

static int give_to_worker(struct blk_request *r)
{
    r->job.fn = work;
    pool_add(r->b->workers, &r->job);
    return BLK_LATER;
}

void blk_again(struct blk_request *r)
{
    (void)give_to_worker(r);
}

static void on_part(struct uring_op *op, int result)
{
    struct blk_part *part = (struct blk_part *)op;
    struct blk_request *r = part->r;

    r->failed |= result != part->size;
    if (--r->parts_left)
        return;
    disk_io_end(r->b->disk, r->ticket);
    if (r->failed)
        (void)give_to_worker(r);
    else
        blk_finish(r, BLK_OK);
}

/** Where [offset, offset+size) is; other than plain or zero: it cannot be reached past the
 * format. */
static bool find_place(struct blk_request *r, uint64_t offset, uint64_t size,
                       struct disk_extent *ret)
{
    bool write = r->type == BLK_OUT;
    int rc = write ? disk_place(r->b->disk, offset, size, ret)
                   : disk_locate(r->b->disk, offset, size, ret);

    if (rc || ret->kind == DISK_PACKED)
        return false;
    if (ret->kind == DISK_DATA)
        return ret->file->fd >= 0;
    return !write;
}

/** Begin the transfers of @r on its queue's ring. False: it has to go another way. */
static bool start_on_ring(struct blk_request *r)
{
    struct uring *ring = r->b->rings[r->index];
    struct disk_extent places[BLK_PARTS];
    const struct iovec *slice[BLK_PARTS];
    unsigned counts[BLK_PARTS];
    struct iovec *at = r->slices;
    uint64_t done = 0;
    unsigned n = 0;

    if (!ring || uring_left(ring) < BLK_PARTS || !r->data_bytes)
        return false;
    r->ticket = disk_io_begin(r->b->disk);
    for (; done < r->data_bytes && n < BLK_PARTS; n++) {
        struct disk_extent *e = &places[n];

        if (!find_place(r, r->offset + done, r->data_bytes - done, e))
            break;
        counts[n] = iov_slice(at, r->data, r->data_count, (size_t)done, (size_t)e->size);
        slice[n] = at;
        if (e->kind != DISK_DATA)
            iov_zero(at, counts[n]);
        else if (!file_takes(e->file, at, (int)counts[n], e->file_offset))
            break;
        at += counts[n];
        done += e->size;
    }
    if (done < r->data_bytes) {
        disk_io_end(r->b->disk, r->ticket);
        return false;
    }
    r->failed = false;
    r->parts_left = 1; /* this one, so that none of the ends is the last one before all are begun */
    for (unsigned i = 0; i < n; i++) {
        struct blk_part *part = &r->parts[i];

        if (places[i].kind != DISK_DATA)
            continue;
        *part = (struct blk_part){.op.fn = on_part, .r = r, .size = (int)places[i].size};
        r->parts_left++;
        uring_transfer(ring, places[i].file->fd, slice[i], (int)counts[i], places[i].file_offset,
                       r->type == BLK_OUT, &part->op);
    }
    return true;
}

/** All parts have been begun; were there none? */
static int begun(struct blk_request *r)
{
    if (--r->parts_left)
        return BLK_LATER;
    disk_io_end(r->b->disk, r->ticket);
    return BLK_OK;
}

static int start_read(struct blk_request *r)
{
    int rc = disk_preadv_cached(r->b->disk, r->data, (int)r->data_count, r->offset);

    if (rc != -EAGAIN)
        return read_status(r, rc);
    if (start_on_ring(r))
        return begun(r);
    return r->alone ? execute_here(r) : give_to_worker(r);
}

static int start_write(struct blk_request *r)
{
    if (!r->alone && !r->write_through && start_on_ring(r))
        return begun(r);
    return r->alone ? execute_here(r) : give_to_worker(r);
}

int blk_start(struct blk_request *r)
{
    switch (r->type) {
    case BLK_IN:
    case BLK_OUT:
        if (r->bad_offset || r->data_bytes % BLK_SECTOR)
            return BLK_IOERR;
        return r->type == BLK_IN ? start_read(r) : start_write(r);
    case BLK_FLUSH:
    case BLK_DISCARD:
    case BLK_WRITE_ZEROES:
        return give_to_worker(r); /* reads and writes overtake it, as §5.2.6 allows */
    case BLK_GET_ID:
        return get_id(r);
    default:
        return BLK_UNSUPP;
    }
}

void blk_submit(struct virtio_blk *b, unsigned index)
{
    if (b->rings[index])
        uring_submit(b->rings[index]);
}
