/* The riscv64 `virt` machine: address map and wiring.
 *
 *     UART, RTC, generation ID, PCI INTA..D ──> PLIC ──> hart n: MEI (context 2n), SEI (2n + 1)
 *                                             ACLINT ──> hart n: MSI, MTI
 *
 * Threads: creation and reset by one thread while vCPUs stand still. */
#include "board/virt_riscv.h"
#include "base/bits.h"
#include "device/flash/cfi.h"
#include "device/irq/aclint.h"
#include "device/irq/plic.h"
#include "device/power/syscon.h"
#include "device/rtc/goldfish.h"
#include "device/vmgenid/vmgenid.h"

#include <errno.h>
#include <stdlib.h>

const struct virt_range virt_map[VIRT_DEVICES] = {
    [VIRT_SYSCON] = {0x00100000, SYSCON_SIZE,        0           },
    [VIRT_RTC] = {0x00101000, GOLDFISH_RTC_SIZE,  11          },
    [VIRT_VMGENID] = {0x00102000, VMGENID_SIZE,       12          },
    [VIRT_ACLINT] = {0x02000000, ACLINT_SIZE,        0           },
    [VIRT_PCI_PIO] = {0x03000000, 0x10000,            0           },
    [VIRT_PLIC] = {0x0c000000, PLIC_SIZE,          0           },
    [VIRT_UART] = {0x10000000, UART_SIZE,          10          },
    [VIRT_FLASH] = {0x20000000, 2 * CFI_FLASH_SIZE, 0           },
    [VIRT_PCI_ECAM] = {0x30000000, 0x10000000,         0           },
    [VIRT_PCI_MMIO32] = {0x40000000, 0x40000000,         VIRT_PCI_IRQ},
};

#define MMIO64_ALIGN (16ULL << 30)

enum { IRQ_MSI = 3, IRQ_MTI = 7, IRQ_SEI = 9, IRQ_MEI = 11 };

struct virt_board {
    struct board base;
    struct virt_config config; /* [init] strings are not used after creation */
    uint8_t *rom;
    struct plic *plic;
    struct aclint *aclint;
    struct goldfish_rtc *rtc;
    struct vmgenid *vmgenid;
    struct syscon *syscon;
    struct cfi_flash *flash[2];
};

static struct virt_board *of_base(struct board *base)
{
    return container_of(base, struct virt_board, base);
}

/* irq_line input numbers of hart interrupts: hart * 64 + bit in mip. */
static void set_hart_irq(void *controller, unsigned input, bool level)
{
    const struct virt_config *c = controller;

    c->set_irq(c->arg, input / 64, input % 64, level);
}

static struct irq_line hart_line(struct virt_board *b, unsigned hart, unsigned irq)
{
    return (struct irq_line){
        .set = set_hart_irq,
        .controller = &b->config,
        .input = hart * 64 + irq,
    };
}

struct virt_range virt_pci_mmio64(uint64_t memory_bytes)
{
    return (struct virt_range){
        .base = align_up(VIRT_RAM_BASE + memory_bytes, MMIO64_ALIGN),
        .size = MMIO64_ALIGN,
    };
}

static int add_interrupts(struct virt_board *b, struct error *err)
{
    const struct virt_config *c = &b->config;
    struct plic_config plic = {.sources = VIRT_PLIC_SOURCES, .contexts = 2 * c->harts};
    struct aclint_config aclint = {
        .harts = c->harts,
        .timebase_hz = VIRT_TIMEBASE_HZ,
        .clock = c->clock,
        .loop = c->loop,
    };

    for (unsigned i = 0; i < c->harts; i++) {
        plic.outputs[2 * i] = hart_line(b, i, IRQ_MEI);
        plic.outputs[2 * i + 1] = hart_line(b, i, IRQ_SEI);
        aclint.msip[i] = hart_line(b, i, IRQ_MSI);
        aclint.mtip[i] = hart_line(b, i, IRQ_MTI);
    }
    int rc = plic_new(c->mem, GPA(virt_map[VIRT_PLIC].base), &plic, &b->plic, err);
    if (!rc)
        rc = aclint_new(c->mem, GPA(virt_map[VIRT_ACLINT].base), &aclint, &b->aclint, err);
    return rc;
}

static int add_flash(struct virt_board *b, struct error *err)
{
    const struct virt_config *c = &b->config;
    uint64_t base = virt_map[VIRT_FLASH].base;
    int rc = cfi_flash_new(c->mem, GPA(base), NULL, &b->flash[0], err);

    if (!rc)
        rc = cfi_flash_new(c->mem, GPA(base + CFI_FLASH_SIZE), c->flash_path, &b->flash[1], err);
    return rc;
}

static int add_simple(struct virt_board *b, struct error *err)
{
    const struct virt_config *c = &b->config;
    struct uart_config uart = {
        .irq = plic_input(b->plic, virt_map[VIRT_UART].irq),
        .loop = c->loop,
        .backend = c->uart,
    };
    struct goldfish_rtc_config rtc = {
        .irq = plic_input(b->plic, virt_map[VIRT_RTC].irq),
        .loop = c->loop,
    };
    struct syscon_config syscon = {.poweroff = c->poweroff, .reset = c->reset, .arg = c->arg};
    int rc = uart_new(c->mem, GPA(virt_map[VIRT_UART].base), &uart, &b->base.uart, err);

    if (!rc)
        rc = goldfish_rtc_new(c->mem, GPA(virt_map[VIRT_RTC].base), &rtc, &b->rtc, err);
    if (!rc)
        rc = vmgenid_new(c->mem, GPA(virt_map[VIRT_VMGENID].base),
                         plic_input(b->plic, virt_map[VIRT_VMGENID].irq), &b->vmgenid, err);
    if (!rc)
        rc = syscon_new(c->mem, GPA(virt_map[VIRT_SYSCON].base), &syscon, &b->syscon, err);
    return rc;
}

static int add_pci(struct virt_board *b, struct error *err)
{
    const struct virt_config *c = &b->config;
    struct virt_range high = virt_pci_mmio64(c->memory_bytes);
    struct pci_host_config pci = {
        .ecam = GPA(virt_map[VIRT_PCI_ECAM].base),
        .ecam_size = virt_map[VIRT_PCI_ECAM].size,
        .mmio32 = GPA(virt_map[VIRT_PCI_MMIO32].base),
        .mmio32_size = virt_map[VIRT_PCI_MMIO32].size,
        .mmio64 = GPA(high.base),
        .mmio64_size = high.size,
        .pio = GPA(virt_map[VIRT_PCI_PIO].base),
        .pio_size = virt_map[VIRT_PCI_PIO].size,
        .assign_bars = true,
    };

    for (unsigned i = 0; i < 4; i++)
        pci.intx[i] = plic_input(b->plic, VIRT_PCI_IRQ + i);
    return pci_host_new(c->mem, &pci, &b->base.pci, err);
}

static void virt_free(struct board *base)
{
    struct virt_board *b = of_base(base);

    pci_host_free(b->base.pci);
    cfi_flash_free(b->flash[1]);
    cfi_flash_free(b->flash[0]);
    syscon_free(b->syscon);
    vmgenid_free(b->vmgenid);
    goldfish_rtc_free(b->rtc);
    uart_free(b->base.uart);
    aclint_free(b->aclint);
    plic_free(b->plic);
    free(b);
}

static void virt_reset(struct board *base)
{
    struct virt_board *b = of_base(base);

    pci_host_reset(b->base.pci);
    cfi_flash_reset(b->flash[0]);
    cfi_flash_reset(b->flash[1]);
    goldfish_rtc_reset(b->rtc);
    uart_reset(b->base.uart);
    aclint_reset(b->aclint);
    plic_reset(b->plic);
}

static void virt_save(struct board *base, struct state_out *out)
{
    struct virt_board *b = of_base(base);

    plic_save(b->plic, out);
    aclint_save(b->aclint, out);
    uart_save(b->base.uart, out);
    goldfish_rtc_save(b->rtc, out);
    for (unsigned i = 0; i < ARRAY_SIZE(b->flash); i++)
        cfi_flash_save(b->flash[i], i, out);
    pci_host_save(b->base.pci, out);
}

/* The interrupt controller first: the others drive its inputs. */
static int virt_load(struct board *base, const struct state_in *in, struct error *err)
{
    struct virt_board *b = of_base(base);
    int rc = plic_load(b->plic, in, err);

    if (!rc)
        rc = aclint_load(b->aclint, in, err);
    if (!rc)
        rc = uart_load(b->base.uart, in, err);
    if (!rc)
        rc = goldfish_rtc_load(b->rtc, in, err);
    for (unsigned i = 0; i < ARRAY_SIZE(b->flash) && !rc; i++)
        rc = cfi_flash_load(b->flash[i], i, in, err);
    return rc ? rc : pci_host_load(b->base.pci, in, err);
}

static void virt_resume(struct board *base)
{
    struct virt_board *b = of_base(base);

    aclint_resume(b->aclint);
}

static void virt_changed_generation(struct board *base)
{
    vmgenid_change(of_base(base)->vmgenid);
}

static const struct board_ops virt_ops = {
    .name = "virt",
    .reset = virt_reset,
    .save = virt_save,
    .load = virt_load,
    .resume = virt_resume,
    .changed_generation = virt_changed_generation,
    .free = virt_free,
};

int virt_board_new(const struct virt_config *config, struct virt_board **ret, struct error *err)
{
    struct virt_board *b = calloc(1, sizeof(*b));
    void *rom = NULL;

    assert(config->harts >= 1 && config->harts <= VIRT_MAX_HARTS);
    if (!b)
        return error_set(err, ENOMEM, "out of memory");
    b->base.ops = &virt_ops;
    b->config = *config;
    int rc = mem_add_ram(config->mem, GPA(VIRT_RAM_BASE), config->memory_bytes, 0, "ram", NULL,
                         NULL, NULL, err);
    if (!rc)
        rc = mem_add_ram(config->mem, GPA(VIRT_ROM_BASE), VIRT_ROM_SIZE, MEM_READONLY, "boot-rom",
                         NULL, NULL, &rom, err);
    b->rom = rom;
    if (!rc)
        rc = add_interrupts(b, err);
    if (!rc)
        rc = add_simple(b, err);
    if (!rc)
        rc = add_flash(b, err);
    if (!rc)
        rc = add_pci(b, err);
    if (rc) {
        virt_free(&b->base);
        return rc;
    }
    *ret = b;
    return 0;
}

struct board *virt_board_base(struct virt_board *b)
{
    return &b->base;
}

uint8_t *virt_board_rom(struct virt_board *b)
{
    return b->rom;
}
