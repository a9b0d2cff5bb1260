/* posada pause and resume. */
#include "base/error.h"
#include "cli/remote.h"
#include "cli/verbs.h"

struct pause_values {
    struct cmd_common common;
};

static int pause_one(const char *name, struct error *err)
{
    return remote_call(name, "pause", NULL, REMOTE_TIMEOUT_MS, NULL, err);
}

static int resume_one(const char *name, struct error *err)
{
    return remote_call(name, "resume", NULL, REMOTE_TIMEOUT_MS, NULL, err);
}

static int run_pause(const struct cmd *cmd, void *values, struct opt_args *args)
{
    return cmd_each(cmd, args, false, pause_one);
}

static int run_resume(const struct cmd *cmd, void *values, struct opt_args *args)
{
    return cmd_each(cmd, args, false, resume_one);
}

static const struct opt_def pause_opts[] = {
    CMD_COMMON_ROWS(struct pause_values),
};

const struct cmd cmd_pause = {
    .path = "pause",
    .operands = "NAME...",
    .summary = "halt running instances",
    .description =
        "Halt the processors of running instances, whose clocks stand still too, until 'posada resume'.",
    .opts = pause_opts,
    .values_size = sizeof(struct pause_values),
    .max_operands = CLI_NAMES_MAX,
    .run = run_pause,
};

const struct cmd cmd_resume = {
    .path = "resume",
    .operands = "NAME...",
    .summary = "let paused instances go on",
    .description = "Let instances that were paused go on.",
    .opts = pause_opts,
    .values_size = sizeof(struct pause_values),
    .max_operands = CLI_NAMES_MAX,
    .run = run_resume,
};
