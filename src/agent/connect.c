/* The host's connection to an agent: greeting, requests, answers. See agent/agent.h.
 *
 * The device's greeting is "CONNECT <port>\n", answered by "OK <number>\n", and everything behind
 * that newline is the guest's. One thread per connection. */
#include "agent/agent_internal.h"
#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

enum { GREETING_MAX = 32, RETRY_MS = 20 };

int agent_open(int fd, struct agent **ret, struct error *err)
{
    int flags = fcntl(fd, F_GETFL);
    struct agent *a = calloc(1, sizeof(*a));

    if (!a || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK)) {
        int rc = error_set(err, a ? errno : ENOMEM, "cannot use the connection: %s",
                           strerror(a ? errno : ENOMEM));
        free(a);
        fd_close(fd);
        return rc;
    }
    wire_init(&a->wire, fd);
    *ret = a;
    return 0;
}

void agent_close(struct agent *a)
{
    if (!a)
        return;
    wire_done(&a->wire);
    free(a);
}

struct wire *agent_wire(struct agent *a)
{
    return &a->wire;
}

/** Connect to the device's socket; a folder's path may be longer than an address can hold.
 * -ECONNREFUSED without @err set: what is there was left by a machine that is gone, and one that
 * starts replaces it. */
static int connect_device(const char *dir, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup(fd_closep) int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/vsock.sock",
                   dir_fd);
    if (dir_fd < 0 || fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
        return errno == ECONNREFUSED
                   ? -errno
                   : error_set(err, errno, "cannot connect to '%s/vsock.sock': %s", dir,
                               strerror(errno));
    return fd_take(&fd);
}

/** Read the device's answer and not a byte more. False: it has refused, or time is up. */
static bool read_greeting(const struct wire *w, int64_t deadline_ns)
{
    char line[GREETING_MAX];
    size_t n = 0;

    while (n < sizeof(line)) {
        ssize_t got = recv(w->fd, line + n, 1, MSG_DONTWAIT);

        if (got == 1 && line[n++] == '\n')
            return n > 3 && !memcmp(line, "OK ", 3);
        if (!got || (got < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        if (got < 0 && wire_wait(w, POLLIN, deadline_ns))
            return false;
    }
    return false;
}

/** One attempt. *@ret is NULL when nobody listens in the guest. */
static int connect_once(const char *dir, int64_t deadline_ns, struct agent **ret, struct error *err)
{
    char line[GREETING_MAX];
    int n = snprintf(line, sizeof(line), "CONNECT %d\n", WIRE_PORT);
    int fd = connect_device(dir, err);

    *ret = NULL;
    if (fd < 0)
        return fd == -ECONNREFUSED ? 0 : fd;
    struct agent *a;
    int rc = agent_open(fd, &a, err);
    if (rc)
        return rc;
    if (send(fd, line, (size_t)n, MSG_NOSIGNAL) != n || !read_greeting(&a->wire, deadline_ns)) {
        agent_close(a);
        return 0;
    }
    *ret = a;
    return 0;
}

int agent_connect(const char *vsock_dir, int64_t deadline_ns, struct agent **ret, struct error *err)
{
    for (;;) {
        struct timespec pause = {.tv_nsec = RETRY_MS * 1000000L};
        struct agent *a;
        int rc = connect_once(vsock_dir, deadline_ns, &a, err);

        if (rc)
            return rc;
        if (a) {
            *ret = a;
            return 0;
        }
        if (host_now_ns() + pause.tv_nsec >= deadline_ns)
            return error_set(err, ECONNREFUSED,
                             "no agent answers in the guest: it is not up yet, or has none");
        (void)nanosleep(&pause, NULL); /* a signal only makes it shorter */
    }
}

int agent_lost(int rc, struct error *err)
{
    if (rc == -ETIMEDOUT)
        return error_set(err, -rc, "the guest's agent does not answer in time");
    if (rc == -ECONNRESET || rc == -EPIPE)
        return error_set(err, ECONNRESET, "the guest's agent has closed the connection");
    if (rc == -EPROTO)
        return error_set(err, -rc, "the guest's agent breaks the protocol");
    if (rc == -ECANCELED)
        return error_set(err, -rc, "cancelled");
    return error_set(err, -rc, "the connection to the guest's agent has failed: %s", strerror(-rc));
}

void agent_begin(struct agent *a, const char *verb)
{
    wire_begin(&a->wire, WIRE_REQUEST);
    wire_field(&a->wire, "verb", verb);
}

int agent_call(struct agent *a, int64_t deadline_ns, struct wire_frame *ret, struct error *err)
{
    int rc = wire_end(&a->wire);

    if (rc == -E2BIG)
        return error_set(err, E2BIG, "the request is longer than %d bytes", WIRE_BODY_MAX);
    if (!rc)
        rc = wire_flush_all(&a->wire, deadline_ns);
    if (!rc)
        rc = wire_recv(&a->wire, deadline_ns, ret);
    if (rc)
        return agent_lost(rc, err);
    if (ret->kind == WIRE_ERROR)
        return wire_error_take(ret, "the guest's agent", err);
    if (ret->kind != WIRE_REPLY || !wire_has_fields(ret))
        return agent_lost(-EPROTO, err);
    return 0;
}
