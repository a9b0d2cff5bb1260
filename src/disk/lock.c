/* Locks on disk files, on the bytes that qemu uses, so that the two respect each other.
 *
 * For each permission i, a holder has a read lock on byte 100+i if it uses the permission, and on
 * byte 200+i if it does not let others use it. Somebody is in the way if he holds the opposite byte
 * of one of ours. All locks belong to the open file description (F_OFD_*), not to the process.
 */
#include "base/fd.h"
#include "disk/disk_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define USED_BASE   100
#define DENIED_BASE 200

/** Permission numbers. */
enum { PERM_READ = 0, PERM_WRITE = 1, PERM_RESIZE = 3, PERM_COUNT = 4 };

static bool is_busy(int rc)
{
    return rc == -EAGAIN || rc == -EACCES;
}

static int lock_byte(int fd, off_t at)
{
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

    return fcntl(fd, F_OFD_SETLK, &l) ? -errno : 0;
}

/** Does another opening hold byte @at? */
static bool is_locked(int fd, off_t at)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

    return !fcntl(fd, F_OFD_GETLK, &l) && l.l_type != F_UNLCK;
}

/** Has process @pid a locked descriptor of the file @want? The kernel does not say who holds a lock
 * of an open file description, but each descriptor tells of its own. */
static bool holds(const char *pid, const struct stat *want, int own_fd)
{
    char path[300];
    bool found = false;

    (void)snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
    DIR *dir = opendir(path);
    const struct dirent *e;
    while (dir && !found && (e = readdir(dir))) {
        struct stat st;
        char line[128];

        if (fstatat(dirfd(dir), e->d_name, &st, 0) || st.st_dev != want->st_dev ||
            st.st_ino != want->st_ino || (atoi(pid) == getpid() && atoi(e->d_name) == own_fd))
            continue;
        (void)snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.20s", pid, e->d_name);
        FILE *f = fopen(path, "re");
        while (f && !found && fgets(line, sizeof(line), f))
            found = !strncmp(line, "lock:", 5);
        if (f)
            (void)fclose(f); /* only read */
    }
    if (dir)
        (void)closedir(dir); /* only read */
    return found;
}

/** Who holds the lock; 0 = cannot be found out (another user's process). */
static int find_holder(int fd)
{
    struct stat st;
    int pid = 0;

    if (fstat(fd, &st))
        return 0;
    DIR *dir = opendir("/proc");
    const struct dirent *e;
    while (dir && !pid && (e = readdir(dir))) {
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9' && holds(e->d_name, &st, fd))
            pid = atoi(e->d_name);
    }
    if (dir)
        (void)closedir(dir); /* only read */
    return pid;
}

static int busy(int fd, const char *path, bool write, struct error *err)
{
    const char *what = write ? "exclusively" : "while nobody writes to it";
    int pid = find_holder(fd);

    if (pid == getpid())
        return error_set(err, EBUSY, "disk '%s' is given twice", path);
    if (pid)
        return error_set(err, EBUSY, "disk '%s' is in use by process %d, and is needed %s", path,
                         pid, what);
    return error_set(err, EBUSY, "disk '%s' is in use by another process, and is needed %s", path,
                     what);
}

int disk_lock(int fd, const char *path, bool write, bool check, struct error *err)
{
    static const bool writer_uses[PERM_COUNT] = {
        [PERM_READ] = true,
        [PERM_WRITE] = true,
        [PERM_RESIZE] = true,
    };
    static const bool denied[PERM_COUNT] = {[PERM_WRITE] = true, [PERM_RESIZE] = true};

    for (int i = 0; i < PERM_COUNT; i++) {
        bool uses = write ? writer_uses[i] : i == PERM_READ;
        int rc = uses ? lock_byte(fd, USED_BASE + i) : 0;

        if (!rc && denied[i])
            rc = lock_byte(fd, DENIED_BASE + i);
        if (rc)
            return is_busy(rc) ? busy(fd, path, write, err) : 0; /* no locks here: go without */
    }
    for (int i = 0; check && i < PERM_COUNT; i++) {
        bool uses = write ? writer_uses[i] : i == PERM_READ;

        if ((uses && is_locked(fd, DENIED_BASE + i)) || (denied[i] && is_locked(fd, USED_BASE + i)))
            return busy(fd, path, write, err);
    }
    return 0;
}
