/* VHD and VHDX disks against a model in memory, with and without something below; several threads;
 * what a flush costs; failures of the file. */
#include "base/bits.h"
#include "base/fd.h"
#include "base/test.h"
#include "base/thread.h"
#include "disk/file_memory.h"
#include "disk/format.h"
#include "disk/format_test.h"

#include <stdio.h>

#define MAX_FILE (256ULL << 20)
#define SIZE     (5u << 20)

static struct error err;

static const struct disk_format *const formats[] = {
    &vhd_format,
    &vhdx_format,
};

static struct file *new_image(const struct disk_format *format, struct disk *below, uint64_t size)
{
    struct file *f = file_memory_new(NULL, 0, MAX_FILE);
    struct disk_create c = {
        .size_bytes = size,
        .backing = below,
        .backing_path = below ? "below.image" : NULL,
        .backing_format = below ? disk_format_name(format) : NULL,
    };

    err = (struct error){0};
    if (disk_create_file(f, format, &c, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    return f;
}

static struct disk *open_image(struct file *f, const struct disk_format *format, unsigned flags,
                               struct disk *below)
{
    struct disk *d = NULL;

    err = (struct error){0};
    if (disk_open_file(f, format, flags, below, &d, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    ASSERT_TRUE(d);
    return d;
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/** A disk of @size bytes with data in every other 100,000 bytes. */
static struct disk *new_below(const struct disk_format *format, uint8_t *model, uint32_t size)
{
    struct disk *d = open_image(new_image(format, NULL, size), format, 0, NULL);

    for (uint32_t at = 0; at < size; at += 200000) {
        uint32_t n = MIN(size - at, 100000u);

        memset(model + at, (int)(at / 200000 + 1), n);
        ASSERT_EQ(disk_pwrite(d, model + at, n, at), 0);
    }
    return d;
}

static void compare(struct disk *d, const uint8_t *model, size_t size, int line)
{
    uint8_t *buf = malloc(size);

    ASSERT_TRUE(buf);
    memset(buf, 0xee, size);
    ASSERT_EQ(disk_pread(d, buf, size, 0), 0);
    for (size_t i = 0; i < size; i++) {
        if (buf[i] != model[i]) {
            test_fail(__FILE__, line, "byte %zu is 0x%02x, want 0x%02x", i, buf[i], model[i]);
            break;
        }
    }
    free(buf);
}

/** Errors found by a check, which must end well. */
static void expect_sound(struct disk *d, int line)
{
    struct disk_check check = {0};

    err = (struct error){0};
    EXPECT_EQ(disk_check(d, 0, &check, &err), 0);
    if (check.errors || check.leaks)
        test_fail(__FILE__, line, "%llu errors, %llu leaks", (unsigned long long)check.errors,
                  (unsigned long long)check.leaks);
}

static void do_random(struct disk *d, uint8_t *model, uint32_t size, uint32_t *seed)
{
    static uint8_t data[1 << 20];
    uint32_t at = next_random(seed) % size;
    uint32_t n = 1 + next_random(seed) % (next_random(seed) % 3 ? 3000 : sizeof(data) - 1);
    uint8_t value = (uint8_t)next_random(seed);

    if (next_random(seed) % 4 == 0)
        at = (uint32_t)align_down(at, 4096);
    n = MIN(n, size - at);
    switch (next_random(seed) % 8) {
    case 0:
        ASSERT_EQ(disk_write_zeroes(d, at, n, value & 1), 0);
        memset(model + at, 0, n);
        break;
    case 1: /* old bytes or zeroes, never what is below */
        ASSERT_EQ(disk_discard(d, at, n), 0);
        ASSERT_EQ(disk_pread(d, data, n, at), 0);
        for (uint32_t i = 0; i < n; i++)
            ASSERT_TRUE(!data[i] || data[i] == model[at + i]);
        memcpy(model + at, data, n);
        break;
    case 2:
        ASSERT_EQ(disk_flush(d), 0);
        break;
    default:
        memset(data, value, n);
        ASSERT_EQ(disk_pwrite(d, data, n, at), 0);
        memset(model + at, value, n);
    }
}

static void against_model(const struct disk_format *format, bool over, uint32_t seed)
{
    uint8_t *model = calloc(1, SIZE);

    ASSERT_TRUE(model);
    struct disk *below = over ? new_below(format, model, SIZE - 585 * 512) : NULL;
    struct file *f = new_image(format, below, SIZE);
    struct disk *d = open_image(f, format, 0, below);
    for (int i = 0; i < 400; i++) {
        do_random(d, model, SIZE, &seed);
        if (i % 40 == 0)
            compare(d, model, SIZE, __LINE__);
        if (i % 100 == 99) { /* what the file says, not the memory */
            ASSERT_EQ(disk_flush(d), 0);
            struct file *copy = file_memory_copy(f);
            d->below = NULL;
            disk_close(d);
            f = copy;
            d = open_image(f, format, 0, below);
            compare(d, model, SIZE, __LINE__);
            expect_sound(d, __LINE__);
        }
    }
    compare(d, model, SIZE, __LINE__);
    disk_close(d);
    free(model);
}

TEST(against_a_model)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        against_model(formats[i], false, 7);
}

TEST(over_another_against_a_model)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        against_model(formats[i], true, 11);
}

/* Extents and reading must say the same. */
TEST(status_agrees_with_reading)
{
    static uint8_t model[SIZE];
    uint32_t seed = 3;

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        memset(model, 0, sizeof(model));
        struct disk *below = new_below(formats[i], model, SIZE);
        struct disk *d = open_image(new_image(formats[i], below, SIZE), formats[i], 0, below);
        struct disk_extent e;

        for (int n = 0; n < 100; n++)
            do_random(d, model, SIZE, &seed);
        for (uint64_t at = 0; at < SIZE; at += e.size) {
            static uint8_t got[SIZE];

            ASSERT_EQ(disk_status(d, at, SIZE - at, &e), 0);
            ASSERT_TRUE(e.size && e.size <= SIZE - at);
            if (e.kind == DISK_DATA)
                ASSERT_EQ(file_pread(e.file, got, e.size, e.file_offset), 0);
            else if (e.kind == DISK_ABSENT)
                ASSERT_EQ(disk_pread(below, got, e.size, at), 0);
            else
                memset(got, 0, e.size);
            EXPECT_MEM(got, model + at, e.size);
        }
        disk_close(d);
    }
}

/* Four threads write stripes of 700 bytes, which share sectors, into one image over another. */
#define THREADS 4u
#define STRIPE  700u

struct writer {
    struct disk *d;
    unsigned number;
    int rc;
};

static void *write_stripes(void *arg)
{
    struct writer *w = arg;
    uint8_t data[STRIPE];

    memset(data, (int)(0xa0 + w->number), sizeof(data));
    for (uint32_t i = w->number; (i + 1) * STRIPE <= SIZE && !w->rc; i += THREADS) {
        if (i % 5 == 4) /* every fifth shows what is below */
            continue;
        w->rc = disk_pwrite(w->d, data, sizeof(data), (uint64_t)i * STRIPE);
        if (!w->rc && i % 512 == w->number)
            w->rc = disk_flush(w->d);
    }
    return NULL;
}

static void write_by_threads(struct disk *d)
{
    struct writer w[THREADS];
    pthread_t threads[THREADS];

    for (unsigned t = 0; t < THREADS; t++) {
        w[t] = (struct writer){d, t, 0};
        ASSERT_EQ(thread_start(&threads[t], "writer", write_stripes, &w[t]), 0);
    }
    for (unsigned t = 0; t < THREADS; t++) {
        thread_join(threads[t]);
        EXPECT_EQ(w[t].rc, 0);
    }
}

TEST(threads_share_sectors)
{
    static uint8_t model[SIZE];

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        memset(model, 0, sizeof(model));
        struct disk *below = new_below(formats[i], model, SIZE);
        struct file *f = new_image(formats[i], below, SIZE);
        struct disk *d = open_image(f, formats[i], 0, below);

        for (uint32_t n = 0; (n + 1) * STRIPE <= SIZE; n++) {
            if (n % 5 != 4)
                memset(model + (size_t)n * STRIPE, (int)(0xa0 + n % THREADS), STRIPE);
        }
        write_by_threads(d);
        compare(d, model, SIZE, __LINE__);
        ASSERT_EQ(disk_flush(d), 0);
        struct file *copy = file_memory_copy(f);
        d->below = NULL;
        disk_close(d);
        d = open_image(copy, formats[i], 0, below);
        compare(d, model, SIZE, __LINE__);
        expect_sound(d, __LINE__);
        disk_close(d);
    }
}

/* "At most one data barrier and one metadata barrier, at most three times the bytes." */
TEST(a_flush_after_a_write_to_a_fresh_block_is_cheap)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        struct file *f = new_image(formats[i], NULL, 1ULL << 40);
        struct disk *d = open_image(f, formats[i], 0, NULL);
        uint64_t step = d->cluster_bytes;
        uint8_t data[4096];
        uint64_t bytes = 0;
        uint64_t flushes = 0;

        memset(data, 0x5a, sizeof(data));
        ASSERT_EQ(disk_pwrite(d, data, sizeof(data), 0), 0); /* the first write of all */
        ASSERT_EQ(disk_flush(d), 0);
        file_memory_record(f);
        for (unsigned n = 1; n <= 6; n++) {
            ASSERT_EQ(disk_pwrite(d, data, sizeof(data), n * 977 * step), 0);
            ASSERT_EQ(disk_flush(d), 0);
        }
        const struct file_memory_log *log = file_memory_get_log(f);
        for (size_t n = 0; n < log->count; n++) {
            EXPECT_TRUE(log->v[n].kind != FILE_MEMORY_ZERO);
            bytes += log->v[n].kind == FILE_MEMORY_WRITE ? log->v[n].size : 0;
            flushes += log->v[n].kind == FILE_MEMORY_FLUSH;
        }
        EXPECT_EQ(flushes, 6 * 2);
        if (bytes > 6 * 3 * sizeof(data))
            test_fail(__FILE__, __LINE__, "%s: %llu bytes for 6 writes of 4096",
                      disk_format_name(formats[i]), (unsigned long long)bytes);
        size_t before = log->count;
        ASSERT_EQ(disk_flush(d), 0);
        EXPECT_EQ(log->count, before + 1);
        disk_close(d);
    }
}

/* Each writing call of the file fails once; what was flushed before stays, and going on works. */
TEST(failures_do_no_damage)
{
    static uint8_t model[SIZE];

    for (size_t i = 0; i < ARRAY_SIZE(formats) * 2; i++) {
        const struct disk_format *format = formats[i / 2];

        for (unsigned nth = 0; nth < 24; nth++) {
            memset(model, 0, sizeof(model));
            struct disk *below = i % 2 ? new_below(format, model, SIZE) : NULL;
            struct file *f = new_image(format, below, SIZE);
            struct disk *d = open_image(f, format, 0, below);

            memset(model + 5000, 0x11, 10000);
            ASSERT_EQ(disk_pwrite(d, model + 5000, 10000, 5000), 0);
            ASSERT_EQ(disk_flush(d), 0);
            file_memory_fail(f, nth, ENOSPC, false);
            memset(model + 3000000, 0x22, 10000);
            int rc = disk_pwrite(d, model + 3000000, 10000, 3000000);
            rc = rc ? rc : disk_flush(d);
            EXPECT_TRUE(!rc || rc == -ENOSPC);
            file_memory_fail(f, 0, 0, false);
            ASSERT_EQ(disk_pwrite(d, model + 3000000, 10000, 3000000), 0);
            ASSERT_EQ(disk_flush(d), 0);
            struct file *copy = file_memory_copy(f);
            d->below = NULL;
            disk_close(d);
            d = open_image(copy, format, 0, below);
            compare(d, model, SIZE, __LINE__);
            expect_sound(d, __LINE__);
            disk_close(d);
        }
    }
}

TEST(resizing)
{
    static uint8_t model[SIZE * 4];

    for (size_t i = 0; i < ARRAY_SIZE(formats) * 2; i++) {
        const struct disk_format *format = formats[i / 2];

        memset(model, 0, sizeof(model));
        struct disk *below = i % 2 ? new_below(format, model, SIZE * 2) : NULL;
        struct file *f = new_image(format, below, SIZE);
        struct disk *d = open_image(f, format, 0, below);
        memset(model + SIZE, 0, SIZE); /* what is below the new end must not show */
        memset(model + SIZE - 5000, 0x33, 5000);
        ASSERT_EQ(disk_pwrite(d, model + SIZE - 5000, 5000, SIZE - 5000), 0);
        ASSERT_EQ(disk_resize(d, SIZE * 4, false, &err), 0);
        EXPECT_EQ(d->size_bytes, SIZE * 4);
        compare(d, model, SIZE * 4, __LINE__);
        memset(model + SIZE * 3, 0x44, 5000);
        ASSERT_EQ(disk_pwrite(d, model + SIZE * 3, 5000, SIZE * 3), 0);
        ASSERT_EQ(disk_flush(d), 0);
        struct file *copy = file_memory_copy(f);
        d->below = NULL;
        disk_close(d);
        d = open_image(copy, format, 0, below);
        EXPECT_EQ(d->size_bytes, SIZE * 4);
        compare(d, model, SIZE * 4, __LINE__);
        expect_sound(d, __LINE__);
        disk_close(d);
    }
}

TEST(shrinking_and_growing_again_shows_zeroes)
{
    static uint8_t model[SIZE];

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        struct disk *d = open_image(new_image(formats[i], NULL, SIZE), formats[i], 0, NULL);

        memset(model, 0x55, sizeof(model));
        ASSERT_EQ(disk_pwrite(d, model, SIZE, 0), 0);
        ASSERT_EQ(disk_resize(d, 1 << 20, true, &err), 0);
        EXPECT_EQ(d->size_bytes, 1 << 20);
        ASSERT_EQ(disk_resize(d, SIZE, false, &err), 0);
        memset(model + (1 << 20), 0, SIZE - (1 << 20));
        compare(d, model, SIZE, __LINE__);
        expect_sound(d, __LINE__);
        disk_close(d);
    }
}

TEST(emptying_shows_what_is_below)
{
    static uint8_t model[SIZE];
    uint32_t seed = 5;

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        memset(model, 0, sizeof(model));
        struct disk *below = new_below(formats[i], model, SIZE);
        struct file *f = new_image(formats[i], below, SIZE);
        struct disk *d = open_image(f, formats[i], 0, below);
        uint64_t before;
        uint64_t after;

        ASSERT_EQ(file_get_size(f, &before), 0);
        uint8_t *scratch = malloc(SIZE);
        ASSERT_TRUE(scratch);
        memcpy(scratch, model, SIZE);
        for (int n = 0; n < 50; n++)
            do_random(d, scratch, SIZE, &seed);
        free(scratch);
        ASSERT_EQ(disk_make_empty(d, &err), 0);
        compare(d, model, SIZE, __LINE__);
        ASSERT_EQ(file_get_size(f, &after), 0);
        EXPECT_TRUE(after <= before + (1 << 20)); /* given back */
        do_random(d, model, SIZE, &seed);
        compare(d, model, SIZE, __LINE__);
        expect_sound(d, __LINE__);
        disk_close(d);
    }
}

TEST(fixed_disks)
{
    static const struct disk_create_value values[] = {
        {"subformat", "fixed"},
        {0          },
    };
    static uint8_t model[SIZE];

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        struct file *f = file_memory_new(NULL, 0, MAX_FILE);
        struct disk_create c = {.size_bytes = SIZE, .values = values};
        uint32_t seed = 9;
        uint64_t before;
        uint64_t after;

        memset(model, 0, sizeof(model));
        ASSERT_EQ(disk_create_file(f, formats[i], &c, &err), 0);
        ASSERT_EQ(file_get_size(f, &before), 0);
        EXPECT_TRUE(before >= SIZE);
        struct disk *d = open_image(f, formats[i], 0, NULL);
        for (int n = 0; n < 100; n++)
            do_random(d, model, SIZE, &seed);
        compare(d, model, SIZE, __LINE__);
        ASSERT_EQ(file_get_size(f, &after), 0);
        EXPECT_EQ(after, before);
        ASSERT_EQ(disk_resize(d, SIZE + (3 << 20), false, &err), 0);
        struct file *copy = file_memory_copy(f);
        disk_close(d);
        d = open_image(copy, formats[i], DISK_READONLY, NULL);
        EXPECT_EQ(d->size_bytes, SIZE + (3 << 20));
        uint8_t *all = calloc(1, SIZE + (3 << 20));
        ASSERT_TRUE(all);
        memcpy(all, model, SIZE);
        compare(d, all, SIZE + (3 << 20), __LINE__);
        free(all);
        disk_close(d);
    }
}

TEST(measuring)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        struct disk_create c = {.size_bytes = SIZE};
        uint64_t required;
        uint64_t full;
        uint64_t size;
        struct file *f = new_image(formats[i], NULL, SIZE);
        struct disk *d = open_image(f, formats[i], 0, NULL);
        static uint8_t data[SIZE];

        ASSERT_EQ(disk_measure(formats[i], &c, NULL, &required, &full, &err), 0);
        ASSERT_EQ(file_get_size(f, &size), 0);
        EXPECT_EQ(required, size);
        memset(data, 1, sizeof(data));
        ASSERT_EQ(disk_pwrite(d, data, SIZE, 0), 0);
        ASSERT_EQ(disk_flush(d), 0);
        ASSERT_EQ(file_get_size(f, &size), 0);
        EXPECT_EQ(full, size);
        disk_close(d);
    }
}

/* VHD's table moves when it grows; VHDX's size changes through the log. */
TEST(a_power_cut_leaves_the_old_size_or_the_new)
{
    static const uint64_t sizes[][2] = {
        {(3u << 20) + 512, 6u << 20         },
        {6u << 20,         (2u << 20) + 1024},
    };
    static uint8_t model[6 << 20];

    for (size_t i = 0; i < ARRAY_SIZE(formats) * ARRAY_SIZE(sizes); i++) {
        const struct disk_format *format = formats[i / 2];
        const uint64_t *size = sizes[i % 2];
        struct file *f = new_image(format, NULL, size[0]);
        struct disk *d = open_image(f, format, 0, NULL);

        memset(model, 0, sizeof(model));
        memset(model + 700000, 0x3c, 500000);
        ASSERT_EQ(disk_pwrite(d, model + 700000, 500000, 700000), 0);
        memset(model + size[0] - 6000, 0x3d, 6000);
        ASSERT_EQ(disk_pwrite(d, model + size[0] - 6000, 6000, size[0] - 6000), 0);
        ASSERT_EQ(disk_flush(d), 0);
        struct file *copy = file_memory_copy(f);
        disk_close(d);
        test_resize_cuts(copy, format, model, size[0], size[1]);
    }
}
