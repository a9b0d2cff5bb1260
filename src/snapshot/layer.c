/* The files of layers: how they name each other, making and opening them. Any thread. */
#include "base/fd.h"
#include "disk/disk.h"
#include "snapshot/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

int snapshots_name_below(const struct tree_over *over, char **ret, const char **ret_format,
                         struct error *err)
{
    int n = 0;

    *ret = NULL;
    *ret_format = "qcow2";
    switch (over->kind) {
    case TREE_OVER_NOTHING:
        return 0;
    case TREE_OVER_LAYER:
        n = asprintf(ret, "%s.qcow2", over->id);
        break;
    case TREE_OVER_INSTANCE:
        n = asprintf(ret, "../../%s/disks/%s.qcow2", over->instance, over->id);
        break;
    case TREE_OVER_IMAGE:
        *ret = strdup(over->path);
        n = *ret ? 0 : -1;
        *ret_format = over->format;
        break;
    }
    return n < 0 ? error_set(err, ENOMEM, "out of memory") : 0;
}

static int path_of(const char *dir, const char *id, char ret[PATH_MAX], struct error *err)
{
    char path[TREE_PATH_BYTES];

    tree_layer_path(path, id);
    return snprintf(ret, PATH_MAX, "%s/%s", dir, path) >= PATH_MAX
               ? error_set(err, ENAMETOOLONG, "the path '%.100s...' is too long", dir)
               : 0;
}

int snapshots_open_layer(const char *dir, const char *id, unsigned flags, struct disk **ret,
                         struct error *err)
{
    /* Layers lie on other instances' and on images: the store made these references. */
    struct disk_options o = {.format = "qcow2", .flags = flags, .refs = DISK_REFS_ANY};
    char path[PATH_MAX];
    int rc = path_of(dir, id, path, err);

    return rc ? rc : disk_open(path, &o, ret, err);
}

int snapshots_make_layer(const char *dir, const struct tree_layer *l, uint64_t size_bytes,
                         struct error *err)
{
    struct disk_create c = {.size_bytes = size_bytes};
    cleanup(freep) char *below = NULL;
    char path[PATH_MAX];
    int rc = path_of(dir, l->id, path, err);

    if (!rc)
        rc = snapshots_name_below(&l->over, &below, &c.backing_format, err);
    c.backing_path = below;
    if (!below)
        c.backing_format = NULL;
    return rc ? rc : disk_create(path, disk_format_find("qcow2"), &c, err);
}
