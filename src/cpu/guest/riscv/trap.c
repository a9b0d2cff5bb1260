/* Exceptions, interrupts, return from traps, and the other privileged instructions.
 *
 * Invariants: 1. rv_set_priv() is the only writer of priv after reset. 2. cpu.attention is set when
 * an interrupt becomes takeable by what the hart itself does; the engine sets it when an input or a
 * timer changes. Threads: the hart's own.
 * Spec: Privileged 1.13 §3.1.6 to §3.1.9, §3.3, §12.1.3, §12.2. */
#include "cpu/guest/riscv/csr_internal.h"
#include "cpu/guest/riscv/trace_riscv.h"

#define INSN_BYTES 4 /* of every instruction handled here */

/* --- Exceptions --- */

void rv_raise(struct rv_hart *h, enum rv_cause cause, uint64_t tval)
{
    h->exception_pending = true;
    h->exception_cause = cause;
    h->exception_tval = tval;
}

enum cpu_status rv_illegal(struct rv_hart *h)
{
    rv_raise(h, RV_CAUSE_ILLEGAL, 0);
    return CPU_EXCEPTION;
}

void rv_access_fault(struct cpu *c, uint64_t va, enum cpu_access access)
{
    static const enum rv_cause causes[] = {RV_CAUSE_LOAD_ACCESS, RV_CAUSE_STORE_ACCESS,
                                           RV_CAUSE_INSN_ACCESS};

    rv_raise(rv_hart_of(c), causes[access], va);
}

void rv_misaligned(struct cpu *c, uint64_t va, enum cpu_access access)
{
    static const enum rv_cause causes[] = {RV_CAUSE_LOAD_MISALIGNED, RV_CAUSE_STORE_MISALIGNED,
                                           RV_CAUSE_INSN_MISALIGNED};

    rv_raise(rv_hart_of(c), causes[access], va);
}

void rv_set_priv(struct rv_hart *h, unsigned priv)
{
    bool changed = h->priv != priv;

    h->priv = (uint8_t)priv;
    if (changed && h->counters_filtered)
        rv_counters_refresh(h);
    rv_update_mode(h);
    rv_check_interrupts(h);
}

static uint64_t vector_address(uint64_t tvec, uint64_t code, bool interrupt)
{
    bool vectored = tvec & 1;

    return (tvec & ~3ULL) + (vectored && interrupt ? 4 * code : 0);
}

static void enter_s(struct rv_hart *h, uint64_t code, bool interrupt, uint64_t tval)
{
    uint64_t s = h->mstatus & ~(MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP);

    h->sepc = h->cpu.pc;
    h->scause = code | (interrupt ? CAUSE_INTERRUPT : 0);
    h->stval = tval;
    h->mstatus =
        s | (h->mstatus & MSTATUS_SIE ? MSTATUS_SPIE : 0) | (h->priv == RV_S ? MSTATUS_SPP : 0);
    h->cpu.pc = vector_address(h->stvec, code, interrupt);
    rv_set_priv(h, RV_S);
}

static void enter_m(struct rv_hart *h, uint64_t code, bool interrupt, uint64_t tval)
{
    uint64_t s = h->mstatus & ~(MSTATUS_MIE | MSTATUS_MPIE | MSTATUS_MPP);

    h->mepc = h->cpu.pc;
    h->mcause = code | (interrupt ? CAUSE_INTERRUPT : 0);
    h->mtval = tval;
    h->mstatus =
        s | (h->mstatus & MSTATUS_MIE ? MSTATUS_MPIE : 0) | (uint64_t)h->priv << MSTATUS_MPP_SHIFT;
    h->cpu.pc = vector_address(h->mtvec, code, interrupt);
    rv_set_priv(h, RV_M);
}

static void enter_trap(struct rv_hart *h, uint64_t code, bool interrupt, uint64_t tval)
{
    uint64_t delegated = interrupt ? h->mideleg : h->medeleg;

    h->events[interrupt ? RV_EVENT_INTERRUPT : RV_EVENT_EXCEPTION]++;
    h->reservation = RV_NO_RESERVATION;
    if (h->priv != RV_M && delegated >> code & 1)
        enter_s(h, code, interrupt, tval);
    else
        enter_m(h, code, interrupt, tval);
}

void rv_take_exception(struct cpu *c)
{
    struct rv_hart *h = rv_hart_of(c);

    h->exception_pending = false;
    trace_rv_exception(c->index, h->exception_cause, c->pc, h->exception_tval, h->priv);
    enter_trap(h, h->exception_cause, false, h->exception_tval);
}

/* --- Interrupts --- */

/** The number of the interrupt among @pending to take now, or -1. */
static int select_interrupt(const struct rv_hart *h, uint64_t pending)
{
    static const uint8_t order[] = {RV_IRQ_MEI, RV_IRQ_MSI, RV_IRQ_MTI, RV_IRQ_SEI,
                                    RV_IRQ_SSI, RV_IRQ_STI, RV_IRQ_LCOF};
    bool m_enabled = h->priv < RV_M || h->mstatus & MSTATUS_MIE;
    bool s_enabled = h->priv < RV_S || (h->priv == RV_S && h->mstatus & MSTATUS_SIE);

    pending &= h->mie;
    uint64_t takeable = m_enabled ? pending & ~h->mideleg : 0;
    if (!takeable && s_enabled)
        takeable = pending & h->mideleg;
    for (unsigned i = 0; takeable && i < ARRAY_SIZE(order); i++) {
        if (takeable >> order[i] & 1)
            return order[i];
    }
    return -1;
}

/** rv_mip() but for a deadline that passed unseen: the engine's timer will tell. */
static uint64_t known_pending(const struct rv_hart *h)
{
    return h->mip | (__atomic_load_n(&h->cpu.irqs, __ATOMIC_ACQUIRE) & MIP_ALL) |
           (h->timer_fired ? MIP_STIP : 0);
}

void rv_check_interrupts(struct rv_hart *h)
{
    if (select_interrupt(h, known_pending(h)) >= 0)
        cpu_set_attention(&h->cpu);
}

bool rv_take_interrupt(struct cpu *c)
{
    struct rv_hart *h = rv_hart_of(c);
    int irq = select_interrupt(h, rv_mip(h));

    if (irq < 0)
        return false;
    trace_rv_interrupt(c->index, (unsigned)irq, c->pc, h->priv);
    enter_trap(h, (uint64_t)irq, true, 0);
    return true;
}

bool rv_wakes(struct cpu *c)
{
    struct rv_hart *h = rv_hart_of(c);

    return (rv_mip(h) & h->mie) != 0;
}

int64_t rv_next_timer_ns(struct cpu *c)
{
    struct rv_hart *h = rv_hart_of(c);
    int64_t ns = INT64_MAX;

    if (h->menvcfg & MENVCFG_STCE && !h->timer_fired) {
        if (rv_time(h) >= h->stimecmp) {
            h->timer_fired = true;
            rv_check_interrupts(h);
        } else {
            ns = rv_ticks_to_ns(h, h->stimecmp);
        }
    }
    if (h->overflow_armed)
        ns = MIN(ns, rv_counters_deadline_ns(h));
    return vclock_to_host_ns(c->clock, ns);
}

/* --- Instructions --- */

enum cpu_status rv_mret(struct rv_hart *h)
{
    if (h->priv != RV_M)
        return rv_illegal(h);
    unsigned priv = (unsigned)BITS(h->mstatus, MSTATUS_MPP_SHIFT + 1, MSTATUS_MPP_SHIFT);
    uint64_t s = h->mstatus & ~(MSTATUS_MIE | MSTATUS_MPP);
    if (h->mstatus & MSTATUS_MPIE)
        s |= MSTATUS_MIE;
    if (priv != RV_M)
        s &= ~MSTATUS_MPRV;
    h->mstatus = s | MSTATUS_MPIE;
    h->reservation = RV_NO_RESERVATION;
    h->cpu.pc = h->mepc;
    rv_set_priv(h, priv);
    return CPU_RETRANSLATE;
}

enum cpu_status rv_sret(struct rv_hart *h)
{
    if (h->priv == RV_U || (h->priv == RV_S && h->mstatus & MSTATUS_TSR))
        return rv_illegal(h);
    unsigned priv = h->mstatus & MSTATUS_SPP ? RV_S : RV_U;
    uint64_t s = h->mstatus & ~(MSTATUS_SIE | MSTATUS_SPP | MSTATUS_MPRV);
    if (h->mstatus & MSTATUS_SPIE)
        s |= MSTATUS_SIE;
    h->mstatus = s | MSTATUS_SPIE;
    h->reservation = RV_NO_RESERVATION;
    h->cpu.pc = h->sepc;
    rv_set_priv(h, priv);
    return CPU_RETRANSLATE;
}

enum cpu_status rv_wfi(struct rv_hart *h)
{
    /* "within a bounded time" may be at once */
    if (h->priv == RV_U || (h->priv == RV_S && h->mstatus & MSTATUS_TW))
        return rv_illegal(h);
    h->cpu.pc += INSN_BYTES;
    return CPU_WFI;
}

static bool key_has_asid(uint64_t key, uint64_t asid)
{
    return (key >> SATP_ASID_SHIFT & SATP_ASID_MASK) == asid;
}

enum cpu_status rv_sfence_vma(struct rv_hart *h, bool has_va, uint64_t va, bool has_asid,
                              uint64_t asid)
{
    if (h->priv == RV_U || (h->priv == RV_S && h->mstatus & MSTATUS_TVM))
        return rv_illegal(h);
    asid &= SATP_ASID_MASK;
    if (has_va && has_asid)
        cpu_flush_page_in(&h->cpu, va, key_has_asid, asid);
    else if (has_va)
        cpu_flush_page(&h->cpu, va);
    else if (has_asid)
        cpu_flush_contexts(&h->cpu, key_has_asid, asid);
    else
        cpu_flush_all(&h->cpu);
    h->cpu.pc += INSN_BYTES;
    return CPU_RETRANSLATE;
}

void rv_fence(struct cpu *c, const struct vcpu_fence *f)
{
    enum { MANY_PAGES = 64 };
    bool all = f->size > MANY_PAGES << MEM_PAGE_BITS;
    uint64_t before = f->start & MASK(MEM_PAGE_BITS), page = f->start - before;
    uint64_t pages = (before + f->size + MASK(MEM_PAGE_BITS)) >> MEM_PAGE_BITS;

    if (all && f->has_asid)
        cpu_flush_contexts(c, key_has_asid, f->asid);
    else if (all)
        cpu_flush_all(c);
    for (uint64_t n = 0; !all && n < pages; n++, page += MEM_PAGE_SIZE) {
        if (f->has_asid)
            cpu_flush_page_in(c, page, key_has_asid, f->asid);
        else
            cpu_flush_page(c, page);
    }
}

enum cpu_status rv_sfence_order(struct rv_hart *h)
{
    if (h->priv == RV_U)
        return rv_illegal(h);
    h->cpu.pc += INSN_BYTES;
    return CPU_OK;
}

enum cpu_status rv_ecall(struct rv_hart *h)
{
    static const enum rv_cause causes[] = {
        [RV_U] = RV_CAUSE_ECALL_U, [RV_S] = RV_CAUSE_ECALL_S, [RV_M] = RV_CAUSE_ECALL_M};

    if (h->builtin_sbi && h->priv == RV_S) {
        h->cpu.exit->reason = VCPU_EXIT_SBI;
        h->cpu.pc += INSN_BYTES;
        return CPU_EXIT;
    }
    rv_raise(h, causes[h->priv], 0);
    return CPU_EXCEPTION;
}

/* --- Reset --- */

/** What M-mode firmware would have set up before it enters an S-mode kernel. */
static void reset_for_builtin_sbi(struct rv_hart *h)
{
    h->priv = RV_S;
    h->medeleg = UINT64_MAX; /* M-mode does not exist */
    h->mideleg = MIP_S_ALL;
    h->mcounteren = UINT32_MAX;
    h->scounteren = 7;
    h->menvcfg |= 3ULL << ENVCFG_CBIE_SHIFT | ENVCFG_CBCFE | ENVCFG_CBZE | MENVCFG_STCE;
    for (unsigned i = 0; i < ARRAY_SIZE(h->mstateen); i++)
        h->mstateen[i] = STATEEN_SE | (i ? 0 : STATEEN_ENVCFG);
}

void rv_reset(struct cpu *c)
{
    struct rv_hart *h = rv_hart_of(c);
    size_t first = offsetof(struct rv_hart, mstatus);

    memset(h->x, 0, sizeof(h->x));
    memset(h->f, 0, sizeof(h->f));
    memset(h->vec.v, 0, sizeof(h->vec.v));
    h->vec.vxrm = h->vec.vxsat = 0;
    rv_set_vtype(h, VTYPE_VILL, 0);
    memset((char *)h + first, 0, offsetof(struct rv_hart, timebase_hz) - first);
    h->frm = 0;
    h->exception_pending = false;
    h->reservation = RV_NO_RESERVATION;
    h->priv = RV_M;
    h->stimecmp = UINT64_MAX;
    /* On, as the device tree announces them: firmware older than these bits leaves them alone, and
     * S-mode would be told of what it cannot use. */
    h->menvcfg = MENVCFG_ADUE | MENVCFG_PBMTE;
    h->mseccfg = MSECCFG_SSEED;
    c->fp_flags = 0;
    c->pc = h->reset_pc;
    if (h->builtin_sbi)
        reset_for_builtin_sbi(h);
    rv_counters_reset(h);
    rv_pmp_update(h);
    cpu_flush_all(c);
    rv_update_mode(h);
    cpu_timer_changed(c);
}
