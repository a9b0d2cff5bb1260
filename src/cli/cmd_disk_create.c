/* posada disk create */
#include "cli/disk.h"

#include "base/fd.h"

#include <errno.h>
#include <string.h>

/* clang-format off */
static const struct opt_def create_opts[] = {
    DISK_ROW_FORMAT("Format of the new image. Default: by the name's ending, else raw"),
    DISK_ROW_OPTIONS,
    DISK_ROWS_BACKING,
    {.name = "unsafe",
     .short_name = 'u',
     OPT_INTO_FLAG(struct disk_values, unsafe),
     .group = "New image",
     .help = "Do not open the backing image; SIZE is needed then"},
    {.name = "force",
     OPT_INTO_FLAG(struct disk_values, force),
     .group = "New image",
     .help = "Replace an image of that name that nobody uses"},
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    DISK_ROW_QUIET,
    CMD_COMMON_ROWS(struct disk_values),
};
/* clang-format on */

/** The virtual size: as given, else the backing image's. */
static int find_size(const struct opt_args *args, const struct disk *backing, uint64_t *ret,
                     struct error *err)
{
    if (args->n < 2) {
        if (!backing)
            return error_set(err, EINVAL, "a SIZE is needed, such as 10G");
        *ret = backing->size_bytes;
        return 0;
    }
    if (opt_parse_size(args->v[1], ret) || !*ret)
        return error_set(err, EINVAL, "expected a size such as 512M or 10G, not '%s'", args->v[1]);
    *ret = (*ret + 511) / 512 * 512;
    return 0;
}

static int create(const struct disk_values *v, const struct opt_args *args,
                  const struct disk_format *format, const struct disk_cli_values *options,
                  struct error *err)
{
    const char *path = args->v[0];
    struct disk *backing = NULL;
    struct disk_create c = {
        .values = options->v,
        .key_file = v->key_file,
        .force = v->force,
        .backing_path = v->backing ? v->backing : options->backing,
        .backing_format = v->backing_format ? v->backing_format : options->backing_format,
    };
    const struct disk_format *below = NULL;
    int rc = 0;

    if (c.backing_format && !c.backing_path)
        rc = error_set(err, EINVAL, "-F names the format of a backing image: give it with -b");
    if (!rc && c.backing_path && !c.backing_format)
        rc = error_set(err, EINVAL, "the format of backing image '%s' is needed: give it with -F",
                       c.backing_path);
    if (!rc && c.backing_path) {
        rc = disk_cli_format(c.backing_format, NULL, &below, err);
        c.backing_format = rc ? NULL : disk_format_name(below); /* one name, whatever the alias */
    }
    if (!rc && c.backing_path && !v->unsafe)
        rc = disk_cli_open_backing(v, path, c.backing_path, c.backing_format, &backing, err);
    c.backing = backing;
    if (!rc)
        rc = find_size(args, backing, &c.size_bytes, err);
    if (!rc)
        rc = disk_create(path, format, &c, err);
    disk_close(backing);
    if (!rc && !v->quiet) {
        char text[64];

        (void)printf("'%s': %s, %s\n", path, disk_format_title(format),
                     disk_cli_bytes(c.size_bytes, text, sizeof(text)));
    }
    return rc;
}

static int run_create(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    const struct disk_format *format = NULL;
    struct disk_cli_values options;
    struct error err = {0};
    int rc = disk_cli_format(v->format, args->n ? args->v[0] : NULL, &format, &err);

    if (rc)
        return cmd_fail(cmd, CLI_USAGE, &err);
    if (disk_cli_print_options(v, format))
        return CLI_OK;
    if (!args->n)
        return cmd_usage(cmd, "an operand is missing: FILE");
    rc = disk_cli_values_init(&options, &v->options, &err);
    if (rc)
        return cmd_fail(cmd, CLI_USAGE, &err);
    rc = create(v, args, format, &options, &err);
    disk_cli_values_done(&options);
    return rc ? cmd_fail(cmd, rc == -EINVAL ? CLI_USAGE : CLI_ERROR, &err) : CLI_OK;
}

const struct cmd cmd_disk_create = {
    .path = "disk create",
    .operands = "FILE [SIZE]",
    .summary = "make an empty disk",
    .description =
        "Make an empty disk of SIZE bytes (K, M, G, T are powers of 1024), or one that shows a backing image "
        "until it is written to.\n\n"
        "  posada disk create disk.qcow2 10G\n"
        "  posada disk create -b base.qcow2 -F qcow2 overlay.qcow2\n"
        "  posada disk create -f vmdk -o help",
    .opts = create_opts,
    .values_size = sizeof(struct disk_values),
    .max_operands = 2,
    .run = run_create,
};
