/* What interrupted commands leave of an instance, and who needs its layers.
 *
 * tree.json says what is true; everything here makes the rest follow it. Any part may be
 * interrupted and done again. Threads: any; the instance's lock is held where recover.h says so. */
#include "store/recover.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_dir(const struct instance *in, struct error *err)
{
    int fd = open(in->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? error_set(err, errno, "cannot open '%s': %s", in->dir, strerror(errno)) : fd;
}

static int load(const struct instance *in, int *ret_fd, struct tree **ret, struct error *err)
{
    int fd = open_dir(in, err);
    int rc = fd < 0 ? fd : tree_load(fd, ret, err);

    if (rc) {
        if (fd >= 0)
            error_prefix(err, "instance '%s'", in->name);
        fd_close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

int instance_sweep(const struct instance *in, struct error *err)
{
    struct tree *t = NULL;
    cleanup(fd_closep) int fd = -1;
    int rc = load(in, &fd, &t, err);

    if (!rc) {
        tree_abandon(fd);
        rc = tree_sweep(fd, t, NULL, err);
    }
    tree_free(t);
    return rc;
}

/** Snapshots whose state nobody writes any more. */
static bool drop_pending(struct tree *t)
{
    bool any = false;

    for (size_t i = t->snapshot_count; i--;) {
        if (!t->snapshots[i].is_pending)
            continue;
        tree_remove_snapshot(t, t->snapshots[i].id);
        any = true;
    }
    return any;
}

/** Layers whose file has taken their child's name, by a merge that was killed before it said so. */
static bool follow_merges(int dir_fd, struct tree *t)
{
    bool any = false;

    for (size_t i = t->layer_count; i--;) {
        char path[TREE_PATH_BYTES];
        const char *id = t->layers[i].id;

        tree_layer_path(path, id);
        if (tree_is_named(t, id) || tree_children(t, id, NULL) != 1 ||
            !faccessat(dir_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) || errno != ENOENT)
            continue;
        any |= !tree_drop_layer(t, id); /* out of memory: the next time */
    }
    return any;
}

int instance_recover(const struct instance *in, struct error *err)
{
    struct tree *t = NULL;
    cleanup(fd_closep) int fd = -1;
    int rc = load(in, &fd, &t, err);

    if (rc)
        return rc;
    bool changed = drop_pending(t);
    changed |= follow_merges(fd, t);
    if (t->current.config) {
        rc = instance_write_config(in, t->current.config, err);
        free(ptr_take(&t->current.config));
        changed = true;
    }
    if (!rc && changed)
        rc = tree_store(fd, t, err);
    if (!rc) {
        tree_abandon(fd);
        rc = tree_sweep(fd, t, NULL, err);
    }
    tree_free(t);
    return rc;
}

int instance_drop_state(const struct instance *in, struct error *err)
{
    struct tree *t = NULL;
    cleanup(fd_closep) int fd = -1;
    int rc = load(in, &fd, &t, err);

    if (!rc && *t->current.state) {
        *t->current.state = 0;
        rc = tree_store(fd, t, err);
        if (!rc)
            rc = tree_sweep(fd, t, NULL, err);
    }
    tree_free(t);
    return rc;
}

int instance_config_text(const struct instance *in, char **ret, struct error *err)
{
    cleanup(freep) char *path = instance_path(in, err, "instance.yaml");
    cleanup(fd_closep) int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    struct stat st;

    if (!path)
        return -ENOMEM;
    if (fd < 0 || fstat(fd, &st))
        return error_set(err, errno, "cannot read '%s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size >= CONFIG_FILE_MAX)
        return error_set(err, EINVAL, "'%s' is no file of a sensible length", path);
    char *text = calloc(1, (size_t)st.st_size + 1);
    int rc = text ? fd_pread_all(fd, text, (size_t)st.st_size, 0) : -ENOMEM;
    if (rc) {
        free(text);
        return error_set(err, -rc, "cannot read '%s': %s", path, strerror(-rc));
    }
    *ret = text;
    return 0;
}

static int add_needs(const char *name, const char *other, struct tree_needs *needs,
                     struct error *err)
{
    struct instance *in = NULL;
    struct tree *t = NULL;
    struct error why = {0};
    int rc = instance_open(other, 0, &in, &why);

    if (rc == -ENOENT)
        return 0; /* it has just gone */
    if (!rc)
        rc = instance_tree(in, &t, &why);
    if (!rc && tree_needs_add(needs, name, other, t))
        rc = error_set(&why, ENOMEM, "out of memory");
    tree_free(t);
    instance_close(in);
    return rc ? error_set(err, -rc, "cannot tell what '%s' needs of '%s': %s", other, name,
                          error_text(&why))
              : 0;
}

int store_needs(const char *name, struct tree_needs *ret, struct error *err)
{
    char **names = NULL;
    size_t n = 0;
    int rc = store_list(&names, &n, err);

    *ret = (struct tree_needs){0};
    for (size_t i = 0; !rc && i < n; i++) {
        if (strcmp(names[i], name) != 0)
            rc = add_needs(name, names[i], ret, err);
    }
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return rc;
}

int store_check_unneeded(const char *name, const char *to_what, struct error *err)
{
    struct tree_needs needs = {0};
    int rc = store_needs(name, &needs, err);

    if (!rc && needs.count)
        rc = error_set(
            err, EBUSY,
            "'%s' cannot be %s: the disk of '%s' lies on its own; delete that, or make it "
            "independent with 'posada copy --promote %s'",
            name, to_what, needs.items[0].instance, needs.items[0].instance);
    tree_needs_done(&needs);
    return rc;
}
