/* Address spaces of one CPU: a small set of TLBs and jump caches, one per address-space key, so
 * that a guest's context switch flushes nothing.
 *
 * Invariants:
 *  1. c->context is one of c->contexts and valid; no two valid contexts have one key.
 *  2. `used` has a bit for every table that may hold an entry, `local` for those of them with an
 *     entry that is not global: flushing looks only there. What is beyond a TLB's mask is garbage.
 *  3. A memo holds what an entry of its TLB held since the last flush: what flushes entries clears
 *     the memos.
 * Threads: the CPU's own.
 */
#include "cpu/core/context.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define TLB_MASK(bits) (((1u << (bits)) - 1) * (unsigned)sizeof(struct tlb_entry))

static unsigned tlb_entries(const struct cpu_context *x, unsigned mmu)
{
    return x->tlb_mask[mmu] / (unsigned)sizeof(struct tlb_entry) + 1;
}

#define MEMOS_READS  0xffffu
#define MEMOS_WRITES 0xffff0000u

/* Forget what generated code remembers of a TLB: reads, writes, or both. */
static void clear_memos(struct cpu_context *x, unsigned mmu, uint32_t which)
{
    enum { EACH = TLB_MEMOS / 16 };

    for (uint32_t left = x->memo_used[mmu] & which; left; left &= left - 1)
        memset(&x->memos[mmu][EACH * (unsigned)__builtin_ctz(left)], 0,
               EACH * sizeof(struct tlb_memo));
    x->memo_used[mmu] &= ~which;
}

/* Empty a TLB; one that had few evictions may be too large: next time less is to be cleared. */
static void clear_tlb(struct cpu_context *x, unsigned mmu)
{
    unsigned entries = tlb_entries(x, mmu);

    memset(x->tlb[mmu], 0, entries * sizeof(struct tlb_entry));
    if (entries > 1u << TLB_MIN_BITS && x->evicted[mmu] < entries / 16)
        x->tlb_mask[mmu] = (entries / 2 - 1) * (unsigned)sizeof(struct tlb_entry);
    x->evicted[mmu] = 0;
    clear_memos(x, mmu, MEMOS_READS | MEMOS_WRITES);
}

void cpu_tlb_evicts(struct cpu_context *x, unsigned mmu)
{
    unsigned entries = tlb_entries(x, mmu);
    unsigned more = MIN(4 * entries, TLB_MAX_ENTRIES);

    if (++x->evicted[mmu] < entries || entries == TLB_MAX_ENTRIES)
        return;
    memset(x->tlb[mmu], 0, more * sizeof(struct tlb_entry));
    x->tlb_mask[mmu] = (more - 1) * (unsigned)sizeof(struct tlb_entry);
    x->evicted[mmu] = 0;
}

static void clear_jumps(struct cpu_context *x, unsigned mmu)
{
    for (unsigned i = 0; i < JUMP_ENTRIES / 64; i++) {
        if (x->jump_lines[mmu][i / 64] >> (i % 64) & 1)
            memset(&x->jumps[mmu][64 * i], 0, 64 * sizeof(x->jumps[mmu][0]));
    }
    memset(x->jump_lines[mmu], 0, sizeof(x->jump_lines[mmu]));
    memset(x->jump_pages[mmu], 0, sizeof(x->jump_pages[mmu]));
}

/* Forget the tables of @which, as in `used`. */
static void flush_tables(struct cpu_context *x, unsigned which)
{
    which &= x->used;
    for (unsigned m = 0; m < CPU_MMU_MODES; m++) {
        if (which >> m & 1)
            clear_tlb(x, m);
        if (which >> (4 + m) & 1)
            clear_jumps(x, m);
    }
    x->used &= (uint8_t)~which;
    x->local &= (uint8_t)~which;
}

static void flush_context(struct cpu_context *x)
{
    flush_tables(x, 0xff);
    memset(x->large, 0, sizeof(x->large));
    x->huge = 0;
    x->huge_bits = 0;
}

static void inherit_jumps(struct cpu_context *x, const struct cpu_context *from, unsigned mmu)
{
    for (unsigned i = 0; i < JUMP_ENTRIES / 64; i++) {
        if (from->jump_lines[mmu][i / 64] >> (i % 64) & 1)
            memcpy(&x->jumps[mmu][64 * i], &from->jumps[mmu][64 * i],
                   64 * sizeof(x->jumps[mmu][0]));
    }
    memcpy(x->jump_lines[mmu], from->jump_lines[mmu], sizeof(x->jump_lines[mmu]));
    memcpy(x->jump_pages[mmu], from->jump_pages[mmu], sizeof(x->jump_pages[mmu]));
}

/* @x, empty, begins with what holds in all address spaces and @from knows. */
static void inherit(struct cpu_context *x, const struct cpu_context *from)
{
    unsigned which = from->used & ~from->local;

    if (!x->key || !from->key)
        return;
    for (unsigned m = 0; m < CPU_MMU_MODES; m++) {
        if (which >> m & 1) {
            x->tlb_mask[m] = from->tlb_mask[m];
            memcpy(x->tlb[m], from->tlb[m], tlb_entries(x, m) * sizeof(struct tlb_entry));
            memcpy(x->global[m], from->global[m], tlb_entries(x, m) / 8);
        }
        if (which >> (4 + m) & 1)
            inherit_jumps(x, from, m);
    }
    x->used = (uint8_t)which;
    memcpy(x->large, from->large, sizeof(x->large));
    x->huge = from->huge;
    x->huge_bits = from->huge_bits;
}

int cpu_contexts_init(struct cpu *c)
{
    size_t size = CPU_CONTEXTS * sizeof(struct cpu_context);
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    if (p == MAP_FAILED)
        return -ENOMEM;
    (void)madvise(p, size, MADV_DONTFORK); /* of no use to a forked process */
    c->contexts = p;
    c->context = &c->contexts[0];
    c->context->valid = true;
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        for (unsigned m = 0; m < CPU_MMU_MODES; m++)
            c->contexts[i].tlb_mask[m] = TLB_MASK(TLB_MIN_BITS);
    }
    return 0;
}

void cpu_contexts_done(struct cpu *c)
{
    if (c->contexts)
        (void)munmap(c->contexts,
                     CPU_CONTEXTS * sizeof(struct cpu_context)); /* ours: cannot fail */
    c->contexts = NULL;
}

void cpu_enter_jump(struct cpu *c, const struct jump_entry *e, bool global)
{
    struct cpu_context *x = c->context;
    uint64_t page = e->key >> MEM_PAGE_BITS;
    unsigned mmu = cpu_fetch_mmu(c);

    unsigned i = jump_index(e->key);

    struct jump_entry *table = x->jumps[mmu];

    if (table[i].mode && (table[i].key != e->key || table[i].mode != e->mode))
        table[i ^ 1] = table[i];
    table[i] = *e;
    x->jump_lines[mmu][i / 64 / 64] |= 1ULL << (i / 64 % 64);
    x->used |= (uint8_t)(16u << mmu);
    x->local |= (uint8_t)(global ? 0 : 16u << mmu);
    x->jump_pages[mmu][page / 64 % (JUMP_PAGES / 64)] |= 1ULL << (page % 64);
    if ((e->key & (MEM_PAGE_SIZE - 1)) == MEM_PAGE_SIZE - 2) /* it may cross into the next one */
        x->jump_pages[mmu][(page + 1) / 64 % (JUMP_PAGES / 64)] |= 1ULL << ((page + 1) % 64);
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
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        struct cpu_context *x = &c->contexts[i];

        if (x->valid && x->key == key) {
            c->context = x;
            return;
        }
        if (!oldest || !x->valid || (oldest->valid && x->last_used < oldest->last_used))
            oldest = x;
    }
    cpu_count(&c->stats.contexts_forgotten);
    flush_context(oldest);
    oldest->valid = true;
    oldest->key = key;
    inherit(oldest, c->context);
    c->context = oldest;
}

void cpu_flush_all(struct cpu *c)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        if (c->contexts[i].valid)
            flush_context(&c->contexts[i]);
    }
    cpu_count(&c->stats.tlb_flushes);
}

/* Forget the 2^@bits bytes around @va in the tables of @which. */
static void flush_page_large(struct cpu_context *x, uint64_t va, unsigned bits, unsigned which)
{
    for (unsigned m = 0; m < CPU_MMU_MODES; m++) {
        for (unsigned i = 0; (which >> m & 1) && i < tlb_entries(x, m); i++) {
            struct tlb_entry *e = &x->tlb[m][i];
            uint64_t tag = e->tag[CPU_READ] | e->tag[CPU_WRITE] | e->tag[CPU_FETCH];

            if ((tag ^ va) >> bits == 0)
                *e = (struct tlb_entry){0};
        }
        if (which >> m & 1)
            clear_memos(x, m, MEMOS_READS | MEMOS_WRITES);
    }
    flush_tables(x, which & 0xf0);
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

static void flush_page(struct cpu_context *x, uint64_t va, unsigned which)
{
    uint64_t number = va >> MEM_PAGE_BITS;

    which &= x->used;
    /* Where a larger page was entered in pieces, all pieces must go. */
    bool huge = x->huge >> cpu_huge_bit(va) & 1;
    if (huge || (x->large[cpu_large_bit(va) / 64] >> (cpu_large_bit(va) % 64) & 1)) {
        flush_page_large(x, va, huge ? x->huge_bits : 21, which);
        return;
    }
    for (unsigned m = 0; m < CPU_MMU_MODES; m++) {
        if (which >> m & 1) {
            x->tlb[m][number & (tlb_entries(x, m) - 1)] = (struct tlb_entry){0};
            clear_memos(x, m, MEMOS_READS | MEMOS_WRITES);
        }
        if (!(which >> (4 + m) & 1) ||
            !(x->jump_pages[m][number / 64 % (JUMP_PAGES / 64)] >> (number % 64) & 1))
            continue;
        forget_crossing(x->jumps[m], number << MEM_PAGE_BITS);
        for (unsigned off = 0; off < MEM_PAGE_SIZE; off += 2) {
            struct jump_entry *e = &x->jumps[m][jump_index((number << MEM_PAGE_BITS) + off)];

            if (e->key >> MEM_PAGE_BITS == number)
                *e = (struct jump_entry){0};
        }
    }
}

void cpu_flush_page(struct cpu *c, uint64_t va)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        if (c->contexts[i].valid)
            flush_page(&c->contexts[i], va, 0xff);
    }
    cpu_count(&c->stats.tlb_flushes);
}

void cpu_flush_page_in(struct cpu *c, uint64_t va, bool (*match)(uint64_t key, uint64_t arg),
                       uint64_t arg)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        if (c->contexts[i].valid && match(c->contexts[i].key, arg))
            flush_page(&c->contexts[i], va, c->contexts[i].local);
    }
    cpu_count(&c->stats.tlb_flushes);
}

void cpu_flush_contexts(struct cpu *c, bool (*match)(uint64_t key, uint64_t arg), uint64_t arg)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        if (c->contexts[i].valid && match(c->contexts[i].key, arg))
            flush_tables(&c->contexts[i], c->contexts[i].local);
    }
    cpu_count(&c->stats.tlb_flushes);
}

void cpu_flush_jumps(struct cpu *c)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        if (c->contexts[i].valid)
            flush_tables(&c->contexts[i], 0xf0);
    }
}

static void flush_tag(struct cpu *c, enum cpu_access access)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        struct cpu_context *x = &c->contexts[i];

        for (unsigned m = 0; x->valid && m < CPU_MMU_MODES; m++) {
            if (access != CPU_FETCH)
                clear_memos(x, m, access == CPU_READ ? MEMOS_READS : MEMOS_WRITES);
            for (unsigned k = 0; (x->used & (1u << m)) && k < tlb_entries(x, m); k++)
                x->tlb[m][k].tag[access] = 0;
        }
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
