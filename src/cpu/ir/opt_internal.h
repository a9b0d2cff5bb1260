/* The optimizer's forward pass, as its files share it: opt.c, opt_shift.c. */
#ifndef CPU_IR_OPT_INTERNAL_H
#define CPU_IR_OPT_INTERNAL_H

#include "cpu/ir/ir.h"

#define NONE      UINT16_MAX
#define MAX_SLOTS 512 /* guest state tracked: 8-byte slots in the first 4 KiB */

/** The pass at the current op. */
struct pass {
    struct ir_func *f;
    struct ir_insn *i;
    unsigned n;
    uint16_t known[MAX_SLOTS]; /* temp that equals the slot now */
    uint16_t unboxed[8];       /* the last FUNBOXes, in a ring; NONE */
    unsigned next_unboxed;
};

static inline struct ir_insn *def(const struct pass *p, uint16_t v)
{
    return &p->f->insns[v];
}
static inline bool is_const(const struct pass *p, uint16_t v)
{
    return def(p, v)->op == IR_CONST;
}
static inline bool is_value(const struct pass *p, uint16_t v, int64_t value)
{
    return is_const(p, v) && def(p, v)->imm == value;
}

/** @v gets one more user. Counts are never too low; a constant with one user may be changed. */
static inline uint16_t use(struct pass *p, uint16_t v)
{
    p->f->uses[v]++;
    return v;
}

/* opt.c */
void opt_become(struct pass *p, enum ir_op op, uint16_t a, uint16_t b);
/** A temp of constant @value, put in the place of constant @at that nobody else uses; NONE if that
 * is not possible. */
uint16_t opt_reuse_const(struct pass *p, uint16_t at, int64_t value);
/** The current op is an extension: simplify it. */
void opt_extension(struct pass *p);

/* opt_shift.c */
void opt_shift_back(struct pass *p, unsigned c);
void opt_scaled_sum(struct pass *p);
void opt_rotate(struct pass *p);
void opt_and_not(struct pass *p);

#endif
