/* Instances: guests that keep their disk. See instance.c for what they are on disk. */
#ifndef CLI_INSTANCE_H
#define CLI_INSTANCE_H

#include "base/macros.h"

#include <sys/types.h>

struct error;
struct image;

/** One instance by name; paths are there whether or not it exists. Zeroed or filled: end with
 * instance_done(). */
struct instance {
    char *name;
    char *dir, *disk, *kernel, *initrd, *append, *image; /* paths */
    char *made_from;   /* name of the image; NULL: it does not exist */
    char *append_text; /* kernel arguments; NULL likewise */
    int lock_fd;       /* -1: not locked */
};

/** A name that can be a host name and a file's: up to 63 letters, digits, inner dashes and dots. */
bool instance_name_is_valid(const char *name);

/** Look @name up, and lock it until instance_done(). -EBUSY: it is running or being removed. */
must_check int instance_open(struct instance *in, const char *name, struct error *err);

/** Look @name up for reading only. */
must_check int instance_peek(struct instance *in, const char *name, struct error *err);

/** Does somebody else hold it? For one that was not locked by us. */
bool instance_is_running(const struct instance *in);

/** Make the locked instance from @image, with a disk of at least @disk_bytes. On failure nothing is
 * left. */
must_check int instance_create(struct instance *in, const struct image *image, uint64_t disk_bytes,
                               struct error *err);

/** Grow the disk of the locked instance to @disk_bytes. -EINVAL when it is larger. */
must_check int instance_grow(const struct instance *in, uint64_t disk_bytes, struct error *err);

/** Delete the locked instance. */
must_check int instance_remove(struct instance *in, struct error *err);

/** The names of all instances, sorted; the caller frees each and the array. */
must_check int instance_list(char ***ret, size_t *ret_n, struct error *err);

void instance_done(struct instance *in);

#endif
