/* What the two halves of the PCI transport share: pci.c (BARs, capabilities, interrupts) and
 * pci_common.c (the common configuration structure). */
#ifndef DEVICE_VIRTIO_PCI_TRANSPORT_H
#define DEVICE_VIRTIO_PCI_TRANSPORT_H

#include "device/pci/pci.h"
#include "device/virtio/transport.h"

struct virtio_pci {
    struct virtio_transport t; /* must be first */
    struct pci_function f;
    struct pci_info info;   /* [init] */
    unsigned pci_cfg_cap;   /* [init] offset of the capability that reaches into the BAR */
    uint32_t device_select; /* [device lock] */
    uint32_t driver_select; /* [device lock] */
    uint16_t queue_select;  /* [device lock] */
    uint16_t config_vector; /* [device lock] */
    bool rings;             /* [device lock] there are doorbells */
    struct mutex irq_lock;  /* the interrupt status and the pin's level change together */
    uint8_t isr;            /* [irq_lock] */
};

/** §4.1.4.5: read the interrupt status, which clears it and lowers the pin. */
uint8_t virtio_pci_take_isr(struct virtio_pci *p) EXCLUDES(p->irq_lock);

/** §4.1.5.1.2: what is not a vector of ours reads back as none. */
uint16_t virtio_pci_valid_vector(const struct virtio_pci *p, uint32_t vector);

/** Selectors and vectors as after a reset. */
void virtio_pci_forget(struct virtio_pci *p);

/** Doorbells for the queues that the driver may notify: after each change of status or BAR. */
void virtio_pci_ring(struct virtio_pci *p) REQUIRES(p->t.dev->lock);

/** The driver, or a reset (0), sets the device's status. */
void virtio_pci_set_status(struct virtio_pci *p, uint8_t status) REQUIRES(p->t.dev->lock);

/** Access to the common configuration structure (§4.1.4.3): 1, 2 or 4 bytes. What is no field of
 * that size reads as zero and ignores writes. */
uint32_t virtio_pci_common_read(struct virtio_pci *p, uint64_t offset, unsigned size)
    REQUIRES(p->t.dev->lock);
void virtio_pci_common_write(struct virtio_pci *p, uint64_t offset, unsigned size, uint32_t value)
    REQUIRES(p->t.dev->lock);

#endif
