/* Making VHD images. Spec: VHD 1.0, "Overview of Virtual Hard Disk Image Types". Any thread. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhd/vhd.h"

#include <string.h>
#include <time.h>

#define TABLE_CHUNK 65536u

const struct disk_create_option vhd_options[] = {
    {"subformat",                                                     "dynamic|fixed", "blocks as they are written, or all at once (default dynamic)"},
    {"force_size", "on|off", "accepted; the size is never rounded to a geometry"},
    {0                                                   },
};

static int get_fixed(const struct disk_create *c, bool *ret, struct error *err)
{
    const char *text = disk_create_get(c, "subformat");
    bool force_size;

    *ret = text && !strcmp(text, "fixed");
    if (text && !*ret && strcmp(text, "dynamic") != 0)
        return error_set(err, EINVAL, "option subformat: expected dynamic or fixed, not '%s'",
                         text);
    if (*ret && c->backing_path)
        return error_set(err, EINVAL, "a fixed VHD image cannot have a backing image");
    if (c->size_bytes > VHD_MAX_BYTES)
        return error_set(err, EFBIG, "a VHD disk has at most 2040 GiB");
    return disk_create_get_bool(c, "force_size", true, &force_size, err);
}

static uint32_t entries_for(uint64_t size_bytes)
{
    return (uint32_t)((size_bytes + VHD_BLOCK_DEFAULT - 1) / VHD_BLOCK_DEFAULT);
}

/** Unused entries, up to the end of the sector. */
static int write_table(struct file *file, uint64_t at, uint64_t size)
{
    uint8_t *buf = malloc(TABLE_CHUNK);
    int rc = buf ? 0 : -ENOMEM;

    if (buf)
        memset(buf, 0xff, TABLE_CHUNK);
    for (uint64_t done = 0; done < size && !rc; done += TABLE_CHUNK)
        rc = file_pwrite(file, buf, (size_t)MIN(size - done, (uint64_t)TABLE_CHUNK), at + done);
    free(buf);
    return rc;
}

static int set_parent(const struct disk_create *c, uint8_t *header, struct file *file, uint64_t at,
                      uint64_t *ret_end, struct error *err)
{
    uint8_t id[VHD_ID_BYTES];
    uint32_t stamp;

    if (!c->backing_path)
        return 0;
    if (c->backing_format && disk_format_find(c->backing_format) != &vhd_format)
        return error_set(err, EINVAL, "the backing image of a VHD image must be VHD, not %s",
                         c->backing_format);
    if (!c->backing || c->backing->format != &vhd_format)
        return error_set(
            err, EINVAL,
            "a VHD image holds its backing image's identifier: '%s' must be a VHD image that can be opened",
            c->backing_path);
    vhd_get_identity(c->backing, id, &stamp);
    return vhd_header_set_parent(header, c->backing_path, id, stamp, file, at, ret_end, err);
}

static int create_dynamic(const struct disk_create *c, struct file *file, struct vhd_footer *f,
                          struct error *err)
{
    uint8_t footer[VHD_FOOTER_BYTES];
    uint8_t header[VHD_HEADER_BYTES] = {0};
    uint64_t at = VHD_FOOTER_BYTES + VHD_HEADER_BYTES;
    struct vhd_header h = {
        .max_entries = entries_for(c->size_bytes),
        .block_bytes = VHD_BLOCK_DEFAULT,
    };
    uint64_t table_bytes = align_up((uint64_t)h.max_entries * 4, DISK_SECTOR);
    int rc = set_parent(c, header, file, at, &at, err);

    if (rc)
        return rc;
    h.table_offset = at;
    vhd_header_make(header, &h);
    f->type = c->backing_path ? VHD_DIFFERENCING : VHD_DYNAMIC;
    f->header_offset = VHD_FOOTER_BYTES;
    vhd_footer_make(footer, f);
    rc = write_table(file, h.table_offset, table_bytes);
    if (!rc)
        rc = file_pwrite(file, header, sizeof(header), f->header_offset);
    if (!rc)
        rc = file_pwrite(file, footer, sizeof(footer), 0);
    if (!rc)
        rc = file_pwrite(file, footer, sizeof(footer), h.table_offset + table_bytes);
    return rc ? error_set(err, -rc, "cannot write '%s': %s", file->path, strerror(-rc)) : 0;
}

static int create_fixed(const struct disk_create *c, struct file *file, struct vhd_footer *f,
                        struct error *err)
{
    uint8_t footer[VHD_FOOTER_BYTES];

    f->type = VHD_FIXED;
    f->header_offset = UINT64_MAX;
    vhd_footer_make(footer, f);
    int rc = file_write_zeroes(file, 0, c->size_bytes, false);
    if (!rc)
        rc = file_pwrite(file, footer, sizeof(footer), c->size_bytes);
    return rc ? error_set(err, -rc, "cannot make '%s' %llu MiB large: %s", file->path,
                          (unsigned long long)(c->size_bytes >> 20), strerror(-rc))
              : 0;
}

int vhd_create(const struct disk_create *create, struct file *file, struct disk_files *files,
               struct error *err)
{
    struct vhd_footer f = {.size_bytes = create->size_bytes, .stamp = vhd_time(time(NULL))};
    bool is_fixed = false;
    int rc = get_fixed(create, &is_fixed, err);

    (void)files; /* one is enough */
    if (rc)
        return rc;
    rc = vhd_new_id(f.id);
    if (rc)
        return error_set(err, -rc, "cannot make an identifier: %s", strerror(-rc));
    return is_fixed ? create_fixed(create, file, &f, err) : create_dynamic(create, file, &f, err);
}

int vhd_measure(const struct disk_create *create, uint64_t data_bytes, uint64_t *ret,
                struct error *err)
{
    bool is_fixed = false;
    int rc = get_fixed(create, &is_fixed, err);

    if (rc)
        return rc;
    if (is_fixed) {
        *ret = create->size_bytes + VHD_FOOTER_BYTES;
        return 0;
    }
    uint64_t entries = entries_for(create->size_bytes);
    uint64_t blocks = MIN((uint64_t)entries_for(data_bytes), entries);
    uint64_t end = VHD_FOOTER_BYTES + VHD_HEADER_BYTES + align_up(entries * 4, DISK_SECTOR);

    if (blocks) /* each with its bitmap before it, and its data at a page */
        end = align_up(end + DISK_SECTOR, VHD_DATA_ALIGN) + blocks * VHD_BLOCK_DEFAULT +
              (blocks - 1) * VHD_DATA_ALIGN;
    *ret = end + VHD_FOOTER_BYTES;
    return 0;
}
