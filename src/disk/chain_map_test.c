/* Chains resolved into a map, against a model in memory: layers of a made-up format whose every 512
 * bytes are data, zeroes, packed or absent as the test says. */
#include "base/test.h"
#include "base/thread.h"
#include "disk/disk_internal.h"
#include "disk/file_memory.h"

#include <errno.h>
#include <stdlib.h>

#define UNIT  512u
#define UNITS 12288u /* 6 MiB: three regions */

struct layer {
    struct disk d; /* must be first */
    struct file *file;
    uint8_t kind[UNITS];
    uint16_t place[UNITS]; /* in units of the file, for data and packed */
    unsigned status_calls; /* [atomic] */
    bool fails;
};

static uint64_t random_state = 88172645463325252ULL;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static int layer_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct layer *l = (struct layer *)d;
    uint64_t end = offset + iov_bytes(iov, (unsigned)iovcnt);
    uint64_t first = offset;

    while (offset < end) {
        struct iovec part[DISK_MAX_IOV];
        uint64_t unit = offset / UNIT;
        uint64_t stop = MIN((unit + 1) * UNIT, end);
        int n = (int)iov_slice(part, iov, (unsigned)iovcnt, offset - first, stop - offset);
        int rc = 0;

        if (l->kind[unit] == DISK_ABSENT)
            rc = disk_below_preadv(d, part, n, offset);
        else if (l->kind[unit] == DISK_ZERO)
            iov_zero(part, (unsigned)n);
        else
            rc = file_preadv(l->file, part, n, l->place[unit] * UNIT + offset % UNIT);
        if (rc)
            return rc;
        offset = stop;
    }
    return 0;
}

static int layer_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct layer *l = (struct layer *)d;
    uint64_t unit = offset / UNIT;
    uint64_t last = unit;

    __atomic_fetch_add(&l->status_calls, 1, __ATOMIC_RELAXED);
    if (l->fails)
        return -EIO;
    while ((last + 1) * UNIT < offset + size && l->kind[last + 1] == l->kind[unit] &&
           (l->kind[unit] != DISK_DATA || l->place[last + 1] == l->place[last] + 1))
        last++;
    *ret = (struct disk_extent){
        .kind = l->kind[unit],
        .size = MIN((last + 1) * UNIT - offset, size),
        .file = l->file,
        .file_offset = l->place[unit] * UNIT + offset % UNIT,
    };
    return 0;
}

static void layer_close(struct disk *d)
{
    file_close(((struct layer *)d)->file);
    free(d);
}

static const struct disk_ops layer_ops = {
    .preadv = layer_preadv,
    .status = layer_status,
    .close = layer_close,
};

/** A layer of @units with runs of random kinds and places over @below. */
static struct disk *make_layer(unsigned units, struct disk *below)
{
    struct layer *l = calloc(1, sizeof(*l));
    uint8_t *data = malloc(UNITS * UNIT);

    ASSERT_TRUE(l && data);
    for (size_t i = 0; i < UNITS * UNIT / 8; i++)
        ((uint64_t *)(void *)data)[i] = next_random();
    l->file = file_memory_new(data, UNITS * UNIT, UNITS * UNIT);
    free(data);
    for (unsigned u = 0; u < units;) {
        unsigned run = (unsigned)(next_random() % (next_random() % 4 ? 40 : 3000)) + 1;
        unsigned place = (unsigned)(next_random() % (UNITS - run));
        uint8_t kind = next_random() % 2 ? DISK_ABSENT : (uint8_t)(next_random() % 4);

        for (; run-- && u < units; u++) {
            l->kind[u] = kind;
            l->place[u] = (uint16_t)place++;
        }
    }
    l->d = (struct disk){
        .ops = &layer_ops, .size_bytes = (uint64_t)units * UNIT, .readonly = true, .below = below};
    return &l->d;
}

/** @depth layers under a top; some shorter than others. */
static struct disk *make_chain(unsigned depth)
{
    struct disk *d = NULL;

    for (unsigned i = 0; i <= depth; i++) {
        unsigned units = next_random() % 3 ? UNITS : (unsigned)(next_random() % UNITS) + 1;

        d = make_layer(units, d);
    }
    return d;
}

static unsigned calls_below(const struct disk *top)
{
    unsigned n = 0;

    for (const struct disk *d = top->below; d; d = d->below)
        n += ((const struct layer *)d)->status_calls;
    return n;
}

/** Reading and mapping through the map is as it is layer by layer. */
static void compare(struct disk *d)
{
    static uint8_t got[UNITS * UNIT];
    static uint8_t want[UNITS * UNIT];
    struct chain_map *map = NULL;

    ASSERT_EQ(chain_map_new(d->below, &map), 0);
    for (int i = 0; i < 300; i++) {
        uint64_t offset = next_random() % d->size_bytes;
        uint64_t size = next_random() % (i % 3 ? 20000 : d->size_bytes) + 1;
        struct disk_extent a = {0};
        struct disk_extent b = {0};

        size = MIN(size, d->size_bytes - offset);
        struct iovec parts[] = {
            {got,            size / 3       },
            {got + size / 3, size - size / 3},
        };
        memset(got, 0xaa, size);
        d->map = map;
        ASSERT_EQ(disk_preadv(d, parts, 2, offset), 0);
        ASSERT_EQ(disk_map(d, offset, size, &a), 0);
        d->map = NULL;
        ASSERT_EQ(disk_pread(d, want, size, offset), 0);
        ASSERT_EQ(disk_map(d, offset, size, &b), 0);
        ASSERT_TRUE(!memcmp(got, want, size));
        ASSERT_EQ(a.kind, b.kind);
        ASSERT_EQ(a.depth, b.depth);
        ASSERT_TRUE(a.size && a.size <= size);
        if (a.kind == DISK_DATA)
            ASSERT_TRUE(a.file == b.file && a.file_offset == b.file_offset);
    }
    d->map = map; /* freed with the disk */
}

TEST(random_chains_read_as_layer_by_layer)
{
    for (unsigned i = 0; i < 12; i++) {
        struct disk *d = make_chain(1 + i * i % 40);

        compare(d);
        disk_close(d);
    }
}

TEST(layers_are_asked_once)
{
    static uint8_t buf[UNITS * UNIT];
    struct disk *d = make_chain(50);

    ASSERT_EQ(chain_map_new(d->below, &d->map), 0);
    ASSERT_EQ(disk_pread(d, buf, d->size_bytes, 0), 0);
    unsigned calls = calls_below(d);
    EXPECT_TRUE(calls > 0);
    for (unsigned i = 0; i < 1000; i++)
        ASSERT_EQ(disk_pread(d, buf, 512, next_random() % (d->size_bytes - 512)), 0);
    EXPECT_EQ(calls_below(d), calls);
    disk_close(d);
}

TEST(a_failing_layer_fails_the_read_and_is_asked_again)
{
    uint8_t buf[512];
    struct disk *low = make_layer(UNITS, NULL);
    struct disk *d = make_layer(UNITS, make_layer(UNITS, low));

    memset(((struct layer *)d)->kind, DISK_ABSENT, UNITS);
    memset(((struct layer *)d->below)->kind, DISK_ABSENT, UNITS);
    memset(((struct layer *)low)->kind, DISK_ZERO, UNITS);
    ASSERT_EQ(chain_map_new(d->below, &d->map), 0);
    ((struct layer *)low)->fails = true;
    EXPECT_EQ(disk_pread(d, buf, sizeof(buf), 1024), -EIO);
    ((struct layer *)low)->fails = false;
    EXPECT_EQ(disk_pread(d, buf, sizeof(buf), 1024), 0);
    disk_close(d);
}

/** A layer without end whose every second unit is data: more regions than the map may keep. */
static int striped_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct layer *l = (struct layer *)d;

    __atomic_fetch_add(&l->status_calls, 1, __ATOMIC_RELAXED);
    *ret = (struct disk_extent){
        .kind = offset / UNIT % 2 ? DISK_DATA : DISK_ZERO,
        .size = MIN(UNIT - offset % UNIT, size),
        .file = l->file,
        .file_offset = offset % UNIT + UNIT * (offset / UNIT % UNITS),
    };
    return 0;
}

TEST(memory_is_bounded_and_what_was_dropped_is_found_again)
{
    static struct disk_ops ops;
    uint8_t got[UNIT];
    uint8_t want[UNIT];
    struct layer *l = (struct layer *)make_layer(UNITS, NULL);
    struct disk *d = make_layer(UNITS, make_layer(UNITS, &l->d));

    ops = layer_ops;
    ops.status = striped_status;
    l->d.ops = &ops;
    memset(((struct layer *)d)->kind, DISK_ABSENT, UNITS);
    l->d.size_bytes = d->below->size_bytes = d->size_bytes = 1ULL << 40;
    d->below->ops = &ops; /* has it all */
    ((struct layer *)d->below)->status_calls = 0;
    ASSERT_EQ(chain_map_new(d->below, &d->map), 0);
    for (uint64_t region = 0; region < 800; region++) { /* 96 KiB each, 32 MiB are kept */
        uint64_t at = (region << 21) + UNIT;
        struct iovec iov = {got, UNIT};

        ASSERT_EQ(chain_map_preadv(d->map, &iov, 1, at), 0);
        ASSERT_EQ(
            file_pread(((struct layer *)d->below)->file, want, UNIT, UNIT * (at / UNIT % UNITS)),
            0);
        ASSERT_TRUE(!memcmp(got, want, UNIT));
    }
    unsigned calls = ((struct layer *)d->below)->status_calls;
    EXPECT_EQ(calls, 800 * 4096);
    struct iovec iov = {got, UNIT};
    ASSERT_EQ(chain_map_preadv(d->map, &iov, 1, (799ULL << 21) + UNIT), 0); /* kept */
    EXPECT_EQ(((struct layer *)d->below)->status_calls, calls);
    ASSERT_EQ(chain_map_preadv(d->map, &iov, 1, UNIT), 0); /* was dropped */
    EXPECT_EQ(((struct layer *)d->below)->status_calls, calls + 4096);
    disk_close(d);
}

static void *read_at_random(void *arg)
{
    struct disk *d = arg;
    uint8_t got[3000];
    uint8_t want[3000];
    uint64_t seed = (uint64_t)(uintptr_t)&got;

    for (int i = 0; i < 3000; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        uint64_t offset = (seed >> 20) % (d->size_bytes - sizeof(got));

        if (disk_pread(d, got, sizeof(got), offset) ||
            layer_preadv(d->below, &(struct iovec){want, sizeof(want)}, 1, offset) ||
            memcmp(got, want, sizeof(got)) != 0)
            return d;
    }
    return NULL;
}

TEST(threads_read_alike)
{
    pthread_t thread[4];
    struct disk *d = make_layer(UNITS, NULL);

    for (int i = 0; i < 4; i++)
        d = make_layer(UNITS, d);
    memset(((struct layer *)d)->kind, DISK_ABSENT, UNITS);
    ASSERT_EQ(chain_map_new(d->below, &d->map), 0);
    for (int i = 0; i < 4; i++)
        ASSERT_EQ(thread_start(&thread[i], "reader", read_at_random, d), 0);
    for (int i = 0; i < 4; i++) {
        void *bad = NULL;

        (void)pthread_join(thread[i], &bad);
        EXPECT_TRUE(!bad);
    }
    disk_close(d);
}
