/* The x86-64 machine `pc`: address map and wiring.
 *
 *     00000000  RAM, up to 2 GiB             fec00000  IOAPIC        (engine)
 *     80000000  PCI memory, and within it    fee00000  local APICs   (engine), messages
 *     e0000000  its configuration window     fed80000  generation ID
 *               (firmware may move it)       .. 4 GiB  firmware
 *                                            1 00000000 RAM, then PCI's 64-bit window
 *
 *     UART 4, RTC 8, ACPI 9, PCI INTA..D 16..19 ──> IOAPIC;  MSI-X ──> local APICs
 *
 * The bridge and the ISA bridge carry the IDs that firmware looks for (Intel Q35, ICH9), and those
 * of their registers that it needs: where the configuration window is, and what memory below 1 MiB
 * is writable, which here is all of it.
 *
 * Threads: creation and reset by one thread while vCPUs stand still. */
#include "board/pc.h"
#include "base/bits.h"
#include "board/pc_internal.h"

#include <errno.h>
#include <stdlib.h>

#define MMIO64_ALIGN (16ULL << 30)

#define PCI_ADDRESS_PORT 0xcf8
#define PCI_ENABLE       (1u << 31)

/* Intel Q35 data sheet §5.1: PCIEXBAR */
#define PCIEXBAR       0x60
#define PCIEXBAR_ON    1
#define PCIEXBAR_256MB 0 /* bits 2:1; other sizes are taken for this one */
#define PAM            0x90
#define PAM_SIZE       16 /* with SMRAM */

/* ICH9 data sheet §13.1 */
#define LPC_PMBASE 0x40

static const struct pci_info bridge_info = {
    .vendor_id = 0x8086,
    .device_id = 0x29c0,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100, /* firmware takes this for a virtual machine with fw_cfg */
    .class_code = 0x060000,
    .command = 6, /* Q35 §5.1.3 */
    .plain = true,
};

static const struct pci_info lpc_info = {
    .vendor_id = 0x8086,
    .device_id = 0x2918,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .class_code = 0x060100,
    .command = 7, /* ICH9 §13.1.3; firmware takes the UART to be off without the first */
    .revision = 2,
    .plain = true,
};

static const struct pci_ops lpc_ops = {.name = "lpc"};

static struct pc_board *of_base(struct board *base)
{
    return container_of(base, struct pc_board, base);
}

uint64_t pc_board_low_ram(const struct pc_board *b)
{
    return MIN(b->config.memory_bytes, (uint64_t)PC_LOW_MAX);
}

uint64_t pc_mmio64(const struct pc_board *b)
{
    return align_up(PC_HIGH_RAM + (b->config.memory_bytes - pc_board_low_ram(b)), MMIO64_ALIGN);
}

/* --- Interrupts --- */

/* Devices drive their line at every register access; the engine hears of changes only. */
static void set_gsi(void *controller, unsigned input, bool level)
{
    struct pc_board *b = controller;

    /* relaxed: one driver a line, with its lock held */
    if (__atomic_exchange_n(&b->levels[input], level, __ATOMIC_RELAXED) != level)
        b->config.set_gsi(b->config.arg, input, level);
}

static struct irq_line gsi_line(struct pc_board *b, unsigned gsi)
{
    return (struct irq_line){.set = set_gsi, .controller = b, .input = gsi};
}

/* Devices' messages; a vCPU's accesses there stay in the engine. */
static enum bus_result msi_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    const struct pc_config *c = &((struct pc_board *)dev)->config;

    c->signal_msi(c->arg, PC_MSI + offset, (uint32_t)value);
    return BUS_OK;
}

static const struct mmio_ops msi_ops = {.name = "msi", .write = msi_write, .max_size = 4};

/* --- PCI --- */

/* PCI 3.0 §3.2.2.3.2: configuration mechanism #1. Offset 1 of the ports is the reset control
 * register. */
static uint64_t config_offset(const struct pc_board *b, uint64_t offset)
{
    uint32_t address = __atomic_load_n(&b->pci_address, __ATOMIC_RELAXED);

    return (uint64_t)(address & 0xffff00) << 4 | (address & 0xfc) | (offset & 3);
}

static enum bus_result pci_ports_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct pc_board *b = dev;
    uint32_t address = __atomic_load_n(&b->pci_address, __ATOMIC_RELAXED);

    *ret = UINT64_MAX;
    if (offset == 0 && size == 4)
        *ret = address;
    else if (offset >= 4 && address & PCI_ENABLE)
        *ret = pci_host_config_read(b->base.pci, config_offset(b, offset), size);
    return BUS_OK;
}

static enum bus_result pci_ports_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct pc_board *b = dev;

    if (offset == 0 && size == 4)
        __atomic_store_n(&b->pci_address, (uint32_t)value, __ATOMIC_RELAXED);
    else if (offset == 1 && size == 1)
        pm_reset_control(b->pm, (uint8_t)value);
    else if (offset >= 4 && __atomic_load_n(&b->pci_address, __ATOMIC_RELAXED) & PCI_ENABLE)
        pci_host_config_write(b->base.pci, config_offset(b, offset), size, (uint32_t)value);
    return BUS_OK;
}

static const struct mmio_ops pci_ports_ops = {
    .name = "pci-ports",
    .read = pci_ports_read,
    .write = pci_ports_write,
    .max_size = 4,
};

/* PCIEXBAR moves the configuration window, within PCI's memory. */
static void bridge_written(void *arg, struct pci_function *bridge)
{
    struct pc_board *b = arg;

    pci_lock(bridge);
    uint64_t value = load_le64(pci_config(bridge) + PCIEXBAR);
    pci_unlock(bridge);
    uint64_t base = align_down(value & MASK(36), PC_ECAM_SIZE);
    if (!(value & PCIEXBAR_ON) || base < PC_LOW_MAX ||
        base + PC_ECAM_SIZE > PC_LOW_MAX + PC_HOLE_SIZE)
        base = UINT64_MAX;
    __atomic_store_n(&b->ecam, base, __ATOMIC_RELAXED);
    pci_host_move_ecam(b->base.pci, base);
}

static int doorbell(void *arg, uint64_t addr, int fd, bool on)
{
    const struct pc_config *c = &((struct pc_board *)arg)->config;

    return c->doorbell(c->arg, addr, fd, on);
}

static int add_pci(struct pc_board *b, struct error *err)
{
    const struct pc_config *c = &b->config;
    uint8_t pciexbar[8];
    uint8_t pmbase[4];
    struct pci_host_config pci = {
        .ecam = GPA(PC_ECAM),
        .ecam_size = PC_ECAM_SIZE,
        .mmio32 = GPA(PC_LOW_MAX),
        .mmio32_size = PC_HOLE_SIZE,
        .mmio64 = GPA(pc_mmio64(b)),
        .mmio64_size = PC_MMIO64_END - pc_mmio64(b),
        .msi = GPA(PC_MSI),
        .msi_size = PC_MSI_SIZE,
        .bridge = &bridge_info,
        .bridge_written = bridge_written,
        .doorbell = c->doorbell ? doorbell : NULL,
        .arg = b,
        .assign_bars = !c->firmware,
    };

    for (unsigned i = 0; i < 4; i++)
        pci.intx[i] = gsi_line(b, PC_IRQ_PCI + i);
    int rc = pci_host_new(c->mem, &pci, &b->base.pci, err);
    if (!rc)
        rc = pci_add(b->base.pci, &b->lpc, &lpc_ops, &lpc_info, 31, err);
    if (!rc)
        rc = mem_add_mmio(c->ports, GPA(PCI_ADDRESS_PORT), 8, &pci_ports_ops, b, err);
    if (!rc)
        rc = mem_add_mmio(c->mem, GPA(PC_MSI), PC_MSI_SIZE, &msi_ops, b, err);
    if (rc)
        return rc;
    store_le64(pciexbar, PC_ECAM | PCIEXBAR_ON);
    store_le32(pmbase, PM_PORT | 1);
    pci_add_registers(pci_host_bridge(b->base.pci), PCIEXBAR, pciexbar, sizeof(pciexbar));
    pci_add_registers(pci_host_bridge(b->base.pci), PAM, NULL, PAM_SIZE);
    pci_add_registers(&b->lpc, LPC_PMBASE, pmbase, sizeof(pmbase));
    pci_add_registers(&b->lpc, LPC_PMBASE + 4, NULL, 0xc0);
    b->ecam = PC_ECAM;
    return 0;
}

/* --- The rest --- */

static int add_ram(struct pc_board *b, struct error *err)
{
    const struct pc_config *c = &b->config;
    uint64_t low = pc_board_low_ram(b);
    int rc = mem_add_ram(c->mem, GPA(0), low, 0, "ram", NULL, NULL, NULL, err);

    if (!rc && c->memory_bytes > low)
        rc = mem_add_ram(c->mem, GPA(PC_HIGH_RAM), c->memory_bytes - low, 0, "high-ram", NULL, NULL,
                         NULL, err);
    return rc;
}

/* The generation ID's pulse is an event of ACPI's. */
static void changed_id(void *controller, unsigned input, bool level)
{
    const struct pc_board *b = controller;

    if (level)
        pm_event(b->pm, input);
}

static int add_devices(struct pc_board *b, struct error *err)
{
    const struct pc_config *c = &b->config;
    struct uart_config uart = {
        .irq = gsi_line(b, PC_IRQ_SERIAL),
        .size = 8,
        .loop = c->loop,
        .backend = c->uart,
    };
    struct cmos_config cmos = {.irq = gsi_line(b, PC_IRQ_RTC), .loop = c->loop};
    struct pm_config pm = {
        .sci = gsi_line(b, PC_IRQ_SCI),
        .clock = c->clock,
        .poweroff = c->poweroff,
        .reset = c->reset,
        .arg = c->arg,
    };
    int rc = uart_new(c->ports, GPA(PC_UART), &uart, &b->base.uart, err);

    if (!rc)
        rc = cmos_new(c->ports, &cmos, &b->cmos, err);
    if (!rc)
        rc = pm_new(c->ports, &pm, &b->pm, err);
    if (!rc)
        rc = vmgenid_new(c->mem, GPA(PC_VMGENID), (struct irq_line){changed_id, b, PC_GPE_VMGENID},
                         &b->vmgenid, err);
    if (!rc)
        rc = debugcon_new(c->ports, &b->debugcon, err);
    if (!rc)
        rc = fw_cfg_new(c->ports, c->mem, &b->fw_cfg, err);
    return rc;
}

static void pc_free(struct board *base)
{
    struct pc_board *b = of_base(base);

    if (b->base.pci && b->lpc.state)
        pci_remove(&b->lpc);
    pci_host_free(b->base.pci);
    fw_cfg_free(b->fw_cfg);
    debugcon_free(b->debugcon);
    byte_flash_free(b->flash);
    vmgenid_free(b->vmgenid);
    free(b->smbios);
    pm_free(b->pm);
    cmos_free(b->cmos);
    uart_free(b->base.uart);
    free(b);
}

static void pc_reset(struct board *base)
{
    struct pc_board *b = of_base(base);

    pci_host_reset(b->base.pci);
    fw_cfg_reset(b->fw_cfg);
    pm_reset(b->pm);
    cmos_reset(b->cmos);
    if (b->flash)
        byte_flash_reset(b->flash);
    uart_reset(b->base.uart);
    __atomic_store_n(&b->pci_address, 0, __ATOMIC_RELAXED);
    b->config.reset_chips(b->config.arg);
}

static void pc_save(struct board *base, struct state_out *out)
{
    struct pc_board *b = of_base(base);

    uart_save(b->base.uart, out);
    cmos_save(b->cmos, out);
    pm_save(b->pm, out);
    fw_cfg_save(b->fw_cfg, out);
    if (b->flash)
        byte_flash_save(b->flash, out);
    pci_host_save(b->base.pci, out);
}

/* The lines' levels are in the interrupt controllers' own state; devices drive them anew. */
static int pc_load(struct board *base, const struct state_in *in, struct error *err)
{
    struct pc_board *b = of_base(base);
    int rc = uart_load(b->base.uart, in, err);

    if (!rc)
        rc = cmos_load(b->cmos, in, err);
    if (!rc)
        rc = pm_load(b->pm, in, err);
    if (!rc)
        rc = fw_cfg_load(b->fw_cfg, in, err);
    if (!rc && b->flash)
        rc = byte_flash_load(b->flash, in, err);
    if (!rc)
        rc = pci_host_load(b->base.pci, in, err);
    if (!rc)
        bridge_written(b, pci_host_bridge(b->base.pci));
    return rc;
}

static void pc_pause(struct board *base)
{
    const struct pc_config *c = &of_base(base)->config;

    c->pause(c->arg);
}

static void pc_resume(struct board *base)
{
    const struct pc_config *c = &of_base(base)->config;

    c->resume(c->arg);
}

static void pc_changed_generation(struct board *base)
{
    vmgenid_change(of_base(base)->vmgenid);
}

static const struct board_ops pc_ops = {
    .name = "pc",
    .reset = pc_reset,
    .save = pc_save,
    .load = pc_load,
    .pause = pc_pause,
    .resume = pc_resume,
    .changed_generation = pc_changed_generation,
    .free = pc_free,
};

int pc_board_new(const struct pc_config *config, struct pc_board **ret, struct error *err)
{
    struct pc_board *b = calloc(1, sizeof(*b));

    assert(config->cpus >= 1 && config->cpus <= PC_MAX_CPUS);
    if (!b)
        return error_set(err, ENOMEM, "out of memory");
    b->base.ops = &pc_ops;
    b->config = *config;
    int rc = add_ram(b, err);
    if (!rc)
        rc = add_devices(b, err);
    if (!rc)
        rc = add_pci(b, err);
    if (!rc)
        rc = pc_make_smbios(b, err);
    if (!rc)
        rc = pc_add_firmware(b, err);
    if (rc) {
        pc_free(&b->base);
        return rc;
    }
    *ret = b;
    return 0;
}

struct board *pc_board_base(struct pc_board *b)
{
    return &b->base;
}

bool pc_board_press_power(struct pc_board *b)
{
    return pm_press_power(b->pm);
}

size_t pc_board_ranges(const struct pc_board *b, struct x86_range *ret)
{
    uint64_t low = pc_board_low_ram(b);
    size_t n = 0;

    ret[n++] = (struct x86_range){0, 0x9fc00, X86_RAM};
    ret[n++] = (struct x86_range){0x9fc00, 0x100000 - 0x9fc00, X86_RESERVED};
    ret[n++] = (struct x86_range){0x100000, low - 0x100000, X86_RAM};
    ret[n++] = (struct x86_range){PC_ECAM, PC_ECAM_SIZE, X86_RESERVED};
    if (b->config.memory_bytes > low)
        ret[n++] = (struct x86_range){PC_HIGH_RAM, b->config.memory_bytes - low, X86_RAM};
    return n;
}
