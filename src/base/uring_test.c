/* io_uring on a loop, and pools of threads. */
#include "base/fd.h"
#include "base/loop.h"
#include "base/pool.h"
#include "base/test.h"
#include "base/thread.h"
#include "base/uring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define COUNT 64

static struct loop *loop;
static struct uring *ring;
static char buf[COUNT][512];
static struct iovec iov[COUNT];
static struct uring_op ops[COUNT];
static unsigned done;
static int last_result;
static int fd = -1;

static void on_end(struct uring_op *op, int result)
{
    (void)op;
    last_result = result;
    if (++done == COUNT)
        loop_stop(loop);
}

static void begin_all(bool write)
{
    done = 0;
    for (int i = 0; i < COUNT; i++) {
        iov[i] = (struct iovec){buf[i], sizeof(buf[i])};
        ops[i].fn = on_end;
        uring_transfer(ring, fd, &iov[i], 1, (uint64_t)i * 512, write, &ops[i]);
    }
    EXPECT_EQ(uring_left(ring), 0);
    uring_submit(ring);
    loop_run(loop);
}

TEST(transfers_end_on_the_loop)
{
    int rc = uring_probe();

    if (rc)
        test_skip("no io_uring here: %s", strerror(-rc));
    loop = loop_new("ring");
    ring = uring_new(loop, COUNT);
    ASSERT_TRUE(ring);
    fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    ASSERT_TRUE(fd >= 0);
    for (int i = 0; i < COUNT; i++)
        memset(buf[i], i + 1, 512);
    begin_all(true);
    EXPECT_EQ(last_result, 512);
    memset(buf, 0, sizeof(buf));
    begin_all(false);
    for (int i = 0; i < COUNT; i++)
        EXPECT_TRUE(buf[i][0] == i + 1 && buf[i][511] == i + 1);
    EXPECT_EQ(uring_left(ring), COUNT);
    fd_close(fd);
    begin_all(false);
    EXPECT_EQ(last_result, -EBADF);
    uring_free(ring);
    loop_free(loop);
}

struct job {
    struct pool_job job; /* must be first */
    struct pool_job *after;
};

static struct pool *pool;
static struct mutex lock;
static struct cond met;
static unsigned inside;
static unsigned ran;

/** Ends when three are here at once. */
static void meet(struct pool_job *job)
{
    (void)job;
    mutex_lock(&lock);
    inside++;
    cond_broadcast(&met);
    while (inside < 3)
        cond_wait(&met, &lock);
    ran++;
    mutex_unlock(&lock);
}

static void count(struct pool_job *job)
{
    (void)job;
    __atomic_fetch_add(&ran, 1, __ATOMIC_SEQ_CST);
}

TEST(pool_has_as_many_threads_as_are_needed)
{
    static struct pool_job jobs[1000];

    mutex_init(&lock);
    cond_init(&met);
    pool = pool_new("pool", 3);
    ASSERT_TRUE(pool);
    for (int i = 0; i < 3; i++) {
        jobs[i].fn = meet;
        pool_add(pool, &jobs[i]);
    }
    pool_free(pool);
    EXPECT_EQ(ran, 3);
    ran = 0;
    pool = pool_new("pool", 2);
    for (int i = 0; i < 1000; i++) {
        jobs[i].fn = count;
        pool_add(pool, &jobs[i]);
    }
    pool_free(pool); /* does them all */
    EXPECT_EQ(ran, 1000);
}
