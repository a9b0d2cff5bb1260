/* What snapshots, restores and merges do to a tree. Threads: the owner's. */
#include "store/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/** A new layer of a random name over @over. */
static struct tree_layer *add_over(struct tree *t, const char *over, struct error *err)
{
    struct tree_over o = {.kind = TREE_OVER_LAYER};
    char id[TREE_ID_BYTES];

    if (tree_depth(t, over) >= TREE_DEPTH_MAX) {
        (void)error_set(err, E2BIG,
                        "%d disk layers lie upon each other: delete snapshots between them first",
                        TREE_DEPTH_MAX);
        return NULL;
    }
    memcpy(o.id, over, sizeof(o.id));
    return tree_new_id(id, err) ? NULL : tree_add_layer(t, id, &o, err);
}

int tree_push_tops(struct tree *t, struct error *err)
{
    for (size_t i = 0; i < t->current.disk_count; i++) {
        struct tree_disk *d = &t->current.disks[i];
        const struct tree_layer *l = add_over(t, d->layer, err);

        if (!l)
            return -(err && err->code ? err->code : ENOMEM);
        memcpy(d->layer, l->id, sizeof(d->layer));
    }
    return 0;
}

int tree_take(struct tree *t, const char *name, const char *config, const char *state,
              struct tree_snapshot **ret, struct error *err)
{
    char id[TREE_ID_BYTES];

    if (!tree_name_is_valid(name))
        return error_set(
            err, EINVAL,
            "'%.80s' cannot be a snapshot's name: up to 63 letters, digits, '-', '_' and '.'",
            name);
    if (tree_find_named(t, name))
        return error_set(err, EEXIST, "there is a snapshot '%s' already", name);
    int rc = tree_new_id(id, err);
    if (rc)
        return rc;
    struct tree_snapshot *s = tree_add_snapshot(t, id, err);
    if (!s)
        return -(err && err->code ? err->code : ENOMEM);
    memcpy(s->name, name, strlen(name) + 1);
    memcpy(s->parent, t->parent, sizeof(s->parent));
    memcpy(s->point.disks, t->current.disks, sizeof(s->point.disks));
    s->point.disk_count = t->current.disk_count;
    s->time_s = time(NULL);
    if (state)
        memcpy(s->point.state, state, sizeof(s->point.state));
    if (tree_set_text(&s->point.config, config))
        return error_set(err, ENOMEM, "out of memory");
    memcpy(t->parent, s->id, sizeof(t->parent));
    *ret = s;
    return tree_push_tops(t, err);
}

int tree_restore(struct tree *t, const char *id, struct error *err)
{
    const struct tree_snapshot *s = tree_find_snapshot(t, id);

    if (!s)
        return error_set(err, ENOENT, "there is no snapshot '%s'", id);
    memcpy(t->current.disks, s->point.disks, sizeof(t->current.disks));
    t->current.disk_count = s->point.disk_count;
    memcpy(t->current.state, s->point.state, sizeof(t->current.state));
    memcpy(t->parent, s->id, sizeof(t->parent));
    if (tree_set_text(&t->current.config, s->point.config))
        return error_set(err, ENOMEM, "out of memory");
    return tree_push_tops(t, err);
}

int tree_drop_layer(struct tree *t, const char *id)
{
    const struct tree_layer *child = NULL;
    const struct tree_layer *l = tree_find_layer(t, id);
    char own[TREE_ID_BYTES];

    if (!l)
        return 0;
    memcpy(own, l->id, sizeof(own));
    if (tree_children(t, own, &child) &&
        tree_over_copy(&tree_find_layer(t, child->id)->over, &l->over))
        return -ENOMEM;
    tree_remove_layer(t, own);
    return 0;
}
