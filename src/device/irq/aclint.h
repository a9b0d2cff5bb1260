/* RISC-V core-local interruptor: software and timer interrupts for M-mode. */
#ifndef DEVICE_IRQ_ACLINT_H
#define DEVICE_IRQ_ACLINT_H

#include "base/clock.h"
#include "base/loop.h"
#include "device/irq.h"
#include "mem/mem.h"

#define ACLINT_MAX_HARTS 16
#define ACLINT_SIZE      0x10000ULL

struct state_in;
struct state_out;
struct aclint;

struct aclint_config {
    unsigned harts;
    uint64_t timebase_hz;
    const struct vclock *clock; /* borrowed */
    struct loop *loop;          /* timers run here; borrowed */
    struct irq_line msip[ACLINT_MAX_HARTS], mtip[ACLINT_MAX_HARTS];
};

/** Add MSWI and MTIMER (the CLINT's layout) at @base of @mem. *@ret is the caller's, freed after
 * @mem and before the loop's end. */
must_check int aclint_new(struct mem *mem, gpa_t base, const struct aclint_config *config,
                          struct aclint **ret, struct error *err);
void aclint_free(struct aclint *a);
void aclint_reset(struct aclint *a);

/** The guest clock runs again after a pause: set the timers anew. Any thread. */
void aclint_resume(struct aclint *a);

/** State for a snapshot: vCPUs and loops stand still. A failed load leaves the device in any state:
 * reset or free it. */
void aclint_save(struct aclint *a, struct state_out *out);
must_check int aclint_load(struct aclint *a, const struct state_in *in, struct error *err);

#endif
