/* posada snapshot create, restore, delete, rename. Listing them: cmd_snapshot_list.c. */
#include "base/fd.h"
#include "base/paths.h"
#include "cli/point.h"
#include "cli/remote.h"
#include "cli/verbs.h"
#include "snapshot/instance.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define RESTORE_BYTES (4u << 20)

struct snapshot_values {
    struct cmd_common common;
    const char *description;
    bool disk_only, keep, quiet;
};

static int run_create(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct snapshot_values *v = values;
    struct progress p;
    struct point at;
    struct error err = {0};

    if (point_parse(args->v[0], false, &at, &err))
        return cmd_fail(cmd, CLI_USAGE, &err);
    bool is_named = *at.snapshot;
    int rc = is_named ? 0 : point_new_name(at.name, at.snapshot, &err);
    if (rc)
        return cmd_fail(cmd, CLI_ERROR, &err);
    progress_init(&p);
    rc = point_take(at.name, at.snapshot, v->description, v->disk_only, v->quiet ? NULL : &p, &err);
    progress_done(&p);
    if (rc)
        return cmd_fail(cmd, CLI_ERROR, &err);
    if (!is_named)
        (void)printf("%s/%s\n", at.name, at.snapshot);
    return CLI_OK;
}

/** The instance, locked, off and kept so; *@ret_ran says that it ran. */
static int stop_and_hold(const char *name, struct instance **ret, bool *ret_ran, struct error *err)
{
    struct instance *in = NULL;
    int rc = instance_open(name, INSTANCE_CHANGE, &in, err);

    if (rc)
        return rc;
    *ret_ran = instance_is_running(in);
    if (*ret_ran)
        rc = remote_stop(name, 0, true, err);
    if (!rc)
        rc = instance_take_run(in, err);
    if (rc)
        instance_close(in);
    else
        *ret = in;
    return rc;
}

static int has_snapshot(const struct point *at, struct error *err)
{
    struct instance *in = NULL;
    struct tree *t = NULL;
    int rc = instance_open(at->name, 0, &in, err);

    if (!rc)
        rc = instance_tree(in, &t, err);
    if (!rc && !tree_find_named(t, at->snapshot))
        rc = error_set(err, ENOENT, "'%s' has no snapshot '%s'", at->name, at->snapshot);
    tree_free(t);
    instance_close(in);
    return rc;
}

static int keep_present(const struct point *at, char name[TREE_NAME_BYTES], struct progress *p,
                        struct error *err)
{
    char description[TREE_NAME_BYTES + 32];
    int rc = point_new_name(at->name, name, err);

    (void)snprintf(description, sizeof(description), "before going back to %s", at->snapshot);
    if (!rc)
        rc = point_take(at->name, name, description, false, p, err);
    return rc;
}

/** A machine that runs is not stopped for what cannot be done: is there room for new tops, a tree
 * and a configuration? */
static int check_room(const struct point *at, struct error *err)
{
    struct instance *in = NULL;
    int rc = instance_open(at->name, 0, &in, err);

    if (!rc && instance_is_running(in))
        rc = paths_check_room(in->dir, RESTORE_BYTES, err);
    instance_close(in);
    return rc;
}

/** Nothing has come of it, and the instance is still what it was: so it was not needed. */
static void unkeep(struct instance *in, const char *name, struct progress *p)
{
    struct error unheard = {0};

    if (!snapshots_delete(in, name, &unheard) && point_clean(in, p, &unheard)) {
        /* the next command goes on with it */
    }
}

static int restore(const struct point *at, bool keep, struct progress *p, struct error *err)
{
    struct instance *in = NULL;
    char kept[TREE_NAME_BYTES] = "";
    bool ran = false;
    int rc = has_snapshot(at, err);

    if (!rc)
        rc = check_room(at, err);
    if (!rc && keep)
        rc = keep_present(at, kept, p, err);
    if (!rc)
        rc = stop_and_hold(at->name, &in, &ran, err);
    if (rc)
        return rc;
    rc = snapshots_restore(in, at->snapshot, err);
    if (rc && *kept && !ran)
        unkeep(in, kept, p);
    else if (*kept)
        (void)printf("%s/%s\n", at->name, kept);
    fd_close(fd_take(&in->run_fd));
    if (ran && !rc)
        rc = remote_start(in, err); /* which merges what is left to merge */
    else if (!rc)
        rc = point_clean(in, p, err);
    instance_close(in);
    return rc;
}

static int run_restore(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct snapshot_values *v = values;
    struct progress p;
    struct point at;
    struct error err = {0};

    if (point_parse(args->v[0], true, &at, &err))
        return cmd_fail(cmd, CLI_USAGE, &err);
    progress_init(&p);
    int rc = restore(&at, v->keep, v->quiet ? NULL : &p, &err);
    progress_done(&p);
    return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

static int run_delete(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct snapshot_values *v = values;
    struct instance *in = NULL;
    struct progress p;
    struct point at;
    struct error err = {0};

    if (point_parse(args->v[0], true, &at, &err))
        return cmd_fail(cmd, CLI_USAGE, &err);
    if (instance_open(at.name, INSTANCE_CHANGE, &in, &err))
        return cmd_fail(cmd, CLI_ERROR, &err);
    progress_init(&p);
    int rc = snapshots_delete(in, at.snapshot, &err);
    if (!rc)
        rc = point_clean(in, v->quiet ? NULL : &p, &err);
    progress_done(&p);
    instance_close(in);
    return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

static int run_rename(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct snapshot_values *v = values;
    const char *name = args->n > 1 ? args->v[1] : NULL;
    struct instance *in = NULL;
    struct point at;
    struct error err = {0};

    if (point_parse(args->v[0], true, &at, &err))
        return cmd_fail(cmd, CLI_USAGE, &err);
    if (!name && !v->description)
        return cmd_usage(cmd, "expected a new name, or --description");
    int rc = instance_open(at.name, INSTANCE_CHANGE, &in, &err);
    if (!rc)
        rc = snapshots_rename(in, at.snapshot, name, v->description, &err);
    instance_close(in);
    return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

static int run_snapshot(const struct cmd *cmd, void *values, struct opt_args *args)
{
    (void)values;
    (void)args;
    return cmd_usage(cmd, "a command is needed: create, list, info, restore, delete or rename");
}

/* clang-format off */
#define ROW_QUIET                                        \
    {.name = "quiet",                                    \
     .short_name = 'q',                                  \
     OPT_INTO_FLAG(struct snapshot_values, quiet),       \
     .group = "Output",                                  \
     .help = "Do not show how far it is"}

#define ROW_DESCRIPTION                                        \
    {.name = "description",                                    \
     .short_name = 'd',                                        \
     OPT_INTO_STRING(struct snapshot_values, description),     \
     .arg = "TEXT",                                            \
     .group = "Snapshot",                                      \
     .help = "What it is for"}

static const struct opt_def create_opts[] = {
    ROW_DESCRIPTION,
    {.name = "disk-only",
     OPT_INTO_FLAG(struct snapshot_values, disk_only),
     .group = "Snapshot",
     .help = "Leave out the running machine's memory and devices: who restores it boots"},
    ROW_QUIET,
    CMD_COMMON_ROWS(struct snapshot_values),
};

static const struct opt_def restore_opts[] = {
    {.name = "keep",
     .short_name = 'k',
     OPT_INTO_FLAG(struct snapshot_values, keep),
     .group = "Snapshot",
     .help = "Take a snapshot of the present first, and print its name"},
    ROW_QUIET,
    CMD_COMMON_ROWS(struct snapshot_values),
};

static const struct opt_def delete_opts[] = {
    ROW_QUIET,
    CMD_COMMON_ROWS(struct snapshot_values),
};

static const struct opt_def rename_opts[] = {
    ROW_DESCRIPTION,
    CMD_COMMON_ROWS(struct snapshot_values),
};

static const struct opt_def snapshot_opts[] = {
    CMD_COMMON_ROWS(struct snapshot_values),
};
/* clang-format on */

static const struct cmd cmd_snapshot_create = {
    .path = "snapshot create",
    .operands = "NAME[/SNAPSHOT]",
    .summary = "take a snapshot of an instance",
    .description =
        "Take a snapshot: the disks and the configuration as they are now and, if it runs, its memory and devices, "
        "which are saved while it goes on. Later snapshots become this one's children.\n\n"
        "Without a name it is called snap1, snap2..., and printed.",
    .opts = create_opts,
    .values_size = sizeof(struct snapshot_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_create,
};

static const struct cmd cmd_snapshot_restore = {
    .path = "snapshot restore",
    .operands = "NAME/SNAPSHOT",
    .summary = "go back to a snapshot",
    .description =
        "Go back to what the instance was at a snapshot: its configuration, its disks and, if they were saved, its "
        "memory and devices. What was done since its last snapshot is lost, unless --keep takes another one first; all "
        "snapshots stay.\n\n"
        "One that runs is replaced, and runs afterwards; one that does not goes on from the snapshot when it is started.",
    .opts = restore_opts,
    .values_size = sizeof(struct snapshot_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_restore,
};

static const struct cmd cmd_snapshot_delete = {
    .path = "snapshot delete",
    .operands = "NAME/SNAPSHOT",
    .summary = "delete a snapshot",
    .description =
        "Delete a snapshot, wherever in the tree it is; nothing else changes, and its children become its parent's. What "
        "others need of its disks is merged into them: of an instance that runs in the background, else before this "
        "command returns. That may be interrupted at any time, and goes on later.\n\n"
        "A snapshot that a linked copy lies on is refused.",
    .opts = delete_opts,
    .values_size = sizeof(struct snapshot_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_delete,
};

static const struct cmd cmd_snapshot_rename = {
    .path = "snapshot rename",
    .operands = "NAME/SNAPSHOT [NEW]",
    .summary = "give a snapshot another name or description",
    .description = "Give a snapshot another name, or another description, or both.",
    .opts = rename_opts,
    .values_size = sizeof(struct snapshot_values),
    .min_operands = 1,
    .max_operands = 2,
    .run = run_rename,
};

static const struct cmd *const snapshot_subs[] = {
    &cmd_snapshot_create,
    &cmd_snapshot_list,
    &cmd_snapshot_info,
    &cmd_snapshot_restore,
    &cmd_snapshot_delete,
    &cmd_snapshot_rename,
    NULL,
};

const struct cmd cmd_snapshot = {
    .path = "snapshot",
    .operands = "COMMAND",
    .summary = "take, list, restore and delete snapshots of instances",
    .description =
        "Snapshots keep what an instance was at a moment. They form a tree: what was restored goes on "
        "from there, beside what came after it.",
    .opts = snapshot_opts,
    .values_size = sizeof(struct snapshot_values),
    .subs = snapshot_subs,
    .run = run_snapshot,
};
