/* A folder in which an image is made before it takes its name.
 *
 * The folder `.NAME.part-XXXXXX` lies beside the image-to-be, so that its files are moved within
 * one file system. Formats that make several files name them in each other; in the folder those
 * names hold already.
 *
 * Invariant: without disk_stage_commit(), nothing stays. Threads: one. */
#include "base/fd.h"
#include "disk/file.h"
#include "disk/tool/tool.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct disk_stage {
    char *folder; /* heap: path of the folder */
    char *path;   /* heap: of the image in it */
    char *name;   /* heap: of the image */
    int parent_fd, folder_fd;
    enum disk_stage_mode mode;
};

/** Is there something called @name in the way? */
static int check_name(struct disk_stage *s, const char *name, struct error *err)
{
    struct file *old = NULL;
    struct stat st;

    if (fstatat(s->parent_fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT
                   ? 0
                   : error_set(err, errno, "cannot examine '%s': %s", name, strerror(errno));
    if (s->mode == DISK_STAGE_NEW)
        return error_set(err, EEXIST, "'%s' exists already: --force replaces it", name);
    if (!S_ISREG(st.st_mode))
        return error_set(err, EEXIST, "'%s' exists and is not a regular file", name);
    if (s->mode == DISK_STAGE_IN_PLACE)
        return 0;
    /* A disk in use must not be pulled from under its user: opening it for writing tells. */
    int rc = file_open(s->parent_fd, name, FILE_WRITE, &old, err);
    file_close(old);
    return rc;
}

static int make_folder(struct disk_stage *s, const char *parent, struct error *err)
{
    if (asprintf(&s->folder, "%s/.%s.part-XXXXXX", parent, s->name) < 0)
        s->folder = NULL;
    if (!s->folder)
        return error_set(err, ENOMEM, "out of memory");
    if (!mkdtemp(s->folder)) {
        int rc = error_set(err, errno, "cannot make a folder in '%s': %s", parent, strerror(errno));
        free(ptr_take(&s->folder));
        return rc;
    }
    s->folder_fd = open(s->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->folder_fd < 0)
        return error_set(err, errno, "cannot open '%s': %s", s->folder, strerror(errno));
    if (asprintf(&s->path, "%s/%s", s->folder, s->name) < 0)
        s->path = NULL;
    return s->path ? 0 : error_set(err, ENOMEM, "out of memory");
}

int disk_stage_new(const char *path, enum disk_stage_mode mode, struct disk_stage **ret,
                   struct error *err)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    struct disk_stage *s = calloc(1, sizeof(*s));
    cleanup(freep) char *parent =
        slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    int rc = 0;

    if (s)
        *s = (struct disk_stage){
            .parent_fd = -1, .folder_fd = -1, .mode = mode, .name = strdup(name)};
    if (!s || !parent || !s->name) {
        disk_stage_free(s);
        return error_set(err, ENOMEM, "out of memory");
    }
    if (!*name)
        rc = error_set(err, EINVAL, "'%s' names a folder, not a file", path);
    if (!rc)
        s->parent_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!rc && s->parent_fd < 0)
        rc = error_set(err, errno, "cannot open folder '%s': %s", parent, strerror(errno));
    if (!rc)
        rc = check_name(s, name, err);
    if (!rc)
        rc = make_folder(s, parent, err);
    if (rc)
        disk_stage_free(s);
    else
        *ret = s;
    return rc;
}

const char *disk_stage_path(const struct disk_stage *stage)
{
    return stage->path;
}

/** Call @fn for each file of the folder but the image itself. */
static int for_each_other(struct disk_stage *s,
                          int (*fn)(struct disk_stage *s, const char *name, struct error *err),
                          struct error *err)
{
    int fd = openat(s->folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;
    int rc = 0;

    if (!dir) {
        rc = error_set(err, errno, "cannot read folder '%s': %s", s->folder, strerror(errno));
        fd_close(fd);
        return rc;
    }
    while (!rc && (e = readdir(dir))) {
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && strcmp(e->d_name, s->name))
            rc = fn(s, e->d_name, err);
    }
    (void)closedir(dir); /* only read */
    return rc;
}

static int flush_one(struct disk_stage *s, const char *name, struct error *err)
{
    cleanup(fd_closep) int fd = openat(s->folder_fd, name, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fdatasync(fd))
        return error_set(err, errno, "cannot write '%s': %s", name, strerror(errno));
    return 0;
}

static int move_one(struct disk_stage *s, const char *name, struct error *err)
{
    if (!renameat2(s->folder_fd, name, s->parent_fd, name,
                   s->mode == DISK_STAGE_NEW ? RENAME_NOREPLACE : 0))
        return 0;
    if (errno == EINVAL && s->mode == DISK_STAGE_NEW && /* a file system without RENAME_NOREPLACE */
        !linkat(s->folder_fd, name, s->parent_fd, name, 0)) {
        (void)unlinkat(s->folder_fd, name, 0); /* else it goes with the folder */
        return 0;
    }
    if (errno == EEXIST)
        return error_set(err, EEXIST, "'%s' exists already: --force replaces it", name);
    return error_set(err, errno, "cannot name the new file '%s': %s", name, strerror(errno));
}

/** The new file gets mode and owner of the one that it replaces. */
static int keep_mode(struct disk_stage *s, struct error *err)
{
    struct stat st;

    if (fstatat(s->parent_fd, s->name, &st, AT_SYMLINK_NOFOLLOW))
        return error_set(err, errno, "cannot examine '%s': %s", s->name, strerror(errno));
    /* another's image: who may replace it may also become its owner */
    (void)fchownat(s->folder_fd, s->name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW);
    if (fchmodat(s->folder_fd, s->name, st.st_mode & 07777, 0))
        return error_set(err, errno, "cannot set the mode of '%s': %s", s->name, strerror(errno));
    return 0;
}

static int refuse_others(struct disk_stage *s, const char *name, struct error *err)
{
    return error_set(err, ENOTSUP, "'%s' is of several files, which cannot be replaced at once",
                     s->name);
}

int disk_stage_commit(struct disk_stage *stage, struct error *err)
{
    bool in_place = stage->mode == DISK_STAGE_IN_PLACE;
    int rc = for_each_other(stage, in_place ? refuse_others : check_name, err);

    if (!rc && in_place)
        rc = keep_mode(stage, err);
    if (!rc)
        rc = check_name(stage, stage->name, err);
    if (!rc)
        rc = for_each_other(stage, flush_one, err);
    if (!rc)
        rc = flush_one(stage, stage->name, err);
    if (!rc)
        rc = for_each_other(stage, move_one, err);
    if (!rc)
        rc = move_one(stage, stage->name, err);
    if (!rc)
        (void)fsync(stage->parent_fd); /* a file system that cannot has nothing to flush */
    return rc;
}

static int remove_one(struct disk_stage *s, const char *name, struct error *err)
{
    (void)err;
    (void)unlinkat(s->folder_fd, name, 0); /* what stays keeps the folder, and shows there */
    return 0;
}

void disk_stage_free(struct disk_stage *stage)
{
    if (!stage)
        return;
    if (stage->folder_fd >= 0) {
        (void)for_each_other(stage, remove_one, NULL); /* as above */
        (void)unlinkat(stage->folder_fd, stage->name, 0);
    }
    if (stage->folder)
        (void)rmdir(stage->folder);
    fd_close(stage->folder_fd);
    fd_close(stage->parent_fd);
    free(stage->folder);
    free(stage->path);
    free(stage->name);
    free(stage);
}
