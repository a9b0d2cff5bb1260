/* Reading a linux-image package: kernel and modules. One thread. */
#include "base/fd.h"
#include "image/build_internal.h"
#include "image/modules.h"
#include "image/unpack.h"

#include <archive_entry.h>
#include <errno.h>
#include <string.h>

#define KERNEL_MAX (256u << 20)

/** The release that the kernel file @name is of: "boot/vmlinux-REL" (until Debian 13), or
 * "usr/lib/modules/REL/vmlinuz" (since). */
static struct slice release_of(const char *name)
{
    static const char modules[] = "usr/lib/modules/";
    const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;

    if (!strncmp(name, "boot/vmlinu", 11) && base[6] && base[7] == '-')
        return slice_of(base + 8);
    if (!strncmp(name, modules, sizeof(modules) - 1) &&
        (!strcmp(base, "vmlinuz") || !strcmp(base, "vmlinux"))) {
        const char *release = name + sizeof(modules) - 1;

        if (base - release > 1 && memchr(release, '/', (size_t)(base - release)) == base - 1)
            return (struct slice){release, (size_t)(base - 1 - release)};
    }
    return (struct slice){"", 0};
}

bool kernel_wants(const char *name)
{
    return modules_is_path(name) || release_of(name).n;
}

int kernel_take(struct kernel *k, const char *name, char *data, size_t size, struct error *err)
{
    if (modules_is_path(name))
        return modules_add(k->modules, name, data, size) ? error_set(err, ENOMEM, "out of memory")
                                                         : 0;
    if (k->image) {
        free(data);
        return 0;
    }
    k->image = data;
    k->image_size = size;
    k->release = slice_dup(release_of(name));
    return k->release ? 0 : error_set(err, ENOMEM, "out of memory");
}

struct reader {
    struct kernel *kernel;
    struct error *err;
};

static int read_entry(struct archive *a, struct archive_entry *entry, const char *name, void *arg)
{
    struct reader *r = arg;
    char *data = NULL;
    size_t size = 0;

    if (archive_entry_filetype(entry) != AE_IFREG || !kernel_wants(name))
        return 0;
    int e = deb_read_entry(a, KERNEL_MAX, &data, &size, r->err);
    return e ? e : kernel_take(r->kernel, name, data, size, r->err);
}

int kernel_init(struct kernel *k, struct error *err)
{
    *k = (struct kernel){.modules = modules_new()};
    return k->modules ? 0 : error_set(err, ENOMEM, "out of memory");
}

int kernel_read(struct kernel *k, const char *path, struct error *err)
{
    static const struct deb_ops ops = {.data = read_entry};
    struct reader r = {k, err};

    return deb_read(path, &ops, &r, err);
}

void kernel_done(struct kernel *k)
{
    free(k->release);
    free(k->image);
    modules_free(k->modules);
    *k = (struct kernel){0};
}
