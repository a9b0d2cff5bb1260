/* FUSE operations on open files. Data goes between the host's file and the guest's memory without
 * another copy.
 *
 * Only regular files are ever opened: the guest's kernel serves pipes, sockets and devices itself,
 * and opening one here could hang or reach hardware.
 *
 * Threads: any.
 */
#include "base/fd.h"
#include "base/iov.h"
#include "device/virtio/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/** Bytes one COPY_FILE_RANGE moves: the guest asks again, and the thread is not gone for long. */
#define COPY_MAX (64u << 20)

/** The guest's open flags that mean something here; Linux's generic values, which are the host's.
 */
static int host_flags(uint32_t flags)
{
    return (int)(flags & (O_ACCMODE | O_APPEND | O_TRUNC | O_DSYNC | O_SYNC)) | O_CLOEXEC;
}

int fs_reopen(const struct fs_inode *inode, int flags)
{
    char path[FS_PROC_PATH_MAX];

    if (inode->type != S_IFREG)
        return inode->type == S_IFDIR ? -EISDIR : inode->type == S_IFLNK ? -ELOOP : -ENXIO;
    int fd = open(fs_proc_path(inode->fd, path), flags | O_CLOEXEC | O_NOCTTY);
    return fd < 0 ? -errno : fd;
}

void fs_drop_privilege_bits(const struct fs_server *s, int fd)
{
    struct stat st;

    if (s->privileged && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
        (st.st_mode & (S_ISUID | S_ISGID)))
        (void)fchmod(fd, st.st_mode & 01777); /* a failure leaves it as it was */
}

/** What the guest is told of a new handle. */
static struct fuse_open_out opened(struct fs_request *r, struct fs_inode *inode, int fd,
                                   bool truncated)
{
    struct fuse_open_out out = {.open_flags = FOPEN_NOFLUSH | FOPEN_PARALLEL_DIRECT_WRITES};
    struct stat st;

    /* Cached pages stay good from one open to the next as long as nobody has changed the file. */
    if (!fstat(fd, &st) && fs_inode_is_unchanged(r->server, inode, &st) && !truncated)
        out.open_flags |= FOPEN_KEEP_CACHE;
    return out;
}

int fs_op_open(struct fs_request *r)
{
    const struct fuse_open_in *in = r->args;
    int flags = host_flags(in->flags);

    if ((flags & O_ACCMODE) == O_ACCMODE)
        return -EINVAL;
    if (r->server->readonly && ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC)))
        return -EROFS;
    int fd = fs_reopen(r->inode, flags);
    if (fd < 0)
        return fd;
    if ((flags & O_TRUNC) && (in->open_flags & FUSE_OPEN_KILL_SUIDGID))
        fs_drop_privilege_bits(r->server, fd);
    struct fuse_open_out out = opened(r, r->inode, fd, flags & O_TRUNC);
    int rc = fs_handle_new(r->server, fd, false, &out.fh);
    if (!rc && (rc = fs_reply(r, &out, sizeof(out))))
        (void)fs_handle_close(r->server, out.fh, false); /* just made, so it is there */
    return rc;
}

struct created {
    struct fuse_entry_out entry;
    struct fuse_open_out open;
};

/** Answer with the new file's node and handle; @fd is taken over. */
static int reply_created(struct fs_request *r, struct created *out, int fd)
{
    out->open = (struct fuse_open_out){.open_flags = FOPEN_NOFLUSH | FOPEN_PARALLEL_DIRECT_WRITES};
    int rc = fs_handle_new(r->server, fd, false, &out->open.fh);
    if (!rc && (rc = fs_reply(r, out, sizeof(*out))))
        (void)fs_handle_close(r->server, out->open.fh, false); /* as above */
    if (rc)
        fs_forget(r->server, out->entry.nodeid, 1);
    return rc;
}

/** Give a new file to the guest's user, with permissions @mode. */
static void give_file(struct fs_request *r, int fd, mode_t mode)
{
    struct stat parent;
    bool has_group = !fstat(r->inode->fd, &parent) && (parent.st_mode & S_ISGID);

    if (r->server->privileged) /* a failure leaves it the monitor's own, which is the safe side */
        (void)!fchown(fd, r->in.uid, has_group ? (gid_t)-1 : r->in.gid);
    if (r->work->masked)
        (void)fchmod(fd, mode); /* a failure leaves it with fewer permissions */
}

/** Open what is there under the name, by its node. */
static int open_existing(struct fs_request *r, const struct created *c, int flags)
{
    struct fs_inode *inode;
    int rc = fs_inode_get(r->server, c->entry.nodeid, &inode);

    if (rc)
        return rc;
    int fd = fs_reopen(inode, flags);
    fs_inode_put(r->server, inode);
    return fd;
}

int fs_op_create(struct fs_request *r)
{
    const struct fuse_create_in *in = r->args;
    int flags = host_flags(in->flags);
    struct created out;
    int rc;

    /* Always exclusive first: what is there already may be a link or a pipe, not to be opened by
     * name. */
    int fd = openat(r->inode->fd, r->name, flags | O_CREAT | O_EXCL | O_NOFOLLOW, in->mode & 0777);
    if (fd < 0 && (errno != EEXIST || (in->flags & O_EXCL)))
        return -errno;
    if (fd >= 0)
        give_file(r, fd, in->mode & 0777);
    rc = fs_lookup(r->server, r->inode, r->name, &out.entry);
    if (rc) {
        fd_close(fd);
        return rc;
    }
    if (fd < 0)
        fd = open_existing(r, &out, flags);
    if (fd < 0) {
        fs_forget(r->server, out.entry.nodeid, 1);
        return fd;
    }
    return reply_created(r, &out, fd);
}

int fs_op_tmpfile(struct fs_request *r)
{
    const struct fuse_create_in *in = r->args;
    char path[FS_PROC_PATH_MAX];
    struct created out;
    int flags = host_flags(in->flags & ~(uint32_t)O_TRUNC);

    if ((flags & O_ACCMODE) == O_RDONLY)
        return -EINVAL;
    int fd = openat(r->inode->fd, ".", flags | O_TMPFILE, in->mode & 0777);
    if (fd < 0)
        return -errno;
    give_file(r, fd, in->mode & 0777);
    int path_fd = open(fs_proc_path(fd, path), O_PATH | O_CLOEXEC);
    int rc = path_fd < 0 ? -errno : fs_adopt(r->server, path_fd, &out.entry);
    if (rc) {
        fd_close(fd);
        return rc;
    }
    return reply_created(r, &out, fd);
}

int fs_op_read(struct fs_request *r)
{
    const struct fuse_read_in *in = r->args;
    size_t head = sizeof(struct fuse_out_header);
    struct fs_handle *h = fs_handle_get(r->server, in->fh, false);

    if (!h)
        return -EBADF;
    size_t room = r->out_size > head ? r->out_size - head : 0;
    unsigned n = iov_slice(r->work->iov, r->out, r->out_count, head, MIN((size_t)in->size, room));
    ssize_t got = preadv(h->fd, r->work->iov, (int)n, (off_t)in->offset);
    int rc = got < 0 ? -errno : 0;
    fs_handle_put(r->server, h);
    if (!rc)
        r->reply_size = (size_t)got;
    return rc;
}

int fs_op_write(struct fs_request *r)
{
    const struct fuse_write_in *in = r->args;
    size_t before = sizeof(r->in) + sizeof(*in);
    struct fs_handle *h;

    if (r->data_size - before < in->size)
        return -EINVAL;
    h = fs_handle_get(r->server, in->fh, false);
    if (!h)
        return -EBADF;
    unsigned n = iov_slice(r->work->iov, r->data, r->data_count, before, in->size);
    ssize_t got = pwritev(h->fd, r->work->iov, (int)n, (off_t)in->offset);
    int rc = got < 0 ? -errno : 0;
    if (!rc && h->privileged_bits && (in->write_flags & FUSE_WRITE_KILL_SUIDGID))
        fs_drop_privilege_bits(r->server, h->fd);
    fs_handle_put(r->server, h);
    if (rc)
        return rc;
    struct fuse_write_out out = {.size = (uint32_t)got};
    return fs_reply(r, &out, sizeof(out));
}

/** Nothing waits here: each WRITE has reached the host's page cache. */
int fs_op_flush(struct fs_request *r)
{
    return 0;
}

int fs_op_release(struct fs_request *r)
{
    const struct fuse_release_in *in = r->args;

    return fs_handle_close(r->server, in->fh, false);
}

int fs_op_fsync(struct fs_request *r)
{
    const struct fuse_fsync_in *in = r->args;
    struct fs_handle *h = fs_handle_get(r->server, in->fh, false);
    int rc = -EBADF;

    if (h)
        rc =
            (in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(h->fd) : fsync(h->fd)) ? -errno : 0;
    fs_handle_put(r->server, h);
    return rc;
}

int fs_op_fallocate(struct fs_request *r)
{
    const struct fuse_fallocate_in *in = r->args;
    struct fs_handle *h = fs_handle_get(r->server, in->fh, false);
    int rc = -EBADF;

    if (h)
        rc = fallocate(h->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) ? -errno : 0;
    fs_handle_put(r->server, h);
    return rc;
}

int fs_op_lseek(struct fs_request *r)
{
    const struct fuse_lseek_in *in = r->args;
    struct fuse_lseek_out out;
    struct fs_handle *h;

    if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
        return -EINVAL; /* the others are the guest's own affair */
    h = fs_handle_get(r->server, in->fh, false);
    if (!h)
        return -EBADF;
    off_t at = lseek(h->fd, (off_t)in->offset, (int)in->whence);
    int rc = at < 0 ? -errno : 0;
    fs_handle_put(r->server, h);
    out.offset = (uint64_t)at;
    return rc ? rc : fs_reply(r, &out, sizeof(out));
}

int fs_op_copy_file_range(struct fs_request *r)
{
    const struct fuse_copy_file_range_in *in = r->args;
    struct fs_handle *from = fs_handle_get(r->server, in->fh_in, false);
    struct fs_handle *to = fs_handle_get(r->server, in->fh_out, false);
    off_t from_at = (off_t)in->off_in;
    off_t to_at = (off_t)in->off_out;
    ssize_t got = -1;
    int rc = -EBADF;

    if (from && to) {
        got = copy_file_range(from->fd, &from_at, to->fd, &to_at, MIN(in->len, (uint64_t)COPY_MAX),
                              0);
        rc = got < 0 ? -errno : 0;
    }
    fs_handle_put(r->server, from);
    fs_handle_put(r->server, to);
    struct fuse_write_out out = {.size = (uint32_t)got};
    return rc ? rc : fs_reply(r, &out, sizeof(out));
}
