/* The tar stream of a Debian root file system: the files of packages, and a dpkg database that says
 * they are unpacked and are still to be configured. */
#ifndef IMAGE_PAYLOAD_H
#define IMAGE_PAYLOAD_H

#include "base/error.h"

struct payload;

/** Someone else who wants some files of a package as they pass. */
struct payload_tap {
    bool (*wants)(const char *name, void *arg);
    /** @data (NUL-terminated, malloc'd) is the callee's; for a symbolic link it is NULL and @target
     * says where to. 0 or -errno. */
    int (*take)(const char *name, char *data, size_t size, const char *target, void *arg);
    void *arg;
};

/** Create the tar file @path; NULL with @err set. payload_free() abandons or ends it. */
struct payload *payload_new(const char *path, struct error *err);
void payload_free(struct payload *p);

/** Add package file @deb; the packages' folders come as the first one has them, so begin with
 * base-files. @tap may be NULL. */
must_check int payload_add_deb(struct payload *p, const char *deb, const struct payload_tap *tap,
                               struct error *err);

/** Add a file, a link, that no package has; parent folders must exist in a package or be made by
 * payload_add_dir(). @name is relative. */
must_check int payload_add_file(struct payload *p, const char *name, unsigned mode,
                                const void *data, size_t size, struct error *err);
must_check int payload_add_link(struct payload *p, const char *name, const char *target,
                                struct error *err);
must_check int payload_add_dir(struct payload *p, const char *name, unsigned mode,
                               struct error *err);

/** Names of the packages that have a preinst script, in the order added, separated by newlines.
 * Borrowed. */
const char *payload_preinsts(struct payload *p);

/** Write the dpkg database and end the tar. Only payload_free() is allowed afterwards. */
must_check int payload_finish(struct payload *p, struct error *err);

#endif
