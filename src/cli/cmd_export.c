/* posada export: an instance in one file. */
#include "base/fd.h"
#include "base/paths.h"
#include "bundle/bundle.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct export_values {
    struct cmd_common common;
    const char *format;
    bool snapshots, plain, force, quiet;
};

static int report(void *arg, const char *what, uint64_t done, uint64_t total)
{
    return arg ? progress_bytes(arg, what, done, total) : 0;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name);

    return n > strlen(end) && !strcmp(name + n - strlen(end), end);
}

/** Write to a new file beside @path, which gets its name when it is whole; "-" is standard output.
 */
static int write_file(const struct instance *in, const struct bundle_export *e, const char *path,
                      bool force, const struct bundle_job *job, struct error *err)
{
    if (!strcmp(path, "-")) {
        if (isatty(STDOUT_FILENO))
            return error_set(err, EINVAL, "standard output is a terminal: name a file, or pipe it");
        return bundle_export(in, e, STDOUT_FILENO, job, err);
    }
    if (!force && !access(path, F_OK))
        return error_set(err, EEXIST, "'%s' is there already; --force replaces it", path);
    cleanup(freep) char *part = paths_format(err, "%s.part", path);
    if (!part)
        return -ENOMEM;
    (void)unlink(part); /* of a killed one */
    int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_set(err, errno, "cannot make '%s': %s", part, strerror(errno));
    int rc = bundle_export(in, e, fd, job, err);
    if (!rc && (fsync(fd) || rename(part, path)))
        rc = error_set(err, errno, "cannot write '%s': %s", path, strerror(errno));
    fd_close(fd);
    if (rc)
        (void)unlink(part);
    return rc;
}

static int export(const struct export_values *v, const struct opt_args *args, struct error *err)
{
    cleanup(freep) char *name = strdup(args->v[0]);
    cleanup(freep) char *path = NULL;
    char *snapshot = name ? strchr(name, '/') : NULL;
    struct progress progress;
    struct bundle_export e = {.snapshots = v->snapshots, .plain = v->plain};
    struct bundle_job job = {.progress = report, .arg = v->quiet ? NULL : &progress};
    struct instance *in = NULL;

    if (snapshot)
        *snapshot++ = 0;
    e.snapshot = snapshot;
    e.ova = v->format ? !strcmp(v->format, "ova") : args->n > 1 && ends_with(args->v[1], ".ova");
    path = args->n > 1 ? strdup(args->v[1])
                       : paths_format(err, "%s.%s", name ? name : "", e.ova ? "ova" : "posada");
    if (!name || !path)
        return error_set(err, ENOMEM, "out of memory");
    if (snapshot && v->snapshots)
        return error_set(err, EINVAL, "--snapshots exports the whole tree: name no snapshot");
    int rc = instance_open(name, INSTANCE_CHANGE, &in, err);
    if (rc)
        return rc;
    progress_init(&progress);
    rc = write_file(in, &e, path, v->force, &job, err);
    progress_done(&progress);
    instance_close(in);
    return rc;
}

static int run_export(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct error err = {0};
    int rc = export(values, args, &err);

    return rc ? cmd_fail(cmd, rc == -EINVAL ? CLI_USAGE : CLI_ERROR, &err) : CLI_OK;
}

/* clang-format off */
static const struct opt_def export_opts[] = {
    {.name = "format",
     OPT_INTO_CHOICE(struct export_values, format),
     .arg = "FORMAT",
     .choices = "posada ova",
     .group = "File",
     .help = "Posada's own form, or OVA for other hypervisors. Default: by FILE's ending"},
    {.name = "snapshots",
     OPT_INTO_FLAG(struct export_values, snapshots),
     .group = "File",
     .help = "With all snapshots and their saved states"},
    {.name = "plain",
     OPT_INTO_FLAG(struct export_values, plain),
     .group = "File",
     .help = "Do not pack it with zstd"},
    {.name = "force",
     OPT_INTO_FLAG(struct export_values, force),
     .group = "File",
     .help = "Replace FILE"},
    {.name = "quiet",
     .short_name = 'q',
     OPT_INTO_FLAG(struct export_values, quiet),
     .group = "File",
     .help = "No progress"},
    CMD_COMMON_ROWS(struct export_values),
};
/* clang-format on */

const struct cmd cmd_export = {
    .path = "export",
    .operands = "NAME[/SNAPSHOT] [FILE]",
    .summary = "write an instance into one file",
    .description =
        "Write an instance that does not run, or one of its snapshots, into FILE: its disks, its configuration and, "
        "with --snapshots, its tree of snapshots. FILE is NAME.posada if none is given; '-' is standard output. It "
        "carries checksums of all that is in it; 'posada import' reads it. A name that ends in .ova makes an OVA, "
        "which VirtualBox and VMware read.\n\n"
        "Files of the host that the configuration names (disks, volumes) stay behind.\n\n"
        "  posada export web\n"
        "  posada export web/tested web.ova\n"
        "  posada export web - | ssh other posada import -",
    .opts = export_opts,
    .values_size = sizeof(struct export_values),
    .min_operands = 1,
    .max_operands = 2,
    .run = run_export,
};
