/* VMDK: the ops of a disk: which extent a byte belongs to.
 *
 * Invariants:
 *  1. Extents follow each other without gaps and cover the disk.
 *  2. The CID changes before the content does, at the first write after opening: so a delta link
 *     whose parent was written to is recognized.
 *  3. Once an extent has been written to, or a place in it was told, each flush flushes its file.
 *
 * Threads: any. `lock` guards the descriptor.
 * Format: docs/formats/vmdk.md. */
#include "disk/vmdk/vmdk.h"
#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* The descriptor */

int vmdk_write_text(struct vmdk *v, char *text)
{
    cleanup(freep) char *owned = text;
    size_t size = text ? strlen(text) : 0;
    int rc = text ? 0 : -ENOMEM;

    if (!v->text_room)
        return -ENOTSUP;
    if (!rc && size > v->text_room)
        rc = -EFBIG;
    if (rc)
        return rc;
    if (v->text_offset) { /* zeroes up to the end of its room */
        cleanup(freep) char *buf = calloc(1, v->text_room);

        if (!buf)
            return -ENOMEM;
        memcpy(buf, text, size);
        rc = file_pwrite(v->file, buf, v->text_room, v->text_offset);
    } else {
        rc = file_pwrite(v->file, text, size, 0);
        if (!rc)
            rc = file_truncate(v->file, size);
    }
    if (rc)
        return rc;
    v->text_unflushed = true;
    free(v->desc.text);
    v->desc.text = ptr_take(&owned);
    return 0;
}

/** A new CID, of as many digits as the old one: so nothing else in the descriptor moves. */
static int change_cid(struct vmdk *v) REQUIRES(v->lock)
{
    size_t at = 0;
    size_t digits = 0;
    char text[9];
    uint32_t cid = 0;

    if (!v->text_room || !vmdk_desc_find_cid(v->desc.text, &at, &digits))
        return 0;
    uint32_t mask = (uint32_t)MASK(digits * 4);
    do { /* neither the old one, nor "none", nor one of fewer digits */
        if (getrandom(&cid, sizeof(cid), 0) != sizeof(cid))
            return -errno;
        cid &= mask;
    } while (cid == v->desc.cid || cid >= 0xfffffffe || !(cid >> (digits * 4 - 4)));
    (void)snprintf(text, sizeof(text), "%0*" PRIx32, (int)digits, cid);
    memcpy(v->desc.text + at, text, digits);
    int rc = file_pwrite(v->file, v->desc.text + at, digits, v->text_offset + at);
    if (!rc) {
        v->desc.cid = cid;
        v->text_unflushed = true;
    }
    return rc;
}

int vmdk_modify(struct vmdk *v)
{
    int rc = 0;

    /* Acquire: pairs with the store below. */
    if (__atomic_load_n(&v->modified, __ATOMIC_ACQUIRE))
        return 0;
    mutex_lock(&v->lock);
    if (!v->modified)
        rc = change_cid(v);
    if (!rc)
        __atomic_store_n(&v->modified, true, __ATOMIC_RELEASE);
    mutex_unlock(&v->lock);
    return rc;
}

/* Ops */

/** The extent of the byte at @offset. */
static struct vmdk_extent *find_extent(struct vmdk *v, uint64_t offset)
{
    unsigned low = 0;
    unsigned high = v->count;

    while (high - low > 1) {
        unsigned mid = (low + high) / 2;

        if (v->extents[mid].start <= offset)
            low = mid;
        else
            high = mid;
    }
    return &v->extents[low];
}

enum vmdk_op { OP_READ, OP_WRITE, OP_ZERO, OP_UNMAP, OP_DISCARD, OP_ALLOCATE };

static int touch(struct vmdk_extent *e)
{
    /* Relaxed: whoever flushes after a write has ended sees it by the order of the requests. */
    if (__atomic_load_n(&e->touched, __ATOMIC_RELAXED))
        return 0;
    int rc = e->sparse && !e->sparse->damage ? vmdk_sparse_set_unclean(e->sparse, true) : 0;
    if (!rc)
        __atomic_store_n(&e->touched, true, __ATOMIC_RELAXED);
    return rc;
}

static int flat_op(struct vmdk_extent *e, enum vmdk_op op, const struct iovec *iov, int n,
                   uint64_t offset, uint64_t size)
{
    offset += e->flat_offset;
    switch (op) {
    case OP_READ:
        return file_preadv(e->file, iov, n, offset);
    case OP_WRITE:
        return file_pwritev(e->file, iov, n, offset);
    case OP_DISCARD:
        return file_discard(e->file, offset, size);
    case OP_ALLOCATE:
        return 0; /* all of it is there */
    case OP_ZERO:
    case OP_UNMAP:
        break;
    }
    return file_write_zeroes(e->file, offset, size, op == OP_UNMAP);
}

static int sparse_op(struct vmdk_extent *e, enum vmdk_op op, const struct iovec *iov, int n,
                     uint64_t offset, uint64_t size)
{
    struct blocks *b = &e->sparse->b;

    switch (op) {
    case OP_READ:
        return blocks_preadv(b, iov, n, offset);
    case OP_WRITE:
        return e->sparse->is_packed ? vmdk_stream_write(e->sparse, iov, n, offset)
                                    : blocks_pwritev(b, iov, n, offset);
    case OP_DISCARD:
        return blocks_discard(b, offset, size);
    case OP_ALLOCATE:
        return e->sparse->is_packed ? -ENOTSUP : blocks_allocate(b, offset, size);
    case OP_ZERO:
    case OP_UNMAP:
        break;
    }
    return blocks_write_zeroes(b, offset, size, op == OP_UNMAP);
}

/** Nothing is there: zeroes, and only they can be written. */
static int zero_op(enum vmdk_op op, const struct iovec *iov, int n)
{
    if (op == OP_WRITE || op == OP_ALLOCATE)
        return -EROFS;
    for (int i = 0; op == OP_READ && i < n; i++)
        memset(iov[i].iov_base, 0, iov[i].iov_len);
    return 0;
}

static int run_op(struct disk *d, enum vmdk_op op, const struct iovec *iov, int iovcnt,
                  uint64_t offset, uint64_t size)
{
    struct vmdk *v = vmdk_of(d);
    struct iovec part[DISK_MAX_IOV];
    uint64_t start = offset;
    uint64_t end = offset + size;
    int rc = op == OP_READ ? 0 : vmdk_modify(v);

    while (!rc && offset < end) {
        struct vmdk_extent *e = find_extent(v, offset);
        uint64_t at = offset - e->start;
        uint64_t now = MIN(end - offset, e->size_bytes - at);
        const struct iovec *use = iov;
        int n = iovcnt;

        if (iov && now != size) {
            n = (int)iov_slice(part, iov, (unsigned)iovcnt, offset - start, now);
            use = part;
        }
        if (op != OP_READ)
            rc = e->readonly ? -EROFS : touch(e);
        if (!rc && e->kind == VMDK_FLAT)
            rc = flat_op(e, op, use, n, at, now);
        else if (!rc)
            rc = e->sparse ? sparse_op(e, op, use, n, at, now) : zero_op(op, use, n);
        offset += now;
    }
    return rc;
}

static int vmdk_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return run_op(d, OP_READ, iov, iovcnt, offset, iov_bytes(iov, (unsigned)iovcnt));
}

static int vmdk_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return run_op(d, OP_WRITE, iov, iovcnt, offset, iov_bytes(iov, (unsigned)iovcnt));
}

static int vmdk_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    return run_op(d, OP_DISCARD, NULL, 0, offset, size);
}

static int vmdk_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    return run_op(d, may_unmap ? OP_UNMAP : OP_ZERO, NULL, 0, offset, size);
}

static int vmdk_allocate(struct disk *d, uint64_t offset, uint64_t size)
{
    return run_op(d, OP_ALLOCATE, NULL, 0, offset, size);
}

static int flat_status(struct vmdk_extent *e, uint64_t at, uint64_t size, struct disk_extent *ret)
{
    uint64_t start = 0;
    uint64_t end = 0;
    int rc = file_find_data(e->file, e->flat_offset + at, &start, &end);

    if (rc && rc != -ENXIO)
        return rc;
    at += e->flat_offset;
    if (rc || start > at)
        *ret = (struct disk_extent){.kind = DISK_ZERO, .size = rc ? size : MIN(size, start - at)};
    else
        *ret = (struct disk_extent){
            .kind = DISK_DATA,
            .size = MIN(size, end - at),
            .file = e->file,
            .file_offset = at,
        };
    return 0;
}

static int vmdk_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct vmdk_extent *e = find_extent(vmdk_of(d), offset);
    uint64_t at = offset - e->start;

    size = MIN(size, e->size_bytes - at);
    if (e->kind == VMDK_FLAT)
        return flat_status(e, at, size, ret);
    if (e->sparse)
        return blocks_status(&e->sparse->b, at, size, ret);
    *ret = (struct disk_extent){.kind = DISK_ZERO, .size = size};
    return 0;
}

static int vmdk_place(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct vmdk_extent *e = find_extent(vmdk_of(d), offset);
    uint64_t at = offset - e->start;
    uint64_t file_bytes = 0;

    size = MIN(size, e->size_bytes - at);
    *ret = (struct disk_extent){.kind = DISK_PACKED, .size = size};
    /* Acquire: pairs with vmdk_modify(). The first write goes through the format. */
    if (!__atomic_load_n(&vmdk_of(d)->modified, __ATOMIC_ACQUIRE) || e->readonly ||
        !__atomic_load_n(&e->touched, __ATOMIC_RELAXED) || e->kind == VMDK_ZERO)
        return 0;
    if (e->sparse)
        return e->sparse->damage ? 0 : blocks_place(&e->sparse->b, at, size, ret);
    int rc = file_get_size(e->file, &file_bytes);
    at += e->flat_offset;
    if (!rc && at < file_bytes) /* beyond, a write makes the file longer */
        *ret = (struct disk_extent){
            .kind = DISK_DATA,
            .size = MIN(size, file_bytes - at),
            .file = e->file,
            .file_offset = at,
        };
    return rc;
}

static int flush_text(struct vmdk *v)
{
    mutex_lock(&v->lock);
    bool todo = v->text_unflushed;
    v->text_unflushed = false;
    mutex_unlock(&v->lock);
    if (!todo)
        return 0;
    int rc = file_flush(v->file);
    if (rc) {
        mutex_lock(&v->lock);
        v->text_unflushed = true;
        mutex_unlock(&v->lock);
    }
    return rc;
}

int vmdk_flush(struct disk *d)
{
    struct vmdk *v = vmdk_of(d);
    bool one_file = v->count == 1 && v->extents[0].file == v->file;
    /* With one file, the flush of its data does for the descriptor. */
    int rc = one_file ? 0 : flush_text(v);

    for (unsigned i = 0; !rc && i < v->count; i++) {
        struct vmdk_extent *e = &v->extents[i];

        if (e->kind == VMDK_ZERO || e->readonly ||
            (!one_file && !__atomic_load_n(&e->touched, __ATOMIC_RELAXED)))
            continue;
        rc = e->sparse ? vmdk_sparse_flush(e->sparse) : file_flush(e->file);
    }
    return rc;
}

static int vmdk_pack(struct disk *d, const void *data, void *dst, size_t dst_size, size_t *ret_size)
{
    struct vmdk_sparse *s = vmdk_of(d)->extents[0].sparse;

    return s && s->is_packed ? vmdk_stream_pack(s, data, dst, dst_size, ret_size) : -E2BIG;
}

static int vmdk_write_packed(struct disk *d, uint64_t offset, const void *packed, size_t size)
{
    struct vmdk *v = vmdk_of(d);
    int rc = vmdk_modify(v);

    if (!rc)
        rc = touch(&v->extents[0]);
    return rc ? rc
              : vmdk_stream_append(v->extents[0].sparse, offset / d->cluster_bytes, packed, size);
}

static int vmdk_match_below(struct disk *d, const struct disk *below, struct error *err)
{
    const struct vmdk *v = vmdk_of(d);
    const struct vmdk *parent = (const struct vmdk *)below;

    if (below->format != &vmdk_format)
        return error_set(err, EINVAL, "disk '%s' is a VMDK image, and '%s' below it is not",
                         d->path, below->path);
    if (v->desc.parent_cid != parent->desc.cid)
        return error_set(
            err, EINVAL,
            "disk '%s' was made over '%s', which has been written to since (content ID %08x, now %08x): "
            "its content would be wrong",
            d->path, below->path, v->desc.parent_cid, parent->desc.cid);
    return 0;
}

static int vmdk_get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    struct vmdk *v = vmdk_of(d);

    (void)err;
    mutex_lock(&v->lock);
    if (v->desc.text) {
        disk_info_text(info, "create-type", v->desc.create_type);
        disk_info_number(info, "cid", v->desc.cid);
        disk_info_number(info, "parent-cid", v->desc.parent_cid);
    }
    mutex_unlock(&v->lock);
    disk_info_number(info, "extents", v->count);
    for (unsigned i = 0; i < v->count; i++) {
        const struct vmdk_sparse *s = v->extents[i].sparse;

        if (!s)
            continue;
        info->is_packed |= s->is_packed;
        info->is_corrupt |= s->damage != NULL;
        info->is_dirty |= !s->is_cowd && s->head[VMDK_AT_UNCLEAN];
    }
    return 0;
}

static void vmdk_close(struct disk *d)
{
    struct vmdk *v = vmdk_of(d);
    int rc = d->readonly ? -EROFS : vmdk_flush(d);

    for (unsigned i = 0; !rc && i < v->count; i++) {
        if (v->extents[i].sparse && v->extents[i].touched && !v->extents[i].sparse->damage)
            rc = vmdk_sparse_set_unclean(v->extents[i].sparse, false);
    }
    vmdk_free(v, true);
}

const struct disk_ops vmdk_ops = {
    .preadv = vmdk_preadv,
    .pwritev = vmdk_pwritev,
    .flush = vmdk_flush,
    .discard = vmdk_discard,
    .write_zeroes = vmdk_write_zeroes,
    .status = vmdk_status,
    .place = vmdk_place,
    .allocate = vmdk_allocate,
    .get_info = vmdk_get_info,
    .close = vmdk_close,
    .check = vmdk_check,
    .resize = vmdk_resize,
    .set_backing = vmdk_set_backing,
    .make_empty = vmdk_make_empty,
    .match_below = vmdk_match_below,
    .pack = vmdk_pack,
    .write_packed = vmdk_write_packed,
};
