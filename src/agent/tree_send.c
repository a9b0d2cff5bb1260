/* Sending a tree of files. See agent/tree.h.
 *
 * Invariants:
 *  1. Below the top nothing is followed: folders and files are opened relative to their folder,
 *     without links, so a tree that changes meanwhile cannot lead elsewhere.
 *  2. What the other end says in between ends the sending (-EPIPE).
 * One thread. */
#include "agent/tree.h"
#include "base/clock.h"
#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct sender {
    struct wire *w;
    const struct tree_options *o;
    struct tree_result *result;
    struct error *err;
    char path[PATH_MAX]; /* of the entry in hand, to be named in errors; cut off when too long */
};

static int send_entry(struct sender *s, int dir_fd, const char *name, unsigned depth);

static int fail(struct sender *s, const char *what, int code)
{
    return error_set(s->err, code, "cannot %s '%s': %s", what, s->path, strerror(code));
}

/** Let what was gathered go, once it is much, or in any case. */
static int flush(struct sender *s, bool all)
{
    if (!all && wire_pending(s->w) < WIRE_CHUNK)
        return 0;
    int rc = wire_flush_all(s->w, host_now_ns() + s->o->silence_ms * 1000000);
    if (wire_is_readable(s->w))
        return -EPIPE;
    if (rc)
        return error_set(s->err, -rc, "the connection has failed: %s", strerror(-rc));
    if (s->o->progress && s->o->progress(s->result, s->o->arg))
        return error_set(s->err, ECANCELED, "cancelled");
    return 0;
}

static int finish(struct sender *s, int rc)
{
    return rc ? error_set(s->err, -rc, "cannot send '%s': %s", s->path, strerror(-rc))
              : flush(s, false);
}

static int begin(struct sender *s, const char *type, const char *name, const struct stat *st,
                 const char *target)
{
    struct wire *w = s->w;

    wire_begin(w, WIRE_ENTRY);
    wire_field(w, "type", type);
    wire_field(w, "name", name);
    wire_field_int(w, "mode", st->st_mode & 07777);
    wire_field_int(w, "uid", st->st_uid);
    wire_field_int(w, "gid", st->st_gid);
    wire_field_int(w, "mtime", st->st_mtim.tv_sec);
    wire_field_int(w, "mtime_ns", st->st_mtim.tv_nsec);
    if (target)
        wire_field(w, "target", target);
    s->result->entries++;
    return finish(s, wire_end(w));
}

static int send_range(struct sender *s, int fd, off_t at, off_t end)
{
    while (at < end) {
        size_t want = (size_t)MIN(end - at, (off_t)WIRE_CHUNK);

        wire_begin(s->w, WIRE_DATA);
        void *p = wire_room(s->w, want);
        ssize_t n = p ? pread(fd, p, want, at) : 0;
        int code = n < 0 ? errno : 0;

        wire_grew(s->w, n > 0 ? (size_t)n : 0);
        int rc = wire_end(s->w);
        if (code)
            return fail(s, "read", code);
        if (!n && !rc)
            return 0; /* it has become shorter */
        at += n;
        s->result->bytes += (uint64_t)n;
        rc = finish(s, rc);
        if (rc)
            return rc;
    }
    return 0;
}

/** The data of a file without its holes. */
static int send_data(struct sender *s, int fd, off_t size)
{
    off_t at = 0;

    while (at < size) {
        off_t data = lseek(fd, at, SEEK_DATA);

        if (data < 0)
            data = errno == ENXIO ? size : at; /* a hole to the end; or it has no notion of holes */
        off_t end = data < size ? lseek(fd, data, SEEK_HOLE) : size;
        if (end <= data || end > size)
            end = size;
        int rc = data > at ? wire_add_int(s->w, WIRE_HOLE, "bytes", MIN(data, size) - at) : 0;
        rc = rc ? finish(s, rc) : send_range(s, fd, data, end);
        if (rc)
            return rc;
        at = end;
    }
    return 0;
}

static int send_file(struct sender *s, int fd, const char *name, const struct stat *st)
{
    int rc = begin(s, "file", name, st, NULL);

    if (!rc)
        rc = send_data(s, fd, st->st_size);
    return rc ? rc : finish(s, wire_add(s->w, WIRE_END, NULL, 0));
}

/** @fd is taken over. */
static int send_folder(struct sender *s, int fd, const char *name, const struct stat *st,
                       unsigned depth)
{
    DIR *dir = fdopendir(fd);
    size_t n = strlen(s->path);
    const struct dirent *e;
    int rc;

    if (!dir) {
        rc = fail(s, "read folder", errno);
        fd_close(fd);
        return rc;
    }
    rc = depth < TREE_NESTING_MAX
             ? begin(s, "folder", name, st, NULL)
             : error_set(s->err, ELOOP, "'%s' is too deep: %d folders", s->path, TREE_NESTING_MAX);
    while (!rc && (errno = 0, e = readdir(dir))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        (void)snprintf(s->path + n, sizeof(s->path) - n, "/%s", e->d_name); /* for errors only */
        rc = send_entry(s, dirfd(dir), e->d_name, depth + 1);
        s->path[n] = '\0';
    }
    if (!rc && errno)
        rc = fail(s, "read folder", errno);
    (void)closedir(dir); /* it was read to its end */
    return rc ? rc : finish(s, wire_add(s->w, WIRE_END, NULL, 0));
}

static int send_link(struct sender *s, int dir_fd, const char *name, const struct stat *st)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(dir_fd, name, target, sizeof(target) - 1);

    if (n < 0)
        return fail(s, "read link", errno);
    target[n] = '\0';
    return begin(s, "link", name, st, target);
}

/** @fd, a file or folder, is taken over. */
static int send_opened(struct sender *s, int fd, const char *name, unsigned depth)
{
    struct stat st;

    if (fstat(fd, &st)) {
        int rc = fail(s, "look at", errno);
        fd_close(fd);
        return rc;
    }
    if (S_ISDIR(st.st_mode))
        return send_folder(s, fd, name, &st, depth);
    int rc = S_ISREG(st.st_mode) ? send_file(s, fd, name, &st) : 0;
    s->result->left_out += !S_ISREG(st.st_mode);
    fd_close(fd);
    return rc;
}

static int send_entry(struct sender *s, int dir_fd, const char *name, unsigned depth)
{
    struct stat st;

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : fail(s, "look at", errno); /* it may go meanwhile */
    if (S_ISLNK(st.st_mode))
        return send_link(s, dir_fd, name, &st);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        s->result->left_out++;
        return 0;
    }
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return errno == ENOENT ? 0 : fail(s, "open", errno);
    return send_opened(s, fd, name, depth);
}

int tree_send(struct wire *w, const char *path, const struct tree_options *o,
              struct tree_result *ret, struct error *err)
{
    struct sender s = {.w = w, .o = o, .result = ret, .err = err};
    struct stat st;

    *ret = (struct tree_result){0};
    (void)snprintf(s.path, sizeof(s.path), "%s", path); /* for errors only */
    if (stat(path, &st))
        return fail(&s, "open", errno);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return error_set(err, EINVAL, "'%s' is neither a file nor a folder", path);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return fail(&s, "open", errno);
    /* The receiver knows under what name it wants the top. */
    int rc = send_opened(&s, fd, "top", 0);
    return rc ? rc : flush(&s, true);
}
