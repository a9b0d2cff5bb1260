/* Refcounts of the clusters of a QCOW2 file, and room for more of them.
 *
 * A refcount block must be durable before the refcount table names it, and the table must name it
 * durably before anything points to a cluster it counts. So qcow2_cover() writes new blocks, which
 * count themselves, flushes, and only then writes the table's entry; the flush before the next
 * pointers makes that durable. That is one more flush for each growth by a block's clusters
 * (2 GiB usually; tiny clusters get several blocks at once).
 *
 * Threads: `lock` for writing. Spec: qcow2.txt, "Host cluster management". */
#include "base/fd.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

#define AHEAD_BYTES (32ULL << 20) /* of the file, that new blocks count at most */

uint64_t qcow2_max_refcount(const struct qcow2 *q)
{
    return MASK(1u << q->h.refcount_order);
}

uint64_t qcow2_refcount_at(const uint8_t *block, unsigned order, uint64_t index)
{
    unsigned bits = 1u << order;

    switch (order) {
    case 3:
        return block[index];
    case 4:
        return load_be16(block + index * 2);
    case 5:
        return load_be32(block + index * 4);
    case 6:
        return load_be64(block + index * 8);
    default: /* less than a byte: the lowest bits come first */
        return (uint64_t)block[index * bits / 8] >> (index * bits % 8) & MASK(bits);
    }
}

void qcow2_refcount_put(uint8_t *block, unsigned order, uint64_t index, uint64_t value)
{
    unsigned bits = 1u << order;

    switch (order) {
    case 3:
        block[index] = (uint8_t)value;
        break;
    case 4:
        store_be16(block + index * 2, (uint16_t)value);
        break;
    case 5:
        store_be32(block + index * 4, (uint32_t)value);
        break;
    case 6:
        store_be64(block + index * 8, value);
        break;
    default: {
        uint8_t *p = &block[index * bits / 8];
        unsigned shift = (unsigned)(index * bits % 8);

        *p = (uint8_t)((*p & ~(MASK(bits) << shift)) | value << shift);
    }
    }
}

int qcow2_get_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *ret)
{
    uint64_t index = cluster >> q->block_bits;
    struct qcow2_table *t = NULL;

    *ret = 0;
    if (index >= q->reftable_entries || !(q->reftable[index] & QCOW2_RT_OFFSET))
        return 0;
    int rc = qcow2_load_block(q, (uint32_t)index, &t);
    if (!rc)
        *ret = qcow2_refcount_at(t->data, q->h.refcount_order, cluster & MASK(q->block_bits));
    return rc;
}

int qcow2_set_refcount(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
    uint64_t index = cluster >> q->block_bits;
    uint64_t i = cluster & MASK(q->block_bits);
    struct qcow2_table *t = NULL;

    if (index >= q->reftable_entries || !(q->reftable[index] & QCOW2_RT_OFFSET) ||
        value > qcow2_max_refcount(q))
        return qcow2_break(q);
    int rc = qcow2_load_block(q, (uint32_t)index, &t);
    if (rc)
        return rc;
    qcow2_refcount_put(t->data, q->h.refcount_order, i, value);
    qcow2_table_dirty(q, t, (uint32_t)((i << q->h.refcount_order) / 8),
                      MAX((1u << q->h.refcount_order) / 8, 1u));
    return 0;
}

/** What a growth adds from `end` on: blocks, and then the whole refcount table if it grows. */
struct growth {
    uint32_t index; /* of the first block */
    uint32_t blocks;
    uint32_t table_clusters; /* 0 = the table is long enough */
    uint32_t entries;        /* of the table then */
};

static bool plan(const struct qcow2 *q, uint32_t blocks, struct growth *g)
{
    uint64_t need = (uint64_t)g->index + blocks;
    uint64_t bytes = 0;

    if (need * 8 > (uint64_t)q->h.reftable_clusters << q->cluster_bits)
        bytes = align_up((need + need / 2) * 8, q->cluster_bytes);
    if (bytes > QCOW2_MAX_RT)
        bytes = align_up(need * 8, q->cluster_bytes);
    g->blocks = blocks;
    g->table_clusters = (uint32_t)(bytes >> q->cluster_bits);
    g->entries = MAX((uint32_t)(bytes / 8), q->reftable_entries);
    return bytes <= QCOW2_MAX_RT;
}

/** Enough blocks that they count themselves and the table, and some more for tiny clusters. */
static int plan_growth(struct qcow2 *q, struct growth *g)
{
    uint64_t per_block = 1ULL << q->block_bits;
    uint64_t ahead = MIN(AHEAD_BYTES, q->end << q->cluster_bits) >> q->cluster_bits;
    uint32_t blocks = (uint32_t)MAX(ahead >> q->block_bits, 1ULL);

    g->index = (uint32_t)(q->end >> q->block_bits);
    for (;; blocks++) {
        if (!plan(q, blocks, g))
            return -EFBIG;
        if (q->end + blocks + g->table_clusters <= ((uint64_t)g->index + blocks) * per_block)
            break;
    }
    for (uint64_t i = g->index; i < (uint64_t)g->index + g->blocks && i < q->reftable_entries;
         i++) {
        if (!q->reftable[i])
            continue;
        if (i == g->index || g->table_clusters)
            return -EFBIG;
        g->blocks = (uint32_t)(i - g->index); /* those ahead are there already */
    }
    return q->end + g->blocks > ((uint64_t)g->index + g->blocks) * per_block ? -EFBIG : 0;
}

/** Write the new blocks, which count the new clusters. */
static int write_blocks(struct qcow2 *q, const struct growth *g)
{
    uint64_t stop = q->end + g->blocks + g->table_clusters;
    cleanup(freep) uint8_t *buf = malloc(q->cluster_bytes);
    int rc = buf ? 0 : -ENOMEM;

    for (uint32_t b = 0; b < g->blocks && !rc; b++) {
        uint64_t first = (uint64_t)(g->index + b) << q->block_bits;

        memset(buf, 0, q->cluster_bytes);
        for (uint64_t c = MAX(first, q->end); c < MIN(stop, first + BIT(q->block_bits)); c++)
            qcow2_refcount_put(buf, q->h.refcount_order, c - first, 1);
        rc = file_pwrite(q->file, buf, q->cluster_bytes, (q->end + b) << q->cluster_bits);
    }
    return rc;
}

static int write_table(struct qcow2 *q, const uint64_t *table, uint32_t from, uint32_t to,
                       uint64_t offset)
{
    cleanup(freep) uint8_t *buf = malloc((size_t)(to - from) * 8);

    if (!buf)
        return -ENOMEM;
    for (uint32_t i = from; i < to; i++)
        store_be64(buf + (size_t)(i - from) * 8, table[i]);
    return file_pwrite(q->file, buf, (size_t)(to - from) * 8, offset + (uint64_t)from * 8);
}

/** The header names the new table at @offset. */
static int switch_table(struct qcow2 *q, const struct growth *g, uint64_t offset)
{
    struct qcow2_header old = q->h;

    q->h.reftable_offset = offset;
    q->h.reftable_clusters = g->table_clusters;
    int rc = qcow2_header_update(q);
    if (!rc)
        rc = file_flush(q->file);
    if (rc)
        q->h = old;
    else
        qcow2_release(q, old.reftable_offset, (uint64_t)old.reftable_clusters << q->cluster_bits);
    return rc;
}

/** Arrays of @entries entries in the place of those in memory. */
static int grow_arrays(struct qcow2 *q, uint32_t entries)
{
    if (entries <= q->reftable_entries)
        return 0;
    size_t added = entries - q->reftable_entries;
    uint64_t *table = realloc(q->reftable, (size_t)entries * sizeof(*table));
    if (!table)
        return -ENOMEM;
    q->reftable = table;
    struct qcow2_table **blocks =
        realloc(q->blocks, (size_t)entries * sizeof(struct qcow2_table *));
    if (!blocks)
        return -ENOMEM;
    q->blocks = blocks;
    memset(table + q->reftable_entries, 0, added * sizeof(*table));
    memset(blocks + q->reftable_entries, 0, added * sizeof(struct qcow2_table *));
    q->reftable_entries = entries;
    return 0;
}

static int write_growth(struct qcow2 *q, const struct growth *g)
{
    uint64_t table_offset = (q->end + g->blocks) << q->cluster_bits;
    int rc = write_blocks(q, g);

    if (!rc && g->table_clusters)
        rc = write_table(q, q->reftable, 0, q->reftable_entries, table_offset);
    if (!rc)
        rc = file_flush(q->file);
    if (rc)
        return rc;
    if (g->table_clusters)
        return switch_table(q, g, table_offset);
    return write_table(q, q->reftable, g->index, g->index + g->blocks, q->h.reftable_offset);
}

/** If it fails, whatever of it is in the file says nothing wrong, and the next try, which comes
 * before anything else is put at `end`, writes the same again. */
static int grow(struct qcow2 *q)
{
    struct growth g = {0};
    int rc = plan_growth(q, &g);
    uint64_t clusters = (uint64_t)g.blocks + g.table_clusters;

    if (!rc && (q->end + clusters) << q->cluster_bits >= QCOW2_MAX_HOST)
        rc = -EFBIG;
    if (!rc)
        rc = grow_arrays(q, g.entries);
    if (rc)
        return rc;
    for (uint64_t i = 0; i < clusters && !rc; i++)
        rc = qcow2_set_add(&q->meta, q->end + i) < 0 ? -ENOMEM : 0;
    for (uint32_t i = 0; i < g.blocks; i++)
        q->reftable[g.index + i] = (q->end + i) << q->cluster_bits;
    if (!rc)
        rc = write_growth(q, &g);
    if (!rc) {
        q->end += clusters;
        return 0;
    }
    for (uint32_t i = 0; i < g.blocks; i++)
        q->reftable[g.index + i] = 0;
    for (uint64_t i = 0; i < clusters; i++)
        qcow2_set_remove(&q->meta, q->end + i);
    return rc;
}

int qcow2_cover(struct qcow2 *q, uint64_t count)
{
    int rc = 0;

    for (;;) {
        uint64_t index = q->end >> q->block_bits;
        uint64_t last = (q->end + count - 1) >> q->block_bits;

        while (index <= last && index < q->reftable_entries && q->reftable[index])
            index++;
        if (index > last)
            return 0;
        /* The clusters before an uncovered block are left free, so that the block counts itself. */
        if (index << q->block_bits > q->end) {
            uint64_t skipped = (index << q->block_bits) - q->end;

            (void)qcow2_extents_add(&q->pool, q->end, skipped); /* else found at the next open */
            q->end += skipped;
        }
        rc = grow(q);
        if (rc)
            return rc;
    }
}
