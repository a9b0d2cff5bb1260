/* Making, removing and renaming instances: each takes effect by one rename.
 *
 * Creation: all files are made in .NAME.new and flushed, then the folder gets its name. The files
 * of an image are shared by hard links, so that the image may go or be rebuilt at any time, and
 * space is used once: kernel and initrd in the folder, the disk as a base (base.c).
 * Any thread; the caller holds the lock. */
#include "base/fd.h"
#include "base/paths.h"
#include "disk/disk.h"
#include "store/recover.h"
#include "store/seed.h"
#include "store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static void random_bytes(void *buf, size_t size)
{
    while (getrandom(buf, size, 0) != (ssize_t)size) {
        /* EINTR; small requests are otherwise whole */
    }
}

void instance_new_uuid(char ret[37])
{
    uint8_t b[16];

    random_bytes(b, sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* RFC 4122 section 4.4 */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    (void)snprintf(ret, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                   b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
                   b[13], b[14], b[15]);
}

void instance_new_mac(char ret[18])
{
    uint8_t b[4];

    random_bytes(b, sizeof(b));
    (void)snprintf(ret, 18, "52:54:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3]);
}

/** The root disk's first layer, over base @base (NULL = nothing), in folder @dir; its ID. */
static int make_root(const char *dir, const char *base, uint64_t bytes, char ret_id[TREE_ID_BYTES],
                     struct error *err)
{
    cleanup(freep) char *disks = paths_format(err, "%s/disks", dir);
    struct disk_options options = {.format = "raw", .flags = DISK_READONLY | DISK_NO_LOCK};
    struct disk *backing = NULL;

    int r = tree_new_id(ret_id, err);
    cleanup(freep) char *top = paths_format(err, "%s/disks/%s.qcow2", dir, ret_id);
    if (!r)
        r = disks && top ? paths_make(disks, err) : -ENOMEM;
    if (!r && base)
        r = disk_open(base, &options, &backing, err);
    if (r)
        return r;
    uint64_t least = backing ? backing->size_bytes : 0;
    if (bytes && bytes < least)
        r = error_set(err, EINVAL, "the disk has %llu MiB and cannot be made smaller",
                      (unsigned long long)least >> 20);
    struct disk_create create = {.size_bytes = MAX(bytes, least),
                                 .backing_path = base,
                                 .backing_format = base ? "raw" : NULL,
                                 .backing = backing};
    if (!r)
        r = disk_create(top, disk_format_find("qcow2"), &create, err);
    disk_close(backing);
    return r ? r : paths_sync_dir(disks, err);
}

/** The tree of an instance without snapshots; @root_id NULL: without disks. */
static int write_tree(const char *dir, const char *root_id, const char *base, struct error *err)
{
    struct tree_over over = {0};
    struct tree *t = tree_new();
    int r = t ? 0 : error_set(err, ENOMEM, "out of memory");

    if (base)
        over = (struct tree_over){
            .kind = TREE_OVER_IMAGE, .path = (char *)base, .format = (char *)"raw"};
    if (!r && root_id) {
        struct tree_disk *d = &t->current.disks[t->current.disk_count++];
        (void)snprintf(d->name, sizeof(d->name), "root");
        memcpy(d->layer, root_id, sizeof(d->layer));
        r = tree_add_layer(t, root_id, &over, err) ? 0 : -ENOMEM;
    }
    if (!r) {
        cleanup(fd_closep) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = fd < 0 ? error_set(err, errno, "cannot open folder '%s': %s", dir, strerror(errno))
                   : tree_store(fd, t, err);
    }
    tree_free(t);
    return r;
}

int instance_tree(const struct instance *in, struct tree **ret, struct error *err)
{
    cleanup(fd_closep) int fd = open(in->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return error_set(err, errno, "cannot open folder '%s': %s", in->dir, strerror(errno));
    int r = tree_load(fd, ret, err);
    if (r)
        error_prefix(err, "%s", in->name);
    return r;
}

char *instance_top(const struct instance *in, const char *disk, struct error *err)
{
    struct tree *t;
    char path[TREE_PATH_BYTES];

    if (instance_tree(in, &t, err))
        return NULL;
    const struct tree_disk *d = tree_find_disk(&t->current, disk);
    if (d)
        tree_layer_path(path, d->layer);
    char *top = d ? instance_path(in, err, "%s", path) : NULL;
    tree_free(t);
    return top;
}

/** Set @*field to @name, for a file that is in the folder. */
static int name_file(struct instance_config *c, const char *key, const char *name,
                     struct error *err)
{
    const struct config_key *k = config_find(key, err);

    return k ? config_set(c, k, name, err) : -EINVAL;
}

static int fill_identity(struct instance_config *c, struct error *err)
{
    char uuid[37], mac[18];
    int r = 0;

    instance_new_uuid(uuid);
    instance_new_mac(mac);
    if (!*c->uuid)
        r = name_file(c, "uuid", uuid, err);
    if (!r && !*c->mac)
        r = name_file(c, "mac", mac, err);
    return r;
}

static int share_as(const char *from, const char *dir, const char *name, struct instance_config *c,
                    const char *key, struct error *err)
{
    cleanup(freep) char *to = paths_format(err, "%s/%s", dir, name);

    if (!from)
        return 0;
    int r = to ? store_share(from, to, err) : -ENOMEM;
    return r ? r : name_file(c, key, name, err);
}

int instance_renew_seed(const char *from, const char *to, const char *name, struct error *err)
{
    struct error why = {0};
    char path[32];
    cleanup(fd_closep) int fd = -1;
    int r = seed_renew(from, name, &fd, &why);

    if (r == -ENOTSUP)
        return strcmp(from, to) != 0 ? store_share(from, to, err) : 0;
    if (r)
        return error_set(err, -r, "%s", error_text(&why));
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (!strcmp(from, to) && unlink(to))
        return error_set(err, errno, "cannot remove '%s': %s", to, strerror(errno));
    return store_share(path, to, err);
}

static int share_seed(const struct instance *from, const struct instance_config *c, const char *dir,
                      const char *name, struct error *err)
{
    const char *file = config_own_file(c, "cloud-init");
    cleanup(freep) char *old = file ? instance_path(from, err, "%s", file) : NULL;
    cleanup(freep) char *new = file ? paths_format(err, "%s/%s", dir, file) : NULL;

    return !file ? 0 : old && new ? instance_renew_seed(old, new, name, err) : -ENOMEM;
}

int instance_share_files(const struct instance *from, const struct instance_config *c,
                         const char *dir, const char *name_of_new, struct error *err)
{
    const char *const names[] = {c->kernel, c->initrd, c->firmware, c->payload};
    int r = share_seed(from, c, dir, name_of_new, err);

    for (size_t i = 0; !r && i <= ARRAY_SIZE(names); i++) {
        bool is_flash = i == ARRAY_SIZE(names);
        const char *name = is_flash ? c->flash : names[i];
        cleanup(freep) char *old = instance_path(from, err, "%s", name);
        cleanup(freep) char *new = paths_format(err, "%s/%s", dir, name);

        if (!*name || *name == '/')
            continue;
        r = !old || !new ? -ENOMEM : (is_flash ? store_copy : store_share)(old, new, err);
        if (r == -EEXIST)
            r = 0; /* two keys name one file */
    }
    return r;
}

static int fill(const char *dir, struct instance_config *c, const struct instance_sources *from,
                const char *base, struct error *err)
{
    char id[TREE_ID_BYTES];
    bool has_disk = base || from->disk_bytes;
    int r = share_as(from->kernel, dir, "kernel", c, "kernel", err);

    if (!r)
        r = share_as(from->initrd, dir, "initrd", c, "initrd", err);
    if (!r)
        r = share_as(from->seed, dir, "seed.iso", c, "cloud-init", err);
    if (!r && has_disk)
        r = make_root(dir, base, from->disk_bytes, id, err);
    if (!r)
        r = write_tree(dir, has_disk ? id : NULL, base, err);
    if (!r)
        r = fill_identity(c, err);
    if (!r && *c->image) /* our images have the agent */
        r = instance_mark_new(dir, INSTANCE_NEW_NAME, err);
    if (!r)
        r = config_check(c, err);
    cleanup(freep) char *path = paths_format(err, "%s/instance.yaml", dir);
    cleanup(freep) char *text = r ? NULL : config_format(c, err);
    if (!r)
        r = path && text ? paths_write_safe(path, text, strlen(text), err) : -ENOMEM;
    return r;
}

/** INSTANCES/.NAME.@suffix, and INSTANCES itself. */
static char *beside(const struct instance *in, const char *suffix, struct error *err)
{
    size_t n = strlen(in->dir) - strlen(in->name);

    return suffix ? paths_format(err, "%.*s.%s.%s", (int)n, in->dir, in->name, suffix)
                  : paths_format(err, "%.*s", (int)n, in->dir);
}

int instance_stage(struct instance *in, char **ret, struct error *err)
{
    assert(in->lock_fd >= 0 && !in->exists);
    cleanup(freep) char *fresh = beside(in, "new", err);
    int r = fresh ? paths_make(fresh, err) : -ENOMEM;

    if (!r)
        *ret = ptr_take(&fresh);
    return r;
}

int instance_commit(struct instance *in, struct error *err)
{
    cleanup(freep) char *fresh = beside(in, "new", err);
    cleanup(freep) char *all = beside(in, NULL, err);

    if (!fresh || !all)
        return -ENOMEM;
    if (renameat2(AT_FDCWD, fresh, AT_FDCWD, in->dir, RENAME_NOREPLACE) &&
        rename(fresh, in->dir)) /* a folder that is not empty is not replaced either */
        return error_set(err, errno, "cannot create '%s': %s", in->dir, strerror(errno));
    in->exists = true;
    return paths_sync_dir(all, err);
}

int instance_create(struct instance *in, struct instance_config *config,
                    const struct instance_sources *from, struct error *err)
{
    cleanup(freep) char *fresh = NULL;
    cleanup(freep) char *base = NULL;
    int bases = store_lock_bases(err);
    int r = bases < 0 ? bases : instance_stage(in, &fresh, err);

    if (!r && from->disk)
        r = store_add_base(from->disk, &base, err);
    if (!r)
        r = fill(fresh, config, from, base, err);
    if (!r)
        r = instance_commit(in, err);
    fd_close(bases);
    if (r && fresh)
        (void)store_remove_rest(fresh); /* else the next who locks it does */
    return r;
}

int instance_remove(struct instance *in, struct error *err)
{
    assert(in->lock_fd >= 0);
    cleanup(freep) char *gone = beside(in, "gone", err);
    cleanup(freep) char *base = beside(in, NULL, err);

    if (!gone || !base)
        return -ENOMEM;
    int needed = store_check_unneeded(in->name, "deleted", err);
    if (needed)
        return needed;
    if (rename(in->dir, gone))
        return error_set(err, errno, "cannot remove '%s': %s", in->name, strerror(errno));
    in->exists = false;
    (void)paths_sync_dir(base, NULL); /* a removal that a power cut undoes can be done again */
    int r = store_remove_rest(gone);
    return r ? error_set(err, -r, "cannot remove all of '%s': %s", in->name, strerror(-r)) : 0;
}

int instance_rename(struct instance *in, const char *name, struct error *err)
{
    struct instance *to;
    int r = store_check_unneeded(in->name, "renamed", err);

    if (!r)
        r = instance_open(name, INSTANCE_CHANGE | INSTANCE_NEW | INSTANCE_NO_WAIT, &to, err);
    if (r)
        return r;
    if (to->exists)
        r = error_set(err, EEXIST, "there is an instance '%s' already", name);
    else if (rename(in->dir, to->dir))
        r = error_set(err, errno, "cannot rename '%s': %s", in->name, strerror(errno));
    cleanup(freep) char *base = beside(in, NULL, err);
    if (!r)
        r = base ? paths_sync_dir(base, err) : -ENOMEM;
    instance_close(to);
    return r;
}
