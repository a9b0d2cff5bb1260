/* posada autostart: what a host starts when it starts. */
#include "base/error.h"
#include "base/fd.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <stdio.h>

struct autostart_values {
    struct cmd_common common;
};

/** Did somebody stop it? */
static bool was_asked(const struct instance *in)
{
    cleanup(freep) char *path = instance_path(in, NULL, "last.json");
    json_t *last = path ? json_load_file(path, 0, NULL) : NULL;
    bool asked = !last || json_is_true(json_object_get(last, "asked"));

    json_decref(last);
    return asked;
}

static bool wants_start(const struct instance *in, const struct instance_config *c)
{
    enum restart_policy policy = RESTART_NO;
    unsigned max;

    (void)config_restart(c->restart, &policy, &max); /* checked when it was read */
    return c->autostart || policy == RESTART_ALWAYS ||
           (policy == RESTART_UNLESS_STOPPED && !was_asked(in));
}

static int autostart_one(const char *name, struct error *err)
{
    struct instance_config c;
    struct instance *in;
    int r = instance_open(name, INSTANCE_CHANGE, &in, err);

    if (r)
        return r;
    r = instance_config(in, &c, err);
    if (!r) {
        if (!instance_is_running(in) && wants_start(in, &c)) {
            r = remote_start(in, err);
            if (!r)
                (void)printf("%s\n", name);
        }
        config_done(&c);
    }
    instance_close(in);
    return r;
}

static int run_autostart(const struct cmd *cmd, void *values, struct opt_args *args)
{
    return cmd_each(cmd, args, true, autostart_one);
}

static const struct opt_def autostart_opts[] = {
    CMD_COMMON_ROWS(struct autostart_values),
};

static const struct cmd_section autostart_sections[] = {
    {"With systemd",
     "The unit posada.service, which is installed for users, starts them at login and stops them at logout:\n\n"
     "  systemctl --user enable --now posada.service\n"
     "  loginctl enable-linger                           (also without a login)"},
    {0             }
};

const struct cmd cmd_autostart = {
    .path = "autostart",
    .summary = "start the instances that are to run",
    .description =
        "Start all instances whose configuration says autostart: yes or restart: always, and those with "
        "restart: unless-stopped that ran and were not stopped by a command. Prints their names.",
    .opts = autostart_opts,
    .values_size = sizeof(struct autostart_values),
    .sections = autostart_sections,
    .run = run_autostart,
};
