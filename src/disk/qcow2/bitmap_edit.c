/* Adding, removing, clearing, merging bitmaps of a QCOW2 image.
 *
 * A directory of another length goes to a new place. While the header changes, which may be torn,
 * the image's bitmaps bit is off: whoever finds it so after a power cut takes the bitmaps for
 * out of date.
 *
 * Threads: bitmap_lock. */
#include "base/fd.h"
#include "disk/qcow2/bitmap.h"

#include <errno.h>
#include <string.h>

#define DEFAULT_GRANULARITY 65536u

/** The header's fields in the file, durable. */
static int put_header(struct qcow2 *q, bool rewrite)
{
    qcow2_wrlock(q);
    int rc = rewrite ? qcow2_header_rewrite(q) : qcow2_header_update(q);
    qcow2_unlock(q);
    return rc ? rc : file_flush(q->file);
}

static int place_directory(struct qcow2 *q, uint64_t bytes, uint64_t *ret)
{
    *ret = 0;
    if (!bytes)
        return 0;
    qcow2_wrlock(q);
    int rc = qcow2_alloc_meta(q, qcow2_clusters(q, bytes), ret);
    qcow2_unlock(q);
    if (!rc)
        rc = qcow2_bitmap_write_directory(q, *ret);
    return rc ? rc : qcow2_flush(&q->d);
}

/** The list in memory becomes the file's. */
static int replace_directory(struct qcow2 *q)
{
    uint64_t bytes = qcow2_bitmap_directory_bytes(q);
    uint64_t old_offset = q->h.bitmap_dir_offset;
    uint64_t old_bytes = q->h.has_bitmaps ? q->h.bitmap_dir_bytes : 0;
    bool was_on = q->h.autoclear & QCOW2_AUTO_BITMAPS;
    uint64_t offset = 0;
    int rc = place_directory(q, bytes, &offset);

    if (rc)
        return rc;
    q->h.autoclear &= ~(uint64_t)QCOW2_AUTO_BITMAPS;
    rc = was_on ? put_header(q, false) : 0;
    q->h.has_bitmaps = bytes != 0;
    q->h.bitmap_dir_offset = offset;
    q->h.bitmap_dir_bytes = bytes;
    q->h.bitmap_count = 0;
    for (const struct qcow2_bitmap *b = q->bitmaps; b; b = b->next)
        q->h.bitmap_count++;
    if (!rc)
        rc = put_header(q, true);
    if (!rc && bytes) {
        q->h.autoclear |= QCOW2_AUTO_BITMAPS;
        rc = put_header(q, false);
    }
    if (!rc && old_bytes && was_on) {
        qcow2_wrlock(q);
        qcow2_release(q, old_offset, old_bytes);
        qcow2_unlock(q);
    }
    return rc;
}

/** A table of zeroes for @b, which has none. */
static int place_table(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t disk_bytes)
{
    uint64_t entries = qcow2_bitmap_entries(q, b, disk_bytes);
    uint64_t bytes = entries * 8;

    if (bytes > MAX_TABLE)
        return -EFBIG;
    qcow2_wrlock(q);
    int rc = qcow2_alloc_meta(q, qcow2_clusters(q, bytes), &b->table_offset);
    qcow2_unlock(q);
    if (rc)
        return rc;
    b->table_entries = (uint32_t)entries;
    cleanup(freep) uint8_t *zeroes = calloc(1, (size_t)bytes);
    return zeroes ? file_pwrite(q->file, zeroes, (size_t)bytes, b->table_offset) : -ENOMEM;
}

/** Everything that @b has in the file. */
static int release_clusters(struct qcow2 *q, const struct qcow2_bitmap *b)
{
    uint64_t *table = NULL;
    int rc = b->table_entries ? qcow2_read_l1(q, b->table_offset, b->table_entries, &table) : 0;

    qcow2_wrlock(q);
    for (uint32_t i = 0; i < b->table_entries && !rc; i++) {
        uint64_t offset = table[i] & QCOW2_OFFSET;

        /* Only what was found to be metadata: a hostile table may name anything. */
        if (offset && !(offset & (q->cluster_bytes - 1)) &&
            qcow2_set_has(&q->meta, offset >> q->cluster_bits))
            qcow2_release(q, offset, q->cluster_bytes);
    }
    if (!rc && b->table_entries)
        qcow2_release(q, b->table_offset, (uint64_t)b->table_entries * 8);
    qcow2_unlock(q);
    free(table);
    return rc;
}

struct qcow2_bitmap *qcow2_bitmap_named(struct qcow2 *q, const char *name)
{
    struct qcow2_bitmap *b = q->bitmaps;

    while (b && strcmp(b->name, name) != 0)
        b = b->next;
    return b;
}

static int add(struct qcow2 *q, const char *name, uint64_t granularity, struct error *err)
{
    struct qcow2_bitmap **end = &q->bitmaps;

    granularity = granularity ? granularity : DEFAULT_GRANULARITY;
    if (q->h.version == 2)
        return error_set(err, ENOTSUP, "version 2 (compat=0.10) has no bitmaps");
    if (!*name || strlen(name) > MAX_NAME)
        return error_set(err, EINVAL, "a bitmap's name has 1 to %u bytes", MAX_NAME);
    if (!is_pow2(granularity) || granularity < 512 || granularity > 1u << 31)
        return error_set(err, EINVAL, "a bitmap's granularity is a power of two from 512 to 2G");
    if (qcow2_bitmap_named(q, name))
        return error_set(err, EEXIST, "there is a bitmap '%s' already", name);
    struct qcow2_bitmap *b = calloc(1, sizeof(*b));
    if (b)
        b->name = strdup(name);
    if (!b || !b->name) {
        qcow2_bitmap_free(b);
        return error_set(err, ENOMEM, "out of memory");
    }
    b->granularity_bits = (uint8_t)__builtin_ctzll(granularity);
    b->flags = BITMAP_AUTO;
    int rc = place_table(q, b, q->h.size_bytes);
    if (rc) {
        qcow2_bitmap_free(b);
        return rc;
    }
    if (q->bitmaps_tracked) { /* the disk is in use: from now on */
        rc = qcow2_bitmap_read(q, b);
        b->flags |= BITMAP_IN_USE;
    }
    while (*end)
        end = &(*end)->next;
    *end = b;
    return rc ? rc : replace_directory(q);
}

static int remove_one(struct qcow2 *q, struct qcow2_bitmap *b)
{
    struct qcow2_bitmap **p = &q->bitmaps;

    while (*p != b)
        p = &(*p)->next;
    *p = b->next;
    int rc = replace_directory(q);
    if (!rc)
        rc = release_clusters(q, b); /* nothing durable names them */
    qcow2_bitmap_free(b);
    return rc;
}

static void merge_bits(struct qcow2_bitmap *to, const struct qcow2_bitmap *from, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += BIT(from->granularity_bits)) {
        uint64_t i = at >> from->granularity_bits;
        uint64_t stop = MIN(at + BIT(from->granularity_bits), bytes);

        if (!(from->bits[i / 8] & 1 << i % 8))
            continue;
        for (uint64_t t = at >> to->granularity_bits; t << to->granularity_bits < stop; t++)
            (void)__atomic_fetch_or(&to->bits[t / 8], (uint8_t)(1 << t % 8), __ATOMIC_RELAXED);
    }
}

/** A source in memory, which the caller frees if it was not before. */
static int merge(struct qcow2 *q, struct qcow2_bitmap *b, struct qcow2 *source_q,
                 const char *source_name, struct error *err)
{
    struct qcow2_bitmap *source = qcow2_bitmap_named(source_q, source_name);
    int rc = source ? qcow2_bitmap_read(source_q, source) : -ENOENT;

    if (!source)
        return error_set(err, ENOENT, "there is no bitmap '%s'", source_name);
    if (rc == -EUCLEAN)
        return error_set(err, EINVAL,
                         "bitmap '%s' is not consistent: it was in use when its "
                         "program ended",
                         source_name);
    if (!rc)
        rc = qcow2_bitmap_read(q, b);
    if (!rc)
        merge_bits(b, source, MIN(q->h.size_bytes, source_q->h.size_bytes));
    return rc;
}

/** What is not tracked need not stay in memory. */
static void drop_bits(struct qcow2 *q)
{
    for (struct qcow2_bitmap *b = q->bitmaps; b && !q->bitmaps_tracked; b = b->next) {
        free(b->bits);
        b->bits = NULL;
    }
}

/** In place: the bits with the mark set meanwhile, then the flags. */
static int write_marked(struct qcow2 *q, struct qcow2_bitmap *b)
{
    uint32_t flags = b->flags;

    b->flags |= BITMAP_IN_USE;
    int rc = qcow2_bitmap_write_directory(q, q->h.bitmap_dir_offset);
    if (!rc)
        rc = file_flush(q->file);
    if (!rc)
        rc = qcow2_bitmap_write(q, b);
    if (!rc)
        rc = file_flush(q->file);
    b->flags = flags;
    if (!rc)
        rc = qcow2_bitmap_write_directory(q, q->h.bitmap_dir_offset);
    return rc ? rc : file_flush(q->file);
}

static int set_enabled(struct qcow2 *q, struct qcow2_bitmap *b, bool enabled)
{
    if (!enabled && b->bits && q->bitmaps_tracked) { /* what it has up to now */
        b->flags &= ~(uint32_t)(BITMAP_AUTO | BITMAP_IN_USE);
        return write_marked(q, b);
    }
    b->flags = enabled ? b->flags | BITMAP_AUTO : b->flags & ~(uint32_t)BITMAP_AUTO;
    if (enabled && q->bitmaps_tracked) {
        int rc = qcow2_bitmap_read(q, b);

        if (rc)
            return rc;
        b->flags |= BITMAP_IN_USE;
    }
    int rc = qcow2_bitmap_write_directory(q, q->h.bitmap_dir_offset);
    return rc ? rc : file_flush(q->file);
}

static int clear(struct qcow2 *q, struct qcow2_bitmap *b)
{
    uint64_t entries = qcow2_bitmap_entries(q, b, q->h.size_bytes);
    uint64_t bytes = entries << q->cluster_bits;

    if (b->table_entries != entries || bytes > MAX_BITS)
        return -EINVAL;
    uint8_t *bits = calloc(1, (size_t)bytes);
    if (!bits)
        return -ENOMEM;
    free(b->bits);
    b->bits = bits;
    b->bits_bytes = bytes;
    if (!q->bitmaps_tracked) /* it is sound from now on */
        b->flags &= ~(uint32_t)BITMAP_IN_USE;
    return write_marked(q, b);
}

static int act(struct qcow2 *q, enum disk_bitmap_action action, struct qcow2_bitmap *b,
               struct qcow2 *source_q, const char *source, struct error *err)
{
    int rc = 0;

    switch (action) {
    case DISK_BITMAP_ADD:
        return -EINVAL; /* done before */
    case DISK_BITMAP_REMOVE:
        return remove_one(q, b);
    case DISK_BITMAP_CLEAR:
        return clear(q, b);
    case DISK_BITMAP_ENABLE:
    case DISK_BITMAP_DISABLE:
        if (b->flags & BITMAP_IN_USE && !b->bits)
            return error_set(err, EINVAL,
                             "it is not consistent: it was in use when its program "
                             "ended; remove or clear it");
        return set_enabled(q, b, action == DISK_BITMAP_ENABLE);
    case DISK_BITMAP_MERGE:
        rc = merge(q, b, source_q, source, err);
        return rc ? rc : write_marked(q, b);
    }
    return -EINVAL;
}

int qcow2_bitmap_action(struct disk *d, enum disk_bitmap_action action, const char *name,
                        uint64_t granularity_bytes, struct disk *source_disk, const char *source,
                        struct error *err)
{
    struct qcow2 *q = qcow2_of(d);
    struct error why = {0};
    int rc = 0;

    if (action == DISK_BITMAP_MERGE && (!source_disk || source_disk->format != &qcow2_format))
        return error_set(err, EINVAL, "bitmaps are merged from QCOW2 images only");
    mutex_lock(&q->bitmap_lock);
    struct qcow2_bitmap *b = qcow2_bitmap_named(q, name);
    if (action == DISK_BITMAP_ADD)
        rc = add(q, name, granularity_bytes, &why);
    else if (!b)
        rc = error_set(&why, ENOENT, "there is none of that name");
    else
        rc = act(q, action, b, source_disk ? qcow2_of(source_disk) : NULL, source, &why);
    drop_bits(q);
    mutex_unlock(&q->bitmap_lock);
    if (!rc)
        rc = qcow2_flush_all(q);
    if (rc && !why.code)
        (void)error_set(&why, -rc, "%s", strerror(-rc));
    return rc ? error_set(err, -rc, "bitmap '%s' of '%s': %s", name, d->path, error_text(&why)) : 0;
}

/** One bitmap for a disk of another size. */
static int resize_one(struct qcow2 *q, struct qcow2_bitmap *b, uint64_t size_bytes)
{
    struct qcow2_bitmap old = *b;
    int rc = qcow2_bitmap_read(q, b);

    old.bits = NULL;
    if (rc == -EUCLEAN) { /* it stays useless */
        b->flags |= BITMAP_IN_USE;
        return 0;
    }
    if (!rc)
        rc = place_table(q, b, size_bytes);
    if (rc)
        return rc;
    uint64_t bytes = (uint64_t)b->table_entries << q->cluster_bits;
    uint8_t *bits = calloc(1, (size_t)bytes + 1);
    if (!bits)
        return -ENOMEM;
    uint64_t count = MIN(size_bytes, q->h.size_bytes);
    count = (count >> b->granularity_bits) + !!(count & MASK(b->granularity_bits));
    memcpy(bits, b->bits, (size_t)(count / 8));
    for (uint64_t i = count / 8 * 8; i < count; i++)
        bits[i / 8] |= (uint8_t)(b->bits[i / 8] & 1 << i % 8);
    free(b->bits);
    b->bits = bits;
    b->bits_bytes = bytes;
    rc = qcow2_bitmap_write(q, b);
    return rc ? rc : release_clusters(q, &old);
}

int qcow2_bitmaps_resize(struct qcow2 *q, uint64_t size_bytes)
{
    int rc = 0;

    mutex_lock(&q->bitmap_lock);
    for (struct qcow2_bitmap *b = q->bitmaps; b && !rc; b = b->next)
        rc = resize_one(q, b, size_bytes);
    if (!rc && q->bitmaps)
        rc = replace_directory(q);
    drop_bits(q);
    mutex_unlock(&q->bitmap_lock);
    return rc;
}
