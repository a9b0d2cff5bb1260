/* Kernel modules of a linux-image package: which ones are needed, in a form that modprobe reads. */
#ifndef IMAGE_MODULES_H
#define IMAGE_MODULES_H

#include "base/error.h"

struct cpio;
struct modules;

/** An empty set; NULL: no memory. */
struct modules *modules_new(void);
void modules_free(struct modules *m);

/** Is @name ("usr/lib/modules/6.1/kernel/fs/ext4/ext4.ko.xz") a module's file? */
bool modules_is_path(const char *name);

/** Keep the module file @path with its contents (packed or not); @data becomes the set's, in any
 * case. -ENOMEM. */
must_check int modules_add(struct modules *m, const char *path, char *data, size_t size);

/** Unpack the modules @names (NULL-terminated; those the kernel has built in, or not at all, are
 * passed over) and all they depend on into @c as lib/modules/@release/NAME.ko, with modules.dep,
 * modules.alias and modules.softdep. -EBADMSG for a damaged module. */
must_check int modules_write(struct modules *m, const char *const *names, const char *release,
                             struct cpio *c, struct error *err);

/** The .modinfo section of the ELF64 little-endian file @data: NUL-separated "key=value". -EBADMSG.
 */
must_check int modules_modinfo(const void *data, size_t size, const char **ret, size_t *ret_size);

#endif
