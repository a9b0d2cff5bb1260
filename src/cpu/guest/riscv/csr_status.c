/* mstatus, satp, the environment configurations, interrupt-pending bits, and what follows from
 * them: the block key cpu.mode and the address space.
 *
 * Threads: the hart's own; cpu.irqs is shared.
 * Spec: Privileged 1.13 §3.1.6, §3.1.9, §3.1.18, §12.1.1, §12.1.10, §12.1.11; Sstc; CMO §3. */
#include "cpu/guest/riscv/csr_internal.h"
#include "cpu/guest/riscv/trace_riscv.h"

#define MSTATUS_WRITABLE                                                                           \
    (RV_SSTATUS_WRITABLE | MSTATUS_MIE | MSTATUS_MPIE | MSTATUS_MPP | MSTATUS_MPRV | MSTATUS_TVM | \
     MSTATUS_TW | MSTATUS_TSR)

/* Who may be interrupted, now and before the last trap. */
#define MSTATUS_INTERRUPTS (MSTATUS_SIE | MSTATUS_MIE | MSTATUS_SPIE | MSTATUS_MPIE)

/* --- The block key --- */

/** The privilege whose translation data accesses use. */
static unsigned data_priv(const struct rv_hart *h)
{
    if (h->priv == RV_M && h->mstatus & MSTATUS_MPRV)
        return (unsigned)BITS(h->mstatus, MSTATUS_MPP_SHIFT + 1, MSTATUS_MPP_SHIFT);
    return h->priv;
}

static uint64_t mmu_bits(const struct rv_hart *h)
{
    switch (data_priv(h)) {
    case RV_U:
        return RV_MMU_U;
    case RV_S:
        return h->mstatus & MSTATUS_SUM ? RV_MMU_S_SUM : RV_MMU_S;
    default:
        return RV_MMU_M;
    }
}

/** Cache-block operations: bit 0 inval traps, 1 inval flushes, 2 clean and flush are legal, 3 zero
 * is legal. */
static uint64_t cbo_bits(const struct rv_hart *h)
{
    uint64_t all = ENVCFG_CBCFE | ENVCFG_CBZE;
    bool trap = false;
    bool flush = false;

    if (h->priv < RV_M) {
        unsigned cbie = (unsigned)BITS(h->menvcfg, 5, 4);

        all &= h->menvcfg;
        trap = cbie == 0;
        flush = cbie == 1;
    }
    if (h->priv < RV_S) {
        unsigned cbie = (unsigned)BITS(h->senvcfg, 5, 4);

        all &= h->senvcfg;
        trap |= cbie == 0;
        flush |= cbie == 1;
    }
    return (trap ? 1 : 0) | (flush && !trap ? 2 : 0) | (all & ENVCFG_CBCFE ? 4 : 0) |
           (all & ENVCFG_CBZE ? 8 : 0);
}

void rv_update_mode(struct rv_hart *h)
{
    uint64_t mode = mmu_bits(h) | (uint64_t)h->priv << RV_MODE_PRIV_SHIFT;

    if (h->mstatus & MSTATUS_FS)
        mode |= RV_MODE_FS;
    if ((h->mstatus & MSTATUS_FS) == MSTATUS_FS)
        mode |= RV_MODE_FS_DIRTY;
    if (h->mstatus & MSTATUS_VS)
        mode |= RV_MODE_VS;
    if ((h->mstatus & MSTATUS_VS) == MSTATUS_VS)
        mode |= RV_MODE_VS_DIRTY;
    if (h->profile == RV_PROFILE_RVA22)
        mode |= RV_MODE_RVA22;
    if (h->profile == RV_PROFILE_RVA23)
        mode |= RV_MODE_RVA23;
    if (h->frm == 0)
        mode |= RV_MODE_FRM_RNE;
    if (h->frm > 4)
        mode |= RV_MODE_FRM_BAD;
    mode |= cbo_bits(h) << RV_MODE_CBO_SHIFT;
    h->cpu.mode = mode;
    /* Bare translation does not depend on the rest of satp. */
    uint64_t key = h->satp >> SATP_MODE_SHIFT == SATP_BARE ? 0 : h->satp;
    if (!h->cpu.context || h->cpu.context->key != key)
        cpu_set_context(&h->cpu, key);
}

void rv_set_fs_dirty(struct rv_hart *h)
{
    h->mstatus |= MSTATUS_FS;
    h->cpu.mode |= RV_MODE_FS | RV_MODE_FS_DIRTY;
}

void rv_set_vs_dirty(struct rv_hart *h)
{
    h->mstatus |= MSTATUS_VS;
    h->cpu.mode |= RV_MODE_VS | RV_MODE_VS_DIRTY;
}

void rv_set_vtype(struct rv_hart *h, uint64_t vtype, uint64_t avl)
{
    struct rv_vector *v = &h->vec;
    int lmul = (int)sext(vtype, 3);
    unsigned sew = (unsigned)BITS(vtype, 5, 3);

    /* Fractions must hold an element of SEW in as many bits of the widest (ELEN). */
    if (vtype >> 8 || lmul == -4 || sew > 3 || (int)sew > 3 + MIN(lmul, 0)) {
        vtype = VTYPE_VILL;
        lmul = 0;
        sew = 0;
        avl = 0;
    }
    v->vtype = vtype;
    v->sew = (uint8_t)sew;
    v->lmul = (int8_t)lmul;
    v->vlmax = (uint16_t)((unsigned)v->vlenb << 3 >> (3 - lmul + (int)sew));
    v->vl = MIN(avl, (uint64_t)v->vlmax);
    v->vstart = 0;
    rv_set_vs_dirty(h);
}

/* --- mstatus, sstatus --- */

uint64_t rv_get_mstatus(const struct rv_hart *h)
{
    bool dirty = (h->mstatus & MSTATUS_FS) == MSTATUS_FS || (h->mstatus & MSTATUS_VS) == MSTATUS_VS;

    return h->mstatus | MSTATUS_UXL_64 | MSTATUS_SXL_64 | (dirty ? MSTATUS_SD : 0);
}

void rv_set_mstatus(struct rv_hart *h, uint64_t value)
{
    value &= MSTATUS_WRITABLE;
    if (h->profile == RV_PROFILE_RVA22)
        value &= ~MSTATUS_VS;
    if (BITS(value, MSTATUS_MPP_SHIFT + 1, MSTATUS_MPP_SHIFT) == 2) /* reserved: MPP stays */
        value = (value & ~MSTATUS_MPP) | (h->mstatus & MSTATUS_MPP);
    /* MXR needs no flush: pages readable only by it are never entered in the TLB. */
    uint64_t changed = h->mstatus ^ value;
    h->mstatus = value;
    if (changed & ~(MSTATUS_INTERRUPTS | MSTATUS_SPP))
        rv_update_mode(h);
    if (changed & value & MSTATUS_INTERRUPTS)
        rv_check_interrupts(h);
}

uint64_t rv_get_sstatus(const struct rv_hart *h)
{
    return rv_get_mstatus(h) & (RV_SSTATUS_WRITABLE | MSTATUS_UXL_64 | MSTATUS_SD);
}

void rv_set_sstatus(struct rv_hart *h, uint64_t value)
{
    rv_set_mstatus(h, (h->mstatus & ~RV_SSTATUS_WRITABLE) | (value & RV_SSTATUS_WRITABLE));
}

/* --- satp, menvcfg, senvcfg --- */

void rv_set_satp(struct rv_hart *h, uint64_t value)
{
    uint64_t mode = value >> SATP_MODE_SHIFT;

    if (mode != SATP_BARE && mode != SATP_SV39 && mode != SATP_SV48 && mode != SATP_SV57)
        return; /* the whole write has no effect */
    h->satp = value;
    trace_rv_satp(h->cpu.index, value);
    rv_update_mode(h);
}

/** CBIE = 2 is reserved: it stays as it was. */
static uint64_t legal_cbie(uint64_t old, uint64_t value)
{
    if (BITS(value, 5, 4) == 2)
        return (value & ~ENVCFG_CBIE) | (old & ENVCFG_CBIE);
    return value;
}

void rv_set_menvcfg(struct rv_hart *h, uint64_t value)
{
    uint64_t old = h->menvcfg;

    value &= ENVCFG_FIOM | ENVCFG_CBIE | ENVCFG_CBCFE | ENVCFG_CBZE | MENVCFG_ADUE | MENVCFG_PBMTE |
             MENVCFG_STCE;
    h->menvcfg = legal_cbie(old, value);
    if ((old ^ value) & (MENVCFG_ADUE | MENVCFG_PBMTE))
        cpu_flush_all(&h->cpu);
    if ((old ^ value) & MENVCFG_STCE) {
        h->mip &= ~MIP_STIP;
        h->timer_fired = false;
        cpu_timer_changed(&h->cpu);
        rv_check_interrupts(h);
    }
    rv_update_mode(h);
}

void rv_set_senvcfg(struct rv_hart *h, uint64_t value)
{
    value &= ENVCFG_FIOM | ENVCFG_CBIE | ENVCFG_CBCFE | ENVCFG_CBZE;
    h->senvcfg = legal_cbie(h->senvcfg, value);
    rv_update_mode(h);
}

/* --- Pending interrupts --- */

void rv_set_stimecmp(struct rv_hart *h, uint64_t value)
{
    h->stimecmp = value;
    h->timer_fired = false;
    cpu_timer_changed(&h->cpu);
    rv_check_interrupts(h);
}

void rv_write_mip(struct rv_hart *h, uint64_t value, uint64_t mask)
{
    uint64_t writable = MIP_SSIP | MIP_SEIP | MIP_LCOFIP;

    if (!(h->menvcfg & MENVCFG_STCE))
        writable |= MIP_STIP;
    mask &= writable;
    h->mip = (h->mip & ~mask) | (value & mask);
    /* SSIP has no level to hold it up: an input of it is a message, which this consumes. */
    if (mask & ~value & MIP_SSIP)
        __atomic_fetch_and(&h->cpu.irqs, ~MIP_SSIP, __ATOMIC_ACQ_REL);
    rv_check_interrupts(h);
}

uint64_t rv_mip(struct rv_hart *h)
{
    if (h->overflow_armed)
        rv_counters_poll(h);
    uint64_t mip = h->mip | (__atomic_load_n(&h->cpu.irqs, __ATOMIC_ACQUIRE) & MIP_ALL);
    if (h->menvcfg & MENVCFG_STCE) {
        if (!h->timer_fired)
            h->timer_fired = rv_time(h) >= h->stimecmp;
        if (h->timer_fired)
            mip |= MIP_STIP;
    }
    return mip;
}
