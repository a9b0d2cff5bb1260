/* VDI images against a model: contents, chains, sizes, damage, costs. */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/format_test.h"
#include "disk/vdi/vdi.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define MIB (1ULL << 20)

TEST(a_dynamic_image_holds_what_is_written)
{
    uint64_t size = 12 * MIB + 1536;
    uint8_t *model = new_model(size);

    for (unsigned seed = 1; seed <= 6; seed++) {
        struct file *f = test_image(&vdi_format, size, NULL, NULL);
        struct disk *d = test_open(f, &vdi_format, 0, NULL);

        memset(model, 0, size);
        EXPECT_EQ(d->size_bytes, size);
        test_workload(d, model, seed, 1, 60);
        test_sound(d);
        test_map(d, model);
        d = test_reopen(d, &f);
        test_compare(d, model, 0, size);
        test_workload(d, model, seed + 100, 1, 60);
        test_sound(d);
        disk_close(d);
    }
}

TEST(several_threads_share_blocks)
{
    uint64_t size = 9 * MIB;
    uint8_t *model = new_model(size);

    for (unsigned seed = 1; seed <= 4; seed++) {
        struct file *bf = test_image(&vdi_format, size, NULL, NULL);
        struct disk *below = test_open(bf, &vdi_format, 0, NULL);

        memset(model, 0, size);
        test_workload(below, model, seed, 1, 30);
        below = test_reopen(below, &bf);
        struct file *f = test_image(&vdi_format, size, below, NULL);
        struct disk *d = test_open(f, &vdi_format, 0, below);
        test_workload(d, model, seed, 4, 60);
        test_sound(d);
        d = test_reopen(d, &f);
        test_compare(d, model, 0, size);
        test_map(d, model);
        disk_close(d);
    }
}

TEST(a_differencing_image_keeps_zero_apart_from_absent)
{
    uint64_t size = 4 * MIB;
    uint8_t ones[4096];
    uint8_t got[4096];
    struct disk_extent e;
    struct file *bf = test_image(&vdi_format, size, NULL, NULL);
    struct disk *below = test_open(bf, &vdi_format, 0, NULL);

    memset(ones, 1, sizeof(ones));
    for (uint64_t at = 0; at < size; at += sizeof(ones))
        MUST(disk_pwrite(below, ones, sizeof(ones), at));
    struct file *f = test_image(&vdi_format, size, below, NULL);
    struct disk *d = test_open(f, &vdi_format, 0, below);
    MUST(disk_write_zeroes(d, MIB, MIB, true));
    MUST(disk_write_zeroes(d, 2 * MIB + 4096, 4096, true));
    d = test_reopen(d, &f);
    MUST(disk_status(d, 0, size, &e));
    EXPECT_EQ(e.kind, DISK_ABSENT);
    EXPECT_EQ(e.size, MIB);
    MUST(disk_status(d, MIB, size - MIB, &e));
    EXPECT_EQ(e.kind, DISK_ZERO);
    EXPECT_EQ(e.size, MIB);
    for (unsigned i = 0; i < 3; i++) {
        MUST(disk_pread(d, got, sizeof(got), 2 * MIB + (uint64_t)i * 4096));
        EXPECT_EQ(got[0], i != 1);
        EXPECT_EQ(got[4095], i != 1);
    }
    MUST(disk_discard(d, 0, size));
    MUST(disk_pread(d, got, sizeof(got), MIB));
    EXPECT_EQ(got[0], 0);
    MUST(disk_make_empty(d, &test_err));
    MUST(disk_pread(d, got, sizeof(got), MIB));
    EXPECT_EQ(got[0], 1);
    test_sound(d);
    disk_close(d);
}

/* 4 KiB to a fresh block, flushed: issue #3's figures. */
TEST(a_fresh_block_costs_two_barriers)
{
    uint8_t data[4096] = {1};
    unsigned flushes;
    uint64_t bytes;
    struct file *f = test_image(&vdi_format, 64 * MIB, NULL, NULL);
    struct disk *d = test_open(f, &vdi_format, 0, NULL);

    MUST(disk_pwrite(d, data, sizeof(data), 0)); /* the session's first: the UUID */
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

TEST(static_images)
{
    uint64_t size = 3 * MIB + 512;
    uint64_t file_bytes = 0;
    uint8_t *model = new_model(size);
    struct file *f = test_image(&vdi_format, size, NULL, TEST_VALUES({"static", "on"}));
    struct disk *d = test_open(f, &vdi_format, 0, NULL);

    MUST(file_get_size(f, &file_bytes));
    EXPECT_EQ(file_bytes, 6 * MIB); /* header, map, 4 blocks */
    test_workload(d, model, 1, 1, 40);
    EXPECT_EQ(disk_make_empty(d, NULL), -ENOTSUP);
    MUST(disk_resize(d, 6 * MIB, false, &test_err));
    test_sound(d);
    MUST(file_get_size(f, &file_bytes));
    EXPECT_EQ(file_bytes, 8 * MIB);
    test_compare(d, model, 0, size);
    disk_close(d);
}

static void check_resized(uint64_t from, uint64_t to, unsigned seed)
{
    uint8_t *model = new_model(MAX(from, to));
    struct file *f = test_image(&vdi_format, from, NULL, NULL);
    struct disk *d = test_open(f, &vdi_format, 0, NULL);

    test_workload(d, model, seed, 1, 30);
    MUST(disk_resize(d, to, true, &test_err));
    EXPECT_EQ(d->size_bytes, to);
    if (to < from)
        memset(model + to, 0, from - to);
    test_compare(d, model, 0, to);
    d = test_reopen(d, &f);
    EXPECT_EQ(d->size_bytes, to);
    test_compare(d, model, 0, to);
    test_sound(d);
    if (to < from) { /* what was cut off does not come back */
        MUST(disk_resize(d, from, false, &test_err));
        test_compare(d, model, 0, from);
    }
    test_workload(d, model, seed, 1, 30);
    disk_close(d);
}

TEST(other_sizes)
{
    for (unsigned seed = 1; seed <= 4; seed++) {
        check_resized(3 * MIB + 512, 9 * MIB, seed);
        check_resized(9 * MIB, 2 * MIB + 1024, seed);
        check_resized(5 * MIB, 5 * MIB - 512, seed);
    }
}

/* The map of 256 GiB fills its room of 1 MiB: beyond, the first slot has to go. */
TEST(growing_beyond_the_room_of_the_map)
{
    uint8_t data[4096];
    uint8_t got[4096];
    struct file *f = file_memory_new(NULL, 0, 64 * MIB);
    struct disk_create c = {.size_bytes = 256ULL << 30};

    MUST(disk_create_file(f, &vdi_format, &c, &test_err));
    struct disk *d = test_open(f, &vdi_format, 0, NULL);
    for (unsigned i = 0; i < 5; i++) {
        memset(data, (int)i + 1, sizeof(data));
        MUST(disk_pwrite(d, data, sizeof(data), (uint64_t)(i * 37) << 30));
    }
    MUST(disk_resize(d, 700ULL << 30, false, &test_err));
    d = test_reopen(d, &f);
    EXPECT_EQ(d->size_bytes, 700ULL << 30);
    for (unsigned i = 0; i < 5; i++) {
        memset(data, (int)i + 1, sizeof(data));
        MUST(disk_pread(d, got, sizeof(got), (uint64_t)(i * 37) << 30));
        EXPECT_MEM(got, data, sizeof(got));
    }
    MUST(disk_pwrite(d, data, sizeof(data), (700ULL << 30) - 4096));
    test_sound(d);
    disk_close(d);
}

static struct file *image_of(uint64_t size, uint8_t *model, unsigned seed)
{
    struct file *f = test_image(&vdi_format, size, NULL, NULL);
    struct disk *d = test_open(f, &vdi_format, 0, NULL);

    test_workload(d, model, seed, 1, 12);
    MUST(disk_flush(d));
    struct file *copy = file_memory_copy(f);
    disk_close(d);
    return copy;
}

TEST(a_power_cut_leaves_the_old_size_or_the_new)
{
    uint8_t *model = new_model(6 * MIB);

    for (unsigned seed = 1; seed <= 3; seed++) {
        memset(model, 0, 6 * MIB);
        struct file *f = image_of(3 * MIB + 512, model, seed);
        test_resize_cuts(f, &vdi_format, model, 3 * MIB + 512, 6 * MIB);
        memset(model, 0, 6 * MIB);
        f = image_of(6 * MIB, model, seed);
        test_resize_cuts(f, &vdi_format, model, 6 * MIB, 2 * MIB + 1024);
    }
}

/* As an image of ours that has no room at all for a larger map. */
TEST(a_power_cut_while_slots_make_room_for_the_map)
{
    uint8_t *model = new_model(6 * MIB);
    struct file *f = image_of(3 * MIB, model, 2);
    uint8_t head[DISK_SECTOR];
    uint8_t map[DISK_SECTOR];

    MUST(file_pread(f, head, sizeof(head), 0));
    MUST(file_pread(f, map, sizeof(map), VDI_ALIGN));
    store_le32(head + VDI_AT_OFFSET_MAP, 2 * VDI_ALIGN - DISK_SECTOR);
    MUST(file_pwrite(f, map, sizeof(map), 2 * VDI_ALIGN - DISK_SECTOR));
    MUST(file_pwrite(f, head, sizeof(head), 0));
    struct disk *d = test_open(f, &vdi_format, 0, NULL);
    test_compare(d, model, 0, 3 * MIB);
    struct file *before = file_memory_copy(f);
    struct file *twin = file_memory_copy(f);
    file_memory_record(twin);
    disk_close(d);
    d = test_open(twin, &vdi_format, 0, NULL);
    MUST(disk_resize(d, 300 * MIB, false, &test_err));
    EXPECT_TRUE(vdi_of(d)->offset_data > 2 * VDI_ALIGN);
    test_sound(d);
    const struct file_memory_log *log = file_memory_get_log(twin);
    for (size_t cut = 0; cut < log->count; cut++) {
        file_memory_apply(before, &log->v[cut], 0, UINT64_MAX);
        struct disk *c = test_open(file_memory_copy(before), &vdi_format, 0, NULL);
        EXPECT_TRUE(c->size_bytes == 3 * MIB || c->size_bytes == 300 * MIB);
        test_compare(c, model, 0, 3 * MIB);
        disk_close(c);
    }
    disk_close(d);
    file_close(before);
}

TEST(growing_over_a_longer_image_shows_zeroes)
{
    uint8_t ones[4096];
    uint8_t got[4096];
    struct disk *below =
        test_open(test_image(&vdi_format, 8 * MIB, NULL, NULL), &vdi_format, 0, NULL);

    memset(ones, 1, sizeof(ones));
    for (uint64_t at = 0; at < 8 * MIB; at += sizeof(ones))
        MUST(disk_pwrite(below, ones, sizeof(ones), at));
    struct file *f = test_image(&vdi_format, 2 * MIB + 8192, below, NULL);
    struct disk *d = test_open(f, &vdi_format, 0, below);
    MUST(disk_resize(d, 8 * MIB, false, &test_err));
    d = test_reopen(d, &f);
    for (uint64_t at = 0; at < 8 * MIB; at += 4096) {
        MUST(disk_pread(d, got, sizeof(got), at));
        EXPECT_EQ(got[0], at < 2 * MIB + 8192);
        EXPECT_EQ(got[4095], at < 2 * MIB + 8192);
    }
    disk_close(d);
}

static void put_entry(struct file *f, uint32_t index, uint32_t entry)
{
    uint8_t b[4];

    store_le32(b, entry);
    MUST(file_pwrite(f, b, 4, VDI_ALIGN + (uint64_t)index * 4));
}

static struct file *six_blocks(uint8_t *model)
{
    struct file *f = test_image(&vdi_format, 8 * MIB, NULL, NULL);
    struct disk *d = test_open(f, &vdi_format, 0, NULL);

    for (unsigned i = 0; i < 6; i++) {
        memset(model + i * MIB, (int)i + 1, MIB);
        MUST(disk_pwrite(d, model + i * MIB, MIB, i * MIB));
    }
    MUST(disk_flush(d));
    struct file *copy = file_memory_copy(f);
    disk_close(d);
    return copy;
}

static void expect_refusal(struct file *f, const char *text)
{
    struct disk *d = NULL;

    test_err = (struct error){0};
    EXPECT_TRUE(disk_open_file(f, &vdi_format, 0, NULL, &d, &test_err) < 0);
    if (!strstr(test_err.text, text))
        test_fail(__FILE__, __LINE__, "'%s' does not say '%s'", test_err.text, text);
}

TEST(damage_is_refused_and_mended)
{
    uint8_t *model = new_model(8 * MIB);
    struct disk_check c = {0};
    uint8_t byte = 1;

    struct file *f = six_blocks(model);
    put_entry(f, 1, 4);          /* also block 4's; slot 1 is nobody's */
    put_entry(f, 2, 0x00fffff0); /* beyond the end */
    expect_refusal(f, "damaged");
    struct disk *d = test_open(f, &vdi_format, DISK_READONLY, NULL);
    EXPECT_EQ(disk_pread(d, &byte, 1, 2 * MIB), -EIO);
    disk_close(d);
    f = six_blocks(model);
    put_entry(f, 1, 4);
    put_entry(f, 2, 0x00fffff0);
    d = test_open(f, &vdi_format, DISK_CHECK, NULL);
    EXPECT_EQ(disk_pwrite(d, &byte, 1, 0), -EIO);
    MUST(disk_check(d, 0, &c, &test_err));
    EXPECT_EQ(c.errors, 2);
    EXPECT_EQ(c.leaks, 2); /* slots 1 and 2 */
    c = (struct disk_check){0};
    MUST(disk_check(d, DISK_REPAIR_ALL, &c, &test_err));
    EXPECT_EQ(c.errors_fixed, 2);
    memcpy(model + MIB, model + 4 * MIB, MIB);
    memset(model + 2 * MIB, 0, MIB);
    test_sound(d);
    test_compare(d, model, 0, 8 * MIB);
    d = test_reopen(d, &f);
    test_sound(d);
    test_workload(d, model, 5, 1, 40);
    test_sound(d);
    disk_close(d);
}

/* A power cut leaves slots that nothing names: they are taken again, and read as zeroes. */
TEST(holes_are_used_again)
{
    uint8_t *model = new_model(8 * MIB);
    struct disk_check c = {0};
    struct file *f = six_blocks(model);
    uint8_t byte = 9;

    put_entry(f, 1, VDI_ABSENT);
    put_entry(f, 5, VDI_ABSENT);
    memset(model + MIB, 0, MIB);
    memset(model + 5 * MIB, 0, MIB);
    struct disk *d = test_open(f, &vdi_format, 0, NULL);
    MUST(disk_check(d, 0, &c, &test_err));
    EXPECT_EQ(c.errors, 0);
    EXPECT_EQ(c.leaks, 2);
    for (unsigned i = 5; i < 8; i++) {
        MUST(disk_pwrite(d, &byte, 1, i * MIB + 77));
        model[i * MIB + 77] = 9;
    }
    test_compare(d, model, 0, 8 * MIB);
    test_sound(d);
    disk_close(d);

    f = six_blocks(model);
    put_entry(f, 1, VDI_ABSENT);
    memset(model + MIB, 0, MIB);
    memset(model + 6 * MIB, 0, 2 * MIB);
    d = test_open(f, &vdi_format, 0, NULL);
    c = (struct disk_check){0};
    MUST(disk_check(d, DISK_REPAIR_LEAKS, &c, &test_err));
    EXPECT_EQ(c.leaks_fixed, 1);
    test_compare(d, model, 0, 8 * MIB);
    d = test_reopen(d, &f);
    test_sound(d);
    test_compare(d, model, 0, 8 * MIB);
    disk_close(d);
}

TEST(impossible_headers)
{
    static const struct {
        unsigned at;
        uint32_t value;
        const char *text;
    } bad[] = {
        {VDI_AT_VERSION,     0x00020000, "version 2.0"     },
        {VDI_AT_TYPE,        9,          "type 9"          },
        {VDI_AT_SECTOR_SIZE, 4096,       "sectors"         },
        {VDI_AT_BLOCK_EXTRA, 512,        "extra"           },
        {VDI_AT_BLOCK_SIZE,  3 << 20,    "blocks of"       },
        {VDI_AT_BLOCK_SIZE,  0,          "blocks of"       },
        {VDI_AT_BLOCKS,      0x7fffffff, "at most"         },
        {VDI_AT_BLOCKS,      1,          "too few"         },
        {VDI_AT_OFFSET_MAP,  0,          "impossible place"},
        {VDI_AT_OFFSET_MAP,  0xfffffe00, "impossible place"},
        {VDI_AT_OFFSET_DATA, 0x200,      "impossible place"},
        {VDI_AT_SIGNATURE,   0,          "not a VDI"       },
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct file *f = test_image(&vdi_format, 8 * MIB, NULL, NULL);
        uint8_t b[4];

        store_le32(b, bad[i].value);
        MUST(file_pwrite(f, b, 4, bad[i].at));
        expect_refusal(f, bad[i].text);
        file_close(f);
    }
}

/* A write that fails leaves the image sound, and what was written before there. */
TEST(failing_writes)
{
    uint8_t *model = new_model(8 * MIB);
    uint8_t *data = new_model(2 * MIB);

    memset(data, 7, 2 * MIB);
    for (unsigned n = 0; n < 12; n++) {
        struct file *f = six_blocks(model);
        struct disk *d = test_open(f, &vdi_format, 0, NULL);

        file_memory_fail(f, n, ENOSPC, false);
        int rc = disk_pwrite(d, data, 2 * MIB, 6 * MIB);
        rc = rc ? rc : disk_flush(d);
        file_memory_fail(f, 0, 0, false);
        EXPECT_TRUE(!rc || rc == -ENOSPC);
        test_compare(d, model, 0, 6 * MIB);
        MUST(disk_pwrite(d, data, 4096, 6 * MIB + 4096));
        d = test_reopen(d, &f);
        test_compare(d, model, 0, 6 * MIB);
        struct disk_check c = {0};
        MUST(disk_check(d, 0, &c, &test_err));
        EXPECT_EQ(c.errors, 0);
        disk_close(d);
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
        (void)snprintf(folder, sizeof(folder), "/tmp/vdi_test-XXXXXX");
        ASSERT_TRUE(mkdtemp(folder));
        (void)atexit(remove_folder);
    }
    (void)snprintf(p, 128, "%s/%s", folder, name);
    return p;
}

static void make(const char *name, const char *over)
{
    struct disk_create c = {.size_bytes = 4 * MIB, .backing_path = over, .backing_format = "vdi"};

    if (over)
        MUST(disk_open(in_folder(over), &(struct disk_options){.flags = DISK_READONLY}, &c.backing,
                       &test_err));
    MUST(disk_create(in_folder(name), &vdi_format, &c, &test_err));
    disk_close(c.backing);
}

TEST(a_parent_is_found_by_its_uuid)
{
    struct disk *d = NULL;
    uint8_t byte = 3;

    make("a.vdi", NULL);
    make("other.vdi", NULL);
    make("b.vdi", "a.vdi");
    make("c.vdi", "b.vdi");
    ASSERT_EQ(rename(in_folder("a.vdi"), in_folder("base.vdi")), 0);
    MUST(disk_open(in_folder("c.vdi"), NULL, &d, &test_err));
    EXPECT_STR(d->backing_path, "b.vdi");
    EXPECT_STR(d->below->backing_path, "base.vdi");
    MUST(disk_pwrite(d, &byte, 1, 0));
    disk_close(d);
    MUST(disk_open(in_folder("base.vdi"), NULL, &d, &test_err));
    MUST(disk_pwrite(d, &byte, 1, 0));
    disk_close(d);
    test_err = (struct error){0};
    EXPECT_EQ(disk_open(in_folder("c.vdi"), NULL, &d, &test_err), -EINVAL);
    EXPECT_TRUE(strstr(test_err.text, "written to since"));
    MUST(disk_open(in_folder("b.vdi"), &(struct disk_options){.flags = DISK_NO_BACKING}, &d,
                   &test_err));
    MUST(disk_set_backing(d, "base.vdi", "vdi", &test_err));
    disk_close(d);
    MUST(disk_open(in_folder("b.vdi"), NULL, &d, &test_err));
    disk_close(d);
    ASSERT_EQ(unlink(in_folder("base.vdi")), 0);
    test_err = (struct error){0};
    EXPECT_EQ(disk_open(in_folder("b.vdi"), NULL, &d, &test_err), -ENOENT);
    MUST(disk_open(in_folder("b.vdi"), &(struct disk_options){.flags = DISK_NO_BACKING}, &d,
                   &test_err));
    MUST(disk_set_backing(d, NULL, NULL, &test_err));
    disk_close(d);
    MUST(disk_open(in_folder("b.vdi"), NULL, &d, &test_err));
    EXPECT_TRUE(!d->below);
    disk_close(d);
}
