/* Code selection: floating point on SSE2, with FMA and AVX forms where the host has them.
 *
 * MXCSR has exceptions masked and rounds to nearest even; its sticky flags are the guest's accrued
 * exceptions (COMMON_LEAVE hands them over). x86 differs from the IR in NaN results, so results
 * that not only arithmetic uses, which takes any NaN, are made canonical in the end (nan.c). */
#include "cpu/host/x86_64/asm.h"

static unsigned scalar(enum ir_type t)
{
    return t == IR_F32 ? X_PF3 : X_PF2;
}
static enum ir_type arg_type(const struct asm_state *a, unsigned n)
{
    return a->f->insns[asm_insn(a)->arg[n]].type;
}
/** ucomis or comis x, y. */
static void compare(struct asm_state *a, unsigned op, enum ir_type t, unsigned x, struct rm y)
{
    emit_op(&a->e, op | (t == IR_F64 ? X_P66 : 0), false, x, y);
}

static void arithmetic(struct asm_state *a, unsigned op)
{
    const struct ir_insn *i = asm_insn(a);
    bool commutes = ir_op_info[i->op].flags & IR_COMM;
    uint16_t x = i->arg[0], y = i->arg[1];
    unsigned dst, rx;
    struct rm rm;

    op |= scalar(i->type);
    if (commutes && !dies_here(a, x) && dies_here(a, y) && a->values[y].reg >= 0) {
        x = i->arg[1];
        y = i->arg[0];
    }
    rm = regs_use_rm(a, y);
    if ((a->features & HOST_AVX) && (!dies_here(a, x) || regs_wants_other(a, x))) {
        rx = regs_use(a, x);
        dst = regs_def_reuse(a, y);
        emit_vex(&a->e, op, false, dst, rx, rm);
    } else {
        dst = regs_def_from(a, x);
        emit_op(&a->e, op, false, dst, rm);
    }
    nan_defer(a);
}

static void square_root(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    struct rm rm = regs_use_rm(a, i->arg[0]);
    unsigned dst = regs_def_reuse(a, i->arg[0]);

    emit_op(&a->e, X_SQRTS | scalar(i->type), false, dst, rm);
    nan_defer(a);
}

static void fused(struct asm_state *a)
{
    static const uint8_t ops[] = {0xb9, 0xbb, 0xbf,
                                  0xbd}; /* 231 forms: fmadd, fmsub, fnmsub, fnmadd */
    const struct ir_insn *i = asm_insn(a);
    unsigned x, dst;
    struct rm y;
    struct stub *s;

    if (!(a->features & HOST_FMA)) {
        asm_helper(a, fallback_for(i->op, i->type), true);
        return;
    }
    x = regs_use(a, i->arg[0]);
    y = rm_reg(regs_use(a, i->arg[1]));
    dst = regs_def_from(a, i->arg[2]);
    emit_vex(&a->e, ops[i->op - IR_FMADD] | X_0F38 | X_P66, i->type == IR_F64, dst, x, y);
    /* infinity * 0 + NaN is invalid to the guest and not to the host: the stub looks */
    compare(a, X_UCOMIS, i->type, dst, rm_reg(dst));
    s = stub_new(a, STUB_FMA_NAN);
    s->dst = (int8_t)dst;
    s->a = (int8_t)x;
    s->b = y.reg;
    s->from[0] = emit_jcc(&a->e, CC_P, NULL);
    s->resume = a->e.p;
}

static void min_max(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned y = regs_use(a, i->arg[1]), dst = regs_def_from(a, i->arg[0]);
    struct stub *s = stub_new(a, STUB_FMINMAX);

    s->dst = (int8_t)dst;
    s->a = (int8_t)y;
    compare(a, X_UCOMIS, i->type, dst, rm_reg(y));
    s->from[0] = emit_jcc(&a->e, CC_E, NULL); /* equal or unordered */
    emit_rr(&a->e, (i->op == IR_FMIN ? X_MINS : X_MAXS) | scalar(i->type), false, dst, y);
    s->resume = a->e.p;
}

/** Replace the sign of a copy of the first operand. */
static void sign(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    bool is64 = i->type == IR_F64;
    struct rm sign_bit = rm_constant(a, is64 ? CONSTANT_SIGN64 : CONSTANT_SIGN32);
    struct rm others = rm_constant(a, is64 ? CONSTANT_ABS64 : CONSTANT_ABS32);
    unsigned dst;

    nan_settle(a, i->arg[0]);
    nan_settle(a, i->arg[1]);
    if (i->arg[0] == i->arg[1]) {
        dst = regs_def_from(a, i->arg[0]);
        if (i->op == IR_FSGNJN)
            emit_op(&a->e, X_XORPS, false, dst, sign_bit);
        else if (i->op == IR_FSGNJX)
            emit_op(&a->e, X_ANDPS, false, dst, others);
        return;
    }
    regs_copy_to(a, i->arg[1], XMM0);
    emit_op(&a->e, i->op == IR_FSGNJN ? X_ANDNPS : X_ANDPS, false, XMM0, sign_bit);
    dst = regs_def_from(a, i->arg[0]);
    if (i->op != IR_FSGNJX)
        emit_op(&a->e, X_ANDPS, false, dst, others);
    emit_rr(&a->e, i->op == IR_FSGNJX ? X_XORPS : X_ORPS, false, dst, XMM0);
}

void asm_float(struct asm_state *a)
{
    switch (asm_insn(a)->op) {
    case IR_FADD:
        arithmetic(a, X_ADDS);
        break;
    case IR_FSUB:
        arithmetic(a, X_SUBS);
        break;
    case IR_FMUL:
        arithmetic(a, X_MULS);
        break;
    case IR_FDIV:
        arithmetic(a, X_DIVS);
        break;
    case IR_FSQRT:
        square_root(a);
        break;
    case IR_FMIN:
    case IR_FMAX:
        min_max(a);
        break;
    case IR_FSGNJ:
    case IR_FSGNJN:
    case IR_FSGNJX:
        sign(a);
        break;
    default:
        fused(a);
        break;
    }
}

void asm_float_compare(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    enum ir_type t = arg_type(a, 0);
    unsigned x;
    struct rm y;

    if (i->op == IR_FCLASS) {
        asm_helper(a, fallback_for(i->op, t), false);
        return;
    }
    if (i->op == IR_FEQ) {
        y = regs_use_rm(a, i->arg[1]);
        x = regs_use(a, i->arg[0]);
        compare(a, X_UCOMIS, t, x, y);
        emit_op(&a->e, X_SETCC + CC_NP, false, 0, rm_reg(RAX));
        emit_op(&a->e, X_SETCC + CC_E, false, 0, rm_reg(RCX));
        emit_rr(&a->e, X_AND + 2, false, RAX, RCX);
    } else { /* x < y as y > x: false for unordered operands */
        y = regs_use_rm(a, i->arg[0]);
        x = regs_use(a, i->arg[1]);
        compare(a, X_COMIS, t, x, y);
        emit_op(&a->e, X_SETCC + (i->op == IR_FLT ? CC_A : CC_AE), false, 0, rm_reg(RAX));
    }
    emit_rr(&a->e, X_MOVZX8, false, regs_def(a), RAX);
}

/* --- Accrued exceptions: in fp_flags, and since the last look in MXCSR */

/** eax = all of them. Uses rcx. */
static void accrued(struct asm_state *a)
{
    struct rm mxcsr = rm_state(a->env->mxcsr);

    emit_op(&a->e, X_MXCSR, false, 3, mxcsr);
    emit_op(&a->e, X_LOAD, false, RCX, mxcsr);
    emit_group1(&a->e, G1_AND, false, rm_reg(RCX), 63);
    emit_lea(&a->e, true, RAX, rm_rip(a->h->flags_map));
    emit_op(&a->e, X_LOAD, false, RAX, rm_sib(RAX, RCX, 2, 0));
    emit_op(&a->e, X_OR + 2, false, RAX, rm_state(a->env->fp_flags));
}

/** Comparisons that shall raise nothing are code that saves the flags and puts them back: mostly
 * they have not changed, and MXCSR, which is slow to write, may stay. */
void asm_flags(struct asm_state *a)
{
    uint8_t *same;
    unsigned value;

    if (asm_insn(a)->op == IR_FLAGS) {
        accrued(a);
        emit_mov(&a->e, false, regs_def(a), RAX);
        return;
    }
    value = regs_use(a, asm_insn(a)->arg[0]);
    accrued(a);
    emit_rr(&a->e, X_CMP + 2, false, RAX, value);
    same = emit_jcc_short(&a->e, CC_E);
    emit_op(&a->e, X_STORE, false, value, rm_state(a->env->fp_flags));
    emit_op(&a->e, X_MXCSR, false, 2, rm_constant(a, CONSTANT_MXCSR));
    emit_here(&a->e, same);
}

/* --- Conversions */

static void to_signed(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned x = regs_use(a, i->arg[0]), dst = regs_def(a);
    bool w = i->type == IR_I64;
    struct stub *s = stub_new(a, STUB_FTOI);

    emit_rr(&a->e, (i->aux == IR_RTZ ? X_CVTTSI : X_CVTSI) | scalar(arg_type(a, 0)), w, dst, x);
    emit_group1(&a->e, G1_CMP, w, rm_reg(dst), 1); /* overflows for the one value that means "no" */
    s->dst = (int8_t)dst;
    s->a = (int8_t)x;
    s->b = arg_type(a, 0) == IR_F32;
    s->from[0] = emit_jcc(&a->e, CC_O, NULL);
    s->resume = a->e.p;
}

static void to_unsigned(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    enum ir_type t = arg_type(a, 0);
    unsigned x = regs_use(a, i->arg[0]), dst = regs_def(a), limit;
    struct stub *s;

    s = stub_new(a, STUB_FTOU);
    s->dst = (int8_t)dst;
    s->a = (int8_t)x;
    if (i->aux == IR_RTZ) {
        limit = i->type == IR_I64 ? (t == IR_F64 ? CONSTANT_TWO63_64 : CONSTANT_TWO63_32)
                                  : (t == IR_F64 ? CONSTANT_TWO32_64 : CONSTANT_TWO32_32);
        emit_rr(&a->e, X_XORPS, false, XMM0, XMM0);
        compare(a, X_UCOMIS, t, x, rm_reg(XMM0));
        s->from[0] = emit_jcc(&a->e, CC_B, NULL);
        compare(a, X_UCOMIS, t, x, rm_constant(a, limit));
        s->from[1] = emit_jcc(&a->e, CC_AE, NULL);
        emit_rr(&a->e, X_CVTTSI | scalar(t), true, dst, x);
    } else {
        s->from[0] = emit_jmp(&a->e, NULL);
    }
    s->resume = a->e.p;
}

static void from_integer(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned op = X_CVTI2S | scalar(i->type), dst, x;
    struct stub *s;

    if (i->op == IR_ITOF) {
        struct rm rm = regs_use_rm(a, i->arg[0]);

        dst = regs_def(a);
        emit_rr(&a->e, X_XORPS, false, dst, dst);
        emit_op(&a->e, op, i->size == 8, dst, rm);
        return;
    }
    x = regs_use(a, i->arg[0]);
    dst = regs_def(a);
    emit_rr(&a->e, X_XORPS, false, dst, dst);
    if (i->size == 4) {
        emit_mov(&a->e, false, RAX, x);
        emit_rr(&a->e, op, true, dst, RAX);
        return;
    }
    s = stub_new(a, STUB_UTOF);
    s->dst = (int8_t)dst;
    s->a = (int8_t)x;
    emit_rr(&a->e, X_TEST, true, x, x);
    s->from[0] = emit_jcc(&a->e, CC_S, NULL);
    emit_rr(&a->e, op, true, dst, x);
    s->resume = a->e.p;
}

static void bitcast(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    bool w = ir_type_size(i->type) == 8;
    struct rm rm;
    unsigned dst;

    nan_settle(a, i->arg[0]);
    rm = regs_use_rm(a, i->arg[0]);
    dst = regs_def(a);
    if (ir_is_float(i->type))
        emit_op(&a->e, X_MOVD_TO, w, dst, rm);
    else if (rm.reg == RM_NONE)
        emit_op(&a->e, X_LOAD, w, dst, rm);
    else
        emit_rr(&a->e, X_MOVD_FROM, w, (unsigned)rm.reg, dst);
}

static void unbox(struct asm_state *a)
{
    uint16_t x = asm_insn(a)->arg[0];
    struct rm rm, high;
    struct stub *s;
    unsigned dst;

    nan_settle(a, x);
    rm = high = regs_use_rm(a, x);
    s = stub_new(a, STUB_UNBOX);
    if (rm.reg == RM_NONE) {
        dst = regs_def(a);
        high.disp += 4;
        emit_group1(&a->e, G1_CMP, false, high, -1);
        s->from[0] = emit_jcc(&a->e, CC_NE, NULL);
        emit_op(&a->e, X_MOVSS, false, dst, rm);
    } else {
        dst = regs_def_from(a, x);
        emit_rr(&a->e, X_MOVD_FROM, true, dst, RAX);
        emit_shift(&a->e, SH_SAR, true, rm_reg(RAX), 32);
        emit_group1(&a->e, G1_CMP, false, rm_reg(RAX), -1);
        s->from[0] = emit_jcc(&a->e, CC_NE, NULL);
    }
    s->dst = (int8_t)dst;
    s->resume = a->e.p;
}

void asm_float_convert(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    struct rm rm;
    unsigned dst;

    switch (i->op) {
    case IR_FCVT:
        rm = regs_use_rm(a, i->arg[0]);
        dst = regs_def_reuse(a, i->arg[0]);
        emit_op(&a->e, X_CVTS | scalar(arg_type(a, 0)), false, dst, rm);
        nan_defer(a);
        break;
    case IR_FTOI:
        to_signed(a);
        break;
    case IR_FTOU:
        to_unsigned(a);
        break;
    case IR_ITOF:
    case IR_UTOF:
        from_integer(a);
        break;
    case IR_BITCAST:
        bitcast(a);
        break;
    case IR_FBOX:
        a->values[a->cur].raw = a->values[i->arg[0]].raw;
        dst = regs_def_from(a, i->arg[0]);
        emit_op(&a->e, X_ORPS, false, dst, rm_constant(a, CONSTANT_BOX));
        break;
    default:
        unbox(a);
        break;
    }
}
