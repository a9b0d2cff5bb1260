/* posada disk measure */
#include "cli/disk.h"

#include "base/fd.h"

#include <errno.h>
#include <inttypes.h>

/* clang-format off */
static const struct opt_def measure_opts[] = {
    DISK_ROW_FORMAT("Format of SOURCE. Default: by the file's beginning, else raw"),
    {.name = "output-format",
     .short_name = 'O',
     OPT_INTO_STRING(struct disk_values, output_format),
     .arg = "FORMAT",
     .def = "raw",
     .group = "New image",
     .help = "Format of the image to be"},
    DISK_ROW_OPTIONS,
    {.name = "size",
     .short_name = 's',
     OPT_INTO_SIZE(struct disk_values, size),
     .arg = "SIZE",
     .group = "New image",
     .help = "For an empty disk of this size, without a SOURCE"},
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    DISK_ROW_SHARE,
    DISK_ROWS_JSON,
    CMD_COMMON_ROWS(struct disk_values),
};
/* clang-format on */

static int measure(const struct disk_values *v, const char *path, const struct disk_format *format,
                   const struct disk_cli_values *options, struct error *err)
{
    struct disk_create create = {.values = options->v, .size_bytes = (v->size + 511) / 512 * 512};
    struct disk *source = NULL;
    uint64_t required = 0;
    uint64_t full = 0;
    char text[64];
    int rc = path ? disk_cli_open(v, path, v->format, DISK_READONLY, false, &source, err) : 0;

    if (!rc) {
        if (source)
            create.size_bytes = source->size_bytes;
        rc = disk_measure(format, &create, source, &required, &full, err);
    }
    disk_close(source);
    if (rc)
        return rc;
    if (disk_cli_wants_json(v)) {
        disk_cli_print_json(json_pack("{s:I, s:I}", "required", (json_int_t)required,
                                      "fully-allocated", (json_int_t)full));
    } else {
        (void)printf("required: %s\n", disk_cli_bytes(required, text, sizeof(text)));
        (void)printf("fully allocated: %s\n", disk_cli_bytes(full, text, sizeof(text)));
    }
    return 0;
}

static int run_measure(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    const struct disk_format *format = NULL;
    struct disk_cli_values options;
    struct error err = {0};
    int rc = disk_cli_format(v->output_format, NULL, &format, &err);

    if (rc)
        return cmd_fail(cmd, CLI_USAGE, &err);
    if (disk_cli_print_options(v, format))
        return CLI_OK;
    if (!args->n == !v->size)
        return cmd_usage(cmd, "a SOURCE or --size is needed, and not both");
    rc = disk_cli_values_init(&options, &v->options, &err);
    if (rc)
        return cmd_fail(cmd, CLI_USAGE, &err);
    rc = measure(v, args->n ? args->v[0] : NULL, format, &options, &err);
    disk_cli_values_done(&options);
    return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

const struct cmd cmd_disk_measure = {
    .path = "disk measure",
    .operands = "[SOURCE]",
    .summary = "what space an image would take",
    .description =
        "Print how many bytes an image of what SOURCE shows would take when it is made by 'posada disk "
        "convert', and how many once its guest has written all of it.",
    .opts = measure_opts,
    .values_size = sizeof(struct disk_values),
    .max_operands = 1,
    .run = run_measure,
};
