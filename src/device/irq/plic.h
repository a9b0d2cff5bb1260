/* RISC-V platform-level interrupt controller. */
#ifndef DEVICE_IRQ_PLIC_H
#define DEVICE_IRQ_PLIC_H

#include "device/irq.h"
#include "mem/mem.h"

#define PLIC_MAX_SOURCES  127
#define PLIC_MAX_CONTEXTS 32
#define PLIC_SIZE         0x600000ULL

struct state_in;
struct state_out;
struct plic;

struct plic_config {
    unsigned sources;  /* interrupt IDs 1..sources */
    unsigned contexts; /* in RISC-V boards: M and S of hart 0, M and S of hart 1... */
    struct irq_line outputs[PLIC_MAX_CONTEXTS]; /* called with the PLIC's lock held */
};

/** Add a PLIC at @base of @mem. *@ret is the caller's, freed after @mem. */
must_check int plic_new(struct mem *mem, gpa_t base, const struct plic_config *config,
                        struct plic **ret, struct error *err);
void plic_free(struct plic *p);
void plic_reset(struct plic *p);

/** The wire into source @id, 1..sources. */
struct irq_line plic_input(struct plic *p, unsigned id);

/** State for a snapshot: vCPUs and loops stand still. A failed load leaves the device in any state:
 * reset or free it. */
void plic_save(struct plic *p, struct state_out *out);
must_check int plic_load(struct plic *p, const struct state_in *in, struct error *err);

#endif
