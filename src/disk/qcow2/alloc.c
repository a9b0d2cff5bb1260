/* Which clusters of a QCOW2 file are free, and how one becomes free.
 *
 * New clusters come from the pool of free ones, else from the end of the file. Both read as zeroes,
 * so that the rest of a partly written one needs nothing written. Clusters that were free when the
 * file was opened are found by looking through one refcount block at each allocation; they may hold
 * old bytes and are zeroed (punched) when they are given out.
 *
 * A reference that is dropped goes through three lists: `freed`; at the next flush `flushing`,
 * until the flush has made the drop durable; `draining`, until all requests that were under way
 * then have ended, since they may still use the place (disk_io_is_past()). Only then the refcount
 * falls, the cluster is punched, and it may be given out again.
 *
 * Threads: `lock` for writing, unless said otherwise. */
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SKIPPED (1u << 20) /* clusters past the end that a torn file counted */
#define MAX_POOL    (1u << 20) /* extents */

/** Add free clusters of the refcount block that `scan` lies in to the pool. */
static int scan_block(struct qcow2 *q)
{
    uint32_t index = (uint32_t)(q->scan >> q->block_bits);
    uint64_t first = (uint64_t)index << q->block_bits;
    uint64_t stop = MIN(first + BIT(q->block_bits), q->scan_end);
    struct qcow2_table *t = NULL;
    uint64_t c = q->scan;
    int rc = 0;

    q->scan = stop;
    if (index >= q->reftable_entries) {
        q->scan = q->scan_end;
        return 0;
    }
    if (!(q->reftable[index] & QCOW2_RT_OFFSET))
        return 0; /* as free as can be, but with nowhere to count them */
    rc = qcow2_load_block(q, index, &t);
    for (; c < stop && !rc; c++) {
        uint64_t from = c;

        while (c < stop && !qcow2_refcount_at(t->data, q->h.refcount_order, c - first))
            c++;
        if (c == from)
            continue;
        rc = qcow2_extents_add(&q->pool, from, c - from);
        if (!rc)
            q->pool.v[q->pool.count - 1].unclean = true;
    }
    return rc;
}

/** Count @count clusters from @first as used. Some that are used already: *@ret_count is less. */
static int take(struct qcow2 *q, uint64_t first, uint64_t count, uint64_t *ret_count)
{
    uint64_t n = 0;
    int rc = 0;

    for (; n < count && !rc; n++) {
        uint64_t now = 0;

        rc = qcow2_get_refcount(q, first + n, &now);
        if (!rc && now)
            break;
        if (!rc && qcow2_set_has(&q->meta, first + n)) /* used, and not counted */
            rc = qcow2_break(q);
        if (!rc)
            rc = qcow2_set_refcount(q, first + n, 1);
        if (rc)
            break;
    }
    *ret_count = n;
    return n ? 0 : rc;
}

/** Make free clusters read as zeroes. What lies past the end of the file does so already. */
static int zero_clusters(struct qcow2 *q, uint64_t first, uint64_t count)
{
    uint64_t offset = first << q->cluster_bits;
    uint64_t size = 0;
    int rc = file_get_size(q->file, &size);

    if (rc || offset >= size)
        return rc;
    return file_write_zeroes(q->file, offset, MIN(count << q->cluster_bits, size - offset), true);
}

/** From the pool's last extent. *@ret_count 0: there is nothing. */
static int take_from_pool(struct qcow2 *q, uint64_t count, uint64_t *ret, uint64_t *ret_count)
{
    *ret_count = 0;
    while (q->pool.count && !*ret_count) {
        struct qcow2_extent *e = &q->pool.v[q->pool.count - 1];
        uint64_t got = 0;

        count = MIN(count, e->count);
        /* Taken first: that finds metadata that the refcounts do not count, which must not be
         * zeroed. */
        int rc = take(q, e->first, count, &got);
        if (!rc && e->unclean)
            rc = zero_clusters(q, e->first, got);
        if (rc)
            return rc;
        *ret = e->first;
        *ret_count = got;
        got += got < count; /* one that is in use after all */
        e->first += got;
        e->count -= got;
        q->pool.count -= !e->count;
    }
    return 0;
}

static int take_from_end(struct qcow2 *q, uint64_t count, uint64_t *ret, uint64_t *ret_count)
{
    unsigned skipped = 0;
    uint64_t got = 0;

    while (!got) {
        int rc = qcow2_cover(q, count);

        if (!rc && (q->end + count) << q->cluster_bits >= QCOW2_MAX_HOST)
            rc = -EFBIG;
        if (!rc)
            rc = take(q, q->end, count, &got);
        if (rc)
            return rc;
        *ret = q->end;
        *ret_count = got;
        q->end += got + (got < count);
        if (!got && ++skipped == MAX_SKIPPED)
            return qcow2_break(q);
    }
    if (q->file->is_block) /* which may hold anything */
        return zero_clusters(q, *ret, got);
    return 0;
}

int qcow2_alloc(struct qcow2 *q, uint64_t count, uint64_t *ret, uint64_t *ret_count)
{
    uint64_t got = 0;
    int rc = 0;

    if (qcow2_is_broken(q))
        return -EIO;
    if (!q->pool.count && q->scan < q->scan_end)
        rc = scan_block(q);
    if (!rc)
        rc = take_from_pool(q, count, ret, &got);
    if (!rc && !got)
        rc = take_from_end(q, count, ret, &got);
    if (!rc)
        *ret_count = got;
    return rc;
}

int qcow2_alloc_meta(struct qcow2 *q, uint64_t count, uint64_t *ret_offset)
{
    uint64_t first = 0;
    uint64_t got = 0;
    int rc = 0;

    if (qcow2_is_broken(q))
        return -EIO;
    if (count == 1)
        rc = qcow2_alloc(q, 1, &first, &got);
    while (!rc && got < count) { /* in a row: at the end */
        if (got)
            qcow2_release(q, first << q->cluster_bits, got << q->cluster_bits);
        rc = take_from_end(q, count, &first, &got);
    }
    for (uint64_t i = 0; i < count && !rc; i++)
        rc = qcow2_set_add(&q->meta, first + i) < 0 ? -ENOMEM : 0;
    if (!rc)
        *ret_offset = first << q->cluster_bits;
    return rc;
}

void qcow2_release(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> q->cluster_bits;
    uint64_t end = (offset + bytes + q->cluster_bytes - 1) >> q->cluster_bits;

    /* Out of memory: they leak, which a check finds. */
    if (offset && first < end)
        (void)qcow2_extents_add(&q->freed, first, end - first);
    if (q->freed.count > QCOW2_MUCH_FREED)
        __atomic_store_n(&q->is_much, true, __ATOMIC_RELAXED); /* a hint: orders nothing */
}

/** @count times one reference less for @cluster. *@ret_free: nothing refers to it now. */
static int drop(struct qcow2 *q, uint64_t cluster, uint64_t count, bool *ret_free)
{
    uint64_t now = 0;
    int rc = qcow2_get_refcount(q, cluster, &now);

    *ret_free = false;
    if (rc)
        return rc;
    if (now < count)
        return qcow2_break(q);
    rc = qcow2_set_refcount(q, cluster, now - count);
    *ret_free = !rc && now == count;
    if (*ret_free) {
        qcow2_set_remove(&q->meta, cluster);
        if (q->packed_at >> q->cluster_bits == cluster)
            q->packed_at = q->packed_end = 0;
    }
    return rc;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/** Apply the drops of @list, which is sorted; what became free is added to @ret. Several drops of a
 * cluster are several extents that hold it. */
static void drop_all(struct qcow2 *q, const struct qcow2_extents *list, struct qcow2_extents *ret)
{
    uint64_t *ends = malloc(list->count * sizeof(*ends) + 1);
    size_t begun = 0;
    size_t ended = 0;
    uint64_t c = 0;
    bool is_free;

    for (size_t i = 0; i < list->count && ends; i++)
        ends[i] = list->v[i].first + list->v[i].count;
    if (ends)
        qsort(ends, list->count, sizeof(*ends), compare_numbers);
    while (ends && ended < list->count) { /* out of memory: they leak, which a check finds */
        while (begun < list->count && list->v[begun].first <= c)
            begun++;
        while (ended < list->count && ends[ended] <= c)
            ended++;
        if (begun == ended) { /* between extents */
            c = begun < list->count ? list->v[begun].first : c;
            continue;
        }
        if (!drop(q, c, begun - ended, &is_free) && is_free)
            (void)qcow2_extents_add(ret, c, 1); /* out of memory: found at the next open */
        c++;
    }
    free(ends);
}

static void free_extents(struct qcow2_extents *e)
{
    free(e->v);
    *e = (struct qcow2_extents){0};
}

/** flush_lock held. The drops of `draining` are durable and nobody uses the places. */
static void finish_drain(struct qcow2 *q)
{
    struct qcow2_extents now_free = {0};

    qcow2_extents_sort(&q->draining);
    qcow2_wrlock(q);
    drop_all(q, &q->draining, &now_free);
    qcow2_unpacked_drop(q);
    qcow2_unlock(q);
    /* Not in the pool yet: nobody writes there. */
    bool clean = true;
    for (size_t i = 0; i < now_free.count && clean; i++)
        clean = !zero_clusters(q, now_free.v[i].first, now_free.v[i].count);
    qcow2_wrlock(q);
    for (size_t i = 0; i < now_free.count && q->pool.count < MAX_POOL; i++) {
        if (!qcow2_extents_add(&q->pool, now_free.v[i].first, now_free.v[i].count))
            q->pool.v[q->pool.count - 1].unclean |= !clean;
    }
    qcow2_unlock(q);
    free_extents(&now_free);
    free_extents(&q->draining);
    q->has_draining = false;
}

static void merge(struct qcow2_extents *to, struct qcow2_extents *from)
{
    for (size_t i = 0; i < from->count; i++)
        (void)qcow2_extents_add(to, from->v[i].first, from->v[i].count); /* else they leak */
    free_extents(from);
}

void qcow2_settle(struct qcow2 *q, bool success)
{
    qcow2_wrlock(q);
    if (!success || q->has_draining) { /* with the next flush, or drain, then */
        merge(&q->freed, &q->flushing);
    } else if (q->flushing.count) {
        q->draining = q->flushing;
        q->flushing = (struct qcow2_extents){0};
        q->has_draining = true;
        q->drain_stamp = disk_io_stamp(&q->d);
    }
    qcow2_unlock(q);
    if (q->has_draining && disk_io_is_past(&q->d, q->drain_stamp))
        finish_drain(q);
}

int qcow2_trim(struct qcow2 *q)
{
    uint64_t count = 0;
    uint64_t size = 0;
    int rc = 0;

    if (q->file->is_block)
        return 0;
    while (q->end > 1 && !rc) {
        rc = qcow2_get_refcount(q, q->end - 1, &count);
        if (count || qcow2_set_has(&q->meta, q->end - 1)) /* the latter: damaged counts */
            break;
        q->end--;
    }
    q->scan_end = MIN(q->scan_end, q->end);
    for (size_t i = 0; i < q->pool.count; i++) {
        struct qcow2_extent *e = &q->pool.v[i];

        e->count = e->first >= q->end ? 0 : MIN(e->count, q->end - e->first);
    }
    size_t kept = 0;
    for (size_t i = 0; i < q->pool.count; i++) {
        if (q->pool.v[i].count)
            q->pool.v[kept++] = q->pool.v[i];
    }
    q->pool.count = kept;
    if (!rc)
        rc = file_get_size(q->file, &size);
    if (!rc && size > q->end << q->cluster_bits)
        rc = file_truncate(q->file, q->end << q->cluster_bits);
    return rc;
}
