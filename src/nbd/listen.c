/* Listening sockets. Any thread. */
#include "base/fd.h"
#include "nbd/nbd.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 64

/** Is @a, a socket's file, served by nobody? */
static bool is_left_over(const struct sockaddr_un *a)
{
    struct stat st;

    if (lstat(a->sun_path, &st) || !S_ISSOCK(st.st_mode))
        return false;
    cleanup(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof(*a)) && errno == ECONNREFUSED;
}

int nbd_listen_unix(const char *path, int *ret, struct error *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(a.sun_path))
        return error_set(err, ENAMETOOLONG, "the path '%s' is longer than a socket's may be (%zu)",
                         path, sizeof(a.sun_path) - 1);
    memcpy(a.sun_path, path, strlen(path));
    cleanup(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && is_left_over(&a))
        (void)unlink(path); /* else bind() says why not */
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, BACKLOG))
        return error_set(err, errno, "cannot listen at '%s': %s", path, strerror(errno));
    *ret = fd_take(&fd);
    return 0;
}

int nbd_listen_tcp(const char *host, uint16_t port, int *ret, struct error *err)
{
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int on = 1;

    host = host ? host : "127.0.0.1";
    bool is_v4 = inet_pton(AF_INET, host, &a4.sin_addr) == 1;
    if (!is_v4 && inet_pton(AF_INET6, host, &a6.sin6_addr) != 1)
        return error_set(err, EINVAL,
                         "expected a numeric address such as 127.0.0.1 or ::, not '%s'", host);
    cleanup(fd_closep) int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr *a = is_v4 ? (const struct sockaddr *)&a4 : (const struct sockaddr *)&a6;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
        bind(fd, a, is_v4 ? sizeof(a4) : sizeof(a6)) || listen(fd, BACKLOG))
        return error_set(err, errno, "cannot listen at %s, port %u: %s", host, port,
                         strerror(errno));
    *ret = fd_take(&fd);
    return 0;
}
