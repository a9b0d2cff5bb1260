/* Dirty bitmaps of a QCOW2 image: which parts were written since some time.
 *
 * Before the first change of the disk, those that are enabled are marked "in use" in the file and
 * their bits come into memory; changes set bits there. Closing writes them back and takes the mark
 * away. After a crash the mark stays, and nobody trusts the bitmap. While it is marked, or while
 * the image's bitmaps bit is off, its data may be changed in place.
 *
 * Threads: any may mark. bitmap_lock covers the rest; it comes before flush_lock.
 * Spec: qcow2.txt, "Bitmaps". */
#include "disk/qcow2/bitmap.h"
#include "base/fd.h"

#include <errno.h>
#include <string.h>

static uint64_t bit_count(const struct qcow2_bitmap *b, uint64_t disk_bytes)
{
    uint64_t mask = MASK(b->granularity_bits);

    return (disk_bytes >> b->granularity_bits) + !!(disk_bytes & mask);
}

uint64_t qcow2_bitmap_entries(const struct qcow2 *q, const struct qcow2_bitmap *b,
                              uint64_t disk_bytes)
{
    uint64_t bytes = bit_count(b, disk_bytes) / 8 + !!(bit_count(b, disk_bytes) % 8);

    return qcow2_clusters(q, bytes);
}

void qcow2_bitmap_free(struct qcow2_bitmap *b)
{
    if (!b)
        return;
    free(b->name);
    free(b->extra);
    free(b->bits);
    free(b);
}

void qcow2_bitmaps_free(struct qcow2 *q)
{
    while (q->bitmaps) {
        struct qcow2_bitmap *b = q->bitmaps;

        q->bitmaps = b->next;
        qcow2_bitmap_free(b);
    }
}

static bool has_bitmaps(const struct qcow2 *q)
{
    return q->h.has_bitmaps && q->h.autoclear & QCOW2_AUTO_BITMAPS;
}

static int check_place(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t end;

    return !bytes || !offset || offset & (q->cluster_bytes - 1) ||
                   !checked_add(offset, bytes - 1, &end) || end >> q->cluster_bits >= q->end
               ? -EINVAL
               : 0;
}

/** One entry at @p, of which @room bytes are there. *@ret_bytes: its length. */
static int parse_entry(struct qcow2 *q, const uint8_t *p, uint64_t room, struct qcow2_bitmap *b,
                       uint64_t *ret_bytes)
{
    if (room < ENTRY_BYTES)
        return -EINVAL;
    uint32_t name = load_be16(p + 18);
    uint32_t extra = load_be32(p + 20);
    uint64_t bytes = align_up((uint64_t)ENTRY_BYTES + extra + name, 8);
    if (bytes > room || !name || name > MAX_NAME || extra > MAX_NAME || p[16] != 1 || p[17] > 63 ||
        memchr(p + ENTRY_BYTES + extra, 0, name))
        return -EINVAL;
    b->table_offset = load_be64(p);
    b->table_entries = load_be32(p + 8);
    b->flags = load_be32(p + 12);
    b->granularity_bits = p[17];
    b->extra_bytes = extra;
    if (b->table_entries > MAX_TABLE / 8 ||
        (b->table_entries && check_place(q, b->table_offset, (uint64_t)b->table_entries * 8)))
        return -EINVAL;
    b->name = malloc(name + 1);
    b->extra = malloc(extra + 1);
    if (!b->name || !b->extra)
        return -ENOMEM;
    memcpy(b->extra, p + ENTRY_BYTES, extra);
    memcpy(b->name, p + ENTRY_BYTES + extra, name);
    b->name[name] = 0;
    *ret_bytes = bytes;
    return 0;
}

static int parse_directory(struct qcow2 *q, const uint8_t *dir)
{
    struct qcow2_bitmap **end = &q->bitmaps;
    uint64_t at = 0;
    int rc = 0;

    for (uint32_t i = 0; i < q->h.bitmap_count && !rc; i++) {
        struct qcow2_bitmap *b = calloc(1, sizeof(*b));
        uint64_t bytes = 0;

        rc = b ? parse_entry(q, dir + at, q->h.bitmap_dir_bytes - at, b, &bytes) : -ENOMEM;
        if (rc) {
            qcow2_bitmap_free(b);
            break;
        }
        at += bytes;
        *end = b;
        end = &b->next;
    }
    return rc ? rc : at == q->h.bitmap_dir_bytes ? 0 : -EINVAL;
}

int qcow2_bitmaps_load(struct qcow2 *q, struct error *err)
{
    if (!has_bitmaps(q))
        return 0;
    if (q->h.bitmap_count > MAX_BITMAPS || q->h.bitmap_dir_bytes > MAX_DIRECTORY ||
        check_place(q, q->h.bitmap_dir_offset, q->h.bitmap_dir_bytes))
        return error_set(err, EINVAL, "its directory of bitmaps makes no sense");
    cleanup(freep) uint8_t *dir = malloc((size_t)q->h.bitmap_dir_bytes);
    if (!dir)
        return error_set(err, ENOMEM, "out of memory");
    int rc = file_pread(q->file, dir, (size_t)q->h.bitmap_dir_bytes, q->h.bitmap_dir_offset);
    if (!rc)
        rc = parse_directory(q, dir);
    return rc ? error_set(err, -rc, "its bitmaps cannot be read: %s", strerror(-rc)) : 0;
}

int qcow2_for_bitmap_clusters(struct qcow2 *q,
                              int (*visit)(void *arg, uint64_t offset, uint64_t bytes), void *arg)
{
    if (!has_bitmaps(q))
        return 0;
    int rc = visit(arg, q->h.bitmap_dir_offset, q->h.bitmap_dir_bytes);
    for (const struct qcow2_bitmap *b = q->bitmaps; b && !rc; b = b->next) {
        uint64_t *table = NULL;

        if (!b->table_entries)
            continue;
        rc = visit(arg, b->table_offset, (uint64_t)b->table_entries * 8);
        if (!rc)
            rc = qcow2_read_l1(q, b->table_offset, b->table_entries, &table);
        for (uint32_t i = 0; i < b->table_entries && !rc; i++) {
            uint64_t offset = table[i] & QCOW2_OFFSET;

            if (offset && !check_place(q, offset, q->cluster_bytes))
                rc = visit(arg, offset, q->cluster_bytes);
        }
        free(table);
    }
    return rc;
}

/** Can and may its bits be read? */
static bool is_usable(const struct qcow2 *q, const struct qcow2_bitmap *b)
{
    return !(b->flags & BITMAP_IN_USE) && (!b->extra_bytes || b->flags & BITMAP_EXTRA_OK) &&
           b->table_entries == qcow2_bitmap_entries(q, b, q->h.size_bytes);
}

int qcow2_bitmap_read(struct qcow2 *q, struct qcow2_bitmap *b)
{
    uint64_t *table = NULL;

    if (b->bits)
        return 0;
    if (!is_usable(q, b))
        return -EUCLEAN;
    uint64_t bytes = (uint64_t)b->table_entries << q->cluster_bits;
    if (bytes > MAX_BITS)
        return -EFBIG;
    cleanup(freep) uint8_t *bits = calloc(1, (size_t)bytes + 1);
    int rc = bits ? qcow2_read_l1(q, b->table_offset, b->table_entries, &table) : -ENOMEM;
    for (uint32_t i = 0; i < b->table_entries && !rc; i++) {
        uint8_t *to = bits + ((size_t)i << q->cluster_bits);
        uint64_t offset = table[i] & QCOW2_OFFSET;

        if (offset && check_place(q, offset, q->cluster_bytes))
            rc = -EINVAL;
        else if (offset)
            rc = file_pread(q->file, to, q->cluster_bytes, offset);
        else if (table[i] & 1)
            memset(to, 0xff, q->cluster_bytes);
    }
    free(table);
    if (rc)
        return rc;
    b->bits_bytes = bytes;
    b->bits = ptr_take(&bits);
    return 0;
}

int qcow2_bitmap_write_directory(struct qcow2 *q, uint64_t offset)
{
    cleanup(freep) uint8_t *dir = calloc(1, (size_t)qcow2_bitmap_directory_bytes(q) + 8);
    uint8_t *p = dir;

    if (!dir)
        return -ENOMEM;
    for (const struct qcow2_bitmap *b = q->bitmaps; b; b = b->next) {
        size_t name = strlen(b->name);

        store_be64(p, b->table_offset);
        store_be32(p + 8, b->table_entries);
        store_be32(p + 12, b->flags);
        p[16] = 1;
        p[17] = b->granularity_bits;
        store_be16(p + 18, (uint16_t)name);
        store_be32(p + 20, b->extra_bytes);
        memcpy(p + ENTRY_BYTES, b->extra ? b->extra : (const uint8_t *)"", b->extra_bytes);
        memcpy(p + ENTRY_BYTES + b->extra_bytes, b->name, name);
        p += align_up(ENTRY_BYTES + b->extra_bytes + name, 8);
    }
    return file_pwrite(q->file, dir, (size_t)(p - dir), offset);
}

uint64_t qcow2_bitmap_directory_bytes(const struct qcow2 *q)
{
    uint64_t bytes = 0;

    for (const struct qcow2_bitmap *b = q->bitmaps; b; b = b->next)
        bytes += align_up(ENTRY_BYTES + b->extra_bytes + strlen(b->name), 8);
    return bytes;
}

/** Mark the enabled ones in use and have their bits. bitmap_lock held. */
static int start_tracking(struct qcow2 *q)
{
    bool any = false;
    int rc = 0;

    for (struct qcow2_bitmap *b = q->bitmaps; b && !rc; b = b->next) {
        if (!(b->flags & BITMAP_AUTO) || b->flags & BITMAP_IN_USE)
            continue;
        rc = qcow2_bitmap_read(q, b);
        if (rc == -ENOMEM || rc == -EIO)
            break;
        rc = 0; /* what cannot be tracked stays marked: nobody trusts it from now on */
        b->flags |= BITMAP_IN_USE;
        any = true;
    }
    if (!rc && any)
        rc = qcow2_bitmap_write_directory(q, q->h.bitmap_dir_offset);
    if (!rc && any)
        rc = file_flush(q->file);
    return rc;
}

static void set_bits(struct qcow2_bitmap *b, uint64_t first, uint64_t end)
{
    for (uint64_t i = first; i < end; i++) {
        uint8_t bit = (uint8_t)(1 << i % 8);

        /* Nobody waits for it: the disk's own locks order a write and what follows. */
        if (!(__atomic_load_n(&b->bits[i / 8], __ATOMIC_RELAXED) & bit))
            (void)__atomic_fetch_or(&b->bits[i / 8], bit, __ATOMIC_RELAXED);
    }
}

int qcow2_bitmaps_mark(struct qcow2 *q, uint64_t offset, uint64_t size)
{
    int rc = 0;

    if (!q->bitmaps || !size)
        return 0;
    /* Pairs with the release below: bits are there. */
    if (!__atomic_load_n(&q->bitmaps_tracked, __ATOMIC_ACQUIRE)) {
        mutex_lock(&q->bitmap_lock);
        if (!q->bitmaps_tracked)
            rc = start_tracking(q);
        if (!rc)
            __atomic_store_n(&q->bitmaps_tracked, true, __ATOMIC_RELEASE);
        mutex_unlock(&q->bitmap_lock);
    }
    for (struct qcow2_bitmap *b = q->bitmaps; b && !rc; b = b->next) {
        uint64_t end = MIN(offset + size, q->h.size_bytes);

        if (b->bits && b->flags & BITMAP_AUTO && end > offset)
            set_bits(b, offset >> b->granularity_bits, ((end - 1) >> b->granularity_bits) + 1);
    }
    return rc;
}

static bool is_all_zero(const uint8_t *p, size_t n)
{
    return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/** New clusters for the parts of @b's bits that have none, and the data; *@table is updated. */
static int write_parts(struct qcow2 *q, const struct qcow2_bitmap *b, uint64_t *table)
{
    int rc = 0;

    for (uint32_t i = 0; i < b->table_entries && !rc; i++) {
        const uint8_t *from = b->bits + ((size_t)i << q->cluster_bits);
        uint64_t offset = table[i] & QCOW2_OFFSET;

        qcow2_wrlock(q);
        if (offset && (check_place(q, offset, q->cluster_bytes) ||
                       !qcow2_set_has(&q->meta, offset >> q->cluster_bits)))
            rc = qcow2_break(q);
        else if (is_all_zero(from, q->cluster_bytes))
            table[i] = 0;
        else if (!offset)
            rc = qcow2_alloc_meta(q, 1, &table[i]);
        if (!rc && offset && !table[i])
            qcow2_release(q, offset, q->cluster_bytes);
        qcow2_unlock(q);
        if (!rc && table[i])
            rc = file_pwrite(q->file, from, q->cluster_bytes, table[i]);
    }
    return rc;
}

int qcow2_bitmap_write(struct qcow2 *q, struct qcow2_bitmap *b)
{
    uint64_t *table = NULL;
    int rc = qcow2_read_l1(q, b->table_offset, b->table_entries, &table);

    if (!rc)
        rc = write_parts(q, b, table);
    if (!rc)
        rc = qcow2_flush(&q->d); /* what the table points to is counted and there */
    for (uint32_t i = 0; i < b->table_entries && !rc; i++)
        store_be64(&table[i], table[i]);
    if (!rc && b->table_entries)
        rc = file_pwrite(q->file, table, (size_t)b->table_entries * 8, b->table_offset);
    free(table);
    return rc;
}

int qcow2_bitmaps_store(struct qcow2 *q)
{
    int rc = 0;

    mutex_lock(&q->bitmap_lock);
    bool tracked = q->bitmaps_tracked;
    for (struct qcow2_bitmap *b = q->bitmaps; b && tracked && !rc; b = b->next) {
        if (b->bits)
            rc = qcow2_bitmap_write(q, b);
        if (b->bits && !rc)
            b->flags &= ~(uint32_t)BITMAP_IN_USE;
    }
    if (tracked && !rc)
        rc = file_flush(q->file);
    if (tracked && !rc)
        rc = qcow2_bitmap_write_directory(q, q->h.bitmap_dir_offset);
    if (tracked && !rc)
        rc = file_flush(q->file);
    q->bitmaps_tracked &= rc != 0;
    mutex_unlock(&q->bitmap_lock);
    return rc;
}
