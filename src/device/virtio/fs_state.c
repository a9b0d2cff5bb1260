/* Saved state of the FUSE server: what the guest knows files by and has open, as paths within the
 * folder.
 *
 * At load each path is walked again below the folder, never through a symbolic link. What is no
 * longer there, or of another type, gets its number all the same: the guest is told ESTALE when it
 * uses it, and EBADF for an open file. A file whose name was gone already is lost in this way.
 *
 * Records, little-endian: inodes 8 number, 8 lookups, 2 type, 2 length of path, path; handles 8
 * number, 4 flags, 8 position, 1 is a folder, 2 length of path, path. Length 0: lost (the root is
 * not recorded).
 *
 * Threads: no request is under way. */
#include "base/fd.h"
#include "device/virtio/fs_internal.h"
#include "state/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INODE_HEAD   20u
#define HANDLE_HEAD  23u
#define RECORDS_MAX  (256u << 20)
#define HANDLE_FLAGS (O_ACCMODE | O_APPEND | O_DIRECT | O_NOATIME | O_SYNC | O_DSYNC)

struct buffer {
    uint8_t *data;
    size_t size, room;
    bool failed;
};

static uint8_t *extend(struct buffer *b, size_t size)
{
    if (size > b->room - b->size) {
        size_t room = MAX(b->room * 2, b->size + size);
        uint8_t *data = b->failed ? NULL : realloc(b->data, room);

        if (!data) {
            b->failed = true;
            return NULL;
        }
        b->data = data;
        b->room = room;
    }
    b->size += size;
    return b->data + b->size - size;
}

/** The path of @fd below the folder @root_path, or "" if it is not there (any more). */
static void find_path(const char *root_path, int fd, char ret[PATH_MAX])
{
    char link[FS_PROC_PATH_MAX];
    char path[PATH_MAX];
    struct stat by_name;
    struct stat itself;
    size_t n = strlen(root_path);
    ssize_t size = fd < 0 ? -1 : readlink(fs_proc_path(fd, link), path, sizeof(path) - 1);

    ret[0] = 0;
    if (size <= 0)
        return;
    path[size] = 0;
    if (!strcmp(root_path, "/"))
        n = 0;
    if (strncmp(path, root_path, n) != 0 || path[n] != '/' || lstat(path, &by_name) ||
        fstat(fd, &itself) || by_name.st_dev != itself.st_dev || by_name.st_ino != itself.st_ino)
        return;
    memcpy(ret, path + n + 1, (size_t)size - n); /* with the final NUL */
}

static void save_inode(const char *root_path, const struct fs_inode *i, struct buffer *b)
{
    char path[PATH_MAX];

    find_path(root_path, i->fd, path);
    size_t n = strlen(path);
    uint8_t *at = extend(b, INODE_HEAD + n);
    if (!at)
        return;
    store_le64(at, i->id);
    store_le64(at + 8, i->lookups);
    store_le16(at + 16, (uint16_t)i->type);
    store_le16(at + 18, (uint16_t)n);
    memcpy(at + INODE_HEAD, path, n);
}

static void save_handle(const char *root_path, const struct fs_handle *h, struct buffer *b)
{
    char path[PATH_MAX];

    find_path(root_path, h->fd, path);
    size_t n = strlen(path);
    uint8_t *at = extend(b, HANDLE_HEAD + n);
    if (!at)
        return;
    off_t position = h->directory ? lseek(h->fd, 0, SEEK_CUR) : 0;
    int flags = fcntl(h->fd, F_GETFL);
    store_le64(at, h->id);
    store_le32(at + 8, flags < 0 ? 0 : (uint32_t)flags & HANDLE_FLAGS);
    store_le64(at + 12, position < 0 ? 0 : (uint64_t)position);
    at[20] = h->directory;
    store_le16(at + 21, (uint16_t)n);
    memcpy(at + HANDLE_HEAD, path, n);
}

static int put(struct state_out *out, const char *name, struct buffer *b, struct error *err)
{
    bool good = !b->failed && b->size <= RECORDS_MAX;

    if (good)
        state_put_bytes(out, name, b->data, b->size);
    free(b->data);
    return good ? 0
                : error_set(
                      err, ENOMEM,
                      "the guest has too many files of a shared folder open, or memory is out");
}

int fs_server_save(struct fs_server *s, struct state_out *out, struct error *err)
{
    struct buffer inodes = {0};
    struct buffer handles = {0};
    char root_path[PATH_MAX];
    char link[FS_PROC_PATH_MAX];
    ssize_t size = readlink(fs_proc_path(s->root->fd, link), root_path, sizeof(root_path) - 1);

    if (size <= 0)
        return error_set(err, errno, "cannot find the shared folder: %s", strerror(errno));
    root_path[size] = 0;
    mutex_lock(&s->lock);
    state_put_u64(out, "started", s->started);
    state_put_u64(out, "kill_privileges", s->can_kill_privileges);
    state_put_u64(out, "inode_generation", fs_table_next_generation(&s->inodes));
    state_put_u64(out, "handle_generation", fs_table_next_generation(&s->handles));
    for (uint32_t n = 1; n < s->inodes.count; n++) {
        struct fs_inode *i = s->inodes.slots[n].item;

        if (i && i != s->root && !fs_inode_open(s, i)) /* one that cannot be opened is lost */
            save_inode(root_path, i, &inodes);
        else if (i && i != s->root)
            save_inode(
                root_path,
                &(struct fs_inode){.id = i->id, .lookups = i->lookups, .type = i->type, .fd = -1},
                &inodes);
    }
    for (uint32_t n = 1; n < s->handles.count; n++) {
        if (s->handles.slots[n].item)
            save_handle(root_path, s->handles.slots[n].item, &handles);
    }
    mutex_unlock(&s->lock);
    int rc = put(out, "inodes", &inodes, err);
    int rc2 = put(out, "handles", &handles, err);
    return rc ? rc : rc2;
}

/* --- Loading --- */

/** Open @path below the folder: fd or -errno. */
static int open_below(const struct fs_server *s, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    int fd = (int)syscall(SYS_openat2, s->root->fd, path, &how, sizeof(how));

    return fd < 0 ? -errno : fd;
}

/** A path out of a record, as a string: false if it holds a NUL. */
static bool take_path(const uint8_t *from, size_t size, char ret[PATH_MAX])
{
    if (size >= PATH_MAX || memchr(from, 0, size))
        return false;
    memcpy(ret, from, size);
    ret[size] = 0;
    return true;
}

static int load_inode(struct fs_server *s, const struct state_section *section,
                      const uint8_t *record, const char *path, struct error *err)
{
    mode_t type = load_le16(record + 16) & S_IFMT;
    struct stat st = {.st_mode = type};
    int fd = *path ? open_below(s, path, O_PATH | O_NOFOLLOW) : -1;

    if (fd >= 0 && (fstat(fd, &st) || (st.st_mode & S_IFMT) != type)) {
        fd_close(fd);
        fd = -1;
        st = (struct stat){.st_mode = type};
    }
    int rc = fs_inode_restore(s, load_le64(record), load_le64(record + 8), fd, &st);
    return rc ? state_bad(section, err, "inode %llu: %s", (unsigned long long)load_le64(record),
                          strerror(-rc))
              : 0;
}

static int load_handle(struct fs_server *s, const struct state_section *section,
                       const uint8_t *record, const char *path, struct error *err)
{
    bool directory = record[20];
    uint32_t saved = load_le32(record + 8) & HANDLE_FLAGS;
    int flags = directory ? O_RDONLY | O_DIRECTORY : (int)saved | O_NONBLOCK;
    struct stat st;

    if (s->readonly && (saved & O_ACCMODE) != O_RDONLY)
        return state_bad(section, err, "a file open for writing in a folder that is read-only");
    int fd = *path ? open_below(s, path, flags | O_NOFOLLOW) : -1;
    if (fd < 0)
        return 0; /* lost: its number finds nothing */
    if (fstat(fd, &st) || !(directory ? S_ISDIR(st.st_mode) : S_ISREG(st.st_mode)) ||
        (directory && lseek(fd, (off_t)load_le64(record + 12), SEEK_SET) < 0)) {
        fd_close(fd);
        return 0;
    }
    int rc = fs_handle_restore(s, load_le64(record), fd, directory);
    return rc ? state_bad(section, err, "handle %llu: %s", (unsigned long long)load_le64(record),
                          strerror(-rc))
              : 0;
}

typedef int load_record(struct fs_server *s, const struct state_section *section,
                        const uint8_t *record, const char *path, struct error *err);

static int load_records(struct fs_server *s, const struct state_section *section, const char *name,
                        size_t head, load_record *load, struct error *err)
{
    const uint8_t *at;
    size_t left;
    int rc = state_get_bytes(section, name, RECORDS_MAX, &at, &left, err);

    while (!rc && left) {
        char path[PATH_MAX];

        if (left < head || load_le16(at + head - 2) > left - head ||
            !take_path(at + head, load_le16(at + head - 2), path))
            return state_bad(section, err, "a record of '%s' is cut off", name);
        rc = load(s, section, at, path, err);
        size_t size = head + load_le16(at + head - 2);
        at += size;
        left -= size;
    }
    return rc;
}

int fs_server_load(struct fs_server *s, const struct state_section *section, struct error *err)
{
    uint64_t started = 0;
    uint64_t kill = 0;
    uint64_t inode_generation = 0;
    uint64_t handle_generation = 0;
    int rc = state_get_u64(section, "started", &started, err);

    if (!rc)
        rc = state_get_u64(section, "kill_privileges", &kill, err);
    if (!rc)
        rc = state_get_u64(section, "inode_generation", &inode_generation, err);
    if (!rc)
        rc = state_get_u64(section, "handle_generation", &handle_generation, err);
    if (!rc)
        rc = load_records(s, section, "inodes", INODE_HEAD, load_inode, err);
    if (!rc)
        rc = load_records(s, section, "handles", HANDLE_HEAD, load_handle, err);
    mutex_lock(&s->lock);
    s->inodes.generation = (uint32_t)inode_generation;
    s->handles.generation = (uint32_t)handle_generation;
    fs_table_relink(&s->inodes);
    fs_table_relink(&s->handles);
    s->started = started;
    s->can_kill_privileges = kill;
    mutex_unlock(&s->lock);
    return rc;
}
