/* The tree of an instance's layers and snapshots, in memory.
 *
 * Invariants: identifiers are 16 lower-case hexadecimal digits, or "" where there is none; heap
 * texts are owned by what names them; the arrays grow by doubling, so pointers into them live until
 * the next addition or removal. Whether the tree makes sense is tree_check()'s matter: while it is
 * being changed it need not.
 *
 * Threads: those of the owner. */
#include "store/tree.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct tree *tree_new(void)
{
    return calloc(1, sizeof(struct tree));
}

void tree_over_done(struct tree_over *o)
{
    free(o->instance);
    free(o->path);
    free(o->format);
    *o = (struct tree_over){0};
}

static void snapshot_done(struct tree_snapshot *s)
{
    free(s->description);
    free(s->point.config);
}

void tree_free(struct tree *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->layer_count; i++)
        tree_over_done(&t->layers[i].over);
    for (size_t i = 0; i < t->snapshot_count; i++)
        snapshot_done(&t->snapshots[i]);
    free(t->layers);
    free(t->snapshots);
    free(t->current.config);
    free(t);
}

int tree_new_id(char ret[TREE_ID_BYTES], struct error *err)
{
    uint8_t random[(TREE_ID_BYTES - 1) / 2];

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return error_set(err, EIO, "the host gives no random numbers");
    for (size_t i = 0; i < sizeof(random); i++) {
        ret[2 * i] = "0123456789abcdef"[random[i] >> 4];
        ret[2 * i + 1] = "0123456789abcdef"[random[i] & 15];
    }
    ret[TREE_ID_BYTES - 1] = 0;
    return 0;
}

bool tree_is_id(const char *text)
{
    return strlen(text) == TREE_ID_BYTES - 1 &&
           strspn(text, "0123456789abcdef") == TREE_ID_BYTES - 1;
}

bool tree_name_is_valid(const char *name)
{
    size_t n = strlen(name);

    if (!n || n >= TREE_NAME_BYTES || !isalnum((unsigned char)*name))
        return false;
    for (; *name; name++) {
        if (!isalnum((unsigned char)*name) && !strchr("-_.", *name))
            return false;
    }
    return true;
}

struct tree_layer *tree_find_layer(const struct tree *t, const char *id)
{
    for (size_t i = 0; i < t->layer_count; i++) {
        if (!strcmp(t->layers[i].id, id))
            return &t->layers[i];
    }
    return NULL;
}

struct tree_snapshot *tree_find_snapshot(const struct tree *t, const char *id)
{
    for (size_t i = 0; i < t->snapshot_count; i++) {
        if (!strcmp(t->snapshots[i].id, id))
            return &t->snapshots[i];
    }
    return NULL;
}

struct tree_snapshot *tree_find_named(const struct tree *t, const char *name)
{
    for (size_t i = 0; i < t->snapshot_count; i++) {
        if (!strcmp(t->snapshots[i].name, name))
            return &t->snapshots[i];
    }
    return tree_find_snapshot(t, name);
}

struct tree_disk *tree_find_disk(const struct tree_point *p, const char *name)
{
    for (size_t i = 0; i < p->disk_count; i++) {
        if (!strcmp(p->disks[i].name, name))
            return (struct tree_disk *)&p->disks[i];
    }
    return NULL;
}

int tree_set_text(char **to, const char *text)
{
    char *copy = text ? strdup(text) : NULL;

    if (text && !copy)
        return -ENOMEM;
    free(*to);
    *to = copy;
    return 0;
}

int tree_over_copy(struct tree_over *to, const struct tree_over *from)
{
    struct tree_over copy = {.kind = from->kind};

    memcpy(copy.id, from->id, sizeof(copy.id));
    if (tree_set_text(&copy.instance, from->instance) || tree_set_text(&copy.path, from->path) ||
        tree_set_text(&copy.format, from->format)) {
        tree_over_done(&copy);
        return -ENOMEM;
    }
    tree_over_done(to);
    *to = copy;
    return 0;
}

/** Room for one more of @size bytes in the array of @count. */
static int grow(void *array, size_t count, size_t size)
{
    if (count & (count - 1))
        return 0; /* room was made at the last power of two */
    void *p = realloc(*(void **)array, (count ? count * 2 : 1) * size);

    if (!p)
        return -ENOMEM;
    *(void **)array = p;
    return 0;
}

struct tree_layer *tree_add_layer(struct tree *t, const char *id, const struct tree_over *over,
                                  struct error *err)
{
    struct tree_layer l = {.id = ""};

    if (t->layer_count == TREE_LAYERS_MAX) {
        (void)error_set(err, E2BIG, "there are %d disk layers: delete snapshots first",
                        TREE_LAYERS_MAX);
        return NULL;
    }
    if (tree_over_copy(&l.over, over) || grow(&t->layers, t->layer_count, sizeof(l))) {
        tree_over_done(&l.over);
        (void)error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    memcpy(l.id, id, sizeof(l.id));
    t->layers[t->layer_count] = l;
    return &t->layers[t->layer_count++];
}

struct tree_snapshot *tree_add_snapshot(struct tree *t, const char *id, struct error *err)
{
    struct tree_snapshot s = {.id = ""};

    if (t->snapshot_count == TREE_SNAPSHOTS_MAX) {
        (void)error_set(err, E2BIG, "there are %d snapshots already: delete some first",
                        TREE_SNAPSHOTS_MAX);
        return NULL;
    }
    if (grow(&t->snapshots, t->snapshot_count, sizeof(s))) {
        (void)error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    memcpy(s.id, id, sizeof(s.id));
    t->snapshots[t->snapshot_count] = s;
    return &t->snapshots[t->snapshot_count++];
}

void tree_remove_layer(struct tree *t, const char *id)
{
    struct tree_layer *l = tree_find_layer(t, id);

    if (!l)
        return;
    size_t after = (size_t)(&t->layers[t->layer_count] - (l + 1));
    tree_over_done(&l->over);
    memmove(l, l + 1, after * sizeof(*l));
    t->layer_count--;
}

void tree_remove_snapshot(struct tree *t, const char *id)
{
    struct tree_snapshot *s = tree_find_snapshot(t, id);
    char own[TREE_ID_BYTES];
    char parent[TREE_ID_BYTES];

    if (!s)
        return;
    size_t after = (size_t)(&t->snapshots[t->snapshot_count] - (s + 1));
    memcpy(own, s->id, sizeof(own));
    memcpy(parent, s->parent, sizeof(parent));
    snapshot_done(s);
    memmove(s, s + 1, after * sizeof(*s));
    t->snapshot_count--;
    for (size_t i = 0; i < t->snapshot_count; i++) {
        if (!strcmp(t->snapshots[i].parent, own))
            memcpy(t->snapshots[i].parent, parent, sizeof(parent));
    }
    if (!strcmp(t->parent, own))
        memcpy(t->parent, parent, sizeof(parent));
}

unsigned tree_depth(const struct tree *t, const char *id)
{
    unsigned depth = 0;

    for (const struct tree_layer *l = tree_find_layer(t, id); l && depth <= TREE_LAYERS_MAX;
         l = l->over.kind == TREE_OVER_LAYER ? tree_find_layer(t, l->over.id) : NULL)
        depth++;
    return depth;
}
