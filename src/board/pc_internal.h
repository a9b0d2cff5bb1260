/* What the files of the board `pc` share. */
#ifndef BOARD_PC_INTERNAL_H
#define BOARD_PC_INTERNAL_H

#include "board/pc.h"
#include "boot/acpi.h"
#include "device/flash/byte_flash.h"
#include "device/pc/cmos.h"
#include "device/pc/debugcon.h"
#include "device/pc/fw_cfg.h"
#include "device/pc/pm.h"
#include "device/vmgenid/vmgenid.h"

#define PC_GPE_VMGENID 5

struct pc_board {
    struct board base;
    struct pc_config config; /* [init] strings are not used after creation */
    struct pci_function lpc; /* [init] */
    struct cmos *cmos;
    struct pm *pm;
    struct fw_cfg *fw_cfg;
    struct debugcon *debugcon;
    struct vmgenid *vmgenid;
    uint8_t *smbios; /* [init] tables for PC_SMBIOS, or for firmware to place */
    size_t smbios_size;
    struct byte_flash *flash; /* NULL = none */
    uint8_t *firmware;        /* [init] its last bytes are the reset vector's; NULL = none */
    size_t firmware_size;
    uint64_t ecam;           /* [atomic] where firmware has put the configuration window */
    uint32_t pci_address;    /* [atomic] port 0xcf8 */
    uint8_t levels[PC_GSIS]; /* [atomic] as last driven; one driver each */
};

/** PCI's 64-bit window lies above RAM, up to the end of addresses: firmware chooses a place there
 * by what it knows of the processor. Of direct starts, its beginning is used. */
uint64_t pc_mmio64(const struct pc_board *b);
#define PC_MMIO64_USED (16ULL << 30)
#define PC_MMIO64_END  (1ULL << 52)

/* pc_acpi.c */

/** The machine's tables, not placed. *@ret is for acpi_free(). */
must_check int pc_acpi(const struct pc_board *b, struct acpi_tables **ret, struct error *err);

/* pc_smbios.c */

/** Make the tables, as the configuration says. */
must_check int pc_make_smbios(struct pc_board *b, struct error *err);

/** Put them where a kernel that no firmware starts looks for them. */
void pc_put_smbios(struct pc_board *b);

/** Hand them to firmware. */
must_check int pc_add_smbios(struct pc_board *b, struct error *err);

/* pc_firmware.c */

/** Map the firmware's file, if any, and say in fw_cfg what it asks for. */
must_check int pc_add_firmware(struct pc_board *b, struct error *err);

#endif
