/* virtio socket device (VIRTIO 1.2 §5.10): stream sockets between the guest and unix sockets in a
 * folder of the host.
 *
 *   guest connects to CID 2, port P      → the device connects to <dir>/P
 *   host connects to <dir>/vsock.sock,
 *   writes "CONNECT P\n", reads "OK N\n" → the device connects to the guest's port P */
#ifndef DEVICE_VIRTIO_VSOCK_H
#define DEVICE_VIRTIO_VSOCK_H

#include "base/error.h"
#include "device/virtio/virtio.h"

struct virtio_vsock_config {
    uint64_t cid;    /* the guest's, 3..2^32-2 */
    const char *dir; /* an existing folder; borrowed during the call */
};

/** Creates <dir>/vsock.sock (an old socket of that name that nobody listens on is replaced),
 * removed when the device is freed. On success *@ret is the caller's, for virtio_pci_new(). Errors:
 * -EADDRINUSE, -ENOENT, -EACCES, -EINVAL. */
must_check int virtio_vsock_new(struct mem *mem, struct loop *loop,
                                const struct virtio_vsock_config *config,
                                struct virtio_device **ret, struct error *err);

#endif
