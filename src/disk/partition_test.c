/* Partition tables, well made and not. */
#include "base/bits.h"
#include "base/test.h"
#include "disk/file_memory.h"
#include "disk/filesystem.h"
#include "disk/format.h"
#include "disk/partition.h"

#define SECTORS 20000u

static struct disk *d;
static struct disk_partition found[DISK_MAX_PARTITIONS];

static void begin(void)
{
    ASSERT_EQ(disk_open_file(file_memory_new(NULL, SECTORS * 512, SECTORS * 512), &raw_format, 0,
                             NULL, &d, NULL),
              0);
}

static void put_mbr(uint64_t sector, unsigned entry, uint8_t type, uint32_t first, uint32_t count)
{
    uint8_t e[16] = {[4] = type};
    static const uint8_t magic[2] = {0x55, 0xaa};

    store_le32(e + 8, first);
    store_le32(e + 12, count);
    ASSERT_EQ(disk_pwrite(d, e, 16, sector * 512 + 446 + 16 * (uint64_t)entry), 0);
    ASSERT_EQ(disk_pwrite(d, magic, 2, sector * 512 + 510), 0);
}

TEST(mbr_with_logical_partitions)
{
    begin();
    EXPECT_EQ(disk_find_partitions(d, found), 0);
    put_mbr(0, 0, 0x83, 2048, 1000);
    put_mbr(0, 1, 0x83, 19000, 2000); /* beyond the end */
    put_mbr(0, 2, 0x0f, 4000, 10000);
    put_mbr(0, 3, 0x82, 3100, 100);
    put_mbr(4000, 0, 0x83, 63, 500);
    put_mbr(4000, 1, 0x05, 1000, 1000);
    put_mbr(5000, 0, 0x83, 63, 600);
    put_mbr(5000, 1, 0x05, 1000, 1000); /* itself: a chain without end */
    int n = disk_find_partitions(d, found);
    ASSERT_TRUE(n > 4 && n <= DISK_MAX_PARTITIONS);
    EXPECT_TRUE(found[0].number == 1 && found[0].offset == 2048 * 512 && found[0].size == 512000);
    EXPECT_TRUE(found[1].number == 4 && found[1].offset == 3100 * 512);
    EXPECT_TRUE(found[2].number == 5 && found[2].offset == 4063 * 512 && found[2].size == 256000);
    EXPECT_TRUE(found[3].number == 6 && found[3].offset == 5063 * 512);
    disk_close(d);
}

TEST(gpt)
{
    uint8_t head[512] = "EFI PART";
    uint8_t e[128] = {1};

    begin();
    put_mbr(0, 0, 0xee, 1, SECTORS - 1);
    store_le64(head + 72, 2);
    store_le32(head + 80, UINT32_MAX); /* no more than there may be */
    store_le32(head + 84, 128);
    ASSERT_EQ(disk_pwrite(d, head, 512, 512), 0);
    store_le64(e + 32, 2048);
    store_le64(e + 40, 4095);
    ASSERT_EQ(disk_pwrite(d, e, 128, 1024), 0);
    store_le64(e + 32, 5000);
    store_le64(e + 40, 4000); /* ends before it begins */
    ASSERT_EQ(disk_pwrite(d, e, 128, 1024 + 128), 0);
    store_le64(e + 32, 0);
    store_le64(e + 40, UINT64_MAX);
    ASSERT_EQ(disk_pwrite(d, e, 128, 1024 + 256), 0);
    store_le64(e + 32, 8192);
    store_le64(e + 40, SECTORS - 1);
    ASSERT_EQ(disk_pwrite(d, e, 128, 1024 + 14 * 128), 0);
    ASSERT_EQ(disk_find_partitions(d, found), 2);
    EXPECT_TRUE(found[0].number == 1 && found[0].offset == 1 << 20 && found[0].size == 1 << 20);
    EXPECT_TRUE(found[1].number == 15 && found[1].size == (SECTORS - 8192) * 512);
    store_le64(head + 72, UINT64_MAX / 2);
    ASSERT_EQ(disk_pwrite(d, head, 512, 512), 0);
    EXPECT_EQ(disk_find_partitions(d, found), 0);
    disk_close(d);
}

TEST(file_systems_are_known_by_their_beginning)
{
    begin();
    EXPECT_TRUE(!disk_find_filesystem(d, 0, d->size_bytes));
    ASSERT_EQ(disk_pwrite(d, "_BHRfS_M", 8, 1 << 20 | 0x10040), 0);
    EXPECT_STR(disk_find_filesystem(d, 1 << 20, 1 << 20), "btrfs");
    EXPECT_TRUE(!disk_find_filesystem(d, 1 << 20, 0x10047)); /* it ends before */
    ASSERT_EQ(disk_pwrite(d, "\x53\xef", 2, 1 << 20 | 0x438), 0);
    EXPECT_STR(disk_find_filesystem(d, 1 << 20, 1 << 20), "ext4");
    ASSERT_EQ(disk_pwrite(d, "LUKS\xba\xbe", 6, d->size_bytes - 512), 0);
    EXPECT_STR(disk_find_filesystem(d, d->size_bytes - 512, UINT64_MAX), "luks");
    EXPECT_TRUE(!disk_find_filesystem(d, UINT64_MAX, 512));
    disk_close(d);
}
