/* Generic PCI Express host bridge: ECAM, memory windows, INTx routing.
 * Spec: PCI Express Base 5.0 §7.2.2 (ECAM); devicetree binding pci-host-ecam-generic; PCI 3.0
 * §2.2.6 (INTx swizzle).
 *
 * Invariants:
 *  1. Nothing answers with a fault: absent functions and unclaimed addresses read as all ones and
 *     ignore writes, as on a bus that ends in a master abort.
 *  2. Line n of intx is up if and only if intx_asserted[n] is not 0.
 *
 * Threads: vCPUs (windows), any (INTx). */
#include "device/pci/pci_internal.h"

#include <errno.h>
#include <stdlib.h>

static const struct pci_info bridge_info = {
    .vendor_id = 0x1b36,
    .device_id = 0x0008, /* the generic ECAM host bridge that guests know */
    .class_code = 0x060000,
};

static void bridge_written(struct pci_function *f, unsigned offset, unsigned size)
{
    const struct pci_host_config *c = &f->host->config;

    if (c->bridge_written)
        c->bridge_written(c->arg, f);
}

/** A machine's reset puts the bridge's registers back, too. */
static void bridge_reset(struct pci_function *f)
{
    bridge_written(f, 0, 0);
}

static const struct pci_ops bridge_ops = {
    .name = "pci-host",
    .config_written = bridge_written,
    .reset = bridge_reset,
};

static struct pci_function *ecam_function(const struct pci_host *host, uint64_t offset)
{
    unsigned bus = (unsigned)(offset >> 20);
    unsigned devfn = (unsigned)(offset >> 12) & 0xff;

    return bus == 0 && devfn % 8 == 0 ? host->slots[devfn / 8] : NULL;
}

uint32_t pci_host_config_read(struct pci_host *host, uint64_t offset, unsigned size)
{
    struct pci_function *f = ecam_function(host, offset);

    return f ? pci_function_config_read(f, offset & (PCI_CONFIG_SIZE - 1), size) : UINT32_MAX;
}

void pci_host_config_write(struct pci_host *host, uint64_t offset, unsigned size, uint32_t value)
{
    struct pci_function *f = ecam_function(host, offset);

    if (f)
        pci_function_config_write(f, offset & (PCI_CONFIG_SIZE - 1), size, value);
}

static enum bus_result ecam_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    *ret = pci_host_config_read(dev, offset, size);
    return BUS_OK;
}

static enum bus_result ecam_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    pci_host_config_write(dev, offset, size, (uint32_t)value);
    return BUS_OK;
}

static const struct mmio_ops ecam_ops = {
    .name = "pci-ecam",
    .read = ecam_read,
    .write = ecam_write,
    .max_size = 4,
};

static const struct pci_bar_map *find_bar(const struct pci_host *host, uint64_t addr,
                                          uint64_t *ret_offset)
{
    for (size_t i = 0; i < host->map_count; i++) {
        const struct pci_bar_map *map = &host->maps[i];

        if (!map->size)
            continue;
        uint64_t base = __atomic_load_n(&map->base, __ATOMIC_RELAXED);
        if (base != PCI_UNMAPPED && addr - base < map->size) {
            *ret_offset = addr - base;
            return map;
        }
    }
    return NULL;
}

/** Is @addr in a configuration window that lies in a memory window? Then *@ret_offset is there. */
static bool in_ecam(const struct pci_host *host, uint64_t addr, uint64_t *ret_offset)
{
    /* relaxed: a vCPU that races with the move may see the old place or the new one */
    uint64_t base = __atomic_load_n(&host->ecam, __ATOMIC_RELAXED);

    *ret_offset = addr - base;
    return base != PCI_UNMAPPED && *ret_offset < host->config.ecam_size;
}

static enum bus_result window_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    const struct pci_window *w = dev;
    uint64_t at;

    *ret = UINT64_MAX;
    if (in_ecam(w->host, w->base + offset, &at)) {
        *ret = pci_host_config_read(w->host, at, MIN(size, 4u));
        if (size == 8)
            *ret |= (uint64_t)pci_host_config_read(w->host, at + 4, 4) << 32;
        return BUS_OK;
    }
    const struct pci_bar_map *map = find_bar(w->host, w->base + offset, &at);
    return map ? pci_function_bar_read(map->f, map->bar, at, size, ret) : BUS_OK;
}

static enum bus_result window_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    const struct pci_window *w = dev;
    uint64_t at;

    if (in_ecam(w->host, w->base + offset, &at)) {
        pci_host_config_write(w->host, at, MIN(size, 4u), (uint32_t)value);
        if (size == 8)
            pci_host_config_write(w->host, at + 4, 4, (uint32_t)(value >> 32));
        return BUS_OK;
    }
    const struct pci_bar_map *map = find_bar(w->host, w->base + offset, &at);
    return map ? pci_function_bar_write(map->f, map->bar, at, size, value) : BUS_OK;
}

static const struct mmio_ops window_ops = {
    .name = "pci-memory",
    .read = window_read,
    .write = window_write,
};

/* No function has I/O BARs. */
static enum bus_result pio_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    *ret = UINT64_MAX;
    return BUS_OK;
}

static enum bus_result pio_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    return BUS_OK;
}

static const struct mmio_ops pio_ops = {
    .name = "pci-io",
    .read = pio_read,
    .write = pio_write,
    .max_size = 4,
};

void pci_host_update_intx(struct pci_host *host, struct pci_function *f)
{
    struct pci_state *s = f->state;
    unsigned line = s->slot % 4; /* INTA of slot n */

    /* The level is read inside intx_lock, so that of two changes the later one has the last word.
     */
    mutex_lock(&host->intx_lock);
    mutex_lock(&s->lock);
    bool up = s->intx_level && !pci_msix_enabled(f) &&
              !(__atomic_load_n(&s->command, __ATOMIC_RELAXED) & PCI_COMMAND_INTX_OFF);
    mutex_unlock(&s->lock);
    uint32_t before = host->intx_asserted[line];
    uint32_t after = up ? before | 1u << s->slot : before & ~(1u << s->slot);
    host->intx_asserted[line] = after;
    if (!before != !after)
        irq_set(&host->config.intx[line], after != 0);
    mutex_unlock(&host->intx_lock);
}

static int add_regions(struct pci_host *host, struct error *err)
{
    const struct pci_host_config *c = &host->config;
    bool inside = c->ecam.v - c->mmio32.v < c->mmio32_size;
    int rc = inside ? 0 : mem_add_mmio(host->mem, c->ecam, c->ecam_size, &ecam_ops, host, err);

    host->ecam = inside ? c->ecam.v : PCI_UNMAPPED;
    if (!rc && c->mmio32_size)
        rc = mem_add_mmio(host->mem, c->mmio32, c->mmio32_size, &window_ops, &host->window32, err);
    if (!rc && c->mmio64_size)
        rc = mem_add_mmio(host->mem, c->mmio64, c->mmio64_size, &window_ops, &host->window64, err);
    if (!rc && c->pio_size)
        rc = mem_add_mmio(host->mem, c->pio, c->pio_size, &pio_ops, host, err);
    return rc;
}

int pci_host_new(struct mem *mem, const struct pci_host_config *config, struct pci_host **ret,
                 struct error *err)
{
    struct pci_host *host = calloc(1, sizeof(*host));

    if (!host)
        return error_set(err, ENOMEM, "out of memory");
    host->mem = mem;
    host->config = *config;
    host->window32 = (struct pci_window){.host = host, .base = config->mmio32.v};
    host->window64 = (struct pci_window){.host = host, .base = config->mmio64.v};
    host->next32 = config->mmio32.v;
    host->next64 = config->mmio64.v;
    mutex_init(&host->intx_lock);
    mutex_init(&host->doorbell_lock);
    int rc = pci_add(host, &host->bridge, &bridge_ops,
                     config->bridge ? config->bridge : &bridge_info, 0, err);
    if (!rc)
        rc = add_regions(host, err);
    if (rc) {
        pci_host_free(host);
        return rc;
    }
    *ret = host;
    return 0;
}

void pci_host_free(struct pci_host *host)
{
    if (!host)
        return;
    pci_remove(&host->bridge);
    mutex_done(&host->doorbell_lock);
    mutex_done(&host->intx_lock);
    free(host);
}

void pci_host_move_ecam(struct pci_host *host, uint64_t base)
{
    __atomic_store_n(&host->ecam, base, __ATOMIC_RELAXED); /* see in_ecam() */
}

void pci_host_used64(const struct pci_host *host, uint64_t *ret_first, uint64_t *ret_end)
{
    uint64_t first = UINT64_MAX;
    uint64_t end = 0;

    for (size_t i = 0; i < host->map_count; i++) {
        const struct pci_bar_map *map = &host->maps[i];
        uint64_t base = __atomic_load_n(&map->base, __ATOMIC_RELAXED); /* see in_ecam() */

        if (!map->size || base == PCI_UNMAPPED ||
            base - host->config.mmio64.v >= host->config.mmio64_size)
            continue;
        first = MIN(first, base);
        end = MAX(end, base + map->size);
    }
    *ret_first = end ? first : 0;
    *ret_end = end;
}

struct pci_function *pci_host_bridge(struct pci_host *host)
{
    return &host->bridge;
}

void pci_host_reset(struct pci_host *host)
{
    for (unsigned i = 0; i < PCI_SLOTS; i++) {
        if (host->slots[i])
            pci_function_reset(host->slots[i]);
    }
}
