/* Limits: arithmetic by made-up clocks, and the decorator by what it lets through and asks for. */
#include "base/test.h"
#include "base/thread.h"
#include "disk/disk_internal.h"
#include "disk/file_memory.h"
#include "disk/throttle.h"

#include <errno.h>
#include <unistd.h>

#define MS 1000000LL

TEST(a_limit_admits_its_burst_and_then_its_rate)
{
    struct disk_limit l = {.rate = 100, .burst = 5};
    int64_t due = 0;
    int64_t now = 1000 * MS;

    for (int i = 0; i < 6; i++) /* five, and the one that finds the last of them going */
        EXPECT_EQ(disk_limit_admit(&l, &due, now, 1), now);
    EXPECT_EQ(disk_limit_admit(&l, &due, now, 1), now + 10 * MS);
    EXPECT_EQ(disk_limit_admit(&l, &due, now, 1), now + 20 * MS);
    EXPECT_EQ(disk_limit_admit(&l, &due, now + 15 * MS, 1), now + 30 * MS);
    now += 1000 * MS; /* a rest gives one burst, not more */
    for (int i = 0; i < 6; i++)
        EXPECT_EQ(disk_limit_admit(&l, &due, now, 1), now);
    EXPECT_EQ(disk_limit_admit(&l, &due, now, 1), now + 10 * MS);
}

TEST(large_requests_are_paid_by_those_after_them)
{
    struct disk_limit l = {.rate = 1 << 20}; /* burst: a tenth of a second */
    int64_t due = 0;

    EXPECT_EQ(disk_limit_admit(&l, &due, 0, 10 << 20), 0);
    EXPECT_EQ(disk_limit_admit(&l, &due, 0, 1), 9900 * MS);
    struct disk_limit none = {0};
    EXPECT_EQ(disk_limit_admit(&none, &due, 5, UINT64_MAX), 5);
    struct disk_limit least = {.rate = 1, .burst = UINT64_MAX};
    due = 0;
    EXPECT_EQ(disk_limit_admit(&least, &due, 0, UINT64_MAX), 0); /* nothing overflows */
    EXPECT_TRUE(disk_limit_admit(&least, &due, 0, UINT64_MAX) >= 0);
}

TEST(words)
{
    struct disk_limits l = {0};

    EXPECT_TRUE(!disk_limits_any(&l));
    EXPECT_EQ(disk_limits_parse(&l, "bps=10M"), 1);
    EXPECT_EQ(disk_limits_parse(&l, "bps-burst=20M"), 1);
    EXPECT_EQ(disk_limits_parse(&l, "iops-rd=100"), 1);
    EXPECT_EQ(disk_limits_parse(&l, "iops-wr-burst=7"), 1);
    EXPECT_EQ(l.bytes[DISK_LIMIT_ALL].rate, 10 << 20);
    EXPECT_EQ(l.bytes[DISK_LIMIT_ALL].burst, 20 << 20);
    EXPECT_EQ(l.requests[DISK_LIMIT_READ].rate, 100);
    EXPECT_EQ(l.requests[DISK_LIMIT_WRITE].burst, 7);
    EXPECT_TRUE(disk_limits_any(&l));
    EXPECT_EQ(disk_limits_parse(&l, "bps=0"), -EINVAL);
    EXPECT_EQ(disk_limits_parse(&l, "iops=fast"), -EINVAL);
    EXPECT_EQ(disk_limits_parse(&l, "iops-rw=5"), 0);
    EXPECT_EQ(disk_limits_parse(&l, "format=raw"), 0);
}

static struct disk *d;
static unsigned done;

static void *read_ten(void *arg)
{
    uint8_t buf[512];

    for (int i = 0; i < 10; i++) {
        if (disk_pread(d, buf, sizeof(buf), 0))
            return arg;
        __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

TEST(requests_wait_and_can_be_hurried)
{
    struct disk_limits limits = {
        .requests[DISK_LIMIT_READ] = {.rate = 1, .burst = 1}
    };
    struct disk *inner = NULL;
    uint8_t buf[512] = {7};
    pthread_t thread;
    void *failed;

    ASSERT_EQ(
        disk_open_file(file_memory_new(NULL, 65536, 65536), &raw_format, 0, NULL, &inner, NULL), 0);
    ASSERT_EQ(disk_throttle(inner, &limits, &d, NULL), 0);
    for (int i = 0; i < 1000; i++) /* no limit of these */
        ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), 1024), 0);
    ASSERT_EQ(disk_write_zeroes(d, 0, 512, true), 0);
    ASSERT_EQ(disk_flush(d), 0);
    struct disk_extent e;
    ASSERT_EQ(disk_locate(d, 0, 512, &e), 0);
    EXPECT_EQ(e.kind, DISK_PACKED); /* nobody gets past it */
    EXPECT_EQ(disk_preadv_cached(d, &(struct iovec){buf, 512}, 1, 0), -EAGAIN);
    ASSERT_EQ(thread_start(&thread, "reader", read_ten, d), 0); /* would take eight seconds */
    while (__atomic_load_n(&done, __ATOMIC_SEQ_CST) < 2)
        usleep(1000);
    disk_hurry(d, true);
    (void)pthread_join(thread, &failed);
    EXPECT_TRUE(!failed && done == 10);
    disk_close(d);
}
