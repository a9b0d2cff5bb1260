/* Is a tree whole?
 *
 * A tree has at most some thousand layers and snapshots, so looking each up in turn is quick
 * enough; chains are followed once each by marking what was seen.
 *
 * Threads: any. */
#include "store/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/** Are the @count identifiers that lie @stride bytes apart all different? */
static bool are_unique(const char *first, size_t count, size_t stride)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (!strcmp(first + i * stride, first + j * stride))
                return false;
        }
    }
    return true;
}

/** Does following the parents from every node end? @parent: index of each one's, or -1. */
static bool ends(const int *parent, size_t count)
{
    uint8_t *known = calloc(count + 1, 1); /* 1: being followed, 2: ends */
    bool good = known != NULL;

    for (size_t i = 0; good && i < count; i++) {
        int at = (int)i;

        for (; at >= 0 && !known[at]; at = parent[at])
            known[at] = 1;
        good = at < 0 || known[at] == 2;
        for (int k = (int)i; good && k >= 0 && known[k] == 1; k = parent[k])
            known[k] = 2;
    }
    free(known);
    return good;
}

static int check_layers(const struct tree *t, struct error *err)
{
    int *parent = calloc(t->layer_count + 1, sizeof(int));
    int rc = parent ? 0 : error_set(err, ENOMEM, "out of memory");

    if (!rc &&
        !are_unique(t->layers ? t->layers[0].id : NULL, t->layer_count, sizeof(t->layers[0])))
        rc = error_set(err, EINVAL, "a layer occurs twice");
    for (size_t i = 0; !rc && i < t->layer_count; i++) {
        const struct tree_layer *l = &t->layers[i];
        const struct tree_layer *over =
            l->over.kind == TREE_OVER_LAYER ? tree_find_layer(t, l->over.id) : NULL;

        parent[i] = over ? (int)(over - t->layers) : -1;
        if (l->over.kind == TREE_OVER_LAYER && !over)
            rc = error_set(err, EINVAL, "layer %s lies on %s, which does not exist", l->id,
                           l->over.id);
    }
    if (!rc && !ends(parent, t->layer_count))
        rc = error_set(err, EINVAL, "its layers lie on each other in a circle");
    free(parent);
    return rc;
}

static int check_snapshots(const struct tree *t, struct error *err)
{
    int *parent = calloc(t->snapshot_count + 1, sizeof(int));
    int rc = parent ? 0 : error_set(err, ENOMEM, "out of memory");
    const struct tree_snapshot *s = t->snapshots;

    if (!rc && s && !are_unique(s->id, t->snapshot_count, sizeof(*s)))
        rc = error_set(err, EINVAL, "a snapshot occurs twice");
    if (!rc && s && !are_unique(s->name, t->snapshot_count, sizeof(*s)))
        rc = error_set(err, EINVAL, "two snapshots have the same name");
    for (size_t i = 0; !rc && i < t->snapshot_count; i++) {
        const struct tree_snapshot *p = *s[i].parent ? tree_find_snapshot(t, s[i].parent) : NULL;

        parent[i] = p ? (int)(p - s) : -1;
        if (!p && *s[i].parent)
            rc = error_set(err, EINVAL, "the parent of snapshot '%s' does not exist", s[i].name);
    }
    if (!rc && !ends(parent, t->snapshot_count))
        rc = error_set(err, EINVAL, "its snapshots are each other's parents in a circle");
    free(parent);
    return rc;
}

static int check_point(const struct tree *t, const struct tree_point *p, const char *what,
                       struct error *err)
{
    for (size_t i = 0; i < p->disk_count; i++) {
        if (!tree_find_layer(t, p->disks[i].layer))
            return error_set(err, EINVAL, "%s names layer %s, which does not exist", what,
                             p->disks[i].layer);
        for (size_t j = 0; j < i; j++) {
            if (!strcmp(p->disks[i].name, p->disks[j].name))
                return error_set(err, EINVAL, "%s has disk '%s' twice", what, p->disks[i].name);
            if (!strcmp(p->disks[i].layer, p->disks[j].layer))
                return error_set(err, EINVAL, "%s has two disks on layer %s", what,
                                 p->disks[i].layer);
        }
    }
    return 0;
}

/** What the machine writes to is nobody else's. */
static int check_tops(const struct tree *t, struct error *err)
{
    for (size_t i = 0; i < t->current.disk_count; i++) {
        const char *top = t->current.disks[i].layer;

        if (tree_children(t, top, NULL))
            return error_set(err, EINVAL, "layer %s is written to, but another lies on it", top);
        for (size_t k = 0; k < t->snapshot_count; k++) {
            const struct tree_point *p = &t->snapshots[k].point;

            for (size_t d = 0; d < p->disk_count; d++) {
                if (!strcmp(p->disks[d].layer, top))
                    return error_set(err, EINVAL,
                                     "layer %s is written to, but belongs to snapshot '%s'", top,
                                     t->snapshots[k].name);
            }
        }
    }
    return 0;
}

int tree_check(const struct tree *t, struct error *err)
{
    int rc = check_layers(t, err);

    if (!rc)
        rc = check_snapshots(t, err);
    for (size_t i = 0; !rc && i < t->snapshot_count; i++)
        rc = check_point(t, &t->snapshots[i].point, t->snapshots[i].name, err);
    if (!rc)
        rc = check_point(t, &t->current, "the machine", err);
    if (!rc && *t->parent && !tree_find_snapshot(t, t->parent))
        rc = error_set(err, EINVAL, "the machine's parent snapshot does not exist");
    return rc ? rc : check_tops(t, err);
}
