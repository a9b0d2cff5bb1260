/* A host descriptor of any kind as a non-blocking byte stream.
 *
 * Sockets have a flag per call. Pipes and terminals are opened a second time through /proc, which
 * makes an open file description of our own. Files never block for long. What is left (a terminal
 * of another user, no /proc) is polled before each small transfer.
 *
 * Threads: the caller's lock.
 */
#include "device/virtio/stream.h"
#include "base/fd.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define TIMID_BYTES 512 /* what a pipe or terminal that polls ready takes without blocking */

/** A second opening of @fd that does not block, or -errno. */
static int open_again(int fd, bool write)
{
    char path[32];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int again = open(path, (write ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    return again < 0 ? -errno : again;
}

/** A descriptor of our own (so that one that is used both ways can be watched twice), which does
 * not block or is handled so; -errno. */
static int adopt(struct stream *s, int fd, bool write)
{
    struct stat st;

    if (fstat(fd, &st))
        return -errno;
    s->socket = S_ISSOCK(st.st_mode);
    bool blocks = !s->socket && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode) &&
                  !(fcntl(fd, F_GETFL) & O_NONBLOCK);
    /* Opening a pseudo-terminal's master again would make another pseudo-terminal. */
    bool ptmx = S_ISCHR(st.st_mode) && st.st_rdev == makedev(5, 2);
    int own = blocks && !ptmx ? open_again(fd, write) : -1;
    s->timid = blocks && own < 0;
    if (own < 0)
        own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return own < 0 ? -errno : own;
}

void stream_open(struct stream *s, struct loop *loop, int fd, bool write,
                 void (*fn)(struct loop_fd *w, uint32_t events), void *arg)
{
    *s = (struct stream){.fd = -1, .events = write ? EPOLLOUT : EPOLLIN, .loop = loop};
    int own = fd < 0 ? -1 : adopt(s, fd, write);
    if (own < 0)
        return;
    s->fd = own;
    s->watch = (struct loop_fd){.fd = own, .fn = fn, .arg = arg};
    /* Files and their like (/dev/null) refuse to be watched. */
    s->always_ready = loop_fd_add(loop, &s->watch, s->events) == -EPERM;
    if (!s->always_ready)
        loop_fd_remove(loop, &s->watch);
}

void stream_close(struct stream *s)
{
    stream_watch(s, false);
    fd_close(fd_take(&s->fd));
}

void stream_watch(struct stream *s, bool on)
{
    if (s->fd < 0 || s->always_ready || s->watching == on)
        return;
    if (!on)
        loop_fd_remove(s->loop, &s->watch);
    else if (loop_fd_add(s->loop, &s->watch, s->events))
        return; /* out of memory: the next call tries again */
    s->watching = on;
}

/** May a transfer be tried? */
static bool may_try(const struct stream *s, short events)
{
    struct pollfd p = {.fd = s->fd, .events = events};

    return !s->timid || poll(&p, 1, 0) > 0;
}

ssize_t stream_read(struct stream *s, void *buf, size_t size)
{
    ssize_t n;

    if (s->fd < 0)
        return 0;
    do {
        if (!may_try(s, POLLIN))
            return -EAGAIN;
        n = s->socket ? recv(s->fd, buf, size, MSG_DONTWAIT) : read(s->fd, buf, size);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t stream_write(struct stream *s, const void *buf, size_t size)
{
    ssize_t n;

    if (s->fd < 0)
        return -EPIPE;
    if (s->timid)
        size = MIN(size, (size_t)TIMID_BYTES);
    do {
        if (!may_try(s, POLLOUT))
            return -EAGAIN;
        n = s->socket ? send(s->fd, buf, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                      : write(s->fd, buf, size);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}
