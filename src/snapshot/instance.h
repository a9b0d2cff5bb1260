/* Snapshots of instances: their disks at one moment, with the running machine's state if it runs;
 * what is left to merge after they are deleted. docs/design/instances.md has the rules,
 * store/tree.h the model.
 *
 * Every call but snapshots_clean() is made with the instance's lock held, by a command (the machine
 * does not run) or by the monitor, whose machine it is. The file tree.json is the only moment at
 * which anything changes: what an interrupted call leaves is removed by instance_recover(). */
#ifndef SNAPSHOT_INSTANCE_H
#define SNAPSHOT_INSTANCE_H

#include "base/error.h"
#include "base/macros.h"
#include "store/tree.h"

struct disk;
struct instance;
struct instance_config;
struct vm;
struct vm_config;

struct snapshots_take {
    const char *name; /* NULL: no snapshot, new tops alone; what they lie on is for `rest` to use */
    const char *description; /* NULL = none */
    struct vm *vm;           /* the instance's machine, running or paused; NULL: it does not run */
    const struct vm_config *config; /* its configuration; with @vm */
    /** The instance's, which it was started with: what has been set since is not what its state
     * fits. With @vm; NULL: as it is now. */
    const struct instance_config *started_with;
    bool disk_only; /* without the machine's state */
    /** Called around the moment while the machine runs, for file systems to be brought to rest;
     * NULL. */
    void (*quiet)(void *arg, bool on);
    /** Instead of saving the state of @vm: bring it to rest, call @at_rest, and let it go on.
     * NULL. */
    int (*rest)(void *arg, int (*at_rest)(void *rest_arg, struct error *err), void *rest_arg,
                struct error *err);
    int (*progress)(void *arg, uint64_t done, uint64_t total); /* other than 0 gives up; NULL */
    void *arg;
};

struct snapshots_report {
    int64_t pause_ns;    /* the machine stood still; 0 = it did not run */
    uint64_t file_bytes; /* of the state */
};

/** Take a snapshot. All disks or none, and the state with them: on failure the instance is as
 * before (but layers may be left to snapshots_clean()). @ret may be NULL. -EEXIST; -ENOTSUP:
 * something has a state that cannot be saved; -ENOSPC... */
must_check int snapshots_take(const struct instance *in, const struct snapshots_take *take,
                              struct snapshots_report *ret, struct error *err);

/** Go back to snapshot @name: configuration, disks, and the state if it has one, which the next
 * start goes on from. The machine does not run. What was written since the last snapshot is lost.
 */
must_check int snapshots_restore(const struct instance *in, const char *name, struct error *err);

/** Forget a snapshot; its children become its parent's. -EBUSY: instance NAME needs its disks. Then
 * call snapshots_clean(). */
must_check int snapshots_delete(const struct instance *in, const char *name, struct error *err);

/** Change the name, if @new_name, and the description, if @description ("" = none). */
must_check int snapshots_rename(const struct instance *in, const char *name, const char *new_name,
                                const char *description, struct error *err);

struct snapshots_clean {
    const char *instance; /* name */
    struct vm *vm;        /* it runs, and its disks' chains are followed; NULL: it does not */
    const struct instance
        *in; /* its lock is held all the time; NULL: it is taken for each change */
    /** While a layer is merged: bytes of it looked at; other than 0 breaks it off. NULL. Also
     * called, with 0 of 0, while waiting for the lock. */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    bool promote; /* and copy what it shares with other instances, until it needs none of them */
    size_t done;  /* set: layers that have gone */
    size_t left;  /* set: layers that could not go yet, since another instance needs them */
};

/** Remove and merge the layers that nobody wants any more, until none is left that can go. Not by
 * two at a time, nor beside another call for this instance. -ECANCELED; -ENOSPC...: to be begun
 * again some time. */
must_check int snapshots_clean(struct snapshots_clean *c, struct error *err);

struct snapshots_copy {
    const char *snapshot; /* of the original; NULL: as it is now, which does not run then */
    bool linked;          /* of a snapshot only */
    bool state;           /* it goes on from the snapshot's state, which it must have */
    int (*progress)(void *arg, uint64_t done, uint64_t total); /* other than 0 gives up; NULL */
    void *arg;
};

/** Make the locked, absent @to a copy of the locked @from, which is not being merged: configuration
 * with a new UUID and network address, disks; no snapshots, and off. -ENOENT, -ENOSPC...: nothing
 * is left. */
must_check int snapshots_copy(const struct instance *from, struct instance *to,
                              const struct snapshots_copy *o, struct error *err);

/* What the files of snapshot/ share */

/** How a layer's file in folder disks/ of its instance names what it lies on; NULL = nothing. Heap.
 * *@ret_format is borrowed. */
must_check int snapshots_name_below(const struct tree_over *over, char **ret,
                                    const char **ret_format, struct error *err);

/** Make the file of layer @l, which is new in the tree, of @size_bytes, in instance folder @dir.
 * Flushed. */
must_check int snapshots_make_layer(const char *dir, const struct tree_layer *l,
                                    uint64_t size_bytes, struct error *err);

/** Open the layer @id of the instance in folder @dir, with all below it. */
must_check int snapshots_open_layer(const char *dir, const char *id, unsigned flags,
                                    struct disk **ret, struct error *err);

#endif
