/* Random page tables, satp and PMP against the RISC-V page walker: every walk must end after a
 * bounded number of reads, read nothing outside RAM that it was not told is missing, and give the
 * same answer with and without side effects.
 *
 * Input: satp (8 bytes), menvcfg bits, mstatus bits, pmpcfg, 2 pmpaddr; then records of 16 bytes:
 * (where, what) stored as page table entries, shaped so that tables often point to tables. */
#include "base/bits.h"
#include "cpu/guest/riscv/csr_bits.h"
#include "cpu/guest/riscv/fake_engine.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEADER    40
#define RECORD    16
#define MAX_LOADS 5 /* of one walk: levels of Sv57 */

static uint64_t page_in_ram(uint64_t n)
{
    return (FAKE_RAM_BASE >> MEM_PAGE_BITS) + n % (FAKE_RAM_SIZE >> MEM_PAGE_BITS);
}

/* Most entries point into RAM, so that walks get somewhere. */
static uint64_t shape(uint64_t pte)
{
    if (BITS(pte, 53, 50) == 15)
        return pte;
    return (pte & ~(MASK(44) << 10)) | page_in_ram(BITS(pte, 53, 10)) << 10;
}

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void walk(struct fake_engine *e, uint64_t va, enum cpu_access access, unsigned mmu)
{
    struct cpu_translation seen = {0};
    struct cpu_translation real = {0};
    struct cpu *c = &e->h.cpu;
    unsigned updates = e->updates;

    e->loads = e->strays = 0;
    bool may = rv_translate_address(c, va, access, mmu, true, &seen);
    check(e->loads <= MAX_LOADS && e->strays <= 1 && e->updates == updates);
    check(!e->h.exception_pending);
    e->loads = e->strays = 0;
    bool did = rv_translate_address(c, va, access, mmu, false, &real);
    check(e->loads <= MAX_LOADS && e->strays <= 1 && e->updates <= updates + 1);
    check(did == !e->h.exception_pending);
    check(!did || may); /* ADUE off may still refuse */
    if (did) {
        check(real.gpa.v == seen.gpa.v && (real.gpa.v ^ va) % MEM_PAGE_SIZE == 0);
        check(real.page_bits >= MEM_PAGE_BITS && real.span >= 1);
        check(real.span <= MEM_PAGE_SIZE - va % MEM_PAGE_SIZE);
        check(real.prot[access] || real.uncached);
    }
    e->h.exception_pending = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fake_engine *e;

    if (size < HEADER)
        return 0;
    if (!e)
        e = fake_engine_new(true);
    rv_reset(&e->h.cpu);
    memset(e->ram, 0, sizeof(e->ram));
    uint64_t satp = load_le64(data);
    (void)rv_csr_poke(&e->h, CSR_SATP,
                      (SATP_SV39 + (satp >> SATP_MODE_SHIFT) % 3) << SATP_MODE_SHIFT |
                          page_in_ram(satp));
    (void)rv_csr_poke(&e->h, CSR_MENVCFG, load_le64(data + 8));
    (void)rv_csr_poke(&e->h, CSR_SSTATUS, load_le64(data + 16));
    (void)rv_csr_poke(&e->h, CSR_PMPADDR0, load_le64(data + 24));
    (void)rv_csr_poke(&e->h, CSR_PMPADDR0 + 1, PMPADDR_MASK);
    if (data[32] & 1)
        (void)rv_csr_poke(&e->h, CSR_PMPCFG0, data[33] | 0x1f00);
    data += HEADER;
    size -= HEADER;
    for (size_t i = 0; i + RECORD <= size; i += RECORD)
        fake_ram_set(e, FAKE_RAM_BASE + load_le64(data + i) % FAKE_RAM_SIZE / 8 * 8,
                     shape(load_le64(data + i + 8)));
    for (size_t i = 0; i + RECORD <= size; i += RECORD) {
        uint64_t va = load_le64(data + i) << 9; /* the index of the entry that was stored */
        unsigned how = data[i + 8];

        walk(e, va, how % 3, how / 3 % 3);
        walk(e, (uint64_t)sext(va, 39), (how + 1) % 3, how / 9 % 3);
    }
    return 0;
}
