/* Reference evaluation of IR: what code generators must agree with. Plain and slow; used by tests
 * and, for integers, by constant folding. */
#ifndef CPU_IR_EVAL_H
#define CPU_IR_EVAL_H

#include "cpu/ir/ir.h"

/** Result of the pure integer op @i for operand values @v (any upper halves), in the width of its
 * type; I32 results zero-extended. False: not a pure integer op. */
bool ir_eval_integer(const struct ir_insn *i, const uint64_t *v, uint64_t *ret);

/** Result of a floating point op, bits; exceptions are raised in the thread's floating point
 * environment. @types: of the operands. False: not such an op. */
bool ir_eval_float(const struct ir_insn *i, const enum ir_type *types, const uint64_t *v,
                   uint64_t *ret);

/** Magnitude of the number (not a NaN) with bits @v as an integer, rounded; all ones: huge.
 * *@ret_inexact: something was cut off. Raises nothing (trunc() and its like may). */
unsigned __int128 ir_float_magnitude(bool is64, uint64_t v, enum ir_round rm, bool *ret_inexact);

/** The value that an AMO stores. Operands as loaded, @size bytes. */
uint64_t ir_eval_amo(enum ir_amo op, unsigned size, uint64_t old, uint64_t operand);

struct ir_eval {
    uint8_t *state;
    uint64_t code_page;
    uint32_t *status; /* of the last helper; NULL: helpers never exit */
    /* Memory; false: fault. Values zero-extended. */
    bool (*load)(void *arg, uint64_t va, unsigned size, unsigned mmu, uint64_t *ret);
    bool (*store)(void *arg, uint64_t va, unsigned size, unsigned mmu, uint64_t value);
    /* Atomics at a misaligned address fault. */
    /** Run a guest instruction; before it, pc and @retired instructions since the unit's entry.
     * False: it left the unit, by its own status. */
    bool (*interp)(void *arg, const void *insn, uint64_t pc, unsigned retired);
    /** Exceptions accrued so far, those in the thread's environment included; or set them to @value
     * and clear the environment. */
    uint64_t (*flags)(void *arg);
    void (*set_flags)(void *arg, uint64_t value);
    void *arg;
};

enum ir_eval_kind {
    IR_EVAL_DIRECT,
    IR_EVAL_INDIRECT,
    IR_EVAL_SYSTEM, /* pc, retired: before the instruction, which the caller is to execute */
    IR_EVAL_STATUS,
    IR_EVAL_FAULT,
    IR_EVAL_END
};

struct ir_eval_result {
    enum ir_eval_kind kind;
    uint64_t pc;
    unsigned retired;
    unsigned status;
    const void *insn; /* of IR_EVAL_SYSTEM */
};

/** Evaluate @f, which ir_verify() accepts, with @temps (f->count of them) as working storage. */
struct ir_eval_result ir_eval(const struct ir_func *f, const struct ir_eval *env, uint64_t *temps);

#endif
