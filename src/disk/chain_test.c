/* Chains that change while they are written to: pushes and merges at random, of a disk that several
 * threads write to and compare with what they wrote; and what is in the files afterwards. */
#include "base/fd.h"
#include "base/test.h"
#include "base/thread.h"
#include "disk/chain.h"
#include "disk/throttle.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define DISK_BYTES (8u << 20)
#define SECTOR     512u
#define WRITERS    3
#define PART_BYTES (DISK_BYTES / WRITERS / SECTOR * SECTOR)
#define LAYERS_MAX 200

static char folder[64];
static struct error err;

static void remove_folder(void)
{
    char command[100];

    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    (void)!system(command);
}

static void make_folder(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/chain_test-XXXXXX");
    ASSERT_TRUE(mkdtemp(folder) != NULL);
    (void)atexit(remove_folder);
}

static const char *path_of(unsigned n)
{
    static char paths[4][100];
    static unsigned at;
    char *p = paths[at++ % 4];

    (void)snprintf(p, sizeof(paths[0]), "%s/%u.qcow2", folder, n);
    return p;
}

static const char *name_of(unsigned n)
{
    return strrchr(path_of(n), '/') + 1;
}

static void must(int rc, int line)
{
    if (rc) {
        test_fail(__FILE__, line, "%s", error_text(&err));
        test_abort();
    }
}

/** Image @n over image @over (0 = nothing). */
static void make_image(unsigned n, unsigned over)
{
    struct disk_create c = {
        .size_bytes = DISK_BYTES,
        .backing_path = over ? name_of(over) : NULL,
        .backing_format = over ? "qcow2" : NULL,
    };

    must(disk_create(path_of(n), disk_format_find("qcow2"), &c, &err), __LINE__);
}

static struct disk *open_image(unsigned n, unsigned flags)
{
    struct disk *d = NULL;
    struct disk_options o = {.format = "qcow2", .flags = flags};

    must(disk_open(path_of(n), &o, &d, &err), __LINE__);
    return d;
}

/** The disk that changes under its writers, as a machine's does. */
static struct {
    pthread_rwlock_t still; /* held for reading by requests */
    struct disk *d;
    unsigned layers[LAYERS_MAX]; /* numbers of the images; [0] = the lowest */
    unsigned count, next;
    uint8_t model[DISK_BYTES];
    bool stop; /* [atomic] */
    bool wrong;
} live;

static void stand_still(void)
{
    (void)pthread_rwlock_wrlock(&live.still);
}

static void go_on(void)
{
    (void)pthread_rwlock_unlock(&live.still);
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/** One random request in [@base, @base + PART_BYTES), which nobody else touches. */
static int request(uint32_t *random, uint64_t base)
{
    static __thread uint8_t buf[256 * SECTOR];
    uint64_t size = (1 + next_random(random) % 255) * SECTOR;
    uint64_t offset = base + next_random(random) % ((PART_BYTES - size) / SECTOR) * SECTOR;
    uint8_t *model = live.model + offset;
    int rc;

    switch (next_random(random) % 8) {
    case 0:
        rc = disk_flush(live.d);
        break;
    case 1:
        rc = disk_write_zeroes(live.d, offset, size, next_random(random) % 2);
        memset(model, 0, size);
        break;
    case 2:
    case 3:
    case 4:
        memset(buf, (int)next_random(random), size);
        memcpy(model, buf, size);
        rc = disk_pwrite(live.d, buf, size, offset);
        break;
    default:
        rc = disk_pread(live.d, buf, size, offset);
        if (!rc && memcmp(buf, model, size) != 0)
            rc = -EBADMSG;
    }
    return rc;
}

static void *writer(void *arg)
{
    uint32_t random = (uint32_t)(uintptr_t)arg * 7919u + 1;
    uint64_t base = (uint64_t)(uintptr_t)arg * PART_BYTES;

    while (!__atomic_load_n(&live.stop, __ATOMIC_RELAXED)) {
        (void)pthread_rwlock_rdlock(&live.still);
        int rc = request(&random, base);
        (void)pthread_rwlock_unlock(&live.still);
        if (rc) {
            test_fail(__FILE__, __LINE__, "a request: %s", strerror(-rc));
            break;
        }
    }
    return NULL;
}

static void push(void)
{
    struct disk_push *p = NULL;
    struct disk *old = NULL;
    unsigned n = live.next++;

    make_image(n, live.layers[live.count - 1]);
    stand_still();
    must(disk_push_prepare(live.d, path_of(n), &p, &err), __LINE__);
    if (n % 5 == 0) { /* changed our mind */
        disk_push_abort(p);
        go_on();
        return;
    }
    live.d = disk_push_finish(p, &old);
    live.layers[live.count++] = n;
    go_on();
    disk_close(old);
    /* The old top can be had by others now. */
    disk_close(open_image(live.layers[live.count - 2], DISK_READONLY));
}

static int give_up(void *arg, uint64_t done, uint64_t total)
{
    EXPECT_TRUE(done < total);
    return --*(int *)arg < 0;
}

/** Merge layer @i, numbered from the lowest, into the one above it. */
static void merge(unsigned i, bool break_off)
{
    struct disk_merge *m = NULL;
    struct disk *old = NULL;
    unsigned depth = live.count - 2 - i;
    int steps = break_off ? 1 : 1000000;

    stand_still();
    must(disk_merge_begin(live.d, depth, path_of(live.layers[i + 1]), &m, &err), __LINE__);
    go_on();
    int rc = disk_merge_copy(m, give_up, &steps, &err);
    if (rc == -ECANCELED)
        err = (struct error){0};
    else
        must(rc, __LINE__);
    if (!rc)
        must(disk_merge_link(m, i ? name_of(live.layers[i - 1]) : NULL, i ? "qcow2" : NULL, &err),
             __LINE__);
    stand_still();
    disk_merge_end(m, &old);
    go_on();
    EXPECT_EQ(old != NULL, !rc);
    if (rc)
        return;
    EXPECT_EQ(unlink(path_of(live.layers[i])), 0);
    disk_close(old);
    live.count--;
    memmove(live.layers + i, live.layers + i + 1, (live.count - i) * sizeof(live.layers[0]));
}

/** Merge layer @i + 1, numbered from the lowest, into the one below it: the top while it stands
 * still. */
static void sink(unsigned i, bool break_off)
{
    struct disk_sink *s = NULL;
    unsigned depth = live.count - 2 - i;
    int steps = break_off ? 1 : 1000000;

    if (!depth)
        stand_still();
    must(disk_sink_begin(live.d, depth, path_of(live.layers[i]), &s, &err), __LINE__);
    int rc = disk_sink_copy(s, give_up, &steps, &err);
    if (rc == -ECANCELED)
        err = (struct error){0};
    else
        must(rc, __LINE__);
    if (depth)
        stand_still();
    if (!rc) {
        EXPECT_EQ(rename(path_of(live.layers[i]), path_of(live.layers[i + 1])), 0);
        struct disk *old = live.d;

        must(disk_sink_finish(s, path_of(live.layers[i + 1]), &live.d, &err), __LINE__);
        EXPECT_EQ(old->size_bytes, live.d->size_bytes); /* a device still has the old one */
        live.count--;
        memmove(live.layers + i, live.layers + i + 1, (live.count - i) * sizeof(live.layers[0]));
    }
    disk_sink_end(s);
    go_on();
}

static void compare(struct disk *d)
{
    static uint8_t got[DISK_BYTES];

    ASSERT_EQ(disk_pread(d, got, DISK_BYTES, 0), 0);
    EXPECT_MEM(got, live.model, DISK_BYTES);
}

static void run(bool throttled)
{
    static const struct disk_limits limits = {.bytes[0].rate = 1ULL << 40};
    pthread_t threads[WRITERS];
    uint32_t random = 42;

    make_folder();
    pthread_rwlockattr_t attr;

    (void)pthread_rwlockattr_init(&attr); /* requests must not keep a change waiting for ever */
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&live.still, &attr);
    live.next = 1;
    live.layers[live.count++] = live.next++;
    make_image(live.layers[0], 0);
    live.d = open_image(live.layers[0], 0);
    if (throttled)
        must(disk_throttle(live.d, &limits, &live.d, &err), __LINE__);
    for (uintptr_t i = 0; i < WRITERS; i++)
        ASSERT_EQ(pthread_create(&threads[i], NULL, writer, (void *)i), 0);
    for (unsigned round = 0; round < 60; round++) {
        (void)usleep(2000);
        if (live.count < 3 || (next_random(&random) % 2 && live.count < 8))
            push();
        else
            (next_random(&random) % 2 ? merge : sink)(next_random(&random) % (live.count - 1),
                                                      next_random(&random) % 4 == 0);
    }
    while (live.count > 1)
        (live.count % 2 ? merge : sink)(next_random(&random) % (live.count - 1), false);
    __atomic_store_n(&live.stop, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < WRITERS; i++)
        (void)pthread_join(threads[i], NULL);
    compare(live.d);
    disk_close(live.d);
    struct disk *d = open_image(live.layers[0], 0);
    struct disk_check check = {0};
    EXPECT_TRUE(!d->below);
    compare(d);
    EXPECT_EQ(disk_check(d, 0, &check, &err), 0);
    EXPECT_EQ(check.errors, 0);
    disk_close(d);
}

TEST(pushes_and_merges_under_writers)
{
    run(false);
}

TEST(pushes_and_merges_of_a_throttled_disk)
{
    run(true);
}

/** What each layer holds stays what it was, for snapshots, while a layer between them is merged. */
TEST(merged_layers_read_as_before)
{
    uint8_t buf[4096];
    struct disk *d;
    struct disk_merge *m = NULL;
    struct disk *old = NULL;

    make_folder();
    for (unsigned n = 1; n <= 4; n++) { /* layer n writes its number to clusters n, n+1, ... n+3 */
        make_image(n, n - 1);
        d = open_image(n, 0);
        memset(buf, (int)n, sizeof(buf));
        for (unsigned k = 0; k < 4; k++)
            ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), (n + k) * 65536ULL + 4096), 0);
        ASSERT_EQ(disk_write_zeroes(d, 1 << 20 | n << 16, 65536, true), 0);
        ASSERT_EQ(disk_flush(d), 0);
        disk_close(d);
    }
    d = open_image(3, 0); /* 2 into 3, with nothing above */
    must(disk_merge_begin(d, 0, NULL, &m, &err), __LINE__);
    must(disk_merge_copy(m, NULL, NULL, &err), __LINE__);
    must(disk_merge_link(m, name_of(1), "qcow2", &err), __LINE__);
    disk_merge_end(m, &old);
    disk_close(old);
    disk_close(d);
    ASSERT_EQ(unlink(path_of(2)), 0);
    d = open_image(3, DISK_READONLY);
    for (unsigned c = 1; c < 8; c++) {
        unsigned want = c <= 1 ? 1 : c == 2 ? 2 : c <= 6 ? 3 : 0;

        ASSERT_EQ(disk_pread(d, buf, sizeof(buf), c * 65536ULL + 4096), 0);
        EXPECT_EQ(buf[0], want);
        EXPECT_EQ(buf[4095], want);
    }
    struct disk_extent e;
    ASSERT_EQ(disk_status(d, 1 << 20 | 2 << 16, 65536, &e), 0);
    EXPECT_EQ(e.kind, DISK_ZERO);
    ASSERT_EQ(disk_status(d, 65536, 65536, &e), 0);
    EXPECT_EQ(e.kind, DISK_ABSENT); /* what only the lowest holds is not copied */
    disk_close(d);
}

/** The same when the upper one is merged down: also zeroes that hide what lies below both. */
TEST(sunk_layers_read_as_before)
{
    static uint8_t want[DISK_BYTES], got[DISK_BYTES];
    uint8_t buf[4096];
    struct disk_sink *s = NULL;
    struct disk *d;

    make_folder();
    for (unsigned n = 1; n <= 4; n++) {
        make_image(n, n - 1);
        d = open_image(n, 0);
        memset(buf, (int)n, sizeof(buf));
        for (unsigned k = 0; k < 4; k++)
            ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), (n + k) * 65536ULL + 4096), 0);
        ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), (n + 20) * 65536ULL), 0);
        ASSERT_EQ(disk_write_zeroes(d, (n + 19) * 65536ULL, 65536, true), 0);
        ASSERT_EQ(disk_flush(d), 0);
        disk_close(d);
    }
    d = open_image(4, DISK_READONLY);
    ASSERT_EQ(disk_pread(d, want, DISK_BYTES, 0), 0);
    must(disk_sink_begin(d, 1, path_of(2), &s, &err), __LINE__); /* 3 into 2 */
    must(disk_sink_copy(s, NULL, NULL, &err), __LINE__);
    ASSERT_EQ(disk_pread(d, got, DISK_BYTES, 0), 0);
    EXPECT_MEM(got, want, DISK_BYTES);
    ASSERT_EQ(rename(path_of(2), path_of(3)), 0);
    must(disk_sink_finish(s, path_of(3), &d, &err), __LINE__);
    disk_sink_end(s);
    ASSERT_EQ(disk_pread(d, got, DISK_BYTES, 0), 0);
    EXPECT_MEM(got, want, DISK_BYTES);
    disk_close(d);
    d = open_image(4, DISK_READONLY); /* 4 over 3 over 1 */
    EXPECT_TRUE(d->below && d->below->below && !d->below->below->below);
    ASSERT_EQ(disk_pread(d, got, DISK_BYTES, 0), 0);
    EXPECT_MEM(got, want, DISK_BYTES);
    struct disk_extent e;
    ASSERT_EQ(disk_status(d->below, 22 * 65536ULL, 65536, &e), 0);
    EXPECT_EQ(e.kind, DISK_ZERO);
    disk_close(d);
    /* A disk that has grown since is not merged so. */
    d = open_image(4, 0);
    must(disk_resize(d, DISK_BYTES + 65536, false, &err), __LINE__);
    EXPECT_EQ(disk_sink_begin(d, 0, path_of(3), &s, &err), -ENOTSUP);
    disk_close(d);
}

TEST(refusals)
{
    struct disk_push *p = NULL;
    struct disk_merge *m = NULL;

    make_folder();
    make_image(1, 0);
    make_image(2, 0);
    struct disk *d = open_image(1, 0);
    EXPECT_EQ(disk_push_prepare(d, path_of(2), &p, &err), -EINVAL); /* it lies on nothing */
    err = (struct error){0};
    EXPECT_EQ(disk_push_prepare(d, path_of(9), &p, &err), -ENOENT);
    err = (struct error){0};
    EXPECT_EQ(disk_merge_begin(d, 0, NULL, &m, &err), -EINVAL);
    EXPECT_EQ(disk_pwrite(d, "x", 1, 0), 0);
    disk_close(d);
    d = open_image(1, DISK_READONLY);
    err = (struct error){0};
    EXPECT_EQ(disk_push_prepare(d, path_of(2), &p, &err), -EINVAL);
    EXPECT_EQ(disk_fill(d, 0, 65536), -EROFS);
    disk_close(d);
}
