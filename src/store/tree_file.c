/* tree.json and the files that it names, in an instance's folder.
 *
 * The new content is written and flushed under another name before the moment of the change, which
 * is then a rename and a flush of the folder: short enough for a machine to stand still meanwhile.
 *
 * Threads: who holds the instance's lock; loading: any. */
#include "base/fd.h"
#include "store/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define NEW_FILE TREE_FILE ".new"

static int read_file(int fd, char **ret, size_t *ret_size, struct error *err)
{
    struct stat st;

    if (fstat(fd, &st))
        return error_set(err, errno, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size > (off_t)TREE_FILE_BYTES)
        return error_set(err, EINVAL, "it is no file of a sensible length");
    char *text = malloc((size_t)st.st_size + 1);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    int rc = fd_pread_all(fd, text, (size_t)st.st_size, 0);
    if (rc) {
        free(text);
        return error_set(err, -rc, "%s", strerror(-rc));
    }
    *ret = text;
    *ret_size = (size_t)st.st_size;
    return 0;
}

int tree_load(int dir_fd, struct tree **ret, struct error *err)
{
    cleanup(fd_closep) int fd = openat(dir_fd, TREE_FILE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct error why = {0};
    cleanup(freep) char *text = NULL;
    size_t size = 0;

    if (fd < 0)
        return error_set(err, errno, "%s: %s", TREE_FILE, strerror(errno));
    int rc = read_file(fd, &text, &size, &why);
    if (!rc)
        rc = tree_parse(text, size, ret, &why);
    return rc ? error_set(err, -rc, "%s: %s", TREE_FILE, error_text(&why)) : 0;
}

int tree_prepare(int dir_fd, const struct tree *t, struct error *err)
{
    cleanup(freep) char *text = NULL;
    size_t size = 0;
    int rc = tree_format(t, &text, &size, err);

    if (rc)
        return rc;
    cleanup(fd_closep) int fd =
        openat(dir_fd, NEW_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set(err, errno, "cannot make '%s': %s", NEW_FILE, strerror(errno));
    rc = fd_write_all(fd, text, size);
    if (!rc && fsync(fd))
        rc = -errno;
    if (!rc)
        return 0;
    tree_abandon(dir_fd);
    return error_set(err, -rc, "cannot write '%s': %s", NEW_FILE, strerror(-rc));
}

int tree_commit(int dir_fd, struct error *err)
{
    if (renameat(dir_fd, NEW_FILE, dir_fd, TREE_FILE))
        return error_set(err, errno, "cannot replace '%s': %s", TREE_FILE, strerror(errno));
    (void)fsync(dir_fd); /* done, for all who look; a file system that cannot flush a folder orders
                            it itself */
    return 0;
}

void tree_abandon(int dir_fd)
{
    (void)unlinkat(dir_fd, NEW_FILE, 0); /* at worst the next one replaces it */
}

int tree_store(int dir_fd, const struct tree *t, struct error *err)
{
    int rc = tree_prepare(dir_fd, t, err);

    return rc ? rc : tree_commit(dir_fd, err);
}

void tree_layer_path(char ret[TREE_PATH_BYTES], const char *id)
{
    (void)snprintf(ret, TREE_PATH_BYTES, "disks/%s.qcow2", id);
}

void tree_state_path(char ret[TREE_PATH_BYTES], const char *id)
{
    (void)snprintf(ret, TREE_PATH_BYTES, "states/%s.state", id);
}

static bool has_state(const struct tree *t, const char *id)
{
    for (size_t i = 0; i < t->snapshot_count; i++) {
        if (!strcmp(t->snapshots[i].point.state, id))
            return true;
    }
    return !strcmp(t->current.state, id);
}

/** Is the file @name, which ends in @suffix after an identifier, one that the tree names? */
static bool is_named(const struct tree *t, const char *name, const char *suffix)
{
    char id[TREE_ID_BYTES] = "";

    if (strlen(name) != TREE_ID_BYTES - 1 + strlen(suffix) ||
        strcmp(name + TREE_ID_BYTES - 1, suffix) != 0)
        return false;
    memcpy(id, name, TREE_ID_BYTES - 1);
    return strcmp(suffix, ".state") ? tree_find_layer(t, id) != NULL : has_state(t, id);
}

static int sweep_folder(int dir_fd, const char *folder, const char *suffix, const struct tree *t,
                        unsigned *count, struct error *err)
{
    int fd = openat(dir_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;
    int rc = 0;

    if (!dir) {
        rc = errno == ENOENT
                 ? 0
                 : error_set(err, errno, "cannot read folder '%s': %s", folder, strerror(errno));
        fd_close(fd);
        return rc;
    }
    while ((e = readdir(dir))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || is_named(t, e->d_name, suffix))
            continue;
        if (unlinkat(fd, e->d_name, 0) && errno != ENOENT)
            rc = error_set(err, errno, "cannot remove '%s/%s': %s", folder, e->d_name,
                           strerror(errno));
        else
            ++*count;
    }
    (void)closedir(dir); /* only read */
    return rc;
}

int tree_sweep(int dir_fd, const struct tree *t, unsigned *ret_count, struct error *err)
{
    unsigned count = 0;
    int rc = sweep_folder(dir_fd, "disks", ".qcow2", t, &count, err);

    if (!rc)
        rc = sweep_folder(dir_fd, "states", ".state", t, &count, err);
    if (!rc && ret_count)
        *ret_count = count;
    return rc;
}
