/* What the translator's files share: one rule per op says how it becomes IR. */
#ifndef CPU_GUEST_RISCV_TRANSLATE_INTERNAL_H
#define CPU_GUEST_RISCV_TRANSLATE_INTERNAL_H

#include "cpu/guest/riscv/hart.h"
#include "cpu/guest/riscv/rows.h"
#include "cpu/ir/ir.h"

/** A block being translated. */
struct rv_tr {
    struct ir_func *f;
    uint64_t mode;
    bool fs_dirty; /* mstatus.FS has been marked dirty by now */
};

/** How an op is translated: by @fn, NULL = by the interpreter. The rest is for @fn to read. */
struct rv_rule {
    void (*fn)(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
    uint8_t op;    /* enum ir_op */
    uint8_t cc;    /* enum ir_cc */
    uint8_t size;  /* bytes in memory */
    uint8_t wide;  /* floating point: 64-bit format */
    uint8_t round; /* floating point: the result depends on the rounding mode */
};

static inline bool rv_is_csr_op(const struct insn *i)
{
    return i->op == RV_OP_CSRRW || i->op == RV_OP_CSRRS || i->op == RV_OP_CSRRC ||
           i->op == RV_OP_CSRRWI || i->op == RV_OP_CSRRSI || i->op == RV_OP_CSRRCI;
}

static inline unsigned rv_tr_mmu(const struct rv_tr *t)
{
    return (unsigned)t->mode & RV_MODE_MMU_MASK;
}

static inline uint16_t rv_tr_get_x(struct rv_tr *t, unsigned reg)
{
    if (!reg)
        return ir_const(t->f, IR_I64, 0);
    return ir_get(t->f, IR_I64, offsetof(struct rv_hart, x) + 8 * reg, 8);
}

static inline void rv_tr_set_x(struct rv_tr *t, unsigned reg, uint16_t value)
{
    if (reg)
        ir_set(t->f, offsetof(struct rv_hart, x) + 8 * reg, 8, value);
}

/** Set x[reg] to a 32-bit result, sign-extended. */
static inline void rv_tr_set_w(struct rv_tr *t, unsigned reg, uint16_t value)
{
    if (reg)
        rv_tr_set_x(t, reg, ir_ext(t->f, IR_SEXT, IR_I64, 4, value));
}

/* translate_int.c */
void rv_tr_alu(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_alu_imm(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_alu_w(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_alu_imm_w(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_unary(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_unary_w(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_extend(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_set_if(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_set_if_imm(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_shift_add(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_shift_add_uw(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_slli_uw(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_czero(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_lui(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_auipc(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_zero(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_nothing(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_branch(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_jal(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_jalr(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);

/* translate_mem.c */
void rv_tr_load(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_store(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_amo(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_amocas(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_cbo_zero(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_lr(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_sc(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_fence(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_fload(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_fstore(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);

/* translate_sys.c */
void rv_tr_csr(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);

/* translate_fp.c */
uint16_t rv_tr_get_f(struct rv_tr *t, unsigned reg, bool wide);
void rv_tr_set_f(struct rv_tr *t, unsigned reg, bool wide, uint16_t value);
void rv_tr_mark_dirty(struct rv_tr *t);
void rv_tr_fp(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_fma(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_fp_unary(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_fcmp(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_fclass(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_fcvt(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_ftoi(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_itof(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_fmv_to_x(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_fmv_from_x(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);
void rv_tr_fli(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);

/** Leave the instruction to the interpreter. */
void rv_tr_interp(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule);

#endif
