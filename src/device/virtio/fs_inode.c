/* What a guest knows the shared folder's files by. A FUSE node number stands for an inode: a file
 * of the host, held by an O_PATH descriptor, so that names may change underneath.
 *
 * Invariants:
 *  1. Descriptors are opened by one name in a folder that is held already, never through a symbolic
 *     link and never upward; so nothing outside the shared folder is ever reached.
 *  2. In `hash`, at most one inode has the same (dev, ino); all there have a number.
 *  3. An inode lives while it has a number, users or children.
 *  4. In the LRU ring are those whose fd is open but could be closed: no users, not pinned, not the
 *     root. Past max_inode_fds open ones the least recently used are closed; they are opened again
 *     through parent and name, and must then be the same (dev, ino).
 *
 * Threads: any; all under the server's lock. Opening again happens under it too: it is rare.
 */
#include "base/fd.h"
#include "device/virtio/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/** Inodes a guest may hold: some 200 bytes each. */
#define MAX_INODES (1u << 20)
/** Folders within folders, for opening again. */
#define MAX_DEPTH 4096

const char *fs_proc_path(int fd, char buf[FS_PROC_PATH_MAX])
{
    (void)snprintf(buf, FS_PROC_PATH_MAX, "/proc/self/fd/%d", fd);
    return buf;
}

uint64_t fs_ino(const struct fs_server *s, dev_t dev, ino_t ino)
{
    /* Other file systems mounted within the folder use the same numbers: tell them apart. */
    return dev == s->root_dev ? ino : ino + ((uint64_t)dev * 0x9e3779b97f4a7c15ull & ~MASK(40));
}

void fs_fill_attr(const struct fs_server *s, const struct stat *st, struct fuse_attr *ret)
{
    *ret = (struct fuse_attr){
        .ino = fs_ino(s, st->st_dev, st->st_ino),
        .size = (uint64_t)st->st_size,
        .blocks = (uint64_t)st->st_blocks,
        .atime = (uint64_t)st->st_atim.tv_sec,
        .mtime = (uint64_t)st->st_mtim.tv_sec,
        .ctime = (uint64_t)st->st_ctim.tv_sec,
        .atimensec = (uint32_t)st->st_atim.tv_nsec,
        .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
        .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
        .mode = st->st_mode,
        .nlink = (uint32_t)st->st_nlink,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .rdev = (uint32_t)st->st_rdev,
        .blksize = (uint32_t)st->st_blksize,
    };
}

static struct fs_inode **hash_at(struct fs_server *s, dev_t dev, ino_t ino)
{
    uint64_t h = ((uint64_t)ino + (uint64_t)dev * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;

    return &s->hash[h >> (64 - FS_HASH_BITS)];
}

static struct fs_inode *find(struct fs_server *s, const struct stat *st) REQUIRES(s->lock)
{
    struct fs_inode *i = *hash_at(s, st->st_dev, st->st_ino);

    while (i && (i->ino != st->st_ino || i->dev != st->st_dev))
        i = i->hash_next;
    return i;
}

static void unhash(struct fs_server *s, struct fs_inode *inode) REQUIRES(s->lock)
{
    struct fs_inode **p = hash_at(s, inode->dev, inode->ino);

    while (*p && *p != inode)
        p = &(*p)->hash_next;
    if (*p)
        *p = inode->hash_next;
}

static void lru_remove(struct fs_inode *i)
{
    if (!i->lru_next)
        return;
    i->lru_prev->lru_next = i->lru_next;
    i->lru_next->lru_prev = i->lru_prev;
    i->lru_prev = i->lru_next = NULL;
}

/** Put @i where invariant 4 wants it, as the most recently used. */
static void lru_update(struct fs_server *s, struct fs_inode *i) REQUIRES(s->lock)
{
    lru_remove(i);
    if (i->fd < 0 || i->users || i->pinned || i == s->root)
        return;
    i->lru_next = s->lru.lru_next;
    i->lru_prev = &s->lru;
    i->lru_next->lru_prev = i;
    s->lru.lru_next = i;
}

static void close_fd(struct fs_server *s, struct fs_inode *i) REQUIRES(s->lock)
{
    if (i->fd < 0)
        return;
    fd_close(i->fd);
    i->fd = -1;
    s->inode_fds--;
}

/** Make room for one more descriptor. False: all are in use. */
static bool spare_fd(struct fs_server *s) REQUIRES(s->lock)
{
    while (s->inode_fds >= s->max_inode_fds && s->lru.lru_prev != &s->lru) {
        struct fs_inode *i = s->lru.lru_prev;

        lru_remove(i);
        close_fd(s, i);
    }
    return s->inode_fds < s->max_inode_fds;
}

/** Free @i, and then its ancestors, as far as nothing keeps them (invariant 3). */
static void collect(struct fs_server *s, struct fs_inode *i) REQUIRES(s->lock)
{
    while (i && !i->id && !i->users && !i->children) {
        struct fs_inode *parent = i->parent;

        lru_remove(i);
        close_fd(s, i);
        free(i->name);
        free(i);
        if (parent)
            parent->children--;
        i = parent;
    }
}

/** Note that @i is @name in @parent. Out of memory: it keeps its old place. */
static void place(struct fs_server *s, struct fs_inode *i, struct fs_inode *parent,
                  const char *name) REQUIRES(s->lock)
{
    struct fs_inode *old = i->parent;

    if (i == s->root || (old == parent && !strcmp(i->name, name)))
        return;
    for (const struct fs_inode *p = parent; p; p = p->parent) {
        if (p == i)
            return; /* the host is moving folders about: no rings */
    }
    char *copy = strdup(name);
    if (!copy)
        return;
    free(i->name);
    i->name = copy;
    i->parent = parent;
    parent->children++;
    if (old) {
        old->children--;
        collect(s, old);
    }
}

static int open_again(struct fs_server *s, struct fs_inode *i) REQUIRES(s->lock)
{
    struct stat st;

    if (!i->parent || !spare_fd(s))
        return i->parent ? -ENFILE : -ESTALE;
    int fd = openat(i->parent->fd, i->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? -ESTALE : -errno;
    if (fstat(fd, &st) || st.st_dev != i->dev || st.st_ino != i->ino ||
        (st.st_mode & S_IFMT) != i->type) {
        fd_close(fd);
        return -ESTALE;
    }
    i->fd = fd;
    s->inode_fds++;
    return 0;
}

/* That of its ancestors first, from the top. */
int fs_inode_open(struct fs_server *s, struct fs_inode *inode)
{
    while (inode->fd < 0) {
        struct fs_inode *i = inode;
        unsigned depth = 0;

        while (i->parent && i->parent->fd < 0 && depth++ < MAX_DEPTH)
            i = i->parent;
        if (depth > MAX_DEPTH)
            return -ELOOP;
        /* The parent is not to be closed to make room for the child. */
        struct fs_inode *parent = i->parent;
        if (parent) {
            parent->users++;
            lru_update(s, parent);
        }
        int rc = open_again(s, i);
        if (parent) {
            parent->users--;
            lru_update(s, parent);
        }
        if (rc)
            return rc;
        lru_update(s, i);
    }
    return 0;
}

int fs_inode_get(struct fs_server *s, uint64_t id, struct fs_inode **ret)
{
    int rc = -ESTALE;

    mutex_lock(&s->lock);
    struct fs_inode *i = id == FUSE_ROOT_ID ? s->root : fs_table_find(&s->inodes, id);
    if (i)
        rc = fs_inode_open(s, i);
    if (!rc) {
        i->users++;
        lru_update(s, i);
        *ret = i;
    }
    mutex_unlock(&s->lock);
    return rc;
}

void fs_inode_put(struct fs_server *s, struct fs_inode *inode)
{
    if (!inode)
        return;
    mutex_lock(&s->lock);
    inode->users--;
    lru_update(s, inode);
    collect(s, inode);
    mutex_unlock(&s->lock);
}

static struct fs_inode *insert(struct fs_server *s, int fd, const struct stat *st) REQUIRES(s->lock)
{
    struct fs_inode *i = calloc(1, sizeof(*i));

    if (!i)
        return NULL;
    i->id = fs_table_add(&s->inodes, i);
    if (!i->id) {
        free(i);
        return NULL;
    }
    i->dev = st->st_dev;
    i->ino = st->st_ino;
    i->type = st->st_mode & S_IFMT;
    i->fd = fd;
    s->inode_fds++;
    struct fs_inode **p = hash_at(s, i->dev, i->ino);
    i->hash_next = *p;
    *p = i;
    return i;
}

int fs_inode_restore(struct fs_server *s, uint64_t id, uint64_t lookups, int fd,
                     const struct stat *st)
{
    struct fs_inode *i = calloc(1, sizeof(*i));

    mutex_lock(&s->lock);
    int rc = i ? fs_table_put(&s->inodes, id, i) : -ENOMEM;
    if (rc) {
        mutex_unlock(&s->lock);
        free(i);
        fd_close(fd);
        return rc;
    }
    *i = (struct fs_inode){
        .id = id, .lookups = lookups, .type = st->st_mode & S_IFMT, .fd = -1, .pinned = true};
    if (fd >= 0 && spare_fd(s)) { /* else lost, as too many are open at once */
        i->fd = fd;
        i->dev = st->st_dev;
        i->ino = st->st_ino;
        s->inode_fds++;
        fd = -1;
        if (!find(s, st)) { /* invariant 2: a second name of one file is not found by it */
            struct fs_inode **p = hash_at(s, i->dev, i->ino);

            i->hash_next = *p;
            *p = i;
        }
    }
    mutex_unlock(&s->lock);
    fd_close(fd);
    return 0;
}

/** Take the number away: the guest knows it no more. */
static void retire(struct fs_server *s, struct fs_inode *i) REQUIRES(s->lock)
{
    unhash(s, i);
    fs_table_remove(&s->inodes, i->id);
    i->id = 0;
    i->lookups = 0;
}

/** The inode that @st describes, if the guest knows it: one lookup more. */
static struct fs_inode *find_known(struct fs_server *s, const struct stat *st) REQUIRES(s->lock)
{
    struct fs_inode *i = find(s, st);

    if (i && i->type != (st->st_mode & S_IFMT)) {
        /* Its descriptor was closed, its file went and the host gave the number out again. */
        unhash(s, i);
        i->ino = 0;
        i->dev = 0;
        return NULL;
    }
    if (i)
        i->lookups++;
    return i;
}

static void fill_entry(const struct fs_server *s, const struct fs_inode *i, const struct stat *st,
                       struct fuse_entry_out *ret)
{
    *ret = (struct fuse_entry_out){
        .nodeid = i == s->root ? FUSE_ROOT_ID : i->id,
        .entry_valid = 1,
        .attr_valid = 1,
    };
    fs_fill_attr(s, st, &ret->attr);
}

int fs_lookup(struct fs_server *s, struct fs_inode *parent, const char *name,
              struct fuse_entry_out *ret)
{
    struct stat st;

    if (fstatat(parent->fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return -errno;
    mutex_lock(&s->lock);
    struct fs_inode *i = find_known(s, &st);
    bool room = i || spare_fd(s);
    if (i) {
        place(s, i, parent, name);
        fill_entry(s, i, &st, ret);
    }
    mutex_unlock(&s->lock);
    if (i || !room)
        return i ? 0 : -ENFILE;

    int fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st)) {
        fd_close(fd);
        return -EIO;
    }
    mutex_lock(&s->lock);
    i = find_known(s, &st);
    if (!i && (i = insert(s, fd, &st))) {
        i->lookups = 1;
        fd = -1;
    }
    if (i) {
        place(s, i, parent, name);
        lru_update(s, i);
        fill_entry(s, i, &st, ret);
    }
    mutex_unlock(&s->lock);
    fd_close(fd);
    return i ? 0 : -ENFILE;
}

int fs_adopt(struct fs_server *s, int fd, struct fuse_entry_out *ret)
{
    struct stat st;

    if (fstat(fd, &st)) {
        fd_close(fd);
        return -EIO;
    }
    mutex_lock(&s->lock);
    struct fs_inode *i = spare_fd(s) ? insert(s, fd, &st) : NULL;
    if (i) {
        i->lookups = 1;
        i->pinned = true;
        fill_entry(s, i, &st, ret);
    }
    mutex_unlock(&s->lock);
    if (!i)
        fd_close(fd);
    return i ? 0 : -ENFILE;
}

void fs_forget(struct fs_server *s, uint64_t id, uint64_t count)
{
    mutex_lock(&s->lock);
    struct fs_inode *i = fs_table_find(&s->inodes, id);
    if (i && i != s->root) {
        i->lookups -= MIN(i->lookups, count);
        if (!i->lookups) {
            retire(s, i);
            collect(s, i);
        }
    }
    mutex_unlock(&s->lock);
}

void fs_inode_pin(struct fs_server *s, struct fs_inode *parent, const char *name)
{
    struct stat st;

    if (fstatat(parent->fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return;
    mutex_lock(&s->lock);
    struct fs_inode *i = find(s, &st);
    if (i && !fs_inode_open(s, i)) {
        i->pinned = true;
        lru_update(s, i);
    }
    mutex_unlock(&s->lock);
}

void fs_inode_moved(struct fs_server *s, struct fs_inode *parent, const char *name)
{
    struct stat st;

    if (fstatat(parent->fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return;
    mutex_lock(&s->lock);
    struct fs_inode *i = find(s, &st);
    if (i) {
        place(s, i, parent, name);
        i->pinned = false;
        lru_update(s, i);
    }
    mutex_unlock(&s->lock);
}

bool fs_inode_is_unchanged(struct fs_server *s, struct fs_inode *inode, const struct stat *st)
{
    struct timespec now;

    mutex_lock(&s->lock);
    bool same = inode->known && inode->size == st->st_size &&
                inode->mtime.tv_sec == st->st_mtim.tv_sec &&
                inode->mtime.tv_nsec == st->st_mtim.tv_nsec;
    /* Timestamps are coarse: a file that changes again right now may keep its time. */
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail */
    inode->known = now.tv_sec - st->st_mtim.tv_sec > 1 || now.tv_sec < st->st_mtim.tv_sec;
    inode->size = st->st_size;
    inode->mtime = st->st_mtim;
    mutex_unlock(&s->lock);
    return same;
}

void fs_inodes_reset(struct fs_server *s)
{
    mutex_lock(&s->lock);
    for (uint32_t n = 1; n < s->inodes.count; n++) {
        struct fs_inode *i = s->inodes.slots[n].item;

        if (i && i != s->root) {
            retire(s, i);
            collect(s, i);
        }
    }
    mutex_unlock(&s->lock);
}

int fs_root_new(struct fs_server *s, int fd, const struct stat *st, struct fs_inode *root)
{
    *root = (struct fs_inode){.fd = fd, .dev = st->st_dev, .ino = st->st_ino, .type = S_IFDIR};
    mutex_lock(&s->lock);
    s->root = root;
    s->root_dev = st->st_dev;
    s->inodes.limit = MAX_INODES;
    s->lru.lru_next = s->lru.lru_prev = &s->lru;
    s->inode_fds = 1;
    root->id = fs_table_add(&s->inodes, root);
    if (root->id)
        *hash_at(s, root->dev, root->ino) = root;
    mutex_unlock(&s->lock);
    assert(!root->id || root->id == FUSE_ROOT_ID); /* the first number given out */
    return root->id ? 0 : -ENOMEM;
}
