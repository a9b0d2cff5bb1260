/* tree.json: its text, and whether a tree is whole.
 *
 *   {"version": 1,
 *    "layers": [{"id": ID, "over": {"layer": ID} or {"instance": NAME, "layer": ID}
 *                                  or {"image": PATH, "format": NAME}; absent: nothing}, ...],
 *    "snapshots": [{"id": ID, "parent": ID, "name": TEXT, "description": TEXT, "time": SECONDS,
 *                   "pending": true, POINT}, ...],
 *    "current": {"parent": ID, POINT}}
 *   POINT = "disks": {NAME: ID of a layer, ...}, "state": ID, "config": TEXT
 *
 * What is empty or false is left out. An unknown key is refused: who wrote it meant something by
 * it. The file is hostile: its length bounds what is allocated, counts are checked before they are
 * looped over by, and every text has its limit.
 *
 * Threads: any. */
#include "store/tree.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1

/** The keys of one object, each looked at once. */
struct reader {
    json_t *object; /* borrowed */
    const char *what;
    size_t seen;
    struct error *err;
};

static int bad(const struct reader *r, const char *key, const char *want)
{
    return error_set(r->err, EINVAL, "%s: '%s' is not %s", r->what, key, want);
}

static int begin(struct reader *r, json_t *object, const char *what, struct error *err)
{
    *r = (struct reader){.object = object, .what = what, .err = err};
    return json_is_object(object) ? 0 : error_set(err, EINVAL, "%s is not an object", what);
}

static json_t *take(struct reader *r, const char *key)
{
    json_t *v = json_object_get(r->object, key);

    r->seen += v != NULL;
    return v;
}

/** All keys were known ones? */
static int end(const struct reader *r)
{
    return json_object_size(r->object) == r->seen
               ? 0
               : error_set(r->err, EINVAL, "%s has a key that is unknown", r->what);
}

static int get_id(struct reader *r, const char *key, bool needed, char ret[TREE_ID_BYTES])
{
    const json_t *v = take(r, key);
    const char *text = json_string_value(v);

    *ret = 0;
    if (!v && !needed)
        return 0;
    if (!text || !tree_is_id(text))
        return bad(r, key, "an identifier of 16 hexadecimal digits");
    memcpy(ret, text, TREE_ID_BYTES);
    return 0;
}

/** *@ret is heap; it stays NULL if the key is absent. */
static int get_text(struct reader *r, const char *key, size_t max_bytes, char **ret)
{
    const json_t *v = take(r, key);

    if (!v)
        return 0;
    if (!json_is_string(v) || json_string_length(v) >= max_bytes ||
        strlen(json_string_value(v)) != json_string_length(v))
        return bad(r, key, "a text of a sensible length");
    *ret = strdup(json_string_value(v));
    return *ret ? 0 : error_set(r->err, ENOMEM, "out of memory");
}

static int get_name(const struct reader *r, const char *text, char ret[TREE_NAME_BYTES])
{
    if (!text || !tree_name_is_valid(text))
        return bad(r, text && strlen(text) < TREE_NAME_BYTES ? text : "name", "a name");
    memcpy(ret, text, strlen(text) + 1);
    return 0;
}

static int read_over(json_t *value, struct tree_over *ret, struct error *err)
{
    struct reader r;
    int rc = begin(&r, value, "what a layer lies on", err);

    if (!rc)
        rc = get_id(&r, "layer", false, ret->id);
    if (!rc)
        rc = get_text(&r, "instance", TREE_NAME_BYTES, &ret->instance);
    if (!rc)
        rc = get_text(&r, "image", TREE_TEXT_BYTES, &ret->path);
    if (!rc)
        rc = get_text(&r, "format", TREE_NAME_BYTES, &ret->format);
    if (!rc)
        rc = end(&r);
    if (rc)
        return rc;
    bool is_image = ret->path && *ret->path == '/' && ret->format && !ret->instance && !*ret->id;
    bool is_layer = *ret->id && !ret->path && !ret->format;
    if (!is_image && !is_layer)
        return error_set(err, EINVAL, "what a layer lies on is neither a layer nor an image");
    if (ret->instance && !tree_name_is_valid(ret->instance))
        return bad(&r, "instance", "a name");
    ret->kind = is_image ? TREE_OVER_IMAGE : ret->instance ? TREE_OVER_INSTANCE : TREE_OVER_LAYER;
    return 0;
}

static int read_layer(struct tree *t, json_t *value, struct error *err)
{
    struct tree_over over = {0};
    char id[TREE_ID_BYTES];
    struct reader r;
    int rc = begin(&r, value, "a layer", err);

    if (!rc)
        rc = get_id(&r, "id", true, id);
    json_t *v = rc ? NULL : take(&r, "over");
    if (!rc && v)
        rc = read_over(v, &over, err);
    if (!rc)
        rc = end(&r);
    if (!rc && !tree_add_layer(t, id, &over, err))
        rc = -(err && err->code ? err->code : EINVAL);
    tree_over_done(&over);
    return rc;
}

static int read_disks(const struct reader *r, json_t *object, struct tree_point *ret)
{
    const char *name;
    json_t *v;

    if (!json_is_object(object) || json_object_size(object) > TREE_DISKS_MAX)
        return bad(r, "disks", "an object of at most 8 disks");
    json_object_foreach(object, name, v)
    {
        struct tree_disk *d = &ret->disks[ret->disk_count];
        const char *id = json_string_value(v);
        int rc = get_name(r, name, d->name);

        if (rc)
            return rc;
        if (!id || !tree_is_id(id))
            return bad(r, name, "an identifier of 16 hexadecimal digits");
        memcpy(d->layer, id, TREE_ID_BYTES);
        ret->disk_count++;
    }
    return 0;
}

static int read_point(struct reader *r, struct tree_point *ret)
{
    json_t *disks = take(r, "disks");
    int rc = disks ? read_disks(r, disks, ret) : 0;

    if (!rc)
        rc = get_id(r, "state", false, ret->state);
    if (!rc)
        rc = get_text(r, "config", TREE_CONFIG_BYTES, &ret->config);
    return rc;
}

static int read_snapshot(struct tree *t, json_t *value, struct error *err)
{
    char id[TREE_ID_BYTES];
    struct reader r;
    int rc = begin(&r, value, "a snapshot", err);

    if (!rc)
        rc = get_id(&r, "id", true, id);
    if (rc)
        return rc;
    struct tree_snapshot *s = tree_add_snapshot(t, id, err);
    if (!s)
        return -(err && err->code ? err->code : EINVAL);
    rc = get_id(&r, "parent", false, s->parent);
    if (!rc)
        rc = get_name(&r, json_string_value(take(&r, "name")), s->name);
    if (!rc)
        rc = get_text(&r, "description", TREE_TEXT_BYTES, &s->description);
    json_t *time = rc ? NULL : take(&r, "time");
    if (!rc && !json_is_integer(time))
        rc = bad(&r, "time", "a number of seconds");
    json_t *pending = rc ? NULL : take(&r, "pending");
    if (!rc && pending && !json_is_boolean(pending))
        rc = bad(&r, "pending", "true or false");
    if (!rc)
        rc = read_point(&r, &s->point);
    if (rc)
        return rc;
    s->time_s = json_integer_value(time);
    s->is_pending = json_is_true(pending);
    return end(&r);
}

static int read_array(struct reader *r, const char *key, size_t max,
                      int (*read)(struct tree *t, json_t *value, struct error *err), struct tree *t)
{
    json_t *array = take(r, key);
    json_t *v;
    size_t i;
    int rc = 0;

    if (!json_is_array(array) || json_array_size(array) > max)
        return bad(r, key, "a list of a sensible length");
    json_array_foreach(array, i, v)
    {
        rc = read(t, v, r->err);
        if (rc)
            break;
    }
    return rc;
}

static int read_current(struct tree *t, json_t *value, struct error *err)
{
    struct reader r;
    int rc = begin(&r, value, "'current'", err);

    if (!rc)
        rc = get_id(&r, "parent", false, t->parent);
    if (!rc)
        rc = read_point(&r, &t->current);
    return rc ? rc : end(&r);
}

static int read_tree(struct tree *t, json_t *root, struct error *err)
{
    struct reader r;
    int rc = begin(&r, root, "the file", err);

    if (rc)
        return rc;
    json_t *version = take(&r, "version");
    if (!json_is_integer(version) || json_integer_value(version) < 1)
        return bad(&r, "version", "a number from 1");
    if (json_integer_value(version) > VERSION)
        return error_set(err, ENOTSUP, "it was written by a newer Posada (version %" PRIi64 ")",
                         (int64_t)json_integer_value(version));
    rc = read_array(&r, "layers", TREE_LAYERS_MAX, read_layer, t);
    if (!rc)
        rc = read_array(&r, "snapshots", TREE_SNAPSHOTS_MAX, read_snapshot, t);
    if (!rc)
        rc = read_current(t, take(&r, "current"), err);
    if (!rc)
        rc = end(&r);
    return rc ? rc : tree_check(t, err);
}

int tree_parse(const char *text, size_t size, struct tree **ret, struct error *err)
{
    struct error own = {0};
    json_error_t why;

    err = err ? err : &own;
    if (size > TREE_FILE_BYTES)
        return error_set(err, EINVAL, "it is too long");
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return error_set(err, EINVAL, "line %d: %s", why.line, why.text);
    struct tree *t = tree_new();
    int rc = t ? read_tree(t, root, err) : error_set(err, ENOMEM, "out of memory");
    json_decref(root);
    if (rc)
        tree_free(t);
    else
        *ret = t;
    return rc;
}

/* --- Writing. jansson passes a NULL on, so what fails is seen at the end. --- */

static void put_text(json_t *o, const char *key, const char *text, int *rc)
{
    if (text && *text && json_object_set_new(o, key, json_string(text)))
        *rc = -ENOMEM;
}

static void put(json_t *o, const char *key, json_t *value, int *rc)
{
    if (json_object_set_new(o, key, value))
        *rc = -ENOMEM;
}

static json_t *put_point(json_t *o, const struct tree_point *p, int *rc)
{
    json_t *disks = json_object();

    for (size_t i = 0; i < p->disk_count; i++)
        put_text(disks, p->disks[i].name, p->disks[i].layer, rc);
    put(o, "disks", disks, rc);
    put_text(o, "state", p->state, rc);
    put_text(o, "config", p->config, rc);
    return o;
}

static json_t *layer_json(const struct tree_layer *l, int *rc)
{
    json_t *o = json_object();
    json_t *over = json_object();

    put_text(o, "id", l->id, rc);
    put_text(over, "layer", l->over.id, rc);
    put_text(over, "instance", l->over.instance, rc);
    put_text(over, "image", l->over.path, rc);
    put_text(over, "format", l->over.format, rc);
    if (l->over.kind != TREE_OVER_NOTHING)
        put(o, "over", over, rc);
    else
        json_decref(over);
    return o;
}

static json_t *snapshot_json(const struct tree_snapshot *s, int *rc)
{
    json_t *o = json_object();

    put_text(o, "id", s->id, rc);
    put_text(o, "parent", s->parent, rc);
    put_text(o, "name", s->name, rc);
    put_text(o, "description", s->description, rc);
    put(o, "time", json_integer(s->time_s), rc);
    if (s->is_pending)
        put(o, "pending", json_true(), rc);
    return put_point(o, &s->point, rc);
}

int tree_format(const struct tree *t, char **ret, size_t *ret_size, struct error *err)
{
    json_t *root = json_object();
    json_t *layers = json_array();
    json_t *snapshots = json_array();
    json_t *current = json_object();
    int rc = tree_check(t, err);

    for (size_t i = 0; !rc && i < t->layer_count; i++)
        rc |= json_array_append_new(layers, layer_json(&t->layers[i], &rc));
    for (size_t i = 0; !rc && i < t->snapshot_count; i++)
        rc |= json_array_append_new(snapshots, snapshot_json(&t->snapshots[i], &rc));
    put_text(current, "parent", t->parent, &rc);
    put(root, "version", json_integer(VERSION), &rc);
    put(root, "layers", layers, &rc);
    put(root, "snapshots", snapshots, &rc);
    put(root, "current", put_point(current, &t->current, &rc), &rc);
    char *text = rc ? NULL : json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    if (!text)
        return error_set(err, ENOMEM, "out of memory (or a text that is not UTF-8)");
    if (strlen(text) > TREE_FILE_BYTES) {
        free(text);
        return error_set(err, E2BIG, "there are too many snapshots: delete some first");
    }
    *ret = text;
    *ret_size = strlen(text);
    return 0;
}

int tree_clone(const struct tree *t, struct tree **ret, struct error *err)
{
    char *text = NULL;
    size_t size = 0;
    int rc = tree_format(t, &text, &size, err);

    if (!rc)
        rc = tree_parse(text, size, ret, err);
    free(text);
    return rc;
}
