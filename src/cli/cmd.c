/* The tree of commands and the way from argv to the one that runs. No state; the main thread. */
#include "cli/cmd.h"

#include "base/error.h"
#include "base/fd.h"
#include "cli/help.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct root_values {
    struct cmd_common common;
    bool version;
};

static const struct opt_def root_opts[] = {
    {.name = "version",
     OPT_INTO_FLAG(struct root_values, version),
     .group = "Other",
     .help = "Print the version and exit"},
    CMD_COMMON_ROWS(struct root_values),
};

static const struct cmd *const root_subs[] = {
    &cmd_run,    &cmd_launch,  &cmd_create,     &cmd_start,     &cmd_stop,   &cmd_restart,
    &cmd_pause,  &cmd_resume,  &cmd_list,       &cmd_info,      &cmd_top,    &cmd_events,
    &cmd_wait,   &cmd_console, &cmd_logs,       &cmd_exec,      &cmd_shell,  &cmd_cp,
    &cmd_set,    &cmd_get,     &cmd_edit,       &cmd_rename,    &cmd_delete, &cmd_snapshot,
    &cmd_copy,   &cmd_export,  &cmd_import,     &cmd_autostart, &cmd_image,  &cmd_disk,
    &cmd_doctor, &cmd_help,    &cmd_completion, &cmd_version,   NULL,
};

static int run_root(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct root_values *v = values;

    if (v->version)
        return version_print(false);
    return cmd_usage(cmd,
                     "a command is needed, such as 'posada run tiny'; 'posada --help' lists them");
}

static const struct cmd_section root_sections[] = {
    {"Exit status",
     "0: success. Otherwise:\n\n"
     "  1    'posada doctor' found something that fails\n"
     "  2    the command line is wrong\n"
     "  124  'posada run' reached its --timeout\n"
     "  125  Posada itself failed: a missing file, a port in use, no memory\n\n"
     "'posada run', 'exec' and 'shell' pass on the guest's own status, also 126 and 127."},
    {"Environment",
     "XDG_DATA_HOME: images and instances are kept in its folder posada; when it is not set, in "
     "~/.local/share/posada, or for root in /var/lib/posada.\n\n"
     "XDG_CACHE_HOME: downloaded packages, likewise; ~/.cache/posada or /var/cache/posada."},
    {0},
};

const struct cmd cmd_posada = {
    .path = "",
    .operands = "COMMAND [ARGUMENT...]",
    .summary = "run guests of other architectures on Linux",
    .description =
        "Posada runs whole riscv64 machines, in this terminal, without root and without /dev/kvm: unmodified "
        "Debian, any Linux kernel and initrd, or firmware of your own.",
    .opts = root_opts,
    .values_size = sizeof(struct root_values),
    .subs = root_subs,
    .sections = root_sections,
    .run = run_root,
};

const char *cmd_name(const struct cmd *cmd)
{
    const char *space = strrchr(cmd->path, ' ');

    if (!*cmd->path)
        return "posada";
    return space ? space + 1 : cmd->path;
}

int cmd_fail(const struct cmd *cmd, int status, const struct error *err)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "posada%s%s: %s\n", *cmd->path ? " " : "", cmd->path, error_text(err));
    return status;
}

int cmd_usage(const struct cmd *cmd, const char *fmt, ...)
{
    struct error err = {.code = EINVAL};
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(err.text, sizeof(err.text), fmt, ap);
    va_end(ap);
    return cmd_fail(cmd, CLI_USAGE, &err);
}

int cmd_names(const struct cmd *cmd, const struct opt_args *args, bool all, char ***ret,
              size_t *ret_n)
{
    struct error err = {0};

    *ret = NULL;
    *ret_n = 0;
    if (!args->n && !all)
        return cmd_usage(cmd, "an operand is missing: %s", cmd->operands);
    if (args->n && all)
        return cmd_usage(cmd, "--all excludes names");
    return remote_names(args->v, args->n, all, ret, ret_n, &err) ? cmd_fail(cmd, CLI_ERROR, &err)
                                                                 : CLI_OK;
}

int cmd_each(const struct cmd *cmd, const struct opt_args *args, bool all,
             int (*fn)(const char *name, struct error *err))
{
    char **names;
    size_t n;
    int status = cmd_names(cmd, args, all, &names, &n);

    for (size_t i = 0; i < n; i++) {
        struct error err = {0};
        int r = fn(names[i], &err);
        if (r)
            status = cmd_fail(cmd, r == -ETIMEDOUT ? CLI_TIMEOUT : CLI_ERROR, &err);
    }
    remote_free_names(names, n);
    return status;
}

void cmd_print_json(const json_t *j)
{
    (void)json_dumpf(j, stdout, JSON_INDENT(2));
    (void)putchar('\n');
}

static const struct cmd *find_sub(const struct cmd *cmd, const char *name)
{
    for (const struct cmd *const *s = cmd->subs; s && *s; s++) {
        if (!strcmp(cmd_name(*s), name))
            return *s;
    }
    return NULL;
}

static const char *next_sub(void *arg)
{
    const struct cmd *const **s = arg;

    return **s ? cmd_name(*(*s)++) : NULL;
}

static int unknown_sub(const struct cmd *cmd, const char *word, struct error *err)
{
    const struct cmd *const *s = cmd->subs;
    const char *near = opt_nearest(word, next_sub, &s);
    const char *space = *cmd->path ? " " : "";

    if (near)
        return error_set(err, EINVAL, "unknown command '%s'; did you mean 'posada %s%s%s'?", word,
                         cmd->path, space, near);
    return error_set(err, EINVAL, "unknown command '%s'; 'posada %s%s--help' lists them", word,
                     cmd->path, space);
}

const struct cmd *cmd_find(const char *const *words, size_t n, struct error *err)
{
    const struct cmd *cmd = &cmd_posada;

    for (size_t i = 0; i < n; i++) {
        const struct cmd *sub = find_sub(cmd, words[i]);
        if (!sub) {
            if (cmd->subs)
                (void)unknown_sub(cmd, words[i], err);
            else
                (void)error_set(err, EINVAL, "'posada %s' has no commands of its own", cmd->path);
            return NULL;
        }
        cmd = sub;
    }
    return cmd;
}

/** -EINVAL with a sentence when there are too many or too few operands. */
static int check_operands(const struct cmd *cmd, const struct opt_args *args, struct error *err)
{
    if (args->n > cmd->max_operands)
        return error_set(err, EINVAL, "unexpected operand '%s'", args->v[cmd->max_operands]);
    if (args->n < cmd->min_operands)
        return error_set(err, EINVAL, "an operand is missing: %s", cmd->operands);
    if (args->has_rest && !cmd->takes_rest)
        return error_set(err, EINVAL, "nothing may follow '--' here");
    return 0;
}

static int run_cmd(const struct cmd *cmd, int argc, char **argv)
{
    struct error err = {0};
    struct opt_args args = {0};
    cleanup(freep) void *values = calloc(1, cmd->values_size);
    int status;

    if (!values) {
        (void)error_set(&err, ENOMEM, "out of memory");
        return cmd_fail(cmd, CLI_ERROR, &err);
    }
    int r = opt_parse(cmd->opts, values, argc, argv, &args, &err);
    if (!r && ((struct cmd_common *)values)->help) {
        help_print(cmd, help_width(STDOUT_FILENO), stdout);
        status = CLI_OK;
    } else if (r || (r = check_operands(cmd, &args, &err))) {
        status = cmd_fail(cmd, r == -ENOMEM ? CLI_ERROR : CLI_USAGE, &err);
    } else {
        status = cmd->run(cmd, values, &args);
    }
    opt_done(cmd->opts, values, &args);
    return status;
}

static void say_waiting(const char *sentence)
{
    (void)fprintf(stderr, "posada: %s\n", sentence);
}

int cli_main(int argc, char **argv)
{
    const struct cmd *cmd = &cmd_posada;
    struct error err = {0};
    int at = 1;

    instance_on_wait(say_waiting);
    while (cmd->subs && at < argc && argv[at][0] != '-') {
        const struct cmd *sub = find_sub(cmd, argv[at]);
        if (!sub) {
            (void)unknown_sub(cmd, argv[at], &err);
            return cmd_fail(cmd, CLI_USAGE, &err);
        }
        cmd = sub;
        at++;
    }
    int status = run_cmd(cmd, argc - MIN(at, argc), argv + MIN(at, argc));
    if (fflush(stdout) || ferror(stdout)) {
        (void)error_set(&err, errno, "cannot write to standard output: %s", strerror(errno));
        return cmd_fail(cmd, status ? status : CLI_ERROR, &err);
    }
    return status;
}
