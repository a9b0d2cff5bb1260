/* State of one compilation, and the calls by which this folder's files meet.
 *
 *   compile.c  order: liveness, entry, one op after the other, stubs
 *   regs.c     where values and guest state live
 *   group.c    accesses that share a TLB probe
 *   memo.c     accesses that try the page of last time first
 *   nan.c      NaN results, made canonical when somebody looks
 *   asm_*.c    code selection by group of operations
 *   stub.c     the cold ends
 *   common.c   routines at the start of the buffer: enter, leave, slow paths
 *
 * Values: a temp of the IR is in a register, in a stack spill, at home (a guest state slot whose
 * memory holds it), or a constant, or several of these.
 * Slots: 8-byte aligned guest state of 8 bytes. A dirty slot's memory is stale; its value is `val`.
 *
 * Invariants:
 * 1. A value's home slot has val == that value and is clean.
 * 2. A dirty slot's val is live until after the last op that may look at memory before the next
 *    SET of the slot (liveness counts such ops as uses).
 * 3. A register holds a value as long as last_use >= the current op; then it is free without
 *    further notice.
 * 4. Code selection gets all its operands (which may emit spills, reloads, constants) before it
 *    emits anything that sets flags. */
#ifndef CPU_HOST_X86_64_ASM_H
#define CPU_HOST_X86_64_ASM_H

#include "cpu/host/codebuf.h"
#include "cpu/host/host.h"
#include "cpu/host/x86_64/emit.h"
#include "cpu/ir/ir.h"

#include <errno.h>

#define ASM_NONE      UINT16_MAX
#define ASM_SLOTS     120
#define ASM_SLOT_MAP  512 /* slots lie in the first 8 * this bytes of state */
#define ASM_SPILLS    48
#define ASM_STUBS     1024
#define ASM_SNAPSHOTS 16384
#define ASM_MARGIN    1024 /* no op, and no stub without its snapshot, emits more */
#define ASM_MAX_INSNS 4000
#define ASM_GROUPS    200 /* at most 254 */
#define ASM_LABELS    64
#define ASM_FIXUPS    256

/* The frame that host_enter() makes, from rsp in generated code. */
#define FRAME_SPILL 0
#define FRAME_ARG   (ASM_SPILLS * 8) /* 5 arguments of slow paths */
#define FRAME_SAVE  (FRAME_ARG + 40) /* scratch of division and such */
#define FRAME_SIZE  (FRAME_SAVE + 32)

/* What a slow path's routine is told by a pushed word. */
#define WORD_OFFSET_BITS 12
#define WORD_SIZE_SHIFT  12 /* log2 */
#define WORD_MMU_SHIFT   14
#define WORD_OP_SHIFT    16
#define WORD_RETIRED     20 /* 12 bits: instructions retired but not yet counted */

enum common_routine {
    COMMON_ENTER,
    COMMON_LEAVE,     /* rax, rdx = struct host_leave */
    COMMON_LOAD,      /* rax = va; returns the value in rax */
    COMMON_STORE,     /* rax = va, rcx = value */
    COMMON_LR,        /* as COMMON_LOAD */
    COMMON_ZERO,      /* rax = va */
    COMMON_ATOMIC,    /* rax = va, rcx = operand; returns the old value in rax */
    COMMON_CAS,       /* rax = va, rcx = expected, FRAME_ARG = desired; returns the old value */
    COMMON_CALL,      /* rax = function, FRAME_ARG = arguments; returns its result in rax */
    COMMON_CALL_FP,   /* the same; exceptions that it raises in MXCSR count */
    COMMON_SYSTEM,    /* rsi = decoded instruction, rdx = its page offset: execute it, go on */
    COMMON_SYSTEM_FP, /* the same, with fp_flags exact before */
    COMMON_INDIRECT,  /* rax = pc, rcx = 32 * number of its jump cache entry, which is another's */
    COMMON_EVEN,      /* the same, with the pc's lowest bit to be cleared */
    COMMON_COUNT
};

enum common_constant {
    CONSTANT_SIGN64, /* 16 bytes each */
    CONSTANT_ABS64,
    CONSTANT_SIGN32,
    CONSTANT_ABS32,
    CONSTANT_BOX,
    CONSTANT_NAN64,
    CONSTANT_NAN32,
    CONSTANT_NAN_BOX,  /* the 32-bit one, as a 64-bit register has it */
    CONSTANT_TWO63_64, /* 2^63, 2^32 */
    CONSTANT_TWO63_32,
    CONSTANT_TWO32_64,
    CONSTANT_TWO32_32,
    CONSTANT_MXCSR,
    CONSTANT_COUNT
};

struct value {
    uint16_t last_use;
    int16_t spill; /* -1 = none */
    int16_t home;  /* slot, -1 = none */
    int8_t reg;    /* -1 = none */
    int8_t want;   /* register that the value had best be computed in, -1 */
    bool no_nan;   /* floating point: need not be canonical, all uses take any NaN */
    bool raw;      /* it must be, but is not yet: nan.c */
};

struct slot {
    uint32_t offset;
    uint16_t val; /* ASM_NONE = not known: memory is exact */
    uint16_t set; /* liveness: pending SET's value; ASM_NONE */
    uint16_t set_at;
    bool dirty;
    bool modified;   /* there is a SET of it */
    int8_t loop_reg; /* where it is at the head of the unit's loop, at labels; -1: in memory */
    uint16_t final;  /* its last SET's value; ASM_NONE */
};

enum stub_kind {
    STUB_LOAD,
    STUB_STORE,
    STUB_LR,
    STUB_ZERO,
    STUB_AMO,
    STUB_CAS,
    STUB_SC,
    STUB_BRANCH, /* side exit */
    STUB_EXIT,   /* an unlinked direct exit */
    STUB_ATTENTION,
    STUB_STATUS, /* a helper's status is not 0 */
    STUB_DIV,
    STUB_NAN,
    STUB_FMA_NAN,
    STUB_UNBOX,
    STUB_FMINMAX,
    STUB_FTOI,
    STUB_FTOU,
    STUB_UTOF
};

struct stub {
    uint8_t kind;
    int8_t dst, a, b; /* registers as the kind wants them; -1 = none */
    uint16_t insn;
    uint16_t snap, snap_count;
    uint32_t word; /* for slow path routines */
    uint32_t arg;  /* exit index, count of instructions... */
    int8_t addend; /* register of the group's addend, -1 = no group */
    bool leads;
    int16_t memo;    /* of the access, or of its group; -1: it has none */
    int32_t lo, hi;  /* then: what is probed for, from the base */
    uint8_t *access; /* and where the access goes on with the addend that the TLB has */
    int64_t imm;
    uint8_t *from[2]; /* rel32s that lead here */
    uint8_t *resume;
};

/** Accesses off one base whose pages are probed at once: group.c. Its addend is value number
 * f->count + index, 0 if the members must probe for themselves. */
struct group {
    uint16_t root;   /* temp that the addresses are relative to */
    uint16_t leader; /* the member that probes */
    uint16_t last;
    uint16_t members;
    int32_t lo, hi; /* bytes that they access, from root */
    int32_t leader_at;
    uint8_t mmu;
    bool write;
};

/** Start of a region's stretch. */
struct label {
    uint16_t insn;
    bool back;   /* some exit behind it leads here: a loop */
    uint8_t *at; /* NULL: not there yet */
};

/** A jump to a label that is not there yet. */
struct fixup {
    uint8_t *rel32;
    unsigned label;
};

/** A memo of the access's own, or that of the register that it is off. */
enum memo_kind { MEMO_NONE, MEMO_OWN, MEMO_SHARED };

enum place_kind { PLACE_REG, PLACE_SPILL, PLACE_HOME, PLACE_CONST };

/** Where a dirty slot's value is at a stub. */
struct place {
    uint16_t offset; /* of the slot */
    uint8_t kind;
    uint8_t reg;
    uint8_t nan;  /* it is raw: nan_write_place() */
    int32_t disp; /* spill, home: offset; constants: the temp */
};

struct asm_state {
    struct emit e;
    struct host *h;
    const struct host_env *env;
    const struct ir_func *f;
    unsigned features;
    void *owner;
    int error;

    unsigned cur;         /* op being compiled */
    uint32_t page_offset; /* of its guest instruction */
    unsigned insns;       /* INSNs so far */
    unsigned counted;     /* of them, already added to instret */
    uint8_t *entry;
    uint8_t *loop;                   /* head of the unit's loop; NULL: it has none */
    unsigned loop_end;               /* the op that goes back */
    struct label labels[ASM_LABELS]; /* of a region, in order */
    unsigned label_count;
    struct fixup fixups[ASM_FIXUPS];
    unsigned fixup_count;
    bool call; /* the exit being compiled is a call */
    struct host_code *code;

    struct value *values; /* of temps, then of groups */
    struct group groups[ASM_GROUPS];
    unsigned group_count;
    uint8_t group_of[ASM_MAX_INSNS + 1]; /* op → group + 1, 0 = none */
    uint8_t has_memo[ASM_MAX_INSNS + 1]; /* enum memo_kind: the access looks there before the TLB */
    uint16_t regs[X86_REGS];             /* the value in each, ASM_NONE */
    uint32_t pinned;                     /* registers that the current op uses */
    uint64_t spills;                     /* bitmap of slots in use */
    struct slot slots[ASM_SLOTS];
    unsigned slot_count;
    uint8_t slot_map[ASM_SLOT_MAP]; /* offset / 8 → slot + 1, 0 = none */
    struct stub stubs[ASM_STUBS];
    unsigned stub_count;
    struct place places[ASM_SNAPSHOTS];
    unsigned place_count;
};

struct host {
    struct host_env env;
    struct codebuf *code;
    unsigned features;
    FILE *dump;
    unsigned memos[2];             /* given out so far, of reads and of writes */
    uint8_t *common[COMMON_COUNT]; /* addresses in the writable alias: displacements are the */
    uint8_t *constants;            /* same in both */
    uint8_t *flags_map;            /* env.fp_flags_map */
    size_t common_size;
    struct asm_state a;
    struct value values[ASM_MAX_INSNS + ASM_GROUPS];
};

static inline const struct ir_insn *asm_insn(const struct asm_state *a)
{
    return &a->f->insns[a->cur];
}
static inline struct rm rm_state(int64_t offset)
{
    return rm_mem(REG_STATE, offset);
}
static inline struct rm rm_frame(int64_t offset)
{
    return rm_mem(RSP, offset);
}
static inline struct rm rm_constant(const struct asm_state *a, enum common_constant c)
{
    return rm_rip(a->h->constants + 16 * c);
}
static inline bool is_const(const struct asm_state *a, uint16_t v)
{
    return v < a->f->count && a->f->insns[v].op == IR_CONST;
}
/** Is @v a constant that fits a sign-extended imm32 of an operation @bytes wide? */
static inline bool is_imm(const struct asm_state *a, uint16_t v, unsigned bytes, int32_t *ret)
{
    int64_t imm;

    if (!is_const(a, v))
        return false;
    imm = a->f->insns[v].imm;
    if (bytes == 8 && !fits32(imm))
        return false;
    *ret = (int32_t)imm;
    return true;
}
/** Is @v a sum's like with its lowest bit cleared? Then the operand; else @v. */
static inline uint16_t before_even(const struct ir_func *f, uint16_t v)
{
    const struct ir_insn *i = &f->insns[v];

    return i->op == IR_AND && f->insns[i->arg[1]].op == IR_CONST && f->insns[i->arg[1]].imm == -2
               ? i->arg[0]
               : v;
}
static inline bool dies_here(const struct asm_state *a, uint16_t v)
{
    return a->values[v].last_use <= a->cur;
}

/* regs.c */
void regs_liveness(struct asm_state *a);
/** Free register of the class that @pool says, spilling if need be. Pinned. */
unsigned regs_alloc(struct asm_state *a, uint32_t pool);
/** @v in a register, pinned for this op. */
unsigned regs_use(struct asm_state *a, uint16_t v);
/** @v as a source operand: a register (pinned), or the memory where it is if this is its last use
 * and it has no register. */
struct rm regs_use_rm(struct asm_state *a, uint16_t v);
/** Register for the current op's result. */
unsigned regs_def(struct asm_state *a);
/** The same, preferably the one of @v, an operand that is not needed once the result is written. */
unsigned regs_def_reuse(struct asm_state *a, uint16_t v);
/** The same, written when all operands have been read and nothing looks at state any more: it may
 * be the register of any value that dies here. */
unsigned regs_def_late(struct asm_state *a, uint16_t v);
/** Had the result better be in another register than @v's, which is to be had? */
bool regs_wants_other(const struct asm_state *a, uint16_t v);
/** The same, holding a copy of @v to start with: its own register if it dies here. */
unsigned regs_def_from(struct asm_state *a, uint16_t v);
/** Register for value @v, which is not an op's result. */
unsigned regs_def_value(struct asm_state *a, uint16_t v);
/** Load @v into scratch register @reg. */
void regs_copy_to(struct asm_state *a, uint16_t v, unsigned reg);
/** Is @reg live: must it survive this op? */
bool regs_is_live(const struct asm_state *a, unsigned reg);
void regs_get(struct asm_state *a);
void regs_set(struct asm_state *a);
/** Write all dirty slots to memory. */
void regs_flush(struct asm_state *a);
/** Memory may have changed: cached slots are worth nothing. Only after regs_flush(). */
void regs_forget(struct asm_state *a);
/** At LOOP: bind the state got so far to registers. */
void regs_loop(struct asm_state *a);
/** Load a region's bound state into its registers. */
void regs_enter_region(struct asm_state *a);
/** At LABEL: bound state is in its registers, all other state in memory. */
void regs_label(struct asm_state *a);
/** Before going back: write dirty slots that the loop does not bind. True: moves are needed to put
 * the others where they were at the head: regs_loop_moves() emits them, flags kept, without a trace
 * in the allocator's state. */
bool regs_loop_close(struct asm_state *a);
void regs_loop_moves(struct asm_state *a);
void regs_dump(const struct asm_state *a, FILE *out);

/** The slot of 8 bytes of state at @offset; -1: it is not cached. */
int regs_slot(struct asm_state *a, int32_t offset, unsigned size);

/* group.c */
/** What an address is relative to: a temp that is no sum with a constant. */
struct address {
    uint16_t root;
    int64_t at;
};
struct address address_of(const struct ir_func *f, uint16_t base, int64_t disp);
void groups_find(struct asm_state *a);

/* memo.c */
/** Find the accesses that shall have memos: in has_memo. */
void memos_find(struct asm_state *a);
/** A memo for the access. */
int memo_new(struct asm_state *a, const struct ir_insn *i);
/** Is [base + lo, base + hi) in the memo's page? @addend = its addend; else go to @s. */
void memo_probe(struct asm_state *a, struct stub *s, unsigned base, unsigned addend);
/** The beginning of @s: look in the TLB; if the page is there, go back with its addend. */
void memo_miss(struct asm_state *a, const struct stub *s);

/* nan.c */
/** The current op's result is raw. */
static inline void nan_defer(struct asm_state *a)
{
    a->values[a->cur].raw = !a->values[a->cur].no_nan;
}
/** Make @v canonical if it is raw. Sets flags. */
void nan_settle(struct asm_state *a, uint16_t v);
/** What struct place says of a value. */
uint8_t nan_place(const struct asm_state *a, uint16_t v);
void nan_write_place(struct asm_state *a, const struct place *p);
void nan_stub(struct asm_state *a, const struct stub *s);

/* stub.c */
/** A new stub for the current op, without snapshot; never NULL (on overflow a->error is set). */
struct stub *stub_new(struct asm_state *a, enum stub_kind kind);
/** Record where dirty slots are now. */
void stub_snapshot(struct asm_state *a, struct stub *s);
uint32_t stub_word(const struct asm_state *a, unsigned size, unsigned mmu, unsigned op);
void stubs_emit(struct asm_state *a);
/** Is there room for one more op? If not, a->error is set. */
static inline bool asm_has_room(struct asm_state *a)
{
    if (a->e.end - a->e.p < ASM_MARGIN)
        a->error = -ENOSPC;
    return !a->error;
}

/* asm_*.c */
void asm_integer(struct asm_state *a);
void asm_muldiv(struct asm_state *a);
void asm_shift(struct asm_state *a);
void asm_bits(struct asm_state *a);
void asm_compare(struct asm_state *a); /* SETCC, SELECT, MIN.. */
enum x86_cc asm_cmp(struct asm_state *a, enum ir_cc cc, unsigned bytes, uint16_t x, uint16_t y);
void asm_memory(struct asm_state *a);
/** Probe the TLB for the bytes [base + @lo, base + @hi) in access @i's mode: @addend = what to add
 * to an address. @align: only addresses that are multiples of it. Returns the jump taken on a miss.
 */
uint8_t *asm_probe(struct asm_state *a, const struct ir_insn *i, unsigned base, int32_t lo,
                   int32_t hi, unsigned align, unsigned addend);
/** The access of @i itself, at host address @m. @value < 0: constant. */
void asm_load_from(struct asm_state *a, const struct ir_insn *i, unsigned dst, struct rm m);
void asm_store_to(struct asm_state *a, const struct ir_insn *i, int value, struct rm m);
void asm_atomic(struct asm_state *a);
void asm_float(struct asm_state *a);
void asm_float_compare(struct asm_state *a);
void asm_float_convert(struct asm_state *a);
void asm_flags(struct asm_state *a);
void asm_call(struct asm_state *a);
void asm_helper(struct asm_state *a, void (*fn)(void), bool flags);
void asm_interp(struct asm_state *a);
void asm_exit(struct asm_state *a);
/** Jump to the direct exit @delta; state is exact. */
void asm_exit_to(struct asm_state *a, int64_t delta);
void asm_entry(struct asm_state *a);
void asm_loop(struct asm_state *a);
/** Find the region's labels; 0 or -E2BIG. */
int asm_find_labels(struct asm_state *a);
void asm_label(struct asm_state *a);
void asm_count_retired(struct asm_state *a, unsigned retired);

/* fallback.c: what the host lacks, uint64_t fn(void *state, uint64_t...) */
void (*fallback_for(enum ir_op op, enum ir_type type))(void);

/* common.c */
void common_emit(struct host *h);

#endif
