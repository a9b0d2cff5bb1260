/* The image "tiny": Debian's kernel, and an initramfs with busybox, the modules for a machine's
 * devices and an init script. Everything runs from memory; there is no disk. One thread. */
#include "base/fd.h"
#include "image/build_internal.h"
#include "image/cpio.h"
#include "image/modules.h"
#include "image/paths.h"

#include <errno.h>
#include <string.h>

static const char *const tiny_modules[] = {
    "virtio_blk",  "virtio_net", "virtio_rng",     "virtio_balloon", "vmw_vsock_virtio_transport",
    "virtio_mmio", "ext4",       "crc32c_generic", "vfat",           "nls_cp437",
    "nls_ascii",   "nls_utf8",   "overlay",        "loop",           NULL,
};

static int write_initrd(struct build *b, const char *busybox_deb, struct kernel *k,
                        struct error *err)
{
    cleanup(freep) char *path = paths_format(err, "%s/initrd", b->dir);
    struct cpio *c = path ? cpio_new(path, err) : NULL;

    if (!c)
        return -EIO;
    int r = build_add_skeleton(c);
    if (!r)
        r = build_add_busybox(c, busybox_deb, err);
    if (!r)
        r = modules_write(k->modules, tiny_modules, k->release, c, err);
    if (!r)
        r = build_add_embedded(c, "common/");
    if (!r)
        r = build_add_embedded(c, "tiny/");
    if (r) {
        cpio_abandon(c);
        return error_set(err, -r, "cannot write '%s': %s", path, strerror(-r));
    }
    b->has_initrd = true;
    return cpio_finish(c, err);
}

int tiny_build(struct build *b, struct error *err)
{
    struct package *list[2] = {0};
    struct kernel k = {0};
    int r = build_find_kernel(b, &list[0], err);

    if (r)
        return r;
    list[1] = index_find(b->suite.index, slice_of("busybox-static"));
    if (!list[1])
        return error_set(err, ENOENT, "the mirror's index does not have package 'busybox-static'");
    r = build_fetch(b, list, 2, err);
    if (!r)
        r = build_stage(b, "Assembling the initramfs", 0, false, err);
    if (r)
        return r;
    cleanup(freep) char *kernel_deb = build_deb_path(b, list[0], err);
    cleanup(freep) char *busybox_deb = build_deb_path(b, list[1], err);
    cleanup(freep) char *kernel = paths_format(err, "%s/kernel", b->dir);
    if (!kernel_deb || !busybox_deb || !kernel)
        return -ENOMEM;
    r = kernel_read(kernel_deb, &k, err);
    if (!r)
        r = paths_write(kernel, k.image, k.image_size, err);
    if (!r)
        r = write_initrd(b, busybox_deb, &k, err);
    b->release = ptr_take(&k.release);
    kernel_done(&k);
    return r;
}
