/* What every emulated guest CPU has: the head of its state struct, address translation cache,
 * memory access, and the calls by which guest code (decoder, interpreter, system registers) and the
 * engine meet.
 *
 * Layout: a guest's state begins with struct cpu (struct rv_hart { struct cpu cpu; ... }), so
 * generated code reaches both off one base register. Threads: the CPU's own thread, but for fields
 * tagged [atomic].
 *
 * Code position: a translated or decoded block is known by the *physical* address of its first
 * instruction and the CPU's mode, and is independent of the virtual address: inside it the pc is
 * `code_page` (virtual page base, set at entry) plus a constant. So one translation of a shared
 * library serves every process that maps it anywhere. */
#ifndef CPU_CORE_CPU_H
#define CPU_CORE_CPU_H

#include "base/clock.h"
#include "base/macros.h"
#include "mem/mem.h"
#include "vcpu/vcpu.h"

#include <string.h>

struct cpu;
struct block;
struct insn;
struct ir_func;
struct replay;
struct state_in;
struct state_out;

enum cpu_access { CPU_READ, CPU_WRITE, CPU_FETCH };

/** What executing an instruction or a block came to. Anything but CPU_OK leaves the block. */
enum cpu_status {
    CPU_OK = 0,
    CPU_EXCEPTION = 1, /* the guest's pending exception is set; pc is the faulting instruction's */
    CPU_WFI = 2,       /* wait for interrupt; pc is behind the instruction */
    CPU_EXIT = 3,      /* a vcpu_exit was stored by cpu_ops; pc is where to go on */
    CPU_RETRANSLATE =
        4, /* mode or translations changed: look the next block up afresh; pc is set */
};

/* --- Software TLB
 * ------------------------------------------------------------------------------------------------------------
 */

/** Modes that translate differently; part of a block's key. RISC-V: U, S, S with SUM, M (bare). */
#define CPU_MMU_MODES  4
#define CPU_MMU_SHARED 1 /* the mode of kernels, whose pages tend to be the same in all */
#define CPU_CONTEXTS   9 /* address spaces remembered, the first being that without translation */

/** Each TLB starts with 2^TLB_MIN_BITS entries and grows while it is too small. */
#define TLB_MIN_BITS    9
#define TLB_MAX_BITS    14
#define TLB_MAX_ENTRIES (1u << TLB_MAX_BITS)

/** One page. A tag is the page's last byte's virtual address if that kind of access may go straight
 * to host memory at va + addend, else 0. Fast path test: ((va + size - 1) | 0xfff) == tag, with the
 * entry chosen by va: so misaligned accesses within a page are fast and page-crossing ones never
 * match. Atomics, which must be aligned, keep the low bits: ((va + size - 1) | (0xfff & -size)). */
struct tlb_entry {
    uint64_t tag[3]; /* by enum cpu_access */
    uint64_t addend;
};

/** Where an access is looked for, and what its tag must be. Empty entries are all zeros: no address
 * has such a tag. */
static inline uint64_t tlb_tag(uint64_t last_va)
{
    return last_va | (MEM_PAGE_SIZE - 1);
}

struct jump_entry {
    uint64_t key; /* pc */
    struct block *block;
    const void *code;   /* host code of block, NULL = none */
    uint32_t mode;      /* block key's mode bits | JUMP_VALID; 0 = empty */
    uint32_t code_mode; /* the same if there is code, else 0 */
};
#define JUMP_BITS    15
#define JUMP_ENTRIES (1u << JUMP_BITS)
#define JUMP_VALID   0x80000000u

/** Place of a pc in the jump cache of its fetch mode: as generated code computes it. What does not
 * find room there is in the other entry of the pair. A page's entries lie together.
 */
static inline unsigned jump_index(uint64_t pc)
{
    return (unsigned)(pc ^ pc >> JUMP_BITS) >> 1 & (JUMP_ENTRIES - 1);
}

/** A context remembers of which pages it has jump entries, modulo this number of pages. */
#define JUMP_PAGES 4096

/** What an access of generated code found in the TLB last: it may look here first. */
struct tlb_memo {
    uint64_t tag, addend; /* as in struct tlb_entry */
};
#define TLB_MEMOS 256

/** Translations for one mmu mode. Whole pages of the host: several address spaces may have the same
 * one (context.c). */
struct cpu_table {
    uint32_t evicted;   /* pages that gave way to others since the last flush */
    uint32_t memo_used; /* bit i: some of memos [i * TLB_MEMOS / 16 ...) are in use */
    /* There are entries, some of which do not hold in all address spaces. */
    bool tlb_used, tlb_local, jumps_used, jumps_local;
    /* Bits of hashes of va >> 21 and va >> 30: pages of more than 4 KiB and up to 2 MiB, or larger
     * ones, the largest of 2^huge_bits bytes, were entered there. */
    unsigned huge_bits;
    uint64_t huge;
    uint64_t large[64];
    /* Of jumps: bit (pc >> 12) % JUMP_PAGES for every pc, and for every 64 entries that may be
     * used. */
    uint64_t jump_pages[JUMP_PAGES / 64];
    uint64_t jump_lines[JUMP_ENTRIES / 64 / 64];
    uint64_t global[TLB_MAX_ENTRIES / 64]; /* entries of tlb that hold in all address spaces */
    struct tlb_memo memos[2 * TLB_MEMOS];  /* of reads, then of writes */
    struct tlb_entry tlb[TLB_MAX_ENTRIES];
    struct jump_entry jumps[JUMP_ENTRIES];
} __attribute__((aligned(MEM_PAGE_SIZE)));

/** Translations of one address space. */
struct cpu_context {
    uint32_t tlb_mask[CPU_MMU_MODES]; /* (entries - 1) * sizeof(struct tlb_entry) */
    uint64_t key;                     /* guest's name of the address space (satp) */
    uint64_t last_used;               /* for eviction */
    bool valid;
    bool shares; /* its table of mode CPU_MMU_SHARED is that of all others that do */
    struct cpu_table tables[CPU_MMU_MODES];
};

/** Result of the guest's page walk. */
struct cpu_translation {
    gpa_t gpa;    /* of the address asked for */
    bool prot[3]; /* by enum cpu_access: may be entered in the TLB for these (write only if the page
                     is marked dirty) */
    bool uncached;     /* permissions differ within the 4 KiB page (PMP): use once, do not enter */
    bool global;       /* the same in all address spaces but the one with key 0 */
    uint8_t page_bits; /* log2 of the mapping's size, >= 12 */
    uint16_t span;     /* with uncached: bytes from the address asked for, within the page, that the
                          answer holds for; an access longer than that faults */
};

/* --- State
 * -------------------------------------------------------------------------------------------------------------------
 */

/** What each CPU counts. */
#define CPU_STATS(X)                                                                  \
    X(blocks_decoded)     /* basic blocks met for the first time */                   \
    X(blocks_interpreted) /* run by the interpreter */                                \
    X(blocks_translated)                                                              \
    X(regions_translated)                                                             \
    X(block_lookups)   /* pcs that the jump cache did not know */                     \
    X(system_insns)    /* system instructions executed from generated code */         \
    X(exits_direct)    /* generated code left: at an exit that was not linked yet, */ \
    X(exits_indirect)  /* for a pc that the jump cache had no code for, */            \
    X(exits_attention) /* because something was asked for, */                         \
    X(exits_status)    /* by an exception, WFI or a call of the monitor */            \
    X(exceptions)      /* delivered by the run loop */                                \
    X(waits)           /* WFIs */                                                     \
    X(monitor_calls)   /* exits from vcpu_run() */                                    \
    X(tlb_fills)                                                                      \
    X(tlb_flushes)        /* by the guest, of whatever extent */                      \
    X(context_switches)   /* to an address space other than the last */               \
    X(contexts_forgotten) /* of them, those that displaced another one's translations */

struct cpu_stats {
#define CPU_STAT(name) uint64_t name;
    CPU_STATS(CPU_STAT)
#undef CPU_STAT
};

/** Head of every guest CPU's state. Generated code addresses fields by offset: hot ones first. */
struct cpu {
    uint32_t attention; /* [atomic] nonzero: leave the block loop at the next block boundary */
    uint32_t status;    /* status of the last helper called by generated code (enum cpu_status) */
    uint64_t pc;        /* exact outside blocks and at every status != CPU_OK; else see code_page */
    uint64_t code_page; /* virtual address of the page being executed, valid inside blocks */
    uint64_t instret;   /* instructions retired */
    uint64_t mode;      /* block key bits: 0-1 = mmu mode of data accesses, 2-3 = of fetches, others
                           guest-defined */
    struct cpu_context *context; /* the current address space */
    uint32_t fp_flags;           /* exception flags raised so far, guest encoding */
    uint32_t mxcsr;              /* scratch of generated code */

    const struct cpu_ops *ops;    /* [init] */
    struct mem *mem;              /* [init] */
    const struct vclock *clock;   /* [init] */
    struct engine *engine;        /* [init] opaque to guests */
    struct replay *replay;        /* engine=check: NULL, or the log being written or replayed */
    struct vcpu_exit *exit;       /* where CPU_EXIT stores its cause; set during run */
    struct cpu_context *contexts; /* [init] CPU_CONTEXTS of them */
    uint64_t context_clock;
    unsigned contexts_owned; /* times that a context ceased to share */
    uint32_t index;          /* [init] hart ID */
    uint32_t requests;       /* [atomic] enum vcpu_request bits and CPU_REQ_* not yet honoured */
    uint64_t irqs;           /* [atomic] interrupt inputs, bit = number given to vcpu_set_irq() */
    uint32_t sleeping;       /* [atomic] in WFI: cpu_set_attention() must wake the thread */
    bool trap_ebreak;        /* a debugger wants EBREAK */
    bool slow_memory;        /* watchpoints or check: every data access takes the slow path */
    const struct vcpu_debug *debug; /* NULL, or what a debugger wants */
    struct cpu_stats stats;         /* [atomic] relaxed, by cpu_count() */
};

/** One more. The CPU's own thread. */
static inline void cpu_count(uint64_t *counter)
{
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED); /* one writer; readers may lag */
}

/** Engine-internal request bits, beside enum vcpu_request. */
enum {
    CPU_REQ_WRITES = 1 << 9, /* forget write tags */
    CPU_REQ_FENCES = 1 << 10 /* do the fences that wait */
};

/* --- Guest's side
 * ------------------------------------------------------------------------------------------------------------
 */

/** One decoded instruction; `op` numbers and field use are the guest's. 16 bytes. */
struct insn {
    uint16_t op;
    uint8_t rd, rs1, rs2, rs3; /* rs3: also rounding mode, aq/rl..., as the op says */
    uint8_t size;              /* bytes */
    uint8_t flags;             /* enum insn_flags */
    int32_t imm;
    uint16_t page_offset; /* of the instruction in its page */
    uint16_t extra;       /* e.g. CSR number, rounding mode */
};

enum insn_flags {
    INSN_END = 1,    /* ends a block (branch, jump, system) */
    INSN_SYSTEM = 2, /* ends a block and is executed by the interpreter in every engine (CSR, traps,
                        fences, WFI): what follows may be in another mode */
    INSN_MEMORY = 4, /* may read or write data memory */
};

/** What the engine asks of a guest architecture. All take the CPU whose thread calls. */
struct cpu_ops {
    const char *name;
    size_t state_size; /* bytes of the whole state struct */

    /** Decode one instruction of at most @avail bytes at @bytes (2 or 4..). Returns its size, or 0
     * if @avail is too short. An illegal encoding decodes to an instruction that raises the
     * exception. Any thread. */
    unsigned (*decode)(const struct cpu *c, const uint8_t *bytes, unsigned avail, struct insn *ret);

    /** Execute @count instructions from @insns, whose code page is c->code_page; updates pc and
     * instret exactly. On CPU_OK the pc is that of the next instruction to execute. */
    enum cpu_status (*interp)(struct cpu *c, const struct insn *insns, unsigned count);

    /** Translate to IR (cpu/ir). False: not worth it, interpret. */
    bool (*translate)(struct cpu *c, const struct insn *insns, unsigned count, struct ir_func *ret);

    /** Walk the page tables for @va in mmu mode @mmu. False: the exception is pending (cause, tval
     * set), or with @debug, simply false and without any side effect. */
    bool (*translate_address)(struct cpu *c, uint64_t va, enum cpu_access access, unsigned mmu,
                              bool debug, struct cpu_translation *ret);

    /** Make an access fault (nothing at the physical address) or a misaligned-address exception
     * pending. */
    void (*access_fault)(struct cpu *c, uint64_t va, enum cpu_access access);
    void (*misaligned)(struct cpu *c, uint64_t va, enum cpu_access access);

    /** Deliver the pending exception: registers, mode and pc of the handler. */
    void (*take_exception)(struct cpu *c);

    /** Deliver the most urgent enabled interrupt, if any; true if pc changed. Called when
     * c->attention was set. */
    bool (*take_interrupt)(struct cpu *c);

    /** Would WFI go on? (An interrupt is pending and locally enabled, whatever the global enable.)
     */
    bool (*wakes)(struct cpu *c);

    /** CLOCK_MONOTONIC ns of the next time-driven change in pending interrupts; INT64_MAX = none.
     */
    int64_t (*next_timer_ns)(struct cpu *c);

    /** Render for dumps: into @buf of @size. */
    void (*disassemble)(const struct cpu *c, const struct insn *insn, uint64_t pc, char *buf,
                        size_t size);

    /** First difference between two states after the same block, as text; false if equal. For
     * engine=check. */
    bool (*diff)(const struct cpu *a, const struct cpu *b, char *buf, size_t size);

    /** Forget translations; another's SFENCE.VMA. */
    void (*fence)(struct cpu *c, const struct vcpu_fence *f);

    void (*reset)(struct cpu *c);
    int (*get_reg)(struct cpu *c, unsigned id, uint64_t *ret);
    int (*set_reg)(struct cpu *c, unsigned id, uint64_t value);
    const struct vcpu_reg *(*registers)(struct cpu *c, size_t *ret_count);

    /** See vcpu_save() and vcpu_load(). */
    void (*save)(struct cpu *c, struct state_out *out);
    int (*load)(struct cpu *c, const struct state_in *in, struct error *err);
};

/* --- Memory access by guest code (interpreter, page walker)
 * -------------------------------------------------------------------- */

/** Slow paths: translate, enter in the TLB if allowed, access RAM or a device, honour watchpoints
 * and the check log. CPU_OK, CPU_EXCEPTION, or CPU_EXIT (watchpoint). Values are zero-extended.
 * size 1, 2, 4, 8. */
enum cpu_status cpu_load_slow(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                              uint64_t *ret);
enum cpu_status cpu_store_slow(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                               uint64_t value);

static inline struct tlb_entry *tlb_at(struct cpu *c, uint64_t va, unsigned mmu)
{
    static_assert(sizeof(struct tlb_entry) == 1 << (MEM_PAGE_BITS - 7), "shift and mask");
    return (struct tlb_entry *)(void *)((char *)c->context->tables[mmu].tlb +
                                        ((va >> 7) & c->context->tlb_mask[mmu]));
}

/** One host access of @size bytes (so an aligned one is atomic) to guest memory, at any alignment.
 */
struct __attribute__((packed, may_alias)) cpu_unaligned16 {
    uint16_t v;
};
struct __attribute__((packed, may_alias)) cpu_unaligned32 {
    uint32_t v;
};
struct __attribute__((packed, may_alias)) cpu_unaligned64 {
    uint64_t v;
};

static inline uint64_t cpu_host_load(const void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const volatile uint8_t *)p;
    case 2:
        return ((const volatile struct cpu_unaligned16 *)p)->v;
    case 4:
        return ((const volatile struct cpu_unaligned32 *)p)->v;
    default:
        return ((const volatile struct cpu_unaligned64 *)p)->v;
    }
}

static inline void cpu_host_store(void *p, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        *(volatile uint8_t *)p = (uint8_t)value;
        break;
    case 2:
        ((volatile struct cpu_unaligned16 *)p)->v = (uint16_t)value;
        break;
    case 4:
        ((volatile struct cpu_unaligned32 *)p)->v = (uint32_t)value;
        break;
    default:
        ((volatile struct cpu_unaligned64 *)p)->v = value;
        break;
    }
}

/** Load @size bytes at @va as in mmu mode @mmu, zero-extended. Misaligned accesses work; in RAM
 * only. */
static inline enum cpu_status cpu_load(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                                       uint64_t *ret)
{
    const struct tlb_entry *e = tlb_at(c, va, mmu);

    if (likely(tlb_tag(va + size - 1) == e->tag[CPU_READ])) {
        *ret = cpu_host_load((const void *)(uintptr_t)(va + e->addend), size);
        return CPU_OK;
    }
    return cpu_load_slow(c, va, size, mmu, ret);
}

static inline enum cpu_status cpu_store(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                                        uint64_t value)
{
    const struct tlb_entry *e = tlb_at(c, va, mmu);

    if (likely(tlb_tag(va + size - 1) == e->tag[CPU_WRITE])) {
        cpu_host_store((void *)(uintptr_t)(va + e->addend), size, value);
        return CPU_OK;
    }
    return cpu_store_slow(c, va, size, mmu, value);
}

/** Read-modify-write, atomic among all CPUs (seq-cst, which covers every aq/rl). @va must be
 * aligned, else the misaligned exception is raised; on a device: access fault. *@ret_old is
 * zero-extended. */
enum cpu_atomic_op {
    CPU_SWAP,
    CPU_ADD,
    CPU_AND,
    CPU_OR,
    CPU_XOR,
    CPU_MIN,
    CPU_MAX,
    CPU_MINU,
    CPU_MAXU,
};
enum cpu_status cpu_atomic(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                           enum cpu_atomic_op op, uint64_t operand, uint64_t *ret_old);

/** Compare and swap, atomic among all CPUs: stores @desired if memory holds @expected; *@ret_old is
 * what it held. Alignment as above. Needs write permission even when the comparison fails. */
enum cpu_status cpu_cas(struct cpu *c, uint64_t va, unsigned size, unsigned mmu, uint64_t expected,
                        uint64_t desired, uint64_t *ret_old);

/** The same for 16 bytes, as two halves, the lower first. */
enum cpu_status cpu_cas128(struct cpu *c, uint64_t va, unsigned mmu, const uint64_t expected[2],
                           const uint64_t desired[2], uint64_t ret_old[2]);

/** Check that @size bytes at @va may be accessed (cbo.*), without accessing them. */
enum cpu_status cpu_probe(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                          enum cpu_access access);

/** Zero the naturally aligned @size-byte block around @va (cbo.zero). */
enum cpu_status cpu_zero_block(struct cpu *c, uint64_t va, unsigned size, unsigned mmu);

/** Fetch 2 instruction bytes at @va (also for a decoder across a page end). */
enum cpu_status cpu_fetch16(struct cpu *c, uint64_t va, uint16_t *ret);

/** Physical memory access of the page walker, 8-byte aligned: load, and compare-and-swap (true if
 * stored). BUS_FAULT unless RAM. */
enum bus_result cpu_walk_load(struct cpu *c, gpa_t gpa, uint64_t *ret);
enum bus_result cpu_walk_cas(struct cpu *c, gpa_t gpa, uint64_t expected, uint64_t desired,
                             bool *ret_stored);

/* --- Translation maintenance by guest code
 * -------------------------------------------------------------------------------------- */

/** Switch to the address space called @key: translations remembered for it are used again. The
 * guest promises that a key always means the same page tables until flushed (RISC-V: the whole satp
 * value). */
void cpu_set_context(struct cpu *c, uint64_t key);

/** Forget translations: everything; one page in all address spaces; all of the address spaces for
 * which match(key, arg), but for what is global. */
void cpu_flush_all(struct cpu *c);
void cpu_flush_page(struct cpu *c, uint64_t va);
void cpu_flush_contexts(struct cpu *c, bool (*match)(uint64_t key, uint64_t arg), uint64_t arg);
/** One page in the address spaces for which match(key, arg), unless it is global. */
void cpu_flush_page_in(struct cpu *c, uint64_t va, bool (*match)(uint64_t key, uint64_t arg),
                       uint64_t arg);

/** fence.i: code written by anyone before is seen by blocks looked up after. */
void cpu_sync_code(struct cpu *c);

/* --- Time and interrupts
 * ----------------------------------------------------------------------------------------------------------
 */

/** Guest time in ns, logged under engine=check. */
int64_t cpu_now_ns(struct cpu *c);

/** ops->next_timer_ns() changed: have attention set when its time comes. (In cpu/engine.) */
void cpu_timer_changed(struct cpu *c);

/** Ask for ops->take_interrupt() at the next block boundary; wakes the CPU's thread from WFI. Any
 * thread. */
void cpu_set_attention(struct cpu *c);

/** Sleep until attention is wanted or CLOCK_MONOTONIC reads @deadline_ns. False: it is wanted. The
 * CPU's own thread. */
bool cpu_doze(struct cpu *c, int64_t deadline_ns);

/** Engine=check: the value of a non-repeatable input (time, seed): recorded in the reference run,
 * repeated in the second. */
uint64_t cpu_log_value(struct cpu *c, uint64_t value);

#endif
