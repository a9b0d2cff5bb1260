/* QCOW2 disks in memory against a model: every variant, several threads, failing files, what a
 * flush costs, damage. Other programs' images: tests/disk. Power cuts: tests/disk/powercut.c. */
#include "base/bits.h"
#include "base/test.h"
#include "base/thread.h"
#include "disk/file_memory.h"
#include "disk/format.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE (256u << 20)

static struct error err;
static uint64_t random_state = 88172645463325252ULL;

static uint64_t random_below(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) % n;
}

static struct file *new_file(uint64_t size, struct disk *below, const char *option,
                             const char *value)
{
    const struct disk_create_value values[] = {
        {option, value},
        {NULL,   NULL }
    };
    struct disk_create c = {
        .size_bytes = size,
        .values = values,
        .backing = below,
        .backing_path = below ? "base" : NULL,
        .backing_format = below ? "raw" : NULL,
    };
    struct file *f = file_memory_new(NULL, 0, MAX_FILE);

    if (disk_create_file(f, &qcow2_format, &c, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    return f;
}

static struct disk *open_file(struct file *f, unsigned flags, struct disk *below)
{
    struct disk *d = NULL;

    err = (struct error){0};
    if (disk_open_file(f, &qcow2_format, flags, below, &d, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    ASSERT_TRUE(d);
    return d;
}

static struct disk *new_disk(uint64_t size, const char *option, const char *value)
{
    return open_file(new_file(size, NULL, option, value), 0, NULL);
}

static void report(void *arg, const char *text)
{
    (void)arg;
    test_fail(__FILE__, __LINE__, "check: %s", text);
}

static void expect_sound(struct disk *d)
{
    struct disk_check check = {.report = report};

    EXPECT_EQ(disk_check(d, 0, &check, &err), 0);
    EXPECT_EQ(check.errors, 0);
    EXPECT_EQ(check.leaks, 0);
}

/** A raw disk of @size bytes, byte n = n >> 9, every other 64 KiB zero. */
static struct disk *new_base(uint64_t size)
{
    struct file *f = file_memory_new(NULL, size, size);
    struct disk *d = NULL;
    uint8_t buf[512];

    for (uint64_t at = 0; at < size; at += sizeof(buf)) {
        memset(buf, at >> 16 & 1 ? 0 : (int)(at >> 9 | 1), sizeof(buf));
        ASSERT_EQ(file_pwrite(f, buf, sizeof(buf), at), 0);
    }
    ASSERT_EQ(disk_open_file(f, &raw_format, DISK_READONLY, NULL, &d, &err), 0);
    return d;
}

struct model {
    uint8_t *bytes, *buf;
    uint64_t size;
};

static void expect_model(struct disk *d, const struct model *m)
{
    EXPECT_EQ(disk_pread(d, m->buf, m->size, 0), 0);
    EXPECT_MEM(m->buf, m->bytes, m->size);
}

static void random_step(struct disk *d, struct model *m)
{
    uint64_t size = 1 + random_below(1ULL << random_below(19));
    uint64_t at = random_below(m->size - MIN(size, m->size - 1));
    unsigned dice = (unsigned)random_below(10);
    struct disk_extent e;

    size = MIN(size, m->size - at);
    if (dice < 5) {
        memset(m->bytes + at, (int)random_below(256), size);
        EXPECT_EQ(disk_pwrite(d, m->bytes + at, size, at), 0);
    } else if (dice < 7) {
        memset(m->bytes + at, 0, size);
        EXPECT_EQ(disk_write_zeroes(d, at, size, dice & 1), 0);
    } else if (dice == 7) { /* what a discard leaves is for the disk to choose: old or zero */
        EXPECT_EQ(disk_discard(d, at, size), 0);
        EXPECT_EQ(disk_pread(d, m->buf, size, at), 0);
        for (uint64_t i = 0; i < size; i++)
            EXPECT_TRUE(m->buf[i] == m->bytes[at + i] || !m->buf[i]);
        memcpy(m->bytes + at, m->buf, size);
    } else if (dice == 8) {
        EXPECT_EQ(disk_flush(d), 0);
    } else {
        EXPECT_EQ(disk_status(d, at, size, &e), 0);
        EXPECT_TRUE(e.size >= 1 && e.size <= size);
        EXPECT_EQ(disk_pread(d, m->buf, e.size, at), 0);
        for (uint64_t i = 0; e.kind == DISK_ZERO && i < e.size; i++)
            EXPECT_EQ(m->buf[i], 0);
        if (e.kind == DISK_DATA) {
            EXPECT_EQ(file_pread(e.file, m->buf, e.size, e.file_offset), 0);
            EXPECT_MEM(m->buf, m->bytes + at, e.size);
        }
    }
}

/** Random use, closed and opened again in between. */
static void check_variant(const char *option, const char *value, bool over)
{
    struct model m = {.size = (3u << 20) + 512};
    struct disk *below = over ? new_base(2u << 20) : NULL;
    struct file *f = new_file(m.size, below, option, value);

    m.bytes = calloc(1, m.size);
    m.buf = malloc(m.size);
    ASSERT_TRUE(m.bytes && m.buf);
    if (below)
        ASSERT_EQ(disk_pread(below, m.bytes, below->size_bytes, 0), 0);
    for (unsigned round = 0; round < 3; round++) {
        struct disk *d = open_file(f, 0, below);

        expect_model(d, &m);
        for (unsigned i = 0; i < 150; i++)
            random_step(d, &m);
        expect_model(d, &m);
        EXPECT_EQ(disk_flush(d), 0);
        struct file *crashed = file_memory_copy(f);
        EXPECT_EQ(disk_flush(d), 0); /* frees what the first one let go */
        expect_sound(d);
        f = file_memory_copy(f);
        d->below = NULL;
        disk_close(d);
        d = open_file(crashed, DISK_READONLY, below); /* what a flush has promised */
        expect_model(d, &m);
        d->below = NULL;
        disk_close(d);
    }
    file_close(f);
    disk_close(below);
    free(m.bytes);
    free(m.buf);
}

TEST(default_variant)
{
    check_variant("compat", "1.1", false);
    check_variant("compat", "1.1", true);
}

TEST(version_2)
{
    check_variant("compat", "0.10", false);
    check_variant("compat", "0.10", true);
}

TEST(cluster_sizes)
{
    check_variant("cluster_size", "512", false);
    check_variant("cluster_size", "4K", true);
    check_variant("cluster_size", "2M", true);
}

TEST(extended_l2)
{
    check_variant("extended_l2", "on", false);
    check_variant("extended_l2", "on", true);
}

TEST(refcount_widths)
{
    static const char *const bits[] = {"1", "2", "4", "8", "32", "64"};

    for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
        check_variant("refcount_bits", bits[i], false);
}

TEST(preallocated)
{
    check_variant("preallocation", "metadata", false);
    check_variant("preallocation", "full", false);
}

TEST(compressed)
{
    static const char *const types[] = {"zlib", "zstd"};
    static uint8_t data[65536];
    static uint8_t packed[65536];
    static uint8_t got[65536];
    size_t size = 0;

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        struct disk *d = new_disk(4u << 20, "compression_type", types[i]);
        struct disk_extent e;

        for (unsigned c = 0; c < 20; c++) {
            memset(data, (int)c + 1, sizeof(data));
            for (unsigned k = 0; k < 20000; k++)
                data[random_below(sizeof(data))] = (uint8_t)random_below(256);
            ASSERT_EQ(d->ops->pack(d, data, packed, sizeof(packed), &size), 0);
            ASSERT_EQ(d->ops->write_packed(d, (uint64_t)c * 65536, packed, size), 0);
            EXPECT_EQ(disk_pread(d, got, sizeof(got), (uint64_t)c * 65536), 0);
            EXPECT_MEM(got, data, sizeof(data));
            EXPECT_EQ(disk_status(d, (uint64_t)c * 65536, 65536, &e), 0);
            EXPECT_EQ(e.kind, DISK_PACKED);
        }
        for (size_t k = 0; k < sizeof(data); k += 8) /* what gains nothing is refused */
            store_le64(data + k, random_below(1ULL << 62) * 0x9e3779b97f4a7c15ULL);
        EXPECT_EQ(d->ops->pack(d, data, packed, sizeof(packed), &size), -E2BIG);
        memset(data, 0xaa, 700); /* part of a packed cluster is overwritten */
        EXPECT_EQ(disk_pread(d, got, sizeof(got), 65536), 0);
        memcpy(got + 1000, data, 700);
        EXPECT_EQ(disk_pwrite(d, data, 700, 65536 + 1000), 0);
        EXPECT_EQ(disk_pread(d, packed, sizeof(packed), 65536), 0);
        EXPECT_MEM(packed, got, sizeof(got));
        EXPECT_EQ(disk_discard(d, 2 * 65536, 4 * 65536), 0);
        EXPECT_EQ(disk_flush(d), 0);
        EXPECT_EQ(disk_flush(d), 0);
        expect_sound(d);
        disk_close(d);
    }
}

struct worker {
    struct disk *d;
    unsigned nr;
    bool flushes;
};

#define WORKERS  4u
#define MT_BYTES (4u << 20)
#define PIECE    1536u /* clusters are shared by several writers */

/** Each has every fourth piece of the disk. */
static void *work(void *arg)
{
    const struct worker *w = arg;
    uint8_t buf[PIECE];
    uint8_t got[PIECE];
    uint64_t state = w->nr + 1;

    for (unsigned i = 0; i < 1500; i++) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        uint64_t at = ((state >> 33) % (MT_BYTES / PIECE / WORKERS) * WORKERS + w->nr) * PIECE;
        unsigned dice = (unsigned)(state >> 60);

        memset(buf, (int)i | 1, PIECE);
        if (dice == 0) {
            memset(buf, 0, PIECE);
            EXPECT_EQ(disk_write_zeroes(w->d, at, PIECE, true), 0);
        } else {
            EXPECT_EQ(disk_pwrite(w->d, buf, PIECE, at), 0);
        }
        EXPECT_EQ(disk_pread(w->d, got, PIECE, at), 0);
        EXPECT_MEM(got, buf, PIECE);
        if (w->flushes && dice == 1)
            EXPECT_EQ(disk_flush(w->d), 0);
    }
    return NULL;
}

static void check_threads(const char *option, const char *value)
{
    struct disk *d = new_disk(MT_BYTES, option, value);
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS];

    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){d, i, i & 1};
        ASSERT_EQ(thread_start(&threads[i], "worker", work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        thread_join(threads[i]);
    EXPECT_EQ(disk_flush(d), 0);
    EXPECT_EQ(disk_flush(d), 0);
    expect_sound(d);
    disk_close(d);
}

TEST(several_threads)
{
    check_threads("compat", "1.1");
    check_threads("cluster_size", "512");
    check_threads("extended_l2", "on");
}

/* docs/formats/qcow2.md: a small write to a fresh cluster and a flush: two barriers, at most three
 * times the bytes. */
TEST(cost_of_fresh_clusters)
{
    struct file *f = new_file(64u << 20, NULL, "compat", "1.1");
    struct disk *d = open_file(f, 0, NULL);
    uint8_t buf[4096];
    uint64_t bytes = 0;
    unsigned flushes = 0;

    memset(buf, 7, sizeof(buf));
    ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), 0), 0); /* the L2 table is there */
    ASSERT_EQ(disk_flush(d), 0);
    file_memory_record(f);
    for (uint64_t i = 1; i <= 100; i++) {
        ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), i * 65536 + 8192), 0);
        ASSERT_EQ(disk_flush(d), 0);
    }
    const struct file_memory_log *log = file_memory_get_log(f);
    for (size_t i = 0; i < log->count; i++) {
        flushes += log->v[i].kind == FILE_MEMORY_FLUSH;
        bytes += log->v[i].kind == FILE_MEMORY_WRITE ? log->v[i].size : 0;
    }
    EXPECT_TRUE(flushes <= 200);
    EXPECT_TRUE(bytes <= 100 * 3 * sizeof(buf));
    ASSERT_EQ(disk_flush(d), 0); /* nothing to do: one */
    EXPECT_EQ(file_memory_get_log(f)->count - log->count, 0);
    EXPECT_EQ(log->v[log->count - 1].kind, FILE_MEMORY_FLUSH);
    EXPECT_EQ(log->v[log->count - 2].kind, FILE_MEMORY_FLUSH);
    disk_close(d);
}

TEST(freed_clusters_are_used_again)
{
    struct file *f = new_file(64u << 20, NULL, "compat", "1.1");
    struct disk *d = open_file(f, 0, NULL);
    static uint8_t buf[1 << 20];
    uint64_t size = 0;

    memset(buf, 1, sizeof(buf));
    for (unsigned i = 0; i < 50; i++) {
        ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), (uint64_t)i << 20), 0);
        ASSERT_EQ(disk_flush(d), 0);
        ASSERT_EQ(disk_discard(d, (uint64_t)i << 20, sizeof(buf)), 0);
        ASSERT_EQ(disk_flush(d), 0);
    }
    ASSERT_EQ(file_get_size(f, &size), 0);
    EXPECT_TRUE(size < 5u << 20);
    expect_sound(d);
    disk_close(d);
}

/* After an error the image is as sound as before, and writing goes on when the cause has gone. */
static void check_failures(int code, const char *option, const char *value)
{
    static uint8_t buf[200000];

    memset(buf, 5, sizeof(buf));
    for (uint64_t calls = 0; calls < 60; calls++) {
        struct file *f = new_file(8u << 20, NULL, option, value);
        struct disk *d = open_file(f, 0, NULL);
        struct disk_check check = {0};

        ASSERT_EQ(disk_pwrite(d, buf, 100000, 100), 0);
        ASSERT_EQ(disk_flush(d), 0);
        file_memory_fail(f, calls, code, false);
        for (uint64_t i = 0; i < 5; i++) {
            int rc = disk_pwrite(d, buf, sizeof(buf), 50000 + i * 300001);

            EXPECT_TRUE(rc == 0 || rc == -code);
            rc = i & 1 ? disk_flush(d) : disk_write_zeroes(d, i * 65536, 131072, true);
            EXPECT_TRUE(rc == 0 || rc == -code);
        }
        file_memory_fail(f, 0, 0, false);
        EXPECT_EQ(disk_pwrite(d, buf, sizeof(buf), 4u << 20), 0);
        EXPECT_EQ(disk_flush(d), 0);
        EXPECT_EQ(disk_check(d, 0, &check, &err), 0);
        EXPECT_EQ(check.errors, 0);
        f = file_memory_copy(f);
        disk_close(d);
        d = open_file(f, 0, NULL);
        EXPECT_EQ(disk_pread(d, buf, 100, 4u << 20), 0);
        EXPECT_EQ(buf[99], 5);
        disk_close(d);
    }
}

TEST(failures_do_no_damage)
{
    check_failures(EIO, "compat", "1.1");
    check_failures(ENOSPC, "cluster_size", "512");
    check_failures(ENOSPC, "extended_l2", "on");
}

TEST(resize)
{
    struct disk *below = new_base(4u << 20);
    struct disk *d = open_file(new_file(1u << 20, below, "cluster_size", "512"), 0, below);
    static uint8_t buf[1 << 20];

    memset(buf, 9, sizeof(buf));
    ASSERT_EQ(disk_pwrite(d, buf, 300, (1u << 20) - 300), 0);
    ASSERT_EQ(disk_resize(d, 3u << 20, false, &err), 0); /* what is below does not show */
    EXPECT_EQ(disk_pread(d, buf, sizeof(buf), 1u << 20), 0);
    for (size_t i = 0; i < sizeof(buf); i++)
        ASSERT_EQ(buf[i], 0);
    memset(buf, 9, sizeof(buf));
    ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), 2u << 20), 0);
    EXPECT_EQ(disk_resize(d, 2u << 20, false, &err), -EINVAL);
    ASSERT_EQ(disk_resize(d, (2u << 20) + 512, true, &err), 0);
    expect_sound(d);
    ASSERT_EQ(disk_resize(d, 4u << 20, false, &err), 0);
    EXPECT_EQ(disk_pread(d, buf, sizeof(buf), 2u << 20), 0);
    EXPECT_EQ(buf[511], 9);
    EXPECT_EQ(buf[512], 0);
    EXPECT_EQ(buf[sizeof(buf) - 1], 0);
    ASSERT_EQ(disk_make_empty(d, &err), 0);
    EXPECT_EQ(disk_pread(d, buf, 512, 0), 0);
    EXPECT_EQ(buf[0], 1);
    expect_sound(d);
    disk_close(d);
}

/** Damage byte @at of the header's cluster and see that opening says no, or that checking does. */
TEST(damage_is_found_and_repaired)
{
    struct file *f = new_file(1u << 20, NULL, "cluster_size", "512");
    struct disk *d = open_file(f, 0, NULL);
    uint8_t buf[4096];
    uint8_t entry[8];

    memset(buf, 3, sizeof(buf));
    ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), 0), 0);
    ASSERT_EQ(disk_flush(d), 0);
    f = file_memory_copy(f);
    disk_close(d);
    ASSERT_EQ(file_pread(f, entry, 8, 40), 0); /* L1, its first L2, whose entry 1 = L1's cluster */
    uint64_t l1 = load_be64(entry);
    ASSERT_EQ(file_pread(f, entry, 8, l1), 0);
    uint64_t l2 = load_be64(entry) & MASK(56);
    store_be64(entry, l1 | BIT(63));
    ASSERT_EQ(file_pwrite(f, entry, 8, l2 + 8), 0);
    d = open_file(f, 0, NULL);
    EXPECT_EQ(disk_pwrite(d, buf, 512, 512), -EIO);  /* never onto metadata */
    EXPECT_EQ(disk_pwrite(d, buf, 512, 2048), -EIO); /* and then no more */
    f = file_memory_copy(f);
    disk_close(d);
    d = NULL;
    err = (struct error){0};
    EXPECT_EQ(disk_open_file(f, &qcow2_format, 0, NULL, &d, &err), -EIO);
    EXPECT_TRUE(strstr(err.text, "damaged") != NULL);
    d = open_file(f, DISK_CHECK, NULL);
    struct disk_check check = {0};
    EXPECT_EQ(disk_check(d, DISK_REPAIR_ALL, &check, &err), 0);
    EXPECT_TRUE(check.errors && check.errors == check.errors_fixed);
    f = file_memory_copy(f);
    disk_close(d);
    d = open_file(f, 0, NULL);
    expect_sound(d);
    EXPECT_EQ(disk_pwrite(d, buf, 512, 512), 0); /* elsewhere now */
    EXPECT_EQ(disk_pread(d, buf, 512, 2048), 0);
    EXPECT_EQ(buf[0], 3);
    check = (struct disk_check){0}; /* what was shared with metadata may leak */
    EXPECT_EQ(disk_check(d, 0, &check, &err), 0);
    EXPECT_EQ(check.errors, 0);
    disk_close(d);
}

/* A dirty image (lazy refcounts) gets its refcounts when it is opened for writing. */
TEST(dirty_image_is_mended)
{
    struct file *f = new_file(1u << 20, NULL, "lazy_refcounts", "on");
    struct disk *d = open_file(f, 0, NULL);
    uint8_t buf[4096] = {1};
    uint8_t zeroes[512] = {0};
    uint8_t entry[8];

    ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), 0), 0);
    ASSERT_EQ(disk_flush(d), 0);
    f = file_memory_copy(f);
    disk_close(d);
    ASSERT_EQ(file_pread(f, entry, 8, 65536), 0);
    ASSERT_EQ(file_pwrite(f, zeroes, sizeof(zeroes), load_be64(entry)), 0); /* all forgotten */
    store_be64(entry, 1);
    ASSERT_EQ(file_pwrite(f, entry, 8, 72), 0);
    d = open_file(f, 0, NULL);
    expect_sound(d);
    ASSERT_EQ(file_pread(f, entry, 8, 72), 0);
    EXPECT_EQ(load_be64(entry), 0);
    disk_close(d);
}

TEST(bitmaps_are_tracked)
{
    struct file *f = new_file(1u << 20, NULL, "cluster_size", "4K");
    struct disk *d = open_file(f, 0, NULL);
    struct disk_info info = {0};
    uint8_t buf[512] = {1};

    ASSERT_EQ(disk_bitmap(d, DISK_BITMAP_ADD, "on", 65536, NULL, NULL, &err), 0);
    ASSERT_EQ(disk_bitmap(d, DISK_BITMAP_ADD, "off", 0, NULL, NULL, &err), 0);
    ASSERT_EQ(disk_bitmap(d, DISK_BITMAP_DISABLE, "off", 0, NULL, NULL, &err), 0);
    EXPECT_EQ(disk_bitmap(d, DISK_BITMAP_ADD, "on", 65536, NULL, NULL, &err), -EEXIST);
    expect_sound(d);
    ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), 70000), 0);
    struct file *crashed = file_memory_copy(f);
    expect_sound(d);
    disk_close(d);
    d = open_file(crashed, DISK_READONLY, NULL); /* not trusted after a crash */
    ASSERT_EQ(disk_get_info(d, &info, &err), 0);
    ASSERT_TRUE(info.bitmaps && info.bitmaps->next);
    EXPECT_STR(info.bitmaps->name, "on");
    EXPECT_TRUE(info.bitmaps->inconsistent && info.bitmaps->enabled);
    EXPECT_TRUE(!info.bitmaps->next->inconsistent && !info.bitmaps->next->enabled);
    disk_info_done(&info);
    disk_close(d);
}
