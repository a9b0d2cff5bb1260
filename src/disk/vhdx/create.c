/* Making VHDX images. Spec: [MS-VHDX] 2.1. Any thread. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhdx/vhdx.h"

#include <string.h>

#define DEFAULT_BLOCKS (1u << 20) /* at most so many, unless the user asks for it */
#define TABLE_CHUNK    65536u

const struct disk_create_option vhdx_options[] = {
    {"subformat",                                                          "dynamic|fixed", "blocks as they are written, or all at once (default dynamic)"},
    {"block_size",      "SIZE", "unit of allocation, 1M to 256M (default 2M, more for large disks)"},
    {"log_size",                                                         "SIZE", "of the log, in units of 1M (default 1M)"},
    {"logical_sector_size", "512|4096",
     "what the disk's sectors have (default 512, or the backing image's)"},
    {0                                                          },
};

struct layout {
    struct vhdx_metadata md;
    struct vhdx_header h;
    struct vhd_region table, metadata;
    uint64_t blocks_at;
};

static int get_subformat(const struct disk_create *c, bool *ret_fixed, struct error *err)
{
    const char *text = disk_create_get(c, "subformat");

    *ret_fixed = text && !strcmp(text, "fixed");
    if (text && !*ret_fixed && strcmp(text, "dynamic") != 0)
        return error_set(err, EINVAL, "option subformat: expected dynamic or fixed, not '%s'",
                         text);
    if (*ret_fixed && c->backing_path)
        return error_set(err, EINVAL, "a fixed VHDX image cannot have a backing image");
    return 0;
}

static int get_sizes(const struct disk_create *c, struct layout *l, struct error *err)
{
    uint64_t block = 2 * VHDX_MIB;
    uint64_t log = VHDX_MIB;
    uint64_t sector = DISK_SECTOR;

    if (c->backing && c->backing->format == &vhdx_format)
        sector = ((const struct vhdx *)c->backing)->md.sector_bytes;
    while (c->size_bytes / block > DEFAULT_BLOCKS && block < 256 * VHDX_MIB)
        block *= 2;
    int rc = disk_create_get_size(c, "block_size", block, &block, err);
    if (!rc)
        rc = disk_create_get_size(c, "log_size", log, &log, err);
    if (!rc)
        rc = disk_create_get_size(c, "logical_sector_size", sector, &sector, err);
    if (rc)
        return rc;
    if (!is_pow2(block) || block < VHDX_MIB || block > 256 * VHDX_MIB)
        return error_set(err, EINVAL, "option block_size: a power of two from 1M to 256M");
    if (!log || log % VHDX_MIB || log > VHDX_MAX_LOG)
        return error_set(err, EINVAL, "option log_size: a multiple of 1M, at most 64M");
    if (sector != 512 && sector != 4096)
        return error_set(err, EINVAL, "option logical_sector_size: 512 or 4096");
    if (c->size_bytes > VHDX_MAX_BYTES)
        return error_set(err, EFBIG, "a VHDX disk has at most 64 TiB");
    if (c->size_bytes % sector)
        return error_set(err, EINVAL, "the disk's size is no multiple of its sectors");
    if (c->size_bytes / block >= VHD_MAX_BLOCKS)
        return error_set(err, EINVAL, "so large a disk needs a larger block_size");
    l->md.block_bytes = (uint32_t)block;
    l->md.sector_bytes = (uint32_t)sector;
    l->md.physical_bytes = 4096;
    l->md.size_bytes = c->size_bytes;
    l->md.has_parent = c->backing_path;
    l->h.log_bytes = (uint32_t)log;
    return 0;
}

/** Where everything lies. */
static int make_layout(const struct disk_create *c, struct layout *l, struct error *err)
{
    int rc = get_subformat(c, &l->md.is_fixed, err);

    if (!rc)
        rc = get_sizes(c, l, err);
    if (rc)
        return rc;
    uint64_t entries =
        vhdx_table_entries(l->md.size_bytes, l->md.block_bytes, l->md.sector_bytes, true);
    l->h.sequence = 1;
    l->h.log_offset = VHDX_MIB;
    l->metadata = (struct vhd_region){VHDX_MIB + l->h.log_bytes, VHDX_MIB};
    l->table = (struct vhd_region){l->metadata.offset + VHDX_MIB, align_up(entries * 8, VHDX_MIB)};
    l->blocks_at = l->table.offset + l->table.size;
    return 0;
}

/** Blocks one after the other, all present. */
static int write_fixed_table(const struct layout *l, struct file *file)
{
    uint64_t ratio = (uint64_t)l->md.sector_bytes * 8 * VHDX_MIB / l->md.block_bytes;
    uint64_t count = (l->md.size_bytes + l->md.block_bytes - 1) / l->md.block_bytes;
    uint64_t entries = count + (count - 1) / ratio;
    cleanup(freep) uint8_t *buf = malloc(TABLE_CHUNK);
    uint64_t block = 0;
    int rc = buf ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < entries && !rc; at += TABLE_CHUNK / 8) {
        memset(buf, 0, TABLE_CHUNK);
        for (uint64_t i = at; i < MIN(entries, at + TABLE_CHUNK / 8); i++) {
            if (i % (ratio + 1) != ratio)
                store_le64(buf + (i - at) * 8,
                           (l->blocks_at + block++ * l->md.block_bytes) | VHDX_PRESENT);
        }
        rc = file_pwrite(file, buf, TABLE_CHUNK, l->table.offset + at * 8);
    }
    if (!rc)
        rc = file_write_zeroes(file, l->blocks_at, count * l->md.block_bytes, false);
    return rc;
}

static int write_metadata(const struct disk_create *c, const struct layout *l, struct file *file,
                          struct error *err)
{
    uint32_t size = VHDX_TABLE_BYTES + VHDX_PAGE + VHDX_LOCATOR_BYTES;
    cleanup(freep) uint8_t *b = calloc(1, size);
    cleanup(freep) uint8_t *locator = malloc(VHDX_LOCATOR_BYTES);
    uint32_t locator_size = 0;
    int rc = 0;

    if (!b || !locator)
        return error_set(err, ENOMEM, "out of memory");
    if (c->backing_path)
        rc = vhdx_locator_make(c->backing_path, ((const struct vhdx *)c->backing)->h.data_guid,
                               locator, &locator_size, err);
    if (rc)
        return rc;
    vhdx_metadata_make(&l->md, locator, locator_size, b);
    rc = file_pwrite(file, b, size, l->metadata.offset);
    return rc ? error_set(err, -rc, "cannot write '%s': %s", file->path, strerror(-rc)) : 0;
}

/** Identifier, headers, region tables. */
static int write_head(struct layout *l, struct file *file)
{
    uint32_t size = VHDX_REGION_TABLE2 + VHDX_REGION_BYTES;
    cleanup(freep) uint8_t *b = calloc(1, size);
    static const char creator[] = "P\0o\0s\0a\0d\0a\0"; /* UTF-16 */

    if (!b)
        return -ENOMEM;
    memcpy(b, "vhdxfile", 8);
    memcpy(b + 8, creator, sizeof(creator));
    vhdx_header_make(&l->h, b + (64 << 10));
    l->h.sequence++;
    vhdx_header_make(&l->h, b + (128 << 10));
    vhdx_region_table_make(&l->table, &l->metadata, b + VHDX_REGION_TABLE1);
    vhdx_region_table_make(&l->table, &l->metadata, b + VHDX_REGION_TABLE2);
    return file_pwrite(file, b, size, 0);
}

static int check_backing(const struct disk_create *c, const struct layout *l, struct error *err)
{
    if (!c->backing_path)
        return 0;
    if (c->backing_format && disk_format_find(c->backing_format) != &vhdx_format)
        return error_set(err, EINVAL, "the backing image of a VHDX image must be VHDX, not %s",
                         c->backing_format);
    if (!c->backing || c->backing->format != &vhdx_format)
        return error_set(
            err, EINVAL,
            "a VHDX image holds its backing image's identifier: '%s' must be a VHDX image that can be opened",
            c->backing_path);
    if (((const struct vhdx *)c->backing)->md.sector_bytes != l->md.sector_bytes)
        return error_set(err, EINVAL, "option logical_sector_size: the backing image has another");
    return 0;
}

int vhdx_create(const struct disk_create *create, struct file *file, struct disk_files *files,
                struct error *err)
{
    struct layout l = {0};
    int rc = make_layout(create, &l, err);

    (void)files; /* one is enough */
    if (!rc)
        rc = check_backing(create, &l, err);
    if (rc)
        return rc;
    rc = vhdx_new_guid(l.h.file_guid);
    if (!rc)
        rc = vhdx_new_guid(l.h.data_guid);
    if (!rc)
        rc = vhdx_new_guid(l.md.id);
    if (rc)
        return error_set(err, -rc, "cannot make an identifier: %s", strerror(-rc));
    rc = write_metadata(create, &l, file, err);
    if (rc)
        return rc;
    rc = file_write_zeroes(file, l.table.offset, l.table.size, true);
    if (!rc && l.md.is_fixed)
        rc = write_fixed_table(&l, file);
    if (!rc)
        rc = write_head(&l, file);
    return rc ? error_set(err, -rc, "cannot write '%s': %s", file->path, strerror(-rc)) : 0;
}

int vhdx_measure(const struct disk_create *create, uint64_t data_bytes, uint64_t *ret,
                 struct error *err)
{
    struct layout l = {0};
    int rc = make_layout(create, &l, err);

    if (rc)
        return rc;
    uint64_t size = l.md.is_fixed ? create->size_bytes : MIN(data_bytes, create->size_bytes);
    *ret = l.blocks_at + (size + l.md.block_bytes - 1) / l.md.block_bytes * l.md.block_bytes;
    return 0;
}
