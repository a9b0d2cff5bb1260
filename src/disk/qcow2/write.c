/* Writing to a QCOW2 disk.
 *
 * Clusters that are the disk's own are written in place. Else a place is taken under `lock` and the
 * guest clusters become busy; the data is written without a lock, with what is missing of partly
 * written (sub-)clusters around it; then `lock` is taken again and the L2 entries are set.
 *
 * Three cases (struct placing):
 *  - fresh: new clusters, which read as zeroes: what reads as zero around the data is not written.
 *  - kept: one cluster whose place is ours but whose content does not count: the zero flag is set,
 *    or (extended) the sub-cluster is not allocated.
 *  - fixed: an external data file, where the place is the guest's offset.
 *
 * Threads: any. */
#include "base/fd.h"
#include "base/iov.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

#define MAX_PIECE (64u << 20) /* bytes placed at once */

struct placing {
    struct qcow2_busy busy; /* the guest's clusters */
    uint64_t offset, size;  /* the guest's bytes */
    uint64_t from, to;      /* the bytes to write: with what is around */
    uint64_t host;          /* of cluster busy.first */
    bool is_kept;
    bool is_zero; /* the place reads as zeroes */
};

/** A cluster without data of ours in it, but with a place that is. */
static bool is_kept(const struct qcow2 *q, uint64_t entry)
{
    return !(entry & QCOW2_PACKED) && entry & QCOW2_COPIED &&
           (entry & QCOW2_OFFSET || q->has_data_file);
}

/** How much of a cluster has to be whole when a part of it is written. */
static unsigned grain_bits(const struct qcow2 *q, uint64_t entry)
{
    bool whole = !is_kept(q, entry) && (entry & QCOW2_PACKED || entry & QCOW2_OFFSET);

    return whole && !q->has_data_file ? q->cluster_bits : q->sub_bits;
}

static int place_kept(struct qcow2 *q, uint64_t entry, struct placing *p)
{
    struct qcow2_run run;
    int rc = qcow2_find(q, p->offset, p->size, &run);

    if (!rc && run.kind == QCOW2_RUN_DATA)
        return 1;
    p->host = entry & QCOW2_OFFSET;
    p->is_zero = q->is_raw_data;
    if (rc)
        return rc == -EAGAIN ? rc : qcow2_break(q);
    if (q->has_data_file
            ? p->host != p->busy.first << q->cluster_bits
            : p->host & (q->cluster_bytes - 1) || p->host >> q->cluster_bits >= q->end ||
                  qcow2_set_has(&q->meta, p->host >> q->cluster_bits))
        return qcow2_break(q);
    p->is_kept = true;
    p->size = MIN(run.bytes, p->size);
    p->size = MIN(p->size, ((p->busy.first + 1) << q->cluster_bits) - p->offset);
    p->busy.end = p->busy.first + 1;
    return 0;
}

/** @t: of the first cluster. The clusters from there on that need a new place. */
static int place_fresh(struct qcow2 *q, const struct qcow2_table *t, struct placing *p)
{
    uint64_t table_end = (p->busy.first | MASK(q->l2_bits)) + 1;
    uint64_t stop = MIN(p->busy.end, table_end);
    uint64_t n = 0;
    uint64_t got = 0;

    while (p->busy.first + n < stop) {
        uint64_t entry = qcow2_entry(q, t, qcow2_l2_index(q, p->busy.first + n));

        if (entry & QCOW2_COPIED && !(entry & QCOW2_PACKED))
            break;
        n++;
    }
    if (!n)
        return qcow2_break(q); /* the copied flag without a place */
    int rc = 0;
    if (q->has_data_file) {
        p->host = p->busy.first << q->cluster_bits;
        got = n;
    } else {
        uint64_t host = 0;

        rc = qcow2_alloc(q, n, &host, &got);
        p->host = host << q->cluster_bits;
    }
    if (rc)
        return rc;
    p->is_zero = !q->has_data_file || q->is_raw_data;
    p->busy.end = p->busy.first + got;
    p->size = MIN(p->size, (p->busy.end << q->cluster_bits) - p->offset);
    return 0;
}

/** Find and reserve places for guest bytes from @p->offset on. 1: written in place now. `lock` for
 * writing, nothing of it is busy. */
static int reserve(struct qcow2 *q, struct placing *p)
{
    struct qcow2_table *t = NULL;
    int rc = qcow2_is_broken(q) ? -EIO : qcow2_own_l2(q, p->busy.first, &t);

    if (rc)
        return rc;
    uint64_t first = qcow2_entry(q, t, qcow2_l2_index(q, p->busy.first));
    struct qcow2_run run;
    rc = qcow2_find(q, p->offset, p->size, &run);
    if (rc)
        return rc == -EAGAIN ? rc : qcow2_break(q);
    if (run.kind == QCOW2_RUN_DATA && run.is_ours)
        return 1;
    rc = is_kept(q, first) ? place_kept(q, first, p) : place_fresh(q, t, p);
    if (rc)
        return rc;
    uint64_t end = p->offset + p->size;
    uint64_t last = first;
    if (p->busy.end > p->busy.first + 1) {
        rc = qcow2_find_l2(q, p->busy.first, false, &t); /* it may have made room for others */
        if (!rc)
            last = qcow2_entry(q, t, qcow2_l2_index(q, p->busy.end - 1));
    }
    p->from = align_down(p->offset, BIT(grain_bits(q, first)));
    p->to = align_up(end, BIT(grain_bits(q, last)));
    if (!rc)
        qcow2_busy_begin(q, &p->busy);
    return rc;
}

int qcow2_reads_zero(struct qcow2 *q, uint64_t from, uint64_t to, bool *ret)
{
    while (from < to) {
        struct qcow2_run run;
        int rc = qcow2_look(q, from, to - from, false, &run); /* it is busy: nobody changes it */

        *ret = false;
        if (rc)
            return rc;
        if (run.kind == QCOW2_RUN_ABSENT && q->d.below) {
            uint64_t end = __atomic_load_n(&q->d.below->size_bytes, __ATOMIC_RELAXED);
            struct disk_extent e;

            if (from < end) {
                rc = disk_map(q->d.below, from, MIN(run.bytes, end - from), &e);
                if (rc || (e.kind != DISK_ABSENT && e.kind != DISK_ZERO))
                    return rc;
                run.bytes = e.size;
            }
        } else if (run.kind == QCOW2_RUN_DATA || run.kind == QCOW2_RUN_PACKED) {
            return 0;
        }
        from += run.bytes;
    }
    *ret = true;
    return 0;
}

/** What stands in the guest's [from, to), to be written around data. *@ret NULL: not needed. */
static int read_around(struct qcow2 *q, const struct placing *p, uint64_t from, uint64_t to,
                       uint8_t **ret)
{
    bool zero = true;
    int rc = qcow2_reads_zero(q, from, to, &zero);

    *ret = NULL;
    if (rc || from == to || (zero && p->is_zero && !q->luks))
        return rc;
    uint8_t *buf = calloc(1, (size_t)(to - from));
    struct iovec iov = {.iov_base = buf, .iov_len = (size_t)(to - from)};
    if (!buf)
        return -ENOMEM;
    if (!zero)
        rc = qcow2_preadv(&q->d, &iov, 1, from);
    if (rc)
        free(buf);
    else
        *ret = buf;
    return rc;
}

static uint64_t host_of(const struct qcow2 *q, const struct placing *p, uint64_t offset)
{
    return p->host + (offset - (p->busy.first << q->cluster_bits));
}

static int write_around(struct qcow2 *q, const struct placing *p, const struct iovec *iov, int n)
{
    uint64_t end = p->offset + p->size;
    uint8_t *head = NULL;
    uint8_t *tail = NULL;
    struct iovec all[DISK_MAX_IOV + 2];
    int count = 0;
    int rc = read_around(q, p, p->from, p->offset, &head);

    if (!rc)
        rc = read_around(q, p, end, p->to, &tail);
    if (head)
        all[count++] = (struct iovec){head, (size_t)(p->offset - p->from)};
    memcpy(all + count, iov, (size_t)n * sizeof(*iov));
    count += n;
    if (tail)
        all[count++] = (struct iovec){tail, (size_t)(p->to - end)};
    uint64_t at = host_of(q, p, head ? p->from : p->offset);
    if (!rc && count <= DISK_MAX_IOV) {
        rc = qcow2_data_write(q, all, count, at);
    } else if (!rc) { /* more than one call takes */
        rc = qcow2_data_write(q, all, DISK_MAX_IOV - 2, at);
        if (!rc)
            rc = qcow2_data_write(q, all + DISK_MAX_IOV - 2, count - DISK_MAX_IOV + 2,
                                  at + iov_bytes(all, DISK_MAX_IOV - 2));
    }
    free(head);
    free(tail);
    return rc;
}

/** The bitmap of an extended entry after bytes of it were written. */
static uint64_t written_subs(const struct qcow2 *q, const struct placing *p, uint64_t cluster,
                             uint64_t entry, uint64_t subs)
{
    uint64_t start = cluster << q->cluster_bits;
    uint64_t from = MAX(p->from, start) - start;
    uint64_t to = MIN(p->to, start + q->cluster_bytes) - start;
    uint64_t mask = MASK(to >> q->sub_bits) & ~MASK(from >> q->sub_bits);

    if (!q->is_extended)
        return 0;
    if (grain_bits(q, entry) == q->cluster_bits)
        return QCOW2_ALL_SUBS; /* whole: a copy of what was shared or packed */
    return (subs | mask) & ~(mask << 32);
}

/** The data is there: point to it. */
static int commit(struct qcow2 *q, const struct placing *p)
{
    struct qcow2_table *t = NULL;
    int rc = qcow2_own_l2(q, p->busy.first, &t);

    for (uint64_t c = p->busy.first; c < p->busy.end && !rc; c++) {
        uint32_t i = qcow2_l2_index(q, c);
        uint64_t old = qcow2_entry(q, t, i);
        uint64_t host = host_of(q, p, c << q->cluster_bits);

        qcow2_set_entry(q, t, i, host | QCOW2_COPIED,
                        written_subs(q, p, c, old, qcow2_subs(q, t, i)));
        if (!p->is_kept)
            qcow2_release_entry(q, old);
    }
    return rc;
}

/** @iov NULL: a place is enough. */
static int write_placed(struct qcow2 *q, struct placing *p, const struct iovec *iov, int n)
{
    qcow2_wrlock_idle(q, p->busy.first, p->busy.end);
    int rc = reserve(q, p);
    qcow2_unlock(q);
    if (rc)
        return rc;
    if (iov) {
        struct iovec part[DISK_MAX_IOV];

        n = (int)iov_slice(part, iov, (unsigned)n, 0, (size_t)p->size);
        rc = write_around(q, p, part, n);
    } else if (p->is_kept || !p->is_zero) {
        rc = -ENOTSUP; /* the place holds something */
    }
    qcow2_wrlock(q);
    if (!rc)
        rc = commit(q, p);
    if (rc && !p->is_kept && !q->has_data_file)
        qcow2_release(q, p->host, (p->busy.end - p->busy.first) << q->cluster_bits);
    qcow2_busy_end(q, &p->busy);
    qcow2_unlock(q);
    return rc;
}

/** As much of the list, of @size bytes, as can be done at once. @iov NULL: a place is enough. */
static int write_piece(struct qcow2 *q, const struct iovec *iov, int n, uint64_t offset,
                       uint64_t size, uint64_t *ret_done)
{
    struct qcow2_run run;
    int rc = qcow2_look(q, offset, size, true, &run);

    if (rc)
        return rc;
    if (run.kind == QCOW2_RUN_DATA && run.is_ours) {
        struct iovec part[DISK_MAX_IOV];

        *ret_done = run.bytes;
        if (!iov)
            return 0;

        n = (int)iov_slice(part, iov, (unsigned)n, 0, (size_t)run.bytes);
        return qcow2_data_write(q, part, n, run.host);
    }
    size = MIN(size, (uint64_t)MAX_PIECE);
    struct placing p = {
        .busy.first = offset >> q->cluster_bits,
        .busy.end = qcow2_clusters(q, offset + size),
        .offset = offset,
        .size = size,
    };
    rc = write_placed(q, &p, iov, n);
    *ret_done = rc ? 0 : p.size;
    return rc == 1 ? 0 : rc; /* 1: somebody else placed it meanwhile; again */
}

int qcow2_place(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct qcow2 *q = qcow2_of(d);
    struct qcow2_run run;

    *ret = (struct disk_extent){.kind = DISK_PACKED, .size = size};
    if (qcow2_is_broken(q) || q->luks || q->bitmaps)
        return 0;
    int rc = qcow2_look(q, offset, size, !d->readonly, &run);
    if (!rc && run.kind == QCOW2_RUN_DATA && run.is_ours)
        *ret = (struct disk_extent){
            .kind = DISK_DATA,
            .size = run.bytes,
            .file = q->data,
            .file_offset = run.host,
        };
    return rc;
}

int qcow2_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct qcow2 *q = qcow2_of(d);
    uint64_t total = iov_bytes(iov, (unsigned)iovcnt);
    struct iovec rest[DISK_MAX_IOV];
    int rc = qcow2_is_broken(q) ? -EIO : qcow2_flush_if_much(q);

    if (!rc)
        rc = qcow2_bitmaps_mark(q, offset, total);
    for (uint64_t done = 0; done < total && !rc;) {
        uint64_t now = 0;

        if (!done) {
            rc = write_piece(q, iov, iovcnt, offset, total, &now);
        } else {
            int n =
                (int)iov_slice(rest, iov, (unsigned)iovcnt, (size_t)done, (size_t)(total - done));

            rc = write_piece(q, rest, n, offset + done, total - done, &now);
        }
        done += now;
    }
    return rc;
}

int qcow2_allocate(struct disk *d, uint64_t offset, uint64_t size)
{
    struct qcow2 *q = qcow2_of(d);
    int rc = qcow2_is_broken(q) ? -EIO : q->luks || q->bitmaps ? -ENOTSUP : qcow2_flush_if_much(q);

    for (uint64_t done = 0; done < size && !rc;) {
        uint64_t now = 0;

        rc = write_piece(q, NULL, 0, offset + done, size - done, &now);
        done += now;
    }
    return rc;
}
