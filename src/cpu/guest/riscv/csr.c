/* Access to control and status registers by one table, csr.def.
 *
 * Invariants: 1. What a register's number says (lowest privilege in bits 9:8, read-only in 11:10)
 * is checked here only. 2. Stored values are always legal: setters apply the WARL rules, getters
 * only assemble. Threads: the hart's own. Spec: Privileged 1.13 §2.1, §3.1, §12.1; Zicsr; Zkr §4;
 * Sstc; Smstateen. */
#include "cpu/guest/riscv/csr_internal.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

/* --- Plain registers: a field and a mask of writable bits --- */

#define FIELD(name, mask)                                                 \
    static uint64_t get_##name(struct rv_hart *h, unsigned n)             \
    {                                                                     \
        return h->name;                                                   \
    }                                                                     \
    static void set_##name(struct rv_hart *h, unsigned n, uint64_t value) \
    {                                                                     \
        h->name = value & (mask);                                         \
    }
FIELD(sscratch, UINT64_MAX)
FIELD(sepc, ~1ULL)
FIELD(scause, UINT64_MAX)
FIELD(stval, UINT64_MAX)
FIELD(scounteren, UINT32_MAX)
FIELD(mscratch, UINT64_MAX)
FIELD(mepc, ~1ULL)
FIELD(mcause, UINT64_MAX)
FIELD(mtval, UINT64_MAX)
FIELD(mcounteren, UINT32_MAX)
FIELD(mseccfg, MSECCFG_SSEED | MSECCFG_USEED)
/* all exceptions that can be raised below M-mode */
FIELD(medeleg, 0xb3ff)

/* --- Registers with a setter elsewhere --- */

#define SETTER(name)                                                      \
    static uint64_t get_##name(struct rv_hart *h, unsigned n)             \
    {                                                                     \
        return h->name;                                                   \
    }                                                                     \
    static void set_##name(struct rv_hart *h, unsigned n, uint64_t value) \
    {                                                                     \
        rv_set_##name(h, value);                                          \
    }
SETTER(satp)
SETTER(menvcfg)
SETTER(senvcfg)
SETTER(stimecmp)
SETTER(mcountinhibit)

static uint64_t get_mstatus(struct rv_hart *h, unsigned n)
{
    return rv_get_mstatus(h);
}

static void set_mstatus(struct rv_hart *h, unsigned n, uint64_t value)
{
    rv_set_mstatus(h, value);
}

static uint64_t get_sstatus(struct rv_hart *h, unsigned n)
{
    return rv_get_sstatus(h);
}

static void set_sstatus(struct rv_hart *h, unsigned n, uint64_t value)
{
    rv_set_sstatus(h, value);
}

/* --- Floating point --- */

static uint64_t get_fflags(struct rv_hart *h, unsigned n)
{
    return h->cpu.fp_flags & 31;
}

static uint64_t get_frm(struct rv_hart *h, unsigned n)
{
    return h->frm;
}

static uint64_t get_fcsr(struct rv_hart *h, unsigned n)
{
    return (uint64_t)h->frm << 5 | (h->cpu.fp_flags & 31);
}

static void set_fflags(struct rv_hart *h, unsigned n, uint64_t value)
{
    h->cpu.fp_flags = value & 31;
    rv_set_fs_dirty(h);
}

static void set_frm(struct rv_hart *h, unsigned n, uint64_t value)
{
    h->frm = value & 7;
    rv_set_fs_dirty(h);
    rv_update_mode(h);
}

static void set_fcsr(struct rv_hart *h, unsigned n, uint64_t value)
{
    set_fflags(h, 0, value);
    set_frm(h, 0, value >> 5);
}

static bool allowed_fp(const struct rv_hart *h, unsigned n, bool write)
{
    return h->mstatus & MSTATUS_FS;
}

/* --- Vectors --- */

#define VECTOR(name, mask)                                                \
    static uint64_t get_##name(struct rv_hart *h, unsigned n)             \
    {                                                                     \
        return h->vec.name;                                               \
    }                                                                     \
    static void set_##name(struct rv_hart *h, unsigned n, uint64_t value) \
    {                                                                     \
        h->vec.name = (uint8_t)(value & (mask));                          \
        rv_set_vs_dirty(h);                                               \
    }
VECTOR(vxsat, 1)
VECTOR(vxrm, 3)

static uint64_t get_vstart(struct rv_hart *h, unsigned n)
{
    return h->vec.vstart;
}

/** As many bits as number the elements of the largest group. */
static void set_vstart(struct rv_hart *h, unsigned n, uint64_t value)
{
    h->vec.vstart = value & (h->vec.vlenb * 8u - 1);
    rv_set_vs_dirty(h);
}

static uint64_t get_vcsr(struct rv_hart *h, unsigned n)
{
    return (uint64_t)h->vec.vxrm << 1 | h->vec.vxsat;
}

static void set_vcsr(struct rv_hart *h, unsigned n, uint64_t value)
{
    set_vxsat(h, 0, value);
    set_vxrm(h, 0, value >> 1);
}

static uint64_t get_vl(struct rv_hart *h, unsigned n)
{
    return h->vec.vl;
}

static uint64_t get_vtype(struct rv_hart *h, unsigned n)
{
    return h->vec.vtype;
}

/* These two are read-only to the guest: for debuggers and saved state, in either order. */
static void set_vl(struct rv_hart *h, unsigned n, uint64_t value)
{
    h->vec.vl_wanted = value;
    h->vec.vl = MIN(value, (uint64_t)h->vec.vlmax);
}

static void set_vtype(struct rv_hart *h, unsigned n, uint64_t value)
{
    uint64_t vstart = h->vec.vstart;

    rv_set_vtype(h, value, h->vec.vl_wanted);
    h->vec.vstart = vstart;
}

static uint64_t get_vlenb(struct rv_hart *h, unsigned n)
{
    return h->vec.vlenb;
}

static bool allowed_vector(const struct rv_hart *h, unsigned n, bool write)
{
    return h->mstatus & MSTATUS_VS;
}

/* --- Trap vectors and interrupt registers --- */

/* Modes 2 and 3 are reserved: the mode stays. */
static uint64_t legal_tvec(uint64_t old, uint64_t value)
{
    return (value & ~3ULL) | ((value & 3) < 2 ? value & 3 : old & 3);
}

static uint64_t get_mtvec(struct rv_hart *h, unsigned n)
{
    return h->mtvec;
}

static void set_mtvec(struct rv_hart *h, unsigned n, uint64_t value)
{
    h->mtvec = legal_tvec(h->mtvec, value);
}

static uint64_t get_stvec(struct rv_hart *h, unsigned n)
{
    return h->stvec;
}

static void set_stvec(struct rv_hart *h, unsigned n, uint64_t value)
{
    h->stvec = legal_tvec(h->stvec, value);
}

static uint64_t get_mideleg(struct rv_hart *h, unsigned n)
{
    return h->mideleg;
}

static void set_mideleg(struct rv_hart *h, unsigned n, uint64_t value)
{
    h->mideleg = value & MIP_S_ALL;
    rv_check_interrupts(h);
}

static uint64_t get_mie(struct rv_hart *h, unsigned n)
{
    return h->mie;
}

static void set_mie(struct rv_hart *h, unsigned n, uint64_t value)
{
    h->mie = value & MIP_ALL;
    rv_check_interrupts(h);
}

static uint64_t get_sie(struct rv_hart *h, unsigned n)
{
    return h->mie & h->mideleg;
}

static void set_sie(struct rv_hart *h, unsigned n, uint64_t value)
{
    h->mie = (h->mie & ~h->mideleg) | (value & h->mideleg);
    rv_check_interrupts(h);
}

static uint64_t get_mip(struct rv_hart *h, unsigned n)
{
    return rv_mip(h);
}

static void set_mip(struct rv_hart *h, unsigned n, uint64_t value)
{
    rv_write_mip(h, value, UINT64_MAX);
}

static uint64_t get_sip(struct rv_hart *h, unsigned n)
{
    return rv_mip(h) & h->mideleg;
}

static void set_sip(struct rv_hart *h, unsigned n, uint64_t value)
{
    rv_write_mip(h, value, h->mideleg & (MIP_SSIP | MIP_LCOFIP));
}

/* --- Counters --- */

static uint64_t get_mcycle(struct rv_hart *h, unsigned n)
{
    return rv_counter_read(h, 0);
}

static void set_mcycle(struct rv_hart *h, unsigned n, uint64_t value)
{
    rv_counter_write(h, 0, value);
}

static uint64_t get_minstret(struct rv_hart *h, unsigned n)
{
    return rv_counter_read(h, 2);
}

static void set_minstret(struct rv_hart *h, unsigned n, uint64_t value)
{
    rv_counter_write(h, 2, value);
}

static uint64_t get_mhpmcounter(struct rv_hart *h, unsigned n)
{
    return rv_counter_read(h, n + 3);
}

static void set_mhpmcounter(struct rv_hart *h, unsigned n, uint64_t value)
{
    rv_counter_write(h, n + 3, value);
}

static uint64_t get_mhpmevent(struct rv_hart *h, unsigned n)
{
    return h->event[n + 3];
}

static void set_mhpmevent(struct rv_hart *h, unsigned n, uint64_t value)
{
    rv_set_mhpmevent(h, n + 3, value);
}

static uint64_t get_scountovf(struct rv_hart *h, unsigned n)
{
    return rv_scountovf(h);
}

static uint64_t get_time(struct rv_hart *h, unsigned n)
{
    return rv_time(h);
}

static bool allowed_counter(const struct rv_hart *h, unsigned i)
{
    return h->priv == RV_M ||
           (h->mcounteren >> i & 1 && (h->priv == RV_S || h->scounteren >> i & 1));
}

static bool allowed_cycle(const struct rv_hart *h, unsigned n, bool write)
{
    return allowed_counter(h, 0);
}

static bool allowed_time(const struct rv_hart *h, unsigned n, bool write)
{
    return allowed_counter(h, 1);
}

static bool allowed_instret(const struct rv_hart *h, unsigned n, bool write)
{
    return allowed_counter(h, 2);
}

static bool allowed_hpmcounter(const struct rv_hart *h, unsigned n, bool write)
{
    return allowed_counter(h, n + 3);
}

static bool allowed_stimecmp(const struct rv_hart *h, unsigned n, bool write)
{
    return h->priv == RV_M || (h->mcounteren & COUNTEREN_TM && h->menvcfg & MENVCFG_STCE);
}

/* --- State enable, PMP, entropy, identity --- */

static bool allowed_satp(const struct rv_hart *h, unsigned n, bool write)
{
    return h->priv == RV_M || !(h->mstatus & MSTATUS_TVM);
}

static bool allowed_senvcfg(const struct rv_hart *h, unsigned n, bool write)
{
    return h->priv == RV_M || h->mstateen[0] & STATEEN_ENVCFG;
}

static bool allowed_sstateen(const struct rv_hart *h, unsigned n, bool write)
{
    return h->priv == RV_M || h->mstateen[n] & STATEEN_SE;
}

static uint64_t get_mstateen(struct rv_hart *h, unsigned n)
{
    return h->mstateen[n];
}

static void set_mstateen(struct rv_hart *h, unsigned n, uint64_t value)
{
    h->mstateen[n] = value & (n ? STATEEN_SE : STATEEN_SE | STATEEN_ENVCFG);
}

/* Nothing that U-mode has is gated by sstateen. */
static uint64_t get_sstateen(struct rv_hart *h, unsigned n)
{
    return h->sstateen[n];
}

static uint64_t get_pmpcfg0(struct rv_hart *h, unsigned n)
{
    return rv_get_pmpcfg(h, 0);
}

static void set_pmpcfg0(struct rv_hart *h, unsigned n, uint64_t value)
{
    rv_set_pmpcfg(h, 0, value);
}

static uint64_t get_pmpcfg2(struct rv_hart *h, unsigned n)
{
    return rv_get_pmpcfg(h, 1);
}

static void set_pmpcfg2(struct rv_hart *h, unsigned n, uint64_t value)
{
    rv_set_pmpcfg(h, 1, value);
}

static uint64_t get_pmpaddr(struct rv_hart *h, unsigned n)
{
    return h->pmpaddr[n];
}

static void set_pmpaddr(struct rv_hart *h, unsigned n, uint64_t value)
{
    rv_set_pmpaddr(h, n, value);
}

/* 16 bits of entropy with status ES16, or WAIT when the host has none yet. */
static uint64_t get_seed(struct rv_hart *h, unsigned n)
{
    const uint64_t wait = 1ULL << 30;
    const uint64_t es16 = 2ULL << 30;
    uint16_t entropy;

    bool ready = getrandom(&entropy, sizeof(entropy), GRND_NONBLOCK) == sizeof(entropy);
    return cpu_log_value(&h->cpu, ready ? es16 | entropy : wait);
}

static bool allowed_seed(const struct rv_hart *h, unsigned n, bool write)
{
    uint64_t enable = h->priv == RV_S ? MSECCFG_SSEED : MSECCFG_USEED;

    return write && (h->priv == RV_M || h->mseccfg & enable);
}

static uint64_t get_misa(struct rv_hart *h, unsigned n)
{
    uint64_t letters = 0;

    for (const char *p = "ABCDFIMSU"; *p; p++)
        letters |= BIT(*p - 'A');
    if (h->profile != RV_PROFILE_RVA22)
        letters |= BIT('V' - 'A');
    return 2ULL << 62 | letters;
}

static uint64_t get_mhartid(struct rv_hart *h, unsigned n)
{
    return h->cpu.index;
}

static uint64_t get_zero(struct rv_hart *h, unsigned n)
{
    return 0;
}

/* --- The table --- */

struct csr_row {
    const char *name;
    uint16_t first, count;
    uint64_t (*get)(struct rv_hart *h, unsigned n);
    void (*set)(struct rv_hart *h, unsigned n, uint64_t value);       /* NULL: writes are ignored */
    bool (*allowed)(const struct rv_hart *h, unsigned n, bool write); /* NULL: always */
};

#define NO  NULL
#define ANY NULL

#define CSR(name, first, count, get, set, allowed) ROW_##name,
enum {
    ROW_NONE,
#include "cpu/guest/riscv/csr.def"
};
#undef CSR

#define CSR(reg, number, n, getter, setter, check) \
    [ROW_##reg] = {.name = #reg,                   \
                   .first = (number),              \
                   .count = (n),                   \
                   .get = (getter),                \
                   .set = (setter),                \
                   .allowed = (check)},
static const struct csr_row rows[] = {
#include "cpu/guest/riscv/csr.def"
};
#undef CSR

#define CSR(name, first, count, get, set, allowed) [first...(first) + (count)-1] = ROW_##name,
static const uint8_t row_of[4096] = {
#include "cpu/guest/riscv/csr.def"
};
#undef CSR

static const struct csr_row *find_row(unsigned csr)
{
    unsigned i = csr < ARRAY_SIZE(row_of) ? row_of[csr] : ROW_NONE;

    return i == ROW_NONE ? NULL : &rows[i];
}

static bool is_read_only(unsigned csr)
{
    return csr >> 10 == 3;
}

enum cpu_status rv_csr_access(struct rv_hart *h, unsigned csr, enum rv_csr_op op, bool write,
                              uint64_t operand, uint64_t *ret_old)
{
    const struct csr_row *row = find_row(csr);
    uint64_t old = 0;

    if (!row || h->priv < (csr >> 8 & 3) || (write && is_read_only(csr)))
        return rv_illegal(h);
    unsigned n = csr - row->first;
    if (row->allowed && !row->allowed(h, n, write))
        return rv_illegal(h);
    if (ret_old || op != RV_CSR_WRITE)
        old = row->get(h, n);
    if (ret_old)
        *ret_old = old;
    if (!write || !row->set)
        return CPU_OK;
    if ((csr == CSR_MIP || csr == CSR_SIP) && op != RV_CSR_WRITE) {
        /* Only the bits named change: others may have come from inputs, or come meanwhile. */
        uint64_t mask = csr == CSR_SIP ? operand & h->mideleg & (MIP_SSIP | MIP_LCOFIP) : operand;

        rv_write_mip(h, op == RV_CSR_SET ? operand : 0, mask);
        return CPU_OK;
    }
    row->set(h, n,
             op == RV_CSR_WRITE ? operand
             : op == RV_CSR_SET ? old | operand
                                : old & ~operand);
    if (csr >= CSR_MCYCLE && csr < CSR_MCYCLE + RV_COUNTERS)
        rv_counter_skip_insn(h, csr - CSR_MCYCLE);
    return CPU_OK;
}

bool rv_csr_name(unsigned csr, char *buf, size_t size)
{
    const struct csr_row *row = find_row(csr);

    if (!row)
        return false;
    if (row->count == 1) {
        snprintf(buf, size, "%s", row->name);
    } else {
        bool hpm = row->first % 32 == 3; /* counters and events are numbered from 3 */

        snprintf(buf, size, "%s%u", row->name, csr - row->first + (hpm ? 3 : 0));
    }
    return true;
}

int rv_csr_peek(struct rv_hart *h, unsigned csr, uint64_t *ret)
{
    const struct csr_row *row = find_row(csr);

    if (!row || csr == CSR_SEED)
        return -ENOENT;
    *ret = row->get(h, csr - row->first);
    return 0;
}

int rv_csr_poke(struct rv_hart *h, unsigned csr, uint64_t value)
{
    const struct csr_row *row = find_row(csr);

    if (!row || csr == CSR_SEED)
        return -ENOENT;
    if (row->set)
        row->set(h, csr - row->first, value);
    return 0;
}
