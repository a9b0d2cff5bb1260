/* A disk as files of a folder: `disk`, and `p1`, `p2`... for its partitions; by FUSE. */
#ifndef CLI_DISK_FUSE_H
#define CLI_DISK_FUSE_H

#include "base/error.h"
#include "disk/disk.h"

/** Mount @d (borrowed) at folder @dir, then call @ready(@arg), and serve until it is unmounted or a
 * signal ends it. @source names the disk in the list of mounts. Errors say what is missing. Does
 * not flush at the end. */
must_check int disk_fuse_serve(struct disk *d, const char *source, const char *dir,
                               void (*ready)(void *arg), void *arg, struct error *err);

#endif
