/* Guest-physical address space of one machine: RAM, ROM and memory-mapped devices.
 *
 * Regions are added before the vCPUs start and never change after mem_freeze(); so look-ups take no
 * lock. Windows whose content moves at run time (PCI BARs) are one MMIO region whose owner does the
 * second step.
 *
 * Guest RAM is shared with running vCPUs: copy in once, check the copy, use the copy. */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include "base/error.h"
#include "base/macros.h"

/** Guest-physical and guest-virtual addresses: distinct types, so that they are never mixed up. */
typedef struct {
    uint64_t v;
} gpa_t;
typedef struct {
    uint64_t v;
} gva_t;

#define GPA(x) ((gpa_t){(x)})
#define GVA(x) ((gva_t){(x)})

#define MEM_PAGE_BITS 12
#define MEM_PAGE_SIZE 4096u

enum bus_result {
    BUS_OK,
    BUS_UNHANDLED, /* nothing is there: the CPU takes an access fault */
    BUS_FAULT,     /* the device refuses this access: the CPU takes an access fault */
};

/** A memory-mapped device's registers. Called on any vCPU's thread, several at once: the device
 * locks itself.
 *  @offset is relative to the region; @size is 1, 2, 4 or 8 and within [min_size, max_size]; the
 * access does not cross the region's end and is naturally aligned (the bus splits and refuses
 * others with BUS_FAULT). Values are little-endian numbers. */
struct mmio_ops {
    const char *name;
    enum bus_result (*read)(void *dev, uint64_t offset, unsigned size, uint64_t *ret);
    enum bus_result (*write)(void *dev, uint64_t offset, unsigned size, uint64_t value);
    uint8_t min_size; /* 0 means 1: narrower accesses are refused */
    uint8_t
        max_size; /* 0 means 8: wider accesses are split into max_size pieces, low address first */
};

struct mem;

struct mem *mem_new(void);
/** Unmaps RAM. NULL is allowed. No vCPU or device thread may still use it. */
void mem_free(struct mem *mem);

enum mem_flags {
    MEM_READONLY = 1 << 0, /* guest writes go to the MMIO ops given, or are BUS_FAULT */
};

/** Add @size bytes (a multiple of 4 KiB) of zeroed, lazily allocated RAM at @base. With
 * MEM_READONLY it is ROM: reads and instruction fetch are direct, writes call @rom_ops->write
 * (NULL: fault). *@ret_host, if given, is the host address; it stays mem's. Errors: -EINVAL
 * (overlap, alignment), -ENOMEM. Before mem_freeze(). */
must_check int mem_add_ram(struct mem *mem, gpa_t base, uint64_t size, unsigned flags,
                           const char *name, const struct mmio_ops *rom_ops, void *rom_dev,
                           void **ret_host, struct error *err);

/** RAM that is added to @mem from now on takes over the memory of @from's region of the same base
 * and size, content and all, which @from loses; what @from does not have is new. Before
 * mem_freeze(); no vCPU or device may still use @from. For a machine that goes on in another
 * process: vm_fork(). */
void mem_adopt(struct mem *mem, struct mem *from);

/** Add a device's registers. @ops and @dev are borrowed for the life of @mem. Errors as above. */
must_check int mem_add_mmio(struct mem *mem, gpa_t base, uint64_t size, const struct mmio_ops *ops,
                            void *dev, struct error *err);

/** Give back the memory of RAM that is all zeroes, by huge pages (2 MiB); how many bytes. Nobody
 * may write to @mem meanwhile. */
uint64_t mem_trim(struct mem *mem);

/** No region changes after this. */
void mem_freeze(struct mem *mem);

/** Where an address leads: for TLB fill. */
struct mem_region {
    gpa_t base;
    uint64_t size;
    uint8_t *host; /* RAM and ROM: address of base; NULL for MMIO */
    bool writable; /* RAM */
    const struct mmio_ops *ops;
    void *dev;
    const char *name;
    uint8_t *page_flags; /* RAM and ROM: one byte a page, MEM_PAGE_*; [atomic] */
};

/** The region that holds @gpa, or NULL. Any thread, after mem_freeze(); before it, the thread that
 * adds. */
const struct mem_region *mem_find(const struct mem *mem, gpa_t gpa);

/** Iterate over all regions in address order: *@i starts at 0. NULL at the end. */
const struct mem_region *mem_next(const struct mem *mem, size_t *i);

/** Host pointer to [gpa, gpa+size) if all of it lies in one RAM region (or, for reading, ROM); else
 * NULL. The pointer is for data buffers only and must not be kept. After writing through it call
 * mem_written(). */
void *mem_ptr(const struct mem *mem, gpa_t gpa, uint64_t size, bool write);

/** Copy between guest RAM and the host. 0, or -EFAULT if any byte is not RAM (nothing is promised
 * about a partial copy). mem_copy_out() does what mem_written() does. Any thread. */
must_check int mem_copy_in(const struct mem *mem, gpa_t gpa, void *buf, size_t size);
must_check int mem_copy_out(struct mem *mem, gpa_t gpa, const void *buf, size_t size);

/** RAM was written by other means than a vCPU: drop translations made of it (and, later, mark it
 * dirty). Any thread. */
void mem_written(struct mem *mem, gpa_t gpa, uint64_t size);

/** Device or CPU access of 1, 2, 4 or 8 bytes at any address: RAM, ROM or MMIO (split and size
 * rules applied). Any thread. */
enum bus_result mem_read(struct mem *mem, gpa_t gpa, unsigned size, uint64_t *ret);
enum bus_result mem_write(struct mem *mem, gpa_t gpa, unsigned size, uint64_t value);

/** Page flags. */
enum {
    MEM_PAGE_CODE = 1 << 0,  /* an engine holds translations made from this page */
    MEM_PAGE_DIRTY = 1 << 1, /* reserved for snapshots and migration */
    MEM_PAGE_WMAP = 1 << 2,  /* an engine's TLB may hold this page for direct writing */
};

/** Called for each written piece, of at most a page, of a page that has MEM_PAGE_CODE; on the
 * writer's thread. One listener; before mem_freeze(). */
struct mem_code_listener {
    void (*written)(void *arg, gpa_t gpa, uint64_t size);
    void *arg;
};
void mem_set_code_listener(struct mem *mem, const struct mem_code_listener *listener);

/** Give the pages that lie wholly in [gpa, gpa+size) back to the host; they read as zero afterwards
 * (balloon). Any thread. */
must_check int mem_discard(struct mem *mem, gpa_t gpa, uint64_t size);

/** Bytes of RAM in all. */
uint64_t mem_ram_bytes(const struct mem *mem);

#endif
