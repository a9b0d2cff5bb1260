/* posada exec: a program in a running guest. */
#include "base/fd.h"
#include "cli/inside.h"
#include "cli/verbs.h"

#include <stdlib.h>
#include <string.h>

struct exec_values {
    struct cmd_common common;
    bool interactive, tty;
    struct opt_list env;
    const char *cwd, *user;
    int64_t wait_ms;
};

/** The user's variables, after the kind of terminal. NULL-terminated, the caller's; NULL = no
 * memory. */
static const char **make_env(const struct exec_values *v, char *term, size_t room)
{
    const char **env = calloc(v->env.n + 2, sizeof(*env));
    const char *own = getenv("TERM");
    size_t n = 0;

    if (env && v->tty && own) {
        (void)snprintf(term, room, "TERM=%s", own);
        env[n++] = term;
    }
    for (size_t i = 0; env && i < v->env.n; i++)
        env[n++] = v->env.v[i];
    return env;
}

static int run_exec(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct exec_values *v = values;
    char term[64];
    struct error err = {0};

    if (!args->rest_n)
        return cmd_usage(cmd, "the command is missing: posada exec %s -- COMMAND...", args->v[0]);
    for (size_t i = 0; i < v->env.n; i++) {
        if (*v->env.v[i] == '=' || !strchr(v->env.v[i], '='))
            return cmd_usage(cmd, "--env: '%s' is not of the form NAME=VALUE", v->env.v[i]);
    }
    cleanup(freep) const char **env = make_env(v, term, sizeof(term));
    if (!env) {
        (void)error_set(&err, ENOMEM, "out of memory");
        return cmd_fail(cmd, CLI_ERROR, &err);
    }
    struct agent_exec e = {
        .argv = (const char *const *)args->rest,
        .env = env,
        .cwd = v->cwd,
        .user = v->user,
        .tty = v->tty,
    };
    return inside_exec(cmd, args->v[0], v->wait_ms, &e, v->interactive);
}

static const struct opt_def exec_opts[] = {
    {.name = "interactive",
     .short_name = 'i',
     OPT_INTO_FLAG(struct exec_values,       interactive),
     .group = "Command",
     .help = "Pass standard input on; without it, the command's is empty"           },
    {              .name = "tty",
     .short_name = 't',
     OPT_INTO_FLAG(struct exec_values, tty),
     .group = "Command",
     .help = "Give the command a terminal"                                        },
    {  .name = "env",
     .short_name = 'e',
     OPT_INTO_LIST(struct exec_values,                    env),
     .arg = "NAME=VALUE",
     .group = "Command",
     .help = "Set an environment variable of the command. May be repeated"},
    {          .name = "cwd",
     .short_name = 'w',
     OPT_INTO_STRING(struct exec_values,                         cwd),
     .arg = "/PATH",
     .group = "Command",
     .help = "Folder of the guest to run the command in. Default: the user's home"},
    { .name = "user",
     .short_name = 'u',
     OPT_INTO_STRING(struct exec_values,                          user),
     .arg = "USER",
     .group = "Command",
     .help = "Run it as this user of the guest, by name or number. Default: root"},
    INSIDE_WAIT_ROW(struct exec_values),
    CMD_COMMON_ROWS(struct exec_values),
};

static const struct cmd_section exec_sections[] = {
    {"Exit status",
     "The command's own; 128 + n when signal n ended it; 127 when the guest has no such command, "
     "126 when it cannot be executed; 125 when the guest cannot be reached."},
    {"Signals",
     "SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on; the third SIGINT or "
     "SIGTERM ends 'posada exec' itself. When it ends, the command gets SIGHUP."},
    {"Examples", "  posada exec web -- systemctl status nginx\n"
                 "  posada exec -it web -- top\n"
                 "  tar c data | posada exec -i web -- tar x -C /srv"},
    {0                                                                 },
};

const struct cmd cmd_exec = {
    .path = "exec",
    .operands = "NAME -- COMMAND [ARGUMENT...]",
    .summary = "run a command in a running guest",
    .description =
        "Run a command in a guest through its agent, which images of 'posada image build' have, "
        "and pass on its output and its exit status. NAME is an instance, or the folder that "
        "'posada run --vsock' was given, with a slash in it.",
    .opts = exec_opts,
    .values_size = sizeof(struct exec_values),
    .sections = exec_sections,
    .min_operands = 1,
    .max_operands = 1,
    .takes_rest = true,
    .run = run_exec,
};
