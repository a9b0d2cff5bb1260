/* The PC's real-time clock and its battery-backed memory (MC146818A). */
#ifndef DEVICE_PC_CMOS_H
#define DEVICE_PC_CMOS_H

#include "base/loop.h"
#include "device/irq.h"
#include "mem/mem.h"

#define CMOS_PORT 0x70
#define CMOS_SIZE 128

struct cmos;
struct state_in;
struct state_out;

struct cmos_config {
    struct irq_line irq; /* edge: IRQ 8 */
    struct loop *loop;   /* alarm and periodic interrupts; borrowed */
};

/** Add the two ports to @ports. The clock shows the host's time, in UTC, until the guest sets it.
 * *@ret is the caller's, freed after @ports. */
must_check int cmos_new(struct mem *ports, const struct cmos_config *config, struct cmos **ret,
                        struct error *err);
void cmos_free(struct cmos *c);

/** Interrupts off; time and memory stay. */
void cmos_reset(struct cmos *c);

/** Put a byte into the memory, for firmware. @at is 0x10 to 0x7f. Before the machine runs. */
void cmos_set(struct cmos *c, unsigned at, uint8_t value);

/** State for a snapshot: vCPUs and loops stand still. A failed load leaves any state. */
void cmos_save(struct cmos *c, struct state_out *out);
must_check int cmos_load(struct cmos *c, const struct state_in *in, struct error *err);

#endif
