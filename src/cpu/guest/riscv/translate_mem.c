/* Translation of loads, stores and atomics. See translate_internal.h. */
#include "cpu/guest/riscv/interp_internal.h"
#include "cpu/guest/riscv/translate_internal.h"

/** rule->op: IR_LOAD or IR_LOADS. */
void rv_tr_load(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t base;

    if (!i->rd) { /* it must still fault, and an unused load may be removed */
        rv_tr_interp(t, i, rule);
        return;
    }
    base = rv_tr_get_x(t, i->rs1);
    rv_tr_set_x(
        t, i->rd,
        ir_load(t->f, IR_I64, rule->size, rule->op == IR_LOADS, rv_tr_mmu(t), base, i->imm));
}

void rv_tr_store(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t base = rv_tr_get_x(t, i->rs1), value = rv_tr_get_x(t, i->rs2);

    ir_store(t->f, rule->size, rv_tr_mmu(t), base, i->imm, value);
}

void rv_tr_fload(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t base = rv_tr_get_x(t, i->rs1);
    uint16_t v =
        ir_load(t->f, rule->wide ? IR_F64 : IR_F32, rule->size, false, rv_tr_mmu(t), base, i->imm);

    rv_tr_set_f(t, i->rd, rule->wide, v);
    rv_tr_mark_dirty(t);
}

/** The low bytes, boxed or not. */
void rv_tr_fstore(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t base = rv_tr_get_x(t, i->rs1);
    uint16_t value = ir_un(t->f, IR_BITCAST, IR_I64, rv_tr_get_f(t, i->rs2, true));

    ir_store(t->f, rule->size, rv_tr_mmu(t), base, i->imm, value);
}

/** What memory held, of @size bytes, to x[rd]. */
static void set_old(struct rv_tr *t, unsigned rd, unsigned size, uint16_t old)
{
    if (size == 4)
        rv_tr_set_w(t, rd, old);
    else
        rv_tr_set_x(t, rd, old);
}

/** rule->op: enum ir_amo. */
void rv_tr_amo(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t base = rv_tr_get_x(t, i->rs1), operand = rv_tr_get_x(t, i->rs2);
    uint16_t old = ir_amo(t->f, rule->size == 4 ? IR_I32 : IR_I64, rule->op, rule->size,
                          rv_tr_mmu(t), base, operand);

    set_old(t, i->rd, rule->size, old);
}

void rv_tr_amocas(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t base = rv_tr_get_x(t, i->rs1), desired = rv_tr_get_x(t, i->rs2);
    uint16_t expected = rv_tr_get_x(t, i->rd);
    uint16_t old = ir_cas(t->f, rule->size == 4 ? IR_I32 : IR_I64, rule->size, rv_tr_mmu(t), base,
                          expected, desired);

    set_old(t, i->rd, rule->size, old);
}

/** What rv_reservation() says of a reservation of @size bytes at @base. */
static uint16_t reservation(struct rv_tr *t, uint16_t base, unsigned size)
{
    uint16_t eight = ir_const(t->f, IR_I64, size == 8);

    return ir_bin(t->f, IR_ADD, IR_I64, base, eight);
}

/** As the interpreter's. */
void rv_tr_lr(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t base = rv_tr_get_x(t, i->rs1), old;

    if (i->rs3 & RV_RL)
        ir_fence(t->f);
    old = ir_lr(t->f, IR_I64, rule->size, rv_tr_mmu(t), base);
    ir_set(t->f, offsetof(struct rv_hart, reservation), 8, reservation(t, base, rule->size));
    ir_set(t->f, offsetof(struct rv_hart, reservation_value), 8, old);
    set_old(t, i->rd, rule->size, old);
}

/** As the interpreter's: who has no reservation of just this address and size fails. */
void rv_tr_sc(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    size_t at = offsetof(struct rv_hart, reservation);
    uint16_t base = rv_tr_get_x(t, i->rs1), desired = rv_tr_get_x(t, i->rs2);
    uint16_t held = ir_setcc(t->f, IR_I64, IR_EQ, 8, ir_get(t->f, IR_I64, at, 8),
                             reservation(t, base, rule->size));
    uint16_t value = ir_get(t->f, IR_I64, offsetof(struct rv_hart, reservation_value), 8);

    ir_set(t->f, at, 8, ir_const(t->f, IR_I64, (int64_t)RV_NO_RESERVATION));
    rv_tr_set_x(t, i->rd,
                ir_sc(t->f, IR_I64, rule->size, rv_tr_mmu(t), base, value, desired, held));
}

void rv_tr_cbo_zero(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    ir_zero(t->f, RV_CBO_BLOCK, rv_tr_mmu(t), rv_tr_get_x(t, i->rs1));
}

/** Hosts so far keep all orders but store before load by themselves; devices count as memory. */
void rv_tr_fence(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    enum { R = 2 | 8, W = 1 | 4 };
    unsigned pred = (unsigned)i->imm >> 4, succ = (unsigned)i->imm;

    if ((pred & W) && (succ & R))
        ir_fence(t->f);
}
