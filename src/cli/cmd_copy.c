/* posada copy. */
#include "base/fd.h"
#include "cli/copy_live.h"
#include "cli/point.h"
#include "cli/remote.h"
#include "cli/verbs.h"
#include "snapshot/instance.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct copy_values {
    struct cmd_common common;
    bool linked, live, promote, quiet;
};

/** @from is locked, and has a monitor if it @runs; nothing of it is merged until this returns. */
static int copy_held(struct instance *from, const char *to_name, const struct snapshots_copy *o,
                     bool runs, struct error *err)
{
    struct instance *to = NULL;
    int rc = instance_open(to_name, INSTANCE_CHANGE | INSTANCE_NEW, &to, err);

    if (!rc && to->exists)
        rc = error_set(err, EEXIST, "there is an instance '%s' already", to_name);
    if (!rc)
        rc = point_copy(from, to, o, runs, err);
    instance_close(to);
    return rc;
}

/** A snapshot to copy from: @at's, or one that is taken now. */
static int need_snapshot(struct point *at, const char *to, bool linked, bool runs, bool *ret_taken,
                         struct error *err)
{
    char description[TREE_NAME_BYTES + 32];

    *ret_taken = false;
    if (*at->snapshot || (!linked && !runs))
        return 0;
    (void)snprintf(at->snapshot, sizeof(at->snapshot), "for-%.58s", to);
    (void)snprintf(description, sizeof(description), "what '%s' was copied from", to);
    int rc = point_take(at->name, at->snapshot, description, true, NULL, err);
    *ret_taken = !rc;
    return rc;
}

static int copy(struct point *at, const char *to, bool linked, struct progress *p,
                struct error *err)
{
    struct snapshots_copy o = {.linked = linked, .progress = point_progress, .arg = p};
    struct instance *in = NULL;
    struct error late = {0};
    bool taken;
    int rc = instance_open(at->name, 0, &in, err);

    if (rc)
        return rc;
    rc = need_snapshot(at, to, linked, instance_is_running(in), &taken, err);
    instance_close(in);
    if (!rc)
        rc = instance_open(at->name, INSTANCE_CHANGE, &in, err);
    if (rc)
        return rc;
    o.snapshot = *at->snapshot ? at->snapshot : NULL;
    bool runs = instance_is_running(in); /* before we hold what says so */
    if (!o.snapshot)                     /* it is off, and stays so */
        rc = instance_take_run(in, err);
    if (!rc)
        rc = copy_held(in, to, &o, runs, err);
    if (taken && (rc || !linked) && !snapshots_delete(in, at->snapshot, &late) &&
        point_clean(in, p, &late))
        (void)fprintf(stderr, "posada copy: %s\n", error_text(&late));
    instance_close(in);
    return rc;
}

static void show(json_t *report, void *arg)
{
    json_int_t done = json_integer_value(json_object_get(report, "done"));
    json_int_t total = json_integer_value(json_object_get(report, "total"));

    if (arg && total > 0 && progress_bytes(arg, "copied", (uint64_t)done, (uint64_t)total))
        ((struct progress *)arg)->cancelled =
            true; /* the monitor goes on; so can it be asked again */
}

static int promote(const char *name, struct progress *p, struct error *err)
{
    struct snapshots_clean c = {
        .instance = name, .promote = true, .progress = point_progress, .arg = p};
    struct api_client *client = NULL;
    struct instance *in = NULL;
    struct error why = {0};
    int rc = remote_open(name, &client, &why);

    if (!rc) {
        rc = api_client_call(client, "promote", NULL, INT64_MAX, show, p, NULL, err);
        api_client_close(client);
        return rc;
    }
    if (rc != -ENOTCONN)
        return error_set(err, -rc, "%s", error_text(&why));
    rc = instance_open(name, INSTANCE_CHANGE, &in, err);
    if (!rc)
        rc = instance_take_run(in, err);
    c.in = in;
    if (!rc)
        rc = snapshots_clean(&c, err);
    instance_close(in);
    return rc;
}

static int run_copy(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct copy_values *v = values;
    struct progress p;
    struct point at;
    struct error err = {0};

    if (v->promote ? args->n != 1 : args->n != 2)
        return cmd_usage(cmd, v->promote ? "expected one NAME with --promote"
                                         : "expected what to copy, and the new name");
    if (point_parse(args->v[0], false, &at, &err))
        return cmd_fail(cmd, CLI_USAGE, &err);
    if (v->promote && (*at.snapshot || v->linked || v->live))
        return cmd_usage(cmd, "--promote takes the name of an instance, and nothing else");
    if (!v->promote && !strcmp(at.name, args->v[1])) { /* whose lock we would wait for ourselves */
        (void)error_set(&err, EEXIST, "there is an instance '%s' already", at.name);
        return cmd_fail(cmd, CLI_ERROR, &err);
    }
    if (v->linked && v->live)
        return cmd_usage(cmd, "--linked and --live exclude each other: a live copy is linked");
    progress_init(&p);
    int rc = v->promote ? promote(at.name, v->quiet ? NULL : &p, &err)
             : v->live  ? copy_live(&at, args->v[1], v->quiet, &err)
                        : copy(&at, args->v[1], v->linked, v->quiet ? NULL : &p, &err);
    progress_done(&p);
    if (rc)
        return cmd_fail(cmd, CLI_ERROR, &err);
    if (!v->promote)
        (void)printf("%s\n", args->v[1]);
    return CLI_OK;
}

/* clang-format off */
static const struct opt_def copy_opts[] = {
    {.name = "linked",
     .short_name = 'l',
     OPT_INTO_FLAG(struct copy_values, linked),
     .group = "Copying",
     .help = "Let the copy's disks lie on the snapshot's: made at once, and small. What it lies on cannot be deleted"},
    {.name = "live",
     OPT_INTO_FLAG(struct copy_values, live),
     .group = "Copying",
     .help = "Make a copy that runs at once, from where the original is, or was at a snapshot with its state"},
    {.name = "promote",
     OPT_INTO_FLAG(struct copy_values, promote),
     .group = "Copying",
     .help = "Make a linked copy independent: copy what it shares"},
    {.name = "quiet",
     .short_name = 'q',
     OPT_INTO_FLAG(struct copy_values, quiet),
     .group = "Output",
     .help = "Do not show how far it is"},
    CMD_COMMON_ROWS(struct copy_values),
};
/* clang-format on */

const struct cmd cmd_copy = {
    .path = "copy",
    .operands = "NAME[/SNAPSHOT] NEW | --promote NAME",
    .summary = "copy an instance",
    .description =
        "Make another instance of what one is now, or was at a snapshot: its configuration and disks, with a UUID and a "
        "network address of its own. The copy is off (but for --live), and has no snapshots.\n\n"
        "A full copy shares nothing with the original but the image that both were made from. A linked copy's disks lie on a "
        "snapshot's, which is taken if none is given (for-NEW); neither that nor the original can be deleted until the "
        "copy is, or is made independent by --promote. One that runs is copied as its disks are at one moment.\n\n"
        "A live copy of a running instance shares its memory until either writes to it, and is there in milliseconds; its disks "
        "are linked. Through the agent it gets its own host name, machine-id and network address; ports are not published "
        "again.",
    .opts = copy_opts,
    .values_size = sizeof(struct copy_values),
    .min_operands = 1,
    .max_operands = 2,
    .run = run_copy,
};
