/* A hart under an engine, flat RAM and nothing else: what the programs of tests/isa run code on. */
#ifndef TESTS_ISA_MACHINE_H
#define TESTS_ISA_MACHINE_H

#include "cpu/engine/engine.h"

enum {
    MACHINE_PC = 32, /* numbers of vcpu_get_reg() */
    MACHINE_FCSR = 65 + 3,
    MACHINE_MSTATUS = 65 + 0x300,
};

struct machine {
    struct mem *mem;
    uint8_t *ram; /* of the size that was asked for, at the base */
    struct loop *loop;
    struct vclock clock;
    struct engine *engine;
    struct vcpu *vcpu; /* in reset state, pc at the base; stops at EBREAK */
};

/** Of @kind, with RAM of @size bytes at @base; @dump (enum engine_dump) goes to standard error.
 * False, and a message is printed: no memory. machine_done() is needed in either case. */
bool machine_init(struct machine *m, enum engine_kind kind, uint64_t base, uint64_t size,
                  unsigned dump);
void machine_done(struct machine *m);

/** Run to an exit that is no kick. */
void machine_run(struct machine *m, struct vcpu_exit *ret);

#endif
