/* What the files of floating-point vector instructions share. Spec: Unprivileged ISA, §31.13. */
#ifndef CPU_GUEST_RISCV_VECTOR_FP_H
#define CPU_GUEST_RISCV_VECTOR_FP_H

#include "cpu/guest/riscv/vector.h"

/** Accrue @flags (enum fp_flag). */
void rv_v_raise(struct rv_hart *h, unsigned flags);

/** Execute an instruction by the host's kernels @host (NULL: none) or the exact @soft (an entry is
 * NULL where SEW must not be that). False: illegal. */
bool rv_v_run_fp(struct rv_hart *h, const struct insn *i, const rv_vk host, const rv_vk soft,
                 enum rv_v_shape shape, enum rv_v_form form);

#endif
