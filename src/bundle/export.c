/* Exporting an instance: Posada's own form. docs/formats/bundle.md.
 *
 * Without snapshots each disk is flattened into one layer. With them, layers are taken as they are,
 * and what the lowest ones lie on (an image's disk, another instance's layers) becomes a layer of
 * its own below. The names that the files of layers give to what they lie on are of no account: the
 * tree says it, and the import writes them anew.
 *
 * One thread, which holds the instance's lock, so that no layer is merged or removed meanwhile. */
#include "bundle/bundle_internal.h"

#include "base/fd.h"
#include "base/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int convert_progress(void *arg, uint64_t done, uint64_t total)
{
    const struct bundle_job *j = arg;

    return j->progress ? j->progress(j->arg, "converted", done, total) : 0;
}

int bundle_convert(const char *top, const char *top_format, enum disk_refs refs, const char *path,
                   const char *format, const struct disk_create_value *values,
                   const struct bundle_job *job, struct error *err)
{
    struct disk_options options = {
        .format = top_format, .flags = DISK_READONLY | DISK_NO_LOCK, .refs = refs};
    struct disk_job disk_job = {.progress = convert_progress, .arg = (void *)(uintptr_t)job};
    struct disk *source = NULL;
    int rc = disk_open(top, &options, &source, err);

    if (rc)
        return rc;
    struct disk_convert c = {
        .source = source,
        .path = path,
        .format = disk_format_find(format),
        .create = {.size_bytes = source->size_bytes, .values = values},
        .packing = !strcmp(format, "vmdk") ? DISK_PACK_ALL : DISK_PACK_NONE,
        .sparse_bytes = DISK_SPARSE_DEFAULT,
    };
    rc = disk_convert(&c, &disk_job, err);
    disk_close(source);
    return rc;
}

char *export_layer(const struct export *x, const char *id, struct error *err)
{
    char name[TREE_PATH_BYTES];

    tree_layer_path(name, id);
    return instance_path(x->in, err, "%s", name);
}

/* --- What is written --- */

static int pack_progress_fn(void *arg, uint64_t done)
{
    const struct bundle_job *j = arg;

    return j->progress ? j->progress(j->arg, "written", done, 0) : 0;
}

static int put_head(struct export *x, struct pack *p, struct error *err)
{
    json_t *j = json_pack("{s:i, s:s, s:b}", "version", BUNDLE_VERSION, "name", x->in->name,
                          "snapshots", (int)x->options->snapshots);
    cleanup(freep) char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;

    json_decref(j);
    return text ? pack_data(p, BUNDLE_HEAD, text, strlen(text), err)
                : error_set(err, ENOMEM, "out of memory");
}

static int put_files(struct export *x, struct pack *p, struct error *err)
{
    int rc = 0;

    for (const char *const *key = config_files; *key && !rc; key++) {
        const char *name = config_own_file(&x->config, *key);
        cleanup(freep) char *path = name ? instance_path(x->in, err, "%s", name) : NULL;

        if (path && !strcmp(*key, "flash") && access(path, F_OK))
            continue; /* firmware's variables, of a machine that has never been started */
        if (name)
            rc = path ? pack_file(p, name, path, err) : -ENOMEM;
    }
    return rc;
}

static int put_layer(struct pack *p, const char *id, const char *path, struct error *err)
{
    char name[TREE_PATH_BYTES];

    tree_layer_path(name, id);
    return pack_file(p, name, path, err);
}

static int put_tree(struct pack *p, const struct tree *t, struct error *err)
{
    cleanup(freep) char *text = NULL;
    size_t size = 0;
    int rc = tree_format(t, &text, &size, err);

    return rc ? rc : pack_data(p, TREE_FILE, text, size, err);
}

/** Flatten the chain at @path into a new layer file of the stage. *@ret is its path. */
static int flatten(struct export *x, const char *path, const char *format, const char *id,
                   char **ret, struct error *err)
{
    *ret = paths_format(err, "%s/%s.qcow2", x->stage, id);
    return *ret ? bundle_convert(path, format, DISK_REFS_ANY, *ret, "qcow2", NULL, x->job, err)
                : -ENOMEM;
}

/** Each disk of the point as one layer. */
static int put_flat(struct export *x, struct pack *p, struct error *err)
{
    const struct tree_over nothing = {.kind = TREE_OVER_NOTHING};
    char *files[TREE_DISKS_MAX] = {0};
    struct tree *t = tree_new();
    int rc = t ? 0 : error_set(err, ENOMEM, "out of memory");

    for (size_t i = 0; i < x->point->disk_count && !rc; i++) {
        struct tree_disk *d = &t->current.disks[t->current.disk_count++];
        cleanup(freep) char *top = export_layer(x, x->point->disks[i].layer, err);

        *d = x->point->disks[i];
        rc = tree_new_id(d->layer, err);
        if (!rc)
            rc = top && tree_add_layer(t, d->layer, &nothing, err) ? 0 : -ENOMEM;
        if (!rc)
            rc = flatten(x, top, "qcow2", d->layer, &files[i], err);
    }
    if (!rc)
        rc = put_tree(p, t, err);
    for (size_t i = 0; t && i < t->current.disk_count && !rc; i++)
        rc = put_layer(p, t->current.disks[i].layer, files[i], err);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        free(files[i]);
    tree_free(t);
    return rc;
}

/** What a lowest layer lies on outside of the instance, made a layer: one for all that lie on it.
 */
struct ground {
    struct tree_over over;
    char id[TREE_ID_BYTES];
    char *file; /* in the stage */
};

static bool same_over(const struct tree_over *a, const struct tree_over *b)
{
    if (a->kind != b->kind)
        return false;
    return a->kind == TREE_OVER_IMAGE ? !strcmp(a->path, b->path)
                                      : !strcmp(a->instance, b->instance) && !strcmp(a->id, b->id);
}

static int make_ground(struct export *x, const struct tree_over *over, struct ground *g,
                       struct error *err)
{
    char name[TREE_PATH_BYTES];
    cleanup(freep) char *path = NULL;
    int rc = tree_over_copy(&g->over, over);

    if (!rc)
        rc = tree_new_id(g->id, err);
    if (rc)
        return rc;
    if (over->kind == TREE_OVER_IMAGE)
        return flatten(x, over->path, over->format, g->id, &g->file, err);
    tree_layer_path(name, over->id);
    path = paths_format(err, "%.*s%s/%s", (int)(strlen(x->in->dir) - strlen(x->in->name)),
                        x->in->dir, over->instance, name);
    return path ? flatten(x, path, "qcow2", g->id, &g->file, err) : -ENOMEM;
}

/** Put every layer of @t that lies on something outside on a ground of its own. */
static int lay_grounds(struct export *x, struct tree *t, struct ground **ret, size_t *ret_n,
                       struct error *err)
{
    size_t layers = t->layer_count;
    int rc = 0;

    *ret = calloc(layers + 1, sizeof(**ret));
    *ret_n = 0;
    if (!*ret)
        return error_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; i < layers && !rc; i++) {
        const struct tree_over *over = &t->layers[i].over;
        const struct tree_over nothing = {.kind = TREE_OVER_NOTHING};
        size_t g = 0;

        if (over->kind != TREE_OVER_IMAGE && over->kind != TREE_OVER_INSTANCE)
            continue;
        while (g < *ret_n && !same_over(&(*ret)[g].over, over))
            g++;
        if (g == *ret_n) {
            rc = make_ground(x, over, &(*ret)[(*ret_n)++], err);
            if (!rc)
                rc = tree_add_layer(t, (*ret)[g].id, &nothing, err) ? 0 : -ENOMEM;
        }
        if (rc)
            break;
        tree_over_done(&t->layers[i].over);
        t->layers[i].over = (struct tree_over){.kind = TREE_OVER_LAYER};
        memcpy(t->layers[i].over.id, (*ret)[g].id, TREE_ID_BYTES);
    }
    return rc;
}

static int put_state(struct export *x, struct pack *p, const char *id, struct error *err)
{
    char name[TREE_PATH_BYTES];

    if (!*id)
        return 0;
    tree_state_path(name, id);
    cleanup(freep) char *path = instance_path(x->in, err, "%s", name);
    return path ? pack_file(p, name, path, err) : -ENOMEM;
}

/** All layers and states. */
static int put_whole(struct export *x, struct pack *p, struct error *err)
{
    struct ground *grounds = NULL;
    size_t n = 0;
    struct tree *t = NULL;
    int rc = tree_clone(x->tree, &t, err);

    if (!rc)
        rc = lay_grounds(x, t, &grounds, &n, err);
    if (!rc)
        rc = put_tree(p, t, err);
    for (size_t i = 0; i < n && !rc; i++)
        rc = put_layer(p, grounds[i].id, grounds[i].file, err);
    for (size_t i = 0; i < x->tree->layer_count && !rc; i++) {
        cleanup(freep) char *path = export_layer(x, x->tree->layers[i].id, err);
        rc = path ? put_layer(p, x->tree->layers[i].id, path, err) : -ENOMEM;
    }
    for (size_t i = 0; i < x->tree->snapshot_count && !rc; i++)
        rc = put_state(x, p, x->tree->snapshots[i].point.state, err);
    if (!rc)
        rc = put_state(x, p, x->tree->current.state, err);
    for (size_t i = 0; i < n; i++) {
        tree_over_done(&grounds[i].over);
        free(grounds[i].file);
    }
    free(grounds);
    tree_free(t);
    return rc;
}

static int export_own(struct export *x, int fd, struct error *err)
{
    struct pack *p = NULL;
    int rc = pack_new(fd, x->options->plain ? PACK_TAR : PACK_TAR_ZSTD, pack_progress_fn,
                      (void *)(uintptr_t)x->job, &p, err);

    if (!rc)
        rc = put_head(x, p, err);
    if (!rc)
        rc = pack_data(p, BUNDLE_CONFIG, x->config_text, strlen(x->config_text), err);
    if (!rc)
        rc = put_files(x, p, err);
    if (!rc)
        rc = x->options->snapshots ? put_whole(x, p, err) : put_flat(x, p, err);
    cleanup(freep) char *sums = rc ? NULL : pack_sums(p, err);
    if (!rc)
        rc = sums ? pack_data(p, PACK_SUMS, sums, strlen(sums), err) : -ENOMEM;
    if (!rc)
        rc = pack_finish(p, err);
    pack_free(p);
    return rc;
}

/* --- What is exported --- */

static int choose_point(struct export *x, struct error *err)
{
    const char *name = x->options->snapshot;

    if (!name) {
        x->point = &x->tree->current;
        return !instance_is_running(x->in)
                   ? 0
                   : error_set(err, EBUSY,
                               "'%s' is running: stop it, or make a snapshot and export that "
                               "(%s/SNAPSHOT)",
                               x->in->name, x->in->name);
    }
    const struct tree_snapshot *s = tree_find_named(x->tree, name);
    if (!s)
        return error_set(err, ENOENT, "'%s' has no snapshot '%s'", x->in->name, name);
    x->point = &s->point;
    return 0;
}

/** The configuration of the point: a snapshot's own, or the present one. */
static int read_config(struct export *x, struct error *err)
{
    cleanup(freep) char *path = instance_path(x->in, err, BUNDLE_CONFIG);
    size_t size;

    if (!path)
        return -ENOMEM;
    if (x->options->snapshot && x->point->config)
        x->config_text = strdup(x->point->config);
    else if (paths_read(path, CONFIG_FILE_MAX, &x->config_text, &size, err))
        return -EIO;
    if (!x->config_text)
        return error_set(err, ENOMEM, "out of memory");
    return config_parse(path, x->config_text, strlen(x->config_text), &x->config, err);
}

int bundle_export(const struct instance *in, const struct bundle_export *options, int fd,
                  const struct bundle_job *job, struct error *err)
{
    static const struct bundle_job silent;
    struct export x = {.in = in, .options = options, .job = job ? job : &silent};
    int rc = instance_tree(in, &x.tree, err);

    if (!rc)
        rc = choose_point(&x, err);
    bool has_config = !rc && !(rc = read_config(&x, err));
    x.stage = instance_path(in, err, "export.part");
    if (!rc)
        rc = x.stage ? paths_make(x.stage, err) : -ENOMEM;
    if (!rc)
        rc = options->ova ? bundle_export_ova(&x, fd, err) : export_own(&x, fd, err);
    if (x.stage)
        (void)paths_remove(x.stage); /* else who locks the instance next does */
    if (has_config)
        config_done(&x.config);
    free(x.config_text);
    free(x.stage);
    tree_free(x.tree);
    return rc;
}
