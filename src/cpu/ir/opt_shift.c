/* The optimizer's forward pass: pairs that are one op. Base RISC-V has neither extensions of all
 * sizes, nor scaled sums, nor rotations: its compilers make them of pairs of shifts, and hosts have
 * them.
 *
 * Threads: as opt.c. */
#include "cpu/ir/opt_internal.h"

/** A NOP right before the current op's constant, and behind temp @after: the place of an op that
 * computes something from it. NONE: there is none. */
static uint16_t take_nop(const struct pass *p, uint16_t after)
{
    unsigned n = p->i->arg[1];

    return n && n - 1 > after && p->f->insns[n - 1].op == IR_NOP ? (uint16_t)(n - 1) : NONE;
}

/** (x << a) >> c, which is how base RISC-V extends: an extension of x's low bytes if a == c; if a >
 * c, that shifted to the left, which frees this op of waiting for the first shift. */
void opt_shift_back(struct pass *p, unsigned c)
{
    struct ir_insn *i = p->i, *d = def(p, i->arg[0]);
    unsigned bits = 8 * ir_type_size(i->type), a;
    struct ir_insn low = {.op = i->op == IR_SAR ? IR_SEXT : IR_ZEXT, .type = i->type, .nargs = 1};
    uint16_t at, k;

    if (d->op != IR_SHL || d->type != i->type || !is_const(p, d->arg[1]))
        return;
    a = (unsigned)def(p, d->arg[1])->imm & (bits - 1);
    if (a < c || (bits - a != 8 && bits - a != 16 && bits - a != 32))
        return;
    low.size = (uint8_t)((bits - a) / 8);
    low.arg[0] = use(p, d->arg[0]);
    if (a == c) {
        *i = low;
        opt_extension(p);
        return;
    }
    at = take_nop(p, d->arg[0]);
    k = at == NONE ? NONE : opt_reuse_const(p, i->arg[1], a - c);
    if (k == NONE)
        return;
    p->f->insns[at] = low;
    p->f->uses[at] = 1;
    opt_become(p, IR_SHL, at, k);
}

/** A sum with something shifted by 1 to 3 is one op. */
void opt_scaled_sum(struct pass *p)
{
    struct ir_insn *i = p->i;

    for (unsigned k = 0; k < 2; k++) {
        const struct ir_insn *d = def(p, i->arg[k]);

        if (d->op != IR_SHL || d->type != i->type || !is_const(p, d->arg[1]) ||
            def(p, d->arg[1])->imm < 1 || def(p, d->arg[1])->imm > 3)
            continue;
        i->imm = def(p, d->arg[1])->imm;
        opt_become(p, IR_ADDSHL, use(p, d->arg[0]), i->arg[!k]);
        return;
    }
}

/** The operand of shift @op by a constant that @v is, without the extension around it if @w;
 * NONE: it is no such thing. */
static uint16_t shifted(const struct pass *p, uint16_t v, enum ir_op op, bool w, uint16_t *ret_by)
{
    const struct ir_insn *d = def(p, v);

    if (w && d->op == IR_SEXT && d->size == 4)
        d = def(p, d->arg[0]);
    if (d->op != op || d->type != (w ? IR_I32 : IR_I64) || !is_const(p, d->arg[1]))
        return NONE;
    *ret_by = d->arg[1];
    return d->arg[0];
}

/** (x >> c) | (x << width - c), or of 32 bits and both extended, is how base RISC-V rotates. */
void opt_rotate(struct pass *p)
{
    struct ir_insn *i = p->i;

    for (unsigned k = 0; k < 4; k++) {
        bool w = k & 2;
        uint16_t left, right, x = shifted(p, i->arg[k & 1], IR_SHL, w, &left);

        if (x == NONE || shifted(p, i->arg[!(k & 1)], IR_SHR, w, &right) != x ||
            def(p, left)->imm + def(p, right)->imm != (w ? 32 : 64))
            continue;
        if (!w) {
            opt_become(p, IR_ROR, use(p, x), use(p, right));
        } else if (i->type == IR_I64 && p->n && i[-1].op == IR_NOP) {
            i[-1] = (struct ir_insn){
                .op = IR_ROR, .type = IR_I32, .nargs = 2, .arg = {use(p, x), use(p, right)}
            };
            *i = (struct ir_insn){.op = IR_SEXT,
                                  .type = IR_I64,
                                  .size = 4,
                                  .nargs = 1,
                                  .arg = {use(p, (uint16_t)(p->n - 1))}};
        }
        return;
    }
}

/** ~x & y. */
void opt_and_not(struct pass *p)
{
    struct ir_insn *i = p->i;

    for (unsigned k = 0; k < 2; k++) {
        const struct ir_insn *d = def(p, i->arg[k]);

        if (d->op != IR_XOR || d->type != i->type || !is_value(p, d->arg[1], -1))
            continue;
        opt_become(p, IR_ANDN, i->arg[!k], use(p, d->arg[0]));
        return;
    }
}
