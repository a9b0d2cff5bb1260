/* Changing the size of a QCOW2 disk, its backing image, and emptying it.
 *
 * Threads: one that changes; others may read and write meanwhile, within the smaller size. */
#include "base/fd.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

/** Arrays for @entries L1 entries in memory. */
static int grow_arrays(struct qcow2 *q, uint32_t entries)
{
    size_t old = q->h.l1_entries;
    size_t words = ((size_t)entries / 64 + 1) / 64 + 1;
    size_t old_words = (old / 64 + 1) / 64 + 1;
    uint64_t *l1 = realloc(q->l1, ((size_t)entries + 64) * 8);

    if (!l1)
        return -ENOMEM;
    q->l1 = l1;
    uint64_t *dirty = realloc(q->l1_dirty, words * 8);
    if (!dirty)
        return -ENOMEM;
    q->l1_dirty = dirty;
    struct qcow2_table **l2 = realloc(q->l2, ((size_t)entries + 1) * sizeof(struct qcow2_table *));
    if (!l2)
        return -ENOMEM;
    q->l2 = l2;
    memset(l1 + old, 0, (entries - old) * 8);
    memset(dirty + old_words, 0, (words - old_words) * 8);
    memset(l2 + old, 0, (entries - old + 1) * sizeof(struct qcow2_table *));
    return 0;
}

/** A longer L1 table, always at a new place: the header changes to it in one sector. flush_lock and
 * `lock` for writing; nothing is dirty. */
static int grow_l1(struct qcow2 *q, uint32_t entries)
{
    uint64_t old_offset = q->h.l1_offset;
    uint64_t old_bytes = (uint64_t)q->h.l1_entries * 8;
    uint32_t old_entries = q->h.l1_entries;
    uint64_t offset = 0;
    size_t bytes = (size_t)align_up((uint64_t)entries * 8, q->cluster_bytes);
    cleanup(freep) uint8_t *buf = calloc(1, bytes);
    int rc = buf ? grow_arrays(q, entries) : -ENOMEM;

    if (!rc)
        rc = qcow2_alloc_meta(q, bytes >> q->cluster_bits, &offset);
    for (uint32_t i = 0; i < entries && !rc; i++)
        store_be64(buf + (size_t)i * 8, q->l1[i]);
    if (!rc)
        rc = file_pwrite(q->file, buf, bytes, offset);
    if (rc)
        return rc;
    q->h.l1_offset = offset;
    q->h.l1_entries = entries;
    rc = qcow2_flush_tables(q); /* its clusters are counted before it is used */
    if (!rc)
        rc = qcow2_header_update(q);
    if (!rc)
        rc = file_flush(q->file);
    if (rc) {
        q->h.l1_offset = old_offset;
        q->h.l1_entries = old_entries;
        qcow2_release(q, offset, bytes);
        return rc;
    }
    qcow2_release(q, old_offset, old_bytes);
    return 0;
}

static int set_size(struct qcow2 *q, uint64_t size_bytes)
{
    uint64_t old = q->h.size_bytes;

    q->h.size_bytes = size_bytes;
    int rc = qcow2_header_update(q);
    if (!rc)
        rc = file_flush(q->file);
    if (rc)
        q->h.size_bytes = old;
    else
        __atomic_store_n(&q->d.size_bytes, size_bytes, __ATOMIC_RELAXED); /* orders nothing */
    return rc;
}

static int ensure_l1(struct qcow2 *q, uint64_t size_bytes, struct error *err)
{
    unsigned span_bits = q->l2_bits + q->cluster_bits;
    uint64_t entries = (size_bytes >> span_bits) + !!(size_bytes & MASK(span_bits));

    if (entries > QCOW2_MAX_L1 / 8)
        return error_set(err, EINVAL, "'%s' has too small clusters to become that large",
                         q->file->path);
    if (entries <= q->h.l1_entries)
        return 0;
    int rc = qcow2_flush_all(q);
    if (rc)
        return rc;
    mutex_lock(&q->flush_lock);
    qcow2_wrlock(q);
    rc = grow_l1(q, (uint32_t)entries);
    qcow2_unlock(q);
    mutex_unlock(&q->flush_lock);
    return rc;
}

/** What the disk shows from its old end on must be zeroes: a layer below may be longer, and the
 * last cluster may hold bytes beyond the end. */
static int zero_new_part(struct qcow2 *q, uint64_t old, uint64_t size_bytes)
{
    uint64_t stop = MIN(size_bytes, align_up(old, q->cluster_bytes));

    if (q->d.backing_path || q->d.below)
        stop = size_bytes; /* how long the one below is may change */
    if (stop <= old)
        return 0;
    unsigned ticket = disk_io_begin(&q->d);
    int rc = qcow2_write_zeroes(&q->d, old, stop - old, true);
    disk_io_end(&q->d, ticket);
    return rc;
}

static int grow(struct qcow2 *q, uint64_t size_bytes, struct error *err)
{
    uint64_t old = q->d.size_bytes;
    int rc = ensure_l1(q, size_bytes, err);

    if (!rc)
        rc = zero_new_part(q, old, size_bytes);
    if (!rc && q->has_data_file)
        rc = file_truncate(q->data, size_bytes);
    return rc ? rc : qcow2_flush_all(q);
}

/** Release the entries from guest cluster @first on. */
static int drop_clusters(struct qcow2 *q, uint64_t first)
{
    uint64_t end = (uint64_t)q->h.l1_entries << q->l2_bits;
    int rc = 0;

    for (uint64_t c = first; c < end && !rc; c = (c | MASK(q->l2_bits)) + 1) {
        uint64_t index = c >> q->l2_bits;
        struct qcow2_table *t = NULL;

        rc = qcow2_flush_if_much(q);
        qcow2_wrlock_idle(q, c, (c | MASK(q->l2_bits)) + 1);
        if (!rc && c & MASK(q->l2_bits)) { /* the first one: keep a part */
            rc = qcow2_find_l2(q, c, true, &t);
            for (uint64_t i = c; t && !rc && (i == c || i & MASK(q->l2_bits)); i++) {
                uint64_t entry = qcow2_entry(q, t, qcow2_l2_index(q, i));

                qcow2_set_entry(q, t, qcow2_l2_index(q, i), 0, 0);
                qcow2_release_entry(q, entry);
            }
        } else if (!rc && q->l1[index] & QCOW2_OFFSET) {
            rc = qcow2_drop_l2(q, (uint32_t)index);
        }
        qcow2_unlock(q);
    }
    return rc;
}

static int cut_end(struct qcow2 *q)
{
    int rc = qcow2_flush_all(q);

    if (rc)
        return rc;
    mutex_lock(&q->flush_lock);
    qcow2_wrlock(q);
    rc = qcow2_trim(q);
    qcow2_unlock(q);
    mutex_unlock(&q->flush_lock);
    return rc;
}

static int shrink(struct qcow2 *q, uint64_t size_bytes)
{
    int rc = drop_clusters(q, qcow2_clusters(q, size_bytes));

    if (!rc && q->has_data_file)
        rc = file_truncate(q->data, size_bytes);
    return rc ? rc : cut_end(q);
}

int qcow2_resize(struct disk *d, uint64_t size_bytes, bool shrinks, struct error *err)
{
    struct qcow2 *q = qcow2_of(d);
    bool smaller = size_bytes < d->size_bytes;
    int rc = 0;

    (void)shrinks; /* the caller has checked */
    if (q->h.version == 2 && q->h.snapshot_count)
        return error_set(err, ENOTSUP,
                         "'%s' is of version 2 and has internal snapshots, which "
                         "would lose their size",
                         d->path);
    if (!smaller)
        rc = grow(q, size_bytes, err);
    if (!rc)
        rc = qcow2_bitmaps_resize(q, size_bytes);
    if (!rc) {
        qcow2_wrlock(q);
        rc = set_size(q, size_bytes);
        qcow2_unlock(q);
    }
    if (!rc && smaller)
        rc = shrink(q, size_bytes);
    return rc ? error_set(err, -rc, "cannot resize '%s': %s", d->path, strerror(-rc)) : 0;
}

static int copy_or_null(const char *text, char **ret)
{
    *ret = text ? strdup(text) : NULL;
    return text && !*ret ? -ENOMEM : 0;
}

int qcow2_set_backing(struct disk *d, const char *path, const char *format, struct error *err)
{
    struct qcow2 *q = qcow2_of(d);
    struct qcow2_header old = q->h;
    char *names[4] = {0};
    int rc = copy_or_null(path, &names[0]);

    if (path && q->is_raw_data)
        rc = error_set(err, EINVAL, "'%s' has a raw data file, which cannot lie over another image",
                       d->path);
    rc = rc ? rc : copy_or_null(path ? format : NULL, &names[1]);
    rc = rc ? rc : copy_or_null(path, &names[2]);
    rc = rc ? rc : copy_or_null(path ? format : NULL, &names[3]);
    if (!rc)
        rc = qcow2_flush_all(q);
    if (!rc) {
        qcow2_wrlock(q);
        q->h.backing = names[0];
        q->h.backing_format = names[1];
        rc = qcow2_header_rewrite(q);
        if (rc)
            q->h = old;
        qcow2_unlock(q);
    }
    if (!rc)
        rc = file_flush(q->file);
    if (q->h.backing == old.backing && q->h.backing_format == old.backing_format) { /* unchanged */
        for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
            free(names[i]);
    } else {
        free(old.backing);
        free(old.backing_format);
        free(d->backing_path);
        free(d->backing_format);
        d->backing_path = names[2];
        d->backing_format = names[3];
    }
    if (rc == -EFBIG)
        return error_set(err, EINVAL, "the name '%.200s' does not fit into the header of '%s'",
                         path ? path : "", d->path);
    return rc ? error_set(err, -rc, "cannot change the header of '%s': %s", d->path, strerror(-rc))
              : 0;
}

int qcow2_make_empty(struct disk *d, struct error *err)
{
    struct qcow2 *q = qcow2_of(d);
    int rc = qcow2_bitmaps_mark(q, 0, d->size_bytes);

    if (!rc)
        rc = drop_clusters(q, 0);
    if (!rc)
        rc = cut_end(q);
    return rc ? error_set(err, -rc, "cannot empty '%s': %s", d->path, strerror(-rc)) : 0;
}
