/* posada disk bench */
#include "cli/disk.h"

#include "base/fd.h"

#include <errno.h>
#include <inttypes.h>

/* clang-format off */
static const struct opt_def bench_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    {.name = "count",
     .short_name = 'c',
     OPT_INTO_INT(struct disk_values, count),
     .arg = "N",
     .def = "75000",
     .min = 1,
     .max = 1LL << 40,
     .group = "Requests",
     .help = "So many"},
    {.name = "depth",
     .short_name = 'd',
     OPT_INTO_INT(struct disk_values, depth),
     .arg = "N",
     .def = "1",
     .min = 1,
     .max = 256,
     .group = "Requests",
     .help = "So many at a time, each by a thread of its own"},
    {.name = "buffer-size",
     .short_name = 's',
     OPT_INTO_SIZE(struct disk_values, size),
     .arg = "SIZE",
     .def = "4K",
     .min = 1,
     .max = 64LL << 20,
     .group = "Requests",
     .help = "Bytes of each"},
    {.name = "step-size",
     .short_name = 'S',
     OPT_INTO_SIZE(struct disk_values, step),
     .arg = "SIZE",
     .group = "Requests",
     .help = "From one to the next. Default: as many as each has bytes"},
    {.name = "offset",
     .short_name = 'o',
     OPT_INTO_SIZE(struct disk_values, offset),
     .arg = "OFFSET",
     .group = "Requests",
     .help = "Of the first. Default: 0"},
    {.name = "random",
     OPT_INTO_FLAG(struct disk_values, strict),
     .group = "Requests",
     .help = "In random order"},
    {.name = "write",
     .short_name = 'w',
     OPT_INTO_FLAG(struct disk_values, write),
     .group = "Requests",
     .help = "Write a pattern: what the disk held is lost"},
    {.name = "flush-interval",
     OPT_INTO_INT(struct disk_values, flush_interval),
     .arg = "N",
     .def = "0",
     .min = 0,
     .max = 1LL << 40,
     .group = "Requests",
     .help = "Flush after so many writes; 0: at the end only"},
    {.name = "snapshot",
     OPT_INTO_FLAG(struct disk_values, shrink),
     .group = "Image",
     .help = "Write to a temporary overlay, which is given up at the end"},
    DISK_ROW_CACHE,
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    DISK_ROW_SHARE,
    DISK_ROWS_JSON,
    CMD_COMMON_ROWS(struct disk_values),
};
/* clang-format on */

static void print_result(const struct disk_values *v, const struct disk_bench_result *r)
{
    double n = (double)r->requests;
    double rate = r->seconds > 0 ? n / r->seconds : 0;
    double cpu_us = (r->user_seconds + r->system_seconds) * 1e6 / n;

    if (disk_cli_wants_json(v)) {
        disk_cli_print_json(json_pack(
            "{s:I, s:f, s:f, s:f, s:f, s:f}", "requests", (json_int_t)r->requests, "seconds",
            r->seconds, "user-seconds", r->user_seconds, "system-seconds", r->system_seconds,
            "requests-per-second", rate, "cpu-us-per-request", cpu_us));
        return;
    }
    (void)printf("%" PRIu64 " requests in %.3f s: %.0f/s, %.1f MiB/s\n", r->requests, r->seconds,
                 rate, rate * (double)v->size / (1 << 20));
    (void)printf("CPU of a request: %.2f us (user %.3f s, system %.3f s in all)\n", cpu_us,
                 r->user_seconds, r->system_seconds);
}

static int run_bench(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    struct disk_bench bench = {
        .count = (uint64_t)v->count,
        .size_bytes = v->size,
        .offset = v->offset,
        .step_bytes = v->step,
        .depth = (unsigned)v->depth,
        .write = v->write,
        .random = v->strict,
        .flush_interval = (uint64_t)v->flush_interval,
    };
    unsigned flags = (v->write ? 0 : DISK_READONLY) | (v->shrink ? DISK_SNAPSHOT : 0);
    struct disk_bench_result result;
    struct disk *d = NULL;
    struct error err = {0};
    int rc = disk_cli_open(v, args->v[0], v->format, flags, disk_cli_is_direct(v->cache), &d, &err);

    if (!rc)
        rc = disk_bench(d, &bench, &result, &err);
    disk_close(d);
    if (rc)
        return cmd_fail(cmd, CLI_ERROR, &err);
    print_result(v, &result);
    return CLI_OK;
}

const struct cmd cmd_disk_bench = {
    .path = "disk bench",
    .operands = "FILE",
    .summary = "time requests to a disk",
    .description =
        "Read from a disk, or write to it, and print requests per second and the CPU time of each.",
    .opts = bench_opts,
    .values_size = sizeof(struct disk_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_bench,
};
