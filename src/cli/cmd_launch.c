/* posada launch: make an instance of an image, and start it in the background. */
#include "base/fd.h"
#include "base/paths.h"
#include "cli/guest.h"
#include "cli/remote.h"
#include "cli/verbs.h"
#include "vm/config.h"

#include <errno.h>
#include <string.h>

enum { TRIES = 1000 };

struct launch_values {
    struct cmd_common common;
    struct guest_values guest;
    bool no_start;
};

/** Open a new instance called @name, or with a number after @base. */
static int open_new(const char *name, const char *base, struct instance **ret, struct error *err)
{
    int r = -EEXIST;

    for (int i = 1; r == -EEXIST && i < TRIES; i++) {
        cleanup(freep) char *try = name     ? strdup(name)
                                   : i == 1 ? strdup(base)
                                            : paths_format(err, "%s-%d", base, i);
        struct instance *in;
        r = try ? instance_open(try, INSTANCE_CHANGE | INSTANCE_NEW, &in, err) : -ENOMEM;
        if (r)
            return r;
        if (!in->exists) {
            *ret = in;
            return 0;
        }
        instance_close(in);
        if (name)
            return error_set(err, EEXIST,
                             "there is an instance '%s' already; 'posada start %s' starts it", name,
                             name);
        r = -EEXIST;
    }
    return error_set(err, EEXIST, "no name is free: give one");
}

int launch(const struct guest_values *v, const char *image, const char *name, bool start,
           struct error *err)
{
    struct instance *in = NULL;
    struct image_spec spec;
    char base[IMAGE_NAME_MAX];
    struct error why;
    int r = image_spec_parse(image, guest_arch(v, image, &why), v->mirror, &spec, err);

    if (r)
        return r;
    guest_default_name(&spec, base);
    r = open_new(name, base, &in, err);
    if (r)
        return r;
    r = guest_create(in, &spec, v, &why, err);
    if (!r) {
        (void)printf("%s\n", in->name);
        (void)fflush(stdout);
    }
    if (!r && start)
        r = remote_start(in, err);
    instance_close(in);
    return r;
}

static int run_create(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct launch_values *v = values;
    struct error err = {0};
    int r = launch(&v->guest, args->v[0], args->n > 1 ? args->v[1] : NULL, false, &err);

    return r ? cmd_fail(cmd, r == -EINVAL ? CLI_USAGE : CLI_ERROR, &err) : CLI_OK;
}

static int run_launch(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct launch_values *v = values;
    struct error err = {0};
    int r = launch(&v->guest, args->v[0], args->n > 1 ? args->v[1] : NULL, !v->no_start, &err);

    return r ? cmd_fail(cmd, r == -EINVAL ? CLI_USAGE : CLI_ERROR, &err) : CLI_OK;
}

static const struct opt_def launch_opts[] = {
    GUEST_OPT_ROWS(struct launch_values),
    GUEST_KEPT_ROWS(struct launch_values),
    {.name = "no-start",
                            OPT_INTO_FLAG(struct launch_values, no_start),
                            .group = "Instance",
                            .help = "Make it only"},
    CMD_COMMON_ROWS(struct launch_values),
};

const struct cmd cmd_launch = {
    .path = "launch",
    .operands = "IMAGE [NAME]",
    .summary = "make an instance and start it in the background",
    .description =
        "Make an instance, a guest that lasts, of an image (tiny, debian, debian:sid...; built on first use) and "
        "start it in the background. Prints its name, which is the image's if none is given.\n\n"
        "'posada console NAME' shows its terminal, 'posada stop NAME' and 'posada start NAME' switch it off and on, "
        "'posada set' changes it, 'posada delete NAME' deletes it with its disk.",
    .opts = launch_opts,
    .values_size = sizeof(struct launch_values),
    .min_operands = 1,
    .max_operands = 2,
    .run = run_launch,
};

static const struct opt_def create_opts[] = {
    GUEST_OPT_ROWS(struct launch_values),
    GUEST_KEPT_ROWS(struct launch_values),
    CMD_COMMON_ROWS(struct launch_values),
};

const struct cmd cmd_create = {
    .path = "create",
    .operands = "IMAGE [NAME]",
    .summary = "make an instance, and leave it off",
    .description =
        "Make an instance of an image, as 'posada launch' does, without starting it: 'posada set' and 'posada "
        "snapshot' come before its first start, 'posada start' starts it. Prints its name.",
    .opts = create_opts,
    .values_size = sizeof(struct launch_values),
    .min_operands = 1,
    .max_operands = 2,
    .run = run_create,
};
