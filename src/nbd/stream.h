/* The bytes of a connection: a socket, with or without TLS, or memory in the fuzz target. */
#ifndef NBD_STREAM_H
#define NBD_STREAM_H

#include "base/macros.h"

#include <sys/types.h>

struct nbd_tls;
struct nbd_stream;

struct nbd_stream_ops {
    ssize_t (*recv)(struct nbd_stream *s, void *buf, size_t size);
    int (*send)(struct nbd_stream *s, const void *buf, size_t size);
    bool (*has_more)(struct nbd_stream *s);
    void (*shutdown)(struct nbd_stream *s);
    void (*close)(struct nbd_stream *s);
};

struct nbd_stream {
    const struct nbd_stream_ops *ops;
    int64_t deadline_ns; /* of receiving, CLOCK_MONOTONIC; 0 = none. Its receiver's. */
};

/** @fd, a connected socket, which is taken. NULL: out of memory (then it is closed). */
struct nbd_stream *nbd_stream_new(int fd);

/** TLS over @plain, which is taken on success: the handshake has been done. -EPROTO, -ENOMEM. */
must_check int nbd_stream_tls(struct nbd_stream *plain, struct nbd_tls *tls,
                              struct nbd_stream **ret);

/** One thread receives: some bytes, 0 at the end, -errno (-ETIMEDOUT at the deadline). */
static inline ssize_t nbd_recv(struct nbd_stream *s, void *buf, size_t size)
{
    return s->ops->recv(s, buf, size);
}

/** All of it or -errno. One thread at a time, beside one that receives. */
static inline int nbd_send(struct nbd_stream *s, const void *buf, size_t size)
{
    return s->ops->send(s, buf, size);
}

/** Has the client sent more already? Its receiver's thread. A guess is allowed. */
static inline bool nbd_has_more(struct nbd_stream *s)
{
    return s->ops->has_more(s);
}

/** Make recv and send of other threads return. Any thread. */
static inline void nbd_shutdown(struct nbd_stream *s)
{
    s->ops->shutdown(s);
}

/** Nobody uses it any more. */
static inline void nbd_stream_close(struct nbd_stream *s)
{
    if (s)
        s->ops->close(s);
}

/** The descriptor of a plain stream; -1 for others. */
int nbd_stream_fd(struct nbd_stream *s);

#endif
