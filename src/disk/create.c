/* Making images: options, and files that appear under their names only when they are whole.
 *
 * Each file is made as `.NAME.XXXXXX.part` in its folder, flushed, and renamed at the end, the main
 * one last. A failure removes what was made.
 *
 * Threads: any.
 */
#include "base/fd.h"
#include "base/opt.h"
#include "disk/disk_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define FILES_MAX 4096

struct one_file {
    char *name; /* final */
    char temporary[NAME_MAX + 1];
    struct file *file; /* NULL once closed */
};

struct disk_files {
    int dir_fd;
    bool force;
    struct one_file *v;
    unsigned count;
};

static int temporary_name(const char *name, char *buf, size_t size)
{
    uint32_t nonce;

    if (getrandom(&nonce, sizeof(nonce), 0) != sizeof(nonce))
        return -errno;
    return snprintf(buf, size, ".%s.%08x.part", name, nonce) < (int)size ? 0 : -ENAMETOOLONG;
}

/** Is there something at @name that is in the way? */
static int check_absent(const struct disk_files *files, const char *name, struct error *err)
{
    struct stat st;

    if (fstatat(files->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT
                   ? 0
                   : error_set(err, errno, "cannot examine '%s': %s", name, strerror(errno));
    if (!files->force)
        return error_set(err, EEXIST, "'%s' exists already: --force replaces it", name);
    if (!S_ISREG(st.st_mode))
        return error_set(err, EEXIST, "'%s' exists and is not a regular file", name);
    /* A disk in use must not be pulled from under its user: opening it for writing tells. */
    struct file *old = NULL;
    int rc = file_open(files->dir_fd, name, FILE_WRITE, &old, err);
    file_close(old);
    return rc;
}

int disk_files_add(struct disk_files *files, const char *name, struct file **ret, struct error *err)
{
    if (files->count == FILES_MAX)
        return error_set(err, EINVAL, "an image of more than %d files", FILES_MAX);
    if (files->dir_fd < 0)
        return error_set(err, EINVAL, "an image of several files cannot be made here");
    int rc = check_absent(files, name, err);
    if (rc)
        return rc;
    struct one_file *v = realloc(files->v, (files->count + 1) * sizeof(*v));
    if (!v)
        return error_set(err, ENOMEM, "out of memory");
    files->v = v;
    struct one_file *f = &v[files->count];
    *f = (struct one_file){.name = strdup(name)};
    if (!f->name)
        return error_set(err, ENOMEM, "out of memory");
    rc = temporary_name(name, f->temporary, sizeof(f->temporary));
    if (rc)
        (void)error_set(err, -rc, "cannot make a temporary name for '%s': %s", name, strerror(-rc));
    else
        rc = file_open(files->dir_fd, f->temporary, FILE_WRITE | FILE_CREATE, &f->file, err);
    if (rc) {
        free(f->name);
        return rc;
    }
    files->count++;
    *ret = f->file;
    return 0;
}

const char *disk_files_name(const struct disk_files *files)
{
    return files->v[0].name;
}

/** Flush all, then give them their names. */
static int commit(struct disk_files *files, struct error *err)
{
    for (unsigned i = 0; i < files->count; i++) {
        int rc = file_flush(files->v[i].file);

        if (rc)
            return error_set(err, -rc, "cannot write '%s': %s", files->v[i].name, strerror(-rc));
    }
    for (unsigned i = files->count; i-- > 0;) {
        struct one_file *f = &files->v[i];
        int rc = renameat2(files->dir_fd, f->temporary, files->dir_fd, f->name,
                           files->force ? 0 : RENAME_NOREPLACE)
                     ? -errno
                     : 0;

        if (rc == -EINVAL &&
            !files->force) /* a file system without RENAME_NOREPLACE: link() refuses as well */
            rc = linkat(files->dir_fd, f->temporary, files->dir_fd, f->name, 0) ? -errno : 0;
        if (rc)
            return error_set(err, -rc, "cannot name the new file '%s': %s", f->name, strerror(-rc));
    }
    (void)fsync(files->dir_fd); /* a file system that cannot has nothing to flush */
    return 0;
}

static void files_done(struct disk_files *files)
{
    for (unsigned i = 0; i < files->count; i++) {
        file_close(files->v[i].file);
        (void)unlinkat(files->dir_fd, files->v[i].temporary, 0); /* gone already if all went well */
        free(files->v[i].name);
    }
    free(files->v);
    fd_close(files->dir_fd);
}

/** Is every -o value one of the format's? */
static int check_values(const struct disk_format *format, const struct disk_create *create,
                        struct error *err)
{
    for (const struct disk_create_value *v = create->values; v && v->name; v++) {
        const struct disk_create_option *o = format->options;

        while (o && o->name && strcmp(o->name, v->name) != 0)
            o++;
        if (!o || !o->name)
            return error_set(err, EINVAL, "%s disks have no option '%s'", format->title, v->name);
    }
    return 0;
}

/** Create on a block device: raw needs nothing, others are written onto it. */
static int open_folder_of(const char *path, const char **ret_name, int *ret_fd, struct error *err)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');

    *ret_name = slash ? slash + 1 : path;
    if (!**ret_name)
        return error_set(err, EINVAL, "'%s' names a folder, not a file", path);
    if (slash - path >= (ptrdiff_t)sizeof(folder))
        return error_set(err, ENAMETOOLONG, "the path '%.100s...' is too long", path);
    (void)snprintf(folder, sizeof(folder), "%.*s", slash ? (int)MAX(slash - path, (ptrdiff_t)1) : 1,
                   slash ? path : ".");
    *ret_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd < 0
               ? error_set(err, errno, "cannot open folder '%s': %s", folder, strerror(errno))
               : 0;
}

int disk_create(const char *path, const struct disk_format *format,
                const struct disk_create *create, struct error *err)
{
    struct disk_files files = {.dir_fd = -1, .force = create->force};
    const char *name = NULL;
    struct file *file = NULL;

    if (!format->create)
        return error_set(err, ENOTSUP, "%s disks cannot be made", format->title);
    if (!create->size_bytes || create->size_bytes % DISK_SECTOR ||
        create->size_bytes > DISK_MAX_BYTES)
        return error_set(err, EINVAL, "a disk's size is a multiple of 512 bytes, from 512");
    int rc = check_values(format, create, err);
    if (!rc)
        rc = open_folder_of(path, &name, &files.dir_fd, err);
    if (!rc)
        rc = disk_files_add(&files, name, &file, err);
    if (!rc)
        rc = format->create(create, file, &files, err);
    if (!rc)
        rc = commit(&files, err);
    files_done(&files);
    return rc;
}

int disk_create_file(struct file *file, const struct disk_format *format,
                     const struct disk_create *create, struct error *err)
{
    struct one_file only = {.name = (char *)"disk", .file = file};
    struct disk_files files = {.dir_fd = -1, .v = &only, .count = 1};

    if (!format->create)
        return error_set(err, ENOTSUP, "%s disks cannot be made", format->title);
    int rc = check_values(format, create, err);
    return rc ? rc : format->create(create, file, &files, err);
}

const char *disk_create_get(const struct disk_create *c, const char *name)
{
    const char *value = NULL;

    for (const struct disk_create_value *v = c->values; v && v->name; v++) {
        if (!strcmp(v->name, name))
            value = v->value; /* the last one counts */
    }
    return value;
}

int disk_create_get_size(const struct disk_create *c, const char *name, uint64_t def, uint64_t *ret,
                         struct error *err)
{
    const char *text = disk_create_get(c, name);

    *ret = def;
    if (text && opt_parse_size(text, ret))
        return error_set(err, EINVAL, "option %s: expected a size such as 64K, not '%s'", name,
                         text);
    return 0;
}

int disk_create_get_bool(const struct disk_create *c, const char *name, bool def, bool *ret,
                         struct error *err)
{
    static const char *const yes[] = {"on", "true", "yes", "full"};
    static const char *const no[] = {"off", "false", "no"};
    const char *text = disk_create_get(c, name);

    *ret = def;
    if (!text)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
        if (!strcmp(text, yes[i])) {
            *ret = true;
            return 0;
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(no); i++) {
        if (!strcmp(text, no[i])) {
            *ret = false;
            return 0;
        }
    }
    return error_set(err, EINVAL, "option %s: expected on or off, not '%s'", name, text);
}

int disk_measure(const struct disk_format *format, const struct disk_create *create,
                 struct disk *source, uint64_t *ret_required, uint64_t *ret_full, struct error *err)
{
    uint64_t data = 0;
    struct disk_extent e;
    int rc = 0;

    for (uint64_t at = 0; source && !rc && at < source->size_bytes; at += e.size) {
        rc = disk_map(source, at, source->size_bytes - at, &e);
        if (!rc && (e.kind == DISK_DATA || e.kind == DISK_PACKED))
            data += e.size;
    }
    if (rc)
        return error_set(err, -rc, "cannot read '%s': %s", source->path, strerror(-rc));
    if (!format->measure) {
        *ret_required = data;
        *ret_full = create->size_bytes;
        return 0;
    }
    rc = format->measure(create, data, ret_required, err);
    return rc ? rc : format->measure(create, create->size_bytes, ret_full, err);
}
