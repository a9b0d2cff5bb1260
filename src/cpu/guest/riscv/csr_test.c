/* Tests of CSR access: existence, privilege, legal values, read-modify-write, mode bits. */
#include "base/test.h"
#include "cpu/guest/riscv/csr_internal.h"
#include "cpu/guest/riscv/fake_engine.h"

#include <stdlib.h>

#include <errno.h>

static struct fake_engine *e;
static struct rv_hart *h;

static void start(unsigned priv)
{
    free(e);
    e = fake_engine_new(false);
    h = &e->h;
    rv_set_priv(h, priv);
}

static bool faults(enum cpu_status status)
{
    if (status == CPU_OK)
        return false;
    EXPECT_EQ(status, CPU_EXCEPTION);
    EXPECT_EQ(h->exception_cause, RV_CAUSE_ILLEGAL);
    EXPECT_EQ(h->exception_tval, 0);
    h->exception_pending = false;
    return true;
}

static bool read_faults(unsigned csr)
{
    uint64_t old;

    return faults(rv_csr_access(h, csr, RV_CSR_SET, false, 0, &old));
}

static uint64_t get(unsigned csr)
{
    uint64_t old = 0xdead;

    EXPECT_EQ(rv_csr_access(h, csr, RV_CSR_SET, false, 0, &old), CPU_OK);
    return old;
}

static bool write_faults(unsigned csr, uint64_t value)
{
    return faults(rv_csr_access(h, csr, RV_CSR_WRITE, true, value, NULL));
}

static void set(unsigned csr, uint64_t value)
{
    EXPECT_TRUE(!write_faults(csr, value));
}

static uint64_t set_bits(unsigned csr, uint64_t bits)
{
    uint64_t old = 0;

    EXPECT_EQ(rv_csr_access(h, csr, RV_CSR_SET, true, bits, &old), CPU_OK);
    return old;
}

static uint64_t clear_bits(unsigned csr, uint64_t bits)
{
    uint64_t old = 0;

    EXPECT_EQ(rv_csr_access(h, csr, RV_CSR_CLEAR, true, bits, &old), CPU_OK);
    return old;
}

TEST(absent_registers_are_illegal)
{
    /* tselect, pmpcfg1, pmpaddr16, mtinst, hstatus, dcsr, vsstatus, timeh, beyond the space */
    static const unsigned absent[] = {0x7a0, 0x3a1, 0x3c0, 0x34a, 0x600,
                                      0x7b0, 0x200, 0xc81, 0x1000};
    uint64_t v;
    char name[16];

    start(RV_M);
    for (unsigned i = 0; i < ARRAY_SIZE(absent); i++) {
        EXPECT_TRUE(read_faults(absent[i]));
        EXPECT_EQ(rv_csr_peek(h, absent[i], &v), -ENOENT);
        EXPECT_EQ(rv_csr_poke(h, absent[i], 0), -ENOENT);
        EXPECT_TRUE(!rv_csr_name(absent[i], name, sizeof(name)));
    }
}

TEST(numbers_say_privilege_and_read_only)
{
    start(RV_S);
    EXPECT_TRUE(read_faults(CSR_MSTATUS));
    EXPECT_TRUE(!read_faults(CSR_SSTATUS));
    rv_set_priv(h, RV_U);
    EXPECT_TRUE(read_faults(CSR_SSTATUS));
    rv_set_priv(h, RV_M);
    EXPECT_TRUE(!read_faults(CSR_MHARTID));
    EXPECT_EQ(get(CSR_MHARTID), 5);
    EXPECT_TRUE(write_faults(CSR_MHARTID, 0));
    EXPECT_TRUE(write_faults(CSR_CYCLE, 0));
    /* misa may be written, to no effect */
    uint64_t misa = get(CSR_MISA);
    set(CSR_MISA, 0);
    EXPECT_EQ(get(CSR_MISA), misa);
    EXPECT_EQ(misa >> 62, 2);
    EXPECT_EQ(misa & MASK(26), 0x34112f);
}

TEST(names_count_as_the_specification_does)
{
    char name[16];

    EXPECT_TRUE(rv_csr_name(CSR_SATP, name, sizeof(name)));
    EXPECT_STR(name, "satp");
    rv_csr_name(CSR_PMPADDR0 + 15, name, sizeof(name));
    EXPECT_STR(name, "pmpaddr15");
    rv_csr_name(CSR_MHPMEVENT3, name, sizeof(name));
    EXPECT_STR(name, "mhpmevent3");
    rv_csr_name(0xc1f, name, sizeof(name));
    EXPECT_STR(name, "hpmcounter31");
    rv_csr_name(CSR_MSTATEEN0, name, sizeof(name));
    EXPECT_STR(name, "mstateen0");
    rv_csr_name(CSR_PMPCFG2, name, sizeof(name));
    EXPECT_STR(name, "pmpcfg2");
}

TEST(read_modify_write)
{
    start(RV_M);
    set(CSR_MSCRATCH, 0xf0);
    EXPECT_EQ(set_bits(CSR_MSCRATCH, 0x0f), 0xf0);
    EXPECT_EQ(clear_bits(CSR_MSCRATCH, 0x81), 0xff);
    EXPECT_EQ(get(CSR_MSCRATCH), 0x7e);
}

TEST(mstatus_is_legal)
{
    start(RV_M);
    set(CSR_MSTATUS, UINT64_MAX);
    EXPECT_EQ(get(CSR_MSTATUS), MSTATUS_SD | MSTATUS_UXL_64 | MSTATUS_SXL_64 | 0x7e7faa);
    set(CSR_MSTATUS, 2ULL << MSTATUS_MPP_SHIFT); /* reserved: stays M */
    EXPECT_EQ(get(CSR_MSTATUS) & MSTATUS_MPP, MSTATUS_MPP);
    set(CSR_MSTATUS, 0);
    EXPECT_EQ(get(CSR_MSTATUS), MSTATUS_UXL_64 | MSTATUS_SXL_64);
    set(CSR_SSTATUS, UINT64_MAX);
    EXPECT_EQ(get(CSR_SSTATUS), MSTATUS_SD | MSTATUS_UXL_64 | 0xc6722);
    EXPECT_EQ(get(CSR_MSTATUS) & (MSTATUS_MIE | MSTATUS_TVM), 0);
}

TEST(floating_point_registers_need_fs)
{
    start(RV_M);
    EXPECT_TRUE(read_faults(CSR_FFLAGS));
    EXPECT_TRUE(write_faults(CSR_FCSR, 0));
    set(CSR_MSTATUS, BIT(13)); /* Initial */
    EXPECT_EQ(get(CSR_FCSR), 0);
    EXPECT_EQ(h->mstatus & MSTATUS_FS, BIT(13)); /* reading does not dirty */
    EXPECT_TRUE(h->cpu.mode & RV_MODE_FS && !(h->cpu.mode & RV_MODE_FS_DIRTY));
    EXPECT_TRUE(h->cpu.mode & RV_MODE_FRM_RNE);
    set(CSR_FCSR, 0xffff);
    EXPECT_EQ(get(CSR_FCSR), 0xff);
    EXPECT_EQ(get(CSR_FRM), 7);
    EXPECT_EQ(get(CSR_FFLAGS), 31);
    EXPECT_EQ(get(CSR_MSTATUS) & (MSTATUS_FS | MSTATUS_SD), MSTATUS_FS | MSTATUS_SD);
    EXPECT_TRUE(h->cpu.mode & RV_MODE_FS_DIRTY && h->cpu.mode & RV_MODE_FRM_BAD);
    EXPECT_TRUE(!(h->cpu.mode & RV_MODE_FRM_RNE));
    set(CSR_FRM, 4);
    EXPECT_TRUE(!(h->cpu.mode & (RV_MODE_FRM_BAD | RV_MODE_FRM_RNE)));
    clear_bits(CSR_FFLAGS, 0x11);
    EXPECT_EQ(get(CSR_FCSR), 0x8e);
}

TEST(data_translation_follows_mprv_and_sum)
{
    start(RV_M);
    EXPECT_EQ(h->cpu.mode & RV_MODE_MMU_MASK, RV_MMU_M);
    set(CSR_MSTATUS, MSTATUS_MPRV);
    EXPECT_EQ(h->cpu.mode & RV_MODE_MMU_MASK, RV_MMU_U);
    set(CSR_MSTATUS, MSTATUS_MPRV | 1 << MSTATUS_MPP_SHIFT);
    EXPECT_EQ(h->cpu.mode & RV_MODE_MMU_MASK, RV_MMU_S);
    set_bits(CSR_MSTATUS, MSTATUS_SUM);
    EXPECT_EQ(h->cpu.mode & RV_MODE_MMU_MASK, RV_MMU_S_SUM);
    EXPECT_EQ(BITS(h->cpu.mode, 3, 2), RV_M); /* fetches are not affected */
    set(CSR_MSTATUS, MSTATUS_MPRV | MSTATUS_MPP);
    EXPECT_EQ(h->cpu.mode & RV_MODE_MMU_MASK, RV_MMU_M);
    rv_set_priv(h, RV_S);
    EXPECT_EQ(h->cpu.mode & RV_MODE_MMU_MASK, RV_MMU_S);
}

TEST(satp_is_legal_and_trapped_by_tvm)
{
    start(RV_S);
    unsigned switches = e->context_switches;
    set(CSR_SATP, 8ULL << 60 | 0x1234ULL << 44 | 0x80000);
    EXPECT_EQ(e->context_switches, switches + 1);
    EXPECT_EQ(e->context.key, 8ULL << 60 | 0x1234ULL << 44 | 0x80000);
    set(CSR_SATP, 7ULL << 60); /* no such mode: no effect at all */
    EXPECT_EQ(get(CSR_SATP), 8ULL << 60 | 0x1234ULL << 44 | 0x80000);
    set(CSR_SATP, 0);
    EXPECT_EQ(e->context.key, 0);
    h->mstatus |= MSTATUS_TVM;
    EXPECT_TRUE(read_faults(CSR_SATP));
    EXPECT_TRUE(write_faults(CSR_SATP, 0));
    rv_set_priv(h, RV_M);
    EXPECT_TRUE(!read_faults(CSR_SATP));
}

TEST(trap_registers_are_legal)
{
    start(RV_M);
    set(CSR_MTVEC, 0x1001);
    set(CSR_MTVEC, 0x2002); /* reserved mode: stays vectored */
    EXPECT_EQ(get(CSR_MTVEC), 0x2001);
    set(CSR_STVEC, 0x3000);
    set(CSR_STVEC, 0x4003);
    EXPECT_EQ(get(CSR_STVEC), 0x4000);
    set(CSR_MEPC, 0x1003);
    EXPECT_EQ(get(CSR_MEPC), 0x1002);
    set(CSR_SEPC, UINT64_MAX);
    EXPECT_EQ(get(CSR_SEPC), UINT64_MAX - 1);
    set(CSR_MEDELEG, UINT64_MAX);
    EXPECT_EQ(get(CSR_MEDELEG), 0xb3ff);
    set(CSR_MIDELEG, UINT64_MAX);
    EXPECT_EQ(get(CSR_MIDELEG), MIP_S_ALL);
    set(CSR_MIE, UINT64_MAX);
    EXPECT_EQ(get(CSR_MIE), MIP_ALL);
    set(CSR_MIDELEG, MIP_STIP);
    EXPECT_EQ(get(CSR_SIE), MIP_STIP); /* not delegated: reads 0, ignores writes */
    set(CSR_SIE, 0);
    EXPECT_EQ(get(CSR_MIE), MIP_ALL & ~MIP_STIP);
}

TEST(pending_bits)
{
    start(RV_M);
    set(CSR_MIDELEG, MIP_S_ALL);
    set(CSR_MIP, UINT64_MAX);
    EXPECT_EQ(get(CSR_MIP), MIP_S_ALL); /* the machine's own are inputs only */
    set(CSR_SIP, 0);
    EXPECT_EQ(get(CSR_MIP), MIP_STIP | MIP_SEIP);
    set(CSR_MIP, 0);
    EXPECT_EQ(get(CSR_MIP), 0);
    h->cpu.irqs = MIP_MTIP | MIP_SEIP;
    EXPECT_EQ(get(CSR_MIP), MIP_MTIP | MIP_SEIP);
    /* setting another bit must not latch the input's SEIP */
    EXPECT_EQ(set_bits(CSR_MIP, MIP_STIP), MIP_MTIP | MIP_SEIP);
    h->cpu.irqs = 0;
    EXPECT_EQ(get(CSR_MIP), MIP_STIP);
    set_bits(CSR_MIP, MIP_SEIP);
    EXPECT_EQ(get(CSR_SIP), MIP_STIP | MIP_SEIP);
    set(CSR_MIP, 0);
    /* a software interrupt message is consumed by clearing SSIP, and by nothing else */
    h->cpu.irqs = MIP_SSIP;
    EXPECT_EQ(clear_bits(CSR_SIP, MIP_LCOFIP), MIP_SSIP);
    EXPECT_EQ(get(CSR_SIP), MIP_SSIP);
    EXPECT_EQ(clear_bits(CSR_SIP, MIP_SSIP), MIP_SSIP);
    EXPECT_EQ(get(CSR_SIP), 0);
    EXPECT_EQ(h->cpu.irqs, 0);
}

TEST(supervisor_timer)
{
    start(RV_M);
    set(CSR_MENVCFG, MENVCFG_STCE);
    set_bits(CSR_MIP, MIP_STIP); /* read-only now */
    EXPECT_EQ(get(CSR_MIP), 0);
    e->now_ns = 1000;
    EXPECT_EQ(get(CSR_TIME), 10); /* 10 MHz */
    unsigned changes = e->timer_changes;
    set(CSR_STIMECMP, 11);
    EXPECT_EQ(e->timer_changes, changes + 1);
    EXPECT_EQ(get(CSR_MIP), 0);
    e->now_ns = 1099;
    EXPECT_EQ(get(CSR_MIP), 0);
    e->now_ns = 1100;
    EXPECT_EQ(get(CSR_MIP), MIP_STIP);
    set(CSR_STIMECMP, 12);
    EXPECT_EQ(get(CSR_MIP), 0);
    rv_set_priv(h, RV_S);
    EXPECT_TRUE(write_faults(CSR_STIMECMP, 1)); /* mcounteren.TM is clear */
    h->mcounteren = COUNTEREN_TM;
    EXPECT_TRUE(!write_faults(CSR_STIMECMP, 1));
    h->menvcfg = 0;
    EXPECT_TRUE(read_faults(CSR_STIMECMP));
}

TEST(counter_enables)
{
    start(RV_S);
    EXPECT_TRUE(read_faults(CSR_CYCLE) && read_faults(CSR_TIME) && read_faults(CSR_INSTRET));
    h->mcounteren = 0x86;
    EXPECT_TRUE(read_faults(CSR_CYCLE) && !read_faults(CSR_TIME) && !read_faults(CSR_INSTRET));
    EXPECT_TRUE(!read_faults(CSR_CYCLE + 7) && read_faults(CSR_CYCLE + 8));
    rv_set_priv(h, RV_U);
    h->scounteren = 0x81;
    EXPECT_TRUE(read_faults(CSR_CYCLE) && read_faults(CSR_TIME) && !read_faults(CSR_CYCLE + 7));
    rv_set_priv(h, RV_M);
    h->mcounteren = 0;
    EXPECT_TRUE(!read_faults(CSR_CYCLE) && !read_faults(CSR_CYCLE + 31));
}

TEST(environment_configuration)
{
    start(RV_M);
    set(CSR_MENVCFG, UINT64_MAX);
    EXPECT_EQ(get(CSR_MENVCFG), 7ULL << 61 | 0xf1);
    set(CSR_MENVCFG, 2 << 4); /* reserved CBIE: stays */
    EXPECT_EQ(get(CSR_MENVCFG), 3 << 4);
    set(CSR_SENVCFG, UINT64_MAX);
    EXPECT_EQ(get(CSR_SENVCFG), 0xf1);
    /* cache-block operations: bit 0 inval traps, 1 as flush, 2 clean, 3 zero */
    EXPECT_EQ(h->cpu.mode >> RV_MODE_CBO_SHIFT & 15, 0xc); /* M-mode may do all */
    rv_set_priv(h, RV_S);
    EXPECT_EQ(h->cpu.mode >> RV_MODE_CBO_SHIFT & 15, 0);
    rv_set_priv(h, RV_M);
    set(CSR_MENVCFG, 1 << 4 | 1 << 7);
    rv_set_priv(h, RV_S);
    EXPECT_EQ(h->cpu.mode >> RV_MODE_CBO_SHIFT & 15, 0xa);
    rv_set_priv(h, RV_U);
    EXPECT_EQ(h->cpu.mode >> RV_MODE_CBO_SHIFT & 15, 0xa); /* senvcfg has CBIE = 3, CBZE */
    rv_set_priv(h, RV_S);
    h->mstateen[0] = STATEEN_ENVCFG;
    set(CSR_SENVCFG, 1 << 6);
    rv_set_priv(h, RV_U);
    EXPECT_EQ(h->cpu.mode >> RV_MODE_CBO_SHIFT & 15, 1);
}

TEST(state_enables)
{
    start(RV_M);
    set(CSR_MSTATEEN0, UINT64_MAX);
    EXPECT_EQ(get(CSR_MSTATEEN0), 3ULL << 62);
    set(CSR_MSTATEEN0 + 1, UINT64_MAX);
    EXPECT_EQ(get(CSR_MSTATEEN0 + 1), 1ULL << 63);
    set(CSR_MSTATEEN0, STATEEN_SE);
    rv_set_priv(h, RV_S);
    EXPECT_TRUE(read_faults(CSR_SENVCFG));
    set(CSR_SSTATEEN0, UINT64_MAX);
    EXPECT_EQ(get(CSR_SSTATEEN0), 0);
    EXPECT_TRUE(!read_faults(CSR_SSTATEEN0 + 1) && read_faults(CSR_SSTATEEN0 + 2));
    h->mstateen[0] = STATEEN_ENVCFG;
    EXPECT_TRUE(!read_faults(CSR_SENVCFG) && read_faults(CSR_SSTATEEN0));
}

TEST(seed_must_be_written_and_enabled)
{
    uint64_t seed = 0;

    start(RV_M);
    EXPECT_TRUE(read_faults(CSR_SEED));
    ASSERT_EQ(rv_csr_access(h, CSR_SEED, RV_CSR_WRITE, true, 0, &seed), CPU_OK);
    EXPECT_TRUE(seed >> 30 == 2 || seed == 1 << 30);
    set(CSR_MSECCFG, 0);
    rv_set_priv(h, RV_S);
    EXPECT_TRUE(write_faults(CSR_SEED, 0));
    rv_csr_poke(h, CSR_MSECCFG, UINT64_MAX);
    EXPECT_EQ(h->mseccfg, MSECCFG_SSEED | MSECCFG_USEED);
    EXPECT_TRUE(!write_faults(CSR_SEED, 0));
    h->mseccfg = MSECCFG_SSEED;
    rv_set_priv(h, RV_U);
    EXPECT_TRUE(write_faults(CSR_SEED, 0));
    EXPECT_EQ(rv_csr_peek(h, CSR_SEED, &seed), -ENOENT); /* a look must not use entropy up */
}

TEST(debugger_access_ignores_privilege)
{
    uint64_t v;

    start(RV_U);
    EXPECT_EQ(rv_csr_poke(h, CSR_MTVEC, 0x1003), 0);
    EXPECT_EQ(rv_csr_peek(h, CSR_MTVEC, &v), 0);
    EXPECT_EQ(v, 0x1000);
    EXPECT_EQ(rv_csr_poke(h, CSR_MHARTID, 9), 0);
    EXPECT_EQ(rv_csr_peek(h, CSR_MHARTID, &v), 0);
    EXPECT_EQ(v, 5);
}

TEST(vector_registers)
{
    start(RV_M);
    h->vec.vlenb = 32;
    set(CSR_MSTATUS, 0);
    for (unsigned csr = CSR_VSTART; csr <= CSR_VXRM; csr++)
        EXPECT_TRUE(read_faults(csr) && write_faults(csr, 0));
    EXPECT_TRUE(read_faults(CSR_VL) && read_faults(CSR_VLENB) && read_faults(CSR_VTYPE));
    set(CSR_MSTATUS, 1 << 9); /* VS = Initial */
    EXPECT_EQ(get(CSR_MSTATUS) & MSTATUS_SD, 0);
    EXPECT_EQ(get(CSR_VLENB), 32);
    EXPECT_TRUE(write_faults(CSR_VL, 0));
    set(CSR_VCSR, UINT64_MAX);
    EXPECT_EQ(get(CSR_VCSR), 7);
    EXPECT_EQ(get(CSR_VXRM), 3);
    EXPECT_EQ(get(CSR_VXSAT), 1);
    EXPECT_EQ(get(CSR_MSTATUS) & (MSTATUS_SD | MSTATUS_VS), MSTATUS_SD | MSTATUS_VS);
    set(CSR_VSTART, UINT64_MAX); /* numbers the elements of the largest group */
    EXPECT_EQ(get(CSR_VSTART), 255);
    rv_set_vtype(h, 0x13, 1000); /* e32, m8 */
    EXPECT_EQ(get(CSR_VL), 64);
    EXPECT_EQ(get(CSR_VSTART), 0);
    rv_set_vtype(h, 0x1d, 1); /* e64 in an eighth of a register */
    EXPECT_EQ(get(CSR_VTYPE), VTYPE_VILL);
    EXPECT_EQ(get(CSR_VL), 0);
    /* a debugger sets vl and vtype in any order, never to more than there is */
    EXPECT_EQ(rv_csr_poke(h, CSR_VL, 9), 0);
    EXPECT_EQ(rv_csr_poke(h, CSR_VTYPE, 0x10), 0);
    EXPECT_EQ(get(CSR_VL), 8);
}

TEST(a_hart_without_vectors_has_no_state_of_them)
{
    start(RV_M);
    h->profile = RV_PROFILE_RVA22;
    set(CSR_MSTATUS, MSTATUS_VS);
    EXPECT_EQ(get(CSR_MSTATUS) & MSTATUS_VS, 0);
    EXPECT_TRUE(read_faults(CSR_VLENB));
    EXPECT_EQ(get(CSR_MISA) >> 21 & 1, 0);
    h->profile = RV_PROFILE_MAX;
}
