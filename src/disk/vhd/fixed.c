/* Fixed VHD disks: the data, then a footer. Spec: VHD 1.0, "Fixed Hard Disk Image".
 *
 * Threads: any; the kernel serializes. Resizing: no other request runs.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhd/vhd.h"

#include <string.h>

static int fixed_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return file_preadv(vhd_of(d)->m.file, iov, iovcnt, offset);
}

static int fixed_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return file_pwritev(vhd_of(d)->m.file, iov, iovcnt, offset);
}

static int fixed_flush(struct disk *d)
{
    return file_flush(vhd_of(d)->m.file);
}

static int fixed_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    return file_discard(vhd_of(d)->m.file, offset, size);
}

static int fixed_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    return file_write_zeroes(vhd_of(d)->m.file, offset, size, may_unmap);
}

static int fixed_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct file *file = vhd_of(d)->m.file;
    uint64_t start;
    uint64_t end;
    int rc = file_find_data(file, offset, &start, &end);

    if (rc && rc != -ENXIO)
        return rc;
    *ret = (struct disk_extent){.kind = DISK_ZERO, .size = size};
    if (!rc && start > offset)
        ret->size = MIN(size, start - offset);
    if (!rc && start <= offset)
        *ret = (struct disk_extent){
            .kind = DISK_DATA,
            .size = MIN(size, end - offset),
            .file = file,
            .file_offset = offset,
        };
    return 0;
}

static int fixed_place(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    *ret = (struct disk_extent){
        .kind = DISK_DATA,
        .size = size,
        .file = vhd_of(d)->m.file,
        .file_offset = offset,
    };
    return 0;
}

static int fixed_get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    char id[40];

    (void)err;
    vhd_id_text(vhd_of(d)->f.id, id, sizeof(id));
    disk_info_file(info, vhd_of(d)->m.file);
    disk_info_text(info, "subformat", "fixed");
    disk_info_text(info, "unique-id", id);
    return 0;
}

static void fixed_close(struct disk *d)
{
    file_close(vhd_of(d)->m.file);
    free(d);
}

/** The new footer comes first and is durable before the old one goes, so that there always is one:
 * a fixed disk has no copy. */
static int fixed_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err)
{
    struct vhd *v = vhd_of(d);
    uint64_t old = v->f.size_bytes;

    (void)shrink; /* the caller has checked */
    if (size_bytes > VHD_MAX_BYTES)
        return error_set(err, EFBIG, "a VHD disk has at most 2040 GiB");
    v->f.size_bytes = size_bytes;
    vhd_footer_update(v->footer, &v->f);
    int rc = file_pwrite(v->m.file, v->footer, VHD_FOOTER_BYTES, size_bytes);
    if (!rc)
        rc = file_flush(v->m.file);
    if (!rc && size_bytes > old)
        rc = file_write_zeroes(v->m.file, old, MIN(size_bytes - old, (uint64_t)VHD_FOOTER_BYTES),
                               false);
    if (!rc && size_bytes < old)
        rc = file_truncate(v->m.file, size_bytes + VHD_FOOTER_BYTES);
    if (!rc)
        rc = file_flush(v->m.file);
    if (rc) {
        v->f.size_bytes = old;
        vhd_footer_update(v->footer, &v->f);
        return error_set(err, -rc, "cannot resize '%s': %s", v->m.file->path, strerror(-rc));
    }
    __atomic_store_n(&d->size_bytes, size_bytes, __ATOMIC_RELAXED); /* a size alone */
    return 0;
}

/** There is no table; the footer was good, or this would not be open. */
static int fixed_check(struct disk *d, unsigned flags, struct disk_check *check, struct error *err)
{
    (void)flags;
    (void)err;
    check->end_bytes = d->size_bytes + VHD_FOOTER_BYTES;
    return 0;
}

const struct disk_ops vhd_fixed_ops = {
    .preadv = fixed_preadv,
    .pwritev = fixed_pwritev,
    .flush = fixed_flush,
    .discard = fixed_discard,
    .write_zeroes = fixed_write_zeroes,
    .status = fixed_status,
    .place = fixed_place,
    .get_info = fixed_get_info,
    .close = fixed_close,
    .check = fixed_check,
    .resize = fixed_resize,
};
