/* Decompression, and the entries of .deb packages. */
#ifndef IMAGE_UNPACK_H
#define IMAGE_UNPACK_H

#include "base/error.h"

struct archive;
struct archive_entry;

/** Decompress @data (xz, zstd, gzip, bzip2...; plain data stays as it is) into memory, at most @max
 * bytes; *@ret (with a NUL after it) is the caller's. -EBADMSG for damaged data, -EFBIG past @max.
 */
must_check int unpack_memory(const void *data, size_t size, size_t max, char **ret,
                             size_t *ret_size, struct error *err);

/** What to do with a .deb's entries. Any hook may be NULL. Anything but 0 stops, and is returned.
 */
struct deb_ops {
    /** A file of the control archive: @name without "./", @data NUL-terminated. */
    int (*control)(const char *name, const char *data, size_t size, void *arg);
    /** An entry of the data archive: @name without "./" and final '/'; never empty, absolute or
     * with a ".." part. Contents: archive_read_data() on @a. */
    int (*data)(struct archive *a, struct archive_entry *entry, const char *name, void *arg);
};

/** Walk the package file @path: control first, then data. -EBADMSG for damaged packages. */
must_check int deb_read(const char *path, const struct deb_ops *ops, void *arg, struct error *err);

/** The contents of the data entry just handed out, into memory, at most @max bytes. */
must_check int deb_read_entry(struct archive *a, size_t max, char **ret, size_t *ret_size,
                              struct error *err);

#endif
