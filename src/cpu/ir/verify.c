/* Checks that a unit obeys ops.def and ir.h: a translator's bug is found here, by name, instead of
 * in generated code. */
#include "cpu/ir/ir.h"

#include "base/bits.h"

#include <errno.h>

struct check {
    const struct ir_func *f;
    const struct ir_insn *i;
    unsigned index;
    unsigned stretch; /* where the current one begins */
    struct error *err;
};

static int bad(const struct check *c, const char *what)
{
    return error_set(c->err, EINVAL, "IR op %u (%s): %s", c->index, ir_op_info[c->i->op].name,
                     what);
}

static int check_result(const struct check *c)
{
    enum ir_type t = c->i->type;
    bool ok = true;

    if (t >= IR_TYPES)
        return bad(c, "no such type");
    switch ((enum ir_result)ir_op_info[c->i->op].result) {
    case IR_RESULT_NONE:
        ok = t == IR_NONE;
        break;
    case IR_RESULT_INT:
        ok = ir_is_int(t) || (c->i->op == IR_CALL && t == IR_NONE);
        break;
    case IR_RESULT_I64:
        ok = t == IR_I64;
        break;
    case IR_RESULT_FLT:
        ok = ir_is_float(t);
        break;
    case IR_RESULT_F32:
        ok = t == IR_F32;
        break;
    case IR_RESULT_F64:
        ok = t == IR_F64;
        break;
    case IR_RESULT_ANY:
        ok = t != IR_NONE;
        break;
    }
    return ok ? 0 : bad(c, "wrong type of result");
}

/** Bytes of an operand that operand @n must at least have. */
static unsigned needed(const struct ir_insn *i, unsigned n)
{
    switch ((enum ir_op)i->op) {
    case IR_SETCC:
    case IR_BRANCH:
    case IR_ITOF:
    case IR_UTOF:
    case IR_AMO:
    case IR_CAS:
        return i->size;
    case IR_SC:
        return n == 3 ? 4 : i->size;
    case IR_SELECT:
        return n < 2 ? i->size : ir_type_size(i->type);
    case IR_SEXT:
    case IR_ZEXT:
        return MIN(i->size, 4u);
    case IR_SHL:
    case IR_SHR:
    case IR_SAR:
    case IR_ROL:
    case IR_ROR:
    case IR_BSET:
    case IR_BCLR:
    case IR_BINV:
    case IR_BEXT:
        return n ? 4 : ir_type_size(i->type);
    case IR_CALL:
        return 4;
    case IR_EXIT_INDIRECT:
        return 8;
    default:
        return i->type == IR_NONE ? 4 : ir_type_size(i->type);
    }
}

static int check_operand(const struct check *c, unsigned n)
{
    const struct ir_op_info *info = &ir_op_info[c->i->op];
    char kind = info->args[0] == '*' ? 'i' : info->args[n];
    enum ir_type t;

    if (c->i->arg[n] >= c->index || c->i->arg[n] < c->stretch)
        return bad(c, "an operand is not computed before");
    t = c->f->insns[c->i->arg[n]].type;
    if (t == IR_NONE)
        return bad(c, "an operand has no value");
    switch (kind) {
    case 'i':
        if (!ir_is_int(t) || ir_type_size(t) < needed(c->i, n))
            return bad(c, "an operand is not an integer, or too narrow");
        break;
    case 'p':
        if (t != IR_I64)
            return bad(c, "an address is not of 64 bits");
        break;
    case 'f':
        if (t != c->i->type)
            return bad(c, "an operand is not of the operation's type");
        break;
    case 'F':
        if (!ir_is_float(t))
            return bad(c, "an operand is not a floating point number");
        break;
    default:
        break;
    }
    return 0;
}

static int check_operands(const struct check *c)
{
    const struct ir_op_info *info = &ir_op_info[c->i->op];
    int r;

    if (info->args[0] == '*' ? c->i->nargs > IR_MAX_ARGS : c->i->nargs != info->nargs)
        return bad(c, "wrong number of operands");
    for (unsigned n = 0; n < c->i->nargs; n++) {
        r = check_operand(c, n);
        if (r)
            return r;
    }
    return 0;
}

/** Type of operand @n. */
static enum ir_type type_of(const struct check *c, unsigned n)
{
    return c->f->insns[c->i->arg[n]].type;
}

static int check_size(const struct check *c)
{
    const struct ir_insn *i = c->i;
    enum ir_type value = i->op == IR_SET     ? type_of(c, 0)
                         : i->op == IR_STORE ? type_of(c, 1)
                                             : i->type;

    switch ((enum ir_op)i->op) {
    case IR_GET:
    case IR_SET:
    case IR_LOAD:
    case IR_LOADS:
    case IR_STORE:
        if (!is_pow2(i->size) || i->size > ir_type_size(value) ||
            (ir_is_float(value) &&
             i->size <
                 (i->op == IR_STORE ? 4 : ir_type_size(value)))) /* the low half may be stored */
            return bad(c, "the size does not suit the type");
        if ((i->op == IR_GET || i->op == IR_SET) && i->disp < 0)
            return bad(c, "negative state offset");
        return 0;
    case IR_ZERO:
        return i->size == 64 && !i->disp ? 0 : bad(c, "blocks have 64 bytes");
    case IR_SEXT:
    case IR_ZEXT:
        return i->size == 1 || i->size == 2 || i->size == 4 ? 0 : bad(c, "bad size");
    case IR_SETCC:
    case IR_SELECT:
    case IR_BRANCH:
        if (i->aux >= IR_CCS)
            return bad(c, "no such condition");
        return i->size == 4 || i->size == 8 ? 0 : bad(c, "bad size");
    case IR_AMO:
        if (i->aux2 >= IR_AMOS)
            return bad(c, "no such atomic operation");
        __attribute__((fallthrough));
    case IR_LR:
    case IR_CAS:
    case IR_SC:
        if (i->disp)
            return bad(c, "an atomic's address has no displacement");
        if (i->op != IR_SC && ir_type_size(i->type) < i->size)
            return bad(c, "the size does not suit the type");
        __attribute__((fallthrough));
    case IR_ITOF:
    case IR_UTOF:
        return i->size == 4 || i->size == 8 ? 0 : bad(c, "bad size");
    default:
        return 0;
    }
}

static int check_fields(const struct check *c)
{
    const struct ir_insn *i = c->i;

    switch ((enum ir_op)i->op) {
    case IR_ADDSHL:
        return i->imm >= 1 && i->imm <= 3 ? 0 : bad(c, "shift is not 1 to 3");
    case IR_FTOI:
    case IR_FTOU:
        return i->aux < IR_ROUNDS ? 0 : bad(c, "no such rounding mode");
    case IR_BITCAST:
        return ir_type_size(i->type) == ir_type_size(type_of(c, 0)) &&
                       ir_is_int(i->type) != ir_is_int(type_of(c, 0))
                   ? 0
                   : bad(c, "not between an integer and a float of one size");
    case IR_FCVT:
        return i->type != type_of(c, 0) ? 0 : bad(c, "converts to its own type");
    case IR_FBOX:
        return type_of(c, 0) == IR_F32 ? 0 : bad(c, "boxes what is not F32");
    case IR_FUNBOX:
        return type_of(c, 0) == IR_F64 ? 0 : bad(c, "unboxes what is not F64");
    case IR_FEQ:
    case IR_FLT:
    case IR_FLE:
        return type_of(c, 0) == type_of(c, 1) ? 0 : bad(c, "operands of two types");
    case IR_LOOP:
        for (unsigned n = 0; n < c->index; n++)
            if (c->f->insns[n].op != IR_GET || c->f->insns[n].size != 8)
                return bad(c, "follows something else than GETs of whole registers");
        return 0;
    case IR_LABEL:
        if (ir_label_at(c->f, i->imm) != (int)c->index)
            return bad(c, "a second label for one offset, or none at the start");
        __attribute__((fallthrough));
    case IR_INSN:
        return i->imm >= 0 && i->imm < 4096 ? 0 : bad(c, "not an offset in a page");
    case IR_EXIT_STATUS:
        return i->aux ? 0 : bad(c, "leaves without a status");
    default:
        return 0;
    }
}

int ir_verify(const struct ir_func *f, struct error *err)
{
    struct check c = {.f = f, .err = err};
    bool open = true, in_insn = false;
    int r = 0;

    if (f->overflow)
        return error_set(err, EINVAL, "IR unit has more than %u ops", f->capacity);
    for (c.index = 0; c.index < f->count && !r; c.index++) {
        c.i = &f->insns[c.index];
        if (c.i->op >= IR_OPS)
            return error_set(err, EINVAL, "IR op %u: no such operation", c.index);
        if (c.i->op == IR_LABEL) {
            if (open && c.index)
                return bad(&c, "a label is run into");
            c.stretch = c.index;
            open = true;
            in_insn = false;
        }
        if (!open)
            return bad(&c, "follows the last exit");
        in_insn |= c.i->op == IR_INSN;
        if (!in_insn && (ir_op_info[c.i->op].flags & (IR_FAULT | IR_EXIT)))
            return bad(&c, "belongs to no guest instruction");
        open = !(ir_op_info[c.i->op].flags & IR_EXIT) || c.i->op == IR_BRANCH;
        r = check_result(&c);
        if (!r)
            r = check_operands(&c);
        if (!r)
            r = check_size(&c);
        if (!r)
            r = check_fields(&c);
    }
    if (!r && open)
        return error_set(err, EINVAL, "IR unit has no exit at its end");
    return r;
}
