/* Saved state of an AHCI controller: registers of the controller and of every port, and what drives
 * remember. Commands that were issued and not begun are in the registers; none is under way.
 *
 * Threads: any; vCPUs and ports stand still. */
#include "device/ata/ahci_internal.h"

#include "state/state.h"

#include <errno.h>

static const struct state_field ahci_fields[] = {
    STATE_FIELD(struct ahci, port_count),
    STATE_FIELD(struct ahci, control),
    STATE_FIELD(struct ahci, pending),
    {0},
};

static const struct state_field port_fields[] = {
    STATE_FIELD(struct ahci_port, list),
    STATE_FIELD(struct ahci_port, received),
    STATE_FIELD(struct ahci_port, status),
    STATE_FIELD(struct ahci_port, enable),
    STATE_FIELD(struct ahci_port, command),
    STATE_FIELD(struct ahci_port, task),
    STATE_FIELD(struct ahci_port, signature),
    STATE_FIELD(struct ahci_port, sata_control),
    STATE_FIELD(struct ahci_port, sata_error),
    STATE_FIELD(struct ahci_port, active),
    STATE_FIELD(struct ahci_port, issued),
    STATE_FIELD(struct ahci_port, current),
    STATE_FIELD(struct ahci_port, in_soft_reset),
    STATE_FIELD(struct ahci_port, has_failed),
    {0},
};

static const struct state_field drive_fields[] = {
    STATE_FIELD(struct ata_drive, is_cdrom),
    STATE_FIELD(struct ata_drive, multiple),
    STATE_FIELD(struct ata_drive, write_through),
    STATE_FIELD(struct ata_drive, failed_tag),
    STATE_FIELD(struct ata_drive, failed_status),
    STATE_FIELD(struct ata_drive, failed_error),
    STATE_FIELD(struct ata_drive, failed_lba),
    STATE_FIELD(struct ata_drive, has_failed),
    STATE_FIELD(struct ata_drive, sense),
    STATE_FIELD(struct ata_drive, asc),
    STATE_FIELD(struct ata_drive, ascq),
    STATE_FIELD(struct ata_drive, is_open),
    STATE_FIELD(struct ata_drive, was_changed),
    STATE_FIELD(struct ata_drive, is_locked),
    {0},
};

void ahci_save(struct ahci *a, struct state_out *out)
{
    mutex_lock(&a->lock);
    state_save(out, "ahci", 0, 1, ahci_fields, a);
    for (unsigned i = 0; i < a->port_count; i++) {
        struct ahci_port *p = &a->ports[i];

        if (!p->loop)
            continue;
        assert(p->held && !p->is_busy);
        state_save(out, "ahci-port", i, 1, port_fields, p);
        state_save(out, "ata-drive", i, 1, drive_fields, &p->drive);
    }
    mutex_unlock(&a->lock);
}

/** Registers as software could have made them: addresses aligned, no bit that is not there. */
static void tame_locked(struct ahci *a, struct ahci_port *p) REQUIRES(a->lock)
{
    p->list &= ~0x3ffULL;
    p->received &= ~0xffULL;
    p->command &= (uint32_t)PORT_KEPT;
    p->current %= AHCI_SLOTS;
    p->drive.multiple &= 31;
    p->drive.failed_tag &= 31;
}

static int load_port_locked(struct ahci *a, struct ahci_port *p, const struct state_in *in,
                            struct error *err) REQUIRES(a->lock)
{
    bool is_cdrom = p->drive.is_cdrom;
    int rc = state_load(in, "ahci-port", p->index, 1, port_fields, p, err);

    if (!rc)
        rc = state_load(in, "ata-drive", p->index, 1, drive_fields, &p->drive, err);
    if (!rc && p->drive.is_cdrom != is_cdrom)
        rc = error_set(err, EINVAL, "the saved state has %s at SATA port %u",
                       is_cdrom ? "a disk" : "a CD-ROM drive", p->index);
    p->drive.is_cdrom = is_cdrom;
    tame_locked(a, p);
    return rc;
}

int ahci_load(struct ahci *a, const struct state_in *in, struct error *err)
{
    unsigned ports = a->port_count;

    mutex_lock(&a->lock);
    int rc = state_load(in, "ahci", 0, 1, ahci_fields, a, err);
    if (!rc && a->port_count != ports)
        rc = error_set(err, EINVAL, "the saved state has %u SATA ports, not %u", a->port_count,
                       ports);
    a->port_count = ports;
    a->control &= 2; /* GHC.IE */
    a->pending &= (1u << ports) - 1;
    for (unsigned i = 0; i < ports && !rc; i++) {
        if (a->ports[i].loop)
            rc = load_port_locked(a, &a->ports[i], in, err);
    }
    ahci_update_irq_locked(a);
    mutex_unlock(&a->lock);
    return rc;
}
