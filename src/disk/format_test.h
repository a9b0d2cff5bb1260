/* What the tests of formats share: a random workload on a disk compared with a model in memory, by
 * one thread or several, with what is below. Header only, for x_test.c. */
#ifndef DISK_FORMAT_TEST_H
#define DISK_FORMAT_TEST_H

#include "base/error.h"
#include "base/test.h"
#include "base/thread.h"
#include "disk/disk.h"
#include "disk/file_memory.h"
#include "disk/format.h"

#include <stdlib.h>
#include <string.h>

#define TEST_VALUES(...) ((const struct disk_create_value[]){__VA_ARGS__, {0}})

static _Thread_local struct error test_err;

static inline void must_(int rc, const char *file, int line, const char *what)
{
    if (!rc)
        return;
    test_fail(file, line, "%s: %d %s", what, rc, test_err.code ? test_err.text : strerror(-rc));
    test_abort();
}
#define MUST(call) must_((test_err = (struct error){0}, (call)), __FILE__, __LINE__, #call)

static inline uint64_t test_random(uint64_t *s)
{
    *s = *s * 6364136223846793005ULL + 1442695040888963407ULL;
    return *s >> 24;
}

/** @size zero bytes, until the end of the test. */
static inline uint8_t *new_model(uint64_t size)
{
    static uint8_t *models[256]; /* so that they are not leaks */
    static unsigned count;
    uint8_t *m = calloc(1, size);

    ASSERT_TRUE(m && count < ARRAY_SIZE(models));
    models[count++] = m;
    return m;
}

/** An image in memory. */
static inline struct file *test_image(const struct disk_format *format, uint64_t size,
                                      struct disk *below, const struct disk_create_value *values)
{
    struct file *f = file_memory_new(NULL, 0, 8 * size + (64 << 20));
    struct disk_create c = {
        .size_bytes = size,
        .values = values,
        .backing = below,
        .backing_path = below ? "below.image" : NULL,
        .backing_format = below ? format->name : NULL,
    };

    MUST(disk_create_file(f, format, &c, &test_err));
    return f;
}

static inline struct disk *test_open(struct file *f, const struct disk_format *format,
                                     unsigned flags, struct disk *below)
{
    struct disk *d = NULL;

    MUST(disk_open_file(f, format, flags, below, &d, &test_err));
    return d;
}

/** Close @d, whose file is in memory, and open what it wrote; what is below stays. */
static inline struct disk *test_reopen(struct disk *d, struct file **file)
{
    const struct disk_format *format = d->format;
    struct disk *below = d->below;

    MUST(disk_flush(d));
    struct file *copy = file_memory_copy(*file);
    d->below = NULL;
    disk_close(d);
    *file = copy;
    return test_open(copy, format, 0, below);
}

/** One writer's share of the disk: [first, end). */
struct test_share {
    struct disk *d;
    uint8_t *model;
    uint64_t first, end, random;
    unsigned ops;
    pthread_t thread;
};

static inline void test_compare(struct disk *d, const uint8_t *model, uint64_t from, uint64_t end)
{
    uint8_t *got = malloc(end - from);

    ASSERT_TRUE(got);
    memset(got, 0xa5, end - from);
    MUST(disk_pread(d, got, end - from, from));
    for (uint64_t i = 0; i < end - from; i++) {
        if (got[i] != model[from + i]) {
            test_fail(__FILE__, __LINE__, "byte %llu is %02x, want %02x",
                      (unsigned long long)(from + i), got[i], model[from + i]);
            test_abort();
        }
    }
    free(got);
}

static inline void test_write(struct test_share *s, uint64_t at, uint64_t size)
{
    uint8_t *data = malloc(size);

    ASSERT_TRUE(data);
    for (uint64_t i = 0; i < size; i++)
        data[i] = (uint8_t)(test_random(&s->random) | 1);
    size_t cut = (size_t)(test_random(&s->random) % size);
    struct iovec iov[2] = {
        {data,       cut       },
        {data + cut, size - cut}
    };
    MUST(disk_pwritev(s->d, iov, 2, at));
    memcpy(s->model + at, data, size);
    free(data);
}

/** @s->ops random operations. */
static inline void *test_work(void *arg)
{
    struct test_share *s = (struct test_share *)arg;
    uint64_t length = s->end - s->first;

    for (unsigned i = 0; i < s->ops; i++) {
        uint64_t max = MIN(length, 1ULL << (test_random(&s->random) % 22));
        uint64_t size = 1 + test_random(&s->random) % max;
        uint64_t at = s->first + test_random(&s->random) % (length - size + 1);

        switch (test_random(&s->random) % 8) {
        case 0:
        case 1:
        case 2:
        case 3:
            test_write(s, at, size);
            break;
        case 4:
            MUST(disk_write_zeroes(s->d, at, size, i & 1));
            memset(s->model + at, 0, size);
            break;
        case 5: /* whatever it has done, it stays so */
            MUST(disk_discard(s->d, at, size));
            MUST(disk_pread(s->d, s->model + at, size, at));
            break;
        case 6:
            MUST(disk_flush(s->d));
            break;
        default:
            test_compare(s->d, s->model, at, at + size);
        }
    }
    return NULL;
}

/** @ops operations by each of @threads; their shares meet within clusters. */
static inline void test_workload(struct disk *d, uint8_t *model, uint64_t seed, unsigned threads,
                                 unsigned ops)
{
    struct test_share shares[16];

    ASSERT_TRUE(threads <= 16);
    for (unsigned t = 0; t < threads; t++) {
        shares[t] = (struct test_share){
            .d = d,
            .model = model,
            .first = t ? d->size_bytes / threads * t + 512 * t : 0,
            .end =
                t + 1 < threads ? d->size_bytes / threads * (t + 1) + 512 * (t + 1) : d->size_bytes,
            .random = seed * 977 + t,
            .ops = ops,
        };
        if (threads > 1)
            MUST(thread_start(&shares[t].thread, "work", test_work, &shares[t]));
        else
            (void)test_work(&shares[t]);
    }
    for (unsigned t = 0; threads > 1 && t < threads; t++)
        thread_join(shares[t].thread);
    test_compare(d, model, 0, d->size_bytes);
}

static inline void test_say(void *arg, const char *text)
{
    (void)arg;
    test_fail(__FILE__, __LINE__, "check: %s", text);
}

/** The image has neither errors nor leaks. */
static inline void test_sound(struct disk *d)
{
    struct disk_check c = {.report = test_say};

    MUST(disk_check(d, 0, &c, &test_err));
    EXPECT_EQ(c.errors, 0);
    EXPECT_EQ(c.leaks, 0);
}

/** disk_map() tells the truth: what it calls zero or absent reads as zeroes, and data lies where it
 * says. */
static inline void test_map(struct disk *d, const uint8_t *model)
{
    struct disk_extent e;
    uint8_t buf[512];

    for (uint64_t at = 0; at < d->size_bytes; at += e.size) {
        MUST(disk_map(d, at, d->size_bytes - at, &e));
        ASSERT_TRUE(e.size && e.size <= d->size_bytes - at);
        for (uint64_t i = 0; i < e.size; i += 512) {
            size_t n = (size_t)MIN(e.size - i, (uint64_t)512);

            memset(buf, 0, sizeof(buf));
            if (e.kind == DISK_DATA)
                MUST(file_pread(e.file, buf, n, e.file_offset + i));
            else if (e.kind == DISK_PACKED)
                continue;
            EXPECT_MEM(buf, model + at + i, n);
        }
    }
}

/** The disk in @image, which is taken, has the old size or the new one, @model's bytes in both, and
 * no error. */
static inline void test_after_cut(struct file *image, const struct disk_format *format,
                                  const uint8_t *model, uint64_t from, uint64_t to)
{
    struct disk *d = test_open(image, format, 0, NULL);
    struct disk_check c = {.report = NULL};
    uint64_t same = MIN(from, to);

    EXPECT_TRUE(d->size_bytes == from || d->size_bytes == to);
    test_compare(d, model, 0, same);
    if (to > from)
        test_compare(d, model, 0, d->size_bytes);
    MUST(disk_check(d, 0, &c, &test_err));
    EXPECT_EQ(c.errors, 0);
    disk_close(d);
}

/** Change the size of the disk in @f from @from to @to, and cut the power after each operation on
 * its file, with or without one of those since the flush before. @model is as large as the larger,
 * zero behind @from. */
static inline void test_resize_cuts(struct file *f, const struct disk_format *format,
                                    const uint8_t *model, uint64_t from, uint64_t to)
{
    struct file *before = file_memory_copy(f);

    file_memory_record(f);
    struct disk *d = test_open(f, format, 0, NULL);
    MUST(disk_resize(d, to, true, &test_err));
    const struct file_memory_log *log = file_memory_get_log(f);
    size_t durable = 0;
    for (size_t cut = 0; cut <= log->count; cut++) {
        if (cut && log->v[cut - 1].kind == FILE_MEMORY_FLUSH) {
            for (; durable < cut; durable++)
                file_memory_apply(before, &log->v[durable], 0, UINT64_MAX);
        }
        for (size_t without = durable; without <= cut; without++) {
            struct file *image = file_memory_copy(before);

            for (size_t i = durable; i < cut; i++) {
                if (i != without)
                    file_memory_apply(image, &log->v[i], 0, UINT64_MAX);
            }
            test_after_cut(image, format, model, from, to);
        }
    }
    disk_close(d);
    file_close(before);
}

/** Barriers and bytes written since the log had @from entries. */
static inline void test_cost(const struct file *f, size_t from, unsigned *ret_flushes,
                             uint64_t *ret_bytes)
{
    const struct file_memory_log *log = file_memory_get_log(f);

    *ret_flushes = 0;
    *ret_bytes = 0;
    for (size_t i = from; i < log->count; i++) {
        *ret_flushes += log->v[i].kind == FILE_MEMORY_FLUSH;
        *ret_bytes += log->v[i].kind == FILE_MEMORY_WRITE ? log->v[i].size : 0;
    }
}

#endif
