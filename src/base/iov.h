/* Scatter lists: sizes, slices, zeroes. Header only. */
#ifndef BASE_IOV_H
#define BASE_IOV_H

#include "base/macros.h"

#include <string.h>
#include <sys/uio.h>

/** Bytes in all. */
static inline size_t iov_bytes(const struct iovec *iov, unsigned n)
{
    size_t total = 0;

    for (unsigned i = 0; i < n; i++)
        total += iov[i].iov_len;
    return total;
}

/** Fill all of it with zeroes. */
static inline void iov_zero(const struct iovec *iov, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        memset(iov[i].iov_base, 0, iov[i].iov_len);
}

/** The part [skip, skip+size) of @src, as far as there is one, as a list of its own in @dst, which
 * has room for @n and may be @src. Returns its length. */
static inline unsigned iov_slice(struct iovec *dst, const struct iovec *src, unsigned n,
                                 size_t skip, size_t size)
{
    unsigned count = 0;

    for (unsigned i = 0; i < n && size; i++) {
        if (skip >= src[i].iov_len) {
            skip -= src[i].iov_len;
            continue;
        }
        size_t part = MIN(src[i].iov_len - skip, size);

        dst[count++] = (struct iovec){.iov_base = (char *)src[i].iov_base + skip, .iov_len = part};
        size -= part;
        skip = 0;
    }
    return count;
}

#endif
