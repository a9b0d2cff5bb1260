/* Memory for generated code: one region, mapped twice. Code is written through the writable alias
 * and run through the executable one; no mapping is ever both.
 *
 * Invariants: bytes below `used` are code; 4-byte words are patched only by aligned stores.
 * Threads: writing under the owner's lock; running on any thread. */
#ifndef CPU_HOST_CODEBUF_H
#define CPU_HOST_CODEBUF_H

#include "base/error.h"
#include "base/macros.h"

struct codebuf {
    uint8_t *rw;
    const uint8_t *rx;
    size_t size;
    size_t used;
};

/** Map @size bytes (rounded up to pages, at most 1 GiB: jumps are 32-bit). */
must_check int codebuf_init(struct codebuf *b, size_t size, struct error *err);
void codebuf_done(struct codebuf *b);

/** Writable address of the next free byte, with at least @max bytes behind it; NULL: full. */
uint8_t *codebuf_begin(struct codebuf *b, size_t max);
/** Keep the first @size bytes written there; returns their executable address. The next begins at
 * a multiple of 16. */
const uint8_t *codebuf_commit(struct codebuf *b, size_t size);
/** Forget everything from @keep on. Nobody may run it. */
void codebuf_reset(struct codebuf *b, size_t keep);

static inline uint8_t *codebuf_writable(const struct codebuf *b, const uint8_t *rx)
{
    return b->rw + (rx - b->rx);
}
/** Store a 4-byte word at executable address @rx, a multiple of 4, while others may run it. */
void codebuf_patch32(struct codebuf *b, const uint8_t *rx, uint32_t value);

#endif
