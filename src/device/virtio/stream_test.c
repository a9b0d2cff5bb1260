/* Host descriptors of every kind as non-blocking streams. */
#include "base/fd.h"
#include "base/test.h"
#include "device/virtio/stream.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>

static struct loop *loop;
static struct stream s;
static unsigned calls; /* [atomic] */

static void ready(struct loop_fd *w, uint32_t events)
{
    __atomic_fetch_add(&calls, 1, __ATOMIC_RELEASE); /* pairs with wait_for_call() */
    stream_watch(&s, false);
}

static void begin(int fd, bool write)
{
    (void)signal(SIGPIPE, SIG_IGN);
    loop = loop_new("test-io");
    ASSERT_TRUE(loop);
    stream_open(&s, loop, fd, write, ready, NULL);
}

static void end(void)
{
    stream_close(&s);
    loop_free(loop);
}

static bool wait_for_call(void)
{
    stream_watch(&s, true);
    ASSERT_EQ(loop_start(loop), 0);
    for (int i = 0; i < 5000; i++) {
        if (__atomic_load_n(&calls, __ATOMIC_ACQUIRE)) /* pairs with ready() */
            return true;
        usleep(1000);
    }
    return false;
}

static bool blocks(int fd)
{
    return !(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

/** Write until there is no more room; returns the bytes. */
static size_t fill(void)
{
    static char chunk[4096];
    size_t total = 0;
    ssize_t n;

    while (total < (16 << 20) && (n = stream_write(&s, chunk, sizeof(chunk))) > 0)
        total += (size_t)n;
    return total;
}

TEST(pipe_for_reading)
{
    int p[2];
    char buf[8];

    ASSERT_EQ(pipe2(p, O_CLOEXEC), 0);
    begin(p[0], false);
    EXPECT_EQ(stream_read(&s, buf, 8), -EAGAIN);
    EXPECT_TRUE(blocks(p[0]));
    ASSERT_EQ(fd_write_all(p[1], "abc", 3), 0);
    EXPECT_TRUE(wait_for_call());
    EXPECT_EQ(stream_read(&s, buf, 8), 3);
    fd_close(p[1]);
    EXPECT_EQ(stream_read(&s, buf, 8), 0);
    end();
}

TEST(pipe_for_writing)
{
    int p[2];
    static char buf[1 << 17];

    ASSERT_EQ(pipe2(p, O_CLOEXEC), 0);
    begin(p[1], true);
    size_t room = fill();
    EXPECT_TRUE(room >= 4096 && room < (16 << 20));
    EXPECT_EQ(stream_write(&s, "x", 1), -EAGAIN);
    EXPECT_TRUE(blocks(p[1]));
    EXPECT_TRUE(read(p[0], buf, sizeof(buf)) > 0);
    EXPECT_TRUE(wait_for_call());
    EXPECT_EQ(stream_write(&s, "x", 1), 1);
    fd_close(p[0]);
    EXPECT_EQ(stream_write(&s, "x", 1), -EPIPE);
    end();
}

TEST(pipe_that_nobody_reads)
{
    int p[2];

    ASSERT_EQ(pipe2(p, O_CLOEXEC), 0);
    fd_close(p[0]);
    begin(p[1], true);
    EXPECT_EQ(stream_write(&s, "x", 1), -EPIPE);
    end();
}

TEST(socket_both_ways)
{
    int p[2];
    char buf[8];
    struct stream other;

    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), 0);
    begin(p[0], false);
    stream_open(&other, loop, p[0], true, ready, NULL);
    stream_watch(&s, true);
    stream_watch(&other, true); /* the same descriptor twice in one loop */
    EXPECT_TRUE(s.watching && other.watching);
    EXPECT_EQ(stream_read(&s, buf, 8), -EAGAIN);
    EXPECT_EQ(stream_write(&other, "abc", 3), 3);
    EXPECT_EQ(read(p[1], buf, 8), 3);
    EXPECT_TRUE(blocks(p[0]));
    stream_close(&other);
    end();
}

TEST(terminal)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    char buf[8];

    ASSERT_TRUE(master >= 0 && !grantpt(master) && !unlockpt(master));
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    ASSERT_TRUE(slave >= 0);
    struct termios t;
    ASSERT_EQ(tcgetattr(slave, &t), 0);
    cfmakeraw(&t);
    ASSERT_EQ(tcsetattr(slave, TCSANOW, &t), 0);
    begin(slave, false);
    EXPECT_EQ(stream_read(&s, buf, 8), -EAGAIN);
    EXPECT_TRUE(blocks(slave));
    ASSERT_EQ(fd_write_all(master, "abc", 3), 0);
    EXPECT_EQ(stream_read(&s, buf, 8), 3);
    end();
}

/* It cannot be opened again, so it is polled before each small transfer. */
TEST(terminal_master)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

    ASSERT_TRUE(master >= 0 && !grantpt(master) && !unlockpt(master));
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    ASSERT_TRUE(slave >= 0);
    begin(master, true);
    EXPECT_TRUE(s.timid);
    (void)alarm(5); /* should it block after all */
    EXPECT_TRUE(fill() > 0);
    EXPECT_EQ(stream_write(&s, "x", 1), -EAGAIN);
    end();
}

TEST(files_are_always_ready)
{
    FILE *f = tmpfile();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    char buf[8];

    ASSERT_TRUE(f && null >= 0);
    begin(fileno(f), true);
    EXPECT_TRUE(s.always_ready);
    EXPECT_EQ(stream_write(&s, "abc", 3), 3);
    EXPECT_EQ(stream_write(&s, "def", 3), 3);
    EXPECT_EQ(lseek(fileno(f), 0, SEEK_CUR), 6); /* the position is shared, as with `>> file` */
    end();
    begin(null, false);
    EXPECT_TRUE(s.always_ready);
    EXPECT_EQ(stream_read(&s, buf, 8), 0);
    end();
}

TEST(none)
{
    char buf[8];

    begin(-1, false);
    EXPECT_EQ(stream_read(&s, buf, 8), 0);
    EXPECT_EQ(stream_write(&s, buf, 8), -EPIPE);
    stream_watch(&s, true);
    EXPECT_TRUE(!s.watching);
    end();
}
