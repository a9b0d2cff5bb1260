/* Merging the layers that nobody wants any more.
 *
 *   lock: decide          copy, no lock held        child's file: on what the layer lay on
 *         lock: tree without the layer              its file removed
 *
 * It may be killed anywhere: a child or layer that is only in part filled reads the same, and is
 * filled on; a child whose file does not name the layer any more only needs the tree to follow.
 *
 * With a machine, a child that is in one of its chains is that chain's; its disk stands still for
 * the moments at which the chain changes. Others are opened by merge.c: nobody else has them open.
 *
 * Threads: one at a time for an instance. */
#include "base/fd.h"
#include "snapshot/clean_internal.h"
#include "store/recover.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LOCK_RETRY_MS 20

static int ask(struct snapshots_clean *c, uint64_t done, uint64_t total)
{
    return c->progress ? c->progress(c->arg, done, total) : 0;
}

void cleaning_let_go(struct cleaning *k)
{
    tree_free(k->tree);
    k->tree = NULL;
    fd_close(k->dir_fd);
    k->dir_fd = -1;
    instance_close(k->held);
    k->held = NULL;
}

/** The lock, unless the caller has it: not waited for in a call, since who has it may wait for us
 * to break off. */
static int take_lock(struct cleaning *k, struct error *err)
{
    const struct timespec pause = {.tv_nsec = LOCK_RETRY_MS * 1000000};

    if (k->c->in) {
        k->in = k->c->in;
        return 0;
    }
    for (;;) {
        struct error why = {0};
        int rc = instance_open(k->c->instance, INSTANCE_CHANGE | INSTANCE_NO_WAIT, &k->held, &why);

        k->in = k->held;
        if (rc != -EBUSY)
            return rc ? error_set(err, -rc, "%s", error_text(&why)) : 0;
        if (ask(k->c, 0, 0))
            return error_set(err, ECANCELED, "broken off");
        (void)nanosleep(&pause, NULL);
    }
}

int cleaning_begin(struct cleaning *k, struct error *err)
{
    int rc = take_lock(k, err);

    if (rc)
        return rc;
    k->dir_fd = open(k->in->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (k->dir_fd < 0)
        return error_set(err, errno, "cannot open '%s': %s", k->in->dir, strerror(errno));
    return tree_load(k->dir_fd, &k->tree, err);
}

/** A layer that lies on another instance's is to hold what that one's holds, too. */
static int choose_foreign(struct cleaning *k, const struct tree_needs *needs, struct error *err)
{
    for (size_t i = 0; i < k->tree->layer_count; i++) {
        const struct tree_layer *l = &k->tree->layers[i];
        const char *who;

        if (l->over.kind != TREE_OVER_INSTANCE)
            continue;
        if ((who = tree_needed_by(k->tree, needs, l->id)))
            return error_set(err, EBUSY,
                             "'%s' lies on the disk of '%s', which cannot be changed: make that "
                             "independent first",
                             who, k->in->name);
        k->step.kind = TREE_MERGE;
        memcpy(k->step.layer, l->over.id, sizeof(k->step.layer));
        memcpy(k->step.child, l->id, sizeof(k->step.child));
        k->foreign = strdup(l->over.instance);
        return k->foreign ? 0 : error_set(err, ENOMEM, "out of memory");
    }
    return 0;
}

int cleaning_find_over(struct cleaning *k, struct error *err)
{
    struct instance *other = NULL;
    struct tree *t = NULL;
    const struct tree_layer *l;
    int rc = 0;

    if (k->foreign)
        rc = instance_open(k->foreign, 0, &other, err);
    if (!rc && other)
        rc = instance_tree(other, &t, err);
    l = rc ? NULL : tree_find_layer(t ? t : k->tree, k->step.layer);
    if (!rc && !l)
        rc = error_set(err, ENOENT, "layer %s does not exist", k->step.layer);
    if (!rc && tree_over_copy(&k->over, &l->over))
        rc = error_set(err, ENOMEM, "out of memory");
    if (!rc && k->foreign && k->over.kind == TREE_OVER_LAYER) {
        k->over.kind = TREE_OVER_INSTANCE;
        k->over.instance = strdup(k->foreign);
        rc = k->over.instance ? 0 : error_set(err, ENOMEM, "out of memory");
    }
    tree_free(t);
    instance_close(other);
    return rc;
}

/** What is to be done first. The lock is held, and given back. */
static int decide(struct cleaning *k, struct error *err)
{
    struct tree_needs needs = {0};
    int rc = cleaning_begin(k, err);

    if (!rc)
        rc = store_needs(k->in->name, &needs, err);
    if (!rc) {
        tree_next_step(k->tree, &needs, &k->step);
        k->left = tree_unwanted(k->tree, &needs);
        if (k->step.kind == TREE_DONE && k->c->promote)
            rc = choose_foreign(k, &needs, err);
    }
    tree_needs_done(&needs);
    return rc;
}

/** The child is independent of the other instance's layer. */
static int conclude_foreign(struct cleaning *k, struct error *err)
{
    int rc = k->tree ? 0 : cleaning_begin(k, err);
    struct tree_layer *child = rc ? NULL : tree_find_layer(k->tree, k->step.child);

    if (!rc && (!child || tree_over_copy(&child->over, &k->over)))
        rc = error_set(err, ENOMEM, "out of memory");
    if (!rc)
        rc = tree_store(k->dir_fd, k->tree, err);
    if (!rc)
        k->c->done++;
    return rc;
}

/** The tree without the layer, then the layer's file. */
static int conclude(struct cleaning *k, struct error *err)
{
    char path[TREE_PATH_BYTES];
    int rc = k->tree ? 0 : cleaning_begin(k, err);

    if (!rc && tree_drop_layer(k->tree, k->step.layer))
        rc = error_set(err, ENOMEM, "out of memory");
    if (!rc)
        rc = tree_store(k->dir_fd, k->tree, err);
    tree_layer_path(path, k->step.layer);
    if (!rc && unlinkat(k->dir_fd, path, 0) && errno != ENOENT)
        rc = error_set(err, errno, "cannot remove '%s': %s", path, strerror(errno));
    if (!rc)
        k->c->done++;
    return rc;
}

int snapshots_clean(struct snapshots_clean *c, struct error *err)
{
    struct cleaning k = {.c = c, .dir_fd = -1};
    int rc = 0;

    c->done = c->left = 0;
    do {
        rc = decide(&k, err);
        if (!rc && k.step.kind == TREE_REMOVE)
            rc = conclude(&k, err);
        else if (!rc && k.step.kind == TREE_MERGE && !(rc = cleaning_merge(&k, err)))
            rc = k.foreign ? conclude_foreign(&k, err) : conclude(&k, err);
        cleaning_let_go(&k);
        tree_over_done(&k.over);
        free(ptr_take(&k.foreign));
    } while (!rc && k.step.kind != TREE_DONE);
    c->left = rc ? 0 : k.left;
    return rc;
}
