/* posada stop. */
#include "base/error.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <errno.h>

#define STOP_TIMEOUT_MS 60000

struct stop_values {
    struct cmd_common common;
    bool all, force, save;
    int64_t timeout_ms;
};

static const struct stop_values *given; /* for stop_one() */

static int stop_one(const char *name, struct error *err)
{
    int64_t timeout_ms = given->timeout_ms;

    if (given->save)
        return remote_save(name, err);
    if (!timeout_ms)
        timeout_ms = given->force ? 0 : STOP_TIMEOUT_MS;
    int r = remote_stop(name, timeout_ms, given->force, err);
    if (r == -ENOTCONN && given->all) {
        *err = (struct error){0};
        r = 0;
    }
    return r;
}

static int run_stop(const struct cmd *cmd, void *values, struct opt_args *args)
{
    given = values;
    if (given->save && (given->force || given->timeout_ms))
        return cmd_usage(cmd, "--save excludes --force and --timeout");
    return cmd_each(cmd, args, given->all, stop_one);
}

/* clang-format off */
static const struct opt_def stop_opts[] = {
    {.name = "all", .short_name = 'a', OPT_INTO_FLAG(struct stop_values, all), .group = "Instances",
     .help = "All instances that run"},
    {.name = "save", .short_name = 's', OPT_INTO_FLAG(struct stop_values, save), .group = "Stopping",
     .help = "Save memory and devices, without asking the guest: the next start goes on from there"},
    {.name = "force", .short_name = 'f', OPT_INTO_FLAG(struct stop_values, force), .group = "Stopping",
     .help = "Pull the plug: at once, or with --timeout when the guest has not powered off by then"},
    {.name = "timeout", .short_name = 't', OPT_INTO_DURATION(struct stop_values, timeout_ms), .arg = "TIME",
     .group = "Stopping", .help = "How long to wait until the guest has powered off. Default: 60s"},
    CMD_COMMON_ROWS(struct stop_values),
};
/* clang-format on */

const struct cmd cmd_stop = {
    .path = "stop",
    .operands = "NAME...",
    .summary = "power instances off",
    .description =
        "Ask the guests to power off, and wait until they have. A guest that does not in time goes on, and the exit "
        "status is 124. Linux is asked through its console, by SysRq: sync, remount read-only, power off.",
    .opts = stop_opts,
    .values_size = sizeof(struct stop_values),
    .max_operands = CLI_NAMES_MAX,
    .run = run_stop,
};
