/* Address spaces remembered by a CPU: for the engine. Guests use cpu.h. */
#ifndef CPU_CORE_CONTEXT_H
#define CPU_CORE_CONTEXT_H

#include "cpu/core/cpu.h"

/** Allocate c->contexts and make the one with key 0 current; 0 or -ENOMEM. */
must_check int cpu_contexts_init(struct cpu *c);
void cpu_contexts_done(struct cpu *c);
/** Forget everything, and give its memory back. The CPU stands still. */
void cpu_contexts_trim(struct cpu *c);

/** What is about to be entered in the current context's table of mode @mmu holds nowhere else: the
 * table must be its own. False: it cannot, enter nothing. */
bool cpu_own_table(struct cpu *c, unsigned mmu);

/** A page was entered in the place of another: the current context's TLB grows if that happens
 * often. It may be empty afterwards. */
void cpu_tlb_evicts(struct cpu *c, unsigned mmu);

/** Number of the bit in a table's `large`, and of that in `huge`, for @va. */
static inline unsigned cpu_large_bit(uint64_t va)
{
    return (unsigned)((va >> 21) * 0x9e3779b97f4a7c15ULL >> 52);
}
static inline unsigned cpu_huge_bit(uint64_t va)
{
    return (unsigned)((va >> 30) * 0x9e3779b97f4a7c15ULL >> 58);
}

static inline unsigned cpu_tlb_index(const struct cpu_context *x, unsigned mmu, uint64_t va)
{
    return (unsigned)((va >> 7) & x->tlb_mask[mmu]) / (unsigned)sizeof(struct tlb_entry);
}
static inline void cpu_tlb_set_global(struct cpu_context *x, unsigned mmu, uint64_t va, bool global)
{
    unsigned i = cpu_tlb_index(x, mmu, va);
    uint64_t bit = 1ULL << (i % 64), *word = &x->tables[mmu].global[i / 64];

    *word = global ? *word | bit : *word & ~bit;
}
static inline bool cpu_tlb_is_global(const struct cpu_context *x, unsigned mmu, uint64_t va)
{
    unsigned i = cpu_tlb_index(x, mmu, va);

    return x->tables[mmu].global[i / 64] >> (i % 64) & 1;
}

/** Forget which blocks belong to which pc, in all address spaces. */
void cpu_flush_jumps(struct cpu *c);

/** Forget direct write access to all pages, in all address spaces. */
void cpu_flush_writes(struct cpu *c);

/** Forget direct data access (read and write) everywhere: before slow_memory takes effect. */
void cpu_flush_data(struct cpu *c);

/** What cpu_fetch_host() finds. */
struct cpu_fetch {
    const uint8_t *host;
    bool uncached; /* the mapping may not be remembered */
    bool global;   /* it is the same in all address spaces but the one with key 0 */
};

/** Find how @va is fetched, entering it in the TLB: CPU_OK with *@ret, or CPU_EXCEPTION. */
enum cpu_status cpu_fetch_host(struct cpu *c, uint64_t va, struct cpu_fetch *ret);

/** @e is what is found at its key from now on. @global: in all address spaces but the one with key
 * 0. */
void cpu_enter_jump(struct cpu *c, const struct jump_entry *e, bool global);

static inline unsigned cpu_fetch_mmu(const struct cpu *c)
{
    return (unsigned)(c->mode >> 2) & 3;
}

/** What the jump cache has for @pc in the current mode; NULL: nothing. */
static inline struct jump_entry *cpu_find_jump(struct cpu *c, uint64_t pc)
{
    struct jump_entry *table = c->context->tables[cpu_fetch_mmu(c)].jumps;
    uint32_t mode = (uint32_t)c->mode | JUMP_VALID;
    unsigned i = jump_index(pc);

    if (table[i].key == pc && table[i].mode == mode)
        return &table[i];
    i ^= 1;
    return table[i].key == pc && table[i].mode == mode ? &table[i] : NULL;
}

#endif
