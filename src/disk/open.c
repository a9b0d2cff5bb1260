/* Opening images: which format, which files they may name, and the chain below.
 *
 * Invariants:
 *  1. Only the image that the user named may have its format found by its beginning; a backing
 * image's format stands in the image above it.
 *  2. An image never makes us open a file that the options do not allow: what a name resolves to,
 * not the name, is looked at (openat2 within the image's folder).
 *  3. A chain holds no file twice.
 *
 * Threads: any.
 */
#include "base/fd.h"
#include "disk/disk_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/** The files seen so far, from the top down. */
struct chain_ids {
    dev_t dev[DISK_MAX_DEPTH];
    ino_t ino[DISK_MAX_DEPTH];
    unsigned count;
};

static void destroy_layer(struct disk *d)
{
    char *path = d->path;
    char *backing_path = d->backing_path;
    char *backing_format = d->backing_format;
    struct chain_map *map = d->map;

    d->ops->close(d);
    chain_map_free(map);
    free(path);
    free(backing_path);
    free(backing_format);
}

void disk_close(struct disk *d)
{
    while (d) {
        struct disk *below = d->below;

        destroy_layer(d);
        d = below;
    }
}

/** The folder that @path lies in, opened. */
static int open_folder(int dir_fd, const char *path, int *ret)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;

    if (n >= sizeof(folder))
        return -ENAMETOOLONG;
    memcpy(folder, path, n);
    folder[n] = 0;
    *ret = openat(dir_fd, slash ? (n ? folder : "/") : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return *ret < 0 ? -errno : 0;
}

/** Is @path, absolute, within the folder @dir_fd? Then where its part below the folder begins. */
static const char *part_below(int dir_fd, const char *path)
{
    char link[32];
    char folder[PATH_MAX];
    char real[PATH_MAX];
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", dir_fd);
    ssize_t n = readlink(link, folder, sizeof(folder) - 1);
    if (n <= 0 || !slash || slash - path >= PATH_MAX)
        return NULL;
    folder[n] = 0;
    (void)snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
    if (!realpath(*parent ? parent : "/", real) || strcmp(real, folder) != 0)
        return NULL;
    return slash + 1;
}

/** Open what an image names, by the rules. */
static int open_named(int dir_fd, enum disk_refs refs, const char *image, const char *name,
                      unsigned file_flags, struct file **ret, struct error *err)
{
    const char *inside = name;

    if (dir_fd < 0 || refs == DISK_REFS_NONE)
        return error_set(err, EPERM,
                         "disk '%s' names another file, '%s', which is not allowed here", image,
                         name);
    if (refs == DISK_REFS_ANY)
        return file_open(dir_fd, name, file_flags, ret, err);
    if (*name == '/') /* an absolute name of a neighbour is as good as a relative one */
        inside = part_below(dir_fd, name);
    struct error why = {0};
    int rc = inside ? file_open(dir_fd, inside, file_flags | FILE_BENEATH, ret, &why) : -EXDEV;
    if (rc == -EXDEV)
        return error_set(
            err, EPERM,
            "disk '%s' names '%s', a file outside of its own folder: allow any (refs) only if you trust the image",
            image, name);
    if (rc)
        return error_set(err, -rc, "%s (named by '%s')", error_text(&why), image);
    return 0;
}

static unsigned flags_for_file(unsigned flags)
{
    return (flags & DISK_READONLY ? 0 : FILE_WRITE) | (flags & DISK_DIRECT ? FILE_DIRECT : 0) |
           (flags & DISK_NO_LOCK ? FILE_NO_LOCK : 0) |
           (flags & DISK_LOCK_OVER ? FILE_LOCK_OVER : 0);
}

int disk_open_ref(const struct disk_open *open, const char *name, struct file **ret,
                  struct error *err)
{
    return open_named(open->dir_fd, open->refs, open->path ? open->path : "(image)", name,
                      flags_for_file(open->flags), ret, err);
}

static int add_id(struct chain_ids *ids, const struct file *file, struct error *err)
{
    struct stat st;

    if (file->fd < 0)
        return 0;
    if (fstat(file->fd, &st))
        return error_set(err, errno, "cannot examine disk '%s': %s", file->path, strerror(errno));
    for (unsigned i = 0; i < ids->count; i++) {
        if (ids->dev[i] == st.st_dev && ids->ino[i] == st.st_ino)
            return error_set(err, ELOOP,
                             "disk '%s' is its own backing image, directly or by others",
                             file->path);
    }
    if (ids->count == DISK_MAX_DEPTH)
        return error_set(err, ELOOP, "disk '%s': more than %d images upon each other", file->path,
                         DISK_MAX_DEPTH);
    ids->dev[ids->count] = st.st_dev;
    ids->ino[ids->count++] = st.st_ino;
    return 0;
}

/** One layer: takes @file in any case. */
static int open_layer(const struct disk_open *open, struct file *file,
                      const struct disk_format *format, struct disk **ret, struct error *err)
{
    struct disk *d = NULL;
    char *path = strdup(file->path);
    int rc = path ? format->open(open, file, &d, err) : error_set(err, ENOMEM, "out of memory");

    if (rc) {
        free(path);
        file_close(file);
        return rc;
    }
    d->format = format;
    d->path = path;
    if (!d->backing_path && format->find_backing && !(open->flags & DISK_NO_BACKING))
        rc = format->find_backing(open, d, &d->backing_path, err);
    if (rc)
        destroy_layer(d);
    else
        *ret = d;
    return rc;
}

static int find_backing_format(const struct disk *d, const struct disk_format **ret,
                               struct error *err)
{
    /* Formats whose backing images are always of the same format do not write it down: they set it.
     */
    if (!d->backing_format)
        return error_set(
            err, EINVAL,
            "disk '%s' does not say what format its backing image '%s' has, and it is not guessed: "
            "write it into the image with 'posada disk rebase -u -b %s -F FORMAT %s'",
            d->path, d->backing_path, d->backing_path, d->path);
    *ret = disk_format_find(d->backing_format);
    return *ret ? 0
                : error_set(
                      err, EINVAL,
                      "disk '%s' says that its backing image has format '%s', which is unknown",
                      d->path, d->backing_format);
}

/** Open the image that @above names; @dir_fd is above's folder, and becomes that of the new one. */
static int open_backing(struct disk *above, int *dir_fd, unsigned flags,
                        const struct disk_options *options, struct chain_ids *ids,
                        struct disk **ret, struct error *err)
{
    const struct disk_format *format = NULL;
    struct file *file = NULL;
    int folder = -1;
    int rc = find_backing_format(above, &format, err);

    if (!rc)
        rc = open_named(*dir_fd, options->refs, above->path, above->backing_path,
                        flags_for_file(flags), &file, err);
    if (rc)
        return rc;
    rc = add_id(ids, file, err);
    if (!rc) {
        rc = open_folder(*dir_fd, above->backing_path, &folder);
        if (rc)
            (void)error_set(err, -rc, "cannot open the folder of '%s': %s", above->backing_path,
                            strerror(-rc));
    }
    if (rc) {
        file_close(file);
        return rc;
    }
    struct disk_open open = {
        .path = file->path,
        .dir_fd = folder,
        .flags = flags,
        .refs = options->refs,
        .key_file = options->key_file,
    };
    rc = open_layer(&open, file, format, ret, err);
    if (rc) {
        fd_close(folder);
        return rc;
    }
    fd_close(*dir_fd);
    *dir_fd = folder;
    if (above->ops->match_below)
        rc = above->ops->match_below(above, *ret, err);
    if (rc)
        disk_close(*ret);
    return rc;
}

/** Everything below @top, which lies in folder @dir_fd (closed here). */
static int open_chain(struct disk *top, int dir_fd, unsigned flags,
                      const struct disk_options *options, struct chain_ids *ids, struct error *err)
{
    struct disk *d = top;
    int rc = 0;

    for (unsigned depth = 1; !rc && d->backing_path; depth++) {
        unsigned access = depth == options->write_depth ? 0 : DISK_READONLY;
        struct disk *below = NULL;

        rc = open_backing(d, &dir_fd, (flags & ~(unsigned)DISK_READONLY) | access, options, ids,
                          &below, err);
        if (!rc)
            d = d->below = below;
    }
    fd_close(dir_fd);
    return rc;
}

/** What is below @top and never changes becomes one map. */
static int resolve_chain(struct disk *top, struct error *err)
{
    if (top->below && top->below->below && chain_map_new(top->below, &top->map))
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

static int find_format(const char *name, struct file *file, const char *path,
                       const struct disk_format **ret, struct error *err)
{
    if (!name)
        return disk_probe(file, path, ret, err);
    *ret = disk_format_find(name);
    return *ret ? 0 : error_set(err, EINVAL, "disk format '%s' of '%s' is unknown", name, path);
}

static int add_snapshot_overlay(struct disk **d, bool readonly, struct error *err)
{
    struct disk *overlay = NULL;
    int rc = overlay_new(*d, &overlay, err);

    if (rc)
        return rc;
    overlay->readonly = readonly;
    *d = overlay;
    return 0;
}

/** Open the layer of @path itself; *@ret_dir_fd is its folder. */
static int open_top(const char *path, const struct disk_options *options, unsigned flags,
                    struct chain_ids *ids, int *ret_dir_fd, struct disk **ret, struct error *err)
{
    const struct disk_format *format = NULL;
    struct file *file = NULL;
    int dir_fd = -1;
    int rc = file_open(AT_FDCWD, path, flags_for_file(flags), &file, err);

    if (rc)
        return rc;
    rc = find_format(options->format, file, path, &format, err);
    if (!rc)
        rc = add_id(ids, file, err);
    if (!rc) {
        rc = open_folder(AT_FDCWD, path, &dir_fd);
        if (rc)
            (void)error_set(err, -rc, "cannot open the folder of '%s': %s", path, strerror(-rc));
    }
    if (rc) {
        file_close(file);
        return rc;
    }
    struct disk_open open = {
        .path = path,
        .dir_fd = dir_fd,
        .flags = flags,
        .refs = options->refs,
        .key_file = options->key_file,
    };
    rc = open_layer(&open, file, format, ret, err);
    if (rc)
        fd_close(dir_fd);
    else
        *ret_dir_fd = dir_fd;
    return rc;
}

int disk_open(const char *path, const struct disk_options *options, struct disk **ret,
              struct error *err)
{
    static const struct disk_options none;
    struct chain_ids ids = {.count = 0};
    struct disk *d = NULL;
    int dir_fd = -1;

    options = options ? options : &none;
    unsigned flags = options->flags & ~(unsigned)DISK_SNAPSHOT;
    if (options->flags & DISK_SNAPSHOT)
        flags |= DISK_READONLY;
    int rc = open_top(path, options, flags, &ids, &dir_fd, &d, err);
    if (rc)
        return rc;
    if (flags & DISK_NO_BACKING)
        fd_close(dir_fd);
    else
        rc = open_chain(d, dir_fd, flags, options, &ids, err);
    if (!rc && options->flags & DISK_SNAPSHOT)
        rc = add_snapshot_overlay(&d, options->flags & DISK_READONLY, err);
    if (!rc && !options->write_depth)
        rc = resolve_chain(d, err);
    if (rc)
        disk_close(d);
    else
        *ret = d;
    return rc;
}

int disk_open_file(struct file *file, const struct disk_format *format, unsigned flags,
                   struct disk *below, struct disk **ret, struct error *err)
{
    struct disk_open open = {.dir_fd = -1, .flags = flags, .refs = DISK_REFS_NONE};
    struct disk *d = NULL;
    char *path = strdup(file->path);
    int rc = path ? format->open(&open, file, &d, err) : error_set(err, ENOMEM, "out of memory");

    if (rc) {
        free(path);
        return rc;
    }
    d->format = format;
    d->path = path;
    d->below = below;
    *ret = d;
    return 0;
}
