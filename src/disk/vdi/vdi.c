/* VDI: opening, and the ops of the disk.
 *
 * Threads: any; see blocks.h for data and vdi_map.c for the map.
 * Format: docs/formats/vdi.md.
 */
#include "disk/vdi/vdi.h"
#include "base/bits.h"
#include "base/fd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool vdi_probe(const uint8_t *head, const uint8_t *tail)
{
    (void)tail;
    return load_le32(head + VDI_AT_SIGNATURE) == VDI_SIGNATURE;
}

static int vdi_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    return blocks_preadv(&vdi_of(d)->b, iov, iovcnt, offset);
}

static int vdi_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    int rc = vdi_modify(vdi_of(d));

    return rc ? rc : blocks_pwritev(&vdi_of(d)->b, iov, iovcnt, offset);
}

static int vdi_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    int rc = vdi_modify(vdi_of(d));

    return rc ? rc : blocks_discard(&vdi_of(d)->b, offset, size);
}

static int vdi_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    int rc = vdi_modify(vdi_of(d));

    return rc ? rc : blocks_write_zeroes(&vdi_of(d)->b, offset, size, may_unmap);
}

static int vdi_allocate(struct disk *d, uint64_t offset, uint64_t size)
{
    int rc = vdi_modify(vdi_of(d));

    return rc ? rc : blocks_allocate(&vdi_of(d)->b, offset, size);
}

static int vdi_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    return blocks_status(&vdi_of(d)->b, offset, size, ret);
}

static int vdi_place(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    /* Acquire: pairs with vdi_modify(). The first write goes through the format. */
    if (__atomic_load_n(&vdi_of(d)->modified, __ATOMIC_ACQUIRE))
        return blocks_place(&vdi_of(d)->b, offset, size, ret);
    *ret = (struct disk_extent){.kind = DISK_PACKED, .size = size};
    return 0;
}

static int vdi_get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    static const char *const types[] = {"?", "dynamic", "fixed", "undo", "differencing"};
    struct vdi *v = vdi_of(d);
    char uuid[37];

    (void)err;
    mutex_lock(&v->lock);
    disk_info_text(info, "type", types[load_le32(v->head + VDI_AT_TYPE)]);
    vdi_uuid_text(v->head + VDI_AT_UUID, uuid);
    disk_info_text(info, "uuid", uuid);
    vdi_uuid_text(v->head + VDI_AT_UUID_MODIFY, uuid);
    disk_info_text(info, "modification-uuid", uuid);
    if (!vdi_is_null_uuid(v->head + VDI_AT_UUID_LINK)) {
        vdi_uuid_text(v->head + VDI_AT_UUID_LINK, uuid);
        disk_info_text(info, "parent-uuid", uuid);
    }
    mutex_unlock(&v->lock);
    info->is_corrupt = v->damage;
    return 0;
}

static void vdi_free(struct vdi *v)
{
    blocks_done(&v->b);
    vdi_map_done(v);
    mutex_done(&v->flush_lock);
    mutex_done(&v->lock);
    free(v);
}

static void vdi_close(struct disk *d)
{
    struct vdi *v = vdi_of(d);

    if (!d->readonly)
        (void)!vdi_flush(d); /* nobody is left to be told; what was flushed before is safe */
    file_close(v->file);
    vdi_free(v);
}

static const struct disk_ops vdi_ops = {
    .preadv = vdi_preadv,
    .pwritev = vdi_pwritev,
    .flush = vdi_flush,
    .discard = vdi_discard,
    .write_zeroes = vdi_write_zeroes,
    .status = vdi_status,
    .place = vdi_place,
    .allocate = vdi_allocate,
    .get_info = vdi_get_info,
    .close = vdi_close,
    .check = vdi_check,
    .resize = vdi_resize,
    .set_backing = vdi_set_backing,
    .make_empty = vdi_make_empty,
    .match_below = vdi_match_below,
};

static int check_kind(const char *path, const uint8_t *head, struct error *err)
{
    uint32_t version = load_le32(head + VDI_AT_VERSION);
    uint32_t type = load_le32(head + VDI_AT_TYPE);

    if (load_le32(head + VDI_AT_SIGNATURE) != VDI_SIGNATURE)
        return error_set(err, EINVAL, "disk '%s' is not a VDI image", path);
    if (version != VDI_VERSION)
        return error_set(err, ENOTSUP,
                         "disk '%s' is a VDI image of version %u.%u: only 1.1 is known", path,
                         version >> 16, version & 0xffff);
    if (type != VDI_DYNAMIC && type != VDI_FIXED && type != VDI_DIFF)
        return error_set(err, ENOTSUP, "disk '%s' is a VDI image of type %u, which is not known",
                         path, type);
    if (load_le32(head + VDI_AT_SECTOR_SIZE) != DISK_SECTOR)
        return error_set(err, ENOTSUP, "disk '%s' has sectors of %u bytes, not 512", path,
                         load_le32(head + VDI_AT_SECTOR_SIZE));
    if (load_le32(head + VDI_AT_BLOCK_EXTRA))
        return error_set(err, ENOTSUP, "disk '%s' keeps extra data with its blocks", path);
    return 0;
}

static int check_sizes(const char *path, const uint8_t *head, uint64_t file_bytes,
                       struct error *err)
{
    uint64_t size = load_le64(head + VDI_AT_DISK_SIZE);
    uint32_t block = load_le32(head + VDI_AT_BLOCK_SIZE);
    uint32_t blocks = load_le32(head + VDI_AT_BLOCKS);
    uint32_t map = load_le32(head + VDI_AT_OFFSET_MAP);
    uint32_t data = load_le32(head + VDI_AT_OFFSET_DATA);

    if (!size || size > DISK_MAX_BYTES)
        return error_set(err, EINVAL, "disk '%s' claims to have %" PRIu64 " bytes", path, size);
    if (!is_pow2(block) || block < 4096 || block > 64u << 20)
        return error_set(err, EINVAL, "disk '%s' claims to have blocks of %u bytes", path, block);
    if (blocks > VDI_MAX_BLOCKS)
        return error_set(err, EFBIG, "disk '%s' has %u blocks: at most %u are supported", path,
                         blocks, VDI_MAX_BLOCKS);
    if (size > (uint64_t)blocks * block)
        return error_set(err, EINVAL, "disk '%s' has %u blocks, too few for its size", path,
                         blocks);
    if (map < DISK_SECTOR || map % DISK_SECTOR || data % DISK_SECTOR ||
        data < map + (uint64_t)blocks * 4 || map + (uint64_t)blocks * 4 > file_bytes)
        return error_set(err, EINVAL, "disk '%s' has its block map in an impossible place", path);
    return 0;
}

static int read_head(struct file *file, uint8_t *head, struct error *err)
{
    uint64_t file_bytes = 0;
    int rc = file_get_size(file, &file_bytes);

    if (!rc)
        rc = file_pread(file, head, DISK_SECTOR, 0);
    if (rc)
        return error_set(err, -rc, "cannot read disk '%s': %s", file->path, strerror(-rc));
    rc = check_kind(file->path, head, err);
    return rc ? rc : check_sizes(file->path, head, file_bytes, err);
}

static void fill(struct vdi *v, const struct disk_open *open, struct file *file)
{
    uint64_t size = load_le64(v->head + VDI_AT_DISK_SIZE);

    v->d = (struct disk){
        .ops = &vdi_ops,
        .size_bytes = align_up(size, DISK_SECTOR),
        .readonly = open->flags & DISK_READONLY,
        .cluster_bytes = load_le32(v->head + VDI_AT_BLOCK_SIZE),
    };
    v->file = file;
    v->blocks = load_le32(v->head + VDI_AT_BLOCKS);
    v->offset_map = load_le32(v->head + VDI_AT_OFFSET_MAP);
    v->offset_data = load_le32(v->head + VDI_AT_OFFSET_DATA);
    v->slots_in_file = load_le32(v->head + VDI_AT_ALLOCATED);
    v->b = (struct blocks){
        .ops = &vdi_blocks_ops,
        .d = &v->d,
        .file = file,
        .size_bytes = v->d.size_bytes,
        .block_bytes = v->d.cluster_bytes,
        .can_zero = true,
    };
    blocks_init(&v->b);
    mutex_init(&v->flush_lock);
    mutex_init(&v->lock);
}

static int vdi_open(const struct disk_open *open, struct file *file, struct disk **ret,
                    struct error *err)
{
    struct vdi *v = calloc(1, sizeof(*v));
    int rc = v ? read_head(file, v->head, err) : error_set(err, ENOMEM, "out of memory");

    if (rc) {
        free(v);
        return rc;
    }
    fill(v, open, file);
    rc = vdi_map_load(v, !v->d.readonly, err);
    if (!rc && load_le32(v->head + VDI_AT_TYPE) == VDI_DIFF) {
        /* The parent is always of this format. */
        v->d.backing_format = strdup("vdi");
        if (!v->d.backing_format)
            rc = error_set(err, ENOMEM, "out of memory");
    }
    if (!rc && v->damage && !v->d.readonly && !(open->flags & DISK_CHECK))
        rc = error_set(err, EUCLEAN,
                       "disk '%s' is damaged (%s): it can be read, or mended with "
                       "'posada disk check --repair'",
                       file->path, v->damage);
    if (rc) {
        free(v->d.backing_format);
        vdi_free(v);
        return rc;
    }
    *ret = &v->d;
    return 0;
}

const struct disk_format vdi_format = {
    .name = "vdi",
    .title = "VDI",
    .suffixes = "vdi",
    .probe = vdi_probe,
    .open = vdi_open,
    .create = vdi_create,
    .options = vdi_options,
    .measure = vdi_measure,
    .find_backing = vdi_find_backing,
};
