/* Serial ATA for guests that know no virtio: an AHCI controller on PCI with disks and CD-ROM
 * drives. Spec: Serial ATA AHCI 1.3.1. */
#ifndef DEVICE_ATA_AHCI_H
#define DEVICE_ATA_AHCI_H

#include "device/pci/pci.h"

#define AHCI_PORTS 10

struct ahci;
struct disk;
struct state_in;
struct state_out;

/** Make a controller with @ports ports, 1 to AHCI_PORTS, a function of @host. *@ret is the
 * caller's, freed before @host. */
must_check int ahci_new(struct pci_host *host, unsigned ports, struct ahci **ret,
                        struct error *err);
void ahci_free(struct ahci *a);

/** Its PCI slot, for firmware's order of booting. */
unsigned ahci_slot(const struct ahci *a);

/** Connect a drive that holds @disk to @port: a disk, or a CD-ROM drive. Before the machine runs.
 * Takes @disk on success. @serial: at most 20 printable letters. */
must_check int ahci_attach(struct ahci *a, unsigned port, struct disk *disk, bool cdrom,
                           const char *serial, struct error *err);

/** For a snapshot: every command that was begun ends, and none begins, until it thaws. vCPUs stand
 * still. Not on a port's own thread. */
void ahci_freeze(struct ahci *a);
void ahci_thaw(struct ahci *a);

/** The same for one port, whose disk's chain is about to change; the guest's commands wait. Not
 * nested. */
void ahci_hold(struct ahci *a, unsigned port);
void ahci_release(struct ahci *a, unsigned port);
struct disk *ahci_disk(struct ahci *a, unsigned port);
/** While it is frozen or held: another disk of the same size in its place, which is taken. */
void ahci_set_disk(struct ahci *a, unsigned port, struct disk *disk);

/** State of a frozen controller; the PCI function's is the host's. A failed load leaves any state:
 * reset or free it. */
void ahci_save(struct ahci *a, struct state_out *out);
must_check int ahci_load(struct ahci *a, const struct state_in *in, struct error *err);

#endif
