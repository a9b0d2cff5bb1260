/* posada logs: what a guest has said on its console, or its monitor in its log. */
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

enum { PIECE = 65536, CHECK_MS = 500 };

struct logs_values {
    struct cmd_common common;
    bool follow, monitor;
    int64_t lines;
};

/** Copy from @fd to the end; the count. */
static int64_t copy(int fd, struct error *err)
{
    char buf[PIECE];
    int64_t total = 0;
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf))) > 0) {
        if (fwrite(buf, 1, (size_t)n, stdout) != (size_t)n)
            return error_set(err, errno, "cannot write: %s", strerror(errno));
        total += n;
    }
    return fflush(stdout) ? error_set(err, errno, "cannot write: %s", strerror(errno)) : total;
}

/** Place @fd before the last @lines lines. */
static void seek_lines(int fd, int64_t lines)
{
    off_t at = lseek(fd, 0, SEEK_END);
    char buf[4096];
    bool last = true; /* the newline that ends the file begins no line */

    while (at > 0) {
        ssize_t size = (ssize_t)MIN(at, (off_t)sizeof(buf));
        at -= size;
        if (pread(fd, buf, (size_t)size, at) != size)
            break;
        for (ssize_t i = size - 1; i >= 0; i--) {
            if (buf[i] == '\n' && !last && --lines <= 0) {
                (void)lseek(fd, at + i + 1, SEEK_SET);
                return;
            }
            last = false;
        }
    }
    (void)lseek(fd, 0, SEEK_SET);
}

/** A new file is at @path: the one behind @fd has become the older one. */
static bool was_rotated(int fd, const char *path)
{
    struct stat a, b;

    return !fstat(fd, &a) && !stat(path, &b) && a.st_ino != b.st_ino;
}

/** Print what comes, until the instance does not run any more. */
static int follow(const struct instance *in, const char *path, int *fd, struct error *err)
{
    cleanup(fd_closep) int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    struct pollfd p = {.fd = watch, .events = POLLIN};
    char events[4096];

    if (watch < 0 || inotify_add_watch(watch, in->dir, IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0)
        return error_set(err, errno, "cannot watch '%s': %s", in->dir, strerror(errno));
    for (;;) {
        bool running = instance_is_running(in);
        int64_t n = copy(*fd, err);
        if (n < 0)
            return (int)n;
        if (was_rotated(*fd, path)) {
            fd_close(*fd);
            *fd = open(path, O_RDONLY | O_CLOEXEC);
            if (*fd < 0)
                return 0; /* deleted */
            continue;
        }
        if (!n && !running)
            return 0;
        (void)poll(&p, 1, CHECK_MS);
        while (read(watch, events, sizeof(events)) > 0) {
            /* that something changed is all there is to know */
        }
    }
}

static int show(const struct logs_values *v, const struct instance *in, struct error *err)
{
    cleanup(freep) char *path = instance_path(in, err, v->monitor ? "monitor.log" : "console.log");
    cleanup(freep) char *older = instance_path(in, err, "console.log.1");
    cleanup(fd_closep) int fd = -1;

    if (!path || !older)
        return -ENOMEM;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && !v->follow)
        return 0; /* it never ran */
    if (fd < 0 && errno == ENOENT)
        fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(err, errno, "cannot open '%s': %s", path, strerror(errno));
    if (v->lines) {
        seek_lines(fd, v->lines);
    } else if (!v->monitor) {
        cleanup(fd_closep) int first = open(older, O_RDONLY | O_CLOEXEC);
        int64_t n = first < 0 ? 0 : copy(first, err);
        if (n < 0)
            return (int)n;
    }
    if (v->follow)
        return follow(in, path, &fd, err);
    int64_t n = copy(fd, err);
    return n < 0 ? (int)n : 0;
}

static int run_logs(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct instance *in;
    struct error err = {0};
    int r = instance_open(args->v[0], 0, &in, &err);

    if (!r) {
        r = show(values, in, &err);
        instance_close(in);
    }
    return r ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

static const struct opt_def logs_opts[] = {
    {.name = "follow",
     .short_name = 'f',
     OPT_INTO_FLAG(struct logs_values, follow),
     .group = "Output",
     .help = "Go on with what comes, until the instance stops"},
    {.name = "lines",
     .short_name = 'n',
     OPT_INTO_INT(struct logs_values,                lines),
     .arg = "N",
     .min = 1,
     .max = INT32_MAX,
     .group = "Output",
     .help = "Only the last N lines"},
    {.name = "monitor",
     OPT_INTO_FLAG(struct logs_values,  monitor),
     .group = "Output",
     .help = "What the monitor had to say instead: warnings and errors"                     },
    CMD_COMMON_ROWS(struct logs_values),
};

const struct cmd cmd_logs = {
    .path = "logs",
    .operands = "NAME",
    .summary = "print what a guest said on its console",
    .description = "Print what the guest has said on its console: the last mebibyte or two.",
    .opts = logs_opts,
    .values_size = sizeof(struct logs_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_logs,
};
