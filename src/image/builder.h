/* The initramfs of the build machine: busybox, mke2fs with its libraries, modules, and its init. */
#ifndef IMAGE_BUILDER_H
#define IMAGE_BUILDER_H

#include "image/build_internal.h"
#include "image/payload.h"

struct builder;

/** Create the initramfs file @path; NULL with @err set. */
struct builder *builder_new(const char *path, struct error *err);
void builder_free(struct builder *b);

/** What to give to payload_add_deb(): takes the kernel, its modules and mke2fs as they pass. */
const struct payload_tap *builder_tap(struct builder *b);

/** The kernel that has passed; borrowed. NULL if none has. */
const struct kernel *builder_kernel(const struct builder *b);

/** Write the new system's own first initrd to the file @path: modules for virtio disks and ext4,
 * and an init that mounts the root file system. */
must_check int builder_write_initrd(struct builder *b, const char *path, const char *busybox_deb,
                                    struct error *err);

/** Add the rest and end the file. -EBADMSG if no kernel or no mke2fs has passed. */
must_check int builder_finish(struct builder *b, const char *busybox_deb, struct error *err);

#endif
