/* Single instructions on a bare hart, for unit tests: encode, execute, look. */
#ifndef TESTS_ISA_ONE_H
#define TESTS_ISA_ONE_H

#include "base/bits.h"
#include "base/test.h"
#include "cpu/guest/riscv/rows.h"
#include "tests/isa/bare.h"

#define ONE_BASE 0x80000000ULL
#define ONE_DATA (ONE_BASE + 0x1000)
#define ONE_RAM  0x4000

/** The hart that this test's process uses. */
static inline struct bare *one_bare(void)
{
    static struct bare *b;

    if (!b)
        b = bare_new(ONE_BASE, ONE_RAM);
    return b;
}

/** Execute the instruction called @name with the operands in @insn, as if at the start of RAM.
 * Registers are as the test left them; the pc and everything else as after a reset is not touched.
 */
static inline enum cpu_status one_run(const char *name, struct insn insn)
{
    struct bare *b = one_bare();
    const struct rv_row *row = rv_find_row(name);
    struct cpu *c = &b->h.cpu;
    uint8_t bytes[4];

    if (!row) {
        test_fail(__FILE__, __LINE__, "no instruction '%s'", name);
        test_abort();
    }
    store_le32(bytes, rv_encode(row, &insn));
    (void)c->ops->decode(c, bytes, 4, &insn); /* four bytes always decode */
    c->pc = c->code_page = ONE_BASE;
    insn.page_offset = 0;
    return c->ops->interp(c, &insn, 1);
}

/** x[12] = name(a in x[10], b in x[11]), with @imm for those that have one. */
static inline uint64_t one_alu(const char *name, uint64_t a, uint64_t b, int32_t imm)
{
    struct bare *bare = one_bare();

    bare->h.x[10] = a;
    bare->h.x[11] = b;
    bare->h.x[12] = 0xdeadbeef;
    EXPECT_EQ(one_run(name, (struct insn){.rd = 12, .rs1 = 10, .rs2 = 11, .imm = imm}), CPU_OK);
    return bare->h.x[12];
}

#endif
