/* posada disk compare */
#include "cli/disk.h"

#include <inttypes.h>

enum { STATUS_DIFFERENT = 1, STATUS_FAILED = 2 };

/* clang-format off */
static const struct opt_def compare_opts[] = {
    DISK_ROW_FORMAT("Format of the first image. Default: by the file's beginning, else raw"),
    {.name = "second-format",
     .short_name = 'F',
     OPT_INTO_STRING(struct disk_values, second_format),
     .arg = "FORMAT",
     .group = "Image",
     .help = "Format of the second image"},
    {.name = "strict",
     .short_name = 's',
     OPT_INTO_FLAG(struct disk_values, strict),
     .group = "Work",
     .help = "Disks of different sizes are different. Default: what is missing counts as zeroes"},
    DISK_ROW_THREADS,
    DISK_ROW_SOURCE_CACHE,
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    DISK_ROW_SHARE,
    DISK_ROWS_JSON,
    DISK_ROW_PROGRESS,
    DISK_ROW_QUIET,
    CMD_COMMON_ROWS(struct disk_values),
};
/* clang-format on */

static void print_outcome(const struct disk_values *v, bool equal, bool sizes_differ, uint64_t at)
{
    if (disk_cli_wants_json(v)) {
        json_t *j = json_pack("{s:b}", "equal", equal);

        if (!equal && !sizes_differ)
            (void)json_object_set_new(j, "offset", json_integer((json_int_t)at));
        disk_cli_print_json(j);
    } else if (v->quiet) {
        return;
    } else if (equal) {
        (void)printf("the disks are equal\n");
    } else if (sizes_differ) {
        (void)printf("the disks differ in size\n");
    } else {
        (void)printf("the disks differ at offset %" PRIu64 "\n", at);
    }
}

static int compare(const struct disk_values *v, struct disk *a, struct disk *b, bool *ret_equal,
                   struct error *err)
{
    bool sizes_differ = v->strict && a->size_bytes != b->size_bytes;
    struct disk_cli_job job;
    uint64_t at = 0;
    int rc = 0;

    *ret_equal = false;
    if (!sizes_differ) {
        disk_cli_job_init(&job, v, "compared");
        rc = disk_compare(a, b, &job.job, ret_equal, &at, err);
        disk_cli_job_done(&job);
    }
    if (!rc)
        print_outcome(v, *ret_equal, sizes_differ, at);
    return rc;
}

static int run_compare(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    bool direct = disk_cli_is_direct(v->source_cache);
    struct disk *a = NULL;
    struct disk *b = NULL;
    bool equal = false;
    struct error err = {0};
    int rc = disk_cli_open(v, args->v[0], v->format, DISK_READONLY, direct, &a, &err);

    if (!rc)
        rc = disk_cli_open(v, args->v[1], v->second_format, DISK_READONLY, direct, &b, &err);
    if (!rc)
        rc = compare(v, a, b, &equal, &err);
    disk_close(a);
    disk_close(b);
    if (rc)
        return cmd_fail(cmd, STATUS_FAILED, &err);
    return equal ? CLI_OK : STATUS_DIFFERENT;
}

static const struct cmd_section compare_sections[] = {
    {"Exit status", "  0    the disks show the same\n"
                    "  1    they differ\n"
                    "  2    they could not be compared, or the command line is wrong"},
    {0            },
};

const struct cmd cmd_disk_compare = {
    .path = "disk compare",
    .operands = "FILE FILE",
    .summary = "do two disks show the same?",
    .description = "Compare what guests would read from two disks, whatever their formats.",
    .opts = compare_opts,
    .values_size = sizeof(struct disk_values),
    .sections = compare_sections,
    .min_operands = 2,
    .max_operands = 2,
    .run = run_compare,
};
