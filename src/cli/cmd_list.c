/* posada list: the instances, and how they are. */
#include "base/error.h"
#include "base/opt.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <inttypes.h>
#include <string.h>

struct list_values {
    struct cmd_common common;
    bool json, quiet, running;
};

static const char *text_of(const json_t *s, const char *key)
{
    const char *text = json_string_value(json_object_get(s, key));

    return text && *text ? text : "-";
}

static bool is_off(const json_t *s)
{
    const char *state = text_of(s, "state");

    return !strcmp(state, "off") || !strcmp(state, "panicked") || !strcmp(state, "crashed") ||
           !strcmp(state, "saved");
}

/** The guest's address, "-" while nobody knows it, and the ports that lead to it: "10.0.2.15
 * 8080:80".
 */
static void format_addresses(const json_t *s, char *buf, size_t size)
{
    const json_t *list = json_object_get(s, "publish");
    const char *first = json_string_value(json_array_get(json_object_get(s, "addresses"), 0));
    size_t used = (size_t)snprintf(buf, size, "%s", first ? first : "-");

    for (size_t i = 0; i < json_array_size(list) && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, " %s",
                                 json_string_value(json_array_get(list, i)));
}

static void print_one(const json_t *s)
{
    char memory[32], used[32] = "-", cpu[32] = "-", addresses[64];
    bool off = is_off(s);

    (void)opt_format_size((uint64_t)json_integer_value(json_object_get(s, "memory_bytes")), memory,
                          sizeof(memory));
    if (!off) {
        (void)snprintf(cpu, sizeof(cpu), "%.1fs",
                       json_real_value(json_object_get(s, "cpu_seconds")));
        (void)snprintf(used, sizeof(used), "%" PRIu64 "M",
                       (uint64_t)json_integer_value(json_object_get(s, "resident_bytes")) >> 20);
    }
    if (off)
        (void)snprintf(addresses, sizeof(addresses), "-");
    else
        format_addresses(s, addresses, sizeof(addresses));
    (void)printf("%-20s %-16s %-8s %-7s %-12s %4" PRId64 " %9s %7s %7s  %s\n", text_of(s, "name"),
                 text_of(s, "image"), text_of(s, "arch"), text_of(s, "engine"), text_of(s, "state"),
                 (int64_t)json_integer_value(json_object_get(s, "cpus")), cpu, memory, used,
                 addresses);
}

static void print_all(const json_t *all, const struct list_values *v)
{
    size_t i;
    json_t *s;
    bool first = true;

    json_array_foreach(all, i, s)
    {
        if (v->running && is_off(s))
            continue;
        if (v->quiet) {
            (void)printf("%s\n", text_of(s, "name"));
            continue;
        }
        if (first)
            (void)printf("%-20s %-16s %-8s %-7s %-12s %4s %9s %7s %7s  %s\n", "NAME", "IMAGE",
                         "ARCH", "ENGINE", "STATE", "CPUS", "TIME", "MEMORY", "USED", "ADDRESSES");
        first = false;
        print_one(s);
    }
}

static int run_list(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct list_values *v = values;
    struct error err = {0};
    char **names;
    size_t n;

    if (store_list(&names, &n, &err))
        return cmd_fail(cmd, CLI_ERROR, &err);
    json_t *all = remote_status(names, n, &err);
    remote_free_names(names, n);
    if (!all)
        return cmd_fail(cmd, CLI_ERROR, &err);
    for (size_t i = json_array_size(all); v->json && v->running && i-- > 0;) {
        if (is_off(json_array_get(all, i)))
            (void)json_array_remove(all, i);
    }
    if (v->json)
        cmd_print_json(all);
    else
        print_all(all, v);
    json_decref(all);
    return CLI_OK;
}

static const struct opt_def list_opts[] = {
    {.name = "running",
     .short_name = 'r',
     OPT_INTO_FLAG(struct list_values,            running),
     .group = "Output",
     .help = "Only those that run"},
    {.name = "quiet",
     .short_name = 'q',
     OPT_INTO_FLAG(struct list_values,                           quiet),
     .group = "Output",
     .help = "Print names only"},
    {.name = "json",
     OPT_INTO_FLAG(struct list_values, json),
     .group = "Output",
     .help = "Print JSON, with all that is known about each"                           },
    CMD_COMMON_ROWS(struct list_values),
};

const struct cmd cmd_list = {
    .path = "list",
    .summary = "list instances",
    .description =
        "List the instances: name, image, architecture, engine, state (off, starting, running, paused, stopping, "
        "restarting, no-space, saved, panicked, crashed, unresponsive), processors, time that the host's processors spent on it, memory "
        "it has (MEMORY) and its share of the host's (USED: pages that several machines have in common, as live copies do, "
        "count in part for each; all machines' together are what they use), the guest's first address, as its network "
        "lease or its agent tells it ('-': neither does yet), and forwarded ports.",
    .opts = list_opts,
    .values_size = sizeof(struct list_values),
    .run = run_list,
};
