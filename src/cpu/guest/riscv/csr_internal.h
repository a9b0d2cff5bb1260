/* What csr.c, csr_status.c, counter.c, trap.c, mmu.c and pmp.c share among themselves. */
#ifndef CPU_GUEST_RISCV_CSR_INTERNAL_H
#define CPU_GUEST_RISCV_CSR_INTERNAL_H

#include "cpu/guest/riscv/csr_bits.h"
#include "cpu/guest/riscv/hart.h"

/* csr_status.c: registers with rules of their own. The setters apply WARL rules and what follows
 * from the change (mode, context, TLB, timers, attention). */
uint64_t rv_get_mstatus(const struct rv_hart *h);
void rv_set_mstatus(struct rv_hart *h, uint64_t value);
uint64_t rv_get_sstatus(const struct rv_hart *h);
void rv_set_sstatus(struct rv_hart *h, uint64_t value);
void rv_set_satp(struct rv_hart *h, uint64_t value);
void rv_set_menvcfg(struct rv_hart *h, uint64_t value);
void rv_set_senvcfg(struct rv_hart *h, uint64_t value);
void rv_set_stimecmp(struct rv_hart *h, uint64_t value);
/** The software-writable bits of mip in @mask become those of @value. */
void rv_write_mip(struct rv_hart *h, uint64_t value, uint64_t mask);

/* trap.c */

/** Change the privilege: counters, cpu.mode and attention follow. */
void rv_set_priv(struct rv_hart *h, unsigned priv);
/** Set attention if an interrupt can be taken now. After any change of mip, mie, mideleg, mstatus
 * or privilege. */
void rv_check_interrupts(struct rv_hart *h);
enum cpu_status rv_illegal(struct rv_hart *h);

/* counter.c: @i is 0 cycle, 2 instret, 3..31 hpm. */
uint64_t rv_counter_read(struct rv_hart *h, unsigned i);
void rv_counter_write(struct rv_hart *h, unsigned i, uint64_t value);
/** The instruction that wrote counter @i is not itself counted in it. */
void rv_counter_skip_insn(struct rv_hart *h, unsigned i);
void rv_set_mcountinhibit(struct rv_hart *h, uint64_t value);
void rv_set_mhpmevent(struct rv_hart *h, unsigned i, uint64_t value);
/** Start and stop counters as mcountinhibit, events and the privilege now say. */
void rv_counters_refresh(struct rv_hart *h);
/** Notice overflows; may set mip.LCOFIP. While overflow_armed. */
void rv_counters_poll(struct rv_hart *h);
/** Guest time in ns when the next overflow is due at the earliest; INT64_MAX = none. */
int64_t rv_counters_deadline_ns(struct rv_hart *h);
uint64_t rv_scountovf(const struct rv_hart *h);
void rv_counters_reset(struct rv_hart *h);
/** Nanoseconds of guest time at which the time CSR reaches @ticks; INT64_MAX = beyond it. */
int64_t rv_ticks_to_ns(const struct rv_hart *h, uint64_t ticks);

/* pmp.c */
uint64_t rv_get_pmpcfg(const struct rv_hart *h, unsigned reg);
void rv_set_pmpcfg(struct rv_hart *h, unsigned reg, uint64_t value);
void rv_set_pmpaddr(struct rv_hart *h, unsigned i, uint64_t value);
/** Which accesses may be made to @gpa at @priv: bits 1 << enum cpu_access. *@ret_span = bytes from
 * @gpa to the end of its page, or to where the answer changes; *@ret_whole_page as in
 * rv_pmp_check(). */
unsigned rv_pmp_rights(const struct rv_hart *h, uint64_t gpa, unsigned priv, uint64_t *ret_span,
                       bool *ret_whole_page);

#endif
