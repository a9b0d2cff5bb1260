/* VHDX metadata: the items, and the parent locator. Spec: [MS-VHDX] 2.6.
 *
 * Threads: opening, or commit_lock.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhd/utf16.h"
#include "disk/vhdx/vhdx.h"

#include <string.h>

enum {
    ENTRY_BYTES = 32,
    ENTRIES_MAX = 2047,
    IS_USER = 1,
    IS_DISK = 2,
    IS_REQUIRED = 4,
    LOCATOR_HEADER = 20,
    LOCATOR_ENTRY = 12,
};

enum item { ITEM_PARAMETERS, ITEM_SIZE, ITEM_ID, ITEM_LOGICAL, ITEM_PHYSICAL, ITEM_LOCATOR, ITEMS };

static const struct {
    uint8_t guid[VHDX_GUID_BYTES];
    uint8_t flags;
    uint32_t size; /* 0 = varies */
} items[ITEMS] = {
    [ITEM_PARAMETERS] = {{0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0,
                          0xaa, 0x44, 0xe7, 0x6b},
                         IS_REQUIRED,           8},
    [ITEM_SIZE] = {{0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8,
                    0x3b, 0xf4, 0xb8},
                         IS_DISK | IS_REQUIRED,
                         8                       },
    [ITEM_ID] = {{0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0,
                  0x00, 0xc7, 0x46},
                         IS_DISK | IS_REQUIRED,
                         16                      },
    [ITEM_LOGICAL] = {{0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8,
                       0xfa, 0xab, 0x5f},
                         IS_DISK | IS_REQUIRED,
                         4                       },
    [ITEM_PHYSICAL] = {{0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88,
                        0x52, 0x51, 0xc5, 0x56},
                         IS_DISK | IS_REQUIRED,
                         4                       },
    [ITEM_LOCATOR] = {{0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48,
                       0x34, 0xab, 0x0c},
                         IS_REQUIRED,           0},
};

static const uint8_t locator_type[VHDX_GUID_BYTES] = {
    0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13};

static int take_item(struct vhdx *v, enum item which, const struct vhdx_item *item)
{
    struct vhdx_metadata *md = &v->md;
    uint8_t b[16];

    if (which == ITEM_LOCATOR) {
        md->locator = *item;
        return item->size <= VHDX_LOCATOR_BYTES ? 0 : -EINVAL;
    }
    if (item->size != items[which].size)
        return -EINVAL;
    int rc = file_pread(v->m.file, b, item->size, item->offset);
    if (rc)
        return rc;
    switch (which) {
    case ITEM_PARAMETERS:
        md->parameters = *item;
        md->block_bytes = load_le32(b);
        md->is_fixed = b[4] & 1;
        md->has_parent = b[4] >> 1 & 1;
        break;
    case ITEM_SIZE:
        md->size_item = *item;
        md->size_bytes = load_le64(b);
        break;
    case ITEM_ID:
        memcpy(md->id, b, VHDX_GUID_BYTES);
        break;
    case ITEM_LOGICAL:
        md->sector_bytes = load_le32(b);
        break;
    case ITEM_PHYSICAL:
        md->physical_bytes = load_le32(b);
        break;
    case ITEM_LOCATOR:
    case ITEMS:
        break;
    }
    return 0;
}

static enum item find_item(const uint8_t *entry)
{
    enum item i = 0;

    if (load_le32(entry + 24) & IS_USER)
        return ITEMS;
    while (i < ITEMS && memcmp(entry, items[i].guid, VHDX_GUID_BYTES) != 0)
        i++;
    return i;
}

/** Every item of the table; *@seen has a bit for each that is known. */
static int take_items(struct vhdx *v, const uint8_t *table, unsigned *seen, struct error *err)
{
    const char *path = v->m.file->path;
    uint16_t count = load_le16(table + 10);

    if (memcmp(table, "metadata", 8) != 0 || count > ENTRIES_MAX)
        return error_set(err, EINVAL, "VHDX image '%s' has a damaged metadata table", path);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *e = table + (size_t)(i + 1) * ENTRY_BYTES;
        struct vhdx_item item = {i, load_le32(e + 16), load_le32(e + 20)};
        enum item which = find_item(e);

        if (which == ITEMS && load_le32(e + 24) & IS_REQUIRED)
            return error_set(err, ENOTSUP, "VHDX image '%s' has metadata that are not known", path);
        if (which == ITEMS)
            continue;
        if (item.offset < VHDX_TABLE_BYTES || item.offset > v->metadata.size ||
            item.size > v->metadata.size - item.offset || *seen & 1u << which)
            return error_set(err, EINVAL, "VHDX image '%s' has metadata that make no sense", path);
        *seen |= 1u << which;
        item.offset += v->metadata.offset;
        int rc = take_item(v, which, &item);
        if (rc)
            return error_set(err, -rc, "cannot read the metadata of VHDX image '%s': %s", path,
                             strerror(-rc));
    }
    return 0;
}

int vhdx_metadata_read(struct vhdx *v, struct error *err)
{
    cleanup(freep) uint8_t *table = malloc(VHDX_TABLE_BYTES);
    const struct vhdx_metadata *md = &v->md;
    const char *path = v->m.file->path;
    unsigned seen = 0;
    int rc = table ? file_pread(v->m.file, table, VHDX_TABLE_BYTES, v->metadata.offset) : -ENOMEM;

    if (rc)
        return error_set(err, -rc, "cannot read '%s': %s", path, strerror(-rc));
    rc = take_items(v, table, &seen, err);
    if (rc)
        return rc;
    unsigned needed = (1u << ITEM_LOCATOR) - 1;
    if ((seen & needed) != needed || (md->has_parent && !md->locator.size))
        return error_set(err, EINVAL, "VHDX image '%s' lacks metadata", path);
    if (!is_pow2(md->block_bytes) || md->block_bytes < VHDX_MIB || md->block_bytes > 256 * VHDX_MIB)
        return error_set(err, EINVAL, "VHDX image '%s' has blocks of %u bytes", path,
                         md->block_bytes);
    if ((md->sector_bytes != 512 && md->sector_bytes != 4096) ||
        (md->physical_bytes != 512 && md->physical_bytes != 4096))
        return error_set(err, EINVAL, "VHDX image '%s' has sectors of %u bytes", path,
                         md->sector_bytes);
    if (!md->size_bytes || md->size_bytes % md->sector_bytes || md->size_bytes > VHDX_MAX_BYTES)
        return error_set(err, EINVAL, "VHDX image '%s' says that it has %llu bytes", path,
                         (unsigned long long)md->size_bytes);
    return 0;
}

static uint8_t *put_entry(uint8_t *table, enum item which, uint32_t offset, uint32_t size)
{
    uint16_t count = load_le16(table + 10);
    uint8_t *e = table + (size_t)(count + 1) * ENTRY_BYTES;

    memcpy(e, items[which].guid, VHDX_GUID_BYTES);
    store_le32(e + 16, offset);
    store_le32(e + 20, size);
    store_le32(e + 24, items[which].flags);
    store_le16(table + 10, (uint16_t)(count + 1));
    return table + offset;
}

/** VHDX_TABLE_BYTES of table, then the items; 4096 bytes apart from the locator, which follows. */
void vhdx_metadata_make(const struct vhdx_metadata *md, const uint8_t *locator,
                        uint32_t locator_size, uint8_t *b)
{
    uint32_t at = VHDX_TABLE_BYTES;

    memcpy(b, "metadata", 8);
    uint8_t *parameters = put_entry(b, ITEM_PARAMETERS, at, 8);
    store_le32(parameters, md->block_bytes);
    store_le32(parameters + 4, (uint32_t)md->is_fixed | (uint32_t)md->has_parent << 1);
    store_le64(put_entry(b, ITEM_SIZE, at + 8, 8), md->size_bytes);
    memcpy(put_entry(b, ITEM_ID, at + 16, 16), md->id, VHDX_GUID_BYTES);
    store_le32(put_entry(b, ITEM_LOGICAL, at + 32, 4), md->sector_bytes);
    store_le32(put_entry(b, ITEM_PHYSICAL, at + 36, 4), md->physical_bytes);
    if (locator_size)
        memcpy(put_entry(b, ITEM_LOCATOR, at + 4096, locator_size), locator, locator_size);
}

int vhdx_metadata_set_locator(struct vhdx *v, uint8_t *b, uint32_t offset, uint32_t size)
{
    uint16_t count = load_le16(b + 10);
    uint32_t entry = v->md.locator.size ? v->md.locator.entry : UINT32_MAX;

    if (entry != UINT32_MAX && size) {
        store_le32(b + (size_t)(entry + 1) * ENTRY_BYTES + 16, offset);
        store_le32(b + (size_t)(entry + 1) * ENTRY_BYTES + 20, size);
    } else if (entry != UINT32_MAX) { /* the last entry takes its place */
        memmove(b + (size_t)(entry + 1) * ENTRY_BYTES, b + (size_t)count * ENTRY_BYTES,
                ENTRY_BYTES);
        memset(b + (size_t)count * ENTRY_BYTES, 0, ENTRY_BYTES);
        store_le16(b + 10, (uint16_t)(count - 1));
    } else if (size) {
        if (count == ENTRIES_MAX)
            return -ENOSPC;
        (void)put_entry(b, ITEM_LOCATOR, offset, size);
    }
    return 0;
}

uint32_t vhdx_metadata_find_room(const uint8_t *table, uint64_t region_bytes, uint32_t size)
{
    uint16_t count = load_le16(table + 10);

    for (uint32_t at = VHDX_TABLE_BYTES + VHDX_PAGE; at + (uint64_t)size <= region_bytes;
         at += VHDX_PAGE) {
        bool is_free = true;

        for (uint32_t i = 0; i < count && is_free; i++) {
            const uint8_t *e = table + (size_t)(i + 1) * ENTRY_BYTES;
            uint64_t from = load_le32(e + 16);

            is_free = from >= at + (uint64_t)size || from + load_le32(e + 20) <= at;
        }
        if (is_free)
            return at;
    }
    return 0;
}

/** Append a string to the locator: its place and length go to @offset_at and @length_at. */
static int put_string(uint8_t *b, uint32_t *end, const char *text, bool is_path, size_t offset_at,
                      size_t length_at)
{
    size_t size = 0;
    int rc = utf16_from_text(text, false, b + *end, VHDX_LOCATOR_BYTES - *end, &size);

    if (rc || size > UINT16_MAX)
        return rc ? rc : -ENAMETOOLONG;
    for (size_t i = 0; is_path && i < size; i += 2) {
        if (load_le16(b + *end + i) == '/')
            store_le16(b + *end + i, '\\');
    }
    store_le32(b + offset_at, *end);
    store_le16(b + length_at, (uint16_t)size);
    *end += (uint32_t)size;
    return 0;
}

int vhdx_locator_make(const char *path, const uint8_t *guid, uint8_t *b, uint32_t *ret_size,
                      struct error *err)
{
    char linkage[40];
    const char *const strings[2][2] = {
        {"parent_linkage",                                       linkage},
        {*path == '/' ? "absolute_win32_path" : "relative_path", path   },
    };
    uint32_t end = LOCATOR_HEADER + 2 * LOCATOR_ENTRY;
    int rc = 0;

    memset(b, 0, VHDX_LOCATOR_BYTES);
    memcpy(b, locator_type, VHDX_GUID_BYTES);
    store_le16(b + 18, 2);
    vhdx_guid_text(guid, linkage, sizeof(linkage));
    for (size_t i = 0; i < 2 && !rc; i++) {
        size_t e = LOCATOR_HEADER + i * LOCATOR_ENTRY;

        rc = put_string(b, &end, strings[i][0], false, e, e + 8);
        if (!rc)
            rc = put_string(b, &end, strings[i][1], i == 1, e + 4, e + 10);
    }
    if (rc)
        return error_set(err, -rc, "the path '%s' cannot be written into a VHDX image: %s", path,
                         strerror(-rc));
    *ret_size = end;
    return 0;
}

static char *get_string(const uint8_t *b, uint32_t size, uint32_t offset, uint16_t length)
{
    return offset > size || length > size - offset ? NULL
                                                   : utf16_to_text(b + offset, length, false);
}

int vhdx_locator_get(struct vhdx *v, const char *key, char **ret)
{
    uint32_t size = v->md.locator.size;
    cleanup(freep) uint8_t *b = malloc(VHDX_LOCATOR_BYTES);

    *ret = NULL;
    if (!b)
        return -ENOMEM;
    if (size < LOCATOR_HEADER)
        return 0;
    int rc = file_pread(v->m.file, b, size, v->md.locator.offset);
    if (rc)
        return rc;
    if (memcmp(b, locator_type, VHDX_GUID_BYTES) != 0)
        return -ENOTSUP;
    uint32_t count = MIN((uint32_t)load_le16(b + 18), (size - LOCATOR_HEADER) / LOCATOR_ENTRY);
    for (uint32_t i = 0; i < count && !*ret; i++) {
        const uint8_t *e = b + LOCATOR_HEADER + (size_t)i * LOCATOR_ENTRY;
        cleanup(freep) char *name = get_string(b, size, load_le32(e), load_le16(e + 8));

        if (name && !strcmp(name, key))
            *ret = get_string(b, size, load_le32(e + 4), load_le16(e + 10));
    }
    return 0;
}
