/* From struct insn back to bits, by the tables. For trap values, tests and generators.
 * Any thread. */
#include "base/bits.h"
#include "cpu/guest/riscv/rows.h"

static int64_t member_of(const struct insn *insn, enum rv_member member)
{
    switch (member) {
    case RV_MEMBER_RD:
        return insn->rd;
    case RV_MEMBER_RS1:
        return insn->rs1;
    case RV_MEMBER_RS2:
        return insn->rs2;
    case RV_MEMBER_RS3:
        return insn->rs3;
    case RV_MEMBER_IMM:
        return insn->imm;
    case RV_MEMBER_EXTRA:
        return insn->extra;
    }
    return 0;
}

uint32_t rv_encode(const struct rv_row *row, const struct insn *insn)
{
    const struct rv_format *format = &rv_formats[row->format];
    uint32_t w = row->match;

    for (unsigned n = 0; n < format->field_count; n++) {
        const struct rv_field *f = &format->fields[n];
        uint64_t v = (uint64_t)(member_of(insn, f->member) - f->bias) >> f->shift;

        for (unsigned s = f->segment_count; s-- > 0;) {
            unsigned bits = f->segments[s].hi - f->segments[s].lo + 1u;

            w |= (uint32_t)((v & MASK(bits)) << f->segments[s].lo) & ~row->mask;
            v >>= bits;
        }
    }
    return w;
}

uint32_t rv_encode_op(const struct insn *insn)
{
    if (insn->op == RV_OP_ILLEGAL)
        return (uint32_t)insn->imm;
    return rv_encode(&rv_rows[rv_op_rows[insn->op]], insn);
}

const struct rv_row *rv_find_row(const char *name)
{
    for (unsigned n = 0; n < rv_row_count; n++)
        if (!strcmp(rv_rows[n].name, name))
            return &rv_rows[n];
    return NULL;
}
