/* Decoded blocks, found by the host address of their code and the CPU's mode, shared by all vCPUs.
 *
 * Invariants:
 *  1. While a page has blocks, its flags have MEM_PAGE_CODE and no TLB holds it for direct writing:
 * every store to it comes to cache_written(). (memory.c has the other half of this.)
 *  2. Blocks live in one arena until cache_reset(), which runs with the world stopped: a pointer to
 * a block stays good while its holder is inside run(). A dead block is only no longer found.
 *  3. Bound: the arena. When it is full everything is forgotten.
 */
#include "base/fd.h"
#include "cpu/engine/engine_internal.h"
#include "cpu/engine/trace_engine.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE_MASK (~(uintptr_t)(MEM_PAGE_SIZE - 1))

int cache_init(struct cache *cache, size_t bytes)
{
    mutex_init(&cache->lock);
    cache->slot_mask = (1u << CACHE_HASH_BITS) - 1;
    cache->slots = calloc(cache->slot_mask + 1, sizeof(*cache->slots));
    cache->pages = calloc(1u << CACHE_HASH_BITS, sizeof(*cache->pages));
    cache->arena = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->arena == MAP_FAILED)
        cache->arena = NULL;
    cache->arena_size = bytes;
    cache_fork(cache, false);
    return cache->slots && cache->pages && cache->arena ? 0 : -ENOMEM;
}

void cache_give_back(struct cache *cache)
{
    size_t count = 1u << CACHE_HASH_BITS;
    struct cache_slot *slots = calloc(count, sizeof(*slots));
    struct code_page **pages = calloc(count, sizeof(*pages));

    (void)madvise(cache->arena, cache->arena_size, MADV_DONTNEED); /* else it is kept */
    if (slots &&
        pages) { /* both were cleared already: new ones have no memory until they are used */
        free(cache->slots);
        free(cache->pages);
        cache->slots = ptr_take(&slots);
        cache->slot_mask = count - 1;
        cache->pages = ptr_take(&pages);
    }
    free(slots);
    free(pages);
    free(ptr_take(&cache->old_slots));
}

void cache_fork(struct cache *cache, bool with_blocks)
{
    if (cache->arena) /* hints: without them it is slow, or starts with nothing */
        (void)madvise(cache->arena, cache->arena_size, with_blocks ? MADV_DOFORK : MADV_DONTFORK);
}

void cache_done(struct cache *cache)
{
    free(cache->old_slots);
    free(cache->slots);
    free(cache->pages);
    if (cache->arena)
        (void)munmap(cache->arena, cache->arena_size); /* ours: cannot fail */
    mutex_done(&cache->lock);
}

static uint64_t mix(uint64_t key)
{
    return key * 0x9e3779b97f4a7c15ULL;
}

static unsigned hash_page(const uint8_t *host)
{
    return (unsigned)(mix((uintptr_t)host & PAGE_MASK) >> (64 - CACHE_HASH_BITS));
}

void *cache_take(struct cache *cache, size_t size)
{
    void *p = cache->arena + cache->arena_used;

    size = (size + 15) & ~(size_t)15;
    if (size > cache->arena_size - cache->arena_used)
        return NULL;
    cache->arena_used += size;
    return p;
}

uint32_t *cache_take_counter(struct cache *cache)
{
    enum { TOGETHER = 256 };

    if (!cache->counters_left) {
        cache->counters = cache_take(cache, TOGETHER * sizeof(*cache->counters));
        if (!cache->counters)
            return NULL;
        cache->counters_left = TOGETHER;
    }
    cache->counters_left--;
    return cache->counters++;
}

void cache_trim(struct cache *cache, void *p, size_t size)
{
    cache->arena_used = (size_t)((uint8_t *)p - cache->arena) + ((size + 15) & ~(size_t)15);
}

/* --- The table of blocks. Keys are in it, so that a look-up touches one cache line and the block.
 */

/* Equal keys do not yet make equal names. Never 0 or SLOT_DELETED. */
static uint64_t key_of(const uint8_t *host, uint64_t mode)
{
    return (uint64_t)(uintptr_t)host ^ mode << 48;
}
#define SLOT_DELETED 1ULL

/* The slot of the block, or the one where it belongs, without a block. */
static struct cache_slot *slot_of(const struct cache *cache, const uint8_t *host, uint64_t mode)
    REQUIRES(cache->lock)
{
    uint64_t key = key_of(host, mode);
    struct cache_slot *deleted = NULL;

    for (size_t i = (size_t)(mix(key) >> 32);; i++) {
        struct cache_slot *slot = &cache->slots[i & cache->slot_mask];

        if (!slot->key)
            return deleted ? deleted : slot;
        if (slot->key == SLOT_DELETED && !deleted)
            deleted = slot;
        if (slot->key == key && slot->block->host == host && slot->block->mode == mode)
            return slot;
    }
}

struct block *cache_look_up(struct cache *cache, const uint8_t *host, uint64_t mode)
{
    return slot_of(cache, host, mode)->block;
}

/* Room for one more: the table is never more than half full. False: no memory. */
static bool reserve_slot(struct cache *cache) REQUIRES(cache->lock)
{
    struct cache_slot *old = cache->slots;
    size_t count = cache->slot_mask + 1;
    size_t live = 0;

    if (2 * (cache->slots_used + 1) <= count)
        return true;
    for (size_t i = 0; i < count; i++)
        live += old[i].block != NULL;
    size_t size = 4 * live > count ? 2 * count : count;
    struct cache_slot *slots = calloc(size, sizeof(*slots));
    if (!slots)
        return false;
    cache->slots = slots;
    cache->slot_mask = size - 1;
    cache->slots_used = live;
    for (size_t i = 0; i < count; i++) {
        if (old[i].block)
            *slot_of(cache, old[i].block->host, old[i].block->mode) = old[i];
    }
    free(old);
    return true;
}

static struct code_page *find_page(struct cache *cache, const uint8_t *host, bool make)
    REQUIRES(cache->lock)
{
    const uint8_t *page = (const uint8_t *)((uintptr_t)host & PAGE_MASK);
    struct code_page **head = &cache->pages[hash_page(host)];
    struct code_page *p = *head;

    while (p && p->host != page)
        p = p->next;
    if (p || !make)
        return p;
    p = cache_take(cache, sizeof(*p));
    if (p) {
        *p = (struct code_page){.host = page, .next = *head};
        *head = p;
    }
    return p;
}

static uint64_t chunk_mask(unsigned first, unsigned last)
{
    uint64_t hi = last / 64 == 63 ? ~0ULL : (1ULL << (last / 64 + 1)) - 1;

    return hi & ~((1ULL << (first / 64)) - 1);
}

/* The page flags of host page @page, or NULL for ROM (which nobody writes directly). */
static uint8_t *flags_of(const struct mem *mem, const uint8_t *host, bool *ret_rom)
{
    const struct mem_region *r;

    *ret_rom = false;
    for (size_t i = 0; (r = mem_next(mem, &i));) {
        if (r->host && host >= r->host && host < r->host + r->size) {
            *ret_rom = !r->writable;
            return &r->page_flags[(size_t)(host - r->host) >> MEM_PAGE_BITS];
        }
    }
    assert(!"code outside guest memory");
    return NULL;
}

/* Make the page of @host a code page: no TLB may write it directly. False: another vCPU had to be
 * asked, look again. */
static bool protect_page(struct engine_cpu *ec, uint8_t *flags)
{
    struct engine *e = ec->engine;

    /* seq-cst: pairs with enter() in memory.c */
    if (!(__atomic_fetch_or(flags, MEM_PAGE_CODE, __ATOMIC_SEQ_CST) & MEM_PAGE_WMAP))
        return true;
    __atomic_fetch_and(flags, (uint8_t)~MEM_PAGE_WMAP, __ATOMIC_SEQ_CST);
    cpu_flush_writes(ec->c);
    for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++) {
        if (e->cpus[i] && e->cpus[i] != ec)
            world_request(ec, e->cpus[i], CPU_REQ_WRITES, true);
    }
    return false;
}

/* A system instruction ends a block. Where blocks run twice (engine=check), it is one of its own.
 */
static unsigned decode(struct cpu *c, const uint8_t *host, struct insn *insns, unsigned *ret_bytes)
{
    bool alone = c->engine->config.kind == ENGINE_CHECK;
    unsigned offset = (unsigned)((uintptr_t)host & ~PAGE_MASK);
    unsigned count = 0;
    unsigned done = 0;

    while (count < BLOCK_MAX_INSNS) {
        struct insn *insn = &insns[count];
        unsigned size = c->ops->decode(c, host + done, MEM_PAGE_SIZE - offset - done, insn);

        if (!size || (count && alone && (insn->flags & INSN_SYSTEM)))
            break;
        insn->page_offset = (uint16_t)(offset + done);
        done += size;
        count++;
        if ((insn->flags & (INSN_END | INSN_SYSTEM)) || offset + done >= MEM_PAGE_SIZE)
            break;
    }
    *ret_bytes = done;
    return count;
}

/* A block of no instructions that dies when one of the @bytes at @host is written. */
static void watch(struct cache *cache, struct code_page *page, struct block *b)
    REQUIRES(cache->lock)
{
    b->page_next = page->blocks;
    page->blocks = b;
    page->chunks |= chunk_mask(b->page_offset, b->page_offset + b->bytes - 1u);
    page->writes = 0;
    cache->blocks++;
}

static struct block *insert(struct cache *cache, struct cpu *c, const uint8_t *host)
    REQUIRES(cache->lock)
{
    struct insn insns[BLOCK_MAX_INSNS];
    unsigned bytes;
    unsigned count = decode(c, host, insns, &bytes);
    unsigned offset = (unsigned)((uintptr_t)host & ~PAGE_MASK);
    struct code_page *page = find_page(cache, host, true);
    struct block *b = page && reserve_slot(cache)
                          ? cache_take(cache, sizeof(*b) + MAX(count, 1u) * sizeof(insns[0]))
                          : NULL;

    if (!b)
        return NULL;
    *b = (struct block){
        .host = host,
        .mode = c->mode,
        .count = (uint16_t)count,
        .bytes = (uint16_t)MAX(
            bytes, 2u), /* one that crosses the page (count 0) still depends on its first half */
        .page_offset = (uint16_t)offset,
        .system = count && (insns[0].flags & INSN_SYSTEM),
    };
    memcpy(b->insns, insns, count * sizeof(insns[0]));
    watch(cache, page, b);
    struct cache_slot *slot = slot_of(cache, host, b->mode);
    cache->slots_used += !slot->key;
    *slot = (struct cache_slot){key_of(host, b->mode), b};
    cpu_count(&c->stats.blocks_decoded);
    trace_block_decode(c->index, c->pc, b->mode, b->count, b->bytes);
    return b;
}

/* The block of the instruction whose first half is @first and whose second one is at @second. */
static struct block *insert_crossing(struct cache *cache, struct cpu *c, struct block *first,
                                     const uint8_t *second) REQUIRES(cache->lock)
{
    struct code_page *page = find_page(cache, second, true);
    struct block *b = cache_take(cache, sizeof(*b) + sizeof(b->insns[0]));
    struct block *guard = cache_take(cache, sizeof(*guard));
    uint8_t bytes[4];

    if (!page || !b || !guard)
        return NULL;
    *b = (struct block){.host = first->host,
                        .mode = first->mode,
                        .count = 1,
                        .bytes = 2,
                        .page_offset = first->page_offset,
                        .second = second,
                        .crossing = first->crossing};
    memcpy(bytes, first->host, 2);
    memcpy(bytes + 2, second, 2);
    (void)c->ops->decode(c, bytes, 4, b->insns); /* four bytes always decode */
    b->insns->page_offset = b->page_offset;
    b->system = (b->insns->flags & INSN_SYSTEM) != 0;
    first->crossing = b;
    *guard = (struct block){.host = second, .mode = first->mode, .bytes = 2, .guarded = b};
    watch(cache, page, guard);
    cpu_count(&c->stats.blocks_decoded);
    return b;
}

void cache_start_over(struct engine_cpu *ec)
{
    struct engine *e = ec->engine;
    int64_t start = host_now_ns();

    world_exclusive_begin(ec);
    mutex_lock(&e->cache.lock);
    cache_reset(e);
    struct cache_slot *old = ptr_take(&e->cache.old_slots);
    uint64_t ns = (uint64_t)(host_now_ns() - start);
    e->cache.longest_stall_ns = MAX(e->cache.longest_stall_ns, ns);
    mutex_unlock(&e->cache.lock);
    world_exclusive_end(ec);
    free(old); /* takes a while, too */
}

/* A large table is replaced by a small one: clearing it would keep the world waiting. */
static void clear_slots(struct engine *e) REQUIRES(e->cache.lock)
{
    struct cache *cache = &e->cache;
    size_t count = 1u << CACHE_HASH_BITS;
    struct cache_slot *fresh =
        cache->slot_mask >= count && !cache->old_slots ? calloc(count, sizeof(*fresh)) : NULL;

    if (fresh) {
        cache->old_slots = cache->slots;
        cache->slots = fresh;
        cache->slot_mask = count - 1;
    } else {
        memset(cache->slots, 0, (cache->slot_mask + 1) * sizeof(*cache->slots));
    }
    cache->slots_used = 0;
}

void cache_reset(struct engine *e)
{
    struct cache *cache = &e->cache;

    for (unsigned i = 0; i < 1u << CACHE_HASH_BITS; i++) {
        for (struct code_page *p = cache->pages[i]; p; p = p->next) {
            bool rom;
            uint8_t *flags = flags_of(e->config.mem, p->host, &rom);

            __atomic_fetch_and(flags, (uint8_t)~MEM_PAGE_CODE, __ATOMIC_SEQ_CST);
        }
        cache->pages[i] = NULL;
    }
    clear_slots(e);
    trace_cache_reset(cache->arena_used);
    cache->arena_used = 0;
    cache->counters_left = 0;
    cache->blocks = 0;
    cache->evictions++;
    if (e->jit)
        jit_reset(e);
    for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++) {
        if (e->cpus[i])
            cpu_flush_jumps(e->cpus[i]->c);
    }
}

void cache_usage(struct engine *e, struct cache_usage *ret)
{
    struct cache *cache = &e->cache;

    mutex_lock(&e->cache.lock);
    *ret = (struct cache_usage){.blocks = cache->blocks,
                                .killed = cache->killed,
                                .evictions = cache->evictions,
                                .longest_stall_ns = cache->longest_stall_ns,
                                .decoded_used = cache->arena_used,
                                .size = cache->arena_size};
    if (e->jit)
        jit_usage(e, ret);
    mutex_unlock(&e->cache.lock);
}

/* May blocks be made of the page of @host? If not, attend and look again: with the lock given back
 * meanwhile. */
static bool may_decode(struct engine *e, struct engine_cpu *ec, const uint8_t *host)
    REQUIRES(e->cache.lock)
{
    bool rom;
    uint8_t *flags = flags_of(e->config.mem, host, &rom);
    const uint8_t both = MEM_PAGE_CODE | MEM_PAGE_WMAP;

    if (rom || (__atomic_load_n(flags, __ATOMIC_SEQ_CST) & both) == MEM_PAGE_CODE)
        return true;
    mutex_unlock(&e->cache.lock);
    bool alone = protect_page(ec, flags);
    mutex_lock(&e->cache.lock);
    /* A store may have come between and have made it plain memory again. */
    return alone && (__atomic_load_n(flags, __ATOMIC_SEQ_CST) & both) == MEM_PAGE_CODE;
}

/* The block at c->pc, its first byte being at @host; NULL: none, and *ret_status says why. */
static struct block *find_block(struct engine_cpu *ec, const uint8_t *host,
                                enum cpu_status *ret_status)
{
    struct engine *e = ec->engine;
    bool full = false;

    mutex_lock(&e->cache.lock);
    struct block *b = cache_look_up(&e->cache, host, ec->c->mode);
    if (!b && may_decode(e, ec, host)) {
        b = cache_look_up(&e->cache, host, ec->c->mode); /* the lock may have been given back */
        b = b ? b : insert(&e->cache, ec->c, host);
        full = !b;
    }
    mutex_unlock(&e->cache.lock);
    if (full)
        cache_start_over(ec);
    *ret_status = b ? CPU_OK : CPU_RETRANSLATE;
    return b;
}

/* The same for the instruction at c->pc that begins with @first, a block of none, and goes on at
 * @second. */
static struct block *find_crossing(struct engine_cpu *ec, struct block *first,
                                   const uint8_t *second, enum cpu_status *ret_status)
{
    struct engine *e = ec->engine;
    struct block *b;
    bool full = false;

    mutex_lock(&e->cache.lock);
    for (b = first->crossing; b && (b->second != second || b->dead);)
        b = b->crossing;
    if (!b && may_decode(e, ec, second) && !first->dead) {
        b = insert_crossing(&e->cache, ec->c, first, second);
        full = !b;
    }
    mutex_unlock(&e->cache.lock);
    if (full)
        cache_start_over(ec);
    *ret_status = b ? CPU_OK : CPU_RETRANSLATE;
    return b;
}

enum cpu_status cache_find(struct engine_cpu *ec, struct block **ret)
{
    struct cpu *c = ec->c;
    struct cpu_fetch f, second;

    *ret = NULL;
    enum cpu_status rc = cpu_fetch_host(c, c->pc, &f);
    if (rc != CPU_OK || f.uncached)
        return rc;
    cpu_count(&c->stats.block_lookups);
    struct block *b = find_block(ec, f.host, &rc);
    if (b && !b->count) {
        rc = cpu_fetch_host(c, c->pc + 2, &second);
        if (rc != CPU_OK || second.uncached)
            return rc;
        f.global &= second.global;
        b = find_crossing(ec, b, second.host, &rc);
    }
    if (!b)
        return rc;
    const void *code = __atomic_load_n(&b->code, __ATOMIC_ACQUIRE);
    uint32_t mode = (uint32_t)c->mode | JUMP_VALID;
    struct jump_entry j = {
        .key = c->pc, .block = b, .code = code, .mode = mode, .code_mode = code ? mode : 0};

    cpu_enter_jump(c, &j, f.global);
    *ret = b;
    return CPU_OK;
}

/* Nobody finds or enters @b any more. */
static void bury(struct engine *e, struct block *b) REQUIRES(e->cache.lock)
{
    if (b->dead)
        return;
    trace_block_kill(b->host, b->mode, b->count);
    __atomic_store_n(&b->dead, true, __ATOMIC_RELAXED);
    e->cache.killed++;
    if (e->jit)
        jit_unlink(e, b);
}

static void kill_block(struct engine *e, struct block *b) REQUIRES(e->cache.lock)
{
    struct cache_slot *slot = slot_of(&e->cache, b->host, b->mode);

    if (slot->block == b) /* no guard */
        *slot = (struct cache_slot){.key = SLOT_DELETED};
    e->cache.blocks--;
    bury(e, b);
    for (struct block *x = b->count ? NULL : b->crossing; x; x = x->crossing)
        bury(e, x);
    if (b->guarded)
        bury(e, b->guarded);
}

/* Kill the blocks of @page with bytes in [@first, @last], or only those that begin regions. True:
 * some were. */
static bool kill_blocks(struct engine *e, struct code_page *page, unsigned first, unsigned last,
                        bool regions) REQUIRES(e->cache.lock)
{
    bool killed = false;

    page->chunks = 0;
    for (struct block **p = &page->blocks; *p;) {
        struct block *b = *p;
        unsigned b_last = b->page_offset + b->bytes - 1u;

        if (b->page_offset <= last && b_last >= first && (b->region || !regions)) {
            *p = b->page_next;
            kill_block(e, b);
            killed = true;
        } else {
            page->chunks |= chunk_mask(b->page_offset, b_last);
            p = &b->page_next;
        }
    }
    return killed;
}

/* Shall a code page whose last block died be plain memory again? Code that is written, run and
 * written again had better remain one: withdrawing write access from all TLBs costs more than some
 * slow stores. */
static bool give_up(struct code_page *page)
{
    enum { OFTEN = 4, MANY_WRITES = 64 };

    if (page->given_up >= OFTEN && ++page->writes < MANY_WRITES)
        return false;
    page->given_up = (uint8_t)MIN(page->given_up + 1, OFTEN);
    page->writes = 0;
    return true;
}

void cache_written(struct engine *e, gpa_t gpa, uint64_t size)
{
    const struct mem_region *r = mem_find(e->config.mem, gpa);
    unsigned first = (unsigned)(gpa.v & (MEM_PAGE_SIZE - 1));
    unsigned last = first + (unsigned)size - 1;

    if (!r || !r->host || !r->writable)
        return;
    const uint8_t *host = r->host + (gpa.v - r->base.v);
    mutex_lock(&e->cache.lock);
    struct code_page *page = find_page(&e->cache, host, false);
    if (page && (page->chunks & chunk_mask(first, last))) {
        bool killed = kill_blocks(e, page, first, last, false);

        if (killed) /* which may have been part of them */
            (void)kill_blocks(e, page, 0, MEM_PAGE_SIZE - 1, true);
    }
    if (!page || (!page->blocks && give_up(page))) /* stores may be direct again */
        __atomic_fetch_and(&r->page_flags[(host - r->host) >> MEM_PAGE_BITS],
                           (uint8_t)~MEM_PAGE_CODE, __ATOMIC_SEQ_CST);
    mutex_unlock(&e->cache.lock);
}
