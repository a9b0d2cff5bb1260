/* Where Posada keeps files, and small file helpers. */
#ifndef BASE_PATHS_H
#define BASE_PATHS_H

#include "base/error.h"

/** "$XDG_DATA_HOME/posada/@sub", made if it is missing; root without XDG_DATA_HOME:
 * /var/lib/posada/@sub. NULL with @err set. The caller frees it. */
char *paths_data(const char *sub, struct error *err);

/** Likewise, the folder of the images. */
char *paths_images(struct error *err);

/** "$XDG_CACHE_HOME/posada/@sub", likewise; root: /var/cache/posada/@sub. */
char *paths_cache(const char *sub, struct error *err);

/** "$XDG_RUNTIME_DIR/posada/@sub", for what lives no longer than a process; root without
 * XDG_RUNTIME_DIR: /run/posada/@sub; else /tmp/posada-UID/@sub, whose owner is checked. Made if it
 * is missing, for its owner alone. */
char *paths_runtime(const char *sub, struct error *err);

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

/** Likewise; afterwards the file survives a power cut, whole: the old one or the new one. */
must_check int paths_write_safe(const char *path, const void *data, size_t size, struct error *err);

/** Have the names in folder @path survive a power cut. */
int paths_sync_dir(const char *path, struct error *err);

/** Has the file system of @path room for @bytes more? -ENOSPC with a sentence. */
must_check int paths_check_room(const char *path, uint64_t bytes, struct error *err);

#endif
