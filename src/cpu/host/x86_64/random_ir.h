/* Random units of IR, and a small machine to run them on: shared by tests of the code generator. */
#ifndef CPU_HOST_X86_64_RANDOM_IR_H
#define CPU_HOST_X86_64_RANDOM_IR_H

#include "cpu/host/codebuf.h"
#include "cpu/host/host.h"
#include "cpu/ir/eval.h"

#define M_TLB_BITS  4
#define M_JUMP_BITS 4
#define M_MEMOS     16
#define M_INTS      14
#define M_FLOATS    10
#define M_CODE_PAGE 0x7f0000ULL
#define M_DATA      0x40000ULL /* pages: 0 RW, 1 RW by slow path only, 2 read-only, 3 fault */
#define M_PAGES     4

struct m_tlb_entry {
    uint64_t tag[3], addend;
};
struct m_jump {
    uint64_t key;
    void *block;
    const void *code;
    uint32_t mode, code_mode;
};
struct m_context {
    uint32_t tlb_mask[2];
    struct m_tlb_entry tlb[2][1 << M_TLB_BITS];
    struct {
        uint32_t used;
        uint64_t memos[2][M_MEMOS][2];
    } memo[2];
    struct m_jump jumps[1 << M_JUMP_BITS];
};

struct m_state {
    uint32_t attention, status;
    uint64_t pc, code_page, instret, mode;
    struct m_context *context;
    uint32_t fp_flags, mxcsr;
    uint64_t x[M_INTS];
    uint64_t f[M_FLOATS];
    uint64_t calls;  /* made so far: the helpers' own state */
    uint64_t rounds; /* left of a loop */
    uint8_t *ram;
};

struct m_machine {
    struct m_context context;
    uint8_t ram[M_PAGES * 4096] __attribute__((aligned(4096)));
};

void m_env(struct host_env *ret);
/** Registers, memory and TLB filled from @seed; @state uses @machine. */
void m_init(struct m_state *state, struct m_machine *machine, uint64_t seed);
/** A random unit of about @length ops. */
void m_random_unit(struct ir_func *f, uint64_t seed, unsigned length);
/** The same, as the body of a loop that ends. */
void m_random_loop(struct ir_func *f, uint64_t seed, unsigned length);
/** A region of a few stretches of about @length ops that go to each other for a while. */
void m_random_region(struct ir_func *f, uint64_t seed, unsigned length);
/** Run @f by the reference evaluator, with the effects on @state that the generated code has. */
struct ir_eval_result m_eval(const struct ir_func *f, struct m_state *state);

uint64_t m_random(uint64_t *rng);

#endif
