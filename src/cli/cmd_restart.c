/* posada restart. */
#include "base/error.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <errno.h>

enum { RESTART_TIMEOUT_MS = 60000 };

struct restart_values {
    struct cmd_common common;
    bool force;
    int64_t timeout_ms;
};

static const struct restart_values *given; /* for restart_one() */

static int restart_one(const char *name, struct error *err)
{
    struct instance *in;
    int64_t timeout_ms = given->timeout_ms ? given->timeout_ms
                         : given->force    ? 0
                                           : RESTART_TIMEOUT_MS;
    int r = remote_stop(name, timeout_ms, given->force, err);

    if (r && r != -ENOTCONN)
        return r;
    *err = (struct error){0};
    r = instance_open(name, INSTANCE_CHANGE, &in, err);
    if (r)
        return r;
    r = remote_start(in, err);
    instance_close(in);
    return r;
}

static int run_restart(const struct cmd *cmd, void *values, struct opt_args *args)
{
    given = values;
    return cmd_each(cmd, args, false, restart_one);
}

static const struct opt_def restart_opts[] = {
    {.name = "force",
     .short_name = 'f',
     OPT_INTO_FLAG(struct restart_values,                  force),
     .group = "Stopping",
     .help =
         "Pull the plug: at once, or with --timeout when the guest has not powered off by then"},
    { .name = "timeout",
     .short_name = 't',
     OPT_INTO_DURATION(struct restart_values, timeout_ms),
     .arg = "TIME",
     .group = "Stopping",
     .help = "How long to wait until the guest has powered off. Default: 60s"},
    CMD_COMMON_ROWS(struct restart_values),
};

const struct cmd cmd_restart = {
    .path = "restart",
    .operands = "NAME...",
    .summary = "stop instances and start them again",
    .description =
        "Stop instances as 'posada stop' does, and start them, with their configuration as it is now. One "
        "that does not run is started.",
    .opts = restart_opts,
    .values_size = sizeof(struct restart_values),
    .max_operands = CLI_NAMES_MAX,
    .run = run_restart,
};
