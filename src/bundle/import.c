/* Importing an instance: what Posada's own form and OVA share, and the own form.
 *
 * All is put into the folder that store keeps for an instance in the making, checked, and gets its
 * name by one rename. The file is hostile: members are known by name, layers are opened without any
 * reference but those that the tree gives them, and what the configuration says of files of the
 * host (disks, shared folders, kernels) is dropped: an import must not open the host to a guest.
 *
 * One thread, which holds the new instance's lock. */
#include "bundle/bundle_internal.h"
#include "bundle/ovf.h"

#include "base/fd.h"
#include "base/paths.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void note(const struct import *m, const char *fmt, ...) printf_like(2, 3);

static void note(const struct import *m, const char *fmt, ...)
{
    char sentence[512];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(sentence, sizeof(sentence), fmt, ap);
    va_end(ap);
    if (m->job->note)
        m->job->note(m->job->arg, sentence);
}

/** @name as an instance's name: what cannot be in one becomes a dash. */
static void tame(const char *name, char ret[64])
{
    size_t n = 0;

    for (; *name && n < 63; name++) {
        bool good = isalnum((unsigned char)*name) || ((*name == '.' || *name == '-') && n);
        if (good || (n && ret[n - 1] != '-'))
            ret[n++] = good ? *name : '-';
    }
    while (n && !isalnum((unsigned char)ret[n - 1]))
        n--;
    ret[n] = 0;
}

int import_begin(struct import *m, const char *name, struct error *err)
{
    char tamed[64];

    tame(name, tamed);
    name = m->options->name ? m->options->name : *tamed ? tamed : "imported";
    int rc = instance_open(name, INSTANCE_CHANGE | INSTANCE_NEW, &m->in, err);
    if (!rc && m->in->exists)
        rc = error_set(err, EEXIST, "there is an instance '%s' already; --name gives another name",
                       name);
    return rc ? rc : instance_stage(m->in, &m->stage, err);
}

/* --- Configuration --- */

static int set(struct instance_config *c, const char *key, const char *value, struct error *err)
{
    const struct config_key *k = config_find(key, err);

    return k ? config_set(c, k, value, err) : -EINVAL;
}

/** Drop @key's value if it leads to a file of the host. */
static int drop_host_file(const struct import *m, struct instance_config *c, const char *key,
                          struct error *err)
{
    const struct config_key *k = config_find(key, err);
    cleanup(freep) char *value = k ? config_get(c, k) : NULL;

    if (!value)
        return -ENOMEM;
    if (!*value || (k->kind != CONFIG_LIST && !config_names_host_file(c, key)))
        return 0;
    note(m, "'%s' is not taken over, since it names files of the host: %.*s", key,
         (int)strcspn(value, "\n"), value);
    return config_set(c, k, "", err);
}

static int drop_host_files(const struct import *m, struct instance_config *c, struct error *err)
{
    int rc = drop_host_file(m, c, "disks", err);

    if (!rc)
        rc = drop_host_file(m, c, "volumes", err);
    for (const char *const *key = config_files; *key && !rc; key++)
        rc = drop_host_file(m, c, *key, err);
    return rc;
}

static int new_identity(struct instance_config *c, struct error *err)
{
    char uuid[37];
    char mac[18];

    instance_new_uuid(uuid);
    instance_new_mac(mac);
    int rc = set(c, "uuid", uuid, err);
    return rc ? rc : set(c, "mac", mac, err);
}

/** Its guest shall learn that it is another. */
static int introduce(const struct import *m, const struct instance_config *c, struct error *err)
{
    const char *file = config_own_file(c, "cloud-init");
    cleanup(freep) char *seed = file ? paths_format(err, "%s/%s", m->stage, file) : NULL;
    int rc = instance_mark_new(m->stage, INSTANCE_NEW_NAME | INSTANCE_NEW_IDENTITY, err);

    if (rc || !file)
        return rc;
    return seed ? instance_renew_seed(seed, seed, m->in->name, err) : -ENOMEM;
}

int import_config(struct import *m, struct instance_config *config, const char *text,
                  struct error *err)
{
    cleanup(freep) char *path = paths_format(err, "%s/" BUNDLE_CONFIG, m->stage);
    bool is_new = !m->options->keep_identity || !*config->uuid;
    int rc = path ? drop_host_files(m, config, err) : -ENOMEM;

    if (!rc && is_new)
        rc = new_identity(config, err);
    if (!rc)
        rc = config_check(config, err);
    if (rc)
        return rc;
    if (is_new)
        rc = introduce(m, config, err);
    cleanup(freep) char *now = rc     ? NULL
                               : text ? config_rewrite(text, config, true, err)
                                      : config_format(config, err);
    if (rc)
        return rc;
    return now ? paths_write_safe(path, now, strlen(now), err) : -ENOMEM;
}

/* --- Layers --- */

/** Write the reference that the tree says into the layer's file, and refuse all others. */
static int bind_layer(const struct import *m, const struct tree_layer *l, struct error *err)
{
    struct disk_options options = {
        .format = "qcow2", .flags = DISK_NO_BACKING, .refs = DISK_REFS_NONE};
    char name[TREE_PATH_BYTES];
    char below[TREE_ID_BYTES + 6];
    struct disk *d = NULL;

    if (l->over.kind != TREE_OVER_NOTHING && l->over.kind != TREE_OVER_LAYER)
        return error_set(err, EINVAL, "layer %s lies on something that is not in the file", l->id);
    tree_layer_path(name, l->id);
    (void)snprintf(below, sizeof(below), "%s.qcow2", l->over.id);
    cleanup(freep) char *path = paths_format(err, "%s/%s", m->stage, name);
    int rc = path ? disk_open(path, &options, &d, err) : -ENOMEM;
    if (!rc)
        rc = l->over.kind == TREE_OVER_LAYER ? disk_set_backing(d, below, "qcow2", err)
                                             : disk_set_backing(d, NULL, NULL, err);
    disk_close(d);
    return rc;
}

/** Open the chain of each disk of a point, which checks that all fits together. */
static int check_point(const struct import *m, const struct tree_point *p, struct error *err)
{
    struct disk_options options = {.format = "qcow2", .flags = DISK_READONLY};
    int rc = 0;

    for (size_t i = 0; i < p->disk_count && !rc; i++) {
        char name[TREE_PATH_BYTES];
        struct disk *d = NULL;

        tree_layer_path(name, p->disks[i].layer);
        cleanup(freep) char *path = paths_format(err, "%s/%s", m->stage, name);
        rc = path ? disk_open(path, &options, &d, err) : -ENOMEM;
        disk_close(d);
    }
    return rc;
}

int import_finish(struct import *m, const struct tree *t, struct error *err)
{
    cleanup(fd_closep) int fd = open(m->stage, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? error_set(err, errno, "cannot open '%s': %s", m->stage, strerror(errno))
                    : tree_check(t, err);

    for (size_t i = 0; i < t->layer_count && !rc; i++)
        rc = bind_layer(m, &t->layers[i], err);
    for (size_t i = 0; i < t->snapshot_count && !rc; i++)
        rc = check_point(m, &t->snapshots[i].point, err);
    if (!rc)
        rc = check_point(m, &t->current, err);
    if (!rc)
        rc = tree_store(fd, t, err);
    if (!rc)
        rc = tree_sweep(fd, t, NULL, err);
    return rc ? rc : instance_commit(m->in, err);
}

/* --- The own form --- */

struct own {
    struct import *m;
    char *head, *config_text, *tree_text, *sums; /* heap; NULL until read */
    size_t tree_size;
    struct instance_config config;
    bool has_config;
};

static int read_head(struct own *o, struct error *err)
{
    json_t *j = json_loads(o->head, JSON_REJECT_DUPLICATES, NULL);
    const char *name = json_string_value(json_object_get(j, "name"));
    json_int_t version = json_integer_value(json_object_get(j, "version"));
    int rc = 0;

    if (!name || version < 1)
        rc = error_set(err, EINVAL, "the file's description ('" BUNDLE_HEAD "') is damaged");
    else if (version > BUNDLE_VERSION)
        rc = error_set(err, ENOTSUP, "the file is of a newer Posada");
    else
        rc = import_begin(o->m, name, err);
    json_decref(j);
    return rc;
}

/** Is it the name of a layer's or state's file, or of one that the configuration names? */
static bool is_file(const struct own *o, const char *name)
{
    char made[TREE_PATH_BYTES];
    char id[TREE_ID_BYTES] = "";
    const char *slash = strchr(name, '/');

    if (slash && strlen(slash + 1) >= TREE_ID_BYTES - 1) {
        memcpy(id, slash + 1, TREE_ID_BYTES - 1);
        if (!tree_is_id(id))
            return false;
        tree_layer_path(made, id);
        if (!strcmp(made, name))
            return true;
        tree_state_path(made, id);
        return !strcmp(made, name);
    }
    for (const char *const *key = config_files; *key; key++) {
        const char *file = config_own_file(&o->config, *key);
        if (file && !strcmp(file, name))
            return true;
    }
    return false;
}

static int take_file(struct own *o, struct unpack *u, const char *name, struct error *err)
{
    const char *slash = strchr(name, '/');
    cleanup(freep) char *path = paths_format(err, "%s/%s", o->m->stage, name);
    cleanup(freep) char *folder =
        slash ? paths_format(err, "%s/%.*s", o->m->stage, (int)(slash - name), name) : NULL;

    if (!o->has_config || !is_file(o, name))
        return error_set(err, EINVAL, "there is a member '%s', which has no place in an instance",
                         name);
    if (!path || (slash && !folder))
        return -ENOMEM;
    int rc = folder ? paths_make(folder, err) : 0;
    return rc ? rc : unpack_file(u, path, err);
}

static int take_config(struct own *o, struct unpack *u, struct error *err)
{
    size_t size;
    int rc = o->m->in ? unpack_text(u, CONFIG_FILE_MAX, &o->config_text, &size, err)
                      : error_set(err, EINVAL, "the file does not begin with its description");

    if (!rc)
        rc = config_parse(BUNDLE_CONFIG, o->config_text, size, &o->config, err);
    o->has_config = !rc;
    return rc;
}

static int take_member(struct own *o, struct unpack *u, const char *name, struct error *err)
{
    size_t size;

    if (!strcmp(name, BUNDLE_CONFIG))
        return take_config(o, u, err);
    if (!strcmp(name, TREE_FILE))
        return unpack_text(u, TREE_FILE_BYTES, &o->tree_text, &o->tree_size, err);
    if (!strcmp(name, PACK_SUMS))
        return unpack_text(u, PACK_MEMBERS_MAX * 100, &o->sums, &size, err);
    return take_file(o, u, name, err);
}

static int import_own(struct import *m, struct unpack *u, struct error *err)
{
    struct own o = {.m = m};
    struct tree *t = NULL;
    const char *name;
    uint64_t bytes;
    size_t size;
    int rc = unpack_text(u, BUNDLE_HEAD_MAX, &o.head, &size, err);

    if (!rc)
        rc = read_head(&o, err);
    while (!rc && (rc = unpack_next(u, &name, &bytes, err)) > 0)
        rc = take_member(&o, u, name, err);
    if (!rc && (!o.has_config || !o.tree_text || !o.sums))
        rc = error_set(err, EINVAL, "the file is cut off, or not an exported instance");
    if (!rc)
        rc = unpack_check(u, o.sums, err);
    if (!rc && (rc = tree_parse(o.tree_text, o.tree_size, &t, err)))
        error_prefix(err, TREE_FILE);
    if (!rc)
        rc = import_config(m, &o.config, o.config_text, err);
    if (!rc)
        rc = import_finish(m, t, err);
    tree_free(t);
    if (o.has_config)
        config_done(&o.config);
    free(o.head);
    free(o.config_text);
    free(o.tree_text);
    free(o.sums);
    return rc;
}

/* --- Either --- */

static int read_progress(void *arg, uint64_t done)
{
    const struct bundle_job *j = arg;

    return j->progress ? j->progress(j->arg, "read", done, 0) : 0;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name);

    return n > strlen(end) && !strcasecmp(name + n - strlen(end), end);
}

/** By the first member. */
static int import_any(struct import *m, struct unpack *u, struct error *err)
{
    const char *name;
    uint64_t size;
    int rc = unpack_next(u, &name, &size, err);

    if (rc < 0)
        return rc;
    if (rc && !strcmp(name, BUNDLE_HEAD))
        return import_own(m, u, err);
    if (rc && ends_with(name, ".ovf"))
        return bundle_import_ova(m, u, name, err);
    return error_set(err, EINVAL, "it is neither an exported instance nor an OVA");
}

/** Nothing is left of what did not become an instance. */
static int conclude(struct import *m, int rc, char **ret_name, struct error *err)
{
    if (!rc && !(*ret_name = strdup(m->in->name)))
        rc = error_set(err, ENOMEM, "out of memory");
    if (m->stage && rc)
        (void)paths_remove(m->stage); /* else who locks the name next does */
    free(m->stage);
    instance_close(m->in);
    return rc;
}

int bundle_import(int fd, const struct bundle_import *options, const struct bundle_job *job,
                  char **ret_name, struct error *err)
{
    static const struct bundle_job silent;
    struct import m = {.options = options, .job = job ? job : &silent};
    struct unpack *u = NULL;
    int rc = unpack_new(fd, read_progress, (void *)(uintptr_t)m.job, &u, err);

    if (!rc)
        rc = import_any(&m, u, err);
    unpack_free(u);
    return conclude(&m, rc, ret_name, err);
}
