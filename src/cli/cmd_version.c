/* posada version. */
#include "cli/verbs.h"

#include <jansson.h>
#include <sys/utsname.h>

struct version_values {
    struct cmd_common common;
    bool json;
};

static const struct opt_def version_opts[] = {
    {.name = "json",
     OPT_INTO_FLAG(struct version_values, json),
     .group = "Output",
     .help = "Print a JSON object"},
    CMD_COMMON_ROWS(struct version_values),
};

int version_print(bool json)
{
    struct utsname host = {0};

    if (!json) {
        (void)printf("posada %s\n", POSADA_VERSION);
        return CLI_OK;
    }
    (void)uname(&host); /* fails only on a bad address */
    json_t *j = json_pack("{s:s, s:s, s:s, s:s}", "version", POSADA_VERSION, "compiler",
                          __VERSION__, "host", host.machine, "kernel", host.release);
    (void)json_dumpf(j, stdout, JSON_INDENT(2));
    (void)putchar('\n');
    json_decref(j);
    return CLI_OK;
}

static int run_version(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct version_values *v = values;

    return version_print(v->json);
}

const struct cmd cmd_version = {
    .path = "version",
    .summary = "print the version",
    .description =
        "Print Posada's version; with --json also the compiler, host and kernel, for bug reports.",
    .opts = version_opts,
    .values_size = sizeof(struct version_values),
    .run = run_version,
};
