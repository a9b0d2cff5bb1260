/* Instances on disk: a folder each, locks, and what comes and goes whole. docs/design/instances.md
 * has the layout.
 *
 *   instance_open("web", INSTANCE_CHANGE, &in, &err)    its lock is held until instance_close()
 *   instance_open("web", 0, &in, &err)                  to look at it
 *
 * Who only looks reads files that are replaced whole, and needs no lock. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/error.h"
#include "store/config.h"
#include "store/tree.h"

struct instance {
    char *name;
    char *dir;   /* DATA/instances/NAME, absolute */
    int lock_fd; /* -1: not held */
    int run_fd;  /* likewise */
    bool exists; /* false only for one opened with INSTANCE_NEW that was not created yet */
};

enum instance_open_flags {
    INSTANCE_CHANGE = 1 << 0, /* hold its lock; waits for another holder */
    INSTANCE_NEW = 1 << 1,    /* with CHANGE: it need not exist */
    INSTANCE_NO_WAIT = 1 << 2 /* with CHANGE: -EBUSY, with the holder's name, instead of waiting */
};

/** A name that can be a host name and a file's: up to 63 letters, digits, inner dashes and dots. */
bool instance_name_is_valid(const char *name);

/** Open @name. With INSTANCE_CHANGE, what killed commands have left of it is removed.
 * *@ret is the caller's, for instance_close(). -ENOENT (unless INSTANCE_NEW); -EINVAL: not a name;
 * -EBUSY. Any thread; a struct belongs to one. */
must_check int instance_open(const char *name, unsigned flags, struct instance **ret,
                             struct error *err);
void instance_close(struct instance *in); /* takes NULL */

/** Let go of its lock alone. */
void instance_unlock(struct instance *in);

/** Called once, with "waiting for ..., which changes 'NAME'", when a lock is not free at once; NULL
 * (at start): nobody is told. For the command line's main thread. */
void instance_on_wait(void (*say)(const char *sentence));

/** Take the lock that says that its machine runs, until instance_close(). -EBUSY: it does. */
must_check int instance_take_run(struct instance *in, struct error *err);

/** Does somebody (not necessarily another) hold it? */
bool instance_is_running(const struct instance *in);

/** "DIR/@fmt", heap; NULL with @err set. */
char *instance_path(const struct instance *in, struct error *err, const char *fmt, ...)
    printf_like(3, 4);

/** Its folder under the runtime folder (monitor.sock, vsock/), made if it is missing; heap. */
char *instance_runtime(const char *name, struct error *err);

/** Read its configuration. *@ret is for config_done(). */
must_check int instance_config(const struct instance *in, struct instance_config *ret,
                               struct error *err);

/** Replace instance.yaml by @text, safely. The lock is held. */
must_check int instance_write_config(const struct instance *in, const char *text,
                                     struct error *err);

/** What the guest of an instance does not know of itself yet, and is to be told by its agent at the
 * next start: a file in its folder. */
enum instance_news {
    INSTANCE_NEW_NAME = 1 << 0,     /* that its host name is the instance's */
    INSTANCE_NEW_IDENTITY = 1 << 1, /* that it is a copy: machine-id, keys */
};
/** Note it in folder @dir of an instance that is being made. Flushed. */
must_check int instance_mark_new(const char *dir, unsigned what, struct error *err);
/** What is noted; 0: nothing. */
unsigned instance_introduction(const struct instance *in);
/** The guest has been told, and has written it down. */
must_check int instance_introduced(const struct instance *in, struct error *err);

/** The names of all instances, sorted; the caller frees each and the array. Sweeps what killed
 * creations and removals have left. */
must_check int store_list(char ***ret, size_t *ret_n, struct error *err);

/* create.c */

/** What a new instance is made of: files elsewhere, which it comes to share (hard links) or, on
 * another file system, copies. NULL = none. */
struct instance_sources {
    const char *kernel, *initrd;
    const char *disk;    /* raw: the root disk's lowest layer */
    uint64_t disk_bytes; /* size of the root disk, if larger; 0 = as @disk. Without @disk: an empty
                            one of this size */
    const char *seed;    /* NoCloud disk: seed.iso */
};

/** Create the locked, absent @in: the folder appears whole, by one rename. Sets the config's files
 * (kernel, initrd, cloud-init) to those in the folder, and uuid and mac where they are empty. */
must_check int instance_create(struct instance *in, struct instance_config *config,
                               const struct instance_sources *from, struct error *err);

/** Make the folder in which the locked, absent @in is put together by other means; *@ret is its
 * path, heap. What is in it gets its name by instance_commit(), when all files are flushed, or is
 * removed by paths_remove(). */
must_check int instance_stage(struct instance *in, char **ret, struct error *err);
must_check int instance_commit(struct instance *in, struct error *err);

/** Give folder @dir of new instance @name the files of @from's folder that @c names (kernel,
 * initrd,
 * ...): shared, but for the flash, which its machine writes to, and the seed disk, by which
 * cloud-init sees another instance. */
must_check int instance_share_files(const struct instance *from, const struct instance_config *c,
                                    const char *dir, const char *name, struct error *err);

/** Put a seed disk like the file @from, by which cloud-init sees a new instance @name, at @to,
 * which may be @from: one that Posada has not made is taken as it is. */
must_check int instance_renew_seed(const char *from, const char *to, const char *name,
                                   struct error *err);

/** Delete the locked instance, which does not run. It is gone at once; its files after. */
must_check int instance_remove(struct instance *in, struct error *err);

/** Give the locked instance, which does not run, another name. -EEXIST. */
must_check int instance_rename(struct instance *in, const char *name, struct error *err);

/** Load its tree. *@ret is for tree_free(). */
must_check int instance_tree(const struct instance *in, struct tree **ret, struct error *err);

/** The file of the layer that disk @disk ("root") writes to; heap. NULL without @err set: it has no
 * such disk. */
char *instance_top(const struct instance *in, const char *disk, struct error *err);

/** @from under the new name @to: the same file, or a flushed copy where that cannot be. */
must_check int store_share(const char *from, const char *to, struct error *err);

/** A random UUID, and a random address for a network card, as text. */
void instance_new_uuid(char ret[37]);
void instance_new_mac(char ret[18]);

#endif
