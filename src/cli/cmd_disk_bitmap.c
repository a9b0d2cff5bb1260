/* posada disk bitmap */
#include "cli/disk.h"

#include "base/fd.h"

#include <errno.h>
#include <string.h>

#define ACTION_ROW(name_, text)                                                                 \
    {                                                                                           \
        .name = #name_, OPT_INTO_FLAG(struct disk_values, name_), .group = "Work", .help = text \
    }

/* clang-format off */
static const struct opt_def bitmap_opts[] = {
    ACTION_ROW(add, "Make it; it records what is written from now on"),
    ACTION_ROW(remove, "Remove it"),
    ACTION_ROW(clear, "Forget what it has recorded"),
    ACTION_ROW(enable, "Let it record from now on"),
    ACTION_ROW(disable, "Let it record nothing from now on"),
    {.name = "merge",
     OPT_INTO_STRING(struct disk_values, merge),
     .arg = "BITMAP",
     .group = "Work",
     .help = "Add what that one has recorded"},
    { .name = "granularity",
     .short_name = 'g',
     OPT_INTO_SIZE(struct disk_values, granularity),
     .arg = "SIZE",
     .min = 512,
     .max = 1LL << 31,
     .group = "Work",
     .help = "With --add: so many bytes for each bit, a power of two. Default: 64K"},
    {                            .name = "source-file",
     .short_name = 'b',
     OPT_INTO_STRING(struct disk_values, source),
     .arg = "FILE",
     .group = "Work",
     .help = "The image that has the bitmap of --merge. Default: FILE"},
    {                            .name = "source-format",
     .short_name = 'F',
     OPT_INTO_STRING(struct disk_values, second_format),
     .arg = "FORMAT",
     .group = "Work",
     .help = "Format of that image"},
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    CMD_COMMON_ROWS(struct disk_values),
};
/* clang-format on */

static int act(const struct disk_values *v, struct disk *d, struct disk *source, const char *name,
               struct error *err)
{
    const struct {
        bool wanted;
        enum disk_bitmap_action action;
    } actions[] = {
        {v->add,           DISK_BITMAP_ADD    },
        {v->clear,         DISK_BITMAP_CLEAR  },
        {v->merge != NULL, DISK_BITMAP_MERGE  },
        {v->enable,        DISK_BITMAP_ENABLE },
        {v->disable,       DISK_BITMAP_DISABLE},
        {v->remove,        DISK_BITMAP_REMOVE },
    };
    int rc = 0;

    for (size_t i = 0; !rc && i < ARRAY_SIZE(actions); i++) {
        if (actions[i].wanted)
            rc = disk_bitmap(d, actions[i].action, name, v->granularity, source ? source : d,
                             v->merge, err);
    }
    if (!rc) {
        rc = disk_flush(d);
        if (rc)
            (void)error_set(err, -rc, "cannot write '%s': %s", d->path, strerror(-rc));
    }
    return rc;
}

static int run_bitmap(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    struct disk *source = NULL;
    struct disk *d = NULL;
    struct error err = {0};

    if (!v->add && !v->remove && !v->clear && !v->enable && !v->disable && !v->merge)
        return cmd_usage(cmd, "one of --add, --remove, --clear, --enable, --disable, --merge is "
                              "needed");
    if (v->enable && v->disable)
        return cmd_usage(cmd, "--enable and --disable exclude each other");
    if (v->granularity && !v->add)
        return cmd_usage(cmd, "--granularity is for --add");
    if (v->source && !v->merge)
        return cmd_usage(cmd, "--source-file is for --merge");
    int rc = disk_cli_open(v, args->v[0], v->format, DISK_NO_BACKING, false, &d, &err);
    if (!rc && v->source)
        rc = disk_cli_open(v, v->source, v->second_format, DISK_READONLY | DISK_NO_BACKING, false,
                           &source, &err);
    if (!rc)
        rc = act(v, d, source, args->v[1], &err);
    disk_close(source);
    disk_close(d);
    return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

const struct cmd cmd_disk_bitmap = {
    .path = "disk bitmap",
    .operands = "FILE BITMAP",
    .summary = "manage records of what was written",
    .description =
        "A QCOW2 image can hold bitmaps that record which parts of the disk were written since, for incremental "
        "backups. Several actions are done in the order add, clear, merge, enable or disable, remove.",
    .opts = bitmap_opts,
    .values_size = sizeof(struct disk_values),
    .min_operands = 2,
    .max_operands = 2,
    .run = run_bitmap,
};
