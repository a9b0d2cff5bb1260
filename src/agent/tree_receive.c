/* Receiving a tree of files from somebody who is not believed. See agent/tree.h.
 *
 * Invariants:
 *  1. A name that comes in is one component, neither "." nor ".."; it is used relative to the
 *     open folder it belongs in, and nothing that it names is followed if it is a link.
 *  2. folders[0..depth) are open; folders[0] is the target's own folder, borrowed.
 *  3. A file is written under a name of its own and moved into place at its end: until then what
 *     was there stays, and when the stream breaks off the new name goes.
 * One thread. */
#include "agent/tree.h"
#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

struct meta {
    char name[256];
    unsigned mode;
    uid_t uid;
    gid_t gid;
    struct timespec mtime;
};

struct folder {
    int fd;
    bool is_new;
    struct meta meta;
};

struct receiver {
    struct wire *w;
    const struct tree_target *target;
    const struct tree_options *o;
    struct tree_result *result;
    struct error *err;
    struct folder folders[TREE_NESTING_MAX + 1];
    unsigned depth;
    bool complete; /* the top entry is */
    int file_fd;   /* -1 between files */
    uint64_t file_at;
    struct meta file;
    char temp[32]; /* its name until it is complete */
};

static int fail(struct receiver *r, const char *what, const char *name, int code)
{
    return error_set(r->err, code, "cannot %s '%s': %s", what, name, strerror(code));
}

static int broken(struct receiver *r, const char *what)
{
    return error_set(r->err, EPROTO, "the other end breaks the protocol: %s", what);
}

static int dir_of(const struct receiver *r)
{
    return r->folders[r->depth - 1].fd;
}

static bool is_component(const char *name)
{
    return *name && strlen(name) <= 255 && !strchr(name, '/') && strcmp(name, ".") &&
           strcmp(name, "..");
}

static int parse_meta(struct receiver *r, const struct wire_frame *f, struct meta *ret)
{
    int64_t mode, uid, gid, sec, ns;
    const char *name = wire_find(f, "name");

    if (!name || !is_component(name))
        return broken(r, "an entry without a proper name");
    if (r->depth == 1)
        name = r->target->name;
    if (wire_find_int(f, "mode", 0, 07777, 0644, &mode) ||
        wire_find_int(f, "uid", 0, UINT32_MAX - 1, 0, &uid) ||
        wire_find_int(f, "gid", 0, UINT32_MAX - 1, 0, &gid) ||
        wire_find_int(f, "mtime", INT64_MIN, INT64_MAX, 0, &sec) ||
        wire_find_int(f, "mtime_ns", 0, 999999999, 0, &ns))
        return broken(r, "an entry with impossible numbers");
    *ret = (struct meta){.uid = (uid_t)uid, .gid = (gid_t)gid};
    ret->mtime = (struct timespec){.tv_sec = sec, .tv_nsec = ns};
    ret->mode = r->o->keep_owners ? (unsigned)mode : mode & 0777; /* no set-id file of ours */
    (void)snprintf(ret->name, sizeof(ret->name), "%s", name);     /* is_component(): it fits */
    return 0;
}

/** Owner, mode, times, in this order: a new owner takes set-id bits away. Unless owners are kept,
 * the mode is what umask (or the folder) left of it when it was made. */
static int apply_meta(struct receiver *r, int fd, const struct meta *m)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, m->mtime};
    struct stat st;

    if (r->o->keep_owners && fchown(fd, m->uid, m->gid))
        return fail(r, "set the owner of", m->name, errno);
    if (fstat(fd, &st))
        return fail(r, "look at", m->name, errno);
    unsigned mode = r->o->keep_owners ? m->mode : st.st_mode & (m->mode | 07000);
    if (mode != (st.st_mode & 07777) && fchmod(fd, mode))
        return fail(r, "set the mode of", m->name, errno);
    if (futimens(fd, times) && errno != EINVAL && errno != EOVERFLOW)
        return fail(r, "set the time of", m->name, errno);
    return 0;
}

/** A name that nobody has, for what is not yet complete. */
static int make_temp_name(struct receiver *r)
{
    uint64_t random;

    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return fail(r, "create", r->file.name, errno);
    (void)snprintf(r->temp, sizeof(r->temp), ".posada-%016" PRIx64, random);
    return 0;
}

/** Move what is complete into place. Only files and links are replaced. */
static int move_into_place(struct receiver *r, const struct meta *m)
{
    struct stat st;

    if (!fstatat(dir_of(r), m->name, &st, AT_SYMLINK_NOFOLLOW) && !S_ISREG(st.st_mode) &&
        !S_ISLNK(st.st_mode))
        return error_set(r->err, EEXIST, "cannot replace '%s', which is no file", m->name);
    if (renameat(dir_of(r), r->temp, dir_of(r), m->name))
        return fail(r, "create", m->name, errno);
    r->temp[0] = '\0';
    return 0;
}

static int begin_file(struct receiver *r, const struct meta *m)
{
    r->file = *m;
    r->file_at = 0;
    int rc = make_temp_name(r);
    if (rc)
        return rc;
    r->file_fd = openat(dir_of(r), r->temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                        r->o->keep_owners ? 0600 : m->mode);
    if (r->file_fd < 0) {
        r->temp[0] = '\0';
        return fail(r, "create", m->name, errno);
    }
    return 0;
}

static int end_file(struct receiver *r)
{
    int rc = ftruncate(r->file_fd, (off_t)r->file_at) ? fail(r, "write", r->file.name, errno) : 0;

    if (!rc)
        rc = apply_meta(r, r->file_fd, &r->file);
    /* Some file systems tell only here that they have no room. */
    if (close(fd_take(&r->file_fd)) && !rc)
        rc = fail(r, "write", r->file.name, errno);
    return rc ? rc : move_into_place(r, &r->file);
}

static int make_link(struct receiver *r, const struct wire_frame *f, const struct meta *m)
{
    const char *target = wire_find(f, "target");
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, m->mtime};

    if (!target || !*target || strlen(target) >= PATH_MAX)
        return broken(r, "a link that leads nowhere");
    int rc = make_temp_name(r);
    if (rc)
        return rc;
    if (symlinkat(target, dir_of(r), r->temp)) {
        r->temp[0] = '\0';
        return fail(r, "create link", m->name, errno);
    }
    if (r->o->keep_owners && fchownat(dir_of(r), r->temp, m->uid, m->gid, AT_SYMLINK_NOFOLLOW))
        return fail(r, "set the owner of", m->name, errno);
    (void)utimensat(dir_of(r), r->temp, times,
                    AT_SYMLINK_NOFOLLOW); /* links have it where they can */
    return move_into_place(r, m);
}

static int begin_folder(struct receiver *r, const struct meta *m)
{
    if (r->depth > TREE_NESTING_MAX)
        return broken(r, "folders too deep");
    bool is_new = !mkdirat(dir_of(r), m->name, r->o->keep_owners ? 0700 : m->mode | 0700);
    if (!is_new && errno != EEXIST)
        return fail(r, "create folder", m->name, errno);
    int fd = openat(dir_of(r), m->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail(r, "open folder", m->name, errno);
    r->folders[r->depth++] = (struct folder){.fd = fd, .is_new = is_new, .meta = *m};
    return 0;
}

static int end_folder(struct receiver *r)
{
    struct folder *f = &r->folders[--r->depth];
    int rc = f->is_new || r->o->keep_owners ? apply_meta(r, f->fd, &f->meta) : 0;

    fd_close(f->fd);
    return rc;
}

static int take_entry(struct receiver *r, const struct wire_frame *f)
{
    struct meta m;
    const char *type = wire_has_fields(f) ? wire_find(f, "type") : NULL;

    if (!type || r->file_fd >= 0)
        return broken(r, "an entry where none can be");
    int rc = parse_meta(r, f, &m);
    if (rc)
        return rc;
    r->result->entries++;
    if (!strcmp(type, "file"))
        return begin_file(r, &m);
    if (!strcmp(type, "folder"))
        return begin_folder(r, &m);
    if (strcmp(type, "link"))
        return broken(r, "an entry of an unknown type");
    rc = make_link(r, f, &m);
    r->complete = r->depth == 1;
    return rc;
}

static int grow_file(struct receiver *r, uint64_t bytes)
{
    if (r->file_fd < 0)
        return broken(r, "data without a file");
    if (!checked_add(r->file_at, bytes, &r->file_at) || r->file_at > INT64_MAX)
        return broken(r, "a file without end");
    return 0;
}

static int take_data(struct receiver *r, const struct wire_frame *f)
{
    uint64_t at = r->file_at;
    int rc = grow_file(r, f->size);

    if (rc)
        return rc;
    r->result->bytes += f->size;
    if (r->o->max_bytes && r->result->bytes > r->o->max_bytes)
        return error_set(r->err, EFBIG, "there is more than the limit of %" PRIu64 " bytes",
                         r->o->max_bytes);
    rc = fd_pwrite_all(r->file_fd, f->body, f->size, (off_t)at);
    if (rc)
        return fail(r, "write", r->file.name, -rc);
    if (r->o->progress && r->o->progress(r->result, r->o->arg))
        return error_set(r->err, ECANCELED, "cancelled");
    return 0;
}

static int take_hole(struct receiver *r, const struct wire_frame *f)
{
    int64_t bytes;

    if (!wire_has_fields(f) || wire_find_int(f, "bytes", 1, INT64_MAX, 0, &bytes) || !bytes)
        return broken(r, "a hole without a size");
    return grow_file(r, (uint64_t)bytes);
}

static int take_end(struct receiver *r)
{
    if (r->file_fd < 0 && r->depth == 1)
        return broken(r, "an end of nothing");
    int rc = r->file_fd >= 0 ? end_file(r) : end_folder(r);
    r->complete = r->depth == 1;
    return rc;
}

static int take_frame(struct receiver *r, const struct wire_frame *f)
{
    switch (f->kind) {
    case WIRE_ENTRY:
        return take_entry(r, f);
    case WIRE_DATA:
        return take_data(r, f);
    case WIRE_HOLE:
        return take_hole(r, f);
    case WIRE_END:
        return take_end(r);
    case WIRE_ERROR:
        (void)wire_error_take(f, "the sender", r->err); /* the sentence is what counts */
        return -EREMOTEIO;
    case WIRE_REQUEST:
    case WIRE_REPLY:
    case WIRE_IN:
    case WIRE_OUT:
    case WIRE_ERR:
    case WIRE_CREDIT:
    case WIRE_SIGNAL:
    case WIRE_RESIZE:
    case WIRE_EXIT:
        break;
    }
    return broken(r, "a message that is no part of a tree");
}

int tree_receive(struct wire *w, const struct tree_target *t, const struct tree_options *o,
                 struct tree_result *ret, struct error *err)
{
    struct receiver *r = calloc(1, sizeof(*r));
    int rc = 0;

    if (!r)
        return error_set(err, ENOMEM, "out of memory");
    *ret = (struct tree_result){0};
    *r = (struct receiver){.w = w, .target = t, .o = o, .result = ret, .err = err, .file_fd = -1};
    r->folders[r->depth++].fd = t->dir_fd;
    while (!rc && !r->complete) {
        struct wire_frame f;

        rc = wire_recv(w, host_now_ns() + o->silence_ms * 1000000, &f);
        rc = rc ? error_set(err, -rc, "the connection has failed: %s", strerror(-rc))
                : take_frame(r, &f);
    }
    fd_close(r->file_fd);
    if (r->temp[0])
        (void)unlinkat(dir_of(r), r->temp, 0); /* an incomplete file; no more can be done */
    while (r->depth > 1)
        fd_close(r->folders[--r->depth].fd);
    free(r);
    return rc;
}
