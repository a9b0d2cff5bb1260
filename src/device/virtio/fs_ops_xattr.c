/* FUSE operations on extended attributes: those of the `user.` namespace. The others mean something
 * to the host's kernel (capabilities, access lists, security labels), so a guest neither sees nor
 * sets them.
 *
 * Threads: any.
 */
#include "device/virtio/fs_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#define VALUE_MAX 65536u

static bool is_user(const char *name)
{
    return !strncmp(name, "user.", 5) && name[5];
}

int fs_op_setxattr(struct fs_request *r)
{
    const struct fuse_setxattr_in *in = r->args; /* its first two fields */
    char path[FS_PROC_PATH_MAX];

    if (!is_user(r->name))
        return -EOPNOTSUPP;
    if (in->size > VALUE_MAX || in->size > r->name2_size)
        return -E2BIG;
    if (in->flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    return setxattr(fs_proc_path(r->inode->fd, path), r->name, r->name2, in->size, (int)in->flags)
               ? -errno
               : 0;
}

/** Answer with @size bytes of @value, or, when the guest asked only for the size, with that. */
static int reply_value(struct fs_request *r, const void *value, size_t size)
{
    const struct fuse_getxattr_in *in = r->args;
    struct fuse_getxattr_out out = {.size = (uint32_t)size};

    if (!in->size)
        return fs_reply(r, &out, sizeof(out));
    return size > in->size ? -ERANGE : fs_reply(r, value, size);
}

int fs_op_getxattr(struct fs_request *r)
{
    char path[FS_PROC_PATH_MAX];

    if (!is_user(r->name))
        return -EOPNOTSUPP;
    ssize_t n = getxattr(fs_proc_path(r->inode->fd, path), r->name, r->work->reply, VALUE_MAX);
    return n < 0 ? -errno : reply_value(r, r->work->reply, (size_t)n);
}

int fs_op_listxattr(struct fs_request *r)
{
    char path[FS_PROC_PATH_MAX];
    char *names = (char *)r->work->reply;
    ssize_t n = listxattr(fs_proc_path(r->inode->fd, path), names, VALUE_MAX);
    size_t kept = 0;

    if (n < 0)
        return -errno;
    for (size_t at = 0; at < (size_t)n;) {
        size_t size = strnlen(names + at, (size_t)n - at) + 1;

        if (is_user(names + at)) {
            memmove(names + kept, names + at, size);
            kept += size;
        }
        at += size;
    }
    return reply_value(r, names, kept);
}

int fs_op_removexattr(struct fs_request *r)
{
    char path[FS_PROC_PATH_MAX];

    if (!is_user(r->name))
        return -EOPNOTSUPP;
    return removexattr(fs_proc_path(r->inode->fd, path), r->name) ? -errno : 0;
}
