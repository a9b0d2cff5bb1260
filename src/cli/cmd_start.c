/* posada start. */
#include "base/error.h"
#include "cli/remote.h"
#include "cli/verbs.h"
#include "store/recover.h"

struct start_values {
    struct cmd_common common;
    bool all, boot;
};

static const struct start_values *given; /* for start_one() */

static int start_one(const char *name, struct error *err)
{
    struct instance *in;
    int r = instance_open(name, INSTANCE_CHANGE, &in, err);

    if (r)
        return r;
    if (given->boot && !instance_is_running(in))
        r = instance_drop_state(in, err);
    if (!r)
        r = remote_start(in, err);
    instance_close(in);
    return r;
}

static int run_start(const struct cmd *cmd, void *values, struct opt_args *args)
{
    given = values;
    return cmd_each(cmd, args, given->all, start_one);
}

static const struct opt_def start_opts[] = {
    {.name = "all",
     .short_name = 'a',
     OPT_INTO_FLAG(struct start_values, all),
     .group = "Instances",
     .help = "All instances"},
    {.name = "boot",
     OPT_INTO_FLAG(struct start_values,  boot),
     .group = "Instances",
     .help = "Boot, and drop the saved state that it would go on from"},
    CMD_COMMON_ROWS(struct start_values),
};

const struct cmd cmd_start = {
    .path = "start",
    .operands = "NAME...",
    .summary = "start instances in the background",
    .description =
        "Start instances. It returns when their machines run; what they say goes to 'posada logs'. One that was stopped "
        "with --save, or whose snapshot of a running machine was restored, goes on from there.",
    .opts = start_opts,
    .values_size = sizeof(struct start_values),
    .max_operands = CLI_NAMES_MAX,
    .run = run_start,
};
