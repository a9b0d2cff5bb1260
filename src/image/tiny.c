/* The image "tiny": Debian's kernel, and an initramfs with busybox, the modules for a machine's
 * devices and an init script. Everything runs from memory; there is no disk. One thread. */
#include "base/fd.h"
#include "base/paths.h"
#include "image/build_internal.h"
#include "image/cpio.h"
#include "image/modules.h"

#include <errno.h>
#include <string.h>

static const char *const tiny_modules[] = {
    "virtio_pci",     "virtio_console",
    "virtiofs",       "virtio_blk",
    "virtio_net",     "virtio_rng",
    "virtio_balloon", "vmw_vsock_virtio_transport",
    "virtio_mmio",    "ext4",
    "crc32c_generic", "vfat",
    "nls_cp437",      "nls_ascii",
    "nls_utf8",       "overlay",
    "loop",           NULL,
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
    if (!r)
        r = build_add_programs(c, b->spec.arch);
    if (r) {
        cpio_abandon(c);
        return error_set(err, -r, "cannot write '%s': %s", path, strerror(-r));
    }
    b->has_initrd = true;
    return cpio_finish(c, err);
}

static int read_kernel(struct build *b, struct package *const *list, size_t n, struct kernel *k,
                       struct error *err)
{
    int r = kernel_init(k, err);

    for (size_t i = 0; i < n && !r; i++) {
        cleanup(freep) char *deb = build_deb_path(b, list[i], err);

        r = deb ? kernel_read(k, deb, err) : -ENOMEM;
        if (r)
            error_prefix(err, "%.*s", (int)list[i]->name.n, list[i]->name.p);
    }
    if (!r && !k->image)
        r = error_set(err, EBADMSG, "package '%.*s' has no kernel in it", (int)list[0]->name.n,
                      list[0]->name.p);
    return r;
}

int tiny_build(struct build *b, struct error *err)
{
    struct package *list[BUILD_KERNEL_MAX + 1] = {0};
    struct kernel k = {0};
    size_t n = 0;
    int r = build_find_kernel(b, list, &n, err);

    if (r)
        return r;
    list[n] = index_find(b->suite.index, slice_of("busybox-static"));
    if (!list[n])
        return error_set(err, ENOENT, "the mirror's index does not have package 'busybox-static'");
    r = build_fetch(b, list, n + 1, err);
    if (!r)
        r = build_stage(b, "Assembling the initramfs", 0, false, err);
    if (r)
        return r;
    cleanup(freep) char *busybox = build_deb_path(b, list[n], err);
    cleanup(freep) char *kernel = paths_format(err, "%s/kernel", b->dir);
    if (!busybox || !kernel)
        return -ENOMEM;
    r = read_kernel(b, list, n, &k, err);
    if (!r)
        r = paths_write(kernel, k.image, k.image_size, err);
    if (!r)
        r = write_initrd(b, busybox, &k, err);
    b->release = ptr_take(&k.release);
    kernel_done(&k);
    return r;
}
