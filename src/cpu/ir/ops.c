/* Tables over ops.def: names, signatures, flags of operations, and the algebra of conditions. */
#include "cpu/ir/ir.h"

#include <stdlib.h>

enum {
    PURE = IR_PURE,
    COMM = IR_COMM,
    READS = IR_READS,
    EFFECT = IR_EFFECT,
    FAULT = IR_FAULT,
    EXIT = IR_EXIT,
    RAISES = IR_RAISES
};

const struct ir_op_info ir_op_info[IR_OPS] = {
#define IR_OP(op, text, sig, res, fl) \
    {.name = (text),                  \
     .args = (sig),                   \
     .result = IR_RESULT_##res,       \
     .flags = (fl),                   \
     .nargs = (uint8_t)(sizeof(sig) - 1)},
#include "cpu/ir/ops.def"
#undef IR_OP
};

const char *const ir_cc_names[IR_CCS] = {"eq", "ne",  "lt",  "ge",  "le",
                                         "gt", "ltu", "geu", "leu", "gtu"};
const char *const ir_amo_names[IR_AMOS] = {"swap", "add", "and",  "or",  "xor",
                                           "min",  "max", "minu", "maxu"};

enum ir_cc ir_cc_not(enum ir_cc cc)
{
    static const uint8_t inverse[IR_CCS] = {
        [IR_EQ] = IR_NE,   [IR_NE] = IR_EQ,  [IR_LT] = IR_GE,   [IR_GE] = IR_LT,
        [IR_LE] = IR_GT,   [IR_GT] = IR_LE,  [IR_LTU] = IR_GEU, [IR_GEU] = IR_LTU,
        [IR_LEU] = IR_GTU, [IR_GTU] = IR_LEU};
    return inverse[cc];
}

enum ir_cc ir_cc_swap(enum ir_cc cc)
{
    static const uint8_t swapped[IR_CCS] = {
        [IR_EQ] = IR_EQ,   [IR_NE] = IR_NE,  [IR_LT] = IR_GT,   [IR_GE] = IR_LE,
        [IR_LE] = IR_GE,   [IR_GT] = IR_LT,  [IR_LTU] = IR_GTU, [IR_GEU] = IR_LEU,
        [IR_LEU] = IR_GEU, [IR_GTU] = IR_LTU};
    return swapped[cc];
}

struct ir_func *ir_new(unsigned capacity)
{
    struct ir_func *f;

    if (capacity < 1 || capacity > UINT16_MAX)
        return NULL;
    f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->capacity = capacity;
    f->insns = calloc(capacity, sizeof(*f->insns));
    f->scratch = calloc(capacity, sizeof(*f->scratch));
    f->uses = calloc(capacity, sizeof(*f->uses));
    if (f->insns && f->scratch && f->uses)
        return f;
    ir_free(f);
    return NULL;
}

void ir_free(struct ir_func *f)
{
    if (!f)
        return;
    free(f->insns);
    free(f->scratch);
    free(f->uses);
    free(f);
}

int ir_label_at(const struct ir_func *f, int64_t delta)
{
    if (!f->count || f->insns[0].op != IR_LABEL)
        return -1;
    for (unsigned n = 0; n < f->count; n++)
        if (f->insns[n].op == IR_LABEL && f->insns[n].imm == delta)
            return (int)n;
    return -1;
}

void ir_reset(struct ir_func *f)
{
    f->count = 0;
    f->overflow = false;
    f->start_offset = 0;
    f->mode = 0;
    f->loops = false;
    f->habits = NULL;
}
