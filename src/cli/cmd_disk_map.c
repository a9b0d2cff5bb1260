/* posada disk map */
#include "cli/disk.h"

#include "disk/file.h"

#include <inttypes.h>
#include <string.h>

/* clang-format off */
static const struct opt_def map_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    {.name = "start-offset",
     .short_name = 's',
     OPT_INTO_SIZE(struct disk_values, offset),
     .arg = "OFFSET",
     .group = "Range",
     .help = "From there. Default: the beginning"},
    {.name = "max-length",
     .short_name = 'l',
     OPT_INTO_SIZE(struct disk_values, size),
     .arg = "SIZE",
     .group = "Range",
     .help = "So many bytes. Default: to the end"},
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    DISK_ROW_SHARE,
    DISK_ROWS_JSON,
    CMD_COMMON_ROWS(struct disk_values),
};
/* clang-format on */

struct run_of {
    uint64_t start;
    struct disk_extent e;
};

/** Does @next go on where @r ends, with the same? */
static bool goes_on(const struct run_of *r, const struct disk_extent *next)
{
    if (r->e.kind != next->kind || r->e.depth != next->depth)
        return false;
    return r->e.kind != DISK_DATA ||
           (r->e.file == next->file && r->e.file_offset + r->e.size == next->file_offset);
}

static void print_run(const struct run_of *r, json_t *array)
{
    static const char *const names[] = {
        [DISK_ABSENT] = "absent",
        [DISK_ZERO] = "zero",
        [DISK_DATA] = "data",
        [DISK_PACKED] = "packed",
    };
    const struct disk_extent *e = &r->e;
    bool data = e->kind == DISK_DATA || e->kind == DISK_PACKED;

    if (array) {
        json_t *j = json_pack("{s:I, s:I, s:i, s:b, s:b, s:b, s:b}", "start", (json_int_t)r->start,
                              "length", (json_int_t)e->size, "depth", (int)e->depth, "present",
                              e->kind != DISK_ABSENT, "zero", !data, "data", data, "compressed",
                              e->kind == DISK_PACKED);

        if (e->kind == DISK_DATA && e->file) {
            (void)json_object_set_new(j, "offset", json_integer((json_int_t)e->file_offset));
            (void)json_object_set_new(j, "filename", disk_cli_json_text(e->file->path));
        }
        (void)json_array_append_new(array, j);
        return;
    }
    (void)printf("%#14" PRIx64 " %#14" PRIx64 "  %-6s %5u", r->start, e->size, names[e->kind],
                 e->depth);
    if (e->kind == DISK_DATA && e->file) {
        (void)printf("  %#14" PRIx64 "  ", e->file_offset);
        disk_cli_print_text(e->file->path);
    }
    (void)putchar('\n');
}

static int map(struct disk *d, uint64_t offset, uint64_t end, json_t *array, struct error *err)
{
    struct run_of r = {.start = offset};
    struct disk_extent e;

    if (!array)
        (void)printf("%14s %14s  %-6s %5s  %14s  %s\n", "START", "LENGTH", "KIND", "DEPTH",
                     "FILE OFFSET", "FILE");
    for (uint64_t at = offset; at < end; at += e.size) {
        int rc = disk_map(d, at, end - at, &e);

        if (rc)
            return error_set(err, -rc, "cannot read '%s' at offset %" PRIu64 ": %s", d->path, at,
                             strerror(-rc));
        if (r.e.size && goes_on(&r, &e)) {
            r.e.size += e.size;
            continue;
        }
        if (r.e.size)
            print_run(&r, array);
        r = (struct run_of){.start = at, .e = e};
    }
    if (r.e.size)
        print_run(&r, array);
    return 0;
}

static int run_map(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    json_t *array = disk_cli_wants_json(v) ? json_array() : NULL;
    struct disk *d = NULL;
    struct error err = {0};
    int rc = disk_cli_open(v, args->v[0], v->format, DISK_READONLY, false, &d, &err);

    if (!rc) {
        uint64_t start = MIN(v->offset, d->size_bytes);
        uint64_t left = d->size_bytes - start;

        rc = map(d, start, start + (v->size ? MIN(v->size, left) : left), array, &err);
    }
    if (array && !rc)
        disk_cli_print_json(json_incref(array));
    json_decref(array);
    disk_close(d);
    return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

const struct cmd cmd_disk_map = {
    .path = "disk map",
    .operands = "FILE",
    .summary = "where a disk's bytes are",
    .description =
        "Print which parts of a disk are data, zeroes or not there at all, in which image of its chain "
        "(depth 0 is the one that was named), and where in that image's file.",
    .opts = map_opts,
    .values_size = sizeof(struct disk_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_map,
};
