/* Where images, downloads and temporary files live, and small file helpers. */
#ifndef IMAGE_PATHS_H
#define IMAGE_PATHS_H

#include "base/error.h"

/** "$XDG_DATA_HOME/posada/@sub", made if it is missing; root without XDG_DATA_HOME:
 * /var/lib/posada/@sub. NULL with @err set. The caller frees it. */
char *paths_data(const char *sub, struct error *err);

/** Likewise, the folder of the images. */
char *paths_images(struct error *err);

/** "$XDG_CACHE_HOME/posada/@sub", likewise; root: /var/cache/posada/@sub. */
char *paths_cache(const char *sub, struct error *err);

/** A formatted string on the heap; NULL with @err set when out of memory. */
char *paths_format(struct error *err, const char *fmt, ...) printf_like(2, 3);

/** Make a folder and its parents. */
must_check int paths_make(const char *path, struct error *err);

/** Delete a file or a folder with all in it; links are not followed. 0 also if there is none. */
int paths_remove(const char *path);

/** Host storage that a folder's files use, in bytes (not recursive). */
uint64_t paths_usage(const char *dir);

/** The whole file in memory, with a NUL after it; the caller frees *@ret. -EFBIG past @max bytes.
 */
must_check int paths_read(const char *path, size_t max, char **ret, size_t *ret_size,
                          struct error *err);

/** Write a file under a temporary name and rename it into place. */
must_check int paths_write(const char *path, const void *data, size_t size, struct error *err);

#endif
