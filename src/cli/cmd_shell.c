/* posada shell: a login shell in a running guest. */
#include "cli/inside.h"
#include "cli/verbs.h"

#include <stdlib.h>
#include <unistd.h>

struct shell_values {
    struct cmd_common common;
    const char *user;
    int64_t wait_ms;
};

static int run_shell(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct shell_values *v = values;
    char term[64];
    const char *env[2] = {NULL}, *own = getenv("TERM");
    struct agent_exec e = {.env = env, .user = v->user};

    /* A script on standard input needs no terminal. */
    e.tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    if (own) {
        (void)snprintf(term, sizeof(term), "TERM=%s", own);
        env[0] = term;
    }
    return inside_exec(cmd, args->v[0], v->wait_ms, &e, true);
}

static const struct opt_def shell_opts[] = {
    {.name = "user",
     .short_name = 'u',
     OPT_INTO_STRING(struct shell_values, user),
     .arg = "USER",
     .group = "Guest",
     .help = "Whose shell, by name or number. Default: root's"},
    INSIDE_WAIT_ROW(struct shell_values),
    CMD_COMMON_ROWS(struct shell_values),
};

const struct cmd cmd_shell = {
    .path = "shell",
    .operands = "NAME",
    .summary = "open a shell in a running guest",
    .description =
        "Open a user's login shell in a guest through its agent; without a terminal, run what "
        "standard input has. NAME is as for 'posada exec', and so is the exit status.",
    .opts = shell_opts,
    .values_size = sizeof(struct shell_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_shell,
};
