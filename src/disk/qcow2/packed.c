/* Compressed clusters of a QCOW2 disk: raw deflate or zstd.
 *
 * A packed cluster takes any bytes of the file; several share a cluster of it, whose refcount is
 * their number. The last clusters unpacked are kept, since guests read less than a cluster at once.
 *
 * Threads: any; the kept ones have a lock of their own, below `lock`. write_packed(): one thread.
 * Spec: qcow2.txt, "Cluster mapping". */
#include "base/fd.h"
#include "base/iov.h"
#include "disk/packing.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

#define KEPT 8

struct qcow2_unpacked {
    struct mutex lock;
    struct {
        uint64_t entry; /* its descriptor; 0 = none */
        uint64_t stamp;
        uint8_t *bytes;
    } kept[KEPT];          /* [lock] */
    uint64_t stamp;        /* [lock] */
    struct packer *packer; /* [init] */
};

static struct qcow2_unpacked *unpacked_of(struct qcow2 *q)
{
    return q->unpacked;
}

int qcow2_unpacked_new(struct qcow2 *q)
{
    q->unpacked = calloc(1, sizeof(*q->unpacked));
    if (!q->unpacked)
        return -ENOMEM;
    mutex_init(&q->unpacked->lock);
    q->unpacked->packer = packer_new();
    return q->unpacked->packer ? 0 : -ENOMEM;
}

void qcow2_unpacked_drop(struct qcow2 *q)
{
    struct qcow2_unpacked *u = unpacked_of(q);

    mutex_lock(&u->lock);
    for (unsigned i = 0; i < KEPT; i++) {
        free(u->kept[i].bytes);
        u->kept[i].bytes = NULL;
        u->kept[i].entry = 0;
    }
    mutex_unlock(&u->lock);
}

void qcow2_unpacked_free(struct qcow2 *q)
{
    if (!q->unpacked)
        return;
    qcow2_unpacked_drop(q);
    packer_free(q->unpacked->packer);
    mutex_done(&q->unpacked->lock);
    free(q->unpacked);
    q->unpacked = NULL;
}

static void copy_out(const struct iovec *iov, int n, const uint8_t *from)
{
    for (int i = 0; i < n; i++) {
        memcpy(iov[i].iov_base, from, iov[i].iov_len);
        from += iov[i].iov_len;
    }
}

static bool read_kept(struct qcow2_unpacked *u, uint64_t entry, uint64_t skip,
                      const struct iovec *iov, int n)
{
    bool found = false;

    mutex_lock(&u->lock);
    for (unsigned i = 0; i < KEPT && !found; i++) {
        if (u->kept[i].entry != entry)
            continue;
        u->kept[i].stamp = ++u->stamp;
        copy_out(iov, n, u->kept[i].bytes + skip);
        found = true;
    }
    mutex_unlock(&u->lock);
    return found;
}

/** Takes @bytes. */
static void keep(struct qcow2_unpacked *u, uint64_t entry, uint8_t *bytes)
{
    unsigned oldest = 0;

    mutex_lock(&u->lock);
    for (unsigned i = 1; i < KEPT; i++) {
        if (u->kept[i].stamp < u->kept[oldest].stamp)
            oldest = i;
    }
    free(u->kept[oldest].bytes);
    u->kept[oldest].bytes = bytes;
    u->kept[oldest].entry = entry;
    u->kept[oldest].stamp = ++u->stamp;
    mutex_unlock(&u->lock);
}

static int unpack(struct qcow2 *q, const uint8_t *from, size_t size, uint8_t *to)
{
    enum pack_kind kind = q->h.compression == QCOW2_ZSTD ? PACK_ZSTD : PACK_DEFLATE;
    size_t got = 0;
    int rc = packer_unpack(q->unpacked->packer, kind, from, size, to, q->cluster_bytes, &got);

    return rc ? rc : got == q->cluster_bytes ? 0 : -EIO;
}

int qcow2_read_packed(struct qcow2 *q, uint64_t entry, uint64_t skip, const struct iovec *iov,
                      int iovcnt)
{
    uint64_t offset;
    uint64_t size;

    if (read_kept(q->unpacked, entry, skip, iov, iovcnt))
        return 0;
    qcow2_packed_place(q, entry, &offset, &size);
    bool is_whole = iovcnt == 1 && iov->iov_len == q->cluster_bytes;
    cleanup(freep) uint8_t *packed = malloc((size_t)size);
    cleanup(freep) uint8_t *bytes = is_whole ? NULL : malloc(q->cluster_bytes);
    if (!packed || (!is_whole && !bytes))
        return -ENOMEM;
    int rc = file_pread(q->file, packed, (size_t)size, offset);
    if (!rc)
        rc = unpack(q, packed, (size_t)size, is_whole ? iov->iov_base : bytes);
    if (rc || is_whole) /* whoever reads whole clusters does not come back for more of one */
        return rc;
    copy_out(iov, iovcnt, bytes + skip);
    keep(q->unpacked, entry, ptr_take(&bytes));
    return 0;
}

int qcow2_pack(struct disk *d, const void *data, void *dst, size_t dst_size, size_t *ret_size)
{
    struct qcow2 *q = qcow2_of(d);
    size_t room = MIN(dst_size, (size_t)q->cluster_bytes - 1); /* else it gains nothing */

    if (q->has_data_file || q->luks)
        return -E2BIG; /* cannot be packed at all */
    return packer_pack(q->unpacked->packer,
                       q->h.compression == QCOW2_ZSTD ? PACK_ZSTD : PACK_DEFLATE, data,
                       q->cluster_bytes, dst, room, ret_size);
}

/** The begun cluster has no room for @size bytes: another one, in a row with it if possible. */
static int more_room(struct qcow2 *q, size_t size)
{
    uint64_t next = 0;
    uint64_t got = 0;
    uint64_t count = 0;
    uint64_t begun = q->packed_at >> q->cluster_bits;
    int rc = qcow2_alloc(q, 1, &next, &got);

    if (rc)
        return rc;
    uint64_t offset = next << q->cluster_bits;
    bool in_row = q->packed_at && q->packed_end == offset && q->packed_at < q->packed_end;
    if (in_row)
        rc = qcow2_get_refcount(q, begun, &count);
    if (!rc && in_row && count && count < qcow2_max_refcount(q)) {
        rc = qcow2_set_refcount(q, begun, count + 1); /* its rest is used by this one */
    } else {
        q->packed_at = offset;
        (void)size; /* less than a cluster */
    }
    q->packed_end = offset + q->cluster_bytes;
    return rc;
}

/** A place for @size packed bytes, counted. `lock` for writing. */
static int place_packed(struct qcow2 *q, size_t size, uint64_t *ret)
{
    uint64_t begun = q->packed_at >> q->cluster_bits;
    uint64_t count = 0;
    int rc = 0;

    if (q->packed_at && q->packed_end - q->packed_at >= size) {
        rc = qcow2_get_refcount(q, begun, &count);
        if (!rc && count && count < qcow2_max_refcount(q)) {
            rc = qcow2_set_refcount(q, begun, count + 1);
        } else {
            q->packed_at = q->packed_end = 0;
            rc = rc ? rc : more_room(q, size);
        }
    } else {
        rc = more_room(q, size);
    }
    if (rc)
        return rc;
    *ret = q->packed_at;
    q->packed_at += size;
    if (q->packed_at == q->packed_end)
        q->packed_at = q->packed_end = 0;
    return 0;
}

static int reserve_packed(struct qcow2 *q, struct qcow2_busy *busy, size_t size, uint64_t *ret)
{
    struct qcow2_table *t = NULL;
    unsigned offset_bits = 62 - (q->cluster_bits - 8);
    int rc = qcow2_is_broken(q) ? -EIO : qcow2_own_l2(q, busy->first, &t);

    if (!rc)
        rc = place_packed(q, size, ret);
    if (!rc && (*ret + size) >> MIN(offset_bits, 56u)) {
        qcow2_release(q, *ret, size);
        rc = -EFBIG;
    }
    if (!rc)
        qcow2_busy_begin(q, busy);
    return rc;
}

int qcow2_write_packed(struct disk *d, uint64_t offset, const void *packed, size_t size)
{
    struct qcow2 *q = qcow2_of(d);
    uint64_t cluster = offset >> q->cluster_bits;
    struct qcow2_busy busy = {.first = cluster, .end = cluster + 1};
    struct qcow2_table *t = NULL;
    uint64_t at = 0;

    if (offset & (q->cluster_bytes - 1) || !size || size >= q->cluster_bytes || q->has_data_file ||
        q->luks)
        return -EINVAL;
    int rc = qcow2_flush_if_much(q);
    if (!rc)
        rc = qcow2_bitmaps_mark(q, offset, q->cluster_bytes);
    if (rc)
        return rc;
    qcow2_wrlock_idle(q, busy.first, busy.end);
    rc = reserve_packed(q, &busy, size, &at);
    qcow2_unlock(q);
    if (rc)
        return rc;
    rc = file_pwrite(q->file, packed, size, at);
    qcow2_wrlock(q);
    if (!rc)
        rc = qcow2_own_l2(q, cluster, &t);
    if (!rc) {
        uint32_t i = qcow2_l2_index(q, cluster);
        uint64_t old = qcow2_entry(q, t, i);
        uint64_t sectors = (at + size - 1) / DISK_SECTOR - at / DISK_SECTOR;

        qcow2_set_entry(q, t, i, QCOW2_PACKED | sectors << (62 - (q->cluster_bits - 8)) | at, 0);
        qcow2_release_entry(q, old);
    } else {
        qcow2_release(q, at, size);
    }
    qcow2_busy_end(q, &busy);
    qcow2_unlock(q);
    return rc;
}
