/* Virtqueue, device side: split rings, indirect descriptors, event index. Spec: VIRTIO 1.2 §2.7. */
#ifndef DEVICE_VIRTIO_VQ_H
#define DEVICE_VIRTIO_VQ_H

#include "base/loop.h"
#include "base/macros.h"
#include "mem/mem.h"

#include <sys/uio.h>

#define VQ_MAX_SIZE 1024
#define VQ_MAX_IOV                                                           \
    272 /* buffers in one chain, after which the guest is at fault: 1 MiB of \
           4 KiB pages and what headers go with it */

struct virtio_device;

struct vq {
    struct virtio_device *dev; /* [init] */
    uint16_t index;            /* [init] */
    uint16_t max_size;         /* [init] */
    uint16_t size;             /* [lock] chosen by the driver, a power of two */
    bool enabled;              /* [lock] */
    gpa_t desc, avail, used;   /* [lock] */
    uint16_t next_avail;       /* [lock] next entry to take, modulo 2^16 */
    uint16_t next_used;        /* [lock] */
    uint16_t signalled_used;   /* [lock] used index at the last interrupt */
    bool signalled_valid;      /* [lock] */
    uint16_t msix_vector;      /* [lock] 0xffff = none */
    struct loop *loop;         /* [init] where this queue's kicks run; the device's own unless the
                                  device type chose another before its transport was made */
    int kick_fd;               /* [init] eventfd that wakes the loop */
    struct loop_fd kick_watch; /* [init] */
    bool kicked;               /* [atomic] a wake-up is under way: further kicks add nothing */
};

#define VQ_NO_VECTOR 0xffff

/** One request: first what the device reads, then what it may write. iovecs point into guest RAM:
 * data buffers only, headers are copied out of them once (vq_read()). */
struct vq_chain {
    uint16_t head;
    unsigned out_count; /* iov[0..out_count) is driver → device */
    unsigned in_count;  /* iov[out_count..out_count+in_count) is device → driver */
    size_t out_bytes, in_bytes;
    struct iovec iov[VQ_MAX_IOV];
    gpa_t gpa[VQ_MAX_IOV]; /* guest address of each iov */
};

/** Set the queue up with what the driver wrote to size, desc, avail, used; if that is not allowed,
 * the device is broken. Device lock held. */
void vq_enable(struct vq *q);

/** Are size and rings, as set, allowed (§2.7) and in RAM? Else the device is broken. Device lock
 * held. */
bool vq_check(struct vq *q);

/** Forget everything the driver set. Device lock held. */
void vq_reset(struct vq *q);

/** Take the next chain. 1: *@ret is filled; 0: none; -EPROTO: the guest broke the rules and the
 * device is now broken. Device lock held. */
must_check int vq_pop(struct vq *q, struct vq_chain *ret);

/** Is anything available? (May be stale at once.) Lock held. */
bool vq_has_work(struct vq *q);

/** Tell the driver whether to notify (§2.7.10); re-check vq_has_work() after enabling. Lock held.
 */
void vq_set_notify(struct vq *q, bool wanted);

/** Give the chain back, @written bytes having been stored into its writable part: marks those pages
 * written. Lock held. The interrupt is virtio_notify(). */
void vq_push(struct vq *q, const struct vq_chain *chain, size_t written);

/** Does the driver want an interrupt for what was pushed since the last call that said yes (§2.7.7,
 * §2.7.10)? Lock held. For virtio_notify(). */
bool vq_wants_interrupt(struct vq *q);

/** Copy @size bytes at @offset of the readable part out, or of the writable part in. Returns bytes
 * copied (short at the end). */
size_t vq_read(const struct vq_chain *chain, size_t offset, void *buf, size_t size);
size_t vq_write(const struct vq_chain *chain, size_t offset, const void *buf, size_t size);

#endif
