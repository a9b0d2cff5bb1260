/* virtio memory balloon (VIRTIO 1.2 §5.5): the guest gives pages back to the host, when asked
 * (inflating) and by itself (free page reporting). */
#ifndef DEVICE_VIRTIO_BALLOON_H
#define DEVICE_VIRTIO_BALLOON_H

#include "base/error.h"
#include "device/virtio/virtio.h"

/** What the guest's driver last said of its memory, in bytes; UINT64_MAX = not said. */
struct virtio_balloon_stats {
    uint64_t total, free, available, caches;
    uint64_t swap_in, swap_out;
    uint64_t major_faults, minor_faults; /* counts */
};

/** On success *@ret is the caller's, for virtio_pci_new(). Errors: -ENOMEM. */
must_check int virtio_balloon_new(struct mem *mem, struct loop *loop, struct virtio_device **ret,
                                  struct error *err);

/** Ask the guest to give up @bytes (rounded down to 4 KiB) in all, 0 to give everything back. Takes
 * effect at the guest's pace. Any thread. */
void virtio_balloon_set_target(struct virtio_device *dev, uint64_t bytes);

/** How much the guest says it has given up by now. Any thread. */
uint64_t virtio_balloon_actual(struct virtio_device *dev);

/** The last statistics; each call asks the guest for new ones. Any thread. */
void virtio_balloon_get_stats(struct virtio_device *dev, struct virtio_balloon_stats *ret);

#endif
