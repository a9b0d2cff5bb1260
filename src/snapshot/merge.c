/* Merging a layer and the one child that lies on it, by the cheaper of two ways.
 *
 *   up: what the child lacks is copied into the child's file, which then names what the layer lay
 * on down: what the child holds is copied into the layer's file, which then takes the child's name
 *
 * Either way costs what is copied; the smaller file says which. What is copied is hidden by what
 * holds it already, so the chain reads the same at every moment, and the end of either is one
 * atomic change of one file: killed anywhere, it is begun again, or only the tree is to follow.
 *
 * The top that a machine writes to cannot be copied down while it is written to. If little is in
 * it, its disk stands still for that; else it gets a new top, so that it can, and the new one is
 * next.
 *
 * Threads: as clean.c. */
#include "base/fd.h"
#include "base/paths.h"
#include "disk/chain.h"
#include "disk/throttle.h"
#include "snapshot/clean_internal.h"
#include "vm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define STILL_BYTES (4u << 20) /* copied while a disk stands still, at most */
#define PUSHES_MAX  16         /* then the guest writes faster than we copy */

struct merging {
    struct vm *vm;  /* NULL: the child is in none of its chains */
    size_t index;   /* of the machine's disk; with vm */
    struct disk *d; /* ours to close without vm */
    unsigned depth; /* of the child in it */
    char *path;     /* the child's file */
    char *layer;    /* the layer's; NULL = it is another instance's */
    char *below;    /* what the child shall lie on; NULL = nothing */
    const char *below_format;
};

static bool is_layer(const struct disk *d, const char *id)
{
    const char *slash = d->path ? strrchr(d->path, '/') : NULL;
    const char *name = slash ? slash + 1 : d->path;

    return name && !strncmp(name, id, TREE_ID_BYTES - 1) &&
           !strcmp(name + TREE_ID_BYTES - 1, ".qcow2");
}

/** Is layer @id in the machine's chains? */
static bool find_live(struct merging *m, struct vm *vm, size_t disks, const char *id)
{
    for (size_t i = 0; vm && i < disks; i++) {
        struct disk *top = vm_disk(vm, i);
        unsigned depth = 0;

        for (struct disk *d = disk_is_throttled(top) ? top->below : top; d; d = d->below, depth++) {
            if (!is_layer(d, id))
                continue;
            m->vm = vm;
            m->index = i;
            m->d = top;
            m->depth = depth;
            return true;
        }
    }
    return false;
}

static void hold(const struct merging *m)
{
    if (m->vm)
        vm_disk_hold(m->vm, m->index);
}

static void release(const struct merging *m)
{
    if (m->vm)
        vm_disk_release(m->vm, m->index);
}

static void merging_done(struct merging *m)
{
    if (!m->vm)
        disk_close(m->d);
    free(m->path);
    free(m->layer);
    free(m->below);
    *m = (struct merging){0};
}

/** The child, open, and what is to become of it. The lock is held. */
static int prepare(struct cleaning *k, struct merging *m, struct error *err)
{
    char path[TREE_PATH_BYTES];
    int rc = cleaning_find_over(k, err);

    if (!rc)
        rc = snapshots_name_below(&k->over, &m->below, &m->below_format, err);
    tree_layer_path(path, k->step.child);
    m->path = rc ? NULL : instance_path(k->in, err, "%s", path);
    tree_layer_path(path, k->step.layer);
    if (m->path && !k->foreign)
        m->layer = instance_path(k->in, err, "%s", path);
    if (!m->path || (!m->layer && !k->foreign))
        return rc ? rc : -ENOMEM;
    if (find_live(m, k->c->vm, k->tree->current.disk_count, k->step.child))
        return 0;
    return snapshots_open_layer(k->in->dir, k->step.child, 0, &m->d, err);
}

/** Has the child's file been linked past the layer already, by a merge that was killed? */
static bool is_linked(const struct merging *m, const char *layer)
{
    const struct disk *d = disk_is_throttled(m->d) ? m->d->below : m->d;

    for (unsigned depth = m->depth; depth--;)
        d = d->below;
    return !d->below || !is_layer(d->below, layer);
}

/** Others may look and change what they may while we copy. */
static void unlock(struct cleaning *k)
{
    if (!k->c->in)
        cleaning_let_go(k);
}

static int merge_up(struct cleaning *k, const struct merging *m, struct error *err)
{
    struct disk_merge *merge = NULL;
    struct disk *old = NULL;

    unlock(k);
    hold(m);
    int rc = disk_merge_begin(m->d, m->depth, m->path, &merge, err);
    release(m);
    if (rc)
        return rc;
    rc = disk_merge_copy(merge, k->c->progress, k->c->arg, err);
    if (!rc)
        rc = disk_merge_link(merge, m->below, m->below ? m->below_format : NULL, err);
    hold(m);
    disk_merge_end(merge, &old);
    release(m);
    disk_close(old);
    return rc;
}

/** What the file takes on the host; that of one that cannot be asked is much. */
static uint64_t space(const char *path)
{
    struct stat st;

    return stat(path, &st) ? UINT64_MAX : (uint64_t)st.st_blocks * 512;
}

/** The merged file takes the child's name, for good. The lock is held. */
static int take_name(const struct cleaning *k, const struct merging *m, struct error *err)
{
    cleanup(freep) char *folder = instance_path(k->in, err, "disks");

    if (!folder)
        return -ENOMEM;
    if (rename(m->layer, m->path))
        return error_set(err, errno, "cannot rename '%s' to '%s': %s", m->layer, m->path,
                         strerror(errno));
    return paths_sync_dir(folder, err); /* before a tree that knows nothing of the layer */
}

/** The name is taken; the chain of the machine, which stands still, follows. */
static void put_in_place(const struct merging *m, struct disk_sink *s)
{
    struct error unheard = {0};
    struct disk *d = NULL;

    /* What cannot be opened anew is read by the two that are open, which hold the same. */
    if (m->vm && !disk_sink_finish(s, m->path, &d, &unheard) && d != m->d)
        vm_disk_set(m->vm, m->index, d);
}

/** A child that nobody writes to. */
static int merge_down(struct cleaning *k, const struct merging *m, struct error *err)
{
    struct disk_sink *s = NULL;
    int rc = disk_sink_begin(m->d, m->depth, m->layer, &s, err);

    if (rc)
        return rc;
    unlock(k);
    rc = disk_sink_copy(s, k->c->progress, k->c->arg, err);
    if (!rc && !k->tree)
        rc = cleaning_begin(k, err);
    if (!rc) {
        hold(m);
        rc = take_name(k, m, err);
        if (!rc)
            put_in_place(m, s);
        release(m);
    }
    disk_sink_end(s);
    return rc;
}

/** The top that the machine writes to, with little in it. The lock is held. */
static int merge_down_still(struct cleaning *k, const struct merging *m, struct error *err)
{
    struct disk_sink *s = NULL;

    hold(m);
    int rc = disk_sink_begin(m->d, m->depth, m->layer, &s, err);
    if (!rc)
        rc = disk_sink_copy(s, NULL, NULL, err);
    if (!rc)
        rc = take_name(k, m, err);
    if (!rc)
        put_in_place(m, s);
    disk_sink_end(s);
    release(m);
    return rc;
}

/** A new top, so that nobody writes to the child any more. The lock is held. */
static int push(struct cleaning *k, struct merging *m, struct error *err)
{
    const struct snapshots_take take = {.vm = k->c->vm};
    int rc = snapshots_take(k->in, &take, NULL, err);

    merging_done(m);
    tree_over_done(&k->over);
    tree_free(ptr_take(&k->tree));
    k->pushes++;
    if (!rc)
        rc = tree_load(k->dir_fd, &k->tree, err);
    return rc ? rc : prepare(k, m, err);
}

/** Can what is the top get one upon it? */
static bool has_room(const struct tree *t)
{
    for (size_t i = 0; i < t->current.disk_count; i++) {
        if (tree_depth(t, t->current.disks[i].layer) >= TREE_DEPTH_MAX)
            return false;
    }
    return true;
}

static int choose_and_merge(struct cleaning *k, struct merging *m, struct error *err)
{
    struct error why = {0};
    uint64_t child = space(m->path);
    uint64_t layer = k->foreign ? 0 : space(m->layer);
    bool is_live_top = m->vm && !m->depth;
    int rc = -ENOTSUP;

    bool is_to_push = is_live_top && child > STILL_BYTES;
    if (child >= layer || (is_to_push && (k->pushes >= PUSHES_MAX || !has_room(k->tree))))
        return merge_up(k, m, err);
    if (is_live_top && !is_to_push)
        rc = merge_down_still(k, m, &why);
    else if (!is_to_push || !(rc = push(k, m, &why)))
        rc = merge_down(k, m, &why);
    if (rc == -ENOTSUP) /* the sizes differ */
        return merge_up(k, m, err);
    return rc ? error_set(err, -rc, "%s", error_text(&why)) : 0;
}

int cleaning_merge(struct cleaning *k, struct error *err)
{
    struct merging m = {0};
    int rc = prepare(k, &m, err);

    if (!rc && !is_linked(&m, k->step.layer))
        rc = choose_and_merge(k, &m, err);
    merging_done(&m);
    return rc;
}
