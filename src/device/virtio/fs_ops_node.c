/* FUSE operations on names and attributes.
 *
 * Owners: without privilege all that is made belongs to the user who runs the monitor, and changing
 * owners is refused by the host. With it, files belong to the guest's user who made them.
 * A guest never makes device nodes nor set-uid or set-gid programs: on the host they would give
 * away the rights of whoever owns the shared folder.
 *
 * Threads: any. The umask is 0 (fs.c), so modes are what the guest's kernel asked for; where a
 * thread cannot have one of its own, modes are set once more.
 */
#include "base/fd.h"
#include "device/virtio/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LINK_MAX_BYTES 4096u

static mode_t safe_mode(mode_t type, mode_t mode)
{
    return type == S_IFDIR ? mode & 07777 : mode & 01777;
}

int fs_op_lookup(struct fs_request *r)
{
    struct fuse_entry_out out;
    int rc = fs_lookup(r->server, r->inode, r->name, &out);

    if (rc)
        return rc;
    rc = fs_reply(r, &out, sizeof(out));
    if (rc)
        fs_forget(r->server, out.nodeid, 1);
    return rc;
}

static int reply_attr(struct fs_request *r)
{
    struct fuse_attr_out out = {.attr_valid = 1};
    struct stat st;

    if (fstat(r->inode->fd, &st))
        return -errno;
    fs_fill_attr(r->server, &st, &out.attr);
    return fs_reply(r, &out, sizeof(out));
}

int fs_op_getattr(struct fs_request *r)
{
    return reply_attr(r);
}

static int set_mode(struct fs_request *r, mode_t mode)
{
    char path[FS_PROC_PATH_MAX];

    if (r->inode->type == S_IFLNK)
        return -EOPNOTSUPP;
    return chmod(fs_proc_path(r->inode->fd, path), safe_mode(r->inode->type, mode)) ? -errno : 0;
}

static int set_owner(struct fs_request *r, const struct fuse_setattr_in *in)
{
    uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
    gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t)-1;

    return fchownat(r->inode->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int set_size(struct fs_request *r, const struct fuse_setattr_in *in)
{
    struct fs_handle *h = in->valid & FATTR_FH ? fs_handle_get(r->server, in->fh, false) : NULL;
    int fd = h ? h->fd : fs_reopen(r->inode, O_WRONLY);
    int rc;

    if (fd < 0)
        return fd;
    rc = in->size > INT64_MAX ? -EFBIG : ftruncate(fd, (off_t)in->size) ? -errno : 0;
    if (!rc && (in->valid & FATTR_KILL_SUIDGID))
        fs_drop_privilege_bits(r->server, fd);
    if (!h)
        fd_close(fd);
    fs_handle_put(r->server, h);
    return rc;
}

static struct timespec time_to_set(uint32_t valid, unsigned set, unsigned now, uint64_t sec,
                                   uint32_t nsec)
{
    if (valid & now)
        return (struct timespec){.tv_nsec = UTIME_NOW};
    if (valid & set)
        return (struct timespec){.tv_sec = (time_t)sec, .tv_nsec = nsec};
    return (struct timespec){.tv_nsec = UTIME_OMIT};
}

static int set_times(struct fs_request *r, const struct fuse_setattr_in *in)
{
    char path[FS_PROC_PATH_MAX];
    struct timespec t[2] = {
        time_to_set(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
        time_to_set(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec),
    };

    return utimensat(AT_FDCWD, fs_proc_path(r->inode->fd, path), t, 0) ? -errno : 0;
}

int fs_op_setattr(struct fs_request *r)
{
    const struct fuse_setattr_in *in = r->args;
    int rc = 0;

    if (in->valid & FATTR_MODE)
        rc = set_mode(r, in->mode);
    if (!rc && (in->valid & (FATTR_UID | FATTR_GID)))
        rc = set_owner(r, in);
    if (!rc && (in->valid & FATTR_SIZE))
        rc = set_size(r, in);
    if (!rc && (in->valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)))
        rc = set_times(r, in);
    return rc ? rc : reply_attr(r);
}

int fs_op_readlink(struct fs_request *r)
{
    char target[LINK_MAX_BYTES];
    ssize_t n = readlinkat(r->inode->fd, "", target, sizeof(target));

    return n < 0 ? -errno : fs_reply(r, target, (size_t)n);
}

/** Give what was just made as @name to the guest's user. Others on the host may have put something
 * else in its place: only what this user owns under one name is given away. */
static void give(struct fs_request *r, const char *name)
{
    gid_t gid = r->in.gid;
    struct stat parent;
    struct stat st;

    if (!r->server->privileged)
        return;
    cleanup(fd_closep) int fd = openat(r->inode->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || st.st_uid != geteuid() ||
        (!S_ISDIR(st.st_mode) && st.st_nlink != 1))
        return;
    if (!fstat(r->inode->fd, &parent) && (parent.st_mode & S_ISGID))
        gid = (gid_t)-1; /* it has the folder's group already */
    /* A failure leaves it the monitor's own, which is the safe side. */
    (void)!fchownat(fd, "", r->in.uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
}

/** Give a node the mode it was made with, of which the monitor's umask has taken a part. */
static void unmask(struct fs_request *r, struct fuse_entry_out *out, mode_t mode)
{
    char path[FS_PROC_PATH_MAX];
    struct fs_inode *inode;

    if (fs_inode_get(r->server, out->nodeid, &inode))
        return;
    mode |= out->attr.mode & S_ISGID; /* what a folder has from the one above */
    if (inode->type != S_IFLNK && !chmod(fs_proc_path(inode->fd, path), mode))
        out->attr.mode = inode->type | mode;
    fs_inode_put(r->server, inode);
}

/** What was just made as @name, with permissions @mode, is the answer. */
static int reply_made(struct fs_request *r, const char *name, mode_t mode)
{
    struct fuse_entry_out out;

    give(r, name);
    int rc = fs_lookup(r->server, r->inode, name, &out);
    if (rc)
        return rc;
    if (r->work->masked)
        unmask(r, &out, mode);
    rc = fs_reply(r, &out, sizeof(out));
    if (rc)
        fs_forget(r->server, out.nodeid, 1);
    return rc;
}

int fs_op_symlink(struct fs_request *r)
{
    if (strlen(r->name2) >= LINK_MAX_BYTES)
        return -ENAMETOOLONG;
    if (symlinkat(r->name2, r->inode->fd, r->name))
        return -errno;
    return reply_made(r, r->name, 0);
}

int fs_op_mknod(struct fs_request *r)
{
    const struct fuse_mknod_in *in = r->args;
    mode_t type = in->mode & S_IFMT;
    mode_t mode = safe_mode(type, in->mode);

    if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK)
        return -EPERM;
    if (mknodat(r->inode->fd, r->name, type | mode, 0))
        return -errno;
    return reply_made(r, r->name, mode);
}

int fs_op_mkdir(struct fs_request *r)
{
    const struct fuse_mkdir_in *in = r->args;
    mode_t mode = safe_mode(S_IFDIR, in->mode);

    if (mkdirat(r->inode->fd, r->name, mode))
        return -errno;
    return reply_made(r, r->name, mode);
}

static int remove_name(struct fs_request *r, int flags)
{
    fs_inode_pin(r->server, r->inode, r->name);
    if (!unlinkat(r->inode->fd, r->name, flags))
        return 0;
    int rc = -errno;
    fs_inode_moved(r->server, r->inode, r->name); /* it is still there */
    return rc;
}

int fs_op_unlink(struct fs_request *r)
{
    return remove_name(r, 0);
}

int fs_op_rmdir(struct fs_request *r)
{
    return remove_name(r, AT_REMOVEDIR);
}

static int rename_to(struct fs_request *r, uint64_t dir, unsigned flags)
{
    struct fs_inode *to;
    int rc;

    if (!fs_name_is_valid(r->name2))
        return strlen(r->name2) > 255 ? -ENAMETOOLONG : -EINVAL;
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    rc = fs_inode_get(r->server, dir, &to);
    if (rc)
        return rc;
    if (!(flags & RENAME_EXCHANGE))
        fs_inode_pin(r->server, to, r->name2);
    rc = renameat2(r->inode->fd, r->name, to->fd, r->name2, flags) ? -errno : 0;
    /* After a failure this restores what was pinned. */
    fs_inode_moved(r->server, to, r->name2);
    if (!rc && (flags & RENAME_EXCHANGE))
        fs_inode_moved(r->server, r->inode, r->name);
    fs_inode_put(r->server, to);
    return rc;
}

int fs_op_rename(struct fs_request *r)
{
    const struct fuse_rename_in *in = r->args;

    return rename_to(r, in->newdir, 0);
}

int fs_op_rename2(struct fs_request *r)
{
    const struct fuse_rename2_in *in = r->args;

    return rename_to(r, in->newdir, in->flags);
}

int fs_op_link(struct fs_request *r)
{
    const struct fuse_link_in *in = r->args;
    char path[FS_PROC_PATH_MAX];
    struct fuse_entry_out out;
    struct fs_inode *old;
    int rc = fs_inode_get(r->server, in->oldnodeid, &old);

    if (rc)
        return rc;
    if (linkat(AT_FDCWD, fs_proc_path(old->fd, path), r->inode->fd, r->name, AT_SYMLINK_FOLLOW))
        rc = -errno;
    fs_inode_put(r->server, old);
    if (rc)
        return rc;
    rc = fs_lookup(r->server, r->inode, r->name, &out);
    if (!rc && (rc = fs_reply(r, &out, sizeof(out))))
        fs_forget(r->server, out.nodeid, 1);
    return rc;
}

int fs_op_statfs(struct fs_request *r)
{
    struct statvfs v;

    if (fstatvfs(r->inode->fd, &v))
        return -errno;
    struct fuse_statfs_out out = {
        .st =
            {
                 .blocks = v.f_blocks,
                 .bfree = v.f_bfree,
                 .bavail = v.f_bavail,
                 .files = v.f_files,
                 .ffree = v.f_ffree,
                 .bsize = (uint32_t)v.f_bsize,
                 .namelen = (uint32_t)v.f_namemax,
                 .frsize = (uint32_t)v.f_frsize,
                 },
    };
    return fs_reply(r, &out, sizeof(out));
}

int fs_op_syncfs(struct fs_request *r)
{
    int fd = openat(r->server->root->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int rc = syncfs(fd) ? -errno : 0;
    fd_close(fd);
    return rc;
}
