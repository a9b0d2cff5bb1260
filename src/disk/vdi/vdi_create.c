/* VDI: making images, and how large they get. Any thread. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vdi/vdi.h"

#include <string.h>

const struct disk_create_option vdi_options[] = {
    {"static",                                                    "on|off", "all blocks have their place from the start (default off)"},
    {"preallocation", "off|metadata|full",
     "metadata: as static; full: and their space is reserved (default off)"},
    {0                                            },
};

struct layout {
    uint32_t blocks;
    uint64_t map_bytes; /* in whole sectors */
    uint64_t offset_data;
    bool is_static, is_full;
};

static int plan(const struct disk_create *c, struct layout *l, struct error *err)
{
    const char *how = disk_create_get(c, "preallocation");
    uint64_t blocks = (c->size_bytes + VDI_BLOCK_BYTES - 1) / VDI_BLOCK_BYTES;
    int rc = disk_create_get_bool(c, "static", false, &l->is_static, err);

    if (rc)
        return rc;
    if (how && strcmp(how, "off") != 0 && strcmp(how, "metadata") != 0 && strcmp(how, "full") != 0)
        return error_set(err, EINVAL, "option preallocation: expected off, metadata or full");
    l->is_full = how && !strcmp(how, "full");
    l->is_static = l->is_static || l->is_full || (how && !strcmp(how, "metadata"));
    if (blocks > VDI_MAX_BLOCKS)
        return error_set(err, EFBIG, "VDI images of more than %u GiB are not supported",
                         VDI_MAX_BLOCKS / 1024);
    if (l->is_static && c->backing_path)
        return error_set(err, EINVAL, "a static VDI image cannot be made over another");
    l->blocks = (uint32_t)blocks;
    l->map_bytes = vdi_map_sectors(l->blocks) * DISK_SECTOR;
    l->offset_data = align_up(VDI_ALIGN + l->map_bytes, VDI_ALIGN); /* the rest is room to grow */
    return 0;
}

static int fill_head(const struct disk_create *c, const struct layout *l, uint8_t *head)
{
    static const char text[] = "<<< Oracle VM VirtualBox Disk Image >>>\n"; /* as others look for */
    int rc = vdi_new_uuid(head + VDI_AT_UUID);

    memcpy(head + VDI_AT_TEXT, text, sizeof(text));
    store_le32(head + VDI_AT_SIGNATURE, VDI_SIGNATURE);
    store_le32(head + VDI_AT_VERSION, VDI_VERSION);
    store_le32(head + VDI_AT_HEADER_SIZE, VDI_HEADER_SIZE);
    store_le32(head + VDI_AT_TYPE, c->backing ? VDI_DIFF : l->is_static ? VDI_FIXED : VDI_DYNAMIC);
    store_le32(head + VDI_AT_OFFSET_MAP, VDI_ALIGN);
    store_le32(head + VDI_AT_OFFSET_DATA, (uint32_t)l->offset_data);
    store_le32(head + VDI_AT_SECTOR_SIZE, DISK_SECTOR);
    store_le64(head + VDI_AT_DISK_SIZE, c->size_bytes);
    store_le32(head + VDI_AT_BLOCK_SIZE, VDI_BLOCK_BYTES);
    store_le32(head + VDI_AT_BLOCKS, l->blocks);
    store_le32(head + VDI_AT_ALLOCATED, l->is_static ? l->blocks : 0);
    if (c->backing) {
        const uint8_t *parent = vdi_of(c->backing)->head;

        memcpy(head + VDI_AT_UUID_LINK, parent + VDI_AT_UUID, VDI_UUID);
        memcpy(head + VDI_AT_UUID_PARENT_MODIFY, parent + VDI_AT_UUID_MODIFY, VDI_UUID);
    }
    return rc ? rc : vdi_new_uuid(head + VDI_AT_UUID_MODIFY);
}

static int write_map(struct file *file, const struct layout *l)
{
    cleanup(freep) uint32_t *map = malloc(l->map_bytes);

    if (!map)
        return -ENOMEM;
    memset(map, 0xff, l->map_bytes); /* VDI_ABSENT */
    for (uint32_t i = 0; l->is_static && i < l->blocks; i++)
        store_le32(&map[i], i);
    return file_pwrite(file, map, l->map_bytes, VDI_ALIGN);
}

int vdi_create(const struct disk_create *create, struct file *file, struct disk_files *files,
               struct error *err)
{
    uint8_t head[DISK_SECTOR] = {0};
    struct layout l;
    int rc = plan(create, &l, err);

    (void)files; /* one is enough */
    if (rc)
        return rc;
    if (create->backing_path && (!create->backing || create->backing->format != &vdi_format))
        return error_set(err, EINVAL,
                         "a VDI image can only be made over another one, which must be at hand");
    uint64_t slots_end = l.offset_data + (l.is_static ? (uint64_t)l.blocks * VDI_BLOCK_BYTES : 0);
    rc = fill_head(create, &l, head);
    if (!rc)
        rc = l.is_full ? file_write_zeroes(file, l.offset_data, slots_end - l.offset_data, false)
                       : file_truncate(file, slots_end);
    if (rc == -ENOTSUP && file->is_block && !l.is_static)
        rc = 0; /* a device has its size */
    if (!rc)
        rc = write_map(file, &l);
    if (!rc)
        rc = file_pwrite(file, head, sizeof(head), 0);
    return rc ? error_set(err, -rc, "cannot write '%s': %s", file->path, strerror(-rc)) : 0;
}

int vdi_measure(const struct disk_create *create, uint64_t data_bytes, uint64_t *ret,
                struct error *err)
{
    struct layout l;
    int rc = plan(create, &l, err);

    if (!rc)
        *ret = l.offset_data + (l.is_static ? (uint64_t)l.blocks * VDI_BLOCK_BYTES
                                            : align_up(data_bytes, VDI_BLOCK_BYTES));
    return rc;
}
