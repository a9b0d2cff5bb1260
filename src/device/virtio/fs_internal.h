/* The FUSE server inside the virtio file system device. It knows nothing of queues: a request and
 * room for its answer are lists of buffers.
 *
 *   fs.c            the device: queues and threads
 *   fs_proto.c      one request: checks, dispatch, answer
 *   fs_inode.c      what the guest knows files by
 *   fs_handle.c     what the guest has open; numbers; the server as a whole
 *   fs_ops_*.c      the operations */
#ifndef DEVICE_VIRTIO_FS_INTERNAL_H
#define DEVICE_VIRTIO_FS_INTERNAL_H

#include "base/bits.h"
#include "base/error.h"
#include "base/thread.h"
#include "device/virtio/vq.h"

#include <linux/fuse.h>
#include <sys/stat.h>
#include <sys/uio.h>

/** Bytes after a request's header that are copied: an extended attribute's value and names. */
#define FS_ARGS_MAX (72u << 10)
/** Largest answer that is built rather than read straight into the guest's buffers. */
#define FS_REPLY_MAX (68u << 10)
/** Bytes a READ or WRITE carries at most. */
#define FS_MAX_PAGES 256u
#define FS_MAX_WRITE (FS_MAX_PAGES * 4096u)

/** Maps the numbers a guest uses to objects; a number is never used twice. */
struct fs_slot {
    void *item;
    uint32_t generation;
    uint32_t next_free;
};

struct fs_table {
    struct fs_slot *slots;
    uint32_t count; /* slots that exist */
    uint32_t used;
    uint32_t free; /* head of the list of empty ones, 0 = none (slot 0 is never used) */
    uint32_t limit;
    uint32_t generation; /* of slots that are made: above 0 once a saved state was loaded */
};

/** Give @item the number @id, which must be free: 0, -EINVAL (taken, or cannot be a number),
 * -ENOMEM. After the last of them: fs_table_relink(), before anything is added. */
must_check int fs_table_put(struct fs_table *t, uint64_t id, void *item);
void fs_table_relink(struct fs_table *t);
/** A generation that no slot has reached. */
uint32_t fs_table_next_generation(const struct fs_table *t);
/** The number given to @item, or 0: the limit is reached or memory is out. */
uint64_t fs_table_add(struct fs_table *t, void *item);
void *fs_table_find(const struct fs_table *t, uint64_t id);
void fs_table_remove(struct fs_table *t, uint64_t id);
void fs_table_done(struct fs_table *t);

/** A file, folder or link the guest has looked up. Fields without a tag never change. */
struct fs_inode {
    uint64_t id; /* [lock] 0: forgotten, and only alive for those who still use it */
    dev_t dev;
    ino_t ino;
    mode_t type;       /* S_IFMT part of its mode */
    int fd;            /* [lock] O_PATH; -1: closed to spare descriptors, see fs_inode_get() */
    bool pinned;       /* [lock] its name is gone: fd must stay open */
    uint64_t lookups;  /* [lock] what the guest owes in forgets */
    unsigned users;    /* [lock] requests under way; fd stays while there are any */
    unsigned children; /* [lock] inodes whose parent this is */
    struct fs_inode *parent;              /* [lock] where fd can be opened again, by */
    char *name;                           /* [lock] this name */
    struct fs_inode *hash_next;           /* [lock] */
    struct fs_inode *lru_prev, *lru_next; /* [lock] in the list if fd could be closed */
    bool known;                           /* [lock] the guest may have pages cached as of */
    struct timespec mtime;                /* [lock] this time and */
    off_t size;                           /* [lock] size */
};

struct fs_handle {
    uint64_t id;
    int fd;
    bool directory;
    bool privileged_bits; /* was set-uid or set-gid when opened */
    unsigned refs;        /* [lock] of the server */
    struct mutex lock;    /* of a folder's position */
};

#define FS_HASH_BITS 14u

struct fs_server {
    bool readonly;          /* [init] */
    bool privileged;        /* [init] may give files to other users */
    dev_t root_dev;         /* [init] */
    unsigned max_inode_fds; /* [init] */
    struct fs_inode *root;  /* [init] */

    struct mutex lock;
    struct fs_table inodes;                    /* [lock] */
    struct fs_table handles;                   /* [lock] */
    struct fs_inode *hash[1u << FS_HASH_BITS]; /* [lock] */
    struct fs_inode lru;      /* [lock] head of a ring, the least recently used one before it */
    unsigned inode_fds;       /* [lock] open ones */
    bool started;             /* [lock] INIT was answered */
    bool can_kill_privileges; /* [lock] HANDLE_KILLPRIV_V2 was agreed on */
};

/** One thread's memory for a request. */
struct fs_work {
    bool masked; /* this thread could not put away the umask: set modes again after making things */
    struct iovec iov[VQ_MAX_IOV];
    _Alignas(8) uint8_t args[FS_ARGS_MAX + 1];
    _Alignas(8) uint8_t reply[FS_REPLY_MAX];
    _Alignas(8) uint8_t entries[32u << 10];
};

/** One request. */
struct fs_request {
    struct fs_server *server;
    struct fs_work *work;
    struct fuse_in_header in;
    struct fs_inode *inode;   /* of in.nodeid, held; NULL where the operation has none */
    const void *args;         /* 8-byte aligned copy, as long as the operation's table row says */
    const char *name;         /* the first name after args */
    const char *name2;        /* what is behind it: a second name, a link's target, a value */
    size_t name2_size;        /* bytes there */
    const struct iovec *data; /* what the guest sent, from the header on */
    unsigned data_count;
    size_t data_size;
    const struct iovec *out; /* room for the answer, from its header on */
    unsigned out_count;
    size_t out_size;
    size_t reply_size; /* bytes of answer after its header */
};

/** A server for the folder @fd (O_PATH; taken over, also on failure). */
must_check int fs_server_new(int fd, bool readonly, struct fs_server **ret, struct error *err);
/** No request may be under way. */
void fs_server_free(struct fs_server *s);
/** Forget all the guest knows and has open. No request may be under way. */
void fs_server_reset(struct fs_server *s);

/** State for a snapshot, within the device's section. No request is under way. load() takes it into
 * a server that was reset: -EINVAL for what cannot be; files that are gone are not an error. */
struct state_out;
struct state_section;
must_check int fs_server_save(struct fs_server *s, struct state_out *out, struct error *err);
must_check int fs_server_load(struct fs_server *s, const struct state_section *section,
                              struct error *err);

/** Serve one request. Returns the bytes of answer stored in @out, 0 if the request has none. Any
 * thread, several at once, each with its own @work. */
size_t fs_serve(struct fs_server *s, struct fs_work *work, const struct iovec *in,
                unsigned in_count, const struct iovec *out, unsigned out_count);

/** Store @size bytes as the answer. 0, or -EIO if the guest left no room. */
must_check int fs_reply(struct fs_request *r, const void *data, size_t size);
/** Is @name one component that names something in a folder? */
bool fs_name_is_valid(const char *name);

/** The inode of number @id with an open fd, held until fs_inode_put(). 0 or -errno: -ESTALE when
 * the guest does not know it, or when it is no longer where it was. */
must_check int fs_inode_get(struct fs_server *s, uint64_t id, struct fs_inode **ret);
void fs_inode_put(struct fs_server *s, struct fs_inode *inode);
/** Open @inode's fd if it was closed. 0 or -errno. */
must_check int fs_inode_open(struct fs_server *s, struct fs_inode *inode) REQUIRES(s->lock);
/** The inode that had number @id when its state was saved, with @lookups: @fd (O_PATH, taken over,
 * also on failure; -1: it is lost) described by @st. 0 or -errno. */
must_check int fs_inode_restore(struct fs_server *s, uint64_t id, uint64_t lookups, int fd,
                                const struct stat *st);
/** Look up @name in @parent; the guest owes one forget more. */
must_check int fs_lookup(struct fs_server *s, struct fs_inode *parent, const char *name,
                         struct fuse_entry_out *ret);
/** The same for a file that has no name: @fd (O_PATH) is taken over, also on failure. */
must_check int fs_adopt(struct fs_server *s, int fd, struct fuse_entry_out *ret);
void fs_forget(struct fs_server *s, uint64_t id, uint64_t count);
/** @name in @parent is about to go: keep what it names open, should the guest know it. */
void fs_inode_pin(struct fs_server *s, struct fs_inode *parent, const char *name);
/** @name in @parent has come from elsewhere: note it, should the guest know what it names. */
void fs_inode_moved(struct fs_server *s, struct fs_inode *parent, const char *name);
/** May the guest keep what it has cached of a file that now is as @st says? Notes @st. */
bool fs_inode_is_unchanged(struct fs_server *s, struct fs_inode *inode, const struct stat *st);
void fs_inodes_reset(struct fs_server *s);
/** Make @root the root, known by @fd, which are both the server's from now on. 0 or -ENOMEM. */
must_check int fs_root_new(struct fs_server *s, int fd, const struct stat *st,
                           struct fs_inode *root);

#define FS_PROC_PATH_MAX 32
/** Take set-uid and set-gid bits from a program whose content changes, as the host's kernel does it
 * for users without privilege. */
void fs_drop_privilege_bits(const struct fs_server *s, int fd);
/** A path that leads to the object of @fd itself, never through a symbolic link of the guest's. */
const char *fs_proc_path(int fd, char buf[FS_PROC_PATH_MAX]);
/** Open a regular file anew, by its O_PATH descriptor: fd or -errno. */
must_check int fs_reopen(const struct fs_inode *inode, int flags);
void fs_fill_attr(const struct fs_server *s, const struct stat *st, struct fuse_attr *ret);
/** The number the guest sees for inode number @ino of file system @dev. */
uint64_t fs_ino(const struct fs_server *s, dev_t dev, ino_t ino);

/** A handle for @fd, which is taken over, also on failure. 0 or -errno. */
must_check int fs_handle_new(struct fs_server *s, int fd, bool directory, uint64_t *ret);
/** The same, for the handle that had number @id. */
must_check int fs_handle_restore(struct fs_server *s, uint64_t id, int fd, bool directory);
/** Held until fs_handle_put(); NULL when there is none of that kind. */
struct fs_handle *fs_handle_get(struct fs_server *s, uint64_t id, bool directory);
void fs_handle_put(struct fs_server *s, struct fs_handle *h);
/** The guest closes it. 0 or -EBADF. */
int fs_handle_close(struct fs_server *s, uint64_t id, bool directory);
void fs_handles_reset(struct fs_server *s);

/** Operations: 0 or -errno. */
int fs_op_lookup(struct fs_request *r);
int fs_op_getattr(struct fs_request *r);
int fs_op_setattr(struct fs_request *r);
int fs_op_readlink(struct fs_request *r);
int fs_op_symlink(struct fs_request *r);
int fs_op_mknod(struct fs_request *r);
int fs_op_mkdir(struct fs_request *r);
int fs_op_unlink(struct fs_request *r);
int fs_op_rmdir(struct fs_request *r);
int fs_op_rename(struct fs_request *r);
int fs_op_rename2(struct fs_request *r);
int fs_op_link(struct fs_request *r);
int fs_op_statfs(struct fs_request *r);
int fs_op_syncfs(struct fs_request *r);

int fs_op_open(struct fs_request *r);
int fs_op_create(struct fs_request *r);
int fs_op_tmpfile(struct fs_request *r);
int fs_op_read(struct fs_request *r);
int fs_op_write(struct fs_request *r);
int fs_op_flush(struct fs_request *r);
int fs_op_release(struct fs_request *r);
int fs_op_fsync(struct fs_request *r);
int fs_op_fallocate(struct fs_request *r);
int fs_op_lseek(struct fs_request *r);
int fs_op_copy_file_range(struct fs_request *r);

int fs_op_opendir(struct fs_request *r);
int fs_op_readdir(struct fs_request *r);
int fs_op_readdirplus(struct fs_request *r);
int fs_op_releasedir(struct fs_request *r);
int fs_op_fsyncdir(struct fs_request *r);

int fs_op_setxattr(struct fs_request *r);
int fs_op_getxattr(struct fs_request *r);
int fs_op_listxattr(struct fs_request *r);
int fs_op_removexattr(struct fs_request *r);

#endif
