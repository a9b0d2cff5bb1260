/* The build machine's initramfs. Its programs are taken out of the very packages that are being
 * installed, so nothing else is downloaded and architectures cannot differ. One thread. */
#include "image/builder.h"

#include "base/fd.h"
#include "base/paths.h"
#include "image/cpio.h"
#include "image/modules.h"

#include <errno.h>
#include <string.h>

static const char *const builder_modules[] = {
    "virtio_pci", "virtio_blk", "virtio_rng", "ext4", "crc32c_generic",
    "vfat",       "nls_cp437",  "nls_ascii",  NULL,
};

/* For the root file system; for a machine's other devices; and what systemd loads at every start.
 * They are in the initrd unpacked: unpacking them in the guest, from the root file system, takes
 * seconds. */
static const char *const root_modules[] = {
    "virtio_pci",  "virtio_console", "virtiofs",       "virtio_blk",
    "virtio_scsi", "sd_mod",         "ext4",           "crc32c_generic",
    "virtio_net",  "virtio_rng",     "virtio_balloon", "vmw_vsock_virtio_transport",
    "autofs4",     "configfs",       "ip_tables",      "nfnetlink",
    NULL,
};

/* mke2fs and all it is linked with, by the beginning of the file's name. */
static const char *const mke2fs_files[] = {
    "mke2fs",     "libext2fs.so", "libe2p.so", "libcom_err.so", "libblkid.so",
    "libuuid.so", "libc.so.6",    "ld-linux-", "ld-linux.",
};

struct builder {
    struct cpio *cpio;
    struct kernel kernel;
    struct payload_tap tap;
    bool has_mke2fs;
    struct error *err;
};

static const char *base_of(const char *name)
{
    const char *slash = strrchr(name, '/');

    return slash ? slash + 1 : name;
}

static bool is_mke2fs_file(const char *name)
{
    const char *base = base_of(name);
    bool in_lib = strstr(name, "lib/") || strstr(name, "sbin/mke2fs");

    for (size_t i = 0; in_lib && i < ARRAY_SIZE(mke2fs_files); i++)
        if (!strncmp(base, mke2fs_files[i], strlen(mke2fs_files[i])))
            return strncmp(name, "usr/share", 9) != 0;
    return false;
}

static bool wants(const char *name, void *arg)
{
    return kernel_wants(name) || is_mke2fs_file(name);
}

/** All into one flat folder: links within a package's library folder stay right that way. */
static int take(const char *name, char *data, size_t size, const char *target, void *arg)
{
    struct builder *b = arg;
    bool is_program = !strcmp(base_of(name), "mke2fs");

    if (!is_mke2fs_file(name)) {
        if (!target)
            return kernel_take(&b->kernel, name, data, size, b->err);
        return 0;
    }
    if (target && !strcmp(base_of(target), base_of(name))) /* to another folder: all one here */
        return 0;
    cleanup(freep) char *owned = data;
    cleanup(freep) char *path =
        paths_format(b->err, "%s/%s", is_program ? "e2fs" : "lib", base_of(name));
    if (!path)
        return -ENOMEM;
    int r = target ? cpio_add_link(b->cpio, path, base_of(target))
                   : cpio_add_file(b->cpio, path, 0755, owned, size);
    b->has_mke2fs |= is_program;
    return r;
}

struct builder *builder_new(const char *path, struct error *err)
{
    struct builder *b = calloc(1, sizeof(*b));

    if (!b) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    b->err = err;
    b->tap = (struct payload_tap){.wants = wants, .take = take, .arg = b};
    b->cpio = cpio_new(path, err);
    if (!b->cpio || kernel_init(&b->kernel, err)) {
        builder_free(b);
        return NULL;
    }
    return b;
}

void builder_free(struct builder *b)
{
    if (!b)
        return;
    cpio_abandon(b->cpio);
    kernel_done(&b->kernel);
    free(b);
}

const struct payload_tap *builder_tap(struct builder *b)
{
    return &b->tap;
}

const struct kernel *builder_kernel(const struct builder *b)
{
    return b->kernel.image ? &b->kernel : NULL;
}

/** Everything but mke2fs of an initramfs. */
static int fill(struct builder *b, struct cpio *c, const char *busybox_deb,
                const char *const *modules, const char *folder, struct error *err)
{
    int r = build_add_skeleton(c);

    if (!r)
        r = build_add_busybox(c, busybox_deb, err);
    if (!r)
        r = modules_write(b->kernel.modules, modules, b->kernel.release, c, err);
    if (!r)
        r = build_add_embedded(c, folder);
    return r ? error_set(err, -r, "cannot write an initramfs: %s", strerror(-r)) : 0;
}

int builder_write_initrd(struct builder *b, const char *path, const char *busybox_deb,
                         struct error *err)
{
    if (!b->kernel.image)
        return error_set(err, EBADMSG, "the packages hold no kernel");
    struct cpio *c = cpio_new(path, err);
    if (!c)
        return -EIO;
    int r = fill(b, c, busybox_deb, root_modules, "initrd/", err);
    if (r) {
        cpio_abandon(c);
        return r;
    }
    return cpio_finish(c, err);
}

int builder_finish(struct builder *b, const char *busybox_deb, struct error *err)
{
    if (!b->kernel.image || !b->has_mke2fs)
        return error_set(err, EBADMSG, "the packages hold no %s",
                         b->kernel.image ? "mke2fs" : "kernel");
    int r = fill(b, b->cpio, busybox_deb, builder_modules, "builder/", err);
    return r ? r : cpio_finish(ptr_take(&b->cpio), err);
}
