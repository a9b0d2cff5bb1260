/* Intermediate representation: what a guest's translator writes and a host's code generator reads.
 *
 * A unit (struct ir_func) is one straight line of operations in program order: entered at the top,
 * left by exits at the end or, at BRANCH and at whatever may fault, in between. Its temps are in
 * SSA form: the number of a temp is the index of the insn that computes it. Guest registers are not
 * temps: they are guest state, read and written by GET and SET with a byte offset from the state
 * pointer. A SET takes effect in program order; code generators keep state in host registers and
 * make memory exact only where someone can look.
 *
 * Guest instructions: INSN opens each. An op that faults leaves with the pc of the INSN before it
 * and that many guest instructions retired as INSNs came before that one; an exit retires its own
 * INSN as well. The position of code is "virtual base of the page it lies in" + constant: the unit
 * runs at any virtual address.
 *
 * Loops: a unit that ends by an exit to its own start may begin with GETs of the state that it uses
 * and a LOOP mark. The exit then means: go on behind the mark, with these temps holding the state
 * as it is now. (ir_pass_loop() makes it so; code generators keep such state in registers.)
 *
 * Types: I32, I64, F32, F64. An integer operand may be wider than the operation: the low half
 * counts; so there is no truncation op.
 *
 * Regions: a unit of several blocks is a sequence of stretches, each opened by a LABEL with the
 * page offset where it starts and closed by an exit; the first is the unit's start. A BRANCH or
 * EXIT_DIRECT for a label's offset goes there instead of leaving. Temps stay within their stretch,
 * state crosses by GET and SET. GETs right behind every LABEL with aux = IR_BOUND, the same ones
 * for all (ir_pass_region() puts them there), name the state that code generators should keep in
 * registers throughout.
 *
 * Threads: a unit belongs to one thread. */
#ifndef CPU_IR_IR_H
#define CPU_IR_IR_H

#include "base/error.h"
#include "base/macros.h"

#include <stdio.h>

enum ir_type { IR_NONE, IR_I32, IR_I64, IR_F32, IR_F64, IR_TYPES };

enum ir_op {
#define IR_OP(name, text, args, result, flags) IR_##name,
#include "cpu/ir/ops.def"
#undef IR_OP
    IR_OPS
};

enum ir_flag {
    IR_PURE = 1,
    IR_COMM = 2,
    IR_READS = 4,
    IR_EFFECT = 8,
    IR_FAULT = 16,
    IR_EXIT = 32,
    IR_RAISES = 64,
};

enum ir_cc { IR_EQ, IR_NE, IR_LT, IR_GE, IR_LE, IR_GT, IR_LTU, IR_GEU, IR_LEU, IR_GTU, IR_CCS };

enum ir_amo {
    IR_AMO_SWAP,
    IR_AMO_ADD,
    IR_AMO_AND,
    IR_AMO_OR,
    IR_AMO_XOR,
    IR_AMO_MIN,
    IR_AMO_MAX,
    IR_AMO_MINU,
    IR_AMO_MAXU,
    IR_AMOS
};

enum ir_round { IR_RNE, IR_RTZ, IR_ROUNDS };

/** What a helper does with guest state beyond its arguments and result. fp_flags and memory don't
 * count. */
enum ir_call {
    IR_CALL_READS = 1,  /* registers in memory must be exact */
    IR_CALL_WRITES = 2, /* it may change registers; implies READS */
    IR_CALL_EXITS = 4,  /* it stores its status: other than 0 leaves the unit, at this INSN's pc */
};

/** Does a system instruction look at the floating point exceptions raised so far? */
enum ir_system { IR_SYSTEM_PLAIN, IR_SYSTEM_FLAGS };

/** What an exit is for, to predict returns. In aux of EXIT_DIRECT and EXIT_INDIRECT. */
enum ir_hint { IR_HINT_NONE, IR_HINT_CALL, IR_HINT_RETURN };

/** aux of the GETs behind LABEL: the slot is bound to a register. */
#define IR_BOUND 1

#define IR_MAX_ARGS 4

/** One operation, 24 bytes. */
struct ir_insn {
    uint8_t op;                /* enum ir_op */
    uint8_t type;              /* of the result, IR_NONE if there is none */
    uint8_t size;              /* bytes: GET, SET, LOAD.., AMO.., extensions, comparisons, ITOF */
    uint8_t aux;               /* cc; mmu mode; enum ir_round, ir_call, ir_hint; status */
    uint16_t arg[IR_MAX_ARGS]; /* temps */
    int32_t disp;              /* GET, SET: state offset. Memory: added to the address */
    uint8_t aux2;              /* AMO: enum ir_amo; BRANCH.. */
    uint8_t nargs;
    uint16_t pad;
    int64_t imm; /* constants, deltas, pointers */
};

/** What a guest's code mostly does with its registers, as far as code generators may guess by it.
 * Sets of registers are bit masks. */
struct ir_habits {
    uint32_t base;         /* state offset of register 0; they are 8 bytes each */
    uint32_t still;        /* those that point to the same page for long: stack, thread, globals */
    uint32_t kept;         /* those that functions leave as they are */
    uint32_t stack, frame; /* numbers: stack pointer; what may point to the top of its frame */
};

struct ir_func {
    struct ir_insn *insns;
    unsigned count, capacity;
    bool overflow;                  /* more was written than fits: the unit is unusable */
    uint32_t start_offset;          /* page offset of the first guest instruction */
    uint64_t mode;                  /* block key's mode bits, constant within the unit */
    bool loops;                     /* the unit may repeat without leaving */
    const struct ir_habits *habits; /* NULL: unknown */
    uint16_t *scratch;              /* the optimizer's, one for each insn */
    uint16_t *uses;
};

struct ir_op_info {
    const char *name, *args;
    uint8_t result; /* enum ir_result */
    uint8_t flags;  /* enum ir_flag */
    uint8_t nargs;
};
enum ir_result {
    IR_RESULT_NONE,
    IR_RESULT_INT,
    IR_RESULT_I64,
    IR_RESULT_FLT,
    IR_RESULT_F32,
    IR_RESULT_F64,
    IR_RESULT_ANY
};
extern const struct ir_op_info ir_op_info[IR_OPS];
extern const char *const ir_cc_names[IR_CCS], *const ir_amo_names[IR_AMOS];

/** Storage for units of up to @capacity (<= 65535) insns; reused by ir_reset(). NULL: no memory. */
struct ir_func *ir_new(unsigned capacity);
void ir_free(struct ir_func *f);
void ir_reset(struct ir_func *f);

/* --- Text: prints and parses back */

void ir_print(const struct ir_func *f, FILE *out);
void ir_print_insn(const struct ir_func *f, unsigned index, FILE *out);
must_check int ir_parse(const char *text, struct ir_func *ret, struct error *err);

/** Check types, operand order, fields. 0 or -EINVAL with the first offence in @err. */
must_check int ir_verify(const struct ir_func *f, struct error *err);

/** Simplify in place: forward state, fold constants, remove what nobody needs. */
void ir_optimize(struct ir_func *f);
/* Its passes, as tests name them. */
void ir_pass_loop(struct ir_func *f);    /* mark a loop; ir_optimize() does that if f->loops */
void ir_pass_region(struct ir_func *f);  /* choose bound state, if the unit has labels */
void ir_pass_forward(struct ir_func *f); /* folding, simplification, GET forwarding, addresses */
void ir_pass_dead(struct ir_func *f);    /* dead SETs and values; removes NOPs and renumbers */

static inline unsigned ir_type_size(enum ir_type t)
{
    return t == IR_I32 || t == IR_F32 ? 4 : 8;
}
static inline bool ir_is_int(enum ir_type t)
{
    return t == IR_I32 || t == IR_I64;
}
static inline bool ir_is_float(enum ir_type t)
{
    return t == IR_F32 || t == IR_F64;
}

/** The condition that holds when @cc does not; and with operands exchanged. */
enum ir_cc ir_cc_not(enum ir_cc cc);
enum ir_cc ir_cc_swap(enum ir_cc cc);

/* --- Builder. Every function appends one op and returns its temp. On overflow it returns 0: check
 * f->overflow at the end. */

static inline struct ir_insn *ir_append(struct ir_func *f, enum ir_op op, enum ir_type type,
                                        unsigned nargs)
{
    struct ir_insn *i;

    if (unlikely(f->count >= f->capacity)) {
        f->overflow = true;
        f->count = 0;
    }
    i = &f->insns[f->count++];
    *i = (struct ir_insn){.op = (uint8_t)op, .type = (uint8_t)type, .nargs = (uint8_t)nargs};
    return i;
}
static inline uint16_t ir_last(const struct ir_func *f)
{
    return (uint16_t)(f->count - 1);
}

static inline uint16_t ir_un(struct ir_func *f, enum ir_op op, enum ir_type type, uint16_t a)
{
    ir_append(f, op, type, 1)->arg[0] = a;
    return ir_last(f);
}
static inline uint16_t ir_bin(struct ir_func *f, enum ir_op op, enum ir_type type, uint16_t a,
                              uint16_t b)
{
    struct ir_insn *i = ir_append(f, op, type, 2);

    i->arg[0] = a;
    i->arg[1] = b;
    return ir_last(f);
}
static inline uint16_t ir_tri(struct ir_func *f, enum ir_op op, enum ir_type type, uint16_t a,
                              uint16_t b, uint16_t c)
{
    struct ir_insn *i = ir_append(f, op, type, 3);

    i->arg[0] = a;
    i->arg[1] = b;
    i->arg[2] = c;
    return ir_last(f);
}

static inline uint16_t ir_const(struct ir_func *f, enum ir_type type, int64_t value)
{
    ir_append(f, IR_CONST, type, 0)->imm = type == IR_I32 ? (int32_t)value : value;
    return ir_last(f);
}
static inline uint16_t ir_pcrel(struct ir_func *f, int64_t delta)
{
    ir_append(f, IR_PCREL, IR_I64, 0)->imm = delta;
    return ir_last(f);
}
/** @size bytes of state; for floating point types, the type's size. */
static inline uint16_t ir_get(struct ir_func *f, enum ir_type type, size_t offset, unsigned size)
{
    struct ir_insn *i = ir_append(f, IR_GET, type, 0);

    i->disp = (int32_t)offset;
    i->size = (uint8_t)size;
    return ir_last(f);
}
static inline void ir_set(struct ir_func *f, size_t offset, unsigned size, uint16_t value)
{
    struct ir_insn *i = ir_append(f, IR_SET, IR_NONE, 1);

    i->disp = (int32_t)offset;
    i->size = (uint8_t)size;
    i->arg[0] = value;
}

/** (a << @shift) + b. */
static inline uint16_t ir_addshl(struct ir_func *f, enum ir_type type, uint16_t a, unsigned shift,
                                 uint16_t b)
{
    struct ir_insn *i = ir_append(f, IR_ADDSHL, type, 2);

    i->arg[0] = a;
    i->arg[1] = b;
    i->imm = shift;
    return ir_last(f);
}
/** Extend the low @size bytes of @a: IR_SEXT, IR_ZEXT. */
static inline uint16_t ir_ext(struct ir_func *f, enum ir_op op, enum ir_type type, unsigned size,
                              uint16_t a)
{
    struct ir_insn *i = ir_append(f, op, type, 1);

    i->size = (uint8_t)size;
    i->arg[0] = a;
    return ir_last(f);
}
static inline uint16_t ir_setcc(struct ir_func *f, enum ir_type type, enum ir_cc cc, unsigned size,
                                uint16_t a, uint16_t b)
{
    struct ir_insn *i = ir_append(f, IR_SETCC, type, 2);

    i->aux = (uint8_t)cc;
    i->size = (uint8_t)size;
    i->arg[0] = a;
    i->arg[1] = b;
    return ir_last(f);
}
/** a cc b ? @yes : @no. */
static inline uint16_t ir_select(struct ir_func *f, enum ir_type type, enum ir_cc cc, unsigned size,
                                 uint16_t a, uint16_t b, uint16_t yes, uint16_t no)
{
    struct ir_insn *i = ir_append(f, IR_SELECT, type, 4);

    i->aux = (uint8_t)cc;
    i->size = (uint8_t)size;
    i->arg[0] = a;
    i->arg[1] = b;
    i->arg[2] = yes;
    i->arg[3] = no;
    return ir_last(f);
}

/** @op: any of the memory group with its operands in @args; @size bytes at args[0] + @disp in mmu
 * mode @mmu. */
static inline struct ir_insn *ir_memory(struct ir_func *f, enum ir_op op, enum ir_type type,
                                        unsigned size, unsigned mmu, int32_t disp, unsigned nargs,
                                        const uint16_t *args)
{
    struct ir_insn *i = ir_append(f, op, type, nargs);

    for (unsigned n = 0; n < nargs; n++)
        i->arg[n] = args[n];
    i->size = (uint8_t)size;
    i->aux = (uint8_t)mmu;
    i->disp = disp;
    return i;
}
/** Zero-extended, or sign-extended with @is_signed (integers only). */
static inline uint16_t ir_load(struct ir_func *f, enum ir_type type, unsigned size, bool is_signed,
                               unsigned mmu, uint16_t base, int32_t disp)
{
    ir_memory(f, is_signed ? IR_LOADS : IR_LOAD, type, size, mmu, disp, 1, (uint16_t[]){base});
    return ir_last(f);
}
static inline void ir_store(struct ir_func *f, unsigned size, unsigned mmu, uint16_t base,
                            int32_t disp, uint16_t value)
{
    ir_memory(f, IR_STORE, IR_NONE, size, mmu, disp, 2, (uint16_t[]){base, value});
}
/** A load at an aligned address, that is done whether its result is used or not. */
static inline uint16_t ir_lr(struct ir_func *f, enum ir_type type, unsigned size, unsigned mmu,
                             uint16_t base)
{
    ir_memory(f, IR_LR, type, size, mmu, 0, 1, (uint16_t[]){base});
    return ir_last(f);
}
/** Zero the naturally aligned block of @size bytes, 64, around @base. */
static inline void ir_zero(struct ir_func *f, unsigned size, unsigned mmu, uint16_t base)
{
    ir_memory(f, IR_ZERO, IR_NONE, size, mmu, 0, 1, (uint16_t[]){base});
}
static inline uint16_t ir_amo(struct ir_func *f, enum ir_type type, enum ir_amo amo, unsigned size,
                              unsigned mmu, uint16_t base, uint16_t operand)
{
    ir_memory(f, IR_AMO, type, size, mmu, 0, 2, (uint16_t[]){base, operand})->aux2 = (uint8_t)amo;
    return ir_last(f);
}
static inline uint16_t ir_cas(struct ir_func *f, enum ir_type type, unsigned size, unsigned mmu,
                              uint16_t base, uint16_t expected, uint16_t desired)
{
    ir_memory(f, IR_CAS, type, size, mmu, 0, 3, (uint16_t[]){base, expected, desired});
    return ir_last(f);
}
/** Store conditional: if @guard != 0 and memory holds @expected, store @desired. 0 = stored, 1 =
 * not. Nothing is accessed with @guard 0, but the address must be aligned. */
static inline uint16_t ir_sc(struct ir_func *f, enum ir_type type, unsigned size, unsigned mmu,
                             uint16_t base, uint16_t expected, uint16_t desired, uint16_t guard)
{
    ir_memory(f, IR_SC, type, size, mmu, 0, 4, (uint16_t[]){base, expected, desired, guard});
    return ir_last(f);
}
static inline void ir_fence(struct ir_func *f)
{
    ir_append(f, IR_FENCE, IR_NONE, 0);
}

/** IR_FTOI, IR_FTOU. */
static inline uint16_t ir_ftoi(struct ir_func *f, enum ir_op op, enum ir_type type,
                               enum ir_round rm, uint16_t a)
{
    struct ir_insn *i = ir_append(f, op, type, 1);

    i->aux = (uint8_t)rm;
    i->arg[0] = a;
    return ir_last(f);
}
/** IR_ITOF, IR_UTOF of the low @size bytes of @a. */
static inline uint16_t ir_itof(struct ir_func *f, enum ir_op op, enum ir_type type, unsigned size,
                               uint16_t a)
{
    return ir_ext(f, op, type, size, a);
}

/** Floating point exceptions accrued so far. */
static inline uint16_t ir_flags(struct ir_func *f)
{
    ir_append(f, IR_FLAGS, IR_I64, 0);
    return ir_last(f);
}
/** @value: nothing but such flags. */
static inline void ir_set_flags(struct ir_func *f, uint16_t value)
{
    ir_append(f, IR_SET_FLAGS, IR_NONE, 1)->arg[0] = value;
}

/** A helper uint64_t fn(void *state, ...integers); @type IR_NONE = result not wanted. @flags: enum
 * ir_call. */
static inline uint16_t ir_call(struct ir_func *f, enum ir_type type, void (*fn)(void),
                               unsigned flags, unsigned nargs, const uint16_t *args)
{
    struct ir_insn *i = ir_append(f, IR_CALL, type, nargs);

    for (unsigned n = 0; n < nargs; n++)
        i->arg[n] = args[n];
    i->imm = (int64_t)(uintptr_t)fn;
    i->aux = (uint8_t)flags;
    return ir_last(f);
}
/** Execute @insn (the struct insn of the current INSN, alive as long as the code) by the guest's
 * interpreter: for whatever does not deserve a translation and does not branch. It is all
 * that its INSN does. */
static inline void ir_interp(struct ir_func *f, const void *insn)
{
    ir_append(f, IR_INTERP, IR_NONE, 0)->imm = (int64_t)(uintptr_t)insn;
}

/** The ops that follow belong to the guest instruction at @page_offset. */
static inline void ir_guest_insn(struct ir_func *f, uint32_t page_offset)
{
    ir_append(f, IR_INSN, IR_NONE, 0)->imm = page_offset;
}
/** Leave for page base + @delta if a cc b. */
static inline void ir_branch(struct ir_func *f, enum ir_cc cc, unsigned size, uint16_t a,
                             uint16_t b, int64_t delta)
{
    struct ir_insn *i = ir_append(f, IR_BRANCH, IR_NONE, 2);

    i->aux = (uint8_t)cc;
    i->size = (uint8_t)size;
    i->arg[0] = a;
    i->arg[1] = b;
    i->imm = delta;
}
static inline void ir_exit_direct(struct ir_func *f, int64_t delta, enum ir_hint hint)
{
    struct ir_insn *i = ir_append(f, IR_EXIT_DIRECT, IR_NONE, 0);

    i->imm = delta;
    i->aux = (uint8_t)hint;
}
static inline void ir_label(struct ir_func *f, uint32_t page_offset)
{
    ir_append(f, IR_LABEL, IR_NONE, 0)->imm = page_offset;
}
/** Where an exit for page base + @delta goes within @f: index of its LABEL; -1: it leaves. */
int ir_label_at(const struct ir_func *f, int64_t delta);
static inline void ir_exit_indirect(struct ir_func *f, uint16_t pc, enum ir_hint hint)
{
    struct ir_insn *i = ir_append(f, IR_EXIT_INDIRECT, IR_NONE, 1);

    i->arg[0] = pc;
    i->aux = (uint8_t)hint;
}
/** Leave by executing @insn, which is all that its INSN does, by the guest's interpreter: for what
 * may change the mode, the address space, or go anywhere. Alive as long as the code. */
static inline void ir_exit_system(struct ir_func *f, const void *insn, enum ir_system flags)
{
    struct ir_insn *i = ir_append(f, IR_EXIT_SYSTEM, IR_NONE, 0);

    i->imm = (int64_t)(uintptr_t)insn;
    i->aux = (uint8_t)flags;
}
static inline void ir_exit_status(struct ir_func *f, int64_t delta, unsigned status)
{
    struct ir_insn *i = ir_append(f, IR_EXIT_STATUS, IR_NONE, 0);

    i->imm = delta;
    i->aux = (uint8_t)status;
}

#endif
