/* Virtual machine generation ID: 16 bytes that change when the machine's past is no longer its
 * alone. */
#ifndef DEVICE_VMGENID_H
#define DEVICE_VMGENID_H

#include "device/irq.h"
#include "mem/mem.h"

#define VMGENID_SIZE 16ULL

struct vmgenid;

/** Add the ID, a new random one, at @base of @mem, read-only. @irq is pulsed when it changes. *@ret
 * is the caller's, freed after @mem. */
must_check int vmgenid_new(struct mem *mem, gpa_t base, struct irq_line irq, struct vmgenid **ret,
                           struct error *err);
void vmgenid_free(struct vmgenid *v);

/** The machine goes on from a saved state: another ID, and the guest is told. vCPUs stand still;
 * the interrupt controller's state has been loaded. The ID itself is never saved: it would not be
 * valid again. */
void vmgenid_change(struct vmgenid *v);

#endif
