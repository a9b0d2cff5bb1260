/* From decoded RISC-V instructions to IR: one rule per op, in a table; an op without one is
 * executed by the interpreter from within the translated block.
 *
 * 1. A block ends with one exit; BRANCH before it leaves for the other target.
 * 2. Positions are offsets from the code page, so a block serves at any virtual address.
 * 3. A block is for one value of cpu.mode: the mmu mode, the rounding mode and the FP state are
 *    constants here.
 *
 * Any thread. */
#include "cpu/guest/riscv/translate_internal.h"

void rv_tr_interp(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    ir_interp(t->f, i);
}

/** One row per op, by the kind of rule. */
#define ALU(name, o)       [RV_OP_##name] = {rv_tr_alu, IR_##o}
#define ALU_IMM(name, o)   [RV_OP_##name] = {rv_tr_alu_imm, IR_##o}
#define ALU_W(name, o)     [RV_OP_##name] = {rv_tr_alu_w, IR_##o}
#define ALU_IMM_W(name, o) [RV_OP_##name] = {rv_tr_alu_imm_w, IR_##o}
#define UNARY(name, o)     [RV_OP_##name] = {rv_tr_unary, IR_##o}
#define UNARY_W(name, o)   [RV_OP_##name] = {rv_tr_unary_w, IR_##o}
#define EXTEND(name, o, n) [RV_OP_##name] = {rv_tr_extend, IR_##o, .size = (n)}
#define SHIFT_ADD(n)                                     \
    [RV_OP_SH##n##ADD] = {rv_tr_shift_add, .size = (n)}, \
    [RV_OP_SH##n##ADD_UW] = {rv_tr_shift_add_uw, .size = (n)}
#define BRANCH(name, c)  [RV_OP_##name] = {rv_tr_branch, .cc = IR_##c}
#define LOAD(name, o, n) [RV_OP_##name] = {rv_tr_load, IR_##o, .size = (n)}
#define STORE(name, n)   [RV_OP_##name] = {rv_tr_store, .size = (n)}
#define AMO(name)                                                  \
    [RV_OP_AMO##name##_W] = {rv_tr_amo, IR_AMO_##name, .size = 4}, \
    [RV_OP_AMO##name##_D] = {rv_tr_amo, IR_AMO_##name, .size = 8}
#define FORMATS(name, f, o, r)                      \
    [RV_OP_##name##_S] = {f, IR_##o, .round = (r)}, \
    [RV_OP_##name##_D] = {f, IR_##o, .wide = 1, .round = (r)}
#define TO_INT(name, o, n)                                       \
    [RV_OP_FCVT_##name##_S] = {rv_tr_ftoi, IR_##o, .size = (n)}, \
    [RV_OP_FCVT_##name##_D] = {rv_tr_ftoi, IR_##o, .size = (n), .wide = 1}
/* From 32-bit integers to doubles is exact. */
#define FROM_INT(name, o, n)                                               \
    [RV_OP_FCVT_S_##name] = {rv_tr_itof, IR_##o, .size = (n), .round = 1}, \
    [RV_OP_FCVT_D_##name] = {rv_tr_itof, IR_##o, .size = (n), .wide = 1, .round = (n) == 8}
#define FLI(name, n) [RV_OP_FLI_##name] = {rv_tr_fli, .size = (n)}

/* clang-format off */
static const struct rv_rule rules[RV_OP_COUNT] = {
    [RV_OP_LUI] = {rv_tr_lui}, [RV_OP_AUIPC] = {rv_tr_auipc},
    [RV_OP_JAL] = {rv_tr_jal}, [RV_OP_JALR] = {rv_tr_jalr},
    BRANCH(BEQ, EQ), BRANCH(BNE, NE), BRANCH(BLT, LT), BRANCH(BGE, GE), BRANCH(BLTU, LTU),
    BRANCH(BGEU, GEU),
    LOAD(LB, LOADS, 1), LOAD(LH, LOADS, 2), LOAD(LW, LOADS, 4), LOAD(LD, LOAD, 8),
    LOAD(LBU, LOAD, 1), LOAD(LHU, LOAD, 2), LOAD(LWU, LOAD, 4),
    STORE(SB, 1), STORE(SH, 2), STORE(SW, 4), STORE(SD, 8),
    ALU_IMM(ADDI, ADD), ALU_IMM(XORI, XOR), ALU_IMM(ORI, OR), ALU_IMM(ANDI, AND),
    ALU_IMM(SLLI, SHL), ALU_IMM(SRLI, SHR), ALU_IMM(SRAI, SAR),
    [RV_OP_SLTI] = {rv_tr_set_if_imm, .cc = IR_LT}, [RV_OP_SLTIU] = {rv_tr_set_if_imm, .cc = IR_LTU},
    [RV_OP_SLT] = {rv_tr_set_if, .cc = IR_LT}, [RV_OP_SLTU] = {rv_tr_set_if, .cc = IR_LTU},
    ALU(ADD, ADD), ALU(SUB, SUB), ALU(SLL, SHL), ALU(SRL, SHR), ALU(SRA, SAR), ALU(XOR, XOR),
    ALU(OR, OR), ALU(AND, AND),
    ALU_IMM_W(ADDIW, ADD), ALU_IMM_W(SLLIW, SHL), ALU_IMM_W(SRLIW, SHR), ALU_IMM_W(SRAIW, SAR),
    ALU_W(ADDW, ADD), ALU_W(SUBW, SUB), ALU_W(SLLW, SHL), ALU_W(SRLW, SHR), ALU_W(SRAW, SAR),
    [RV_OP_CSRRW] = {rv_tr_csr}, [RV_OP_CSRRS] = {rv_tr_csr, IR_OR},
    [RV_OP_CSRRC] = {rv_tr_csr, IR_ANDN}, [RV_OP_CSRRWI] = {rv_tr_csr, .size = 1},
    [RV_OP_CSRRSI] = {rv_tr_csr, IR_OR, .size = 1}, [RV_OP_CSRRCI] = {rv_tr_csr, IR_ANDN, .size = 1},
    [RV_OP_FENCE] = {rv_tr_fence}, [RV_OP_FENCE_TSO] = {rv_tr_nothing},
    [RV_OP_NTL_P1] = {rv_tr_nothing}, [RV_OP_NTL_PALL] = {rv_tr_nothing},
    [RV_OP_NTL_S1] = {rv_tr_nothing}, [RV_OP_NTL_ALL] = {rv_tr_nothing},
    [RV_OP_PREFETCH_I] = {rv_tr_nothing}, [RV_OP_PREFETCH_R] = {rv_tr_nothing},
    [RV_OP_PREFETCH_W] = {rv_tr_nothing},
    [RV_OP_C_MOP] = {rv_tr_nothing}, [RV_OP_MOP_R] = {rv_tr_zero}, [RV_OP_MOP_RR] = {rv_tr_zero},

    ALU(MUL, MUL), ALU(MULH, MULH), ALU(MULHSU, MULHSU), ALU(MULHU, MULHU), ALU(DIV, DIV_RV),
    ALU(DIVU, DIVU_RV), ALU(REM, REM_RV), ALU(REMU, REMU_RV),
    ALU_W(MULW, MUL), ALU_W(DIVW, DIV_RV), ALU_W(DIVUW, DIVU_RV), ALU_W(REMW, REM_RV),
    ALU_W(REMUW, REMU_RV),

    SHIFT_ADD(1), SHIFT_ADD(2), SHIFT_ADD(3),
    [RV_OP_ADD_UW] = {rv_tr_shift_add_uw}, [RV_OP_SLLI_UW] = {rv_tr_slli_uw},
    ALU(ANDN, ANDN), ALU(ORN, ORN), ALU(XNOR, XNOR), ALU(MAX, MAX), ALU(MAXU, MAXU), ALU(MIN, MIN),
    ALU(MINU, MINU), ALU(ROL, ROL), ALU(ROR, ROR), ALU_IMM(RORI, ROR), ALU_W(ROLW, ROL),
    ALU_W(RORW, ROR), ALU_IMM_W(RORIW, ROR),
    UNARY(CLZ, CLZ), UNARY(CTZ, CTZ), UNARY(CPOP, POPCNT), UNARY_W(CLZW, CLZ), UNARY_W(CTZW, CTZ),
    UNARY_W(CPOPW, POPCNT), UNARY(ORC_B, ORCB), UNARY(REV8, BSWAP),
    EXTEND(SEXT_B, SEXT, 1), EXTEND(SEXT_H, SEXT, 2), EXTEND(ZEXT_H, ZEXT, 2),
    ALU(CLMUL, CLMUL), ALU(CLMULH, CLMULH), ALU(CLMULR, CLMULR),
    ALU(BCLR, BCLR), ALU_IMM(BCLRI, BCLR), ALU(BEXT, BEXT), ALU_IMM(BEXTI, BEXT), ALU(BINV, BINV),
    ALU_IMM(BINVI, BINV), ALU(BSET, BSET), ALU_IMM(BSETI, BSET),
    [RV_OP_CZERO_EQZ] = {rv_tr_czero, .cc = IR_EQ}, [RV_OP_CZERO_NEZ] = {rv_tr_czero, .cc = IR_NE},

    AMO(SWAP), AMO(ADD), AMO(AND), AMO(OR), AMO(XOR), AMO(MIN), AMO(MAX), AMO(MINU), AMO(MAXU),
    [RV_OP_AMOCAS_W] = {rv_tr_amocas, .size = 4}, [RV_OP_AMOCAS_D] = {rv_tr_amocas, .size = 8},
    [RV_OP_CBO_ZERO] = {rv_tr_cbo_zero},
    [RV_OP_LR_W] = {rv_tr_lr, .size = 4}, [RV_OP_LR_D] = {rv_tr_lr, .size = 8},
    [RV_OP_SC_W] = {rv_tr_sc, .size = 4}, [RV_OP_SC_D] = {rv_tr_sc, .size = 8},

    [RV_OP_FLW] = {rv_tr_fload, .size = 4}, [RV_OP_FLD] = {rv_tr_fload, .size = 8, .wide = 1},
    [RV_OP_FSH] = {rv_tr_fstore, .size = 2}, [RV_OP_FSW] = {rv_tr_fstore, .size = 4},
    [RV_OP_FSD] = {rv_tr_fstore, .size = 8},
    FORMATS(FADD, rv_tr_fp, FADD, 1), FORMATS(FSUB, rv_tr_fp, FSUB, 1),
    FORMATS(FMUL, rv_tr_fp, FMUL, 1), FORMATS(FDIV, rv_tr_fp, FDIV, 1),
    FORMATS(FSQRT, rv_tr_fp_unary, FSQRT, 1),
    FORMATS(FMADD, rv_tr_fma, FMADD, 1), FORMATS(FMSUB, rv_tr_fma, FMSUB, 1),
    FORMATS(FNMADD, rv_tr_fma, FNMADD, 1), FORMATS(FNMSUB, rv_tr_fma, FNMSUB, 1),
    FORMATS(FSGNJ, rv_tr_fp, FSGNJ, 0), FORMATS(FSGNJN, rv_tr_fp, FSGNJN, 0),
    FORMATS(FSGNJX, rv_tr_fp, FSGNJX, 0), FORMATS(FMIN, rv_tr_fp, FMIN, 0),
    FORMATS(FMAX, rv_tr_fp, FMAX, 0),
    FORMATS(FEQ, rv_tr_fcmp, FEQ, 0), FORMATS(FLT, rv_tr_fcmp, FLT, 0),
    FORMATS(FLE, rv_tr_fcmp, FLE, 0), FORMATS(FCLASS, rv_tr_fclass, FCLASS, 0),
    TO_INT(W, FTOI, 4), TO_INT(WU, FTOU, 4), TO_INT(L, FTOI, 8), TO_INT(LU, FTOU, 8),
    FROM_INT(W, ITOF, 4), FROM_INT(WU, UTOF, 4), FROM_INT(L, ITOF, 8), FROM_INT(LU, UTOF, 8),
    [RV_OP_FCVT_S_D] = {rv_tr_fcvt, .round = 1}, [RV_OP_FCVT_D_S] = {rv_tr_fcvt, .wide = 1},
    [RV_OP_FMV_X_H] = {rv_tr_fmv_to_x, .size = 2}, [RV_OP_FMV_X_W] = {rv_tr_fmv_to_x, .size = 4},
    [RV_OP_FMV_X_D] = {rv_tr_fmv_to_x, .size = 8},
    [RV_OP_FMV_H_X] = {rv_tr_fmv_from_x, .size = 2}, [RV_OP_FMV_W_X] = {rv_tr_fmv_from_x, .size = 4},
    [RV_OP_FMV_D_X] = {rv_tr_fmv_from_x, .size = 8},
    FLI(H, 2), FLI(S, 4), FLI(D, 8),
};
/* clang-format on */

/** fflags, frm, fcsr. */
static bool reads_fp_flags(const struct insn *i)
{
    return rv_is_csr_op(i) && i->extra <= 3;
}

/** RISC-V ABIs 1.0, chapter 1: x2 is the stack pointer, x3 global and x4 thread pointer, x8 may be
 * the frame pointer; x8, x9 and x18 to x27 are preserved across calls. */
static const struct ir_habits habits = {
    .base = offsetof(struct rv_hart, x),
    .still = 1 << 2 | 1 << 3 | 1 << 4,
    .kept = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8 | 1 << 9 | 0x3ff << 18,
    .stack = 2,
    .frame = 8,
};

bool rv_translate(struct cpu *c, const struct insn *insns, unsigned count, struct ir_func *ret)
{
    struct rv_tr t = {
        .f = ret,
        .mode = c->mode,
        .fs_dirty = (c->mode & RV_MODE_FS_DIRTY) != 0,
    };
    const struct insn *last = insns + count - 1;

    if (!count || insns->op == RV_OP_ILLEGAL)
        return false;
    ret->habits = &habits;
    for (const struct insn *i = insns; i <= last; i++) {
        const struct rv_rule *rule = &rules[i->op];

        ir_guest_insn(ret, i->page_offset);
        if (i->flags & INSN_SYSTEM) {
            ir_exit_system(ret, i, reads_fp_flags(i) ? IR_SYSTEM_FLAGS : IR_SYSTEM_PLAIN);
            return true;
        }
        (rule->fn ? rule->fn : rv_tr_interp)(&t, i, rule);
    }
    /* Jumps and branches have left; an illegal instruction never comes here, but the unit must
     * end. */
    if (!(last->flags & INSN_END) || !rules[last->op].fn)
        ir_exit_direct(ret, last->page_offset + last->size, IR_HINT_NONE);
    return true;
}
