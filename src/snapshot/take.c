/* Taking a snapshot of an instance.
 *
 *   new layers made, new tree written beside the old one, disks flushed     (the machine goes on)
 *   machine at rest: disks flushed; tree replaced; tops exchanged           (its pause)
 *   state of the machine written by a fork                                  (it goes on)
 *   tree: the snapshot is whole
 *
 * Invariants: (1) what can fail in the pause comes before the tree is replaced; (2) while its state
 * is being written the snapshot is `pending`, so that a killed command leaves one that is known to
 * be no snapshot; (3) a failure after the pause takes the snapshot back: the layers stay, with
 * nothing that names them, to be merged.
 *
 * Threads: the caller's; the machine's own are not it. */
#include "base/clock.h"
#include "base/fd.h"
#include "disk/chain.h"
#include "snapshot/instance.h"
#include "snapshot/snapshot.h"
#include "store/recover.h"
#include "store/store.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct take {
    const struct instance *in;
    const struct snapshots_take *o;
    int dir_fd;
    struct tree *tree; /* as it shall be */
    char id[TREE_ID_BYTES];
    char state[TREE_ID_BYTES]; /* "" = without */
    bool is_committed;
    struct disk *old[TREE_DISKS_MAX]; /* to be closed after the pause */
};

/** Every disk that is written to must be one of the tree's, or what is restored does not fit
 * together. */
static int check_disks(const struct take *t, struct error *err)
{
    const struct vm_config *c = t->o->config;

    for (size_t i = t->tree->current.disk_count; c && *t->state && i < c->disk_count; i++) {
        if (!c->disks[i].readonly && !c->disks[i].snapshot)
            return error_set(err, ENOTSUP,
                             "disk '%s' is a file of its own, which snapshots do not cover: "
                             "--disk-only leaves it and the machine's state out",
                             c->disks[i].path);
    }
    return 0;
}

static int get_size(const struct take *t, size_t i, const char *layer, uint64_t *ret,
                    struct error *err)
{
    struct disk *d = NULL;

    if (t->o->vm) {
        *ret = vm_disk(t->o->vm, i)->size_bytes;
        return 0;
    }
    int rc = snapshots_open_layer(t->in->dir, layer, DISK_READONLY | DISK_NO_BACKING, &d, err);
    if (rc)
        return rc;
    *ret = d->size_bytes;
    disk_close(d);
    return 0;
}

/** The files of the new tops. */
static int make_tops(const struct take *t, struct error *err)
{
    const struct tree_point *p = &t->tree->current;
    int rc = 0;

    for (size_t i = 0; !rc && i < p->disk_count; i++) {
        const struct tree_layer *l = tree_find_layer(t->tree, p->disks[i].layer);
        uint64_t size = 0;

        rc = get_size(t, i, l->over.id, &size, err);
        if (!rc)
            rc = snapshots_make_layer(t->in->dir, l, size, err);
    }
    return rc;
}

/** The machine stands still: the moment. */
static int at_rest(void *arg, struct error *err)
{
    struct take *t = arg;
    struct disk_push *push[TREE_DISKS_MAX] = {0};
    const struct tree_point *p = &t->tree->current;
    char path[TREE_PATH_BYTES];
    int rc = 0;

    for (size_t i = 0; !rc && t->o->vm && i < p->disk_count; i++) {
        char whole[PATH_MAX];

        tree_layer_path(path, p->disks[i].layer);
        (void)snprintf(whole, sizeof(whole), "%s/%s", t->in->dir, path); /* too long: not found */
        rc = disk_push_prepare(vm_disk(t->o->vm, i), whole, &push[i], err);
    }
    if (!rc)
        rc = tree_commit(t->dir_fd, err);
    for (size_t i = 0; i < TREE_DISKS_MAX; i++) {
        if (rc)
            disk_push_abort(push[i]);
        else if (push[i])
            vm_disk_set(t->o->vm, i, disk_push_finish(push[i], &t->old[i]));
    }
    t->is_committed = !rc;
    return rc;
}

static int rest_alone(struct take *t, struct snapshots_report *report, struct error *err)
{
    struct vm *vm = t->o->vm;

    if (!vm)
        return at_rest(t, err);
    bool was_running = vm_get_state(vm) == VM_RUNNING;
    int64_t start_ns = host_now_ns();
    vm_freeze(vm);
    int rc = at_rest(t, err);
    vm_thaw(vm);
    if (was_running)
        vm_resume(vm);
    report->pause_ns = host_now_ns() - start_ns;
    return rc;
}

static int progress(void *arg, uint64_t done, uint64_t total)
{
    const struct take *t = arg;

    return t->o->progress ? t->o->progress(t->o->arg, done, total) : 0;
}

static int rest_and_save(struct take *t, struct snapshots_report *report, struct error *err)
{
    struct snapshot_options o = {.at_rest = at_rest, .progress = progress, .arg = t};
    struct snapshot_report r = {0};
    char path[TREE_PATH_BYTES];

    tree_state_path(path, t->state);
    cleanup(freep) char *whole = instance_path(t->in, err, "%s", path);
    int rc = whole ? snapshot_save(t->o->vm, whole, &o, &r, err) : -ENOMEM;
    report->pause_ns = r.pause_ns;
    report->file_bytes = r.file_bytes;
    return rc;
}

static int write_disks(const struct take *t, struct error *err)
{
    int rc = 0;

    for (size_t i = 0; !rc && t->o->vm && i < t->tree->current.disk_count; i++)
        rc = disk_flush(vm_disk(t->o->vm, i));
    return rc ? error_set(err, -rc, "cannot write a disk: %s", strerror(-rc)) : 0;
}

/** The tree as it shall be, without anything done. */
static int plan(struct take *t, struct error *err)
{
    cleanup(freep) char *config = NULL;
    struct tree_snapshot *s = NULL;
    int rc = instance_config_text(t->in, &config, err);

    if (!rc && !t->o->name)
        return tree_push_tops(t->tree, err);
    if (!rc && t->o->vm && !t->o->disk_only)
        rc = tree_new_id(t->state, err);
    else if (!rc && !t->o->disk_only) /* what is saved for the next start belongs to it as well */
        memcpy(t->state, t->tree->current.state, sizeof(t->state));
    if (!rc)
        rc = check_disks(t, err);
    if (!rc && *t->state && t->o->started_with) {
        char *fit = config_rewrite(config, t->o->started_with, false, err);
        free(config);
        config = fit;
        rc = fit ? 0 : -ENOMEM;
    }
    if (!rc)
        rc = tree_take(t->tree, t->o->name, config, t->state, &s, err);
    if (rc)
        return rc;
    s = tree_find_named(t->tree, t->o->name);
    s->is_pending = t->o->vm && *t->state;
    memcpy(t->id, s->id, sizeof(t->id));
    return tree_set_text(&s->description, t->o->description)
               ? error_set(err, ENOMEM, "out of memory")
               : 0;
}

static int make_folders(const struct take *t, struct error *err)
{
    if ((mkdirat(t->dir_fd, "states", 0700) && errno != EEXIST) ||
        (mkdirat(t->dir_fd, "disks", 0700) && errno != EEXIST))
        return error_set(err, errno, "cannot make a folder in '%s': %s", t->in->dir,
                         strerror(errno));
    return 0;
}

/** After the pause: the snapshot is whole, or it was none. */
static int conclude(struct take *t, int rc, struct error *err)
{
    struct tree_snapshot *s = tree_find_snapshot(t->tree, t->id);
    struct error late = {0};

    if (!s || (!rc && !s->is_pending))
        return rc;
    s->is_pending = false;
    if (rc)
        tree_remove_snapshot(t->tree, t->id);
    int stored = tree_store(t->dir_fd, t->tree, &late);
    if (!rc && stored)
        (void)error_set(err, -stored, "%s", error_text(&late));
    return rc ? rc : stored;
}

/** The lock is held: is nothing in the way of the moment? */
static int get_ready(struct take *t, struct error *err)
{
    int rc = tree_load(t->dir_fd, &t->tree, err);

    if (!rc)
        rc = plan(t, err);
    if (!rc)
        rc = make_folders(t, err);
    if (!rc)
        rc = make_tops(t, err);
    if (!rc)
        rc = tree_prepare(t->dir_fd, t->tree, err);
    return rc ? rc : write_disks(t, err);
}

int snapshots_take(const struct instance *in, const struct snapshots_take *o,
                   struct snapshots_report *ret, struct error *err)
{
    struct take t = {.in = in, .o = o};
    struct snapshots_report report = {0};

    t.dir_fd = open(in->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t.dir_fd < 0)
        return error_set(err, errno, "cannot open '%s': %s", in->dir, strerror(errno));
    int rc = get_ready(&t, err);
    if (!rc) {
        if (o->quiet)
            o->quiet(o->arg, true);
        rc = o->rest             ? o->rest(o->arg, at_rest, &t, err)
             : o->vm && *t.state ? rest_and_save(&t, &report, err)
                                 : rest_alone(&t, &report, err);
        if (o->quiet)
            o->quiet(o->arg, false);
    }
    for (size_t i = 0; i < TREE_DISKS_MAX; i++)
        disk_close(t.old[i]);
    if (t.is_committed)
        rc = conclude(&t, rc, err);
    else
        tree_abandon(t.dir_fd);
    if (rc)
        (void)instance_sweep(in, NULL); /* the next command does it otherwise */
    tree_free(t.tree);
    fd_close(t.dir_fd);
    if (!rc && ret)
        *ret = report;
    return rc;
}
