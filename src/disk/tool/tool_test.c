/* Copying, comparing and staging whole disks, on raw files. */
#include "base/fd.h"
#include "base/test.h"
#include "disk/tool/tool.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define SIZE (5u << 20)

static char folder[64];
static uint8_t model[SIZE];
static struct error err;

static void remove_all(void)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    if (*folder && system(command))
        perror(command);
}

static const char *in_folder(const char *name)
{
    static char path[8][128];
    static unsigned next;
    char *p = path[next++ % 8];

    if (!*folder) {
        (void)snprintf(folder, sizeof(folder), "/tmp/tool_test-XXXXXX");
        ASSERT_TRUE(mkdtemp(folder));
        (void)atexit(remove_all);
    }
    (void)snprintf(p, 128, "%s/%s", folder, name);
    return p;
}

/** Data, zeroes that are written, and holes, in runs of odd sizes. */
static void make_model(const char *path)
{
    cleanup(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    unsigned x = 12345;

    ASSERT_TRUE(fd >= 0);
    ASSERT_EQ(ftruncate(fd, SIZE), 0);
    memset(model, 0, sizeof(model));
    for (size_t at = 0; at < SIZE;) {
        x = x * 1103515245u + 12345u;
        size_t n = MIN((size_t)SIZE - at, (size_t)(x >> 8) % (x & 64 ? 600000 : 9000) + 1);

        if (x & 128)
            memset(model + at, (int)(x >> 20 & 0xff), n);
        if (x & 256)
            ASSERT_EQ(fd_pwrite_all(fd, model + at, n, (off_t)at), 0);
        else
            memset(model + at, 0, n);
        at += n;
    }
}

static struct disk *open_disk(const char *path, unsigned flags)
{
    struct disk *d = NULL;

    err.code = 0;
    if (disk_open(path, &(struct disk_options){.format = "raw", .flags = flags}, &d, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    ASSERT_TRUE(d);
    return d;
}

static void expect_model(const char *path)
{
    static uint8_t got[SIZE];
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

    ASSERT_TRUE(fd >= 0);
    ASSERT_EQ(fd_pread_all(fd, got, SIZE, 0), 0);
    EXPECT_TRUE(!memcmp(got, model, SIZE));
}

static unsigned count_files(void)
{
    DIR *dir = opendir(folder);
    const struct dirent *e;
    unsigned n = 0;

    ASSERT_TRUE(dir);
    while ((e = readdir(dir)))
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    (void)closedir(dir);
    return n;
}

TEST(zero_finds_any_byte)
{
    static uint8_t buf[1000];

    for (size_t from = 0; from < 40; from++) {
        for (size_t size = 0; size < 300; size += 7)
            EXPECT_TRUE(disk_is_zero(buf + from, size));
    }
    for (size_t at = 0; at < 600; at++) {
        buf[at] = 1;
        EXPECT_TRUE(!disk_is_zero(buf + 3, 600) == (at >= 3 && at < 603));
        buf[at] = 0;
    }
}

TEST(convert_copies_and_is_sparse)
{
    struct stat st;

    make_model(in_folder("a"));
    struct disk *a = open_disk(in_folder("a"), DISK_READONLY);
    struct disk_convert c = {
        .source = a,
        .path = in_folder("b"),
        .format = disk_format_find("raw"),
        .create = {.size_bytes = a->size_bytes},
        .sparse_bytes = DISK_SPARSE_DEFAULT,
    };
    EXPECT_EQ(disk_convert(&c, NULL, &err), 0);
    expect_model(in_folder("b"));
    uint64_t nonzero = 0;
    for (size_t at = 0; at < SIZE; at += 4096)
        nonzero += disk_is_zero(model + at, 4096) ? 0 : 4096;
    ASSERT_EQ(stat(in_folder("b"), &st), 0);
    EXPECT_TRUE((uint64_t)st.st_blocks * 512 <= nonzero + 65536);
    EXPECT_EQ(count_files(), 2);

    EXPECT_EQ(disk_convert(&c, NULL, &err), -EEXIST);
    c.sparse_bytes = 0; /* all takes space */
    c.create.force = true;
    EXPECT_EQ(disk_convert(&c, &(struct disk_job){.threads = 3}, &err), 0);
    expect_model(in_folder("b"));
    ASSERT_EQ(stat(in_folder("b"), &st), 0);
    EXPECT_TRUE(st.st_blocks * 512 >= SIZE);
    disk_close(a);
}

TEST(copy_overwrites_what_is_there)
{
    static uint8_t ones[SIZE];

    make_model(in_folder("a"));
    cleanup(fd_closep) int fd = open(in_folder("b"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    memset(ones, 1, sizeof(ones));
    ASSERT_EQ(fd_pwrite_all(fd, ones, SIZE, 0), 0);
    struct disk *a = open_disk(in_folder("a"), DISK_READONLY);
    struct disk *b = open_disk(in_folder("b"), 0);
    EXPECT_EQ(
        disk_copy(&(struct disk_copy){.source = a, .target = b, .sparse_bytes = 65536}, NULL, &err),
        0);
    disk_close(a);
    disk_close(b);
    expect_model(in_folder("b"));
}

static int cancel_at_half(void *arg, uint64_t done, uint64_t total)
{
    (void)arg;
    return done > total / 2;
}

TEST(cancelled_convert_leaves_nothing)
{
    make_model(in_folder("a"));
    struct disk *a = open_disk(in_folder("a"), DISK_READONLY);
    struct disk_convert c = {
        .source = a,
        .path = in_folder("b"),
        .format = disk_format_find("raw"),
        .create = {.size_bytes = a->size_bytes},
    };
    struct disk_job job = {.progress = cancel_at_half};

    EXPECT_EQ(disk_convert(&c, &job, &err), -ECANCELED);
    EXPECT_EQ(count_files(), 1);
    disk_close(a);
}

TEST(compare_finds_the_first_difference)
{
    bool equal = false;
    uint64_t at = 0;

    make_model(in_folder("a"));
    struct disk *a = open_disk(in_folder("a"), DISK_READONLY);
    cleanup(fd_closep) int fd = open(in_folder("b"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_EQ(fd_pwrite_all(fd, model, SIZE, 0), 0);
    ASSERT_EQ(ftruncate(fd, SIZE + 4096), 0); /* longer, by zeroes */
    struct disk *b = open_disk(in_folder("b"), DISK_READONLY);
    EXPECT_EQ(disk_compare(a, b, NULL, &equal, &at, &err), 0);
    EXPECT_TRUE(equal);

    for (size_t i = SIZE - 1; i > 300000; i /= 2) { /* each earlier than the one before */
        uint8_t other = (uint8_t)(model[i] ^ 0x80);

        ASSERT_EQ(fd_pwrite_all(fd, &other, 1, (off_t)i), 0);
        EXPECT_EQ(disk_compare(a, b, NULL, &equal, &at, &err), 0);
        EXPECT_TRUE(!equal);
        EXPECT_EQ(at, i);
    }
    disk_close(a);
    disk_close(b);
}
