/* VHDX headers and region tables. Spec: [MS-VHDX] 2.2.
 *
 * There are two headers; the one with the higher sequence number counts. An update writes the other
 * one, flushes, and then brings the first up to date as well: at any moment one is whole.
 *
 * Threads: opening, or commit_lock.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhdx/vhdx.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum {
    HEADER1 = 64 << 10,
    HEADER2 = 128 << 10,
    AT_CHECKSUM = 4,
    AT_SEQUENCE = 8,
    AT_FILE_GUID = 16,
    AT_DATA_GUID = 32,
    AT_LOG_GUID = 48,
    AT_LOG_VERSION = 64,
    AT_VERSION = 66,
    AT_LOG_BYTES = 68,
    AT_LOG_OFFSET = 72,
    REGION_ENTRY_BYTES = 32,
    REGION_MAX = 2047,
};

const uint8_t vhdx_guid_table[] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                   0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
const uint8_t vhdx_guid_metadata[] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                      0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};

static uint32_t crc_table[256];

/** CRC-32C, the polynomial of iSCSI (RFC 3720). */
static void make_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;

        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
        crc_table[i] = c;
    }
}

static uint32_t crc_add(uint32_t crc, const uint8_t *b, size_t size)
{
    for (size_t i = 0; i < size; i++)
        crc = crc_table[(crc ^ b[i]) & 0xff] ^ crc >> 8;
    return crc;
}

/** With the four bytes at @checksum_at taken as zero. */
uint32_t vhdx_crc(const uint8_t *b, size_t size, size_t checksum_at)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static const uint8_t zero[4];

    (void)pthread_once(&once, make_crc_table);
    uint32_t crc = crc_add(~0u, b, checksum_at);
    crc = crc_add(crc, zero, sizeof(zero));
    return ~crc_add(crc, b + checksum_at + 4, size - checksum_at - 4);
}

int vhdx_new_guid(uint8_t *guid)
{
    if (getrandom(guid, VHDX_GUID_BYTES, 0) != VHDX_GUID_BYTES)
        return -errno;
    guid[7] = (uint8_t)((guid[7] & 0x0f) | 0x40); /* RFC 4122: random */
    guid[8] = (uint8_t)((guid[8] & 0x3f) | 0x80);
    return 0;
}

void vhdx_guid_text(const uint8_t *guid, char *buf, size_t size)
{
    (void)snprintf(buf, size, "{%08x-%04x-%04x-%04x-%04x%08x}", load_le32(guid),
                   load_le16(guid + 4), load_le16(guid + 6), load_be16(guid + 8),
                   load_be16(guid + 10), load_be32(guid + 12));
}

bool vhdx_is_zero(const uint8_t *guid)
{
    static const uint8_t zero[VHDX_GUID_BYTES];

    return !memcmp(guid, zero, sizeof(zero));
}

static bool parse_header(const uint8_t *b, struct vhdx_header *ret)
{
    if (memcmp(b, "head", 4) != 0 || load_le16(b + AT_VERSION) != 1 ||
        load_le32(b + AT_CHECKSUM) != vhdx_crc(b, VHDX_HEADER_BYTES, AT_CHECKSUM))
        return false;
    *ret = (struct vhdx_header){
        .sequence = load_le64(b + AT_SEQUENCE),
        .log_version = load_le16(b + AT_LOG_VERSION),
        .log_bytes = load_le32(b + AT_LOG_BYTES),
        .log_offset = load_le64(b + AT_LOG_OFFSET),
    };
    memcpy(ret->file_guid, b + AT_FILE_GUID, VHDX_GUID_BYTES);
    memcpy(ret->data_guid, b + AT_DATA_GUID, VHDX_GUID_BYTES);
    memcpy(ret->log_guid, b + AT_LOG_GUID, VHDX_GUID_BYTES);
    return true;
}

void vhdx_header_make(const struct vhdx_header *h, uint8_t *b)
{
    memset(b, 0, VHDX_HEADER_BYTES);
    memcpy(b, "head", 4);
    store_le64(b + AT_SEQUENCE, h->sequence);
    memcpy(b + AT_FILE_GUID, h->file_guid, VHDX_GUID_BYTES);
    memcpy(b + AT_DATA_GUID, h->data_guid, VHDX_GUID_BYTES);
    memcpy(b + AT_LOG_GUID, h->log_guid, VHDX_GUID_BYTES);
    store_le16(b + AT_VERSION, 1);
    store_le32(b + AT_LOG_BYTES, h->log_bytes);
    store_le64(b + AT_LOG_OFFSET, h->log_offset);
    store_le32(b + AT_CHECKSUM, vhdx_crc(b, VHDX_HEADER_BYTES, AT_CHECKSUM));
}

int vhdx_header_read(struct file *file, struct vhdx_header *ret, unsigned *ret_slot,
                     struct error *err)
{
    struct vhdx_header h[2];
    bool good[2] = {false, false};
    uint8_t b[VHDX_HEADER_BYTES];

    for (unsigned i = 0; i < 2; i++) {
        int rc = file_pread(file, b, sizeof(b), i ? HEADER2 : HEADER1);

        if (rc)
            return error_set(err, -rc, "cannot read '%s': %s", file->path, strerror(-rc));
        good[i] = parse_header(b, &h[i]);
    }
    if (!good[0] && !good[1])
        return error_set(err, EINVAL, "'%s' is no VHDX image, or both of its headers are damaged",
                         file->path);
    *ret_slot = !good[0] || (good[1] && h[1].sequence > h[0].sequence);
    *ret = h[*ret_slot];
    if (ret->sequence == UINT64_MAX || ret->log_bytes % VHDX_MIB || ret->log_offset % VHDX_MIB ||
        ret->log_offset < VHDX_MIB || ret->log_offset > VHDX_MAX_OFFSET)
        return error_set(err, EINVAL, "VHDX image '%s' has a header that makes no sense",
                         file->path);
    return 0;
}

int vhdx_header_update(struct vhdx *v)
{
    uint8_t b[VHDX_HEADER_BYTES];
    int rc = 0;

    for (unsigned i = 0; i < 2 && !rc; i++) {
        unsigned slot = !v->header_slot;

        v->h.sequence++;
        vhdx_header_make(&v->h, b);
        rc = file_pwrite(v->m.file, b, sizeof(b), slot ? HEADER2 : HEADER1);
        if (!rc)
            rc = file_flush(v->m.file);
        if (!rc)
            v->header_slot = slot;
    }
    return rc;
}

/** One copy of the region table in @b, if it is good. */
static bool is_region_table(const uint8_t *b)
{
    return !memcmp(b, "regi", 4) && load_le32(b + 8) <= REGION_MAX &&
           load_le32(b + AT_CHECKSUM) == vhdx_crc(b, VHDX_REGION_BYTES, AT_CHECKSUM);
}

static int parse_regions(struct vhdx *v, const uint8_t *b, uint64_t file_bytes, struct error *err)
{
    const char *path = v->m.file->path;
    uint32_t count = load_le32(b + 8);

    if (count > VHDX_MAX_REGIONS)
        return error_set(err, EINVAL, "VHDX image '%s' has %u regions", path, count);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *e = b + 16 + (size_t)i * REGION_ENTRY_BYTES;
        struct vhd_region r = {load_le64(e + 16), load_le32(e + 24)};
        struct vhd_region *known = !memcmp(e, vhdx_guid_table, VHDX_GUID_BYTES)      ? &v->table
                                   : !memcmp(e, vhdx_guid_metadata, VHDX_GUID_BYTES) ? &v->metadata
                                                                                     : NULL;

        if (!known && load_le32(e + 28) & 1)
            return error_set(err, ENOTSUP, "VHDX image '%s' has a region that is not known", path);
        if (r.offset % VHDX_MIB || r.size % VHDX_MIB || r.offset < VHDX_MIB || !r.size ||
            r.offset > file_bytes || r.size > file_bytes - r.offset || (known && known->size))
            return error_set(err, EINVAL, "VHDX image '%s' has a region outside of its place",
                             path);
        if (known)
            *known = r;
        if (vhdx_add_used(v, r.offset, r.size))
            return error_set(err, ENOMEM, "out of memory");
    }
    if (!v->table.size || !v->metadata.size)
        return error_set(err, EINVAL, "VHDX image '%s' lacks a region", path);
    return 0;
}

int vhdx_regions_read(struct vhdx *v, uint64_t file_bytes, struct error *err)
{
    cleanup(freep) uint8_t *b = malloc(VHDX_REGION_BYTES);
    int rc = b ? file_pread(v->m.file, b, VHDX_REGION_BYTES, VHDX_REGION_TABLE1) : -ENOMEM;

    if (!rc && !is_region_table(b)) {
        rc = file_pread(v->m.file, b, VHDX_REGION_BYTES, VHDX_REGION_TABLE2);
        if (!rc && !is_region_table(b))
            return error_set(err, EINVAL, "both region tables of VHDX image '%s' are damaged",
                             v->m.file->path);
    }
    if (!rc)
        rc = vhdx_add_used(v, 0, VHDX_MIB);
    if (!rc && v->h.log_bytes)
        rc = vhdx_add_used(v, v->h.log_offset, v->h.log_bytes);
    if (rc)
        return error_set(err, -rc, "cannot read '%s': %s", v->m.file->path, strerror(-rc));
    rc = parse_regions(v, b, file_bytes, err);
    for (size_t i = 0; !rc && i < v->used_count; i++) {
        for (size_t j = 0; j < i && !rc; j++) {
            if (v->used[i].offset < v->used[j].offset + v->used[j].size &&
                v->used[j].offset < v->used[i].offset + v->used[i].size)
                rc = error_set(err, EINVAL, "VHDX image '%s' has regions that overlap",
                               v->m.file->path);
        }
    }
    return rc;
}

static void put_region(uint8_t *e, const uint8_t *guid, const struct vhd_region *r)
{
    memcpy(e, guid, VHDX_GUID_BYTES);
    store_le64(e + 16, r->offset);
    store_le32(e + 24, (uint32_t)r->size);
    store_le32(e + 28, 1); /* required */
}

/** VHDX_REGION_BYTES at @b. */
void vhdx_region_table_make(const struct vhd_region *table, const struct vhd_region *metadata,
                            uint8_t *b)
{
    memset(b, 0, VHDX_REGION_BYTES);
    memcpy(b, "regi", 4);
    store_le32(b + 8, 2);
    put_region(b + 16, vhdx_guid_table, table);
    put_region(b + 16 + REGION_ENTRY_BYTES, vhdx_guid_metadata, metadata);
    store_le32(b + AT_CHECKSUM, vhdx_crc(b, VHDX_REGION_BYTES, AT_CHECKSUM));
}
