/* VHD disks: which footer counts, opening, facts.
 *
 * Which footer counts:
 *   1. A good one at the end that says "fixed": a fixed disk's first sector is the guest's and may
 *      hold anything.
 *   2. Else the copy at 0, if it is good: after a power cut the end of the file may hold anything.
 *   3. Else a good one at the end; the copy is written again before anything is changed.
 *
 * Threads: any.
 */
#include "disk/vhd/vhd.h"
#include "base/bits.h"
#include "base/fd.h"

#include <string.h>

#define MIN_BLOCK 4096u
#define MAX_BLOCK (256u << 20)

static int vhd_match_below(struct disk *d, const struct disk *below, struct error *err)
{
    struct vhd *v = vhd_of(d);
    uint8_t id[VHD_ID_BYTES];
    uint32_t stamp;

    if (below->format != &vhd_format)
        return error_set(err, EINVAL, "the parent of VHD image '%s' is not in VHD format",
                         v->m.file->path);
    vhd_get_identity(below, id, &stamp);
    if (!memcmp(id, v->h.parent_id, VHD_ID_BYTES))
        return 0;
    return error_set(
        err, EINVAL,
        "'%s' is not the parent that '%s' was made upon: its identifier is another one (if you know that its content is right, name it again with 'posada disk rebase -u')",
        below->path, v->m.file->path);
}

static int vhd_get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    struct vhd *v = vhd_of(d);
    uint8_t id[VHD_ID_BYTES];
    uint32_t stamp;
    char text[40];

    (void)err;
    disk_info_file(info, v->m.file);
    disk_info_text(info, "subformat", v->m.is_over ? "differencing" : "dynamic");
    vhd_id_text(v->f.id, text, sizeof(text));
    disk_info_text(info, "unique-id", text);
    if (v->m.is_over) {
        vhd_id_text(v->h.parent_id, text, sizeof(text));
        disk_info_text(info, "parent-id", text);
    }
    if (v->m.is_over && d->below && d->below->format == &vhd_format) {
        vhd_get_identity(d->below, id, &stamp);
        disk_info_bool(info, "parent-changed",
                       stamp != v->h.parent_stamp &&
                           vhd_of(d->below)->f.stamp != v->h.parent_stamp);
    }
    info->is_dirty = v->was_damaged;
    info->is_corrupt = v->m.shared || v->m.bad;
    return 0;
}

static void vhd_close(struct disk *d)
{
    struct vhd *v = vhd_of(d);

    if (v->is_map_ready && !d->readonly)
        (void)vhd_map_flush(d); /* nobody is left to hear of a failure */
    if (v->m.block_bytes)
        vhd_map_done(&v->m);
    file_close(v->m.file);
    free(v);
}

static const struct disk_ops vhd_ops = {
    .preadv = vhd_map_preadv,
    .pwritev = vhd_map_pwritev,
    .flush = vhd_map_flush,
    .discard = vhd_map_discard,
    .write_zeroes = vhd_map_write_zeroes,
    .allocate = vhd_map_disk_allocate,
    .status = vhd_map_status,
    .place = vhd_map_place,
    .get_info = vhd_get_info,
    .close = vhd_close,
    .check = vhd_check,
    .resize = vhd_resize,
    .set_backing = vhd_set_backing,
    .make_empty = vhd_make_empty,
    .match_below = vhd_match_below,
};

/** Read both footers and choose. */
static int choose_footer(struct vhd *v, uint64_t file_bytes, struct error *err)
{
    const char *path = v->m.file->path;
    uint8_t tail[VHD_FOOTER_BYTES] = {0};
    struct vhd_footer head_f;
    struct vhd_footer tail_f;
    uint64_t tail_at = file_bytes < VHD_FOOTER_BYTES ? 0 : file_bytes - VHD_FOOTER_BYTES;
    int rc = file_pread(v->m.file, v->footer, VHD_FOOTER_BYTES, 0);

    if (!rc)
        rc = file_pread(v->m.file, tail, sizeof(tail), tail_at);
    bool is_tail_good = !rc && vhd_footer_parse(tail, &tail_f);
    if (!rc && !is_tail_good && tail_at) { /* before Virtual PC 2004 it had 511 bytes */
        rc = file_pread(v->m.file, tail, sizeof(tail), tail_at + 1);
        is_tail_good = !rc && vhd_footer_parse(tail, &tail_f) && tail_f.type == VHD_FIXED;
        tail_at++;
    }
    if (rc)
        return error_set(err, -rc, "cannot read '%s': %s", path, strerror(-rc));
    bool is_head_good = vhd_footer_parse(v->footer, &head_f);
    if (is_tail_good && tail_f.type == VHD_FIXED && tail_f.size_bytes <= tail_at) {
        v->f = tail_f;
        memcpy(v->footer, tail, sizeof(tail));
        return 0;
    }
    if (!is_head_good && !is_tail_good)
        return error_set(err, EINVAL, "'%s' is no VHD image, or both of its footers are damaged",
                         path);
    v->was_damaged = !is_head_good || !is_tail_good || memcmp(tail, v->footer, sizeof(tail)) != 0;
    v->is_head_bad = !is_head_good;
    v->f = is_head_good ? head_f : tail_f;
    if (!is_head_good)
        memcpy(v->footer, tail, sizeof(tail));
    else if (!v->was_damaged)
        v->footer_offset = tail_at;
    return 0;
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

/** Read the dynamic header and believe nothing of it. */
static int read_header(struct vhd *v, uint64_t file_bytes, struct error *err)
{
    const char *path = v->m.file->path;
    struct vhd_header *h = &v->h;

    if (v->f.header_offset < VHD_FOOTER_BYTES || v->f.header_offset > file_bytes)
        return error_set(err, EINVAL, "VHD image '%s' has its header outside of the file", path);
    int rc = file_pread(v->m.file, v->header, VHD_HEADER_BYTES, v->f.header_offset);
    if (rc)
        return error_set(err, -rc, "cannot read '%s': %s", path, strerror(-rc));
    if (!vhd_header_parse(v->header, h))
        return error_set(err, EINVAL, "VHD image '%s' has a damaged header", path);
    if (!is_pow2(h->block_bytes) || h->block_bytes < MIN_BLOCK || h->block_bytes > MAX_BLOCK)
        return error_set(err, EINVAL, "VHD image '%s' has blocks of %u bytes", path,
                         h->block_bytes);
    uint64_t count = (v->f.size_bytes + h->block_bytes - 1) / h->block_bytes;
    if (count > h->max_entries || count > VHD_MAX_BLOCKS)
        return error_set(err, EINVAL, "VHD image '%s' has %u table entries for %llu blocks", path,
                         h->max_entries, (unsigned long long)count);
    if (h->table_offset < VHD_FOOTER_BYTES || h->table_offset > file_bytes ||
        count * 4 > file_bytes - h->table_offset ||
        overlap(h->table_offset, count * 4, v->f.header_offset, VHD_HEADER_BYTES))
        return error_set(err, EINVAL, "VHD image '%s' has its table outside of its place", path);
    return 0;
}

static int find_parent(struct vhd *v, const struct disk_open *open, struct error *err)
{
    if (open->flags & DISK_NO_BACKING)
        return 0;
    int rc = vhd_header_get_parent(v->m.file, v->header, &v->m.d.backing_path);
    if (rc)
        return error_set(err, -rc, "cannot read the parent's name of '%s': %s", v->m.file->path,
                         strerror(-rc));
    if (!v->m.d.backing_path)
        return error_set(err, EINVAL, "differencing VHD image '%s' does not name its parent",
                         v->m.file->path);
    v->m.d.backing_format = strdup("vhd");
    return v->m.d.backing_format ? 0 : error_set(err, ENOMEM, "out of memory");
}

static int open_map(struct vhd *v, const struct disk_open *open, uint64_t file_bytes,
                    struct error *err)
{
    struct vhd_region regions[VHD_REGIONS];
    int rc = read_header(v, file_bytes, err);

    if (rc)
        return rc;
    v->m.ops = &vhd_map_format_ops;
    v->m.block_bytes = v->h.block_bytes;
    v->m.d.cluster_bytes = v->h.block_bytes;
    v->m.sector_bytes = DISK_SECTOR;
    v->m.lead_bytes = (uint32_t)align_up(v->h.block_bytes / DISK_SECTOR / 8, DISK_SECTOR);
    v->m.align_bytes = DISK_SECTOR;
    v->m.max_end_bytes = (uint64_t)VHD_UNUSED * DISK_SECTOR;
    v->m.is_over = v->f.type == VHD_DIFFERENCING;
    rc = vhd_map_init(&v->m);
    if (rc)
        return error_set(err, -rc, "cannot open '%s': %s", v->m.file->path, strerror(-rc));
    rc = vhd_table_load(v, err);
    if (rc)
        return rc;
    rc = vhd_map_verify(&v->m, regions, vhd_regions(v, file_bytes, regions));
    if (rc)
        return error_set(err, -rc, "cannot examine '%s': %s", v->m.file->path, strerror(-rc));
    v->is_map_ready = true;
    return v->m.is_over ? find_parent(v, open, err) : 0;
}

static int open_image(struct vhd *v, const struct disk_open *open, struct error *err)
{
    const char *path = v->m.file->path;
    uint64_t file_bytes = 0;
    int rc = file_get_size(v->m.file, &file_bytes);

    if (rc)
        return error_set(err, -rc, "cannot find the size of '%s': %s", path, strerror(-rc));
    if (file_bytes > DISK_MAX_BYTES)
        return error_set(err, EINVAL, "'%s' is too large", path);
    rc = choose_footer(v, file_bytes, err);
    if (rc)
        return rc;
    if (!v->f.size_bytes || v->f.size_bytes > DISK_MAX_BYTES)
        return error_set(err, EINVAL, "VHD image '%s' says that it has %llu bytes", path,
                         (unsigned long long)v->f.size_bytes);
    v->m.d.size_bytes = v->f.size_bytes;
    v->m.d.readonly = open->flags & DISK_READONLY;
    if (v->f.type == VHD_FIXED && v->f.size_bytes > file_bytes)
        return error_set(err, EINVAL, "fixed VHD image '%s' is truncated", path);
    v->m.d.ops = v->f.type == VHD_FIXED ? &vhd_fixed_ops : &vhd_ops;
    if (v->f.type == VHD_FIXED)
        return 0;
    if (v->f.type == VHD_DYNAMIC || v->f.type == VHD_DIFFERENCING)
        return open_map(v, open, file_bytes, err);
    return error_set(err, ENOTSUP, "VHD image '%s' is of type %u, which is not known", path,
                     v->f.type);
}

static int vhd_open(const struct disk_open *open, struct file *file, struct disk **ret,
                    struct error *err)
{
    struct vhd *v = calloc(1, sizeof(*v));

    if (!v)
        return error_set(err, ENOMEM, "out of memory");
    v->m.file = file;
    int rc = open_image(v, open, err);
    if (!rc) {
        *ret = &v->m.d;
        return 0;
    }
    if (v->m.block_bytes)
        vhd_map_done(&v->m);
    free(v->m.d.backing_path);
    free(v->m.d.backing_format);
    free(v);
    return rc;
}

static bool vhd_probe(const uint8_t *head, const uint8_t *tail)
{
    struct vhd_footer f;

    return !memcmp(head, "conectix", 8) || (vhd_footer_parse(tail, &f) && f.type == VHD_FIXED);
}

const struct disk_format vhd_format = {
    .name = "vhd",
    .alias = "vpc",
    .title = "VHD",
    .suffixes = "vhd vpc",
    .probe = vhd_probe,
    .open = vhd_open,
    .create = vhd_create,
    .options = vhd_options,
    .measure = vhd_measure,
};
