/* Fuzz target: a guest's accesses to PCI configuration space and BARs, mixed with a device's
 * interrupts. Input: records of 12 bytes: operation, size, 2 bytes of padding or vector, offset,
 * value. */
#include "base/bits.h"
#include "device/pci/pci.h"

#include <stdlib.h>

static enum bus_result bar_read(struct pci_function *f, unsigned bar, uint64_t offset,
                                unsigned size, uint64_t *ret)
{
    if (offset + size > f->info->bar_size[bar])
        abort();
    *ret = offset;
    return BUS_OK;
}

static enum bus_result bar_write(struct pci_function *f, unsigned bar, uint64_t offset,
                                 unsigned size, uint64_t value)
{
    uint64_t ignored;

    return bar_read(f, bar, offset, size, &ignored);
}

static void reset(struct pci_function *f)
{
    pci_set_intx(f, false);
}

static void config_hook(struct pci_function *f, unsigned offset, unsigned size)
{
    pci_lock(f);
    if (offset + size > PCI_CONFIG_SIZE)
        abort();
    pci_unlock(f);
}

static const struct pci_ops ops = {
    .name = "fuzz",
    .bar_read = bar_read,
    .bar_write = bar_write,
    .config_written = config_hook,
    .config_read = config_hook,
    .reset = reset,
};
static const struct pci_info info = {
    .vendor_id = 0x1af4,
    .bar_size = {0, 0x1000, 0, 0, 0x4000, 0},
    .bar_64bit = 1 << 4,
    .msix_vectors = 64,
    .msix_bar = 1,
};

/** Where the host has the doorbells; 0 = it has not. */
static uint64_t bells[2];

static int doorbell(void *arg, uint64_t addr, int fd, bool on)
{
    if (on ? bells[fd] != 0 : bells[fd] != addr)
        abort();
    if (on && (addr < 0x40000000 || addr >= 0x800000000))
        abort();
    if (on && bells[!fd] == addr)
        return -1;
    bells[fd] = on ? addr : 0;
    return 0;
}

static void set_doorbells(struct pci_function *f, size_t count)
{
    const struct pci_doorbell two[2] = {
        {.offset = 0x3000},
        { .offset = 0x3004,         .fd = 1}
    };

    pci_set_doorbells(f, 4, two, count % 3);
}

static void step(struct mem *mem, struct pci_function *f, const uint8_t *p)
{
    static const uint64_t bases[4] = {0x30008000, 0x40000000, 0x400000000, 0x80000000};
    unsigned size = 1u << (p[1] & 3);
    uint64_t addr = bases[p[0] >> 2 & 3] + load_le32(p + 4) % 0x8000;
    uint64_t value = load_le32(p + 8) * 0x100000001ULL;

    switch (p[0] & 3) {
    case 0:
        (void)mem_read(mem, GPA(addr), size, &value);
        break;
    case 1:
        (void)mem_write(mem, GPA(addr), size, value);
        break;
    case 2:
        pci_set_intx(f, p[2] & 1);
        break;
    case 3:
        if (p[3] & 1)
            set_doorbells(f, p[2] & 3);
        pci_msix_notify(f, p[2]);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pci_host_config c = {
        .ecam = GPA(0x30000000),
        .ecam_size = 0x10000000,
        .mmio32 = GPA(0x40000000),
        .mmio32_size = 0x40000000,
        .mmio64 = GPA(0x400000000),
        .mmio64_size = 0x400000000,
        .doorbell = doorbell,
        .assign_bars = true,
    };
    struct mem *mem = mem_new();
    struct pci_host *host;
    struct pci_function f;

    if (!mem || mem_add_ram(mem, GPA(0x80000000), 0x10000, 0, "ram", NULL, NULL, NULL, NULL) ||
        pci_host_new(mem, &c, &host, NULL) || pci_add(host, &f, &ops, &info, 1, NULL))
        abort();
    for (; size >= 12; data += 12, size -= 12)
        step(mem, &f, data);
    set_doorbells(&f, 2);
    pci_host_reset(host);
    set_doorbells(&f, 0);
    if (bells[0] || bells[1])
        abort();
    pci_remove(&f);
    pci_host_free(host);
    mem_free(mem);
    return 0;
}
