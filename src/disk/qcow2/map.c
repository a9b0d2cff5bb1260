/* From guest offsets to places in the file, and changing that.
 *
 * Threads: each function says which lock it needs. What a request was told of a place holds until
 * it ends: see alloc.c. Spec: qcow2.txt, "Cluster mapping", "Extended L2 Entries". */
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

/** What one entry says of its sub-cluster @sub. */
struct place {
    enum qcow2_kind kind;
    bool is_ours;
    uint64_t host; /* of the cluster; PACKED: the descriptor */
    unsigned subs; /* sub-clusters from @sub on that are alike */
};

void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *ret_offset,
                        uint64_t *ret_bytes)
{
    unsigned x = 62 - (q->cluster_bits - 8);
    uint64_t offset = entry & MASK(x) & MASK(56);
    uint64_t sectors = (entry >> x & MASK(q->cluster_bits - 8)) + 1;

    *ret_offset = offset;
    *ret_bytes = sectors * DISK_SECTOR - offset % DISK_SECTOR;
}

static unsigned run_of_bits(uint32_t v, unsigned from)
{
    v >>= from;
    return MIN(~v ? (unsigned)__builtin_ctz(~v) : QCOW2_SUBS, QCOW2_SUBS - from);
}

/** Kind by the bitmap of an extended entry. */
static int decode_subs(uint64_t subs, unsigned sub, struct place *p)
{
    uint32_t data = (uint32_t)subs;
    uint32_t zero = (uint32_t)(subs >> 32);

    if (data & zero)
        return -EBADMSG;
    if (data >> sub & 1) {
        p->kind = QCOW2_RUN_DATA;
        p->subs = run_of_bits(data, sub);
    } else if (zero >> sub & 1) {
        p->kind = QCOW2_RUN_ZERO;
        p->subs = run_of_bits(zero, sub);
    } else {
        p->kind = QCOW2_RUN_ABSENT;
        p->subs = run_of_bits(~(data | zero), sub);
    }
    return 0;
}

static int check_host(const struct qcow2 *q, uint64_t host, uint64_t cluster)
{
    if (q->has_data_file)
        return host == cluster << q->cluster_bits ? 0 : -EBADMSG;
    return host & (q->cluster_bytes - 1) || !host || host >> q->cluster_bits >= q->end ? -EBADMSG
                                                                                       : 0;
}

static int decode(const struct qcow2 *q, const struct qcow2_table *t, uint64_t cluster,
                  unsigned sub, struct place *p)
{
    uint32_t i = qcow2_l2_index(q, cluster);
    uint64_t entry = qcow2_entry(q, t, i);
    int rc = 0;

    *p = (struct place){.subs = 1, .host = entry & QCOW2_OFFSET};
    if (entry & QCOW2_PACKED) {
        uint64_t bytes;

        qcow2_packed_place(q, entry, &p->host, &bytes);
        if (q->has_data_file || !p->host || p->host >> q->cluster_bits >= q->end)
            return -EBADMSG;
        p->kind = QCOW2_RUN_PACKED;
        p->host = entry;
        p->subs = 1u << (q->cluster_bits - q->sub_bits);
        return 0;
    }
    p->is_ours = entry & QCOW2_COPIED;
    if (q->is_extended)
        rc = entry & QCOW2_ZERO ? -EBADMSG : decode_subs(qcow2_subs(q, t, i), sub, p);
    else if (entry & QCOW2_ZERO)
        p->kind = QCOW2_RUN_ZERO;
    else
        p->kind = p->host || (q->has_data_file && entry & QCOW2_COPIED) ? QCOW2_RUN_DATA
                                                                        : QCOW2_RUN_ABSENT;
    if (!rc && p->kind == QCOW2_RUN_DATA)
        rc = check_host(q, p->host, cluster);
    if (p->kind == QCOW2_RUN_ZERO && q->h.version == 2)
        rc = -EBADMSG;
    return rc;
}

static bool goes_on(const struct qcow2_run *run, const struct place *p, uint64_t host)
{
    if (run->kind != p->kind || run->kind == QCOW2_RUN_PACKED)
        return false;
    return run->kind != QCOW2_RUN_DATA ||
           (run->is_ours == p->is_ours && run->host + run->bytes == host);
}

/** Within one L2 table. */
static int find_in_table(const struct qcow2 *q, const struct qcow2_table *t, uint64_t offset,
                         uint64_t size, struct qcow2_run *run)
{
    uint64_t at = offset;

    run->bytes = 0;
    while (run->bytes < size) {
        uint64_t cluster = at >> q->cluster_bits;
        uint64_t inside = at & (q->cluster_bytes - 1);
        unsigned sub = (unsigned)(inside >> q->sub_bits);
        struct place p;

        if (run->bytes && !qcow2_l2_index(q, cluster) && !inside)
            break; /* of another table */
        int rc = decode(q, t, cluster, sub, &p);
        if (rc)
            return run->bytes ? 0 : rc;
        uint64_t host = p.kind == QCOW2_RUN_PACKED ? p.host : p.host + inside;
        if (!run->bytes)
            *run = (struct qcow2_run){.kind = p.kind, .is_ours = p.is_ours, .host = host};
        else if (!goes_on(run, &p, host))
            break;
        uint64_t stop = (cluster << q->cluster_bits) + ((uint64_t)(sub + p.subs) << q->sub_bits);
        run->bytes += stop - at;
        at = stop;
        if (p.kind == QCOW2_RUN_PACKED)
            break;
    }
    run->bytes = MIN(run->bytes, size);
    return 0;
}

int qcow2_find(struct qcow2 *q, uint64_t offset, uint64_t size, struct qcow2_run *ret)
{
    uint64_t cluster = offset >> q->cluster_bits;
    uint64_t index = cluster >> q->l2_bits;
    uint64_t span = BIT(q->l2_bits + q->cluster_bits);

    if (index >= q->h.l1_entries || !(q->l1[index] & QCOW2_OFFSET)) {
        *ret = (struct qcow2_run){
            .kind = QCOW2_RUN_ABSENT,
            .bytes = MIN(size, span - (offset & (span - 1))),
        };
        return 0;
    }
    struct qcow2_table *t = q->l2[index];
    if (!t)
        return -EAGAIN;
    if (!__atomic_load_n(&t->used, __ATOMIC_RELAXED)) /* a hint: orders nothing */
        __atomic_store_n(&t->used, true, __ATOMIC_RELAXED);
    return find_in_table(q, t, offset, size, ret);
}

/** Would writing into this run hit metadata? */
static bool hits_metadata(const struct qcow2 *q, const struct qcow2_run *run)
{
    uint64_t end = (run->host + run->bytes - 1) >> q->cluster_bits;

    for (uint64_t c = run->host >> q->cluster_bits; c <= end && !q->has_data_file; c++) {
        if (qcow2_set_has(&q->meta, c))
            return true;
    }
    return false;
}

int qcow2_look(struct qcow2 *q, uint64_t offset, uint64_t size, bool write, struct qcow2_run *ret)
{
    qcow2_rdlock(q);
    int rc = qcow2_find(q, offset, size, ret);
    if (rc == -EAGAIN) {
        struct qcow2_table *t;

        qcow2_unlock(q);
        qcow2_wrlock(q);
        uint64_t index = offset >> q->cluster_bits >> q->l2_bits;
        rc = index < q->h.l1_entries && q->l1[index] & QCOW2_OFFSET
                 ? qcow2_load_l2(q, (uint32_t)index, &t)
                 : 0;
        if (!rc)
            rc = qcow2_find(q, offset, size, ret);
    }
    bool harmful =
        write && !rc && ret->kind == QCOW2_RUN_DATA && ret->is_ours && hits_metadata(q, ret);
    qcow2_unlock(q);
    if (write && (harmful || rc == -EBADMSG)) {
        qcow2_wrlock(q);
        rc = qcow2_break(q);
        qcow2_unlock(q);
    }
    return rc == -EBADMSG ? -EIO : rc;
}

static void set_l1(struct qcow2 *q, uint32_t index, uint64_t entry)
{
    q->l1[index] = entry;
    q->l1_dirty[index / 64 / 64] |= BIT(index / 64 % 64);
    q->l1_is_dirty = true;
}

/** A new L2 table in the place of what L1 says: empty, or a copy of @old. */
static int replace_l2(struct qcow2 *q, uint32_t index, struct qcow2_table **ret)
{
    uint64_t old = q->l1[index] & QCOW2_OFFSET;
    struct qcow2_table *t = NULL;
    uint64_t offset = 0;
    int rc = qcow2_alloc_meta(q, 1, &offset);

    if (rc)
        return rc;
    if (old) {
        rc = qcow2_load_l2(q, index, &t);
        if (!rc) {
            t->offset = offset;
            t->is_new = true;
            qcow2_table_dirty(q, t, 0, q->cluster_bytes);
        }
    } else {
        rc = qcow2_new_table(q, false, index, offset, &t);
        if (!rc) /* so that the file reaches there */
            qcow2_table_dirty(q, t, 0, DISK_SECTOR);
    }
    if (rc) {
        qcow2_release(q, offset, q->cluster_bytes);
        return rc;
    }
    set_l1(q, index, offset | QCOW2_COPIED);
    if (old)
        qcow2_release(q, old, q->cluster_bytes);
    *ret = t;
    return 0;
}

int qcow2_own_l2(struct qcow2 *q, uint64_t cluster, struct qcow2_table **ret)
{
    uint64_t index = cluster >> q->l2_bits;

    if (index >= q->h.l1_entries)
        return -EIO;
    uint64_t l1 = q->l1[index];
    if (l1 & QCOW2_OFFSET && l1 & QCOW2_COPIED)
        return qcow2_load_l2(q, (uint32_t)index, ret);
    return replace_l2(q, (uint32_t)index, ret);
}

int qcow2_find_l2(struct qcow2 *q, uint64_t cluster, bool own, struct qcow2_table **ret)
{
    uint64_t index = cluster >> q->l2_bits;

    *ret = NULL;
    if (index >= q->h.l1_entries || !(q->l1[index] & QCOW2_OFFSET))
        return 0;
    return own ? qcow2_own_l2(q, cluster, ret) : qcow2_load_l2(q, (uint32_t)index, ret);
}

void qcow2_set_entry(struct qcow2 *q, struct qcow2_table *t, uint32_t i, uint64_t entry,
                     uint64_t subs)
{
    uint8_t *p = t->data + ((size_t)i << q->entry_bits);

    store_be64(p, entry);
    if (q->is_extended)
        store_be64(p + 8, subs);
    qcow2_table_dirty(q, t, i << q->entry_bits, 1u << q->entry_bits);
}

void qcow2_release_entry(struct qcow2 *q, uint64_t entry)
{
    uint64_t offset = align_down(entry & QCOW2_OFFSET, q->cluster_bytes);
    uint64_t bytes = q->cluster_bytes;

    if (q->has_data_file)
        return;
    if (entry & QCOW2_PACKED)
        qcow2_packed_place(q, entry, &offset, &bytes);
    for (uint64_t c = offset >> q->cluster_bits; c << q->cluster_bits < offset + bytes && offset;
         c++) {
        if (!qcow2_set_has(&q->meta, c))
            continue;
        if (entry & QCOW2_COPIED) /* not a guest's to give back */
            (void)qcow2_break(q);
        return; /* a repair may have left it shared: it leaks */
    }
    qcow2_release(q, offset, bytes);
}

int qcow2_drop_l2(struct qcow2 *q, uint32_t index)
{
    uint64_t offset = q->l1[index] & QCOW2_OFFSET;
    struct qcow2_table *t = NULL;
    int rc = qcow2_load_l2(q, index, &t);

    if (rc)
        return rc;
    for (uint32_t i = 0; i < 1u << q->l2_bits; i++)
        qcow2_release_entry(q, qcow2_entry(q, t, i));
    if (t->in_flush) /* a flush refers to it: it stays, empty */
        memset(t->data, 0, q->cluster_bytes);
    if (t->in_flush) {
        qcow2_table_dirty(q, t, 0, q->cluster_bytes);
        return 0;
    }
    qcow2_forget_table(q, t);
    set_l1(q, index, 0);
    qcow2_release(q, offset, q->cluster_bytes);
    return 0;
}

static bool is_busy(const struct qcow2 *q, uint64_t first, uint64_t end)
{
    for (const struct qcow2_busy *b = q->busy; b; b = b->next) {
        if (b->first < end && first < b->end)
            return true;
    }
    return false;
}

void qcow2_wrlock_idle(struct qcow2 *q, uint64_t first, uint64_t end)
{
    for (;;) {
        qcow2_wrlock(q);
        if (!is_busy(q, first, end))
            return;
        mutex_lock(&q->busy_lock); /* before `lock` goes: no end is missed */
        qcow2_unlock(q);
        uint64_t generation = q->busy_generation;
        while (q->busy_generation == generation)
            cond_wait(&q->busy_cond, &q->busy_lock);
        mutex_unlock(&q->busy_lock);
    }
}

void qcow2_busy_begin(struct qcow2 *q, struct qcow2_busy *b)
{
    b->next = q->busy;
    q->busy = b;
}

void qcow2_busy_end(struct qcow2 *q, struct qcow2_busy *b)
{
    struct qcow2_busy **p = &q->busy;

    while (*p != b)
        p = &(*p)->next;
    *p = b->next;
    mutex_lock(&q->busy_lock);
    q->busy_generation++;
    cond_broadcast(&q->busy_cond);
    mutex_unlock(&q->busy_lock);
}
