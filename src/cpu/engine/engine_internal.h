/* The engine's own structures.
 *
 * Locks, in order: world.lock, then cache.lock. Neither is held while guest code runs.
 *  - world: which vCPUs are inside run() ("in the world"), requests, and stop-the-world.
 *  - cache: decoded and translated blocks, shared by all vCPUs.
 */
#ifndef CPU_ENGINE_ENGINE_INTERNAL_H
#define CPU_ENGINE_ENGINE_INTERNAL_H

#include "base/thread.h"
#include "cpu/core/context.h"
#include "cpu/core/replay.h"
#include "cpu/engine/engine.h"

#define ENGINE_MAX_CPUS 16
#define ENGINE_FENCES   8
#define BLOCK_MAX_INSNS 64
#define CACHE_HASH_BITS 16

/** A run of instructions within one page: straight-line, one entry. Shared by all vCPUs; immutable
 * but for tagged fields. */
struct block {
    const uint8_t *host;     /* host address of its first byte: with mode, its name */
    uint64_t mode;           /* cpu.mode it was decoded for */
    struct block *page_next; /* [cache.lock] */
    uint32_t hits;           /* [atomic] relaxed: times interpreted */
    uint16_t count;          /* instructions */
    uint16_t bytes;
    uint16_t page_offset;
    bool system; /* it begins with an INSN_SYSTEM instruction, which is all of it */
    bool dead;   /* [atomic] relaxed: its source was overwritten; jump caches drop it when they meet
                    it */
    bool no_code;      /* [cache.lock] translation was tried and refused */
    bool no_region;    /* [cache.lock] it does not begin a region */
    uint8_t back_hits; /* [cache.lock] times that code went back to it, until it was linked */
    /* One instruction across the page's end is a block of its own, which depends on the second
     * page, too: found through the block of no instructions that stands for its first half. */
    const uint8_t *second; /* host address of the second half; NULL: it lies in one page */
    struct block
        *crossing;         /* [cache.lock] of a first half: those there are; the next one of them */
    struct block *guarded; /* [cache.lock] of a second half: the one that it is of */
    uint32_t *entries_left; /* [atomic] relaxed: times that its code will be entered by way of the
                               jump cache until a region is made of what begins here. Generated
                               code counts. There if jit is */
    const void *code; /* [atomic] release/acquire: where the jump cache leads to, NULL = nowhere
                         yet */
    struct jit_block *jit;     /* [cache.lock] the translator's part */
    struct jit_block *region;  /* [cache.lock] the region that begins here and that code is of */
    const struct region *plan; /* [cache.lock] engine=check: what the region is of */
    struct insn insns[];
};

/** A page of guest RAM from which blocks were made. */
struct code_page {
    const uint8_t *host; /* of the page's first byte */
    struct block *blocks;
    struct code_page *next;
    uint64_t chunks; /* bit i: some block has bytes in [64 i, 64 i + 64) */
    /* Of code that is written over and over: */
    uint8_t given_up; /* times that it was made plain memory again */
    uint8_t writes;   /* while it has had no blocks */
};

/** A place in the table of blocks. */
struct cache_slot {
    uint64_t key; /* 0 = never used */
    struct block *block;
};

struct cache {
    struct mutex lock;
    struct cache_slot *slots;           /* [lock] open addressing, linear probing */
    struct cache_slot *old_slots;       /* [lock] to be freed; mostly NULL */
    size_t slot_mask;                   /* [lock] their number - 1 */
    size_t slots_used;                  /* [lock] that have a key */
    struct code_page **pages;           /* [lock] 1 << CACHE_HASH_BITS heads */
    uint8_t *arena;                     /* [init] blocks and code_pages; freed as a whole */
    size_t arena_size;                  /* [init] */
    size_t arena_used;                  /* [lock] */
    uint32_t *counters;                 /* [lock] the next for a block's entries_left */
    unsigned counters_left;             /* [lock] */
    uint64_t longest_stall_ns;          /* [lock] of starting over */
    uint64_t blocks, killed, evictions; /* [lock] statistics: there are; ever */
};

/** What a vCPU is at. */
enum engine_tier { TIER_ENGINE, TIER_INTERPRETER, TIER_CODE, TIER_TRANSLATOR, TIER_IDLE, TIERS };

struct engine_cpu {
    struct vcpu vcpu; /* first */
    struct engine *engine;
    struct cpu *c;                           /* the guest's state, ours */
    bool running;                            /* [world.lock] inside run(): may execute guest code */
    struct vcpu_fence fences[ENGINE_FENCES]; /* [world.lock] that wait to be done, */
    unsigned fence_count;                    /* [world.lock] so many */
    uint32_t kicked;                         /* [atomic] */
    uint32_t raised;     /* [atomic] an interrupt input was raised, be it once more */
    unsigned idle_turns; /* WFIs in a row that had nothing to wait for */
    struct loop_timer timer;
    int64_t armed_ns; /* [atomic] what timer is set to, INT64_MAX = not armed */
    struct vcpu_debug debug;
    bool debugging;              /* step, breakpoints or watchpoints: one instruction at a time */
    struct jit_block *link_from; /* translated code left by this exit: link it to the block run
                                    next */
    unsigned link_exit;
    struct replay *replay; /* engine=check */
    struct cpu *shadow;    /* engine=check: state of the second run */
    struct vcpu_exit shadow_exit;
    /* stats.c */
    uint8_t tier; /* [atomic] enum engine_tier */
    pid_t tid;    /* [atomic] the thread that last ran it */
    struct loop_timer sampler;
    int64_t sampled_ns;      /* [loop] its CPU time at the last sample */
    uint64_t tier_ns[TIERS]; /* [atomic] */
};

struct engine {
    struct engine_config config;              /* [init] */
    struct engine_cpu *cpus[ENGINE_MAX_CPUS]; /* [world.lock]; fixed once vCPUs run */
    struct {
        struct mutex lock;
        struct cond changed;
        bool exclusive; /* [lock] somebody wants all others outside */
    } world;
    char isa[640]; /* [init] */
    struct cache cache;
    struct jit *jit; /* NULL: interpreter only */
};

/* world.c */
void world_enter(struct engine_cpu *ec);
void world_leave(struct engine_cpu *ec);
/** Honour requests and let an exclusive section pass. Inside run(), no lock held. */
void world_attend(struct engine_cpu *ec);
/** Alone in the world until world_exclusive_end(): no other vCPU is inside run(). The caller is
 * inside. Other threads (devices) are kept off the cache by its lock, not by this. */
void world_exclusive_begin(struct engine_cpu *ec);
void world_exclusive_end(struct engine_cpu *ec);
/** Put requests to a vCPU (see vcpu_request()); @self, if not NULL, is the calling vCPU, inside. */
void world_request(struct engine_cpu *self, struct engine_cpu *target, uint32_t requests,
                   bool wait);

/** Have @target forget what @f says, likewise. From outside. */
void world_fence(struct engine_cpu *target, const struct vcpu_fence *f);

/* cache.c */
must_check int cache_init(struct cache *cache, size_t bytes);
void cache_done(struct cache *cache);
/** After cache_reset(): give its memory back. */
void cache_give_back(struct cache *cache) REQUIRES(cache->lock);
/** Shall forked processes have the blocks? Not at first. */
void cache_fork(struct cache *cache, bool with_blocks);
/** The block at c->pc, decoded if need be. CPU_OK with *@ret, NULL if the instruction must be
 * executed singly (it crosses a page, or its mapping may not be remembered); CPU_EXCEPTION;
 * CPU_RETRANSLATE: look again (the caller should attend first). */
enum cpu_status cache_find(struct engine_cpu *ec, struct block **ret);
/** RAM was written: kill blocks made from it. Any thread. */
void cache_written(struct engine *e, gpa_t gpa, uint64_t size);
/** The block of that name; NULL. */
struct block *cache_look_up(struct cache *cache, const uint8_t *host, uint64_t mode)
    REQUIRES(cache->lock);
/** Memory of the cache's arena, 16-byte aligned; NULL when it is full. */
void *cache_take(struct cache *cache, size_t size) REQUIRES(cache->lock);
/** A counter. Those of blocks translated one after the other, and so probably run one after the
 * other, share lines of the host's caches. NULL: the arena is full. */
uint32_t *cache_take_counter(struct cache *cache) REQUIRES(cache->lock);
/** Of what was taken last, @p, only @size bytes are needed. */
void cache_trim(struct cache *cache, void *p, size_t size) REQUIRES(cache->lock);
/** Stop the world and forget everything. Inside run(), no lock held. */
void cache_start_over(struct engine_cpu *ec);
/** Forget everything. World exclusive. */
void cache_reset(struct engine *e) REQUIRES(e->cache.lock);

struct cache_usage {
    uint64_t blocks, killed, evictions, longest_stall_ns;
    size_t decoded_used, code_used, size;
};
/** Takes cache.lock. */
void cache_usage(struct engine *e, struct cache_usage *ret);
void jit_usage(struct engine *e, struct cache_usage *ret) REQUIRES(e->cache.lock);

/* stats.c */
/** Take samples from now on, if config.stats; no more, when it returns (there is a loop). */
void stats_start(struct engine_cpu *ec);
void stats_stop(struct engine_cpu *ec);
size_t stats_counters(struct vcpu *v, struct counter *ret, size_t max);
/** The vCPU is at that now. Its own thread. */
static inline void engine_tier(struct engine_cpu *ec, enum engine_tier tier)
{
    __atomic_store_n(&ec->tier, (uint8_t)tier, __ATOMIC_RELAXED); /* a sampler looks */
}

/* check.c */
must_check int check_init(struct engine_cpu *ec);
void check_done(struct engine_cpu *ec);
enum cpu_status check_run(struct engine_cpu *ec, struct block *b);

/* jit.c */
must_check int jit_new(struct engine *e, struct error *err);
void jit_free(struct engine *e);
/** Give the memory back that it does not need now. */
void jit_trim(struct engine *e) REQUIRES(e->cache.lock);
/** See engine_share() and engine_inherit(). */
must_check int jit_share(struct engine *e, struct error *err);
bool jit_fits(const struct engine *e, const struct engine *from);
must_check int jit_inherit(struct engine *e, struct engine *from, struct error *err);
enum jit_result {
    JIT_DONE,    /* b->code is set */
    JIT_REFUSED, /* interpret it */
    JIT_FULL,    /* everything was forgotten, @b too: look pc up again */
};
/** Translate @b if it is not yet. */
enum jit_result jit_translate(struct engine_cpu *ec, struct block *b);
/** engine=check: make a region of what @b, which is translated, begins, if it has run often. */
void jit_check_region(struct engine_cpu *ec, struct block *b);
/** @b has been entered so often (entries_left is 0) that it had better begin a region. */
void jit_entered_often(struct engine_cpu *ec, struct block *b);
/** Run translated code from @b on, through chained blocks, until something needs the run loop. pc
 * is exact. */
enum cpu_status jit_run(struct engine_cpu *ec, struct cpu *c, struct block *b, bool chain);
/** @b is dead: nothing may jump to it any more. */
void jit_unlink(struct engine *e, struct block *b) REQUIRES(e->cache.lock);
void jit_reset(struct engine *e) REQUIRES(e->cache.lock);

/** What @b was translated to by itself; NULL: it was not. */
const struct host_code *jit_code(const struct block *b);

/* region.c */
#define REGION_BLOCKS 24

/** Blocks of one page between which control goes in circles. */
struct region {
    struct block *blocks[REGION_BLOCKS]; /* the first is the head, where it is entered */
    uint16_t insns[REGION_BLOCKS];       /* to translate: the rest belongs to another one, too */
    bool labels[REGION_BLOCKS];          /* control comes to it not only from the one before */
    unsigned count;
};
/** The region whose head is @head: of what comes back to it, with @circles, else of all that it
 * leads to. False: it is not worth one. */
bool region_find(struct engine *e, struct block *head, bool circles, struct region *ret)
    REQUIRES(e->cache.lock);

/* run.c */
void engine_run(struct vcpu *v, struct vcpu_exit *ret);
/** Execute the instruction at c->pc singly, uncached. */
enum cpu_status engine_step(struct cpu *c);

static inline struct engine_cpu *engine_cpu_of(struct vcpu *v)
{
    return (struct engine_cpu *)v;
}

#endif
