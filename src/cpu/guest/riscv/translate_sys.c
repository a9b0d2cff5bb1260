/* Translation of the CSR instructions that neither change the mode nor look at what only the engine
 * knows: what a trap handler does with sscratch, sepc, scause, stval, and sstatus read or SIE
 * cleared; and fflags, which code around comparisons saves and restores. All others end their block
 * as system instructions. See translate_internal.h.
 *
 * Any thread. Spec: Unprivileged ISA 20240411, chapter 7; Privileged 1.13 §12.1. */
#include "cpu/guest/riscv/csr_internal.h"
#include "cpu/guest/riscv/translate_internal.h"

enum { PRIV_OF_CSR = 8 };

/** A register that is a field of the state and no more. */
struct plain {
    uint16_t csr;
    uint16_t offset; /* in struct rv_hart; 0 ends the list */
    int64_t mask;    /* bits that writes change; the others are 0 */
};

#define PLAIN(upper, lower, bits)                                                     \
    {                                                                                 \
        .csr = CSR_##upper, .offset = offsetof(struct rv_hart, lower), .mask = (bits) \
    }
static const struct plain plains[] = {
    PLAIN(SSCRATCH, sscratch, -1), PLAIN(SEPC, sepc, ~1LL),       PLAIN(SCAUSE, scause, -1),
    PLAIN(STVAL, stval, -1),       PLAIN(MSCRATCH, mscratch, -1), PLAIN(MEPC, mepc, ~1LL),
    PLAIN(MCAUSE, mcause, -1),     PLAIN(MTVAL, mtval, -1),
};

static const struct plain *find_plain(unsigned csr)
{
    for (unsigned n = 0; n < ARRAY_SIZE(plains); n++) {
        if (plains[n].csr == csr)
            return &plains[n];
    }
    return NULL;
}

static bool sets_or_clears(const struct insn *i)
{
    return i->op != RV_OP_CSRRW && i->op != RV_OP_CSRRWI;
}

bool rv_csr_in_line(const struct insn *i, uint64_t mode)
{
    unsigned priv = (unsigned)(mode & RV_MODE_PRIV_MASK) >> RV_MODE_PRIV_SHIFT;

    if (!rv_is_csr_op(i) || (i->extra >> PRIV_OF_CSR & 3u) > priv)
        return false;
    if (i->extra == CSR_FFLAGS) /* marked dirty as it is, FS stays as it is */
        return mode & RV_MODE_FS_DIRTY;
    if (i->extra == CSR_SSTATUS) /* read; or SIE is all that an immediate reaches */
        return (sets_or_clears(i) && !i->rs1) || i->op == RV_OP_CSRRCI;
    return find_plain(i->extra) != NULL;
}

/** sstatus as it reads. */
static uint16_t sstatus(struct rv_tr *t, uint16_t mstatus)
{
    uint16_t read =
        ir_bin(t->f, IR_AND, IR_I64, mstatus, ir_const(t->f, IR_I64, (int64_t)RV_SSTATUS_WRITABLE));
    uint16_t fs = ir_const(t->f, IR_I64, MSTATUS_FS), vs = ir_const(t->f, IR_I64, MSTATUS_VS);
    uint16_t f_dirty =
        ir_setcc(t->f, IR_I64, IR_EQ, 8, ir_bin(t->f, IR_AND, IR_I64, mstatus, fs), fs);
    uint16_t v_dirty =
        ir_setcc(t->f, IR_I64, IR_EQ, 8, ir_bin(t->f, IR_AND, IR_I64, mstatus, vs), vs);
    uint16_t sd = ir_bin(t->f, IR_SHL, IR_I64, ir_bin(t->f, IR_OR, IR_I64, f_dirty, v_dirty),
                         ir_const(t->f, IR_I64, 63));

    read = ir_bin(t->f, IR_OR, IR_I64, read, ir_const(t->f, IR_I64, (int64_t)MSTATUS_UXL_64));
    return ir_bin(t->f, IR_OR, IR_I64, read, sd);
}

static void tr_sstatus(struct rv_tr *t, const struct insn *i)
{
    size_t offset = offsetof(struct rv_hart, mstatus);
    uint16_t mstatus = ir_get(t->f, IR_I64, offset, 8);
    int64_t clear = i->op == RV_OP_CSRRCI ? i->rs1 & (int64_t)MSTATUS_SIE : 0;

    if (i->rd)
        rv_tr_set_x(t, i->rd, sstatus(t, mstatus));
    if (clear)
        ir_set(t->f, offset, 8,
               ir_bin(t->f, IR_AND, IR_I64, mstatus, ir_const(t->f, IR_I64, ~clear)));
}

/** What the instruction writes to a register that is @old. */
static uint16_t changed(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule,
                        uint16_t old, int64_t mask)
{
    uint16_t value = rule->size ? ir_const(t->f, IR_I64, i->rs1) : rv_tr_get_x(t, i->rs1);

    if (sets_or_clears(i))
        value = ir_bin(t->f, rule->op, IR_I64, old, value);
    return mask == -1 ? value : ir_bin(t->f, IR_AND, IR_I64, value, ir_const(t->f, IR_I64, mask));
}

static void tr_fflags(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    uint16_t old = sets_or_clears(i) || i->rd ? ir_flags(t->f) : 0;

    if (!sets_or_clears(i) || i->rs1)
        ir_set_flags(t->f, changed(t, i, rule, old, 31));
    rv_tr_set_x(t, i->rd, old);
}

/** rule->op: how the operand changes the register, IR_NOP replaces it; rule->size: it is rs1's
 * number. */
void rv_tr_csr(struct rv_tr *t, const struct insn *i, const struct rv_rule *rule)
{
    const struct plain *p = find_plain(i->extra);
    uint16_t old;

    if (i->extra == CSR_FFLAGS) {
        tr_fflags(t, i, rule);
        return;
    }
    if (!p) {
        tr_sstatus(t, i);
        return;
    }
    old = ir_get(t->f, IR_I64, p->offset, 8);
    if (!sets_or_clears(i) || i->rs1)
        ir_set(t->f, p->offset, 8, changed(t, i, rule, old, p->mask));
    rv_tr_set_x(t, i->rd, old);
}
