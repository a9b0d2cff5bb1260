/* From decoded RISC-V instructions to IR. Nothing is translated yet: engines interpret. */
#include "cpu/guest/riscv/hart.h"

bool rv_translate(struct cpu *c, const struct insn *insns, unsigned count, struct ir_func *ret)
{
    return false;
}
