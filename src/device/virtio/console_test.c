/* virtio console: bytes both ways, back-pressure, ends, sizes, control messages. Spec: VIRTIO 1.2
 * §5.3. */
#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/test.h"
#include "device/virtio/console.h"
#include "device/virtio/test_driver.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { DEVICE_READY, DEVICE_ADD, PORT_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, NAME };

static struct test_driver d;
static struct virtio_device *dev;
static int in[2], out[2];

static void make_pipes(void)
{
    ASSERT_EQ(pipe2(in, O_CLOEXEC), 0);
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
}

static void begin_plain(bool with_input)
{
    make_pipes();
    test_driver_init(&d, true);
    struct virtio_console_config c = {
        .console = true,
        .console_in = with_input ? in[0] : -1,
        .console_out = out[1],
    };
    ASSERT_EQ(virtio_console_new(d.mem, d.loop, &c, &dev, NULL), 0);
    test_driver_start(&d, dev, 1, 64);
}

/** Put a receive buffer of @size bytes into queue @index; returns where. */
static gpa_t offer(unsigned index, uint32_t size)
{
    struct test_buf buf = {test_driver_alloc(&d, size), size, true};

    test_driver_add(&d, index, &buf, 1);
    test_driver_kick(&d, index);
    return buf.gpa;
}

static void transmit(unsigned index, const void *data, uint32_t size)
{
    struct test_buf buf = {test_driver_put(&d, data, size), size, false};

    EXPECT_EQ(test_driver_request(&d, index, &buf, 1), 0);
}

static void expect_bytes(int fd, const char *want)
{
    char buf[256] = {0};

    ASSERT_EQ(fd_read_all(fd, buf, strlen(want)), 0);
    EXPECT_STR(buf, want);
}

TEST(output)
{
    begin_plain(false);
    transmit(1, "hello ", 6);
    transmit(1, "world\n", 6);
    expect_bytes(out[0], "hello world\n");
    EXPECT_EQ(fcntl(out[1], F_GETFL) & O_NONBLOCK, 0); /* not ours to change */
    test_driver_done(&d);
    EXPECT_EQ(fcntl(out[1], F_GETFD), FD_CLOEXEC); /* nor to close */
}

TEST(input_from_a_pipe)
{
    struct test_used used;

    begin_plain(true);
    ASSERT_EQ(fd_write_all(in[1], "typed", 5), 0);
    gpa_t buf = offer(0, 16);
    transmit(1, "$ ", 2);
    ASSERT_TRUE(test_driver_wait(&d, 0, &used));
    EXPECT_EQ(used.len, 5);
    EXPECT_MEM(test_driver_ptr(&d, buf), "typed", 5);
    buf = offer(0, 3);
    gpa_t buf2 = offer(0, 16);
    ASSERT_EQ(fd_write_all(in[1], "again", 5), 0);
    ASSERT_TRUE(test_driver_wait(&d, 0, &used));
    EXPECT_EQ(used.len, 3);
    ASSERT_TRUE(test_driver_wait(&d, 0, &used));
    EXPECT_EQ(used.len, 2);
    EXPECT_MEM(test_driver_ptr(&d, buf), "aga", 3);
    EXPECT_MEM(test_driver_ptr(&d, buf2), "in", 2);
    test_driver_done(&d);
}

TEST(input_by_call)
{
    struct test_used used;
    char big[20000];

    begin_plain(false);
    memset(big, 'x', sizeof(big));
    size_t taken = virtio_console_input(dev, big, sizeof(big));
    EXPECT_TRUE(taken > 0 && taken < sizeof(big));
    EXPECT_EQ(virtio_console_input(dev, big, sizeof(big)), 0);
    gpa_t buf = offer(0, 20000);
    loop_sync(d.loop);
    EXPECT_EQ(*(char *)test_driver_ptr(&d, buf), 0); /* a console that has not spoken drops input */
    transmit(1, "$ ", 2);
    ASSERT_TRUE(test_driver_wait(&d, 0, &used));
    EXPECT_EQ(used.len, taken);
    EXPECT_EQ(*(char *)test_driver_ptr(&d, buf), 'x');
    EXPECT_EQ(virtio_console_input(dev, "y", 1), 1);
    test_driver_done(&d);
}

TEST(size_in_configuration_space)
{
    uint8_t config[8];

    begin_plain(false);
    virtio_console_resize(dev, 132, 43);
    EXPECT_EQ(d.config_interrupts, 1);
    test_driver_config_read(&d, 0, config, 8);
    EXPECT_EQ(load_le16(config), 132);
    EXPECT_EQ(load_le16(config + 2), 43);
    EXPECT_EQ(load_le32(config + 4), 1);
    test_driver_done(&d);
}

/** Nobody reads the host's pipe: the guest gets its buffers back until 64 KiB more than the pipe
 * holds are under way, then waits; what it wrote arrives whole. */
TEST(output_back_pressure)
{
    struct test_used used;
    uint8_t chunk[8192];
    unsigned sent = 0;
    unsigned back = 0;

    begin_plain(false);
    for (; sent < 32; sent++) {
        memset(chunk, (int)sent, sizeof(chunk));
        struct test_buf buf = {test_driver_put(&d, chunk, sizeof(chunk)), sizeof(chunk), false};
        test_driver_add(&d, 1, &buf, 1);
        test_driver_kick(&d, 1);
    }
    for (int i = 0; i < 50 && back < sent; i++) {
        while (test_driver_take(&d, 1, &used))
            back++;
        usleep(1000);
    }
    EXPECT_TRUE(back >= 16 && back < 32);
    virtio_console_drain(dev, host_now_ns() + 1000000); /* gives up */
    for (unsigned i = 0; i < sent; i++) {
        ASSERT_EQ(fd_read_all(out[0], chunk, sizeof(chunk)), 0);
        ASSERT_EQ(chunk[0], i);
        ASSERT_EQ(chunk[8191], i);
    }
    while (back < sent) {
        ASSERT_TRUE(test_driver_wait(&d, 1, &used));
        back++;
    }
    test_driver_done(&d);
}

TEST(output_to_a_closed_pipe_is_dropped)
{
    begin_plain(false);
    fd_close(out[0]);
    for (int i = 0; i < 100; i++)
        transmit(1, "hello", 5);
    test_driver_done(&d);
}

TEST(drain_waits_for_a_slow_reader)
{
    static char big[100000]; /* more than a pipe holds */
    struct test_used used;
    int status = -1;

    begin_plain(false);
    struct test_buf b = {test_driver_put(&d, big, sizeof(big)), sizeof(big), false};
    test_driver_add(&d, 1, &b, 1);
    test_driver_kick(&d, 1);
    pid_t pid = fork();
    if (pid == 0) {
        usleep(20000);
        _exit(fd_read_all(out[0], big, sizeof(big)) ? 1 : 0);
    }
    virtio_console_drain(dev, host_now_ns() + 5000000000);
    EXPECT_TRUE(test_driver_take(&d, 1, &used));
    test_driver_done(&d); /* the child still gets it all */
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
}

TEST(files_in_and_out)
{
    struct test_used used;
    FILE *from = tmpfile();
    FILE *to = tmpfile();
    size_t total = 0;

    ASSERT_TRUE(from && to);
    for (int i = 0; i < 5000; i++)
        fprintf(from, "line %d\n", i);
    fflush(from);
    rewind(from);
    long size = lseek(fileno(from), 0, SEEK_END);
    lseek(fileno(from), 0, SEEK_SET);
    test_driver_init(&d, true);
    struct virtio_console_config c = {true, fileno(from), fileno(to), NULL, 0};
    ASSERT_EQ(virtio_console_new(d.mem, d.loop, &c, &dev, NULL), 0);
    test_driver_start(&d, dev, 0, 64);
    transmit(1, "$", 1);
    while (total < (size_t)size) {
        gpa_t buf = offer(0, 3000);
        ASSERT_TRUE(test_driver_wait(&d, 0, &used));
        transmit(1, test_driver_ptr(&d, buf), used.len);
        total += used.len;
    }
    EXPECT_EQ(total, size);
    virtio_console_drain(dev, host_now_ns() + 5000000000);
    char *a = malloc((size_t)size);
    char *b = malloc((size_t)size);
    ASSERT_TRUE(a && b);
    ASSERT_EQ(fd_pread_all(fileno(from), a, (size_t)size, 0), 0);
    ASSERT_EQ(fd_pread_all(fileno(to), b, (size_t)size, 1), 0);
    EXPECT_MEM(a, b, (size_t)size);
    free(a);
    free(b);
    test_driver_done(&d);
}

TEST(dev_null_both_ways)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    test_driver_init(&d, true);
    struct virtio_console_config c = {true, null, null, NULL, 0};
    ASSERT_EQ(virtio_console_new(d.mem, d.loop, &c, &dev, NULL), 0);
    test_driver_start(&d, dev, 0, 64);
    offer(0, 16);
    transmit(1, "gone", 4);
    EXPECT_EQ(virtio_console_input(dev, "key", 3), 3); /* the end of a file ends no console */
    struct test_used used;
    ASSERT_TRUE(test_driver_wait(&d, 0, &used));
    EXPECT_EQ(used.len, 3);
    test_driver_done(&d);
}

/* Multiport: console, port 1 "posada.cmd" on pipes, port 2 "sock" on one socket both ways */

static int sock[2];

static void begin_ports(void)
{
    make_pipes();
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock), 0);
    test_driver_init(&d, true);
    struct virtio_console_port ports[] = {
        {"posada.cmd", in[0],   out[1] },
        {"sock",       sock[0], sock[0]},
    };
    struct virtio_console_config c = {true, -1, -1, ports, 2};
    ASSERT_EQ(virtio_console_new(d.mem, d.loop, &c, &dev, NULL), 0);
    EXPECT_EQ(dev->queue_count, 8);
    test_driver_start(&d, dev, 3, 64);
}

static void control(uint32_t id, uint16_t event, uint16_t value)
{
    uint8_t msg[8];

    store_le32(msg, id);
    store_le16(msg + 4, event);
    store_le16(msg + 6, value);
    transmit(3, msg, 8);
}

/** Give a control buffer and expect a message in it; returns its payload. */
static const char *expect_control(uint32_t id, uint16_t event, uint16_t value)
{
    struct test_used used;
    static char payload[64];
    gpa_t buf = offer(2, 64);

    if (!test_driver_wait(&d, 2, &used)) {
        test_fail(__FILE__, __LINE__, "no control message %u for port %u", event, id);
        return NULL;
    }
    const uint8_t *msg = test_driver_ptr(&d, buf);
    EXPECT_EQ(load_le32(msg), id);
    EXPECT_EQ(load_le16(msg + 4), event);
    EXPECT_EQ(load_le16(msg + 6), value);
    memset(payload, 0, sizeof(payload));
    memcpy(payload, msg + 8, used.len - 8);
    return payload;
}

static void handshake(void)
{
    virtio_console_resize(dev, 80, 25);
    control(0, DEVICE_READY, 1);
    for (uint32_t i = 0; i < 3; i++)
        expect_control(i, DEVICE_ADD, 1);
    control(0, PORT_READY, 1);
    expect_control(0, CONSOLE_PORT, 1);
    const uint8_t *size = (const uint8_t *)expect_control(0, RESIZE, 1);
    EXPECT_EQ(load_le16(size), 80);
    EXPECT_EQ(load_le16(size + 2), 25);
    expect_control(0, PORT_OPEN, 1);
    control(1, PORT_READY, 1);
    EXPECT_STR(expect_control(1, NAME, 1), "posada.cmd");
    expect_control(1, PORT_OPEN, 1);
    control(2, PORT_READY, 1);
    EXPECT_STR(expect_control(2, NAME, 1), "sock");
    expect_control(2, PORT_OPEN, 1);
}

TEST(ports_carry_bytes)
{
    struct test_used used;

    begin_ports();
    handshake();
    gpa_t buf = offer(4, 64); /* port 1, receive */
    ASSERT_EQ(fd_write_all(in[1], "data", 4), 0);
    usleep(5000);
    EXPECT_TRUE(!test_driver_take(&d, 4, &used)); /* nobody there has opened it yet */
    control(1, PORT_OPEN, 1);
    ASSERT_TRUE(test_driver_wait(&d, 4, &used));
    EXPECT_EQ(used.len, 4);
    EXPECT_MEM(test_driver_ptr(&d, buf), "data", 4);
    transmit(5, "answer", 6);
    expect_bytes(out[0], "answer");
    control(2, PORT_OPEN, 1);
    offer(6, 64);
    ASSERT_EQ(fd_write_all(sock[1], "ping!", 5), 0);
    ASSERT_TRUE(test_driver_wait(&d, 6, &used));
    EXPECT_EQ(used.len, 5);
    transmit(7, "pong", 4);
    expect_bytes(sock[1], "pong");
    test_driver_done(&d);
}

/* The host's end of file reaches the guest as a closed port, after all the data. */
TEST(end_of_input_closes_the_port)
{
    struct test_used used;

    begin_ports();
    handshake();
    ASSERT_EQ(fd_write_all(in[1], "last", 4), 0);
    fd_close(in[1]);
    control(1, PORT_OPEN, 1);
    offer(2, 64); /* a control buffer is there already */
    usleep(5000);
    EXPECT_TRUE(!test_driver_take(&d, 2, &used));
    offer(4, 64);
    ASSERT_TRUE(test_driver_wait(&d, 4, &used));
    EXPECT_EQ(used.len, 4);
    ASSERT_TRUE(test_driver_wait(&d, 2, &used));
    test_driver_done(&d);
}

TEST(a_new_driver_finds_everything_again)
{
    begin_ports();
    handshake();
    control(1, PORT_OPEN, 1);
    test_driver_start(&d, dev, 3, 64);
    handshake();
    test_driver_done(&d);
}

TEST(hostile_control_messages)
{
    begin_ports();
    control(99, PORT_OPEN, 1);
    control(0xffffffff, PORT_READY, 1);
    control(1, 1234, 1);
    control(0, DEVICE_READY, 0);
    transmit(3, "short", 5);
    for (int i = 0; i < 1000; i++) {
        control(0, DEVICE_READY, 1);
        control(1, PORT_READY, 1);
    }
    EXPECT_EQ(test_driver_status(&d) & VIRTIO_NEEDS_RESET, 0);
    test_driver_start(&d, dev, 3, 64);
    handshake();
    test_driver_done(&d);
}

TEST(receive_buffer_without_room_breaks)
{
    begin_ports();
    handshake();
    control(1, PORT_OPEN, 1);
    struct test_buf buf = {test_driver_alloc(&d, 4), 4, false};
    test_driver_add(&d, 4, &buf, 1);
    test_driver_kick(&d, 4);
    ASSERT_EQ(fd_write_all(in[1], "x", 1), 0);
    EXPECT_TRUE(test_driver_wait_status(&d, VIRTIO_NEEDS_RESET));
    test_driver_done(&d);
}

TEST(ports_without_a_console_need_multiport)
{
    struct virtio_console_port port = {"p", -1, -1};
    struct virtio_console_config c = {false, -1, -1, &port, 1};

    test_driver_init(&d, true);
    ASSERT_EQ(virtio_console_new(d.mem, d.loop, &c, &dev, NULL), 0);
    EXPECT_EQ(test_driver_start(&d, dev, 0, 16) & VIRTIO_DRIVER_OK, 0);
    EXPECT_TRUE(test_driver_start(&d, dev, 2, 16) & VIRTIO_DRIVER_OK);
    control(0, DEVICE_READY, 1);
    expect_control(1, DEVICE_ADD, 1);
    EXPECT_EQ(virtio_console_input(dev, "x", 1), 0);
    test_driver_done(&d);
}

TEST(bad_configuration)
{
    char name[65];
    struct virtio_console_port port = {name, -1, -1};
    struct virtio_console_config c = {.ports = &port, .port_count = 1};
    struct error err = {0};

    memset(name, 'n', sizeof(name));
    name[64] = 0;
    test_driver_init(&d, false);
    EXPECT_EQ(virtio_console_new(d.mem, d.loop, &c, &dev, &err), -EINVAL);
    EXPECT_TRUE(strstr(err.text, "longer than 63 bytes"));
    c.port_count = 0;
    EXPECT_EQ(virtio_console_new(d.mem, d.loop, &c, &dev, NULL), -EINVAL);
    test_driver_done(&d);
}
