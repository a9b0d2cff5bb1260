/* Going back to a snapshot, forgetting and renaming one. Each changes tree.json once; instance.yaml
 * follows a restore, and instance_recover() lets it if we are killed before. Threads: the caller's.
 */
#include "base/fd.h"
#include "disk/disk.h"
#include "snapshot/instance.h"
#include "store/recover.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/** An instance's tree that is being changed. */
struct edit {
    int dir_fd;
    struct tree *tree;
    struct tree_snapshot *snapshot;
};

static void edit_end(struct edit *e)
{
    tree_free(e->tree);
    fd_close(e->dir_fd);
}

static int edit_begin(struct edit *e, const struct instance *in, const char *name,
                      struct error *err)
{
    *e = (struct edit){.dir_fd = open(in->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    int rc = e->dir_fd < 0 ? error_set(err, errno, "cannot open '%s': %s", in->dir, strerror(errno))
                           : tree_load(e->dir_fd, &e->tree, err);

    if (!rc) {
        e->snapshot = tree_find_named(e->tree, name);
        if (!e->snapshot || e->snapshot->is_pending)
            rc = error_set(err, ENOENT, "'%s' has no snapshot '%s'", in->name, name);
    }
    if (rc)
        edit_end(e);
    return rc;
}

static int make_tops(const struct instance *in, const struct tree *t, struct error *err)
{
    const struct tree_point *p = &t->current;
    int rc = 0;

    for (size_t i = 0; !rc && i < p->disk_count; i++) {
        const struct tree_layer *l = tree_find_layer(t, p->disks[i].layer);
        struct disk *d = NULL;

        rc = snapshots_open_layer(in->dir, l->over.id, DISK_READONLY | DISK_NO_BACKING, &d, err);
        if (!rc)
            rc = snapshots_make_layer(in->dir, l, d->size_bytes, err);
        disk_close(d);
    }
    return rc;
}

int snapshots_restore(const struct instance *in, const char *name, struct error *err)
{
    struct edit e;
    int rc = edit_begin(&e, in, name, err);

    if (rc)
        return rc;
    rc = tree_restore(e.tree, e.snapshot->id, err);
    if (!rc)
        rc = make_tops(in, e.tree, err);
    if (!rc)
        rc = tree_store(e.dir_fd, e.tree, err);
    if (rc)
        (void)instance_sweep(in, NULL); /* the next command does it otherwise */
    else
        rc = instance_recover(in, err); /* the rest is what it would do after us */
    edit_end(&e);
    return rc;
}

int snapshots_delete(const struct instance *in, const char *name, struct error *err)
{
    struct tree_needs needs = {0};
    struct edit e;
    int rc = edit_begin(&e, in, name, err);

    if (rc)
        return rc;
    rc = store_needs(in->name, &needs, err);
    for (size_t i = 0; !rc && i < e.snapshot->point.disk_count; i++) {
        const char *layer = e.snapshot->point.disks[i].layer;
        const char *who = NULL;

        for (size_t k = 0; k < needs.count && !who; k++)
            who = strcmp(needs.items[k].layer, layer) ? NULL : needs.items[k].instance;
        if (who)
            rc = error_set(err, EBUSY,
                           "snapshot '%s' of '%s' is needed by '%s', whose disk lies on it: delete "
                           "that, or make it independent with 'posada copy --promote %s'",
                           name, in->name, who, who);
    }
    if (!rc) {
        tree_remove_snapshot(e.tree, e.snapshot->id);
        rc = tree_store(e.dir_fd, e.tree, err);
    }
    if (!rc)
        (void)instance_sweep(in, NULL); /* its state; the next command does it otherwise */
    tree_needs_done(&needs);
    edit_end(&e);
    return rc;
}

int snapshots_rename(const struct instance *in, const char *name, const char *new_name,
                     const char *description, struct error *err)
{
    struct edit e;
    int rc = edit_begin(&e, in, name, err);

    if (rc)
        return rc;
    if (new_name && !tree_name_is_valid(new_name))
        rc = error_set(err, EINVAL,
                       "'%.80s' cannot be a snapshot's name: up to 63 letters, digits, '-', '_' "
                       "and '.'",
                       new_name);
    else if (new_name && tree_find_named(e.tree, new_name) &&
             tree_find_named(e.tree, new_name) != e.snapshot)
        rc = error_set(err, EEXIST, "there is a snapshot '%s' already", new_name);
    if (!rc && new_name)
        memcpy(e.snapshot->name, new_name, strlen(new_name) + 1);
    if (!rc && description &&
        tree_set_text(&e.snapshot->description, *description ? description : NULL))
        rc = error_set(err, ENOMEM, "out of memory");
    if (!rc)
        rc = tree_store(e.dir_fd, e.tree, err);
    edit_end(&e);
    return rc;
}
