/* What a guest has open in the shared folder, the tables that give numbers to things, and the
 * server as a whole.
 *
 * Invariants:
 *  1. A number is a slot with the slot's generation, which moves on at each removal: an old or
 *     invented number finds nothing.
 *  2. A handle's descriptor is closed when the guest has closed it and no request uses it.
 *
 * Threads: any; tables and counts under the server's lock.
 */
#include "base/fd.h"
#include "device/virtio/fs_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

uint64_t fs_table_add(struct fs_table *t, void *item)
{
    uint32_t at = t->free;

    if (t->used >= t->limit)
        return 0;
    if (!at) {
        if (t->count % 1024 == 0) {
            struct fs_slot *grown = reallocarray(t->slots, t->count + 1024, sizeof(*grown));

            if (!grown)
                return 0;
            t->slots = grown;
        }
        if (!t->count)
            t->slots[t->count++] = (struct fs_slot){0}; /* number 0 is for "none" */
        at = t->count++;
        t->slots[at] = (struct fs_slot){.generation = t->generation};
    } else {
        t->free = t->slots[at].next_free;
    }
    t->slots[at].item = item;
    t->used++;
    return (uint64_t)t->slots[at].generation << 32 | at;
}

void fs_table_relink(struct fs_table *t)
{
    t->free = 0;
    for (uint32_t n = t->count; n-- > 1;) {
        if (!t->slots[n].item) {
            t->slots[n].generation = t->generation;
            t->slots[n].next_free = t->free;
            t->free = n;
        }
    }
}

uint32_t fs_table_next_generation(const struct fs_table *t)
{
    uint32_t most = t->generation;

    for (uint32_t n = 1; n < t->count; n++)
        most = MAX(most, t->slots[n].generation);
    return most + 1;
}

int fs_table_put(struct fs_table *t, uint64_t id, void *item)
{
    uint32_t at = (uint32_t)id;

    if (!at || at > t->limit || (at < t->count && t->slots[at].item))
        return -EINVAL;
    if (at >= t->count) {
        uint32_t room = (at / 1024 + 1) * 1024;
        struct fs_slot *grown = reallocarray(t->slots, room, sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        t->slots = grown;
        memset(&grown[t->count], 0, (room - t->count) * sizeof(*grown));
        t->count = at + 1;
    }
    t->slots[at] = (struct fs_slot){.item = item, .generation = (uint32_t)(id >> 32)};
    t->used++;
    return 0;
}

void *fs_table_find(const struct fs_table *t, uint64_t id)
{
    uint32_t at = (uint32_t)id;

    return at && at < t->count && t->slots[at].generation == id >> 32 ? t->slots[at].item : NULL;
}

void fs_table_remove(struct fs_table *t, uint64_t id)
{
    uint32_t at = (uint32_t)id;

    if (!fs_table_find(t, id))
        return;
    t->slots[at] =
        (struct fs_slot){.generation = t->slots[at].generation + 1, .next_free = t->free};
    t->free = at;
    t->used--;
}

void fs_table_done(struct fs_table *t)
{
    free(t->slots);
    *t = (struct fs_table){.limit = t->limit};
}

/** A handle without a number, or NULL with *@ret_rc set; @fd is taken over in any case. */
static struct fs_handle *make_handle(int fd, bool directory, int *ret_rc)
{
    struct fs_handle *h = calloc(1, sizeof(*h));
    struct stat st;

    if (!h || fstat(fd, &st)) {
        *ret_rc = h ? -EIO : -ENOMEM;
        free(h);
        fd_close(fd);
        return NULL;
    }
    h->fd = fd;
    h->directory = directory;
    h->privileged_bits = st.st_mode & (S_ISUID | S_ISGID);
    h->refs = 1;
    mutex_init(&h->lock);
    return h;
}

int fs_handle_new(struct fs_server *s, int fd, bool directory, uint64_t *ret)
{
    int rc = 0;
    struct fs_handle *h = make_handle(fd, directory, &rc);

    if (!h)
        return rc;
    mutex_lock(&s->lock);
    h->id = fs_table_add(&s->handles, h);
    mutex_unlock(&s->lock);
    if (!h->id) {
        fs_handle_put(s, h);
        return -ENFILE;
    }
    *ret = h->id;
    return 0;
}

int fs_handle_restore(struct fs_server *s, uint64_t id, int fd, bool directory)
{
    int rc = 0;
    struct fs_handle *h = make_handle(fd, directory, &rc);

    if (!h)
        return rc;
    h->id = id;
    mutex_lock(&s->lock);
    rc = fs_table_put(&s->handles, id, h);
    mutex_unlock(&s->lock);
    if (rc)
        fs_handle_put(s, h);
    return rc;
}

struct fs_handle *fs_handle_get(struct fs_server *s, uint64_t id, bool directory)
{
    mutex_lock(&s->lock);
    struct fs_handle *h = fs_table_find(&s->handles, id);
    if (h && h->directory == directory)
        h->refs++;
    else
        h = NULL;
    mutex_unlock(&s->lock);
    return h;
}

void fs_handle_put(struct fs_server *s, struct fs_handle *h)
{
    if (!h)
        return;
    mutex_lock(&s->lock);
    bool last = !--h->refs;
    mutex_unlock(&s->lock);
    if (!last)
        return;
    fd_close(h->fd);
    mutex_done(&h->lock);
    free(h);
}

int fs_handle_close(struct fs_server *s, uint64_t id, bool directory)
{
    mutex_lock(&s->lock);
    struct fs_handle *h = fs_table_find(&s->handles, id);
    if (h && h->directory == directory)
        fs_table_remove(&s->handles, id);
    else
        h = NULL;
    mutex_unlock(&s->lock);
    if (!h)
        return -EBADF;
    fs_handle_put(s, h);
    return 0;
}

void fs_handles_reset(struct fs_server *s)
{
    for (uint32_t n = 1;; n++) {
        mutex_lock(&s->lock);
        bool end = n >= s->handles.count;
        struct fs_handle *h = end ? NULL : s->handles.slots[n].item;
        if (h)
            fs_table_remove(&s->handles, h->id);
        mutex_unlock(&s->lock);
        fs_handle_put(s, h);
        if (end)
            return;
    }
}

/** How many descriptors one folder may use for each of inodes and handles: a twentieth of what the
 * process may have, so that eight folders leave room for the rest. Raises the soft limit. */
static unsigned descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit))
        return 64;
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit most = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};

        if (!setrlimit(RLIMIT_NOFILE, &most))
            limit = most;
    }
    return (unsigned)MIN(MAX(limit.rlim_cur / 20, (rlim_t)32), (rlim_t)65536);
}

int fs_server_new(int fd, bool readonly, struct fs_server **ret, struct error *err)
{
    struct fs_server *s = calloc(1, sizeof(*s));
    struct fs_inode *root = calloc(1, sizeof(*root));
    struct stat st;

    if (!s || !root || fstat(fd, &st)) {
        free(s);
        free(root);
        fd_close(fd);
        return error_set(err, ENOMEM, "out of memory");
    }
    s->readonly = readonly;
    s->privileged = geteuid() == 0;
    s->max_inode_fds = descriptor_limit();
    s->handles.limit = s->max_inode_fds;
    mutex_init(&s->lock);
    int rc = fs_root_new(s, fd, &st, root);
    if (rc) {
        fs_server_free(s);
        return error_set(err, -rc, "out of memory");
    }
    *ret = s;
    return 0;
}

void fs_server_reset(struct fs_server *s)
{
    fs_handles_reset(s);
    fs_inodes_reset(s);
    mutex_lock(&s->lock);
    s->started = false;
    mutex_unlock(&s->lock);
}

void fs_server_free(struct fs_server *s)
{
    if (!s)
        return;
    fs_server_reset(s);
    fd_close(s->root->fd);
    free(s->root);
    fs_table_done(&s->inodes);
    fs_table_done(&s->handles);
    mutex_done(&s->lock);
    free(s);
}
