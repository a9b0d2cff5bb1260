/* Shared between the parts of the virtio socket device: vsock.c is the guest's side (queues,
 * packets, credit), vsock_host.c the host's (unix sockets). All is under the device's lock unless
 * it says otherwise. */
#ifndef DEVICE_VIRTIO_VSOCK_INTERNAL_H
#define DEVICE_VIRTIO_VSOCK_INTERNAL_H

#include "base/bits.h"
#include "base/loop.h"
#include "device/virtio/virtio.h"

/** §5.10.6 */
#define VSOCK_HEADER_BYTES 44u
#define VSOCK_HOST_CID     2u
#define VSOCK_STREAM       1u

enum vsock_op {
    VSOCK_REQUEST = 1,
    VSOCK_RESPONSE = 2,
    VSOCK_RST = 3,
    VSOCK_SHUTDOWN = 4,
    VSOCK_RW = 5,
    VSOCK_CREDIT_UPDATE = 6,
    VSOCK_CREDIT_REQUEST = 7,
};

/** Flags of a shutdown: its sender will not receive, not send. */
enum {
    VSOCK_NO_RECEIVE = 1,
    VSOCK_NO_SEND = 2,
};

/** A packet's header, in host order. */
struct vsock_packet {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t len;
    uint16_t type, op;
    uint32_t flags;
    uint32_t buf_alloc, fwd_cnt;
};

/** What the guest may send ahead of the host's reader, per connection. */
#define VSOCK_BUFFER (128u << 10)
#define VSOCK_MAX    512u /* connections, and clients on the way to be */
#define VSOCK_HASH   64u
#define VSOCK_RESETS 64u

/** "CONNECT 4294967295\n", with some room. */
#define VSOCK_LINE_MAX 32u

enum vsock_state {
    VSOCK_ASKING,    /* a client of the host's has not yet said where it wants to go */
    VSOCK_REQUESTED, /* the guest has not yet answered */
    VSOCK_OPEN,
    VSOCK_CLOSING, /* the guest was told that the host has closed; its RST is awaited */
};

/** What shall be sent to the guest, apart from data. */
enum {
    WANT_REQUEST = 1 << 0,
    WANT_RESPONSE = 1 << 1,
    WANT_CREDIT = 1 << 2,
    WANT_SHUTDOWN = 1 << 3,
};

struct vsock;

struct vsock_conn {
    struct vsock *vsock; /* [init] */
    enum vsock_state state;
    uint32_t host_port, guest_port;
    struct vsock_conn *hash_next;
    struct vsock_conn *ready_next;
    bool queued; /* in the list of those with something for the guest */
    unsigned want;

    int fd;
    char line[VSOCK_LINE_MAX + 1]; /* what a client has written of its first line */
    uint32_t line_size;
    struct loop_fd watch;
    bool watched;
    uint32_t events;
    bool readable;       /* fd has, or may have, something */
    bool hung_up;        /* the host's end is closed both ways: the watch is off */
    bool eof;            /* all that the host sent was read */
    unsigned guest_shut; /* flags of the guest's shutdowns */
    unsigned told_shut;  /* flags of ours */
    uint8_t *pending;    /* VSOCK_BUFFER bytes, when the host's socket was full */
    uint32_t pending_at, pending_size;

    uint32_t sent; /* bytes to the guest, modulo 2^32 */
    uint32_t peer_buf_alloc, peer_fwd_cnt;
    uint32_t forwarded;      /* bytes from the guest that reached the host, modulo 2^32 */
    uint32_t told_forwarded; /* as the guest knows it */
};

struct vsock {
    struct virtio_device dev;
    struct loop *loop;              /* [init] */
    uint64_t cid;                   /* [init] */
    int dir_fd;                     /* [init] O_PATH */
    struct loop_fd listener;        /* [init] */
    bool listening;                 /* [init] */
    struct loop_timer listen_again; /* [loop] after descriptors ran out */
    uint32_t next_port;             /* of host-initiated connections */
    struct vsock_conn *hash[VSOCK_HASH];
    unsigned count;
    struct vsock_conn *ready_first, **ready_last;
    struct vsock_packet resets[VSOCK_RESETS]; /* to be sent for what is no connection */
    unsigned reset_count;
    bool event_due;     /* the guest is to be told that all connections are gone */
    bool rx_held;       /* rx is a buffer taken and not yet used */
    struct vq_chain rx; /* */
    struct vq_chain tx; /* the packet in hand */
};

/** Send what there is to the guest, as far as it has buffers. */
void vsock_pump(struct vsock *v) REQUIRES(v->dev.lock);
/** Tell the guest that there is no connection, and end it. @c is gone. */
void vsock_reset_conn(struct vsock *v, struct vsock_conn *c) REQUIRES(v->dev.lock);
/** Note that @c may have something for the guest. */
void vsock_mark(struct vsock *v, struct vsock_conn *c) REQUIRES(v->dev.lock);

/** Make a connection for @fd, which is taken over, also on failure (NULL). */
struct vsock_conn *vsock_conn_new(struct vsock *v, int fd, uint32_t host_port, uint32_t guest_port)
    REQUIRES(v->dev.lock);
struct vsock_conn *vsock_conn_find(struct vsock *v, uint32_t host_port, uint32_t guest_port)
    REQUIRES(v->dev.lock);
/** End @c without a word to the guest. @c is gone. */
void vsock_conn_drop(struct vsock *v, struct vsock_conn *c) REQUIRES(v->dev.lock);

/** Listen on vsock.sock in the folder. */
must_check int vsock_listen(struct vsock *v, const char *dir, struct error *err);
void vsock_unlisten(struct vsock *v);
/** Connect to the socket that is named by @port: fd or -errno. Does not wait. */
must_check int vsock_connect(struct vsock *v, uint32_t port);
/** The guest has taken a host client's connection: tell the client. False: it is gone. */
bool vsock_greet(struct vsock_conn *c);
/** Read up to what @iov holds: bytes, 0 for nothing now (@c->readable is false) or at the end
 * (@c->eof). */
size_t vsock_read(struct vsock_conn *c, const struct iovec *iov, unsigned count);
/** Pass @size bytes of @iov on; what the host's socket does not take now is kept. False: broken. */
bool vsock_write(struct vsock_conn *c, const struct iovec *iov, unsigned count, size_t size);
/** Carry out the guest's shutdown as far as all its data has been passed on. */
void vsock_apply_shutdown(struct vsock_conn *c);
/** Have the loop watch what matters in @c's state. */
void vsock_watch(struct vsock *v, struct vsock_conn *c) REQUIRES(v->dev.lock);

#endif
