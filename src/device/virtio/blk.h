/* virtio block device (VIRTIO 1.2 §5.2) over a virtual disk. */
#ifndef DEVICE_VIRTIO_BLK_H
#define DEVICE_VIRTIO_BLK_H

#include "base/error.h"
#include "device/virtio/virtio.h"

struct disk;

#define VIRTIO_BLK_MAX_QUEUES 4
#define VIRTIO_BLK_SERIAL_MAX 20 /* bytes of the serial number */

struct virtio_blk_config {
    unsigned queues; /* 1..VIRTIO_BLK_MAX_QUEUES; best min(vCPUs, VIRTIO_BLK_MAX_QUEUES) */
    /** The host has no room for what the guest writes (@code ENOSPC or EDQUOT): the request waits
     * for virtio_blk_retry(). Called once until that, on a thread of the device's, without a lock.
     * NULL: such a request fails. */
    void (*on_full)(void *arg, int code);
    void *arg;
    const char *serial; /* what the guest finds under /dev/disk/by-id; NULL = none; cut to size */
};

/** The device takes @disk on success: closed with it. It has one thread per queue and some more
 * for what cannot go through io_uring. On success *@ret is the caller's, for virtio_pci_new().
 * Errors: -ENOMEM, -EAGAIN (threads). */
must_check int virtio_blk_new(struct mem *mem, const struct virtio_blk_config *config,
                              struct disk *disk, struct virtio_device **ret, struct error *err);

/** The disk of a device that is frozen (virtio_freeze()): borrowed. */
struct disk *virtio_blk_disk(struct virtio_device *dev);

/** Carry out again what waits for room. Any thread. */
void virtio_blk_retry(struct virtio_device *dev);

/** Another one of the same size in its place; taken. The old one is the caller's. */
void virtio_blk_set_disk(struct virtio_device *dev, struct disk *disk);

#endif
