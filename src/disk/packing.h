/* Compressed clusters: deflate and zstd, with the compressors' memory kept from one to the next. */
#ifndef DISK_PACKING_H
#define DISK_PACKING_H

#include "base/macros.h"

#include <stddef.h>

enum pack_kind {
    PACK_DEFLATE, /* raw, RFC 1951; made with a window of 4 KiB */
    PACK_ZLIB,    /* RFC 1950 */
    PACK_ZSTD,    /* RFC 8878 */
};

#define PACK_SLACK 4096u /* so much longer than its bytes does PACK_ZLIB become at most */

struct packer;

/** NULL: out of memory. The caller's, for packer_free(). */
struct packer *packer_new(void);
void packer_free(struct packer *p); /* takes NULL */

/** Compress @size bytes into @to. *@ret_size is what they have become. -E2BIG: more than @room;
 * -ENOMEM. PACK_DEFLATE says -E2BIG also if it would gain next to nothing. Any thread. */
must_check int packer_pack(struct packer *p, enum pack_kind kind, const void *from, size_t size,
                           void *to, size_t room, size_t *ret_size);

/** Decompress into @to, of at most @room bytes; *@ret_size says how many. What follows the stream
 * in @from is left alone, and a stream may go on beyond @room if PACK_ZLIB it is not. -EIO: it
 * makes no sense; -ENOMEM. Any thread. Memory does not depend on what @from says. */
must_check int packer_unpack(struct packer *p, enum pack_kind kind, const void *from, size_t size,
                             void *to, size_t room, size_t *ret_size);

#endif
