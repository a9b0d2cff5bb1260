/* virtio over PCI, modern interface only. Spec: VIRTIO 1.2 §4.1.
 *
 * One 64-bit BAR holds the four structures, another the MSI-X table, which pci serves itself.
 *
 * Invariants:
 *  1. Bit 0 of `isr` is set, and the INTx pin up, from a queue interrupt to the driver's read of
 * the ISR register; with MSI-X the queue bit is not used.
 *  2. Order of locks: device, irq_lock, then pci's own. No lock is held towards mem.
 *
 * Threads: register accesses on vCPUs, under the device's lock but for notifications and ISR, which
 * must not wait for a device at work; interrupts from any thread.
 */
#include "base/bits.h"
#include "base/log.h"
#include "device/virtio/pci_transport.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REGS_BAR  0
#define MSIX_BAR  2
#define REGS_SIZE 0x4000

/* Where the structures lie in REGS_BAR. */
#define COMMON_OFFSET 0x0000
#define COMMON_SIZE   0x1000
#define ISR_OFFSET    0x1000
#define ISR_SIZE      0x1000
#define DEVICE_OFFSET 0x2000
#define DEVICE_SIZE   0x1000
#define NOTIFY_OFFSET 0x3000
#define NOTIFY_SIZE   0x1000
#define NOTIFY_STRIDE 4 /* bytes per queue: notify_off_multiplier */

static_assert(VIRTIO_MAX_QUEUES <= PCI_DOORBELLS, "a doorbell for every queue");

/** §4.1.4: cfg_type */
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI };

#define PCI_CAP_VENDOR 0x09

/** A capability's fields, from its start (§4.1.4, §4.1.4.4, §4.1.4.9). */
enum {
    CAP_LEN = 2,
    CAP_TYPE = 3,
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_LENGTH = 12,
    CAP_SIZE = 16,
    CAP_EXTRA = 16, /* notify_off_multiplier, or pci_cfg_data */
    CAP_EXTRA_SIZE = 20,
};

enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

static struct virtio_pci *from_function(struct pci_function *f)
{
    return container_of(f, struct virtio_pci, f);
}

/* Interrupts */

static void raise_isr(struct virtio_pci *p, uint8_t bits, bool pin) EXCLUDES(p->irq_lock)
{
    mutex_lock(&p->irq_lock);
    p->isr |= bits;
    if (pin)
        pci_set_intx(&p->f, true);
    mutex_unlock(&p->irq_lock);
}

uint8_t virtio_pci_take_isr(struct virtio_pci *p)
{
    mutex_lock(&p->irq_lock);
    uint8_t isr = p->isr;
    p->isr = 0;
    pci_set_intx(&p->f, false);
    mutex_unlock(&p->irq_lock);
    return isr;
}

static void queue_interrupt(struct virtio_transport *t, unsigned index)
{
    struct virtio_pci *p = (struct virtio_pci *)t;

    if (pci_msix_enabled(&p->f))
        pci_msix_notify(&p->f, t->dev->queues[index].msix_vector);
    else
        raise_isr(p, ISR_QUEUE, true);
}

static void config_interrupt(struct virtio_transport *t)
{
    struct virtio_pci *p = (struct virtio_pci *)t;
    bool msix = pci_msix_enabled(&p->f);

    raise_isr(p, ISR_CONFIG, !msix);
    if (msix)
        pci_msix_notify(&p->f, p->config_vector);
}

static bool can_dma(const struct virtio_transport *t)
{
    return pci_is_bus_master(&((const struct virtio_pci *)t)->f);
}

/* The BAR */

static enum bus_result bar_read(struct pci_function *f, unsigned bar, uint64_t offset,
                                unsigned size, uint64_t *ret)
{
    struct virtio_pci *p = from_function(f);
    uint8_t bytes[8] = {0};

    *ret = 0;
    if (bar != REGS_BAR)
        return BUS_OK;
    if (offset == ISR_OFFSET) {
        *ret = virtio_pci_take_isr(p);
    } else if (offset < COMMON_SIZE) {
        if (size == 8) { /* not for 1.2 drivers; harmless */
            uint64_t low = 0;
            uint64_t high = 0;
            (void)bar_read(f, bar, offset, 4, &low); /* always BUS_OK */
            (void)bar_read(f, bar, offset + 4, 4, &high);
            *ret = high << 32 | low;
            return BUS_OK;
        }
        mutex_lock(&p->t.dev->lock);
        *ret = virtio_pci_common_read(p, offset, size);
        mutex_unlock(&p->t.dev->lock);
    } else if (offset >= DEVICE_OFFSET && offset < DEVICE_OFFSET + DEVICE_SIZE) {
        mutex_lock(&p->t.dev->lock);
        virtio_config_read(p->t.dev, offset - DEVICE_OFFSET, bytes, size);
        mutex_unlock(&p->t.dev->lock);
        *ret = load_le64(bytes);
    }
    return BUS_OK;
}

static void write_device_config(struct virtio_pci *p, uint64_t offset, unsigned size,
                                uint64_t value)
{
    struct virtio_device *dev = p->t.dev;
    uint8_t bytes[8];

    store_le64(bytes, value);
    mutex_lock(&dev->lock);
    virtio_config_write(dev, offset, bytes, size);
    mutex_unlock(&dev->lock);
}

static enum bus_result bar_write(struct pci_function *f, unsigned bar, uint64_t offset,
                                 unsigned size, uint64_t value)
{
    struct virtio_pci *p = from_function(f);

    if (bar != REGS_BAR)
        return BUS_OK;
    if (offset >= NOTIFY_OFFSET) {
        virtio_queue_signal(p->t.dev, (unsigned)(offset - NOTIFY_OFFSET) / NOTIFY_STRIDE);
    } else if (offset >= DEVICE_OFFSET) {
        write_device_config(p, offset - DEVICE_OFFSET, size, value);
    } else if (offset < COMMON_SIZE && size == 8) {
        (void)bar_write(f, bar, offset, 4, (uint32_t)value); /* always BUS_OK */
        (void)bar_write(f, bar, offset + 4, 4, value >> 32);
    } else if (offset < COMMON_SIZE) {
        mutex_lock(&p->t.dev->lock);
        virtio_pci_common_write(p, offset, size, (uint32_t)value);
        mutex_unlock(&p->t.dev->lock);
    }
    return BUS_OK;
}

void virtio_pci_ring(struct virtio_pci *p)
{
    const struct virtio_device *dev = p->t.dev;
    struct pci_doorbell bells[PCI_DOORBELLS];
    size_t count = 0;

    for (unsigned i = 0; i < dev->queue_count && dev->status & VIRTIO_DRIVER_OK; i++) {
        if (dev->queues[i].enabled && dev->queues[i].kick_fd >= 0)
            bells[count++] = (struct pci_doorbell){
                .offset = NOTIFY_OFFSET + (uint64_t)i * NOTIFY_STRIDE,
                .fd = dev->queues[i].kick_fd,
            };
    }
    if (count || p->rings)
        pci_set_doorbells(&p->f, REGS_BAR, bells, count);
    p->rings = count > 0;
}

/* Configuration access capability (§4.1.4.9): a window into the BAR for drivers that cannot map it
 */

struct pci_cfg_access {
    uint64_t offset;
    unsigned size;
    uint32_t data;
};

/** What the capability asks for, if [offset, offset+size) touches its data register and it is
 * allowed. */
static bool pci_cfg_access(struct virtio_pci *p, unsigned offset, unsigned size,
                           struct pci_cfg_access *ret)
{
    unsigned data = p->pci_cfg_cap + CAP_EXTRA;

    if (offset + size <= data || offset >= data + 4)
        return false;
    pci_lock(&p->f);
    const uint8_t *cap = pci_config(&p->f) + p->pci_cfg_cap;
    uint8_t bar = cap[CAP_BAR];
    ret->offset = load_le32(cap + CAP_OFFSET);
    ret->size = load_le32(cap + CAP_LENGTH);
    ret->data = load_le32(cap + CAP_EXTRA);
    pci_unlock(&p->f);
    if (bar == REGS_BAR && (ret->size == 1 || ret->size == 2 || ret->size == 4) &&
        ret->offset % ret->size == 0 && ret->offset < REGS_SIZE)
        return true;
    guest_error(p->t.dev->ops->name, "PCI configuration access of %u bytes at 0x%llx of BAR %u",
                ret->size, (unsigned long long)ret->offset, bar);
    return false;
}

static void config_read(struct pci_function *f, unsigned offset, unsigned size)
{
    struct virtio_pci *p = from_function(f);
    struct pci_cfg_access a;
    uint64_t value = 0;

    if (!pci_cfg_access(p, offset, size, &a))
        return;
    (void)bar_read(f, REGS_BAR, a.offset, a.size, &value); /* always BUS_OK */
    pci_lock(f);
    store_le32(pci_config(f) + p->pci_cfg_cap + CAP_EXTRA, (uint32_t)value);
    pci_unlock(f);
}

static void config_written(struct pci_function *f, unsigned offset, unsigned size)
{
    struct virtio_pci *p = from_function(f);
    struct pci_cfg_access a;

    if (pci_cfg_access(p, offset, size, &a))
        (void)bar_write(f, REGS_BAR, a.offset, a.size, a.data & MASK(8 * a.size));
}

static void reset(struct pci_function *f)
{
    struct virtio_pci *p = from_function(f);

    mutex_lock(&p->t.dev->lock);
    virtio_pci_set_status(p, 0);
    mutex_unlock(&p->t.dev->lock);
}

static const struct pci_ops virtio_pci_ops = {
    .name = "virtio-pci",
    .bar_read = bar_read,
    .bar_write = bar_write,
    .config_written = config_written,
    .config_read = config_read,
    .reset = reset,
};

/* Setting up */

/** PCI class codes, by virtio device type; others are "unclassified" (0x00ff00). */
static uint32_t class_code(uint16_t device_id)
{
    static const struct {
        uint16_t device_id;
        uint32_t class_code;
    } table[] = {
        {1,  0x020000}, /* net: Ethernet controller */
        {2,  0x018000}, /* block: other mass storage */
        {3,  0x078000}, /* console: other communication */
        {19, 0x028000}, /* socket: other network */
        {26, 0x018000}, /* file system */
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (table[i].device_id == device_id)
            return table[i].class_code;
    }
    return 0x00ff00;
}

/** Append a virtio capability; its offset or -ENOSPC. */
static int add_capability(struct virtio_pci *p, uint8_t type, uint32_t offset, uint32_t length,
                          unsigned size, uint32_t extra, const uint8_t *write_mask)
{
    uint8_t cap[CAP_EXTRA_SIZE] = {0};

    cap[CAP_LEN] = (uint8_t)size;
    cap[CAP_TYPE] = type;
    cap[CAP_BAR] = REGS_BAR;
    store_le32(cap + CAP_OFFSET, offset);
    store_le32(cap + CAP_LENGTH, length);
    store_le32(cap + CAP_EXTRA, extra);
    return pci_add_capability(&p->f, PCI_CAP_VENDOR, cap, write_mask, size);
}

static int add_capabilities(struct virtio_pci *p)
{
    static const uint8_t writable[CAP_EXTRA_SIZE] = {
        [CAP_BAR] = 0xff,        [CAP_OFFSET] = 0xff,     [CAP_OFFSET + 1] = 0xff,
        [CAP_OFFSET + 2] = 0xff, [CAP_OFFSET + 3] = 0xff, [CAP_LENGTH] = 0xff,
        [CAP_LENGTH + 1] = 0xff, [CAP_LENGTH + 2] = 0xff, [CAP_LENGTH + 3] = 0xff,
        [CAP_EXTRA] = 0xff,      [CAP_EXTRA + 1] = 0xff,  [CAP_EXTRA + 2] = 0xff,
        [CAP_EXTRA + 3] = 0xff,
    };
    int rc = add_capability(p, CAP_COMMON, COMMON_OFFSET, COMMON_SIZE, CAP_SIZE, 0, NULL);

    if (rc >= 0)
        rc = add_capability(p, CAP_NOTIFY, NOTIFY_OFFSET, NOTIFY_SIZE, CAP_EXTRA_SIZE,
                            NOTIFY_STRIDE, NULL);
    if (rc >= 0)
        rc = add_capability(p, CAP_ISR, ISR_OFFSET, ISR_SIZE, CAP_SIZE, 0, NULL);
    if (rc >= 0 && p->t.dev->config_size)
        rc = add_capability(p, CAP_DEVICE, DEVICE_OFFSET, DEVICE_SIZE, CAP_SIZE, 0, NULL);
    if (rc >= 0)
        rc = add_capability(p, CAP_PCI, 0, 0, CAP_EXTRA_SIZE, 0, writable);
    if (rc < 0)
        return rc;
    p->pci_cfg_cap = (unsigned)rc;
    return 0;
}

static void virtio_pci_free(struct virtio_transport *t)
{
    struct virtio_pci *p = (struct virtio_pci *)t;

    pci_remove(&p->f);
    mutex_done(&p->irq_lock);
    free(p);
}

static const struct state_field transport_fields[] = {
    STATE_FIELD(struct virtio_pci, device_select), STATE_FIELD(struct virtio_pci, driver_select),
    STATE_FIELD(struct virtio_pci, queue_select),  STATE_FIELD(struct virtio_pci, config_vector),
    STATE_FIELD(struct virtio_pci, isr),           {0},
};

static void transport_save(struct virtio_transport *t, struct state_out *out)
{
    struct virtio_pci *p = (struct virtio_pci *)t;

    mutex_lock(&p->irq_lock);
    state_put(out, transport_fields, p);
    mutex_unlock(&p->irq_lock);
}

/** The pin itself is the PCI function's state. The caller holds the device's lock, which is known
 * here by another name. */
static int transport_load(struct virtio_transport *t, const struct state_section *s,
                          struct error *err) NO_THREAD_SAFETY
{
    struct virtio_pci *p = (struct virtio_pci *)t;

    mutex_lock(&p->irq_lock);
    int rc = state_get(s, transport_fields, p, err);
    p->isr &= ISR_QUEUE | ISR_CONFIG;
    mutex_unlock(&p->irq_lock);
    p->config_vector = virtio_pci_valid_vector(p, p->config_vector);
    for (unsigned i = 0; i < t->dev->queue_count; i++)
        t->dev->queues[i].msix_vector = virtio_pci_valid_vector(p, t->dev->queues[i].msix_vector);
    virtio_pci_ring(p);
    return rc;
}

static const struct virtio_transport_ops transport_ops = {
    .queue_interrupt = queue_interrupt,
    .config_interrupt = config_interrupt,
    .can_dma = can_dma,
    .save = transport_save,
    .load = transport_load,
    .free = virtio_pci_free,
};

int virtio_pci_new(struct pci_host *host, struct virtio_device *dev, struct virtio_transport **ret,
                   struct error *err)
{
    struct virtio_pci *p = calloc(1, sizeof(*p));

    if (!p)
        return error_set(err, ENOMEM, "out of memory");
    p->t.ops = &transport_ops;
    p->info = (struct pci_info){
        .vendor_id = 0x1af4,
        .device_id = (uint16_t)(0x1040 + dev->ops->device_id), /* §4.1.2.1 */
        .subsystem_vendor_id = 0x1af4,
        .subsystem_id = 0x1100, /* anything from 0x40 on */
        .class_code = class_code(dev->ops->device_id),
        .revision = 1,
        .bar_size = {[REGS_BAR] = REGS_SIZE, [MSIX_BAR] = 4096},
        .bar_64bit = BIT(REGS_BAR) | BIT(MSIX_BAR),
        .bar_prefetch = BIT(REGS_BAR) | BIT(MSIX_BAR),
        .msix_vectors = dev->queue_count + 1,
        .msix_bar = MSIX_BAR,
    };
    mutex_init(&p->irq_lock);
    virtio_pci_forget(p);
    int rc = virtio_attach(dev, &p->t, err);
    if (!rc)
        rc = pci_add(host, &p->f, &virtio_pci_ops, &p->info, -1, err);
    if (!rc) {
        rc = add_capabilities(p);
        if (rc)
            (void)error_set(err, -rc, "no room for the capabilities of '%s'", dev->ops->name);
    }
    if (rc) {
        virtio_detach(dev);
        virtio_pci_free(&p->t);
        return rc;
    }
    *ret = &p->t;
    return 0;
}

void virtio_transport_free(struct virtio_transport *t)
{
    if (!t)
        return;
    struct virtio_device *dev = t->dev;

    virtio_detach(dev);
    t->ops->free(t);
    dev->ops->free(dev);
}

unsigned virtio_pci_slot(const struct virtio_transport *t)
{
    return pci_slot(&((const struct virtio_pci *)t)->f);
}
