/* NaN results, which the guest wants canonical and x86 makes otherwise.
 *
 * Nobody sees a result before it is stored, moved as bits, or guest state is looked at; and mostly
 * its register has been overwritten by then. So a result is left as it is, marked `raw`, until one
 * of these comes; two of them are compared with each other, which says at once whether any is a
 * NaN. Stubs make raw state canonical as they write it.
 *
 * 1. A raw value is in a register.
 * 2. Raw values are results of arithmetic, or such boxed: any NaN among them stands for the
 *    canonical one. No value of another stretch or of another round of a loop is raw. */
#include "cpu/host/x86_64/asm.h"

enum kind { KIND_64, KIND_32, KIND_BOX, KIND_BITS = 2 };

static enum kind kind_of(const struct asm_state *a, uint16_t v)
{
    const struct ir_insn *i = &a->f->insns[v];

    return i->op == IR_FBOX ? KIND_BOX : i->type == IR_F32 ? KIND_32 : KIND_64;
}

/** Flags as of comparing @x with @y. */
static void compare(struct asm_state *a, enum kind kind, unsigned x, unsigned y)
{
    emit_rr(&a->e, X_UCOMIS | (kind == KIND_64 ? X_P66 : 0), false, x, y);
}

/** Another raw value that can be compared with @v: the one that is needed longest. */
static uint16_t partner(const struct asm_state *a, uint16_t v)
{
    uint16_t best = ASM_NONE;

    for (unsigned r = XMM0; r < X86_REGS; r++) {
        uint16_t n = a->regs[r];

        if (n == ASM_NONE || n == v || !a->values[n].raw || a->values[n].last_use < a->cur ||
            (kind_of(a, n) == KIND_64) != (kind_of(a, v) == KIND_64))
            continue;
        if (best == ASM_NONE || a->values[n].last_use > a->values[best].last_use)
            best = n;
    }
    return best;
}

void nan_settle(struct asm_state *a, uint16_t v)
{
    uint16_t other;
    struct stub *s;

    if (!a->values[v].raw)
        return;
    other = partner(a, v);
    s = stub_new(a, STUB_NAN);
    s->dst = a->values[v].reg;
    s->a = other == ASM_NONE ? -1 : a->values[other].reg;
    s->arg = kind_of(a, v) | (other == ASM_NONE ? 0 : kind_of(a, other)) << KIND_BITS;
    compare(a, kind_of(a, v), (unsigned)s->dst, (unsigned)(s->a < 0 ? s->dst : s->a));
    s->from[0] = emit_jcc(&a->e, CC_P, NULL);
    s->resume = a->e.p;
    a->values[v].raw = false;
    if (other != ASM_NONE)
        a->values[other].raw = false;
}

static void load_nan(struct asm_state *a, enum kind kind, unsigned reg)
{
    static const uint8_t nans[] = {
        [KIND_64] = CONSTANT_NAN64, [KIND_32] = CONSTANT_NAN32, [KIND_BOX] = CONSTANT_NAN_BOX};

    emit_op(&a->e, kind == KIND_32 ? X_MOVSS : X_MOVSD, false, reg, rm_constant(a, nans[kind]));
}

static void make_canonical(struct asm_state *a, enum kind kind, unsigned reg)
{
    uint8_t *number;

    compare(a, kind, reg, reg);
    number = emit_jcc_short(&a->e, CC_NP);
    load_nan(a, kind, reg);
    emit_here(&a->e, number);
}

void nan_stub(struct asm_state *a, const struct stub *s)
{
    if (s->a < 0) {
        load_nan(a, s->arg & 3, (unsigned)s->dst);
        return;
    }
    make_canonical(a, s->arg & 3, (unsigned)s->dst);
    make_canonical(a, s->arg >> KIND_BITS, (unsigned)s->a);
}

uint8_t nan_place(const struct asm_state *a, uint16_t v)
{
    return a->values[v].raw ? (uint8_t)(1 + kind_of(a, v)) : 0;
}

void nan_write_place(struct asm_state *a, const struct place *p)
{
    if (p->nan)
        make_canonical(a, p->nan - 1, p->reg);
}
