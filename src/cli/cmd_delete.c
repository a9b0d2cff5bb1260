/* posada delete. */
#include "base/error.h"
#include "cli/remote.h"
#include "cli/verbs.h"
#include "store/recover.h"

#include <errno.h>

struct delete_values {
    struct cmd_common common;
    bool all, force;
};

static const struct delete_values *given; /* for delete_one() */

static int delete_one(const char *name, struct error *err)
{
    struct instance *in;
    int r = instance_open(name, INSTANCE_CHANGE, &in, err);

    if (r)
        return r;
    if (given->force && instance_is_running(in)) {
        r = store_check_unneeded(name, "deleted", err); /* or it would be stopped for nothing */
        if (!r)
            r = remote_stop(name, 0, true, err);
    }
    /* held to the end: nobody starts what is being deleted */
    if (!r && instance_take_run(in, err)) {
        *err = (struct error){0};
        r = error_set(err, EBUSY, "'%s' is running: stop it, or use --force", name);
    }
    if (!r)
        r = instance_remove(in, err);
    instance_close(in);
    return r;
}

static int run_delete(const struct cmd *cmd, void *values, struct opt_args *args)
{
    given = values;
    return cmd_each(cmd, args, given->all, delete_one);
}

static const struct opt_def delete_opts[] = {
    {.name = "all",
     OPT_INTO_FLAG(struct delete_values, all),
     .group = "Instances",
     .help = "All instances"                         },
    { .name = "force",
     .short_name = 'f',
     OPT_INTO_FLAG(struct delete_values, force),
     .group = "Deleting",
     .help = "Also one that runs: its plug is pulled"},
    CMD_COMMON_ROWS(struct delete_values),
};

const struct cmd cmd_delete = {
    .path = "delete",
    .operands = "NAME...",
    .summary = "delete instances with their disks",
    .description =
        "Delete instances, with all that their guests have written. One that runs is refused without "
        "--force.",
    .opts = delete_opts,
    .values_size = sizeof(struct delete_values),
    .max_operands = CLI_NAMES_MAX,
    .run = run_delete,
};
