/* Copies of instances: full, whose disks are their own, or linked, whose disks lie on the
 * original's.
 *
 * The new instance is put together in a folder of its own and appears whole, by one rename. Its
 * tree names a layer of the original before anything could take that away: the original's lock is
 * held.
 *
 * Threads: the caller's; disk_copy()'s. */
#include "base/fd.h"
#include "base/paths.h"
#include "disk/disk.h"
#include "disk/tool/tool.h"
#include "snapshot/instance.h"
#include "store/recover.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

struct copying {
    const struct instance *from;
    const struct instance *to;
    const struct snapshots_copy *o;
    struct tree *source;
    const struct tree_point *point;
    char *dir; /* of the new one, for now */
    struct tree *tree;
};

static int progress(void *arg, uint64_t done, uint64_t total)
{
    const struct snapshots_copy *o = arg;

    return o->progress ? o->progress(o->arg, done, total) : 0;
}

/** How many of @d's layers lie above the image, and the lowest of them. */
static unsigned count_layers(struct disk *d, const struct disk **ret_lowest)
{
    unsigned n = 1;

    while (d->below && d->backing_path && *d->backing_path != '/') {
        d = d->below;
        n++;
    }
    *ret_lowest = d;
    return n;
}

/** Let the host share the blocks of a layer that is a single file. */
static bool clone_file(const struct copying *c, const char *from_id, const char *to_id)
{
    char from[TREE_PATH_BYTES];
    char to[TREE_PATH_BYTES];

    tree_layer_path(from, from_id);
    tree_layer_path(to, to_id);
    cleanup(freep) char *from_path = instance_path(c->from, NULL, "%s", from);
    cleanup(freep) char *to_path = paths_format(NULL, "%s/%s", c->dir, to);
    cleanup(fd_closep) int in = from_path ? open(from_path, O_RDONLY | O_CLOEXEC) : -1;
    cleanup(fd_closep) int out =
        to_path ? open(to_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;

    if (in >= 0 && out >= 0 && !ioctl(out, FICLONE, in) && !fsync(out))
        return true;
    if (out >= 0)
        (void)unlink(to_path);
    return false;
}

/** What the layers above the image hold, in one new layer @l. */
static int flatten(const struct copying *c, struct disk *source, unsigned depth,
                   const struct tree_layer *l, struct error *err)
{
    const struct disk_job job = {.progress = progress, .arg = (void *)c->o};
    struct disk_copy copy = {
        .source = source,
        .depth = l->over.kind == TREE_OVER_IMAGE ? depth : 0,
        .target_is_zero = l->over.kind != TREE_OVER_IMAGE,
        .sparse_bytes = DISK_SPARSE_DEFAULT,
    };
    int rc = snapshots_make_layer(c->dir, l, source->size_bytes, err);

    if (!rc)
        rc = snapshots_open_layer(c->dir, l->id, 0, &copy.target, err);
    if (rc)
        return rc;
    rc = disk_copy(&copy, &job, err);
    if (!rc && (rc = disk_flush(copy.target)))
        (void)error_set(err, -rc, "cannot write '%s': %s", copy.target->path, strerror(-rc));
    disk_close(copy.target);
    return rc;
}

static int copy_full(struct copying *c, const char *from_id, const char *id, struct error *err)
{
    struct tree_over over = {0};
    const struct disk *lowest;
    struct disk *d = NULL;
    int rc = snapshots_open_layer(c->from->dir, from_id, DISK_READONLY, &d, err);

    if (rc)
        return rc;
    unsigned depth = count_layers(d, &lowest);
    if (lowest->backing_path)
        over = (struct tree_over){
            .kind = TREE_OVER_IMAGE,
            .path = lowest->backing_path,
            .format = lowest->backing_format,
        };
    const struct tree_layer *l = tree_add_layer(c->tree, id, &over, err);
    if (!l)
        rc = -ENOMEM;
    else if (depth > 1 || !clone_file(c, from_id, id))
        rc = flatten(c, d, depth, l, err);
    disk_close(d);
    return rc;
}

static int copy_linked(struct copying *c, const char *from_id, const char *id, struct error *err)
{
    struct tree_over over = {.kind = TREE_OVER_INSTANCE, .instance = c->from->name};
    struct disk *d = NULL;

    memcpy(over.id, from_id, sizeof(over.id));
    const struct tree_layer *l = tree_add_layer(c->tree, id, &over, err);
    int rc =
        l ? snapshots_open_layer(c->from->dir, from_id, DISK_READONLY | DISK_NO_BACKING, &d, err)
          : -ENOMEM;

    if (!rc)
        rc = snapshots_make_layer(c->dir, l, d->size_bytes, err);
    disk_close(d);
    return rc;
}

static int copy_disks(struct copying *c, struct error *err)
{
    cleanup(freep) char *disks = paths_format(err, "%s/disks", c->dir);
    int rc = disks ? paths_make(disks, err) : -ENOMEM;

    for (size_t i = 0; !rc && i < c->point->disk_count; i++) {
        struct tree_disk *d = &c->tree->current.disks[c->tree->current.disk_count++];

        *d = c->point->disks[i];
        rc = tree_new_id(d->layer, err);
        if (!rc)
            rc = (c->o->linked ? copy_linked : copy_full)(c, c->point->disks[i].layer, d->layer,
                                                          err);
    }
    return rc ? rc : paths_sync_dir(disks, err);
}

/** Configuration: the original's, with an identity of its own. */
static int copy_config(struct copying *c, struct error *err)
{
    struct instance_config config;
    char uuid[37];
    char mac[18];
    cleanup(freep) char *now = NULL;
    const char *text = c->point->config;
    int rc = c->o->snapshot ? 0 : instance_config_text(c->from, &now, err);

    if (rc)
        return rc;
    text = now ? now : text ? text : "";
    rc = config_parse("instance.yaml", text, strlen(text), &config, err);
    if (rc)
        return rc;
    instance_new_uuid(uuid);
    instance_new_mac(mac);
    rc = config_set(&config, config_find("uuid", err), uuid, err);
    if (!rc)
        rc = config_set(&config, config_find("mac", err), mac, err);
    if (!rc)
        rc = instance_share_files(c->from, &config, c->dir, c->to->name, err);
    cleanup(freep) char *path = paths_format(err, "%s/instance.yaml", c->dir);
    cleanup(freep) char *fresh = rc ? NULL : config_format(&config, err);
    if (!rc)
        rc = path && fresh ? paths_write_safe(path, fresh, strlen(fresh), err) : -ENOMEM;
    config_done(&config);
    return rc;
}

static int find_point(struct copying *c, struct error *err)
{
    const struct tree_snapshot *s;

    c->point = &c->source->current;
    if (!c->o->snapshot)
        return 0;
    s = tree_find_named(c->source, c->o->snapshot);
    if (!s || s->is_pending)
        return error_set(err, ENOENT, "'%s' has no snapshot '%s'", c->from->name, c->o->snapshot);
    c->point = &s->point;
    return 0;
}

/** The state of the point becomes what the copy goes on from. */
static int copy_state(struct copying *c, struct error *err)
{
    char name[TREE_PATH_BYTES];

    if (!c->o->state)
        return 0;
    if (!*c->point->state)
        return error_set(err, EINVAL,
                         "snapshot '%s' has no state of a running machine that a copy could go on "
                         "from",
                         c->o->snapshot);
    tree_state_path(name, c->point->state);
    cleanup(freep) char *states = paths_format(err, "%s/states", c->dir);
    cleanup(freep) char *from = instance_path(c->from, err, "%s", name);
    cleanup(freep) char *to = paths_format(err, "%s/%s", c->dir, name);
    int rc = states && from && to ? paths_make(states, err) : -ENOMEM;

    if (!rc)
        rc = store_share(from, to, err);
    memcpy(c->tree->current.state, c->point->state, sizeof(c->tree->current.state));
    return rc;
}

static int write_tree(const struct copying *c, struct error *err)
{
    cleanup(fd_closep) int fd = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? error_set(err, errno, "cannot open '%s': %s", c->dir, strerror(errno))
                  : tree_store(fd, c->tree, err);
}

int snapshots_copy(const struct instance *from, struct instance *to, const struct snapshots_copy *o,
                   struct error *err)
{
    struct copying c = {.from = from, .to = to, .o = o, .tree = tree_new()};
    int rc = c.tree ? instance_tree(from, &c.source, err) : error_set(err, ENOMEM, "out of memory");

    assert(!o->linked || o->snapshot);
    if (!rc)
        rc = find_point(&c, err);
    if (!rc)
        rc = instance_stage(to, &c.dir, err);
    if (!rc)
        rc = copy_disks(&c, err);
    if (!rc)
        rc = copy_state(&c, err);
    if (!rc)
        rc = copy_config(&c, err);
    if (!rc && !o->state) /* a guest that goes on is told by who lets it */
        rc = instance_mark_new(c.dir, INSTANCE_NEW_NAME | INSTANCE_NEW_IDENTITY, err);
    if (!rc)
        rc = write_tree(&c, err);
    if (!rc)
        rc = instance_commit(to, err);
    if (rc && c.dir)
        (void)paths_remove(c.dir); /* else the next who locks it does */
    free(c.dir);
    tree_free(c.source);
    tree_free(c.tree);
    return rc;
}
