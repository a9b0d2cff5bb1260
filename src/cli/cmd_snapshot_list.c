/* posada snapshot list, info. */
#include "base/fd.h"
#include "cli/point.h"
#include "cli/verbs.h"
#include "store/recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define INDENT_MAX 1024
#define NAME_WIDTH 30

struct list_values {
    struct cmd_common common;
    bool json;
};

/** What is shown of an instance. */
struct view {
    struct instance *in;
    struct tree *tree;
    struct tree_needs needs;
};

static void view_close(struct view *v)
{
    tree_needs_done(&v->needs);
    tree_free(v->tree);
    instance_close(v->in);
}

static int view_open(struct view *v, const char *name, struct error *err)
{
    *v = (struct view){0};
    int rc = instance_open(name, 0, &v->in, err);

    if (!rc)
        rc = instance_tree(v->in, &v->tree, err);
    if (!rc)
        rc = store_needs(name, &v->needs, err);
    if (rc)
        view_close(v);
    return rc;
}

static uint64_t state_bytes(const struct view *v, const char *id)
{
    char path[TREE_PATH_BYTES];
    struct stat st;

    tree_state_path(path, id);
    cleanup(freep) char *whole = *id ? instance_path(v->in, NULL, "%s", path) : NULL;
    return whole && !stat(whole, &st) ? (uint64_t)st.st_size : 0;
}

/* --- A tree for people --- */

/** How its lines are drawn: as UTF-8, or plain. */
static const char *const lines_utf8[] = {"├─ ", "└─ ", "│  ", "   "};
static const char *const lines_plain[] = {"|- ", "`- ", "|  ", "   "};
enum { LINE_TEE, LINE_CORNER, LINE_BAR, LINE_NONE };

static const char *const *choose_lines(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const char *v = getenv(names[i]);

        if (v && *v)
            return strcasestr(v, "utf-8") || strcasestr(v, "utf8") ? lines_utf8 : lines_plain;
    }
    return lines_plain;
}

static const char *kind_of(const struct tree_snapshot *s)
{
    return s->is_pending ? "being taken" : *s->point.state ? "running" : "disks";
}

static void print_snapshot(const struct tree_snapshot *s, int width)
{
    char when[32] = "?";
    struct tm tm;
    time_t t = (time_t)s->time_s;

    if (localtime_r(&t, &tm))
        (void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M", &tm);
    (void)printf("%-*s %s  %-7s  %s\n", MAX(width, 1), s->name, when, kind_of(s),
                 s->description ? s->description : "");
}

struct drawing {
    const struct tree *tree;
    const char *const *lines;
    char indent[INDENT_MAX];
    size_t depth; /* columns of indent: 3 each */
};

/** Is it the last of @parent's children, the present counting as the very last? */
static bool is_last(const struct drawing *d, const char *parent, size_t i)
{
    for (size_t k = i + 1; k < d->tree->snapshot_count; k++) {
        if (!strcmp(d->tree->snapshots[k].parent, parent))
            return false;
    }
    return strcmp(d->tree->parent, parent) != 0;
}

static void draw_children(struct drawing *d, const char *parent)
{
    size_t length = strlen(d->indent);

    for (size_t i = 0; i < d->tree->snapshot_count; i++) {
        const struct tree_snapshot *s = &d->tree->snapshots[i];

        if (strcmp(s->parent, parent) != 0)
            continue;
        bool last = is_last(d, parent, i);
        (void)printf("%s%s", d->indent, d->lines[last ? LINE_CORNER : LINE_TEE]);
        print_snapshot(s, NAME_WIDTH - (int)d->depth * 3);
        const char *more = d->lines[last ? LINE_NONE : LINE_BAR];
        if (length + strlen(more) < sizeof(d->indent)) /* deeper than any screen: no further in */
            memcpy(d->indent + length, more, strlen(more) + 1);
        d->depth++;
        draw_children(d, s->id);
        d->depth--;
        d->indent[length] = 0;
    }
    if (!strcmp(d->tree->parent, parent))
        (void)printf("%s%s(now)\n", d->indent, d->lines[LINE_CORNER]);
}

static json_t *snapshot_json(const struct view *v, const struct tree_snapshot *s)
{
    const struct tree_snapshot *p = *s->parent ? tree_find_snapshot(v->tree, s->parent) : NULL;
    json_t *disks = json_object();

    for (size_t i = 0; i < s->point.disk_count; i++)
        (void)json_object_set_new(disks, s->point.disks[i].name,
                                  json_string(s->point.disks[i].layer));
    return json_pack(
        "{s:s, s:s, s:s?, s:s, s:I, s:b, s:I, s:b, s:o}", "name", s->name, "id", s->id, "parent",
        p ? p->name : NULL, "description", s->description ? s->description : "", "time",
        (json_int_t)s->time_s, "running", *s->point.state != 0, "state_bytes",
        (json_int_t)state_bytes(v, s->point.state), "pending", (int)s->is_pending, "disks", disks);
}

static void list_json(const struct view *v)
{
    const struct tree *t = v->tree;
    const struct tree_snapshot *p = *t->parent ? tree_find_snapshot(t, t->parent) : NULL;
    json_t *all = json_array();

    for (size_t i = 0; i < t->snapshot_count; i++)
        (void)json_array_append_new(all, snapshot_json(v, &t->snapshots[i]));
    json_t *j = json_pack("{s:s, s:o, s:s?, s:b, s:I}", "instance", v->in->name, "snapshots", all,
                          "current", p ? p->name : NULL, "saved", *t->current.state != 0,
                          "unwanted_layers", (json_int_t)tree_unwanted(t, &v->needs));
    cmd_print_json(j);
    json_decref(j);
}

static int run_list(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct list_values *v = values;
    struct error err = {0};
    struct view view;
    int rc = view_open(&view, args->v[0], &err);

    if (rc)
        return cmd_fail(cmd, CLI_ERROR, &err);
    size_t left = tree_unwanted(view.tree, &view.needs);
    if (v->json) {
        list_json(&view);
    } else {
        struct drawing d = {.tree = view.tree, .lines = choose_lines()};

        (void)printf("%s\n", view.in->name);
        draw_children(&d, "");
        if (left)
            (void)printf("%zu layer%s of deleted snapshots %s still to be merged\n", left,
                         left == 1 ? "" : "s", left == 1 ? "is" : "are");
    }
    view_close(&view);
    return CLI_OK;
}

/* --- One snapshot --- */

static void print_info(const struct view *v, const struct tree_snapshot *s)
{
    const struct tree_snapshot *p = *s->parent ? tree_find_snapshot(v->tree, s->parent) : NULL;
    char when[64] = "?";
    struct tm tm;
    time_t t = (time_t)s->time_s;

    if (localtime_r(&t, &tm))
        (void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S %z", &tm);
    (void)printf("name:         %s\nid:           %s\nparent:       %s\ntaken:        %s\n",
                 s->name, s->id, p ? p->name : "-", when);
    (void)printf("description:  %s\n", s->description ? s->description : "-");
    if (*s->point.state)
        (void)printf("state:        running, %.1f MiB\n",
                     (double)state_bytes(v, s->point.state) / (1 << 20));
    else
        (void)printf("state:        %s\n", s->is_pending ? "being taken" : "disks only");
    for (size_t i = 0; i < s->point.disk_count; i++)
        (void)printf("disk %-8s disks/%s.qcow2\n", s->point.disks[i].name, s->point.disks[i].layer);
    for (size_t i = 0; i < s->point.disk_count; i++) {
        for (size_t k = 0; k < v->needs.count; k++) {
            if (!strcmp(v->needs.items[k].layer, s->point.disks[i].layer))
                (void)printf("needed by:    %s\n", v->needs.items[k].instance);
        }
    }
}

static int run_info(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct list_values *v = values;
    struct error err = {0};
    struct view view;
    struct point at;

    if (point_parse(args->v[0], true, &at, &err))
        return cmd_fail(cmd, CLI_USAGE, &err);
    if (view_open(&view, at.name, &err))
        return cmd_fail(cmd, CLI_ERROR, &err);
    const struct tree_snapshot *s = tree_find_named(view.tree, at.snapshot);
    if (!s) {
        (void)error_set(&err, ENOENT, "'%s' has no snapshot '%s'", at.name, at.snapshot);
        view_close(&view);
        return cmd_fail(cmd, CLI_ERROR, &err);
    }
    if (v->json) {
        json_t *j = snapshot_json(&view, s);

        cmd_print_json(j);
        json_decref(j);
    } else {
        print_info(&view, s);
    }
    view_close(&view);
    return CLI_OK;
}

/* clang-format off */
static const struct opt_def list_opts[] = {
    {.name = "json",
     OPT_INTO_FLAG(struct list_values, json),
     .group = "Output",
     .help = "As JSON"},
    CMD_COMMON_ROWS(struct list_values),
};
/* clang-format on */

const struct cmd cmd_snapshot_list = {
    .path = "snapshot list",
    .operands = "NAME",
    .summary = "show an instance's snapshots as a tree",
    .description =
        "Show the snapshots of an instance as a tree: each below the one that it was taken after, and where "
        "the present stands. 'running' is one with the machine's memory and devices.",
    .opts = list_opts,
    .values_size = sizeof(struct list_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_list,
};

const struct cmd cmd_snapshot_info = {
    .path = "snapshot info",
    .operands = "NAME/SNAPSHOT",
    .summary = "show a snapshot",
    .description = "Show what is known about a snapshot, and who needs its disks.",
    .opts = list_opts,
    .values_size = sizeof(struct list_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_info,
};
