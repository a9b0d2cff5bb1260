/* VHDX: headers, log replay, block states, parents, and the sizes that may be chosen. */
#include "base/bits.h"
#include "base/fd.h"
#include "base/test.h"
#include "disk/file_memory.h"
#include "disk/vhdx/vhdx.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define MAX_FILE (600ULL << 20)
#define SIZE     (5u << 20)
#define HEADER1  (64u << 10)
#define HEADER2  (128u << 10)

static struct error err;

static struct file *new_image(uint64_t size, struct disk *below,
                              const struct disk_create_value *values)
{
    struct file *f = file_memory_new(NULL, 0, MAX_FILE);
    struct disk_create c = {
        .size_bytes = size,
        .values = values,
        .backing = below,
        .backing_path = below ? "below.vhdx" : NULL,
    };

    err = (struct error){0};
    if (disk_create_file(f, &vhdx_format, &c, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    return f;
}

static int try_open(struct file *f, unsigned flags, struct disk *below, struct disk **ret)
{
    *ret = NULL;
    err = (struct error){0};
    int rc = disk_open_file(f, &vhdx_format, flags, below, ret, &err);
    EXPECT_TRUE(!rc == !!*ret);
    EXPECT_TRUE(!rc || *err.text);
    return rc;
}

static struct disk *must_open(struct file *f, unsigned flags, struct disk *below)
{
    struct disk *d;

    if (try_open(f, flags, below, &d))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    ASSERT_TRUE(d);
    return d;
}

static struct disk *new_below(void)
{
    struct disk *d = must_open(new_image(SIZE, NULL, NULL), 0, NULL);
    static uint8_t data[SIZE];

    memset(data, 0xbb, sizeof(data));
    ASSERT_EQ(disk_pwrite(d, data, sizeof(data), 0), 0);
    return d;
}

static uint8_t byte_at(struct disk *d, uint64_t offset)
{
    uint8_t b = 0xee;

    EXPECT_EQ(disk_pread(d, &b, 1, offset), 0);
    return b;
}

static void poke(struct file *f, uint64_t at, const void *data, size_t size)
{
    ASSERT_EQ(file_pwrite(f, data, size, at), 0);
}

TEST(either_header_may_be_damaged)
{
    static const uint32_t places[] = {HEADER1, HEADER2};
    uint8_t byte = 7;

    for (size_t i = 0; i < 2; i++) {
        struct file *f = new_image(SIZE, NULL, NULL);
        struct disk *d;

        poke(f, places[i] + 100, "x", 1);
        d = must_open(f, 0, NULL);
        ASSERT_EQ(disk_pwrite(d, &byte, 1, 3), 0); /* both are good again */
        ASSERT_EQ(disk_flush(d), 0);
        struct file *copy = file_memory_copy(f);
        disk_close(d);
        poke(copy, places[!i] + 100, "x", 1);
        d = must_open(copy, DISK_READONLY, NULL);
        EXPECT_EQ(byte_at(d, 3), 7);
        struct file *again = file_memory_copy(copy);
        disk_close(d);
        poke(again, HEADER1 + 100, "y", 1);
        poke(again, HEADER2 + 100, "y", 1);
        EXPECT_EQ(try_open(again, 0, NULL, &d), -EINVAL);
        file_close(again);
    }
}

TEST(either_region_table_may_be_damaged)
{
    for (unsigned i = 0; i < 3; i++) {
        struct file *f = new_image(SIZE, NULL, NULL);
        struct disk *d = NULL;

        if (i != 0)
            poke(f, VHDX_REGION_TABLE1 + 1000, "x", 1);
        if (i != 1)
            poke(f, VHDX_REGION_TABLE2 + 1000, "x", 1);
        EXPECT_EQ(try_open(f, 0, NULL, &d), i == 2 ? -EINVAL : 0);
        if (d)
            disk_close(d);
        else
            file_close(f);
    }
}

/* "an implementation MUST change this field to a new and unique identifier before the first
 * modification is made to user-visible data" ([MS-VHDX] 2.2.2) */
TEST(identifiers_change_at_the_first_write)
{
    struct disk *d = must_open(new_image(SIZE, NULL, NULL), 0, NULL);
    struct vhdx *v = vhdx_of(d);
    struct vhdx_header before = v->h;
    uint8_t byte = 1;

    (void)byte_at(d, 0);
    ASSERT_EQ(disk_flush(d), 0);
    EXPECT_MEM(v->h.data_guid, before.data_guid, VHDX_GUID_BYTES);
    ASSERT_EQ(disk_pwrite(d, &byte, 1, 0), 0);
    EXPECT_TRUE(memcmp(v->h.data_guid, before.data_guid, VHDX_GUID_BYTES) != 0);
    EXPECT_TRUE(memcmp(v->h.file_guid, before.file_guid, VHDX_GUID_BYTES) != 0);
    struct vhdx_header after = v->h;
    ASSERT_EQ(disk_pwrite(d, &byte, 1, 4000000), 0);
    EXPECT_MEM(v->h.data_guid, after.data_guid, VHDX_GUID_BYTES);
    disk_close(d);
}

/** A differencing image as a power cut leaves it; with @wipe what the log says is nowhere else. */
static struct file *with_log(struct disk *below, bool wipe)
{
    struct file *f = new_image(SIZE, below, NULL);
    struct disk *d = must_open(f, 0, below);
    uint8_t data[700];

    memset(data, 0x11, sizeof(data));
    ASSERT_EQ(disk_pwrite(d, data, sizeof(data), 5000), 0);
    ASSERT_EQ(disk_flush(d), 0);
    memset(data, 0x22, sizeof(data));
    ASSERT_EQ(disk_pwrite(d, data, sizeof(data), 3000000), 0);
    ASSERT_EQ(disk_flush(d), 0);
    struct file *copy = file_memory_copy(f);
    /* The second commit changed the first page of the table and of the bitmap block. */
    if (wipe) {
        ASSERT_EQ(file_write_zeroes(copy, vhdx_of(d)->table.offset, VHDX_PAGE, false), 0);
        ASSERT_EQ(file_write_zeroes(copy, vhdx_of(d)->bitmaps[0], VHDX_PAGE, false), 0);
    }
    d->below = NULL;
    disk_close(d);
    return copy;
}

static void expect_log_content(struct disk *d)
{
    EXPECT_EQ(byte_at(d, 4999), 0xbb);
    EXPECT_EQ(byte_at(d, 5000), 0x11);
    EXPECT_EQ(byte_at(d, 5699), 0x11);
    EXPECT_EQ(byte_at(d, 5700), 0xbb);
    EXPECT_EQ(byte_at(d, 3000000), 0x22);
    EXPECT_EQ(byte_at(d, 3000700), 0xbb);
}

/* "read-only open of a dirty log replays into memory, never to the file" */
TEST(a_log_is_replayed_into_memory)
{
    struct disk *below = new_below();
    struct file *f = with_log(below, true);
    struct disk_check check = {0};

    file_memory_record(f);
    struct disk *d = must_open(f, DISK_READONLY, below);
    expect_log_content(d);
    EXPECT_EQ(disk_check(d, 0, &check, &err), 0);
    EXPECT_EQ(check.errors, 0);
    EXPECT_EQ(file_memory_get_log(f)->count, 0);
    struct disk_info info;
    ASSERT_EQ(disk_get_info(d, &info, NULL), 0);
    EXPECT_TRUE(info.is_dirty);
    disk_info_done(&info);
    disk_close(d);
}

TEST(a_log_is_replayed_into_the_file)
{
    struct disk *below = new_below();
    struct file *f = with_log(below, true);
    struct disk *d = must_open(f, 0, below);

    expect_log_content(d);
    struct file *copy = file_memory_copy(f);
    d->below = NULL;
    disk_close(d);
    d = must_open(copy, DISK_READONLY, below);
    expect_log_content(d);
    EXPECT_TRUE(!vhdx_of(d)->was_dirty);
    disk_close(d);
}

/* A torn newest entry: the one before it counts, and what it says has been applied already. */
TEST(a_torn_entry_is_not_replayed)
{
    struct disk *below = new_below();
    struct file *f = with_log(below, false);
    uint8_t b[VHDX_PAGE];
    uint64_t newest = 0;
    uint64_t at = 0;
    struct disk *d;

    for (uint64_t i = 1 << 20; i < 2 << 20; i += VHDX_PAGE) {
        ASSERT_EQ(file_pread(f, b, sizeof(b), i), 0);
        if (!memcmp(b, "loge", 4) && load_le64(b + 16) > newest) {
            newest = load_le64(b + 16);
            at = i;
        }
    }
    ASSERT_EQ(newest, 2);
    poke(f, at + VHDX_PAGE + 100, "torn", 4);
    d = must_open(f, DISK_READONLY, below);
    EXPECT_EQ(byte_at(d, 5000), 0x11);
    EXPECT_EQ(vhdx_of(d)->was_dirty, true);
    struct file *copy = file_memory_copy(f);
    d->below = NULL;
    disk_close(d);
    poke(copy, (1 << 20) + VHDX_PAGE + 100, "torn", 4); /* "the file is corrupt" */
    EXPECT_EQ(try_open(copy, DISK_READONLY, below, &d), -EINVAL);
    file_close(copy);
    disk_close(below);
}

/* [MS-VHDX] 2.5.1.1 */
TEST(block_states)
{
    static const struct {
        uint64_t entry; /* of the second block, MiB 5 in the file being the first's */
        bool over;
        int rc;
        uint8_t byte;
    } cases[] = {
        {0,                         true,  0,    0xbb},
        {0,                         false, 0,    0   },
        {1,                         true,  0,    0   },
        {2,                         true,  0,    0   },
        {3,                         true,  0,    0   },
        {4,                         true,  -EIO, 0   },
        {5,                         false, -EIO, 0   },
        {VHDX_PARTLY | 4ULL << 20,  false, -EIO, 0   },
        {VHDX_PRESENT | 1ULL << 40, true,  -EIO, 0   },
        {VHDX_PRESENT,              true,  -EIO, 0   },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct disk *below = cases[i].over ? new_below() : NULL;
        struct file *f = new_image(SIZE, below, NULL);
        struct disk *d = must_open(f, 0, below);
        uint64_t table = vhdx_of(d)->table.offset;
        uint8_t entry[8];
        uint8_t byte = 0;

        struct file *copy = file_memory_copy(f);
        d->below = NULL;
        disk_close(d);
        store_le64(entry, cases[i].entry);
        poke(copy, table + 8, entry, 8);
        d = must_open(copy, 0, below);
        int rc = disk_pread(d, &byte, 1, 3 << 20);
        EXPECT_EQ(rc, cases[i].rc);
        if (!rc)
            EXPECT_EQ(byte, cases[i].byte);
        struct disk_check check = {0};
        if (rc || cases[i].entry == VHDX_PRESENT) {
            ASSERT_EQ(disk_check(d, DISK_REPAIR_ALL, &check, &err), 0);
            EXPECT_EQ(check.errors_fixed, 1);
        }
        byte = 0x77;
        EXPECT_EQ(disk_pwrite(d, &byte, 1, 3 << 20), 0);
        EXPECT_EQ(byte_at(d, 3 << 20), 0x77);
        EXPECT_EQ(byte_at(d, (3 << 20) + 5000),
                  cases[i].rc && cases[i].over ? 0xbb : cases[i].byte);
        disk_close(d);
    }
}

TEST(sizes_that_may_be_chosen)
{
    static const char *const blocks[] = {"1M", "2M", "32M", "256M"};
    static const char *const sectors[] = {"512", "4096"};

    for (size_t i = 0; i < ARRAY_SIZE(blocks) * 2; i++) {
        const struct disk_create_value values[] = {
            {"block_size",    blocks[i / 2]},
            {"logical_sector_size",               sectors[i % 2]},
            {"log_size","2M"},
            {0     },
        };
        struct disk *below = must_open(new_image(9ULL << 30, NULL, values), 0, NULL);
        struct disk *d;
        uint8_t data[6000];

        memset(data, 0x31, sizeof(data));
        ASSERT_EQ(disk_pwrite(below, data, sizeof(data), (8ULL << 30) + 100), 0);
        struct file *f = new_image(9ULL << 30, below, values);
        d = must_open(f, 0, below);
        memset(data, 0x32, sizeof(data));
        ASSERT_EQ(disk_pwrite(d, data, 1000, (8ULL << 30) + 5000), 0);
        ASSERT_EQ(disk_flush(d), 0);
        struct file *copy = file_memory_copy(f);
        d->below = NULL;
        disk_close(d);
        d = must_open(copy, 0, below);
        EXPECT_EQ(byte_at(d, (8ULL << 30) + 99), 0);
        EXPECT_EQ(byte_at(d, (8ULL << 30) + 4999), 0x31);
        EXPECT_EQ(byte_at(d, (8ULL << 30) + 5000), 0x32);
        EXPECT_EQ(byte_at(d, (8ULL << 30) + 6000), 0x31);
        EXPECT_EQ(byte_at(d, (8ULL << 30) + 6100), 0);
        disk_close(d);
    }
}

TEST(sizes_that_are_refused)
{
    static const struct {
        struct disk_create_value value;
        uint64_t size;
    } cases[] = {
        {{"block_size", "3M"},            SIZE              },
        {{"block_size", "512K"},          SIZE              },
        {{"block_size", "512M"},          SIZE              },
        {{"block_size", "1M"},            VHDX_MAX_BYTES    },
        {{"log_size", "100K"},            SIZE              },
        {{"log_size", "1G"},              SIZE              },
        {{"logical_sector_size", "1024"}, SIZE              },
        {{"logical_sector_size", "4096"}, SIZE + 512        },
        {{"subformat", "thin"},           SIZE              },
        {{"subformat", "dynamic"},        VHDX_MAX_BYTES * 2},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct disk_create_value values[] = {cases[i].value, {0}};
        struct disk_create c = {.size_bytes = cases[i].size, .values = values};
        struct file *f = file_memory_new(NULL, 0, MAX_FILE);

        err = (struct error){0};
        EXPECT_TRUE(disk_create_file(f, &vhdx_format, &c, &err) < 0);
        EXPECT_TRUE(*err.text);
        file_close(f);
    }
}

/* The table has to move: 1 MiB of it covers 128 GiB of 1 MiB blocks. */
TEST(a_table_that_moves)
{
    static const struct disk_create_value values[] = {
        {"block_size", "1M"},
        {0           },
    };
    struct file *f = new_image(SIZE, NULL, values);
    struct disk *d = must_open(f, 0, NULL);
    uint64_t size = 300ULL << 30;
    uint8_t byte = 0x66;

    ASSERT_EQ(disk_pwrite(d, &byte, 1, 4 << 20), 0);
    uint64_t before = vhdx_of(d)->table.offset;
    ASSERT_EQ(disk_resize(d, size, false, &err), 0);
    EXPECT_TRUE(vhdx_of(d)->table.offset != before);
    ASSERT_EQ(disk_pwrite(d, &byte, 1, size - 1), 0);
    ASSERT_EQ(disk_flush(d), 0);
    struct file *copy = file_memory_copy(f);
    disk_close(d);
    d = must_open(copy, 0, NULL);
    EXPECT_EQ(d->size_bytes, size);
    EXPECT_EQ(byte_at(d, 4 << 20), 0x66);
    EXPECT_EQ(byte_at(d, size - 1), 0x66);
    struct disk_check check = {0};
    ASSERT_EQ(disk_check(d, 0, &check, &err), 0);
    EXPECT_EQ(check.errors, 0);
    disk_close(d);
}

/* More pages than an entry of the log takes. */
TEST(a_commit_of_several_entries)
{
    static const struct disk_create_value values[] = {
        {"block_size", "1M"},
        {0           },
    };
    uint64_t size = 60000ULL << 20;
    struct disk *below = must_open(new_image(size, NULL, values), 0, NULL);
    struct file *f = new_image(size, below, values);
    struct disk *d = must_open(f, 0, below);
    uint8_t data[512];

    memset(data, 0x12, sizeof(data));
    for (uint64_t i = 0; i < 450; i++) /* each in a page of its own of the table or the bitmaps */
        ASSERT_EQ(disk_pwrite(d, data, sizeof(data), i * (128ULL << 20)), 0);
    ASSERT_EQ(disk_flush(d), 0);
    struct file *copy = file_memory_copy(f);
    d->below = NULL;
    disk_close(d);
    d = must_open(copy, 0, below);
    for (uint64_t i = 0; i < 450; i++)
        EXPECT_EQ(byte_at(d, i * (128ULL << 20) + 511), 0x12);
    struct disk_check check = {0};
    ASSERT_EQ(disk_check(d, 0, &check, &err), 0);
    EXPECT_EQ(check.errors, 0);
    disk_close(d);
}

static char folder[64];

static void remove_folder(void)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    (void)!system(command);
}

static void create_at(const char *name, const char *backing, struct disk *below)
{
    char path[128];
    struct disk_create c = {
        .size_bytes = SIZE,
        .backing_path = backing,
        .backing_format = backing ? "vhdx" : NULL,
        .backing = below,
    };

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    err = (struct error){0};
    if (disk_create(path, &vhdx_format, &c, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
}

static int open_at(const char *name, unsigned flags, struct disk **ret)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    *ret = NULL;
    err = (struct error){0};
    return disk_open(path, &(struct disk_options){.flags = flags}, ret, &err);
}

TEST(chains_of_files)
{
    struct disk *d;
    uint8_t byte = 1;

    (void)snprintf(folder, sizeof(folder), "/tmp/vhdx_test-XXXXXX");
    ASSERT_TRUE(mkdtemp(folder));
    (void)atexit(remove_folder);
    create_at("base.vhdx", NULL, NULL);
    ASSERT_EQ(open_at("base.vhdx", 0, &d), 0);
    ASSERT_EQ(disk_pwrite(d, &byte, 1, 1234), 0);
    create_at("top.vhdx", "base.vhdx", d);
    disk_close(d);
    ASSERT_EQ(open_at("top.vhdx", 0, &d), 0);
    EXPECT_STR(d->backing_path, "base.vhdx");
    EXPECT_EQ(byte_at(d, 1234), 1);
    byte = 9;
    ASSERT_EQ(disk_pwrite(d, &byte, 1, 3000000), 0);
    disk_close(d);
    /* The base is written to: the identifier that the top knows is no longer right. */
    ASSERT_EQ(open_at("base.vhdx", 0, &d), 0);
    byte = 2;
    ASSERT_EQ(disk_pwrite(d, &byte, 1, 1234), 0);
    disk_close(d);
    EXPECT_EQ(open_at("top.vhdx", 0, &d), -EINVAL);
    EXPECT_TRUE(strstr(err.text, "identifier"));
    ASSERT_EQ(open_at("top.vhdx", DISK_NO_BACKING, &d), 0);
    EXPECT_EQ(disk_set_backing(d, "missing.vhdx", "vhdx", &err), -ENOENT);
    for (int i = 0; i < 5; i++)
        ASSERT_EQ(disk_set_backing(d, "base.vhdx", "vhdx", NULL), 0);
    disk_close(d);
    ASSERT_EQ(open_at("top.vhdx", 0, &d), 0);
    EXPECT_EQ(byte_at(d, 1234), 2);
    EXPECT_EQ(byte_at(d, 3000000), 9);
    ASSERT_EQ(disk_make_empty(d, &err), 0);
    EXPECT_EQ(byte_at(d, 3000000), 0);
    EXPECT_EQ(byte_at(d, 1234), 2);
    byte = 5;
    ASSERT_EQ(disk_pwrite(d, &byte, 1, 4000000), 0);
    ASSERT_EQ(disk_set_backing(d, NULL, NULL, &err), 0);
    disk_close(d);
    ASSERT_EQ(open_at("top.vhdx", 0, &d), 0);
    EXPECT_TRUE(!d->backing_path && !d->below);
    EXPECT_EQ(byte_at(d, 1234), 0);
    EXPECT_EQ(byte_at(d, 4000000), 5);
    struct disk_check check = {0};
    ASSERT_EQ(disk_check(d, 0, &check, NULL), 0);
    EXPECT_EQ(check.errors, 0);
    ASSERT_EQ(disk_set_backing(d, "base.vhdx", NULL, NULL), 0);
    disk_close(d);
    ASSERT_EQ(open_at("top.vhdx", DISK_READONLY, &d), 0);
    EXPECT_EQ(byte_at(d, 1234), 2);
    EXPECT_EQ(byte_at(d, 4000000), 5);
    disk_close(d);
}
