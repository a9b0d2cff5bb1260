/* What follows from a tree: which layers are wanted, what is to be done about the others, and who
 * needs them. Nothing of this is stored, so nothing can get out of step.
 *
 * Rules
 *  1. A layer is wanted if a snapshot names it, if it is a top, if several layers lie on it, or if
 * a layer of another instance does.
 *  2. While another instance needs a layer or one above it, that instance's machine may have it
 *     open; so it is not changed: neither removed nor merged into.
 *  3. A merge changes the child alone, in a way that does not change what it reads as; so it may be
 *     broken off and begun again at any point. Of unwanted layers upon each other the highest goes
 *     first: then what it holds is copied once.
 *
 * Threads: any. */
#include "store/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int tree_needs_add(struct tree_needs *needs, const char *name, const char *other_name,
                   const struct tree *other)
{
    for (size_t i = 0; i < other->layer_count; i++) {
        const struct tree_over *o = &other->layers[i].over;

        if (o->kind != TREE_OVER_INSTANCE || strcmp(o->instance, name) != 0)
            continue;
        struct tree_need *items =
            realloc(needs->items, (needs->count + 1) * sizeof(struct tree_need));
        if (!items)
            return -ENOMEM;
        needs->items = items;
        struct tree_need n = {.instance = strdup(other_name)};
        if (!n.instance)
            return -ENOMEM;
        memcpy(n.layer, o->id, sizeof(n.layer));
        items[needs->count++] = n;
    }
    return 0;
}

void tree_needs_done(struct tree_needs *needs)
{
    for (size_t i = 0; i < needs->count; i++)
        free(needs->items[i].instance);
    free(needs->items);
    *needs = (struct tree_needs){0};
}

/** Does layer @id lie above @below, or is it the same? */
static bool is_on(const struct tree *t, const char *id, const char *below)
{
    const struct tree_layer *l = tree_find_layer(t, id);

    for (size_t depth = 0; l && depth <= t->layer_count; depth++) {
        if (!strcmp(l->id, below))
            return true;
        l = l->over.kind == TREE_OVER_LAYER ? tree_find_layer(t, l->over.id) : NULL;
    }
    return false;
}

const char *tree_needed_by(const struct tree *t, const struct tree_needs *needs, const char *id)
{
    for (size_t i = 0; i < needs->count; i++) {
        if (is_on(t, needs->items[i].layer, id))
            return needs->items[i].instance;
    }
    return NULL;
}

static bool point_names(const struct tree_point *p, const char *id)
{
    for (size_t i = 0; i < p->disk_count; i++) {
        if (!strcmp(p->disks[i].layer, id))
            return true;
    }
    return false;
}

bool tree_is_named(const struct tree *t, const char *id)
{
    for (size_t i = 0; i < t->snapshot_count; i++) {
        if (point_names(&t->snapshots[i].point, id))
            return true;
    }
    return point_names(&t->current, id);
}

size_t tree_children(const struct tree *t, const char *id, const struct tree_layer **ret)
{
    size_t n = 0;

    for (size_t i = 0; i < t->layer_count; i++) {
        const struct tree_layer *l = &t->layers[i];

        if (l->over.kind != TREE_OVER_LAYER || strcmp(l->over.id, id) != 0)
            continue;
        n++;
        if (ret)
            *ret = l;
    }
    return n;
}

static bool is_needed_directly(const struct tree_needs *needs, const char *id)
{
    for (size_t i = 0; i < needs->count; i++) {
        if (!strcmp(needs->items[i].layer, id))
            return true;
    }
    return false;
}

static bool is_wanted(const struct tree *t, const struct tree_needs *needs, const char *id)
{
    return tree_is_named(t, id) || tree_children(t, id, NULL) > 1 || is_needed_directly(needs, id);
}

void tree_next_step(const struct tree *t, const struct tree_needs *needs, struct tree_step *ret)
{
    *ret = (struct tree_step){.kind = TREE_DONE};
    for (size_t i = 0; i < t->layer_count && ret->kind != TREE_REMOVE; i++) {
        const struct tree_layer *l = &t->layers[i];
        const struct tree_layer *child = NULL;
        bool mergeable;

        if (is_wanted(t, needs, l->id))
            continue;
        mergeable = tree_children(t, l->id, &child) == 1 && is_wanted(t, needs, child->id) &&
                    !tree_needed_by(t, needs, l->id);
        if (child && !(mergeable && ret->kind == TREE_DONE))
            continue;
        ret->kind = child ? TREE_MERGE : TREE_REMOVE;
        memcpy(ret->layer, l->id, sizeof(ret->layer));
        memcpy(ret->child, child ? child->id : "", child ? sizeof(ret->child) : 1);
    }
}

size_t tree_unwanted(const struct tree *t, const struct tree_needs *needs)
{
    size_t n = 0;

    for (size_t i = 0; i < t->layer_count; i++)
        n += !is_wanted(t, needs, t->layers[i].id);
    return n;
}
