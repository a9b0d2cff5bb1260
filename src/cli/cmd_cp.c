/* posada cp: files and folders between this host and a running guest. */
#include "base/fd.h"
#include "cli/inside.h"
#include "cli/verbs.h"
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

enum { SILENCE_MS = 60000 };

struct cp_values {
    struct cmd_common common;
    bool archive;
    uint64_t limit;
    int64_t wait_ms;
};

static volatile sig_atomic_t interrupted;

static void interrupt(int signo)
{
    interrupted = 1;
}

static int check_interrupted(const struct tree_result *so_far, void *arg)
{
    return interrupted;
}

/** So that an interrupted copy takes away what is incomplete; the second time, it ends at once. */
static void catch_signals(void)
{
    struct sigaction act = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND};

    (void)sigaction(SIGINT, &act, NULL);
    (void)sigaction(SIGTERM, &act, NULL);
}

/** Is @text NAME:PATH? Then *@ret_name is the caller's. A file with a colon in its name is given
 * as ./FILE. */
static bool is_of_guest(const char *text, char **ret_name, const char **ret_path)
{
    const char *colon = strchr(text, ':');
    char *name = colon && colon > text ? strndup(text, (size_t)(colon - text)) : NULL;
    bool is = name && instance_name_is_valid(name);

    if (name && !is && strchr(name, '/')) {
        char *sockets = inside_sockets(name, NULL);

        is = sockets;
        free(sockets);
    }
    if (!is) {
        free(name);
        return false;
    }
    *ret_name = name;
    *ret_path = colon[1] ? colon + 1 : ".";
    return true;
}

static int run_cp(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct cp_values *v = values;
    struct tree_options o = {
        .keep_owners = v->archive,
        .max_bytes = v->limit,
        .silence_ms = SILENCE_MS,
        .progress = check_interrupted,
    };
    cleanup(freep) char *from = NULL;
    cleanup(freep) char *to = NULL;
    const char *source = args->v[0], *target = args->v[1];
    struct tree_result result = {0};
    struct error err = {0};
    struct agent *a = NULL;

    bool is_from = is_of_guest(args->v[0], &from, &source);
    bool is_to = is_of_guest(args->v[1], &to, &target);
    if (is_from == is_to)
        return cmd_usage(cmd, is_to ? "only one of the two can be a guest's"
                                    : "one of the two must be a guest's: NAME:PATH");
    catch_signals();
    int rc = inside_connect(is_to ? to : from, v->wait_ms, &a, &err);
    if (!rc)
        rc = is_to ? agent_put(a, source, target, &o, &result, &err)
                   : agent_get(a, source, target, &o, &result, &err);
    agent_close(a);
    if (rc)
        return cmd_fail(cmd, CLI_ERROR, &err);
    if (result.left_out)
        (void)fprintf(stderr, "posada cp: %" PRIu64 " sockets, pipes or devices were left out\n",
                      result.left_out);
    return CLI_OK;
}

static const struct opt_def cp_opts[] = {
    {.name = "archive",
     .short_name = 'a',
     OPT_INTO_FLAG(struct cp_values,         archive),
     .group = "Copy",
     .help = "Keep owners, by number, and set-id bits; to this host, as root only"},
    {.name = "limit",
     OPT_INTO_SIZE(struct cp_values, limit),
     .arg = "SIZE",
     .group = "Copy",
     .help = "Refuse to take more than this from a guest. Default: no limit"      },
    INSIDE_WAIT_ROW(struct cp_values),
    CMD_COMMON_ROWS(struct cp_values),
};

static const struct cmd_section cp_sections[] = {
    {"What is copied",
     "A file, or a folder with all in it. When the target is a folder it goes into that, else it "
     "becomes the target. Modes, times, symbolic links and holes are kept; sockets, pipes, devices "
     "and extended attributes are left out; hard links become files. Files are replaced when they "
     "are complete, links never followed below the top. In a guest, paths begin in root's home."},
    {"Examples",                                                    "  posada cp site web:/srv/www\n"
                 "  posada cp web:/var/log/syslog ."},
    {0},
};

const struct cmd cmd_cp = {
    .path = "cp",
    .operands = "SOURCE TARGET",
    .summary = "copy files to or from a running guest",
    .description =
        "Copy between this host and a guest through the guest's agent. One of the two is NAME:PATH, "
        "where NAME is as for 'posada exec'.",
    .opts = cp_opts,
    .values_size = sizeof(struct cp_values),
    .sections = cp_sections,
    .min_operands = 2,
    .max_operands = 2,
    .run = run_cp,
};
