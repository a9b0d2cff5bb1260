/* posada list and posada remove: the instances that `posada run` keeps. */
#include "base/error.h"
#include "base/fd.h"
#include "cli/instance.h"
#include "cli/verbs.h"
#include "image/paths.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

struct list_values {
    struct cmd_common common;
    bool json, quiet;
};

static json_t *instance_json(const struct instance *in)
{
    return json_pack("{s:s, s:s?, s:b, s:s, s:I}", "name", in->name, "image", in->made_from,
                     "running", instance_is_running(in), "disk", in->disk, "size_bytes",
                     (json_int_t)paths_usage(in->dir));
}

static void print_one(const struct instance *in, const struct list_values *v, json_t *array,
                      bool first)
{
    if (v->json) {
        (void)json_array_append_new(array, instance_json(in));
    } else if (v->quiet) {
        (void)printf("%s\n", in->name);
    } else {
        if (first)
            (void)printf("%-24s %-24s %-8s %9s\n", "NAME", "IMAGE", "STATE", "SIZE");
        (void)printf("%-24s %-24s %-8s %5" PRIu64 " MiB\n", in->name,
                     in->made_from ? in->made_from : "-",
                     instance_is_running(in) ? "running" : "off", paths_usage(in->dir) >> 20);
    }
}

static int run_list(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct list_values *v = values;
    struct error err = {0};
    char **names;
    size_t n;
    json_t *array = v->json ? json_array() : NULL;
    int r = instance_list(&names, &n, &err);

    for (size_t i = 0; !r && i < n; i++) {
        struct instance in;
        if (!instance_peek(&in, names[i], NULL))
            print_one(&in, v, array, i == 0);
        instance_done(&in);
        free(names[i]);
    }
    if (!r)
        free(names);
    if (array && !r) {
        (void)json_dumpf(array, stdout, JSON_INDENT(2));
        (void)putchar('\n');
    }
    json_decref(array);
    return r ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

static int run_remove(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct instance in = {.lock_fd = -1};
    struct error err = {0};

    if (!instance_name_is_valid(args->v[0]))
        return cmd_usage(cmd, "'%s' is not the name of an instance", args->v[0]);
    int r = instance_open(&in, args->v[0], &err);
    if (!r && !in.made_from)
        r = error_set(&err, ENOENT, "there is no instance '%s'; 'posada list' shows them",
                      args->v[0]);
    if (!r)
        r = instance_remove(&in, &err);
    instance_done(&in);
    return r ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

static const struct opt_def list_opts[] = {
    {.name = "quiet",
     .short_name = 'q',
     OPT_INTO_FLAG(struct list_values, quiet),
     .group = "Output",
     .help = "Print names only"},
    {.name = "json",
     OPT_INTO_FLAG(struct list_values,  json),
     .group = "Output",
     .help = "Print JSON: name, image, running, disk, size_bytes of each"},
    CMD_COMMON_ROWS(struct list_values),
};

static const struct opt_def remove_opts[] = {
    CMD_COMMON_ROWS(struct list_values),
};

const struct cmd cmd_list = {
    .path = "list",
    .summary = "list instances",
    .description =
        "List the guests that keep a disk: those that 'posada run' made from an image with one.",
    .opts = list_opts,
    .values_size = sizeof(struct list_values),
    .run = run_list,
};

const struct cmd cmd_remove = {
    .path = "remove",
    .operands = "NAME",
    .summary = "remove an instance and its disk",
    .description =
        "Remove an instance, with all that its guest has written. One that is running is refused.",
    .opts = remove_opts,
    .values_size = sizeof(struct list_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_remove,
};
