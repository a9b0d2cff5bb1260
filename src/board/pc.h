/* The x86-64 machine `pc`: a PCI Express host with the registers that firmware knows by the name
 * Q35, ACPI's fixed hardware, and the few ports that kernels take for granted. Local APICs, IOAPIC,
 * PICs and the interval timer are the engine's. */
#ifndef BOARD_PC_H
#define BOARD_PC_H

#include "base/clock.h"
#include "base/loop.h"
#include "board/board.h"
#include "boot/smbios.h"
#include "boot/x86.h"
#include "device/pci/pci.h"
#include "device/serial/uart.h"

#define PC_MAX_CPUS  16
#define PC_LOW_MAX   0x80000000ULL /* RAM below 4 GiB ends here at the latest */
#define PC_HIGH_RAM  0x100000000ULL
#define PC_HOLE_SIZE (0xfec00000ULL - PC_LOW_MAX) /* PCI's 32-bit window */
#define PC_ECAM      0xe0000000ULL
#define PC_ECAM_SIZE 0x10000000ULL
#define PC_MSI       0xfee00000ULL
#define PC_MSI_SIZE  0x100000ULL
#define PC_UART      0x3f8
#define PC_IOAPIC    0xfec00000ULL
#define PC_LAPIC     0xfee00000ULL
#define PC_VMGENID   0xfed80000ULL
#define PC_BIOS_AREA 0xe0000ULL /* the root pointer and tables, when no firmware places them */
#define PC_BIOS_SIZE 0x10000ULL
#define PC_SMBIOS    0xf0000ULL /* likewise SMBIOS, where kernels look for its entry point */

/** Interrupt inputs. */
enum {
    PC_IRQ_SERIAL = 4,
    PC_IRQ_RTC = 8,
    PC_IRQ_SCI = 9,
    PC_IRQ_PCI = 16, /* INTA..D of slot 0: 16..19 */
    PC_GSIS = 24,
};

struct pc_config {
    struct mem *mem, *ports;
    unsigned cpus;
    uint64_t memory_bytes;
    const struct vclock *clock;
    struct loop *loop; /* the devices' timers */
    /** What it says it is; ranges are the board's. Borrowed while it is made; NULL = nameless. */
    const struct smbios_config *identity;
    const char *firmware; /* its file, mapped to end at 4 GiB; NULL = none */
    const char *flash;    /* what it keeps its variables in, below it; NULL = none */
    struct uart_backend uart;
    /** Interrupt input @gsi of the IOAPIC. Any thread; a device's lock may be held. */
    void (*set_gsi)(void *arg, unsigned gsi, bool level);
    /** A message-signalled interrupt. Likewise. */
    void (*signal_msi)(void *arg, uint64_t addr, uint32_t data);
    /** As pci_host_config's. */
    int (*doorbell)(void *arg, uint64_t addr, int fd, bool on);
    void (*reset_chips)(void *arg); /* the engine's interrupt controllers and timer */
    void (*pause)(void *arg);
    void (*resume)(void *arg);
    void (*poweroff)(void *arg, unsigned code);
    void (*reset)(void *arg);
    void *arg;
};

struct pc_board;

/** Add RAM, firmware and the devices to config->mem and config->ports. On failure nothing is left
 * but regions of these. *@ret is the caller's, freed by board_free() when no thread uses them. */
must_check int pc_board_new(const struct pc_config *config, struct pc_board **ret,
                            struct error *err);

/** For board_*(). */
struct board *pc_board_base(struct pc_board *b);

/** The power key. False: the guest's system does not listen. Any thread. */
bool pc_board_press_power(struct pc_board *b);

/** For a start without firmware: put ACPI's and SMBIOS's tables into memory; where ACPI's root
 * pointer is. */
must_check int pc_board_put_tables(struct pc_board *b, uint64_t *ret_rsdp, struct error *err);

/** For a start with firmware: in what order it looks for something to boot, one path of Open
 * Firmware's form a line. vCPUs stand still. */
must_check int pc_board_set_boot_order(struct pc_board *b, const char *paths, struct error *err);

/** For a start with firmware: put a copy of its end below 1 MiB. */
void pc_board_shadow_firmware(struct pc_board *b);

/** The memory map, as a kernel is told it; @ret has room for X86_RANGES. How many there are. */
size_t pc_board_ranges(const struct pc_board *b, struct x86_range *ret);

/** Bytes of RAM from address 0 on. */
uint64_t pc_board_low_ram(const struct pc_board *b);

#endif
