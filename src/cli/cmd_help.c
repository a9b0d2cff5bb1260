/* posada help: the help of any command, as text, man page or JSON. */
#include "base/error.h"
#include "cli/help.h"
#include "cli/verbs.h"

#include <unistd.h>

struct help_values {
    struct cmd_common common;
    bool man;
    bool json;
};

static const struct opt_def help_opts[] = {
    {.name = "man",
     OPT_INTO_FLAG(struct help_values, man),
     .group = "Output",
     .help = "Print the man page in roff, for 'man -l -'"       },
    {.name = "json",
     OPT_INTO_FLAG(struct help_values, json),
     .group = "Output",
     .help = "Print every command and option as one JSON object"},
    CMD_COMMON_ROWS(struct help_values),
};

static int run_help(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct help_values *v = values;
    struct error err = {0};
    const struct cmd *about = cmd_find(args->v, args->n, &err);

    if (!about)
        return cmd_fail(cmd, CLI_USAGE, &err);
    if (v->man && v->json)
        return cmd_usage(cmd, "--man and --json exclude each other");
    if (v->json)
        help_json(about, stdout);
    else if (v->man)
        help_man(about, stdout);
    else
        help_print(about, help_width(STDOUT_FILENO), stdout);
    return CLI_OK;
}

const struct cmd cmd_help = {
    .path = "help",
    .operands = "[COMMAND...]",
    .summary = "show help for a command",
    .description = "Show the help of a command, or of posada itself.",
    .opts = help_opts,
    .values_size = sizeof(struct help_values),
    .max_operands = 2,
    .run = run_help,
};
