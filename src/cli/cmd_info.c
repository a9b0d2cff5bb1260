/* posada info: all about instances. */
#include "base/error.h"
#include "base/fd.h"
#include "base/opt.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <string.h>

struct info_values {
    struct cmd_common common;
    bool json;
};

/** A value as a person reads it. */
static void print_value(const char *key, const json_t *v)
{
    char size[32];
    size_t i;
    json_t *item;
    bool is_size = strlen(key) > 6 && !strcmp(key + strlen(key) - 6, "_bytes");

    if (json_is_integer(v) && is_size) {
        (void)printf("%s", opt_format_size((uint64_t)json_integer_value(v), size, sizeof(size)));
    } else if (json_is_integer(v)) {
        (void)printf("%lld", (long long)json_integer_value(v));
    } else if (json_is_real(v)) {
        (void)printf("%.1f", json_real_value(v));
    } else if (json_is_boolean(v)) {
        (void)printf("%s", json_is_true(v) ? "yes" : "no");
    } else if (json_is_array(v)) {
        json_array_foreach(v, i, item)(void) printf("%s%s", i ? ", " : "", json_string_value(item));
    } else {
        (void)printf("%s", json_is_string(v) ? json_string_value(v) : "-");
    }
}

static void print_one(json_t *s)
{
    const char *key;
    json_t *value;

    json_object_foreach(s, key, value)
    {
        if (json_is_object(value) || (json_is_string(value) && !json_string_length(value)) ||
            (json_is_array(value) && !json_array_size(value)))
            continue;
        (void)printf("%-16s ", key);
        print_value(key, value);
        (void)putchar('\n');
    }
}

/** What is on disk. */
static void add_files(json_t *s)
{
    const char *name = json_string_value(json_object_get(s, "name"));
    struct instance_config config;
    struct instance *in;
    struct tree *t;

    if (instance_open(name, 0, &in, NULL))
        return;
    cleanup(freep) char *top = instance_top(in, "root", NULL);
    (void)json_object_set_new(s, "folder", json_string(in->dir));
    if (!instance_config(in, &config, NULL)) {
        if (*config.engine_reason)
            (void)json_object_set_new(s, "engine_reason", json_string(config.engine_reason));
        config_done(&config);
    }
    if (top)
        (void)json_object_set_new(s, "disk", json_string(top));
    if (!instance_tree(in, &t, NULL)) {
        (void)json_object_set_new(s, "snapshots", json_integer((json_int_t)t->snapshot_count));
        tree_free(t);
    }
    instance_close(in);
}

/** What the guest says of itself, if it has an agent that answers. */
static void add_guest(json_t *s)
{
    const char *name = json_string_value(json_object_get(s, "name"));
    const char *state = json_string_value(json_object_get(s, "state"));
    struct error unheard = {0};
    json_t *said = NULL;

    if (!state || strcmp(state, "running") != 0 ||
        remote_call(name, "guest", NULL, REMOTE_TIMEOUT_MS, &said, &unheard))
        return;
    (void)json_object_update(s, said); /* out of memory: it says less */
    json_decref(said);
}

static int run_info(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct info_values *v = values;
    struct error err = {0};
    char **names;
    size_t n;
    int r = remote_names(args->v, args->n, false, &names, &n, &err);

    for (size_t i = 0; !r && i < args->n; i++) {
        struct instance *in;
        r = instance_open(args->v[i], 0, &in, &err);
        if (!r)
            instance_close(in);
    }
    json_t *all = r ? NULL : remote_status(names, n, &err);
    if (!r)
        remote_free_names(names, n);
    if (!all)
        return cmd_fail(cmd, CLI_ERROR, &err);
    for (size_t i = 0; i < json_array_size(all); i++) {
        add_guest(json_array_get(all, i));
        add_files(json_array_get(all, i));
        if (!v->json) {
            (void)printf("%s", i ? "\n" : "");
            print_one(json_array_get(all, i));
        }
    }
    if (v->json)
        cmd_print_json(n == 1 && json_array_size(all) ? json_array_get(all, 0) : all);
    json_decref(all);
    return CLI_OK;
}

static const struct opt_def info_opts[] = {
    {.name = "json",
     OPT_INTO_FLAG(struct info_values, json),
     .group = "Output",
     .help = "Print JSON: an object, of several instances an array"},
    CMD_COMMON_ROWS(struct info_values),
};

const struct cmd cmd_info = {
    .path = "info",
    .operands = "NAME...",
    .summary = "show all about instances",
    .description =
        "Show the state of instances, what they are made of, where their files are, and what a running guest's agent says: "
        "host name, system, kernel, addresses.",
    .opts = info_opts,
    .values_size = sizeof(struct info_values),
    .min_operands = 1,
    .max_operands = CLI_NAMES_MAX,
    .run = run_info,
};
