/* The file system in a disk as a folder on the host: found, then mounted by a driver of the host.
 */
#ifndef CLI_DISK_FILES_H
#define CLI_DISK_FILES_H

#include "base/error.h"
#include "base/macros.h"

#include <limits.h>
#include <sys/types.h>

/** A file with a file system in it, and what mounts it. */
struct disk_files {
    char path[PATH_MAX]; /* "/run/.../disk/p1" */
    char name[16];       /* "p1" */
    const char *type;    /* "ext4"; see disk_find_filesystem() */
    bool write;          /* else what is mounted can only be read */
};

/** Choose in @folder, which disk_fuse_serve() has made, the file of @partition; 0: that of the one
 * partition, or the disk without partitions, with a file system. Errors: -ENOENT (none there),
 * -EINVAL (several), -ENOTSUP (what is there holds no files). */
must_check int disk_files_find(const char *folder, unsigned partition, struct disk_files *ret,
                               struct error *err);

/** A program under way, and what it writes. */
struct disk_files_job {
    pid_t pid;  /* 0 = none is needed */
    int log[2]; /* its standard output and standard error */
};

/** Start what has to be done to @f before it is mounted: the journal of a machine that was killed.
 */
must_check int disk_files_prepare(const struct disk_files *f, struct disk_files_job *job,
                                  struct error *err);

/** Start the driver for @f that this host has, to mount it at @dir: it ends with status 0 when it
 * is mounted. No program runs if it is mounted already, by the kernel: for root, where there is no
 * driver outside of it. Errors: -ENOENT (what is missing is named), what the kernel says. */
must_check int disk_files_mount(const struct disk_files *f, const char *dir,
                                struct disk_files_job *job, struct error *err);

/** Look for @program where the user's PATH says and where administrators' programs are; its path
 * into @ret of PATH_MAX bytes. */
bool disk_files_find_program(const char *program, char *ret);

#endif
