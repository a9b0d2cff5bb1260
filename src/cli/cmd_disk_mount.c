/* posada disk mount and unmount. The disk is opened, then the process goes to the background,
 * before it has any thread; the one in the foreground waits until the folder is there. With --files
 * what goes to the background is a keeper, which has the disk in a process of its own. */
#include "base/fd.h"
#include "cli/disk.h"
#include "cli/disk_files.h"
#include "cli/disk_fuse.h"
#include "cli/disk_keeper.h"
#include "disk/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define END_WAIT_MS 10000

struct mount_values {
    struct disk_values disk; /* must be first: its rows are used */
    bool write, snapshot, foreground, files;
    int64_t partition;
};

struct mount {
    const struct cmd *cmd;
    const struct mount_values *v;
    const char *path, *dir;
    int ready_fd; /* who waits for it; -1 = nobody */
};

/* clang-format off */
static const struct opt_def mount_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    {.name = "write", .short_name = 'w', OPT_INTO_FLAG(struct mount_values, write), .group = "Image",
     .help = "The files can be written to, and so the disk"},
    {.name = "snapshot", .short_name = 's', OPT_INTO_FLAG(struct mount_values, snapshot), .group = "Image",
     .help = "They can be written to, and what was written is gone at the end"},
    {.name = "files", OPT_INTO_FLAG(struct mount_values, files), .group = "Files",
     .help = "Show the files of the file system in it, by a driver that this host has"},
    {.name = "partition", OPT_INTO_INT(struct mount_values, partition), .arg = "N", .def = "0", .min = 0, .max = 128,
     .group = "Files", .help = "Those in this partition (implies --files); 0: of the only one that has files"},
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

/** Serve @m's disk at @dir; an exit status. */
static int serve(const struct mount *m, const char *dir, int ready_fd)
{
    const struct mount_values *v = m->v;
    bool drop = v->snapshot || (v->files && !v->write); /* a driver may have to replay a journal */
    unsigned flags = (v->write || drop ? 0 : DISK_READONLY) | (drop ? DISK_SNAPSHOT : 0);
    char *source = realpath(m->path, NULL);
    struct error err = {0};
    struct disk *d = NULL;
    int rc = disk_cli_open(&v->disk, m->path, v->disk.format, flags, false, &d, &err);

    if (!rc) {
        rc = disk_fuse_serve(d, source ? source : m->path, dir, on_ready, &ready_fd, &err);
        int flushed = disk_flush(d);
        if (!rc && flushed)
            rc = error_set(&err, -flushed, "cannot write '%s' back: %s", m->path,
                           strerror(-flushed));
    }
    disk_close(d);
    free(source);
    return rc ? cmd_fail(m->cmd, CLI_ERROR, &err) : CLI_OK;
}

static int serve_private(void *arg, const char *dir, int ready_fd)
{
    return serve(arg, dir, ready_fd);
}

static void on_files_ready(void *arg)
{
    struct mount *m = arg;

    (void)setsid(); /* until here, a Ctrl-C is for us as well */
    on_ready(&m->ready_fd);
}

/** Serve until the end; an exit status. */
static int serve_all(struct mount *m)
{
    struct error err = {0};
    struct disk_keeper k = {
        .dir = m->dir,
        .partition = (unsigned)m->v->partition,
        .write = m->v->write || m->v->snapshot,
        .serve = serve_private,
        .ready = on_files_ready,
        .arg = m,
    };

    if (!m->v->files)
        return serve(m, m->dir, m->ready_fd);
    int rc = disk_keep(&k, &err);
    if (rc == -ECHILD)
        return CLI_ERROR; /* the child has said why */
    return rc ? cmd_fail(m->cmd, CLI_ERROR, &err) : CLI_OK;
}

/** In a process of its own; returns when it is mounted or has failed, with the status. */
static int serve_behind(struct mount *m)
{
    int fds[2];
    char good = 0;

    if (pipe2(fds, O_CLOEXEC))
        return cmd_fail(m->cmd, CLI_ERROR,
                        &(struct error){.code = errno, .text = "out of descriptors"});
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        fd_close(fds[0]);
        if (!m->v->files)
            (void)setsid();
        m->ready_fd = fds[1];
        _exit(serve_all(m));
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
    struct mount_values *v = values;
    struct mount m = {.cmd = cmd, .v = v, .path = args->v[0], .dir = args->v[1], .ready_fd = -1};
    struct stat st;

    v->files |= v->partition > 0;
    if (stat(m.dir, &st) || !S_ISDIR(st.st_mode))
        return cmd_usage(cmd, "'%s' is not a folder", m.dir);
    return v->foreground ? serve_all(&m) : serve_behind(&m);
}

/** Is a disk of ours mounted at @dir? Its image's path into @ret of PATH_MAX bytes. */
static bool find_mount(const char *dir, char *ret)
{
    cleanup(freep) char *real = realpath(dir, NULL);
    struct mntent entry;
    char buf[3 * PATH_MAX];
    bool found = false;
    FILE *f = real ? setmntent("/proc/self/mounts", "re") : NULL;

    while (f && getmntent_r(f, &entry, buf, sizeof(buf))) {
        if (!strcmp(entry.mnt_dir, real) && !strcmp(entry.mnt_type, "fuse.posada")) {
            (void)snprintf(ret, PATH_MAX, "%s", entry.mnt_fsname);
            found = true;
        }
    }
    if (f)
        (void)endmntent(f); /* only read */
    return found;
}

static int unmount(const char *dir, struct error *err)
{
    char program[PATH_MAX];
    char *argv[] = {program, (char *)"-u", (char *)"--", (char *)dir, NULL};
    pid_t pid;
    int status = 1;

    if (!umount2(dir, 0))
        return 0;
    if (errno != EPERM)
        return error_set(err, errno, "cannot unmount '%s': %s", dir, strerror(errno));
    if (!disk_files_find_program("fusermount3", program) ||
        posix_spawn(&pid, program, NULL, NULL, argv, environ))
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
    int rc = disk_keep_end(dir, unmount, &err);
    if (rc != -ENOENT)
        return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
    if (!find_mount(dir, source))
        return cmd_usage(cmd, "no disk is mounted at '%s'", dir);
    if (unmount(dir, &err))
        return cmd_fail(cmd, CLI_ERROR, &err);
    wait_for_end(source);
    return CLI_OK;
}

static const struct cmd_section mount_sections[] = {
    {"Examples", "  posada disk mount --files disk.qcow2 /mnt     (the files in it)\n"
                 "  posada disk mount --partition 2 --write disk.vdi /mnt\n"
                 "  posada disk unmount /mnt\n"
                 "  posada disk mount disk.qcow2 /tmp/d           (/tmp/d/disk, /tmp/d/p1, ...)\n"
                 "  posada disk unmount /tmp/d"},
    {0         },
};

const struct cmd cmd_disk_mount = {
    .path = "disk mount",
    .operands = "FILE DIR",
    .summary = "show a disk, its partitions or the files in it in a folder",
    .description =
        "Mount a disk in any format at a folder: 'disk' there is all of it, 'p1', 'p2' and so on are its "
        "partitions (MBR or GPT), as plain files, for programs that know raw images only. With --files "
        "the folder shows the files in the disk's file system instead. Without --write or --snapshot all can "
        "only be read.\n\n"
        "It needs /dev/fuse, and without root the package fuse3. The file system's driver is a program of this "
        "host: fuse2fs (ext2 to ext4), ntfs-3g, exfat-fuse, fusefat, squashfuse or fuseiso, of the package with "
        "that name; or for root, where that program is missing, the kernel.",
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
