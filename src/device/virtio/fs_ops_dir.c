/* FUSE operations on open folders.
 *
 * Offsets the guest sees are the host file system's own. READDIRPLUS looks each entry up, so that a
 * long listing costs one request for some dozens of files and not one for each.
 *
 * Threads: any; a descriptor's position is under its handle's lock.
 */
#include "base/fd.h"
#include "device/virtio/fs_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/** What getdents64(2) stores; glibc names no type for it that is sure to be this one. */
struct host_dirent {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    uint8_t type;
    char name[];
};

int fs_op_opendir(struct fs_request *r)
{
    struct fuse_open_out out = {0};
    int fd = openat(r->inode->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int rc = fs_handle_new(r->server, fd, true, &out.fh);
    if (!rc && (rc = fs_reply(r, &out, sizeof(out))))
        (void)fs_handle_close(r->server, out.fh, true); /* just made, so it is there */
    return rc;
}

int fs_op_releasedir(struct fs_request *r)
{
    const struct fuse_release_in *in = r->args;

    return fs_handle_close(r->server, in->fh, true);
}

int fs_op_fsyncdir(struct fs_request *r)
{
    const struct fuse_fsync_in *in = r->args;
    struct fs_handle *h = fs_handle_get(r->server, in->fh, true);
    int rc = -EBADF;

    if (h)
        rc =
            (in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(h->fd) : fsync(h->fd)) ? -errno : 0;
    fs_handle_put(r->server, h);
    return rc;
}

/** An answer under construction. */
struct listing {
    struct fs_request *r;
    bool plus;
    size_t room;
    size_t size;
};

/** Append one entry. False: no room. */
static bool put_entry(struct listing *l, const struct host_dirent *e)
{
    struct fs_server *s = l->r->server;
    size_t name_size = strlen(e->name);
    size_t head = l->plus ? sizeof(struct fuse_direntplus) : sizeof(struct fuse_dirent);
    size_t size = align_up(head + name_size, sizeof(uint64_t));
    uint8_t *p = l->r->work->reply + l->size;
    struct fuse_direntplus plus = {0};

    if (size > l->room - l->size)
        return false;
    /* Node 0 means "not looked up": what is no entry of its own, and what has just gone or cannot
     * be had, of which the guest will hear when it asks by name. */
    if (l->plus && strcmp(e->name, ".") && strcmp(e->name, "..") &&
        fs_lookup(s, l->r->inode, e->name, &plus.entry_out))
        plus.entry_out = (struct fuse_entry_out){0};
    struct fuse_dirent d = {
        .ino = fs_ino(s, l->r->inode->dev, e->ino),
        .off = (uint64_t)e->off,
        .namelen = (uint32_t)name_size,
        .type = e->type,
    };
    memset(p, 0, size);
    if (l->plus) {
        memcpy(p, &plus.entry_out, sizeof(plus.entry_out));
        p += sizeof(plus.entry_out);
    }
    memcpy(p, &d, sizeof(d));
    memcpy(p + sizeof(d), e->name, name_size);
    l->size += size;
    return true;
}

/** Fill the answer from the descriptor's position on. */
static int list(struct listing *l, int fd)
{
    uint8_t *entries = l->r->work->entries;

    for (;;) {
        size_t want = MIN(sizeof(l->r->work->entries), MAX(l->room - l->size, (size_t)1024));
        long n = syscall(SYS_getdents64, fd, entries, want);

        if (n <= 0)
            return n < 0 && !l->size ? -errno : 0;
        for (long at = 0; at < n;) {
            const struct host_dirent *e = (const void *)(entries + at);

            if (!put_entry(l, e))
                return 0;
            at += e->reclen;
        }
    }
}

static int read_directory(struct fs_request *r, bool plus)
{
    const struct fuse_read_in *in = r->args;
    size_t head = sizeof(struct fuse_out_header);
    struct listing l = {
        .r = r,
        .plus = plus,
        .room = MIN((size_t)in->size, sizeof(r->work->reply)),
    };
    struct fs_handle *h;
    int rc = 0;

    if (r->out_size < head)
        return -EIO;
    l.room = MIN(l.room, r->out_size - head);
    h = fs_handle_get(r->server, in->fh, true);
    if (!h)
        return -EBADF;
    mutex_lock(&h->lock);
    /* The host's position is behind all that getdents64 returned, not behind what was passed on. */
    if (lseek(h->fd, (off_t)in->offset, SEEK_SET) < 0)
        rc = -errno;
    if (!rc)
        rc = list(&l, h->fd);
    mutex_unlock(&h->lock);
    fs_handle_put(r->server, h);
    return rc ? rc : fs_reply(r, r->work->reply, l.size);
}

int fs_op_readdir(struct fs_request *r)
{
    return read_directory(r, false);
}

int fs_op_readdirplus(struct fs_request *r)
{
    return read_directory(r, true);
}
