/* Device tree of the `virt` machine.
 * Spec: Devicetree Specification 0.4; Linux's bindings riscv/cpus, riscv/extensions,
 * sifive,plic-1.0.0, sifive,clint, ns16550a, google,goldfish-rtc, syscon-poweroff, cfi-flash,
 * pci-host-ecam-generic. */
#include "base/bits.h"
#include "board/virt_riscv.h"
#include "boot/devtree.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PHANDLE_PLIC    1u
#define PHANDLE_SYSCON  2u
#define PHANDLE_CPU(n)  (16u + 2 * (n))
#define PHANDLE_INTC(n) (17u + 2 * (n))
#define CBO_BLOCK       64
#define TREE_BYTES      (64u << 10) /* without the boot arguments; 16 harts need 20 KiB */

enum { IRQ_MSI = 3, IRQ_MTI = 7, IRQ_SEI = 9, IRQ_MEI = 11 };

/* riscv,isa-extensions: one string for each single letter after "rv64" and for each name after an
 * underscore. */
static void isa_extensions(struct dt_builder *b, const char *isa)
{
    char list[1024];
    size_t used = 0;
    const char *p = strncmp(isa, "rv64", 4) ? isa : isa + 4;

    for (; *p && *p != '_' && used + 2 < sizeof(list); p++) {
        list[used++] = *p;
        list[used++] = '\0';
    }
    while (*p == '_') {
        size_t n = strcspn(++p, "_");

        if (used + n + 1 > sizeof(list))
            break;
        memcpy(list + used, p, n);
        used += n;
        list[used++] = '\0';
        p += n;
    }
    dt_strings(b, "riscv,isa-extensions", list, used);
}

/* Is @name one of the multi-letter extensions of @isa? */
static bool isa_has(const char *isa, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = strchr(isa, '_'); p; p = strchr(p + 1, '_')) {
        if (!strncmp(p + 1, name, n) && (p[1 + n] == '_' || !p[1 + n]))
            return true;
    }
    return false;
}

static void cpu(struct dt_builder *b, const struct virt_config *c, unsigned i)
{
    dt_begin(b, "cpu@%x", i);
    dt_string(b, "device_type", "cpu");
    dt_u32(b, "reg", i);
    dt_string(b, "status", "okay");
    dt_string(b, "compatible", "riscv");
    dt_u32(b, "phandle", PHANDLE_CPU(i));
    dt_string(b, "riscv,isa", c->isa);
    dt_string(b, "riscv,isa-base", "rv64i");
    isa_extensions(b, c->isa);
    dt_string(b, "mmu-type", c->mmu_type);
    if (isa_has(c->isa, "zicbom"))
        dt_u32(b, "riscv,cbom-block-size", CBO_BLOCK);
    if (isa_has(c->isa, "zicboz"))
        dt_u32(b, "riscv,cboz-block-size", CBO_BLOCK);
    if (isa_has(c->isa, "zicbop"))
        dt_u32(b, "riscv,cbop-block-size", CBO_BLOCK);
    dt_begin(b, "interrupt-controller");
    dt_u32(b, "#interrupt-cells", 1);
    dt_flag(b, "interrupt-controller");
    dt_string(b, "compatible", "riscv,cpu-intc");
    dt_u32(b, "phandle", PHANDLE_INTC(i));
    dt_end(b);
    dt_end(b);
}

static void cpus(struct dt_builder *b, const struct virt_config *c)
{
    dt_begin(b, "cpus");
    dt_u32(b, "#address-cells", 1);
    dt_u32(b, "#size-cells", 0);
    dt_u32(b, "timebase-frequency", VIRT_TIMEBASE_HZ);
    for (unsigned i = 0; i < c->harts; i++)
        cpu(b, c, i);
    dt_begin(b, "cpu-map");
    dt_begin(b, "cluster0");
    for (unsigned i = 0; i < c->harts; i++) {
        dt_begin(b, "core%u", i);
        dt_u32(b, "cpu", PHANDLE_CPU(i));
        dt_end(b);
    }
    dt_end(b);
    dt_end(b);
    dt_end(b);
}

static void device_begin(struct dt_builder *b, const char *name, enum virt_device device)
{
    const struct virt_range *r = &virt_map[device];

    dt_begin(b, "%s@%llx", name, (unsigned long long)r->base);
    dt_reg(b, r->base, r->size);
    if (r->irq && device != VIRT_PCI_MMIO32) {
        dt_u32(b, "interrupts", r->irq);
        dt_u32(b, "interrupt-parent", PHANDLE_PLIC);
    }
}

/* interrupts-extended of both interrupt controllers: two inputs of each hart. */
static void hart_interrupts(struct dt_builder *b, const struct virt_config *c, unsigned first,
                            unsigned second)
{
    uint32_t cells[VIRT_MAX_HARTS * 4];

    for (unsigned i = 0; i < c->harts; i++) {
        cells[4 * i] = PHANDLE_INTC(i);
        cells[4 * i + 1] = first;
        cells[4 * i + 2] = PHANDLE_INTC(i);
        cells[4 * i + 3] = second;
    }
    dt_cells(b, "interrupts-extended", cells, (size_t)c->harts * 4);
}

static void interrupt_controllers(struct dt_builder *b, const struct virt_config *c)
{
    device_begin(b, "plic", VIRT_PLIC);
    dt_strings(b, "compatible", "sifive,plic-1.0.0\0riscv,plic0",
               sizeof("sifive,plic-1.0.0\0riscv,plic0"));
    dt_flag(b, "interrupt-controller");
    dt_u32(b, "#interrupt-cells", 1);
    dt_u32(b, "#address-cells", 0);
    dt_u32(b, "riscv,ndev", VIRT_PLIC_SOURCES);
    hart_interrupts(b, c, IRQ_MEI, IRQ_SEI);
    dt_u32(b, "phandle", PHANDLE_PLIC);
    dt_end(b);

    device_begin(b, "clint", VIRT_ACLINT);
    dt_strings(b, "compatible", "sifive,clint0\0riscv,clint0",
               sizeof("sifive,clint0\0riscv,clint0"));
    hart_interrupts(b, c, IRQ_MSI, IRQ_MTI);
    dt_end(b);
}

static void simple_devices(struct dt_builder *b)
{
    device_begin(b, "serial", VIRT_UART);
    dt_string(b, "compatible", "ns16550a");
    dt_u32(b, "clock-frequency", UART_CLOCK_HZ);
    dt_end(b);

    device_begin(b, "rtc", VIRT_RTC);
    dt_string(b, "compatible", "google,goldfish-rtc");
    dt_end(b);

    device_begin(b, "vmgenid", VIRT_VMGENID);
    dt_string(b, "compatible", "microsoft,vmgenid");
    dt_end(b);

    device_begin(b, "test", VIRT_SYSCON);
    dt_strings(b, "compatible", "sifive,test1\0sifive,test0\0syscon",
               sizeof("sifive,test1\0sifive,test0\0syscon"));
    dt_u32(b, "phandle", PHANDLE_SYSCON);
    dt_end(b);
}

static void flash(struct dt_builder *b)
{
    const struct virt_range *r = &virt_map[VIRT_FLASH];
    uint32_t half = (uint32_t)(r->size / 2);

    dt_begin(b, "flash@%llx", (unsigned long long)r->base);
    dt_string(b, "compatible", "cfi-flash");
    DT_CELLS(b, "reg", 0, (uint32_t)r->base, 0, half, 0, (uint32_t)r->base + half, 0, half);
    dt_u32(b, "bank-width", 4);
    dt_end(b);
}

/* Which interrupt each pin of each slot reaches: four rows repeat (PCI 3.0 §2.2.6). */
static void pci_interrupt_map(struct dt_builder *b)
{
    uint32_t cells[4 * 4 * 6];
    uint32_t *p = cells;

    for (unsigned slot = 0; slot < 4; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            const uint32_t row[6] = {
                slot << 11, 0, 0, pin + 1, PHANDLE_PLIC, VIRT_PCI_IRQ + (slot + pin) % 4};

            memcpy(p, row, sizeof(row));
            p += 6;
        }
    }
    dt_cells(b, "interrupt-map", cells, ARRAY_SIZE(cells));
    DT_CELLS(b, "interrupt-map-mask", 3u << 11, 0, 0, 7);
}

static void pci(struct dt_builder *b, const struct virt_config *c)
{
    const struct virt_range *pio = &virt_map[VIRT_PCI_PIO];
    const struct virt_range *low = &virt_map[VIRT_PCI_MMIO32];
    struct virt_range high = virt_pci_mmio64(c->memory_bytes);
    uint32_t high_base[2] = {(uint32_t)(high.base >> 32), (uint32_t)high.base};

    device_begin(b, "pci", VIRT_PCI_ECAM);
    dt_string(b, "compatible", "pci-host-ecam-generic");
    dt_string(b, "device_type", "pci");
    dt_u32(b, "#address-cells", 3);
    dt_u32(b, "#size-cells", 2);
    dt_u32(b, "#interrupt-cells", 1);
    dt_u32(b, "linux,pci-domain", 0);
    DT_CELLS(b, "bus-range", 0, (uint32_t)(virt_map[VIRT_PCI_ECAM].size >> 20) - 1);
    dt_flag(b, "dma-coherent");
    /* space code, PCI address, CPU address, size */
    DT_CELLS(b, "ranges", 0x01000000, 0, 0, 0, (uint32_t)pio->base, 0, (uint32_t)pio->size,
             0x02000000, 0, (uint32_t)low->base, 0, (uint32_t)low->base, 0, (uint32_t)low->size,
             0x03000000, high_base[0], high_base[1], high_base[0], high_base[1],
             (uint32_t)(high.size >> 32), (uint32_t)high.size);
    pci_interrupt_map(b);
    dt_end(b);
}

static void power(struct dt_builder *b)
{
    static const struct {
        const char *name, *compatible;
        uint32_t value;
    } actions[] = {
        {"poweroff", "syscon-poweroff", 0x5555},
        {"reboot",   "syscon-reboot",   0x7777},
    };

    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        dt_begin(b, "%s", actions[i].name);
        dt_string(b, "compatible", actions[i].compatible);
        dt_u32(b, "regmap", PHANDLE_SYSCON);
        dt_u32(b, "offset", 0);
        dt_u32(b, "value", actions[i].value);
        dt_end(b);
    }
}

/* For firmware (the built-in SBI does not read it): which of counters 0..31 can count which events.
 * Selectors take the events' own numbers. */
static void pmu(struct dt_builder *b)
{
    const uint32_t programmable = 0xfffffff8;

    dt_begin(b, "pmu");
    dt_string(b, "compatible", "riscv,pmu");
    DT_CELLS(b, "riscv,event-to-mhpmcounters", 1, 1, programmable | 1, 2, 2, programmable | 4,
             0x10019, 0x10019, programmable, 0x1001b, 0x1001b, programmable, 0x10021, 0x10021,
             programmable);
    dt_end(b);
}

static void chosen_node(struct dt_builder *b, const struct virt_chosen *chosen)
{
    char path[32];

    (void)snprintf(path, sizeof(path), "/soc/serial@%llx",
                   (unsigned long long)virt_map[VIRT_UART].base);
    dt_begin(b, "chosen");
    if (chosen->bootargs)
        dt_string(b, "bootargs", chosen->bootargs);
    if (chosen->initrd_end > chosen->initrd_start) {
        dt_u64(b, "linux,initrd-start", chosen->initrd_start);
        dt_u64(b, "linux,initrd-end", chosen->initrd_end);
    }
    dt_bytes(b, "rng-seed", chosen->rng_seed, sizeof(chosen->rng_seed));
    dt_string(b, "stdout-path", path);
    dt_end(b);
}

int virt_board_fdt(const struct virt_config *config, const struct virt_chosen *chosen,
                   void **ret_blob, size_t *ret_size, struct error *err)
{
    struct dt_builder b;
    size_t args = chosen->bootargs ? strlen(chosen->bootargs) : 0;

    if (dt_init(&b, TREE_BYTES + args))
        return error_set(err, ENOMEM, "out of memory");
    dt_u32(&b, "#address-cells", 2);
    dt_u32(&b, "#size-cells", 2);
    dt_string(&b, "compatible", "riscv-virtio");
    dt_string(&b, "model", "riscv-virtio,posada");
    dt_begin(&b, "memory@%llx", (unsigned long long)VIRT_RAM_BASE);
    dt_string(&b, "device_type", "memory");
    dt_reg(&b, VIRT_RAM_BASE, config->memory_bytes);
    dt_end(&b);
    cpus(&b, config);
    dt_begin(&b, "soc");
    dt_u32(&b, "#address-cells", 2);
    dt_u32(&b, "#size-cells", 2);
    dt_string(&b, "compatible", "simple-bus");
    dt_flag(&b, "ranges");
    simple_devices(&b);
    pci(&b, config);
    interrupt_controllers(&b, config);
    dt_end(&b);
    flash(&b);
    power(&b);
    pmu(&b);
    chosen_node(&b, chosen);
    int rc = dt_finish(&b, ret_blob, ret_size, err);
    dt_done(&b);
    return rc;
}
