/* Which packages a set of packages needs. */
#ifndef IMAGE_RESOLVE_H
#define IMAGE_RESOLVE_H

#include "image/index.h"

/** A set of packages, in the order they were chosen: each after the one that needs it. */
struct package_set {
    struct package **list;
    size_t count, room;
    uint64_t size_bytes; /* of all .debs */
};

void package_set_done(struct package_set *set);

/** Add to @set (zero-initialised, or from an earlier call with the same index) the packages @names
 * (NULL-terminated), with @required every package of priority "required" or marked essential, and
 * all that they depend on. An alternative that is already in the set is preferred, else the first
 * that exists. -ENOENT with a sentence that names the package and who needs it. */
must_check int package_set_resolve(struct package_set *set, struct index *index,
                                   const char *const *names, bool required, struct error *err);

#endif
