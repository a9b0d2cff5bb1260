/* VHDX disks: opening, facts. Spec: [MS-VHDX].
 *
 * An image whose log is not empty is replayed before anything but the headers is read: into the
 * file, or, opened for reading only, into patches in memory.
 *
 * Threads: any.
 */
#include "disk/vhdx/vhdx.h"
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhd/utf16.h"

#include <string.h>
#include <strings.h>

static bool is_linked(struct vhdx *v, const char *key, const char *guid, int *rc)
{
    cleanup(freep) char *text = NULL;

    if (!*rc)
        *rc = vhdx_locator_get(v, key, &text);
    return !*rc && text && !strcasecmp(text, guid);
}

static int vhdx_match_below(struct disk *d, const struct disk *below, struct error *err)
{
    struct vhdx *v = vhdx_of(d);
    const struct vhdx *b = (const struct vhdx *)below;
    char guid[40];
    int rc = 0;

    if (below->format != &vhdx_format)
        return error_set(err, EINVAL, "the parent of VHDX image '%s' is not in VHDX format",
                         v->m.file->path);
    if (b->md.sector_bytes != v->md.sector_bytes)
        return error_set(err, EINVAL, "'%s' has sectors of another size than '%s'", below->path,
                         v->m.file->path);
    vhdx_guid_text(b->h.data_guid, guid, sizeof(guid));
    bool linked =
        is_linked(v, "parent_linkage", guid, &rc) || is_linked(v, "parent_linkage2", guid, &rc);
    if (rc)
        return error_set(err, -rc, "cannot read the parent's identifier of '%s': %s",
                         v->m.file->path, strerror(-rc));
    if (linked)
        return 0;
    return error_set(
        err, EINVAL,
        "'%s' has been written to since '%s' was made upon it, or is another image: its identifier differs (if you know that its content is right, name it again with 'posada disk rebase -u')",
        below->path, v->m.file->path);
}

static int vhdx_get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    struct vhdx *v = vhdx_of(d);
    char guid[40];

    (void)err;
    disk_info_file(info, v->m.file);
    disk_info_text(info, "subformat",
                   v->md.has_parent ? "differencing"
                   : v->md.is_fixed ? "fixed"
                                    : "dynamic");
    disk_info_number(info, "log-size", v->h.log_bytes);
    disk_info_number(info, "logical-sector-size", v->md.sector_bytes);
    disk_info_number(info, "physical-sector-size", v->md.physical_bytes);
    vhdx_guid_text(v->md.id, guid, sizeof(guid));
    disk_info_text(info, "virtual-disk-id", guid);
    vhdx_guid_text(v->h.data_guid, guid, sizeof(guid));
    disk_info_text(info, "data-write-guid", guid);
    info->is_dirty = v->was_dirty;
    info->is_corrupt = v->m.shared || v->m.bad;
    return 0;
}

static void free_vhdx(struct vhdx *v)
{
    if (v->m.block_bytes)
        vhd_map_done(&v->m);
    free(v->used);
    free(v->bitmaps);
    free(v);
}

static void vhdx_close(struct disk *d)
{
    struct vhdx *v = vhdx_of(d);

    /* Nobody is left to hear of a failure; the log stays, then, and is replayed. */
    if (!d->readonly && !vhd_map_flush(d))
        (void)vhdx_log_close(v);
    file_close(v->m.file);
    free_vhdx(v);
}

static const struct disk_ops vhdx_ops = {
    .preadv = vhd_map_preadv,
    .pwritev = vhd_map_pwritev,
    .flush = vhd_map_flush,
    .discard = vhd_map_discard,
    .write_zeroes = vhd_map_write_zeroes,
    .allocate = vhd_map_disk_allocate,
    .status = vhd_map_status,
    .place = vhd_map_place,
    .get_info = vhdx_get_info,
    .close = vhdx_close,
    .check = vhdx_check,
    .resize = vhdx_resize,
    .set_backing = vhdx_set_backing,
    .make_empty = vhdx_make_empty,
    .match_below = vhdx_match_below,
};

static int find_parent(struct vhdx *v, const struct disk_open *open, struct error *err)
{
    static const char *const keys[] = {"relative_path", "volume_path", "absolute_win32_path"};
    char *path = NULL;
    int rc = 0;

    if (open->flags & DISK_NO_BACKING)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(keys) && !path && !rc; i++) {
        rc = vhdx_locator_get(v, keys[i], &path);
        if (path)
            utf16_path_to_host(path);
        if (path && !*path) {
            free(path);
            path = NULL;
        }
    }
    if (rc == -ENOTSUP)
        return error_set(err, ENOTSUP, "VHDX image '%s' has a parent of a kind that is not known",
                         v->m.file->path);
    if (rc)
        return error_set(err, -rc, "cannot read the parent's name of '%s': %s", v->m.file->path,
                         strerror(-rc));
    if (!path)
        return error_set(err, EINVAL, "differencing VHDX image '%s' does not name its parent",
                         v->m.file->path);
    v->m.d.backing_path = path;
    v->m.d.backing_format = strdup("vhdx");
    return v->m.d.backing_format ? 0 : error_set(err, ENOMEM, "out of memory");
}

/** Read the headers and bring the file, or the view of it, up to date. */
static int open_headers(struct vhdx *v, struct error *err)
{
    int rc = vhdx_header_read(v->m.file, &v->h, &v->header_slot, err);

    if (rc)
        return rc;
    v->was_dirty = !vhdx_is_zero(v->h.log_guid);
    if (!v->was_dirty)
        return 0;
    rc = vhdx_replay(&v->m.file, &v->h, v->m.d.readonly, err);
    if (rc || v->m.d.readonly)
        return rc;
    memset(v->h.log_guid, 0, VHDX_GUID_BYTES);
    rc = vhdx_new_guid(v->h.file_guid);
    if (!rc)
        rc = vhdx_header_update(v);
    return rc ? error_set(err, -rc, "cannot write '%s': %s", v->m.file->path, strerror(-rc)) : 0;
}

static int open_map(struct vhdx *v, struct error *err)
{
    struct vhd_map *m = &v->m;

    m->ops = &vhdx_map_ops;
    m->block_bytes = v->md.block_bytes;
    m->sector_bytes = v->md.sector_bytes;
    m->align_bytes = VHDX_MIB;
    m->max_end_bytes = VHDX_MAX_OFFSET;
    m->is_over = v->md.has_parent;
    m->can_zero = true;
    m->d.cluster_bytes = v->md.block_bytes;
    m->d.size_bytes = v->md.size_bytes;
    v->ratio = (uint32_t)((uint64_t)v->md.sector_bytes * 8 * VHDX_MIB / v->md.block_bytes);
    int rc = vhd_map_init(m);
    if (!rc) {
        v->chunks = (m->count + v->ratio - 1) / v->ratio;
        v->bitmaps = calloc((size_t)v->chunks + 1, sizeof(*v->bitmaps));
        rc = v->bitmaps ? 0 : -ENOMEM;
    }
    if (rc)
        return error_set(err, -rc, "cannot open '%s': %s", m->file->path, strerror(-rc));
    rc = vhdx_table_load(v, err);
    if (rc)
        return rc;
    rc = vhd_map_verify(m, v->used, v->used_count);
    return rc ? error_set(err, -rc, "cannot examine '%s': %s", m->file->path, strerror(-rc)) : 0;
}

static int open_image(struct vhdx *v, const struct disk_open *open, struct error *err)
{
    const char *path = v->m.file->path;
    uint64_t file_bytes = 0;
    uint8_t b[8];
    int rc = file_pread(v->m.file, b, sizeof(b), 0);

    if (rc)
        return error_set(err, -rc, "cannot read '%s': %s", path, strerror(-rc));
    if (memcmp(b, "vhdxfile", 8) != 0)
        return error_set(err, EINVAL, "'%s' is no VHDX image", path);
    v->m.d.ops = &vhdx_ops;
    v->m.d.readonly = open->flags & DISK_READONLY;
    rc = open_headers(v, err);
    if (rc)
        return rc;
    path = v->m.file->path;
    rc = file_get_size(v->m.file, &file_bytes);
    if (rc || file_bytes > VHDX_MAX_OFFSET)
        return error_set(err, rc ? -rc : EINVAL, "'%s' has no size that makes sense", path);
    rc = vhdx_regions_read(v, file_bytes, err);
    v->region_count = v->used_count;
    if (!rc)
        rc = vhdx_metadata_read(v, err);
    if (!rc)
        rc = open_map(v, err);
    return rc || !v->md.has_parent ? rc : find_parent(v, open, err);
}

static int vhdx_open(const struct disk_open *open, struct file *file, struct disk **ret,
                     struct error *err)
{
    struct vhdx *v = calloc(1, sizeof(*v));

    if (!v)
        return error_set(err, ENOMEM, "out of memory");
    v->m.file = file;
    int rc = open_image(v, open, err);
    if (!rc) {
        *ret = &v->m.d;
        return 0;
    }
    if (v->m.file != file)
        (void)vhdx_patched_free(v->m.file); /* the file itself stays the caller's */
    free(v->m.d.backing_path);
    free(v->m.d.backing_format);
    free_vhdx(v);
    return rc;
}

static bool vhdx_probe(const uint8_t *head, const uint8_t *tail)
{
    (void)tail;
    return !memcmp(head, "vhdxfile", 8);
}

const struct disk_format vhdx_format = {
    .name = "vhdx",
    .title = "VHDX",
    .suffixes = "vhdx avhdx",
    .probe = vhdx_probe,
    .open = vhdx_open,
    .create = vhdx_create,
    .options = vhdx_options,
    .measure = vhdx_measure,
};
