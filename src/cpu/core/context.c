/* Address spaces of one CPU: a small set of TLBs and jump caches, one per address-space key, so
 * that a guest's context switch flushes nothing.
 *
 * Invariants:
 *  1. c->context is one of c->contexts and valid; no two valid contexts have one key.
 *  2. `used` has a bit for every TLB (and for the jump cache) that may hold an entry: flushing
 * looks only there. Threads: the CPU's own.
 */
#include "cpu/core/context.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static void clear_tlb(struct tlb_entry *tlb)
{
    for (unsigned i = 0; i < TLB_ENTRIES; i++)
        tlb[i] = (struct tlb_entry){
            .tag = {TLB_INVALID, TLB_INVALID, TLB_INVALID}
        };
}

static void clear_jumps(struct cpu_context *x)
{
    for (unsigned i = 0; i < JUMP_ENTRIES; i++)
        x->jumps[i] = (struct jump_entry){.key = 1};
    x->jump_pages = 0;
    x->used &= (uint8_t)~CONTEXT_USED_JUMPS;
}

static void flush_context(struct cpu_context *x)
{
    for (unsigned m = 0; m < CPU_MMU_MODES; m++) {
        if (x->used & (1u << m))
            clear_tlb(x->tlb[m]);
    }
    if (x->used & CONTEXT_USED_JUMPS)
        clear_jumps(x);
    x->used = 0;
    x->jump_pages = 0;
    x->large_va = UINT64_MAX;
    x->large_end = 0;
}

int cpu_contexts_init(struct cpu *c)
{
    size_t size = CPU_CONTEXTS * sizeof(struct cpu_context);
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return -ENOMEM;
    c->contexts = p;
    c->context = &c->contexts[0];
    c->context->valid = true;
    c->context->used = 0xff; /* never cleared yet */
    flush_context(c->context);
    return 0;
}

void cpu_contexts_done(struct cpu *c)
{
    if (c->contexts)
        (void)munmap(c->contexts,
                     CPU_CONTEXTS * sizeof(struct cpu_context)); /* ours: cannot fail */
    c->contexts = NULL;
}

void cpu_set_context(struct cpu *c, uint64_t key)
{
    struct cpu_context *oldest = NULL;

    if (c->replay) /* the check's second run leaves translations alone */
        return;
    if (c->context->key == key)
        return;
    c->context->last_used = ++c->context_clock;
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        struct cpu_context *x = &c->contexts[i];

        if (x->valid && x->key == key) {
            c->context = x;
            return;
        }
        if (!oldest || !x->valid || (oldest->valid && x->last_used < oldest->last_used))
            oldest = x;
    }
    if (!oldest->valid)
        oldest->used = 0xff;
    flush_context(oldest);
    oldest->valid = true;
    oldest->key = key;
    c->context = oldest;
}

void cpu_flush_all(struct cpu *c)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        if (c->contexts[i].valid)
            flush_context(&c->contexts[i]);
    }
    c->stats.tlb_flushes++;
}

static void flush_context_page(struct cpu_context *x, uint64_t va)
{
    uint64_t page = va & ~(uint64_t)(MEM_PAGE_SIZE - 1);

    if (va >= x->large_va && va < x->large_end) {
        flush_context(x);
        return;
    }
    for (unsigned m = 0; m < CPU_MMU_MODES; m++) {
        if (x->used & (1u << m))
            x->tlb[m][(va >> MEM_PAGE_BITS) & (TLB_ENTRIES - 1)] = (struct tlb_entry){
                .tag = {TLB_INVALID, TLB_INVALID, TLB_INVALID}
            };
    }
    if (!(x->used & CONTEXT_USED_JUMPS) || !(x->jump_pages & cpu_jump_page_bit(page)))
        return;
    /* The entries of one page's pcs: jump_index() is a bijection of the low bits for fixed high
     * bits. */
    for (unsigned off = 0; off < MEM_PAGE_SIZE; off += 2) {
        struct jump_entry *e = &x->jumps[jump_index(page + off)];

        if ((e->key & ~(uint64_t)(MEM_PAGE_SIZE - 1)) == page)
            *e = (struct jump_entry){.key = 1};
    }
}

void cpu_flush_page(struct cpu *c, uint64_t va)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        if (c->contexts[i].valid)
            flush_context_page(&c->contexts[i], va);
    }
    c->stats.tlb_flushes++;
}

void cpu_flush_page_in(struct cpu *c, uint64_t va, bool (*match)(uint64_t key, uint64_t arg),
                       uint64_t arg)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        if (c->contexts[i].valid && match(c->contexts[i].key, arg))
            flush_context_page(&c->contexts[i], va);
    }
    c->stats.tlb_flushes++;
}

void cpu_flush_contexts(struct cpu *c, bool (*match)(uint64_t key, uint64_t arg), uint64_t arg)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        if (c->contexts[i].valid && match(c->contexts[i].key, arg))
            flush_context(&c->contexts[i]);
    }
    c->stats.tlb_flushes++;
}

void cpu_flush_jumps(struct cpu *c)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        if (c->contexts[i].valid && (c->contexts[i].used & CONTEXT_USED_JUMPS))
            clear_jumps(&c->contexts[i]);
    }
}

static void flush_tag(struct cpu *c, enum cpu_access access)
{
    for (unsigned i = 0; i < CPU_CONTEXTS; i++) {
        struct cpu_context *x = &c->contexts[i];

        for (unsigned m = 0; x->valid && m < CPU_MMU_MODES; m++) {
            for (unsigned k = 0; (x->used & (1u << m)) && k < TLB_ENTRIES; k++)
                x->tlb[m][k].tag[access] = TLB_INVALID;
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
