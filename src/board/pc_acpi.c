/* The ACPI tables of the board `pc`: what is where, for a kernel that looks by ACPI.
 * Spec: ACPI 6.5 §5.2, §6; PCI Firmware Specification 3.3 §4 (MCFG, _CRS of a host bridge). */
#include "base/bits.h"
#include "board/pc_internal.h"

#include <errno.h>
#include <stdio.h>

#define PCI_SLOTS 32

/** Where the configuration window is, or for firmware that has switched it off, would be: so the
 * tables' size does not depend on it. */
static uint64_t window_base(const struct pc_board *b)
{
    uint64_t ecam = __atomic_load_n(&b->ecam, __ATOMIC_RELAXED);

    return ecam == UINT64_MAX ? PC_ECAM : ecam;
}

/* --- DSDT --- */

/** _PRT: pin p of slot s goes to input 16 + (s + p) % 4, as the host swizzles. */
static void put_prt(struct acpi_tables *t)
{
    aml_name(t, "_PRT");
    aml_begin_package(t, PCI_SLOTS * 4);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            aml_begin_package(t, 4);
            aml_number(t, slot << 16 | 0xffff);
            aml_number(t, pin);
            aml_number(t, 0);
            aml_number(t, PC_IRQ_PCI + (slot + pin) % 4);
            aml_end(t);
        }
    }
    aml_end(t);
}

/** The 64-bit window, or as much of it as holds what firmware has placed there: a kernel does not
 * believe in addresses beyond the processor's. Always of the same form. */
static void put_window64(const struct pc_board *b, struct acpi_tables *t)
{
    uint64_t first;
    uint64_t end;

    pci_host_used64(b->base.pci, &first, &end);
    if (!end || (first >= pc_mmio64(b) && end <= pc_mmio64(b) + PC_MMIO64_USED)) {
        first = pc_mmio64(b);
        end = first + PC_MMIO64_USED;
    }
    first = align_down(first, 1ULL << 30);
    aml_res_window(t, first, align_up(end, 1ULL << 30) - first);
}

static void put_windows(const struct pc_board *b, struct acpi_tables *t)
{
    uint64_t ecam = window_base(b);
    uint64_t end = PC_LOW_MAX + PC_HOLE_SIZE;

    aml_name(t, "_CRS");
    aml_begin_resources(t);
    aml_res_buses(t, 0, 0);
    aml_res_io(t, 0xcf8, 8);
    aml_res_io_window(t, 0, 0xcf7);
    aml_res_io_window(t, 0xd00, 0xffff);
    if (ecam > PC_LOW_MAX)
        aml_res_window(t, PC_LOW_MAX, ecam - PC_LOW_MAX);
    if (end > ecam + PC_ECAM_SIZE)
        aml_res_window(t, ecam + PC_ECAM_SIZE, end - ecam - PC_ECAM_SIZE);
    put_window64(b, t);
    aml_end(t);
}

static void begin_isa_device(struct acpi_tables *t, const char *name, const char *id)
{
    aml_begin_device(t, name);
    aml_name(t, "_HID");
    aml_eisa_id(t, id);
    aml_name(t, "_CRS");
    aml_begin_resources(t);
}

static void end_isa_device(struct acpi_tables *t)
{
    aml_end(t);
    aml_end(t);
}

static void put_isa_devices(struct acpi_tables *t)
{
    begin_isa_device(t, "COM1", "PNP0501");
    aml_res_io(t, PC_UART, 8);
    aml_res_irq(t, PC_IRQ_SERIAL);
    end_isa_device(t);
    begin_isa_device(t, "RTC_", "PNP0B00");
    aml_res_io(t, CMOS_PORT, 2);
    aml_res_irq(t, PC_IRQ_RTC);
    end_isa_device(t);
}

/** What is taken without being a device: the configuration window and the fixed hardware. */
static void put_reserved(const struct pc_board *b, struct acpi_tables *t)
{
    begin_isa_device(t, "MRES", "PNP0C02");
    aml_res_memory(t, (uint32_t)window_base(b), (uint32_t)PC_ECAM_SIZE);
    aml_res_memory(t, (uint32_t)PC_VMGENID, MEM_PAGE_SIZE);
    aml_res_io(t, PM_PORT, PM_PORTS);
    end_isa_device(t);
}

/** Spec: Microsoft's "Virtual Machine Generation ID". */
static void put_vmgenid(struct acpi_tables *t)
{
    aml_begin_device(t, "VGEN");
    aml_name(t, "_HID");
    aml_string(t, "PSDA0001");
    aml_name(t, "_CID");
    aml_begin_package(t, 2);
    aml_string(t, "VM_Gen_Counter");
    aml_string(t, "VM_GEN_COUNTER"); /* as Linux compares it, letter by letter */
    aml_end(t);
    aml_name(t, "_DDN");
    aml_string(t, "VM_Gen_Counter");
    aml_name(t, "_UID");
    aml_number(t, 0);
    aml_name(t, "ADDR");
    aml_begin_package(t, 2);
    aml_number(t, PC_VMGENID);
    aml_number(t, 0);
    aml_end(t);
    aml_end(t);
}

/** §5.6.4.1: what a general-purpose event means. */
static void put_events(struct acpi_tables *t)
{
    aml_begin_scope(t, "\\_GPE");
    aml_begin_method(t, "_E05", 0);
    static_assert(PC_GPE_VMGENID == 5, "its method's name");
    aml_notify(t, "\\_SB_.VGEN", 0x80);
    aml_end(t);
    aml_end(t);
}

static void put_cpus(const struct pc_board *b, struct acpi_tables *t)
{
    for (unsigned i = 0; i < b->config.cpus; i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "C%03X", i);
        aml_begin_device(t, name);
        aml_name(t, "_HID");
        aml_string(t, "ACPI0007");
        aml_name(t, "_UID");
        aml_number(t, i);
        aml_end(t);
    }
}

static uint32_t put_dsdt(const struct pc_board *b, struct acpi_tables *t)
{
    uint32_t at = acpi_begin(t, "DSDT", 2);

    aml_begin_scope(t, "\\_SB_");
    aml_begin_device(t, "PCI0");
    aml_name(t, "_HID");
    aml_eisa_id(t, "PNP0A08");
    aml_name(t, "_CID");
    aml_eisa_id(t, "PNP0A03");
    aml_name(t, "_UID");
    aml_number(t, 0);
    aml_name(t, "_SEG");
    aml_number(t, 0);
    aml_name(t, "_BBN");
    aml_number(t, 0);
    put_windows(b, t);
    put_prt(t);
    aml_begin_device(t, "ISA_");
    aml_name(t, "_ADR");
    aml_number(t, 31 << 16);
    put_isa_devices(t);
    aml_end(t);
    aml_end(t);
    put_reserved(b, t);
    put_vmgenid(t);
    put_cpus(b, t);
    aml_end(t);
    put_events(t);
    aml_name(t, "\\_S5_");
    aml_begin_package(t, 4);
    for (unsigned i = 0; i < 4; i++)
        aml_number(t, 0);
    aml_end(t);
    acpi_end(t);
    return at;
}

/* --- Static tables --- */

enum {
    FADT_WBINVD = 1 << 0,
    FADT_C1 = 1 << 2,
    FADT_SLEEP_BUTTON = 1 << 5, /* there is none */
    FADT_TIMER_32 = 1 << 8,
    FADT_RESET_REG = 1 << 10,
    FADT_APIC_PHYSICAL = 1 << 19,
};
enum { BOOT_LEGACY_DEVICES = 1 << 0, BOOT_NO_VGA = 1 << 2 };

/** §5.2.9. */
static uint32_t put_fadt(struct acpi_tables *t, uint32_t facs, uint32_t dsdt)
{
    uint32_t at = acpi_begin(t, "FACP", 6);

    acpi_put_pointer(t, 4, facs);
    acpi_put_pointer(t, 4, dsdt);
    acpi_put_number(t, 2, 0); /* reserved, profile */
    acpi_put_number(t, 2, PC_IRQ_SCI);
    acpi_put_number(t, 8, 0); /* no SMI command: always in ACPI mode */
    acpi_put_number(t, 4, PM_PORT + PM_EVENT);
    acpi_put_number(t, 4, 0);
    acpi_put_number(t, 4, PM_PORT + PM_CONTROL);
    acpi_put_number(t, 8, 0);
    acpi_put_number(t, 4, PM_PORT + PM_TIMER);
    acpi_put_number(t, 4, PM_PORT + PM_GPE);
    acpi_put_number(t, 4, 0);
    acpi_put(t, "\x04\x02\x00\x04\x10\x00\x00\x00", 8); /* their lengths */
    acpi_put_number(t, 2, 0xfff);                       /* no C2, */
    acpi_put_number(t, 2, 0xfff);                       /* no C3 */
    acpi_put(t, NULL, 6);
    acpi_put(t, "\x00\x00\x32", 3); /* no alarm registers in CMOS but the century's */
    acpi_put_number(t, 2, BOOT_LEGACY_DEVICES | BOOT_NO_VGA);
    acpi_put_number(t, 1, 0);
    acpi_put_number(t, 4,
                    FADT_WBINVD | FADT_C1 | FADT_SLEEP_BUTTON | FADT_TIMER_32 | FADT_RESET_REG);
    acpi_put_address(t, 1, 1, PM_RESET_PORT);
    acpi_put_number(t, 1, PM_RESET_VALUE);
    acpi_put_number(t, 3, 0); /* Arm's flags, minor version */
    acpi_put_number(t, 8, 0); /* X_FIRMWARE_CTRL: the 32-bit one holds */
    acpi_put_pointer(t, 8, dsdt);
    acpi_put_address(t, 1, 4, PM_PORT + PM_EVENT);
    acpi_put(t, NULL, 12);
    acpi_put_address(t, 1, 2, PM_PORT + PM_CONTROL);
    acpi_put(t, NULL, 24);
    acpi_put_address(t, 1, 4, PM_PORT + PM_TIMER);
    acpi_put_address(t, 1, 16, PM_PORT + PM_GPE);
    acpi_put(t, NULL, 12 + 24 + 8);
    acpi_end(t);
    return at;
}

static void put_override(struct acpi_tables *t, unsigned irq, unsigned gsi, unsigned flags)
{
    acpi_put_number(t, 2, 2 | 10 << 8);
    acpi_put_number(t, 1, 0);
    acpi_put_number(t, 1, irq);
    acpi_put_number(t, 4, gsi);
    acpi_put_number(t, 2, flags);
}

/** §5.2.12. */
static uint32_t put_madt(const struct pc_board *b, struct acpi_tables *t)
{
    uint32_t at = acpi_begin(t, "APIC", 5);

    acpi_put_number(t, 4, PC_LAPIC);
    acpi_put_number(t, 4, 1); /* there are PICs */
    for (unsigned i = 0; i < b->config.cpus; i++) {
        acpi_put_number(t, 2, 0 | 8 << 8);
        acpi_put_number(t, 1, i);
        acpi_put_number(t, 1, i);
        acpi_put_number(t, 4, 1);
    }
    acpi_put_number(t, 2, 1 | 12 << 8);
    acpi_put_number(t, 2, 0); /* the IOAPIC's ID */
    acpi_put_number(t, 4, PC_IOAPIC);
    acpi_put_number(t, 4, 0);
    put_override(t, 0, 2, 0);
    put_override(t, PC_IRQ_SCI, PC_IRQ_SCI, 0xd); /* level, high */
    acpi_put_number(t, 2, 4 | 6 << 8);            /* NMI: LINT1 of every local APIC */
    acpi_put_number(t, 1, 0xff);
    acpi_put_number(t, 2, 0);
    acpi_put_number(t, 1, 1);
    acpi_end(t);
    return at;
}

/** The last bus is the first: a kernel that is told of more looks for 32 devices on each of them,
 * two exits for each. */
static uint32_t put_mcfg(const struct pc_board *b, struct acpi_tables *t)
{
    uint32_t at = acpi_begin(t, "MCFG", 1);

    acpi_put_number(t, 8, 0);
    acpi_put_number(t, 8, window_base(b));
    acpi_put_number(t, 2, 0);
    acpi_put_number(t, 1, 0);
    acpi_put_number(t, 1, 0);
    acpi_put_number(t, 4, 0);
    acpi_end(t);
    return at;
}

int pc_acpi(const struct pc_board *b, struct acpi_tables **ret, struct error *err)
{
    struct acpi_tables *t = acpi_new();
    uint8_t facs[64] = "FACS";

    store_le32(facs + 4, sizeof(facs));
    facs[32] = 2; /* version */
    uint32_t facs_at = acpi_put_block(t, facs, sizeof(facs), 64);
    uint32_t dsdt = put_dsdt(b, t);
    uint32_t fadt = put_fadt(t, facs_at, dsdt);
    uint32_t madt = put_madt(b, t);
    uint32_t mcfg = put_mcfg(b, t);
    uint32_t xsdt = acpi_begin(t, "XSDT", 1);
    acpi_put_pointer(t, 8, fadt);
    acpi_put_pointer(t, 8, madt);
    acpi_put_pointer(t, 8, mcfg);
    acpi_end(t);
    int rc = acpi_end_all(t, xsdt, err);
    if (rc) {
        acpi_free(t);
        return rc;
    }
    *ret = t;
    return 0;
}

int pc_board_put_tables(struct pc_board *b, uint64_t *ret_rsdp, struct error *err)
{
    struct acpi_tables *t = NULL;
    uint8_t rsdp[ACPI_RSDP_SIZE];
    uint64_t at = PC_BIOS_AREA + 64;
    size_t size;
    int rc = pc_acpi(b, &t, err);

    if (rc)
        return rc;
    acpi_place(t, at, rsdp);
    const uint8_t *data = acpi_data(t, &size);
    if (size > PC_BIOS_SIZE - 64)
        rc = error_set(err, ENOSPC, "the ACPI tables are too large");
    else if (mem_copy_out(b->config.mem, GPA(PC_BIOS_AREA), rsdp, sizeof(rsdp)) ||
             mem_copy_out(b->config.mem, GPA(at), data, size))
        rc = error_set(err, ENOSPC, "there is no memory for the ACPI tables");
    acpi_free(t);
    if (!rc)
        pc_put_smbios(b);
    *ret_rsdp = PC_BIOS_AREA;
    return rc;
}
