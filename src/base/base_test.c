/* Tests of base: errors, bits, clock, loop. */
#include "base/bits.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/test.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

TEST(error_has_no_control_characters)
{
    struct error err = {0};

    (void)error_set(&err, EINVAL, "'%s' is ä \u20ac", "\n\x1b[2J\xc2\x9b\x7f\xc2");
    EXPECT_STR(error_text(&err), "'??[2J???\xc2' is ä \u20ac");
    error_prefix(&err, "%s", "a\tb\r");
    EXPECT_STR(error_text(&err), "a?b?: '??[2J???\xc2' is ä \u20ac");
}

TEST(error_keeps_the_first_cause)
{
    struct error err = {0};

    EXPECT_EQ(error_set(&err, ENOENT, "cannot open '%s'", "a"), -ENOENT);
    EXPECT_EQ(error_set(&err, EIO, "later"), -EIO);
    EXPECT_STR(error_text(&err), "cannot open 'a'");
    error_prefix(&err, "disk %d", 1);
    EXPECT_STR(error_text(&err), "disk 1: cannot open 'a'");
    EXPECT_EQ(error_set(NULL, EIO, "dropped"), -EIO);
}

TEST(bits_extend_and_extract)
{
    EXPECT_EQ(sext(0x800, 12), -2048);
    EXPECT_EQ(sext(0x7ff, 12), 2047);
    EXPECT_EQ(sext(~0ULL, 64), -1);
    EXPECT_EQ(BITS(0xabcd1234, 15, 8), 0x12);
    EXPECT_EQ(MASK(64), ~0ULL);
    EXPECT_EQ(align_up(4097, 4096), 8192);
    uint8_t b[8];
    store_be32(b, 0x01020304);
    EXPECT_EQ(b[0], 1);
    EXPECT_EQ(load_le32(b), 0x04030201);
}

TEST(vclock_stands_still_while_paused)
{
    struct vclock c;

    vclock_init(&c, 1000);
    vclock_pause(&c);
    int64_t t = vclock_now_ns(&c);
    EXPECT_TRUE(t >= 1000);
    usleep(1000);
    EXPECT_EQ(vclock_now_ns(&c), t);
    vclock_resume(&c);
    usleep(1000);
    EXPECT_TRUE(vclock_now_ns(&c) > t);
    EXPECT_EQ(vclock_to_host_ns(&c, INT64_MAX), INT64_MAX);
}

static void count_task(void *arg)
{
    ++*(int *)arg;
}

static void count_timer(struct loop_timer *t)
{
    ++*(int *)t->arg;
}

static void count_fd(struct loop_fd *w, uint32_t events)
{
    char c;

    if ((events & EPOLLIN) && read(w->fd, &c, 1) == 1)
        ++*(int *)w->arg;
}

TEST(loop_runs_tasks_timers_and_descriptors)
{
    struct loop *loop = loop_new("test");
    int tasks = 0;
    int ticks = 0;
    int bytes = 0;
    int p[2];

    ASSERT_TRUE(loop && !pipe(p));
    ASSERT_EQ(loop_start(loop), 0);
    struct loop_fd w = {.fd = p[0], .fn = count_fd, .arg = &bytes};
    ASSERT_EQ(loop_fd_add(loop, &w, EPOLLIN), 0);
    struct loop_timer a = {.fn = count_timer, .arg = &ticks};
    struct loop_timer b = {.fn = count_timer, .arg = &ticks};
    loop_timer_set(loop, &a, host_now_ns() + 1000000);
    loop_timer_set(loop, &b, host_now_ns() + 3600LL * 1000000000);
    loop_timer_set(loop, &b, host_now_ns() + 2000000); /* moved earlier */
    for (int i = 0; i < 1000; i++)
        ASSERT_EQ(loop_post(loop, count_task, &tasks), 0);
    ASSERT_EQ(write(p[1], "xyz", 3), 3);
    for (int i = 0; i < 1000 && (ticks < 2 || bytes < 3); i++) {
        usleep(1000);
        loop_sync(loop);
    }
    EXPECT_EQ(tasks, 1000);
    EXPECT_EQ(ticks, 2);
    EXPECT_EQ(bytes, 3);
    loop_free(loop);
    close(p[0]);
    close(p[1]);
}

struct pair {
    struct loop *loop;
    struct loop_fd a, b;
    int calls;
};

/** Both descriptors are ready in one round: whichever is called first removes both. */
static void remove_both(struct loop_fd *w, uint32_t events)
{
    struct pair *pair = w->arg;

    pair->calls++;
    loop_fd_remove(pair->loop, &pair->a);
    loop_fd_remove(pair->loop, &pair->b);
}

static void count_hook(struct loop_hook *h)
{
    ++*(int *)h->arg;
}

TEST(removed_watch_is_not_called_even_in_its_round)
{
    struct loop *loop = loop_new("test");
    struct pair pair = {.loop = loop};
    int rounds = 0;
    struct loop_hook hook = {.fn = count_hook, .arg = &rounds};
    int p[2];

    ASSERT_TRUE(loop && !pipe(p));
    pair.a = (struct loop_fd){.fd = p[0], .fn = remove_both, .arg = &pair};
    pair.b = (struct loop_fd){.fd = p[1], .fn = remove_both, .arg = &pair};
    ASSERT_EQ(write(p[1], "x", 1), 1);
    ASSERT_EQ(loop_fd_add(loop, &pair.a, EPOLLIN), 0);
    ASSERT_EQ(loop_fd_add(loop, &pair.b, EPOLLOUT), 0);
    loop_hook_add(loop, &hook);
    ASSERT_EQ(loop_start(loop), 0);
    loop_sync(loop);
    EXPECT_EQ(pair.calls, 1);
    EXPECT_TRUE(rounds >= 1);
    loop_hook_remove(loop, &hook);
    loop_sync(loop);
    int seen = rounds;
    loop_sync(loop);
    EXPECT_EQ(rounds, seen);
    loop_free(loop);
    close(p[0]);
    close(p[1]);
}
