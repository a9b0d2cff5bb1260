/* The folder of images: what is in it, its locks, and how a build gets in. */
#ifndef IMAGE_STORE_H
#define IMAGE_STORE_H

#include "image/image.h"

/** The folder name of an image: "debian-trixie-riscv64". */
void store_dir_name(const struct image_spec *spec, char ret[IMAGE_NAME_MAX]);

/** Lock @spec's image against other builders and removers, until store_unlock(). With @wait,
 * waits for another holder, calling @tick (NULL: never) several times a second until it returns
 * nonzero (-ECANCELED); without, -EBUSY. */
must_check int store_lock(const struct image_spec *spec, bool wait, int (*tick)(void *arg),
                          void *arg, struct error *err);

/** @lock is what store_lock() returned; if that was an error, nothing is done. */
void store_unlock(const struct image_spec *spec, int lock);

/** A new empty folder for the build of @spec, after deleting what killed builds of it have left.
 * The lock is held. The caller frees *@ret, and renames or deletes the folder. */
must_check int store_begin(const struct image_spec *spec, char **ret, struct error *err);

/** What is written to an image's folder beside its files. */
struct store_meta {
    const struct image_spec *spec; /* mirror: the one used */
    const char *append, *kernel_release;
    bool has_initrd, has_disk;
};

/** Give the folder @dir of store_begin() its name, in place of an older image, if any. */
must_check int store_commit(const char *dir, const struct store_meta *meta, struct error *err);

#endif
