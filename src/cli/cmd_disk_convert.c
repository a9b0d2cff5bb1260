/* posada disk convert */
#include "cli/disk.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <string.h>

#define SOURCES_MAX 64

#define ROW_CACHE                                                                             \
    {                                                                                         \
        .name = "cache", .short_name = 't', OPT_INTO_CHOICE(struct disk_values, cache),       \
        .arg = "CACHE", .choices = "auto writeback none", .def = "auto", .group = "Image",    \
        .help = "Write TARGET through the host's page cache, past it (none), or as is faster" \
    }

/* clang-format off */
static const struct opt_def convert_opts[] = {
    DISK_ROW_FORMAT("Format of SOURCE. Default: by the file's beginning, else raw"),
    {.name = "output-format",
     .short_name = 'O',
     OPT_INTO_STRING(struct disk_values, output_format),
     .arg = "FORMAT",
     .group = "New image",
     .help = "Format of TARGET. Default: by the name's ending, else raw"},
    DISK_ROW_OPTIONS,
    {.name = "compress",
     .short_name = 'c',
     OPT_INTO_FLAG(struct disk_values, compress),
     .group = "New image",
     .help = "Compress it, in parallel"},
    {.name = "backing",
     .short_name = 'B',
     OPT_INTO_STRING(struct disk_values, backing),
     .arg = "FILE",
     .group = "New image",
     .help = "Make TARGET an overlay of FILE: only what differs from it is written"},
    {.name = "backing-format",
     .short_name = 'F',
     OPT_INTO_STRING(struct disk_values, backing_format),
     .arg = "FORMAT",
     .group = "New image",
     .help = "Format of the backing image; it is never guessed"},
    {.name = "sparse-size",
     .short_name = 'S',
     OPT_INTO_SIZE(struct disk_values, sparse),
     .arg = "SIZE",
     .def = "4K",
     .group = "New image",
     .help = "Zeroes of fewer bytes than this take space; 0: all do"},
    {.name = "force",
     OPT_INTO_FLAG(struct disk_values, force),
     .group = "New image",
     .help = "Replace a TARGET that nobody uses"},
    {.name = "no-create",
     .short_name = 'n',
     OPT_INTO_FLAG(struct disk_values, no_create),
     .group = "New image",
     .help = "Write into TARGET, an image or block device that is there and no smaller"},
    DISK_ROW_THREADS,
    {.name = "unordered",
     .short_name = 'W',
     OPT_INTO_FLAG(struct disk_values, unordered),
     .group = "Work",
     .help = "Accepted as by qemu-img; what is not compressed is written in any order always"},
    ROW_CACHE,
    DISK_ROW_SOURCE_CACHE,
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    DISK_ROW_SHARE,
    DISK_ROW_PROGRESS,
    DISK_ROW_QUIET,
    {.name = "json",
     OPT_INTO_FLAG(struct disk_values, json),
     .group = "Output",
     .help = "Print what was made as JSON: `target`, as `disk info --json` says it, and `seconds`"},
    CMD_COMMON_ROWS(struct disk_values),
};
/* clang-format on */

static enum disk_packing packing(const struct disk_values *v)
{
    return v->compress ? DISK_PACK_ALL : DISK_PACK_NONE;
}

/** Into an image that is there. */
static int convert_into(const struct disk_values *v, struct disk *source, const char *path,
                        const struct disk_job *job, struct error *err)
{
    struct disk *target = NULL;
    int rc =
        disk_cli_open(v, path, v->output_format, 0, disk_cli_is_direct(v->cache), &target, err);

    if (rc)
        return rc;
    struct disk_copy copy = {
        .source = source,
        .target = target,
        .packing = packing(v),
        .sparse_bytes = v->sparse,
    };
    rc = disk_copy(&copy, job, err);
    if (!rc) {
        rc = disk_flush(target);
        if (rc)
            (void)error_set(err, -rc, "cannot write '%s': %s", path, strerror(-rc));
    }
    disk_close(target);
    return rc;
}

static int convert_new(const struct disk_values *v, struct disk *source, const char *path,
                       const struct disk_format *format, const struct disk_cli_values *options,
                       const struct disk_job *job, struct error *err)
{
    struct disk_convert c = {
        .source = source,
        .path = path,
        .format = format,
        .create = {.size_bytes = source->size_bytes,
                   .values = options->v,
                   .key_file = v->key_file,
                   .force = v->force,
                   .backing_path = v->backing ? v->backing : options->backing,
                   .backing_format =
                       v->backing_format ? v->backing_format : options->backing_format},
        .packing = packing(v),
        .sparse_bytes = v->sparse,
        .cache = !strcmp(v->cache, "auto")   ? DISK_CACHE_AUTO
                 : !strcmp(v->cache, "none") ? DISK_CACHE_DIRECT
                                             : DISK_CACHE_WRITEBACK,
    };
    int rc = 0;

    if (c.create.backing_path) {
        rc = disk_cli_open_backing(v, path, c.create.backing_path, c.create.backing_format,
                                   &c.create.backing, err);
        if (!rc) /* one name, whatever the alias */
            c.create.backing_format = disk_format_name(c.create.backing->format);
    }
    if (!rc)
        rc = disk_convert(&c, job, err);
    disk_close(c.create.backing);
    return rc;
}

/** The disks of all operands but the last, as one. */
struct sources {
    struct disk *parts[SOURCES_MAX];
    unsigned count;
    struct disk *all; /* NULL while there is but one */
};

static void close_sources(struct sources *s)
{
    disk_close(s->all);
    while (s->count)
        disk_close(s->parts[--s->count]);
}

static int open_sources(const struct disk_values *v, const struct opt_args *args,
                        struct sources *ret, struct error *err)
{
    int rc = 0;

    for (size_t i = 0; !rc && i + 1 < args->n; i++) {
        rc = disk_cli_open(v, args->v[i], v->format, DISK_READONLY,
                           disk_cli_is_direct(v->source_cache), &ret->parts[ret->count], err);
        ret->count += !rc;
    }
    if (!rc && ret->count > 1)
        rc = disk_concat_new(ret->parts, ret->count, &ret->all, err);
    return rc;
}

static int print_result(const struct disk_values *v, const char *path, double seconds,
                        struct error *err)
{
    struct disk *d = NULL;
    json_t *target = NULL;
    int rc =
        disk_cli_open(v, path, v->output_format, DISK_READONLY | DISK_NO_BACKING, false, &d, err);

    if (!rc)
        rc = disk_cli_info_json(d, &target, err);
    if (!rc)
        disk_cli_print_json(json_pack("{s:o, s:f}", "target", target, "seconds", seconds));
    disk_close(d);
    return rc;
}

static int convert(const struct disk_values *v, const struct opt_args *args,
                   const struct disk_format *format, const struct disk_cli_values *options,
                   struct error *err)
{
    const char *target = args->v[args->n - 1];
    int64_t start_ns = host_now_ns();
    struct sources s = {.count = 0};
    struct disk_cli_job job;
    int rc = open_sources(v, args, &s, err);

    if (!rc) {
        struct disk *source = s.all ? s.all : s.parts[0];

        disk_cli_job_init(&job, v, "converted");
        rc = v->no_create ? convert_into(v, source, target, &job.job, err)
                          : convert_new(v, source, target, format, options, &job.job, err);
        disk_cli_job_done(&job);
    }
    close_sources(&s);
    if (!rc && v->json)
        rc = print_result(v, target, (double)(host_now_ns() - start_ns) / 1e9, err);
    return rc;
}

static int run_convert(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    const struct disk_format *format = NULL;
    struct disk_cli_values options;
    struct error err = {0};
    const char *target = args->n > 1 ? args->v[args->n - 1] : NULL;
    int rc = disk_cli_format(v->output_format, target, &format, &err);

    if (rc)
        return cmd_fail(cmd, CLI_USAGE, &err);
    if (disk_cli_print_options(v, format))
        return CLI_OK;
    if (args->n < 2)
        return cmd_usage(cmd, "operands are missing: SOURCE... TARGET");
    if (v->no_create && (v->options.n || v->backing || v->force))
        return cmd_usage(cmd, "--no-create excludes what is for a new image: -o, -B, --force");
    rc = disk_cli_values_init(&options, &v->options, &err);
    if (rc)
        return cmd_fail(cmd, CLI_USAGE, &err);
    if (args->n > 2 && (v->backing || options.backing)) {
        disk_cli_values_done(&options);
        return cmd_usage(cmd, "an overlay is made of one SOURCE");
    }
    rc = convert(v, args, format, &options, &err);
    disk_cli_values_done(&options);
    return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

const struct cmd cmd_disk_convert = {
    .path = "disk convert",
    .operands = "SOURCE... TARGET",
    .summary = "copy a disk into another format",
    .description =
        "Copy what SOURCE shows, with all images below it, into a new image TARGET. Zeroes take no space where "
        "the format allows that. TARGET gets its name when it is whole: a failure, or Ctrl-C, leaves nothing. "
        "Several sources become one disk, one behind the other.\n\n"
        "  posada disk convert disk.vmdk disk.qcow2\n"
        "  posada disk convert -c -o compression_type=zstd disk.raw disk.qcow2\n"
        "  posada disk convert -B base.qcow2 -F qcow2 full.raw overlay.qcow2",
    .opts = convert_opts,
    .values_size = sizeof(struct disk_values),
    .max_operands = SOURCES_MAX + 1,
    .run = run_convert,
};
