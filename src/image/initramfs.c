/* What the initramfs of "tiny" and that of the build machine have in common. One thread. */
#include "base/fd.h"
#include "image/build_internal.h"
#include "image/cpio.h"
#include "image/embedded.h"
#include "image/unpack.h"

#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define BUSYBOX_MAX (16u << 20)

struct busybox {
    char *data;
    size_t size;
    struct error *err;
};

static int find_busybox(struct archive *a, struct archive_entry *entry, const char *name, void *arg)
{
    struct busybox *b = arg;

    if (b->data || archive_entry_filetype(entry) != AE_IFREG ||
        (strcmp(name, "bin/busybox") && strcmp(name, "usr/bin/busybox")))
        return 0;
    return deb_read_entry(a, BUSYBOX_MAX, &b->data, &b->size, b->err);
}

int build_add_busybox(struct cpio *c, const char *deb, struct error *err)
{
    static const struct deb_ops ops = {.data = find_busybox};
    struct busybox b = {.err = err};
    int r = deb_read(deb, &ops, &b, err);

    if (!r && !b.data)
        r = error_set(err, EBADMSG, "package '%s' has no busybox in it", deb);
    if (!r)
        r = cpio_add_file(c, "bin/busybox", 0755, b.data, b.size);
    if (!r)
        r = cpio_add_link(c, "bin/sh", "busybox");
    if (!r) /* the kernel calls it, for the parts of ext4 that are modules of their own */
        r = cpio_add_link(c, "sbin/modprobe", "../bin/busybox");
    free(b.data);
    return r;
}

/** Folders, and the console that Linux opens for process 1 before /dev is mounted. */
int build_add_skeleton(struct cpio *c)
{
    static const char *const dirs[] = {"proc", "sys",  "dev",      "run",     "tmp",
                                       "mnt",  "root", "usr/sbin", "usr/bin", "sbin"};
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(dirs) && !r; i++)
        r = cpio_add_dir(c, dirs[i], 0755);
    if (!r)
        r = cpio_add_char_device(c, "dev/console", 0600, 5, 1);
    if (!r)
        r = cpio_add_char_device(c, "dev/null", 0666, 1, 3);
    return r;
}

int build_add_embedded(struct cpio *c, const char *folder)
{
    size_t n = strlen(folder);
    int r = -ENOENT;

    for (size_t i = 0; i < embedded_file_count && (!r || r == -ENOENT); i++) {
        const struct embedded_file *f = &embedded_files[i];

        if (!strncmp(f->path, folder, n))
            r = cpio_add_file(c, f->path + n, f->mode, f->data, f->size);
    }
    return r;
}

int build_add_programs(struct cpio *c, const char *arch)
{
    char folder[IMAGE_WORD_MAX + 8];

    (void)snprintf(folder, sizeof(folder), "arch/%s/", arch);
    int r = build_add_embedded(c, folder);
    return r == -ENOENT ? 0 : r; /* there are none for that architecture yet */
}
