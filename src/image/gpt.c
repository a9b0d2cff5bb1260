/* GUID partition tables, 512-byte sectors, 128 entries. Any thread.
 * Spec: UEFI 2.10 §5; root partition types: UAPI Discoverable Partitions Specification. */
#include "image/gpt.h"

#include "base/bits.h"
#include "base/fd.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define ENTRY_COUNT   128
#define ENTRY_SIZE    128
#define TABLE_SECTORS (ENTRY_COUNT * ENTRY_SIZE / GPT_SECTOR)
#define GPT_PARTS_MAX 16

struct guid {
    uint8_t b[16]; /* as on disk: the first three fields are little-endian */
};

static const struct guid type_esp = {
    {0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9,
     0x3b}
};
static const struct guid type_linux = {
    {0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d,
     0xe4}
};
static const struct {
    const char *arch;
    struct guid guid;
} type_roots[] = {
    {"riscv64",
     {{0xc7, 0x70, 0xec, 0x72, 0x74, 0xcf, 0xe6, 0x40, 0xbd, 0x49, 0x4b, 0xda, 0x08, 0xe8, 0xf2,
       0x24}}},
    {"amd64",
     {{0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7,
       0x09}}},
    {"arm64",
     {{0x45, 0xb0, 0x21, 0xb9, 0xf0, 0x1d, 0xc3, 0x41, 0xaf, 0x44, 0x4c, 0x6f, 0x28, 0x0d, 0x3f,
       0xae}}},
};

uint32_t gpt_crc32(const void *data, size_t size)
{
    const uint8_t *p = data;
    uint32_t crc = ~0u;

    for (size_t i = 0; i < size; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/** RFC 9562 §5.4 */
static bool random_guid(uint8_t ret[16])
{
    if (getrandom(ret, 16, 0) != 16)
        return false;
    ret[7] = (uint8_t)((ret[7] & 0x0f) | 0x40);
    ret[8] = (uint8_t)((ret[8] & 0x3f) | 0x80);
    return true;
}

static const struct guid *type_guid(enum gpt_type type, const char *arch)
{
    if (type == GPT_ESP)
        return &type_esp;
    for (size_t i = 0; i < ARRAY_SIZE(type_roots); i++)
        if (!strcmp(type_roots[i].arch, arch))
            return &type_roots[i].guid;
    return &type_linux;
}

/** Fill the table of entries; false if the partitions do not fit below sector @last + 1. */
static bool fill_table(uint8_t *table, uint64_t last, const char *arch,
                       const struct gpt_partition *parts, size_t n)
{
    uint64_t next = GPT_FIRST_BYTES / GPT_SECTOR;

    for (size_t i = 0; i < n; i++) {
        uint8_t *e = table + i * ENTRY_SIZE;
        uint64_t sectors = parts[i].size_bytes / GPT_SECTOR;

        if (!sectors && i == n - 1 && last >= next)
            sectors = align_down(last + 1 - next, GPT_FIRST_BYTES / GPT_SECTOR);
        if (!sectors || sectors > last + 1 || next > last + 1 - sectors)
            return false;
        memcpy(e, type_guid(parts[i].type, arch), 16);
        if (!random_guid(e + 16))
            return false;
        store_le64(e + 32, next);
        store_le64(e + 40, next + sectors - 1);
        for (size_t c = 0; parts[i].name[c] && c < 36; c++)
            store_le16(e + 56 + 2 * c, (uint8_t)parts[i].name[c]);
        next += sectors;
    }
    return true;
}

/** The header at sector @self, whose twin is at @other and whose table is at @table_at. */
static void fill_header(uint8_t h[GPT_SECTOR], uint64_t self, uint64_t other, uint64_t table_at,
                        uint64_t sectors, const uint8_t disk_guid[16], uint32_t table_crc)
{
    memset(h, 0, GPT_SECTOR);
    memcpy(h, "EFI PART", 8);
    store_le32(h + 8, 0x00010000);
    store_le32(h + 12, 92);
    store_le64(h + 24, self);
    store_le64(h + 32, other);
    store_le64(h + 40, 2 + TABLE_SECTORS);
    store_le64(h + 48, sectors - TABLE_SECTORS - 2);
    memcpy(h + 56, disk_guid, 16);
    store_le64(h + 72, table_at);
    store_le32(h + 80, ENTRY_COUNT);
    store_le32(h + 84, ENTRY_SIZE);
    store_le32(h + 88, table_crc);
    store_le32(h + 16, gpt_crc32(h, 92));
}

/** UEFI 2.10 §5.2.3 */
static void fill_protective_mbr(uint8_t mbr[GPT_SECTOR], uint64_t sectors)
{
    memset(mbr, 0, GPT_SECTOR);
    memcpy(mbr + 446, "\x00\x00\x02\x00\xee\xff\xff\xff", 8);
    store_le32(mbr + 454, 1);
    store_le32(mbr + 458, (uint32_t)MIN(sectors - 1, (uint64_t)UINT32_MAX));
    store_le16(mbr + 510, 0xaa55);
}

int gpt_write(int fd, uint64_t disk_bytes, const char *arch, const struct gpt_partition *parts,
              size_t n, struct error *err)
{
    static const size_t table_size = TABLE_SECTORS * GPT_SECTOR;
    uint64_t sectors = disk_bytes / GPT_SECTOR;
    cleanup(freep) uint8_t *table = calloc(1, table_size);
    uint8_t block[GPT_SECTOR], guid[16];

    assert(n && n <= GPT_PARTS_MAX);
    if (!table)
        return error_set(err, ENOMEM, "out of memory");
    if (sectors < 2 * GPT_FIRST_BYTES / GPT_SECTOR || !random_guid(guid) ||
        !fill_table(table, sectors - TABLE_SECTORS - 2, arch, parts, n))
        return error_set(err, EINVAL, "a disk of %llu bytes is too small",
                         (unsigned long long)disk_bytes);
    uint32_t crc = gpt_crc32(table, table_size);
    uint64_t backup = sectors - 1, backup_table = backup - TABLE_SECTORS;

    fill_protective_mbr(block, sectors);
    int r = fd_pwrite_all(fd, block, sizeof(block), 0);
    fill_header(block, 1, backup, 2, sectors, guid, crc);
    if (!r)
        r = fd_pwrite_all(fd, block, sizeof(block), GPT_SECTOR);
    if (!r)
        r = fd_pwrite_all(fd, table, table_size, 2 * GPT_SECTOR);
    if (!r)
        r = fd_pwrite_all(fd, table, table_size, (off_t)(backup_table * GPT_SECTOR));
    fill_header(block, backup, 1, backup_table, sectors, guid, crc);
    if (!r)
        r = fd_pwrite_all(fd, block, sizeof(block), (off_t)(backup * GPT_SECTOR));
    return r ? error_set(err, -r, "cannot write a partition table: %s", strerror(-r)) : 0;
}
