/* posada disk check */
#include "cli/disk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { STATUS_CORRUPT = 2, STATUS_LEAKS = 3, STATUS_CANNOT = 63, FINDINGS_MAX = 50 };

/* clang-format off */
static const struct opt_def check_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    {.name = "repair",
     .short_name = 'r',
     OPT_INTO_CHOICE(struct disk_values, repair),
     .arg = "WHAT", .choices = "leaks all",
     .group = "Work",
     .help =
     "Give back space that is lost (leaks), or mend all that can be. Without it, nothing is written"},
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    DISK_ROW_SHARE,
    DISK_ROWS_JSON,
    DISK_ROW_QUIET,
    CMD_COMMON_ROWS(struct disk_values),
};
/* clang-format on */

struct findings {
    unsigned shown;
    bool quiet;
};

static void report(void *arg, const char *text)
{
    struct findings *f = arg;

    if (!f->quiet && f->shown < FINDINGS_MAX)
        (void)fprintf(stderr, "%s\n", text);
    else if (!f->quiet && f->shown == FINDINGS_MAX)
        (void)fprintf(stderr, "...and more\n");
    f->shown++;
}

static void print_json(const struct disk *d, const struct disk_check *c)
{
    disk_cli_print_json(json_pack(
        "{s:o, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "filename",
        disk_cli_json_text(d->path), "format", disk_format_name(d->format), "check-errors", 0,
        "corruptions", (json_int_t)(c->errors - c->errors_fixed), "leaks",
        (json_int_t)(c->leaks - c->leaks_fixed), "corruptions-fixed", (json_int_t)c->errors_fixed,
        "leaks-fixed", (json_int_t)c->leaks_fixed, "total-clusters", (json_int_t)c->clusters,
        "allocated-clusters", (json_int_t)c->allocated, "fragmented-clusters",
        (json_int_t)c->fragmented, "compressed-clusters", (json_int_t)c->packed, "image-end-offset",
        (json_int_t)c->end_bytes));
}

static void print_text(const struct disk_check *c)
{
    if (c->errors)
        (void)printf("%" PRIu64 " errors, %" PRIu64 " of them mended\n", c->errors,
                     c->errors_fixed);
    if (c->leaks)
        (void)printf("%" PRIu64 " leaked clusters, %" PRIu64
                     " of them given back; leaks waste space and do no harm\n",
                     c->leaks, c->leaks_fixed);
    if (!c->errors && !c->leaks)
        (void)printf("no errors were found\n");
    if (c->clusters)
        (void)printf("%" PRIu64 " of %" PRIu64 " clusters in use (%.1f%%), %" PRIu64
                     " compressed, %" PRIu64 " fragmented\n",
                     c->allocated, c->clusters, 100.0 * (double)c->allocated / (double)c->clusters,
                     c->packed, c->fragmented);
    if (c->end_bytes)
        (void)printf("image ends at %" PRIu64 "\n", c->end_bytes);
}

static int run_check(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    struct findings findings = {.quiet = v->quiet};
    struct disk_check check = {.report = report, .arg = &findings};
    unsigned repair = !v->repair                    ? 0
                      : !strcmp(v->repair, "leaks") ? DISK_REPAIR_LEAKS
                                                    : DISK_REPAIR_LEAKS | DISK_REPAIR_ALL;
    unsigned flags = DISK_CHECK | DISK_NO_BACKING | (repair ? 0 : DISK_READONLY);
    struct disk *d = NULL;
    struct error err = {0};
    int rc = disk_cli_open(v, args->v[0], v->format, flags, false, &d, &err);

    if (!rc)
        rc = disk_check(d, repair, &check, &err);
    if (!rc && disk_cli_wants_json(v))
        print_json(d, &check);
    else if (!rc && !v->quiet)
        print_text(&check);
    disk_close(d);
    if (rc)
        return cmd_fail(cmd, rc == -ENOTSUP ? STATUS_CANNOT : CLI_ERROR, &err);
    if (check.errors > check.errors_fixed)
        return STATUS_CORRUPT;
    return check.leaks > check.leaks_fixed ? STATUS_LEAKS : CLI_OK;
}

static const struct cmd_section check_sections[] = {
    {"Exit status", "  0    nothing is wrong, or all of it was mended\n"
                    "  2    errors are left, or the command line is wrong\n"
                    "  3    leaks are left, but no errors\n"
                    "  63   images of this format have nothing to check\n"
                    "  125  the check could not be made"},
    {0            },
};

const struct cmd cmd_disk_check = {
    .path = "disk check",
    .operands = "FILE",
    .summary = "find and mend what is wrong with an image",
    .description =
        "Check that an image's own tables are consistent; what its guest wrote is not looked at. "
        "Images below it are not checked: name each.",
    .opts = check_opts,
    .values_size = sizeof(struct disk_values),
    .sections = check_sections,
    .min_operands = 1,
    .max_operands = 1,
    .run = run_check,
};
