/* Checking a QCOW2 image: counting references.
 *
 * Each L2 table is walked once, with the number of L1 tables that refer to it as weight, so that
 * the time is bounded by the file's size. Counters are allocated in pieces where something is
 * referred to.
 *
 * Threads: flush_lock and `lock` for writing are held throughout.
 */
#include "disk/qcow2/check.h"
#include "base/fd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAX_CLUSTERS (1ULL << 36)

void qcow2_check_error(struct qcow2_checker *c, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    c->check->errors++;
    if (!c->check->report)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    c->check->report(c->check->arg, text);
}

uint32_t qcow2_count_of(const struct qcow2_checker *c, uint64_t cluster)
{
    const uint32_t *piece = cluster < c->room ? c->pieces[cluster / QCOW2_COUNTS] : NULL;

    return piece ? piece[cluster % QCOW2_COUNTS] : 0;
}

int qcow2_count_add(struct qcow2_checker *c, uint64_t cluster, uint32_t n)
{
    assert(cluster < c->room);
    uint32_t **piece = &c->pieces[cluster / QCOW2_COUNTS];

    if (!*piece)
        *piece = calloc(QCOW2_COUNTS, sizeof(**piece));
    if (!*piece)
        return -ENOMEM;
    uint32_t *count = &(*piece)[cluster % QCOW2_COUNTS];
    *count = *count + n < *count ? UINT32_MAX : *count + n;
    return 0;
}

/** References to all clusters of [offset, offset+bytes), or a finding. */
static int refer(struct qcow2_checker *c, uint64_t offset, uint64_t bytes, uint32_t weight,
                 const char *what)
{
    uint64_t bits = c->q->cluster_bits;
    uint64_t first = offset >> bits;
    uint64_t end = bytes ? ((offset + bytes - 1) >> bits) + 1 : first;
    int rc = 0;

    if (end > c->end) {
        qcow2_check_error(c, "%s at 0x%llx lies beyond the end of the file", what,
                          (unsigned long long)offset);
        end = MAX(MIN(end, c->end), first);
        c->lost += strncmp(what, "refcount", 8) != 0; /* those are made anew */
    }
    for (uint64_t i = first; i < end && !rc; i++)
        rc = qcow2_count_add(c, i, weight);
    return rc;
}

static bool is_table_place(const struct qcow2_checker *c, uint64_t offset)
{
    return !(offset & (c->q->cluster_bytes - 1)) && offset >> c->q->cluster_bits < c->end;
}

static int add_l2(struct qcow2_checker *c, uint64_t offset, bool is_active)
{
    if (c->l2_count == c->l2_room) {
        size_t room = MAX(c->l2_room * 2, (size_t)64);
        struct qcow2_l2_ref *v = realloc(c->l2, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        c->l2 = v;
        c->l2_room = room;
    }
    c->l2[c->l2_count++] =
        (struct qcow2_l2_ref){.offset = offset, .weight = 1, .is_active = is_active};
    return 0;
}

/** An L1 entry that leads nowhere is dropped: what it had is lost already. */
static int fix_l1(struct qcow2_checker *c, uint64_t l1_offset, uint32_t i)
{
    static const uint8_t zero[8];

    if (!qcow2_repairs(c))
        return 0;
    c->check->errors_fixed++;
    return file_pwrite(c->q->file, zero, sizeof(zero), l1_offset + (uint64_t)i * 8);
}

static int walk_l1(struct qcow2_checker *c, uint64_t l1_offset, uint32_t entries, bool is_active)
{
    uint64_t *l1 = NULL;
    struct qcow2_set seen = {0};
    int rc = refer(c, l1_offset, (uint64_t)entries * 8, 1, "L1 table");

    if (!rc)
        rc = qcow2_read_l1(c->q, l1_offset, entries, &l1);
    for (uint32_t i = 0; i < entries && !rc; i++) {
        uint64_t offset = l1[i] & QCOW2_OFFSET;

        if (!offset)
            continue;
        int twice = is_table_place(c, offset) ? qcow2_set_add(&seen, offset) : 0;
        if (twice < 0) {
            rc = twice;
        } else if (!is_table_place(c, offset) || twice) {
            qcow2_check_error(c, "L1 entry %u points to 0x%llx, where no L2 table %s", i,
                              (unsigned long long)offset, twice ? "of its own can be" : "can be");
            rc = fix_l1(c, l1_offset, i);
        } else {
            rc = add_l2(c, offset, is_active);
        }
    }
    free(seen.v);
    free(l1);
    return rc;
}

static int compare_l2(const void *a, const void *b)
{
    const struct qcow2_l2_ref *x = a;
    const struct qcow2_l2_ref *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/** One line for each table. */
static void merge_l2(struct qcow2_checker *c)
{
    size_t n = 0;

    if (!c->l2_count)
        return;
    qsort(c->l2, c->l2_count, sizeof(*c->l2), compare_l2);
    for (size_t i = 1; i < c->l2_count; i++) {
        if (c->l2[i].offset == c->l2[n].offset) {
            c->l2[n].weight += c->l2[i].weight;
            c->l2[n].is_active |= c->l2[i].is_active;
        } else {
            c->l2[++n] = c->l2[i];
        }
    }
    c->l2_count = n + 1;
}

/** What is wrong with an entry, or NULL. */
static const char *entry_fault(const struct qcow2_checker *c, uint64_t entry, uint64_t subs)
{
    const struct qcow2 *q = c->q;
    uint64_t host = entry & QCOW2_OFFSET;
    uint64_t bytes;

    if (entry & QCOW2_PACKED) {
        qcow2_packed_place(q, entry, &host, &bytes);
        if (q->has_data_file)
            return "is compressed, with an external data file";
        if (entry & QCOW2_COPIED)
            return "is compressed and has the copied flag";
        /* The last sector may be cut short by the end of the file. */
        return !host || host >> q->cluster_bits >= c->end ? "leads beyond the end of the file"
                                                          : NULL;
    }
    if (entry & QCOW2_ZERO && (q->h.version == 2 || q->is_extended))
        return "has a zero flag that the format does not have";
    if (q->is_extended && subs & subs >> 32)
        return "has sub-clusters that are zero and data at once";
    if (q->has_data_file)
        return NULL;
    if (q->is_extended && !host && subs & QCOW2_ALL_SUBS)
        return "has data without a place";
    if (entry & QCOW2_COPIED && !host)
        return "has the copied flag without a place";
    if (host & (q->cluster_bytes - 1))
        return "points into the middle of a cluster";
    return host >> q->cluster_bits >= c->end ? "leads beyond the end of the file" : NULL;
}

static int refer_entry(struct qcow2_checker *c, uint64_t entry, const struct qcow2_l2_ref *ref)
{
    struct qcow2 *q = c->q;
    uint64_t host = entry & QCOW2_OFFSET;
    uint64_t bytes = q->cluster_bytes;
    bool packed = entry & QCOW2_PACKED;

    if (packed) {
        qcow2_packed_place(q, entry, &host, &bytes);
        uint64_t room = (c->end << q->cluster_bits) - host;
        bytes = MIN(bytes, room);
    }
    if (!packed && !host && !(q->has_data_file && entry & QCOW2_COPIED))
        return 0;
    if (ref->is_active) {
        c->check->allocated++;
        c->check->packed += packed;
        c->check->fragmented += c->next_host && (packed || host != c->next_host);
        c->next_host = host + bytes;
    }
    return q->has_data_file ? 0 : refer(c, host, bytes, ref->weight, "data");
}

bool qcow2_is_shared(const struct qcow2_checker *c, const struct qcow2_l2_ref *ref)
{
    return qcow2_count_of(c, ref->offset >> c->q->cluster_bits) > ref->weight;
}

static int walk_l2(struct qcow2_checker *c, const struct qcow2_l2_ref *ref)
{
    struct qcow2 *q = c->q;
    bool changed = false;
    int rc = file_pread(q->file, c->buf, q->cluster_bytes, ref->offset);

    if (!rc)
        rc = refer(c, ref->offset, q->cluster_bytes, ref->weight, "L2 table");
    if (!rc && qcow2_is_shared(c, ref)) { /* which of the two it is cannot be known: hands off */
        qcow2_check_error(c, "the L2 table at 0x%llx lies on something else",
                          (unsigned long long)ref->offset);
        c->lost++;
    }
    for (uint32_t i = 0; i < 1u << q->l2_bits && !rc; i++) {
        uint8_t *p = c->buf + ((size_t)i << q->entry_bits);
        uint64_t entry = load_be64(p);
        uint64_t subs = q->is_extended ? load_be64(p + 8) : 0;
        const char *fault = entry || subs ? entry_fault(c, entry, subs) : NULL;

        if (!fault) {
            rc = refer_entry(c, entry, ref);
            continue;
        }
        qcow2_check_error(c, "entry %u of the L2 table at 0x%llx, 0x%llx, %s", i,
                          (unsigned long long)ref->offset, (unsigned long long)entry, fault);
        c->lost += qcow2_is_shared(c, ref);
        if (!qcow2_repairs(c) || qcow2_is_shared(c, ref))
            continue;
        /* Its data cannot be known: zeroes. */
        store_be64(p, q->is_extended || q->h.version == 2 ? 0 : (uint64_t)QCOW2_ZERO);
        if (q->is_extended)
            store_be64(p + 8, QCOW2_ALL_SUBS << 32);
        c->check->errors_fixed++;
        changed = true;
    }
    return !rc && changed ? file_pwrite(q->file, c->buf, q->cluster_bytes, ref->offset) : rc;
}

static int visit_snapshot(void *arg, const struct qcow2_snapshot *s)
{
    return walk_l1(arg, s->l1_offset, s->l1_entries, false);
}

static int visit_bitmap(void *arg, uint64_t offset, uint64_t bytes)
{
    return refer(arg, offset, bytes, 1, "bitmap");
}

/** The refcount table and its blocks. */
static int walk_refcounts(struct qcow2_checker *c)
{
    struct qcow2 *q = c->q;
    int rc = refer(c, q->h.reftable_offset, (uint64_t)q->h.reftable_clusters << q->cluster_bits, 1,
                   "refcount table");

    for (uint32_t i = 0; i < q->reftable_entries && !rc; i++) {
        uint64_t offset = q->reftable[i] & QCOW2_RT_OFFSET;

        if (!offset)
            continue;
        if (!is_table_place(c, offset)) {
            qcow2_check_error(c, "refcount block %u at 0x%llx lies where none can be", i,
                              (unsigned long long)offset);
            c->broken_counts = true;
            continue;
        }
        rc = refer(c, offset, q->cluster_bytes, 1, "refcount block");
        if (!rc && qcow2_count_of(c, offset >> q->cluster_bits) > 1) {
            qcow2_check_error(c, "refcount block %u at 0x%llx lies on something else", i,
                              (unsigned long long)offset);
            c->broken_counts = true;
        }
    }
    return rc;
}

/** All references but those of refcounts to themselves. */
static int count_all(struct qcow2_checker *c, struct error *err)
{
    struct qcow2 *q = c->q;
    uint64_t bytes = 0;
    int rc = refer(c, 0, q->cluster_bytes, 1, "header");

    if (!rc && q->h.crypt_offset)
        rc = refer(c, q->h.crypt_offset, q->h.crypt_bytes, 1, "encryption header");
    if (!rc)
        rc = walk_l1(c, q->h.l1_offset, q->h.l1_entries, true);
    if (!rc)
        rc = qcow2_for_snapshots(q, visit_snapshot, c, &bytes, err);
    if (!rc && bytes)
        rc = refer(c, q->h.snapshots_offset, bytes, 1, "snapshot table");
    if (!rc)
        rc = qcow2_for_bitmap_clusters(q, visit_bitmap, c);
    merge_l2(c);
    for (size_t i = 0; i < c->l2_count && !rc; i++)
        rc = walk_l2(c, &c->l2[i]);
    return rc;
}

static int run_check(struct qcow2_checker *c, struct error *err)
{
    bool leaks = c->flags & (DISK_REPAIR_LEAKS | DISK_REPAIR_ALL);
    int rc = count_all(c, err);

    if (!rc)
        rc = walk_refcounts(c);
    if (!rc && c->broken_counts && qcow2_repairs(c)) {
        rc = qcow2_new_refcounts(c);
        c->check->errors_fixed = c->check->errors - c->lost;
    } else if (!rc) { /* higher ones before flags, lower ones after: at no time too low */
        rc = qcow2_compare_counts(c, true, qcow2_repairs(c), false);
    }
    if (!rc)
        rc = qcow2_check_flags(c);
    if (!rc && leaks && !c->broken_counts)
        rc = qcow2_compare_counts(c, false, false, true);
    return rc ? rc : file_flush(c->q->file);
}

static int checker_init(struct qcow2_checker *c, struct error *err)
{
    c->end = c->q->end;
    /* Refcount structures made anew go behind: they count themselves. */
    c->room = align_up(c->end + c->end / 4 + 65536, QCOW2_COUNTS);
    if (c->end > MAX_CLUSTERS)
        return error_set(err, EFBIG, "'%s' is too long to be checked", c->q->d.path);
    c->pieces = calloc((size_t)(c->room / QCOW2_COUNTS), sizeof(uint32_t *));
    c->buf = malloc(c->q->cluster_bytes);
    return c->pieces && c->buf ? 0 : error_set(err, ENOMEM, "out of memory");
}

static void checker_done(struct qcow2_checker *c)
{
    for (uint64_t i = 0; c->pieces && i < c->room / QCOW2_COUNTS; i++)
        free(c->pieces[i]);
    free(c->pieces);
    free(c->l2);
    free(c->high.v);
    free(c->buf);
}

/** The file has been changed under what is in memory. */
static int after_repair(struct qcow2_checker *c, struct error *err)
{
    struct qcow2 *q = c->q;
    uint64_t bits = QCOW2_DIRTY | QCOW2_CORRUPT;
    int rc = 0;

    if (qcow2_repairs(c) && c->check->errors == c->check->errors_fixed &&
        q->h.incompatible & bits) {
        q->h.incompatible &= ~bits;
        rc = qcow2_header_update(q);
        if (!rc)
            rc = file_flush(q->file);
    }
    if (!rc && qcow2_repairs(c) && c->check->errors == c->check->errors_fixed)
        q->is_broken = false;
    if (rc)
        return error_set(err, -rc, "cannot write '%s': %s", q->file->path, strerror(-rc));
    return qcow2_reload(q, err);
}

/** flush_lock and `lock` for writing; nothing is dirty. */
static int check_locked(struct qcow2 *q, unsigned flags, struct disk_check *check,
                        struct error *err)
{
    struct qcow2_checker c = {.q = q, .check = check, .flags = flags};
    int rc = checker_init(&c, err);

    if (!rc) {
        rc = run_check(&c, err);
        if (rc)
            (void)error_set(err, -rc, "'%s' cannot be checked: %s", q->file->path, strerror(-rc));
    }
    check->clusters = qcow2_clusters(q, q->d.size_bytes);
    check->end_bytes = q->end << q->cluster_bits;
    for (uint64_t i = c.end; i > 0 && !rc && !qcow2_count_of(&c, i - 1); i--)
        check->end_bytes = (i - 1) << q->cluster_bits;
    if (!rc && flags)
        rc = after_repair(&c, err);
    checker_done(&c);
    return rc;
}

int qcow2_check(struct disk *d, unsigned flags, struct disk_check *check, struct error *err)
{
    struct qcow2 *q = qcow2_of(d);
    int rc = d->readonly ? 0 : qcow2_flush_all(q);

    if (rc)
        return error_set(err, -rc, "cannot flush '%s': %s", d->path, strerror(-rc));
    if (flags & DISK_REPAIR_ALL)
        flags |= DISK_REPAIR_LEAKS;
    mutex_lock(&q->flush_lock);
    qcow2_wrlock(q);
    rc = check_locked(q, flags, check, err);
    qcow2_unlock(q);
    mutex_unlock(&q->flush_lock);
    return rc;
}

int qcow2_rebuild(struct qcow2 *q, struct error *err)
{
    struct disk_check check = {0};

    mutex_lock(&q->flush_lock);
    qcow2_wrlock(q);
    int rc = check_locked(q, DISK_REPAIR_ALL | DISK_REPAIR_LEAKS, &check, err);
    qcow2_unlock(q);
    mutex_unlock(&q->flush_lock);
    if (!rc && check.errors != check.errors_fixed)
        rc = error_set(err, EIO, "it was not closed properly and cannot be repaired");
    return rc;
}
