/* Copying from below what a QCOW2 disk does not hold, while others write to it: how a layer is
 * merged into the one above it.
 *
 * Absent clusters are made busy, so that writers wait; what is below is read, and written to new
 * clusters without a lock; then the entries are set, which nobody else can have changed. What reads
 * as zero below becomes a zero entry. At any moment a cluster is either absent or reads the same as
 * what is below did, and flush.c brings entries into the file after their data; so a copy may be
 * broken off anywhere, and begun again.
 *
 * Threads: any. */
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILL_BYTES (1u << 20) /* copied at once, at least a cluster */

struct filling {
    struct qcow2_busy busy;
    uint8_t *buf;    /* what is below the busy clusters */
    bool *is_zero;   /* for each of them */
    uint64_t max;    /* clusters that buf holds */
    uint64_t placed; /* host offset of the clusters allocated last */
};

/** The first absent clusters at or after busy.first, up to @end, become busy. Their table is one.
 * 1: there is none before @end or the table's end, which busy.end then is. `lock` for writing. */
static int take_absent(struct qcow2 *q, struct filling *f, uint64_t end)
{
    uint64_t stop = MIN(end, (f->busy.first | MASK(q->l2_bits)) + 1);
    uint64_t first = f->busy.first;
    struct qcow2_table *t = NULL;
    int rc = qcow2_is_broken(q) ? -EIO : qcow2_own_l2(q, first, &t);

    if (rc)
        return rc;
    while (first < stop && qcow2_entry(q, t, qcow2_l2_index(q, first)))
        first++;
    f->busy.first = first;
    while (first < stop && first - f->busy.first < f->max &&
           !qcow2_entry(q, t, qcow2_l2_index(q, first)))
        first++;
    f->busy.end = first;
    if (f->busy.first == f->busy.end)
        return 1;
    qcow2_busy_begin(q, &f->busy);
    return 0;
}

static bool is_all_zero(const uint8_t *p, size_t size)
{
    return !*p && !memcmp(p, p + 1, size - 1);
}

/** What is below the busy clusters; zeroes after the disk's end. */
static int read_below(struct qcow2 *q, struct filling *f)
{
    uint64_t from = f->busy.first << q->cluster_bits;
    uint64_t to = f->busy.end << q->cluster_bits;
    uint64_t end = MIN(to, q->d.size_bytes);
    struct iovec iov = {.iov_base = f->buf, .iov_len = (size_t)(end - from)};
    int rc = disk_below_preadv(&q->d, &iov, 1, from);

    memset(f->buf + (end - from), 0, (size_t)(to - end));
    for (uint64_t c = 0; !rc && c < f->busy.end - f->busy.first; c++)
        f->is_zero[c] = is_all_zero(f->buf + (c << q->cluster_bits), q->cluster_bytes);
    return rc;
}

/** Let clusters [at, at+n) of the busy ones be what they are below: zero, or data at new places. No
 * lock held. *@ret_done: how many. */
static int put_run(struct qcow2 *q, struct filling *f, uint64_t at, uint64_t n, uint64_t *ret_done)
{
    bool zero = f->is_zero[at];
    struct qcow2_table *t = NULL;
    uint64_t host = 0;
    uint64_t got = n;
    int rc = 0;

    if (!zero) {
        qcow2_wrlock(q);
        rc = qcow2_alloc(q, n, &host, &got);
        qcow2_unlock(q);
        if (rc)
            return rc;
        struct iovec iov = {f->buf + (at << q->cluster_bits), (size_t)(got << q->cluster_bits)};
        rc = qcow2_data_write(q, &iov, 1, host << q->cluster_bits);
    }
    qcow2_wrlock(q);
    if (!rc)
        rc = qcow2_own_l2(q, f->busy.first + at, &t);
    for (uint64_t c = 0; !rc && c < got; c++)
        qcow2_set_entry(q, t, qcow2_l2_index(q, f->busy.first + at + c),
                        zero ? QCOW2_ZERO : (host + c) << q->cluster_bits | QCOW2_COPIED, 0);
    if (rc && !zero)
        qcow2_release(q, host << q->cluster_bits, got << q->cluster_bits);
    qcow2_unlock(q);
    *ret_done = got;
    return rc;
}

static int put_all(struct qcow2 *q, struct filling *f)
{
    uint64_t count = f->busy.end - f->busy.first;
    uint64_t done = 0;
    int rc = 0;

    for (uint64_t at = 0; !rc && at < count; at += done) {
        uint64_t n = 1;

        while (at + n < count && f->is_zero[at + n] == f->is_zero[at])
            n++;
        rc = put_run(q, f, at, n, &done);
    }
    return rc;
}

/** As much from busy.first as goes at once; busy.end says how far it came. */
static int fill_some(struct qcow2 *q, struct filling *f, uint64_t end)
{
    int rc = qcow2_flush_if_much(q);

    if (rc)
        return rc;
    qcow2_wrlock_idle(q, f->busy.first, MIN(end, f->busy.first + f->max));
    rc = take_absent(q, f, MIN(end, f->busy.first + f->max));
    qcow2_unlock(q);
    if (rc)
        return rc == 1 ? 0 : rc;
    rc = read_below(q, f);
    if (!rc)
        rc = put_all(q, f);
    qcow2_wrlock(q);
    qcow2_busy_end(q, &f->busy);
    qcow2_unlock(q);
    return rc;
}

int qcow2_fill(struct disk *d, uint64_t offset, uint64_t size)
{
    struct qcow2 *q = qcow2_of(d);
    uint64_t end = qcow2_clusters(q, offset + size);
    struct filling f = {
        .busy.end = offset >> q->cluster_bits,
        .max = MAX(FILL_BYTES >> q->cluster_bits, (uint64_t)1),
    };
    int rc = 0;

    if (q->is_extended || q->has_data_file || q->h.version == 2)
        return -ENOTSUP; /* Posada's own layers are none of these */
    f.buf = malloc((size_t)(f.max << q->cluster_bits));
    f.is_zero = malloc((size_t)f.max * sizeof(*f.is_zero));
    if (!f.buf || !f.is_zero)
        rc = -ENOMEM;
    while (!rc && f.busy.end < end) {
        f.busy.first = f.busy.end;
        rc = fill_some(q, &f, end);
    }
    free(f.buf);
    free(f.is_zero);
    return rc;
}
