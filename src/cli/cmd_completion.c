/* posada completion: scripts for shells. */
#include "cli/help.h"
#include "cli/verbs.h"

#include <string.h>

struct completion_values {
    struct cmd_common common;
};

static const struct opt_def completion_opts[] = {
    CMD_COMMON_ROWS(struct completion_values),
};

static int run_completion(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const char *shell = args->v[0];

    if (!strcmp(shell, "bash"))
        help_bash(&cmd_posada, stdout);
    else if (!strcmp(shell, "zsh"))
        help_zsh(&cmd_posada, stdout);
    else if (!strcmp(shell, "fish"))
        help_fish(&cmd_posada, stdout);
    else
        return cmd_usage(cmd, "expected bash, zsh or fish, not '%s'", shell);
    return CLI_OK;
}

static const struct cmd_section completion_sections[] = {
    {"Examples", "  source <(posada completion bash)\n"
                 "  posada completion zsh > ~/.zfunc/_posada\n"
                 "  posada completion fish > ~/.config/fish/completions/posada.fish"},
    {0         },
};

const struct cmd cmd_completion = {
    .path = "completion",
    .operands = "bash|zsh|fish",
    .summary = "print a completion script for a shell",
    .description = "Print a script that completes commands, options, choices, files and images.",
    .opts = completion_opts,
    .values_size = sizeof(struct completion_values),
    .sections = completion_sections,
    .min_operands = 1,
    .max_operands = 1,
    .run = run_completion,
};
