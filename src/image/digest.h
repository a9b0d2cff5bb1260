/* Message digests in hexadecimal. */
#ifndef IMAGE_DIGEST_H
#define IMAGE_DIGEST_H

#include "base/error.h"

#define DIGEST_HEX_MAX 65 /* SHA-256 in hexadecimal, with the final NUL */

enum digest_kind { DIGEST_SHA256, DIGEST_MD5 };

struct digest;

/** NULL: no memory, or the library refuses the algorithm. */
struct digest *digest_new(enum digest_kind kind);
void digest_add(struct digest *d, const void *data, size_t size);

/** The digest of all that was added, in lower case; @d is freed. False if the library failed. */
bool digest_end(struct digest *d, char ret[DIGEST_HEX_MAX]);
void digest_free(struct digest *d);

/** SHA-256 of memory, of a whole file. 0 or -errno. */
must_check int digest_memory(const void *data, size_t size, char ret[DIGEST_HEX_MAX]);
must_check int digest_file(const char *path, char ret[DIGEST_HEX_MAX]);

#endif
