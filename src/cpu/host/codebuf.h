/* Memory for generated code: one region, mapped twice. Code is written through the writable alias
 * and run through the executable one; no mapping is ever both.
 *
 * A forked process can go on with it: codebuf_share() freezes what there is for both sides, and a
 * chunk gets memory of its own when one of them first writes to it (docs/design/live-clones.md).
 *
 * Invariants: bytes below `used` are code; 4-byte words are patched only by aligned stores; the
 * writable alias of a frozen chunk is inaccessible.
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
    size_t chunk;     /* what is unshared at a time: a power of two, at least a page */
    uint64_t *frozen; /* a bit a chunk: it is shared with another process; NULL: none is */
    size_t copied;    /* chunks unshared since, for statistics */
};

/** Map @size bytes (rounded up to pages, at most 1 GiB: jumps are 32-bit). */
must_check int codebuf_init(struct codebuf *b, size_t size, struct error *err);
void codebuf_done(struct codebuf *b);

/** Before a fork whose child shall go on with what there is: nobody may write until the fork is
 * over. -ENOMEM: nothing has changed. */
must_check int codebuf_share(struct codebuf *b, struct error *err);
/** In that child, before it writes: what is free is its own. -ENOMEM: only codebuf_done(). */
must_check int codebuf_inherit(struct codebuf *b, struct error *err);

/** Writable address of the next free byte, with at least @max bytes behind it; NULL: full, or no
 * memory. Everything from there to the end may be written to. */
uint8_t *codebuf_begin(struct codebuf *b, size_t max);
/** Keep the first @size bytes written there; returns their executable address. The next begins at
 * a multiple of 16. */
const uint8_t *codebuf_commit(struct codebuf *b, size_t size);
/** Forget everything. Nobody may run it. */
void codebuf_reset(struct codebuf *b);

/** Give the memory back that is free. */
void codebuf_trim(struct codebuf *b);

/** Where @rx is written through, if its chunk is not frozen. */
static inline uint8_t *codebuf_writable(const struct codebuf *b, const uint8_t *rx)
{
    return b->rw + (rx - b->rx);
}
/** Would storing there unshare a chunk? */
static inline bool codebuf_is_frozen(const struct codebuf *b, const uint8_t *rx)
{
    size_t i = (size_t)(rx - b->rx) / b->chunk;

    return b->frozen && (b->frozen[i / 64] >> (i % 64) & 1);
}
/** Store a 4-byte word at executable address @rx, a multiple of 4, while others may run it. Ends
 * the process if the host has no memory to unshare a chunk: others would run what is to be no more.
 */
void codebuf_patch32(struct codebuf *b, const uint8_t *rx, uint32_t value);

#endif
