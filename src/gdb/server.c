/* Listening, one client, and stops that come from vCPU threads. All on the loop's thread, but
 * gdb_stopped(). */
#include "base/fd.h"
#include "gdb/gdb_internal.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

static void on_stop(void *arg)
{
    struct gdb_server *g = arg;

    mutex_lock(&g->lock);
    bool pending = g->stop_pending;
    unsigned index = g->stop_index;
    struct vcpu_exit exit = g->stop_exit;
    g->stop_pending = false;
    mutex_unlock(&g->lock);
    if (!pending || !g->running)
        return;
    g->target.stop(g->target.arg);
    g->running = false;
    g->general = g->last_stop = index;
    g->last_exit = exit;
    gdb_report_stop(g);
}

void gdb_stopped(struct gdb_server *g, unsigned index, const struct vcpu_exit *exit)
{
    mutex_lock(&g->lock);
    bool first = !g->stop_pending;
    if (first) {
        g->stop_pending = true;
        g->stop_index = index;
        g->stop_exit = *exit;
    }
    mutex_unlock(&g->lock);
    if (first && loop_post(g->loop, on_stop, g) < 0) {
        /* out of memory: the client's Ctrl-C still works */
    }
}

static void on_interrupt(struct gdb_server *g)
{
    if (!g->running)
        return;
    g->target.stop(g->target.arg);
    g->running = false;
    g->interrupted = true;
    gdb_report_stop(g);
}

void gdb_detach(struct gdb_server *g)
{
    if (g->client.fd < 0)
        return;
    loop_fd_remove(g->loop, &g->client);
    fd_close(g->client.fd);
    g->client.fd = -1;
    __atomic_store_n(&g->attached, false, __ATOMIC_RELAXED);
    /* The machine goes on without its debugger. */
    g->target.stop(g->target.arg);
    g->breakpoint_count = g->watchpoint_count = 0;
    gdb_apply_points(g, -1);
    g->running = false;
    g->target.resume(g->target.arg, (1ULL << g->target.vcpu_count) - 1);
}

static void on_client(struct loop_fd *w, uint32_t events)
{
    struct gdb_server *g = w->arg;
    char packet[GDB_PACKET_MAX + 1];
    size_t size;
    int rc;
    ssize_t n = recv(w->fd, g->in + g->in_size, sizeof(g->in) - g->in_size, MSG_DONTWAIT);

    if (n <= 0) {
        if (!n || (errno != EAGAIN && errno != EINTR))
            gdb_detach(g);
        return;
    }
    g->in_size += (size_t)n;
    while (g->client.fd >= 0 && (rc = gdb_take_packet(g, packet, &size))) {
        if (rc == 2) {
            on_interrupt(g);
            continue;
        }
        if (!g->no_ack && send(g->client.fd, rc == 1 ? "+" : "-", 1, MSG_NOSIGNAL) != 1) {
            gdb_detach(g);
            return;
        }
        if (rc == 1)
            gdb_command(g, packet, size);
    }
}

static void on_listener(struct loop_fd *w, uint32_t events)
{
    struct gdb_server *g = w->arg;
    int one = 1;
    int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    if (g->client.fd >= 0) { /* one at a time */
        fd_close(fd);
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one,
                     sizeof(one)); /* not on unix sockets: no matter */
    g->client = (struct loop_fd){.fd = fd, .fn = on_client, .arg = g};
    if (loop_fd_add(g->loop, &g->client, EPOLLIN) < 0) {
        fd_close(fd);
        g->client.fd = -1;
        return;
    }
    g->in_size = 0;
    g->no_ack = g->running = g->interrupted = false;
    g->general = g->last_stop = 0;
    g->last_exit = (struct vcpu_exit){.reason = VCPU_EXIT_KICK};
    __atomic_store_n(&g->attached, true, __ATOMIC_RELAXED);
    g->target.stop(g->target.arg);
    gdb_apply_points(g, -1);
}

static int listen_unix(const char *path, struct gdb_server *g, struct error *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    cleanup(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (strlen(path) >= sizeof(sa.sun_path))
        return error_set(err, ENAMETOOLONG, "socket path '%s' is too long", path);
    memcpy(sa.sun_path, path, strlen(path) + 1);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(fd, 1))
        return error_set(err, errno, "cannot listen for a debugger at '%s': %s", path,
                         strerror(errno));
    g->unix_path = strdup(path);
    return fd_take(&fd);
}

static int listen_tcp(const char *address, struct error *err)
{
    char host[64] = "127.0.0.1";
    const char *colon = strrchr(address, ':');
    const char *port = colon ? colon + 1 : address;
    char *end;
    unsigned long number = strtoul(port, &end, 10);
    struct sockaddr_in sa = {.sin_family = AF_INET};
    int one = 1;

    if (colon && (size_t)(colon - address) < sizeof(host))
        (void)snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
    if (!*port || *end || !number || number > 65535 || inet_pton(AF_INET, host, &sa.sin_addr) != 1)
        return error_set(
            err, EINVAL,
            "'%s' is not a debugger address: expected PORT, ADDR:PORT or a socket's path", address);
    sa.sin_port = htons((uint16_t)number);
    cleanup(fd_closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)); /* only a convenience */
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || listen(fd, 1))
        return error_set(err, errno, "cannot listen for a debugger at %s port %lu: %s", host,
                         number, strerror(errno));
    return fd_take(&fd);
}

int gdb_new(struct loop *loop, const char *address, const struct gdb_target *target,
            struct gdb_server **ret, struct error *err)
{
    struct gdb_server *g = calloc(1, sizeof(*g));
    int rc;

    if (!g)
        return error_set(err, ENOMEM, "out of memory");
    g->loop = loop;
    g->target = *target;
    g->client.fd = g->listener.fd = -1;
    mutex_init(&g->lock);
    rc = strchr(address, '/') ? listen_unix(address, g, err) : listen_tcp(address, err);
    if (rc >= 0) {
        g->listener = (struct loop_fd){.fd = rc, .fn = on_listener, .arg = g};
        rc = loop_fd_add(loop, &g->listener, EPOLLIN);
        if (rc < 0)
            (void)error_set(err, -rc, "cannot watch the debugger's socket: %s", strerror(-rc));
    }
    if (rc < 0) {
        gdb_free(g);
        return rc;
    }
    *ret = g;
    return 0;
}

void gdb_exited(struct gdb_server *g, int status)
{
    g->out.size = 0;
    gdb_put(&g->out, "W%02x", status & 0xff);
    gdb_send(g);
}

bool gdb_is_attached(const struct gdb_server *g)
{
    return __atomic_load_n(&g->attached, __ATOMIC_RELAXED);
}

void gdb_free(struct gdb_server *g)
{
    if (!g)
        return;
    if (g->client.fd >= 0) {
        loop_fd_remove(g->loop, &g->client);
        fd_close(g->client.fd);
    }
    if (g->listener.fd >= 0) {
        loop_fd_remove(g->loop, &g->listener);
        fd_close(g->listener.fd);
    }
    if (g->unix_path)
        (void)unlink(g->unix_path); /* may be gone already */
    free(g->unix_path);
    mutex_done(&g->lock);
    free(g);
}
