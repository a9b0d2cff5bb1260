/* MSI-X: vector table, pending bits, messages. Spec: PCI Local Bus 3.0 §6.8.2.
 *
 * A message is a 4-byte memory write by the function. It goes to RAM or to the board's interrupt
 * controller window (pci_host_config.msi) and nowhere else: a device sends messages with its own
 * lock held, and a message that a hostile guest points at that device's registers would wait for
 * itself.
 *
 * Invariant: a vector is pending only while it may not be sent (masked, or the function may not
 * write to memory).
 *
 * Threads: any; table and pending bits are under the function's lock, messages are sent without
 * it. */
#include "base/bits.h"
#include "base/log.h"
#include "device/pci/pci_internal.h"

#include <errno.h>

#define ENTRY_SIZE     16
#define VECTOR_MASK    1u
#define MSIX_SIZE      12
#define TABLE_BYTES(f) ((f)->info->msix_vectors * ENTRY_SIZE)

int pci_msix_init(struct pci_function *f)
{
    const struct pci_info *info = f->info;
    uint8_t bytes[MSIX_SIZE] = {0};
    uint8_t mask[MSIX_SIZE] = {0};

    assert(info->msix_vectors <= PCI_MSIX_MAX);
    assert(info->msix_bar < PCI_BARS && info->bar_size[info->msix_bar] >= PCI_MSIX_AREA);
    store_le16(bytes + 2, (uint16_t)(info->msix_vectors - 1));
    store_le32(bytes + 4, info->msix_bar);
    store_le32(bytes + 8, PCI_MSIX_PBA | info->msix_bar);
    store_le16(mask + 2, PCI_MSIX_ENABLE | PCI_MSIX_MASK);
    int offset = pci_add_capability(f, PCI_CAP_MSIX, bytes, mask, sizeof(bytes));
    if (offset < 0)
        return offset;
    f->state->msix_cap = (unsigned)offset;
    mutex_lock(&f->state->lock);
    pci_msix_reset_locked(f->state);
    mutex_unlock(&f->state->lock);
    return 0;
}

void pci_msix_reset_locked(struct pci_state *s)
{
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
        s->msix[i] = (struct pci_msix_entry){.control = VECTOR_MASK};
    s->msix_pending = 0;
}

bool pci_msix_enabled(const struct pci_function *f)
{
    return __atomic_load_n(&f->state->msix_enabled, __ATOMIC_RELAXED);
}

static void send(struct pci_function *f, const struct pci_msix_entry *entry)
{
    const struct pci_host_config *c = &f->host->config;
    uint8_t data[4];

    store_le32(data, entry->data);
    if (entry->addr - c->msi.v < c->msi_size) {
        if (mem_write(f->host->mem, GPA(entry->addr), 4, entry->data) == BUS_OK)
            return;
    } else if (mem_copy_out(f->host->mem, GPA(entry->addr), data, sizeof(data)) == 0) {
        return;
    }
    guest_error(f->ops->name, "MSI-X message to 0x%llx is lost", (unsigned long long)entry->addr);
}

static bool may_send_locked(const struct pci_state *s, unsigned vector) REQUIRES(s->lock)
{
    uint16_t control = load_le16(s->config + s->msix_cap + 2);

    return !(control & PCI_MSIX_MASK) && !(s->msix[vector].control & VECTOR_MASK) &&
           load_le16(s->config + PCI_COMMAND) & PCI_COMMAND_MASTER;
}

void pci_msix_notify(struct pci_function *f, unsigned vector)
{
    struct pci_state *s = f->state;

    if (vector >= f->info->msix_vectors || !pci_msix_enabled(f))
        return;
    mutex_lock(&s->lock);
    struct pci_msix_entry entry = s->msix[vector];
    bool now = may_send_locked(s, vector);
    if (!now)
        s->msix_pending |= BIT(vector);
    mutex_unlock(&s->lock);
    if (now)
        send(f, &entry);
}

void pci_msix_flush(struct pci_function *f)
{
    struct pci_state *s = f->state;

    if (!pci_msix_enabled(f))
        return;
    for (unsigned i = 0; i < f->info->msix_vectors; i++) {
        mutex_lock(&s->lock);
        struct pci_msix_entry entry = s->msix[i];
        bool now = s->msix_pending & BIT(i) && may_send_locked(s, i);
        if (now)
            s->msix_pending &= ~BIT(i);
        mutex_unlock(&s->lock);
        if (now)
            send(f, &entry);
    }
}

/* One aligned word of the table or the pending bits. */
static uint32_t read32(struct pci_function *f, uint64_t offset)
{
    struct pci_state *s = f->state;
    uint32_t value = 0;

    mutex_lock(&s->lock);
    if (offset < TABLE_BYTES(f)) {
        const struct pci_msix_entry *e = &s->msix[offset / ENTRY_SIZE];
        const uint32_t words[4] = {(uint32_t)e->addr, (uint32_t)(e->addr >> 32), e->data,
                                   e->control};

        value = words[offset / 4 % 4];
    } else if (offset == PCI_MSIX_PBA) {
        value = (uint32_t)s->msix_pending;
    } else if (offset == PCI_MSIX_PBA + 4) {
        value = (uint32_t)(s->msix_pending >> 32);
    }
    mutex_unlock(&s->lock);
    return value;
}

static void write32(struct pci_function *f, uint64_t offset, uint32_t value)
{
    struct pci_state *s = f->state;

    if (offset >= TABLE_BYTES(f))
        return; /* pending bits and the rest are read-only */
    mutex_lock(&s->lock);
    struct pci_msix_entry *e = &s->msix[offset / ENTRY_SIZE];
    switch (offset / 4 % 4) {
    case 0:
        e->addr = (e->addr & ~MASK(32)) | (value & ~3u);
        break;
    case 1:
        e->addr = (uint32_t)e->addr | (uint64_t)value << 32;
        break;
    case 2:
        e->data = value;
        break;
    case 3:
        e->control = value & VECTOR_MASK;
        break;
    }
    mutex_unlock(&s->lock);
}

uint64_t pci_msix_read(struct pci_function *f, uint64_t offset, unsigned size)
{
    if (size < 4) {
        guest_error(f->ops->name, "%u-byte read of the MSI-X table", size);
        return UINT64_MAX; /* §6.8.2: the result is undefined */
    }
    uint64_t value = read32(f, offset);
    if (size == 8)
        value |= (uint64_t)read32(f, offset + 4) << 32;
    return value;
}

void pci_msix_write(struct pci_function *f, uint64_t offset, unsigned size, uint64_t value)
{
    if (size < 4) {
        guest_error(f->ops->name, "%u-byte write of the MSI-X table", size);
        return;
    }
    write32(f, offset, (uint32_t)value);
    if (size == 8)
        write32(f, offset + 4, (uint32_t)(value >> 32));
    pci_msix_flush(f);
}
