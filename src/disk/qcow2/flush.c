/* Bringing a QCOW2 image's metadata into its file.
 *
 * At one instant, under `lock`, the changed sectors of all tables are copied. Then, without `lock`:
 *
 *     write new L2 tables, refcounts     (nothing durable points to the former)
 *     flush                              (with it the guest's data written before)
 *     write changed L2 tables, L1        (the pointers)
 *     flush
 *
 * At that instant, what a pointer points to had been written and counted. So a power cut leaves
 * pointers only to what is there; what was counted and is not pointed to is a leak. A refcount
 * falls only after the second flush (alloc.c). A sector is not torn, and no entry crosses one.
 *
 * A flush that begins after another thread asked for one serves that thread too.
 *
 * Threads: flush_lock, then `lock`. */
#include "base/fd.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

/** Sectors on their way. */
struct chunk {
    uint64_t offset;
    size_t at, size;           /* in `bytes` */
    struct qcow2_table *table; /* NULL: of L1 */
};

struct job {
    struct chunk *chunks;
    size_t count, room;
    uint8_t *bytes;
    size_t used, bytes_room;
};

struct flush {
    struct job first, second;
    struct qcow2_table **tables; /* those that have copies here */
    size_t count;
    uint64_t *l1_dirty; /* as it was; NULL: L1 was clean */
};

static int add_chunk(struct job *j, uint64_t offset, const uint8_t *data, size_t size,
                     struct qcow2_table *t)
{
    struct chunk *last = j->count ? &j->chunks[j->count - 1] : NULL;

    if (j->used + size > j->bytes_room) {
        size_t room = MAX(j->bytes_room * 2, j->used + size);
        uint8_t *bytes = realloc(j->bytes, room);

        if (!bytes)
            return -ENOMEM;
        j->bytes = bytes;
        j->bytes_room = room;
    }
    memcpy(j->bytes + j->used, data, size);
    j->used += size;
    if (last && last->table == t && last->offset + last->size == offset) {
        last->size += size;
        return 0;
    }
    if (j->count == j->room) {
        size_t room = MAX(j->room * 2, (size_t)16);
        struct chunk *v = realloc(j->chunks, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        j->chunks = v;
        j->room = room;
    }
    j->chunks[j->count++] =
        (struct chunk){.offset = offset, .at = j->used - size, .size = size, .table = t};
    return 0;
}

static int copy_table(struct qcow2 *q, struct job *j, struct qcow2_table *t)
{
    uint32_t sectors = q->cluster_bytes / DISK_SECTOR;
    int rc = 0;

    for (uint32_t s = 0; s < sectors && !rc; s++) {
        if (t->dirty[s / 64] & BIT(s % 64))
            rc = add_chunk(j, t->offset + (uint64_t)s * DISK_SECTOR, t->data + s * DISK_SECTOR,
                           DISK_SECTOR, t);
    }
    return rc;
}

static size_t l1_words(const struct qcow2 *q)
{
    return ((size_t)q->h.l1_entries / 64 + 1) / 64 + 1;
}

static int copy_l1(struct qcow2 *q, struct flush *f)
{
    uint32_t sectors = (q->h.l1_entries + 63) / 64;
    int rc = 0;

    f->l1_dirty = malloc(l1_words(q) * 8);
    if (!f->l1_dirty)
        return -ENOMEM;
    memcpy(f->l1_dirty, q->l1_dirty, l1_words(q) * 8);
    for (uint32_t s = 0; s < sectors && !rc; s++) {
        uint8_t buf[DISK_SECTOR];
        uint32_t n = MIN(q->h.l1_entries - s * 64, 64u);

        if (!(q->l1_dirty[s / 64] & BIT(s % 64)))
            continue;
        for (uint32_t i = 0; i < n; i++)
            store_be64(buf + i * 8, q->l1[s * 64 + i]);
        rc = add_chunk(&f->second, q->h.l1_offset + (uint64_t)s * DISK_SECTOR, buf, (size_t)n * 8,
                       NULL);
    }
    return rc;
}

/** All that is dirty, copied; nothing is changed. `lock` for writing. */
static int collect(struct qcow2 *q, struct flush *f)
{
    size_t n = 0;
    int rc = 0;

    for (struct qcow2_table *t = q->dirty; t; t = t->next_dirty)
        n++;
    f->tables = malloc(n * sizeof(struct qcow2_table *) + 1);
    if (!f->tables)
        return -ENOMEM;
    for (struct qcow2_table *t = q->dirty; t && !rc; t = t->next_dirty) {
        f->tables[f->count++] = t;
        rc = copy_table(q, t->is_block || t->is_new ? &f->first : &f->second, t);
    }
    if (!rc && q->l1_is_dirty)
        rc = copy_l1(q, f);
    return rc;
}

/** They count as clean from now on: changes after the copy make them dirty again. */
static void mark_clean(struct qcow2 *q, struct flush *f)
{
    for (size_t i = 0; i < f->count; i++) {
        struct qcow2_table *t = f->tables[i];

        t->in_flush = true;
        t->is_dirty = false;
        t->is_new = false;
        memset(t->dirty, 0, (q->cluster_bytes / DISK_SECTOR + 63) / 64 * 8);
    }
    q->dirty = NULL;
    q->dirty_bytes = 0;
    __atomic_store_n(&q->is_much, false, __ATOMIC_RELAXED); /* a hint: orders nothing */
    if (f->l1_dirty) {
        memset(q->l1_dirty, 0, l1_words(q) * 8);
        q->l1_is_dirty = false;
    }
    /* What is freed after this instant is not covered. */
    for (size_t i = 0; i < q->freed.count; i++)
        (void)qcow2_extents_add(&q->flushing, q->freed.v[i].first,
                                q->freed.v[i].count); /* else they leak */
    q->freed.count = 0;
}

/** The file did not take it: all of @j is dirty again. New tables count as new again. */
static void mark_dirty(struct qcow2 *q, const struct job *j, bool is_first)
{
    for (size_t i = 0; i < j->count; i++) {
        const struct chunk *c = &j->chunks[i];

        if (!c->table)
            continue;
        qcow2_table_dirty(q, c->table, (uint32_t)(c->offset - c->table->offset), (uint32_t)c->size);
        c->table->is_new |= is_first && !c->table->is_block;
    }
}

static int write_job(struct qcow2 *q, const struct job *j)
{
    int rc = 0;

    for (size_t i = 0; i < j->count && !rc; i++)
        rc = file_pwrite(q->file, j->bytes + j->chunks[i].at, j->chunks[i].size,
                         j->chunks[i].offset);
    return rc;
}

static int flush_files(struct qcow2 *q)
{
    int rc = q->data != q->file ? file_flush(q->data) : 0;

    return rc ? rc : file_flush(q->file);
}

static int write_flush(struct qcow2 *q, const struct flush *f)
{
    int rc = write_job(q, &f->first);

    if (!rc)
        rc = flush_files(q);
    if (rc || !f->second.count)
        return rc;
    rc = write_job(q, &f->second);
    return rc ? rc : file_flush(q->file);
}

static void finish(struct qcow2 *q, const struct flush *f, bool success)
{
    qcow2_wrlock(q);
    for (size_t i = 0; i < f->count; i++)
        f->tables[i]->in_flush = false;
    if (!success) {
        mark_dirty(q, &f->first, true);
        mark_dirty(q, &f->second, false);
        for (size_t i = 0; f->l1_dirty && i < l1_words(q); i++)
            q->l1_dirty[i] |= f->l1_dirty[i];
        q->l1_is_dirty |= f->l1_dirty != NULL;
    }
    qcow2_unlock(q);
}

static void flush_done(struct flush *f)
{
    free(f->first.chunks);
    free(f->first.bytes);
    free(f->second.chunks);
    free(f->second.bytes);
    free(f->tables);
    free(f->l1_dirty);
}

static int flush_locked(struct qcow2 *q)
{
    struct flush f = {0};

    /* Pairs with the load in qcow2_flush(): what was written before it is covered by this one. */
    uint64_t number = __atomic_add_fetch(&q->flush_started, 1, __ATOMIC_SEQ_CST);
    qcow2_wrlock(q);
    int rc = collect(q, &f);
    if (!rc)
        mark_clean(q, &f);
    else
        f.count = 0; /* as before */
    qcow2_unlock(q);
    if (!rc) {
        rc = write_flush(q, &f);
        finish(q, &f, !rc);
        qcow2_settle(q, !rc);
    }
    if (!rc)
        q->flush_done = number;
    flush_done(&f);
    return rc;
}

int qcow2_flush(struct disk *d)
{
    struct qcow2 *q = qcow2_of(d);
    uint64_t before = __atomic_load_n(&q->flush_started, __ATOMIC_SEQ_CST);

    mutex_lock(&q->flush_lock);
    int rc = q->flush_done > before ? 0 : flush_locked(q);
    mutex_unlock(&q->flush_lock);
    return rc;
}

int qcow2_flush_tables(struct qcow2 *q)
{
    struct flush f = {0};
    int rc = collect(q, &f);

    if (!rc)
        rc = write_flush(q, &f);
    if (!rc) {
        mark_clean(q, &f);
        for (size_t i = 0; i < f.count; i++)
            f.tables[i]->in_flush = false;
        for (size_t i = 0; i < q->flushing.count; i++) /* with the next ordinary flush */
            qcow2_release(q, q->flushing.v[i].first << q->cluster_bits,
                          q->flushing.v[i].count << q->cluster_bits);
        q->flushing.count = 0;
    }
    flush_done(&f);
    return rc;
}

int qcow2_flush_all(struct qcow2 *q)
{
    int rc = 0;
    bool more = true;

    mutex_lock(&q->flush_lock);
    /* Pointers, then the refcounts that fell, and what their blocks' going away freed. */
    for (int i = 0; i < 8 && more && !rc; i++) {
        rc = flush_locked(q);
        qcow2_rdlock(q);
        more = q->dirty || q->l1_is_dirty || (q->freed.count && !q->has_draining);
        qcow2_unlock(q);
    }
    mutex_unlock(&q->flush_lock);
    return rc;
}

int qcow2_flush_if_much(struct qcow2 *q)
{
    /* A hint: orders nothing. */
    return __atomic_load_n(&q->is_much, __ATOMIC_RELAXED) ? qcow2_flush(&q->d) : 0;
}
