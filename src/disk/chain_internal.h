/* What the files that change chains share. */
#ifndef DISK_CHAIN_INTERNAL_H
#define DISK_CHAIN_INTERNAL_H

#include "disk/disk_internal.h"

/** The top of the chain that @d is, or wraps. */
struct disk *chain_top(struct disk *d);

/** A new map of what is below @top, in place of the old one. Without memory it is read layer by
 * layer. */
void chain_remap(struct disk *top);

/** Open the file of layer @d, which is at @path, anew and alone. */
must_check int chain_open_again(const struct disk *d, const char *path, unsigned flags,
                                struct disk **ret, struct error *err);

#endif
