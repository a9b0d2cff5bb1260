/* Tests of physical memory protection: matching, priorities, locks, parts of pages. */
#include "base/test.h"
#include "cpu/guest/riscv/csr_internal.h"
#include "cpu/guest/riscv/fake_engine.h"

#include <stdlib.h>

#define OFF   0
#define TOR   (PMP_TOR << PMP_A_SHIFT)
#define NA4   (PMP_NA4 << PMP_A_SHIFT)
#define NAPOT (PMP_NAPOT << PMP_A_SHIFT)

static struct fake_engine *e;
static bool whole;

static void set_addr(unsigned i, uint64_t value)
{
    rv_csr_poke(&e->h, CSR_PMPADDR0 + i, value);
}

static void set_cfg(unsigned i, uint64_t cfg)
{
    unsigned csr = i < 8 ? CSR_PMPCFG0 : CSR_PMPCFG2;
    unsigned shift = i % 8 * 8;
    uint64_t all;

    rv_csr_peek(&e->h, csr, &all);
    rv_csr_poke(&e->h, csr, (all & ~(255ULL << shift)) | cfg << shift);
}

static uint64_t get(unsigned csr)
{
    uint64_t v = 0;

    EXPECT_EQ(rv_csr_peek(&e->h, csr, &v), 0);
    return v;
}

static bool may(uint64_t gpa, uint64_t size, enum cpu_access access, unsigned priv)
{
    return rv_pmp_check(&e->h, GPA(gpa), size, access, priv, &whole);
}

TEST(no_entry_lets_only_machine_mode_through)
{
    free(e);
    e = fake_engine_new(false);
    EXPECT_TRUE(may(0x80000000, 8, CPU_WRITE, RV_M));
    EXPECT_TRUE(!may(0x80000000, 8, CPU_READ, RV_S));
    EXPECT_TRUE(!may(0x80000000, 8, CPU_FETCH, RV_U));
    free(e);
    e = fake_engine_new(true); /* M-mode is the monitor's */
    EXPECT_TRUE(may(0x80000000, 8, CPU_WRITE, RV_U));
}

TEST(napot_sizes)
{
    free(e);
    e = fake_engine_new(false);
    set_cfg(0, NAPOT | PMP_R);
    set_addr(0, 0x80000000 >> 2); /* 8 bytes */
    EXPECT_TRUE(may(0x80000000, 8, CPU_READ, RV_S));
    EXPECT_TRUE(!whole);
    EXPECT_TRUE(!may(0x80000008, 1, CPU_READ, RV_S));
    EXPECT_TRUE(!may(0x7fffffff, 1, CPU_READ, RV_S));
    EXPECT_TRUE(!may(0x80000004, 8, CPU_READ, RV_S)); /* partly within */
    set_addr(0, 0x80000000 >> 2 | 0x1ff);             /* 4 KiB */
    EXPECT_TRUE(may(0x80000ff8, 8, CPU_READ, RV_S));
    EXPECT_TRUE(whole);
    EXPECT_TRUE(!may(0x80001000, 8, CPU_READ, RV_S));
    set_addr(0, PMPADDR_MASK); /* everything */
    EXPECT_TRUE(may(0, 8, CPU_READ, RV_U));
    EXPECT_TRUE(may(0x00fffffffffffff8, 8, CPU_READ, RV_U));
    EXPECT_TRUE(whole);
    EXPECT_EQ(get(CSR_PMPADDR0), PMPADDR_MASK);
    set_addr(0, UINT64_MAX);
    EXPECT_EQ(get(CSR_PMPADDR0), PMPADDR_MASK);
}

TEST(na4_and_tor)
{
    free(e);
    e = fake_engine_new(false);
    set_addr(2, 0x2000 >> 2);
    set_addr(3, 0x3000 >> 2);
    set_cfg(3, TOR | PMP_R | PMP_X); /* below is entry 2's address, though entry 2 is off */
    EXPECT_TRUE(may(0x2000, 4, CPU_FETCH, RV_U));
    EXPECT_TRUE(may(0x2ffc, 4, CPU_FETCH, RV_U));
    EXPECT_TRUE(!may(0x2ffe, 4, CPU_FETCH, RV_U));
    EXPECT_TRUE(!may(0x1ffc, 4, CPU_FETCH, RV_U));
    EXPECT_TRUE(!may(0x2000, 4, CPU_WRITE, RV_U));
    set_addr(2, 0x3000 >> 2); /* empty range */
    EXPECT_TRUE(!may(0x2ffc, 4, CPU_FETCH, RV_U));
    set_addr(0, 0x1000 >> 2);
    set_cfg(0, TOR | PMP_R); /* from 0 */
    EXPECT_TRUE(may(0, 8, CPU_READ, RV_U));
    set_cfg(1, NA4 | PMP_R);
    set_addr(1, 0x5004 >> 2);
    EXPECT_TRUE(may(0x5004, 4, CPU_READ, RV_S));
    EXPECT_TRUE(!may(0x5004, 8, CPU_READ, RV_S));
    EXPECT_TRUE(!may(0x5008, 4, CPU_READ, RV_S));
}

TEST(lowest_entry_that_matches_any_byte_decides)
{
    uint64_t span;

    free(e);
    e = fake_engine_new(false);
    set_addr(0, 0x80000800 >> 2);
    set_cfg(0, NA4);
    set_addr(1, PMPADDR_MASK);
    set_cfg(1, NAPOT | PMP_R | PMP_W);
    EXPECT_TRUE(may(0x80000000, 8, CPU_WRITE, RV_S));
    EXPECT_TRUE(!whole);
    EXPECT_TRUE(!may(0x80000800, 4, CPU_READ, RV_S));
    EXPECT_TRUE(!may(0x800007fc, 8, CPU_READ, RV_S)); /* its end lies in entry 0 */
    EXPECT_TRUE(may(0x80000804, 8, CPU_READ, RV_S));
    EXPECT_TRUE(may(0x80001000, 8, CPU_READ, RV_S));
    EXPECT_TRUE(whole);
    rv_pmp_rights(&e->h, 0x800007f0, RV_S, &span, &whole);
    EXPECT_EQ(span, 0x10);
    rv_pmp_rights(&e->h, 0x80000802, RV_S, &span, &whole);
    EXPECT_EQ(span, 2);
    rv_pmp_rights(&e->h, 0x80000804, RV_S, &span, &whole);
    EXPECT_EQ(span, 0x7fc);
}

TEST(locks_bind_machine_mode_and_last)
{
    free(e);
    e = fake_engine_new(false);
    set_addr(0, 0x80000000 >> 2 | 0x1ff);
    set_cfg(0, NAPOT | PMP_R);
    EXPECT_TRUE(may(0x80000000, 8, CPU_WRITE, RV_M)); /* not locked: M-mode passes */
    set_cfg(0, NAPOT | PMP_R | PMP_L);
    EXPECT_TRUE(!may(0x80000000, 8, CPU_WRITE, RV_M));
    EXPECT_TRUE(may(0x80000000, 8, CPU_READ, RV_M));
    EXPECT_TRUE(may(0x80002000, 8, CPU_WRITE, RV_M));
    set_cfg(0, 0);
    EXPECT_EQ(get(CSR_PMPCFG0) & 255, NAPOT | PMP_R | PMP_L);
    set_addr(0, 0);
    EXPECT_EQ(get(CSR_PMPADDR0), 0x80000000 >> 2 | 0x1ff);
    /* a locked TOR entry locks the address below it */
    set_addr(4, 0x100);
    set_addr(5, 0x200);
    set_cfg(5, TOR | PMP_L);
    set_addr(4, 0x300);
    EXPECT_EQ(get(CSR_PMPADDR0 + 4), 0x100);
    set_cfg(9, NAPOT | PMP_L);
    set_addr(8, 0x300);
    EXPECT_EQ(get(CSR_PMPADDR0 + 8), 0x300);
    rv_reset(&e->h.cpu);
    EXPECT_EQ(get(CSR_PMPCFG0), 0);
    EXPECT_TRUE(may(0x80000000, 8, CPU_WRITE, RV_M));
}

TEST(config_bits_are_legal)
{
    free(e);
    e = fake_engine_new(false);
    rv_csr_poke(&e->h, CSR_PMPCFG2, 0x0000000000006200 | PMP_W);
    EXPECT_EQ(get(CSR_PMPCFG2), 0); /* W without R; bits 5 and 6 */
    rv_csr_poke(&e->h, CSR_PMPCFG2, 0x1f1b191817161514);
    EXPECT_EQ(get(CSR_PMPCFG2), 0x1f1b191817141514);
    unsigned flushes = e->flushes;
    set_addr(3, 1);
    EXPECT_EQ(e->flushes, flushes + 1);
}
