/* Code memory: an anonymous file mapped once read-write, once read-execute. See codebuf.h. */
#include "cpu/host/codebuf.h"

#include "base/bits.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CODE_ALIGN 16

int codebuf_init(struct codebuf *b, size_t size, struct error *err)
{
    int fd, r;
    void *rw, *rx;

    size = align_up(size, 4096);
    if (!size || size > (size_t)1 << 30)
        return error_set(err, EINVAL, "translation cache of %zu bytes: must be 4 KiB to 1 GiB",
                         size);
    fd = memfd_create("posada-code", MFD_CLOEXEC);
    if (fd < 0)
        return error_set(err, errno, "cannot create memory for generated code");
    if (ftruncate(fd, (off_t)size) < 0) {
        r = error_set(err, errno, "cannot size memory for generated code");
        close(fd);
        return r;
    }
    rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (rw == MAP_FAILED || rx == MAP_FAILED) {
        r = error_set(err, errno, "cannot map memory for generated code");
        if (rw != MAP_FAILED)
            munmap(rw, size);
        if (rx != MAP_FAILED)
            munmap(rx, size);
        close(fd);
        return r;
    }
    close(fd);
    /* shared with a forked process it would change under its feet: none has it */
    (void)madvise(rw, size, MADV_DONTFORK);
    (void)madvise(rx, size, MADV_DONTFORK);
    *b = (struct codebuf){.rw = rw, .rx = rx, .size = size};
    return 0;
}

void codebuf_done(struct codebuf *b)
{
    if (!b->rw)
        return;
    munmap(b->rw, b->size);
    munmap((void *)(uintptr_t)b->rx, b->size);
    *b = (struct codebuf){0};
}

uint8_t *codebuf_begin(struct codebuf *b, size_t max)
{
    return b->size - b->used >= max ? b->rw + b->used : NULL;
}

const uint8_t *codebuf_commit(struct codebuf *b, size_t size)
{
    const uint8_t *start = b->rx + b->used;

    b->used = MIN(align_up(b->used + size, CODE_ALIGN), b->size);
    return start;
}

void codebuf_reset(struct codebuf *b, size_t keep)
{
    b->used = align_up(keep, CODE_ALIGN);
}

void codebuf_patch32(struct codebuf *b, const uint8_t *rx, uint32_t value)
{
    uint32_t *word = (uint32_t *)(void *)codebuf_writable(b, rx);

    dcheck(((uintptr_t)word & 3) == 0);
    /* release: the code that the jump leads to was written before */
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
