/* Random tests of the privileged architecture: address translation with PMP, interrupts, system
 * instructions and CSR accesses, each in random privilege and configuration. Every outcome is one
 * line of text; two executions of the same seed on two engines must print the same.
 *
 * Values that may differ rightly (cycle, time, event counters) are not printed. */
#include "../lib/guest.h"
#include "probe.h"

#define TABLES       ((uint64_t *)0x80100000ULL) /* 8 pages */
#define TARGET       0x80200000ULL               /* TARGET_BYTES of ECALLs */
#define TARGET_BYTES 0x4000ULL
#define ECALL        0x00000073u
#define MRET         0x30200073u
#define WFI          0x10500073u

#define MPP_SHIFT 11
#define MPRV      (1ULL << 17)
#define SUM       (1ULL << 18)
#define MXR       (1ULL << 19)
#define SPP       (1ULL << 8)
#define FS        (1ULL << 13)
#define PTE_V     1ULL
#define PTE_N     (1ULL << 63)

#define PMP_R     1ULL
#define PMP_W     2ULL
#define PMP_TOR   0x08ULL
#define PMP_NA4   0x10ULL
#define PMP_NAPOT 0x18ULL
#define PMP_ALL   0x1fULL

#define MASK(n)   ((1ULL << (n)) - 1)
#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static struct probe result;

static void write_target(uint64_t offset, uint32_t insn)
{
    *(volatile uint32_t *)(TARGET + offset) = insn;
}

static void fill_target(void)
{
    for (uint64_t i = 0; i < TARGET_BYTES; i += 4)
        write_target(i, ECALL);
    __asm__ volatile("fence.i" ::: "memory");
}

static void open_pmp(void)
{
    CSR_SET(pmpaddr0, -1);
    CSR_SET(pmpcfg0, PMP_ALL);
}

static void set_satp(uint64_t satp)
{
    CSR_SET(satp, satp);
    __asm__ volatile("sfence.vma" ::: "memory");
}

static void begin_line(uint64_t i)
{
    guest_put(i);
    guest_put(result.cause);
    guest_put(result.tval);
}

static void end_line(void)
{
    guest_putc('\n');
}

/* --- Address translation --- */

struct mapping {
    unsigned mode, levels, leaf; /* satp.MODE; levels of tables; level of the leaf */
    uint64_t va, pte, changed;   /* the leaf, and bits flipped in the tables above it */
    uint64_t *entries[5];        /* by level */
};

static uint64_t random_permissions(void)
{
    uint64_t bits = 0xcf;

    if (!guest_one_in(3))
        bits = (guest_random() & 0xff) | !guest_one_in(8);
    if (guest_one_in(2))
        bits |= 0x40;
    return bits | (guest_random() & 3) << 8;
}

static uint64_t random_leaf(unsigned level, uint64_t target, bool napot)
{
    uint64_t ppn = target >> 12 & ~MASK(9 * level);
    uint64_t pte = ppn << 10 | random_permissions();

    if (napot)
        pte = (pte & ~(15ULL << 10)) | 8 << 10 | PTE_N;
    if (guest_one_in(20))
        pte ^= 1ULL << (10 + guest_random() % 9);
    if (guest_one_in(20))
        pte ^= 1ULL << (54 + guest_random() % 10);
    return pte;
}

static uint64_t random_damage(void)
{
    if (guest_one_in(60))
        return 1ULL << guest_random() % 10;
    if (guest_one_in(100))
        return 1ULL << (54 + guest_random() % 10);
    if (guest_one_in(150)) /* a table outside RAM */
        return 1ULL << (30 + guest_random() % 24);
    return 0;
}

static void map(struct mapping *m)
{
    uint64_t *table = TABLES;

    m->changed = 0;
    for (unsigned level = m->levels - 1; level > m->leaf; level--) {
        uint64_t damage = random_damage();

        m->entries[level] = &table[m->va >> (12 + 9 * level) & 511];
        table += 512;
        *m->entries[level] = ((uint64_t)table >> 12 << 10 | PTE_V) ^ damage;
        m->changed |= damage;
    }
    m->entries[m->leaf] = &table[m->va >> (12 + 9 * m->leaf) & 511];
    *m->entries[m->leaf] = m->pte;
}

static void unmap(const struct mapping *m)
{
    for (unsigned level = m->leaf; level < m->levels; level++)
        *m->entries[level] = 0;
}

static void random_mapping(struct mapping *m)
{
    uint64_t target = TARGET + (guest_random() % TARGET_BYTES & ~7ULL);

    m->mode = 8 + (unsigned)(guest_random() % 3);
    m->levels = m->mode - 5;
    m->leaf = guest_one_in(4) ? (unsigned)(guest_random() % m->levels) : 0;
    bool napot = !m->leaf && guest_one_in(10);
    unsigned va_bits = 12 + 9 * m->levels;
    uint64_t offset_mask = MASK(napot ? 16 : 12 + 9 * m->leaf);
    /* sign-extended: canonical, but for one in 30 */
    m->va = (uint64_t)((int64_t)(guest_random() << (64 - va_bits)) >> (64 - va_bits));
    m->va = (m->va & ~offset_mask) | (target & offset_mask);
    if (guest_one_in(30))
        m->va ^= 1ULL << (va_bits + guest_random() % (64 - va_bits));
    m->pte = random_leaf(m->leaf, target, napot);
    map(m);
}

/* An entry of random kind and size near the tables or the targets, before one that allows all. None
 * ends within 8 aligned bytes of the tables: even M-mode's accesses may not straddle an entry. */
static void random_pmp(void)
{
    static const uint64_t masks[] = {0x1ff, 0x3, 0xff, 0x0}; /* 4 KiB, 32 bytes, 2 KiB, other */
    bool tables = guest_one_in(2);
    uint64_t addr = ((tables ? (uint64_t)TABLES : TARGET) + guest_random() % 0x5000) >> 2;
    uint64_t mask = masks[guest_random() % LENGTH(masks)];
    uint64_t rights = guest_random() & 7;

    if (!(rights & PMP_R)) /* W alone is reserved */
        rights &= ~PMP_W;
    if (mask) {
        addr = (addr & ~mask) | mask >> 1;
        rights |= PMP_NAPOT;
    } else if (tables || guest_one_in(2)) {
        addr &= ~1ULL;
        rights |= PMP_TOR;
    } else {
        rights |= PMP_NA4;
    }
    CSR_SET(pmpaddr0, addr);
    CSR_SET(pmpaddr1, -1);
    CSR_SET(pmpcfg0, PMP_ALL << 8 | rights);
}

static char access_randomly(uint64_t va, uint64_t status)
{
    switch (guest_random() % 3) {
    case 0:
        probe_load(va & ~7ULL, status | MPRV, &result);
        return 'r';
    case 1:
        probe_store(va & ~7ULL, status | MPRV, &result, (uint64_t)ECALL << 32 | ECALL);
        return 'w';
    default:
        probe_run(va & ~3ULL, status, &result, 0);
        return 'x';
    }
}

static void test_translation(uint64_t count)
{
    struct mapping m;

    guest_puts("translation\n");
    for (uint64_t i = 0; i < count; i++) {
        random_mapping(&m);
        if (guest_one_in(4))
            random_pmp();
        else
            open_pmp();
        set_satp((uint64_t)m.mode << 60 | (guest_random() & 0xffff) << 44 | (uint64_t)TABLES >> 12);
        /* several accesses without a fence: what is kept must not outlive a change of mode */
        for (unsigned k = 0; k < 4; k++) {
            uint64_t status = guest_random() & (1ULL << MPP_SHIFT | SUM | MXR);
            uint64_t va = guest_one_in(6) ? m.va - guest_random() % 16 : m.va;
            char kind = access_randomly(va, status);

            begin_line(i);
            guest_putc(kind);
            guest_put(*m.entries[m.leaf] ^ m.pte);
            guest_put(va);
            guest_put(status);
            end_line();
        }
        set_satp(0);
        unmap(&m);
        guest_put(m.pte);
        guest_put(m.changed);
        guest_put(CSR_GET(pmpaddr0));
        guest_put(CSR_GET(pmpcfg0));
        end_line();
    }
    open_pmp();
}

/* --- Interrupts --- */

static uint64_t random_privilege(void)
{
    static const uint64_t privileges[] = {0, 1, 3};

    return privileges[guest_random() % 3] << MPP_SHIFT;
}

static void test_interrupts(uint64_t count)
{
    guest_puts("interrupts\n");
    fill_target();
    for (uint64_t i = 0; i < count; i++) {
        uint64_t enables = guest_random() & 0xaa;
        uint64_t status = random_privilege() | enables | (guest_random() & SPP);

        CSR_SET(mideleg, guest_random() & 0x2222);
        CSR_SET(mip, guest_random() & 0x2222);
        CSR_SET(mie, guest_random() & 0x2aaa);
        uint64_t seen[] = {CSR_GET(mideleg), CSR_GET(mip), CSR_GET(mie), CSR_GET(sip),
                           CSR_GET(sie)};
        probe_run(TARGET, status, &result, 0);
        begin_line(i);
        guest_put(result.epc);
        guest_put(result.status);
        guest_put(result.scause);
        guest_put(status);
        for (unsigned k = 0; k < LENGTH(seen); k++)
            guest_put(seen[k]);
        end_line();
        CSR_SET(mip, 0);
        CSR_SET(mideleg, 0);
    }
}

/* --- System instructions and CSR accesses --- */

static uint32_t random_system_insn(void)
{
    static const uint32_t insns[] = {
        MRET,       0x10200073, /* sret */
        WFI,        0x12000073, /* sfence.vma */
        0x12080073,             /* sfence.vma a6 */
        0x13000073,             /* sfence.vma zero, a6 */
        0x16000073,             /* sinval.vma */
        0x18000073,             /* sfence.w.inval */
        0x18100073,             /* sfence.inval.ir */
        0x00000073,             /* ecall */
        0x00100073,             /* ebreak */
        0x0000100f,             /* fence.i */
        0x0ff0000f,             /* fence */
        0x00000000,             /* illegal */
        0xffffffff,             /* illegal */
        0x30200173,             /* mret with rd */
        0x7b200073,             /* dret */
        0x00d00073,             /* wrs.nto */
        0x01d00073,             /* wrs.sto */
        0x0040200f, /* cbo.zero zero (as a load address: faults or not by configuration) */
    };

    return insns[guest_random() % LENGTH(insns)];
}

/* Those that other tests rely on, or whose values depend on time, are left alone. */
static bool is_reserved(uint64_t csr)
{
    return csr == 0x300 || csr == 0x305 || csr == 0x340 || csr == 0x105 || csr == 0x015 ||
           (csr >= 0x3a0 && csr < 0x3f0) || csr == 0x180;
}

static bool is_volatile_counter(uint64_t csr)
{
    uint64_t n = csr & 0x1f;

    return (csr & ~0x1fULL) == 0xb00 ? n != 2 : (csr & ~0x1fULL) == 0xc00 && n != 2;
}

/* CSRRx a5 or zero, csr, a6 or x16's number as immediate. */
static uint32_t random_csr_insn(void)
{
    static const uint16_t csrs[] = {
        0x001, 0x002, 0x003, 0x100, 0x104, 0x106, 0x10a, 0x10c, 0x140, 0x141, 0x142,
        0x143, 0x144, 0x14d, 0x301, 0x302, 0x303, 0x304, 0x306, 0x30a, 0x30c, 0x30d,
        0x320, 0x323, 0x341, 0x342, 0x343, 0x344, 0x747, 0xb00, 0xb02, 0xb03, 0xc00,
        0xc01, 0xc02, 0xc03, 0xc1f, 0xda0, 0xf11, 0xf12, 0xf13, 0xf14, 0xf15,
    };
    static const uint8_t functions[] = {1, 2, 3, 5, 6, 7};
    uint64_t csr;

    do {
        csr = guest_one_in(6) ? guest_random() & 0xfff : csrs[guest_random() % LENGTH(csrs)];
    } while (is_reserved(csr));
    uint32_t rs1 = guest_one_in(2) ? 0 : 16;
    uint32_t rd = guest_one_in(3) ? 0 : 15;
    return (uint32_t)csr << 20 | rs1 << 15 |
           (uint32_t)functions[guest_random() % LENGTH(functions)] << 12 | rd << 7 | 0x73;
}

static void reset_registers(void)
{
    CSR_SET(mideleg, 0);
    CSR_SET(medeleg, 0);
    CSR_SET(mip, 0);
    CSR_SET(0x30a, 3ULL << 61); /* menvcfg: ADUE, PBMTE */
    CSR_SET(0x14d, -1);         /* stimecmp */
    CSR_SET(mcountinhibit, 0);
    CSR_SET(mstatus, FS);
    CSR_SET(fcsr, 0);
    CSR_SET(mstatus, 0);
}

static void run_instruction(uint64_t i, uint32_t insn, uint64_t arg)
{
    uint64_t status = random_privilege() | (guest_random() & 7) << 20;

    status |= guest_random() & (FS | SPP | MPRV);
    if ((status >> MPP_SHIFT & 3) == 3) {
        status &= ~MPRV;
        if (insn == MRET) /* to itself, for ever */
            return;
    }
    CSR_SET(mcounteren, guest_random());
    CSR_SET(scounteren, guest_random());
    CSR_SET(sepc, TARGET + 0x100);
    CSR_SET(mtval, 0);
    write_target(0, insn);
    __asm__ volatile("fence.i" ::: "memory");
    probe_run(TARGET, status, &result, arg);
    begin_line(i);
    guest_put(result.epc - TARGET);
    guest_put(result.status);
    bool is_csr = (insn & 0x7f) == 0x73 && insn >> 12 & 3;
    guest_put(is_csr && is_volatile_counter(insn >> 20) ? 0 : result.value);
    guest_put(insn);
    guest_put(status);
    guest_put(arg);
    end_line();
}

static void test_instructions(uint64_t count)
{
    guest_puts("instructions\n");
    for (uint64_t i = 0; i < count; i++) {
        uint32_t insn = random_system_insn();

        fill_target();
        reset_registers();
        CSR_SET(mip, 2);
        CSR_SET(mideleg, guest_random() & 2);
        CSR_SET(mie, insn == WFI ? 2 : 0); /* wfi must wake */
        run_instruction(i, insn, TARGET + guest_random() % TARGET_BYTES);
    }
    guest_puts("registers\n");
    for (uint64_t i = 0; i < count * 2; i++) {
        fill_target();
        reset_registers();
        run_instruction(i, random_csr_insn(),
                        guest_one_in(3)   ? guest_random()
                        : guest_one_in(2) ? 0
                                          : guest_random() & 255);
    }
}

int guest_main(void)
{
    uint64_t count = guest_count;

    probe_init();
    *(volatile uint64_t *)MTIMECMP_ADDR = UINT64_MAX;
    reset_registers();
    fill_target();
    test_translation(count);
    test_interrupts(count);
    test_instructions(count);
    guest_puts("end\n");
    return 0;
}
