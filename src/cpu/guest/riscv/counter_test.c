/* Tests of counters: sources, inhibition, privilege filters, overflow interrupts. */
#include "base/test.h"
#include "cpu/guest/riscv/csr_internal.h"
#include "cpu/guest/riscv/fake_engine.h"

#include <stdlib.h>

static struct fake_engine *e;
static struct rv_hart *h;

static void start(void)
{
    free(e);
    e = fake_engine_new(false);
    h = &e->h;
}

static uint64_t get(unsigned csr)
{
    uint64_t v = 0;

    EXPECT_EQ(rv_csr_peek(h, csr, &v), 0);
    return v;
}

static void set(unsigned csr, uint64_t value)
{
    EXPECT_EQ(rv_csr_poke(h, csr, value), 0);
}

TEST(cycle_instret_and_time)
{
    start();
    e->now_ns = 12345;
    h->cpu.instret = 77;
    EXPECT_EQ(get(CSR_MCYCLE), 12345);
    EXPECT_EQ(get(CSR_INSTRET), 77);
    EXPECT_EQ(get(CSR_TIME), 123);
    h->timebase_hz = 3000000; /* not a divisor of 1 GHz */
    EXPECT_EQ(get(CSR_TIME), 37);
    EXPECT_EQ(rv_ticks_to_ns(h, 37), 12334);
    EXPECT_EQ(rv_ticks_to_ns(h, UINT64_MAX), INT64_MAX);
    set(CSR_MINSTRET, 1000);
    h->cpu.instret += 5;
    EXPECT_EQ(get(CSR_MINSTRET), 1005);
}

TEST(the_writing_instruction_is_not_counted)
{
    uint64_t old;

    start();
    h->cpu.instret = 10;
    rv_csr_access(h, CSR_MINSTRET, RV_CSR_WRITE, true, 100, &old);
    EXPECT_EQ(old, 10);
    h->cpu.instret++; /* it retires */
    EXPECT_EQ(get(CSR_INSTRET), 100);
}

TEST(inhibited_counters_stand_still)
{
    start();
    h->cpu.instret = 10;
    e->now_ns = 100;
    set(CSR_MCOUNTINHIBIT, UINT64_MAX);
    EXPECT_EQ(get(CSR_MCOUNTINHIBIT), 0xfffffffd);
    h->cpu.instret = 20;
    e->now_ns = 200;
    EXPECT_EQ(get(CSR_INSTRET), 10);
    EXPECT_EQ(get(CSR_CYCLE), 100);
    EXPECT_EQ(get(CSR_TIME), 2);
    set(CSR_MCOUNTINHIBIT, 1);
    h->cpu.instret = 25;
    EXPECT_EQ(get(CSR_INSTRET), 15);
    EXPECT_EQ(get(CSR_CYCLE), 100);
    set(CSR_MCYCLE, 7);
    set(CSR_MCOUNTINHIBIT, 0);
    e->now_ns = 201;
    EXPECT_EQ(get(CSR_CYCLE), 8);
}

TEST(events)
{
    struct cpu_translation t;

    start();
    set(CSR_MHPMEVENT3, RV_HPM_DTLB_READ_MISS);
    set(CSR_MHPMEVENT3 + 1, RV_HPM_EXCEPTIONS);
    set(CSR_MHPMEVENT3 + 2, 0x1234); /* not known */
    EXPECT_EQ(get(CSR_MHPMEVENT3 + 2), 0);
    for (unsigned i = 0; i < 3; i++)
        rv_translate_address(&h->cpu, 0, CPU_READ, RV_MMU_M, false, &t);
    rv_translate_address(&h->cpu, 0, CPU_WRITE, RV_MMU_M, false, &t);
    rv_raise(h, RV_CAUSE_ILLEGAL, 0);
    rv_take_exception(&h->cpu);
    EXPECT_EQ(get(CSR_MHPMCOUNTER3), 3);
    EXPECT_EQ(get(CSR_MHPMCOUNTER3 + 1), 1);
    EXPECT_EQ(get(CSR_MHPMCOUNTER3 + 2), 0);
    set(CSR_MHPMEVENT3, 0);
    rv_translate_address(&h->cpu, 0, CPU_READ, RV_MMU_M, false, &t);
    EXPECT_EQ(get(CSR_HPMCOUNTER3), 3);
}

TEST(privilege_filters)
{
    start();
    set(CSR_MHPMEVENT3, RV_HPM_INSTRUCTIONS | MHPMEVENT_MINH | MHPMEVENT_UINH);
    EXPECT_TRUE(h->counters_filtered);
    h->cpu.instret = 10;
    rv_set_priv(h, RV_S);
    h->cpu.instret = 13;
    rv_set_priv(h, RV_U);
    h->cpu.instret = 50;
    EXPECT_EQ(get(CSR_MHPMCOUNTER3), 3);
    rv_set_priv(h, RV_S);
    h->cpu.instret = 51;
    EXPECT_EQ(get(CSR_MHPMCOUNTER3), 4);
}

TEST(overflow_interrupts_once)
{
    start();
    h->mie = MIP_LCOFIP;
    h->mstatus |= MSTATUS_MIE;
    set(CSR_MHPMEVENT3, RV_HPM_INSTRUCTIONS);
    set(CSR_MHPMCOUNTER3, (uint64_t)-100);
    EXPECT_TRUE(h->overflow_armed);
    h->cpu.instret = 99;
    EXPECT_EQ(rv_mip(h), 0);
    h->cpu.instret = 101;
    EXPECT_EQ(rv_mip(h), MIP_LCOFIP);
    EXPECT_EQ(h->cpu.attention, 1);
    EXPECT_EQ(get(CSR_MHPMEVENT3), RV_HPM_INSTRUCTIONS | MHPMEVENT_OF);
    EXPECT_EQ(get(CSR_MHPMCOUNTER3), 1);
    EXPECT_EQ(get(CSR_SCOUNTOVF), 8);
    EXPECT_TRUE(!h->overflow_armed);
    rv_set_priv(h, RV_S);
    EXPECT_EQ(get(CSR_SCOUNTOVF), 0); /* mcounteren hides it */
    h->mcounteren = 8;
    EXPECT_EQ(get(CSR_SCOUNTOVF), 8);
    /* while OF is set there is no second one */
    set(CSR_MIP, 0);
    set(CSR_MHPMCOUNTER3, UINT64_MAX);
    h->cpu.instret = 200;
    EXPECT_EQ(rv_mip(h), 0);
    EXPECT_EQ(get(CSR_MHPMCOUNTER3), 98);
}

TEST(overflow_has_a_deadline)
{
    start();
    e->now_ns = 1000;
    EXPECT_EQ(rv_next_timer_ns(&h->cpu), INT64_MAX);
    set(CSR_MHPMEVENT3, RV_HPM_CYCLES);
    set(CSR_MHPMCOUNTER3, (uint64_t)-5000);
    EXPECT_EQ(rv_counters_deadline_ns(h), 6000);
    EXPECT_EQ(rv_next_timer_ns(&h->cpu), vclock_to_host_ns(&e->clock, 6000));
    e->now_ns = 6000;
    EXPECT_EQ(rv_mip(h), MIP_LCOFIP);
    EXPECT_EQ(rv_next_timer_ns(&h->cpu), INT64_MAX);
    set(CSR_MHPMEVENT3, RV_HPM_INSTRUCTIONS);
    set(CSR_MHPMCOUNTER3, (uint64_t)-4000000);
    EXPECT_EQ(rv_counters_deadline_ns(h), 6000 + 1000000);
    set(CSR_MHPMEVENT3, RV_HPM_INTERRUPTS);
    set(CSR_MHPMCOUNTER3, 0);
    EXPECT_EQ(rv_counters_deadline_ns(h), INT64_MAX);
    set(CSR_MHPMCOUNTER3, UINT64_MAX);
    EXPECT_EQ(rv_counters_deadline_ns(h), 6000 + 1000000);
}
