/* posada doctor: what works on this host, and the remedy for what does not. */
#include "cli/doctor.h"
#include "cli/verbs.h"

#include <jansson.h>
#include <stdarg.h>
#include <unistd.h>

struct doctor_values {
    struct cmd_common common;
    bool json;
};

const struct doctor_check doctor_checks[] = {
    {"cpu",               doctor_cpu},
    {"kvm",                   doctor_kvm},
    {"firmware",doctor_firmware},
    {"memory",          doctor_memory},
    {"generated code",                   doctor_code_memory},
    {"open files",doctor_descriptors},
    {"user namespaces",    doctor_user_namespaces},
    {"io_uring",                   doctor_io_uring},
    {"cache folder",     doctor_cache},
    {"data folder",   doctor_data},
    {"tools",                   doctor_tools},
    {0},
};

static const char *const status_names[] = {"ok", "warn", "fail"};

void doctor_set(struct doctor_result *r, enum doctor_status status, const char *remedy,
                const char *fmt, ...)
{
    va_list ap;

    r->status = status;
    (void)snprintf(r->remedy, sizeof(r->remedy), "%s", remedy ? remedy : "");
    va_start(ap, fmt);
    (void)vsnprintf(r->text, sizeof(r->text), fmt, ap);
    va_end(ap);
}

static void print_result(const char *name, const struct doctor_result *r, bool color)
{
    static const char *const colors[] = {"\033[32m", "\033[33m", "\033[31m"};

    (void)printf("%s%-5s%s%-16s %s\n", color ? colors[r->status] : "", status_names[r->status],
                 color ? "\033[0m" : "", name, r->text);
    if (*r->remedy)
        (void)printf("%22sremedy: %s\n", "", r->remedy);
    (void)fflush(stdout); /* a check may take seconds: show what is known */
}

static json_t *result_json(const char *name, const struct doctor_result *r)
{
    return json_pack("{s:s, s:s, s:s, s:s}", "check", name, "status", status_names[r->status],
                     "text", r->text, "remedy", r->remedy);
}

static int run_doctor(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct doctor_values *v = values;
    json_t *checks = json_array();
    unsigned counts[3] = {0};
    bool color = isatty(STDOUT_FILENO) == 1;

    for (const struct doctor_check *c = doctor_checks; c->name; c++) {
        struct doctor_result r = {0};
        c->fn(&r);
        counts[r.status]++;
        if (v->json)
            (void)json_array_append_new(checks, result_json(c->name, &r));
        else
            print_result(c->name, &r, color);
    }
    if (v->json) {
        json_t *j =
            json_pack("{s:O, s:i, s:i, s:i}", "checks", checks, "ok", (int)counts[DOCTOR_OK],
                      "warn", (int)counts[DOCTOR_WARN], "fail", (int)counts[DOCTOR_FAIL]);
        (void)json_dumpf(j, stdout, JSON_INDENT(2));
        (void)putchar('\n');
        json_decref(j);
    }
    json_decref(checks);
    return counts[DOCTOR_FAIL] ? CLI_FOUND : CLI_OK;
}

static const struct opt_def doctor_opts[] = {
    {.name = "json",
     OPT_INTO_FLAG(struct doctor_values, json),
     .group = "Output",
     .help = "Print a JSON object: checks, each with status (ok, warn, fail), text and remedy"},
    CMD_COMMON_ROWS(struct doctor_values),
};

static const struct cmd_section doctor_sections[] = {
    {"Exit status", "0 when nothing fails (there may be warnings), 1 when a check fails."},
    {0            },
};

const struct cmd cmd_doctor = {
    .path = "doctor",
    .summary = "check what works on this host",
    .description =
        "Check what Posada needs of this host, one line each: ok, warn (it works, with less), or fail, "
        "with the remedy.",
    .opts = doctor_opts,
    .values_size = sizeof(struct doctor_values),
    .sections = doctor_sections,
    .run = run_doctor,
};
