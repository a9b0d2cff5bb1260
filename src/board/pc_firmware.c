/* Firmware of the board `pc`: where its file goes, and what it is told by fw_cfg.
 *
 * The tables that firmware places are made when it asks for them: by then it has chosen where PCI's
 * configuration window is. Their size does not depend on that.
 *
 * Spec: QEMU docs/specs/fw_cfg.rst, and what SeaBIOS and OVMF read. */
#include "base/bits.h"
#include "board/pc_internal.h"
#include "boot/boot_image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRMWARE_MAX (8ULL << 20)
#define SHADOW_BASE  0xc0000ULL
#define SHADOW_END   0x100000ULL
#define TABLES_FILE  "etc/acpi/tables"
#define RSDP_FILE    "etc/acpi/rsdp"
#define LOADER_FILE  "etc/table-loader"

/* What old firmware reads of the memory's size (CMOS). */
static void set_cmos_memory(struct pc_board *b)
{
    uint64_t low = pc_board_low_ram(b);
    uint64_t extended = MIN((low >> 10) - 1024, (uint64_t)0xffff);
    uint64_t above_16m = low > (16 << 20) ? (low - (16 << 20)) >> 16 : 0;
    uint64_t high = (b->config.memory_bytes - low) >> 16;

    cmos_set(b->cmos, 0x15, 640 & 0xff);
    cmos_set(b->cmos, 0x16, 640 >> 8);
    cmos_set(b->cmos, 0x17, (uint8_t)extended);
    cmos_set(b->cmos, 0x18, (uint8_t)(extended >> 8));
    cmos_set(b->cmos, 0x30, (uint8_t)extended);
    cmos_set(b->cmos, 0x31, (uint8_t)(extended >> 8));
    cmos_set(b->cmos, 0x34, (uint8_t)above_16m);
    cmos_set(b->cmos, 0x35, (uint8_t)(above_16m >> 8));
    for (unsigned i = 0; i < 3; i++)
        cmos_set(b->cmos, 0x5b + i, (uint8_t)(high >> 8 * i));
    cmos_set(b->cmos, 0x5f, (uint8_t)(b->config.cpus - 1));
    cmos_set(b->cmos, 0x3d, 0x23); /* boot from disk, then from CD-ROM */
}

static int add_memory_map(struct pc_board *b, struct error *err)
{
    struct x86_range ranges[X86_RANGES];
    uint8_t raw[20 * X86_RANGES];
    size_t count = pc_board_ranges(b, ranges);
    size_t size = 0;

    for (size_t i = 0; i < count; i++) {
        if (ranges[i].type != X86_RAM || ranges[i].base + ranges[i].size <= 0x100000)
            continue; /* firmware knows the rest itself */
        bool is_low = ranges[i].base == 0x100000;

        store_le64(raw + size, is_low ? 0 : ranges[i].base);
        store_le64(raw + size + 8, is_low ? pc_board_low_ram(b) : ranges[i].size);
        store_le32(raw + size + 16, X86_RAM);
        size += 20;
    }
    return fw_cfg_add_file(b->fw_cfg, "etc/e820", raw, size, err);
}

static int add_tables(struct pc_board *b, struct error *err)
{
    struct acpi_tables *t = NULL;
    uint8_t rsdp[ACPI_RSDP_SIZE];
    uint8_t *commands = NULL;
    size_t size;
    int rc = pc_acpi(b, &t, err);

    if (rc)
        return rc;
    rc = acpi_loader(t, TABLES_FILE, RSDP_FILE, rsdp, &commands, &size, err);
    if (!rc)
        rc = fw_cfg_add_file(b->fw_cfg, LOADER_FILE, commands, size, err);
    if (!rc)
        rc = fw_cfg_add_file(b->fw_cfg, RSDP_FILE, rsdp, sizeof(rsdp), err);
    const uint8_t *data = acpi_data(t, &size);
    if (!rc)
        rc = fw_cfg_add_file(b->fw_cfg, TABLES_FILE, data, size, err);
    free(commands);
    acpi_free(t);
    return rc;
}

/** Firmware asks for the commands, before anything else of the tables. */
static void make_tables(void *arg)
{
    struct error err = {0};

    if (add_tables(arg, &err)) {
        /* the tables of the machine's start, which are there, are right but for the window */
    }
}

static int map_file(struct pc_board *b, struct error *err)
{
    uint8_t *data;
    size_t size;
    void *host = NULL;
    int rc = boot_read_file(b->config.firmware, FIRMWARE_MAX, &data, &size, err);

    if (rc)
        return rc;
    if (!size || size % MEM_PAGE_SIZE)
        rc = error_set(err, EINVAL, "firmware '%s' is not a whole number of 4 KiB pages",
                       b->config.firmware);
    if (!rc)
        rc = mem_add_ram(b->config.mem, GPA(PC_HIGH_RAM - size), size, MEM_READONLY, "firmware",
                         NULL, NULL, &host, err);
    if (!rc) {
        memcpy(host, data, size);
        b->firmware = host;
        b->firmware_size = size;
    }
    free(data);
    if (!rc && b->config.flash)
        rc =
            byte_flash_new(b->config.mem, GPA(PC_HIGH_RAM - size), b->config.flash, &b->flash, err);
    return rc;
}

void pc_board_shadow_firmware(struct pc_board *b)
{
    size_t size = MIN(b->firmware_size, (size_t)(SHADOW_END - SHADOW_BASE));

    int rc = mem_copy_out(b->config.mem, GPA(SHADOW_END - size),
                          b->firmware + b->firmware_size - size, size);
    assert(!rc); /* every machine has RAM there */
}

int pc_board_set_boot_order(struct pc_board *b, const char *paths, struct error *err)
{
    return fw_cfg_add_file(b->fw_cfg, "bootorder", paths, strlen(paths) + 1, err);
}

int pc_add_firmware(struct pc_board *b, struct error *err)
{
    static const uint8_t sercon[] = {PC_UART & 0xff, PC_UART >> 8};
    struct fw_cfg *f = b->fw_cfg;

    /* the numbers also without firmware, for programs that are loaded in its place */
    int rc = fw_cfg_add_number(f, FW_CFG_RAM_SIZE, pc_board_low_ram(b), 8, err);
    if (!rc)
        rc = fw_cfg_add_number(f, FW_CFG_CPUS, b->config.cpus, 2, err);
    if (!rc)
        rc = fw_cfg_add_number(f, FW_CFG_MAX_CPUS, b->config.cpus, 2, err);
    if (rc || !b->config.firmware)
        return rc;
    set_cmos_memory(b);
    rc = map_file(b, err);
    if (!rc)
        rc = fw_cfg_add_number(f, FW_CFG_BOOT_MENU, 0, 2, err);
    if (!rc) /* there is no screen: SeaBIOS, and what it starts, writes to the UART */
        rc = fw_cfg_add_file(f, "etc/sercon-port", sercon, sizeof(sercon), err);
    if (!rc)
        rc = add_memory_map(b, err);
    if (!rc)
        rc = pc_add_smbios(b, err);
    if (!rc)
        rc = add_tables(b, err);
    if (!rc)
        fw_cfg_on_select(f, LOADER_FILE, make_tables, b);
    return rc;
}
