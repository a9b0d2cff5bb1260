/* Sockets as streams. A client that takes nothing for SEND_TIMEOUT_S is given up.
 *
 * Threads: as stream.h says.
 */
#include "nbd/stream.h"
#include "base/clock.h"
#include "base/fd.h"

#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#define SEND_TIMEOUT_S 60

struct socket_stream {
    struct nbd_stream s; /* must be first */
    int fd;              /* [init] */
};

static int fd_of(struct nbd_stream *s)
{
    return ((struct socket_stream *)s)->fd;
}

/** Wait for bytes until the deadline. */
static int wait_readable(int fd, int64_t deadline_ns)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int64_t left_ms = (deadline_ns - host_now_ns() + 999999) / 1000000;

    if (left_ms <= 0)
        return -ETIMEDOUT;
    int n = poll(&p, 1, (int)MIN(left_ms, (int64_t)INT_MAX));
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    return n ? 0 : -ETIMEDOUT;
}

static ssize_t socket_recv(struct nbd_stream *s, void *buf, size_t size)
{
    for (;;) {
        int rc = s->deadline_ns ? wait_readable(fd_of(s), s->deadline_ns) : 0;
        if (rc)
            return rc;
        ssize_t n = recv(fd_of(s), buf, size, 0);
        if (n >= 0 || errno != EINTR)
            return n < 0 ? -errno : n;
    }
}

static int socket_send(struct nbd_stream *s, const void *buf, size_t size)
{
    while (size) {
        ssize_t n = send(fd_of(s), buf, size, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno; /* -EAGAIN is the time-out */
        buf = (const char *)buf + n;
        size -= (size_t)n;
    }
    return 0;
}

static bool socket_has_more(struct nbd_stream *s)
{
    struct pollfd p = {.fd = fd_of(s), .events = POLLIN};

    return poll(&p, 1, 0) > 0;
}

static void socket_shutdown(struct nbd_stream *s)
{
    (void)shutdown(fd_of(s), SHUT_RDWR); /* it may be gone already */
}

static void socket_close(struct nbd_stream *s)
{
    fd_close(fd_of(s));
    free(s);
}

static const struct nbd_stream_ops socket_ops = {
    .recv = socket_recv,
    .send = socket_send,
    .has_more = socket_has_more,
    .shutdown = socket_shutdown,
    .close = socket_close,
};

struct nbd_stream *nbd_stream_new(int fd)
{
    struct socket_stream *s = calloc(1, sizeof(*s));
    struct timeval limit = {.tv_sec = SEND_TIMEOUT_S};
    int on = 1;

    if (!s) {
        fd_close(fd);
        return NULL;
    }
    /* Only TCP knows these; a socket without them works too. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    s->s.ops = &socket_ops;
    s->fd = fd;
    return &s->s;
}

int nbd_stream_fd(struct nbd_stream *s)
{
    return s->ops == &socket_ops ? fd_of(s) : -1;
}
