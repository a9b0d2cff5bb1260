/* What the files of nbd/ share. */
#ifndef NBD_NBD_INTERNAL_H
#define NBD_NBD_INTERNAL_H

#include "base/pool.h"
#include "base/thread.h"
#include "nbd/nbd.h"
#include "nbd/proto.h"
#include "nbd/stream.h"

#include <stdlib.h>

#define NBD_MAX_WORKERS   8u          /* of a connection, beside its own thread */
#define NBD_MAX_IN_FLIGHT 64u         /* requests given to workers */
#define NBD_MAX_BYTES     (64u << 20) /* of their data */
#define NBD_IN_BYTES      65536u
#define NBD_OUT_BYTES     (256u << 10)
#define NBD_HEADER_ROOM   64u /* before the data of a read, for the reply's header */

/** Metadata contexts: their bits in conn->contexts, and their numbers on the wire. The export's
 * bitmaps follow, from BITMAPS on. */
enum { NBD_CONTEXT_ALLOCATION = 1, NBD_CONTEXT_DEPTH = 2, NBD_CONTEXT_BITMAPS = 4 };
#define NBD_CONTEXT_NAME_BYTES (sizeof("qemu:dirty-bitmap:") + 1023) /* QCOW2's limit */

struct nbd_server {
    struct nbd_config config; /* [init] its strings are owned */
    struct mutex lock;
    struct nbd_conn *conns; /* [lock] */
    unsigned count;         /* [lock] */
    bool stopping;          /* [lock] */
    int left_fd;            /* [init] eventfd: a connection has ended */
};

struct nbd_request {
    struct pool_job job;   /* with a worker */
    struct nbd_conn *conn; /* likewise */
    enum nbd_command type;
    uint16_t flags;
    uint64_t cookie;
    uint64_t offset;
    uint32_t length;
    uint8_t *buf; /* NBD_HEADER_ROOM, then data: to read into, or that was sent; owned; or NULL */
    size_t data_bytes; /* room for data in buf */
};

struct nbd_conn {
    struct nbd_server *server;
    struct nbd_conn *next;     /* [server lock] */
    pthread_t thread;          /* [server lock] */
    bool ended;                /* [server lock] its thread is about to end */
    struct nbd_stream *stream; /* its thread's; changed under the server lock */
    bool structured;           /* [its thread, then constant] */
    unsigned contexts;         /* likewise */
    bool no_zeroes;            /* its thread's */
    uint8_t *in;               /* its thread's: NBD_IN_BYTES received */
    size_t in_pos, in_end;     /* its thread's: what is left there */
    uint8_t *out;              /* its thread's: replies not sent yet */
    size_t out_used;           /* its thread's */
    uint8_t *scratch;          /* its thread's: a buffer for data, kept */
    size_t scratch_bytes;      /* its thread's */
    unsigned alone;            /* its thread's: requests in a row that had no company */
    struct mutex send_lock;    /* who sends */
    bool broken;               /* [atomic] nothing more can be sent */
    struct mutex lock;
    struct cond room;     /* a request of the workers has ended */
    unsigned in_flight;   /* [lock] theirs, waiting ones included */
    size_t bytes;         /* [lock] of their data */
    struct pool *workers; /* its thread's; NULL until there is something for them */
};

/* conn.c */

/** A connection over @stream, which is taken also on failure; NULL: out of memory. */
struct nbd_conn *nbd_conn_new(struct nbd_server *server, struct nbd_stream *stream);
void nbd_conn_free(struct nbd_conn *c);

/** Negotiate and serve until the client leaves; its own thread. */
void nbd_conn_run(struct nbd_conn *c);

/** Exactly @size bytes; what is to be sent is sent first if that means waiting. 0 or -errno. */
must_check int nbd_conn_recv(struct nbd_conn *c, void *buf, size_t size);
must_check int nbd_conn_skip(struct nbd_conn *c, uint64_t size);

/** Send now; any thread. */
int nbd_conn_send(struct nbd_conn *c, const void *buf, size_t size);

/** Send soon: before the connection's thread waits for anything; that thread only. */
int nbd_conn_queue(struct nbd_conn *c, const void *buf, size_t size);
int nbd_conn_drain(struct nbd_conn *c);

/* handshake.c: 0 = go on to requests; -errno = close. */
must_check int nbd_handshake(struct nbd_conn *c);

/** Transmission flags of the export. */
uint16_t nbd_export_flags(const struct nbd_server *s);

/* request.c */

/** Receive and answer requests until the client leaves. */
void nbd_serve_requests(struct nbd_conn *c);

/** Carry @r out and answer; any thread. */
void nbd_execute(struct nbd_conn *c, struct nbd_request *r, bool own_thread);

/* reply.c: complete replies; @own_thread: to be sent soon. */

/** Errno @code (0 = done), without data. */
void nbd_reply(struct nbd_conn *c, const struct nbd_request *r, int code, bool own_thread);

/** The data of a read: @buf has it after its NBD_HEADER_ROOM. */
void nbd_reply_data(struct nbd_conn *c, const struct nbd_request *r, uint8_t *buf, bool own_thread);

/** A structured chunk of type @type, the last one if @done. */
void nbd_reply_chunk(struct nbd_conn *c, const struct nbd_request *r, unsigned type, bool done,
                     const void *payload, uint32_t size, bool own_thread);

/* status.c */
void nbd_block_status(struct nbd_conn *c, const struct nbd_request *r, bool own_thread);

/** Are all of [offset, offset+size) zeroes already? */
bool nbd_is_zero(struct nbd_conn *c, uint64_t offset, uint64_t size);

#endif
