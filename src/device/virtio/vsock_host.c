/* virtio socket device, the host's side: unix sockets in a folder. The guest's side is vsock.c.
 *
 * A client of the host's connects to vsock.sock and writes "CONNECT <port>\n"; when the guest has
 * accepted, it reads "OK <host port>\n", and the stream begins. The line is peeked at first, so
 * that data right behind it is not taken with it.
 *
 * Invariants:
 *  1. No call waits: all sockets are non-blocking.
 *  2. A connection's watch is off before the connection is freed; one that goes on another thread
 * than the loop's is freed there at the end of a round, since a call to it may be under way.
 *
 * Threads: the loop's for what is ready, any for the end of a connection; all under the device's
 * lock.
 */
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "device/virtio/vsock_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SOCKET_NAME "vsock.sock"
#define FIRST_PORT  (1u << 30) /* of the host's ends, as the guest sees them */

/** An address in the folder, whatever the length of the folder's own path. */
static void address(const struct vsock *v, const char *name, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    (void)snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s", v->dir_fd, name);
}

static struct vsock_conn **bucket(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
    return &v->hash[(host_port * 31 + guest_port) % VSOCK_HASH];
}

struct vsock_conn *vsock_conn_find(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
    struct vsock_conn *c = *bucket(v, host_port, guest_port);

    while (c && (c->host_port != host_port || c->guest_port != guest_port))
        c = c->hash_next;
    return c;
}

static void conn_free(void *arg)
{
    struct vsock_conn *c = arg;

    free(c->pending);
    free(c);
}

void vsock_conn_drop(struct vsock *v, struct vsock_conn *c)
{
    struct vsock_conn **p = bucket(v, c->host_port, c->guest_port);

    while (*p && *p != c)
        p = &(*p)->hash_next;
    if (*p)
        *p = c->hash_next;
    for (p = &v->ready_first; c->queued && *p; p = &(*p)->ready_next) {
        if (*p == c) {
            *p = c->ready_next;
            if (!*p)
                v->ready_last = p;
            break;
        }
    }
    if (c->watched)
        loop_fd_remove(v->loop, &c->watch);
    c->watched = false;
    fd_close(fd_take(&c->fd));
    v->count--;
    if (loop_is_self(v->loop))
        conn_free(c);
    else
        (void)!loop_post(v->loop, conn_free, c); /* out of memory: leaked, not torn in use */
}

void vsock_watch(struct vsock *v, struct vsock_conn *c)
{
    uint32_t events = 0;

    if (!c->readable && !c->eof && c->state <= VSOCK_OPEN)
        events |= EPOLLIN;
    if (c->pending_size)
        events |= EPOLLOUT;
    if (c->hung_up) { /* which epoll would go on reporting */
        if (c->watched)
            loop_fd_remove(v->loop, &c->watch);
        c->watched = false;
    } else if (!c->watched) {
        c->watched = !loop_fd_add(v->loop, &c->watch, events);
    } else if (events != c->events) {
        loop_fd_change(v->loop, &c->watch, events);
    }
    c->events = events;
}

/** Read on in the line a client begins with. 1: it is done, for the guest's port *@ret; 0: not all
 * there yet; -1: not as agreed. */
static int read_line(struct vsock_conn *c, uint32_t *ret)
{
    char *to = c->line + c->line_size;
    ssize_t n = recv(c->fd, to, VSOCK_LINE_MAX - c->line_size, MSG_PEEK | MSG_DONTWAIT);
    unsigned long port;
    char *end;

    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    const char *newline = memchr(to, '\n', (size_t)n);
    if (newline)
        n = newline - to + 1;
    if (recv(c->fd, to, (size_t)n, MSG_DONTWAIT) != n) /* what was seen, and no more */
        return -1;
    c->line_size += (uint32_t)n;
    if (!newline)
        return c->line_size == VSOCK_LINE_MAX ? -1 : 0;
    c->line[c->line_size - 1] = 0;
    if (strncmp(c->line, "CONNECT ", 8) || c->line[8] < '0' || c->line[8] > '9')
        return -1;
    port = strtoul(c->line + 8, &end, 10);
    if (*end || port > UINT32_MAX)
        return -1;
    *ret = (uint32_t)port;
    return 1;
}

/** A port of the host's that no connection has. */
static uint32_t free_port(struct vsock *v, uint32_t guest_port) REQUIRES(v->dev.lock)
{
    do {
        v->next_port =
            v->next_port < FIRST_PORT || v->next_port == UINT32_MAX ? FIRST_PORT : v->next_port + 1;
    } while (vsock_conn_find(v, v->next_port, guest_port));
    return v->next_port;
}

/** Ask the guest for a connection of @c to @guest_port. Until now its ports were 0 and 0. */
static void ask_guest(struct vsock *v, struct vsock_conn *c, uint32_t guest_port)
    REQUIRES(v->dev.lock)
{
    struct vsock_conn **p = bucket(v, 0, 0);

    while (*p != c)
        p = &(*p)->hash_next;
    *p = c->hash_next;
    c->host_port = free_port(v, guest_port);
    c->guest_port = guest_port;
    p = bucket(v, c->host_port, guest_port);
    c->hash_next = *p;
    *p = c;
    c->state = VSOCK_REQUESTED;
    c->want |= WANT_REQUEST;
    vsock_mark(v, c);
}

/** The client has written something, or gone. False: @c is gone. */
static bool continue_asking(struct vsock *v, struct vsock_conn *c) REQUIRES(v->dev.lock)
{
    uint32_t port = 0;
    int rc = read_line(c, &port);

    /* With no driver at work, nobody is there to answer. */
    if (rc < 0 || (!rc && c->hung_up) || (rc > 0 && !virtio_is_live(&v->dev))) {
        vsock_conn_drop(v, c);
        return false;
    }
    if (rc > 0)
        ask_guest(v, c, port);
    return true;
}

static bool flush_pending(struct vsock_conn *c)
{
    while (c->pending_size) {
        ssize_t n =
            send(c->fd, c->pending + c->pending_at, c->pending_size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        c->pending_at += (uint32_t)n;
        c->pending_size -= (uint32_t)n;
        c->forwarded += (uint32_t)n;
    }
    c->pending_at = 0;
    vsock_apply_shutdown(c);
    return true;
}

/** @c's socket is ready as @events say. */
static void serve_conn(struct vsock *v, struct vsock_conn *c, uint32_t events) REQUIRES(v->dev.lock)
{
    if (events & (EPOLLHUP | EPOLLERR))
        c->hung_up = true;
    if (c->state == VSOCK_ASKING) {
        if (continue_asking(v, c))
            vsock_watch(v, c);
        return;
    }
    if (c->state == VSOCK_REQUESTED && c->hung_up) { /* the client has given up */
        vsock_reset_conn(v, c);
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        c->readable = true;
    if (c->hung_up && (c->guest_shut & VSOCK_NO_RECEIVE))
        c->eof = true; /* nobody reads what is left */
    if ((events & EPOLLOUT) && !flush_pending(c)) {
        vsock_reset_conn(v, c);
        return;
    }
    if (c->guest_shut == (VSOCK_NO_RECEIVE | VSOCK_NO_SEND) && !c->pending_size) {
        vsock_reset_conn(v, c);
        return;
    }
    if (c->forwarded - c->told_forwarded >= VSOCK_BUFFER / 2)
        c->want |= WANT_CREDIT;
    if (c->eof && c->hung_up && c->told_shut != (VSOCK_NO_RECEIVE | VSOCK_NO_SEND))
        c->want |= WANT_SHUTDOWN;
    vsock_watch(v, c);
    vsock_mark(v, c);
}

static void conn_ready(struct loop_fd *w, uint32_t events)
{
    struct vsock_conn *c = w->arg;
    struct vsock *v = c->vsock;

    mutex_lock(&v->dev.lock);
    if (c->watched) { /* else it has just ended on another thread */
        serve_conn(v, c, events);
        vsock_pump(v);
    }
    mutex_unlock(&v->dev.lock);
}

struct vsock_conn *vsock_conn_new(struct vsock *v, int fd, uint32_t host_port, uint32_t guest_port)
{
    struct vsock_conn *c = v->count < VSOCK_MAX ? calloc(1, sizeof(*c)) : NULL;

    if (!c) {
        fd_close(fd);
        return NULL;
    }
    c->vsock = v;
    c->fd = fd;
    c->host_port = host_port;
    c->guest_port = guest_port;
    c->watch = (struct loop_fd){.fd = fd, .fn = conn_ready, .arg = c};
    struct vsock_conn **p = bucket(v, host_port, guest_port);
    c->hash_next = *p;
    *p = c;
    v->count++;
    return c;
}

static void listen_again(struct loop_timer *t)
{
    struct vsock *v = t->arg;

    loop_fd_change(v->loop, &v->listener, EPOLLIN);
}

static void accept_ready(struct loop_fd *w, uint32_t events)
{
    struct vsock *v = w->arg;
    int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            loop_fd_change(v->loop, w, 0); /* it stays ready: not to be asked without end */
            loop_timer_set(v->loop, &v->listen_again, host_now_ns() + 100000000);
        }
        return;
    }
    mutex_lock(&v->dev.lock);
    struct vsock_conn *c = vsock_conn_new(v, fd, 0, 0);
    if (c) {
        c->state = VSOCK_ASKING;
        vsock_watch(v, c);
    }
    mutex_unlock(&v->dev.lock);
}

/** Remove a socket that a monitor left behind when it was killed: nobody answers there. */
static int remove_stale(const struct sockaddr_un *a)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct stat st;

    if (fd < 0)
        return -errno;
    int rc = connect(fd, (const struct sockaddr *)a, sizeof(*a)) ? -errno : 0;
    fd_close(fd);
    if (rc != -ECONNREFUSED || lstat(a->sun_path, &st) || !S_ISSOCK(st.st_mode))
        return -EADDRINUSE;
    return unlink(a->sun_path) ? -errno : 0;
}

int vsock_listen(struct vsock *v, const char *dir, struct error *err)
{
    struct sockaddr_un a;

    v->dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (v->dir_fd < 0)
        return error_set(err, errno, "cannot use socket folder '%s': %s", dir, strerror(errno));
    address(v, SOCKET_NAME, &a);
    cleanup(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = fd < 0 ? -errno : bind(fd, (struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
    if (rc == -EADDRINUSE) {
        rc = remove_stale(&a);
        if (!rc)
            rc = bind(fd, (struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
    }
    if (rc)
        return error_set(err, -rc, "cannot listen on '%s/%s': %s", dir, SOCKET_NAME, strerror(-rc));
    v->listener = (struct loop_fd){.fd = fd, .fn = accept_ready, .arg = v};
    v->listen_again = (struct loop_timer){.fn = listen_again, .arg = v};
    v->listening = true;
    rc = listen(fd, 64) ? -errno : loop_fd_add(v->loop, &v->listener, EPOLLIN);
    (void)fd_take(&fd);
    return rc ? error_set(err, -rc, "cannot listen on '%s/%s': %s", dir, SOCKET_NAME, strerror(-rc))
              : 0;
}

void vsock_unlisten(struct vsock *v)
{
    struct sockaddr_un a;

    if (v->listening) {
        loop_fd_remove(v->loop, &v->listener);
        loop_sync(v->loop); /* no call is under way that would set the timer */
        loop_timer_cancel(v->loop, &v->listen_again);
        loop_sync(v->loop);
        fd_close(v->listener.fd);
        address(v, SOCKET_NAME, &a);
        (void)unlink(a.sun_path); /* it may be gone with its folder */
    }
    v->listening = false;
    fd_close(fd_take(&v->dir_fd));
}

int vsock_connect(struct vsock *v, uint32_t port)
{
    struct sockaddr_un a;
    char name[16];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    (void)snprintf(name, sizeof(name), "%u", port);
    address(v, name, &a);
    if (!connect(fd, (struct sockaddr *)&a, sizeof(a)))
        return fd;
    int rc = -errno;
    fd_close(fd);
    return rc;
}

bool vsock_greet(struct vsock_conn *c)
{
    char line[VSOCK_LINE_MAX];
    int n = snprintf(line, sizeof(line), "OK %u\n", c->host_port);

    /* The first bytes of a new socket always fit. */
    return send(c->fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) == n;
}

size_t vsock_read(struct vsock_conn *c, const struct iovec *iov, unsigned count)
{
    ssize_t n = readv(c->fd, iov, (int)count);

    if (n > 0)
        return (size_t)n;
    c->readable = false;
    c->eof = !n || (errno != EAGAIN && errno != EINTR);
    return 0;
}

bool vsock_write(struct vsock_conn *c, const struct iovec *iov, unsigned count, size_t size)
{
    size_t done = 0;

    if (!c->pending_size) {
        struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = count};
        ssize_t n = sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        done = (size_t)MAX(n, (ssize_t)0);
        c->forwarded += (uint32_t)done;
    }
    if (done == size)
        return true;
    if (size - done > VSOCK_BUFFER - c->pending_size)
        return false; /* more than it was given credit for */
    if (!c->pending && !(c->pending = malloc(VSOCK_BUFFER)))
        return false;
    memmove(c->pending, c->pending + c->pending_at, c->pending_size);
    c->pending_at = 0;
    for (unsigned i = 0; i < count; i++) {
        size_t skip = MIN(done, iov[i].iov_len);
        size_t n = iov[i].iov_len - skip;

        memcpy(c->pending + c->pending_size, (char *)iov[i].iov_base + skip, n);
        c->pending_size += (uint32_t)n;
        done -= skip;
    }
    return true;
}

void vsock_apply_shutdown(struct vsock_conn *c)
{
    if (c->guest_shut & VSOCK_NO_RECEIVE)
        (void)shutdown(c->fd, SHUT_RD); /* fails only if the host was first */
    if ((c->guest_shut & VSOCK_NO_SEND) && !c->pending_size)
        (void)shutdown(c->fd, SHUT_WR); /* as above */
}
