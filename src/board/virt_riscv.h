/* The riscv64 `virt` machine: the memory map and devices that firmware and kernels know by this
 * name. */
#ifndef BOARD_VIRT_RISCV_H
#define BOARD_VIRT_RISCV_H

#include "base/clock.h"
#include "base/loop.h"
#include "board/board.h"
#include "device/pci/pci.h"
#include "device/serial/uart.h"

#define VIRT_MAX_HARTS   16
#define VIRT_TIMEBASE_HZ 10000000u
#define VIRT_RAM_BASE    0x80000000ULL
#define VIRT_ROM_BASE    0x1000ULL
#define VIRT_ROM_SIZE    0xf000ULL
#define VIRT_RAM_MAX     (1ULL << 40) /* what the page tables of the guest's physical side reach */

/** Addresses and interrupt numbers; rows of virt_map. */
enum virt_device {
    VIRT_SYSCON,
    VIRT_RTC,
    VIRT_VMGENID,
    VIRT_ACLINT,
    VIRT_PCI_PIO,
    VIRT_PLIC,
    VIRT_UART,
    VIRT_FLASH,
    VIRT_PCI_ECAM,
    VIRT_PCI_MMIO32,
    VIRT_DEVICES,
};

struct virt_range {
    uint64_t base, size;
    unsigned irq; /* PLIC source, 0 = none */
};

extern const struct virt_range virt_map[VIRT_DEVICES];

#define VIRT_PLIC_SOURCES 96
#define VIRT_PCI_IRQ      32 /* INTA..INTD of slot 0: 32..35 */

struct virt_config {
    struct mem *mem;
    unsigned harts;
    uint64_t memory_bytes;
    const struct vclock *clock;
    struct loop *loop; /* the devices' timers */
    const char *isa;   /* "rv64imafdc_zicsr_..." */
    const char *mmu_type;
    const char *flash_path; /* the second flash bank's file; NULL = none */
    struct uart_backend uart;
    /** Interrupt input @irq (bit number in mip) of hart @hart. Any thread; a device's lock may be
     * held. */
    void (*set_irq)(void *arg, unsigned hart, unsigned irq, bool level);
    void (*poweroff)(void *arg, unsigned code);
    void (*reset)(void *arg);
    void *arg;
};

struct virt_board;

/** Add RAM, ROM and the devices to config->mem. On failure nothing is left but regions of mem.
 * *@ret is the caller's, freed by board_free() when no thread
 * uses mem any more. */
must_check int virt_board_new(const struct virt_config *config, struct virt_board **ret,
                              struct error *err);
/** For board_*(). */
struct board *virt_board_base(struct virt_board *b);

/** The boot ROM's VIRT_ROM_SIZE bytes, for the reset code. */
uint8_t *virt_board_rom(struct virt_board *b);

/** What the device tree says of this start. */
struct virt_chosen {
    const char *bootargs; /* NULL = none */
    uint64_t initrd_start, initrd_end;
    uint8_t rng_seed[32];
};

/** The device tree of @config's machine. *@ret_blob, of *@ret_size bytes, is for free(). */
must_check int virt_board_fdt(const struct virt_config *config, const struct virt_chosen *chosen,
                              void **ret_blob, size_t *ret_size, struct error *err);

/** PCI's 64-bit window lies above RAM. */
struct virt_range virt_pci_mmio64(uint64_t memory_bytes);

#endif
