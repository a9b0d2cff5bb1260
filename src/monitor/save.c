/* A machine's state in a file of its instance: saved when it is stopped that way, loaded at the
 * next start.
 *
 * Saving: the machine stands still, the file is written and flushed, then the tree names it, then
 * the machine is gone: killed before the commit, the instance has lost what a power cut would lose;
 * after it, nothing.
 *
 * Loading: when the machine has its state, and before it runs, the tree forgets it: from then on
 * the disks go on, and the state would not fit them any more. */
#include "base/fd.h"
#include "base/paths.h"
#include "disk/disk.h"
#include "monitor/monitor_internal.h"
#include "snapshot/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/** The instance's folder; the caller closes it. */
static int open_dir(const struct instance *in, struct error *err)
{
    int fd = open(in->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? error_set(err, errno, "cannot open folder '%s': %s", in->dir, strerror(errno))
                  : fd;
}

int save_load(const struct instance *in, struct vm *vm, struct error *err)
{
    char name[TREE_PATH_BYTES];
    struct tree *t;
    int r = instance_tree(in, &t, err);

    if (r)
        return r;
    tree_state_path(name, t->current.state);
    cleanup(freep) char *path = instance_path(in, err, "%s", name);
    struct error why = {0};
    r = path ? snapshot_load(vm, path, &why) : -ENOMEM;
    if (r)
        (void)error_set(
            err, -r,
            "'%s' cannot go on from its saved state: %s ('posada start --boot %s' drops "
            "the state)",
            in->name, error_text(&why), in->name);
    cleanup(fd_closep) int dir = r ? -1 : open_dir(in, err);
    if (!r && dir < 0)
        r = dir;
    if (!r) {
        t->current.state[0] = '\0';
        r = tree_store(dir, t, err);
    }
    if (!r && tree_sweep(dir, t, NULL, NULL)) {
        /* a file that stays is removed by the next sweep */
    }
    tree_free(t);
    return r;
}

int save_is_there(const struct instance *in, bool *ret, struct error *err)
{
    struct tree *t;
    int r = instance_tree(in, &t, err);

    if (r)
        return r;
    *ret = t->current.state[0] != '\0';
    tree_free(t);
    return 0;
}

static int report(void *arg, uint64_t done, uint64_t total)
{
    struct api_call *call = arg;

    if (!call)
        return 0;
    api_progress(call, json_pack("{s:I, s:I}", "done_bytes", (json_int_t)done, "total_bytes",
                                 (json_int_t)total));
    return api_call_is_gone(call);
}

/** What the machine has written must not be older than its state. */
static int flush_disks(struct vm *vm, size_t count, struct error *err)
{
    int r = 0;

    for (size_t i = 0; !r && i < count; i++)
        r = disk_flush(vm_disk(vm, i));
    return r ? error_set(err, -r, "cannot write a disk: %s", strerror(-r)) : 0;
}

/** Name the state file @id in the tree. */
static int commit(const struct instance *in, const char *id, struct vm *vm, struct error *err)
{
    struct tree *t;
    cleanup(fd_closep) int dir = open_dir(in, err);
    int r = dir < 0 ? dir : instance_tree(in, &t, err);

    if (r)
        return r;
    memcpy(t->current.state, id, sizeof(t->current.state));
    r = flush_disks(vm, t->current.disk_count, err);
    if (!r)
        r = tree_store(dir, t, err);
    tree_free(t);
    return r;
}

int save_write(const struct instance *in, struct vm *vm, struct api_call *call, struct error *err)
{
    const struct snapshot_options options = {.progress = report, .arg = call};
    char id[TREE_ID_BYTES], name[TREE_PATH_BYTES];
    cleanup(freep) char *states = instance_path(in, err, "states");
    int r = states ? paths_make(states, err) : -ENOMEM;

    if (!r)
        r = tree_new_id(id, err);
    if (r)
        return r;
    tree_state_path(name, id);
    cleanup(freep) char *path = instance_path(in, err, "%s", name);
    r = path ? snapshot_save(vm, path, &options, NULL, err) : -ENOMEM;
    if (!r)
        r = paths_sync_dir(states, err);
    if (!r)
        r = commit(in, id, vm, err);
    if (r && path)
        (void)unlink(path); /* else the next sweep does */
    return r;
}
