/* Translation of integer computation, jumps and branches. See translate_internal.h. */
#include "cpu/guest/riscv/translate_internal.h"

static uint16_t imm_of(struct rv_tr *t, const struct insn *i)
{
    return ir_const(t->f, IR_I64, i->imm);
}

/* With rd = x0 nothing of what follows has an effect: no op here traps. */

void rv_tr_alu(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = rv_tr_get_x(t, i->rs1), b = rv_tr_get_x(t, i->rs2);

    rv_tr_set_x(t, i->rd, ir_bin(t->f, rule->op, IR_I64, a, b));
}

void rv_tr_alu_imm(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = rv_tr_get_x(t, i->rs1);

    rv_tr_set_x(t, i->rd, ir_bin(t->f, rule->op, IR_I64, a, imm_of(t, i)));
}

void rv_tr_alu_w(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = rv_tr_get_x(t, i->rs1), b = rv_tr_get_x(t, i->rs2);

    rv_tr_set_w(t, i->rd, ir_bin(t->f, rule->op, IR_I32, a, b));
}

void rv_tr_alu_imm_w(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = rv_tr_get_x(t, i->rs1);

    rv_tr_set_w(t, i->rd, ir_bin(t->f, rule->op, IR_I32, a, ir_const(t->f, IR_I32, i->imm)));
}

void rv_tr_unary(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    rv_tr_set_x(t, i->rd, ir_un(t->f, rule->op, IR_I64, rv_tr_get_x(t, i->rs1)));
}

void rv_tr_unary_w(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    rv_tr_set_w(t, i->rd, ir_un(t->f, rule->op, IR_I32, rv_tr_get_x(t, i->rs1)));
}

void rv_tr_extend(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    rv_tr_set_x(t, i->rd, ir_ext(t->f, rule->op, IR_I64, rule->size, rv_tr_get_x(t, i->rs1)));
}

void rv_tr_set_if(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = rv_tr_get_x(t, i->rs1), b = rv_tr_get_x(t, i->rs2);

    rv_tr_set_x(t, i->rd, ir_setcc(t->f, IR_I64, rule->cc, 8, a, b));
}

void rv_tr_set_if_imm(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = rv_tr_get_x(t, i->rs1);

    rv_tr_set_x(t, i->rd, ir_setcc(t->f, IR_I64, rule->cc, 8, a, imm_of(t, i)));
}

/** rule->size is the shift. */
void rv_tr_shift_add(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = rv_tr_get_x(t, i->rs1), b = rv_tr_get_x(t, i->rs2);

    rv_tr_set_x(t, i->rd, ir_addshl(t->f, IR_I64, a, rule->size, b));
}

void rv_tr_shift_add_uw(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = ir_ext(t->f, IR_ZEXT, IR_I64, 4, rv_tr_get_x(t, i->rs1));
    uint16_t b = rv_tr_get_x(t, i->rs2);

    rv_tr_set_x(t, i->rd,
                rule->size ? ir_addshl(t->f, IR_I64, a, rule->size, b)
                           : ir_bin(t->f, IR_ADD, IR_I64, a, b));
}

void rv_tr_slli_uw(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = ir_ext(t->f, IR_ZEXT, IR_I64, 4, rv_tr_get_x(t, i->rs1));

    rv_tr_set_x(t, i->rd, ir_bin(t->f, IR_SHL, IR_I64, a, imm_of(t, i)));
}

/** rd = rs2 cc 0 ? 0 : rs1. */
void rv_tr_czero(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = rv_tr_get_x(t, i->rs1), b = rv_tr_get_x(t, i->rs2);
    uint16_t zero = ir_const(t->f, IR_I64, 0);

    rv_tr_set_x(t, i->rd, ir_select(t->f, IR_I64, rule->cc, 8, b, zero, zero, a));
}

void rv_tr_lui(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    rv_tr_set_x(t, i->rd, imm_of(t, i));
}

void rv_tr_auipc(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    rv_tr_set_x(t, i->rd, ir_pcrel(t->f, (int64_t)i->page_offset + i->imm));
}

void rv_tr_zero(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    rv_tr_set_x(t, i->rd, ir_const(t->f, IR_I64, 0));
}

void rv_tr_nothing(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
}

void rv_tr_branch(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = rv_tr_get_x(t, i->rs1), b = rv_tr_get_x(t, i->rs2);

    ir_branch(t->f, rule->cc, 8, a, b, (int64_t)i->page_offset + i->imm);
    ir_exit_direct(t->f, i->page_offset + i->size, IR_HINT_NONE);
}

static bool is_link(unsigned reg)
{
    return reg == 1 || reg == 5;
}

void rv_tr_jal(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    rv_tr_set_x(t, i->rd, ir_pcrel(t->f, i->page_offset + i->size));
    ir_exit_direct(t->f, (int64_t)i->page_offset + i->imm,
                   is_link(i->rd) ? IR_HINT_CALL : IR_HINT_NONE);
}

/** Hints as in Unprivileged ISA 20240411, table 3. */
void rv_tr_jalr(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t sum = ir_bin(t->f, IR_ADD, IR_I64, rv_tr_get_x(t, i->rs1), imm_of(t, i));
    uint16_t target = ir_bin(t->f, IR_AND, IR_I64, sum, ir_const(t->f, IR_I64, ~1LL));
    enum ir_hint hint = is_link(i->rd)    ? IR_HINT_CALL
                        : is_link(i->rs1) ? IR_HINT_RETURN
                                          : IR_HINT_NONE;

    rv_tr_set_x(t, i->rd, ir_pcrel(t->f, i->page_offset + i->size));
    ir_exit_indirect(t->f, target, hint);
}
