/* Zeroes and discards on a QCOW2 disk: entries change, no data is written, but at the edges of what
 * an entry can say.
 *
 * Version 2 has no way to say zero: over something below it gets zeroes as data, and is not
 * discarded.
 *
 * Threads: any. Entries change under `lock` for writing, after waiting for writers of the same
 * clusters. */
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

struct zeroing {
    uint64_t offset, end; /* whole sub-clusters */
    bool may_unmap;
    bool is_discard; /* what is absent may stay so */
};

static bool has_below(const struct qcow2 *q)
{
    return q->d.below || q->d.backing_path;
}

/** Zeroes as data. */
static int write_bytes(struct qcow2 *q, uint64_t from, uint64_t to)
{
    static const uint8_t zeroes[65536];
    bool zero = false;
    int rc = qcow2_reads_zero(q, from, to, &zero);

    while (!rc && !zero && from < to) {
        struct iovec iov = {(void *)zeroes, (size_t)MIN(to - from, (uint64_t)sizeof(zeroes))};

        rc = qcow2_pwritev(&q->d, &iov, 1, from);
        from += iov.iov_len;
    }
    return rc;
}

/** A whole cluster of the table: its place is kept unless it may go. */
static void zero_entry(struct qcow2 *q, struct qcow2_table *t, uint32_t i, const struct zeroing *z)
{
    uint64_t entry = qcow2_entry(q, t, i);
    uint64_t subs = qcow2_subs(q, t, i);
    bool is_ours = entry & QCOW2_COPIED && !(entry & QCOW2_PACKED);
    bool is_absent =
        !(entry & (QCOW2_OFFSET | QCOW2_PACKED | QCOW2_COPIED | QCOW2_ZERO)) && !(subs >> 32);

    if (is_absent && (z->is_discard || !has_below(q)))
        return;
    if (q->is_raw_data && is_ours && !(entry & QCOW2_ZERO))
        return; /* the data file has zeroes now */
    uint64_t kept = is_ours && !z->may_unmap ? entry & (QCOW2_OFFSET | QCOW2_COPIED) : 0;
    uint64_t flag = q->is_extended || q->h.version == 2 ? 0 : (uint64_t)QCOW2_ZERO;
    if (q->h.version == 2)
        kept = 0;
    if ((kept | flag) == entry && (!q->is_extended || subs == QCOW2_ALL_SUBS << 32))
        return;
    qcow2_set_entry(q, t, i, kept | flag, QCOW2_ALL_SUBS << 32);
    if (!kept)
        qcow2_release_entry(q, entry);
}

/** Sub-clusters of one extended entry. 1: it is packed, and needs data written. */
static int zero_subs(struct qcow2 *q, struct qcow2_table *t, uint32_t i, uint64_t mask,
                     bool is_discard)
{
    uint64_t entry = qcow2_entry(q, t, i);
    uint64_t subs = qcow2_subs(q, t, i);

    if (entry & QCOW2_PACKED)
        return 1;
    if (is_discard) /* what is absent stays so */
        mask &= subs;
    if (mask && !q->is_raw_data)
        qcow2_set_entry(q, t, i, entry, (subs & ~mask) | mask << 32);
    return 0;
}

/** The entries of one table. `lock` for writing. */
static int zero_entries(struct qcow2 *q, const struct zeroing *z)
{
    uint64_t first = z->offset >> q->cluster_bits;
    uint64_t end = qcow2_clusters(q, z->end);
    struct qcow2_table *t = NULL;
    int rc = qcow2_is_broken(q) ? -EIO : qcow2_find_l2(q, first, true, &t);

    if (!rc && !t && !z->is_discard && has_below(q))
        rc = qcow2_own_l2(q, first, &t);
    if (rc || !t)
        return rc;
    for (uint64_t c = first; c < end && !rc; c++) {
        uint64_t start = c << q->cluster_bits;
        uint64_t from = MAX(z->offset, start) - start;
        uint64_t to = MIN(z->end - start, (uint64_t)q->cluster_bytes);
        uint64_t mask = MASK(to >> q->sub_bits) & ~MASK(from >> q->sub_bits);

        if (!from && to == q->cluster_bytes)
            zero_entry(q, t, qcow2_l2_index(q, c), z);
        else
            rc = zero_subs(q, t, qcow2_l2_index(q, c), mask, z->is_discard);
    }
    return rc;
}

/** The same range of an external data file: its bytes have to be zero if it is a raw image, and
 * give back their space. */
static int zero_data_file(struct qcow2 *q, const struct zeroing *z)
{
    uint64_t size = 0;

    if (!q->is_raw_data && !z->may_unmap)
        return 0;
    int rc = file_get_size(q->data, &size);
    if (rc || z->offset >= size)
        return rc;
    return file_write_zeroes(q->data, z->offset, MIN(z->end, size) - z->offset, z->may_unmap);
}

/** Whole sub-clusters within one table. */
static int zero_range(struct qcow2 *q, const struct zeroing *z)
{
    struct qcow2_busy busy = {
        .first = z->offset >> q->cluster_bits,
        .end = qcow2_clusters(q, z->end),
    };
    int rc = 0;

    qcow2_wrlock_idle(q, busy.first, busy.end);
    if (q->has_data_file) { /* nobody may write there meanwhile */
        qcow2_busy_begin(q, &busy);
        qcow2_unlock(q);
        rc = zero_data_file(q, z);
        qcow2_wrlock(q);
    }
    if (!rc)
        rc = zero_entries(q, z);
    if (q->has_data_file)
        qcow2_busy_end(q, &busy);
    qcow2_unlock(q);
    return rc == 1 ? write_bytes(q, z->offset, z->end) : rc;
}

static int zero_all(struct qcow2 *q, uint64_t from, uint64_t to, bool may_unmap, bool is_discard)
{
    uint64_t span = BIT(q->l2_bits + q->cluster_bits);
    int rc = 0;

    while (from < to && !rc) {
        uint64_t stop = MIN(to, align_down(from, span) + span);
        uint64_t inside = from & (q->cluster_bytes - 1);

        /* A packed cluster, touched in part, is told from the rest by being alone. */
        if (inside || stop - from < q->cluster_bytes)
            stop = MIN(stop, from - inside + q->cluster_bytes);
        else
            stop = align_down(stop, q->cluster_bytes);
        rc = qcow2_flush_if_much(q);
        struct zeroing z = {from, stop, may_unmap, is_discard};
        if (!rc)
            rc = zero_range(q, &z);
        from = stop;
    }
    return rc;
}

/** The whole sub-clusters within [offset, end): the disk's end may cut the last one. */
static void whole_subs(const struct qcow2 *q, uint64_t offset, uint64_t end, uint64_t *ret_from,
                       uint64_t *ret_to)
{
    uint64_t grain = BIT(q->sub_bits);

    *ret_from = align_up(offset, grain);
    *ret_to =
        end >= q->d.size_bytes && !q->has_data_file ? align_up(end, grain) : align_down(end, grain);
}

int qcow2_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    struct qcow2 *q = qcow2_of(d);
    uint64_t end = offset + size;
    uint64_t from;
    uint64_t to;
    int rc = qcow2_bitmaps_mark(q, offset, size);

    whole_subs(q, offset, end, &from, &to);
    if (rc)
        return rc;
    if (from >= to || (q->h.version == 2 && has_below(q)))
        return write_bytes(q, offset, end);
    if (offset < from)
        rc = write_bytes(q, offset, from);
    if (!rc)
        rc = zero_all(q, from, to, may_unmap, false);
    if (!rc && to < end)
        rc = write_bytes(q, to, end);
    return rc;
}

int qcow2_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    struct qcow2 *q = qcow2_of(d);
    uint64_t from;
    uint64_t to;
    int rc = 0;

    whole_subs(q, offset, offset + size, &from, &to);
    if (from >= to || (q->h.version == 2 && has_below(q)))
        return 0;
    /* Part of a packed extended cluster: a hint needs no data written. */
    if (q->is_extended) {
        from = align_up(offset, q->cluster_bytes);
        to = align_down(to, q->cluster_bytes);
    }
    if (from < to)
        rc = qcow2_bitmaps_mark(q, from, to - from);
    return rc || from >= to ? rc : zero_all(q, from, to, true, true);
}
