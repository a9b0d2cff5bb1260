/* Instances on disk: a folder $XDG_DATA_HOME/posada/instances/NAME with the files `disk`, `kernel`,
 * `initrd`, `append` (kernel arguments) and `image` (the name of the image it was made from, which
 * it no longer depends on).
 *
 * Invariants: (1) `image` is written last and removed first: a folder without it is an interrupted
 * creation or removal, and counts as absent; (2) who changes or runs an instance holds a lock on
 * .NAME.lock beside it, and deletes that when there is no instance; names cannot begin with a dot.
 * Any thread. */
#include "cli/instance.h"

#include "base/error.h"
#include "base/fd.h"
#include "image/image.h"
#include "image/paths.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

enum { SMALL_FILE_MAX = 4096, NAME_MAX_BYTES = 63 };

bool instance_name_is_valid(const char *name)
{
    size_t n = strlen(name);

    if (!n || n > NAME_MAX_BYTES || !isalnum((unsigned char)name[0]) ||
        !isalnum((unsigned char)name[n - 1]))
        return false;
    for (; *name; name++) {
        if (!isalnum((unsigned char)*name) && *name != '-' && *name != '.')
            return false;
    }
    return true;
}

static int set_paths(struct instance *in, const char *name, struct error *err)
{
    cleanup(freep) char *base = paths_data("instances", err);

    *in = (struct instance){.lock_fd = -1};
    if (!base)
        return -EIO;
    in->name = paths_format(err, "%s", name);
    in->dir = paths_format(err, "%s/%s", base, name);
    in->disk = paths_format(err, "%s/%s/disk", base, name);
    in->kernel = paths_format(err, "%s/%s/kernel", base, name);
    in->initrd = paths_format(err, "%s/%s/initrd", base, name);
    in->append = paths_format(err, "%s/%s/append", base, name);
    in->image = paths_format(err, "%s/%s/image", base, name);
    return in->name && in->dir && in->disk && in->kernel && in->initrd && in->append && in->image
               ? 0
               : -ENOMEM;
}

/** The text of a small file; NULL without an error when there is none. */
static int read_small(const char *path, char **ret, struct error *err)
{
    size_t size;

    return access(path, F_OK) ? 0 : paths_read(path, SMALL_FILE_MAX, ret, &size, err);
}

static int read_files(struct instance *in, struct error *err)
{
    int r = read_small(in->image, &in->made_from, err);

    return r || !in->made_from ? r : read_small(in->append, &in->append_text, err);
}

/** The path of its lock; the caller's. */
static char *lock_path(const struct instance *in, struct error *err)
{
    const char *name = strrchr(in->dir, '/') + 1;

    return paths_format(err, "%.*s.%s.lock", (int)(name - in->dir), in->dir, name);
}

int instance_peek(struct instance *in, const char *name, struct error *err)
{
    int r = set_paths(in, name, err);

    return r ? r : read_files(in, err);
}

int instance_open(struct instance *in, const char *name, struct error *err)
{
    int r = set_paths(in, name, err);

    if (r)
        return r;
    cleanup(freep) char *path = lock_path(in, err);
    if (!path)
        return -ENOMEM;
    in->lock_fd = fd_lock_file(path);
    if (in->lock_fd == -EWOULDBLOCK)
        return error_set(err, EBUSY, "'%s' is running already", name);
    if (in->lock_fd < 0)
        return error_set(err, -in->lock_fd, "cannot lock '%s': %s", path, strerror(-in->lock_fd));
    return read_files(in, err);
}

bool instance_is_running(const struct instance *in)
{
    cleanup(freep) char *path = lock_path(in, NULL);
    cleanup(fd_closep) int fd = path ? fd_lock_file(path) : -ENOMEM;

    return fd == -EWOULDBLOCK;
}

/** Copy file @from to the new file @to, sharing blocks where the file system can. */
static int copy_file(const char *from, const char *to, struct error *err)
{
    cleanup(fd_closep) int in = open(from, O_RDONLY | O_CLOEXEC);
    cleanup(fd_closep) int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    ssize_t n;

    if (in < 0 || out < 0)
        return error_set(err, errno, "cannot copy '%s' to '%s': %s", from, to, strerror(errno));
    do
        n = copy_file_range(in, NULL, out, NULL, 1 << 30, 0);
    while (n > 0);
    return n ? error_set(err, errno, "cannot copy '%s' to '%s': %s", from, to, strerror(errno)) : 0;
}

int instance_create(struct instance *in, const struct image *image, uint64_t disk_bytes,
                    struct error *err)
{
    (void)paths_remove(in->dir); /* of an interrupted creation */
    int r = paths_make(in->dir, err);

    if (!r)
        r = image_clone_disk(image, in->disk, disk_bytes, err);
    if (!r)
        r = copy_file(image->kernel, in->kernel, err);
    if (!r && image->initrd)
        r = copy_file(image->initrd, in->initrd, err);
    if (!r)
        r = paths_write(in->append, image->append, strlen(image->append), err);
    if (!r)
        r = paths_write(in->image, image->name, strlen(image->name), err);
    if (!r)
        r = read_files(in, err);
    if (r)
        (void)paths_remove(in->dir); /* what stays is absent to all: invariant 1 */
    return r;
}

int instance_grow(const struct instance *in, uint64_t disk_bytes, struct error *err)
{
    struct stat st;

    if (stat(in->disk, &st))
        return error_set(err, errno, "cannot open disk '%s': %s", in->disk, strerror(errno));
    if (disk_bytes < (uint64_t)st.st_size)
        return error_set(err, EINVAL, "the disk of '%s' has %" PRIu64 "M and cannot shrink",
                         in->name, (uint64_t)st.st_size >> 20);
    if (truncate(in->disk, (off_t)disk_bytes))
        return error_set(err, errno, "cannot grow disk '%s': %s", in->disk, strerror(errno));
    return 0;
}

int instance_remove(struct instance *in, struct error *err)
{
    if (unlink(in->image) && errno != ENOENT)
        return error_set(err, errno, "cannot remove '%s': %s", in->name, strerror(errno));
    int r = paths_remove(in->dir);
    return r ? error_set(err, -r, "cannot remove all of '%s': %s", in->name, strerror(-r)) : 0;
}

static int is_instance(const struct dirent *e)
{
    return instance_name_is_valid(e->d_name);
}

int instance_list(char ***ret, size_t *ret_n, struct error *err)
{
    cleanup(freep) char *base = paths_data("instances", err);
    struct dirent **entries;

    if (!base)
        return -EIO;
    int n = scandir(base, &entries, is_instance, alphasort);
    if (n < 0)
        return error_set(err, errno, "cannot read folder '%s': %s", base, strerror(errno));
    char **names = calloc((size_t)n + 1, sizeof(*names));
    size_t kept = 0;
    for (int i = 0; i < n; i++) {
        cleanup(freep) char *image = paths_format(NULL, "%s/%s/image", base, entries[i]->d_name);
        if (names && image && !access(image, F_OK))
            names[kept++] = strdup(entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    if (!names)
        return error_set(err, ENOMEM, "out of memory");
    *ret = names;
    *ret_n = kept;
    return 0;
}

void instance_done(struct instance *in)
{
    cleanup(freep) char *lock =
        in->lock_fd >= 0 && access(in->dir, F_OK) ? lock_path(in, NULL) : NULL;

    if (lock)
        (void)unlink(lock); /* an empty file more does no harm */
    fd_close(in->lock_fd);
    free(in->name);
    free(in->dir);
    free(in->disk);
    free(in->kernel);
    free(in->initrd);
    free(in->append);
    free(in->image);
    free(in->made_from);
    free(in->append_text);
    *in = (struct instance){.lock_fd = -1};
}
