/* What printing and parsing of IR share. */
#ifndef CPU_IR_TEXT_H
#define CPU_IR_TEXT_H

#include "cpu/ir/ir.h"

enum ir_field {
    FIELD_IMM = 1,
    FIELD_SIZE = 2,
    FIELD_CC = 4,
    FIELD_AMO = 8,
    FIELD_MEMORY = 16, /* mN [%a + disp] */
    FIELD_STATE = 32,  /* [disp] */
    FIELD_AUX = 64,    /* #N */
    FIELD_TARGET = 128 /* -> imm */
};

extern const char *const ir_type_names[IR_TYPES];
unsigned ir_op_fields(enum ir_op op);

#endif
