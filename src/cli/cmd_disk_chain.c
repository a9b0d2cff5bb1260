/* posada disk rebase, commit, merge, compact: what images of a chain hold, moved or given up. */
#include "cli/disk.h"

#include "base/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define COMMON_ROWS                                                                   \
    DISK_ROW_THREADS, DISK_ROW_CACHE, DISK_ROW_REFS, DISK_ROW_KEY, DISK_ROW_PROGRESS, \
        DISK_ROW_QUIET, CMD_COMMON_ROWS(struct disk_values)

/* clang-format off */
static const struct opt_def rebase_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    {.name = "backing",
     .short_name = 'b',
     OPT_INTO_STRING(struct disk_values, backing),
     .arg = "FILE",
     .group = "Work",
     .help = "The new backing image, as seen from FILE's folder; '' for none"},
    {.name = "backing-format",
     .short_name = 'F',
     OPT_INTO_STRING(struct disk_values, backing_format),
     .arg = "FORMAT",
     .group = "Work",
     .help = "Its format; it is never guessed"},
    {.name = "unsafe",
     .short_name = 'u',
     OPT_INTO_FLAG(struct disk_values, unsafe),
     .group = "Work",
     .help =
     "Write the name alone, for a backing image that was moved or renamed; neither is opened"},
    COMMON_ROWS,
};
/* clang-format on */

/* clang-format off */
static const struct opt_def commit_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    {.name = "base",
     .short_name = 'b',
     OPT_INTO_STRING(struct disk_values, backing),
     .arg = "FILE",
     .group = "Work",
     .help = "Into this one of the images below. Default: the one right below"},
    {.name = "keep",
     .short_name = 'd',
     OPT_INTO_FLAG(struct disk_values, drop),
     .group = "Work",
     .help = "Leave FILE as it is; else it is empty afterwards"},
    COMMON_ROWS,
};
/* clang-format on */

/* clang-format off */
static const struct opt_def merge_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    {.name = "into",
     OPT_INTO_STRING(struct disk_values, into),
     .arg = "FILE",
     .group = "Work",
     .help = "Downwards, into this one of the images below"},
    { .name = "base",
     .short_name = 'b',
     OPT_INTO_STRING(struct disk_values, backing),
     .arg = "FILE",
     .group = "Work",
     .help = "Upwards, but down to this one only, which stays the backing image"},
    { .name = "backing-format",
     .short_name = 'F',
     OPT_INTO_STRING(struct disk_values, backing_format),
     .arg = "FORMAT",
     .group = "Work",
     .help = "The format of --base"},
    COMMON_ROWS,
};
/* clang-format on */

/* clang-format off */
static const struct opt_def compact_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    COMMON_ROWS,
};
/* clang-format on */

static struct disk_options options_of(const struct disk_values *v)
{
    return disk_cli_options(v, v->format, disk_cli_is_direct(v->cache) ? (unsigned)DISK_DIRECT : 0);
}

static int rebase(const struct disk_values *v, const char *path, const char *backing,
                  const char *title, struct error *err)
{
    struct disk_options options = options_of(v);
    const struct disk_format *below = NULL;
    struct disk_rebase r = {
        .path = path,
        .options = &options,
        .unsafe = v->unsafe,
        .backing = backing && *backing ? backing : NULL,
    };
    struct disk_cli_job job;

    if (r.backing && !v->backing_format)
        return error_set(err, EINVAL, "the format of '%s' is needed: give it with -F", r.backing);
    int rc = r.backing ? disk_cli_format(v->backing_format, NULL, &below, err) : 0;
    if (rc)
        return rc;
    r.backing_format = below ? disk_format_name(below) : NULL;
    disk_cli_job_init(&job, v, title);
    rc = disk_rebase(&r, &job.job, err);
    disk_cli_job_done(&job);
    return rc;
}

static int commit(const struct disk_values *v, const char *path, const char *base, bool keep,
                  const char *title, struct error *err)
{
    struct disk_options options = options_of(v);
    struct disk_cli_job job;

    disk_cli_job_init(&job, v, title);
    int rc = disk_commit(path, &options, base, keep, &job.job, err);
    disk_cli_job_done(&job);
    return rc;
}

static int run_rebase(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    struct error err = {0};

    if (!v->backing)
        return cmd_usage(cmd, "-b is needed: the new backing image, or '' for none");
    if (rebase(v, args->v[0], v->backing, "rebased", &err))
        return cmd_fail(cmd, CLI_ERROR, &err);
    if (!v->quiet)
        (void)printf("'%s' has %s%s\n", args->v[0],
                     *v->backing ? "now the backing image " : "no backing image any more",
                     v->backing);
    return CLI_OK;
}

static int run_commit(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    struct error err = {0};

    if (commit(v, args->v[0], v->backing, v->drop, "committed", &err))
        return cmd_fail(cmd, CLI_ERROR, &err);
    if (!v->quiet)
        (void)printf("what '%s' held is in %s%s\n", args->v[0],
                     v->backing ? v->backing : "its backing image",
                     v->drop ? "" : "; it is empty now");
    return CLI_OK;
}

static int run_merge(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    const char *path = args->v[0];
    struct error err = {0};
    int rc;

    if (v->into && v->backing)
        return cmd_usage(cmd, "--into and --base exclude each other");
    if (v->into)
        rc = commit(v, path, v->into, false, "merged", &err);
    else
        rc = rebase(v, path, v->backing, "merged", &err);
    if (rc)
        return cmd_fail(cmd, CLI_ERROR, &err);
    if (v->quiet)
        return CLI_OK;
    if (v->into)
        (void)printf("'%s' holds all of '%s' now, which is an empty image over it\n", v->into,
                     path);
    else
        (void)printf("'%s' needs %s\n", path,
                     v->backing ? "nothing of what was between" : "no other image any more");
    return CLI_OK;
}

static uint64_t space_of(const char *path)
{
    struct stat st;

    return stat(path, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static int run_compact(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    struct disk_options options = options_of(v);
    uint64_t before = space_of(args->v[0]);
    struct disk_cli_job job;
    struct error err = {0};
    char was[64];
    char is[64];

    disk_cli_job_init(&job, v, "compacted");
    int rc = disk_compact(args->v[0], &options, &job.job, &err);
    disk_cli_job_done(&job);
    if (rc)
        return cmd_fail(cmd, CLI_ERROR, &err);
    if (!v->quiet)
        (void)printf("'%s' takes %s; it was %s\n", args->v[0],
                     disk_cli_bytes(space_of(args->v[0]), is, sizeof(is)),
                     disk_cli_bytes(before, was, sizeof(was)));
    return CLI_OK;
}

const struct cmd cmd_disk_rebase = {
    .path = "disk rebase",
    .operands = "FILE",
    .summary = "put an overlay over another backing image",
    .description =
        "Give FILE another backing image. FILE shows afterwards what it showed before: where the two backing "
        "images differ, what is needed is copied into FILE first. With -u the name alone is written.\n\n"
        "  posada disk rebase -b new-base.qcow2 -F qcow2 overlay.qcow2\n"
        "  posada disk rebase -b '' overlay.qcow2",
    .opts = rebase_opts,
    .values_size = sizeof(struct disk_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_rebase,
};

const struct cmd cmd_disk_commit = {
    .path = "disk commit",
    .operands = "FILE",
    .summary = "write an overlay's changes into its backing image",
    .description =
        "Write what FILE holds into its backing image, then empty FILE. With -b, into a lower image of the chain: "
        "then FILE lies directly over that one, and the images between are of no more use. Other overlays of the "
        "backing image show something else afterwards.",
    .opts = commit_opts,
    .values_size = sizeof(struct disk_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_commit,
};

const struct cmd cmd_disk_merge = {
    .path = "disk merge",
    .operands = "FILE",
    .summary = "make a chain of images shorter",
    .description =
        "Without --into, upwards: FILE takes in what the images below it hold, down to --base or all of them. "
        "They stay as they are, and other overlays of them are not touched.\n\n"
        "With --into, downwards: that image takes in what FILE and the images between hold, and shows afterwards what "
        "FILE showed. FILE stays as an empty overlay of it; what was between may be removed.\n\n"
        "  posada disk merge overlay.qcow2\n"
        "  posada disk merge top.qcow2 --base base.qcow2 -F qcow2\n"
        "  posada disk merge top.qcow2 --into base.qcow2",
    .opts = merge_opts,
    .values_size = sizeof(struct disk_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_merge,
};

const struct cmd cmd_disk_compact = {
    .path = "disk compact",
    .operands = "FILE",
    .summary = "give back the space that an image does not need",
    .description =
        "Rewrite an image without lost clusters, clusters of zeroes, and those that show the same as the image "
        "below. What was compressed stays so. The new image takes the place of the old one when it is whole, so "
        "there must be space for both.",
    .opts = compact_opts,
    .values_size = sizeof(struct disk_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_compact,
};
