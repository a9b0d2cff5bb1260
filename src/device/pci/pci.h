/* PCI Express functions, as seen by devices, and the host bridge they sit behind.
 * Spec: PCI Local Bus 3.0 (configuration header, MSI-X), PCI Express Base 5.0 §7 (capabilities). */
#ifndef DEVICE_PCI_PCI_H
#define DEVICE_PCI_PCI_H

#include "base/error.h"
#include "device/irq.h"
#include "mem/mem.h"

#define PCI_BARS        6
#define PCI_CONFIG_SIZE 4096
#define PCI_MSIX_MAX    64
#define PCI_DOORBELLS   32 /* of a function */

struct state_in;
struct state_out;
struct pci_host;
struct pci_function;

/** A device's side of its BARs. All hooks are called on vCPU threads with no lock held (pci_lock()
 * is innermost: a device may take it, and call every function below, with its own lock held).
 * @offset is within the BAR, the access does not cross its end, @size is 1, 2, 4 or 8. */
struct pci_ops {
    const char *name;
    enum bus_result (*bar_read)(struct pci_function *f, unsigned bar, uint64_t offset,
                                unsigned size, uint64_t *ret);
    enum bus_result (*bar_write)(struct pci_function *f, unsigned bar, uint64_t offset,
                                 unsigned size, uint64_t value);
    /** After a guest write to configuration space outside the standard header, capabilities
     * included; may be NULL. */
    void (*config_written)(struct pci_function *f, unsigned offset, unsigned size);
    /** Before a guest read of configuration space outside the standard header (VIRTIO 1.2
     * §4.1.4.9); may be NULL. */
    void (*config_read)(struct pci_function *f, unsigned offset, unsigned size);
    /** Machine or function-level reset; the function's registers are in their reset state already.
     * May be NULL. Lower the INTx pin here. */
    void (*reset)(struct pci_function *f);
};

/** What a function is; static data. BAR sizes are powers of two >= 4096 (0 = absent); all BARs are
 * 64-bit memory BARs when bar_64bit has their bit (they then take two slots), else 32-bit. */
struct pci_info {
    uint16_t vendor_id, device_id, subsystem_vendor_id, subsystem_id;
    uint32_t class_code; /* 24 bits */
    uint8_t revision;
    uint64_t bar_size[PCI_BARS];
    uint8_t bar_64bit;     /* bit mask by BAR number */
    uint8_t bar_prefetch;  /* bit mask */
    unsigned msix_vectors; /* 0 = no MSI-X capability */
    uint16_t command;      /* bits of the command register that are always set */
    bool plain;            /* conventional: no interrupt pin, no PCI Express capability */
    unsigned msix_bar; /* the table at offset 0 and the PBA at 2048 of this BAR are served by pci
                          itself, as are the first 4 KiB of it */
};

/** Embed this first in the device. Fields are pci's own, but for config, which the device may read
 * and write under pci_lock() of its function. */
struct pci_function {
    const struct pci_ops *ops;   /* [init] */
    const struct pci_info *info; /* [init] */
    struct pci_host *host;       /* [init] */
    struct pci_state *state;     /* [init] pci's own: registers, BAR addresses, MSI-X table */
};

/** Make @f a function of @host in device slot @slot (0..31, -1 = the first free one), function 0.
 *  Before the machine runs. Errors: -ENOSPC, -ENOMEM. */
must_check int pci_add(struct pci_host *host, struct pci_function *f, const struct pci_ops *ops,
                       const struct pci_info *info, int slot, struct error *err);
/** Undo pci_add(); for half-built devices. */
void pci_remove(struct pci_function *f);

/** Append a capability (@id, @size bytes including the 2-byte header that pci fills in) to the
 * function's list. Bytes set in @write_mask (may be NULL) are guest-writable. Returns its offset,
 * or -ENOSPC. Before the machine runs. */
int pci_add_capability(struct pci_function *f, uint8_t id, const void *bytes,
                       const void *write_mask, unsigned size);

/** Registers that the guest may write, @size bytes of configuration space from @offset on, which
 * hold @bytes (NULL: zeroes) after a reset. Before the machine runs. */
void pci_add_registers(struct pci_function *f, unsigned offset, const void *bytes, unsigned size);

/** The function's configuration bytes; only between pci_lock() and pci_unlock(). */
uint8_t *pci_config(struct pci_function *f);
void pci_lock(struct pci_function *f);
void pci_unlock(struct pci_function *f);

/** Set the level of the function's INTA pin (ignored by the pin while the guest disables INTx or
 * has MSI-X enabled). Any thread. */
void pci_set_intx(struct pci_function *f, bool level);

/** Is MSI-X enabled by the guest? Any thread. */
bool pci_msix_enabled(const struct pci_function *f);

/** Send vector @vector's message: masked vectors become pending. Vectors out of range are ignored.
 * Any thread. */
void pci_msix_notify(struct pci_function *f, unsigned vector);

/** The slot it is in. */
unsigned pci_slot(const struct pci_function *f);

/** May the function do DMA (bus master enable)? Any thread. */
bool pci_is_bus_master(const struct pci_function *f);

/** A register whose writes, of any size and value, only signal an eventfd. */
struct pci_doorbell {
    uint64_t offset; /* in the BAR */
    int fd;
};

/** Have writes to these registers of BAR @bar signal their eventfds without a call of bar_write(),
 * where the board's host can; they may come as calls, too. Takes the place of those set before: 0
 * to have none. @bells is copied, its descriptors must stay open until then. Any thread. */
void pci_set_doorbells(struct pci_function *f, unsigned bar, const struct pci_doorbell *bells,
                       size_t count);

/** Guest memory, for DMA. */
struct mem *pci_mem(const struct pci_function *f);

/** The host bridge: ECAM window, 32-bit and 64-bit memory windows, four INTx lines swizzled by
 * slot. */
struct pci_host_config {
    gpa_t ecam;         /* within mmio32: pci_host_move_ecam() can move it there */
    uint64_t ecam_size; /* 1 MiB a bus; bus 0 only is populated */
    gpa_t mmio32;
    uint64_t mmio32_size;
    gpa_t mmio64;
    uint64_t mmio64_size;
    gpa_t pio;
    uint64_t pio_size;
    struct irq_line intx[4];
    gpa_t msi; /* where MSI-X messages may go besides RAM; msi_size 0 = nowhere */
    uint64_t msi_size;
    const struct pci_info *bridge; /* function 0; NULL = a generic one */
    void (*bridge_written)(void *arg, struct pci_function *bridge); /* its registers behind the
                                                                       header; NULL = not wanted */
    /** Have the host signal eventfd @fd at guest writes to @addr, or no longer: 0, or -errno, and
     * the writes come as others do. NULL: it never can. */
    int (*doorbell)(void *arg, uint64_t addr, int fd, bool on);
    void *arg;
    bool assign_bars; /* place BARs at start, as firmware would, for kernels told to keep them */
};
must_check int pci_host_new(struct mem *mem, const struct pci_host_config *config,
                            struct pci_host **ret, struct error *err);
void pci_host_free(struct pci_host *host);
void pci_host_reset(struct pci_host *host);

/** Where the configuration window is now, for a board whose bridge can move it; UINT64_MAX =
 * nowhere. Any thread. */
void pci_host_move_ecam(struct pci_host *host, uint64_t base);

/** From where to where decoded BARs lie in the 64-bit window now; both 0: there are none. Any
 * thread. */
void pci_host_used64(const struct pci_host *host, uint64_t *ret_first, uint64_t *ret_end);

/** The bridge itself. */
struct pci_function *pci_host_bridge(struct pci_host *host);

/** Configuration space by another mechanism than the window: @offset is as in the window, the
 * access is naturally aligned and of 1, 2 or 4 bytes. Any vCPU's thread. */
uint32_t pci_host_config_read(struct pci_host *host, uint64_t offset, unsigned size);
void pci_host_config_write(struct pci_host *host, uint64_t offset, unsigned size, uint32_t value);

/** State for a snapshot: vCPUs and loops stand still. A failed load leaves the device in any state:
 * reset or free it. */
void pci_host_save(struct pci_host *host, struct state_out *out);
must_check int pci_host_load(struct pci_host *host, const struct state_in *in, struct error *err);

#endif
