/* Making the refcounts and flags of a QCOW2 file agree with what was counted.
 *
 * Order, for a power cut in the middle: higher refcounts and a flush, then flags, then lower
 * refcounts. At any time a cluster in use counts as in use.
 *
 * Threads: as check.c. */
#include "base/fd.h"
#include "disk/qcow2/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void report_leak(struct qcow2_checker *c, uint64_t cluster, uint64_t has, uint64_t want)
{
    char text[128];

    c->check->leaks++;
    if (!c->check->report)
        return;
    (void)snprintf(text, sizeof(text), "leaked cluster %llu: refcount %llu, references %llu",
                   (unsigned long long)cluster, (unsigned long long)has, (unsigned long long)want);
    c->check->report(c->check->arg, text);
}

struct compare {
    bool report, raise, lower;
};

/** One counter of the block in c->buf. True: it was changed. */
static bool compare_one(struct qcow2_checker *c, const struct compare *how, uint64_t cluster,
                        uint64_t i)
{
    unsigned order = c->q->h.refcount_order;
    uint64_t has = qcow2_refcount_at(c->buf, order, i);
    uint64_t want = qcow2_count_of(c, cluster);
    bool fits = want <= qcow2_max_refcount(c->q);

    if (has == want)
        return false;
    if (how->report && has < want)
        qcow2_check_error(c, "cluster %llu: refcount %llu, references %llu",
                          (unsigned long long)cluster, (unsigned long long)has,
                          (unsigned long long)want);
    else if (how->report)
        report_leak(c, cluster, has, want);
    if (how->report && has > want && want == 1)
        (void)qcow2_set_add(&c->high, cluster); /* without memory its flag is reported, too */
    if (!fits || (has < want ? !how->raise : !how->lower))
        return false;
    qcow2_refcount_put(c->buf, order, i, want);
    if (has < want)
        c->check->errors_fixed++;
    else
        c->check->leaks_fixed++;
    return true;
}

static int compare_block(struct qcow2_checker *c, const struct compare *how, uint32_t index)
{
    struct qcow2 *q = c->q;
    uint64_t offset = q->reftable[index] & QCOW2_RT_OFFSET;
    bool changed = false;
    int rc = file_pread(q->file, c->buf, q->cluster_bytes, offset);

    for (uint64_t i = 0; i < BIT(q->block_bits) && !rc; i++)
        changed |= compare_one(c, how, ((uint64_t)index << q->block_bits) + i, i);
    return changed ? file_pwrite(q->file, c->buf, q->cluster_bytes, offset) : rc;
}

/** Clusters in use that no block counts: blocks have to be made. */
static void find_uncounted(struct qcow2_checker *c)
{
    struct qcow2 *q = c->q;

    for (uint64_t p = 0; p < c->room / QCOW2_COUNTS; p++) {
        for (uint64_t i = 0; c->pieces[p] && i < QCOW2_COUNTS; i++) {
            uint64_t cluster = p * QCOW2_COUNTS + i;
            uint64_t index = cluster >> q->block_bits;

            if (!c->pieces[p][i])
                continue;
            if (index < q->reftable_entries && q->reftable[index] & QCOW2_RT_OFFSET)
                continue;
            qcow2_check_error(c, "cluster %llu: refcount 0, references %u",
                              (unsigned long long)cluster, c->pieces[p][i]);
            c->broken_counts = true;
        }
    }
}

int qcow2_compare_counts(struct qcow2_checker *c, bool report, bool raise, bool lower)
{
    struct qcow2 *q = c->q;
    struct compare how = {report, raise, lower};
    struct qcow2_set seen = {0};
    uint64_t fixed = c->check->errors_fixed + c->check->leaks_fixed;
    int rc = 0;

    if (report)
        find_uncounted(c);
    if (report && c->broken_counts && raise) {
        c->check->errors_fixed = c->check->errors - c->lost;
        return qcow2_new_refcounts(c);
    }
    for (uint32_t i = 0; i < q->reftable_entries && !rc; i++) {
        uint64_t offset = q->reftable[i] & QCOW2_RT_OFFSET;

        if (!offset || offset & (q->cluster_bytes - 1) || offset >> q->cluster_bits >= c->end)
            continue;
        rc = qcow2_set_add(&seen, offset);
        if (!rc)
            rc = compare_block(c, &how, i);
        rc = MIN(rc, 0); /* a block named twice has been reported */
    }
    free(seen.v);
    if (!rc && fixed != c->check->errors_fixed + c->check->leaks_fixed)
        rc = file_flush(q->file);
    return rc;
}

/** The flag of one entry against its cluster's count. True: it is mended in @p. */
static bool fix_flag(struct qcow2_checker *c, uint8_t *p, const char *what)
{
    uint64_t entry = load_be64(p);
    uint64_t host = entry & QCOW2_OFFSET;
    uint64_t cluster = host >> c->q->cluster_bits;

    if (entry & QCOW2_PACKED || !host || cluster >= c->end)
        return false;
    bool want = qcow2_count_of(c, cluster) == 1;
    if (!!(entry & QCOW2_COPIED) == want)
        return false;
    if (want && qcow2_set_has(&c->high, cluster)) {
        /* Rightly missing. It comes when the leak is mended: before its count is lowered. */
        store_be64(p, entry | QCOW2_COPIED);
        return c->flags & (DISK_REPAIR_LEAKS | DISK_REPAIR_ALL);
    }
    qcow2_check_error(c, "%s to 0x%llx %s the copied flag, but is referred to %u times", what,
                      (unsigned long long)host, want ? "lacks" : "has", qcow2_count_of(c, cluster));
    if (!qcow2_repairs(c))
        return false;
    store_be64(p, want ? entry | QCOW2_COPIED : entry & ~QCOW2_COPIED);
    c->check->errors_fixed++;
    return true;
}

static int check_l2_flags(struct qcow2_checker *c, uint64_t offset)
{
    struct qcow2 *q = c->q;
    bool changed = false;
    int rc = file_pread(q->file, c->buf, q->cluster_bytes, offset);

    for (uint32_t i = 0; i < 1u << q->l2_bits && !rc; i++)
        changed |= fix_flag(c, c->buf + ((size_t)i << q->entry_bits), "an L2 entry");
    if (rc || !changed)
        return rc;
    return file_pwrite(q->file, c->buf, q->cluster_bytes, offset);
}

int qcow2_check_flags(struct qcow2_checker *c)
{
    struct qcow2 *q = c->q;
    int rc = 0;

    for (uint32_t i = 0; i < q->h.l1_entries && !rc; i++) {
        uint64_t at = q->h.l1_offset + (uint64_t)i * 8;
        uint8_t entry[8];

        if (!(q->l1[i] & QCOW2_OFFSET))
            continue;
        rc = file_pread(q->file, entry, sizeof(entry), at); /* repair may have dropped it */
        if (!rc && fix_flag(c, entry, "an L1 entry"))
            rc = file_pwrite(q->file, entry, sizeof(entry), at);
    }
    for (size_t i = 0; i < c->l2_count && !rc && !q->has_data_file; i++) {
        if (c->l2[i].is_active && !qcow2_is_shared(c, &c->l2[i]))
            rc = check_l2_flags(c, c->l2[i].offset);
    }
    return rc ? rc : c->flags ? file_flush(q->file) : 0;
}

/** A reference less, if it was counted: what lies beyond the end was not. */
static void uncount(struct qcow2_checker *c, uint64_t cluster)
{
    if (qcow2_count_of(c, cluster))
        c->pieces[cluster / QCOW2_COUNTS][cluster % QCOW2_COUNTS]--;
}

/** The old table and blocks are referred to no more. */
static void forget_old(struct qcow2_checker *c)
{
    struct qcow2 *q = c->q;
    uint64_t first = q->h.reftable_offset >> q->cluster_bits;

    for (uint32_t i = 0; i < q->reftable_entries; i++) {
        uint64_t cluster = (q->reftable[i] & QCOW2_RT_OFFSET) >> q->cluster_bits;

        if (!(q->reftable[i] & QCOW2_RT_OFFSET & MASK(q->cluster_bits)) && cluster &&
            cluster < c->end)
            uncount(c, cluster);
    }
    for (uint32_t i = 0; i < q->h.reftable_clusters; i++)
        uncount(c, first + i);
}

/** Does the range of block @index hold anything that is referred to? */
static bool is_range_used(const struct qcow2_checker *c, uint64_t index)
{
    uint64_t first = index << c->q->block_bits;

    for (uint64_t i = 0; i < BIT(c->q->block_bits) && first + i < c->room; i++) {
        if (!(i % QCOW2_COUNTS) && !c->pieces[(first + i) / QCOW2_COUNTS] &&
            !((first + i) % QCOW2_COUNTS)) {
            i += QCOW2_COUNTS - 1;
            continue;
        }
        if (qcow2_count_of(c, first + i))
            return true;
    }
    return false;
}

/** Count the clusters of the new blocks and table, which lie from c->end on, until that counts
 * itself. *@ret_blocks blocks for the ranges in use, then the table of *@ret_entries entries. */
static int place_new(struct qcow2_checker *c, uint64_t *ret_blocks, uint64_t *ret_entries)
{
    struct qcow2 *q = c->q;
    uint64_t placed = 0;

    for (;;) {
        uint64_t blocks = 0;
        uint64_t last = 0;

        for (uint64_t i = 0; i << q->block_bits < c->room; i++) {
            if (is_range_used(c, i)) {
                blocks++;
                last = i;
            }
        }
        uint64_t entries = align_up((last + 1) * 8, q->cluster_bytes) / 8;
        uint64_t need = blocks + (entries * 8 >> q->cluster_bits);
        *ret_blocks = blocks;
        *ret_entries = entries;
        if (entries * 8 > QCOW2_MAX_RT || c->end + need > c->room)
            return -EFBIG;
        if (need <= placed)
            return 0;
        for (; placed < need; placed++) {
            int rc = qcow2_count_add(c, c->end + placed, 1);

            if (rc)
                return rc;
        }
    }
}

static int write_new(struct qcow2_checker *c, uint64_t blocks, uint8_t *table)
{
    struct qcow2 *q = c->q;
    uint64_t done = 0;
    int rc = 0;

    for (uint64_t i = 0; done < blocks && !rc; i++) {
        uint64_t first = i << q->block_bits;

        if (!is_range_used(c, i))
            continue;
        memset(c->buf, 0, q->cluster_bytes);
        for (uint64_t k = 0; k < BIT(q->block_bits); k++) {
            uint64_t count = qcow2_count_of(c, first + k);

            if (count > qcow2_max_refcount(q))
                return -EFBIG;
            qcow2_refcount_put(c->buf, q->h.refcount_order, k, count);
        }
        store_be64(table + i * 8, (c->end + done) << q->cluster_bits);
        rc = file_pwrite(q->file, c->buf, q->cluster_bytes, (c->end + done++) << q->cluster_bits);
    }
    return rc;
}

int qcow2_new_refcounts(struct qcow2_checker *c)
{
    struct qcow2 *q = c->q;
    uint64_t blocks = 0;
    uint64_t entries = 0;

    forget_old(c);
    int rc = place_new(c, &blocks, &entries);
    if (rc)
        return rc;
    uint64_t offset = (c->end + blocks) << q->cluster_bits;
    cleanup(freep) uint8_t *table = calloc((size_t)entries, 8);
    if (!table)
        return -ENOMEM;
    rc = write_new(c, blocks, table);
    if (!rc)
        rc = file_pwrite(q->file, table, (size_t)entries * 8, offset);
    if (!rc)
        rc = file_flush(q->file);
    if (rc)
        return rc;
    q->h.reftable_offset = offset;
    q->h.reftable_clusters = (uint32_t)(entries * 8 >> q->cluster_bits);
    rc = qcow2_header_update(q);
    return rc ? rc : file_flush(q->file);
}
