/* What a host code generator offers the engine: compile a unit of IR, enter its code, link exits.
 *
 * Generated code knows guest state only by the offsets in struct host_env, and everything it cannot
 * do in line by the functions there; so this folder sees neither the guest nor the engine.
 *
 * Leaving: generated code returns to host_enter() with the guest's registers, pc and instret exact
 * in memory. A direct exit is a patchable jump that at first leads back to the caller with its
 * owner and number; host_link() points it at the target's code.
 *
 * Threads: a struct host belongs to the engine; host_compile() and linking under the engine's lock;
 * host_enter() on any thread, at the same time as linking. */
#ifndef CPU_HOST_HOST_H
#define CPU_HOST_HOST_H

#include "base/error.h"
#include "base/macros.h"

#include <stdio.h>

struct ir_func;
struct codebuf;
struct host;

/** Where to go on after a system instruction. */
struct host_next {
    const void *code; /* there is code for the pc; NULL: leave */
    uint64_t kind;    /* then: as what, enum host_leave_kind */
};

/** Offsets and helpers, constant for an engine's life. Copied by host_new(). */
struct host_env {
    /* From the state pointer. Sizes as in struct cpu. */
    uint32_t attention, status, pc, code_page, instret, mode, context, fp_flags, mxcsr;

    /* From the address space context. The TLB entry of va in mode m is at tlb + m * tlb_stride +
     * ((va >> 7) & the 32-bit word at tlb_mask + 4 * m). Its tag for an access that may be in line
     * is the address of its page's last byte. */
    uint32_t tlb, tlb_stride, tlb_mask;
    uint32_t tlb_tag_read, tlb_tag_write, tlb_addend; /* in the entry */
    /* Memos: what an access in a loop found in the TLB last, a tag and an addend. Number i of mode
     * m is at memo + m * memo_stride + 16 * i; the first memo_count (a power of two) are of reads,
     * as many then of writes. One that is written sets bit i / (memo_count / 16) of the 32-bit word
     * at memo_used + m * memo_stride. memo_count 0: there are none. */
    uint32_t memo, memo_stride, memo_count, memo_used;
    bool memo_all; /* not only where the page is likely to be the same again: for tests */
    /* The jump cache entry of pc is number ((pc ^ pc >> jump_bits) >> 1) & (2^jump_bits - 1) of
     * 32-byte entries, which begin at jumps + jump_stride * (the mode's bits 2 and 3); it is taken
     * if key == pc and the 32-bit jump_mode == the unit's mode | jump_valid; else the entry of
     * number ^ 1, if its is the state's mode | jump_valid. */
    uint32_t jumps, jump_stride, jump_bits, jump_key, jump_code, jump_mode, jump_valid;

    /* Slow paths, as in cpu.h; they return its enum cpu_status (0 = go on). */
    unsigned (*load)(void *state, uint64_t va, unsigned size, unsigned mmu, uint64_t *ret);
    unsigned (*store)(void *state, uint64_t va, unsigned size, unsigned mmu, uint64_t value);
    unsigned (*load_reserved)(void *state, uint64_t va, unsigned size, unsigned mmu, uint64_t *ret);
    unsigned (*zero)(void *state, uint64_t va, unsigned mmu); /* the block around @va */
    unsigned (*atomic)(void *state, uint64_t va, unsigned size, unsigned mmu, unsigned op,
                       uint64_t operand, uint64_t *ret_old); /* op: enum ir_amo */
    unsigned (*cas)(void *state, uint64_t va, unsigned size, unsigned mmu, uint64_t expected,
                    uint64_t desired, uint64_t *ret_old);
    /** Execute the system instruction @insn: pc and instret are exact before, and after; fp_flags
     * before, if it asked for that. Mode and context may change. Leaves code_page as of what it
     * returns. */
    struct host_next (*system)(void *state, const void *insn);
    /** Run the one decoded instruction @insn: pc and instret are exact before, and after. */
    unsigned (*interp)(void *state, const void *insn);

    bool single_pass; /* jumps to a unit's own start, and back within a region, leave (engine=check)
                       */

    /** Accrued x86 exceptions (MXCSR bits 0-5) in the guest's encoding, to be ORed to fp_flags. */
    uint32_t fp_flags_map[64];
};

enum host_feature {
    HOST_POPCNT = 1,
    HOST_LZCNT = 2,
    HOST_BMI1 = 4,
    HOST_BMI2 = 8,
    HOST_FMA = 16,
    HOST_SSE41 = 32,
    HOST_PCLMUL = 64,
    HOST_AVX = 128,
    HOST_MOVBE = 256,
};
/** enum host_feature bits that this CPU has. */
unsigned host_features(void);

/** The code generator over @code. @features: bits to use, at most host_features(). Emits its
 * common routines at the start of @code. */
must_check int host_new(const struct host_env *env, struct codebuf *code, unsigned features,
                        struct host **ret, struct error *err);
void host_free(struct host *h);
/** Forget all code: codebuf_reset(), and the common routines anew. */
void host_restart(struct host *h);

#define HOST_MAX_EXITS 64

struct host_exit {
    uint32_t patch; /* offset in the code of the jump's rel32, a multiple of 4 */
    uint32_t stub;  /* offset of the stub where it leads when unlinked */
    int64_t delta;  /* target pc - code page */
    bool call;      /* the target is expected to return behind */
};

/** What a unit was compiled to. */
struct host_code {
    const uint8_t *entry; /* executable address, 16-byte aligned; it is also the code's start */
    uint32_t size;
    uint32_t hot_size; /* the rest are cold stubs */
    bool has_store;    /* it may write guest memory */
    bool to_start;     /* it goes back to its own start, which is none of the exits */
    unsigned exit_count;
    struct host_exit exits[HOST_MAX_EXITS]; /* last: who keeps it may keep only those there are */
};

/** Compile @f at the end of the code buffer. @owner comes back in struct host_leave. 0; -ENOSPC:
 * the buffer is full; -E2BIG: the unit is too large (nothing is emitted in either case). */
must_check int host_compile(struct host *h, const struct ir_func *f, void *owner,
                            struct host_code *ret);

/** Another entry to @code, a unit that starts at page base + @start: it counts down *@left first
 * and, when that becomes 0, leaves with HOST_LEAVE_ATTENTION and pc = the unit's start. NULL: the
 * buffer is full. */
const void *host_count_entries(struct host *h, const struct host_code *code, int64_t start,
                               uint32_t *left);

enum host_leave_kind {
    HOST_LEAVE_DIRECT,    /* an unlinked exit: owner, index; pc and code_page + delta agree */
    HOST_LEAVE_INDIRECT,  /* pc is set: jump cache miss, or direct exit to another page */
    HOST_LEAVE_ATTENTION, /* at a unit's entry, attention was set or the unit was killed or counted
                             out; pc is its start */
    HOST_LEAVE_STATUS,    /* the status field tells */
};
struct host_leave {
    uint32_t kind; /* enum host_leave_kind */
    uint32_t index;
    void *owner; /* of a direct exit */
};

/** Run from @entry until something leaves. Before: code_page, context and mode are set. After: pc
 * and instret are exact, exceptions are in fp_flags. */
struct host_leave host_enter(struct host *h, void *state, const void *entry);

/** Point exit @index of @code at executable address @target, and back at its stub. Other threads
 * may run the code meanwhile: they go one way or the other. */
void host_link(struct host *h, const struct host_code *code, unsigned index, const void *target);
void host_unlink(struct host *h, const struct host_code *code, unsigned index);

/** Make the code's entry leave with HOST_LEAVE_ATTENTION and pc = its start from now on, for
 * threads that come from stale links or caches. */
void host_kill(struct host *h, const struct host_code *code);

/* --- Dumps */

/** Compile without keeping: prints where values live beside the IR, then the host's disassembly
 * (bytes, without capstone). */
void host_dump_code(const struct host *h, const struct host_code *code, FILE *out);
/** host_compile() prints register assignment to @out from now on; NULL: no more. */
void host_dump_registers(struct host *h, FILE *out);

#endif
