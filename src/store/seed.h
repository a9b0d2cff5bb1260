/* NoCloud seed disks, by which cloud-init in a guest learns what to do. */
#ifndef IMAGE_SEED_H
#define IMAGE_SEED_H

#include "base/error.h"

/** Make a seed disk for the guest @name: an ISO 9660 image labelled "cidata" with user-data (file
 * @user_data), meta-data (a new instance-id; local-hostname @name) and nothing else, in a
 * file without a name, flushed: *@ret_fd is the caller's. -ENOENT...: @user_data cannot be read;
 * -EINVAL: it is not what cloud-init takes. */
must_check int seed_make(const char *user_data, const char *name, int *ret_fd, struct error *err);

#endif
