/* XDG folders and small file helpers. Any thread. Spec: XDG Base Directory Specification 0.8. */
#include "base/paths.h"

#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

char *paths_format(struct error *err, const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;

    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    return s;
}

int paths_make(const char *path, struct error *err)
{
    cleanup(freep) char *copy = strdup(path);

    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    for (char *p = copy + 1;; p++) {
        char c = *p;

        if (c && c != '/')
            continue;
        *p = 0;
        if (mkdir(copy, 0755) && errno != EEXIST)
            return error_set(err, errno, "cannot make folder '%s': %s", copy, strerror(errno));
        *p = c;
        if (!c)
            return 0;
    }
}

/** The XDG variable's value if it is absolute (else it must be ignored), or the default. */
static char *xdg(const char *variable, const char *in_home, const char *for_root, const char *sub,
                 struct error *err)
{
    const char *value = getenv(variable), *home = getenv("HOME");
    cleanup(freep) char *path = NULL;

    if (value && value[0] == '/')
        path = paths_format(err, "%s/posada/%s", value, sub);
    else if (!geteuid())
        path = paths_format(err, "%s/posada/%s", for_root, sub);
    else if (home && home[0] == '/')
        path = paths_format(err, "%s/%s/posada/%s", home, in_home, sub);
    else
        error_set(err, ENOENT, "neither %s nor HOME names an absolute folder", variable);
    if (!path || paths_make(path, err))
        return NULL;
    return ptr_take(&path);
}

char *paths_data(const char *sub, struct error *err)
{
    return xdg("XDG_DATA_HOME", ".local/share", "/var/lib", sub, err);
}

char *paths_images(struct error *err)
{
    return paths_data("images", err);
}

char *paths_cache(const char *sub, struct error *err)
{
    return xdg("XDG_CACHE_HOME", ".cache", "/var/cache", sub, err);
}

char *paths_runtime(const char *sub, struct error *err)
{
    const char *value = getenv("XDG_RUNTIME_DIR");
    cleanup(freep) char *base = NULL;
    struct stat st;

    if (value && value[0] == '/')
        base = paths_format(err, "%s/posada", value);
    else if (!geteuid())
        base = paths_format(err, "/run/posada");
    else
        base = paths_format(err, "/tmp/posada-%u", (unsigned)geteuid());
    if (!base)
        return NULL;
    if (mkdir(base, 0700) && errno != EEXIST) {
        error_set(err, errno, "cannot make folder '%s': %s", base, strerror(errno));
        return NULL;
    }
    /* /tmp is everybody's: a folder that another made first is not ours */
    if (lstat(base, &st) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & (S_IWGRP | S_IWOTH))) {
        error_set(err, EPERM, "'%s' is not a folder that belongs to this user alone", base);
        return NULL;
    }
    cleanup(freep) char *path = paths_format(err, "%s/%s", base, sub);
    return path && !paths_make(path, err) ? ptr_take(&path) : NULL;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    return remove(path);
}

int paths_remove(const char *path)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
        return -errno;
    return 0;
}

uint64_t paths_usage(const char *dir)
{
    uint64_t total = 0;
    DIR *d = opendir(dir);

    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;

        if (!fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
            total += (uint64_t)st.st_blocks * 512;
    }
    if (d)
        closedir(d);
    return total;
}

int paths_read(const char *path, size_t max, char **ret, size_t *ret_size, struct error *err)
{
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st))
        return error_set(err, errno, "cannot open '%s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max)
        return error_set(err, EFBIG, "'%s' is larger than %zu bytes or not a file", path, max);
    cleanup(freep) char *data = malloc((size_t)st.st_size + 1);
    if (!data)
        return error_set(err, ENOMEM, "out of memory");
    int r = fd_read_all(fd, data, (size_t)st.st_size);
    if (r)
        return error_set(err, -r, "cannot read '%s': %s", path, strerror(-r));
    data[st.st_size] = 0;
    *ret = ptr_take(&data);
    *ret_size = (size_t)st.st_size;
    return 0;
}

int paths_sync_dir(const char *path, struct error *err)
{
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || (fsync(fd) && errno != EINVAL)) /* EINVAL: a file system that needs none */
        return error_set(err, errno, "cannot flush folder '%s': %s", path, strerror(errno));
    return 0;
}

static int write_file(const char *path, const void *data, size_t size, bool flush,
                      struct error *err)
{
    cleanup(freep) char *temp = paths_format(err, "%s.%d.part", path, (int)getpid());

    if (!temp)
        return -ENOMEM;
    cleanup(fd_closep) int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int r = fd < 0 ? -errno : fd_write_all(fd, data, size);
    if (!r && flush && fsync(fd))
        r = -errno;
    if (!r && rename(temp, path))
        r = -errno;
    if (r) {
        (void)unlink(temp); /* may not exist */
        return error_set(err, -r, "cannot write '%s': %s", path, strerror(-r));
    }
    return 0;
}

int paths_write(const char *path, const void *data, size_t size, struct error *err)
{
    return write_file(path, data, size, false, err);
}

int paths_write_safe(const char *path, const void *data, size_t size, struct error *err)
{
    int r = write_file(path, data, size, true, err);

    if (r)
        return r;
    const char *slash = strrchr(path, '/');
    cleanup(freep) char *dir =
        slash ? paths_format(err, "%.*s", (int)MAX(slash - path, (ptrdiff_t)1), path) : strdup(".");
    return dir ? paths_sync_dir(dir, err) : -ENOMEM;
}

int paths_check_room(const char *path, uint64_t bytes, struct error *err)
{
    struct statvfs fs;
    uint64_t room;

    if (statvfs(path, &fs) || !checked_mul((uint64_t)fs.f_bavail, (uint64_t)fs.f_frsize, &room) ||
        bytes <= room)
        return 0; /* what cannot be asked is found out by writing */
    return error_set(err, ENOSPC,
                     "No space left on device: %llu MiB are needed in '%s', which has %llu",
                     (unsigned long long)(bytes >> 20), path, (unsigned long long)(room >> 20));
}
