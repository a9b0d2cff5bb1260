/* What the files of device/pci share. */
#ifndef DEVICE_PCI_PCI_INTERNAL_H
#define DEVICE_PCI_PCI_INTERNAL_H

#include "base/thread.h"
#include "device/pci/pci.h"

#define PCI_SLOTS 32

/* Type 0 configuration header (PCI 3.0 §6.1). */
enum {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CACHE_LINE = 0x0c,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR_ID = 0x2c,
    PCI_SUBSYSTEM_ID = 0x2e,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
    PCI_HEADER_END = 0x40,
};

enum {
    PCI_COMMAND_MEMORY = 1 << 1,
    PCI_COMMAND_MASTER = 1 << 2,
    PCI_COMMAND_PARITY = 1 << 6,
    PCI_COMMAND_SERR = 1 << 8,
    PCI_COMMAND_INTX_OFF = 1 << 10,
    PCI_STATUS_INTERRUPT = 1 << 3,
    PCI_STATUS_CAP_LIST = 1 << 4,
};

enum { PCI_CAP_EXPRESS = 0x10, PCI_CAP_MSIX = 0x11 };

#define PCI_MSIX_AREA   4096 /* bytes at the start of the MSI-X BAR that pci serves itself */
#define PCI_MSIX_PBA    2048
#define PCI_MSIX_ENABLE 0x8000
#define PCI_MSIX_MASK   0x4000

#define PCI_UNMAPPED UINT64_MAX

/** Where one BAR is now. Look-ups take no lock: size, f and bar never change while the machine
 * runs, and base is one word. */
struct pci_bar_map {
    uint64_t base; /* [atomic] PCI_UNMAPPED while not decoded */
    uint64_t size; /* [init] */
    struct pci_function *f;
    unsigned bar;
};

struct pci_msix_entry {
    uint64_t addr;
    uint32_t data;
    uint32_t control; /* bit 0: masked */
};

/** See doorbell.c. */
struct pci_doorbells {
    unsigned bar;
    size_t count;
    struct pci_doorbell bells[PCI_DOORBELLS];
    uint64_t at[PCI_DOORBELLS]; /* the host has it there */
};

struct pci_state {
    struct mutex lock;                  /* innermost: nothing is called with it held */
    unsigned slot;                      /* [init] */
    uint8_t config[PCI_CONFIG_SIZE];    /* [lock] */
    uint8_t mask[PCI_CONFIG_SIZE];      /* [init] guest-writable bits */
    uint8_t initial[PCI_CONFIG_SIZE];   /* [init] reset values of the writable bits */
    struct pci_bar_map *maps[PCI_BARS]; /* [init] NULL = absent */
    unsigned cap_tail;                  /* [init] offset of the byte that links the next one */
    unsigned cap_end;                   /* [init] first free byte for a capability */
    unsigned express_cap, msix_cap;     /* [init] offsets, 0 = absent */
    uint16_t command;                   /* [atomic] copy of the register, written under lock */
    bool msix_enabled;                  /* [atomic] likewise */
    bool intx_level;                    /* [lock] what the device wants */
    struct pci_msix_entry msix[PCI_MSIX_MAX]; /* [lock] */
    uint64_t msix_pending;                    /* [lock] one bit a vector */
    struct pci_doorbells doorbells;           /* [the host bridge's doorbell_lock] */
};

struct pci_window {
    struct pci_host *host;
    uint64_t base;
};

struct pci_host {
    struct mem *mem;                               /* [init] */
    struct pci_host_config config;                 /* [init] */
    struct pci_function *slots[PCI_SLOTS];         /* [init] */
    struct pci_bar_map maps[PCI_SLOTS * PCI_BARS]; /* [init] but for base */
    size_t map_count;                              /* [init] maps in use lie below this */
    struct pci_window window32, window64;          /* [init] */
    uint64_t ecam; /* [atomic] base of a window within mmio32; UINT64_MAX = a region of its own */
    uint64_t next32, next64;    /* [init] where the next BAR is placed */
    struct pci_function bridge; /* [init] function 0 */
    struct mutex intx_lock;     /* taken after a function's lock was released */
    struct mutex doorbell_lock; /* likewise */
    uint32_t intx_asserted[4];  /* [intx_lock] bit mask of slots */
};

/** Drive slot's INTA pin. Any thread, no function lock held. */
void pci_host_update_intx(struct pci_host *host, struct pci_function *f);

/** Guest access to configuration space; @size 1, 2 or 4, naturally aligned. */
uint32_t pci_function_config_read(struct pci_function *f, unsigned offset, unsigned size);
void pci_function_config_write(struct pci_function *f, unsigned offset, unsigned size,
                               uint32_t value);

/** Registers back to their reset values, then the device's reset hook. No lock held. */
void pci_function_reset(struct pci_function *f);

/** Guest access to a BAR. */
enum bus_result pci_function_bar_read(struct pci_function *f, unsigned bar, uint64_t offset,
                                      unsigned size, uint64_t *ret);
enum bus_result pci_function_bar_write(struct pci_function *f, unsigned bar, uint64_t offset,
                                       unsigned size, uint64_t value);

/** BARs and copies follow the command register and the BARs' registers (invariant 2 of function.c).
 */
void pci_update_decoding_locked(struct pci_state *s, const struct pci_info *info) REQUIRES(s->lock);

/** Doorbells follow their BAR. No function's lock held. */
void pci_move_doorbells(struct pci_function *f);

int pci_msix_init(struct pci_function *f);
void pci_msix_reset_locked(struct pci_state *s) REQUIRES(s->lock);
uint64_t pci_msix_read(struct pci_function *f, uint64_t offset, unsigned size);
void pci_msix_write(struct pci_function *f, uint64_t offset, unsigned size, uint64_t value);
/** Send what is pending and no longer masked. No lock held. */
void pci_msix_flush(struct pci_function *f);

#endif
