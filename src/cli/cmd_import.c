/* posada import: an instance from one file. */
#include "base/fd.h"
#include "bundle/bundle.h"
#include "cli/progress.h"
#include "cli/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct import_values {
    struct cmd_common common;
    const char *name;
    bool keep_identity, quiet;
};

struct import_job {
    const struct import_values *v;
    struct progress progress;
    uint64_t total; /* bytes of the file; 0 = a pipe */
};

static int report(void *arg, const char *what, uint64_t done, uint64_t total)
{
    struct import_job *j = arg;

    return j->v->quiet ? 0 : progress_bytes(&j->progress, what, done, total);
}

static void note(void *arg, const char *sentence)
{
    const struct import_job *j = arg;

    if (!j->v->quiet)
        (void)fprintf(stderr, "posada import: %s\n", sentence);
}

static int import(const struct import_values *v, const char *path, struct error *err)
{
    bool is_pipe = !strcmp(path, "-");
    int fd = is_pipe ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    struct import_job j = {.v = v};
    struct bundle_job job = {.progress = report, .note = note, .arg = &j};
    struct bundle_import options = {.name = v->name, .keep_identity = v->keep_identity};
    cleanup(freep) char *name = NULL;

    if (fd < 0)
        return error_set(err, errno, "cannot open '%s': %s", path, strerror(errno));
    progress_init(&j.progress);
    int rc = bundle_import(fd, &options, &job, &name, err);
    progress_done(&j.progress);
    if (!is_pipe)
        fd_close(fd);
    if (rc && !is_pipe)
        error_prefix(err, "'%s'", path);
    if (!rc)
        (void)printf("%s\n", name);
    return rc;
}

static int run_import(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct error err = {0};

    return import(values, args->v[0], &err) ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

/* clang-format off */
static const struct opt_def import_opts[] = {
    {.name = "name",
     OPT_INTO_STRING(struct import_values, name),
     .arg = "NAME",
     .group = "Instance",
     .help = "What it is to be called. Default: as in the file"},
    {.name = "keep-identity",
     OPT_INTO_FLAG(struct import_values, keep_identity),
     .group = "Instance",
     .help = "Keep UUID and network address: for an instance that moves here. Default: new ones"},
    {.name = "quiet",
     .short_name = 'q',
     OPT_INTO_FLAG(struct import_values, quiet),
     .group = "Instance",
     .help = "No progress, no notes"},
    CMD_COMMON_ROWS(struct import_values),
};
/* clang-format on */

const struct cmd cmd_import = {
    .path = "import",
    .operands = "FILE",
    .summary = "make an instance of an exported one or of an OVA",
    .description =
        "Make an instance of FILE ('-': standard input), which 'posada export' or another hypervisor (OVA) has made. "
        "Prints its name. All checksums are verified before the instance appears.\n\n"
        "What the file says of files of the host (disks elsewhere, shared folders) is not taken over: 'posada set' "
        "adds them. A descriptor (.ovf) whose disks lie beside it: 'tar cf - web.ovf web-disk1.vmdk | posada import -'.",
    .opts = import_opts,
    .values_size = sizeof(struct import_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_import,
};
