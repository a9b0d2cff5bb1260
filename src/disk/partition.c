/* Partition tables. What they say is the guest's: every number is checked against the disk, and
 * chains and arrays are bounded. Any thread. Spec: UEFI 2.10 §5.2.1 (MBR), §5.3 (GPT). */
#include "disk/partition.h"
#include "base/bits.h"

#include <string.h>

#define SECTOR        512u
#define MBR_ENTRIES   446
#define MBR_MAX       4
#define TYPE_EXTENDED 0x05
#define TYPE_EXT_LBA  0x0f
#define TYPE_EXT_OLD  0x85
#define TYPE_GPT      0xee
#define FIRST_LOGICAL 5
#define MAX_LOGICAL   60
#define GPT_ENTRY     128
#define GPT_ENTRY_MAX 4096

struct table {
    struct disk *d;
    struct disk_partition *v;
    unsigned count;
};

/** Sectors [@first, @first+@count), if that is a part of the disk. */
static void add(struct table *t, unsigned number, uint64_t first, uint64_t count)
{
    uint64_t sectors = t->d->size_bytes / SECTOR;

    if (t->count == DISK_MAX_PARTITIONS || !count || first >= sectors || count > sectors - first)
        return;
    t->v[t->count++] =
        (struct disk_partition){.number = number, .offset = first * SECTOR, .size = count * SECTOR};
}

static int read_sector(struct disk *d, uint64_t sector, uint8_t *ret)
{
    if (sector >= d->size_bytes / SECTOR)
        return -1;
    return disk_pread(d, ret, SECTOR, sector * SECTOR);
}

static bool is_mbr(const uint8_t *sector)
{
    return sector[510] == 0x55 && sector[511] == 0xaa;
}

static bool is_extended(uint8_t type)
{
    return type == TYPE_EXTENDED || type == TYPE_EXT_LBA || type == TYPE_EXT_OLD;
}

/** Logical partitions: a chain of tables with one partition and the way to the next. */
static int add_logical(struct table *t, uint64_t start)
{
    uint64_t at = start;

    for (unsigned i = 0; i < MAX_LOGICAL; i++) {
        uint8_t sector[SECTOR];
        const uint8_t *first = sector + MBR_ENTRIES;
        const uint8_t *next = first + 16;
        int rc = read_sector(t->d, at, sector);

        if (rc || !is_mbr(sector))
            return rc < -1 ? rc : 0;
        add(t, FIRST_LOGICAL + i, at + load_le32(first + 8), load_le32(first + 12));
        if (!is_extended(next[4]) || !load_le32(next + 8))
            return 0;
        at = start + load_le32(next + 8);
    }
    return 0;
}

static int add_mbr(struct table *t, const uint8_t *mbr)
{
    int rc = 0;

    for (unsigned i = 0; i < MBR_MAX; i++) {
        const uint8_t *e = mbr + MBR_ENTRIES + 16 * (size_t)i;

        if (e[4] && !is_extended(e[4]))
            add(t, i + 1, load_le32(e + 8), load_le32(e + 12));
    }
    for (unsigned i = 0; i < MBR_MAX && !rc; i++) {
        const uint8_t *e = mbr + MBR_ENTRIES + 16 * (size_t)i;

        if (is_extended(e[4])) {
            rc = add_logical(t, load_le32(e + 8));
            break; /* there is one at most */
        }
    }
    return rc;
}

static int add_gpt(struct table *t)
{
    static const uint8_t unused[16];
    uint8_t head[SECTOR];
    uint8_t entry[GPT_ENTRY];
    int rc = read_sector(t->d, 1, head);

    if (rc || memcmp(head, "EFI PART", 8) != 0)
        return rc < -1 ? rc : 0;
    uint64_t at;
    uint32_t count = MIN(load_le32(head + 80), (uint32_t)DISK_MAX_PARTITIONS);
    uint32_t size = load_le32(head + 84);
    if (size < GPT_ENTRY || size > GPT_ENTRY_MAX ||
        !checked_mul(load_le64(head + 72), (uint64_t)SECTOR, &at))
        return 0;
    for (uint32_t i = 0; i < count; i++, at += size) {
        if (at > t->d->size_bytes || t->d->size_bytes - at < size)
            return 0;
        rc = disk_pread(t->d, entry, sizeof(entry), at);
        if (rc)
            return rc;
        uint64_t first = load_le64(entry + 32);
        uint64_t last = load_le64(entry + 40);
        if (memcmp(entry, unused, 16) != 0 && last >= first && last < UINT64_MAX)
            add(t, i + 1, first, last - first + 1);
    }
    return 0;
}

int disk_find_partitions(struct disk *d, struct disk_partition *ret)
{
    struct table t = {.d = d, .v = ret};
    uint8_t mbr[SECTOR];
    int rc = read_sector(d, 0, mbr);

    if (rc || !is_mbr(mbr))
        return rc < -1 ? rc : 0;
    bool has_gpt = false;
    for (unsigned i = 0; i < MBR_MAX; i++)
        has_gpt = has_gpt || mbr[MBR_ENTRIES + 16 * i + 4] == TYPE_GPT;
    rc = has_gpt ? add_gpt(&t) : add_mbr(&t, mbr);
    return rc ? rc : (int)t.count;
}
