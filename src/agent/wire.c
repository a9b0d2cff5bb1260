/* Messages between host and agent: framing, fields, buffers. See agent/wire.h, docs/agent.md.
 *
 * Invariants:
 *  1. in[in_at..in_size) was read and not yet handed out; out[out_at..out_size) waits to be sent.
 *  2. A buffer grows to the size of one message that was announced, and that is at most
 *     WIRE_BODY_MAX; on the way out it is the sender's to flush before it gathers much.
 * One thread. */
#include "agent/wire.h"

#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BUFFER_MIN = WIRE_CHUNK + WIRE_HEADER_BYTES };

void wire_init(struct wire *w, int fd)
{
    *w = (struct wire){.fd = fd};
}

void wire_done(struct wire *w)
{
    fd_close(w->fd);
    free(w->in);
    free(w->out);
    *w = (struct wire){.fd = -1};
}

/** Room for @size more bytes behind the @used first ones of a buffer. */
static bool make_room(uint8_t **buffer, size_t *room, size_t used, size_t size)
{
    size_t want = MAX(used + size, (size_t)BUFFER_MIN);

    if (want <= *room)
        return true;
    want = MAX(want, MIN(*room * 2, (size_t)WIRE_BODY_MAX));
    uint8_t *p = realloc(*buffer, want);
    if (!p)
        return false;
    *buffer = p;
    *room = want;
    return true;
}

void *wire_room(struct wire *w, size_t size)
{
    if (w->out_failed)
        return NULL;
    if (w->out_at) { /* what was sent makes room first */
        memmove(w->out, w->out + w->out_at, w->out_size - w->out_at);
        w->out_size -= w->out_at;
        w->begun -= w->out_at;
        w->out_at = 0;
    }
    if (!make_room(&w->out, &w->out_room, w->out_size, size)) {
        w->out_failed = -ENOMEM;
        return NULL;
    }
    return w->out + w->out_size;
}

void wire_grew(struct wire *w, size_t size)
{
    w->out_size += size;
}

void wire_begin(struct wire *w, enum wire_kind kind)
{
    w->begun = w->out_size;
    w->out_failed = 0;
    uint8_t *header = wire_room(w, WIRE_HEADER_BYTES);
    if (!header)
        return;
    memset(header, 0, WIRE_HEADER_BYTES);
    header[4] = (uint8_t)kind;
    wire_grew(w, WIRE_HEADER_BYTES);
}

void wire_field(struct wire *w, const char *key, const char *value)
{
    size_t key_size = strlen(key), value_size = strlen(value) + 1;

    if (!w->out_failed && key_size + value_size > WIRE_BODY_MAX)
        w->out_failed = -E2BIG;
    char *p = wire_room(w, key_size + 1 + value_size);
    if (!p)
        return;
    memcpy(p, key, key_size);
    p[key_size] = '=';
    memcpy(p + key_size + 1, value, value_size);
    wire_grew(w, key_size + 1 + value_size);
    if (w->out_size - w->begun > WIRE_BODY_MAX + WIRE_HEADER_BYTES)
        w->out_failed = -E2BIG;
}

void wire_field_int(struct wire *w, const char *key, int64_t value)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%lld", (long long)value);
    wire_field(w, key, text);
}

int wire_end(struct wire *w)
{
    size_t size = w->out_size - w->begun - WIRE_HEADER_BYTES;

    if (w->out_failed) {
        w->out_size = w->begun;
        return w->out_failed;
    }
    store_le32(w->out + w->begun, (uint32_t)size);
    return 0;
}

int wire_add(struct wire *w, enum wire_kind kind, const void *data, size_t size)
{
    wire_begin(w, kind);
    void *p = wire_room(w, size);
    if (p && size) {
        memcpy(p, data, size);
        wire_grew(w, size);
    }
    return wire_end(w);
}

int wire_add_int(struct wire *w, enum wire_kind kind, const char *key, int64_t value)
{
    wire_begin(w, kind);
    wire_field_int(w, key, value);
    return wire_end(w);
}

size_t wire_pending(const struct wire *w)
{
    return w->out_size - w->out_at;
}

int wire_flush(struct wire *w)
{
    while (w->out_at < w->out_size) {
        ssize_t n =
            send(w->fd, w->out + w->out_at, w->out_size - w->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        w->out_at += (size_t)n;
    }
    w->out_at = w->out_size = 0;
    return 0;
}

int wire_wait(const struct wire *w, short events, int64_t deadline_ns)
{
    for (;;) {
        struct pollfd p = {.fd = w->fd, .events = events};
        int64_t left_ns = deadline_ns - host_now_ns();
        int64_t ms = deadline_ns == INT64_MAX ? -1 : MAX((left_ns + 999999) / 1000000, (int64_t)0);
        int n = poll(&p, 1, (int)MIN(ms, (int64_t)INT32_MAX));

        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
        if (!n && deadline_ns != INT64_MAX && host_now_ns() >= deadline_ns)
            return -ETIMEDOUT;
    }
}

int wire_flush_all(struct wire *w, int64_t deadline_ns)
{
    int rc = wire_flush(w);

    while (!rc && wire_pending(w)) {
        rc = wire_wait(w, POLLOUT, deadline_ns);
        if (!rc)
            rc = wire_flush(w);
    }
    return rc;
}

ssize_t wire_fill(struct wire *w)
{
    if (w->in_at == w->in_size)
        w->in_at = w->in_size = 0;
    if (!w->in && !make_room(&w->in, &w->in_room, 0, 0))
        return -ENOMEM;
    if (w->in_size == w->in_room) { /* wire_next() has seen to it that a message fits */
        memmove(w->in, w->in + w->in_at, w->in_size - w->in_at);
        w->in_size -= w->in_at;
        w->in_at = 0;
    }
    ssize_t n = recv(w->fd, w->in + w->in_size, w->in_room - w->in_size, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (!n)
        return -ECONNRESET;
    w->in_size += (size_t)n;
    return n;
}

int wire_next(struct wire *w, struct wire_frame *ret)
{
    size_t have = w->in_size - w->in_at;

    if (have < WIRE_HEADER_BYTES)
        return 0;
    const uint8_t *p = w->in + w->in_at;
    size_t size = load_le32(p);
    if (size > WIRE_BODY_MAX || p[4] < WIRE_REQUEST || p[4] > WIRE_END || p[5] || p[6] || p[7])
        return -EPROTO;
    if (have - WIRE_HEADER_BYTES < size) {
        if (w->in_at + WIRE_HEADER_BYTES + size > w->in_room) {
            memmove(w->in, p, have);
            w->in_at = 0;
            w->in_size = have;
        }
        return make_room(&w->in, &w->in_room, WIRE_HEADER_BYTES, size) ? 0 : -ENOMEM;
    }
    *ret = (struct wire_frame){.kind = p[4], .body = p + WIRE_HEADER_BYTES, .size = size};
    w->in_at += WIRE_HEADER_BYTES + size;
    return 1;
}

int wire_recv(struct wire *w, int64_t deadline_ns, struct wire_frame *ret)
{
    for (;;) {
        int rc = wire_next(w, ret);

        if (rc)
            return rc < 0 ? rc : 0;
        ssize_t n = wire_fill(w);
        if (n < 0)
            return (int)n;
        rc = n ? 0 : wire_wait(w, POLLIN, deadline_ns);
        if (rc)
            return rc;
    }
}

bool wire_is_readable(const struct wire *w)
{
    struct pollfd p = {.fd = w->fd, .events = POLLIN};

    return w->in_at < w->in_size || poll(&p, 1, 0) > 0;
}

bool wire_has_fields(const struct wire_frame *f)
{
    const char *p = (const char *)f->body, *end = p + f->size;

    if (f->size && end[-1])
        return false;
    for (; p < end; p += strlen(p) + 1) {
        const char *equals = strchr(p, '=');

        if (!equals || equals == p)
            return false;
    }
    return true;
}

const char *wire_each(const struct wire_frame *f, const char *key, const char **at)
{
    const char *p = *at ? *at + strlen(*at) + 1 : (const char *)f->body;
    const char *end = (const char *)f->body + f->size;
    size_t n = strlen(key);

    for (; p < end; p += strlen(p) + 1) {
        if (!strncmp(p, key, n) && p[n] == '=')
            return *at = p + n + 1;
    }
    return NULL;
}

const char *wire_find(const struct wire_frame *f, const char *key)
{
    const char *at = NULL;

    return wire_each(f, key, &at);
}

int wire_find_int(const struct wire_frame *f, const char *key, int64_t min, int64_t max,
                  int64_t def, int64_t *ret)
{
    const char *text = wire_find(f, key);
    char *end;

    if (!text) {
        *ret = def;
        return 0;
    }
    if ((text[0] < '0' || text[0] > '9') && text[0] != '-')
        return -EPROTO;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < min || v > max)
        return -EPROTO;
    *ret = v;
    return 0;
}
