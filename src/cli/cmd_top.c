/* posada top: what running instances use, again and again. One thread. */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/opt.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct top_values {
    struct cmd_common common;
    int64_t interval_ms, count;
    bool json;
};

static double cpu_of(const json_t *s)
{
    return json_real_value(json_object_get(s, "cpu_seconds"));
}

/** The one with the same name and process in @all, or NULL. */
static const json_t *find_before(const json_t *all, const json_t *s)
{
    size_t i;
    json_t *other;

    json_array_foreach(all, i, other)
    {
        if (json_equal(json_object_get(other, "name"), json_object_get(s, "name")) &&
            json_equal(json_object_get(other, "pid"), json_object_get(s, "pid")))
            return other;
    }
    return NULL;
}

/** Take out who does not run, and say how much of a processor each of the rest had in @seconds. */
static void measure(json_t *all, const json_t *before, double seconds)
{
    for (size_t i = json_array_size(all); i-- > 0;) {
        json_t *s = json_array_get(all, i);
        const json_t *old = find_before(before, s);
        if (!json_object_get(s, "pid") || !json_object_get(s, "cpu_seconds")) {
            (void)json_array_remove(all, i);
            continue;
        }
        double percent = old && seconds > 0 ? 100 * (cpu_of(s) - cpu_of(old)) / seconds : 0;
        (void)json_object_set_new(s, "cpu_percent", json_real(percent > 0 ? percent : 0));
    }
}

static void print_table(const json_t *all)
{
    size_t i;
    json_t *s;
    char memory[32];

    (void)printf("%-24s %8s %-11s %4s %7s %10s %8s %8s\n", "NAME", "PID", "STATE", "CPUS", "%CPU",
                 "TIME", "MEMORY", "USED");
    json_array_foreach(all, i, s)
    {
        (void)opt_format_size((uint64_t)json_integer_value(json_object_get(s, "memory_bytes")),
                              memory, sizeof(memory));
        (void)printf("%-24s %8" PRId64 " %-11s %4" PRId64 " %7.1f %9.1fs %8s %7" PRId64 "M\n",
                     json_string_value(json_object_get(s, "name")),
                     (int64_t)json_integer_value(json_object_get(s, "pid")),
                     json_string_value(json_object_get(s, "state")),
                     (int64_t)json_integer_value(json_object_get(s, "cpus")),
                     json_real_value(json_object_get(s, "cpu_percent")), cpu_of(s), memory,
                     (int64_t)json_integer_value(json_object_get(s, "resident_bytes")) >> 20);
    }
}

static json_t *sample(struct error *err)
{
    char **names;
    size_t n;

    if (store_list(&names, &n, err))
        return NULL;
    json_t *all = remote_status(names, n, err);
    remote_free_names(names, n);
    return all;
}

static void pause_ms(int64_t ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};

    (void)nanosleep(&t, NULL); /* woken early by a signal: a shorter interval */
}

static int show(const struct top_values *v, struct error *err)
{
    bool live = isatty(STDOUT_FILENO) == 1 && !v->json;
    int64_t at_ns = host_now_ns();
    json_t *before = sample(err);

    for (int64_t i = 0; before && (!v->count || i < v->count) && !ferror(stdout); i++) {
        pause_ms(v->interval_ms);
        json_t *all = sample(err);
        int64_t now_ns = host_now_ns();
        if (!all)
            break;
        measure(all, before, (double)(now_ns - at_ns) / 1e9);
        if (live)
            (void)printf("\033[H\033[J"); /* top left, clear to the end */
        if (v->json)
            cmd_print_json(all);
        else
            print_table(all);
        (void)fflush(stdout);
        json_decref(before);
        before = all;
        at_ns = now_ns;
    }
    json_decref(before);
    return err->code ? -err->code : 0;
}

static int run_top(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct error err = {0};

    return show(values, &err) ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

static const struct opt_def top_opts[] = {
    {.name = "interval",
     .short_name = 'i',
     OPT_INTO_DURATION(struct top_values,    interval_ms),
     .arg = "TIME",
     .def = "2s",
     .min = 100,
     .max = 3600000,
     .group = "Output",
     .help = "How long to measure before each table"},
    {.name = "count",
     .short_name = 'n',
     OPT_INTO_INT(struct top_values,                      count),
     .arg = "N",
     .def = "0",
     .min = 0,
     .max = INT32_MAX,
     .group = "Output",
     .help = "End after N tables; 0: when it is interrupted"},
    {.name = "json",
     OPT_INTO_FLAG(struct top_values, json),
     .group = "Output",
     .help = "Print JSON: an array for each table"                                       },
    CMD_COMMON_ROWS(struct top_values),
};

const struct cmd cmd_top = {
    .path = "top",
    .summary = "show what running instances use",
    .description =
        "Show the running instances, again and again: how much of the host's processors each used since the "
        "last table (100 is one of them), since its start, the memory it has and the memory of the host it "
        "uses.",
    .opts = top_opts,
    .values_size = sizeof(struct top_values),
    .run = run_top,
};
