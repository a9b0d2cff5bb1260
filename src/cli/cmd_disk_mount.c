/* posada disk mount and unmount. The disk is opened, then the process goes to the background,
 * before it has any thread; the one in the foreground waits until the folder is there. */
#include "base/fd.h"
#include "cli/disk.h"
#include "cli/disk_fuse.h"
#include "disk/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define END_WAIT_MS 10000

struct mount_values {
    struct disk_values disk; /* must be first: its rows are used */
    bool write, snapshot, foreground;
};

/* clang-format off */
static const struct opt_def mount_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    {.name = "write", .short_name = 'w', OPT_INTO_FLAG(struct mount_values, write), .group = "Image",
     .help = "The files can be written to, and so the disk"},
    {.name = "snapshot", .short_name = 's', OPT_INTO_FLAG(struct mount_values, snapshot), .group = "Image",
     .help = "They can be written to, and what was written is gone at the end"},
    {.name = "foreground", OPT_INTO_FLAG(struct mount_values, foreground), .group = "Work",
     .help = "Stay until it is unmounted; Ctrl-C unmounts"},
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    CMD_COMMON_ROWS(struct disk_values),
};

static const struct opt_def unmount_opts[] = {
    CMD_COMMON_ROWS(struct disk_values),
};
/* clang-format on */

/** Tell the foreground that all is well, and let go of its streams: they may be pipes. */
static void on_ready(void *arg)
{
    const int *fd = arg;
    char good = 1;

    if (*fd < 0)
        return;
    cleanup(fd_closep) int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < 3 && nowhere >= 0; i++)
        (void)dup2(nowhere, i);
    (void)!write(*fd, &good, 1); /* nobody waits any more: go on */
}

static int serve(const struct mount_values *v, const char *path, const char *dir, int ready_fd,
                 struct error *err)
{
    unsigned flags =
        (v->write || v->snapshot ? 0 : DISK_READONLY) | (v->snapshot ? DISK_SNAPSHOT : 0);
    char *source = realpath(path, NULL);
    struct disk *d = NULL;
    int rc = disk_cli_open(&v->disk, path, v->disk.format, flags, false, &d, err);

    if (!rc) {
        rc = disk_fuse_serve(d, source ? source : path, dir, on_ready, &ready_fd, err);
        int flushed = disk_flush(d);
        if (!rc && flushed)
            rc = error_set(err, -flushed, "cannot write '%s' back: %s", path, strerror(-flushed));
    }
    disk_close(d);
    free(source);
    return rc;
}

/** In a process of its own; returns when it is mounted or has failed, with the status. */
static int serve_behind(const struct cmd *cmd, const struct mount_values *v, const char *path,
                        const char *dir)
{
    struct error err = {0};
    int fds[2];
    char good = 0;

    if (pipe2(fds, O_CLOEXEC))
        return cmd_fail(cmd, CLI_ERROR,
                        &(struct error){.code = errno, .text = "out of descriptors"});
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        fd_close(fds[0]);
        (void)setsid();
        int rc = serve(v, path, dir, fds[1], &err);
        _exit(rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK);
    }
    fd_close(fds[1]);
    bool is_mounted = pid > 0 && read(fds[0], &good, 1) == 1;
    fd_close(fds[0]);
    int status = CLI_ERROR << 8;
    if (!is_mounted && pid > 0)
        (void)waitpid(pid, &status, 0); /* it has said why */
    return is_mounted ? CLI_OK : WEXITSTATUS(status);
}

static int run_mount(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct mount_values *v = values;
    struct error err = {0};
    struct stat st;

    if (stat(args->v[1], &st) || !S_ISDIR(st.st_mode))
        return cmd_usage(cmd, "'%s' is not a folder", args->v[1]);
    if (!v->foreground)
        return serve_behind(cmd, v, args->v[0], args->v[1]);
    int rc = serve(v, args->v[0], args->v[1], -1, &err);
    return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

/** Is a disk of ours mounted at @dir? Its image's path into @ret of PATH_MAX bytes. */
static bool find_mount(const char *dir, char *ret)
{
    cleanup(freep) char *real = realpath(dir, NULL);
    char line[2 * PATH_MAX];
    bool found = false;
    FILE *f = real ? fopen("/proc/self/mounts", "re") : NULL;

    while (f && fgets(line, sizeof(line), f)) {
        char at[PATH_MAX];
        char source[PATH_MAX];
        char type[64];

        if (sscanf(line, "%4095s %4095s %63s", source, at, type) == 3 && !strcmp(at, real) &&
            !strcmp(type, "fuse.posada")) {
            strcpy(ret, source);
            found = true;
        }
    }
    if (f)
        (void)fclose(f); /* only read */
    return found;
}

static int unmount(const char *dir, struct error *err)
{
    char *argv[] = {(char *)"fusermount3", (char *)"-u", (char *)"--", (char *)dir, NULL};
    pid_t pid;
    int status = 1;

    if (!umount2(dir, 0))
        return 0;
    if (errno != EPERM)
        return error_set(err, errno, "cannot unmount '%s': %s", dir, strerror(errno));
    if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ))
        return error_set(err, ENOENT, "cannot unmount '%s': package fuse3 is not installed", dir);
    if (waitpid(pid, &status, 0) != pid || status)
        return error_set(err, EIO, "cannot unmount '%s'", dir);
    return 0;
}

/** Wait until the serving process has let go of the image: then all is written. */
static void wait_for_end(const char *path)
{
    for (int ms = 0; ms < END_WAIT_MS; ms += 20) {
        struct file *f = NULL;

        if (file_open(AT_FDCWD, path, 0, &f, NULL) != -EBUSY) {
            file_close(f);
            return;
        }
        (void)usleep(20000);
    }
}

static int run_unmount(const struct cmd *cmd, void *values, struct opt_args *args)
{
    char source[PATH_MAX];
    struct error err = {0};
    const char *dir = args->v[0];

    (void)values;
    if (!find_mount(dir, source))
        return cmd_usage(cmd, "no disk is mounted at '%s'", dir);
    if (unmount(dir, &err))
        return cmd_fail(cmd, CLI_ERROR, &err);
    wait_for_end(source);
    return CLI_OK;
}

static const struct cmd_section mount_sections[] = {
    {"Examples", "  posada disk mount disk.qcow2 /tmp/d\n"
                 "  fuse2fs -o ro /tmp/d/p1 /mnt                  (without root)\n"
                 "  mount -o ro,loop /tmp/d/p1 /mnt               (as root)\n"
                 "  umount /mnt; posada disk unmount /tmp/d"},
    {0         },
};

const struct cmd cmd_disk_mount = {
    .path = "disk mount",
    .operands = "FILE DIR",
    .summary = "show a disk and its partitions as plain files",
    .description =
        "Mount a disk in any format at a folder: 'disk' there is all of it, 'p1', 'p2' and so on are its "
        "partitions (MBR or GPT), as plain files, for programs that know raw images only, and for mounting "
        "the file systems in them. Without --write or --snapshot they can only be read.\n\n"
        "It needs /dev/fuse, and without root the package fuse3.",
    .opts = mount_opts,
    .values_size = sizeof(struct mount_values),
    .sections = mount_sections,
    .min_operands = 2,
    .max_operands = 2,
    .run = run_mount,
};

const struct cmd cmd_disk_unmount = {
    .path = "disk unmount",
    .operands = "DIR",
    .summary = "end what 'posada disk mount' began",
    .description = "Unmount a disk, and wait until all that was written is in its image.",
    .opts = unmount_opts,
    .values_size = sizeof(struct disk_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_unmount,
};
