/* What `posada disk mount --files` leaves running: the process that serves the disk as files in a
 * private folder, and the one that watches it and the file system mounted from there. */
#ifndef CLI_DISK_KEEPER_H
#define CLI_DISK_KEEPER_H

#include "base/error.h"
#include "base/macros.h"

struct disk_keeper {
    const char *dir;    /* where the files are to appear */
    unsigned partition; /* see disk_files_find() */
    bool write;
    /** In a process of its own: serve the disk at @dir, write a byte to @ready_fd when it is
     * there, return the exit status at the end, when it has said what went wrong. */
    int (*serve)(void *arg, const char *dir, int ready_fd);
    /** All is mounted. */
    void (*ready)(void *arg);
    void *arg;
};

/** Mount, wait until `dir` is unmounted, by whomever, or a signal comes, and take down the rest.
 * 0; -ECHILD: serve() has failed and said why; else -errno with @err set. Only in a process with
 * one thread. */
must_check int disk_keep(const struct disk_keeper *k, struct error *err);

/** End what disk_keep() keeps at @dir, and wait for its end: then all is written. @unmount unmounts
 * a folder. -ENOENT: there is none. */
must_check int disk_keep_end(const char *dir, int (*unmount)(const char *dir, struct error *err),
                             struct error *err);

#endif
