/* posada rename. */
#include "base/error.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <errno.h>

struct rename_values {
    struct cmd_common common;
};

static int rename_instance(const char *from, const char *to, struct error *err)
{
    struct instance *in;
    int r = instance_open(from, INSTANCE_CHANGE, &in, err);

    if (r)
        return r;
    if (instance_take_run(in, err)) {
        *err = (struct error){0};
        r = error_set(err, EBUSY, "'%s' is running: stop it first", from);
    }
    if (!r)
        r = instance_rename(in, to, err);
    instance_close(in);
    return r;
}

static int run_rename(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct error err = {0};
    int r = rename_instance(args->v[0], args->v[1], &err);

    return r ? cmd_fail(cmd, r == -EINVAL ? CLI_USAGE : CLI_ERROR, &err) : CLI_OK;
}

static const struct opt_def rename_opts[] = {
    CMD_COMMON_ROWS(struct rename_values),
};

const struct cmd cmd_rename = {
    .path = "rename",
    .operands = "NAME NEW",
    .summary = "give an instance another name",
    .description =
        "Give an instance that does not run another name. The guest learns of it by DHCP only; its own host "
        "name stays as it was set up.",
    .opts = rename_opts,
    .values_size = sizeof(struct rename_values),
    .min_operands = 2,
    .max_operands = 2,
    .run = run_rename,
};
