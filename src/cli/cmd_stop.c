/* posada stop. */
#include "base/error.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <errno.h>
#include <stdlib.h>

#define STOP_TIMEOUT_MS 60000

struct stop_values {
    struct cmd_common common;
    bool all, force, save;
    int64_t timeout_ms;
};

/** All are asked first, then each is waited for; the exit status. */
static int stop_all(const struct cmd *cmd, const struct stop_values *v, char *const *names,
                    size_t n)
{
    int64_t timeout_ms = v->timeout_ms ? v->timeout_ms : v->force ? 0 : STOP_TIMEOUT_MS;
    struct remote_ending *endings = calloc(n + 1, sizeof(*endings));
    int status = CLI_OK;

    for (size_t i = 0; endings && i < n; i++)
        remote_ask_stop(&endings[i], names[i], timeout_ms, v->force, v->save);
    for (size_t i = 0; endings && i < n; i++) {
        struct error err = {0};
        int r = remote_await_stop(&endings[i], timeout_ms, &err);
        if (r && (r != -ENOTCONN || !v->all))
            status = cmd_fail(cmd, r == -ETIMEDOUT ? CLI_TIMEOUT : CLI_ERROR, &err);
    }
    free(endings);
    return status;
}

static int run_stop(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct stop_values *v = values;
    char **names;
    size_t n;

    if (v->save && (v->force || v->timeout_ms))
        return cmd_usage(cmd, "--save excludes --force and --timeout");
    int status = cmd_names(cmd, args, v->all, &names, &n);
    if (!status)
        status = stop_all(cmd, v, names, n);
    remote_free_names(names, n);
    return status;
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
