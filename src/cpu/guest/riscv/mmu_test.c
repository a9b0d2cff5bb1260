/* Tests of the page walker: formats, permissions, reserved encodings, A/D bits, PMP. */
#include "base/test.h"
#include "cpu/guest/riscv/csr_internal.h"
#include "cpu/guest/riscv/fake_engine.h"

#include <stdlib.h>

#define V     BIT(0)
#define R     BIT(1)
#define W     BIT(2)
#define X     BIT(3)
#define U     BIT(4)
#define G     BIT(5)
#define A     BIT(6)
#define D     BIT(7)
#define N     BIT(63)
#define RWXAD (V | R | W | X | A | D)

#define ROOT   FAKE_RAM_BASE
#define TARGET 0x123456000ULL

static struct fake_engine *e;
static struct cpu_translation t;

static uint64_t pte(uint64_t gpa, uint64_t bits)
{
    return gpa >> 12 << 10 | bits;
}

/* A hart in S-mode with PMP open and satp of @mode whose root is ROOT. */
static void start(unsigned mode)
{
    free(e);
    e = fake_engine_new(true);
    rv_csr_poke(&e->h, CSR_SATP, (uint64_t)mode << SATP_MODE_SHIFT | ROOT >> 12);
}

/* Map @va by @leaf at @leaf_level through tables in consecutive pages. Returns the leaf's address.
 */
static uint64_t map(unsigned levels, uint64_t va, unsigned leaf_level, uint64_t leaf)
{
    uint64_t table = ROOT;

    for (unsigned level = levels - 1;; level--) {
        uint64_t at = table + (va >> (12 + 9 * level) & 511) * 8;

        if (level == leaf_level) {
            fake_ram_set(e, at, leaf);
            return at;
        }
        table += 0x1000;
        fake_ram_set(e, at, pte(table, V));
    }
}

static bool walk(uint64_t va, enum cpu_access access, unsigned mmu)
{
    e->h.exception_pending = false;
    return rv_translate_address(&e->h.cpu, va, access, mmu, false, &t);
}

/* The cause of the fault that the access takes, or -1 if it takes none. */
static int fault(uint64_t va, enum cpu_access access, unsigned mmu)
{
    if (walk(va, access, mmu)) {
        EXPECT_TRUE(!e->h.exception_pending);
        return -1;
    }
    EXPECT_TRUE(e->h.exception_pending);
    EXPECT_EQ(e->h.exception_tval, va);
    return (int)e->h.exception_cause;
}

TEST(translates_in_all_formats_and_page_sizes)
{
    static const struct {
        unsigned mode, levels;
    } formats[] = {
        {SATP_SV39, 3},
        {SATP_SV48, 4},
        {SATP_SV57, 5}
    };

    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
        unsigned levels = formats[i].levels;

        for (unsigned leaf = 0; leaf < levels; leaf++) {
            unsigned bits = 12 + 9 * leaf;
            uint64_t va = (uint64_t)sext(0x5a5a5a5a5a5a5a5a, 12 + 9 * levels);
            uint64_t gpa = 0x00f1234567890000 & ~MASK(bits) & MASK(56);

            start(formats[i].mode);
            map(levels, va, leaf, pte(gpa, RWXAD));
            ASSERT_EQ(fault(va, CPU_READ, RV_MMU_S), -1);
            EXPECT_EQ(t.gpa.v, gpa | (va & MASK(bits)));
            EXPECT_EQ(t.page_bits, bits);
            EXPECT_TRUE(t.prot[CPU_READ] && t.prot[CPU_WRITE] && t.prot[CPU_FETCH]);
            EXPECT_TRUE(!t.uncached);
            EXPECT_EQ(t.span, 4096 - va % 4096);
            EXPECT_EQ(e->loads, levels - leaf);
        }
    }
}

TEST(refuses_addresses_that_are_not_canonical)
{
    start(SATP_SV39);
    uint64_t va = 0x3fffffe000;
    map(3, va, 0, pte(TARGET, RWXAD));
    EXPECT_EQ(fault(va, CPU_READ, RV_MMU_S), -1);
    EXPECT_EQ(fault(va | BIT(39), CPU_READ, RV_MMU_S), RV_CAUSE_LOAD_PAGE);
    EXPECT_EQ(fault(va | BIT(63), CPU_FETCH, RV_MMU_S), RV_CAUSE_INSN_PAGE);
    EXPECT_EQ(fault(va ^ BIT(38) ^ ~MASK(39), CPU_WRITE, RV_MMU_S), RV_CAUSE_STORE_PAGE);
    EXPECT_EQ(e->loads, 3 + 0 + 0 + 1); /* the last one is canonical, but not mapped */
}

TEST(bare_and_machine_mode_do_not_walk)
{
    start(SATP_SV39);
    EXPECT_EQ(fault(0xdeadbeef123, CPU_WRITE, RV_MMU_M), -1);
    EXPECT_EQ(t.gpa.v, 0xdeadbeef123);
    rv_csr_poke(&e->h, CSR_SATP, 0);
    EXPECT_EQ(fault(0xffffffff80000001, CPU_FETCH, RV_MMU_U), -1);
    EXPECT_EQ(t.gpa.v, 0xffffffff80000001);
    EXPECT_EQ(e->loads, 0);
}

TEST(permissions_by_access_and_mode)
{
    static const struct {
        uint64_t bits;
        /* does READ, WRITE, FETCH succeed, in U, S and S with SUM? */
        const char *u, *s, *sum;
    } cases[] = {
        {V | R | A | D,             "---", "r--", "r--"},
        {V | R | W | A | D,         "---", "rw-", "rw-"},
        {V | X | A | D,             "---", "--x", "--x"},
        {V | R | X | A | D,         "---", "r-x", "r-x"},
        {V | R | W | X | A | D,     "---", "rwx", "rwx"},
        {V | R | A | D | U,         "r--", "---", "r--"},
        {V | R | W | A | D | U,     "rw-", "---", "rw-"},
        {V | X | A | D | U,         "--x", "---", "---"},
        {V | R | W | X | A | D | U, "rwx", "---", "rw-"},
        {V | W | A | D,             "---", "---", "---"},
        {V | W | X | A | D | U,     "---", "---", "---"},
        {R | W | X | A | D | U,     "---", "---", "---"},
        {V | R | W | A | D | G,     "---", "rw-", "rw-"},
    };
    static const unsigned causes[] = {RV_CAUSE_LOAD_PAGE, RV_CAUSE_STORE_PAGE, RV_CAUSE_INSN_PAGE};

    start(SATP_SV39);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *want[] = {cases[i].u, cases[i].s, cases[i].sum};

        map(3, 0x1000, 0, pte(TARGET, cases[i].bits));
        for (unsigned mmu = RV_MMU_U; mmu <= RV_MMU_S_SUM; mmu++) {
            for (unsigned a = 0; a < 3; a++) {
                bool ok = want[mmu][a] != '-';

                if (!EXPECT_EQ(fault(0x1234, a, mmu), ok ? -1 : (int)causes[a]))
                    test_fail(__FILE__, __LINE__, "case %u mmu %u access %u", i, mmu, a);
                for (unsigned b = 0; ok && b < 3; b++)
                    EXPECT_EQ(t.prot[b], want[mmu][b] != '-');
            }
        }
    }
}

TEST(mxr_reads_executable_pages_without_keeping_them)
{
    start(SATP_SV39);
    map(3, 0x1000, 0, pte(TARGET, V | X | A));
    EXPECT_EQ(fault(0x1000, CPU_READ, RV_MMU_S), RV_CAUSE_LOAD_PAGE);
    e->h.mstatus |= MSTATUS_MXR;
    EXPECT_EQ(fault(0x1000, CPU_READ, RV_MMU_S), -1);
    EXPECT_TRUE(t.uncached);
    EXPECT_EQ(t.span, 4096);
    EXPECT_EQ(fault(0x1000, CPU_FETCH, RV_MMU_S), -1);
    EXPECT_TRUE(!t.uncached && !t.prot[CPU_READ]);
    EXPECT_EQ(fault(0x1000, CPU_WRITE, RV_MMU_S), RV_CAUSE_STORE_PAGE);
}

TEST(reserved_encodings_fault)
{
    static const struct {
        unsigned level;
        uint64_t bits;
    } bad[] = {
        {0, RWXAD | BIT(54)       },
        {0, RWXAD | BIT(60)       },
        {0, RWXAD | 3ULL << 61    },
        {1, RWXAD | 1ULL << 10    }, /* misaligned superpages */
        {1, RWXAD | 256ULL << 10  },
        {2, RWXAD | 1ULL << 27    },
        {0, RWXAD | N             }, /* not 64 KiB */
        {0, RWXAD | N | 4ULL << 10},
        {0, RWXAD | N | 9ULL << 10},
        {1, RWXAD | N             },
        {0, V                     }, /* a table at the last level */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        start(SATP_SV39);
        map(3, 0, bad[i].level, bad[i].bits);
        if (!EXPECT_EQ(fault(0, CPU_READ, RV_MMU_S), RV_CAUSE_LOAD_PAGE))
            test_fail(__FILE__, __LINE__, "case %u", i);
    }
    static const uint64_t table_bits[] = {A, D, U, N, BIT(61), BIT(55)};
    for (unsigned i = 0; i < ARRAY_SIZE(table_bits); i++) {
        start(SATP_SV39);
        map(3, 0, 0, pte(TARGET, RWXAD));
        EXPECT_EQ(fault(0, CPU_READ, RV_MMU_S), -1);
        fake_ram_set(e, ROOT, fake_ram_get(e, ROOT) | table_bits[i]);
        EXPECT_EQ(fault(0, CPU_READ, RV_MMU_S), RV_CAUSE_LOAD_PAGE);
    }
}

TEST(memory_types_need_pbmte)
{
    start(SATP_SV39);
    map(3, 0, 0, pte(TARGET, RWXAD | 1ULL << 61));
    EXPECT_EQ(fault(0, CPU_READ, RV_MMU_S), -1);
    map(3, 0, 0, pte(TARGET, RWXAD | 2ULL << 61));
    EXPECT_EQ(fault(0, CPU_READ, RV_MMU_S), -1);
    EXPECT_EQ(t.gpa.v, TARGET);
    unsigned flushes = e->flushes;
    rv_csr_poke(&e->h, CSR_MENVCFG, e->h.menvcfg & ~MENVCFG_PBMTE);
    EXPECT_EQ(e->flushes, flushes + 1);
    EXPECT_EQ(fault(0, CPU_READ, RV_MMU_S), RV_CAUSE_LOAD_PAGE);
}

TEST(napot_page_is_64_kib)
{
    start(SATP_SV39);
    for (unsigned i = 0; i < 16; i++)
        map(3, 0x10000 + i * 0x1000u, 0, pte(0x90000000, RWXAD | N) | 8 << 10);
    EXPECT_EQ(fault(0x1abcd, CPU_READ, RV_MMU_S), -1);
    EXPECT_EQ(t.gpa.v, 0x9000abcd);
    EXPECT_EQ(t.page_bits, 16);
}

TEST(hardware_sets_accessed_and_dirty)
{
    start(SATP_SV48);
    uint64_t at = map(4, 0x7000, 0, pte(TARGET, V | R | W));
    EXPECT_EQ(fault(0x7000, CPU_READ, RV_MMU_S), -1);
    EXPECT_EQ(fake_ram_get(e, at), pte(TARGET, V | R | W | A));
    EXPECT_TRUE(t.prot[CPU_READ] && !t.prot[CPU_WRITE]); /* the first store must walk again */
    EXPECT_EQ(fault(0x7000, CPU_WRITE, RV_MMU_S), -1);
    EXPECT_EQ(fake_ram_get(e, at), pte(TARGET, V | R | W | A | D));
    EXPECT_TRUE(t.prot[CPU_WRITE]);
    EXPECT_EQ(e->updates, 2);
    EXPECT_EQ(fault(0x7000, CPU_WRITE, RV_MMU_S), -1);
    EXPECT_EQ(e->updates, 2);
    /* a refused access leaves the bits alone */
    at = map(4, 0x8000, 0, pte(TARGET, V | R));
    EXPECT_EQ(fault(0x8000, CPU_WRITE, RV_MMU_S), RV_CAUSE_STORE_PAGE);
    EXPECT_EQ(fake_ram_get(e, at), pte(TARGET, V | R));
}

TEST(without_adue_clear_bits_fault)
{
    start(SATP_SV39);
    rv_csr_poke(&e->h, CSR_MENVCFG, e->h.menvcfg & ~MENVCFG_ADUE);
    map(3, 0x1000, 0, pte(TARGET, V | R | W | X));
    EXPECT_EQ(fault(0x1000, CPU_READ, RV_MMU_S), RV_CAUSE_LOAD_PAGE);
    EXPECT_EQ(fault(0x1000, CPU_FETCH, RV_MMU_S), RV_CAUSE_INSN_PAGE);
    map(3, 0x1000, 0, pte(TARGET, V | R | W | X | A));
    EXPECT_EQ(fault(0x1000, CPU_READ, RV_MMU_S), -1);
    EXPECT_EQ(fault(0x1000, CPU_WRITE, RV_MMU_S), RV_CAUSE_STORE_PAGE);
    EXPECT_EQ(e->updates, 0);
}

static void unmap_leaf(struct fake_engine *eng, uint64_t gpa)
{
    fake_ram_set(eng, gpa, 0);
}

static void move_leaf(struct fake_engine *eng, uint64_t gpa)
{
    fake_ram_set(eng, gpa, pte(TARGET + 0x1000, V | R));
    eng->before_cas = NULL;
}

TEST(update_races_are_walked_again)
{
    start(SATP_SV39);
    map(3, 0x1000, 0, pte(TARGET, V | R));
    e->before_cas = unmap_leaf;
    EXPECT_EQ(fault(0x1000, CPU_READ, RV_MMU_S), RV_CAUSE_LOAD_PAGE);
    EXPECT_EQ(e->updates, 0);
    uint64_t at = map(3, 0x1000, 0, pte(TARGET, V | R));
    e->before_cas = move_leaf;
    EXPECT_EQ(fault(0x1000, CPU_READ, RV_MMU_S), -1);
    EXPECT_EQ(t.gpa.v, TARGET + 0x1000);
    EXPECT_EQ(fake_ram_get(e, at), pte(TARGET + 0x1000, V | R | A));
}

TEST(tables_outside_ram_are_access_faults)
{
    start(SATP_SV39);
    fake_ram_set(e, ROOT, pte(0x1000, V));
    EXPECT_EQ(fault(0, CPU_READ, RV_MMU_S), RV_CAUSE_LOAD_ACCESS);
    EXPECT_EQ(fault(0, CPU_WRITE, RV_MMU_U), RV_CAUSE_STORE_ACCESS);
    EXPECT_EQ(fault(0, CPU_FETCH, RV_MMU_U), RV_CAUSE_INSN_ACCESS);
    fake_ram_set(e, ROOT, MASK(44) << 10 | V);
    EXPECT_EQ(fault(0x1ff << 12, CPU_READ, RV_MMU_S), RV_CAUSE_LOAD_ACCESS);
}

TEST(debugger_walks_have_no_effect)
{
    start(SATP_SV39);
    uint64_t at = map(3, 0x1000, 0, pte(TARGET, V | R | W));
    EXPECT_TRUE(rv_translate_address(&e->h.cpu, 0x1010, CPU_WRITE, RV_MMU_S, true, &t));
    EXPECT_EQ(t.gpa.v, TARGET + 0x10);
    EXPECT_EQ(fake_ram_get(e, at), pte(TARGET, V | R | W));
    EXPECT_TRUE(!rv_translate_address(&e->h.cpu, 0x2010, CPU_WRITE, RV_MMU_S, true, &t));
    EXPECT_TRUE(!e->h.exception_pending);
    EXPECT_EQ(e->h.events[RV_EVENT_STORE_WALK], 0);
}

/* pmpcfg @i of entries that are all off otherwise */
static void pmp(unsigned i, uint64_t addr, uint8_t cfg)
{
    e->h.pmpaddr[i] = addr;
    e->h.pmpcfg[i] = cfg;
    rv_pmp_update(&e->h);
}

TEST(pmp_guards_tables_and_targets)
{
    uint8_t napot = PMP_NAPOT << PMP_A_SHIFT;

    start(SATP_SV39);
    uint64_t at = map(3, 0x1000, 0, pte(FAKE_RAM_BASE + 0x8000, V | R | W));
    pmp(15, PMPADDR_MASK, napot | PMP_R | PMP_W | PMP_X);
    EXPECT_EQ(fault(0x1000, CPU_READ, RV_MMU_S), -1);
    EXPECT_TRUE(!t.uncached);
    /* the table may be read, but not written: the update is the access fault */
    fake_ram_set(e, at, pte(FAKE_RAM_BASE + 0x8000, V | R | W));
    pmp(0, (FAKE_RAM_BASE + 0x2000) >> 2 | 511, napot | PMP_R);
    EXPECT_EQ(fault(0x1000, CPU_READ, RV_MMU_S), RV_CAUSE_LOAD_ACCESS);
    pmp(0, (FAKE_RAM_BASE + 0x2000) >> 2 | 511, napot | PMP_W);
    EXPECT_EQ(fault(0x1000, CPU_WRITE, RV_MMU_S), RV_CAUSE_STORE_ACCESS);
    EXPECT_EQ(fake_ram_get(e, at), pte(FAKE_RAM_BASE + 0x8000, V | R | W));
    /* the target may be read, but not written: no dirty bit */
    pmp(0, (FAKE_RAM_BASE + 0x8000) >> 2 | 511, napot | PMP_R);
    EXPECT_EQ(fault(0x1000, CPU_WRITE, RV_MMU_S), RV_CAUSE_STORE_ACCESS);
    EXPECT_EQ(fake_ram_get(e, at), pte(FAKE_RAM_BASE + 0x8000, V | R | W));
    EXPECT_EQ(fault(0x1000, CPU_READ, RV_MMU_S), -1);
    EXPECT_TRUE(!t.uncached && !t.prot[CPU_WRITE]);
    /* half of the target's page: used once, and only so far */
    pmp(0, (FAKE_RAM_BASE + 0x8800) >> 2 | 255, napot);
    EXPECT_EQ(fault(0x1000, CPU_READ, RV_MMU_S), -1);
    EXPECT_TRUE(t.uncached);
    EXPECT_EQ(t.span, 0x800);
    EXPECT_EQ(fault(0x1800, CPU_READ, RV_MMU_S), RV_CAUSE_LOAD_ACCESS);
}
