/* Between a virtio device's core and its transport: what one asks of the other. Device types do not
 * need it. */
#ifndef DEVICE_VIRTIO_TRANSPORT_H
#define DEVICE_VIRTIO_TRANSPORT_H

#include "device/virtio/virtio.h"

/** Called with the device's lock held, on any thread. */
struct virtio_transport_ops {
    void (*queue_interrupt)(struct virtio_transport *t, unsigned index);
    void (*config_interrupt)(struct virtio_transport *t);
    /** May the device touch guest memory now? NULL: always. */
    bool (*can_dma)(const struct virtio_transport *t);
    /** The transport's own fields, within the device's section; NULL: none. */
    void (*save)(struct virtio_transport *t, struct state_out *out);
    int (*load)(struct virtio_transport *t, const struct state_section *s, struct error *err);
    void (*free)(struct virtio_transport *t);
};

/** Embed first in the transport's struct. */
struct virtio_transport {
    const struct virtio_transport_ops *ops; /* [init] */
    struct virtio_device *dev;              /* [init] */
};

/** Join @dev and @t: from now on signals reach the queues' loops. 0 or -errno. Before the machine
 * runs. */
must_check int virtio_attach(struct virtio_device *dev, struct virtio_transport *t,
                             struct error *err);

/** Undo virtio_attach(), also half of it: afterwards no kick runs or starts. No vCPU may run; not
 * on a queue's loop while that runs elsewhere; no lock held. */
void virtio_detach(struct virtio_device *dev);

/** The driver notified queue @index (out of range: ignored). Any thread, without the lock; never
 * waits. */
void virtio_queue_signal(struct virtio_device *dev, unsigned index);

/** Serve queue @index now if the device is live: what its loop does after a signal. On that loop's
 * thread, without the lock. */
void virtio_queue_run(struct virtio_device *dev, unsigned index) EXCLUDES(dev->lock);

/** What the driver may choose from. */
uint64_t virtio_offered(const struct virtio_device *dev);

/** The driver wrote its feature bits, the status register (0 = reset), or enabled queue @index,
 * whose size and addresses it has set in queues[index]. Rules of §2.1 and §3 are enforced here;
 * virtio_may_configure() says whether the driver may still change features and queues. */
void virtio_set_features(struct virtio_device *dev, uint64_t features) REQUIRES(dev->lock);
void virtio_set_status(struct virtio_device *dev, uint8_t status) REQUIRES(dev->lock);
void virtio_queue_enable(struct virtio_device *dev, unsigned index) REQUIRES(dev->lock);
bool virtio_may_configure(const struct virtio_device *dev);

/** Device configuration space; what lies beyond its end reads as zero and ignores writes. */
void virtio_config_read(struct virtio_device *dev, uint64_t offset, void *buf, unsigned size)
    REQUIRES(dev->lock);
void virtio_config_write(struct virtio_device *dev, uint64_t offset, const void *buf, unsigned size)
    REQUIRES(dev->lock);

#endif
