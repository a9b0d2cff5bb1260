/* State of one RISC-V hart, and the calls by which this folder's files meet.
 *
 *   decode (generated from *.decode) → interp → csr, trap, mmu, pmp      translate → cpu/ir
 *
 * Specs: Unprivileged ISA 20240411, Privileged Architecture 20240411 (1.13), and each extension's
 * own, as cited. */
#ifndef CPU_GUEST_RISCV_HART_H
#define CPU_GUEST_RISCV_HART_H

#include "cpu/core/cpu.h"

enum rv_priv { RV_U = 0, RV_S = 1, RV_M = 3 };

/** Bits of cpu.mode: a block is decoded and translated for one value of it. */
enum rv_mode {
    RV_MODE_MMU_MASK = 3,   /* enum rv_mmu: how data accesses translate (MPRV and SUM applied) */
    RV_MODE_PRIV_SHIFT = 2, /* 2 bits: privilege, which is how fetches translate */
    RV_MODE_PRIV_MASK = 3 << 2,
    RV_MODE_FS = 1 << 4,       /* mstatus.FS != Off: FP instructions are legal */
    RV_MODE_FS_DIRTY = 1 << 5, /* mstatus.FS == Dirty already: no need to mark it */
    RV_MODE_FRM_RNE = 1 << 6,  /* frm == RNE: dynamic rounding may be taken as RNE */
    RV_MODE_FRM_BAD = 1 << 7,  /* frm is a reserved value: dynamic rounding is illegal */
    RV_MODE_VS = 1 << 8,       /* mstatus.VS != Off: vector instructions are legal */
    RV_MODE_CBO_SHIFT = 9,     /* 4 bits: cbo.inval trap, cbo.inval as flush, cbo.clean/flush legal,
                                  cbo.zero legal at this privilege */
    RV_MODE_VS_DIRTY = 1 << 13, /* mstatus.VS == Dirty already */
    RV_MODE_RVA22 = 1 << 14,    /* what a hart of this profile does not have is illegal; neither */
    RV_MODE_RVA23 = 1 << 15,    /* bit: it has everything */
};

/** What a hart has: the mandatory extensions of a profile and some of its options, or all. */
enum rv_profile { RV_PROFILE_MAX, RV_PROFILE_RVA23, RV_PROFILE_RVA22 };

enum rv_mmu { RV_MMU_U = 0, RV_MMU_S = 1, RV_MMU_S_SUM = 2, RV_MMU_M = 3 };

/** Exception causes (Privileged table "mcause"); interrupts are bit numbers of mip. */
enum rv_cause {
    RV_CAUSE_INSN_MISALIGNED = 0,
    RV_CAUSE_INSN_ACCESS = 1,
    RV_CAUSE_ILLEGAL = 2,
    RV_CAUSE_BREAKPOINT = 3,
    RV_CAUSE_LOAD_MISALIGNED = 4,
    RV_CAUSE_LOAD_ACCESS = 5,
    RV_CAUSE_STORE_MISALIGNED = 6,
    RV_CAUSE_STORE_ACCESS = 7,
    RV_CAUSE_ECALL_U = 8,
    RV_CAUSE_ECALL_S = 9,
    RV_CAUSE_ECALL_M = 11,
    RV_CAUSE_INSN_PAGE = 12,
    RV_CAUSE_LOAD_PAGE = 13,
    RV_CAUSE_STORE_PAGE = 15,
};

enum rv_irq {
    RV_IRQ_SSI = 1,
    RV_IRQ_MSI = 3,
    RV_IRQ_STI = 5,
    RV_IRQ_MTI = 7,
    RV_IRQ_SEI = 9,
    RV_IRQ_MEI = 11,
    RV_IRQ_LCOF = 13,
};

#define RV_VLEN_MIN       128 /* bits, and powers of two between */
#define RV_VLEN_MAX       512
#define RV_VLEN_DEFAULT   256
#define RV_PMP_ENTRIES    16
#define RV_COUNTERS       32
#define RV_CBO_BLOCK      64 /* bytes, cbom and cboz */
#define RV_NO_RESERVATION UINT64_MAX
#define RV_RL             1 /* of struct insn's rs3, in atomics: release; 2: acquire */

struct rv_pmp_range {     /* pmpaddr/pmpcfg decoded; see pmp.c */
    uint64_t first, last; /* inclusive physical bytes; first > last: matches nothing */
    uint8_t cfg;
};

/** A counter stands at value + (now - base) of its source while it runs, else at value: counter.c.
 */
struct rv_counter {
    uint64_t value, base;
    bool running;
};

/** What mhpmevent may select: SBI's event numbers, and two of our own. */
enum rv_hpm_event {
    RV_HPM_NONE = 0,
    RV_HPM_CYCLES = 1,
    RV_HPM_INSTRUCTIONS = 2,
    RV_HPM_DTLB_READ_MISS = 0x10019,
    RV_HPM_DTLB_WRITE_MISS = 0x1001b,
    RV_HPM_ITLB_READ_MISS = 0x10021,
    RV_HPM_EXCEPTIONS = 0x80000,
    RV_HPM_INTERRUPTS = 0x80001,
};

/** Sources of counters that are neither time nor instret. The walks, by what was accessed, are the
 * TLB misses; they stand in the order of enum cpu_access. */
enum rv_event {
    RV_EVENT_LOAD_WALK,
    RV_EVENT_STORE_WALK,
    RV_EVENT_FETCH_WALK,
    RV_EVENT_EXCEPTION,
    RV_EVENT_INTERRUPT,
    RV_EVENTS,
};

struct rv_vk_table;
struct rv_vc_table;

/** Vector state. Register r is at v[r * vlenb], so that a group of registers is one array. */
struct rv_vector {
    const struct rv_vk_table *kernels; /* [init] */
    const struct rv_vc_table *crypto;  /* [init] */
    uint64_t vl, vstart;               /* vl <= vlmax always */
    uint64_t vtype;                    /* as it reads */
    uint64_t vl_wanted;                /* by a debugger, to hold when vtype is next set by it */
    uint8_t vxrm, vxsat;               /* fixed-point rounding mode and saturation flag */
    uint8_t sew;                       /* log2 of the bytes of an element, from vtype */
    int8_t lmul;                       /* log2 of the registers of a group, from vtype */
    uint16_t vlmax;
    uint16_t vlenb; /* [init] bytes of a register */
    uint64_t v[32 * RV_VLEN_MAX / 64];
};

struct rv_hart {
    struct cpu cpu;

    uint64_t x[32]; /* x[0] is always 0 */
    uint64_t f[32]; /* NaN-boxed */

    uint8_t priv; /* enum rv_priv */
    uint8_t frm;
    bool builtin_sbi; /* [init] M-mode is the monitor's: see engine_config */
    bool exception_pending;
    uint64_t exception_cause; /* enum rv_cause */
    uint64_t exception_tval;

    /* LR/SC: the reservation is the value loaded; SC compares and swaps it (as the spec's
     * constrained loops allow). */
    uint64_t reservation; /* the address, plus 1 if it is of 8 bytes; RV_NO_RESERVATION = none */
    uint64_t reservation_value;
    uint32_t spins;        /* PAUSEs executed: every so often one gives the host CPU away, */
    uint64_t gave_instret; /* and did at this count of instructions */

    uint64_t mstatus, medeleg, mideleg, mie,
        mip /* software-writable bits; inputs are cpu.irqs and timers */;
    uint64_t mtvec, mscratch, mepc, mcause, mtval, mcounteren, mcountinhibit, menvcfg, mseccfg,
        mtval2, mtinst;
    uint64_t stvec, sscratch, sepc, scause, stval, scounteren, senvcfg, satp, stimecmp;
    uint64_t mstateen[4], sstateen[4];
    uint64_t pmpaddr[RV_PMP_ENTRIES];
    uint8_t pmpcfg[RV_PMP_ENTRIES];
    struct rv_pmp_range pmp[RV_PMP_ENTRIES];
    bool pmp_active; /* any entry is on: else M may do all and S/U nothing (or, with builtin_sbi,
                        all) */
    struct rv_counter counter[RV_COUNTERS]; /* 0 cycle, 2 instret, 3... hpm; 1 is unused */
    uint64_t event[RV_COUNTERS];            /* mhpmevent */
    uint64_t events[RV_EVENTS];             /* engine events since reset, by enum rv_event */
    bool counters_filtered;                 /* some counter stops in some privilege modes */
    bool overflow_armed;                    /* some hpm counter would interrupt when it overflows */
    bool timer_fired;        /* stimecmp was seen to be reached: sticks until it is written */
    uint64_t timebase_hz;    /* [init] */
    uint64_t reset_pc;       /* [init] */
    enum rv_profile profile; /* [init] */
    struct rv_vector vec;
};

static inline struct rv_hart *rv_hart_of(struct cpu *c)
{
    return (struct rv_hart *)c;
}

/* csr.c, counter.c */

enum rv_csr_op { RV_CSR_WRITE, RV_CSR_SET, RV_CSR_CLEAR };

/** CSRRW, CSRRS or CSRRC (and the immediate forms) on CSR @csr at the present privilege. @write is
 * false for CSRRS and CSRRC whose source is x0 or 0; @ret_old is NULL for CSRRW whose rd is x0.
 * Call it with cpu.pc and cpu.instret as before the instruction; it leaves both alone. CPU_OK with
 * the old value in *@ret_old; CPU_EXCEPTION (illegal instruction pending, tval 0: the caller sets
 * the encoding). The caller must end its block in any case. */
enum cpu_status rv_csr_access(struct rv_hart *h, unsigned csr, enum rv_csr_op op, bool write,
                              uint64_t operand, uint64_t *ret_old);
/** The name of CSR @csr into @buf; false if this hart has no such CSR. */
bool rv_csr_name(unsigned csr, char *buf, size_t size);
/** For debuggers and saved state: no privilege check, WARL applied. 0 or -ENOENT. */
int rv_csr_peek(struct rv_hart *h, unsigned csr, uint64_t *ret);
int rv_csr_poke(struct rv_hart *h, unsigned csr, uint64_t value);
/** Recompute cpu.mode and cpu.context from mstatus, priv, frm, satp, envcfg: after any change of
 * them. */
void rv_update_mode(struct rv_hart *h);
/** Mark mstatus.FS dirty (and SD). */
void rv_set_fs_dirty(struct rv_hart *h);
/** The same of mstatus.VS. */
void rv_set_vs_dirty(struct rv_hart *h);
/** vtype becomes @vtype (vill for a value that is not supported) and vl as for a vector of @avl
 * elements. */
void rv_set_vtype(struct rv_hart *h, uint64_t vtype, uint64_t avl);
/** mip as the hart sees it now: software bits, inputs, stimecmp. */
uint64_t rv_mip(struct rv_hart *h);
/** The time CSR. */
uint64_t rv_time(struct rv_hart *h);

/* trap.c: the cpu_ops of these names, and */
void rv_raise(struct rv_hart *h, enum rv_cause cause,
              uint64_t tval); /* makes an exception pending */
void rv_take_exception(struct cpu *c);
bool rv_take_interrupt(struct cpu *c);
bool rv_wakes(struct cpu *c);
int64_t rv_next_timer_ns(struct cpu *c);
/* System instructions. Call them with cpu.pc that of the instruction. Unless they return
 * CPU_EXCEPTION they set cpu.pc to the address to go on at; cpu.instret is the caller's affair. */

/** MRET and SRET: CPU_RETRANSLATE, or CPU_EXCEPTION. */
enum cpu_status rv_mret(struct rv_hart *h);
enum cpu_status rv_sret(struct rv_hart *h);
/** WFI: CPU_WFI, or CPU_EXCEPTION where mstatus.TW or U-mode forbids it. */
enum cpu_status rv_wfi(struct rv_hart *h);
/** SFENCE.VMA and SINVAL.VMA: rs1, rs2 given as present or not. CPU_RETRANSLATE or CPU_EXCEPTION.
 */
enum cpu_status rv_sfence_vma(struct rv_hart *h, bool has_va, uint64_t va, bool has_asid,
                              uint64_t asid);
/** SFENCE.W.INVAL and SFENCE.INVAL.IR. CPU_OK or CPU_EXCEPTION. */
enum cpu_status rv_sfence_order(struct rv_hart *h);
/** ECALL: exception, or CPU_EXIT with VCPU_EXIT_SBI (pc already behind it). */
enum cpu_status rv_ecall(struct rv_hart *h);
void rv_fence(struct cpu *c, const struct vcpu_fence *f);
void rv_reset(struct cpu *c);

/* mmu.c, pmp.c */
bool rv_translate_address(struct cpu *c, uint64_t va, enum cpu_access access, unsigned mmu,
                          bool debug, struct cpu_translation *ret);
void rv_access_fault(struct cpu *c, uint64_t va, enum cpu_access access);
void rv_misaligned(struct cpu *c, uint64_t va, enum cpu_access access);
void rv_pmp_update(struct rv_hart *h); /* after pmpcfg/pmpaddr changed */
/** May [gpa, gpa+size) be accessed with @access at privilege @priv? *@ret_whole_page: the answer is
 * the same for the whole 4 KiB page. */
bool rv_pmp_check(const struct rv_hart *h, gpa_t gpa, uint64_t size, enum cpu_access access,
                  unsigned priv, bool *ret_whole_page);

/* decode.c, interp.c, translate.c, regs.c */
unsigned rv_decode(const struct cpu *c, const uint8_t *bytes, unsigned avail, struct insn *ret);
enum cpu_status rv_interp(struct cpu *c, const struct insn *insns, unsigned count);
bool rv_translate(struct cpu *c, const struct insn *insns, unsigned count, struct ir_func *ret);
/** Is @i a CSR instruction that may stand within a block of @mode: legal there, without effect on
 * the mode or on which interrupts may be taken? */
bool rv_csr_in_line(const struct insn *i, uint64_t mode);
void rv_disassemble(const struct cpu *c, const struct insn *insn, uint64_t pc, char *buf,
                    size_t size);

/** ops.c: the table that ties it together, and the initialiser of a zeroed struct rv_hart (cpu part
 * filled by the engine; profile and vec.vlenb too, unless the widest and the default are wanted).
 */
extern const struct cpu_ops rv_cpu_ops;
void rv_hart_init(struct rv_hart *h, bool builtin_sbi, uint64_t reset_pc, uint64_t timebase_hz);
/** The ISA string of a hart of @profile, "rv64imafdc...", at most RV_ISA_BYTES. */
void rv_isa_string(enum rv_profile profile, char *buf, size_t size);
#define RV_ISA_BYTES 640
const char *rv_mmu_type(void);

#endif
