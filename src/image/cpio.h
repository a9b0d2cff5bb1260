/* Writer of cpio archives in the "newc" format that Linux takes as an initramfs. */
#ifndef IMAGE_CPIO_H
#define IMAGE_CPIO_H

#include "base/error.h"

struct cpio;

/** Create the file @path and begin an archive; NULL with @err set. Everything belongs to root. */
struct cpio *cpio_new(const char *path, struct error *err);

/** Add an entry. @name is relative ("bin/sh"); missing parent folders are added first. A name may
 * be added again: the later entry wins when Linux unpacks. A write error is remembered for
 * cpio_finish(). -EFBIG for data past 4 GiB - 1, the format's limit. */
int cpio_add_file(struct cpio *c, const char *name, unsigned mode, const void *data, size_t size);
int cpio_add_link(struct cpio *c, const char *name, const char *target);
int cpio_add_dir(struct cpio *c, const char *name, unsigned mode);
int cpio_add_char_device(struct cpio *c, const char *name, unsigned mode, unsigned major,
                         unsigned minor);

/** End the archive and free @c. 0, or the first error of any call. */
must_check int cpio_finish(struct cpio *c, struct error *err);

/** Free @c without ending; the file stays, unusable. NULL is allowed. */
void cpio_abandon(struct cpio *c);

#endif
