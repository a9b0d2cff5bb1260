/* Translation of floating point. See translate_internal.h.
 *
 * The IR rounds to nearest even (or truncates, to integers); what wants another rounding mode, and
 * half precision but for moves of bits, is interpreted. */
#include "cpu/fp/fp.h"
#include "cpu/guest/riscv/csr_bits.h"
#include "cpu/guest/riscv/translate_internal.h"

enum { RM_RNE = 0, RM_RTZ = 1, RM_DYNAMIC = 7 };

static size_t offset_of_f(unsigned reg)
{
    return offsetof(struct rv_hart, f) + 8 * reg;
}

uint16_t rv_tr_get_f(struct rv_tr *t, unsigned reg, bool wide)
{
    uint16_t v = ir_get(t->f, IR_F64, offset_of_f(reg), 8);

    return wide ? v : ir_un(t->f, IR_FUNBOX, IR_F32, v);
}

void rv_tr_set_f(struct rv_tr *t, unsigned reg, bool wide, uint16_t value)
{
    ir_set(t->f, offset_of_f(reg), 8, wide ? value : ir_un(t->f, IR_FBOX, IR_F64, value));
}

static void or_state(struct rv_tr *t, size_t offset, uint64_t bits)
{
    uint16_t old = ir_get(t->f, IR_I64, offset, 8);

    ir_set(t->f, offset, 8,
           ir_bin(t->f, IR_OR, IR_I64, old, ir_const(t->f, IR_I64, (int64_t)bits)));
}

void rv_tr_mark_dirty(struct rv_tr *t)
{
    if (t->fs_dirty)
        return;
    or_state(t, offsetof(struct rv_hart, mstatus), MSTATUS_FS);
    or_state(t, offsetof(struct rv_hart, cpu.mode), RV_MODE_FS | RV_MODE_FS_DIRTY);
    t->fs_dirty = true;
}

static bool is_nearest_even(const struct rv_tr *t, const struct insn *i)
{
    return i->extra == RM_RNE || (i->extra == RM_DYNAMIC && (t->mode & RV_MODE_FRM_RNE));
}

/** The type of the rule's format. */
static enum ir_type type_of(const struct rv_rule *rule)
{
    return rule->wide ? IR_F64 : IR_F32;
}

void rv_tr_fp(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a, b;

    if (rule->round && !is_nearest_even(t, i)) {
        rv_tr_interp(t, i, rule);
        return;
    }
    a = rv_tr_get_f(t, i->rs1, rule->wide);
    b = rv_tr_get_f(t, i->rs2, rule->wide);
    rv_tr_set_f(t, i->rd, rule->wide, ir_bin(t->f, rule->op, type_of(rule), a, b));
    rv_tr_mark_dirty(t);
}

void rv_tr_fma(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a, b, c;

    if (!is_nearest_even(t, i)) {
        rv_tr_interp(t, i, rule);
        return;
    }
    a = rv_tr_get_f(t, i->rs1, rule->wide);
    b = rv_tr_get_f(t, i->rs2, rule->wide);
    c = rv_tr_get_f(t, i->rs3, rule->wide);
    rv_tr_set_f(t, i->rd, rule->wide, ir_tri(t->f, rule->op, type_of(rule), a, b, c));
    rv_tr_mark_dirty(t);
}

void rv_tr_fp_unary(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    if (!is_nearest_even(t, i)) {
        rv_tr_interp(t, i, rule);
        return;
    }
    rv_tr_set_f(t, i->rd, rule->wide,
                ir_un(t->f, rule->op, type_of(rule), rv_tr_get_f(t, i->rs1, rule->wide)));
    rv_tr_mark_dirty(t);
}

/** Comparisons raise flags, so mark the state dirty, needed or not. */
void rv_tr_fcmp(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t a = rv_tr_get_f(t, i->rs1, rule->wide), b = rv_tr_get_f(t, i->rs2, rule->wide);

    rv_tr_set_x(t, i->rd, ir_bin(t->f, rule->op, IR_I64, a, b));
    rv_tr_mark_dirty(t);
}

void rv_tr_fclass(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    rv_tr_set_x(t, i->rd, ir_un(t->f, IR_FCLASS, IR_I64, rv_tr_get_f(t, i->rs1, rule->wide)));
}

/** Between the formats; rule->wide is the result's. */
void rv_tr_fcvt(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    if (rule->round && !is_nearest_even(t, i)) {
        rv_tr_interp(t, i, rule);
        return;
    }
    rv_tr_set_f(t, i->rd, rule->wide,
                ir_un(t->f, IR_FCVT, type_of(rule), rv_tr_get_f(t, i->rs1, !rule->wide)));
    rv_tr_mark_dirty(t);
}

/** rule->op: IR_FTOI or IR_FTOU; rule->size of the integer. */
void rv_tr_ftoi(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    bool nearest = is_nearest_even(t, i);
    uint16_t v;

    if (!nearest && i->extra != RM_RTZ) {
        rv_tr_interp(t, i, rule);
        return;
    }
    v = ir_ftoi(t->f, rule->op, rule->size == 4 ? IR_I32 : IR_I64, nearest ? IR_RNE : IR_RTZ,
                rv_tr_get_f(t, i->rs1, rule->wide));
    if (rule->size == 4)
        rv_tr_set_w(t, i->rd, v);
    else
        rv_tr_set_x(t, i->rd, v);
    rv_tr_mark_dirty(t);
}

/** rule->op: IR_ITOF or IR_UTOF. */
void rv_tr_itof(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    if (rule->round && !is_nearest_even(t, i)) {
        rv_tr_interp(t, i, rule);
        return;
    }
    rv_tr_set_f(t, i->rd, rule->wide,
                ir_itof(t->f, rule->op, type_of(rule), rule->size, rv_tr_get_x(t, i->rs1)));
    rv_tr_mark_dirty(t);
}

/** The low rule->size bytes, sign-extended. */
void rv_tr_fmv_to_x(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t v = ir_un(t->f, IR_BITCAST, IR_I64, rv_tr_get_f(t, i->rs1, true));

    rv_tr_set_x(t, i->rd, rule->size == 8 ? v : ir_ext(t->f, IR_SEXT, IR_I64, rule->size, v));
}

static void set_f_bits(struct rv_tr *t, unsigned reg, uint16_t value)
{
    rv_tr_set_f(t, reg, true, ir_un(t->f, IR_BITCAST, IR_F64, value));
    rv_tr_mark_dirty(t);
}

void rv_tr_fmv_from_x(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t v = rv_tr_get_x(t, i->rs1);

    if (rule->size < 8) /* NaN-box it */
        v = ir_bin(t->f, IR_OR, IR_I64, v,
                   ir_const(t->f, IR_I64, (int64_t)(~0ULL << 8 * rule->size)));
    set_f_bits(t, i->rd, v);
}

void rv_tr_fli(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint64_t v = rule->size == 8   ? fp64_constant(i->rs1)
                 : rule->size == 4 ? fp32_constant(i->rs1) | ~0ULL << 32
                                   : fp16_constant(i->rs1) | ~0ULL << 16;

    set_f_bits(t, i->rd, ir_const(t->f, IR_I64, (int64_t)v));
}
