/* The map of blocks: memory, bitmaps, commits.
 *
 * Invariants:
 *  1. A block that is FRESH, DIRTY or TAKEN (in a commit), or whose bitmap has pins, keeps its
 *     bitmap in memory; any other bitmap may be dropped and is read again from the file.
 *  2. A bit becomes 1 after the sector's data have been written. A commit takes a copy of what
 *     changed, flushes the file, and only then writes: so what the disk says is never ahead of the
 *     data.
 *  3. Space is taken at the end only and given back by vhd_map_forget() alone, when nothing runs: a
 *     place once found stays good.
 *
 * Threads: any; commit_lock before lock; load_lock before lock.
 */
#include "disk/vhd/map.h"
#include "base/bits.h"
#include "base/fd.h"

#include <string.h>

#define CACHE_BYTES (4u << 20) /* of bitmaps */
#define CACHE_LEAST 64u
#define DIRTY_MAX   16384u /* changed blocks that wait */

int vhd_map_init(struct vhd_map *m)
{
    mutex_init(&m->lock);
    mutex_init(&m->load_lock);
    mutex_init(&m->commit_lock);
    cond_init(&m->claim_ended);
    m->count = (m->d.size_bytes + m->block_bytes - 1) / m->block_bytes;
    m->bits_bytes = MAX(m->block_bytes / m->sector_bytes / 8, 1u);
    m->cached_room = MAX(CACHE_BYTES / m->bits_bytes, CACHE_LEAST);
    m->cached_room = MIN(m->cached_room, (size_t)DIRTY_MAX);
    if (m->count > VHD_MAX_BLOCKS)
        return -EFBIG;
    m->blocks = calloc((size_t)m->count + 1, sizeof(*m->blocks));
    m->cached = malloc(m->cached_room * sizeof(*m->cached));
    if (!m->blocks || !m->cached)
        return -ENOMEM;
    for (size_t i = 0; i < m->cached_room; i++)
        m->cached[i] = UINT64_MAX;
    return 0;
}

void vhd_map_done(struct vhd_map *m)
{
    /* A block has a bitmap only while the ring knows it. */
    for (size_t i = 0; m->blocks && m->cached && i < m->cached_room; i++) {
        uint64_t block = m->cached[i];

        if (block < m->count) {
            free(m->blocks[block].bits);
            m->blocks[block].bits = NULL;
        }
    }
    free(m->blocks);
    free(m->cached);
    free(m->dirty);
    cond_done(&m->claim_ended);
    mutex_done(&m->commit_lock);
    mutex_done(&m->load_lock);
    mutex_done(&m->lock);
}

void vhd_map_set(struct vhd_map *m, uint64_t block, enum vhd_kind kind, uint64_t offset)
{
    m->blocks[block].word = offset | kind;
}

uint64_t vhd_map_reserve(struct vhd_map *m, uint64_t size, uint64_t align)
{
    mutex_lock(&m->lock);
    uint64_t offset = align_up(m->end_bytes, align);
    m->end_bytes = offset + size;
    mutex_unlock(&m->lock);
    return offset;
}

int vhd_map_begin(struct vhd_map *m)
{
    int rc = 0;

    /* Acquire: pairs with the store below, so the beginning has been made. */
    if (likely(__atomic_load_n(&m->has_begun, __ATOMIC_ACQUIRE)))
        return 0;
    mutex_lock(&m->commit_lock);
    if (!__atomic_load_n(&m->has_begun, __ATOMIC_RELAXED)) { /* under the lock */
        rc = m->ops->begin(m);
        if (!rc)
            __atomic_store_n(&m->has_begun, true, __ATOMIC_RELEASE);
    }
    mutex_unlock(&m->commit_lock);
    return rc;
}

int vhd_map_mark(struct vhd_map *m, uint64_t block)
{
    uint64_t *word = &m->blocks[block].word;

    if (*word & VHD_DIRTY)
        return 0;
    if (m->dirty_count == m->dirty_room) {
        size_t room = MAX(m->dirty_room * 2, (size_t)64);
        uint64_t *v = realloc(m->dirty, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        m->dirty = v;
        m->dirty_room = room;
    }
    m->dirty[m->dirty_count++] = block;
    *word |= VHD_DIRTY;
    return 0;
}

uint64_t vhd_map_allocate(struct vhd_map *m)
{
    uint64_t offset = align_up(m->end_bytes, m->align_bytes) + m->lead_bytes;

    offset = align_up(offset, VHD_DATA_ALIGN);
    if (offset > m->max_end_bytes || m->block_bytes > m->max_end_bytes - offset)
        return 0;
    m->end_bytes = offset + m->block_bytes;
    return offset;
}

/** May the bitmap of the block in this slot go? */
static bool can_drop(struct vhd_map *m, uint64_t block) REQUIRES(m->lock)
{
    const struct vhd_block *b = &m->blocks[block];

    return !b->bits || (!(b->word & (VHD_FRESH | VHD_DIRTY | VHD_TAKEN)) && !b->bits->pins);
}

static int add_bits(struct vhd_map *m, uint64_t block, struct vhd_bits *bits) REQUIRES(m->lock)
{
    for (size_t tries = 0; tries < m->cached_room; tries++) {
        uint64_t *slot = &m->cached[m->hand];

        m->hand = (m->hand + 1) % m->cached_room;
        if (*slot < m->count && !can_drop(m, *slot))
            continue;
        if (*slot < m->count) {
            free(m->blocks[*slot].bits);
            m->blocks[*slot].bits = NULL;
        }
        *slot = block;
        m->blocks[block].bits = bits;
        return 0;
    }
    return -EBUSY;
}

int vhd_map_new_bits(struct vhd_map *m, uint64_t block)
{
    struct vhd_bits *bits = calloc(1, sizeof(*bits) + m->bits_bytes);

    if (!bits)
        return -ENOMEM;
    bits->unset = m->block_bytes / m->sector_bytes;
    bits->hi = m->bits_bytes; /* all of it is new */
    int rc = add_bits(m, block, bits);
    if (rc)
        free(bits);
    return rc;
}

static uint32_t count_unset(const struct vhd_map *m, const uint8_t *v)
{
    uint32_t set = 0;

    for (uint32_t i = 0; i < m->bits_bytes; i++)
        set += (uint32_t)__builtin_popcount(v[i]);
    return m->block_bytes / m->sector_bytes - set;
}

/** Has @block no bitmap in memory although it needs one? Then where its data lie. */
static bool is_missing(struct vhd_map *m, uint64_t block, uint64_t *ret_offset)
{
    mutex_lock(&m->lock);
    struct vhd_block b = m->blocks[block];
    mutex_unlock(&m->lock);
    *ret_offset = vhd_offset_of(b.word);
    return vhd_kind_of(b.word) == VHD_PARTIAL && !b.bits;
}

int vhd_map_load(struct vhd_map *m, uint64_t block)
{
    uint64_t offset;
    int rc = 0;

    mutex_lock(&m->load_lock);
    if (is_missing(m, block, &offset)) {
        struct vhd_bits *bits = calloc(1, sizeof(*bits) + m->bits_bytes);

        rc = bits ? m->ops->load_bits(m, block, offset, bits->v) : -ENOMEM;
        if (!rc) {
            bits->unset = count_unset(m, bits->v);
            mutex_lock(&m->lock);
            if (bits->unset)
                rc = add_bits(m, block, bits);
            else
                m->blocks[block].word ^= VHD_FULL ^ VHD_PARTIAL;
            if (!rc && bits->unset)
                bits = NULL; /* the block's */
            mutex_unlock(&m->lock);
        }
        free(bits);
    }
    mutex_unlock(&m->load_lock);
    return rc == -EBUSY ? vhd_map_flush(&m->d) : rc;
}

static int compare_changes(const void *a, const void *b)
{
    const struct vhd_change *x = a;
    const struct vhd_change *y = b;

    return x->block < y->block ? -1 : x->block > y->block;
}

static void free_changes(struct vhd_change *v, size_t n)
{
    for (size_t i = 0; v && i < n; i++)
        free(v[i].bits);
    free(v);
}

/** Copy what one block shall become on the disk. */
static int take_change(struct vhd_map *m, uint64_t block, struct vhd_change *c) REQUIRES(m->lock)
{
    struct vhd_block *b = &m->blocks[block];

    *c = (struct vhd_change){
        .block = block,
        .kind = vhd_kind_of(b->word),
        .offset = vhd_offset_of(b->word),
        .is_fresh = b->word & VHD_FRESH,
    };
    if (!b->bits)
        return 0;
    c->bits = malloc(m->bits_bytes);
    if (!c->bits)
        return -ENOMEM;
    memcpy(c->bits, b->bits->v, m->bits_bytes);
    c->bits_lo = b->bits->lo;
    c->bits_hi = b->bits->hi;
    return 0;
}

/** All changes so far; they are not dirty any more, but TAKEN. */
static int take_changes(struct vhd_map *m, struct vhd_change **ret, size_t *ret_n,
                        uint64_t *ret_end)
{
    int rc = 0;
    size_t n = 0;

    mutex_lock(&m->lock);
    *ret_end = m->end_bytes;
    struct vhd_change *v = calloc(m->dirty_count + 1, sizeof(*v));
    if (!v)
        rc = -ENOMEM;
    while (!rc && n < m->dirty_count) {
        rc = take_change(m, m->dirty[n], &v[n]);
        n++;
    }
    for (size_t i = 0; !rc && i < n; i++) {
        struct vhd_block *b = &m->blocks[v[i].block];

        b->word = (b->word & ~VHD_DIRTY) | VHD_TAKEN;
        if (b->bits)
            b->bits->lo = b->bits->hi = 0;
    }
    if (!rc)
        m->dirty_count = 0;
    mutex_unlock(&m->lock);
    if (rc) {
        free_changes(v, n);
        return rc;
    }
    qsort(v, n, sizeof(*v), compare_changes);
    *ret = v;
    *ret_n = n;
    return 0;
}

/** The commit has ended: done, or to be done again. */
static void settle(struct vhd_map *m, const struct vhd_change *v, size_t n, bool good)
{
    mutex_lock(&m->lock);
    for (size_t i = 0; i < n; i++) {
        struct vhd_block *b = &m->blocks[v[i].block];

        b->word &= ~(VHD_TAKEN | (good && v[i].is_fresh ? VHD_FRESH : 0));
        if (good && b->bits && !b->bits->unset && !b->bits->pins && !(b->word & VHD_DIRTY)) {
            free(b->bits);
            b->bits = NULL;
        }
        if (!good && b->bits) {
            b->bits->lo = 0;
            b->bits->hi = m->bits_bytes;
        }
        if (!good && vhd_map_mark(m, v[i].block))
            m->blocks[v[i].block].word |= VHD_SHARED; /* out of memory: it must not change again */
    }
    mutex_unlock(&m->lock);
}

int vhd_map_flush(struct disk *d)
{
    struct vhd_map *m = vhd_map_of(d);
    struct vhd_change *v = NULL;
    size_t n = 0;
    uint64_t end = 0;

    mutex_lock(&m->commit_lock);
    int rc = take_changes(m, &v, &n, &end);
    if (!rc) {
        /* What a failed commit has written is not known: it must not be overtaken. */
        rc = m->has_failed ? file_flush(m->file) : 0;
        if (!rc)
            rc = m->ops->commit(m, v, n, end);
        m->has_failed = rc;
        settle(m, v, n, !rc);
        free_changes(v, n);
    }
    mutex_unlock(&m->commit_lock);
    return rc;
}

int vhd_map_forget(struct vhd_map *m, uint64_t first)
{
    int rc = 0;

    mutex_lock(&m->lock);
    for (uint64_t i = first; i < m->count && !rc; i++) {
        struct vhd_block *b = &m->blocks[i];

        if (vhd_kind_of(b->word) == VHD_NONE)
            continue;
        rc = vhd_map_mark(m, i);
        if (!rc) {
            b->word = VHD_NONE | (b->word & VHD_DIRTY);
            free(b->bits);
            b->bits = NULL;
        }
    }
    mutex_unlock(&m->lock);
    return rc;
}

int vhd_map_resize(struct vhd_map *m, uint64_t count)
{
    if (count > VHD_MAX_BLOCKS)
        return -EFBIG;
    mutex_lock(&m->lock);
    struct vhd_block *v = realloc(m->blocks, ((size_t)count + 1) * sizeof(*v));
    if (v) {
        m->blocks = v;
        if (count > m->count)
            memset(v + m->count, 0, (size_t)(count - m->count) * sizeof(*v));
        m->count = count;
    }
    mutex_unlock(&m->lock);
    return v ? 0 : -ENOMEM;
}

int vhd_map_fill(struct vhd_map *m, uint64_t block)
{
    mutex_lock(&m->lock);
    struct vhd_block *b = &m->blocks[block];
    int rc = 0;

    if (vhd_kind_of(b->word) == VHD_NONE) {
        rc = vhd_map_mark(m, block);
        uint64_t offset = rc ? 0 : vhd_map_allocate(m);
        if (offset)
            b->word = offset | VHD_FULL | VHD_FRESH | VHD_DIRTY;
        else
            rc = rc ? rc : -EFBIG;
    }
    mutex_unlock(&m->lock);
    return rc;
}
