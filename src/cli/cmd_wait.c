/* posada wait: until instances have stopped. */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <errno.h>
#include <stdio.h>

#define NS_PER_MS 1000000LL

enum { POLL_US = 10000 };

struct wait_values {
    struct cmd_common common;
    int64_t timeout_ms;
};

/** Until @name's monitor has ended; messages that come meanwhile are of no interest. */
static int wait_for(const char *name, int64_t deadline_ns, struct error *err)
{
    struct api_client *c;
    int r = remote_open(name, &c, err);

    while (!r) {
        struct api_message m;
        r = api_client_receive(c, deadline_ns, &m, err);
        if (!r)
            api_message_done(&m);
        if (r)
            api_client_close(c);
    }
    if (r == -ETIMEDOUT) {
        *err = (struct error){0};
        return error_set(err, ETIMEDOUT, "'%s' still runs", name);
    }
    if (r != -ECONNRESET && r != -ENOTCONN)
        return r;
    *err = (struct error){0};
    return 0;
}

/** Print how @name ended; *@ret_status as its guest's. */
static int report(const char *name, int *ret_status, struct error *err)
{
    struct instance *in;
    int r = instance_open(name, 0, &in, err);

    if (r)
        return r;
    while (instance_is_running(in))
        (void)usleep(POLL_US); /* its process frees what it has: milliseconds */
    cleanup(freep) char *path = instance_path(in, err, "last.json");
    instance_close(in);
    json_t *last = path ? json_load_file(path, 0, NULL) : NULL;
    const char *reason = json_string_value(json_object_get(last, "reason"));
    *ret_status = reason ? (int)json_integer_value(json_object_get(last, "status")) & 0xff : 0;
    (void)printf("%s %s %d\n", name, reason ? reason : "off", *ret_status);
    (void)fflush(stdout);
    json_decref(last);
    return 0;
}

static int run_wait(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct wait_values *v = values;
    int64_t deadline_ns = v->timeout_ms ? host_now_ns() + v->timeout_ms * NS_PER_MS : INT64_MAX;
    int status = CLI_OK;

    for (size_t i = 0; i < args->n; i++) {
        struct error err = {0};
        int one = CLI_OK;
        int r = wait_for(args->v[i], deadline_ns, &err);
        if (!r)
            r = report(args->v[i], &one, &err);
        if (r)
            return cmd_fail(cmd, r == -ETIMEDOUT ? CLI_TIMEOUT : CLI_ERROR, &err);
        status = status ? status : one;
    }
    return status;
}

static const struct opt_def wait_opts[] = {
    {.name = "timeout",
     .short_name = 't',
     OPT_INTO_DURATION(struct wait_values, timeout_ms),
     .arg = "TIME",
     .group = "Waiting",
     .help = "Give up after this time, with exit status 124"},
    CMD_COMMON_ROWS(struct wait_values),
};

const struct cmd cmd_wait = {
    .path = "wait",
    .operands = "NAME...",
    .summary = "wait until instances have stopped",
    .description =
        "Wait until instances do not run any more (one that its restart policy starts again still runs), "
        "and print a line for each: name, why it ended (poweroff, stopped, panic, error), the guest's "
        "status. The exit status is the first guest's that is not 0.",
    .opts = wait_opts,
    .values_size = sizeof(struct wait_values),
    .min_operands = 1,
    .max_operands = CLI_NAMES_MAX,
    .run = run_wait,
};
