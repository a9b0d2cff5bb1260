/* The calling end of the API. The buffer holds at most one line, and nothing behind it is read. One
 * thread at a time. */
#include "api/internal.h"
#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#define NS_PER_MS 1000000LL

enum { READ_SIZE = 4096 };

struct api_client {
    int fd;
    int64_t next_id;
    char *buf;
    size_t size, room;
    size_t seen; /* bytes of buf that hold no newline */
};

int api_client_open(const char *path, struct api_client **ret, struct error *err)
{
    struct sockaddr_un addr;
    socklen_t size;
    cleanup(fd_closep) int dir = -1;
    cleanup(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r = fd < 0 ? -errno : api_address(path, &addr, &size, &dir);

    if (!r && connect(fd, (struct sockaddr *)&addr, size))
        r = -errno;
    if (r)
        return error_set(err, -r, "cannot connect to '%s': %s", path, strerror(-r));
    if (!api_peer_is_ours(fd))
        return error_set(err, EPERM, "'%s' is served by another user", path);
    struct api_client *c = calloc(1, sizeof(*c));
    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    c->fd = fd_take(&fd);
    *ret = c;
    return 0;
}

void api_client_close(struct api_client *c)
{
    if (!c)
        return;
    fd_close(c->fd);
    free(c->buf);
    free(c);
}

int api_client_fd(const struct api_client *c)
{
    return c->fd;
}

/** fd_write_all() that a peer who left cannot kill us by. */
static int send_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

int api_client_send(struct api_client *c, const char *call, json_t *args, int64_t *ret_id,
                    struct error *err)
{
    json_t *m = json_pack("{s:I, s:s, s:o}", "id", (json_int_t)++c->next_id, "call", call, "args",
                          args ? args : json_object());
    cleanup(freep) char *text = m ? json_dumps(m, JSON_COMPACT) : NULL;
    size_t size = text ? strlen(text) : 0;

    json_decref(m);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    if (size > API_LINE_MAX)
        return error_set(err, E2BIG, "the call is longer than %d bytes", API_LINE_MAX);
    text[size] = '\n'; /* in place of the NUL */
    int r = send_all(c->fd, text, size + 1);
    if (ret_id)
        *ret_id = c->next_id;
    return r ? error_set(err, -r, "cannot send to the machine's monitor: %s", strerror(-r)) : 0;
}

/** Read more into the buffer. */
static int fill(struct api_client *c, int64_t deadline_ns, struct error *err)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    int64_t left = deadline_ns == INT64_MAX ? -1 : (deadline_ns - host_now_ns()) / NS_PER_MS + 1;

    if (c->size > API_LINE_MAX)
        return error_set(err, EPROTO, "the machine's monitor sends a line without end");
    if (c->room - c->size < READ_SIZE) {
        char *grown = realloc(c->buf, c->room + c->room / 2 + READ_SIZE);
        if (!grown)
            return error_set(err, ENOMEM, "out of memory");
        c->buf = grown;
        c->room += c->room / 2 + READ_SIZE;
    }
    if (deadline_ns != INT64_MAX)
        left = MAX(left, (int64_t)0); /* too late to wait, but not to take what has come */
    int n = poll(&p, 1, (int)MIN(left, (int64_t)60000));
    if (n < 0 && errno == EINTR)
        return 0;
    if (!n && deadline_ns != INT64_MAX && host_now_ns() >= deadline_ns)
        return error_set(err, ETIMEDOUT, "the machine's monitor does not answer");
    if (n <= 0)
        return n ? error_set(err, errno, "cannot wait: %s", strerror(errno)) : 0;
    /* not beyond the line's end: what follows may be a stream of bytes for somebody else */
    ssize_t got = recv(c->fd, c->buf + c->size, c->room - c->size, MSG_DONTWAIT | MSG_PEEK);
    const char *eol = got > 0 ? memchr(c->buf + c->size, '\n', (size_t)got) : NULL;
    if (got > 0)
        got = recv(c->fd, c->buf + c->size,
                   eol ? (size_t)(eol - c->buf) - c->size + 1 : (size_t)got, MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (got <= 0)
        return error_set(err, ECONNRESET, "the machine's monitor has ended");
    c->size += (size_t)got;
    return 0;
}

int api_client_receive(struct api_client *c, int64_t deadline_ns, struct api_message *ret,
                       struct error *err)
{
    char *eol;

    while (!c->size || !(eol = memchr(c->buf + c->seen, '\n', c->size - c->seen))) {
        c->seen = c->size;
        int r = fill(c, deadline_ns, err);
        if (r)
            return r;
    }
    int r = api_parse(c->buf, (size_t)(eol - c->buf), ret, err);
    c->size = c->seen = 0;
    return r == -EINVAL ? -EPROTO : r;
}

int api_client_call(struct api_client *c, const char *call, json_t *args, int64_t deadline_ns,
                    void (*progress)(json_t *p, void *arg), void *arg, json_t **ret,
                    struct error *err)
{
    int64_t id;
    int r = api_client_send(c, call, args, &id, err);

    for (bool done = false; !r && !done;) {
        struct api_message m;
        r = api_client_receive(c, deadline_ns, &m, err);
        if (r)
            break;
        done = m.id == id && (m.kind == API_RESULT || m.kind == API_ERROR);
        if (m.id == id && m.kind == API_PROGRESS && progress)
            progress(m.body, arg);
        if (done && m.kind == API_ERROR)
            r = api_error_of(&m, err);
        else if (done && ret)
            *ret = json_incref(m.body);
        api_message_done(&m);
    }
    return r;
}

int api_client_take_fd(struct api_client *c)
{
    int fd = fd_take(&c->fd);

    api_client_close(c);
    return fd;
}
