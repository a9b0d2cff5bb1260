/* A running machine in one file: its state and its memory. Format: docs/formats/snapshot.md.
 *
 * Saving stops the machine only while its devices finish what they have begun and its memory is
 * marked copy-on-write (a fork of the monitor, whose child writes the file while the machine goes
 * on).
 *
 * The disks are not in it: a snapshot of an instance freezes them at the same moment. */
#ifndef SNAPSHOT_SNAPSHOT_H
#define SNAPSHOT_SNAPSHOT_H

#include "base/error.h"
#include "base/macros.h"

#include <sys/types.h>

struct vm;

struct snapshot_options {
    /** Called while the machine stands still, its devices quiet: the moment at which disks are
     * frozen. Anything but 0
     * (-errno, with @err set) abandons the snapshot. NULL: nothing to do. */
    int (*at_rest)(void *arg, struct error *err);
    /** Called now and then on the calling thread; anything but 0 abandons the snapshot with
     * -ECANCELED. NULL: no. */
    int (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
    void *arg;
    int level; /* zstd's; 0 = 1 */
};

struct snapshot_report {
    int64_t pause_ns; /* the machine stood still */
    uint64_t file_bytes;
    uint64_t memory_bytes; /* of the guest that were touched, and so saved */
};

/** Write @vm, running or paused, to the new file @path, which appears when it is whole and flushed;
 * the machine then runs or stands as before. @options and @ret may be NULL. Errors: -ENOTSUP (a
 * device whose state cannot be saved), -ENOSPC...: nothing is left. Any thread but the machine's
 * own; one snapshot of a machine at a time. */
must_check int snapshot_save(struct vm *vm, const char *path,
                             const struct snapshot_options *options, struct snapshot_report *ret,
                             struct error *err);

/** Fill the memory and state of @vm, made with the same configuration and config.no_boot and not
 * yet started, from file
 * @path, which is hostile. -EINVAL: damaged, or of another machine; only vm_free() is possible
 * then. */
must_check int snapshot_load(struct vm *vm, const char *path, struct error *err);

/* Live clones. */

struct snapshot_seed;

struct snapshot_clone {
    /** As in struct snapshot_options, with an argument of its own. */
    int (*at_rest)(void *arg, struct error *err);
    void *at_rest_arg;
    /** The clone's process: it has one thread, and of the parent's descriptors the standard ones
     * and keep_fds. Makes its machine by snapshot_grow(); its result is the process's exit status.
     */
    int (*main)(void *arg, const struct snapshot_seed *seed);
    void *arg;
    int *keep_fds; /* gets sorted in the child */
    size_t keep_count;
};

/** Fork a process with a copy of @vm, running or paused, which then runs or stands as before.
 * Memory is shared until written to by either. The caller waits for *@ret_child. @ret_pause_ns may
 * be NULL. Threads and errors as snapshot_save(). */
must_check int snapshot_clone(struct vm *vm, const struct snapshot_clone *options, pid_t *ret_child,
                              int64_t *ret_pause_ns, struct error *err);

/** In that process, once: the machine of @config, which must agree with the original in processors,
 * memory and devices, with the original's memory and state; not started yet. Sets config->adopt and
 * no_boot. */
struct vm_config;
must_check int snapshot_grow(const struct snapshot_seed *seed, struct vm_config *config,
                             struct vm **ret, struct error *err);

#endif
