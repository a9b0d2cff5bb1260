/* Downloads: several at a time, each checked against its size and SHA-256 before it gets its name.
 */
#ifndef IMAGE_FETCH_H
#define IMAGE_FETCH_H

#include "base/error.h"
#include "image/digest.h"

/** One file to have. Strings are the caller's. */
struct fetch {
    char *url;
    char *path;                  /* where to; its folder exists */
    char sha256[DIGEST_HEX_MAX]; /* expected */
    uint64_t size_bytes;         /* expected */
};

/** Called with the bytes received and expected so far; anything but 0 cancels. */
typedef int fetch_progress_fn(uint64_t done, uint64_t total, void *arg);

/** Have all of @list: a file that is there with the right digest stays, others are downloaded and
 * renamed into place. Tries each three times. -ECANCELED; -EBADMSG for wrong contents; -EIO...
 * Files already complete stay on failure. Not thread safe against itself in one process. */
must_check int fetch_all(const struct fetch *list, size_t n, fetch_progress_fn *progress, void *arg,
                         struct error *err);

/** Download @url, at most @max bytes, into memory; *@ret (NUL-terminated) is the caller's. -ENOENT
 * when the server says there is no such file. */
must_check int fetch_memory(const char *url, size_t max, char **ret, size_t *ret_size,
                            struct error *err);

#endif
