/* VMDK: the tables of a sparse extent, and the places of its grains.
 *
 * Invariants:
 *  1. Tables are read when they are needed; VMDK_CACHE_BYTES of them are kept. One that is dirty,
 *     or that a flush is writing, stays in memory.
 *  2. Grains go to the end of the file and stay there: next_sector only grows. Behind it the file
 *     reads as zeroes. Room that was taken and not used is lost until the image is mended.
 *  3. A table in the file, and its redundant twin, name only grains whose data has been flushed.
 *
 * flush(): [length, data] flush [changed sectors of the tables, twice] flush.
 *
 * Threads: any. flush_lock, then lock; with `lock` tables are read from the file. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vmdk/vmdk.h"

#include <string.h>

#define PER_SECTOR (DISK_SECTOR / 4)

static void drop(struct vmdk_sparse *s, uint32_t index)
{
    s->loaded -= s->tables[index] != NULL;
    free(s->tables[index]);
    s->tables[index] = NULL;
}

void vmdk_tables_drop(struct vmdk_sparse *s)
{
    for (uint32_t i = 0; s->tables && i < s->table_count; i++)
        drop(s, i);
    s->dirty = 0;
}

/** Drop a table or two that are clean, when there are many. */
static void make_room(struct vmdk_sparse *s) REQUIRES(s->lock)
{
    uint64_t limit = VMDK_CACHE_BYTES / vmdk_table_bytes(s);

    for (uint32_t n = 0; s->loaded >= limit && n < 4096; n++) {
        uint32_t i = s->hand;

        s->hand = i + 1 < s->table_count ? i + 1 : 0;
        if (s->tables[i] && !s->tables[i]->dirty && !s->tables[i]->busy)
            drop(s, i);
    }
}

int vmdk_table_get(struct vmdk_sparse *s, uint32_t index, struct vmdk_table **ret)
{
    struct vmdk_table *t = s->tables[index];
    size_t size = (size_t)vmdk_table_bytes(s);

    if (t) {
        *ret = t;
        return 0;
    }
    make_room(s);
    t = malloc(sizeof(*t) + size);
    if (!t)
        return -ENOMEM;
    t->dirty = 0;
    t->busy = false;
    int rc = s->gd[index]
                 ? file_pread(s->file, t->entries, size, (uint64_t)s->gd[index] * DISK_SECTOR)
                 : 0;
    if (rc) {
        free(t);
        return rc;
    }
    for (uint32_t i = 0; i < s->table_entries; i++)
        t->entries[i] = s->gd[index] ? load_le32(&t->entries[i]) : 0;
    s->tables[index] = t;
    s->loaded++;
    *ret = t;
    return 0;
}

/** Table @table is in memory. */
void vmdk_table_set(struct vmdk_sparse *s, uint32_t table, uint32_t entry, uint32_t value)
{
    struct vmdk_table *t = s->tables[table];

    t->entries[entry] = value;
    s->dirty += !t->dirty;
    t->dirty |= BIT(entry / PER_SECTOR);
}

static enum disk_extent_kind kind_of(const struct vmdk_sparse *s, uint32_t entry)
{
    if (!entry)
        return DISK_ABSENT;
    if (entry == 1 && s->has_zero)
        return DISK_ZERO;
    return s->is_packed ? DISK_PACKED : DISK_DATA;
}

static int table_find(struct blocks *b, uint64_t index, uint64_t max, struct blocks_run *ret)
{
    struct vmdk_sparse *s = container_of(b, struct vmdk_sparse, b);
    uint32_t table = (uint32_t)(index / s->table_entries);
    uint32_t first = (uint32_t)(index % s->table_entries);
    struct vmdk_table *t = NULL;

    max = MIN(max, (uint64_t)(s->table_entries - first));
    if (!s->gd[table] && !s->is_packed) {
        *ret = (struct blocks_run){.kind = DISK_ABSENT, .count = max};
        return 0;
    }
    mutex_lock(&s->lock);
    int rc = vmdk_table_get(s, table, &t);
    if (!rc) {
        uint32_t entry = t->entries[first];
        enum disk_extent_kind kind = kind_of(s, entry);
        uint64_t n = 1;

        while (n < max && kind_of(s, t->entries[first + n]) == kind &&
               (kind != DISK_DATA || t->entries[first + n] == entry + n * s->grain_sectors))
            n++;
        *ret = (struct blocks_run){.kind = kind, .count = n};
        if (kind == DISK_DATA)
            ret->file_offset = (uint64_t)entry * DISK_SECTOR;
    }
    mutex_unlock(&s->lock);
    return rc;
}

static int table_reserve(struct blocks *b, uint64_t index, uint64_t *count, uint64_t *ret_offset)
{
    struct vmdk_sparse *s = container_of(b, struct vmdk_sparse, b);
    uint64_t sectors = *count * s->grain_sectors;
    int rc = 0;

    (void)index;
    if (s->damage)
        return -EIO;
    if (s->is_packed)
        return -ENOTSUP;
    mutex_lock(&s->lock);
    if (s->next_sector + sectors > VMDK_MAX_SECTORS) {
        rc = -ENOSPC;
    } else {
        *ret_offset = s->next_sector * DISK_SECTOR;
        s->next_sector += sectors;
    }
    mutex_unlock(&s->lock);
    if (!rc && s->file->is_block) /* behind the end there may be anything */
        rc = file_write_zeroes(s->file, *ret_offset, sectors * DISK_SECTOR, true);
    return rc;
}

static void table_release(struct blocks *b, uint64_t count, uint64_t offset)
{
    /* Not used again: it may hold anything. Its storage at least. */
    (void)!file_discard(b->file, offset, count * b->block_bytes);
}

static int table_publish(struct blocks *b, uint64_t index, const struct blocks_run *run)
{
    struct vmdk_sparse *s = container_of(b, struct vmdk_sparse, b);
    uint32_t sector = (uint32_t)(run->file_offset / DISK_SECTOR);
    uint32_t table = (uint32_t)(index / s->table_entries);
    uint32_t first = (uint32_t)(index % s->table_entries);
    struct vmdk_table *t = NULL;

    if (s->damage)
        return -EIO;
    assert(first + run->count <= s->table_entries); /* as find() has said */
    mutex_lock(&s->lock);
    int rc = vmdk_table_get(s, table, &t);
    for (uint32_t i = 0; !rc && i < run->count; i++)
        vmdk_table_set(s, table, first + i,
                       run->kind == DISK_ZERO ? 1 : sector + i * s->grain_sectors);
    bool full = s->dirty * vmdk_table_bytes(s) > VMDK_CACHE_BYTES / 2;
    mutex_unlock(&s->lock);
    if (full)
        (void)!vmdk_sparse_flush(s); /* a failure leaves them dirty: the next flush tells */
    return rc;
}

const struct blocks_ops vmdk_blocks_ops = {
    .find = table_find,
    .reserve = table_reserve,
    .release = table_release,
    .publish = table_publish,
    .read_packed = vmdk_stream_read,
};

/** A changed sector of a table. */
struct changed {
    uint32_t table, number;
};

struct snapshot {
    struct changed *v;
    uint8_t *data; /* a sector for each */
    size_t count;
};

static void copy_table(const struct vmdk_sparse *s, uint32_t index, struct snapshot *snap)
    REQUIRES(s->lock)
{
    struct vmdk_table *t = s->tables[index];

    for (uint64_t bits = t->dirty; bits; bits &= bits - 1) {
        uint32_t number = (uint32_t)__builtin_ctzll(bits);
        uint8_t *to = snap->data + snap->count * DISK_SECTOR;

        for (unsigned i = 0; i < PER_SECTOR; i++)
            store_le32(to + (size_t)i * 4, t->entries[number * PER_SECTOR + i]);
        snap->v[snap->count++] = (struct changed){.table = index, .number = number};
    }
    t->dirty = 0;
    t->busy = true;
}

static int take_snapshot(struct vmdk_sparse *s, struct snapshot *snap) REQUIRES(s->lock)
{
    size_t n = 0;

    if (!s->dirty)
        return 0;
    for (uint32_t i = 0; i < s->table_count; i++)
        n += s->tables[i] ? (size_t)__builtin_popcountll(s->tables[i]->dirty) : 0;
    snap->v = malloc(n * sizeof(*snap->v));
    snap->data = malloc(n * DISK_SECTOR);
    if (!snap->v || !snap->data)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->table_count; i++) {
        if (s->tables[i] && s->tables[i]->dirty)
            copy_table(s, i, snap);
    }
    s->dirty = 0;
    return 0;
}

/** Write the sectors to the tables that @gd names, runs of them at once. */
static int write_sectors(struct vmdk_sparse *s, const struct snapshot *snap, const uint32_t *gd)
{
    int rc = 0;

    for (size_t i = 0, n; !rc && i < snap->count; i += n) {
        uint64_t at = (uint64_t)gd[snap->v[i].table] + snap->v[i].number;

        n = 1;
        while (i + n < snap->count &&
               (uint64_t)gd[snap->v[i + n].table] + snap->v[i + n].number == at + n)
            n++;
        rc = file_pwrite(s->file, snap->data + i * DISK_SECTOR, n * DISK_SECTOR, at * DISK_SECTOR);
    }
    return rc;
}

/** The snapshot has been written, or (@again) it has not. */
static void end_snapshot(struct vmdk_sparse *s, struct snapshot *snap, bool again)
{
    mutex_lock(&s->lock);
    for (size_t i = 0; i < snap->count; i++) {
        struct vmdk_table *t = s->tables[snap->v[i].table];

        t->busy = false;
        if (!again)
            continue;
        s->dirty += !t->dirty;
        t->dirty |= BIT(snap->v[i].number);
    }
    mutex_unlock(&s->lock);
    free(snap->v);
    free(snap->data);
}

int vmdk_sparse_flush(struct vmdk_sparse *s)
{
    struct snapshot snap = {0};

    if (s->is_packed)
        return vmdk_stream_finish(s);
    mutex_lock(&s->flush_lock);
    mutex_lock(&s->lock);
    int rc = take_snapshot(s, &snap);
    uint64_t end = s->next_sector * DISK_SECTOR;
    if (!rc && snap.count && s->end_bytes < end && !s->file->is_block) {
        rc = file_truncate(s->file, end); /* of whole grains, for other readers */
        if (!rc)
            s->end_bytes = end;
    }
    mutex_unlock(&s->lock);
    if (!rc)
        rc = file_flush(s->file);
    if (!rc && snap.count) {
        rc = write_sectors(s, &snap, s->gd);
        if (!rc && s->rgd)
            rc = write_sectors(s, &snap, s->rgd);
        if (!rc)
            rc = file_flush(s->file);
    }
    end_snapshot(s, &snap, rc);
    mutex_unlock(&s->flush_lock);
    return rc;
}
