/* VMDK disks against a model: contents, links, sizes, streams, descriptors, damage, costs. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/format_test.h"
#include "disk/vmdk/vmdk.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define MIB   (1ULL << 20)
#define GRAIN (64u << 10)

static void check_contents(const struct disk_create_value *values, bool over, unsigned threads)
{
    uint64_t size = 5 * MIB + 1536;
    uint8_t *model = new_model(size);

    for (unsigned seed = 1; seed <= 4; seed++) {
        struct disk *below = NULL;

        memset(model, 0, size);
        if (over) {
            struct file *bf = test_image(&vmdk_format, size, NULL, values);

            below = test_open(bf, &vmdk_format, 0, NULL);
            test_workload(below, model, seed, 1, 30);
            below = test_reopen(below, &bf);
        }
        struct file *f = test_image(&vmdk_format, size, below, values);
        struct disk *d = test_open(f, &vmdk_format, 0, below);

        EXPECT_EQ(d->size_bytes, size);
        test_workload(d, model, seed, threads, 60);
        test_sound(d);
        test_map(d, model);
        d = test_reopen(d, &f);
        test_compare(d, model, 0, size);
        test_workload(d, model, seed + 100, threads, 60);
        test_sound(d);
        disk_close(d);
    }
}

TEST(a_sparse_disk_holds_what_is_written)
{
    check_contents(NULL, false, 1);
}

TEST(a_delta_link_writes_zeroes_as_data)
{
    check_contents(NULL, true, 1);
}

TEST(a_delta_link_with_zeroed_grains)
{
    check_contents(TEST_VALUES({"zeroed_grain", "on"}), true, 1);
}

TEST(several_threads_share_grains)
{
    check_contents(NULL, true, 4);
    check_contents(TEST_VALUES({"zeroed_grain", "on"}), true, 4);
}

TEST(zeroes_over_something)
{
    uint8_t ones[4096];
    uint8_t got[4096];
    struct disk_extent e;

    memset(ones, 1, sizeof(ones));
    for (unsigned zeroed = 0; zeroed < 2; zeroed++) {
        const struct disk_create_value *values =
            TEST_VALUES({"zeroed_grain", zeroed ? "on" : "off"});
        struct file *bf = test_image(&vmdk_format, 2 * MIB, NULL, NULL);
        struct disk *below = test_open(bf, &vmdk_format, 0, NULL);

        for (uint64_t at = 0; at < 2 * MIB; at += sizeof(ones))
            MUST(disk_pwrite(below, ones, sizeof(ones), at));
        struct file *f = test_image(&vmdk_format, 2 * MIB, below, values);
        struct disk *d = test_open(f, &vmdk_format, 0, below);
        MUST(disk_write_zeroes(d, MIB, MIB / 2, true));
        d = test_reopen(d, &f);
        MUST(disk_status(d, MIB, MIB, &e));
        EXPECT_EQ(e.kind, DISK_ZERO); /* an entry, or a hole under a grain */
        MUST(disk_pread(d, got, sizeof(got), MIB));
        EXPECT_EQ(got[0], 0);
        MUST(disk_pread(d, got, sizeof(got), MIB + MIB / 2));
        EXPECT_EQ(got[0], 1);
        MUST(disk_make_empty(d, &test_err));
        MUST(disk_pread(d, got, sizeof(got), MIB));
        EXPECT_EQ(got[0], 1);
        test_sound(d);
        disk_close(d);
    }
}

/* 4 KiB to a fresh grain, flushed: issue #3's figures. */
TEST(a_fresh_grain_costs_two_barriers)
{
    uint8_t data[4096] = {1};
    unsigned flushes;
    uint64_t bytes;
    struct file *f = test_image(&vmdk_format, 64 * MIB, NULL, NULL);
    struct disk *d = test_open(f, &vmdk_format, 0, NULL);

    MUST(disk_pwrite(d, data, sizeof(data), 0)); /* the session's first: CID, unclean */
    MUST(disk_flush(d));
    file_memory_record(f);
    for (unsigned i = 1; i <= 10; i++) {
        MUST(disk_pwrite(d, data, sizeof(data), i * 3 * MIB + 8192));
        MUST(disk_flush(d));
    }
    test_cost(f, 0, &flushes, &bytes);
    EXPECT_EQ(flushes, 20);
    EXPECT_TRUE(bytes <= 10 * 3 * sizeof(data));
    size_t count = file_memory_get_log(f)->count;
    MUST(disk_flush(d));
    test_cost(f, count, &flushes, &bytes);
    EXPECT_EQ(flushes, 1);
    EXPECT_EQ(bytes, 0);
    disk_close(d);
}

static void check_resized(uint64_t from, uint64_t to, unsigned seed)
{
    uint8_t *model = new_model(MAX(from, to));
    struct file *f = test_image(&vmdk_format, from, NULL, NULL);
    struct disk *d = test_open(f, &vmdk_format, 0, NULL);

    test_workload(d, model, seed, 1, 30);
    MUST(disk_resize(d, to, true, &test_err));
    EXPECT_EQ(d->size_bytes, to);
    if (to < from)
        memset(model + to, 0, from - to);
    test_compare(d, model, 0, to);
    d = test_reopen(d, &f);
    EXPECT_EQ(d->size_bytes, to);
    EXPECT_EQ(vmdk_of(d)->desc.lines[0].sectors, to / 512);
    test_compare(d, model, 0, to);
    struct disk_check c = {0};
    MUST(disk_check(d, 0, &c, &test_err));
    EXPECT_EQ(c.errors, 0);
    if (to < from) { /* what was cut off does not come back */
        MUST(disk_resize(d, from, false, &test_err));
        test_compare(d, model, 0, from);
    }
    test_workload(d, model, seed, 1, 30);
    disk_close(d);
}

TEST(other_sizes)
{
    for (unsigned seed = 1; seed <= 2; seed++) {
        check_resized(3 * MIB + 512, 9 * MIB, seed);
        check_resized(9 * MIB, 2 * MIB + 1024, seed);
        check_resized(5 * MIB, 5 * MIB - 512, seed);
        check_resized(5 * MIB, 77 * MIB, seed); /* more tables */
        check_resized(70 * MIB, 5 * MIB, seed);
    }
}

static struct file *image_of(uint64_t size, uint8_t *model, unsigned seed)
{
    struct file *f = test_image(&vmdk_format, size, NULL, NULL);
    struct disk *d = test_open(f, &vmdk_format, 0, NULL);

    test_workload(d, model, seed, 1, 12);
    MUST(disk_flush(d));
    struct file *copy = file_memory_copy(f);
    disk_close(d);
    return copy;
}

TEST(a_power_cut_leaves_the_old_size_or_the_new)
{
    uint8_t *model = new_model(34 * MIB);

    for (unsigned seed = 1; seed <= 2; seed++) {
        memset(model, 0, 34 * MIB);
        struct file *f = image_of(3 * MIB + 512, model, seed);
        test_resize_cuts(f, &vmdk_format, model, 3 * MIB + 512, 6 * MIB);
        memset(model, 0, 34 * MIB);
        f = image_of(3 * MIB + 512, model, seed);
        test_resize_cuts(f, &vmdk_format, model, 3 * MIB + 512, 34 * MIB); /* another table */
        memset(model, 0, 34 * MIB);
        f = image_of(6 * MIB, model, seed);
        test_resize_cuts(f, &vmdk_format, model, 6 * MIB, 2 * MIB + 1024);
    }
}

TEST(growing_over_a_longer_disk_shows_zeroes)
{
    uint8_t ones[4096];
    uint8_t got[4096];
    struct disk *below =
        test_open(test_image(&vmdk_format, 4 * MIB, NULL, NULL), &vmdk_format, 0, NULL);

    memset(ones, 1, sizeof(ones));
    for (uint64_t at = 0; at < 4 * MIB; at += sizeof(ones))
        MUST(disk_pwrite(below, ones, sizeof(ones), at));
    struct file *f = test_image(&vmdk_format, MIB + 8192, below, NULL);
    struct disk *d = test_open(f, &vmdk_format, 0, below);
    MUST(disk_resize(d, 4 * MIB, false, &test_err));
    d = test_reopen(d, &f);
    for (uint64_t at = 0; at < 4 * MIB; at += 4096) {
        MUST(disk_pread(d, got, sizeof(got), at));
        EXPECT_EQ(got[0], at < MIB + 8192);
        EXPECT_EQ(got[4095], at < MIB + 8192);
    }
    disk_close(d);
}

/* Streams */

TEST(a_stream_is_written_once)
{
    const struct disk_create_value *values = TEST_VALUES({"subformat", "streamOptimized"});
    uint64_t size = 70 * MIB + 4096; /* three tables */
    uint8_t *model = new_model(size);
    uint8_t *packed = new_model(GRAIN);
    uint64_t random = 5;
    struct file *f = test_image(&vmdk_format, size, NULL, values);
    struct disk *d = test_open(f, &vmdk_format, 0, NULL);

    for (uint64_t at = 0; at < size; at += (1 + test_random(&random) % 60) * GRAIN) {
        uint64_t n = MIN((uint64_t)GRAIN, size - at);
        size_t packed_size = 0;

        if (test_random(&random) % 2) { /* packs well */
            memset(model + at, (int)(at >> 16) + 1, n);
            uint8_t *whole = new_model(GRAIN);
            memcpy(whole, model + at, n);
            MUST(d->ops->pack(d, whole, packed, GRAIN, &packed_size));
            MUST(d->ops->write_packed(d, at, packed, packed_size));
        } else { /* does not */
            for (uint64_t i = 0; i < n; i++)
                model[at + i] = (uint8_t)test_random(&random);
            MUST(disk_pwrite(d, model + at, n, at));
        }
        if (at % 7 == 0)
            MUST(disk_flush(d)); /* a footer that the next grain goes over */
    }
    test_compare(d, model, 0, size);
    EXPECT_EQ(disk_pwrite(d, model, GRAIN, 0), -ENOTSUP);
    MUST(disk_flush(d));
    struct file *copy = file_memory_copy(f);
    disk_close(d);
    struct disk *again = NULL;
    EXPECT_EQ(disk_open_file(copy, &vmdk_format, 0, NULL, &again, &test_err), -EROFS);
    d = test_open(copy, &vmdk_format, DISK_READONLY, NULL);
    test_compare(d, model, 0, size);
    test_sound(d);
    disk_close(d);
}

/* Damage */

static struct file *eight_grains(uint8_t *model, bool over)
{
    struct disk *below =
        over ? test_open(test_image(&vmdk_format, MIB, NULL, NULL), &vmdk_format, 0, NULL) : NULL;
    struct file *f = test_image(&vmdk_format, MIB, below, NULL);
    struct disk *d = test_open(f, &vmdk_format, 0, below);

    for (unsigned i = 0; i < 8; i++) {
        memset(model + (size_t)i * GRAIN, (int)i + 1, GRAIN);
        MUST(disk_pwrite(d, model + (size_t)i * GRAIN, GRAIN, (uint64_t)i * GRAIN));
    }
    MUST(disk_flush(d));
    struct file *copy = file_memory_copy(f);
    disk_close(d);
    return copy;
}

/* Directories of MIB: one table each, behind a sector of directory at 21 and 26. */
#define TABLE_AT  (27 * 512)
#define TABLE2_AT (22 * 512)

static uint32_t get_entry(struct file *f, uint64_t table, uint32_t index)
{
    uint8_t b[4];

    MUST(file_pread(f, b, 4, table + (uint64_t)index * 4));
    return load_le32(b);
}

static void put_entry(struct file *f, uint64_t table, uint32_t index, uint32_t entry)
{
    uint8_t b[4];

    store_le32(b, entry);
    MUST(file_pwrite(f, b, 4, table + (uint64_t)index * 4));
}

static void expect_refusal(struct file *f, unsigned flags, const char *text)
{
    struct disk *d = NULL;

    test_err = (struct error){0};
    if (!EXPECT_TRUE(disk_open_file(f, &vmdk_format, flags, NULL, &d, &test_err) < 0))
        return;
    if (!strstr(test_err.text, text))
        test_fail(__FILE__, __LINE__, "'%s' does not say '%s'", test_err.text, text);
}

TEST(damage_is_refused_and_mended)
{
    uint8_t *model = new_model(MIB);
    struct disk_check c = {0};
    uint8_t byte = 1;
    struct file *f = eight_grains(model, false);

    put_entry(f, TABLE_AT, 1, get_entry(f, TABLE_AT, 4));
    put_entry(f, TABLE_AT, 2, 0x7fffff00); /* beyond the end */
    put_entry(f, TABLE_AT, 3, 22);         /* a table */
    expect_refusal(f, 0, "damaged");
    struct disk *d = test_open(f, &vmdk_format, DISK_CHECK, NULL);
    EXPECT_EQ(disk_pwrite(d, &byte, 1, 15 * (uint64_t)GRAIN), -EIO);
    MUST(disk_check(d, 0, &c, &test_err));
    EXPECT_EQ(c.errors, 3);
    c = (struct disk_check){0};
    MUST(disk_check(d, DISK_REPAIR_ALL, &c, &test_err));
    EXPECT_EQ(c.errors_fixed, 3);
    memcpy(model + GRAIN, model + 4 * (size_t)GRAIN, GRAIN);
    memset(model + 2 * (size_t)GRAIN, 0, 2 * (size_t)GRAIN);
    test_sound(d);
    test_compare(d, model, 0, MIB);
    d = test_reopen(d, &f);
    test_sound(d);
    test_workload(d, model, 5, 1, 40);
    test_sound(d);
    disk_close(d);
}

/* The second tables are written with the first, and follow them when they differ. */
TEST(redundant_tables_are_kept_in_step)
{
    uint8_t *model = new_model(MIB);
    struct disk_check c = {0};
    struct file *f = eight_grains(model, false);

    for (uint32_t i = 0; i < 16; i++)
        EXPECT_EQ(get_entry(f, TABLE_AT, i), get_entry(f, TABLE2_AT, i));
    put_entry(f, TABLE2_AT, 3, 0);
    struct disk *d = test_open(f, &vmdk_format, DISK_READONLY, NULL);
    MUST(disk_check(d, 0, &c, &test_err));
    EXPECT_EQ(c.errors, 0);
    EXPECT_EQ(c.leaks, 1);
    struct file *copy = file_memory_copy(f);
    disk_close(d);
    d = test_open(copy, &vmdk_format, 0, NULL);
    MUST(disk_flush(d));
    EXPECT_EQ(get_entry(copy, TABLE_AT, 3), get_entry(copy, TABLE2_AT, 3));
    test_sound(d);
    disk_close(d);
}

TEST(leaks_are_given_back)
{
    uint8_t *model = new_model(MIB);
    struct disk_check c = {0};
    struct file *f = eight_grains(model, false);

    put_entry(f, TABLE_AT, 3, 0);
    put_entry(f, TABLE2_AT, 3, 0);
    memset(model + 3 * (size_t)GRAIN, 0, GRAIN);
    struct disk *d = test_open(f, &vmdk_format, 0, NULL);
    MUST(disk_check(d, DISK_REPAIR_LEAKS, &c, &test_err));
    EXPECT_EQ(c.leaks, 1);
    EXPECT_EQ(c.leaks_fixed, 1);
    test_sound(d);
    test_compare(d, model, 0, MIB);
    disk_close(d);
}

TEST(failing_writes)
{
    uint8_t *model = new_model(MIB);
    uint8_t *data = new_model(2 * (size_t)GRAIN);

    memset(data, 7, 2 * (size_t)GRAIN);
    for (unsigned n = 0; n < 12; n++) {
        struct file *f = eight_grains(model, false);
        struct disk *d = test_open(f, &vmdk_format, 0, NULL);

        file_memory_fail(f, n, ENOSPC, false);
        int rc = disk_pwrite(d, data, 2 * GRAIN, 8 * (uint64_t)GRAIN);
        rc = rc ? rc : disk_flush(d);
        file_memory_fail(f, 0, 0, false);
        EXPECT_TRUE(!rc || rc == -ENOSPC);
        test_compare(d, model, 0, 8 * (uint64_t)GRAIN);
        MUST(disk_pwrite(d, data, 4096, 9 * (uint64_t)GRAIN + 4096));
        d = test_reopen(d, &f);
        test_compare(d, model, 0, 8 * (uint64_t)GRAIN);
        struct disk_check c = {0};
        MUST(disk_check(d, 0, &c, &test_err));
        EXPECT_EQ(c.errors, 0);
        disk_close(d);
    }
}

TEST(impossible_headers)
{
    static const struct {
        unsigned at;
        uint64_t value;
        const char *text;
    } bad[] = {
        {VMDK_AT_VERSION,  9,                "version 9"       },
        {VMDK_AT_CAPACITY, 0,                "capacity"        },
        {VMDK_AT_CAPACITY, UINT64_MAX,       "capacity"        },
        {VMDK_AT_CAPACITY, 1ULL << 50,       "at most"         },
        {VMDK_AT_CAPACITY, 1ULL << 34,       "directory"       },
        {VMDK_AT_GRAIN,    0,                "grain size"      },
        {VMDK_AT_GRAIN,    3,                "grain size"      },
        {VMDK_AT_GRAIN,    1ULL << 40,       "grain size"      },
        {VMDK_AT_DESC,     1ULL << 62,       "impossible place"},
        {VMDK_AT_GD,       0,                "grain directory" },
        {VMDK_AT_GD,       UINT64_MAX - 1,   "grain directory" },
        {VMDK_AT_GD,       UINT64_MAX,       "footer"          },
        {VMDK_AT_RGD,      0x7fffffffffffff, "second"          },
        {VMDK_AT_MAGIC,    0,                "not a VMDK"      },
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct file *f = test_image(&vmdk_format, 8 * MIB, NULL, NULL);
        uint8_t b[8];

        store_le64(b, bad[i].value);
        MUST(file_pwrite(f, b, bad[i].at < VMDK_AT_CAPACITY ? 4 : 8, bad[i].at));
        expect_refusal(f, 0, bad[i].text);
        file_close(f);
    }
}

/* Descriptors */

TEST(descriptors)
{
    struct vmdk_desc d = {.text = NULL};
    static const char text[] = "# Disk DescriptorFile\r\nversion=1\r\nCID=1a2b\r\n"
                               "parentCID = FFFFFFFE\r\ncreateType=\"vmfs\"\r\n"
                               "parentFileNameHint=\"../a b.vmdk\"\r\n\r\n"
                               "RW 63 FLAT \"x-flat.vmdk\" 9\r\nRDONLY 8 ZERO\r\n"
                               "  RW 128 VMFSSPARSE \"y\"\r\nddb.x = \"1\"\r\n";
    size_t at;
    size_t digits;

    MUST(vmdk_desc_parse(text, sizeof(text), "x", &d, &test_err));
    EXPECT_EQ(d.cid, 0x1a2b);
    EXPECT_EQ(d.parent_cid, 0xfffffffe);
    EXPECT_STR(d.parent, "../a b.vmdk");
    EXPECT_STR(d.create_type, "vmfs");
    ASSERT_EQ(d.count, 3);
    EXPECT_EQ(d.lines[0].sectors, 63);
    EXPECT_EQ(d.lines[0].offset_sectors, 9);
    EXPECT_STR(d.lines[0].name, "x-flat.vmdk");
    EXPECT_TRUE(d.lines[1].readonly && !d.lines[1].name);
    EXPECT_STR(d.lines[2].kind, "VMFSSPARSE");
    ASSERT_TRUE(vmdk_desc_find_cid(d.text, &at, &digits));
    EXPECT_EQ(digits, 4);
    EXPECT_TRUE(!strncmp(text + at, "1a2b\r", 5));
    char *changed = vmdk_desc_set(d.text, "parentCID", "00000001", false);
    EXPECT_TRUE(strstr(changed, "\nparentCID=00000001\n"));
    EXPECT_TRUE(strstr(changed, "CID=1a2b\r\n"));
    char *gone = vmdk_desc_set(changed, "parentFileNameHint", NULL, true);
    EXPECT_TRUE(!strstr(gone, "Hint"));
    char *back = vmdk_desc_set(gone, "parentFileNameHint", "z", true);
    EXPECT_TRUE(strstr(back, "createType=\"vmfs\"\r\nparentFileNameHint=\"z\"\n"));
    char *larger = vmdk_desc_set_sectors(back, 1234567);
    EXPECT_TRUE(strstr(larger, "RW 1234567 FLAT \"x-flat.vmdk\" 9"));
    free(changed);
    free(gone);
    free(back);
    free(larger);
    vmdk_desc_done(&d);
}

TEST(wrong_descriptors)
{
    static const char *const wrong[] = {
        "RW FLAT \"x\" 0",
        "RW 99999999999999999999999 FLAT \"x\" 0",
        "RW 9999999999999999999 FLAT \"x\" 0",
        "RW 12",
        "RW 12 FLAT",
        "RW 12 FLAT \"x",
        "RW 12 FLAT \"\" 0",
        "RW 12 FLAT \"x\" 99999999999999999999",
        "RW 12 AVERYLONGKINDOFEXTENT \"x\"",
        "parentCID=00000001",
        "parentCID=00000001\nparentFileNameHint=\"\"",
    };

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct vmdk_desc d;

        if (!vmdk_desc_parse(wrong[i], strlen(wrong[i]), "x", &d, NULL))
            test_fail(__FILE__, __LINE__, "accepted: %s", wrong[i]);
    }
}

/* Files of a folder */

static char folder[64];

static void remove_folder(void)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    (void)!system(command);
}

static const char *in_folder(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *p = paths[next++ % 4];

    if (!*folder) {
        (void)snprintf(folder, sizeof(folder), "/tmp/vmdk_test-XXXXXX");
        ASSERT_TRUE(mkdtemp(folder));
        (void)atexit(remove_folder);
    }
    (void)snprintf(p, 128, "%s/%s", folder, name);
    return p;
}

static void make(const char *name, const char *over, uint64_t size,
                 const struct disk_create_value *values)
{
    struct disk_create c = {
        .size_bytes = size,
        .backing_path = over,
        .backing_format = "vmdk",
        .values = values,
    };

    if (over)
        MUST(disk_open(in_folder(over), &(struct disk_options){.flags = DISK_READONLY}, &c.backing,
                       &test_err));
    MUST(disk_create(in_folder(name), &vmdk_format, &c, &test_err));
    disk_close(c.backing);
}

static void check_kind(const char *kind, uint64_t size, unsigned extents)
{
    struct disk *d = NULL;
    uint64_t border = 2047 * MIB;
    uint8_t data[8192];
    uint8_t got[8192];

    make("d.vmdk", NULL, size, TEST_VALUES({"subformat", kind}));
    MUST(disk_open(in_folder("d.vmdk"), NULL, &d, &test_err));
    EXPECT_EQ(d->size_bytes, size);
    EXPECT_EQ(vmdk_of(d)->count, extents);
    memset(data, 3, sizeof(data));
    MUST(disk_pwrite(d, data, sizeof(data), size - sizeof(data)));
    if (extents > 1)
        MUST(disk_pwrite(d, data, sizeof(data), border - 4096));
    disk_close(d);
    MUST(disk_open(in_folder("d.vmdk"), NULL, &d, &test_err));
    MUST(disk_pread(d, got, sizeof(got), size - sizeof(data)));
    EXPECT_MEM(got, data, sizeof(data));
    MUST(disk_pread(d, got, sizeof(got), extents > 1 ? border - 4096 : 0));
    EXPECT_EQ(got[0], extents > 1 ? 3 : 0);
    MUST(disk_pread(d, got, sizeof(got), border - 8192 - 4096));
    EXPECT_EQ(got[8191], 0);
    disk_close(d);
    remove_folder();
    *folder = 0;
}

TEST(disks_of_several_files)
{
    check_kind("monolithicFlat", 5000 * MIB, 1);
    check_kind("twoGbMaxExtentFlat", 5000 * MIB, 3);
    check_kind("twoGbMaxExtentSparse", 5000 * MIB, 3);
    check_kind("monolithicSparse", 5000 * MIB, 1);
}

TEST(a_flat_disk_changes_its_size)
{
    struct disk *d = NULL;

    make("f.vmdk", NULL, 2 * MIB, TEST_VALUES({"subformat", "monolithicFlat"}));
    MUST(disk_open(in_folder("f.vmdk"), NULL, &d, &test_err));
    MUST(disk_resize(d, 300 * MIB, false, &test_err));
    disk_close(d);
    MUST(disk_open(in_folder("f.vmdk"), NULL, &d, &test_err));
    EXPECT_EQ(d->size_bytes, 300 * MIB);
    MUST(disk_resize(d, MIB, true, &test_err));
    disk_close(d);
    MUST(disk_open(in_folder("f.vmdk"), NULL, &d, &test_err));
    EXPECT_EQ(d->size_bytes, MIB);
    disk_close(d);
}

TEST(a_changed_parent_is_noticed)
{
    struct disk *d = NULL;
    uint8_t byte = 3;

    make("a.vmdk", NULL, MIB, NULL);
    make("b.vmdk", "a.vmdk", MIB, NULL);
    make("c.vmdk", "b.vmdk", MIB, NULL);
    MUST(disk_open(in_folder("c.vmdk"), NULL, &d, &test_err));
    EXPECT_STR(d->below->backing_path, "a.vmdk");
    MUST(disk_pwrite(d, &byte, 1, 0));
    disk_close(d);
    MUST(disk_open(in_folder("a.vmdk"), NULL, &d, &test_err));
    MUST(disk_pwrite(d, &byte, 1, 9));
    disk_close(d);
    test_err = (struct error){0};
    EXPECT_EQ(disk_open(in_folder("c.vmdk"), NULL, &d, &test_err), -EINVAL);
    EXPECT_TRUE(strstr(test_err.text, "written to since"));
    MUST(disk_open(in_folder("b.vmdk"), &(struct disk_options){.flags = DISK_NO_BACKING}, &d,
                   &test_err));
    MUST(disk_set_backing(d, "a.vmdk", "vmdk", &test_err));
    disk_close(d);
    MUST(disk_open(in_folder("b.vmdk"), NULL, &d, &test_err));
    EXPECT_TRUE(d->below);
    MUST(disk_pread(d, &byte, 1, 9));
    EXPECT_EQ(byte, 3);
    MUST(disk_set_backing(d, NULL, NULL, &test_err));
    disk_close(d);
    MUST(disk_open(in_folder("b.vmdk"), NULL, &d, &test_err));
    EXPECT_TRUE(!d->below);
    disk_close(d);
}

static void put_text(const char *name, const char *text)
{
    cleanup(fd_closep) int fd =
        open(in_folder(name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

    ASSERT_TRUE(fd >= 0);
    ASSERT_EQ(fd_write_all(fd, text, strlen(text)), 0);
}

/* CVE-2024-32498's kind: a descriptor that names a file of the host. */
TEST(extents_elsewhere_are_refused)
{
    static const char *const outside[] = {
        "/etc/passwd",
        "../../../../../../etc/passwd",
        "link",
    };
    struct disk *d = NULL;

    (void)in_folder("x");
    ASSERT_EQ(symlink("/etc/passwd", in_folder("link")), 0);
    for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
        char text[256];

        (void)snprintf(text, sizeof(text),
                       "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\nRW 1 FLAT \"%s\" 0\n",
                       outside[i]);
        put_text("x.vmdk", text);
        test_err = (struct error){0};
        EXPECT_EQ(disk_open(in_folder("x.vmdk"), &(struct disk_options){.flags = DISK_READONLY}, &d,
                            &test_err),
                  -EPERM);
    }
    put_text("part", "0123456789");
    put_text("x.vmdk", "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfs\"\n"
                       "RW 1 VMFS \"part\" 0\nRW 3 ZERO\n");
    MUST(disk_open(in_folder("x.vmdk"), NULL, &d, &test_err));
    char got[2048];
    MUST(disk_pread(d, got, sizeof(got), 0));
    EXPECT_MEM(got, "0123456789\0", 11);
    EXPECT_EQ(disk_pwrite(d, got, 1, 600), -EROFS);
    MUST(disk_pwrite(d, "ab", 2, 1));
    disk_close(d);
    MUST(disk_open(in_folder("x.vmdk"), &(struct disk_options){.flags = DISK_READONLY}, &d,
                   &test_err));
    MUST(disk_pread(d, got, 4, 0));
    EXPECT_MEM(got, "0ab3", 4);
    EXPECT_TRUE(vmdk_of(d)->desc.cid != 1);
    disk_close(d);
}

/* ESX's older sparse format: 4096 entries a table, any grain. */
TEST(cowd_is_read)
{
    uint8_t *image = new_model(MIB);
    uint8_t got[512];

    memcpy(image, "COWD", 4);
    store_le32(image + 4, 1);
    store_le32(image + 8, 3);
    store_le32(image + 12, 2048); /* 1 MiB */
    store_le32(image + 16, 1);    /* grains of a sector */
    store_le32(image + 20, 4);    /* directory */
    store_le32(image + 24, 1);
    store_le32(image + 4 * 512, 8);
    store_le32(image + 8 * 512 + 5 * 4, 100);
    memset(image + 100 * 512, 0x42, 512);
    struct file *f = file_memory_new(image, MIB, MIB);
    expect_refusal(f, 0, "only be read");
    struct disk *d = test_open(f, &vmdk_format, DISK_READONLY, NULL);
    EXPECT_EQ(d->size_bytes, MIB);
    MUST(disk_pread(d, got, 512, 5 * 512));
    EXPECT_EQ(got[0], 0x42);
    MUST(disk_pread(d, got, 512, 6 * 512));
    EXPECT_EQ(got[0], 0);
    disk_close(d);
}
