/* posada start. */
#include "base/error.h"
#include "cli/remote.h"
#include "cli/verbs.h"
#include "monitor/daemon.h"
#include "store/recover.h"

#include <errno.h>

struct start_values {
    struct cmd_common common;
    bool all, boot;
};

/** As many at once as make a host busy, and no more. */
enum { BATCH = 16 };

struct starting {
    struct instance *in; /* NULL: it has failed */
    int fd;
};

/** Start up to BATCH instances at once; the exit status. */
static int start_batch(const struct cmd *cmd, const struct start_values *v, char *const *names,
                       size_t n)
{
    struct starting batch[BATCH] = {0};
    int status = CLI_OK;

    for (size_t i = 0; i < n; i++) {
        struct starting *s = &batch[i];
        struct error err = {0};
        int r = instance_open(names[i], INSTANCE_CHANGE, &s->in, &err);
        if (!r && instance_is_running(s->in))
            r = error_set(&err, EBUSY, "'%s' is running already", names[i]);
        if (!r && v->boot)
            r = instance_drop_state(s->in, &err);
        if (!r)
            r = daemon_spawn(names[i], &s->fd, &err);
        if (r) {
            status = cmd_fail(cmd, CLI_ERROR, &err);
            instance_close(s->in);
            s->in = NULL;
        }
    }
    for (size_t i = 0; i < n; i++) {
        struct error err = {0};
        if (batch[i].in && daemon_await(batch[i].fd, &err))
            status = cmd_fail(cmd, CLI_ERROR, &err);
        instance_close(batch[i].in);
    }
    return status;
}

static int run_start(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct start_values *v = values;
    char **names;
    size_t n;
    int status = cmd_names(cmd, args, v->all, &names, &n);

    for (size_t i = 0; i < n; i += BATCH) {
        int one = start_batch(cmd, v, names + i, MIN(n - i, (size_t)BATCH));
        status = one ? one : status;
    }
    remote_free_names(names, n);
    return status;
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
