/* File system drivers for `posada disk mount --files`. Those that run as processes (FUSE) come
 * first, also for root: a disk from elsewhere may be made to break its driver, and a process is
 * less than the kernel. The main thread, which is the only one. */
#include "cli/disk_files.h"

#include "base/fd.h"
#include "disk/disk.h"
#include "disk/filesystem.h"
#include "disk/partition.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

/** Started as PROGRAM -o OPTIONS FILE DIR. */
static const struct driver {
    const char *type, *program;
    const char *read, *write; /* options; NULL: never for writing */
    const char *package;      /* Debian's, which has it */
} drivers[] = {
  /* As its owner sees it: all files, whatever numbers of users the guest has. */
    {"ext4",     "fuse2fs",          "ro,fakeroot",     "fakeroot",        "fuse2fs"   },
    {"ntfs",     "ntfs-3g",          "ro,nosuid,nodev", "rw,nosuid,nodev", "ntfs-3g"   },
    {"exfat",    "mount.exfat-fuse", "ro",              "rw",              "exfat-fuse"},
    {"vfat",     "fusefat",          "ro",              "rw+",             "fusefat"   },
    {"squashfs", "squashfuse",       "ro",              NULL,              "squashfuse"},
    {"iso9660",  "fuseiso",          "ro",              NULL,              "fuseiso"   },
};

static const struct driver *find_driver(const char *type)
{
    for (size_t i = 0; i < ARRAY_SIZE(drivers); i++) {
        if (!strcmp(drivers[i].type, type))
            return &drivers[i];
    }
    return NULL;
}

static bool holds_files(const char *type)
{
    return type && strcmp(type, "swap") != 0 && strcmp(type, "luks") != 0 &&
           strcmp(type, "lvm") != 0;
}

static const char *find_type(const char *path)
{
    struct disk_options options = {.format = "raw", .flags = DISK_READONLY | DISK_NO_LOCK};
    struct disk *d = NULL;

    if (disk_open(path, &options, &d, NULL))
        return NULL;
    const char *type = disk_find_filesystem(d, 0, d->size_bytes);
    disk_close(d);
    return type;
}

static void set_file(struct disk_files *f, const char *folder, const char *name)
{
    (void)snprintf(f->path, sizeof(f->path), "%s/%s", folder, name);
    (void)snprintf(f->name, sizeof(f->name), "%s", name);
    f->type = find_type(f->path);
}

/** Numbers of the partitions in @folder, ascending, at most DISK_MAX_PARTITIONS; their count. */
static unsigned list_partitions(const char *folder, unsigned *ret)
{
    unsigned count = 0;
    DIR *dir = opendir(folder);
    const struct dirent *e;
    unsigned number;

    while (dir && count < DISK_MAX_PARTITIONS && (e = readdir(dir))) {
        if (sscanf(e->d_name, "p%u", &number) != 1)
            continue;
        unsigned at = count++;
        for (; at && ret[at - 1] > number; at--)
            ret[at] = ret[at - 1];
        ret[at] = number;
    }
    if (dir)
        (void)closedir(dir);
    return count;
}

static int refuse(const struct disk_files *f, struct error *err)
{
    if (!f->type)
        return error_set(err, ENOTSUP, "'%s' holds no file system that is known", f->name);
    return error_set(err, ENOTSUP, "'%s' holds no files: it is %s", f->name, f->type);
}

/** Without a number: there must be one only. */
static int choose(const char *folder, const unsigned *numbers, unsigned count,
                  struct disk_files *ret, struct error *err)
{
    char name[16] = "disk";
    char names[400] = "";
    unsigned good = 0;
    struct disk_files f;

    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(name, sizeof(name), "p%u", numbers[i]);
        set_file(&f, folder, name);
        if (!holds_files(f.type))
            continue;
        if (!good++)
            *ret = f;
        (void)snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%u (%s)",
                       good > 1 ? ", " : "", numbers[i], f.type);
    }
    if (good > 1)
        return error_set(err, EINVAL, "several partitions hold files: %s; choose with --partition",
                         names);
    if (!count) {
        set_file(ret, folder, name);
        return holds_files(ret->type) ? 0 : refuse(ret, err);
    }
    if (!good)
        return error_set(err, ENOTSUP, "no partition holds a file system that is known");
    return 0;
}

int disk_files_find(const char *folder, unsigned partition, struct disk_files *ret,
                    struct error *err)
{
    unsigned numbers[DISK_MAX_PARTITIONS];
    unsigned count = list_partitions(folder, numbers);
    char name[16];

    if (!partition)
        return choose(folder, numbers, count, ret, err);
    for (unsigned i = 0; i < count; i++) {
        if (numbers[i] != partition)
            continue;
        (void)snprintf(name, sizeof(name), "p%u", partition);
        set_file(ret, folder, name);
        return holds_files(ret->type) ? 0 : refuse(ret, err);
    }
    return count ? error_set(err, ENOENT, "it has no partition %u", partition)
                 : error_set(err, ENOENT, "it has no partitions that are known");
}

bool disk_files_find_program(const char *program, char *ret)
{
    char folders[4096];
    const char *path = getenv("PATH");
    char *rest = folders;
    char *folder;

    (void)snprintf(folders, sizeof(folders), "%s:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin");
    while ((folder = strsep(&rest, ":"))) {
        (void)snprintf(ret, PATH_MAX, "%s/%s", folder, program);
        if (folder[0] == '/' && !access(ret, X_OK))
            return true;
    }
    return false;
}

static int start(char *const *argv, struct disk_files_job *job, struct error *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none;

    (void)sigemptyset(&none);
    if (posix_spawn_file_actions_init(&actions))
        return error_set(err, ENOMEM, "out of memory");
    int r = posix_spawnattr_init(&attr);
    if (!r) { /* the caller's signals are blocked; the program's are not to be */
        r = posix_spawnattr_setsigmask(&attr, &none);
        r = r ? r : posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
        r = r ? r : posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
        r = r ? r : posix_spawn_file_actions_adddup2(&actions, job->log[0], 1);
        r = r ? r : posix_spawn_file_actions_adddup2(&actions, job->log[1], 2);
        r = r ? r : posix_spawn(&job->pid, argv[0], &actions, &attr, argv, environ);
        (void)posix_spawnattr_destroy(&attr); /* cannot fail */
    }
    (void)posix_spawn_file_actions_destroy(&actions); /* cannot fail */
    return r ? error_set(err, r, "cannot start '%s': %s", argv[0], strerror(r)) : 0;
}

int disk_files_prepare(const struct disk_files *f, struct disk_files_job *job, struct error *err)
{
    char program[PATH_MAX];
    char *argv[] = {program,         (char *)"-p", (char *)"-E", (char *)"journal_only",
                    (char *)f->path, NULL};

    job->pid = 0;
    if (strcmp(f->type, "ext4") != 0 || !disk_files_find_program("e2fsck", program))
        return 0;
    return start(argv, job, err);
}

/** A loop device over @path that goes away with its last user, as a descriptor; -errno. */
static int open_loop(const char *path, char *ret_name, size_t size)
{
    cleanup(fd_closep) int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    cleanup(fd_closep) int file = open(path, O_RDWR | O_CLOEXEC);

    if (control < 0 || file < 0)
        return -errno;
    for (int tries = 0; tries < 10; tries++) { /* others take what is free, too */
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        struct loop_config config = {
            .fd = (uint32_t)file,
            .info.lo_flags = LO_FLAGS_AUTOCLEAR,
        };

        if (number < 0)
            return -errno;
        (void)snprintf(ret_name, size, "/dev/loop%d", number);
        cleanup(fd_closep) int fd = open(ret_name, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        if (!ioctl(fd, LOOP_CONFIGURE, &config))
            return fd_take(&fd);
        if (errno != EBUSY)
            return -errno;
    }
    return -EBUSY;
}

static int mount_by_kernel(const struct disk_files *f, const char *dir, struct error *err)
{
    char name[32];
    unsigned long flags = MS_NOSUID | MS_NODEV | (f->write ? 0 : MS_RDONLY);
    cleanup(fd_closep) int loop = open_loop(f->path, name, sizeof(name));

    if (loop < 0)
        return error_set(err, -loop, "cannot mount '%s': no loop device: %s", f->name,
                         strerror(-loop));
    if (!mount(name, dir, f->type, flags, NULL))
        return 0;
    if (errno == ENODEV)
        return error_set(err, ENODEV, "cannot mount '%s': this host's kernel does not know %s",
                         f->name, f->type);
    return error_set(err, errno, "cannot mount '%s' as %s: %s", f->name, f->type, strerror(errno));
}

int disk_files_mount(const struct disk_files *f, const char *dir, struct disk_files_job *job,
                     struct error *err)
{
    const struct driver *driver = find_driver(f->type);
    char program[PATH_MAX];

    job->pid = 0;
    if (driver && f->write && !driver->write)
        return error_set(err, EROFS, "'%s' is %s, which cannot be written to", f->name, f->type);
    if (driver && disk_files_find_program(driver->program, program)) {
        char *argv[] = {
            program,         (char *)"-o", (char *)(f->write ? driver->write : driver->read),
            (char *)f->path, (char *)dir,  NULL};
        return start(argv, job, err);
    }
    if (!geteuid())
        return mount_by_kernel(f, dir, err);
    if (!driver)
        return error_set(err, EPERM, "'%s' is %s, which only root can mount here", f->name,
                         f->type);
    return error_set(err, ENOENT, "'%s' is %s, which needs the program '%s' (package %s)", f->name,
                     f->type, driver->program, driver->package);
}
