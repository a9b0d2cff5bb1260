/* virtio network card. Spec: VIRTIO 1.2 §5.1.
 *
 * Queues: 0 receives, 1 transmits, 2 is for control.
 *
 * Invariants:
 *  1. `pending` holds receive buffers taken from the queue and not yet given back, in order.
 *  2. The backend is called without the device's lock: it may at once call back with frames.
 *  3. A frame on its way out has been copied; the guest can change it no more.
 *
 * Threads: kicks and the backend's frames on their loops, status and configuration on vCPUs; all
 * take the device's lock. `tx_frame` belongs to the transmit queue's loop.
 */
#include "device/virtio/net.h"
#include "base/bits.h"
#include "base/log.h"
#include "device/virtio/net_offload.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_RX, QUEUE_TX, QUEUE_CTRL, QUEUE_COUNT };

/** §5.1.3 */
enum {
    F_CSUM = 0,
    F_GUEST_CSUM = 1,
    F_MTU = 3,
    F_MAC = 5,
    F_HOST_TSO4 = 11,
    F_HOST_TSO6 = 12,
    F_HOST_ECN = 13,
    F_MRG_RXBUF = 15,
    F_STATUS = 16,
    F_CTRL_VQ = 17,
    F_CTRL_RX = 18,
    F_CTRL_RX_EXTRA = 20,
    F_GUEST_ANNOUNCE = 21,
    F_CTRL_MAC_ADDR = 23,
};

/** §5.1.4 */
#define CONFIG_BYTES  12u
#define CONFIG_MAC    0
#define CONFIG_STATUS 6
#define CONFIG_PAIRS  8
#define CONFIG_MTU    10

enum {
    STATUS_LINK_UP = 1,
    STATUS_ANNOUNCE = 2,
};

/** §5.1.6.5 */
enum {
    CTRL_RX = 0,
    CTRL_RX_NOBCAST = 5, /* the last command of its class */
    CTRL_MAC = 1,
    CTRL_MAC_TABLE_SET = 0,
    CTRL_MAC_ADDR_SET = 1,
    CTRL_ANNOUNCE = 3,
    CTRL_ANNOUNCE_ACK = 0,
};

#define FRAME_MIN 14u
#define FRAME_MAX (14u + 65535u)

/** Buffers that one frame may be spread over: enough for the largest in those of 1,500 bytes. */
#define MERGE_MAX 64u

/** Frames sent before others on the loop get their turn. */
#define TX_BATCH 64u

struct net {
    struct virtio_device dev;
    struct net_backend *backend;  /* [init] owned */
    uint8_t config[CONFIG_BYTES]; /* [lock] */
    bool rx_wanted;               /* [lock] the driver shall tell of new receive buffers */
    bool rx_pushed;               /* [lock] frames were stored since the last flush */
    unsigned pending_count;       /* [lock] */
    size_t pending_bytes;         /* [lock] room in the pending buffers */
    struct vq_chain *pending;     /* [lock] MERGE_MAX of them */
    struct vq_chain chain;        /* [lock] the transmit or control request in hand */
    uint8_t *tx_frame;            /* [loop] FRAME_MAX bytes */
};

static struct net *to_net(struct virtio_device *dev)
{
    return container_of(dev, struct net, dev);
}

/** Take receive buffers until @need bytes have room. False: the queue ran empty. */
static bool take_buffers(struct net *n, size_t need) REQUIRES(n->dev.lock)
{
    struct vq *q = &n->dev.queues[QUEUE_RX];

    while (n->pending_bytes < need && n->pending_count < MERGE_MAX) {
        struct vq_chain *c = &n->pending[n->pending_count];

        if (vq_pop(q, c) <= 0)
            return false;
        if (c->in_bytes < NET_HEADER_BYTES) {
            (void)virtio_break(&n->dev, "receive buffer of %zu bytes", c->in_bytes);
            return false;
        }
        n->pending_count++;
        n->pending_bytes += c->in_bytes;
    }
    return true;
}

/** Drop the first @count pending buffers from the list. */
static void forget_pending(struct net *n, unsigned count) REQUIRES(n->dev.lock)
{
    for (unsigned i = 0; i < count; i++)
        n->pending_bytes -= n->pending[i].in_bytes;
    n->pending_count -= count;
    for (unsigned i = 0; i < n->pending_count; i++)
        n->pending[i] = n->pending[i + count];
}

/** Spread header and frame over the pending buffers. */
static void store_frame(struct net *n, const uint8_t *frame, size_t size) REQUIRES(n->dev.lock)
{
    struct vq *q = &n->dev.queues[QUEUE_RX];
    struct net_header h = {
        .flags = virtio_has(&n->dev, F_GUEST_CSUM) ? NET_DATA_VALID : 0,
        .num_buffers = 0,
    };
    uint8_t raw[NET_HEADER_BYTES];
    size_t done = 0;
    unsigned used = 0;

    for (size_t room = 0; room < NET_HEADER_BYTES + size;)
        room += n->pending[h.num_buffers++].in_bytes;
    net_header_store(&h, raw);
    for (; used < h.num_buffers; used++) {
        struct vq_chain *c = &n->pending[used];
        size_t header = used ? 0 : vq_write(c, 0, raw, sizeof(raw));
        size_t written = vq_write(c, header, frame + done, size - done);

        done += written;
        vq_push(q, c, header + written);
    }
    forget_pending(n, used);
    n->rx_pushed = true;
}

/** Have the driver tell of new buffers, or not. */
static void want_buffers(struct net *n, bool wanted) REQUIRES(n->dev.lock)
{
    if (n->rx_wanted != wanted)
        vq_set_notify(&n->dev.queues[QUEUE_RX], wanted);
    n->rx_wanted = wanted;
}

static bool receive_locked(struct net *n, const void *frame, size_t size) REQUIRES(n->dev.lock)
{
    size_t need = NET_HEADER_BYTES + size;

    if (n->dev.frozen)
        return false; /* until it thaws, and looks at its queues */
    if (!virtio_is_live(&n->dev) || !(n->config[CONFIG_STATUS] & STATUS_LINK_UP) ||
        size > FRAME_MAX)
        return true; /* nobody listens: it is lost */
    if (!virtio_has(&n->dev, F_MRG_RXBUF) && take_buffers(n, 1) && n->pending_count &&
        n->pending_bytes < need)
        return true; /* it can never fit one buffer */
    if (!take_buffers(n, need)) {
        /* Ask first, then look once more: a buffer may have come in between. */
        want_buffers(n, true);
        if (!take_buffers(n, need))
            return !virtio_is_live(&n->dev);
    }
    want_buffers(n, false);
    if (n->pending_bytes < need)
        guest_error("net", "%u receive buffers are too small for a frame of %zu bytes", MERGE_MAX,
                    size);
    else
        store_frame(n, frame, size);
    return true;
}

static bool receive(void *card, const void *frame, size_t size)
{
    struct net *n = card;

    mutex_lock(&n->dev.lock);
    bool taken = receive_locked(n, frame, size);
    mutex_unlock(&n->dev.lock);
    return taken;
}

static void flush(void *card)
{
    struct net *n = card;

    mutex_lock(&n->dev.lock);
    if (n->rx_pushed)
        virtio_notify(&n->dev, QUEUE_RX);
    n->rx_pushed = false;
    mutex_unlock(&n->dev.lock);
}

/** Copy the request's frame out. Its size, or 0 if it is to be dropped. */
static size_t take_frame(struct net *n, struct net_header *ret) REQUIRES(n->dev.lock)
{
    const struct vq_chain *c = &n->chain;
    uint8_t raw[NET_HEADER_BYTES];

    if (c->out_bytes < sizeof(raw) + FRAME_MIN || c->out_bytes > sizeof(raw) + FRAME_MAX) {
        guest_error("net", "transmit request of %zu bytes", c->out_bytes);
        return 0;
    }
    (void)vq_read(c, 0, raw, sizeof(raw)); /* the size was checked */
    net_header_load(ret, raw);
    if (!virtio_has(&n->dev, F_CSUM))
        ret->flags = 0;
    uint8_t gso = ret->gso_type & (uint8_t)~NET_GSO_ECN;
    if (ret->gso_type != NET_GSO_NONE &&
        !(gso == NET_GSO_TCPV4 && virtio_has(&n->dev, F_HOST_TSO4)) &&
        !(gso == NET_GSO_TCPV6 && virtio_has(&n->dev, F_HOST_TSO6))) {
        guest_error("net", "segmentation type %u was not negotiated", ret->gso_type);
        return 0;
    }
    return vq_read(c, sizeof(raw), n->tx_frame, FRAME_MAX);
}

static void transmit(struct net *n) REQUIRES(n->dev.lock)
{
    struct vq *q = &n->dev.queues[QUEUE_TX];
    unsigned count = 0;

    vq_set_notify(q, false);
    for (;;) {
        struct net_header h;

        if (count == TX_BATCH) {
            virtio_kick_later(&n->dev, QUEUE_TX);
            break;
        }
        if (vq_pop(q, &n->chain) <= 0) {
            vq_set_notify(q, true);
            if (!vq_has_work(q))
                break;
            vq_set_notify(q, false);
            continue;
        }
        count++;
        size_t size = take_frame(n, &h);
        bool up = n->config[CONFIG_STATUS] & STATUS_LINK_UP;
        vq_push(q, &n->chain, 0);
        if (!size || !up)
            continue;
        mutex_unlock(&n->dev.lock); /* invariant 2 */
        struct iovec iov = {.iov_base = n->tx_frame, .iov_len = size};
        if (net_offload(&h, n->tx_frame, size))
            n->backend->ops->send(n->backend, &iov, 1);
        else
            guest_error("net", "checksum of a frame of %zu bytes at %u+%u", size, h.csum_start,
                        h.csum_offset);
        mutex_lock(&n->dev.lock);
    }
    virtio_notify(&n->dev, QUEUE_TX);
}

/** Carry out the command in hand. True: acknowledged. */
static bool command(struct net *n) REQUIRES(n->dev.lock)
{
    const struct vq_chain *c = &n->chain;
    uint8_t head[2];
    uint8_t data[6];

    if (vq_read(c, 0, head, 2) != 2)
        return false;
    size_t size = c->out_bytes - 2;
    switch (head[0]) {
    case CTRL_RX: /* the backend sends only what is for this guest: any filter lets it through */
        return head[1] <= CTRL_RX_NOBCAST && size == 1;
    case CTRL_MAC:
        if (head[1] == CTRL_MAC_TABLE_SET)
            return size >= 8;
        if (head[1] != CTRL_MAC_ADDR_SET || size != 6)
            return false;
        (void)vq_read(c, 2, data, sizeof(data)); /* the size was checked */
        memcpy(n->config + CONFIG_MAC, data, sizeof(data));
        return true;
    case CTRL_ANNOUNCE:
        if (head[1] != CTRL_ANNOUNCE_ACK)
            return false;
        n->config[CONFIG_STATUS] &= (uint8_t)~STATUS_ANNOUNCE;
        return true;
    default:
        return false;
    }
}

static void control(struct net *n) REQUIRES(n->dev.lock)
{
    struct vq *q = &n->dev.queues[QUEUE_CTRL];

    do {
        while (vq_pop(q, &n->chain) > 0) {
            uint8_t ack = command(n) ? 0 : 1; /* §5.1.6.5: VIRTIO_NET_OK, VIRTIO_NET_ERR */

            vq_push(q, &n->chain, vq_write(&n->chain, 0, &ack, 1));
            virtio_notify(&n->dev, QUEUE_CTRL);
        }
        vq_set_notify(q, true);
    } while (vq_has_work(q));
}

/** With the lock held; clang does not see that n->dev is *dev. */
static void kick(struct virtio_device *dev, unsigned index) NO_THREAD_SAFETY
{
    struct net *n = to_net(dev);

    switch (index) {
    case QUEUE_RX:
        mutex_unlock(&dev->lock); /* invariant 2 */
        n->backend->ops->can_receive(n->backend);
        mutex_lock(&dev->lock);
        break;
    case QUEUE_TX:
        transmit(n);
        break;
    case QUEUE_CTRL:
        control(n);
        break;
    }
}

static void ready(struct virtio_device *dev) REQUIRES(dev->lock)
{
    vq_set_notify(&dev->queues[QUEUE_RX], true); /* the first buffers; then rx_wanted decides */
    to_net(dev)->rx_wanted = true;
}

static void reset(struct virtio_device *dev) REQUIRES(dev->lock)
{
    struct net *n = to_net(dev);

    n->pending_count = 0;
    n->pending_bytes = 0;
    n->rx_wanted = true;
    n->config[CONFIG_STATUS] &= (uint8_t)~STATUS_ANNOUNCE;
}

static void config_read(struct virtio_device *dev, unsigned offset, void *buf, unsigned size)
{
    memcpy(buf, to_net(dev)->config + offset, size);
}

static unsigned held(struct virtio_device *dev, unsigned index)
{
    return index == QUEUE_RX ? to_net(dev)->pending_count : 0;
}

static const struct state_field net_fields[] = {
    STATE_ARRAY(struct net, config),
    {0},
};

static int save(struct virtio_device *dev, struct state_out *out, struct error *err)
{
    state_put(out, net_fields, to_net(dev));
    return 0;
}

/** MTU and number of queues are this card's own; the address is the driver's to change. */
static int load(struct virtio_device *dev, const struct state_section *s, struct error *err)
{
    struct net *n = to_net(dev);
    struct net loaded;
    int rc = state_get(s, net_fields, &loaded, err);

    if (rc)
        return rc;
    memcpy(n->config + CONFIG_MAC, loaded.config + CONFIG_MAC, 6);
    n->config[CONFIG_STATUS] = loaded.config[CONFIG_STATUS] & (STATUS_LINK_UP | STATUS_ANNOUNCE);
    return 0;
}

static void net_free(struct virtio_device *dev)
{
    struct net *n = to_net(dev);

    if (n->backend)
        n->backend->ops->free(n->backend); /* no frame comes any more */
    virtio_done(dev);
    free(n->pending);
    free(n->tx_frame);
    free(n);
}

static const struct virtio_ops net_ops = {
    .name = "net",
    .device_id = 1,
    .ready = ready,
    .reset = reset,
    .kick = kick,
    .config_read = config_read,
    .held = held,
    .save = save,
    .load = load,
    .free = net_free,
};

int virtio_net_new(struct mem *mem, struct loop *loop, const struct virtio_net_config *config,
                   struct net_backend *backend, struct virtio_device **ret, struct error *err)
{
    const uint64_t offered = BIT(F_CSUM) | BIT(F_GUEST_CSUM) | BIT(F_MTU) | BIT(F_MAC) |
                             BIT(F_HOST_TSO4) | BIT(F_HOST_TSO6) | BIT(F_HOST_ECN) |
                             BIT(F_MRG_RXBUF) | BIT(F_STATUS) | BIT(F_CTRL_VQ) | BIT(F_CTRL_RX) |
                             BIT(F_CTRL_RX_EXTRA) | BIT(F_GUEST_ANNOUNCE) | BIT(F_CTRL_MAC_ADDR);
    struct net *n = calloc(1, sizeof(*n));
    struct net_client client = {.receive = receive, .flush = flush, .card = n};

    if (!n)
        return error_set(err, ENOMEM, "out of memory");
    virtio_init(&n->dev, &net_ops, mem, loop, offered, QUEUE_COUNT, 512, CONFIG_BYTES);
    n->dev.queues[QUEUE_CTRL].max_size = 64;
    n->pending = calloc(MERGE_MAX, sizeof(*n->pending));
    n->tx_frame = malloc(FRAME_MAX);
    if (!n->pending || !n->tx_frame) {
        net_free(&n->dev);
        return error_set(err, ENOMEM, "out of memory");
    }
    n->backend = backend;
    memcpy(n->config + CONFIG_MAC, config->mac, 6);
    n->config[CONFIG_STATUS] = STATUS_LINK_UP;
    store_le16(n->config + CONFIG_PAIRS, 1);
    store_le16(n->config + CONFIG_MTU, config->mtu ? config->mtu : backend->best_mtu);
    backend->ops->set_client(backend, &client);
    *ret = &n->dev;
    return 0;
}

void virtio_net_set_link(struct virtio_device *dev, bool up)
{
    struct net *n = to_net(dev);

    mutex_lock(&dev->lock);
    bool was = n->config[CONFIG_STATUS] & STATUS_LINK_UP;
    bool announce = up && virtio_has(dev, F_GUEST_ANNOUNCE);
    if (was != up) {
        n->config[CONFIG_STATUS] =
            (uint8_t)((up ? STATUS_LINK_UP : 0) | (announce ? STATUS_ANNOUNCE : 0));
        virtio_config_changed(dev);
    }
    mutex_unlock(&dev->lock);
}
