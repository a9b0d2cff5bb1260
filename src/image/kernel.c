/* Reading a linux-image package: kernel and modules. One thread. */
#include "base/fd.h"
#include "image/build_internal.h"
#include "image/modules.h"
#include "image/unpack.h"

#include <archive_entry.h>
#include <errno.h>
#include <string.h>

#define KERNEL_MAX (256u << 20)
#define MODULE_MAX (64u << 20)

struct reader {
    struct kernel *kernel;
    struct error *err;
};

static int read_image(struct archive *a, const char *name, struct reader *r)
{
    struct kernel *k = r->kernel;

    if (k->image)
        return 0;
    k->release = strdup(strchr(name, '-') + 1);
    if (!k->release)
        return error_set(r->err, ENOMEM, "out of memory");
    return deb_read_entry(a, KERNEL_MAX, &k->image, &k->image_size, r->err);
}

static int read_entry(struct archive *a, struct archive_entry *entry, const char *name, void *arg)
{
    struct reader *r = arg;
    char *data = NULL;
    size_t size = 0;

    if (archive_entry_filetype(entry) != AE_IFREG)
        return 0;
    if (!strncmp(name, "boot/vmlinuz-", 13) || !strncmp(name, "boot/vmlinux-", 13))
        return read_image(a, name, r);
    if (!modules_is_path(name))
        return 0;
    int e = deb_read_entry(a, MODULE_MAX, &data, &size, r->err);
    if (!e && modules_add(r->kernel->modules, name, data, size))
        e = error_set(r->err, ENOMEM, "out of memory");
    return e;
}

int kernel_read(const char *path, struct kernel *ret, struct error *err)
{
    static const struct deb_ops ops = {.data = read_entry};
    struct reader r = {ret, err};

    *ret = (struct kernel){.modules = modules_new()};
    if (!ret->modules)
        return error_set(err, ENOMEM, "out of memory");
    int e = deb_read(path, &ops, &r, err);
    if (!e && !ret->image)
        e = error_set(err, EBADMSG, "package '%s' has no kernel in it", path);
    return e;
}

void kernel_done(struct kernel *k)
{
    free(k->release);
    free(k->image);
    modules_free(k->modules);
    *k = (struct kernel){0};
}
