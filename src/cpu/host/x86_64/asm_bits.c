/* Code selection: multiplication, division, and operations on bits. */
#include "cpu/host/x86_64/asm.h"

static bool wide(const struct asm_state *a)
{
    return asm_insn(a)->type == IR_I64;
}

static void mul(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    uint16_t x = i->arg[0], y = i->arg[1];
    struct rm rm;
    int32_t imm;

    if (is_const(a, x) || (!dies_here(a, x) && dies_here(a, y) && !is_const(a, y))) {
        x = i->arg[1];
        y = i->arg[0];
    }
    if (is_imm(a, y, wide(a) ? 8 : 4, &imm)) {
        rm = regs_use_rm(a, x);
        emit_op_imm(&a->e, X_IMULI, wide(a), regs_def_reuse(a, x), rm, 4);
        emit32(&a->e, (uint32_t)imm);
        return;
    }
    rm = regs_use_rm(a, y);
    emit_op(&a->e, X_IMUL, wide(a), regs_def_from(a, x), rm);
}

/** High half of a product: rdx:rax = rax * operand. rdx is kept in rcx if it is live. */
static void mulh(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned ry = regs_use(a, i->arg[1]), rx = regs_use(a, i->arg[0]), dst;
    bool is_signed = i->op == IR_MULH;

    dst = regs_alloc(a, GPR_POOL);
    emit_mov(&a->e, true, RAX, rx);
    if (dst != RDX)
        emit_mov(&a->e, true, RCX, RDX);
    emit_op(&a->e, X_GROUP3, true, is_signed ? G3_IMUL : G3_MUL, rm_reg(ry));
    if (i->op == IR_MULHSU) {
        /* unsigned product is too large by y * 2^64 where x is negative */
        emit_mov(&a->e, true, RAX, rx == RDX ? RCX : rx);
        emit_shift(&a->e, SH_SAR, true, rm_reg(RAX), 63);
        emit_rr(&a->e, X_AND + 2, true, RAX, ry == RDX ? RCX : ry);
        emit_rr(&a->e, X_SUB + 2, true, RDX, RAX);
    }
    if (dst != RDX) {
        emit_mov(&a->e, true, dst, RDX);
        emit_mov(&a->e, true, RDX, RCX);
    }
    a->regs[dst] = (uint16_t)a->cur;
    a->values[a->cur].reg = (int8_t)dst;
}

/** Division: rax, rdx = quotient, remainder of rax by rcx, after special cases. */
static void divide(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    bool w = wide(a), is_signed = i->op == IR_DIV_RV || i->op == IR_REM_RV;
    bool quotient = i->op == IR_DIV_RV || i->op == IR_DIVU_RV;
    struct stub *s = stub_new(a, STUB_DIV);
    unsigned dst;

    regs_copy_to(a, i->arg[1], RCX);
    regs_copy_to(a, i->arg[0], RAX);
    dst = regs_def(a);
    if (dst != RDX)
        emit_op(&a->e, X_STORE, true, RDX, rm_frame(FRAME_SAVE));
    s->a = w;
    s->b = is_signed;
    if (is_signed) { /* divisor -1 or 0 */
        emit_lea(&a->e, w, RDX, rm_mem(RCX, 1));
        emit_group1(&a->e, G1_CMP, w, rm_reg(RDX), 1);
        s->from[0] = emit_jcc(&a->e, CC_BE, NULL);
        if (w)
            emit8(&a->e, 0x48);
        emit8(&a->e, 0x99); /* cqo, cdq */
    } else {
        emit_rr(&a->e, X_TEST, w, RCX, RCX);
        s->from[0] = emit_jcc(&a->e, CC_E, NULL);
        emit_rr(&a->e, X_XOR, false, RDX, RDX);
    }
    emit_op(&a->e, X_GROUP3, w, is_signed ? G3_IDIV : G3_DIV, rm_reg(RCX));
    s->resume = a->e.p;
    if (dst != RDX || quotient)
        emit_mov(&a->e, true, dst, quotient ? RAX : RDX);
    if (dst != RDX)
        emit_op(&a->e, X_LOAD, true, RDX, rm_frame(FRAME_SAVE));
}

void asm_muldiv(struct asm_state *a)
{
    switch (asm_insn(a)->op) {
    case IR_MUL:
        mul(a);
        break;
    case IR_MULH:
    case IR_MULHSU:
    case IR_MULHU:
        mulh(a);
        break;
    default:
        divide(a);
        break;
    }
}

/* --- Bits */

/** clz, ctz: with the feature one instruction, else a scan and a fix for zero. */
static void count_zeros(struct asm_state *a, bool leading)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned bits = wide(a) ? 64 : 32, dst;
    struct rm rm = regs_use_rm(a, i->arg[0]);

    dst = regs_def_reuse(a, i->arg[0]);
    if (a->features & (leading ? HOST_LZCNT : HOST_BMI1)) {
        emit_op(&a->e, leading ? X_LZCNT : X_TZCNT, wide(a), dst, rm);
        return;
    }
    emit_const(&a->e, RCX, leading ? 2 * bits - 1 : bits);
    emit_op(&a->e, leading ? X_BSR : X_BSF, wide(a), dst, rm);
    emit_rr(&a->e, X_CMOV + CC_E, wide(a), dst, RCX);
    if (leading)
        emit_group1(&a->e, G1_XOR, wide(a), rm_reg(dst), (int32_t)bits - 1);
}

/** Each byte: 0 if it was 0, else 0xff. */
static void orcb(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned src = regs_use(a, i->arg[0]), dst;

    emit_rr(&a->e, X_MOVD_TO, wide(a), XMM0, src);
    emit_rr(&a->e, X_PXOR, false, XMM1, XMM1);
    emit_rr(&a->e, X_PCMPEQB, false, XMM0, XMM1);
    dst = regs_def_reuse(a, i->arg[0]);
    emit_rr(&a->e, X_MOVD_FROM, wide(a), XMM0, dst);
    emit_op(&a->e, X_GROUP3, wide(a), G3_NOT, rm_reg(dst));
}

/** Set, clear, invert, extract one bit. */
static void one_bit(struct asm_state *a)
{
    static const struct {
        uint32_t op;
        uint8_t ext;
    } rows[] = {
        {X_BTS, 5},
        {X_BTR, 6},
        {X_BTC, 7},
        {X_BT,  4},
    };
    const struct ir_insn *i = asm_insn(a);
    unsigned row = i->op - IR_BSET, count = 0, dst;
    bool imm = is_const(a, i->arg[1]);

    if (!imm)
        count = regs_use(a, i->arg[1]);
    dst = i->op == IR_BEXT ? regs_use(a, i->arg[0]) : regs_def_from(a, i->arg[0]);
    if (imm) {
        emit_op_imm(&a->e, X_BTI, wide(a), rows[row].ext, rm_reg(dst), 1);
        emit8(&a->e, a->f->insns[i->arg[1]].imm & (wide(a) ? 63 : 31));
    } else {
        emit_op(&a->e, rows[row].op, wide(a), count, rm_reg(dst));
    }
    if (i->op == IR_BEXT) {
        emit_op(&a->e, X_SETCC + CC_B, false, 0, rm_reg(RAX));
        emit_rr(&a->e, X_MOVZX8, false, regs_def_reuse(a, i->arg[0]), RAX);
    }
}

/** Carry-less products by PCLMULQDQ: 128 bits of which each op wants another 64. */
static void clmul(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned x = regs_use(a, i->arg[0]), y = regs_use(a, i->arg[1]), dst;

    emit_rr(&a->e, X_MOVD_TO, true, XMM0, x);
    emit_rr(&a->e, X_MOVD_TO, true, XMM1, y);
    emit_rr(&a->e, X_PCLMUL, false, XMM0, XMM1);
    emit8(&a->e, 0);
    dst = regs_def_reuse(a, i->arg[0]);
    if (i->op == IR_CLMUL) {
        emit_rr(&a->e, X_MOVD_FROM, true, XMM0, dst);
        return;
    }
    if (i->op == IR_CLMULR) /* bits 126 to 63 */
        emit_rr(&a->e, X_MOVD_FROM, true, XMM0, RAX);
    emit_op(&a->e, 0x73 | X_0F | X_P66, false, 3, rm_reg(XMM0)); /* psrldq xmm0, 8 */
    emit8(&a->e, 8);
    emit_rr(&a->e, X_MOVD_FROM, true, XMM0, dst);
    if (i->op == IR_CLMULR) {
        emit_op(&a->e, 0xa4 | X_0F, true, RAX, rm_reg(dst)); /* shld dst, rax, 1 */
        emit8(&a->e, 1);
    }
}

static void bswap(struct asm_state *a)
{
    unsigned dst = regs_def_from(a, asm_insn(a)->arg[0]);

    if (wide(a) || (dst & 8))
        emit8(&a->e, 0x40 | (wide(a) ? 8 : 0) | (dst & 8 ? 1 : 0));
    emit8(&a->e, 0x0f);
    emit8(&a->e, 0xc8 | (dst & 7));
}

void asm_bits(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    struct rm rm;

    switch (i->op) {
    case IR_CLZ:
    case IR_CTZ:
        count_zeros(a, i->op == IR_CLZ);
        break;
    case IR_POPCNT:
        if (!(a->features & HOST_POPCNT)) {
            asm_helper(a, fallback_for(i->op, i->type), false);
            break;
        }
        rm = regs_use_rm(a, i->arg[0]);
        emit_op(&a->e, X_POPCNT, wide(a), regs_def_reuse(a, i->arg[0]), rm);
        break;
    case IR_BSWAP:
        bswap(a);
        break;
    case IR_ORCB:
        orcb(a);
        break;
    case IR_CLMUL:
    case IR_CLMULH:
    case IR_CLMULR:
        if (a->features & HOST_PCLMUL)
            clmul(a);
        else
            asm_helper(a, fallback_for(i->op, i->type), false);
        break;
    case IR_BREV8:
        asm_helper(a, fallback_for(i->op, i->type), false);
        break;
    default:
        one_bit(a);
        break;
    }
}
