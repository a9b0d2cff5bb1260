/* Tests of traps: entry, delegation, interrupt priority, return, privileged instructions, reset. */
#include "base/test.h"
#include "cpu/guest/riscv/csr_internal.h"
#include "cpu/guest/riscv/fake_engine.h"

#include <stdlib.h>

static struct fake_engine *e;
static struct rv_hart *h;

static void start(unsigned priv)
{
    free(e);
    e = fake_engine_new(false);
    h = &e->h;
    h->mtvec = 0x1000;
    h->stvec = 0x2000;
    h->cpu.pc = 0x8000;
    rv_set_priv(h, priv);
}

static void raise_now(enum rv_cause cause, uint64_t tval)
{
    rv_raise(h, cause, tval);
    EXPECT_TRUE(h->exception_pending);
    rv_take_exception(&h->cpu);
    EXPECT_TRUE(!h->exception_pending);
}

TEST(exception_goes_to_machine_mode)
{
    start(RV_U);
    h->mstatus |= MSTATUS_MIE;
    h->reservation = 0x40;
    raise_now(RV_CAUSE_LOAD_PAGE, 0x1234);
    EXPECT_EQ(h->priv, RV_M);
    EXPECT_EQ(h->cpu.pc, 0x1000);
    EXPECT_EQ(h->mepc, 0x8000);
    EXPECT_EQ(h->mcause, RV_CAUSE_LOAD_PAGE);
    EXPECT_EQ(h->mtval, 0x1234);
    EXPECT_EQ(h->mstatus, MSTATUS_MPIE); /* MPP = U, MIE = 0 */
    EXPECT_EQ(h->reservation, RV_NO_RESERVATION);
    EXPECT_EQ(BITS(h->cpu.mode, 3, 2), RV_M);
    EXPECT_EQ(h->events[RV_EVENT_EXCEPTION], 1);
}

TEST(exception_is_delegated_from_below_only)
{
    start(RV_S);
    h->medeleg = BIT(RV_CAUSE_ILLEGAL);
    h->mstatus |= MSTATUS_SIE;
    raise_now(RV_CAUSE_ILLEGAL, 7);
    EXPECT_EQ(h->priv, RV_S);
    EXPECT_EQ(h->cpu.pc, 0x2000);
    EXPECT_EQ(h->sepc, 0x8000);
    EXPECT_EQ(h->scause, RV_CAUSE_ILLEGAL);
    EXPECT_EQ(h->stval, 7);
    EXPECT_EQ(h->mstatus, MSTATUS_SPIE | MSTATUS_SPP);
    rv_set_priv(h, RV_M);
    raise_now(RV_CAUSE_ILLEGAL, 8);
    EXPECT_EQ(h->priv, RV_M);
    EXPECT_EQ(h->mtval, 8);
    EXPECT_EQ(h->mstatus & MSTATUS_MPP, MSTATUS_MPP);
}

TEST(only_interrupts_are_vectored)
{
    start(RV_M);
    h->mtvec = 0x1001;
    raise_now(RV_CAUSE_BREAKPOINT, 0);
    EXPECT_EQ(h->cpu.pc, 0x1000);
    h->mstatus |= MSTATUS_MIE;
    h->mie = MIP_ALL;
    h->cpu.irqs = MIP_MTIP;
    EXPECT_TRUE(rv_take_interrupt(&h->cpu));
    EXPECT_EQ(h->cpu.pc, 0x1000 + 4 * RV_IRQ_MTI);
    EXPECT_EQ(h->mcause, CAUSE_INTERRUPT | RV_IRQ_MTI);
    EXPECT_EQ(h->mtval, 0);
}

TEST(interrupts_by_priority)
{
    static const unsigned order[] = {RV_IRQ_MEI, RV_IRQ_MSI, RV_IRQ_MTI, RV_IRQ_SEI,
                                     RV_IRQ_SSI, RV_IRQ_STI, RV_IRQ_LCOF};

    start(RV_M);
    h->mie = MIP_ALL;
    h->cpu.irqs = MIP_ALL;
    EXPECT_TRUE(!rv_take_interrupt(&h->cpu)); /* MIE is off */
    EXPECT_TRUE(rv_wakes(&h->cpu));
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
        h->mstatus |= MSTATUS_MIE;
        ASSERT_TRUE(rv_take_interrupt(&h->cpu));
        EXPECT_EQ(h->mcause, CAUSE_INTERRUPT | order[i]);
        h->cpu.irqs &= ~BIT(order[i]);
    }
    h->mstatus |= MSTATUS_MIE;
    EXPECT_TRUE(!rv_take_interrupt(&h->cpu));
    EXPECT_TRUE(!rv_wakes(&h->cpu));
}

TEST(interrupts_by_privilege)
{
    start(RV_S);
    h->mie = MIP_ALL;
    h->mideleg = MIP_S_ALL;
    h->cpu.irqs = MIP_SEIP;
    EXPECT_TRUE(!rv_take_interrupt(&h->cpu)); /* SIE is off */
    h->cpu.irqs |= MIP_MTIP;
    EXPECT_TRUE(rv_take_interrupt(&h->cpu)); /* MIE does not matter below M-mode */
    EXPECT_EQ(h->mcause, CAUSE_INTERRUPT | RV_IRQ_MTI);
    EXPECT_EQ(h->mstatus & MSTATUS_MPP, 1 << MSTATUS_MPP_SHIFT);
    h->mstatus |= MSTATUS_SIE;
    h->cpu.irqs = MIP_SEIP;
    EXPECT_TRUE(!rv_take_interrupt(&h->cpu)); /* delegated ones do not reach M-mode */
    rv_set_priv(h, RV_U);
    h->mstatus &= ~MSTATUS_SIE;
    EXPECT_TRUE(rv_take_interrupt(&h->cpu)); /* nor does SIE matter below S-mode */
    EXPECT_EQ(h->scause, CAUSE_INTERRUPT | RV_IRQ_SEI);
    EXPECT_EQ(h->priv, RV_S);
    /* an interrupt that stays with M-mode goes first */
    rv_set_priv(h, RV_U);
    h->mideleg = MIP_SEIP;
    h->cpu.irqs = MIP_SEIP | MIP_SSIP;
    EXPECT_TRUE(rv_take_interrupt(&h->cpu));
    EXPECT_EQ(h->mcause, CAUSE_INTERRUPT | RV_IRQ_SSI);
}

TEST(attention_when_an_interrupt_becomes_takeable)
{
    start(RV_S);
    h->mideleg = MIP_S_ALL;
    rv_csr_poke(h, CSR_MIP, MIP_SSIP);
    EXPECT_EQ(h->cpu.attention, 0);
    rv_csr_poke(h, CSR_SIE, MIP_SSIP);
    EXPECT_EQ(h->cpu.attention, 0);
    rv_csr_poke(h, CSR_SSTATUS, MSTATUS_SIE);
    EXPECT_EQ(h->cpu.attention, 1);
    h->cpu.attention = 0;
    rv_csr_poke(h, CSR_SSTATUS, 0);
    EXPECT_EQ(h->cpu.attention, 0);
    h->mstatus &= ~MSTATUS_SPP;
    EXPECT_EQ(rv_sret(h), CPU_RETRANSLATE); /* to U-mode */
    EXPECT_EQ(h->cpu.attention, 1);
}

TEST(machine_return)
{
    start(RV_M);
    h->mepc = 0x9000;
    h->mstatus = MSTATUS_MPIE | 1 << MSTATUS_MPP_SHIFT | MSTATUS_MPRV;
    EXPECT_EQ(rv_mret(h), CPU_RETRANSLATE);
    EXPECT_EQ(h->cpu.pc, 0x9000);
    EXPECT_EQ(h->priv, RV_S);
    EXPECT_EQ(h->mstatus, MSTATUS_MPIE | MSTATUS_MIE); /* MPP = U, MPRV = 0 */
    EXPECT_EQ(rv_mret(h), CPU_EXCEPTION);
    EXPECT_EQ(h->exception_cause, RV_CAUSE_ILLEGAL);
    rv_set_priv(h, RV_M);
    h->mstatus = MSTATUS_MPP | MSTATUS_MPRV;
    EXPECT_EQ(rv_mret(h), CPU_RETRANSLATE);
    EXPECT_EQ(h->priv, RV_M);
    EXPECT_EQ(h->mstatus, MSTATUS_MPIE | MSTATUS_MPRV); /* kept: stays in M-mode */
}

TEST(supervisor_return)
{
    start(RV_S);
    h->sepc = 0x9002;
    h->mstatus = MSTATUS_SPP | MSTATUS_SPIE;
    EXPECT_EQ(rv_sret(h), CPU_RETRANSLATE);
    EXPECT_EQ(h->cpu.pc, 0x9002);
    EXPECT_EQ(h->priv, RV_S);
    EXPECT_EQ(h->mstatus, MSTATUS_SPIE | MSTATUS_SIE);
    h->mstatus |= MSTATUS_TSR;
    EXPECT_EQ(rv_sret(h), CPU_EXCEPTION);
    rv_set_priv(h, RV_M);
    h->mstatus |= MSTATUS_MPRV;
    EXPECT_EQ(rv_sret(h), CPU_RETRANSLATE);
    EXPECT_EQ(h->priv, RV_U);
    EXPECT_TRUE(!(h->mstatus & MSTATUS_MPRV));
    EXPECT_EQ(rv_sret(h), CPU_EXCEPTION);
}

TEST(wait_for_interrupt)
{
    start(RV_S);
    EXPECT_EQ(rv_wfi(h), CPU_WFI);
    EXPECT_EQ(h->cpu.pc, 0x8004);
    h->mstatus |= MSTATUS_TW;
    EXPECT_EQ(rv_wfi(h), CPU_EXCEPTION);
    EXPECT_EQ(h->cpu.pc, 0x8004);
    rv_set_priv(h, RV_M);
    EXPECT_EQ(rv_wfi(h), CPU_WFI);
    rv_set_priv(h, RV_U);
    h->mstatus = 0;
    EXPECT_EQ(rv_wfi(h), CPU_EXCEPTION);
}

TEST(fences)
{
    start(RV_S);
    h->satp = 8ULL << 60 | 3ULL << 44;
    rv_update_mode(h);
    unsigned flushes = e->flushes;
    EXPECT_EQ(rv_sfence_vma(h, false, 0, false, 0), CPU_RETRANSLATE);
    EXPECT_EQ(h->cpu.pc, 0x8004);
    EXPECT_EQ(e->flushes, flushes + 1);
    rv_sfence_vma(h, true, 0x5000, false, 3);
    EXPECT_EQ(e->page_flushes, 1);
    EXPECT_EQ(e->flushed_va, 0x5000);
    rv_sfence_vma(h, true, 0x6000, true, 3);
    EXPECT_EQ(e->page_in_flushes, 1);
    EXPECT_EQ(e->flushed_va, 0x6000);
    EXPECT_TRUE(e->flushed_current);
    rv_sfence_vma(h, false, 0, true, 0xabcd0003); /* bits above the ASID are ignored */
    EXPECT_EQ(e->context_flushes, 1);
    EXPECT_TRUE(e->flushed_current);
    rv_sfence_vma(h, false, 0, true, 4);
    EXPECT_TRUE(!e->flushed_current);
    h->mstatus |= MSTATUS_TVM;
    EXPECT_EQ(rv_sfence_vma(h, false, 0, false, 0), CPU_EXCEPTION);
    EXPECT_EQ(rv_sfence_order(h), CPU_OK); /* TVM does not trap these */
    rv_set_priv(h, RV_U);
    EXPECT_EQ(rv_sfence_order(h), CPU_EXCEPTION);
    EXPECT_EQ(rv_sfence_vma(h, false, 0, false, 0), CPU_EXCEPTION);
}

TEST(fences_for_another_hart)
{
    struct vcpu_fence f = {.start = 0x5ffc, .size = 8, .has_asid = true, .asid = 3};

    start(RV_U); /* in whatever mode that one is */
    h->satp = 8ULL << 60 | 3ULL << 44;
    rv_update_mode(h);
    unsigned flushes = e->flushes;
    rv_fence(&h->cpu, &f);
    EXPECT_EQ(e->page_in_flushes, 2);
    EXPECT_EQ(e->flushed_va, 0x6000);
    EXPECT_TRUE(e->flushed_current);
    f.asid = 4;
    f.size = UINT64_MAX;
    rv_fence(&h->cpu, &f);
    EXPECT_EQ(e->context_flushes, 1);
    EXPECT_TRUE(!e->flushed_current);
    f = (struct vcpu_fence){.start = UINT64_MAX - 10, .size = 0x2000}; /* beyond the end */
    rv_fence(&h->cpu, &f);
    EXPECT_EQ(e->page_flushes, 3);
    EXPECT_EQ(e->flushes, flushes);
    f.size = 65 << 12;
    rv_fence(&h->cpu, &f);
    EXPECT_EQ(e->flushes, flushes + 1);
    f.size = 0;
    rv_fence(&h->cpu, &f);
    EXPECT_EQ(e->flushes, flushes + 1);
}

TEST(environment_calls)
{
    start(RV_U);
    EXPECT_EQ(rv_ecall(h), CPU_EXCEPTION);
    EXPECT_EQ(h->exception_cause, RV_CAUSE_ECALL_U);
    EXPECT_EQ(h->cpu.pc, 0x8000);
    rv_set_priv(h, RV_S);
    rv_ecall(h);
    EXPECT_EQ(h->exception_cause, RV_CAUSE_ECALL_S);
    rv_set_priv(h, RV_M);
    rv_ecall(h);
    EXPECT_EQ(h->exception_cause, RV_CAUSE_ECALL_M);
    free(e);
    e = fake_engine_new(true);
    h = &e->h;
    h->cpu.pc = 0x8000;
    EXPECT_EQ(rv_ecall(h), CPU_EXIT);
    EXPECT_EQ(e->exit.reason, VCPU_EXIT_SBI);
    EXPECT_EQ(h->cpu.pc, 0x8004);
    rv_set_priv(h, RV_U);
    EXPECT_EQ(rv_ecall(h), CPU_EXCEPTION);
    rv_take_exception(&h->cpu);
    EXPECT_EQ(h->priv, RV_S);
    EXPECT_EQ(h->scause, RV_CAUSE_ECALL_U);
}

TEST(reset_to_machine_mode)
{
    start(RV_U);
    h->x[5] = h->satp = h->mie = 1;
    h->cpu.fp_flags = 3;
    rv_raise(h, RV_CAUSE_ILLEGAL, 0);
    rv_reset(&h->cpu);
    EXPECT_EQ(h->priv, RV_M);
    EXPECT_EQ(h->cpu.pc, 0x1000);
    EXPECT_EQ(h->x[5] | h->satp | h->mie | h->cpu.fp_flags | h->exception_pending, 0);
    EXPECT_EQ(h->timebase_hz, 10000000);
    EXPECT_EQ(h->reset_pc, 0x1000);
    EXPECT_TRUE(h->counter[0].running && h->counter[2].running);
}

TEST(reset_with_built_in_sbi)
{
    uint64_t old;

    free(e);
    e = fake_engine_new(true);
    h = &e->h;
    EXPECT_EQ(h->priv, RV_S);
    EXPECT_EQ(rv_csr_access(h, CSR_TIME, RV_CSR_SET, false, 0, &old), CPU_OK);
    EXPECT_EQ(rv_csr_access(h, CSR_STIMECMP, RV_CSR_WRITE, true, 5, &old), CPU_OK);
    EXPECT_EQ(rv_csr_access(h, CSR_SENVCFG, RV_CSR_WRITE, true, 0, &old), CPU_OK);
    EXPECT_EQ(rv_csr_access(h, CSR_MSTATUS, RV_CSR_SET, false, 0, &old), CPU_EXCEPTION);
    rv_take_exception(&h->cpu);
    EXPECT_EQ(h->priv, RV_S);
}

TEST(timer_deadline)
{
    free(e);
    e = fake_engine_new(true);
    h = &e->h;
    EXPECT_EQ(rv_next_timer_ns(&h->cpu), INT64_MAX);
    rv_csr_poke(h, CSR_STIMECMP, 50);
    EXPECT_EQ(rv_next_timer_ns(&h->cpu), vclock_to_host_ns(&e->clock, 5000));
    e->now_ns = 5000;
    h->mie = MIP_STIP;
    h->mstatus |= MSTATUS_SIE;
    EXPECT_EQ(h->cpu.attention, 0);
    EXPECT_EQ(rv_next_timer_ns(&h->cpu), INT64_MAX); /* passed: seen, and taken next */
    EXPECT_EQ(h->cpu.attention, 1);
    EXPECT_TRUE(rv_take_interrupt(&h->cpu));
    EXPECT_EQ(h->scause, CAUSE_INTERRUPT | RV_IRQ_STI);
    rv_csr_poke(h, CSR_STIMECMP, UINT64_MAX);
    EXPECT_EQ(rv_next_timer_ns(&h->cpu), INT64_MAX);
    EXPECT_EQ(rv_mip(h), 0);
}
