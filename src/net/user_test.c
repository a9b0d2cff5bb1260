/* Tests of the user-mode network: a guest of a few lines speaks Ethernet with it. */
#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/test.h"
#include "base/thread.h"
#include "net/net.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 1, 2, 3};
static const uint8_t guest_ip[4] = {10, 0, 2, 15};
static const uint8_t gateway_ip[4] = {10, 0, 2, 2};

/** The last frames received. */
struct guest {
    struct mutex lock;
    struct cond cond;
    uint8_t frames[64][2048]; /* [lock] */
    size_t sizes[64];         /* [lock] */
    unsigned count;           /* [lock] */
    bool full;                /* [lock] take nothing */
    struct loop *loop;
    struct net_backend *net;
};

static bool guest_receive(void *card, const void *frame, size_t size)
{
    struct guest *g = card;

    mutex_lock(&g->lock);
    bool taken = !g->full;
    if (taken && g->count < ARRAY_SIZE(g->frames) && size <= sizeof(g->frames[0])) {
        memcpy(g->frames[g->count], frame, size);
        g->sizes[g->count++] = size;
        cond_broadcast(&g->cond);
    }
    mutex_unlock(&g->lock);
    return taken;
}

static void start(struct guest *g, const struct net_user_config *config)
{
    struct net_client client = {.receive = guest_receive, .card = g};

    memset(g, 0, sizeof(*g));
    mutex_init(&g->lock);
    cond_init(&g->cond);
    g->loop = loop_new("net");
    ASSERT_TRUE(g->loop && !loop_start(g->loop));
    ASSERT_EQ(net_user_new(g->loop, config, &g->net, NULL), 0);
    g->net->ops->set_client(g->net, &client);
}

static void stop(struct guest *g)
{
    g->net->ops->free(g->net);
    loop_free(g->loop);
}

static void send_frame(struct guest *g, const uint8_t *frame, size_t size)
{
    struct iovec iov[2] = {
        {.iov_base = (void *)frame,        .iov_len = 14       },
        {.iov_base = (void *)(frame + 14), .iov_len = size - 14},
    };

    g->net->ops->send(g->net, iov, 2);
}

/** Wait for a frame of @type (and IPv4 protocol @protocol, 0 = any) and copy it. 0: none came. */
static size_t wait_frame(struct guest *g, uint16_t type, uint8_t protocol, uint8_t *ret)
{
    int64_t deadline = host_now_ns() + 5000000000;
    size_t size = 0;

    mutex_lock(&g->lock);
    do {
        for (unsigned i = 0; i < g->count && !size; i++) {
            const uint8_t *f = g->frames[i];

            if (load_be16(f + 12) == type && (!protocol || f[23] == protocol)) {
                size = g->sizes[i];
                memcpy(ret, f, size);
                store_be16(g->frames[i] + 12, 0); /* taken */
            }
        }
    } while (!size && cond_wait_until(&g->cond, &g->lock, deadline));
    mutex_unlock(&g->lock);
    return size;
}

static uint16_t checksum(const uint8_t *p, size_t size)
{
    uint32_t sum = 0;

    for (size_t i = 0; i + 1 < size; i += 2)
        sum += load_be16(p + i);
    if (size % 2)
        sum += (uint32_t)p[size - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/** Ethernet and IPv4 headers of a packet with @size bytes after them. */
static size_t put_headers(uint8_t *f, const uint8_t *dst, uint8_t protocol, size_t size)
{
    memset(f, 0xff, 6);
    memcpy(f + 6, guest_mac, 6);
    store_be16(f + 12, 0x0800);
    uint8_t *ip = f + 14;
    memset(ip, 0, 20);
    ip[0] = 0x45;
    store_be16(ip + 2, (uint16_t)(20 + size));
    ip[8] = 64;
    ip[9] = protocol;
    memcpy(ip + 12, guest_ip, 4);
    memcpy(ip + 16, dst, 4);
    store_be16(ip + 10, checksum(ip, 20));
    return 34 + size;
}

static size_t put_udp(uint8_t *f, const uint8_t *dst, uint16_t from, uint16_t to, const void *data,
                      size_t size)
{
    uint8_t *udp = f + 34;

    store_be16(udp, from);
    store_be16(udp + 2, to);
    store_be16(udp + 4, (uint16_t)(8 + size));
    store_be16(udp + 6, 0); /* no checksum */
    memcpy(udp + 8, data, size);
    return put_headers(f, dst, IPPROTO_UDP, 8 + size);
}

static void announce(struct guest *g)
{
    uint8_t f[42] = {[12] = 8, 6, 0, 1, 8, 0, 6, 4, 0, 1};

    memset(f, 0xff, 6);
    memcpy(f + 6, guest_mac, 6);
    memcpy(f + 22, guest_mac, 6);
    memcpy(f + 28, guest_ip, 4);
    memcpy(f + 38, gateway_ip, 4);
    send_frame(g, f, sizeof(f));
}

TEST(arp_and_ping_of_the_gateway_are_answered)
{
    static struct guest g;
    uint8_t f[2048];

    start(&g, &(struct net_user_config){0});
    announce(&g);
    ASSERT_TRUE(wait_frame(&g, 0x0806, 0, f) >= 42);
    EXPECT_EQ(load_be16(f + 20), 2); /* reply */
    EXPECT_MEM(f + 28, gateway_ip, 4);

    uint8_t *icmp = f + 34;
    memset(f, 0, sizeof(f));
    icmp[0] = 8;
    memset(icmp + 8, 'p', 56);
    store_be16(icmp + 2, checksum(icmp, 64));
    send_frame(&g, f, put_headers(f, gateway_ip, IPPROTO_ICMP, 64));
    ASSERT_EQ(wait_frame(&g, 0x0800, IPPROTO_ICMP, f), 98);
    EXPECT_EQ(f[34], 0); /* echo reply */
    stop(&g);
}

TEST(dhcp_offers_the_fixed_address)
{
    static struct guest g;
    uint8_t f[2048] = {0};
    uint8_t bootp[300] = {1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef};
    static const uint8_t options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};
    static const uint8_t broadcast[4] = {255, 255, 255, 255};

    start(&g, &(struct net_user_config){.hostname = "inn"});
    memcpy(bootp + 28, guest_mac, 6);
    memcpy(bootp + 236, options, sizeof(options));
    send_frame(&g, f, put_udp(f, broadcast, 68, 67, bootp, sizeof(bootp)));
    ASSERT_TRUE(wait_frame(&g, 0x0800, IPPROTO_UDP, f) > 42 + 240);
    EXPECT_EQ(f[42], 2); /* BOOTREPLY */
    EXPECT_MEM(f + 42 + 16, guest_ip, 4);
    stop(&g);
}

/** DHCPDISCOVER (@type 1) or DHCPREQUEST (3), and its answer. */
static void ask_lease(struct guest *g, uint8_t type)
{
    static const uint8_t broadcast[4] = {255, 255, 255, 255};
    const uint8_t options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, type, 0, 50, 4, 10, 0, 2, 15, 255};
    uint8_t f[2048] = {0};
    uint8_t bootp[300] = {1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef};

    memcpy(bootp + 28, guest_mac, 6);
    memcpy(bootp + 236, options, sizeof(options));
    send_frame(g, f, put_udp(f, broadcast, 68, 67, bootp, sizeof(bootp)));
    ASSERT_TRUE(wait_frame(g, 0x0800, IPPROTO_UDP, f) > 42 + 240);
}

TEST(the_guests_address_is_its_lease_or_what_it_says)
{
    static struct guest g;
    uint8_t arp[42] = {[12] = 8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
    char text[16] = "";

    start(&g, &(struct net_user_config){0});
    EXPECT_TRUE(!g.net->ops->get_address(g.net, text));
    ask_lease(&g, 1); /* only offered */
    EXPECT_TRUE(!g.net->ops->get_address(g.net, text));
    ask_lease(&g, 3);
    ASSERT_TRUE(g.net->ops->get_address(g.net, text));
    EXPECT_STR(text, "10.0.2.15");
    memset(arp, 0xff, 6);
    memcpy(arp + 6, guest_mac, 6);
    memcpy(arp + 22, guest_mac, 6);
    memcpy(arp + 38, gateway_ip, 4);
    send_frame(&g, arp, sizeof(arp)); /* a probe, from 0.0.0.0 */
    loop_sync(g.loop);
    ASSERT_TRUE(g.net->ops->get_address(g.net, text));
    EXPECT_STR(text, "10.0.2.15");
    memcpy(arp + 28, (uint8_t[]){10, 0, 2, 77}, 4);
    send_frame(&g, arp, sizeof(arp));
    loop_sync(g.loop);
    ASSERT_TRUE(g.net->ops->get_address(g.net, text));
    EXPECT_STR(text, "10.0.2.77");
    stop(&g);
}

static int listen_on(int type, uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(a);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    ASSERT_TRUE(fd >= 0 && !bind(fd, (struct sockaddr *)&a, sizeof(a)));
    ASSERT_TRUE(type == SOCK_DGRAM || !listen(fd, 4));
    ASSERT_EQ(getsockname(fd, (struct sockaddr *)&a, &size), 0);
    *ret_port = ntohs(a.sin_port);
    return fd;
}

TEST(udp_reaches_the_host_and_comes_back)
{
    static struct guest g;
    struct timeval limit = {.tv_sec = 5};
    struct sockaddr_in from;
    socklen_t from_size = sizeof(from);
    uint8_t f[2048] = {0};
    char text[16] = "";
    uint16_t port;
    int fd = listen_on(SOCK_DGRAM, &port);

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    start(&g, &(struct net_user_config){0});
    announce(&g);
    send_frame(&g, f, put_udp(f, gateway_ip, 5000, port, "hello", 5));
    ASSERT_EQ(recvfrom(fd, text, sizeof(text), 0, (struct sockaddr *)&from, &from_size), 5);
    EXPECT_MEM(text, "hello", 5);
    ASSERT_EQ(sendto(fd, "world", 5, 0, (struct sockaddr *)&from, from_size), 5);
    ASSERT_EQ(wait_frame(&g, 0x0800, IPPROTO_UDP, f), 47);
    EXPECT_EQ(load_be16(f + 36), 5000);
    EXPECT_MEM(f + 42, "world", 5);
    stop(&g);
    close(fd);
}

TEST(restricted_guest_does_not_reach_the_host)
{
    static const uint8_t loopback[4] = {127, 0, 0, 1};
    static struct guest g;
    struct timeval limit = {.tv_usec = 200000};
    uint8_t f[2048] = {0};
    char text[16];
    uint16_t port;
    int fd = listen_on(SOCK_DGRAM, &port);

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    start(&g, &(struct net_user_config){.restrict_host = true});
    announce(&g);
    send_frame(&g, f, put_udp(f, gateway_ip, 5000, port, "hello", 5));
    send_frame(&g, f, put_udp(f, loopback, 5000, port, "hello", 5));
    EXPECT_EQ(recv(fd, text, sizeof(text), 0), -1);
    stop(&g);
    close(fd);
}

TEST(forwarded_tcp_port_knocks_at_the_guest)
{
    static struct guest g;
    uint8_t f[2048];
    uint16_t port;
    int probe = listen_on(SOCK_STREAM, &port);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};

    close(probe); /* free again, and nobody else is likely to take it at once */
    struct net_forward forward = {.host_port = port, .guest_port = 80};
    start(&g, &(struct net_user_config){.forwards = &forward, .forward_count = 1});
    announce(&g);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    ASSERT_TRUE(wait_frame(&g, 0x0800, IPPROTO_TCP, f) >= 54);
    EXPECT_EQ(load_be16(f + 36), 80);
    EXPECT_EQ(f[47] & 0x12, 2); /* SYN */
    stop(&g);
    close(fd);
}

TEST(port_in_use_is_named)
{
    struct loop *loop = loop_new("net");
    struct net_backend *net = NULL;

    for (int udp = 0; udp <= 1; udp++) {
        struct error err = {0};
        char want[64];
        uint16_t port;
        int fd = listen_on(udp ? SOCK_DGRAM : SOCK_STREAM, &port);
        struct net_forward forward = {.udp = udp, .host_port = port, .guest_port = 80};
        struct net_user_config config = {.forwards = &forward, .forward_count = 1};

        EXPECT_EQ(net_user_new(loop, &config, &net, &err), -EADDRINUSE);
        (void)snprintf(want, sizeof(want), "%s port %u of 127.0.0.1 is already in use on this host",
                       udp ? "udp" : "tcp", port);
        EXPECT_STR(err.text, want);
        close(fd);
    }
    EXPECT_TRUE(!net);
    loop_free(loop);
}

TEST(frames_wait_for_the_guests_buffers)
{
    static struct guest g;
    uint8_t f[2048];

    start(&g, &(struct net_user_config){0});
    mutex_lock(&g.lock);
    g.full = true;
    mutex_unlock(&g.lock);
    announce(&g);
    loop_sync(g.loop);
    EXPECT_EQ(g.count, 0);
    mutex_lock(&g.lock);
    g.full = false;
    mutex_unlock(&g.lock);
    g.net->ops->can_receive(g.net);
    EXPECT_TRUE(wait_frame(&g, 0x0806, 0, f) >= 42);
    stop(&g);
}

TEST(bad_frames_are_dropped)
{
    static struct guest g;
    static uint8_t huge[70000];
    uint8_t f[2048];

    start(&g, &(struct net_user_config){0});
    struct iovec iov = {.iov_base = huge, .iov_len = sizeof(huge)};
    g.net->ops->send(g.net, &iov, 1);
    iov.iov_len = 3;
    g.net->ops->send(g.net, &iov, 1);
    memset(huge, 0xff, sizeof(huge));
    store_be16(huge + 12, 0x0800);
    for (size_t size = 14; size < 100; size++) {
        huge[14] = 0x45;
        store_be16(huge + 16, (uint16_t)(size * 3));
        iov.iov_len = size;
        g.net->ops->send(g.net, &iov, 1);
    }
    announce(&g);
    EXPECT_TRUE(wait_frame(&g, 0x0806, 0, f) >= 42); /* it lives */
    stop(&g);
}
