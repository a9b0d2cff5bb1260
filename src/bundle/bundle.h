/* Instances in one file: exported and imported. docs/formats/bundle.md describes Posada's own form;
 * the other one is OVA (ovf.h), for and from other hypervisors.
 *
 * Both are written and read in one pass, so a pipe will do; both carry checksums. An import takes
 * effect whole or not at all: the instance appears when all has been checked. */
#ifndef BUNDLE_BUNDLE_H
#define BUNDLE_BUNDLE_H

#include "base/error.h"
#include "base/macros.h"

struct instance;

/** How a long step reports. */
struct bundle_job {
    /** @what: "converted", "written", "read". @total 0: not known. Anything but 0 cancels with
     * -ECANCELED. NULL = none. */
    int (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    /** What was left out and why, a sentence without full stop. NULL = nobody is told. */
    void (*note)(void *arg, const char *sentence);
    void *arg;
};

struct bundle_export {
    const char *snapshot; /* name or identifier of what is exported; NULL: as it is now, stopped */
    bool snapshots;       /* the whole tree with its states; only without `snapshot` */
    bool ova;
    bool plain; /* not packed with zstd; an OVA never is */
};

/** Write instance @in, whose lock is held, to @fd. -EBUSY: it runs, and no snapshot was named.
 * Files of the host that the configuration names (disks, volumes) stay behind. */
must_check int bundle_export(const struct instance *in, const struct bundle_export *options, int fd,
                             const struct bundle_job *job, struct error *err);

struct bundle_import {
    const char *name;   /* NULL: as in the file */
    bool keep_identity; /* UUID and MAC as in the file, not new ones */
};

/** Read an instance from @fd, a bundle or an OVA, which is hostile: what it says of files of the
 * host is not taken over. *@ret_name (heap) is what it is called here. -EEXIST; -EINVAL with a
 * sentence: damaged or not one. */
must_check int bundle_import(int fd, const struct bundle_import *options,
                             const struct bundle_job *job, char **ret_name, struct error *err);

#endif
