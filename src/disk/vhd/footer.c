/* VHD footers. Spec: VHD 1.0, "Hard Disk Footer Format" and "Appendix: CHS Calculation". Any
 * thread.
 *
 * Readers take the size from the geometry unless the creator is known to mean Current Size; of the
 * known names "qem2" is the one that says nothing else, so that is what new footers hold. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhd/vhd.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define COOKIE       "conectix"
#define CREATOR      "qem2"
#define CREATOR_HOST "Wi2k"
#define VERSION      0x00010000u
#define EPOCH_2000   946684800

enum {
    AT_FEATURES = 8,
    AT_VERSION = 12,
    AT_HEADER = 16,
    AT_STAMP = 24,
    AT_CREATOR = 28,
    AT_CREATOR_VERSION = 32,
    AT_CREATOR_HOST = 36,
    AT_ORIGINAL_SIZE = 40,
    AT_SIZE = 48,
    AT_GEOMETRY = 56,
    AT_TYPE = 60,
    AT_CHECKSUM = 64,
    AT_ID = 68,
};

uint32_t vhd_checksum(const uint8_t *b, size_t size, size_t checksum_at)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum += i >= checksum_at && i < checksum_at + 4 ? 0 : b[i];
    return ~sum;
}

uint32_t vhd_time(int64_t unix_s)
{
    return unix_s < EPOCH_2000 ? 0 : (uint32_t)(unix_s - EPOCH_2000);
}

int vhd_new_id(uint8_t *id)
{
    if (getrandom(id, VHD_ID_BYTES, 0) != VHD_ID_BYTES)
        return -errno;
    id[6] = (uint8_t)((id[6] & 0x0f) | 0x40); /* RFC 4122: random */
    id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
    return 0;
}

void vhd_id_text(const uint8_t *id, char *buf, size_t size)
{
    (void)snprintf(buf, size, "%08x-%04x-%04x-%04x-%04x%08x", load_be32(id), load_be16(id + 4),
                   load_be16(id + 6), load_be16(id + 8), load_be16(id + 10), load_be32(id + 12));
}

bool vhd_footer_parse(const uint8_t *b, struct vhd_footer *ret)
{
    if (memcmp(b, COOKIE, 8) != 0 ||
        load_be32(b + AT_CHECKSUM) != vhd_checksum(b, VHD_FOOTER_BYTES, AT_CHECKSUM))
        return false;
    if (load_be32(b + AT_VERSION) >> 16 != VERSION >> 16)
        return false;
    *ret = (struct vhd_footer){
        .header_offset = load_be64(b + AT_HEADER),
        .size_bytes = align_down(load_be64(b + AT_SIZE), DISK_SECTOR),
        .type = load_be32(b + AT_TYPE),
        .stamp = load_be32(b + AT_STAMP),
    };
    memcpy(ret->id, b + AT_ID, VHD_ID_BYTES);
    return true;
}

/** Cylinders, heads and sectors as the specification's appendix computes them. */
static uint32_t geometry(uint64_t size_bytes)
{
    uint64_t total = MIN(size_bytes / DISK_SECTOR, (uint64_t)65535 * 16 * 255);
    uint64_t per_track = 17;
    uint64_t tracks = total / 17;
    uint64_t heads = MAX((tracks + 1023) / 1024, (uint64_t)4);

    if (total >= (uint64_t)65535 * 16 * 63) {
        per_track = 255;
        heads = 16;
        tracks = total / 255;
    } else {
        if (tracks >= heads * 1024 || heads > 16) {
            per_track = 31;
            heads = 16;
            tracks = total / 31;
        }
        if (tracks >= heads * 1024) {
            per_track = 63;
            heads = 16;
            tracks = total / 63;
        }
    }
    return (uint32_t)(tracks / heads << 16 | heads << 8 | per_track);
}

void vhd_footer_update(uint8_t *b, const struct vhd_footer *f)
{
    store_be64(b + AT_HEADER, f->header_offset);
    store_be64(b + AT_SIZE, f->size_bytes);
    store_be32(b + AT_GEOMETRY, geometry(f->size_bytes));
    store_be32(b + AT_TYPE, f->type);
    store_be32(b + AT_CHECKSUM, vhd_checksum(b, VHD_FOOTER_BYTES, AT_CHECKSUM));
}

void vhd_footer_make(uint8_t *b, const struct vhd_footer *f)
{
    memset(b, 0, VHD_FOOTER_BYTES);
    memcpy(b, COOKIE, 8);
    store_be32(b + AT_FEATURES, 2); /* reserved, always set */
    store_be32(b + AT_VERSION, VERSION);
    store_be32(b + AT_STAMP, f->stamp);
    memcpy(b + AT_CREATOR, CREATOR, 4);
    store_be32(b + AT_CREATOR_VERSION, VERSION);
    memcpy(b + AT_CREATOR_HOST, CREATOR_HOST, 4);
    store_be64(b + AT_ORIGINAL_SIZE, f->size_bytes);
    memcpy(b + AT_ID, f->id, VHD_ID_BYTES);
    vhd_footer_update(b, f);
}
