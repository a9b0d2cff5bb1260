/* The instruction tables (*.decode) as data: what the encoder, the disassembler and tests go by.
 * The decoder itself is generated code. All const, any thread. */
#ifndef CPU_GUEST_RISCV_ROWS_H
#define CPU_GUEST_RISCV_ROWS_H

#include "cpu/core/cpu.h"
#include "cpu/guest/riscv/rv_ops.h"

enum rv_member {
    RV_MEMBER_RD,
    RV_MEMBER_RS1,
    RV_MEMBER_RS2,
    RV_MEMBER_RS3,
    RV_MEMBER_IMM,
    RV_MEMBER_EXTRA,
};

/** What an encoding needs to be legal, beyond its bits. */
enum rv_need {
    RV_NEED_FP = 1,        /* mstatus.FS not Off */
    RV_NEED_RM = 2,        /* extra is a rounding mode; it or frm must be a valid one */
    RV_NEED_CBO_INVAL = 4, /* the mode's CBO bits */
    RV_NEED_CBO_CLEAN = 8,
    RV_NEED_CBO_ZERO = 16,
    RV_NEED_ILLEGAL = 32, /* no such encoding */
    RV_NEED_VECTOR = 64,  /* mstatus.VS not Off */
    RV_NEED_FRM = 128,    /* frm is a valid rounding mode, whether the instruction rounds or not */
    RV_NEED_RVA23 = 256,  /* a hart of this profile or a wider one */
    RV_NEED_MAX = 512,
};

struct rv_segment {
    uint8_t hi, lo;
};

/** Where the bits of a member of struct insn lie: the segments, highest first, concatenated. */
struct rv_field {
    uint8_t member; /* enum rv_member */
    uint8_t shift, bias, is_signed;
    int32_t constant; /* the value if there are no segments */
    uint8_t segment_count;
    struct rv_segment segments[8];
};

struct rv_format {
    const char *name;
    const char *syntax;
    uint8_t field_count;
    struct rv_field fields[5];
};

struct rv_row {
    const char *name;      /* as assembly writes it */
    const char *extension; /* lower case, as in the ISA string; "priv" */
    const char *section;   /* of the extension's specification */
    uint32_t match, mask;
    uint16_t op; /* enum rv_op */
    uint8_t format;
    uint8_t size;
    uint8_t flags;  /* enum insn_flags */
    uint16_t needs; /* enum rv_need */
};

extern const struct rv_format rv_formats[];
extern const struct rv_row rv_rows[];
extern const unsigned rv_row_count;
/** An op's own row: the one whose name and syntax the disassembler uses. Indexed by enum rv_op. */
extern const uint16_t rv_op_rows[];

/** The generated decoders: fill in op, flags and operands of a zeroed @ret and return what the
 * encoding needs (enum rv_need). */
unsigned rv_decode32(uint32_t w, struct insn *ret);
unsigned rv_decode16(uint32_t w, struct insn *ret);

/** The inverse for one row: the operands in @insn put into the row's bits. */
uint32_t rv_encode(const struct rv_row *row, const struct insn *insn);

/** The 32-bit encoding of a decoded instruction (of an op that has one). */
uint32_t rv_encode_op(const struct insn *insn);

/** A row by its name, NULL if there is none. */
const struct rv_row *rv_find_row(const char *name);

#endif
