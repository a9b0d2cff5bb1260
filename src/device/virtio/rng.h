/* virtio entropy device (VIRTIO 1.2 §5.4), fed by the host kernel's generator. */
#ifndef DEVICE_VIRTIO_RNG_H
#define DEVICE_VIRTIO_RNG_H

#include "base/error.h"
#include "device/virtio/virtio.h"

/** On success *@ret is the caller's, for virtio_pci_new(). Errors: -ENOMEM. */
must_check int virtio_rng_new(struct mem *mem, struct loop *loop, struct virtio_device **ret,
                              struct error *err);

#endif
