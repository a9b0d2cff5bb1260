/* Code memory: shared memory mapped once read-write, once read-execute. See codebuf.h.
 *
 * A process without a free descriptor, which a guest can bring about, still can unshare a chunk:
 * the second mapping is made by mremap(), and a file is there only for its name in /proc/PID/maps.
 */
#include "cpu/host/codebuf.h"

#include "base/bits.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CODE_ALIGN 16
#define CHUNK_MIN  (16u << 10)
#define CHUNKS_MAX 8192u /* two mappings each, of the 65530 that a process may have */

/** Address space of @size bytes. NULL: none. */
static uint8_t *reserve(size_t size)
{
    void *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

/** Shared memory. MAP_FAILED: none. */
static void *map_shared(size_t size)
{
    int fd = memfd_create("posada-code", MFD_CLOEXEC);
    bool named = fd >= 0 && !ftruncate(fd, (off_t)size);
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_NORESERVE | (named ? 0 : MAP_ANONYMOUS), named ? fd : -1, 0);

    if (fd >= 0)
        (void)close(fd); /* the mapping stays */
    return p;
}

/** New memory in both views from offset @at on, which begins with a copy of @keep bytes that are
 * there. Each view is replaced in one step: who runs code there notices nothing. */
static int renew(struct codebuf *b, size_t at, size_t size, size_t keep)
{
    const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    uint8_t *rx = (uint8_t *)(uintptr_t)b->rx;
    void *w = map_shared(size);
    void *x = w == MAP_FAILED ? w : mremap(w, 0, size, MREMAP_MAYMOVE);

    if (x != MAP_FAILED && !mprotect(x, size, PROT_READ | PROT_EXEC)) {
        memcpy(w, b->rx + at, keep);
        if (mremap(x, size, size, flags, rx + at) != MAP_FAILED) {
            x = MAP_FAILED;
            if (mremap(w, size, size, flags, b->rw + at) != MAP_FAILED)
                return 0;
        }
    }
    if (x != MAP_FAILED)
        (void)munmap(x, size);
    if (w != MAP_FAILED)
        (void)munmap(w, size);
    return -ENOMEM;
}

int codebuf_init(struct codebuf *b, size_t size, struct error *err)
{
    size = align_up(size, 4096);
    if (!size || size > (size_t)1 << 30)
        return error_set(err, EINVAL, "translation cache of %zu bytes: must be 4 KiB to 1 GiB",
                         size);
    *b = (struct codebuf){.rw = reserve(size), .rx = reserve(size), .size = size};
    for (b->chunk = CHUNK_MIN; b->chunk < size / CHUNKS_MAX;)
        b->chunk *= 2;
    if (b->rw && b->rx && !renew(b, 0, size, 0))
        return 0;
    codebuf_done(b);
    return error_set(err, ENOMEM, "cannot map memory for generated code");
}

void codebuf_done(struct codebuf *b)
{
    if (b->rw)
        (void)munmap(b->rw, b->size); /* ours, so they cannot fail */
    if (b->rx)
        (void)munmap((void *)(uintptr_t)b->rx, b->size);
    free(b->frozen);
    *b = (struct codebuf){0};
}

/* --- Sharing --- */

/** The end of what is used, and of the chunk that it lies in. */
static size_t chunks_end(const struct codebuf *b)
{
    return MIN(align_up(b->used, b->chunk), b->size);
}

int codebuf_share(struct codebuf *b, struct error *err)
{
    size_t end = chunks_end(b);
    size_t words = b->size / b->chunk / 64 + 1;

    if (!b->frozen)
        b->frozen = calloc(words, sizeof(*b->frozen));
    if (!b->frozen ||
        (end && mmap(b->rw, end, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
                     -1, 0) == MAP_FAILED))
        return error_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; i * b->chunk < end; i++)
        b->frozen[i / 64] |= 1ULL << (i % 64);
    return 0;
}

int codebuf_inherit(struct codebuf *b, struct error *err)
{
    size_t end = chunks_end(b);

    b->copied = 0;
    if (end < b->size && renew(b, end, b->size - end, 0))
        return error_set(err, ENOMEM, "cannot map memory for generated code");
    return 0;
}

/** Make the chunk at offset @at our own. */
static int thaw(struct codebuf *b, size_t at)
{
    size_t i = at / b->chunk;

    if (!b->frozen || !(b->frozen[i / 64] >> (i % 64) & 1))
        return 0;
    at = i * b->chunk;
    int rc = renew(b, at, MIN(b->chunk, b->size - at), MIN(b->chunk, b->used - at));
    if (rc)
        return rc;
    b->frozen[i / 64] &= ~(1ULL << (i % 64));
    b->copied++;
    return 0;
}

/* --- Writing --- */

uint8_t *codebuf_begin(struct codebuf *b, size_t max)
{
    /* what lies behind the last chunk that is used is never frozen */
    return b->size - b->used >= max && !thaw(b, b->used) ? b->rw + b->used : NULL;
}

const uint8_t *codebuf_commit(struct codebuf *b, size_t size)
{
    const uint8_t *start = b->rx + b->used;

    b->used = MIN(align_up(b->used + size, CODE_ALIGN), b->size);
    return start;
}

void codebuf_reset(struct codebuf *b)
{
    if (b->frozen && renew(b, 0, chunks_end(b), 0)) {
        log_error("no memory for generated code");
        abort();
    }
    free(b->frozen);
    b->frozen = NULL;
    b->used = 0;
}

void codebuf_trim(struct codebuf *b)
{
    size_t from = chunks_end(b); /* what lies behind is ours alone */

    if (from < b->size)
        (void)madvise(b->rw + from, b->size - from, MADV_REMOVE); /* else it is kept */
}

void codebuf_patch32(struct codebuf *b, const uint8_t *rx, uint32_t value)
{
    uint32_t *word = (uint32_t *)(void *)codebuf_writable(b, rx);

    dcheck(((uintptr_t)word & 3) == 0);
    if (unlikely(thaw(b, (size_t)(rx - b->rx)))) {
        log_error("no memory for generated code");
        abort();
    }
    /* release: the code that the jump leads to was written before */
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
