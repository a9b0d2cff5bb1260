/* The network card: frames both ways, offloads, commands, drivers that break the rules.
 * Spec: VIRTIO 1.2 §5.1. */
#include "base/bits.h"
#include "base/test.h"
#include "device/virtio/net.h"
#include "device/virtio/net_offload.h"
#include "device/virtio/test_driver.h"

#include <stdlib.h>

enum { RX, TX, CTRL };

#define FEATURES (BIT(0) | BIT(1) | BIT(15) | BIT(16) | BIT(17) | BIT(18) | BIT(21) | BIT(23))

/** A backend that keeps what it is sent. */
static struct fake_backend {
    struct net_backend base;
    struct net_client client;
    uint8_t frame[70000];
    size_t size;
    unsigned sent, can_receive;
    bool freed;
} fake;

static void fake_send(struct net_backend *b, const struct iovec *iov, int iovcnt)
{
    fake.sent++;
    fake.size = 0;
    for (int i = 0; i < iovcnt; i++) {
        memcpy(fake.frame + fake.size, iov[i].iov_base, iov[i].iov_len);
        fake.size += iov[i].iov_len;
    }
}

static void fake_can_receive(struct net_backend *b)
{
    fake.can_receive++;
}

static void fake_set_client(struct net_backend *b, const struct net_client *client)
{
    fake.client = *client;
}

static void fake_free(struct net_backend *b)
{
    fake.freed = true;
}

static const struct net_ops fake_ops = {
    .name = "fake",
    .send = fake_send,
    .can_receive = fake_can_receive,
    .set_client = fake_set_client,
    .free = fake_free,
};

static struct test_driver d;
static struct virtio_device *dev;

static void begin(uint64_t features)
{
    static const struct virtio_net_config config = {
        .mac = {0x52, 0x54, 0, 0xaa, 0xbb, 0xcc}
    };

    test_driver_init(&d, false);
    fake.base = (struct net_backend){.ops = &fake_ops, .best_mtu = 65520};
    ASSERT_EQ(virtio_net_new(d.mem, d.loop, &config, &fake.base, &dev, NULL), 0);
    EXPECT_EQ(test_driver_start(&d, dev, features, 64) & VIRTIO_DRIVER_OK, VIRTIO_DRIVER_OK);
}

static void end(void)
{
    test_driver_done(&d);
    EXPECT_TRUE(fake.freed);
}

static gpa_t add_buffer(uint32_t size)
{
    struct test_buf b = {.gpa = test_driver_alloc(&d, size), .len = size, .write = true};

    (void)test_driver_add(&d, RX, &b, 1);
    return b.gpa;
}

static bool deliver(const void *frame, size_t size)
{
    bool taken = fake.client.receive(fake.client.card, frame, size);

    fake.client.flush(fake.client.card);
    return taken;
}

static uint32_t send_frame(const struct net_header *h, const void *frame, uint32_t size)
{
    uint8_t raw[NET_HEADER_BYTES];

    net_header_store(h, raw);
    struct test_buf b[2] = {
        {.gpa = test_driver_put(&d, raw,   sizeof(raw)), .len = sizeof(raw)},
        {.gpa = test_driver_put(&d, frame, size),        .len = size       },
    };
    return test_driver_request(&d, TX, b, 2);
}

TEST(config_space_tells_address_link_and_mtu)
{
    uint8_t c[12];

    begin(FEATURES);
    test_driver_config_read(&d, 0, c, sizeof(c));
    EXPECT_EQ(c[5], 0xcc);
    EXPECT_EQ(load_le16(c + 6), 1); /* link up */
    EXPECT_EQ(load_le16(c + 8), 1);
    EXPECT_EQ(load_le16(c + 10), 65520);
    virtio_net_set_link(dev, false);
    test_driver_config_read(&d, 6, c, 2);
    EXPECT_EQ(load_le16(c), 0);
    EXPECT_EQ(d.config_interrupts, 1);
    virtio_net_set_link(dev, true);
    test_driver_config_read(&d, 6, c, 2);
    EXPECT_EQ(load_le16(c), 3); /* up, and please announce yourself */
    end();
}

TEST(frame_is_sent_and_its_checksum_finished)
{
    uint8_t frame[62] = {[12] = 8, [13] = 0, [14] = 0x45, [23] = 17};
    struct net_header h = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};

    begin(FEATURES);
    for (unsigned i = 34; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7);
    store_be16(frame + 40, 0x1234); /* what the driver summed up: the pseudo-header */
    EXPECT_EQ(send_frame(&h, frame, sizeof(frame)), 0);
    ASSERT_EQ(fake.size, sizeof(frame));
    /* The driver's sum of the pseudo-header counts, what it left in the field does not (RFC 1071).
     */
    uint16_t made = load_be16(fake.frame + 40);
    store_be16(fake.frame + 40, 0);
    EXPECT_EQ((uint16_t)~net_sum(fake.frame + 34, sizeof(frame) - 34, 0x1234), made);
    end();
}

TEST(checksum_beyond_the_frame_is_refused)
{
    static const uint8_t frame[60];
    struct net_header h = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 25};

    begin(FEATURES);
    EXPECT_EQ(send_frame(&h, frame, sizeof(frame)), 0);
    h.csum_start = 65535;
    h.csum_offset = 65535;
    EXPECT_EQ(send_frame(&h, frame, sizeof(frame)), 0);
    h.csum_start = 0;
    EXPECT_EQ(send_frame(&h, frame, sizeof(frame)), 0);
    EXPECT_EQ(fake.sent, 0);
    h.csum_start = 34;
    h.csum_offset = 24; /* the last two bytes */
    EXPECT_EQ(send_frame(&h, frame, sizeof(frame)), 0);
    EXPECT_EQ(fake.sent, 1);
    end();
}

TEST(segmentation_needs_its_feature)
{
    static const uint8_t frame[60];
    struct net_header h = {.gso_type = NET_GSO_TCPV4, .gso_size = 1000};

    begin(FEATURES);
    EXPECT_EQ(send_frame(&h, frame, sizeof(frame)), 0);
    EXPECT_EQ(fake.sent, 0);
    end();
}

TEST(large_tcp_packet_goes_out_whole)
{
    static uint8_t frame[14 + 60000] = {[12] = 8, [13] = 0, [14] = 0x45, [23] = 6};
    uint8_t pseudo[12] = {10, 0, 2, 15, 10, 0, 2, 2, 0, 6};
    struct net_header h = {.flags = NET_NEEDS_CSUM,
                           .gso_type = NET_GSO_TCPV4,
                           .gso_size = 1460,
                           .csum_start = 34,
                           .csum_offset = 16};

    begin(FEATURES | BIT(11));
    store_be16(frame + 16, sizeof(frame) - 14);
    memcpy(frame + 26, pseudo, 8);
    for (size_t i = 54; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 31 >> 3);
    EXPECT_EQ(send_frame(&h, frame, sizeof(frame)), 0);
    ASSERT_EQ(fake.size, sizeof(frame));
    store_be16(pseudo + 10, sizeof(frame) - 34);
    EXPECT_EQ(net_sum(fake.frame + 34, sizeof(frame) - 34, net_sum(pseudo, 12, 0)), 0xffff);
    frame[23] = 17; /* UDP under a TCP header type */
    EXPECT_EQ(send_frame(&h, frame, sizeof(frame)), 0);
    EXPECT_EQ(fake.sent, 1);
    end();
}

TEST(transmit_requests_of_bad_sizes_are_dropped)
{
    struct test_buf b = {0};

    begin(FEATURES);
    static const uint32_t sizes[] = {1, 11, 12, 25, 12 + 65550, 1 << 20};
    b.gpa = test_driver_alloc(&d, 1 << 20);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        b.len = sizes[i];
        EXPECT_EQ(test_driver_request(&d, TX, &b, 1), 0);
    }
    EXPECT_EQ(fake.sent, 0);
    end();
}

TEST(frame_arrives_with_a_valid_checksum)
{
    struct test_used used;

    begin(FEATURES);
    gpa_t at = add_buffer(1526);
    EXPECT_TRUE(deliver("0123456789abcdef", 16));
    ASSERT_TRUE(test_driver_take(&d, RX, &used));
    EXPECT_EQ(used.len, 28);
    const uint8_t *p = test_driver_ptr(&d, at);
    EXPECT_EQ(p[0], NET_DATA_VALID);
    EXPECT_EQ(load_le16(p + 10), 1);
    EXPECT_MEM(p + 12, "0123456789abcdef", 16);
    EXPECT_EQ(d.queues[RX].interrupts, 1);
    end();
}

TEST(burst_is_one_interrupt)
{
    begin(FEATURES);
    for (unsigned i = 0; i < 3; i++)
        (void)add_buffer(1526);
    for (unsigned i = 0; i < 3; i++)
        EXPECT_TRUE(fake.client.receive(fake.client.card, "0123456789abcdef", 16));
    EXPECT_EQ(d.queues[RX].interrupts, 0);
    fake.client.flush(fake.client.card);
    fake.client.flush(fake.client.card);
    EXPECT_EQ(d.queues[RX].interrupts, 1);
    end();
}

TEST(large_frame_is_spread_over_buffers)
{
    static uint8_t frame[5000];
    struct test_used used;
    uint8_t got[5000];
    gpa_t at[4];

    begin(FEATURES);
    for (unsigned i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i >> 4);
    for (unsigned i = 0; i < 3; i++)
        at[i] = add_buffer(1500);
    EXPECT_TRUE(!deliver(frame, sizeof(frame))); /* no room yet, and nothing lost */
    at[3] = add_buffer(1500);
    test_driver_kick(&d, RX);
    EXPECT_EQ(fake.can_receive, 1);
    EXPECT_TRUE(deliver(frame, sizeof(frame)));
    size_t done = 0;
    for (unsigned i = 0; i < 4; i++) {
        size_t header = i ? 0 : 12;

        ASSERT_TRUE(test_driver_take(&d, RX, &used));
        EXPECT_EQ(used.len, i < 3 ? 1500 : 512);
        memcpy(got + done, (uint8_t *)test_driver_ptr(&d, at[i]) + header, used.len - header);
        done += used.len - header;
    }
    EXPECT_EQ(done, sizeof(frame));
    EXPECT_MEM(got, frame, sizeof(frame));
    EXPECT_EQ(load_le16((uint8_t *)test_driver_ptr(&d, at[0]) + 10), 4);
    end();
}

TEST(without_merging_a_frame_too_large_is_lost_alone)
{
    static uint8_t frame[2000];
    struct test_used used;

    begin(BIT(16));
    (void)add_buffer(1526);
    EXPECT_TRUE(deliver(frame, 2000));
    EXPECT_TRUE(!test_driver_take(&d, RX, &used));
    EXPECT_TRUE(deliver(frame, 1514));
    ASSERT_TRUE(test_driver_take(&d, RX, &used));
    EXPECT_EQ(used.len, 1526);
    end();
}

TEST(tiny_receive_buffer_breaks_the_device_only)
{
    begin(FEATURES);
    (void)add_buffer(11);
    EXPECT_TRUE(deliver("0123456789abcdef", 16)); /* dropped */
    EXPECT_EQ(test_driver_status(&d) & VIRTIO_NEEDS_RESET, VIRTIO_NEEDS_RESET);
    EXPECT_EQ(test_driver_start(&d, dev, FEATURES, 64) & VIRTIO_NEEDS_RESET, 0);
    (void)add_buffer(100);
    EXPECT_TRUE(deliver("0123456789abcdef", 16));
    EXPECT_EQ(d.queues[RX].interrupts, 1);
    end();
}

TEST(many_small_buffers_are_not_taken_without_end)
{
    static uint8_t frame[60000];

    begin(FEATURES);
    for (unsigned i = 0; i < 63; i++)
        (void)add_buffer(64);
    EXPECT_TRUE(!deliver(frame, sizeof(frame)));
    (void)add_buffer(64);
    EXPECT_TRUE(deliver(frame, sizeof(frame))); /* given up */
    EXPECT_TRUE(deliver(frame, 64));            /* and these still serve */
    EXPECT_TRUE(d.queues[RX].interrupts > 0);
    end();
}

static uint8_t control(const void *command, uint32_t size)
{
    struct test_buf b[2] = {
        {.gpa = test_driver_put(&d,   command, size),    .len = size  },
        {.gpa = test_driver_alloc(&d, 1),      .len = 1, .write = true},
    };

    *(uint8_t *)test_driver_ptr(&d, b[1].gpa) = 0xee;
    EXPECT_EQ(test_driver_request(&d, CTRL, b, 2), 1);
    return *(uint8_t *)test_driver_ptr(&d, b[1].gpa);
}

TEST(commands_are_acknowledged_or_refused)
{
    uint8_t mac[6];

    begin(FEATURES);
    EXPECT_EQ(control("\0\0\1", 3), 0); /* promiscuous */
    EXPECT_EQ(control("\0\0", 2), 1);   /* on or off? */
    EXPECT_EQ(control("\0\7\1", 3), 1);
    EXPECT_EQ(control("\1\1\2\3\4\5\6\7", 8), 0); /* set the address */
    test_driver_config_read(&d, 0, mac, sizeof(mac));
    EXPECT_MEM(mac, "\2\3\4\5\6\7", 6);
    EXPECT_EQ(control("\1\1\2\3\4", 5), 1);
    EXPECT_EQ(control("\1\0\0\0\0\0\0\0\0\0", 10), 0); /* an empty table */
    EXPECT_EQ(control("\4\0\1\0", 4), 1);              /* multiqueue was not offered */
    EXPECT_EQ(control("\3\0", 2), 0);
    EXPECT_EQ(control("\3", 1), 1);
    end();
}

TEST(every_command_is_asked_for)
{
    /* With event indices a driver notifies only when it passes the index asked for (§2.7.10). */
    begin(FEATURES | BIT(VIRTIO_F_EVENT_IDX));
    for (uint16_t i = 1; i < 4; i++) {
        EXPECT_EQ(control("\0\0\1", 3), 0);
        EXPECT_EQ(test_driver_avail_event(&d, CTRL), i);
    }
    end();
}

TEST(sum_is_the_internet_checksum)
{
    static uint8_t data[3000];
    uint32_t seed = 1;

    for (unsigned i = 0; i < sizeof(data); i++) {
        seed = seed * 1103515245 + 12345;
        data[i] = (uint8_t)(seed >> 16);
    }
    for (size_t size = 0; size < 300; size++) {
        uint32_t want = 0xabcd;

        for (size_t i = 0; i < size; i++)
            want += i % 2 ? data[i + 3] : (uint32_t)data[i + 3] << 8;
        while (want >> 16)
            want = (want & 0xffff) + (want >> 16);
        ASSERT_EQ(net_sum(data + 3, size, 0xabcd), want);
    }
}
