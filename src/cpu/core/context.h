/* Address spaces remembered by a CPU: for the engine. Guests use cpu.h. */
#ifndef CPU_CORE_CONTEXT_H
#define CPU_CORE_CONTEXT_H

#include "cpu/core/cpu.h"

#define CONTEXT_USED_JUMPS 16

/** Allocate c->contexts and make the one with key 0 current; 0 or -ENOMEM. */
must_check int cpu_contexts_init(struct cpu *c);
void cpu_contexts_done(struct cpu *c);

/** Forget which blocks belong to which pc, in all address spaces. */
void cpu_flush_jumps(struct cpu *c);

/** Forget direct write access to all pages, in all address spaces. */
void cpu_flush_writes(struct cpu *c);

/** Forget direct data access (read and write) everywhere: before slow_memory takes effect. */
void cpu_flush_data(struct cpu *c);

/** Find how @va is fetched, entering it in the TLB: CPU_OK and the host address of that byte;
 * CPU_EXCEPTION. *@ret_uncached: the mapping may not be remembered. */
enum cpu_status cpu_fetch_host(struct cpu *c, uint64_t va, const uint8_t **ret, bool *ret_uncached);

static inline unsigned cpu_fetch_mmu(const struct cpu *c)
{
    return (unsigned)(c->mode >> 2) & 3;
}

#endif
