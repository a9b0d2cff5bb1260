/* One PCI function: configuration space, BARs, capabilities, reset.
 * Spec: PCI Local Bus 3.0 §6; PCI Express Base 5.0 §7.5.3 (capability), §6.6.2 (function-level
 * reset).
 *
 * Invariants:
 *  1. A guest write changes a configuration bit only where `mask` is set.
 *  2. A BAR's map has a base if and only if memory decoding is on; `command` and `msix_enabled`
 *     repeat what `config` says.
 *  3. The device's hooks are called with no lock held.
 *
 * Threads: any; the function's lock guards the registers. */
#include "base/bits.h"
#include "base/log.h"
#include "device/pci/pci_internal.h"

#include <errno.h>
#include <stdlib.h>

#define EXPRESS_SIZE     60
#define EXPRESS_DEVCTL   8
#define DEVCTL_FLR       0x80 /* bit 15, in the register's upper byte */
#define DEVCAP_FLR       (1u << 28)
#define DEVCAP_ROLE_ERR  (1u << 15)
#define EXPRESS_RC_ENDPT 0x92 /* version 2, root complex integrated endpoint */

static bool bar_is_64bit(const struct pci_info *info, unsigned bar)
{
    return info->bar_64bit & (1u << bar);
}

/* Bytes of a BAR register pair as one number. */
static uint64_t bar_value(const uint8_t *config, const struct pci_info *info, unsigned bar)
{
    const uint8_t *p = config + PCI_BAR0 + 4 * bar;

    return bar_is_64bit(info, bar) ? load_le64(p) : load_le32(p);
}

static void store_bar(uint8_t *config, const struct pci_info *info, unsigned bar, uint64_t value)
{
    uint8_t *p = config + PCI_BAR0 + 4 * bar;

    store_le32(p, (uint32_t)value);
    if (bar_is_64bit(info, bar))
        store_le32(p + 4, (uint32_t)(value >> 32));
}

void pci_update_decoding_locked(struct pci_state *s, const struct pci_info *info)
{
    uint16_t command = load_le16(s->config + PCI_COMMAND);
    bool msix = s->msix_cap && load_le16(s->config + s->msix_cap + 2) & PCI_MSIX_ENABLE;

    __atomic_store_n(&s->command, command, __ATOMIC_RELAXED);
    __atomic_store_n(&s->msix_enabled, msix, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < PCI_BARS; i++) {
        if (!s->maps[i])
            continue;
        uint64_t base = bar_value(s->config, info, i) & ~(uint64_t)15;

        /* relaxed: a vCPU that races with the move may see the old place or the new one */
        __atomic_store_n(&s->maps[i]->base, command & PCI_COMMAND_MEMORY ? base : PCI_UNMAPPED,
                         __ATOMIC_RELAXED);
    }
}

/* The next free place for a BAR, as firmware would choose it; 0 = no room. */
static uint64_t place_bar(struct pci_host *host, uint64_t size, bool is_64bit)
{
    const struct pci_host_config *c = &host->config;
    bool high = is_64bit && c->mmio64_size;
    uint64_t *next = high ? &host->next64 : &host->next32;
    uint64_t end = high ? c->mmio64.v + c->mmio64_size : c->mmio32.v + c->mmio32_size;
    uint64_t base = align_up(*next, size);

    if (!c->assign_bars || base < *next || base > end || end - base < size)
        return 0;
    *next = base + size;
    return base;
}

static int add_bars(struct pci_function *f)
{
    struct pci_host *host = f->host;
    struct pci_state *s = f->state;

    for (unsigned i = 0; i < PCI_BARS; i++) {
        uint64_t size = f->info->bar_size[i];
        bool is_64bit = bar_is_64bit(f->info, i);

        if (!size)
            continue;
        assert(is_pow2(size) && size >= MEM_PAGE_SIZE);
        assert(is_64bit ? i + 1 < PCI_BARS && !f->info->bar_size[i + 1] : size <= 1u << 31);
        struct pci_bar_map *map = &host->maps[s->slot * PCI_BARS + i];
        *map = (struct pci_bar_map){.base = PCI_UNMAPPED, .size = size, .f = f, .bar = i};
        s->maps[i] = map;
        host->map_count = MAX(host->map_count, (size_t)(map - host->maps) + 1);
        uint64_t flags = (is_64bit ? 4 : 0) | (f->info->bar_prefetch & (1u << i) ? 8 : 0);
        store_bar(s->mask, f->info, i, ~(size - 1));
        store_bar(s->config, f->info, i, place_bar(host, size, is_64bit) | flags);
        store_bar(s->initial, f->info, i, bar_value(s->config, f->info, i));
    }
    return 0;
}

static void init_header(struct pci_function *f)
{
    const struct pci_info *info = f->info;
    struct pci_state *s = f->state;
    uint8_t *c = s->config;

    store_le16(c + PCI_VENDOR_ID, info->vendor_id);
    store_le16(c + PCI_DEVICE_ID, info->device_id);
    store_le32(c + PCI_REVISION, info->class_code << 8 | info->revision);
    store_le16(c + PCI_SUBSYSTEM_VENDOR_ID, info->subsystem_vendor_id);
    store_le16(c + PCI_SUBSYSTEM_ID, info->subsystem_id);
    store_le16(c + PCI_COMMAND, info->command);
    store_le16(s->mask + PCI_COMMAND,
               (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
                PCI_COMMAND_INTX_OFF) &
                   ~info->command);
    s->mask[PCI_CACHE_LINE] = 0xff;
    s->mask[PCI_INTERRUPT_LINE] = 0xff;
    s->cap_tail = PCI_CAPABILITIES;
    s->cap_end = PCI_HEADER_END;
}

/* A PCI Express capability, for function-level reset. */
static int add_express(struct pci_function *f)
{
    uint8_t bytes[EXPRESS_SIZE] = {0};
    uint8_t mask[EXPRESS_SIZE] = {0};

    store_le16(bytes + 2, EXPRESS_RC_ENDPT);
    store_le32(bytes + 4, DEVCAP_FLR | DEVCAP_ROLE_ERR);
    store_le16(mask + EXPRESS_DEVCTL, 0xffff);
    int offset = pci_add_capability(f, PCI_CAP_EXPRESS, bytes, mask, sizeof(bytes));
    if (offset < 0)
        return offset;
    f->state->express_cap = (unsigned)offset;
    return 0;
}

static int find_slot(const struct pci_host *host, int slot)
{
    if (slot >= PCI_SLOTS)
        return -ENOSPC;
    if (slot >= 0)
        return host->slots[slot] ? -ENOSPC : slot;
    for (slot = 1; slot < PCI_SLOTS; slot++) {
        if (!host->slots[slot])
            return slot;
    }
    return -ENOSPC;
}

int pci_add(struct pci_host *host, struct pci_function *f, const struct pci_ops *ops,
            const struct pci_info *info, int slot, struct error *err)
{
    int at = find_slot(host, slot);

    if (at < 0)
        return error_set(err, ENOSPC, "no free PCI slot for '%s'", ops->name);
    struct pci_state *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, ENOMEM, "out of memory");
    *f = (struct pci_function){.ops = ops, .info = info, .host = host, .state = s};
    mutex_init(&s->lock);
    s->slot = (unsigned)at;
    host->slots[at] = f;
    init_header(f);
    int rc = add_bars(f);
    if (!rc && f != &host->bridge && !info->plain) {
        s->config[PCI_INTERRUPT_PIN] = 1;
        rc = add_express(f);
    }
    if (!rc && info->msix_vectors)
        rc = pci_msix_init(f);
    if (rc) {
        pci_remove(f);
        return error_set(err, -rc, "cannot set up PCI function '%s'", ops->name);
    }
    return 0;
}

void pci_remove(struct pci_function *f)
{
    struct pci_state *s = f->state;

    if (!s)
        return;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        if (s->maps[i])
            *s->maps[i] = (struct pci_bar_map){.base = PCI_UNMAPPED};
    }
    f->host->slots[s->slot] = NULL;
    mutex_done(&s->lock);
    free(s);
    f->state = NULL;
}

int pci_add_capability(struct pci_function *f, uint8_t id, const void *bytes,
                       const void *write_mask, unsigned size)
{
    struct pci_state *s = f->state;
    unsigned at = (s->cap_end + 3) & ~3u;

    assert(size >= 2);
    if (at >= 256 || size > 256 - at)
        return -ENOSPC;
    memcpy(s->config + at + 2, (const uint8_t *)bytes + 2, size - 2);
    memcpy(s->initial + at + 2, (const uint8_t *)bytes + 2, size - 2);
    if (write_mask)
        memcpy(s->mask + at + 2, (const uint8_t *)write_mask + 2, size - 2);
    s->config[at] = id;
    s->config[at + 1] = 0;
    s->config[s->cap_tail] = (uint8_t)at;
    s->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    s->cap_tail = at + 1;
    s->cap_end = at + size;
    return (int)at;
}

void pci_add_registers(struct pci_function *f, unsigned offset, const void *bytes, unsigned size)
{
    struct pci_state *s = f->state;

    assert(offset >= PCI_HEADER_END && offset + size <= PCI_CONFIG_SIZE);
    memset(s->mask + offset, 0xff, size);
    if (bytes) {
        memcpy(s->config + offset, bytes, size);
        memcpy(s->initial + offset, bytes, size);
    }
}

uint8_t *pci_config(struct pci_function *f)
{
    return f->state->config;
}

void pci_lock(struct pci_function *f) NO_THREAD_SAFETY
{
    mutex_lock(&f->state->lock);
}

void pci_unlock(struct pci_function *f) NO_THREAD_SAFETY
{
    mutex_unlock(&f->state->lock);
}

bool pci_is_bus_master(const struct pci_function *f)
{
    return __atomic_load_n(&f->state->command, __ATOMIC_RELAXED) & PCI_COMMAND_MASTER;
}

unsigned pci_slot(const struct pci_function *f)
{
    return f->state->slot;
}

struct mem *pci_mem(const struct pci_function *f)
{
    return f->host->mem;
}

void pci_set_intx(struct pci_function *f, bool level)
{
    struct pci_state *s = f->state;

    mutex_lock(&s->lock);
    bool changed = s->intx_level != level;
    s->intx_level = level;
    if (level)
        s->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    else
        s->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
    mutex_unlock(&s->lock);
    if (changed)
        pci_host_update_intx(f->host, f);
}

uint32_t pci_function_config_read(struct pci_function *f, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    if (offset >= PCI_HEADER_END && f->ops->config_read)
        f->ops->config_read(f, offset, size);
    mutex_lock(&f->state->lock);
    memcpy(&value, f->state->config + offset, size);
    mutex_unlock(&f->state->lock);
    return le32toh(value);
}

void pci_function_config_write(struct pci_function *f, unsigned offset, unsigned size,
                               uint32_t value)
{
    struct pci_state *s = f->state;
    bool flr = false;

    mutex_lock(&s->lock);
    for (unsigned i = offset; i < offset + size; i++, value >>= 8)
        s->config[i] = (uint8_t)((s->config[i] & ~s->mask[i]) | (value & s->mask[i]));
    if (s->express_cap) {
        uint8_t *control = s->config + s->express_cap + EXPRESS_DEVCTL + 1;

        flr = *control & DEVCTL_FLR;
        *control &= (uint8_t)~DEVCTL_FLR; /* always reads as zero */
    }
    pci_update_decoding_locked(s, f->info);
    mutex_unlock(&s->lock);
    pci_move_doorbells(f);
    if (flr) {
        pci_function_reset(f);
        return;
    }
    pci_host_update_intx(f->host, f);
    pci_msix_flush(f);
    if (offset >= PCI_HEADER_END && f->ops->config_written)
        f->ops->config_written(f, offset, size);
}

void pci_function_reset(struct pci_function *f)
{
    struct pci_state *s = f->state;

    mutex_lock(&s->lock);
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        s->config[i] = (uint8_t)((s->config[i] & ~s->mask[i]) | (s->initial[i] & s->mask[i]));
    pci_msix_reset_locked(s);
    pci_update_decoding_locked(s, f->info);
    mutex_unlock(&s->lock);
    pci_move_doorbells(f);
    if (f->ops->reset)
        f->ops->reset(f);
    pci_host_update_intx(f->host, f);
}

enum bus_result pci_function_bar_read(struct pci_function *f, unsigned bar, uint64_t offset,
                                      unsigned size, uint64_t *ret)
{
    if (f->info->msix_vectors && bar == f->info->msix_bar && offset < PCI_MSIX_AREA) {
        *ret = pci_msix_read(f, offset, size);
        return BUS_OK;
    }
    *ret = UINT64_MAX;
    return f->ops->bar_read ? f->ops->bar_read(f, bar, offset, size, ret) : BUS_OK;
}

enum bus_result pci_function_bar_write(struct pci_function *f, unsigned bar, uint64_t offset,
                                       unsigned size, uint64_t value)
{
    if (f->info->msix_vectors && bar == f->info->msix_bar && offset < PCI_MSIX_AREA) {
        pci_msix_write(f, offset, size, value);
        return BUS_OK;
    }
    return f->ops->bar_write ? f->ops->bar_write(f, bar, offset, size, value) : BUS_OK;
}
