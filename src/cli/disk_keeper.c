/* The keeper of `posada disk mount --files`. It makes a private folder:
 *
 *     posada-mount-XXXXXX/    locked (flock) as long as the keeper lives
 *         at                  a symbolic link: where the files are
 *         disk/               the disk and its partitions, by FUSE
 *
 * Invariants:
 * 1. Whatever ends first, the file system, a process or the keeper by a signal, the rest follows;
 *    only SIGKILL leaves the private folder behind.
 * 2. The disk's process ends when the last that has its files open has closed them: the folder is
 *    detached at once, and the driver still writes what it holds.
 *
 * One thread, whose signals are blocked and read from a descriptor. */
#include "cli/disk_keeper.h"

#include "base/fd.h"
#include "cli/disk_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <mntent.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SHARED_FOLDER "/tmp"
#define NAME          "posada-mount-"

struct kept {
    const struct disk_keeper *keeper;
    char at[PATH_MAX];   /* keeper->dir, in full */
    char base[PATH_MAX]; /* the private folder */
    char disk[PATH_MAX + 8];
    char link[PATH_MAX + 8];
    int lock;
    int signals;
    sigset_t mask; /* of signals, as it was */
    pid_t server;  /* 0 = none */
};

static const char *private_folder(void)
{
    const char *folder = getenv("XDG_RUNTIME_DIR");

    if (folder && folder[0] == '/' && strlen(folder) < 1000 && !access(folder, W_OK))
        return folder;
    return SHARED_FOLDER;
}

/** Wait for @events of @fd (-1: none). 1; 0: a child has changed; -EINTR: a signal says to end. */
static int await(const struct kept *k, int fd, short events)
{
    struct pollfd fds[] = {
        {.fd = k->signals, .events = POLLIN},
        {.fd = fd,         .events = events},
    };
    struct signalfd_siginfo info;

    while (poll(fds, ARRAY_SIZE(fds), -1) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    if (fds[0].revents && read(k->signals, &info, sizeof(info)) == sizeof(info))
        return info.ssi_signo == SIGCHLD ? 0 : -EINTR;
    return 1;
}

/** Wait for the end of child @pid. 0 or -EINTR. */
static int await_child(const struct kept *k, pid_t pid, int *ret_status)
{
    while (waitpid(pid, ret_status, WNOHANG) == 0) {
        if (await(k, -1, 0) < 0)
            return -EINTR;
    }
    return 0;
}

static bool is_mounted(const char *dir)
{
    struct mntent entry;
    char buf[3 * PATH_MAX];
    bool found = false;
    FILE *f = setmntent("/proc/self/mounts", "re");

    while (f && !found && getmntent_r(f, &entry, buf, sizeof(buf)))
        found = !strcmp(entry.mnt_dir, dir);
    if (f)
        (void)endmntent(f); /* only read */
    return found;
}

/** Take it out of the tree; who uses it still can. */
static void detach(const char *dir)
{
    char program[PATH_MAX];
    char *argv[] = {program, (char *)"-u", (char *)"-z", (char *)"--", (char *)dir, NULL};
    pid_t pid;
    int status;

    if (!umount2(dir, MNT_DETACH) || errno != EPERM)
        return;
    if (disk_files_find_program("fusermount3", program) &&
        !posix_spawn(&pid, program, NULL, NULL, argv, environ))
        (void)waitpid(pid, &status, 0); /* it has said why */
}

static void set_names(struct kept *k, const char *base)
{
    (void)snprintf(k->base, sizeof(k->base), "%s", base);
    (void)snprintf(k->disk, sizeof(k->disk), "%s/disk", base);
    (void)snprintf(k->link, sizeof(k->link), "%s/at", base);
}

static int make_folder(struct kept *k, struct error *err)
{
    char base[1100];

    (void)snprintf(base, sizeof(base), "%s/" NAME "XXXXXX", private_folder());
    if (!mkdtemp(base))
        return error_set(err, errno, "cannot make a folder in '%s': %s", private_folder(),
                         strerror(errno));
    set_names(k, base);
    k->lock = open(k->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (k->lock < 0 || flock(k->lock, LOCK_EX) || mkdir(k->disk, 0700) || symlink(k->at, k->link))
        return error_set(err, errno, "cannot use folder '%s': %s", k->base, strerror(errno));
    return 0;
}

static int start_server(struct kept *k, struct error *err)
{
    int fds[2];
    char good;

    if (pipe2(fds, O_CLOEXEC))
        return error_set(err, errno, "out of descriptors");
    (void)fflush(NULL);
    k->server = fork();
    if (k->server == 0) {
        fd_close(fds[0]);
        fd_close(k->lock); /* it is the keeper's */
        (void)setsid();    /* a Ctrl-C is the keeper's, too */
        (void)sigprocmask(SIG_SETMASK, &k->mask, NULL);
        _exit(k->keeper->serve(k->keeper->arg, k->disk, fds[1]));
    }
    fd_close(fds[1]);
    int rc =
        k->server < 0 ? error_set(err, errno, "cannot start a process: %s", strerror(errno)) : 0;
    while (!rc && !(rc = await(k, fds[0], POLLIN)))
        ;
    if (rc == -EINTR)
        rc = error_set(err, EINTR, "cancelled");
    else if (rc > 0)
        rc = read(fds[0], &good, 1) == 1 ? 0 : -ECHILD;
    fd_close(fds[0]);
    return rc;
}

/** The last line that a program has written, to its standard error rather than its output. */
static void read_reason(const struct disk_files_job *job, char *ret, size_t size)
{
    char text[4096] = "";
    ssize_t n = 0;

    for (int i = 1; i >= 0 && n <= 0; i--) {
        off_t end = lseek(job->log[i], 0, SEEK_END);

        n = pread(job->log[i], text, sizeof(text) - 1,
                  MAX(end - (off_t)sizeof(text) + 1, (off_t)0));
        while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
            n--;
    }
    text[MAX(n, (ssize_t)0)] = 0;
    const char *line = strrchr(text, '\n');
    (void)snprintf(ret, size, "%.190s", n <= 0 ? "no reason given" : line ? line + 1 : text);
}

/** 0, or -EIO if the program fails, with its status in @err. */
static int await_job(const struct kept *k, const struct disk_files_job *job,
                     const struct disk_files *f, struct error *err)
{
    char reason[200];
    int status = 0;

    if (!job->pid)
        return 0;
    if (await_child(k, job->pid, &status)) {
        (void)kill(job->pid, SIGKILL);
        (void)waitpid(job->pid, &status, 0);
        return error_set(err, EINTR, "cancelled");
    }
    if (!status)
        return 0;
    read_reason(job, reason, sizeof(reason));
    return error_set(err, EIO, "cannot mount '%s' (%s): %s", f->name, f->type, reason);
}

static int mount_files(struct kept *k, struct error *err)
{
    struct disk_files f = {0};
    cleanup(fd_closep) int out = memfd_create("out", MFD_CLOEXEC);
    cleanup(fd_closep) int log = memfd_create("log", MFD_CLOEXEC);
    struct disk_files_job job = {
        .log = {out, log}
    };
    int rc = disk_files_find(k->disk, k->keeper->partition, &f, err);

    f.write = k->keeper->write;
    if (!rc && !disk_files_prepare(&f, &job, err) && await_job(k, &job, &f, err) == -EINTR)
        rc = -EINTR; /* if it fails, the driver will say more */
    rc = rc ? rc : disk_files_mount(&f, k->at, &job, err);
    rc = rc ? rc : await_job(k, &job, &f, err);
    if (!rc && !is_mounted(k->at))
        rc = error_set(err, EIO, "cannot mount '%s' (%s): its driver has ended", f.name, f.type);
    return rc;
}

/** Until the files or the disk are gone, or a signal comes. */
static void watch(const struct kept *k)
{
    cleanup(fd_closep) int mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    siginfo_t info = {0};

    while (is_mounted(k->at) && await(k, mounts, POLLPRI) >= 0) {
        if (!waitid(P_PID, (id_t)k->server, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid)
            return;
    }
}

static void remove_folder(const struct kept *k)
{
    detach(k->disk);
    (void)unlink(k->link);
    (void)rmdir(k->disk);
    (void)rmdir(k->base);
}

static void end(struct kept *k)
{
    int status;

    if (*k->disk)
        detach(k->disk); /* the server ends with the last who uses it */
    if (k->server > 0 && is_mounted(k->disk))
        (void)kill(k->server, SIGTERM);
    if (k->server > 0 && await_child(k, k->server, &status)) {
        (void)kill(k->server, SIGTERM); /* the second signal: no more patience */
        (void)waitpid(k->server, &status, 0);
    }
    if (*k->disk)
        remove_folder(k);
    fd_close(k->lock);
    fd_close(k->signals);
    (void)sigprocmask(SIG_SETMASK, &k->mask, NULL);
}

int disk_keep(const struct disk_keeper *keeper, struct error *err)
{
    struct kept k = {.keeper = keeper, .lock = -1};
    static const int signals[] = {SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    sigset_t set;

    if (!realpath(keeper->dir, k.at))
        return error_set(err, errno, "cannot use '%s': %s", keeper->dir, strerror(errno));
    if (is_mounted(k.at))
        return error_set(err, EBUSY, "something is mounted at '%s' already", keeper->dir);
    (void)sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        (void)sigaddset(&set, signals[i]);
    (void)sigprocmask(SIG_BLOCK, &set, &k.mask);
    k.signals = signalfd(-1, &set, SFD_CLOEXEC);
    int rc = make_folder(&k, err);
    rc = rc ? rc : start_server(&k, err);
    rc = rc ? rc : mount_files(&k, err);
    if (!rc) {
        keeper->ready(keeper->arg);
        watch(&k);
        if (is_mounted(k.at))
            detach(k.at);
    }
    end(&k);
    return rc;
}

/** Does @folder belong to files at @at? *@ret_lives: its keeper lives. */
static bool is_of(const char *folder, const char *at, bool *ret_lives)
{
    char link[PATH_MAX + 8];
    char target[PATH_MAX];
    struct stat st;

    (void)snprintf(link, sizeof(link), "%s/at", folder);
    ssize_t n = readlink(link, target, sizeof(target) - 1);
    target[MAX(n, (ssize_t)0)] = 0;
    if (n <= 0 || strcmp(target, at) != 0 || stat(folder, &st) || st.st_uid != geteuid())
        return false;
    cleanup(fd_closep) int lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *ret_lives = lock >= 0 && flock(lock, LOCK_EX | LOCK_NB);
    return true;
}

/** The private folder in @parent of the disk whose files are at @at, into @ret of PATH_MAX bytes;
 * one that a killed keeper has left only if there is no other. */
static bool find_folder(const char *parent, const char *at, char *ret)
{
    char folder[PATH_MAX];
    bool found = false;
    bool lives = false;
    DIR *dir = opendir(parent);
    const struct dirent *e;

    while (dir && !lives && (e = readdir(dir))) {
        if (strncmp(e->d_name, NAME, strlen(NAME)) != 0)
            continue;
        (void)snprintf(folder, sizeof(folder), "%s/%s", parent, e->d_name);
        if (!is_of(folder, at, &lives))
            continue;
        found = true;
        strcpy(ret, folder);
    }
    if (dir)
        (void)closedir(dir);
    return found;
}

int disk_keep_end(const char *dir, int (*unmount)(const char *dir, struct error *err),
                  struct error *err)
{
    char at[PATH_MAX];
    char folder[PATH_MAX];
    struct kept k = {.signals = -1, .lock = -1};

    if (!realpath(dir, at) ||
        (!find_folder(private_folder(), at, folder) && !find_folder(SHARED_FOLDER, at, folder)))
        return -ENOENT;
    k.lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = is_mounted(at) ? unmount(at, err) : 0;
    if (!rc && k.lock >= 0)
        (void)flock(k.lock, LOCK_EX); /* the keeper's, until its end */
    if (!rc && !access(folder, F_OK)) {
        set_names(&k, folder);
        remove_folder(&k); /* the keeper was killed */
    }
    fd_close(k.lock);
    return rc;
}
