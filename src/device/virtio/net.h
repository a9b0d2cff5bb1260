/* virtio network card (VIRTIO 1.2 §5.1) between a guest and a packet backend. */
#ifndef DEVICE_VIRTIO_NET_H
#define DEVICE_VIRTIO_NET_H

#include "base/error.h"
#include "device/virtio/virtio.h"
#include "net/net.h"

struct virtio_net_config {
    uint8_t mac[6];
    uint16_t mtu; /* told to the driver; 0 = as large as the backend is best with */
};

/** A card plugged into @backend, which becomes the card's on success: freed with it. Runs on @loop,
 * best the backend's own. On success *@ret is the caller's, for virtio_pci_new(). */
must_check int virtio_net_new(struct mem *mem, struct loop *loop,
                              const struct virtio_net_config *config, struct net_backend *backend,
                              struct virtio_device **ret, struct error *err);

/** Plug or pull the cable, as the driver sees it. Any thread. */
void virtio_net_set_link(struct virtio_device *dev, bool up);

#endif
