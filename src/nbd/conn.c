/* A connection: what it receives through a buffer, and what it sends, either at once or gathered.
 *
 * Invariants:
 *  1. Only the connection's own thread receives, and gathers replies in `out`; before it waits for
 *     the client it sends them.
 *  2. Whole replies are sent under `send_lock`, so they do not mix.
 *  3. After a failure of sending nothing more is sent and the socket is shut down, which ends the
 *     receiving too.
 *
 * Threads: as nbd_internal.h says of each function.
 */
#include "nbd/nbd_internal.h"

#include <errno.h>
#include <string.h>

struct nbd_conn *nbd_conn_new(struct nbd_server *server, struct nbd_stream *stream)
{
    struct nbd_conn *c = stream ? calloc(1, sizeof(*c)) : NULL;
    uint8_t *in = malloc(NBD_IN_BYTES);
    uint8_t *out = malloc(NBD_OUT_BYTES);

    if (!c || !in || !out) {
        free(c);
        free(in);
        free(out);
        nbd_stream_close(stream);
        return NULL;
    }
    c->server = server;
    c->stream = stream;
    c->in = in;
    c->out = out;
    mutex_init(&c->send_lock);
    mutex_init(&c->lock);
    cond_init(&c->room);
    return c;
}

void nbd_conn_free(struct nbd_conn *c)
{
    nbd_stream_close(c->stream);
    mutex_done(&c->send_lock);
    mutex_done(&c->lock);
    cond_done(&c->room);
    free(c->in);
    free(c->out);
    free(c->scratch);
    free(c);
}

void nbd_conn_run(struct nbd_conn *c)
{
    if (!nbd_handshake(c))
        nbd_serve_requests(c);
    (void)nbd_conn_drain(c); /* the last replies; nobody can be told that they are lost */
}

int nbd_conn_send(struct nbd_conn *c, const void *buf, size_t size)
{
    int rc = -EPIPE;

    mutex_lock(&c->send_lock);
    if (!__atomic_load_n(&c->broken, __ATOMIC_RELAXED)) { /* written under the same lock */
        rc = nbd_send(c->stream, buf, size);
        if (rc) {
            __atomic_store_n(&c->broken, true, __ATOMIC_RELAXED);
            nbd_shutdown(c->stream);
        }
    }
    mutex_unlock(&c->send_lock);
    return rc;
}

int nbd_conn_drain(struct nbd_conn *c)
{
    size_t size = c->out_used;

    c->out_used = 0;
    return size ? nbd_conn_send(c, c->out, size) : 0;
}

int nbd_conn_queue(struct nbd_conn *c, const void *buf, size_t size)
{
    int rc = 0;

    if (size > NBD_OUT_BYTES - c->out_used)
        rc = nbd_conn_drain(c);
    if (!rc && size > NBD_OUT_BYTES / 2)
        return nbd_conn_send(c, buf, size);
    if (!rc) {
        memcpy(c->out + c->out_used, buf, size);
        c->out_used += size;
    }
    return rc;
}

/** Receive at least one byte at @to; @size is not 0. The number, or -errno. */
static ssize_t recv_some(struct nbd_conn *c, void *to, size_t size)
{
    int rc = nbd_conn_drain(c);
    ssize_t n = rc ? rc : nbd_recv(c->stream, to, size);

    return n ? n : -ECONNRESET;
}

int nbd_conn_recv(struct nbd_conn *c, void *buf, size_t size)
{
    uint8_t *to = buf;

    while (size) {
        size_t part = MIN(size, c->in_end - c->in_pos);

        memcpy(to, c->in + c->in_pos, part);
        c->in_pos += part;
        to += part;
        size -= part;
        if (!size)
            break;
        bool is_large = size >= NBD_IN_BYTES; /* straight to where it belongs */
        ssize_t n = recv_some(c, is_large ? to : c->in, is_large ? size : NBD_IN_BYTES);
        if (n < 0)
            return (int)n;
        if (is_large) {
            to += n;
            size -= (size_t)n;
        } else {
            c->in_pos = 0;
            c->in_end = (size_t)n;
        }
    }
    return 0;
}

int nbd_conn_skip(struct nbd_conn *c, uint64_t size)
{
    uint8_t buf[4096];
    int rc = 0;

    while (!rc && size) {
        size_t part = (size_t)MIN(size, (uint64_t)sizeof(buf));

        rc = nbd_conn_recv(c, buf, part);
        size -= part;
    }
    return rc;
}
