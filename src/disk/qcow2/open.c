/* Opening and closing QCOW2 images.
 *
 * Threads: one, until open returns and after close begins. */
#include "base/fd.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

int qcow2_break(struct qcow2 *q)
{
    if (__atomic_exchange_n(&q->is_broken, true, __ATOMIC_RELAXED)) /* a flag: orders nothing */
        return -EIO;
    if (!q->file->readonly && q->h.version > 2) {
        q->h.incompatible |= QCOW2_CORRUPT;
        if (qcow2_header_update(q))
            return -EIO; /* there is an error to report already */
    }
    return -EIO;
}

void qcow2_free(struct qcow2 *q)
{
    if (q->data != q->file)
        file_close(q->data);
    if (q->l2)
        qcow2_forget_tables(q);
    qcow2_bitmaps_free(q);
    qcow2_unpacked_free(q);
    qcow2_luks_free(q->luks);
    qcow2_header_done(&q->h);
    free(q->head);
    free(q->l1);
    free(q->l1_dirty);
    free(q->l2);
    free(q->reftable);
    free(q->blocks);
    free(q->meta.v);
    free(q->pool.v);
    free(q->freed.v);
    free(q->flushing.v);
    free(q->draining.v);
    (void)pthread_rwlock_destroy(&q->lock); /* not held */
    (void)pthread_rwlock_destroy(&q->crypt_lock);
    mutex_done(&q->busy_lock);
    cond_done(&q->busy_cond);
    mutex_done(&q->flush_lock);
    mutex_done(&q->bitmap_lock);
    free(q);
}

/** Leave the file as others like it: refcounts right, its last sector whole. */
static int put_in_order(struct qcow2 *q)
{
    uint64_t size = 0;
    int rc = qcow2_is_broken(q) ? qcow2_flush(&q->d) : qcow2_bitmaps_store(q);

    if (!rc && !qcow2_is_broken(q))
        rc = qcow2_flush_all(q);
    if (rc || q->file->is_block)
        return rc;
    /* The file ends where its last cluster does: some readers want the whole of it. */
    rc = file_get_size(q->file, &size);
    uint64_t end = MAX(q->end << q->cluster_bits, align_up(size, DISK_SECTOR));
    if (!rc && size < end)
        rc = file_truncate(q->file, end);
    return rc;
}

static void close_disk(struct disk *d)
{
    struct qcow2 *q = qcow2_of(d);
    struct file *file = q->file;

    int rc = d->readonly ? 0 : put_in_order(q);
    (void)rc; /* there is nobody to tell: what was promised has been flushed before */
    qcow2_free(q);
    file_close(file);
}

static int get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    return qcow2_get_info(d, info, err);
}

static const struct disk_ops ops = {
    .preadv = qcow2_preadv,
    .pwritev = qcow2_pwritev,
    .flush = qcow2_flush,
    .discard = qcow2_discard,
    .write_zeroes = qcow2_write_zeroes,
    .status = qcow2_status,
    .place = qcow2_place,
    .fill = qcow2_fill,
    .get_info = get_info,
    .close = close_disk,
    .check = qcow2_check,
    .resize = qcow2_resize,
    .set_backing = qcow2_set_backing,
    .make_empty = qcow2_make_empty,
    .bitmap = qcow2_bitmap_action,
    .allocate = qcow2_allocate,
    .bitmap_find = qcow2_bitmap_find,
    .pack = qcow2_pack,
    .write_packed = qcow2_write_packed,
};

static int read_table(struct file *file, uint64_t offset, uint32_t entries, uint64_t *to)
{
    int rc = entries ? file_pread(file, to, (size_t)entries * 8, offset) : 0;

    for (uint32_t i = 0; i < entries && !rc; i++)
        to[i] = load_be64(&to[i]);
    return rc;
}

int qcow2_read_l1(struct qcow2 *q, uint64_t offset, uint32_t entries, uint64_t **ret)
{
    uint64_t *v = malloc((size_t)entries * 8 + 8);
    int rc = v ? read_table(q->file, offset, entries, v) : -ENOMEM;

    if (rc)
        free(v);
    else
        *ret = v;
    return rc;
}

static int load_tables(struct qcow2 *q, struct error *err)
{
    uint32_t entries = q->h.reftable_clusters << (q->cluster_bits - 3);
    uint32_t l1 = q->h.l1_entries;

    q->l1 = malloc(((size_t)l1 + 64) * 8);
    q->l1_dirty = calloc(((size_t)l1 / 64 + 1) / 64 + 1, 8);
    q->l2 = calloc((size_t)l1 + 1, sizeof(struct qcow2_table *));
    q->reftable = malloc((size_t)entries * 8);
    q->blocks = calloc(entries, sizeof(struct qcow2_table *));
    q->reftable_entries = entries;
    if (!q->l1 || !q->l1_dirty || !q->l2 || !q->reftable || !q->blocks)
        return error_set(err, ENOMEM, "out of memory");
    int rc = read_table(q->file, q->h.l1_offset, l1, q->l1);
    if (!rc)
        rc = read_table(q->file, q->h.reftable_offset, entries, q->reftable);
    return rc ? error_set(err, -rc, "cannot read its tables: %s", strerror(-rc)) : 0;
}

/** 1: something else is there already. */
static int add_meta(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t end = (offset + bytes + q->cluster_bytes - 1) >> q->cluster_bits;
    int twice = 0;

    for (uint64_t c = offset >> q->cluster_bits; c < end && bytes; c++) {
        int rc = qcow2_set_add(&q->meta, c);

        if (rc < 0)
            return rc;
        twice |= rc;
    }
    return twice;
}

static int add_snapshot(void *arg, const struct qcow2_snapshot *s)
{
    struct qcow2 *q = arg;
    uint64_t *l1 = NULL;
    int rc = add_meta(q, s->l1_offset, (uint64_t)s->l1_entries * 8);

    if (rc < 0)
        return rc;
    rc = qcow2_read_l1(q, s->l1_offset, s->l1_entries, &l1);
    for (uint32_t i = 0; i < s->l1_entries && !rc; i++) {
        uint64_t offset = l1[i] & QCOW2_OFFSET;

        if (offset && offset >> q->cluster_bits < q->end) /* L2 tables may be shared */
            rc = MIN(add_meta(q, offset, 1), 0);
    }
    free(l1);
    return rc;
}

static int add_bitmap_clusters(void *arg, uint64_t offset, uint64_t bytes)
{
    return MIN(add_meta(arg, offset, bytes), 0);
}

/** Note where metadata lies. *@ret_twice: two parts of it at one place. */
static int find_meta(struct qcow2 *q, bool *ret_twice, struct error *err)
{
    uint64_t bytes = 0;
    int twice = add_meta(q, 0, q->cluster_bytes);

    twice |= add_meta(q, q->h.l1_offset, (uint64_t)q->h.l1_entries * 8);
    twice |= add_meta(q, q->h.reftable_offset, (uint64_t)q->h.reftable_clusters << q->cluster_bits);
    if (q->h.crypt_offset)
        twice |= add_meta(q, q->h.crypt_offset, q->h.crypt_bytes);
    for (uint32_t i = 0; i < q->reftable_entries && twice >= 0; i++) {
        uint64_t offset = q->reftable[i] & QCOW2_RT_OFFSET;

        if (offset && offset >> q->cluster_bits < q->end)
            twice |= add_meta(q, offset, 1);
    }
    for (uint32_t i = 0; i < q->h.l1_entries && twice >= 0; i++) {
        uint64_t offset = q->l1[i] & QCOW2_OFFSET;

        if (offset && offset >> q->cluster_bits < q->end)
            twice |= add_meta(q, offset, 1);
    }
    if (twice < 0)
        return error_set(err, ENOMEM, "out of memory");
    *ret_twice = twice;
    int rc = qcow2_for_snapshots(q, add_snapshot, q, &bytes, err);
    if (!rc && bytes)
        rc = MIN(add_meta(q, q->h.snapshots_offset, bytes), 0);
    if (!rc)
        rc = qcow2_for_bitmap_clusters(q, add_bitmap_clusters, q);
    return rc ? error_set(err, -rc, "cannot read its tables: %s", strerror(-rc)) : 0;
}

/** Where new clusters are taken. On a block device the file's size says nothing. */
static int find_end(struct qcow2 *q, struct error *err)
{
    uint64_t size = 0;
    int rc = file_get_size(q->file, &size);

    if (rc)
        return error_set(err, -rc, "cannot find its size: %s", strerror(-rc));
    q->end = q->scan_end = qcow2_clusters(q, size);
    for (uint32_t i = q->reftable_entries; q->file->is_block && i-- > 0;) {
        struct qcow2_table *t = NULL;
        uint64_t c = BIT(q->block_bits);

        if (!(q->reftable[i] & QCOW2_RT_OFFSET))
            continue;
        rc = qcow2_load_block(q, i, &t);
        if (rc)
            return error_set(err, -rc, "cannot read its refcounts: %s", strerror(-rc));
        while (c > 0 && !qcow2_refcount_at(t->data, q->h.refcount_order, c - 1))
            c--;
        if (c) {
            q->end = q->scan_end = ((uint64_t)i << q->block_bits) + c;
            break;
        }
    }
    return 0;
}

int qcow2_reload(struct qcow2 *q, struct error *err)
{
    bool twice = false;

    qcow2_forget_tables(q);
    free(q->l1);
    free(q->l1_dirty);
    free(q->l2);
    free(q->reftable);
    free(q->blocks);
    free(q->meta.v);
    q->l1 = q->l1_dirty = q->reftable = NULL;
    q->l2 = q->blocks = NULL;
    q->meta = (struct qcow2_set){0};
    q->l1_is_dirty = false;
    q->pool.count = q->freed.count = q->flushing.count = q->draining.count = 0;
    q->has_draining = false;
    q->scan = 0;
    q->packed_at = q->packed_end = 0;
    qcow2_unpacked_drop(q);
    int rc = load_tables(q, err);
    if (rc) { /* nothing is left that could be used */
        q->h.l1_entries = q->reftable_entries = 0;
        return rc;
    }
    rc = find_end(q, err);
    if (!rc && !q->d.readonly)
        rc = find_meta(q, &twice, err);
    if (!rc && twice)
        q->is_broken = true;
    return rc;
}

/** What writing needs: a sound image, and features that we do not know marked as out of date. */
static int prepare_writing(struct qcow2 *q, const struct disk_open *open, bool twice,
                           struct error *err)
{
    bool is_checked = open->flags & DISK_CHECK;
    uint64_t known = QCOW2_AUTO_BITMAPS | QCOW2_AUTO_RAW_DATA;
    int rc = 0;

    if (!is_checked && (twice || q->h.incompatible & QCOW2_CORRUPT))
        return error_set(err, EIO,
                         "it is damaged%s: open it for reading only, or repair it with "
                         "'posada disk check --repair=all'",
                         twice ? " (two tables lie at one place)" : "");
    if (is_checked && (twice || q->h.incompatible & QCOW2_CORRUPT))
        return 0;
    if (q->h.incompatible & QCOW2_DIRTY && !is_checked)
        rc = qcow2_rebuild(q, err);
    if (!rc && q->h.autoclear & ~known) {
        q->h.autoclear &= known;
        rc = qcow2_header_update(q);
        if (!rc)
            rc = file_flush(q->file);
        if (rc)
            (void)error_set(err, -rc, "cannot write its header: %s", strerror(-rc));
    }
    return rc;
}

static int open_data_file(struct qcow2 *q, const struct disk_open *open, struct error *err)
{
    bool is_given = q->data != q->file;

    q->has_data_file = q->h.incompatible & QCOW2_DATA_FILE;
    q->is_raw_data = q->has_data_file && q->h.autoclear & QCOW2_AUTO_RAW_DATA;
    if (!q->has_data_file || is_given)
        return 0;
    if (!q->h.data_file)
        return error_set(err, EINVAL, "it does not say where its data file is");
    if (q->is_raw_data && q->h.backing)
        return error_set(err, EINVAL, "it has a raw data file and a backing image: that cannot be");
    struct file *file = NULL;
    int rc = disk_open_ref(open, q->h.data_file, &file, err);
    if (!rc)
        q->data = file;
    return rc;
}

static void set_geometry(struct qcow2 *q)
{
    q->cluster_bits = q->h.cluster_bits;
    q->cluster_bytes = 1u << q->cluster_bits;
    q->is_extended = q->h.incompatible & QCOW2_EXTENDED_L2;
    q->entry_bits = q->is_extended ? 4 : 3;
    q->l2_bits = q->cluster_bits - q->entry_bits;
    q->sub_bits = q->is_extended ? q->cluster_bits - 5 : q->cluster_bits;
    q->block_bits = q->cluster_bits + 3 - q->h.refcount_order;
}

static int fill_disk(struct qcow2 *q, const struct disk_open *open, struct error *err)
{
    q->d.ops = &ops;
    q->d.size_bytes = align_up(q->h.size_bytes, DISK_SECTOR);
    q->d.readonly = open->flags & DISK_READONLY;
    q->d.cluster_bytes = q->cluster_bytes;
    if (!q->d.size_bytes)
        return error_set(err, EINVAL, "its size is 0");
    if (q->h.backing) {
        q->d.backing_path = strdup(q->h.backing);
        q->d.backing_format = q->h.backing_format ? strdup(q->h.backing_format) : NULL;
        if (!q->d.backing_path || (q->h.backing_format && !q->d.backing_format))
            return error_set(err, ENOMEM, "out of memory");
    }
    return 0;
}

static int load_image(struct qcow2 *q, const struct disk_open *open, struct error *err)
{
    bool twice = false;
    int rc = qcow2_header_read(q->file, &q->h, &q->head, err);

    if (rc)
        return rc;
    set_geometry(q);
    rc = open_data_file(q, open, err);
    if (!rc)
        rc = load_tables(q, err);
    if (!rc)
        rc = find_end(q, err);
    if (!rc && qcow2_unpacked_new(q))
        rc = error_set(err, ENOMEM, "out of memory");
    if (!rc && q->h.crypt == QCOW2_CRYPT_LUKS)
        rc = qcow2_luks_open(q, open->key_file, open->flags & DISK_CHECK, &q->luks, err);
    if (!rc)
        rc = fill_disk(q, open, err);
    if (!rc)
        rc = qcow2_bitmaps_load(q, err);
    if (!rc && !q->d.readonly)
        rc = find_meta(q, &twice, err);
    if (!rc && !q->d.readonly)
        rc = prepare_writing(q, open, twice, err);
    return rc;
}

int qcow2_open_with(const struct disk_open *open, struct file *file, struct file *data,
                    struct disk **ret, struct error *err)
{
    struct error why = {0};
    pthread_rwlockattr_t attr;
    struct qcow2 *q = calloc(1, sizeof(*q));

    if (!q)
        return error_set(err, ENOMEM, "out of memory");
    /* A stream of readers must not keep a writer waiting for ever; nobody locks twice. */
    (void)pthread_rwlockattr_init(&attr);
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&q->lock, &attr);
    (void)pthread_rwlock_init(&q->crypt_lock, &attr);
    (void)pthread_rwlockattr_destroy(&attr);
    mutex_init(&q->busy_lock);
    cond_init(&q->busy_cond);
    mutex_init(&q->flush_lock);
    mutex_init(&q->bitmap_lock);
    q->file = file;
    q->data = data ? data : file;
    int rc = load_image(q, open, &why);
    if (rc) {
        free(q->d.backing_path);
        free(q->d.backing_format);
        if (data)
            q->data = q->file; /* the caller's */
        qcow2_free(q);
        return error_set(err, -rc, "disk '%s' cannot be opened: %s", file->path, error_text(&why));
    }
    *ret = &q->d;
    return 0;
}

int qcow2_open(const struct disk_open *open, struct file *file, struct disk **ret,
               struct error *err)
{
    return qcow2_open_with(open, file, NULL, ret, err);
}

static bool probe(const uint8_t *head, const uint8_t *tail)
{
    (void)tail;
    return load_be32(head) == QCOW2_MAGIC;
}

const struct disk_format qcow2_format = {
    .name = "qcow2",
    .title = "QCOW2",
    .suffixes = "qcow2 qcow",
    .probe = probe,
    .open = qcow2_open,
    .create = qcow2_create,
    .options = qcow2_options,
    .measure = qcow2_measure,
};
