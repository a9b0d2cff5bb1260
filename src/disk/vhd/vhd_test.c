/* VHD: footers, damaged and hostile images, parents. */
#include "base/bits.h"
#include "base/fd.h"
#include "base/test.h"
#include "disk/file_memory.h"
#include "disk/vhd/utf16.h"
#include "disk/vhd/vhd.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define MAX_FILE (64ULL << 20)
#define SIZE     (5u << 20)

static struct error err;

static struct file *new_image(uint64_t size, const char *subformat)
{
    const struct disk_create_value values[] = {
        {"subformat", subformat},
        {0          },
    };
    struct file *f = file_memory_new(NULL, 0, MAX_FILE);
    struct disk_create c = {.size_bytes = size, .values = subformat ? values : NULL};

    ASSERT_EQ(disk_create_file(f, &vhd_format, &c, &err), 0);
    return f;
}

static int try_open(struct file *f, unsigned flags, struct disk **ret)
{
    *ret = NULL;
    err = (struct error){0};
    int rc = disk_open_file(f, &vhd_format, flags, NULL, ret, &err);
    EXPECT_TRUE(!rc == !!*ret);
    EXPECT_TRUE(!rc || *err.text);
    return rc;
}

static void poke(struct file *f, uint64_t at, const void *data, size_t size)
{
    ASSERT_EQ(file_pwrite(f, data, size, at), 0);
}

/** Correct the checksum of a structure. */
static void sign(struct file *f, uint64_t at, size_t size, size_t checksum_at)
{
    uint8_t b[1024];

    ASSERT_EQ(file_pread(f, b, size, at), 0);
    store_be32(b + checksum_at, vhd_checksum(b, size, checksum_at));
    poke(f, at, b, size);
}

/* "size from Current Size, never CHS" */
TEST(sizes_are_exact)
{
    static const uint64_t sizes[] = {512, 512 * 17, 3 << 20, (127ULL << 30) + 512, VHD_MAX_BYTES};

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct disk *d;

        ASSERT_EQ(try_open(new_image(sizes[i], NULL), 0, &d), 0);
        EXPECT_EQ(d->size_bytes, sizes[i]);
        disk_close(d);
    }
    struct disk_create c = {.size_bytes = VHD_MAX_BYTES + 512};
    struct file *f = file_memory_new(NULL, 0, MAX_FILE);
    EXPECT_EQ(disk_create_file(f, &vhd_format, &c, &err), -EFBIG);
    file_close(f);
}

/* "Geometry" of the specification's appendix: what other writers compute for these sizes. */
TEST(geometry_is_the_appendixs)
{
    static const struct {
        uint64_t size;
        uint32_t geometry; /* cylinders, heads, sectors */
    } cases[] = {
        {8ULL << 20,   240u << 16 | 4 << 8 | 17    },
        {1ULL << 30,   2080u << 16 | 16 << 8 | 63  },
        {200ULL << 30, 65535u << 16 | 16 << 8 | 255},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct vhd_footer f = {.size_bytes = cases[i].size, .type = VHD_DYNAMIC};
        uint8_t b[VHD_FOOTER_BYTES];

        vhd_footer_make(b, &f);
        if (i == 2) /* any disk beyond the largest geometry with 63 sectors uses 255 */
            EXPECT_EQ(load_be32(b + 56) & 0xffff, cases[i].geometry & 0xffff);
        else
            EXPECT_EQ(load_be32(b + 56), cases[i].geometry);
    }
}

TEST(either_footer_may_be_damaged)
{
    for (int which = 0; which < 2; which++) {
        struct file *f = new_image(SIZE, NULL);
        struct disk *d;
        uint64_t size;

        ASSERT_EQ(try_open(f, 0, &d), 0);
        uint8_t byte = 0x42;
        ASSERT_EQ(disk_pwrite(d, &byte, 1, 3000000), 0);
        ASSERT_EQ(disk_flush(d), 0);
        struct file *copy = file_memory_copy(f);
        disk_close(d);
        ASSERT_EQ(file_get_size(copy, &size), 0);
        poke(copy, which ? 40 : size - 472, "\xff", 1);
        f = file_memory_copy(copy); /* reading changes nothing */
        ASSERT_EQ(try_open(f, DISK_READONLY, &d), 0);
        EXPECT_EQ(d->size_bytes, SIZE);
        disk_close(d);
        f = file_memory_copy(copy);
        ASSERT_EQ(try_open(f, 0, &d), 0);
        ASSERT_EQ(disk_pwrite(d, &byte, 1, 1000), 0); /* both are good again */
        ASSERT_EQ(disk_flush(d), 0);
        uint8_t head[512];
        uint8_t tail[512];
        ASSERT_EQ(file_get_size(f, &size), 0);
        ASSERT_EQ(file_pread(f, head, 512, 0), 0);
        ASSERT_EQ(file_pread(f, tail, 512, size - 512), 0);
        EXPECT_MEM(head, tail, 512);
        struct vhd_footer parsed;
        EXPECT_TRUE(vhd_footer_parse(head, &parsed));
        byte = 0;
        ASSERT_EQ(disk_pread(d, &byte, 1, 3000000), 0);
        EXPECT_EQ(byte, 0x42);
        disk_close(d);
        poke(copy, 40, "\xff", 1);
        poke(copy, 41, "\xfe", 1);
        ASSERT_EQ(file_get_size(copy, &size), 0);
        poke(copy, size - 471, "\xfe", 1);
        EXPECT_EQ(try_open(copy, 0, &d), -EINVAL);
        file_close(copy);
    }
}

/* A guest writes a dynamic disk's beginning into the first sectors of its fixed disk. */
TEST(a_fixed_disk_may_hold_anything)
{
    struct file *trap = new_image(SIZE, NULL);
    struct file *f = new_image(SIZE, "fixed");
    struct disk *d;
    uint8_t data[4096];
    uint8_t got[4096];

    ASSERT_EQ(file_pread(trap, data, sizeof(data), 0), 0);
    file_close(trap);
    ASSERT_EQ(try_open(f, 0, &d), 0);
    ASSERT_EQ(disk_pwrite(d, data, sizeof(data), 0), 0);
    struct file *copy = file_memory_copy(f);
    disk_close(d);
    ASSERT_EQ(try_open(copy, 0, &d), 0);
    ASSERT_EQ(disk_pread(d, got, sizeof(got), 0), 0);
    EXPECT_MEM(got, data, sizeof(data));
    disk_close(d);
}

TEST(hostile_headers_are_refused)
{
    static const struct {
        uint64_t at; /* in the dynamic header */
        uint32_t value;
    } cases[] = {
        {28, 0         },
        {28, 1         },
        {32, 0         },
        {32, 3 << 20   },
        {32, 512       },
        {32, 0x80000000},
        {16, 0xffffffff},
        {20, 0         },
        {20, 100       },
        {20, 700       },
        {20, 0x7fffffff},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct file *f = new_image(SIZE, NULL);
        struct disk *d;
        uint8_t v[4];

        store_be32(v, cases[i].value);
        poke(f, 512 + cases[i].at, v, 4);
        sign(f, 512, 1024, 36);
        if (!EXPECT_EQ(try_open(f, 0, &d), -EINVAL))
            disk_close(d);
        else
            file_close(f);
    }
}

static struct disk *with_table(uint32_t first, uint32_t second, struct file **ret)
{
    struct file *f = new_image(SIZE, NULL);
    uint8_t data[4096];
    uint8_t v[8];
    struct disk *d;

    ASSERT_EQ(try_open(f, 0, &d), 0);
    memset(data, 0x77, sizeof(data));
    ASSERT_EQ(disk_pwrite(d, data, sizeof(data), 0), 0);
    ASSERT_EQ(disk_pwrite(d, data, sizeof(data), 2 << 20), 0);
    ASSERT_EQ(disk_flush(d), 0);
    struct file *copy = file_memory_copy(f);
    disk_close(d);
    ASSERT_EQ(file_pread(copy, v, 8, 1536), 0);
    store_be32(v, first ? first : load_be32(v));
    store_be32(v + 4, second ? second : load_be32(v + 4));
    poke(copy, 1536, v, 8);
    ASSERT_EQ(try_open(copy, 0, &d), 0);
    *ret = copy;
    return d;
}

/* "A cluster that two places claim, or that lies on metadata, is never written to" */
TEST(blocks_that_overlap_are_not_written_to)
{
    static const struct {
        uint32_t first, second;
        unsigned errors, after;
    } cases[] = {
        {4,          0,          2, 0}, /* the first lies on itself and the second: both */
        {0,          4,          2, 0},
        {0,          5,          2, 0},
        {1,          0,          2, 0}, /* on the header */
        {0xfffffffe, 0,          1, 0}, /* outside of the file */
        {0,          0x00100000, 1, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct file *f;
        struct disk *d = with_table(cases[i].first, cases[i].second, &f);
        struct disk_check check = {0};
        uint8_t data[512] = {1};

        bool first = cases[i].first != 0;
        EXPECT_EQ(disk_pwrite(d, data, 512, first ? 0 : 2 << 20), i == 0 ? 0 : -EIO);
        if (i == 0) { /* block 0 really lies at sector 4: nothing is wrong */
            disk_close(d);
            continue;
        }
        ASSERT_EQ(disk_check(d, 0, &check, &err), 0);
        EXPECT_TRUE(check.errors >= 1);
        check = (struct disk_check){0};
        ASSERT_EQ(disk_check(d, DISK_REPAIR_ALL, &check, &err), 0);
        EXPECT_EQ(check.errors_fixed, check.errors);
        check = (struct disk_check){0};
        ASSERT_EQ(disk_check(d, 0, &check, &err), 0);
        EXPECT_EQ(check.errors, 0);
        EXPECT_EQ(disk_pwrite(d, data, 512, first ? 0 : 2 << 20), 0);
        EXPECT_EQ(disk_flush(d), 0);
        disk_close(d);
    }
}

TEST(windows_paths)
{
    static const struct {
        const char *windows, *host;
    } cases[] = {
        {".\\base.vhd",               "base.vhd"   },
        {"..\\up\\b.vhd",             "../up/b.vhd"},
        {"C:\\VMs\\b.vhd",            "b.vhd"      },
        {"\\\\?\\d:\\x\\b.vhdx",      "b.vhdx"     },
        {"\\\\server\\share\\b.vhdx", "b.vhdx"     },
        {"\\data\\b.vhd",             "/data/b.vhd"},
        {".\\.\\b",                   "b"          },
        {"",                          ""           },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char path[64];

        (void)snprintf(path, sizeof(path), "%s", cases[i].windows);
        utf16_path_to_host(path);
        EXPECT_STR(path, cases[i].host);
    }
}

TEST(utf16)
{
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
    uint8_t buf[64];
    size_t n = 0;

    for (int big = 0; big < 2; big++) {
        ASSERT_EQ(utf16_from_text(text, big, buf, sizeof(buf), &n), 0);
        EXPECT_EQ(n, 10);
        cleanup(freep) char *back = utf16_to_text(buf, n, big);
        EXPECT_STR(back, text);
    }
    cleanup(freep) char *lone = utf16_to_text((const uint8_t *)"\x00\xd8z\0", 4, false);
    EXPECT_STR(lone, "\xef\xbf\xbdz");
    EXPECT_EQ(utf16_from_text("\xc3", false, buf, sizeof(buf), &n), -EILSEQ);
    EXPECT_EQ(utf16_from_text("\xed\xa0\x80", false, buf, sizeof(buf), &n), -EILSEQ);
    EXPECT_EQ(utf16_from_text("abcd", false, buf, 6, &n), -ENAMETOOLONG);
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
        .backing_format = backing ? "vhd" : NULL,
        .backing = below,
    };

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    err = (struct error){0};
    if (disk_create(path, &vhd_format, &c, &err))
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

    (void)snprintf(folder, sizeof(folder), "/tmp/vhd_test-XXXXXX");
    ASSERT_TRUE(mkdtemp(folder));
    (void)atexit(remove_folder);
    create_at("base.vhd", NULL, NULL);
    create_at("other.vhd", NULL, NULL);
    ASSERT_EQ(open_at("base.vhd", 0, &d), 0);
    ASSERT_EQ(disk_pwrite(d, &byte, 1, 1234), 0);
    create_at("top.vhd", "base.vhd", d);
    disk_close(d);
    ASSERT_EQ(open_at("top.vhd", 0, &d), 0);
    EXPECT_STR(d->backing_path, "base.vhd");
    byte = 0;
    ASSERT_EQ(disk_pread(d, &byte, 1, 1234), 0);
    EXPECT_EQ(byte, 1);
    byte = 9;
    ASSERT_EQ(disk_pwrite(d, &byte, 1, 1235), 0);
    EXPECT_EQ(disk_set_backing(d, "missing.vhd", "vhd", &err), -ENOENT);
    ASSERT_EQ(disk_set_backing(d, "other.vhd", "vhd", NULL), 0);
    disk_close(d);
    ASSERT_EQ(open_at("top.vhd", 0, &d), 0);
    EXPECT_STR(d->backing_path, "other.vhd");
    ASSERT_EQ(disk_pread(d, &byte, 1, 1235), 0);
    EXPECT_EQ(byte, 9);
    ASSERT_EQ(disk_pread(d, &byte, 1, 1234), 0);
    EXPECT_EQ(byte, 1); /* the rest of the sector was copied */
    ASSERT_EQ(disk_set_backing(d, NULL, NULL, NULL), 0);
    disk_close(d);
    ASSERT_EQ(open_at("top.vhd", 0, &d), 0);
    EXPECT_TRUE(!d->backing_path && !d->below);
    ASSERT_EQ(disk_pread(d, &byte, 1, 1235), 0);
    EXPECT_EQ(byte, 9);
    struct disk_check check = {0};
    ASSERT_EQ(disk_check(d, 0, &check, NULL), 0);
    EXPECT_EQ(check.errors, 0);
    disk_close(d);
}

TEST(another_parent_is_refused)
{
    struct disk *d;
    char from[128];
    char to[128];

    (void)snprintf(folder, sizeof(folder), "/tmp/vhd_test-XXXXXX");
    ASSERT_TRUE(mkdtemp(folder));
    (void)atexit(remove_folder);
    create_at("base.vhd", NULL, NULL);
    create_at("other.vhd", NULL, NULL);
    ASSERT_EQ(open_at("base.vhd", DISK_READONLY, &d), 0);
    create_at("top.vhd", "base.vhd", d);
    disk_close(d);
    (void)snprintf(from, sizeof(from), "%s/other.vhd", folder);
    (void)snprintf(to, sizeof(to), "%s/base.vhd", folder);
    ASSERT_EQ(rename(from, to), 0);
    EXPECT_EQ(open_at("top.vhd", 0, &d), -EINVAL);
    EXPECT_TRUE(strstr(err.text, "identifier"));
    ASSERT_EQ(open_at("top.vhd", DISK_NO_BACKING, &d), 0);
    disk_close(d);
}
