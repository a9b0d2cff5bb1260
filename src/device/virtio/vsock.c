/* virtio socket device, the guest's side: packets, credit, connections. Spec: VIRTIO 1.2 §5.10.
 * The host's side is vsock_host.c.
 *
 * Queues: 0 to the guest, 1 from it, 2 events (of which there is one: after a saved state was
 * loaded).
 *
 * Invariants:
 *  1. The guest is sent no more than its credit, and is given credit for VSOCK_BUFFER bytes a
 *     connection; a connection that exceeds it is reset.
 *  2. `ready` holds each connection that may have something for the guest, once.
 *  3. A buffer of the guest's, once taken, is used for the next packet (`rx_held`).
 *
 * Threads: see vsock_host.c.
 */
#include "device/virtio/vsock.h"
#include "base/iov.h"
#include "base/log.h"
#include "device/virtio/vsock_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUE_COUNT };

#define CONFIG_BYTES 8u /* §5.10.4: the CID */

/** Packets taken from the guest before others on the loop get their turn. */
#define TX_BATCH 128u

static struct vsock *to_vsock(struct virtio_device *dev)
{
    return container_of(dev, struct vsock, dev);
}

static void packet_load(struct vsock_packet *p, const uint8_t *raw)
{
    *p = (struct vsock_packet){
        .src_cid = load_le64(raw),
        .dst_cid = load_le64(raw + 8),
        .src_port = load_le32(raw + 16),
        .dst_port = load_le32(raw + 20),
        .len = load_le32(raw + 24),
        .type = load_le16(raw + 28),
        .op = load_le16(raw + 30),
        .flags = load_le32(raw + 32),
        .buf_alloc = load_le32(raw + 36),
        .fwd_cnt = load_le32(raw + 40),
    };
}

static void packet_store(const struct vsock_packet *p, uint8_t *raw)
{
    store_le64(raw, p->src_cid);
    store_le64(raw + 8, p->dst_cid);
    store_le32(raw + 16, p->src_port);
    store_le32(raw + 20, p->dst_port);
    store_le32(raw + 24, p->len);
    store_le16(raw + 28, p->type);
    store_le16(raw + 30, p->op);
    store_le32(raw + 32, p->flags);
    store_le32(raw + 36, p->buf_alloc);
    store_le32(raw + 40, p->fwd_cnt);
}

void vsock_mark(struct vsock *v, struct vsock_conn *c)
{
    if (c->queued)
        return;
    c->queued = true;
    c->ready_next = NULL;
    *v->ready_last = c;
    v->ready_last = &c->ready_next;
}

/** Have the guest told that there is no connection between these ports. */
static void add_reset(struct vsock *v, uint32_t host_port, uint32_t guest_port, uint16_t type)
    REQUIRES(v->dev.lock)
{
    if (v->reset_count == VSOCK_RESETS)
        return; /* a guest that takes none of them: its own connections time out */
    v->resets[v->reset_count++] = (struct vsock_packet){
        .src_cid = VSOCK_HOST_CID,
        .dst_cid = v->cid,
        .src_port = host_port,
        .dst_port = guest_port,
        .type = type,
        .op = VSOCK_RST,
    };
}

void vsock_reset_conn(struct vsock *v, struct vsock_conn *c)
{
    add_reset(v, c->host_port, c->guest_port, VSOCK_STREAM);
    vsock_conn_drop(v, c);
}

/** How much the guest has room for. */
static uint32_t credit(const struct vsock_conn *c)
{
    uint32_t in_flight = c->sent - c->peer_fwd_cnt;

    return in_flight < c->peer_buf_alloc ? c->peer_buf_alloc - in_flight : 0;
}

static bool may_send_data(const struct vsock_conn *c)
{
    return c->state == VSOCK_OPEN && c->readable && !(c->guest_shut & VSOCK_NO_RECEIVE) &&
           credit(c);
}

/** Take a buffer for a packet to the guest. */
static bool take_buffer(struct vsock *v) REQUIRES(v->dev.lock)
{
    struct vq *q = &v->dev.queues[QUEUE_RX];

    while (!v->rx_held) {
        int rc = vq_pop(q, &v->rx);

        if (rc < 0)
            return false;
        if (rc) {
            if (v->rx.in_bytes <= VSOCK_HEADER_BYTES) {
                (void)virtio_break(&v->dev, "receive buffer of %zu bytes", v->rx.in_bytes);
                return false;
            }
            v->rx_held = true;
            break;
        }
        vq_set_notify(q, true); /* then look once more: one may have come in between */
        if (!vq_has_work(q))
            return false;
    }
    return true;
}

static void give_packet(struct vsock *v, const struct vsock_packet *p) REQUIRES(v->dev.lock)
{
    uint8_t raw[VSOCK_HEADER_BYTES];

    packet_store(p, raw);
    (void)vq_write(&v->rx, 0, raw, sizeof(raw)); /* it has room for a header and more */
    vq_push(&v->dev.queues[QUEUE_RX], &v->rx, sizeof(raw) + p->len);
    v->rx_held = false;
}

/** What control packet is due? Fills op and flags. */
static bool next_control(struct vsock_conn *c, struct vsock_packet *p)
{
    if (c->want & WANT_REQUEST) {
        c->want &= ~(unsigned)WANT_REQUEST;
        p->op = VSOCK_REQUEST;
    } else if (c->want & WANT_RESPONSE) {
        c->want &= ~(unsigned)WANT_RESPONSE;
        p->op = VSOCK_RESPONSE;
    } else if (c->want & WANT_CREDIT) {
        c->want &= ~(unsigned)WANT_CREDIT;
        p->op = VSOCK_CREDIT_UPDATE;
    } else if ((c->want & WANT_SHUTDOWN) && !may_send_data(c)) {
        c->want &= ~(unsigned)WANT_SHUTDOWN;
        p->op = VSOCK_SHUTDOWN;
        p->flags = c->hung_up ? VSOCK_NO_RECEIVE | VSOCK_NO_SEND : VSOCK_NO_SEND;
        c->told_shut = p->flags;
        if (p->flags == (VSOCK_NO_RECEIVE | VSOCK_NO_SEND))
            c->state = VSOCK_CLOSING;
    } else {
        return false;
    }
    return true;
}

/** Fill the held buffer with @c's next packet. False: it has none now. */
static bool next_packet(struct vsock *v, struct vsock_conn *c, struct vsock_packet *p)
    REQUIRES(v->dev.lock)
{
    struct iovec iov[VQ_MAX_IOV];

    *p = (struct vsock_packet){
        .src_cid = VSOCK_HOST_CID,
        .dst_cid = v->cid,
        .src_port = c->host_port,
        .dst_port = c->guest_port,
        .type = VSOCK_STREAM,
        .op = VSOCK_RW,
        .buf_alloc = VSOCK_BUFFER,
        .fwd_cnt = c->forwarded,
    };
    if (!next_control(c, p)) {
        if (!may_send_data(c))
            return false;
        unsigned n = iov_slice(iov, v->rx.iov + v->rx.out_count, v->rx.in_count, VSOCK_HEADER_BYTES,
                               credit(c));
        p->len = (uint32_t)vsock_read(c, iov, n);
        c->sent += p->len;
        if (!p->len) {
            if (c->eof)
                c->want |= WANT_SHUTDOWN;
            vsock_watch(v, c);
            if (!next_control(c, p))
                return false;
        }
    }
    c->told_forwarded = c->forwarded;
    return true;
}

void vsock_pump(struct vsock *v)
{
    struct vsock_packet p;
    bool gave = false;

    while ((v->reset_count || v->ready_first) && take_buffer(v)) {
        if (v->reset_count) {
            give_packet(v, &v->resets[0]);
            v->reset_count--;
            memmove(v->resets, v->resets + 1, v->reset_count * sizeof(v->resets[0]));
            gave = true;
            continue;
        }
        struct vsock_conn *c = v->ready_first;
        v->ready_first = c->ready_next;
        if (!v->ready_first)
            v->ready_last = &v->ready_first;
        c->queued = false;
        if (next_packet(v, c, &p)) {
            give_packet(v, &p);
            gave = true;
            vsock_mark(v, c); /* behind the others */
        }
    }
    if (gave)
        virtio_notify(&v->dev, QUEUE_RX);
}

static void handle_request(struct vsock *v, const struct vsock_packet *p) REQUIRES(v->dev.lock)
{
    int fd = vsock_connect(v, p->dst_port);
    struct vsock_conn *c = fd < 0 ? NULL : vsock_conn_new(v, fd, p->dst_port, p->src_port);

    if (!c) {
        add_reset(v, p->dst_port, p->src_port, VSOCK_STREAM);
        return;
    }
    c->state = VSOCK_OPEN;
    c->peer_buf_alloc = p->buf_alloc;
    c->peer_fwd_cnt = p->fwd_cnt;
    c->want = WANT_RESPONSE;
    vsock_watch(v, c);
    vsock_mark(v, c);
}

/** The guest's data. False: the connection is to be reset. */
static bool handle_data(struct vsock *v, struct vsock_conn *c, const struct vsock_packet *p)
    REQUIRES(v->dev.lock)
{
    struct iovec iov[VQ_MAX_IOV];

    if (c->state == VSOCK_CLOSING)
        return true; /* it crossed our shutdown: nobody reads it any more */
    if (c->state != VSOCK_OPEN || (c->guest_shut & VSOCK_NO_SEND))
        return false;
    unsigned n = iov_slice(iov, v->tx.iov, v->tx.out_count, VSOCK_HEADER_BYTES, p->len);
    if (!vsock_write(c, iov, n, p->len))
        return false;
    if (c->forwarded - c->told_forwarded >= VSOCK_BUFFER / 2)
        c->want |= WANT_CREDIT;
    return true;
}

/** A packet for connection @c. False: it is to be reset. */
static bool handle(struct vsock *v, struct vsock_conn *c, const struct vsock_packet *p)
    REQUIRES(v->dev.lock)
{
    c->peer_buf_alloc = p->buf_alloc;
    c->peer_fwd_cnt = p->fwd_cnt;
    switch (p->op) {
    case VSOCK_RESPONSE:
        if (c->state != VSOCK_REQUESTED || (c->want & WANT_REQUEST))
            return false;
        c->state = VSOCK_OPEN;
        return vsock_greet(c);
    case VSOCK_SHUTDOWN:
        c->guest_shut |= p->flags & (VSOCK_NO_RECEIVE | VSOCK_NO_SEND);
        if (c->state != VSOCK_OPEN && c->state != VSOCK_CLOSING)
            return false;
        vsock_apply_shutdown(c);
        /* Both ways: answered by a reset, once all its data is through (§5.10.6.5). */
        return c->guest_shut != (VSOCK_NO_RECEIVE | VSOCK_NO_SEND) ||
               (c->pending_size && c->state == VSOCK_OPEN);
    case VSOCK_RW:
        return handle_data(v, c, p);
    case VSOCK_CREDIT_UPDATE:
        return true;
    case VSOCK_CREDIT_REQUEST:
        c->want |= WANT_CREDIT;
        return true;
    default: /* a second request, or what is no operation: numbers from outside */
        return false;
    }
}

/** The packet in hand. */
static void handle_packet(struct vsock *v) REQUIRES(v->dev.lock)
{
    uint8_t raw[VSOCK_HEADER_BYTES];
    struct vsock_packet p;

    if (vq_read(&v->tx, 0, raw, sizeof(raw)) < sizeof(raw)) {
        guest_error("vsock", "packet of %zu bytes", v->tx.out_bytes);
        return;
    }
    packet_load(&p, raw);
    if (p.src_cid != v->cid || p.len > v->tx.out_bytes - sizeof(raw)) {
        guest_error("vsock", "packet from CID %llu with length %u in %zu bytes",
                    (unsigned long long)p.src_cid, p.len, v->tx.out_bytes);
        return;
    }
    struct vsock_conn *c = NULL;
    if (p.dst_cid == VSOCK_HOST_CID && p.type == VSOCK_STREAM && p.dst_port)
        c = vsock_conn_find(v, p.dst_port, p.src_port);
    if (p.op == VSOCK_RST) {
        if (c)
            vsock_conn_drop(v, c);
    } else if (!c) {
        if (p.op == VSOCK_REQUEST && p.dst_cid == VSOCK_HOST_CID && p.type == VSOCK_STREAM &&
            p.dst_port)
            handle_request(v, &p);
        else
            add_reset(v, p.dst_port, p.src_port, p.type);
    } else if (handle(v, c, &p)) {
        vsock_watch(v, c);
        vsock_mark(v, c);
    } else {
        vsock_reset_conn(v, c);
    }
}

static void receive_packets(struct vsock *v) REQUIRES(v->dev.lock)
{
    struct vq *q = &v->dev.queues[QUEUE_TX];
    unsigned count = 0;

    vq_set_notify(q, false);
    for (;;) {
        if (count++ == TX_BATCH) {
            virtio_kick_later(&v->dev, QUEUE_TX);
            break;
        }
        if (vq_pop(q, &v->tx) > 0) {
            handle_packet(v);
            vq_push(q, &v->tx, 0);
            continue;
        }
        vq_set_notify(q, true);
        if (!vq_has_work(q))
            break;
        vq_set_notify(q, false);
    }
    virtio_notify(&v->dev, QUEUE_TX);
    vsock_pump(v);
}

/** §5.10.6.7: all connections are gone, and the CID may be another. */
static void send_event(struct vsock *v) REQUIRES(v->dev.lock)
{
    static const uint8_t transport_reset[4] = {0};
    struct vq *q = &v->dev.queues[QUEUE_EVENT];

    if (!v->event_due || vq_pop(q, &v->tx) <= 0)
        return;
    v->event_due = false;
    vq_push(q, &v->tx, vq_write(&v->tx, 0, transport_reset, sizeof(transport_reset)));
    virtio_notify(&v->dev, QUEUE_EVENT);
}

/** With the lock held; clang does not see that v->dev is *dev. */
static void kick(struct virtio_device *dev, unsigned index) NO_THREAD_SAFETY
{
    struct vsock *v = to_vsock(dev);

    switch (index) {
    case QUEUE_RX:
        vsock_pump(v);
        break;
    case QUEUE_TX:
        receive_packets(v);
        break;
    case QUEUE_EVENT:
        send_event(v);
        break;
    }
}

static void drop_all(struct vsock *v) REQUIRES(v->dev.lock)
{
    for (unsigned i = 0; i < VSOCK_HASH; i++) {
        while (v->hash[i])
            vsock_conn_drop(v, v->hash[i]);
    }
    v->reset_count = 0;
    v->rx_held = false;
    v->event_due = false;
}

/** With the lock held; as above. */
static void reset(struct virtio_device *dev) NO_THREAD_SAFETY
{
    drop_all(to_vsock(dev));
}

static void config_read(struct virtio_device *dev, unsigned offset, void *buf, unsigned size)
{
    uint8_t config[CONFIG_BYTES];

    store_le64(config, to_vsock(dev)->cid);
    memcpy(buf, config + offset, size);
}

static unsigned held(struct virtio_device *dev, unsigned index)
{
    return index == QUEUE_RX && to_vsock(dev)->rx_held;
}

/** Connections do not outlive a saved state: their other ends are processes of a host. */
static int load(struct virtio_device *dev, const struct state_section *s, struct error *err)
{
    to_vsock(dev)->event_due = dev->status & VIRTIO_DRIVER_OK;
    return 0;
}

static void vsock_free(struct virtio_device *dev)
{
    struct vsock *v = to_vsock(dev);

    vsock_unlisten(v);
    mutex_lock(&v->dev.lock);
    drop_all(v);
    mutex_unlock(&v->dev.lock);
    loop_sync(v->loop); /* what was dropped is freed, and no call is under way */
    virtio_done(dev);
    free(v);
}

static const struct virtio_ops vsock_ops = {
    .name = "vsock",
    .device_id = 19,
    .reset = reset,
    .kick = kick,
    .config_read = config_read,
    .held = held,
    .load = load,
    .free = vsock_free,
};

int virtio_vsock_new(struct mem *mem, struct loop *loop, const struct virtio_vsock_config *config,
                     struct virtio_device **ret, struct error *err)
{
    struct vsock *v;

    if (config->cid < 3 || config->cid >= UINT32_MAX)
        return error_set(err, EINVAL, "the guest's CID %llu is not between 3 and 4294967294",
                         (unsigned long long)config->cid);
    v = calloc(1, sizeof(*v));
    if (!v)
        return error_set(err, ENOMEM, "out of memory");
    v->loop = loop;
    v->cid = config->cid;
    v->dir_fd = -1;
    v->ready_last = &v->ready_first;
    virtio_init(&v->dev, &vsock_ops, mem, loop, 0, QUEUE_COUNT, 256, CONFIG_BYTES);
    int rc = vsock_listen(v, config->dir, err);
    if (rc) {
        vsock_free(&v->dev);
        return rc;
    }
    *ret = &v->dev;
    return 0;
}
