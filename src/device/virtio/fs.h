/* virtio file system device (VIRTIO 1.2 §5.11): a folder of the host, mounted in the guest by
 * `mount -t virtiofs TAG DIR`. */
#ifndef DEVICE_VIRTIO_FS_H
#define DEVICE_VIRTIO_FS_H

#include "base/error.h"
#include "device/virtio/virtio.h"

#define VIRTIO_FS_TAG_MAX 36 /* bytes, without a final NUL */

struct virtio_fs_config {
    const char *tag;       /* borrowed during the call */
    const char *host_path; /* an existing folder; borrowed during the call */
    bool readonly;
};

/** Share a folder. The device has threads of its own, so that a slow disk delays nothing else. The
 * guest cannot leave the folder, whatever links it makes. On success *@ret is the caller's, for
 * virtio_pci_new(). Errors: -ENOENT, -ENOTDIR, -EACCES, -EINVAL (the tag). */
must_check int virtio_fs_new(struct mem *mem, const struct virtio_fs_config *config,
                             struct virtio_device **ret, struct error *err);

#endif
