/* VHD dynamic headers, and the parents they name. Spec: VHD 1.0, "Dynamic Disk Header Format" and
 * "Identification of the Parent Hard Disk Image".
 *
 * A parent's path is looked for in this order: a relative path (W2ru), an absolute one (W2ku), the
 * name in the header. The specification counts a locator's space in sectors, most writers count
 * bytes; so only its length is used.
 *
 * Threads: any.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhd/utf16.h"
#include "disk/vhd/vhd.h"

#include <string.h>
#include <sys/stat.h>

#define COOKIE   "cxsparse"
#define VERSION  0x00010000u
#define RELATIVE 0x57327275u /* "W2ru" */
#define ABSOLUTE 0x57326b75u /* "W2ku" */

enum {
    AT_NEXT = 8,
    AT_TABLE = 16,
    AT_VERSION = 24,
    AT_ENTRIES = 28,
    AT_BLOCK = 32,
    AT_CHECKSUM = 36,
    AT_PARENT_ID = 40,
    AT_PARENT_STAMP = 56,
    AT_PARENT_NAME = 64,
    AT_LOCATORS = 576,
    NAME_BYTES = 512,
    LOCATOR_BYTES = 24,
};

bool vhd_header_parse(const uint8_t *b, struct vhd_header *ret)
{
    if (memcmp(b, COOKIE, 8) != 0 ||
        load_be32(b + AT_CHECKSUM) != vhd_checksum(b, VHD_HEADER_BYTES, AT_CHECKSUM))
        return false;
    *ret = (struct vhd_header){
        .table_offset = load_be64(b + AT_TABLE),
        .max_entries = load_be32(b + AT_ENTRIES),
        .block_bytes = load_be32(b + AT_BLOCK),
        .parent_stamp = load_be32(b + AT_PARENT_STAMP),
    };
    memcpy(ret->parent_id, b + AT_PARENT_ID, VHD_ID_BYTES);
    return true;
}

static void sign(uint8_t *b)
{
    store_be32(b + AT_CHECKSUM, vhd_checksum(b, VHD_HEADER_BYTES, AT_CHECKSUM));
}

void vhd_header_make(uint8_t *b, const struct vhd_header *h)
{
    memcpy(b, COOKIE, 8);
    store_be64(b + AT_NEXT, UINT64_MAX);
    store_be64(b + AT_TABLE, h->table_offset);
    store_be32(b + AT_VERSION, VERSION);
    store_be32(b + AT_ENTRIES, h->max_entries);
    store_be32(b + AT_BLOCK, h->block_bytes);
    sign(b);
}

/** The path of the first locator of @code, or NULL. */
static int get_locator(struct file *file, const uint8_t *b, uint32_t code, char **ret)
{
    for (unsigned i = 0; i < VHD_LOCATORS && !*ret; i++) {
        const uint8_t *l = b + AT_LOCATORS + (size_t)i * LOCATOR_BYTES;
        uint32_t size = load_be32(l + 8);
        uint8_t buf[VHD_PATH_BYTES];

        if (load_be32(l) != code || !size || size > sizeof(buf) ||
            load_be64(l + 16) > (uint64_t)INT64_MAX - size)
            continue;
        int rc = file_pread(file, buf, size, load_be64(l + 16));
        if (rc)
            return rc;
        *ret = utf16_to_text(buf, size, false);
        if (!*ret)
            return -ENOMEM;
        utf16_path_to_host(*ret);
        if (!**ret) {
            free(*ret);
            *ret = NULL;
        }
    }
    return 0;
}

int vhd_header_get_parent(struct file *file, const uint8_t *b, char **ret)
{
    char *path = NULL;
    int rc = get_locator(file, b, RELATIVE, &path);

    if (!rc && !path)
        rc = get_locator(file, b, ABSOLUTE, &path);
    if (!rc && !path) {
        path = utf16_to_text(b + AT_PARENT_NAME, NAME_BYTES, true);
        rc = path ? 0 : -ENOMEM;
        if (path)
            utf16_path_to_host(path);
        if (path && !*path) {
            free(path);
            path = NULL;
        }
    }
    if (!rc)
        *ret = path;
    return rc;
}

/** Windows' notation of @path: ".\NAME" if relative. */
static int windows_path(const char *path, uint8_t *buf, size_t size, size_t *ret)
{
    size_t skip = *path == '/' ? 0 : 4;

    if (skip)
        memcpy(buf, ".\0\\\0", 4);
    int rc = utf16_from_text(path, false, buf + skip, size - skip, ret);
    if (rc)
        return rc;
    *ret += skip;
    for (size_t i = 0; i < *ret; i += 2) {
        if (load_le16(buf + i) == '/')
            store_le16(buf + i, '\\');
    }
    return 0;
}

int vhd_header_set_parent(uint8_t *b, const char *path, const uint8_t *id, uint32_t stamp,
                          struct file *file, uint64_t at, uint64_t *ret_end, struct error *err)
{
    uint8_t buf[VHD_PATH_BYTES] = {0};
    uint8_t *l = b + AT_LOCATORS;
    size_t size = 0;

    memset(b + AT_PARENT_ID, 0, VHD_HEADER_BYTES - AT_PARENT_ID);
    *ret_end = at;
    if (!path) {
        sign(b);
        return 0;
    }
    /* At most 255 characters of the name, and a NUL. */
    int rc =
        utf16_from_text(utf16_path_name(path), true, b + AT_PARENT_NAME, NAME_BYTES - 2, &size);
    if (!rc)
        rc = windows_path(path, buf, sizeof(buf), &size);
    if (rc)
        return error_set(err, -rc, "the path '%s' cannot be written into a VHD image: %s", path,
                         strerror(-rc));
    memcpy(b + AT_PARENT_ID, id, VHD_ID_BYTES);
    store_be32(b + AT_PARENT_STAMP, stamp);
    uint32_t space = (uint32_t)align_up(size, DISK_SECTOR);
    store_be32(l, *path == '/' ? ABSOLUTE : RELATIVE);
    store_be32(l + 4, space);
    store_be32(l + 8, (uint32_t)size);
    store_be64(l + 16, at);
    sign(b);
    *ret_end = at + space;
    rc = file_pwrite(file, buf, space, at);
    return rc ? error_set(err, -rc, "cannot write '%s': %s", file->path, strerror(-rc)) : 0;
}

void vhd_get_identity(const struct disk *d, uint8_t *id, uint32_t *ret_stamp)
{
    const struct vhd *v = (const struct vhd *)d;
    struct stat st;

    memcpy(id, v->f.id, VHD_ID_BYTES);
    *ret_stamp = v->f.stamp;
    if (v->m.file->fd >= 0 && !fstat(v->m.file->fd, &st))
        *ret_stamp = vhd_time(st.st_mtime);
}
