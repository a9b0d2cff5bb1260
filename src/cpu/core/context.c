/* Address spaces of one CPU: a small set of TLBs and jump caches, one per address-space key, so
 * that a guest's context switch flushes nothing.
 *
 * Kernels map themselves alike in all address spaces, and say so (global pages). So the tables of
 * mode CPU_MMU_SHARED are one and the same memory, mapped into every context, until something is to
 * be entered that is not global: then that context gets one of its own.
 *
 * Invariants:
 *  1. c->context is one of c->contexts and valid; no two valid contexts have one key. The first is
 *     that of key 0 for ever, and shares nothing.
 *  2. Tables say whether they may hold entries, and whether some of those are not global: flushing
 *     looks only there. What is beyond a TLB's mask is garbage. The shared table has none that are
 *     not global. Contexts that share have the same tlb_mask for it.
 *  3. A memo holds what an entry of its TLB held since the last flush: what flushes entries clears
 *     the memos.
 * Threads: the CPU's own.
 */
#include "cpu/core/context.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define TLB_MASK(bits) (((1u << (bits)) - 1) * (unsigned)sizeof(struct tlb_entry))

/* A guest whose kernel has pages that are not global would have tables mapped to and fro for ever:
 * after so many times contexts no longer begin by sharing. */
#define OWNED_MAX 64

/* All memory: the contexts, and one more mapping of the table that they share. */
struct contexts {
    struct cpu_context contexts[CPU_CONTEXTS];
    struct cpu_table shared;
};

static unsigned tlb_entries(const struct cpu_context *x, unsigned mmu)
{
    return x->tlb_mask[mmu] / (unsigned)sizeof(struct tlb_entry) + 1;
}

static void set_tlb_entries(struct cpu *c, struct cpu_context *x, unsigned mmu, unsigned entries)
{
    uint32_t mask = (entries - 1) * (unsigned)sizeof(struct tlb_entry);
    bool shared = x->shares && mmu == CPU_MMU_SHARED;

    x->tlb_mask[mmu] = mask;
    for (unsigned i = 0; shared && i < CPU_CONTEXTS; i++) {
        if (c->contexts[i].shares)
            c->contexts[i].tlb_mask[mmu] = mask;
    }
}

/* All tables in use, each once, whoever shares it: (*@i)++ each time. NULL: that was all. */
static struct cpu_context *next_table(struct cpu *c, unsigned *i, unsigned *ret_mmu)
{
    bool shared_done = false;

    for (unsigned n = 0; n < CPU_CONTEXTS * CPU_MMU_MODES; n++) {
        struct cpu_context *x = &c->contexts[n / CPU_MMU_MODES];
        bool shared = x->shares && n % CPU_MMU_MODES == CPU_MMU_SHARED;

        if (n >= *i && (shared ? !shared_done : x->valid)) {
            *i = n + 1;
            *ret_mmu = n % CPU_MMU_MODES;
            return x;
        }
        shared_done |= shared;
    }
    return NULL;
}

#define MEMOS_READS  0xffffu
#define MEMOS_WRITES 0xffff0000u

/* Forget what generated code remembers of a TLB: reads, writes, or both. */
static void clear_memos(struct cpu_table *t, uint32_t which)
{
    enum { EACH = TLB_MEMOS / 16 };

    for (uint32_t left = t->memo_used & which; left; left &= left - 1)
        memset(&t->memos[EACH * (unsigned)__builtin_ctz(left)], 0, EACH * sizeof(struct tlb_memo));
    t->memo_used &= ~which;
}

/* Empty a TLB; one that had few evictions may be too large: next time less is to be cleared. */
static void clear_tlb(struct cpu *c, struct cpu_context *x, unsigned mmu)
{
    struct cpu_table *t = &x->tables[mmu];
    unsigned entries = tlb_entries(x, mmu);

    if (!t->tlb_used)
        return;
    memset(t->tlb, 0, entries * sizeof(struct tlb_entry));
    if (entries > 1u << TLB_MIN_BITS && t->evicted < entries / 16)
        set_tlb_entries(c, x, mmu, entries / 2);
    t->evicted = 0;
    t->tlb_used = t->tlb_local = false;
    clear_memos(t, MEMOS_READS | MEMOS_WRITES);
}

void cpu_tlb_evicts(struct cpu *c, unsigned mmu)
{
    struct cpu_table *t = &c->context->tables[mmu];
    unsigned entries = tlb_entries(c->context, mmu);
    unsigned more = MIN(4 * entries, TLB_MAX_ENTRIES);

    if (++t->evicted < entries || entries == TLB_MAX_ENTRIES)
        return;
    memset(t->tlb, 0, more * sizeof(struct tlb_entry));
    set_tlb_entries(c, c->context, mmu, more);
    t->evicted = 0;
}

static void clear_jumps(struct cpu_table *t)
{
    if (!t->jumps_used)
        return;
    for (unsigned i = 0; i < JUMP_ENTRIES / 64; i++) {
        if (t->jump_lines[i / 64] >> (i % 64) & 1)
            memset(&t->jumps[64 * i], 0, 64 * sizeof(t->jumps[0]));
    }
    memset(t->jump_lines, 0, sizeof(t->jump_lines));
    memset(t->jump_pages, 0, sizeof(t->jump_pages));
    t->jumps_used = t->jumps_local = false;
}

static void flush_table(struct cpu *c, struct cpu_context *x, unsigned mmu)
{
    struct cpu_table *t = &x->tables[mmu];

    clear_tlb(c, x, mmu);
    clear_jumps(t);
    memset(t->large, 0, sizeof(t->large));
    t->huge = 0;
    t->huge_bits = 0;
}

/* Have @x's table of the shared mode be that of the others. False: it stays its own. */
static bool share(struct cpu *c, struct cpu_context *x)
{
    struct cpu_table *shared = &((struct contexts *)(void *)c->contexts)->shared;
    void *at = &x->tables[CPU_MMU_SHARED];

    /* one more mapping of the same memory */
    if (c->contexts_owned > OWNED_MAX ||
        mremap(shared, 0, sizeof(*shared), MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED)
        return false;
    x->shares = true;
    x->tlb_mask[CPU_MMU_SHARED] = TLB_MASK(TLB_MIN_BITS);
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        if (&c->contexts[i] != x && c->contexts[i].shares)
            x->tlb_mask[CPU_MMU_SHARED] = c->contexts[i].tlb_mask[CPU_MMU_SHARED];
    }
    return true;
}

bool cpu_own_table(struct cpu *c, unsigned mmu)
{
    struct cpu_context *x = c->context;
    struct cpu_table *t = &x->tables[mmu];

    if (mmu != CPU_MMU_SHARED || !x->shares)
        return true;
    if (mmap(t, sizeof(*t), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        return false;
    (void)madvise(t, sizeof(*t), MADV_DONTFORK); /* as all contexts */
    x->shares = false;
    x->tlb_mask[mmu] = TLB_MASK(TLB_MIN_BITS);
    c->contexts_owned++;
    return true;
}

int cpu_contexts_init(struct cpu *c)
{
    struct contexts *all = mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (all == MAP_FAILED)
        return -ENOMEM;
    c->contexts = all->contexts;
    if (mmap(&all->shared, sizeof(all->shared), PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        return -ENOMEM;                              /* cpu_contexts_done() undoes the rest */
    (void)madvise(all, sizeof(*all), MADV_DONTFORK); /* of no use to a forked process */
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        for (unsigned m = 0; m < CPU_MMU_MODES; m++)
            c->contexts[i].tlb_mask[m] = TLB_MASK(TLB_MIN_BITS);
        if (i && !share(c, &c->contexts[i]))
            return -ENOMEM;
    }
    c->context = &c->contexts[0];
    c->context->valid = true;
    return 0;
}

void cpu_contexts_trim(struct cpu *c)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        struct cpu_context *x = &c->contexts[i];

        for (unsigned m = 0; m < CPU_MMU_MODES; m++) {
            flush_table(c, x, m); /* what is given back is zeroes then, and so it reads */
            (void)madvise(&x->tables[m], sizeof(x->tables[m]),
                          m == CPU_MMU_SHARED && x->shares ? MADV_REMOVE : MADV_DONTNEED);
        }
    }
}

void cpu_contexts_done(struct cpu *c)
{
    if (c->contexts)
        (void)munmap(c->contexts, sizeof(struct contexts)); /* ours: cannot fail */
    c->contexts = NULL;
}

void cpu_enter_jump(struct cpu *c, const struct jump_entry *e, bool global)
{
    uint64_t page = e->key >> MEM_PAGE_BITS;
    unsigned mmu = cpu_fetch_mmu(c);
    unsigned i = jump_index(e->key);
    struct cpu_table *t = &c->context->tables[mmu];

    if (!global && !cpu_own_table(c, mmu))
        return;
    if (t->jumps[i].mode && (t->jumps[i].key != e->key || t->jumps[i].mode != e->mode))
        t->jumps[i ^ 1] = t->jumps[i];
    t->jumps[i] = *e;
    t->jump_lines[i / 64 / 64] |= 1ULL << (i / 64 % 64);
    t->jumps_used = true;
    t->jumps_local |= !global;
    t->jump_pages[page / 64 % (JUMP_PAGES / 64)] |= 1ULL << (page % 64);
    if ((e->key & (MEM_PAGE_SIZE - 1)) == MEM_PAGE_SIZE - 2) /* it may cross into the next one */
        t->jump_pages[(page + 1) / 64 % (JUMP_PAGES / 64)] |= 1ULL << ((page + 1) % 64);
}

void cpu_set_context(struct cpu *c, uint64_t key)
{
    struct cpu_context *oldest = NULL;

    if (c->replay) /* the check's second run leaves translations alone */
        return;
    if (c->context->key == key)
        return;
    c->context->last_used = ++c->context_clock;
    cpu_count(&c->stats.context_switches);
    if (!key) {
        c->context = &c->contexts[0];
        return;
    }
    for (unsigned i = 1; i < CPU_CONTEXTS; i++) {
        struct cpu_context *x = &c->contexts[i];

        if (x->valid && x->key == key) {
            c->context = x;
            return;
        }
        if (!oldest || !x->valid || (oldest->valid && x->last_used < oldest->last_used))
            oldest = x;
    }
    cpu_count(&c->stats.contexts_forgotten);
    for (unsigned m = 0; m < CPU_MMU_MODES; m++) {
        if (m != CPU_MMU_SHARED || !(oldest->shares || share(c, oldest)))
            flush_table(c, oldest, m);
    }
    oldest->valid = true;
    oldest->key = key;
    c->context = oldest;
}

void cpu_flush_all(struct cpu *c)
{
    struct cpu_context *x;
    unsigned mmu;

    for (unsigned i = 0; (x = next_table(c, &i, &mmu));)
        flush_table(c, x, mmu);
    cpu_count(&c->stats.tlb_flushes);
}

/* Forget the 2^@bits bytes around @va in a TLB. */
static void flush_page_large(struct cpu_context *x, unsigned mmu, uint64_t va, unsigned bits)
{
    struct cpu_table *t = &x->tables[mmu];

    for (unsigned i = 0; t->tlb_used && i < tlb_entries(x, mmu); i++) {
        struct tlb_entry *e = &t->tlb[i];
        uint64_t tag = e->tag[CPU_READ] | e->tag[CPU_WRITE] | e->tag[CPU_FETCH];

        if ((tag ^ va) >> bits == 0)
            *e = (struct tlb_entry){0};
    }
    clear_memos(t, MEMOS_READS | MEMOS_WRITES);
}

/* What begins right before @page may reach into it. */
static void forget_crossing(struct jump_entry *jumps, uint64_t page)
{
    unsigned i = jump_index(page - 2);

    for (unsigned n = 0; n < 2; n++) {
        if (jumps[i ^ n].key == page - 2)
            jumps[i ^ n] = (struct jump_entry){0};
    }
}

static void flush_page_jumps(struct cpu_table *t, uint64_t number)
{
    if (!t->jumps_used || !(t->jump_pages[number / 64 % (JUMP_PAGES / 64)] >> (number % 64) & 1))
        return;
    forget_crossing(t->jumps, number << MEM_PAGE_BITS);
    for (unsigned off = 0; off < MEM_PAGE_SIZE; off += 2) {
        struct jump_entry *e = &t->jumps[jump_index((number << MEM_PAGE_BITS) + off)];

        if (e->key >> MEM_PAGE_BITS == number)
            *e = (struct jump_entry){0};
    }
}

static void flush_page(struct cpu_context *x, unsigned mmu, uint64_t va, bool tlb, bool jumps)
{
    struct cpu_table *t = &x->tables[mmu];
    uint64_t number = va >> MEM_PAGE_BITS;

    /* Where a larger page was entered in pieces, all pieces must go. */
    bool huge = t->huge >> cpu_huge_bit(va) & 1;
    if (huge || (t->large[cpu_large_bit(va) / 64] >> (cpu_large_bit(va) % 64) & 1)) {
        if (tlb)
            flush_page_large(x, mmu, va, huge ? t->huge_bits : 21);
        if (jumps)
            clear_jumps(t);
        return;
    }
    if (tlb && t->tlb_used) {
        t->tlb[number & (tlb_entries(x, mmu) - 1)] = (struct tlb_entry){0};
        clear_memos(t, MEMOS_READS | MEMOS_WRITES);
    }
    if (jumps)
        flush_page_jumps(t, number);
}

void cpu_flush_page(struct cpu *c, uint64_t va)
{
    struct cpu_context *x;
    unsigned mmu;

    for (unsigned i = 0; (x = next_table(c, &i, &mmu));)
        flush_page(x, mmu, va, true, true);
    cpu_count(&c->stats.tlb_flushes);
}

/* The shared table has nothing that goes with one address space: so contexts are enough. */
void cpu_flush_page_in(struct cpu *c, uint64_t va, bool (*match)(uint64_t key, uint64_t arg),
                       uint64_t arg)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        struct cpu_context *x = &c->contexts[i];

        for (unsigned m = 0; x->valid && match(x->key, arg) && m < CPU_MMU_MODES; m++)
            flush_page(x, m, va, x->tables[m].tlb_local, x->tables[m].jumps_local);
    }
    cpu_count(&c->stats.tlb_flushes);
}

void cpu_flush_contexts(struct cpu *c, bool (*match)(uint64_t key, uint64_t arg), uint64_t arg)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        struct cpu_context *x = &c->contexts[i];

        for (unsigned m = 0; x->valid && match(x->key, arg) && m < CPU_MMU_MODES; m++) {
            if (x->tables[m].tlb_local)
                clear_tlb(c, x, m);
            if (x->tables[m].jumps_local)
                clear_jumps(&x->tables[m]);
        }
    }
    cpu_count(&c->stats.tlb_flushes);
}

void cpu_flush_jumps(struct cpu *c)
{
    struct cpu_context *x;
    unsigned mmu;

    for (unsigned i = 0; (x = next_table(c, &i, &mmu));)
        clear_jumps(&x->tables[mmu]);
}

static void flush_tag(struct cpu *c, enum cpu_access access)
{
    struct cpu_context *x;
    unsigned mmu;

    for (unsigned i = 0; (x = next_table(c, &i, &mmu));) {
        struct cpu_table *t = &x->tables[mmu];

        if (access != CPU_FETCH)
            clear_memos(t, access == CPU_READ ? MEMOS_READS : MEMOS_WRITES);
        for (unsigned k = 0; t->tlb_used && k < tlb_entries(x, mmu); k++)
            t->tlb[k].tag[access] = 0;
    }
}

void cpu_flush_writes(struct cpu *c)
{
    flush_tag(c, CPU_WRITE);
}

void cpu_flush_data(struct cpu *c)
{
    flush_tag(c, CPU_READ);
    flush_tag(c, CPU_WRITE);
}
