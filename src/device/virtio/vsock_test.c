/* The socket device: connections both ways, credit, shutdowns, guests that break the rules.
 * Spec: VIRTIO 1.2 §5.10. */
#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/test.h"
#include "device/virtio/test_driver.h"
#include "device/virtio/vsock.h"
#include "device/virtio/vsock_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { RX, TX };

#define CID  5
#define RING 64

static char folder[] = "/tmp/posada-vsock-test-XXXXXX";
static struct test_driver d;
static struct virtio_device *dev;
static gpa_t rx_buffers[RING];
static uint8_t payload[4096];

static void post_rx(uint16_t slot)
{
    struct test_buf b = {.gpa = rx_buffers[slot], .len = 4096, .write = true};

    (void)test_driver_add(&d, RX, &b, 1);
}

static void begin(void)
{
    struct virtio_vsock_config config = {.cid = CID, .dir = folder};

    ASSERT_TRUE(mkdtemp(folder));
    test_driver_init(&d, true);
    ASSERT_EQ(virtio_vsock_new(d.mem, d.loop, &config, &dev, NULL), 0);
    (void)test_driver_start(&d, dev, 0, RING);
    for (uint16_t i = 0; i < RING - 1; i++) {
        rx_buffers[i] = test_driver_alloc(&d, 4096);
        post_rx(i);
    }
    test_driver_kick(&d, RX);
}

static void end(void)
{
    char command[64];

    test_driver_done(&d);
    (void)snprintf(command, sizeof(command), "rm -r '%s'", folder);
    EXPECT_EQ(system(command), 0);
}

static void address(const char *name, struct sockaddr_un *a)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    (void)snprintf(a->sun_path, sizeof(a->sun_path), "%s/%s", folder, name);
}

static int host_listen(const char *name)
{
    struct sockaddr_un a;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address(name, &a);
    ASSERT_TRUE(fd >= 0 && !bind(fd, (struct sockaddr *)&a, sizeof(a)) && !listen(fd, 5));
    return fd;
}

static int host_connect(void)
{
    struct sockaddr_un a;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address("vsock.sock", &a);
    ASSERT_TRUE(fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof(a)));
    return fd;
}

/** Is there something to read from @fd within 5 s? */
static bool host_waits(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 5000) == 1;
}

static void guest_send(uint16_t op, uint32_t from, uint32_t to, const void *data, uint32_t size,
                       uint32_t flags)
{
    uint8_t raw[VSOCK_HEADER_BYTES] = {0};
    uint64_t brk = d.brk;

    store_le64(raw, CID);
    store_le64(raw + 8, VSOCK_HOST_CID);
    store_le32(raw + 16, from);
    store_le32(raw + 20, to);
    store_le32(raw + 24, size);
    store_le16(raw + 28, VSOCK_STREAM);
    store_le16(raw + 30, op);
    store_le32(raw + 32, flags);
    store_le32(raw + 36, 65536);
    struct test_buf b[2] = {
        {.gpa = test_driver_put(&d, raw,  sizeof(raw)), .len = sizeof(raw)},
        {.gpa = test_driver_put(&d, data, size),        .len = size       },
    };
    EXPECT_EQ(test_driver_request(&d, TX, b, size ? 2 : 1), 0);
    d.brk = brk;
}

/** The next packet for the guest; its data in `payload`. op 0: none came. */
static struct vsock_packet guest_receive(void)
{
    struct vsock_packet p = {0};
    struct test_used used;

    if (!test_driver_wait(&d, RX, &used))
        return p;
    uint16_t slot = (uint16_t)used.id;
    const uint8_t *raw = test_driver_ptr(&d, rx_buffers[slot]);
    p.src_port = load_le32(raw + 16);
    p.dst_port = load_le32(raw + 20);
    p.len = load_le32(raw + 24);
    p.op = load_le16(raw + 30);
    p.flags = load_le32(raw + 32);
    p.buf_alloc = load_le32(raw + 36);
    p.fwd_cnt = load_le32(raw + 40);
    EXPECT_EQ(load_le64(raw), VSOCK_HOST_CID);
    EXPECT_EQ(load_le64(raw + 8), CID);
    EXPECT_EQ(used.len, VSOCK_HEADER_BYTES + p.len);
    memcpy(payload, raw + VSOCK_HEADER_BYTES, p.len);
    d.queues[RX].next_desc = slot;
    post_rx(slot);
    test_driver_kick(&d, RX);
    return p;
}

/** Connect the guest's port 1000 to a socket `52` of the host's; returns the host's end. */
static int guest_connect(void)
{
    int listener = host_listen("52");

    guest_send(VSOCK_REQUEST, 1000, 52, "", 0, 0);
    struct vsock_packet p = guest_receive();
    EXPECT_EQ(p.op, VSOCK_RESPONSE);
    EXPECT_EQ(p.src_port, 52);
    EXPECT_EQ(p.dst_port, 1000);
    EXPECT_EQ(p.buf_alloc, VSOCK_BUFFER);
    int fd = accept(listener, NULL, NULL);
    ASSERT_TRUE(fd >= 0);
    close(listener);
    return fd;
}

TEST(guest_connects_and_data_flows_both_ways)
{
    char text[16];

    begin();
    int fd = guest_connect();
    guest_send(VSOCK_RW, 1000, 52, "hello", 5, 0);
    ASSERT_EQ(read(fd, text, sizeof(text)), 5);
    EXPECT_MEM(text, "hello", 5);
    ASSERT_EQ(write(fd, "world", 5), 5);
    struct vsock_packet p = guest_receive();
    EXPECT_EQ(p.op, VSOCK_RW);
    EXPECT_EQ(p.len, 5);
    EXPECT_EQ(p.fwd_cnt, 5);
    EXPECT_MEM(payload, "world", 5);
    /* The guest closes: the host sees the end, the guest a reset (§5.10.6.5). */
    guest_send(VSOCK_SHUTDOWN, 1000, 52, "", 0, 3);
    EXPECT_EQ(guest_receive().op, VSOCK_RST);
    EXPECT_EQ(read(fd, text, sizeof(text)), 0);
    close(fd);
    end();
}

TEST(nobody_listens)
{
    begin();
    guest_send(VSOCK_REQUEST, 1000, 52, "", 0, 0);
    struct vsock_packet p = guest_receive();
    EXPECT_EQ(p.op, VSOCK_RST);
    EXPECT_EQ(p.dst_port, 1000);
    guest_send(VSOCK_RW, 1000, 52, "x", 1, 0);
    EXPECT_EQ(guest_receive().op, VSOCK_RST);
    guest_send(VSOCK_RST, 1000, 52, "", 0, 0); /* not answered, else it would never end */
    guest_send(VSOCK_CREDIT_UPDATE, 7, 8, "", 0, 0);
    p = guest_receive();
    EXPECT_EQ(p.op, VSOCK_RST);
    EXPECT_EQ(p.dst_port, 7);
    end();
}

TEST(host_connects_with_a_line)
{
    char text[32] = "";

    begin();
    int fd = host_connect();
    ASSERT_EQ(write(fd, "CONN", 4), 4);
    usleep(20000);
    ASSERT_EQ(write(fd, "ECT 99\nearly", 12), 12);
    struct vsock_packet p = guest_receive();
    EXPECT_EQ(p.op, VSOCK_REQUEST);
    EXPECT_EQ(p.dst_port, 99);
    guest_send(VSOCK_RESPONSE, 99, p.src_port, "", 0, 0);
    ASSERT_TRUE(host_waits(fd));
    EXPECT_TRUE(read(fd, text, sizeof(text) - 1) > 0);
    char want[32];
    (void)snprintf(want, sizeof(want), "OK %u\n", p.src_port);
    EXPECT_STR(text, want);
    struct vsock_packet data = guest_receive();
    EXPECT_EQ(data.op, VSOCK_RW);
    EXPECT_EQ(data.len, 5);
    EXPECT_MEM(payload, "early", 5);
    /* The host closes: the guest is told, and answers with a reset. */
    close(fd);
    data = guest_receive();
    EXPECT_EQ(data.op, VSOCK_SHUTDOWN);
    EXPECT_EQ(data.flags, 3);
    guest_send(VSOCK_RST, 99, p.src_port, "", 0, 0);
    guest_send(VSOCK_RW, 99, p.src_port, "x", 1, 0);
    EXPECT_EQ(guest_receive().op, VSOCK_RST); /* it is gone */
    end();
}

TEST(host_client_is_refused)
{
    static const char *const bad[] = {
        "HELLO\n",      "CONNECT \n",           "CONNECT 1x\n",
        "CONNECT -1\n", "CONNECT 4294967296\n", "CONNECT 00000000000000000000000000000000000001\n"};
    char c;

    begin();
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        int fd = host_connect();

        ASSERT_EQ(write(fd, bad[i], strlen(bad[i])), strlen(bad[i]));
        EXPECT_TRUE(host_waits(fd));
        EXPECT_TRUE(read(fd, &c, 1) <= 0);
        close(fd);
    }
    int fd = host_connect();
    ASSERT_EQ(write(fd, "CONNECT 99\n", 11), 11);
    struct vsock_packet p = guest_receive();
    guest_send(VSOCK_RST, 99, p.src_port, "", 0, 0);
    EXPECT_TRUE(host_waits(fd));
    EXPECT_EQ(read(fd, &c, 1), 0);
    close(fd);
    end();
}

TEST(half_closed_streams_go_on_the_other_way)
{
    char text[16];

    begin();
    int fd = guest_connect();
    ASSERT_EQ(write(fd, "last", 4), 4);
    EXPECT_EQ(shutdown(fd, SHUT_WR), 0);
    EXPECT_EQ(guest_receive().len, 4);
    struct vsock_packet p = guest_receive();
    EXPECT_EQ(p.op, VSOCK_SHUTDOWN);
    EXPECT_EQ(p.flags, VSOCK_NO_SEND);
    guest_send(VSOCK_RW, 1000, 52, "still", 5, 0);
    EXPECT_EQ(read(fd, text, sizeof(text)), 5);
    guest_send(VSOCK_SHUTDOWN, 1000, 52, "", 0, VSOCK_NO_SEND);
    EXPECT_EQ(read(fd, text, sizeof(text)), 0);
    close(fd);
    p = guest_receive();
    EXPECT_EQ(p.op, VSOCK_SHUTDOWN);
    EXPECT_EQ(p.flags, 3);
    end();
}

TEST(guest_gets_no_more_than_its_credit)
{
    static char data[200000];
    uint32_t got = 0;
    struct test_used used;

    begin();
    int fd = guest_connect();
    ASSERT_TRUE(send(fd, data, sizeof(data), MSG_DONTWAIT) > 65536);
    while (got < 65536) {
        struct vsock_packet p = guest_receive();

        ASSERT_EQ(p.op, VSOCK_RW);
        got += p.len;
    }
    EXPECT_EQ(got, 65536);
    usleep(20000);
    EXPECT_TRUE(!test_driver_take(&d, RX, &used));
    close(fd);
    end();
}

TEST(stalled_host_reader_bounds_the_guest)
{
    static char data[4096];
    unsigned sent = 0;
    char *all = malloc(8 << 20);
    size_t got = 0;
    struct test_used used;

    begin();
    int fd = guest_connect();
    /* Fill the host's socket and our buffer, without regard for credit, until it is cut off. */
    for (bool reset = false; !reset && sent < 1000; sent++) {
        memset(data, (int)sent, sizeof(data));
        guest_send(VSOCK_RW, 1000, 52, data, sizeof(data), 0);
        if (test_driver_take(&d, RX, &used))
            reset =
                load_le16((uint8_t *)test_driver_ptr(&d, rx_buffers[used.id]) + 30) == VSOCK_RST;
    }
    ASSERT_TRUE(sent < 1000);
    for (ssize_t n; (n = read(fd, all + got, 65536)) > 0;)
        got += (size_t)n;
    EXPECT_TRUE(got >= VSOCK_BUFFER / 2);
    for (size_t i = 0; i < got; i++)
        ASSERT_EQ((uint8_t)all[i], (uint8_t)(i / 4096));
    free(all);
    close(fd);
    end();
}

TEST(pending_data_is_passed_on_and_credited)
{
    static char data[4096];
    size_t sent = 0;
    size_t got = 0;
    uint32_t forwarded = 0;
    int small = 4096;
    char buf[4096];

    begin();
    int fd = guest_connect();
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    for (unsigned i = 0; i < VSOCK_BUFFER / sizeof(data); i++) {
        guest_send(VSOCK_RW, 1000, 52, data, sizeof(data), 0);
        sent += sizeof(data);
    }
    guest_send(VSOCK_SHUTDOWN, 1000, 52, "", 0, 3);
    while (got < sent && host_waits(fd))
        got += (size_t)MAX(read(fd, buf, sizeof(buf)), (ssize_t)0);
    EXPECT_EQ(got, sent);
    for (;;) { /* credit comes, and the reset last */
        struct vsock_packet p = guest_receive();

        if (p.op != VSOCK_CREDIT_UPDATE) {
            EXPECT_EQ(p.op, VSOCK_RST);
            break;
        }
        forwarded = p.fwd_cnt;
    }
    EXPECT_TRUE(forwarded >= VSOCK_BUFFER / 2);
    EXPECT_EQ(read(fd, buf, 1), 0);
    close(fd);
    end();
}

TEST(bad_packets_do_no_harm)
{
    uint8_t raw[64] = {0};
    struct test_buf b = {.len = 10};

    begin();
    int fd = guest_connect();
    b.gpa = test_driver_put(&d, raw, sizeof(raw));
    EXPECT_EQ(test_driver_request(&d, TX, &b, 1), 0); /* cut short */
    uint8_t *p = test_driver_ptr(&d, b.gpa);
    b.len = 64;
    store_le64(p, CID + 1); /* another's */
    EXPECT_EQ(test_driver_request(&d, TX, &b, 1), 0);
    store_le64(p, CID);
    store_le64(p + 8, VSOCK_HOST_CID);
    store_le32(p + 16, 1000);
    store_le32(p + 20, 52);
    store_le32(p + 24, 21); /* more than it has */
    store_le16(p + 28, VSOCK_STREAM);
    store_le16(p + 30, VSOCK_RW);
    EXPECT_EQ(test_driver_request(&d, TX, &b, 1), 0);
    guest_send(VSOCK_RW, 1000, 52, "alive", 5, 0);
    EXPECT_TRUE(host_waits(fd));
    EXPECT_EQ(read(fd, raw, sizeof(raw)), 5);
    guest_send(99, 1000, 52, "", 0, 0); /* no operation: reset */
    EXPECT_EQ(guest_receive().op, VSOCK_RST);
    EXPECT_EQ(read(fd, raw, sizeof(raw)), 0);
    close(fd);
    end();
}

TEST(reset_closes_everything)
{
    char c;

    begin();
    int fd = guest_connect();
    int client = host_connect();
    test_driver_set_status(&d, 0);
    EXPECT_EQ(read(fd, &c, 1), 0);
    (void)!send(client, "CONNECT 1\n", 10, MSG_NOSIGNAL); /* nobody is there */
    EXPECT_TRUE(host_waits(client));
    EXPECT_TRUE(read(client, &c, 1) <= 0);
    close(client);
    close(fd);
    end();
}

TEST(stale_socket_is_replaced_and_a_live_one_respected)
{
    struct virtio_vsock_config config = {.cid = CID, .dir = folder};
    struct virtio_device *other = NULL;
    struct error err = {0};
    char want[128];

    begin();
    EXPECT_EQ(virtio_vsock_new(d.mem, d.loop, &config, &other, &err), -EADDRINUSE);
    (void)snprintf(want, sizeof(want), "cannot listen on '%s/vsock.sock': Address already in use",
                   folder);
    EXPECT_STR(err.text, want);
    close(host_connect()); /* the live one was left alone */
    test_driver_done(&d);
    close(host_listen("vsock.sock")); /* leaves its file */
    test_driver_init(&d, false);
    EXPECT_EQ(virtio_vsock_new(d.mem, d.loop, &config, &other, &err), 0);
    other->ops->free(other);
    d.dev = NULL;
    config.cid = 2;
    EXPECT_EQ(virtio_vsock_new(d.mem, d.loop, &config, &other, NULL), -EINVAL);
    end();
}
