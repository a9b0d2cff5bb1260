/* User-mode network: NAT by libslirp, without any privilege on the host.
 *
 * The guest sees 10.0.2.0/24 and fec0::/64; libslirp answers ARP, NDP, DHCP and pings of the
 * gateway, forwards DNS, and turns the guest's TCP and UDP flows into sockets of this process.
 *
 * Invariants:
 *  1. slirp is called on the loop's thread only; frames sent on other threads wait in `inbox`.
 *  2. Frames for the guest arrive in order: while any waits in `backlog`, new ones queue behind it.
 *  3. Both queues are bounded; what does not fit is dropped, as on a real wire.
 *
 * Threads: the loop's, but for send and can_receive, which come on any.
 */
#include "base/clock.h"
#include "base/fd.h"
#include "base/iov.h"
#include "base/log.h"
#include "net/user_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUE_MAX_BYTES (2u << 20)

/** Fewer, larger packets cost an emulated guest less. But libslirp scales no TCP window: 64 KiB are
 * in flight at most, and three packets of it keep the guest busy with one while we make the next.
 * (libslirp could do 65521.) */
#define BEST_MTU 21840

bool user_queue_add(struct user_queue *q, const struct iovec *iov, int iovcnt, size_t limit)
{
    size_t size = iov_bytes(iov, (unsigned)iovcnt);

    if (q->bytes + size > limit)
        return false;
    struct user_frame *f = malloc(sizeof(*f) + size);
    if (!f)
        return false;
    f->next = NULL;
    f->size = 0;
    for (int i = 0; i < iovcnt; i++) {
        memcpy(f->data + f->size, iov[i].iov_base, iov[i].iov_len);
        f->size += iov[i].iov_len;
    }
    if (!q->first)
        q->last = &q->first;
    *q->last = f;
    q->last = &f->next;
    q->bytes += size;
    return true;
}

struct user_frame *user_queue_take(struct user_queue *q)
{
    struct user_frame *f = q->first;

    if (f) {
        q->first = f->next;
        q->bytes -= f->size;
    }
    return f;
}

static void note_address(struct user *u, uint32_t addr)
{
    if (addr)
        __atomic_store_n(&u->guest_addr, addr, __ATOMIC_RELAXED); /* alone: orders nothing */
}

static bool user_get_address(struct net_backend *b, char ret[16])
{
    struct user *u = container_of(b, struct user, base);
    struct in_addr addr = {.s_addr = htonl(__atomic_load_n(&u->guest_addr, __ATOMIC_RELAXED))};

    return addr.s_addr && inet_ntop(AF_INET, &addr, ret, 16);
}

static void input(struct user *u, const uint8_t *frame, size_t size)
{
    if (u->restrict_host && !user_filter_allows(&u->hosts, frame, size))
        return;
    note_address(u, user_sees_sender(frame, size));
    u->dirty = true;
    slirp_input(u->slirp, frame, (int)size);
}

static void drain_backlog(struct user *u)
{
    u->dirty = true; /* descriptors may be wanted again */
    u->delivered = true;
    while (u->backlog.first && u->client.receive &&
           u->client.receive(u->client.card, u->backlog.first->data, u->backlog.first->size))
        free(user_queue_take(&u->backlog));
}

void user_flush(struct user *u)
{
    if (u->delivered && u->client.flush)
        u->client.flush(u->client.card);
    u->delivered = false;
}

/** Something was asked for on another thread. */
static void woken(struct loop_fd *w, uint32_t events)
{
    struct user *u = w->arg;
    struct user_frame *f;
    uint64_t count;

    (void)!read(w->fd, &count, sizeof(count)); /* only clears the level */
    do {
        mutex_lock(&u->lock);
        f = user_queue_take(&u->inbox);
        mutex_unlock(&u->lock);
        if (f)
            input(u, f->data, f->size);
        free(f);
    } while (f);
    if (u->backlog.first)
        drain_backlog(u);
}

static void wake(struct user *u)
{
    uint64_t one = 1;

    (void)!write(u->wake.fd, &one, sizeof(one)); /* EAGAIN: it is awake already */
}

static void user_send(struct net_backend *b, const struct iovec *iov, int iovcnt)
{
    struct user *u = container_of(b, struct user, base);
    size_t size = iov_bytes(iov, (unsigned)iovcnt);

    if (size < 14 || size > USER_FRAME_MAX)
        return;
    if (!loop_is_self(u->loop)) {
        mutex_lock(&u->lock);
        (void)user_queue_add(&u->inbox, iov, iovcnt, QUEUE_MAX_BYTES); /* invariant 3 */
        mutex_unlock(&u->lock);
        wake(u);
        return;
    }
    const uint8_t *frame = iov[0].iov_base;
    if (iovcnt > 1) {
        size_t at = 0;

        for (int i = 0; i < iovcnt; at += iov[i].iov_len, i++)
            memcpy(u->bounce + at, iov[i].iov_base, iov[i].iov_len);
        frame = u->bounce;
    }
    input(u, frame, size);
}

static ssize_t send_packet(const void *buf, size_t len, void *opaque)
{
    struct user *u = opaque;
    struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};

    note_address(u, user_sees_lease(buf, len));
    if (!u->client.receive)
        return (ssize_t)len;
    u->delivered = true;
    if (u->backlog.first || !u->client.receive(u->client.card, buf, len))
        (void)user_queue_add(&u->backlog, &iov, 1, QUEUE_MAX_BYTES); /* invariant 3 */
    return (ssize_t)len;
}

static void user_can_receive(struct net_backend *b)
{
    struct user *u = container_of(b, struct user, base);

    if (!loop_is_self(u->loop))
        wake(u);
    else if (u->backlog.first)
        drain_backlog(u);
}

static void user_set_client(struct net_backend *b, const struct net_client *client)
{
    struct user *u = container_of(b, struct user, base);

    u->client = client ? *client : (struct net_client){0};
}

static void empty_queue(struct user_queue *q)
{
    for (struct user_frame *f; (f = user_queue_take(q));)
        free(f);
}

static void destroy(void *arg)
{
    struct user *u = arg;

    u->client = (struct net_client){0};
    if (u->slirp)
        slirp_cleanup(u->slirp);
    user_poll_stop(u);
    if (u->wake.fd >= 0)
        loop_fd_remove(u->loop, &u->wake);
    fd_close(u->wake.fd);
    empty_queue(&u->backlog);
    empty_queue(&u->inbox);
    mutex_done(&u->lock);
    free(u->bounce);
    free(u);
}

static void user_free(struct net_backend *b)
{
    struct user *u = container_of(b, struct user, base);
    struct loop *loop = u->loop;

    if (loop_is_self(loop))
        destroy(u);
    else if (!loop_post(loop, destroy, u)) /* out of memory: better leaked than torn in use */
        loop_sync(loop);
}

static const struct net_ops user_ops = {
    .name = "user",
    .send = user_send,
    .can_receive = user_can_receive,
    .set_client = user_set_client,
    .get_address = user_get_address,
    .free = user_free,
};

static void slirp_guest_error(const char *msg, void *opaque)
{
    guest_error("net", "%s", msg);
}

static int64_t clock_get_ns(void *opaque)
{
    return host_now_ns();
}

static void notify(void *opaque)
{
    struct user *u = opaque;

    u->dirty = true;
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = slirp_guest_error,
    .clock_get_ns = clock_get_ns,
    .timer_new = user_timer_new,
    .timer_free = user_timer_free,
    .timer_mod = user_timer_mod,
    .register_poll_fd = user_register_fd,
    .unregister_poll_fd = user_unregister_fd,
    .notify = notify,
};

static struct in_addr ipv4(uint32_t addr)
{
    return (struct in_addr){.s_addr = htonl(addr)};
}

static struct in6_addr ipv6(const char *text)
{
    struct in6_addr a = IN6ADDR_ANY_INIT;

    (void)inet_pton(AF_INET6, text, &a); /* constants below */
    return a;
}

static Slirp *start_slirp(struct user *u, const struct net_user_config *config)
{
    SlirpConfig c = {
        .version = 1,
        .in_enabled = true,
        .vnetwork = ipv4(0x0a000200),
        .vnetmask = ipv4(0xffffff00),
        .vhost = ipv4(0x0a000202),
        .vdhcp_start = ipv4(0x0a00020f),
        .vnameserver = ipv4(0x0a000203),
        .in6_enabled = true,
        .vprefix_addr6 = ipv6("fec0::"),
        .vprefix_len = 64,
        .vhost6 = ipv6("fec0::2"),
        .vnameserver6 = ipv6("fec0::3"),
        .vhostname = config->hostname,
        .if_mtu = BEST_MTU,
        .if_mru = BEST_MTU,
        .disable_host_loopback = config->restrict_host,
    };

    return slirp_new(&c, &callbacks, u);
}

/** UDP sockets of libslirp share their port with whoever else asks to: find out by a socket that
 * does not. */
static int probe_udp(const struct sockaddr *addr, socklen_t size)
{
    int fd = socket(addr->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    int rc = bind(fd, addr, size) ? -errno : 0;
    (void)close(fd); /* nothing was sent */
    return rc;
}

static int add_forward(struct user *u, const struct net_forward *f, struct error *err)
{
    const char *protocol = f->udp ? "udp" : "tcp";
    const char *addr = f->host_addr[0] ? f->host_addr : "127.0.0.1";
    struct sockaddr_in host = {.sin_family = AF_INET, .sin_port = htons(f->host_port)};
    struct sockaddr_in guest = {
        .sin_family = AF_INET, .sin_port = htons(f->guest_port), .sin_addr = ipv4(0x0a00020f)};
    int rc = 0;

    if (inet_pton(AF_INET, addr, &host.sin_addr) != 1)
        return error_set(err, EINVAL, "cannot forward from '%s': not an IPv4 address", addr);
    if (!f->guest_port)
        return error_set(err, EINVAL, "cannot forward %s port %u: the guest's port is 0", protocol,
                         f->host_port);
    if (f->udp)
        rc = probe_udp((struct sockaddr *)&host, sizeof(host));
    if (!rc && slirp_add_hostxfwd(u->slirp, (struct sockaddr *)&host, sizeof(host),
                                  (struct sockaddr *)&guest, sizeof(guest),
                                  f->udp ? SLIRP_HOSTFWD_UDP : 0) < 0)
        rc = errno ? -errno : -EINVAL;
    if (rc == -EADDRINUSE)
        return error_set(err, EADDRINUSE, "%s port %u of %s is already in use on this host",
                         protocol, f->host_port, addr);
    if (rc)
        return error_set(err, -rc, "cannot forward %s port %u of %s: %s", protocol, f->host_port,
                         addr, strerror(-rc));
    return 0;
}

/** A new backend, made on the loop's thread. */
struct creation {
    struct loop *loop;
    const struct net_user_config *config;
    struct net_backend **ret;
    struct error *err;
    int rc;
};

static int start(struct user *u, const struct net_user_config *config, struct error *err)
{
    u->wake = (struct loop_fd){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .fn = woken, .arg = u};
    u->bounce = malloc(USER_FRAME_MAX);
    if (u->wake.fd < 0 || !u->bounce || loop_fd_add(u->loop, &u->wake, EPOLLIN))
        return error_set(err, ENOMEM, "cannot start the user-mode network: out of resources");
    u->slirp = start_slirp(u, config);
    if (!u->slirp)
        return error_set(err, EINVAL, "cannot start the user-mode network");
    for (size_t i = 0; i < config->forward_count; i++) {
        int rc = add_forward(u, &config->forwards[i], err);

        if (rc)
            return rc;
    }
    user_poll_start(u);
    return 0;
}

static void create(void *arg)
{
    struct creation *c = arg;
    struct user *u = calloc(1, sizeof(*u));

    if (!u) {
        c->rc = error_set(c->err, ENOMEM, "out of memory");
        return;
    }
    u->base.ops = &user_ops;
    u->base.best_mtu = BEST_MTU;
    u->loop = c->loop;
    u->restrict_host = c->config->restrict_host;
    mutex_init(&u->lock);
    c->rc = start(u, c->config, c->err);
    if (c->rc)
        destroy(u);
    else
        *c->ret = &u->base;
}

int net_user_new(struct loop *loop, const struct net_user_config *config, struct net_backend **ret,
                 struct error *err)
{
    struct creation c = {.loop = loop, .config = config, .ret = ret, .err = err, .rc = -ENOMEM};

    if (loop_is_self(loop))
        create(&c);
    else if (loop_post(loop, create, &c))
        return error_set(err, ENOMEM, "out of memory");
    else
        loop_sync(loop);
    return c.rc;
}
