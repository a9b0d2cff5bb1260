/* The IR's text form, printing side. One op a line, `%n` = temp n:
 *
 *     insn 0x104
 *     %3 = get.i64 [0x58]
 *     %4 = load.i32.4 m1 [%3 + 8]
 *     branch.ltu.8 %3 %4 -> 0x120
 *
 * op . result type . size . condition, as far as the op has them; then operands. parse.c reads it.
 */
#include "cpu/ir/text.h"

#include <inttypes.h>

const char *const ir_type_names[IR_TYPES] = {"none", "i32", "i64", "f32", "f64"};

/** Fields that the text of @op shows. */
unsigned ir_op_fields(enum ir_op op)
{
    switch (op) {
    case IR_CONST:
    case IR_PCREL:
    case IR_ADDSHL:
    case IR_INSN:
        return FIELD_IMM;
    case IR_GET:
    case IR_SET:
        return FIELD_SIZE | FIELD_STATE;
    case IR_SEXT:
    case IR_ZEXT:
    case IR_ITOF:
    case IR_UTOF:
        return FIELD_SIZE;
    case IR_SETCC:
    case IR_SELECT:
        return FIELD_SIZE | FIELD_CC;
    case IR_LOAD:
    case IR_LOADS:
    case IR_STORE:
    case IR_LR:
    case IR_ZERO:
    case IR_CAS:
    case IR_SC:
        return FIELD_SIZE | FIELD_MEMORY;
    case IR_AMO:
        return FIELD_SIZE | FIELD_MEMORY | FIELD_AMO;
    case IR_FTOI:
    case IR_FTOU:
        return FIELD_AUX;
    case IR_CALL:
        return FIELD_IMM | FIELD_AUX;
    case IR_INTERP:
        return FIELD_IMM;
    case IR_EXIT_SYSTEM:
        return FIELD_IMM | FIELD_AUX;
    case IR_BRANCH:
        return FIELD_SIZE | FIELD_CC | FIELD_TARGET;
    case IR_LABEL:
        return FIELD_TARGET;
    case IR_EXIT_DIRECT:
    case IR_EXIT_STATUS:
        return FIELD_AUX | FIELD_TARGET;
    case IR_EXIT_INDIRECT:
        return FIELD_AUX;
    default:
        return 0;
    }
}

static void print_hex(int64_t v, FILE *out)
{
    if (v < 0)
        fprintf(out, "-0x%" PRIx64, -(uint64_t)v);
    else
        fprintf(out, "0x%" PRIx64, (uint64_t)v);
}

void ir_print_insn(const struct ir_func *f, unsigned index, FILE *out)
{
    const struct ir_insn *i = &f->insns[index];
    unsigned fields = ir_op_fields(i->op), first = 0;

    fprintf(out, i->op == IR_INSN ? "" : "    ");
    if (i->type != IR_NONE)
        fprintf(out, "%%%u = ", index);
    fprintf(out, "%s", ir_op_info[i->op].name);
    if (i->type != IR_NONE)
        fprintf(out, ".%s", ir_type_names[i->type]);
    if (fields & FIELD_SIZE)
        fprintf(out, ".%u", i->size);
    if (fields & FIELD_CC)
        fprintf(out, ".%s", ir_cc_names[i->aux]);
    if (fields & FIELD_AMO)
        fprintf(out, ".%s", ir_amo_names[i->aux2]);
    if (fields & FIELD_MEMORY) {
        fprintf(out, " m%u [%%%u", i->aux, i->arg[0]);
        if (i->disp) {
            fprintf(out, " + ");
            print_hex(i->disp, out);
        }
        fprintf(out, "]");
        first = 1;
    }
    if (fields & FIELD_STATE)
        fprintf(out, " [0x%x]", (unsigned)i->disp);
    for (unsigned n = first; n < i->nargs; n++)
        fprintf(out, " %%%u", i->arg[n]);
    if (fields & FIELD_IMM) {
        fprintf(out, " ");
        print_hex(i->imm, out);
    }
    if (fields & FIELD_AUX)
        fprintf(out, " #%u", i->aux);
    if (fields & FIELD_TARGET) {
        fprintf(out, " -> ");
        print_hex(i->imm, out);
    }
    fprintf(out, "\n");
}

void ir_print(const struct ir_func *f, FILE *out)
{
    fprintf(out, "unit 0x%x mode 0x%" PRIx64 "\n", f->start_offset, f->mode);
    for (unsigned n = 0; n < f->count; n++)
        ir_print_insn(f, n, out);
}
