/* FUSE, one request: header, checks, dispatch, answer. Protocol: <linux/fuse.h>, version 7.31
 * to 7.38, as a virtio file system carries it (VIRTIO 1.2 §5.11).
 *
 * Invariants:
 *  1. Header and arguments are copied once out of guest memory; only file data is read and written
 *     in place.
 *  2. An operation runs only with as many argument bytes as its table row says, and with names that
 *     are single components.
 *
 * Threads: any; a request belongs to one.
 */
#include "base/iov.h"
#include "base/log.h"
#include "device/virtio/fs_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHANGES = 1 << 0,  /* refused in a read-only folder */
    NO_REPLY = 1 << 1, /* has no answer, not even an error */
    NO_NODE = 1 << 2,  /* nodeid means nothing */
    NAME = 1 << 3,     /* a name is behind the arguments */
    NAME2 = 1 << 4,    /* and another one behind that */
    ANY_NAME = 1 << 5, /* the name is not of a file */
    DATA = 1 << 6,     /* what is behind the arguments is not copied */
};

struct fs_op {
    int (*fn)(struct fs_request *r);
    uint16_t args; /* bytes of arguments before names and data */
    uint16_t flags;
};

static size_t copy(const struct iovec *iov, unsigned count, size_t offset, void *buf, size_t size,
                   bool out)
{
    size_t done = 0;

    for (unsigned i = 0; i < count && done < size; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t n = MIN(iov[i].iov_len - offset, size - done);
        char *p = (char *)iov[i].iov_base + offset;

        if (out)
            memcpy(p, (char *)buf + done, n);
        else
            memcpy((char *)buf + done, p, n);
        done += n;
        offset = 0;
    }
    return done;
}

int fs_reply(struct fs_request *r, const void *data, size_t size)
{
    if (r->out_size < sizeof(struct fuse_out_header) + size)
        return -EIO;
    (void)copy(r->out, r->out_count, sizeof(struct fuse_out_header), (void *)data, size, true);
    r->reply_size = size;
    return 0;
}

bool fs_name_is_valid(const char *name)
{
    size_t n = strlen(name);

    return n && n <= 255 && strcmp(name, ".") && strcmp(name, "..") && !memchr(name, '/', n);
}

static int op_init(struct fs_request *r)
{
    const struct fuse_init_in *in = r->args;
    const uint32_t wanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |
                            FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |
                            FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 |
                            FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS;

    if (in->major < FUSE_KERNEL_VERSION || (in->major == FUSE_KERNEL_VERSION && in->minor < 31))
        return -EPROTO;
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = MIN(in->minor, (uint32_t)FUSE_KERNEL_MINOR_VERSION),
        .max_readahead = in->max_readahead,
        .flags = in->flags & wanted,
        .max_background = 128,
        .congestion_threshold = 96,
        .max_write = in->flags & FUSE_MAX_PAGES ? FS_MAX_WRITE : 32 * 4096,
        .time_gran = 1,
        .max_pages = FS_MAX_PAGES,
    };
    mutex_lock(&r->server->lock);
    /* A driver of a newer major version asks again with ours. */
    r->server->started = in->major == FUSE_KERNEL_VERSION;
    r->server->can_kill_privileges = out.flags & FUSE_HANDLE_KILLPRIV_V2;
    mutex_unlock(&r->server->lock);
    return fs_reply(r, &out, sizeof(out));
}

/** The last request of a mount. Its handles and nodes are gone for the guest, but requests may
 * still be under way on other threads: those it could not have waited for only get errors. */
static int op_destroy(struct fs_request *r)
{
    fs_handles_reset(r->server);
    fs_inodes_reset(r->server);
    return 0;
}

static int op_forget(struct fs_request *r)
{
    const struct fuse_forget_in *in = r->args;

    fs_forget(r->server, r->in.nodeid, in->nlookup);
    return 0;
}

static int op_batch_forget(struct fs_request *r)
{
    const struct fuse_batch_forget_in *in = r->args;
    const uint8_t *p = (const uint8_t *)r->args + sizeof(*in);
    struct fuse_forget_one one;

    for (uint32_t i = 0; i < in->count && r->name2_size >= sizeof(one); i++) {
        memcpy(&one, p, sizeof(one));
        fs_forget(r->server, one.nodeid, one.nlookup);
        p += sizeof(one);
        r->name2_size -= sizeof(one);
    }
    return 0;
}

/** Operations end by themselves soon enough. */
static int op_interrupt(struct fs_request *r)
{
    return 0;
}

#define ARGS(type) ((uint16_t)sizeof(struct type))

static const struct fs_op ops[] = {
    [FUSE_LOOKUP] = {fs_op_lookup,          0,                             NAME                     },
    [FUSE_FORGET] = {op_forget,             ARGS(fuse_forget_in),          NO_REPLY | NO_NODE       },
    [FUSE_GETATTR] = {fs_op_getattr,         ARGS(fuse_getattr_in),         0                        },
    [FUSE_SETATTR] = {fs_op_setattr,         ARGS(fuse_setattr_in),         CHANGES                  },
    [FUSE_READLINK] = {fs_op_readlink,        0,                             0                        },
    [FUSE_SYMLINK] = {fs_op_symlink,         0,                             CHANGES | NAME | NAME2   },
    [FUSE_MKNOD] = {fs_op_mknod,           ARGS(fuse_mknod_in),           CHANGES | NAME           },
    [FUSE_MKDIR] = {fs_op_mkdir,           ARGS(fuse_mkdir_in),           CHANGES | NAME           },
    [FUSE_UNLINK] = {fs_op_unlink,          0,                             CHANGES | NAME           },
    [FUSE_RMDIR] = {fs_op_rmdir,           0,                             CHANGES | NAME           },
    [FUSE_RENAME] = {fs_op_rename,          ARGS(fuse_rename_in),          CHANGES | NAME | NAME2   },
    [FUSE_RENAME2] = {fs_op_rename2,         ARGS(fuse_rename2_in),         CHANGES | NAME | NAME2   },
    [FUSE_LINK] = {fs_op_link,            ARGS(fuse_link_in),            CHANGES | NAME           },
    [FUSE_OPEN] = {fs_op_open,            ARGS(fuse_open_in),            0                        },
    [FUSE_CREATE] = {fs_op_create,          ARGS(fuse_create_in),          CHANGES | NAME           },
    [FUSE_TMPFILE] = {fs_op_tmpfile,         ARGS(fuse_create_in),          CHANGES                  },
    [FUSE_READ] = {fs_op_read,            ARGS(fuse_read_in),            NO_NODE                  },
    [FUSE_WRITE] = {fs_op_write,           ARGS(fuse_write_in),           CHANGES | NO_NODE | DATA },
    [FUSE_STATFS] = {fs_op_statfs,          0,                             0                        },
    [FUSE_RELEASE] = {fs_op_release,         ARGS(fuse_release_in),         NO_NODE                  },
    [FUSE_FSYNC] = {fs_op_fsync,           ARGS(fuse_fsync_in),           NO_NODE                  },
    [FUSE_SETXATTR] = {fs_op_setxattr,        FUSE_COMPAT_SETXATTR_IN_SIZE,
                     CHANGES | NAME | NAME2 | ANY_NAME                                              },
    [FUSE_GETXATTR] = {fs_op_getxattr,        ARGS(fuse_getxattr_in),        NAME | ANY_NAME          },
    [FUSE_LISTXATTR] = {fs_op_listxattr,       ARGS(fuse_getxattr_in),        0                        },
    [FUSE_REMOVEXATTR] = {fs_op_removexattr,     0,                             CHANGES | NAME | ANY_NAME},
    [FUSE_FLUSH] = {fs_op_flush,           ARGS(fuse_flush_in),           NO_NODE                  },
    [FUSE_INIT] = {op_init,               16,                            NO_NODE                  }, /* what 7.31 sends */
    [FUSE_OPENDIR] = {fs_op_opendir,         ARGS(fuse_open_in),            0                        },
    [FUSE_READDIR] = {fs_op_readdir,         ARGS(fuse_read_in),            0                        },
    [FUSE_READDIRPLUS] = {fs_op_readdirplus,     ARGS(fuse_read_in),            0                        },
    [FUSE_RELEASEDIR] = {fs_op_releasedir,      ARGS(fuse_release_in),         NO_NODE                  },
    [FUSE_FSYNCDIR] = {fs_op_fsyncdir,        ARGS(fuse_fsync_in),           NO_NODE                  },
    [FUSE_INTERRUPT] = {op_interrupt,          ARGS(fuse_interrupt_in),       NO_REPLY | NO_NODE       },
    [FUSE_DESTROY] = {op_destroy,            0,                             NO_NODE                  },
    [FUSE_BATCH_FORGET] = {op_batch_forget,       ARGS(fuse_batch_forget_in),    NO_REPLY | NO_NODE       },
    [FUSE_FALLOCATE] = {fs_op_fallocate,       ARGS(fuse_fallocate_in),       CHANGES | NO_NODE        },
    [FUSE_LSEEK] = {fs_op_lseek,           ARGS(fuse_lseek_in),           NO_NODE                  },
    [FUSE_COPY_FILE_RANGE] = {fs_op_copy_file_range, ARGS(fuse_copy_file_range_in),
                     CHANGES | NO_NODE                                                              },
    [FUSE_SYNCFS] = {fs_op_syncfs,          ARGS(fuse_syncfs_in),          0                        },
};

/** Find the names behind the arguments, @size bytes at @p. */
static int take_names(struct fs_request *r, unsigned flags, const char *p, size_t size)
{
    size_t n = strnlen(p, size);

    r->name2_size = size;
    if (!(flags & NAME))
        return 0;
    if (n == size || n > 255)
        return n == size ? -EINVAL : -ENAMETOOLONG;
    r->name = p;
    r->name2 = p + n + 1;
    r->name2_size = size - n - 1;
    if (!(flags & ANY_NAME) && !fs_name_is_valid(r->name))
        return -EINVAL;
    if ((flags & NAME2) && !(flags & ANY_NAME) && strnlen(r->name2, r->name2_size) == r->name2_size)
        return -EINVAL;
    return 0;
}

static int prepare(struct fs_request *r, const struct fs_op *op)
{
    size_t after = r->data_size - sizeof(r->in);
    size_t size = op->flags & DATA ? op->args : after;

    if (after < op->args || size > FS_ARGS_MAX)
        return -EINVAL;
    (void)copy(r->data, r->data_count, sizeof(r->in), r->work->args, size, false);
    r->work->args[size] = 0;
    r->args = r->work->args;
    if (r->server->readonly && (op->flags & CHANGES))
        return -EROFS;
    int rc = take_names(r, op->flags, (const char *)r->work->args + op->args, size - op->args);
    if (rc || (op->flags & NO_NODE))
        return rc;
    return fs_inode_get(r->server, r->in.nodeid, &r->inode);
}

/** Initialised, or about to be? */
static bool may_run(struct fs_server *s, uint32_t opcode)
{
    mutex_lock(&s->lock);
    bool started = s->started;
    mutex_unlock(&s->lock);
    return started || opcode == FUSE_INIT;
}

size_t fs_serve(struct fs_server *s, struct fs_work *work, const struct iovec *in,
                unsigned in_count, const struct iovec *out, unsigned out_count)
{
    struct fs_request r = {
        .server = s,
        .work = work,
        .data = in,
        .data_count = in_count,
        .data_size = iov_bytes(in, in_count),
        .out = out,
        .out_count = out_count,
        .out_size = iov_bytes(out, out_count),
    };
    static const struct fs_op none = {NULL, 0, 0};
    const struct fs_op *op = &none;
    int rc = -ENOSYS;

    if (copy(in, in_count, 0, &r.in, sizeof(r.in), false) < sizeof(r.in) ||
        r.in.len < sizeof(r.in) || r.in.len > r.data_size) {
        guest_error("fs", "request of %zu bytes with length %u", r.data_size, r.in.len);
        return 0;
    }
    r.data_size = r.in.len;
    if (r.in.opcode < ARRAY_SIZE(ops) && ops[r.in.opcode].fn) {
        op = &ops[r.in.opcode];
        rc = may_run(s, r.in.opcode) ? prepare(&r, op) : -EIO;
    }
    if (!rc)
        rc = op->fn(&r);
    fs_inode_put(s, r.inode);
    if ((op->flags & NO_REPLY) || r.out_size < sizeof(struct fuse_out_header))
        return 0;
    struct fuse_out_header head = {
        .len = (uint32_t)(sizeof(head) + (rc ? 0 : r.reply_size)),
        .error = rc,
        .unique = r.in.unique,
    };
    (void)copy(out, out_count, 0, &head, sizeof(head), true);
    return head.len;
}
