/* A hart without an engine, for tests and fuzzing of system registers, traps and the page walker:
 * the calls of cpu/core that they make, on a small RAM, each counted. */
#ifndef CPU_GUEST_RISCV_FAKE_ENGINE_H
#define CPU_GUEST_RISCV_FAKE_ENGINE_H

#include "cpu/guest/riscv/hart.h"

#define FAKE_RAM_BASE 0x80000000ULL
#define FAKE_RAM_SIZE (1u << 20)

struct fake_engine {
    struct rv_hart h; /* first: the walker's calls find the rest by it */
    struct cpu_context context;
    struct vclock clock;
    struct vcpu_exit exit;
    uint8_t ram[FAKE_RAM_SIZE];
    int64_t now_ns; /* what cpu_now_ns() says */
    unsigned flushes, page_flushes, page_in_flushes, context_flushes, context_switches,
        timer_changes;
    unsigned loads;   /* page table entries read */
    unsigned updates; /* and written */
    unsigned strays;  /* accesses outside RAM or misaligned */
    uint64_t flushed_va, flushed_asid;
    bool flushed_current; /* the last flush by ASID matched the current context */
    /* [test] called before a compare-and-swap: another hart's chance to interfere */
    void (*before_cas)(struct fake_engine *e, uint64_t gpa);
};

/** A hart in reset state in M-mode (or, with @builtin_sbi, S-mode). Free with free(). */
struct fake_engine *fake_engine_new(bool builtin_sbi);

uint64_t fake_ram_get(const struct fake_engine *e, uint64_t gpa);
void fake_ram_set(struct fake_engine *e, uint64_t gpa, uint64_t value);

#endif
