/* Register names and the register calls of rv_cpu_ops. */
#ifndef CPU_GUEST_RISCV_REGS_INTERNAL_H
#define CPU_GUEST_RISCV_REGS_INTERNAL_H

#include "cpu/guest/riscv/hart.h"

extern const char rv_x_names[32][5], rv_f_names[32][5]; /* ABI names */

const struct vcpu_reg *rv_registers(struct cpu *c, size_t *ret_count);
int rv_get_reg(struct cpu *c, unsigned id, uint64_t *ret);
int rv_set_reg(struct cpu *c, unsigned id, uint64_t value);
void rv_save(struct cpu *c, struct state_out *out);
int rv_load(struct cpu *c, const struct state_in *in, struct error *err);
bool rv_diff(const struct cpu *a, const struct cpu *b, char *buf, size_t size);

#endif
