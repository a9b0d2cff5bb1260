/* AHCI controller: the PCI function, its registers, interrupts.
 * Spec: Serial ATA AHCI 1.3.1 §2 (PCI), §3 (registers), §10 (software's side).
 *
 * Invariants:
 *  1. The interrupt pin is up if and only if GHC.IE is set and a bit of IS is; a bit of IS is set
 *     whenever its port has an event that is enabled.
 *  2. A port without a drive has no thread, and shows an empty link.
 *
 * Not there: port multipliers, power states of the link, command completion coalescing, enclosure
 * management, staggered spin-up, plugging drives while the machine runs.
 *
 * Threads: vCPUs at registers; one loop a port executes commands; one lock for all registers. A
 * reset waits for the commands that are executed. */
#include "device/ata/ahci_internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAR       5
#define BAR_SIZE  4096
#define PORT_BASE 0x100
#define PORT_SIZE 0x80

/* §3.1 */
enum { HBA_CAP = 0, HBA_GHC = 4, HBA_IS = 8, HBA_PI = 0xc, HBA_VS = 0x10 };
enum { GHC_RESET = 1 << 0, GHC_IE = 1 << 1 };
#define GHC_AHCI   (1u << 31)
#define CAP_64BIT  (1u << 31)
#define CAP_QUEUES (1u << 30)
#define CAP_CLO    (1u << 24)
#define CAP_3GBPS  (2u << 20)
#define CAP_NO_IDE (1u << 18)
#define VERSION    0x00010301

/* §3.3 */
enum {
    PX_CLB = 0x00,
    PX_CLBU = 0x04,
    PX_FB = 0x08,
    PX_FBU = 0x0c,
    PX_IS = 0x10,
    PX_IE = 0x14,
    PX_CMD = 0x18,
    PX_TFD = 0x20,
    PX_SIG = 0x24,
    PX_SSTS = 0x28,
    PX_SCTL = 0x2c,
    PX_SERR = 0x30,
    PX_SACT = 0x34,
    PX_CI = 0x38,
};

enum { LINK_DET_MASK = 15, LINK_INIT = 1, LINK_OFF = 4, LINK_UP = 0x123 };
#define IE_MASK 0xfdc000ffu

static const struct pci_info ahci_info = {
    .vendor_id = 0x8086,
    .device_id = 0x2922, /* ICH9's, as guests expect beside its other parts */
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .class_code = 0x010601,
    .revision = 2,
    .bar_size = {[BAR] = BAR_SIZE},
};

static struct ahci *of_function(struct pci_function *f)
{
    return container_of(f, struct ahci, pci);
}

void ahci_update_irq_locked(struct ahci *a)
{
    for (unsigned i = 0; i < a->port_count; i++) {
        if (a->ports[i].status & a->ports[i].enable)
            a->pending |= 1u << i;
    }
    pci_set_intx(&a->pci, a->control & GHC_IE && a->pending);
}

/* --- A port's registers --- */

static uint32_t read_link_locked(struct ahci *a, const struct ahci_port *p) REQUIRES(a->lock)
{
    uint32_t det = p->sata_control & LINK_DET_MASK;

    if (det == LINK_OFF)
        return LINK_OFF;
    return p->loop && det != LINK_INIT ? LINK_UP : 0;
}

static uint32_t read_command_locked(struct ahci *a, const struct ahci_port *p) REQUIRES(a->lock)
{
    uint32_t value = p->command | PORT_SUD | PORT_POD | (uint32_t)p->current << 8;

    if (p->command & PORT_FRE)
        value |= PORT_FR;
    if (p->command & PORT_ST || p->is_busy)
        value |= PORT_CR;
    return value;
}

static uint32_t read_port_locked(struct ahci *a, const struct ahci_port *p, unsigned offset)
    REQUIRES(a->lock)
{
    switch (offset) {
    case PX_CLB:
        return (uint32_t)p->list;
    case PX_CLBU:
        return (uint32_t)(p->list >> 32);
    case PX_FB:
        return (uint32_t)p->received;
    case PX_FBU:
        return (uint32_t)(p->received >> 32);
    case PX_IS:
        return p->status;
    case PX_IE:
        return p->enable;
    case PX_CMD:
        return read_command_locked(a, p);
    case PX_TFD:
        return p->task;
    case PX_SIG:
        return p->signature;
    case PX_SSTS:
        return read_link_locked(a, p);
    case PX_SCTL:
        return p->sata_control;
    case PX_SERR:
        return p->sata_error;
    case PX_SACT:
        return p->active;
    case PX_CI:
        return p->issued;
    default:
        return 0;
    }
}

static void write_command_locked(struct ahci *a, struct ahci_port *p, uint32_t value)
    REQUIRES(a->lock)
{
    bool was_on = p->command & PORT_ST;

    if (value & PORT_CLO)
        p->task &= ~(uint32_t)(ST_BSY | ST_DRQ);
    p->command = value & (uint32_t)PORT_KEPT;
    if (was_on && !(value & PORT_ST))
        ahci_port_stop_locked(a, p);
    else if (!was_on)
        ahci_port_kick_locked(a, p);
}

static void wait_port_locked(struct ahci *a, struct ahci_port *p) REQUIRES(a->lock)
{
    if (!p->is_busy)
        return;
    disk_hurry(p->drive.disk, true);
    while (p->is_busy)
        cond_wait(&a->idle, &a->lock);
    disk_hurry(p->drive.disk, false);
}

/** §10.4.2: a reset of the link begins and ends by software's writing. */
static void write_link_locked(struct ahci *a, struct ahci_port *p, uint32_t value) REQUIRES(a->lock)
{
    uint32_t before = p->sata_control & LINK_DET_MASK;
    uint32_t after = value & LINK_DET_MASK;

    p->sata_control = value & 0xfff;
    if (before == after)
        return;
    if (after == LINK_INIT || after == LINK_OFF) {
        ahci_port_stop_locked(a, p);
        wait_port_locked(a, p);
        p->task = TASK_ABSENT;
        p->signature = UINT32_MAX;
    } else if (!after && p->loop) {
        ata_drive_reset(&p->drive);
        ahci_port_connect_locked(a, p);
    }
}

static void write_port_locked(struct ahci *a, struct ahci_port *p, unsigned offset, uint32_t value)
    REQUIRES(a->lock)
{
    switch (offset) {
    case PX_CLB:
        p->list = (p->list & ~0xffffffffULL) | (value & ~0x3ffu);
        break;
    case PX_CLBU:
        p->list = (uint32_t)p->list | (uint64_t)value << 32;
        break;
    case PX_FB:
        p->received = (p->received & ~0xffffffffULL) | (value & ~0xffu);
        break;
    case PX_FBU:
        p->received = (uint32_t)p->received | (uint64_t)value << 32;
        break;
    case PX_IS:
        p->status &= ~value;
        break;
    case PX_IE:
        p->enable = value & IE_MASK;
        break;
    case PX_CMD:
        write_command_locked(a, p, value);
        break;
    case PX_SCTL:
        write_link_locked(a, p, value);
        break;
    case PX_SERR:
        p->sata_error &= ~value;
        break;
    case PX_SACT:
        if (p->command & PORT_ST)
            p->active |= value;
        break;
    case PX_CI:
        if (p->command & PORT_ST) {
            p->issued |= value;
            ahci_port_kick_locked(a, p);
        }
        break;
    default:
        break;
    }
}

/* --- The controller's registers --- */

static uint32_t read_hba_locked(const struct ahci *a, unsigned offset) REQUIRES(a->lock)
{
    switch (offset) {
    case HBA_CAP:
        return CAP_64BIT | CAP_QUEUES | CAP_CLO | CAP_3GBPS | CAP_NO_IDE | (AHCI_SLOTS - 1) << 8 |
               (a->port_count - 1);
    case HBA_GHC:
        return a->control | GHC_AHCI;
    case HBA_IS:
        return a->pending;
    case HBA_PI:
        return (1u << a->port_count) - 1;
    case HBA_VS:
        return VERSION;
    default:
        return 0;
    }
}

static void wait_idle_locked(struct ahci *a) REQUIRES(a->lock)
{
    for (unsigned i = 0; i < a->port_count; i++)
        wait_port_locked(a, &a->ports[i]);
}

static void reset_locked(struct ahci *a) REQUIRES(a->lock)
{
    for (unsigned i = 0; i < a->port_count; i++)
        ahci_port_stop_locked(a, &a->ports[i]); /* nothing more begins */
    wait_idle_locked(a);
    a->control = a->pending = 0;
    for (unsigned i = 0; i < a->port_count; i++)
        ahci_port_reset_locked(a, &a->ports[i]);
}

static void write_hba_locked(struct ahci *a, unsigned offset, uint32_t value) REQUIRES(a->lock)
{
    if (offset == HBA_IS)
        a->pending &= ~value;
    else if (offset == HBA_GHC && value & GHC_RESET)
        reset_locked(a);
    else if (offset == HBA_GHC)
        a->control = value & GHC_IE;
}

static uint32_t read_register(struct ahci *a, unsigned offset)
{
    unsigned port = (offset - PORT_BASE) / PORT_SIZE;
    uint32_t value = 0;

    mutex_lock(&a->lock);
    if (offset < PORT_BASE)
        value = read_hba_locked(a, offset);
    else if (port < a->port_count)
        value = read_port_locked(a, &a->ports[port], (offset - PORT_BASE) % PORT_SIZE);
    mutex_unlock(&a->lock);
    return value;
}

static void write_register(struct ahci *a, unsigned offset, uint32_t value)
{
    unsigned port = (offset - PORT_BASE) / PORT_SIZE;

    mutex_lock(&a->lock);
    if (offset < PORT_BASE)
        write_hba_locked(a, offset, value);
    else if (port < a->port_count)
        write_port_locked(a, &a->ports[port], (offset - PORT_BASE) % PORT_SIZE, value);
    ahci_update_irq_locked(a);
    mutex_unlock(&a->lock);
}

static enum bus_result bar_read(struct pci_function *f, unsigned bar, uint64_t offset,
                                unsigned size, uint64_t *ret)
{
    struct ahci *a = of_function(f);
    unsigned at = (unsigned)offset & ~3u;

    *ret = read_register(a, at) >> 8 * (offset & 3);
    if (size == 8)
        *ret |= (uint64_t)read_register(a, at + 4) << 32;
    return BUS_OK;
}

/** §3: registers are written in whole. */
static enum bus_result bar_write(struct pci_function *f, unsigned bar, uint64_t offset,
                                 unsigned size, uint64_t value)
{
    struct ahci *a = of_function(f);

    if (size < 4) {
        guest_error("ahci", "a write of %u bytes at 0x%x", size, (unsigned)offset);
        return BUS_OK;
    }
    write_register(a, (unsigned)offset, (uint32_t)value);
    if (size == 8)
        write_register(a, (unsigned)offset + 4, (uint32_t)(value >> 32));
    return BUS_OK;
}

static void function_reset(struct pci_function *f)
{
    struct ahci *a = of_function(f);

    mutex_lock(&a->lock);
    reset_locked(a);
    ahci_update_irq_locked(a);
    mutex_unlock(&a->lock);
}

static const struct pci_ops ahci_ops = {
    .name = "ahci",
    .bar_read = bar_read,
    .bar_write = bar_write,
    .reset = function_reset,
};

/* --- Life --- */

int ahci_new(struct pci_host *host, unsigned ports, struct ahci **ret, struct error *err)
{
    struct ahci *a = calloc(1, sizeof(*a));

    assert(ports >= 1 && ports <= AHCI_PORTS);
    if (!a)
        return error_set(err, ENOMEM, "out of memory");
    int rc = pci_add(host, &a->pci, &ahci_ops, &ahci_info, -1, err);
    if (rc) {
        free(a);
        return rc;
    }
    mutex_init(&a->lock);
    cond_init(&a->idle);
    a->mem = pci_mem(&a->pci);
    a->port_count = ports;
    for (unsigned i = 0; i < ports; i++) {
        a->ports[i].ahci = a;
        a->ports[i].index = i;
    }
    function_reset(&a->pci);
    *ret = a;
    return 0;
}

int ahci_attach(struct ahci *a, unsigned port, struct disk *disk, bool cdrom, const char *serial,
                struct error *err)
{
    struct ahci_port *p = &a->ports[port];
    char name[16];

    assert(port < a->port_count && !p->loop);
    (void)snprintf(name, sizeof(name), "ahci-%u", port);
    struct loop *loop = loop_new(name);
    int rc = loop ? loop_start(loop) : -ENOMEM;
    if (rc) {
        loop_free(loop);
        return error_set(err, -rc, "cannot start a disk thread: %s", strerror(-rc));
    }
    mutex_lock(&a->lock);
    p->loop = loop;
    p->drive.disk = disk;
    p->drive.is_cdrom = cdrom;
    (void)snprintf(p->drive.serial, sizeof(p->drive.serial), "%s", serial);
    ahci_port_reset_locked(a, p);
    mutex_unlock(&a->lock);
    return 0;
}

unsigned ahci_slot(const struct ahci *a)
{
    return pci_slot(&a->pci);
}

void ahci_free(struct ahci *a)
{
    if (!a)
        return;
    mutex_lock(&a->lock);
    reset_locked(a);
    mutex_unlock(&a->lock);
    for (unsigned i = 0; i < a->port_count; i++) {
        loop_free(a->ports[i].loop);
        if (a->ports[i].drive.disk)
            disk_close(a->ports[i].drive.disk);
    }
    pci_remove(&a->pci);
    cond_done(&a->idle);
    mutex_done(&a->lock);
    free(a);
}

/* --- Standing still --- */

static void hold_locked(struct ahci *a, struct ahci_port *p) REQUIRES(a->lock)
{
    p->held++;
}

static void release_locked(struct ahci *a, struct ahci_port *p) REQUIRES(a->lock)
{
    assert(p->held);
    if (--p->held == 0)
        ahci_port_kick_locked(a, p);
}

void ahci_freeze(struct ahci *a)
{
    mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->port_count; i++)
        hold_locked(a, &a->ports[i]);
    wait_idle_locked(a);
    mutex_unlock(&a->lock);
}

void ahci_thaw(struct ahci *a)
{
    mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->port_count; i++)
        release_locked(a, &a->ports[i]);
    mutex_unlock(&a->lock);
}

void ahci_hold(struct ahci *a, unsigned port)
{
    mutex_lock(&a->lock);
    hold_locked(a, &a->ports[port]);
    wait_port_locked(a, &a->ports[port]);
    mutex_unlock(&a->lock);
}

void ahci_release(struct ahci *a, unsigned port)
{
    mutex_lock(&a->lock);
    release_locked(a, &a->ports[port]);
    mutex_unlock(&a->lock);
}

struct disk *ahci_disk(struct ahci *a, unsigned port)
{
    return a->ports[port].drive.disk;
}

void ahci_set_disk(struct ahci *a, unsigned port, struct disk *disk)
{
    struct ahci_port *p = &a->ports[port];

    mutex_lock(&a->lock); /* so that the port's thread sees it when it goes on */
    assert(p->held && !p->is_busy && disk->size_bytes == p->drive.disk->size_bytes);
    p->drive.disk = disk;
    mutex_unlock(&a->lock);
}
