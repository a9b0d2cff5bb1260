/* Bases: the raw disks of images that instances' layers lie on, in the folder DATA/bases.
 *
 * A base is a hard link to the image's disk (a copy, if that lies on another file system), so it
 * lasts as long as it is needed, whatever becomes of the image. Its name is made of the disk's
 * inode and time of change, so that all instances of one build share one. Nobody writes to it.
 *
 * Invariant: between the making of a base and of the tree that names it the bases' lock is held;
 * under that lock, a base that no tree names may go. Any thread. */
#include "base/fd.h"
#include "base/paths.h"
#include "store/store_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

enum { POLL_US = 20000, TREE_MAX_BYTES = 8 << 20 };

/** Copy [*@at, @end) by reading and writing: between file systems that know no other way. */
static int copy_bytes(int from, int to, loff_t *at, loff_t end)
{
    char buf[65536];

    while (*at < end) {
        ssize_t n = pread(from, buf, (size_t)MIN(end - *at, (loff_t)sizeof(buf)), *at);
        int r = n > 0 ? fd_pwrite_all(to, buf, (size_t)n, *at) : n ? -errno : -EIO;

        if (r)
            return r;
        *at += n;
    }
    return 0;
}

/** Copy the data of @from, of @size bytes, holes kept. */
static int copy_data(int from, int to, off_t size)
{
    off_t at = 0;

    while (at < size) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO) /* only a hole is left */
            break;
        data = data < 0 ? at : data;
        off_t end = lseek(from, data, SEEK_HOLE);
        end = end <= data ? size : end;
        loff_t in = data, out = data;
        while (in < end) {
            ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - in), 0);
            int r = n > 0 ? 0 : n ? copy_bytes(from, to, &in, end) : -EIO;
            if (r)
                return r;
            out = in;
        }
        at = end;
    }
    return ftruncate(to, size) ? -errno : 0;
}

int store_copy(const char *from, const char *to, struct error *err)
{
    struct stat st;

    cleanup(fd_closep) int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0 || fstat(in, &st))
        return error_set(err, errno, "cannot open '%s': %s", from, strerror(errno));
    cleanup(fd_closep) int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (out < 0)
        return error_set(err, errno, "cannot create '%s': %s", to, strerror(errno));
    int r = ioctl(out, FICLONE, in) ? copy_data(in, out, st.st_size) : 0;
    if (!r && fsync(out))
        r = -errno;
    return r ? error_set(err, -r, "cannot copy '%s' to '%s': %s", from, to, strerror(-r)) : 0;
}

int store_share(const char *from, const char *to, struct error *err)
{
    if (!linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW))
        return 0;
    return store_copy(from, to, err);
}

int store_lock_bases(struct error *err)
{
    cleanup(freep) char *bases = paths_data("bases", err);
    cleanup(freep) char *path = bases ? paths_format(err, "%s/.lock", bases) : NULL;
    int fd;

    if (!path)
        return -EIO;
    while ((fd = fd_lock_file(path)) == -EWOULDBLOCK)
        (void)usleep(POLL_US); /* held for milliseconds */
    return fd < 0 ? error_set(err, -fd, "cannot lock '%s': %s", path, strerror(-fd)) : fd;
}

int store_add_base(const char *from, char **ret, struct error *err)
{
    cleanup(freep) char *bases = paths_data("bases", err);
    struct stat st;

    if (!bases)
        return -EIO;
    if (stat(from, &st))
        return error_set(err, errno, "cannot open '%s': %s", from, strerror(errno));
    cleanup(freep) char *path =
        paths_format(err, "%s/%llx-%llx%08lx.raw", bases, (unsigned long long)st.st_ino,
                     (unsigned long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    cleanup(freep) char *part = paths_format(err, "%s/new.part", bases);
    if (!path || !part)
        return -ENOMEM;
    if (access(path, F_OK)) {
        (void)unlink(part); /* of a killed one: the lock is ours */
        int r = store_share(from, part, err);
        if (!r && rename(part, path))
            r = error_set(err, errno, "cannot create '%s': %s", path, strerror(errno));
        if (!r)
            r = paths_sync_dir(bases, err);
        if (r) {
            (void)unlink(part);
            return r;
        }
    }
    *ret = ptr_take(&path);
    return 0;
}

/** Append the trees of all instances' folders to @f. False: one cannot be read, so that nobody
 * knows what it needs. */
static bool collect_trees(FILE *f)
{
    cleanup(freep) char *instances = paths_data("instances", NULL);
    DIR *d = instances ? opendir(instances) : NULL;
    bool good = d != NULL;

    for (struct dirent *e; good && (e = readdir(d));) {
        cleanup(freep) char *path = paths_format(NULL, "%s/%s/tree.json", instances, e->d_name);
        cleanup(freep) char *text = NULL;
        size_t size;

        if (!path || access(path, F_OK))
            continue;
        good = !paths_read(path, TREE_MAX_BYTES, &text, &size, NULL) &&
               fwrite(text, 1, size, f) == size;
    }
    if (d)
        closedir(d);
    return good;
}

void store_sweep_bases(void)
{
    cleanup(freep) char *bases = paths_data("bases", NULL);
    cleanup(fd_closep) int lock = bases ? store_lock_bases(NULL) : -1;
    cleanup(freep) char *trees = NULL;
    size_t size = 0;

    if (lock < 0)
        return;
    FILE *f = open_memstream(&trees, &size);
    bool good = f && collect_trees(f);
    if (f && fclose(f))
        good = false;
    DIR *d = good ? opendir(bases) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        /* its name is like no other text of a tree: more than is needed stays at worst */
        if (e->d_name[0] != '.' && !memmem(trees, size, e->d_name, strlen(e->d_name)))
            (void)unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d)
        closedir(d);
}

int store_remove_rest(const char *dir)
{
    cleanup(freep) char *tree = paths_format(NULL, "%s/" TREE_FILE, dir);

    if (!tree)
        return -ENOMEM;
    (void)unlink(tree); /* it may not have got so far */
    store_sweep_bases();
    return paths_remove(dir);
}
