/* A hart on flat RAM without an engine: decoder, interpreter and system registers as they are, in
 * M-mode, with the FP unit on. One thread. */
#ifndef TESTS_ISA_BARE_H
#define TESTS_ISA_BARE_H

#include "cpu/guest/riscv/hart.h"

struct bare {
    struct rv_hart h; /* first */
    struct vclock clock;
    struct vcpu_exit exit;
    uint8_t *ram;
    uint64_t ram_size;
};

/** RAM of @ram_size bytes at @base, pc at its start. Aborts when memory is short (tests only). */
struct bare *bare_new(uint64_t base, uint64_t ram_size);
/** Back to that state, RAM zeroed. */
void bare_reset(struct bare *b);
void bare_free(struct bare *b);

/** Execute until @max_insns have retired (roughly: whole blocks), or EBREAK or another exit, or
 * WFI: returns CPU_OK, CPU_EXIT, CPU_WFI. Exceptions are delivered to the hart's trap handler; with
 * @stop_at_exceptions they are not, and CPU_EXCEPTION is returned. */
enum cpu_status bare_run(struct bare *b, uint64_t max_insns, bool stop_at_exceptions);

#endif
