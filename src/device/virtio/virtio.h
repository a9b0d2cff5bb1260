/* virtio devices, apart from their transport. Spec: VIRTIO 1.2.
 *
 * Threads: a device runs on the loop it was given (its I/O thread). The transport, on a vCPU's
 * thread, only signals that loop for queue notifications; every ops call is made with the device's
 * lock held, whichever thread makes it. `kick` is always on the loop. */
#ifndef DEVICE_VIRTIO_VIRTIO_H
#define DEVICE_VIRTIO_VIRTIO_H

#include "base/error.h"
#include "base/loop.h"
#include "base/thread.h"
#include "device/virtio/vq.h"
#include "mem/mem.h"

#define VIRTIO_MAX_QUEUES 32

/** Feature bits of the core (§6). */
enum {
    VIRTIO_F_INDIRECT_DESC = 28,
    VIRTIO_F_EVENT_IDX = 29,
    VIRTIO_F_VERSION_1 = 32,
};

/** Device status bits (§2.1). */
enum {
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 64,
    VIRTIO_FAILED = 128,
};

struct state_in;
struct state_out;
struct state_section;
struct virtio_device;
struct virtio_transport;

/** Device type's hooks; all but name and device_id may be NULL where noted. Called with the
 * device's lock held. */
struct virtio_ops {
    const char *name;
    uint16_t device_id; /* VIRTIO 1.2 §5 */
    /** The driver has set FEATURES_OK with dev->features; false refuses. NULL accepts what was
     * offered. */
    bool (*features_ok)(struct virtio_device *dev);
    /** DRIVER_OK was set. NULL allowed. */
    void (*ready)(struct virtio_device *dev);
    /** Back to the state before any driver; requests in flight must be cancelled or finished before
     * it returns. NULL allowed. */
    void (*reset)(struct virtio_device *dev);
    /** Buffers were made available in queue @index; on the loop's thread. */
    void (*kick)(struct virtio_device *dev, unsigned index);
    /** Device configuration space (§2.5): @offset + @size is within config_size. NULL: no
     * configuration. */
    void (*config_read)(struct virtio_device *dev, unsigned offset, void *buf, unsigned size);
    void (*config_write)(struct virtio_device *dev, unsigned offset, const void *buf,
                         unsigned size);
    /** Return when no request is in flight, that is: taken from a queue and neither given back nor
     * held. None is begun meanwhile. NULL: there never is one while the lock is free. */
    void (*quiesce)(struct virtio_device *dev);
    /** How many chains of queue @index, the last ones taken, are held (receive buffers and the
     * like): a saved state has them as not yet taken. NULL: none. */
    unsigned (*held)(struct virtio_device *dev, unsigned index);
    /** The device type's own fields, within the device's section; the device is frozen. What the
     * device holds of a queue was forgotten by reset() when load() is called. NULL: it has none. */
    int (*save)(struct virtio_device *dev, struct state_out *out, struct error *err);
    int (*load)(struct virtio_device *dev, const struct state_section *s, struct error *err);
    void (*free)(struct virtio_device *dev);
};

/** Embed first in the device type's struct. */
struct virtio_device {
    const struct virtio_ops *ops; /* [init] */
    struct mem *mem;              /* [init] */
    struct loop *loop;            /* [init] where kick runs; borrowed */
    uint64_t offered;     /* [init] feature bits offered (device type's; the core adds VERSION_1,
                             EVENT_IDX, INDIRECT) */
    unsigned queue_count; /* [init] */
    unsigned config_size; /* [init] bytes */
    struct mutex lock;
    uint64_t features;  /* [lock] bits the driver accepted */
    uint8_t status;     /* [lock] §2.1 */
    bool broken;        /* [lock] NEEDS_RESET was raised: queues give nothing until reset */
    bool frozen;        /* [lock] between virtio_freeze() and virtio_thaw() */
    bool resetting;     /* [lock] ops->reset is under way (it may let go of the lock to wait) */
    uint8_t generation; /* [lock] of the configuration (§2.5.1), modulo 256 */
    struct vq queues[VIRTIO_MAX_QUEUES]; /* [lock] */
    struct virtio_transport *transport;  /* [init] */
};

/** Fill in the common part; queue sizes are at most @max_queue_size (a power of two <= 1024). The
 * device type may then lower queues[i].max_size and choose queues[i].loop, until a transport is
 * made. */
void virtio_init(struct virtio_device *dev, const struct virtio_ops *ops, struct mem *mem,
                 struct loop *loop, uint64_t offered, unsigned queue_count, uint16_t max_queue_size,
                 unsigned config_size);
void virtio_done(struct virtio_device *dev);

/** Interrupt the driver for queue @index if it wants to know (EVENT_IDX, NO_INTERRUPT: §2.7.7).
 * Lock held. */
void virtio_notify(struct virtio_device *dev, unsigned index) REQUIRES(dev->lock);

/** Configuration changed: bump the generation and interrupt. Lock held. */
void virtio_config_changed(struct virtio_device *dev) REQUIRES(dev->lock);

/** Run kick for queue @index again from the loop, after its other callbacks: how a kick that has
 * taken its share ends. Any thread, with or without the lock. */
void virtio_kick_later(struct virtio_device *dev, unsigned index);

/** Has the driver accepted feature bit @bit? Lock held. */
static inline bool virtio_has(const struct virtio_device *dev, unsigned bit)
{
    return dev->features >> bit & 1;
}

/** Is the device set up and well, so that queues may be served? Lock held. */
bool virtio_is_live(const struct virtio_device *dev);

/** The guest broke the rules: log, set DEVICE_NEEDS_RESET, stop all queues (§2.1.2). Lock held.
 * Returns -EPROTO. */
int virtio_break(struct virtio_device *dev, const char *fmt, ...) printf_like(2, 3)
    REQUIRES(dev->lock);

/** For a snapshot: the device finishes what it has begun, then takes nothing and writes nothing to
 * guest memory, whatever its backends do, until it thaws; then it looks at its queues as after a
 * notification. vCPUs stand still; no lock held. freeze waits for the queues' loops: not to be
 * called on one. */
void virtio_freeze(struct virtio_device *dev) EXCLUDES(dev->lock);
void virtio_thaw(struct virtio_device *dev) EXCLUDES(dev->lock);

/** State of a frozen device and its transport, as the @instance-th. -ENOTSUP: it has a state that
 * cannot be saved. load() takes it into a device made with the same configuration, whose PCI
 * function's state has been loaded before; queues that do not lie in RAM and features that are not
 * offered are refused (-EINVAL). */
must_check int virtio_save(struct virtio_transport *t, unsigned instance, struct state_out *out,
                           struct error *err);
must_check int virtio_load(struct virtio_transport *t, unsigned instance, const struct state_in *in,
                           struct error *err);

struct pci_host;
/** Put @dev behind a virtio-pci transport (§4.1, modern only) in @host. On success the transport
 * owns @dev (ops->free is called when the returned transport is freed). */
must_check int virtio_pci_new(struct pci_host *host, struct virtio_device *dev,
                              struct virtio_transport **ret, struct error *err);
/** Its PCI slot. */
unsigned virtio_pci_slot(const struct virtio_transport *t);
void virtio_transport_free(struct virtio_transport *t);

#endif
