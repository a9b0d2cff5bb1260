/* What an engine knows of its machine's code, handed on to the engine of a forked process: blocks,
 * and what they were translated to. Both lie at the same addresses there, as does the memory that
 * they are named by and the program whose functions they call, so everything holds as it is; the
 * blocks' memory is copied by the kernel when either writes to it, the code's by codebuf.c.
 *
 * Threads: the one that forks; in the child there is no other yet. */
#include "base/fd.h"
#include "cpu/engine/engine_internal.h"

#include <stdlib.h>
#include <sys/mman.h>

int engine_share(struct engine *e, struct error *err)
{
    mutex_lock(&e->cache.lock);
    int rc = jit_share(e, err);
    if (!rc)
        cache_fork(&e->cache, true);
    mutex_unlock(&e->cache.lock);
    return rc;
}

void engine_shared(struct engine *e)
{
    cache_fork(&e->cache, false);
}

static bool alike(const struct engine_config *a, const struct engine_config *b)
{
    return a->kind == b->kind && a->profile == b->profile && a->vlen == b->vlen &&
           a->builtin_sbi == b->builtin_sbi && a->cache_bytes == b->cache_bytes &&
           a->timebase_hz == b->timebase_hz;
}

/* The page flags of host page @page; NULL: it is not @mem's. */
static uint8_t *flags_of(const struct mem *mem, const uint8_t *page)
{
    const struct mem_region *r;

    for (size_t i = 0; (r = mem_next(mem, &i));) {
        if (r->host && page >= r->host && page < r->host + r->size)
            return &r->page_flags[(size_t)(page - r->host) >> MEM_PAGE_BITS];
    }
    return NULL;
}

/* Is all code that there are blocks of in @mem? */
static bool is_whole(const struct cache *cache, const struct mem *mem) REQUIRES(cache->lock)
{
    for (unsigned i = 0; i < 1u << CACHE_HASH_BITS; i++) {
        for (const struct code_page *p = cache->pages[i]; p; p = p->next) {
            if (!flags_of(mem, p->host))
                return false;
        }
    }
    return true;
}

/* @from's blocks become @e's, which has none. TLBs are empty, so no more than the flags is needed
 * that stores come to cache_written(). */
static void take_blocks(struct engine *e, struct cache *from) REQUIRES(e->cache.lock)
    REQUIRES(from->lock)
{
    struct cache *cache = &e->cache;

    free(cache->slots);
    free(cache->pages);
    (void)munmap(cache->arena, cache->arena_size); /* ours: cannot fail */
    cache->slots = ptr_take(&from->slots);
    cache->slot_mask = from->slot_mask;
    cache->slots_used = from->slots_used;
    cache->pages = ptr_take(&from->pages);
    cache->arena = ptr_take(&from->arena);
    cache->arena_size = from->arena_size;
    cache->arena_used = from->arena_used;
    cache->blocks = from->blocks;
    cache_fork(cache, false);
    for (unsigned i = 0; i < 1u << CACHE_HASH_BITS; i++) {
        for (const struct code_page *p = cache->pages[i]; p; p = p->next) {
            if (p->blocks)
                __atomic_fetch_or(flags_of(e->config.mem, p->host), MEM_PAGE_CODE,
                                  __ATOMIC_SEQ_CST);
        }
    }
}

int engine_inherit(struct engine *e, struct engine *from, struct error *err)
{
    int rc = 0;

    mutex_lock(&e->cache.lock);
    mutex_lock(&from->cache.lock);
    if (alike(&e->config, &from->config) && jit_fits(e, from) &&
        is_whole(&from->cache, e->config.mem)) {
        rc = jit_inherit(e, from, err);
        if (!rc)
            take_blocks(e, &from->cache);
    }
    mutex_unlock(&from->cache.lock);
    mutex_unlock(&e->cache.lock);
    return rc;
}
