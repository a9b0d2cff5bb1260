/* virtio block device: many requests at once over real files, past the format and through it,
 * against a model. */
#include "base/bits.h"
#include "base/fd.h"
#include "base/test.h"
#include "base/uring.h"
#include "device/virtio/blk.h"
#include "device/virtio/test_driver.h"
#include "disk/format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DISK_BYTES (4u << 20)
#define SLOTS      16u
#define SLOT_BYTES (DISK_BYTES / SLOTS)
#define MAX_BYTES  32768u

enum { IN = 0, OUT = 1, FLUSH = 4 };

static struct test_driver d;
static struct virtio_device *dev;
static struct disk *disk;
static char path[64];
static uint8_t model[DISK_BYTES];
static uint64_t random_state = 88172645463325252ULL;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void remove_file(void)
{
    (void)unlink(path);
}

static void begin_with(struct disk *with, unsigned queues)
{
    struct virtio_blk_config c = {.queues = queues};

    disk = with;
    test_driver_init(&d, true);
    ASSERT_EQ(virtio_blk_new(d.mem, &c, disk, &dev, NULL), 0);
    EXPECT_TRUE(test_driver_start(&d, dev, BIT(9), 64) & VIRTIO_DRIVER_OK);
}

/** A raw file; false: the file system has no direct I/O. */
static bool begin_file(unsigned flags)
{
    struct disk *with = NULL;

    (void)snprintf(path, sizeof(path), "/var/tmp/blk_io_test-XXXXXX");
    cleanup(fd_closep) int fd = mkostemp(path, O_CLOEXEC);
    ASSERT_TRUE(fd >= 0);
    (void)atexit(remove_file);
    for (size_t i = 0; i < DISK_BYTES; i++)
        model[i] = (uint8_t)(i * 7 >> 9);
    ASSERT_EQ(fd_write_all(fd, model, DISK_BYTES), 0);
    if (disk_open(path, &(struct disk_options){.format = "raw", .flags = flags}, &with, NULL))
        return false;
    begin_with(with, 2);
    return true;
}

/** Forget what the host has in memory, so that reads wait. */
static void drop_cache(void)
{
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

    ASSERT_TRUE(fd >= 0);
    ASSERT_EQ(fdatasync(fd), 0);
    ASSERT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

/** One request of each slot, in its own part of the disk. */
struct slot {
    gpa_t header, data, status;
    uint16_t head;
    bool write;
    uint64_t offset;
    uint32_t size;
};

static struct slot slots[SLOTS];

static void send(unsigned i)
{
    struct slot *s = &slots[i];
    uint8_t h[16] = {0};

    s->write = next_random() % 2;
    s->size = (uint32_t)(next_random() % (MAX_BYTES / 512) + 1) * 512;
    s->offset = i * SLOT_BYTES + next_random() % ((SLOT_BYTES - s->size) / 512) * 512;
    if (next_random() % 2) { /* aligned for direct I/O */
        s->offset &= ~4095ULL;
        s->size = (s->size + 4095) & ~4095u;
        s->offset = MIN(s->offset, (uint64_t)(i + 1) * SLOT_BYTES - s->size);
    }
    store_le32(h, s->write ? OUT : IN);
    store_le64(h + 8, s->offset / 512);
    memcpy(test_driver_ptr(&d, s->header), h, 16);
    *(uint8_t *)test_driver_ptr(&d, s->status) = 0xff;
    uint8_t *data = test_driver_ptr(&d, s->data);
    for (uint32_t k = 0; k < s->size; k++)
        data[k] = s->write ? (uint8_t)(next_random() >> 20) : 0xaa;
    uint32_t first = s->size / 1024 * 512; /* two buffers, or one */
    struct test_buf bufs[4] = {
        {s->header, 16, false}
    };
    unsigned n = 1;
    if (first)
        bufs[n++] = (struct test_buf){s->data, first, !s->write};
    bufs[n++] = (struct test_buf){GPA(s->data.v + first), s->size - first, !s->write};
    bufs[n++] = (struct test_buf){s->status, 1, true};
    s->head = test_driver_add(&d, i % 2, bufs, n);
}

static void check(struct slot *s)
{
    uint8_t *data = test_driver_ptr(&d, s->data);

    ASSERT_EQ(*(uint8_t *)test_driver_ptr(&d, s->status), 0);
    if (s->write)
        memcpy(model + s->offset, data, s->size);
    else
        ASSERT_TRUE(!memcmp(data, model + s->offset, s->size));
}

static void prepare_slots(void)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        slots[i].header = test_driver_alloc(&d, 16);
        slots[i].status = test_driver_alloc(&d, 1);
        gpa_t room = test_driver_alloc(&d, MAX_BYTES + 4096);
        slots[i].data = GPA((room.v + 4095) & ~4095ULL);
    }
}

static void run_rounds(unsigned rounds)
{
    prepare_slots();
    for (unsigned round = 0; round < rounds; round++) {
        struct test_used used;

        if (round % 8 == 0)
            drop_cache();
        for (unsigned i = 0; i < SLOTS; i++)
            send(i);
        test_driver_kick(&d, 0);
        test_driver_kick(&d, 1);
        for (unsigned i = 0; i < SLOTS; i++)
            ASSERT_TRUE(test_driver_wait(&d, i % 2, &used));
        for (unsigned i = 0; i < SLOTS; i++)
            check(&slots[i]);
    }
    EXPECT_EQ(disk->guard.in_flight[0] + disk->guard.in_flight[1], 0);
}

static void compare_file(void)
{
    uint8_t *got = malloc(DISK_BYTES);
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

    ASSERT_TRUE(got && fd >= 0);
    ASSERT_EQ(fd_read_all(fd, got, DISK_BYTES), 0);
    EXPECT_TRUE(!memcmp(got, model, DISK_BYTES));
    free(got);
}

TEST(requests_in_flight_match_a_model)
{
    ASSERT_TRUE(begin_file(0));
    run_rounds(60);
    test_driver_done(&d);
    compare_file();
}

TEST(requests_in_flight_match_a_model_with_direct_io)
{
    if (!begin_file(DISK_DIRECT))
        test_skip("no direct I/O here");
    run_rounds(60);
    test_driver_done(&d);
    compare_file();
}

TEST(snapshots_are_written_beside_the_file)
{
    ASSERT_TRUE(begin_file(DISK_SNAPSHOT));
    uint8_t *before = malloc(DISK_BYTES);

    ASSERT_TRUE(before);
    memcpy(before, model, DISK_BYTES);
    run_rounds(40);
    test_driver_done(&d);
    memcpy(model, before, DISK_BYTES);
    compare_file();
    free(before);
}

/* Its clusters are placed by the format, and then written past it. */
TEST(requests_in_flight_match_a_model_in_qcow2)
{
    struct disk *with = NULL;
    uint8_t *got = malloc(DISK_BYTES);

    (void)snprintf(path, sizeof(path), "/var/tmp/blk_io_test-%d.qcow2", (int)getpid());
    (void)atexit(remove_file);
    ASSERT_EQ(disk_create(path, disk_format_find("qcow2"),
                          &(struct disk_create){.size_bytes = DISK_BYTES}, NULL),
              0);
    ASSERT_EQ(disk_open(path, NULL, &with, NULL), 0);
    begin_with(with, 2);
    run_rounds(60);
    test_driver_done(&d);
    ASSERT_EQ(disk_open(path, NULL, &with, NULL), 0);
    ASSERT_TRUE(got);
    ASSERT_EQ(disk_pread(with, got, DISK_BYTES, 0), 0);
    EXPECT_TRUE(!memcmp(got, model, DISK_BYTES));
    struct disk_check check = {0};
    EXPECT_EQ(disk_check(with, 0, &check, NULL), 0);
    EXPECT_EQ(check.errors, 0);
    disk_close(with);
    free(got);
}

TEST(reset_and_free_wait_for_transfers)
{
    ASSERT_TRUE(begin_file(0));
    prepare_slots();
    for (int round = 0; round < 20; round++) {
        drop_cache();
        for (unsigned i = 0; i < SLOTS; i++)
            send(i);
        test_driver_kick(&d, 0);
        test_driver_kick(&d, 1);
        if (round == 19)
            break;
        test_driver_set_status(&d, 0);
        EXPECT_EQ(disk->guard.in_flight[0] + disk->guard.in_flight[1], 0);
        test_driver_start(&d, dev, BIT(9), 64);
    }
    test_driver_done(&d);
}

/** A disk that names a place which cannot be used, and then has its own opinion. */
static struct {
    struct disk d; /* must be first */
    struct file file;
    int rc;
    unsigned calls; /* [atomic] */
} bad;

static int bad_transfer(struct disk *x, const struct iovec *iov, int n, uint64_t offset)
{
    (void)x;
    (void)offset;
    for (int i = 0; i < n; i++)
        EXPECT_TRUE(iov[i].iov_len > 0);
    __atomic_fetch_add(&bad.calls, 1, __ATOMIC_SEQ_CST);
    return bad.rc;
}

static int bad_place(struct disk *x, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    (void)x;
    *ret = (struct disk_extent){
        .kind = DISK_DATA, .size = size, .file = &bad.file, .file_offset = offset};
    return 0;
}

static int nothing(struct disk *x)
{
    (void)x;
    return 0;
}

static void bad_close(struct disk *x)
{
    (void)x;
}

TEST(a_failed_transfer_is_done_again_through_the_format)
{
    static const struct disk_ops ops = {.preadv = bad_transfer,
                                        .pwritev = bad_transfer,
                                        .place = bad_place,
                                        .status = bad_place,
                                        .flush = nothing,
                                        .close = bad_close};
    struct test_used used;

    if (uring_probe())
        test_skip("no io_uring here");
    bad.d = (struct disk){.ops = &ops, .size_bytes = DISK_BYTES};
    bad.file = (struct file){.fd = open("/dev/null", O_PATH | O_CLOEXEC)}; /* for nothing */
    begin_with(&bad.d, 2);
    prepare_slots();
    for (int round = 0; round < 2; round++) {
        bad.rc = round ? -ENOSPC : 0;
        bad.calls = 0;
        for (unsigned i = 0; i < SLOTS; i++)
            send(i);
        test_driver_kick(&d, 0);
        test_driver_kick(&d, 1);
        for (unsigned i = 0; i < SLOTS; i++)
            ASSERT_TRUE(test_driver_wait(&d, i % 2, &used));
        for (unsigned i = 0; i < SLOTS; i++)
            EXPECT_EQ(*(uint8_t *)test_driver_ptr(&d, slots[i].status), round);
        EXPECT_EQ(bad.calls, SLOTS);
    }
    EXPECT_EQ(bad.d.guard.in_flight[0] + bad.d.guard.in_flight[1], 0);
    test_driver_done(&d);
    fd_close(bad.file.fd);
}

static unsigned told; /* [atomic] */

static void write_all(void)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *s = &slots[i];
        uint8_t h[16] = {OUT};
        struct test_buf bufs[3] = {
            {s->header, 16,   false},
            {s->data,   4096, false},
            {s->status, 1,    true },
        };

        memcpy(test_driver_ptr(&d, s->header), h, sizeof(h));
        *(uint8_t *)test_driver_ptr(&d, s->status) = 0xff;
        (void)test_driver_add(&d, i % 2, bufs, 3);
    }
    test_driver_kick(&d, 0);
    test_driver_kick(&d, 1);
}

static void on_full(void *arg, int code)
{
    EXPECT_TRUE(arg == &bad);
    EXPECT_EQ(code, ENOSPC);
    __atomic_fetch_add(&told, 1, __ATOMIC_SEQ_CST);
}

static void wait_calls(unsigned n)
{
    EXPECT_TRUE(test_driver_wait_count(&bad.calls, n));
    EXPECT_EQ(__atomic_load_n(&bad.calls, __ATOMIC_SEQ_CST), n);
}

/** Writes for which there is no room get no answer until there is; reads do. */
TEST(writes_wait_for_room)
{
    static const struct disk_ops ops = {
        .preadv = bad_transfer, .pwritev = bad_transfer, .flush = nothing, .close = bad_close};
    struct virtio_blk_config c = {.queues = 2, .on_full = on_full, .arg = &bad};
    struct test_used used;

    bad.d = (struct disk){.ops = &ops, .size_bytes = DISK_BYTES};
    bad.rc = -ENOSPC;
    bad.calls = 0;
    test_driver_init(&d, true);
    ASSERT_EQ(virtio_blk_new(d.mem, &c, &bad.d, &dev, NULL), 0);
    EXPECT_TRUE(test_driver_start(&d, dev, BIT(9), 64) & VIRTIO_DRIVER_OK);
    prepare_slots();
    write_all();
    wait_calls(SLOTS);
    virtio_blk_retry(dev); /* there is still none */
    wait_calls(2 * SLOTS);
    virtio_freeze(dev); /* does not wait for ever, */
    virtio_thaw(dev);
    EXPECT_TRUE(told >= 2);
    for (unsigned i = 0; i < 2; i++)
        EXPECT_TRUE(!test_driver_take(&d, i, &used));
    bad.rc = 0;
    virtio_blk_retry(dev);
    for (unsigned i = 0; i < SLOTS; i++)
        ASSERT_TRUE(test_driver_wait(&d, i % 2, &used));
    for (unsigned i = 0; i < SLOTS; i++)
        EXPECT_EQ(*(uint8_t *)test_driver_ptr(&d, slots[i].status), 0);
    bad.rc = -ENOSPC; /* a reset forgets them */
    bad.calls = 0;
    write_all();
    wait_calls(SLOTS);
    test_driver_done(&d);
}
