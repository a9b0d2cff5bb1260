/* Reading and writing through the map of blocks.
 *
 * Invariants:
 *  1. Data move without locks. A write to sectors that are not all set claims them first, whole,
 *     and sets their bits when the data are in the file; another write to any of them waits. So two
 *     writes into one such sector do not undo each other's filling-up from below.
 *  2. A fresh block whose rest reads as zeroes anyway is FULL at once: its space is a hole at the
 *     end of the file. Where something shows through from below it begins PARTIAL with no bit set.
 *
 * Threads: any.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "disk/vhd/map.h"

#include <string.h>

#define RUN_BLOCKS 65536u /* looked at under the lock at a time */

/** Sectors of a block that a write will set. */
struct vhd_claim {
    struct vhd_claim *next;
    uint64_t block;
    uint32_t first, end;
};

/** Bits from @at on that are alike, at most up to @end. */
static uint32_t bit_run(const uint8_t *v, uint32_t at, uint32_t end, bool *ret_set)
{
    bool set = v[at / 8] >> (at % 8) & 1;
    uint32_t i = at;

    while (i < end) {
        if (i % 8 == 0 && end - i >= 8 && v[i / 8] == (set ? 0xff : 0))
            i += 8;
        else if ((v[i / 8] >> (i % 8) & 1) == set)
            i++;
        else
            break;
    }
    *ret_set = set;
    return i - at;
}

static void set_bits(struct vhd_bits *b, uint32_t first, uint32_t end)
{
    bool empty = b->lo == b->hi;

    b->lo = empty ? first / 8 : MIN(b->lo, first / 8);
    b->hi = empty ? (end + 7) / 8 : MAX(b->hi, (end + 7) / 8);
    for (uint32_t i = first; i < end; i++) {
        uint8_t bit = (uint8_t)(1u << (i % 8));

        b->unset -= !(b->v[i / 8] & bit);
        b->v[i / 8] |= bit;
    }
}

/** What is alike from @offset on, at most @size. @kind PARTIAL never: FULL or NONE. */
struct run {
    enum vhd_kind kind;
    bool is_shared;
    uint64_t size;
    uint64_t file_offset; /* FULL */
};

/** -EAGAIN: the bitmap of the block of @offset must be loaded. */
static int find_run_locked(struct vhd_map *m, uint64_t offset, uint64_t size, struct run *ret)
    REQUIRES(m->lock)
{
    uint64_t block = offset / m->block_bytes;
    uint32_t in = (uint32_t)(offset % m->block_bytes);
    const struct vhd_block *b = &m->blocks[block];
    uint64_t left = m->block_bytes - in;

    *ret = (struct run){
        .kind = vhd_kind_of(b->word),
        .is_shared = b->word & VHD_SHARED,
        .size = MIN(size, left),
        .file_offset = vhd_offset_of(b->word) + in,
    };
    if (ret->kind == VHD_PARTIAL) {
        uint32_t first = in / m->sector_bytes;
        uint32_t end = (uint32_t)((in + ret->size + m->sector_bytes - 1) / m->sector_bytes);
        bool set;

        if (!b->bits)
            return -EAGAIN;
        uint32_t n = bit_run(b->bits->v, first, end, &set);
        ret->kind = set ? VHD_FULL : m->is_over ? VHD_NONE : VHD_ZERO;
        ret->size = MIN(ret->size, (uint64_t)(first + n) * m->sector_bytes - in);
        return 0;
    }
    for (uint64_t i = 1; ret->size < size && i < RUN_BLOCKS; i++) {
        uint64_t next = m->blocks[block + i].word;

        if (vhd_kind_of(next) != ret->kind || (next & VHD_SHARED) != (b->word & VHD_SHARED) ||
            ret->kind == VHD_BAD)
            break;
        if (ret->kind == VHD_FULL && vhd_offset_of(next) != ret->file_offset + ret->size)
            break;
        ret->size += MIN(size - ret->size, (uint64_t)m->block_bytes);
    }
    return 0;
}

static int find_run(struct vhd_map *m, uint64_t offset, uint64_t size, struct run *ret)
{
    for (;;) {
        mutex_lock(&m->lock);
        int rc = find_run_locked(m, offset, size, ret);
        mutex_unlock(&m->lock);
        if (rc != -EAGAIN)
            return rc;
        rc = vhd_map_load(m, offset / m->block_bytes);
        if (rc)
            return rc;
    }
}

static int read_run(struct vhd_map *m, const struct run *r, const struct iovec *iov, int n,
                    uint64_t offset)
{
    switch (r->kind) {
    case VHD_NONE:
        if (m->is_over)
            return disk_below_preadv(&m->d, iov, n, offset);
        break;
    case VHD_FULL:
        return file_preadv(m->file, iov, n, r->file_offset);
    case VHD_ZERO:
        break;
    case VHD_PARTIAL:
    case VHD_BAD:
        return -EIO;
    }
    iov_zero(iov, (unsigned)n);
    return 0;
}

int vhd_map_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct vhd_map *m = vhd_map_of(d);
    struct iovec part[DISK_MAX_IOV];
    uint64_t start = offset;
    uint64_t end = offset + iov_bytes(iov, (unsigned)iovcnt);

    while (offset < end) {
        struct run r;
        int rc = find_run(m, offset, end - offset, &r);

        if (!rc && r.size == end - start) {
            rc = read_run(m, &r, iov, iovcnt, offset);
        } else if (!rc) {
            int n = (int)iov_slice(part, iov, (unsigned)iovcnt, (size_t)(offset - start),
                                   (size_t)r.size);
            rc = read_run(m, &r, part, n, offset);
        }
        if (rc)
            return rc;
        offset += r.size;
    }
    return 0;
}

int vhd_map_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct vhd_map *m = vhd_map_of(d);
    struct run r;
    int rc = find_run(m, offset, size, &r);

    if (rc)
        return rc;
    *ret = (struct disk_extent){.kind = DISK_ZERO, .size = r.size};
    if (r.kind == VHD_NONE && m->is_over)
        ret->kind = DISK_ABSENT;
    if (r.kind == VHD_BAD)
        ret->kind = DISK_PACKED; /* reading it gives the error */
    if (r.kind == VHD_FULL) {
        ret->kind = DISK_DATA;
        ret->file = m->file;
        ret->file_offset = r.file_offset;
    }
    return 0;
}

int vhd_map_place(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct vhd_map *m = vhd_map_of(d);
    struct run r;
    int rc = vhd_map_begin(m);

    if (!rc)
        rc = find_run(m, offset, size, &r);
    if (rc)
        return rc;
    *ret = (struct disk_extent){.kind = DISK_PACKED, .size = r.size};
    if (r.kind == VHD_FULL && !r.is_shared) {
        ret->kind = DISK_DATA;
        ret->file = m->file;
        ret->file_offset = r.file_offset;
    }
    return 0;
}

/** One write within one block. */
struct piece {
    const struct iovec *iov; /* NULL: zeroes */
    int iovcnt;
    bool may_unmap;
    bool allocate; /* without @iov: a place, whatever it holds, and that is all */
    uint64_t offset;
    uint32_t size;
    uint64_t spare; /* zeroed space for a block, or 0 */

    /* What is to be done, by plan_piece(). */
    enum { PIECE_NOTHING, PIECE_IN_PLACE, PIECE_CLAIMED } action;
    uint64_t file_offset;
    bool fill_head, fill_tail; /* the rest of the first and of the last sector is below's */
    struct vhd_claim claim;
};

/** A place for a block that has none. */
static int allocate_locked(struct vhd_map *m, struct piece *p, uint64_t block) REQUIRES(m->lock)
{
    struct vhd_block *b = &m->blocks[block];
    bool shows_below = m->is_over && vhd_kind_of(b->word) == VHD_NONE;

    if (m->dirty_count >= m->cached_room / 2)
        return -EBUSY;
    if (m->file->is_block && !p->spare)
        return -EXDEV;
    int rc = vhd_map_mark(m, block);
    if (!rc && shows_below && !b->bits)
        rc = vhd_map_new_bits(m, block);
    if (rc)
        return rc; /* dirty without a change: harmless */
    uint64_t offset = p->spare ? p->spare : vhd_map_allocate(m);
    p->spare = 0;
    if (!offset)
        return -EFBIG; /* a bitmap that stays unused until the block goes */
    b->word = offset | (shows_below ? VHD_PARTIAL : VHD_FULL) | VHD_FRESH |
              (b->word & (VHD_DIRTY | VHD_TAKEN));
    return 0;
}

static bool is_claimed(struct vhd_map *m, uint64_t block, uint32_t first, uint32_t end)
    REQUIRES(m->lock)
{
    for (const struct vhd_claim *c = m->claims; c; c = c->next) {
        if (c->block == block && c->first < end && first < c->end)
            return true;
    }
    return false;
}

/** A write into a block with a bitmap. -EAGAIN: look again. */
static int plan_partial(struct vhd_map *m, struct piece *p, uint64_t block, uint32_t in)
    REQUIRES(m->lock)
{
    struct vhd_bits *bits = m->blocks[block].bits;
    uint32_t first = in / m->sector_bytes;
    uint32_t end = (in + p->size + m->sector_bytes - 1) / m->sector_bytes;
    bool set;

    if (bit_run(bits->v, first, end, &set) == end - first && set) {
        p->action = PIECE_IN_PLACE;
        return 0;
    }
    if (is_claimed(m, block, first, end)) {
        cond_wait(&m->claim_ended, &m->lock);
        return -EAGAIN;
    }
    p->action = PIECE_CLAIMED;
    p->fill_head = in % m->sector_bytes && !(bits->v[first / 8] >> (first % 8) & 1);
    p->fill_tail =
        (in + p->size) % m->sector_bytes && !(bits->v[(end - 1) / 8] >> ((end - 1) % 8) & 1);
    if (p->offset + p->size == m->d.size_bytes) /* so that the disk's last block can become FULL */
        end = m->block_bytes / m->sector_bytes;
    p->claim = (struct vhd_claim){m->claims, block, first, end};
    m->claims = &p->claim;
    bits->pins++;
    return 0;
}

/** Decide what to do. -EAGAIN: again; -ENODATA: load the bitmap; -EBUSY: flush; -EXDEV: zero a
 * spare. */
static int plan_piece(struct vhd_map *m, struct piece *p) REQUIRES(m->lock)
{
    uint64_t block = p->offset / m->block_bytes;
    uint32_t in = (uint32_t)(p->offset % m->block_bytes);
    struct vhd_block *b = &m->blocks[block];
    enum vhd_kind kind = vhd_kind_of(b->word);

    p->action = PIECE_NOTHING;
    if (kind == VHD_BAD || b->word & VHD_SHARED)
        return -EIO;
    if (kind == VHD_NONE || kind == VHD_ZERO) {
        bool whole = p->size == m->block_bytes;

        bool zeroes = !p->iov && !p->allocate;

        if (zeroes && (kind == VHD_ZERO || !m->is_over))
            return 0;
        if (zeroes && whole && m->can_zero) {
            int rc = vhd_map_mark(m, block);

            if (!rc)
                b->word = VHD_ZERO | (b->word & (VHD_DIRTY | VHD_TAKEN));
            return rc;
        }
        int rc = allocate_locked(m, p, block);
        if (rc)
            return rc;
    }
    p->file_offset = vhd_offset_of(b->word) + in;
    p->action = PIECE_IN_PLACE;
    if (vhd_kind_of(b->word) == VHD_FULL)
        return 0;
    return b->bits ? plan_partial(m, p, block, in) : -ENODATA;
}

/** Space for a block on a device, where it does not read as zeroes by itself. */
static int zero_spare(struct vhd_map *m, struct piece *p)
{
    mutex_lock(&m->lock);
    p->spare = vhd_map_allocate(m);
    mutex_unlock(&m->lock);
    return p->spare ? file_write_zeroes(m->file, p->spare, m->block_bytes, true) : -ENOSPC;
}

/** What is below at [from, from+size), within one sector, goes into the block. */
static int fill_from_below(struct vhd_map *m, uint64_t from, uint32_t size, uint64_t file_offset)
{
    uint8_t buf[4096];
    struct iovec iov = {buf, size};
    int rc = 0;

    if (m->is_over)
        rc = disk_below_preadv(&m->d, &iov, 1, from);
    else
        memset(buf, 0, size);
    return rc ? rc : file_pwrite(m->file, buf, size, file_offset);
}

static int put_piece(struct vhd_map *m, const struct piece *p)
{
    uint32_t head = (uint32_t)(p->offset % m->sector_bytes);
    uint64_t end = p->offset + p->size;
    uint32_t tail = (uint32_t)(end % m->sector_bytes);
    int rc = 0;

    if (p->fill_head)
        rc = fill_from_below(m, p->offset - head, head, p->file_offset - head);
    if (!rc && p->fill_tail)
        rc = fill_from_below(m, end, m->sector_bytes - tail, p->file_offset + p->size);
    if (rc)
        return rc;
    return p->iov ? file_pwritev(m->file, p->iov, p->iovcnt, p->file_offset)
                  : file_write_zeroes(m->file, p->file_offset, p->size, p->may_unmap);
}

/** The data are there (or not): bits, and whoever waits. */
static int end_claim(struct vhd_map *m, struct piece *p, int rc)
{
    mutex_lock(&m->lock);
    struct vhd_block *b = &m->blocks[p->claim.block];
    struct vhd_claim **at = &m->claims;

    while (*at != &p->claim)
        at = &(*at)->next;
    *at = p->claim.next;
    if (!rc)
        rc = vhd_map_mark(m, p->claim.block);
    if (!rc) {
        set_bits(b->bits, p->claim.first, p->claim.end);
        if (!b->bits->unset && vhd_kind_of(b->word) == VHD_PARTIAL)
            b->word ^= VHD_FULL ^ VHD_PARTIAL;
    }
    b->bits->pins--;
    cond_broadcast(&m->claim_ended);
    mutex_unlock(&m->lock);
    return rc;
}

static int write_piece(struct vhd_map *m, struct piece *p)
{
    int rc;

    do {
        mutex_lock(&m->lock);
        rc = plan_piece(m, p);
        mutex_unlock(&m->lock);
        int help = 0;
        if (rc == -ENODATA)
            help = vhd_map_load(m, p->offset / m->block_bytes);
        else if (rc == -EBUSY)
            help = vhd_map_flush(&m->d);
        else if (rc == -EXDEV)
            help = zero_spare(m, p);
        else if (rc != -EAGAIN)
            break;
        rc = help;
    } while (!rc);
    if (rc || p->action == PIECE_NOTHING || p->allocate)
        return rc;
    rc = put_piece(m, p);
    return p->action == PIECE_CLAIMED ? end_claim(m, p, rc) : rc;
}

/** @iov NULL: zeroes. */
static int write_all(struct vhd_map *m, const struct iovec *iov, int iovcnt, uint64_t offset,
                     uint64_t size, bool may_unmap)
{
    struct iovec part[DISK_MAX_IOV];
    uint64_t start = offset;
    uint64_t end = offset + size;
    int rc = vhd_map_begin(m);

    while (!rc && offset < end) {
        uint64_t left = m->block_bytes - offset % m->block_bytes;
        struct piece p = {
            .may_unmap = may_unmap,
            .offset = offset,
            .size = (uint32_t)MIN(left, end - offset),
        };

        if (iov) {
            p.iov = p.size == size ? iov : part;
            p.iovcnt = p.size == size ? iovcnt
                                      : (int)iov_slice(part, iov, (unsigned)iovcnt,
                                                       (size_t)(offset - start), p.size);
        }
        rc = write_piece(m, &p);
        offset += p.size;
    }
    return rc;
}

int vhd_map_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return write_all(vhd_map_of(d), iov, iovcnt, offset, iov_bytes(iov, (unsigned)iovcnt), false);
}

int vhd_map_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    return write_all(vhd_map_of(d), NULL, 0, offset, size, may_unmap);
}

/** Of a disk without a layer below: its blocks are whole as soon as they have a place. */
int vhd_map_disk_allocate(struct disk *d, uint64_t offset, uint64_t size)
{
    struct vhd_map *m = vhd_map_of(d);
    uint64_t end = offset + size;
    int rc = m->is_over ? -ENOTSUP : vhd_map_begin(m);

    while (!rc && offset < end) {
        uint64_t left = m->block_bytes - offset % m->block_bytes;
        struct piece p = {
            .allocate = true,
            .offset = offset,
            .size = (uint32_t)MIN(left, end - offset),
        };

        rc = write_piece(m, &p);
        offset += p.size;
    }
    return rc;
}

/** Space of sectors that are there is given back; what they hold afterwards is old or zeroes. */
int vhd_map_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    struct vhd_map *m = vhd_map_of(d);
    uint64_t end = offset + size;
    int rc = vhd_map_begin(m);

    while (!rc && offset < end) {
        struct run r;

        rc = find_run(m, offset, end - offset, &r);
        if (!rc && r.kind == VHD_FULL && !r.is_shared)
            rc = file_discard(m->file, r.file_offset, r.size);
        offset += rc ? 0 : r.size;
    }
    return rc;
}
