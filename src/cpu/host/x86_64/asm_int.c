/* Code selection: integer arithmetic, logic, shifts, comparisons. Invariant 4 of asm.h is easy to
 * keep here because loads, spills and constants are all moves. */
#include "cpu/host/x86_64/asm.h"

static bool wide(const struct asm_state *a)
{
    return asm_insn(a)->type == IR_I64;
}

/** dst = x op y for the ALU instruction @op (its `rm, reg` opcode) and group 1 number @g. */
static void alu(struct asm_state *a, unsigned op, enum x86_group1 g, bool commutes)
{
    const struct ir_insn *i = asm_insn(a);
    uint16_t x = i->arg[0], y = i->arg[1];
    bool w = wide(a);
    struct rm rm;
    int32_t imm;

    if (commutes && (is_const(a, x) || (!dies_here(a, x) && dies_here(a, y) && !is_const(a, y)))) {
        x = i->arg[1];
        y = i->arg[0];
    }
    if (is_imm(a, y, w ? 8 : 4, &imm)) {
        emit_group1(&a->e, g, w, rm_reg(regs_def_from(a, x)), imm);
        return;
    }
    rm = regs_use_rm(a, y);
    emit_op(&a->e, op + 2, w, regs_def_from(a, x), rm);
}

static void add(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    uint16_t x = i->arg[0], y = i->arg[1];
    unsigned rx, ry;
    int32_t imm;

    if (is_const(a, x)) {
        x = i->arg[1];
        y = i->arg[0];
    }
    if ((dies_here(a, x) && !regs_wants_other(a, x)) ||
        (dies_here(a, y) && !is_const(a, y) && !regs_wants_other(a, y))) {
        alu(a, X_ADD, G1_ADD, true);
    } else if (is_imm(a, y, wide(a) ? 8 : 4, &imm)) {
        rx = regs_use(a, x);
        emit_lea(&a->e, wide(a), regs_def(a), rm_mem(rx, imm));
    } else {
        rx = regs_use(a, x);
        ry = regs_use(a, y);
        emit_lea(&a->e, wide(a), regs_def(a), rm_sib(rx, ry, 0, 0));
    }
}

static void addshl(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned rx = regs_use(a, i->arg[0]), ry = regs_use(a, i->arg[1]);

    emit_lea(&a->e, wide(a), regs_def_reuse(a, i->arg[1]), rm_sib(ry, rx, (unsigned)i->imm, 0));
}

static void sub(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);

    if (is_const(a, i->arg[0]) && a->f->insns[i->arg[0]].imm == 0)
        emit_op(&a->e, X_GROUP3, wide(a), G3_NEG, rm_reg(regs_def_from(a, i->arg[1])));
    else
        alu(a, X_SUB, G1_SUB, false);
}

/** xor, and its form with -1. */
static void xor_or_not(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);

    if (is_const(a, i->arg[1]) && a->f->insns[i->arg[1]].imm == -1)
        emit_op(&a->e, X_GROUP3, wide(a), G3_NOT, rm_reg(regs_def_from(a, i->arg[0])));
    else
        alu(a, X_XOR, G1_XOR, true);
}

static void xnor(struct asm_state *a)
{
    alu(a, X_XOR, G1_XOR, true);
    emit_op(&a->e, X_GROUP3, wide(a), G3_NOT, rm_reg((unsigned)a->values[a->cur].reg));
}

/** a & ~b, a | ~b. */
static void with_complement(struct asm_state *a, bool is_and)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned y;

    if (is_and && (a->features & HOST_BMI1)) {
        struct rm rm = regs_use_rm(a, i->arg[0]);

        y = regs_use(a, i->arg[1]);
        emit_vex(&a->e, 0xf2 | X_0F38, wide(a), regs_def_reuse(a, i->arg[0]), y, rm);
        return;
    }
    regs_copy_to(a, i->arg[1], RAX);
    emit_op(&a->e, X_GROUP3, wide(a), G3_NOT, rm_reg(RAX));
    emit_rr(&a->e, (is_and ? X_AND : X_OR) + 2, wide(a), regs_def_from(a, i->arg[0]), RAX);
}

static void extend(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    struct rm rm = regs_use_rm(a, i->arg[0]);
    unsigned dst = regs_def_reuse(a, i->arg[0]);
    bool sign = i->op == IR_SEXT, w = sign && wide(a);

    switch (i->size) {
    case 1:
        emit_op(&a->e, sign ? X_MOVSX8 : X_MOVZX8, w, dst, rm);
        break;
    case 2:
        emit_op(&a->e, sign ? X_MOVSX16 : X_MOVZX16, w, dst, rm);
        break;
    default:
        emit_op(&a->e, w ? X_MOVSXD : X_LOAD, w, dst, rm);
        break;
    }
}

static void pcrel(struct asm_state *a)
{
    int64_t imm = asm_insn(a)->imm;
    unsigned dst = regs_def(a);

    emit_op(&a->e, X_LOAD, true, dst, rm_state(a->env->code_page));
    if (fits32(imm)) {
        if (imm)
            emit_group1(&a->e, G1_ADD, true, rm_reg(dst), (int32_t)imm);
    } else {
        emit_const(&a->e, RAX, (uint64_t)imm);
        emit_rr(&a->e, X_ADD + 2, true, dst, RAX);
    }
}

void asm_integer(struct asm_state *a)
{
    switch (asm_insn(a)->op) {
    case IR_PCREL:
        pcrel(a);
        break;
    case IR_ADD:
        add(a);
        break;
    case IR_ADDSHL:
        addshl(a);
        break;
    case IR_SUB:
        sub(a);
        break;
    case IR_AND:
        alu(a, X_AND, G1_AND, true);
        break;
    case IR_OR:
        alu(a, X_OR, G1_OR, true);
        break;
    case IR_XOR:
        xor_or_not(a);
        break;
    case IR_XNOR:
        xnor(a);
        break;
    case IR_ANDN:
        with_complement(a, true);
        break;
    case IR_ORN:
        with_complement(a, false);
        break;
    default: /* SEXT, ZEXT; CONST and NOP need nothing */
        if (asm_insn(a)->nargs)
            extend(a);
        break;
    }
}

static void shift_by(struct asm_state *a, enum x86_shift s, unsigned count)
{
    const struct ir_insn *i = asm_insn(a);
    bool w = wide(a);

    count &= w ? 63 : 31;
    if (s == SH_ROL) {
        s = SH_ROR;
        count = (w ? 64 : 32) - count;
        count &= w ? 63 : 31;
    }
    if (s == SH_ROR && (a->features & HOST_BMI2) && !dies_here(a, i->arg[0])) {
        struct rm rm = regs_use_rm(a, i->arg[0]);

        emit_vex(&a->e, 0xf0 | X_0F3A | X_PF2, w, regs_def(a), 0, rm);
        emit8(&a->e, count);
        return;
    }
    emit_shift(&a->e, s, w, rm_reg(regs_def_from(a, i->arg[0])), count);
}

void asm_shift(struct asm_state *a)
{
    static const struct {
        uint8_t s;
        uint32_t vex;
    } rows[] = {
        {SH_SHL, 0xf7 | X_0F38 | X_P66},
        {SH_SHR, 0xf7 | X_0F38 | X_PF2},
        {SH_SAR, 0xf7 | X_0F38 | X_PF3},
        {SH_ROL, 0                    },
        {SH_ROR, 0                    },
    };
    const struct ir_insn *i = asm_insn(a);
    unsigned row = i->op - IR_SHL;

    if (is_const(a, i->arg[1])) {
        shift_by(a, rows[row].s, (unsigned)a->f->insns[i->arg[1]].imm);
    } else if (rows[row].vex && (a->features & HOST_BMI2)) {
        struct rm rm = regs_use_rm(a, i->arg[0]);
        unsigned count = regs_use(a, i->arg[1]);

        emit_vex(&a->e, rows[row].vex, wide(a), regs_def_reuse(a, i->arg[0]), count, rm);
    } else {
        regs_copy_to(a, i->arg[1], RCX);
        emit_op(&a->e, X_SHIFTCL, wide(a), rows[row].s, rm_reg(regs_def_from(a, i->arg[0])));
    }
}

/* --- Comparisons */

static const uint8_t cc_table[IR_CCS] = {
    [IR_EQ] = CC_E, [IR_NE] = CC_NE, [IR_LT] = CC_L,   [IR_GE] = CC_GE,  [IR_LE] = CC_LE,
    [IR_GT] = CC_G, [IR_LTU] = CC_B, [IR_GEU] = CC_AE, [IR_LEU] = CC_BE, [IR_GTU] = CC_A,
};

enum x86_cc asm_cmp(struct asm_state *a, enum ir_cc cc, unsigned bytes, uint16_t x, uint16_t y)
{
    bool w = bytes == 8;
    struct rm rm;
    int32_t imm;

    if (is_const(a, x) && !is_const(a, y)) {
        uint16_t t = x;

        x = y;
        y = t;
        cc = ir_cc_swap(cc);
    }
    rm = regs_use_rm(a, x);
    if (is_imm(a, y, bytes, &imm)) {
        if (!imm && rm.reg != RM_NONE)
            emit_op(&a->e, X_TEST, w, (unsigned)rm.reg, rm);
        else
            emit_group1(&a->e, G1_CMP, w, rm, imm);
    } else if (rm.reg != RM_NONE) {
        emit_op(&a->e, X_CMP + 2, w, (unsigned)rm.reg, regs_use_rm(a, y));
    } else {
        emit_op(&a->e, X_CMP, w, regs_use(a, y), rm);
    }
    return cc_table[cc];
}

static void setcc(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    enum x86_cc cc = asm_cmp(a, i->aux, i->size, i->arg[0], i->arg[1]);
    unsigned dst;

    emit_op(&a->e, X_SETCC + cc, false, 0, rm_reg(RAX));
    dst = regs_def(a);
    emit_rr(&a->e, X_MOVZX8, false, dst, RAX);
}

/** dst = a cc b ? yes : no. */
static void select_value(struct asm_state *a, enum ir_cc cc, unsigned bytes, uint16_t x, uint16_t y,
                         uint16_t yes, uint16_t no)
{
    enum x86_cc host_cc;
    unsigned from, dst;

    if (!dies_here(a, no) && dies_here(a, yes) && a->values[yes].reg >= 0) {
        uint16_t t = yes;

        yes = no;
        no = t;
        cc = ir_cc_not(cc);
    }
    from = regs_use(a, yes);
    if (!is_const(a, no))
        regs_use(a, no);
    host_cc = asm_cmp(a, cc, bytes, x, y);
    dst = regs_def_from(a, no);
    emit_rr(&a->e, X_CMOV + host_cc, wide(a), dst, from);
}

void asm_compare(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    enum ir_cc cc = IR_LT;

    switch (i->op) {
    case IR_SETCC:
        setcc(a);
        return;
    case IR_SELECT:
        select_value(a, i->aux, i->size, i->arg[0], i->arg[1], i->arg[2], i->arg[3]);
        return;
    case IR_MIN:
        cc = IR_LT;
        break;
    case IR_MAX:
        cc = IR_GT;
        break;
    case IR_MINU:
        cc = IR_LTU;
        break;
    default:
        cc = IR_GTU;
        break;
    }
    select_value(a, cc, ir_type_size(i->type), i->arg[0], i->arg[1], i->arg[0], i->arg[1]);
}
