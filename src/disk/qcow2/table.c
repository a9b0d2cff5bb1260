/* Tables in memory, and the small containers of this folder.
 *
 * Tables form a ring; when they take more than QCOW2_CACHE_BYTES, a hand goes around it and drops
 * the first that was not used since it last came by. Dirty tables stay: the callers flush before
 * there are too many of them.
 *
 * Threads: `lock` for writing, but for the `used` mark. */
#include "base/fd.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

static size_t set_home(const struct qcow2_set *s, uint64_t n)
{
    return (size_t)(n * 0x9e3779b97f4a7c15ULL >> 20) & (s->room - 1);
}

static int set_grow(struct qcow2_set *s)
{
    struct qcow2_set bigger = {.room = MAX(s->room * 2, (size_t)64)};

    bigger.v = calloc(bigger.room, sizeof(*bigger.v));
    if (!bigger.v)
        return -ENOMEM;
    for (size_t i = 0; i < s->room; i++) {
        if (s->v[i])
            (void)qcow2_set_add(&bigger, s->v[i] - 1); /* has room */
    }
    free(s->v);
    *s = bigger;
    return 0;
}

int qcow2_set_add(struct qcow2_set *s, uint64_t n)
{
    if (s->count * 2 >= s->room && set_grow(s))
        return -ENOMEM;
    size_t i = set_home(s, n);
    for (; s->v[i]; i = (i + 1) & (s->room - 1)) {
        if (s->v[i] == n + 1)
            return 1;
    }
    s->v[i] = n + 1;
    s->count++;
    return 0;
}

bool qcow2_set_has(const struct qcow2_set *s, uint64_t n)
{
    if (!s->count)
        return false;
    for (size_t i = set_home(s, n); s->v[i]; i = (i + 1) & (s->room - 1)) {
        if (s->v[i] == n + 1)
            return true;
    }
    return false;
}

void qcow2_set_remove(struct qcow2_set *s, uint64_t n)
{
    if (!qcow2_set_has(s, n))
        return;
    size_t hole = set_home(s, n);
    while (s->v[hole] != n + 1)
        hole = (hole + 1) & (s->room - 1);
    /* Those after the hole that are not at home before it move up. */
    for (size_t i = (hole + 1) & (s->room - 1); s->v[i]; i = (i + 1) & (s->room - 1)) {
        size_t home = set_home(s, s->v[i] - 1);

        if (((i - home) & (s->room - 1)) >= ((i - hole) & (s->room - 1))) {
            s->v[hole] = s->v[i];
            hole = i;
        }
    }
    s->v[hole] = 0;
    s->count--;
}

int qcow2_extents_add(struct qcow2_extents *e, uint64_t first, uint64_t count)
{
    struct qcow2_extent *last = e->count ? &e->v[e->count - 1] : NULL;

    if (last && last->first + last->count == first && !last->unclean) {
        last->count += count;
        return 0;
    }
    if (e->count == e->room) {
        size_t room = MAX(e->room * 2, (size_t)16);
        struct qcow2_extent *v = realloc(e->v, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        e->v = v;
        e->room = room;
    }
    e->v[e->count++] = (struct qcow2_extent){.first = first, .count = count};
    return 0;
}

static int compare_extents(const void *a, const void *b)
{
    const struct qcow2_extent *x = a;
    const struct qcow2_extent *y = b;

    return x->first < y->first ? -1 : x->first > y->first;
}

void qcow2_extents_sort(struct qcow2_extents *e)
{
    size_t n = 0;

    if (!e->count)
        return;
    qsort(e->v, e->count, sizeof(*e->v), compare_extents);
    for (size_t i = 1; i < e->count; i++) {
        if (e->v[i].first == e->v[n].first + e->v[n].count && e->v[i].unclean == e->v[n].unclean)
            e->v[n].count += e->v[i].count;
        else
            e->v[++n] = e->v[i];
    }
    e->count = n + 1;
}

static struct qcow2_table **slot_of(struct qcow2 *q, bool is_block, uint32_t index)
{
    return is_block ? &q->blocks[index] : &q->l2[index];
}

static size_t dirty_words(const struct qcow2 *q)
{
    return (q->cluster_bytes / DISK_SECTOR + 63) / 64;
}

static size_t table_bytes(const struct qcow2 *q)
{
    return sizeof(struct qcow2_table) + q->cluster_bytes + dirty_words(q) * 8;
}

void qcow2_forget_table(struct qcow2 *q, struct qcow2_table *t)
{
    if (t->is_dirty) {
        struct qcow2_table **p = &q->dirty;

        while (*p != t)
            p = &(*p)->next_dirty;
        *p = t->next_dirty;
        q->dirty_bytes -= q->cluster_bytes;
    }
    if (q->hand == t)
        q->hand = t->next == t ? NULL : t->next;
    t->next->prev = t->prev;
    t->prev->next = t->next;
    *slot_of(q, t->is_block, t->index) = NULL;
    q->cache_bytes -= table_bytes(q);
    free(t);
}

void qcow2_forget_tables(struct qcow2 *q)
{
    while (q->hand)
        qcow2_forget_table(q, q->hand);
}

/** Drop tables until one more has room, as far as they may be dropped. */
static void make_room(struct qcow2 *q)
{
    unsigned patience = 4096;

    while (q->hand && q->cache_bytes + table_bytes(q) > QCOW2_CACHE_BYTES && patience--) {
        struct qcow2_table *t = q->hand;

        q->hand = t->next;
        if (t->is_dirty || t->in_flush || t->is_new)
            continue;
        if (__atomic_exchange_n(&t->used, false, __ATOMIC_RELAXED)) /* a hint: orders nothing */
            continue;
        qcow2_forget_table(q, t);
    }
}

static struct qcow2_table *add_table(struct qcow2 *q, bool is_block, uint32_t index,
                                     uint64_t offset)
{
    make_room(q);
    struct qcow2_table *t = calloc(1, table_bytes(q));
    if (!t)
        return NULL;
    t->offset = offset;
    t->is_block = is_block;
    t->index = index;
    t->used = true;
    t->dirty = (uint64_t *)(void *)(t->data + q->cluster_bytes);
    if (q->hand) { /* just behind the hand: it comes last */
        t->next = q->hand;
        t->prev = q->hand->prev;
        t->prev->next = t;
        q->hand->prev = t;
    } else {
        q->hand = t->next = t->prev = t;
    }
    q->cache_bytes += table_bytes(q);
    *slot_of(q, is_block, index) = t;
    return t;
}

static int load(struct qcow2 *q, bool is_block, uint32_t index, uint64_t offset,
                struct qcow2_table **ret)
{
    struct qcow2_table *t = *slot_of(q, is_block, index);

    if (t) {
        __atomic_store_n(&t->used, true, __ATOMIC_RELAXED); /* a hint: orders nothing */
        *ret = t;
        return 0;
    }
    if (offset & (q->cluster_bytes - 1) || !offset || offset >> q->cluster_bits >= q->end)
        return qcow2_break(q);
    t = add_table(q, is_block, index, offset);
    if (!t)
        return -ENOMEM;
    int rc = file_pread(q->file, t->data, q->cluster_bytes, offset);
    if (rc)
        qcow2_forget_table(q, t);
    else
        *ret = t;
    return rc;
}

int qcow2_load_l2(struct qcow2 *q, uint32_t index, struct qcow2_table **ret)
{
    return load(q, false, index, q->l1[index] & QCOW2_OFFSET, ret);
}

int qcow2_load_block(struct qcow2 *q, uint32_t index, struct qcow2_table **ret)
{
    return load(q, true, index, q->reftable[index] & QCOW2_RT_OFFSET, ret);
}

int qcow2_new_table(struct qcow2 *q, bool is_block, uint32_t index, uint64_t offset,
                    struct qcow2_table **ret)
{
    assert(!*slot_of(q, is_block, index));
    struct qcow2_table *t = add_table(q, is_block, index, offset);

    if (!t)
        return -ENOMEM;
    t->is_new = true;
    *ret = t;
    return 0;
}

void qcow2_table_dirty(struct qcow2 *q, struct qcow2_table *t, uint32_t byte, uint32_t size)
{
    for (uint32_t s = byte / DISK_SECTOR; s <= (byte + size - 1) / DISK_SECTOR; s++)
        t->dirty[s / 64] |= BIT(s % 64);
    if (t->is_dirty)
        return;
    t->is_dirty = true;
    t->next_dirty = q->dirty;
    q->dirty = t;
    q->dirty_bytes += q->cluster_bytes;
    if (q->dirty_bytes > QCOW2_MUCH_DIRTY)
        __atomic_store_n(&q->is_much, true, __ATOMIC_RELAXED); /* a hint: orders nothing */
}
