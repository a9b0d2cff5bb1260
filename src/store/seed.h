/* NoCloud seed disks, by which cloud-init in a guest learns what to do. */
#ifndef STORE_SEED_H
#define STORE_SEED_H

#include "base/error.h"

/** Make a seed disk for the guest @name: an ISO 9660 image labelled "cidata" with user-data (file
 * @user_data), meta-data (a new instance-id; local-hostname @name) and nothing else, in a
 * file without a name, flushed: *@ret_fd is the caller's. -ENOENT...: @user_data cannot be read;
 * -EINVAL: it is not what cloud-init takes. */
must_check int seed_make(const char *user_data, const char *name, int *ret_fd, struct error *err);

/** The same from the seed disk @path, with its user data: a new instance-id, for @name. -ENOTSUP:
 * it was not made by seed_make(). The file is read with no more trust than any disk of a guest's.
 */
must_check int seed_renew(const char *path, const char *name, int *ret_fd, struct error *err);

#endif
