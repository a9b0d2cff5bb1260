/* Vector instructions where random programs do not come: traps in the middle, vstart, vl cut short,
 * and what must not change. */
#include "cpu/guest/riscv/vec_crypto.h"
#include "tests/isa/one.h"

#define END (ONE_BASE + ONE_RAM) /* of RAM: an access fault lies behind */

/** A hart with vtype and vl set, and registers whose every byte is its index. */
static struct bare *start(uint64_t vtype, uint64_t avl)
{
    struct bare *b = one_bare();
    uint8_t *v = (uint8_t *)b->h.vec.v;

    bare_reset(b);
    rv_set_vtype(&b->h, vtype, avl);
    for (unsigned n = 0; n < 32u * b->h.vec.vlenb; n++)
        v[n] = (uint8_t)n;
    for (unsigned n = 0; n < ONE_RAM; n++)
        b->ram[n] = (uint8_t)(n * 7);
    return b;
}

static uint8_t *reg(struct bare *b, unsigned r)
{
    return (uint8_t *)b->h.vec.v + (size_t)r * b->h.vec.vlenb;
}

TEST(load_traps_at_its_element_and_goes_on)
{
    struct bare *b = start(0x10, 8); /* e32, m1 */
    uint8_t before[64];

    b->h.x[10] = END - 12;
    memcpy(before, reg(b, 4), 32);
    EXPECT_EQ(one_run("vle32.v", (struct insn){.rd = 4, .rs1 = 10, .rs3 = 1}), CPU_EXCEPTION);
    EXPECT_EQ(b->h.exception_cause, RV_CAUSE_LOAD_ACCESS);
    EXPECT_EQ(b->h.exception_tval, END);
    EXPECT_EQ(b->h.vec.vstart, 3);
    EXPECT_EQ(b->h.cpu.pc, ONE_BASE);
    EXPECT_MEM(reg(b, 4), b->ram + ONE_RAM - 12, 12);
    EXPECT_MEM(reg(b, 4) + 12, before + 12, 20);
    /* again, with memory there now: the first three elements are not loaded anew */
    b->h.x[10] = ONE_DATA;
    EXPECT_EQ(one_run("vle32.v", (struct insn){.rd = 4, .rs1 = 10, .rs3 = 1}), CPU_OK);
    EXPECT_MEM(reg(b, 4), b->ram + ONE_RAM - 12, 12);
    EXPECT_MEM(reg(b, 4) + 12, b->ram + 0x1000 + 12, 20);
    EXPECT_EQ(b->h.vec.vstart, 0);
}

TEST(masked_elements_do_not_fault)
{
    struct bare *b = start(0x10, 8);

    memset(reg(b, 0), 0, 32);
    reg(b, 0)[0] = 0x05;
    b->h.x[10] = END - 12;
    EXPECT_EQ(one_run("vle32.v", (struct insn){.rd = 4, .rs1 = 10}), CPU_OK);
    b->h.x[10] = END - 8;
    EXPECT_EQ(one_run("vle32.v", (struct insn){.rd = 4, .rs1 = 10}), CPU_EXCEPTION);
    EXPECT_EQ(b->h.vec.vstart, 2);
}

TEST(store_traps_at_its_element)
{
    struct bare *b = start(0x18, 4); /* e64, m1 */

    b->h.x[10] = END - 24;
    b->h.x[11] = 16;
    EXPECT_EQ(one_run("vsse64.v", (struct insn){.rd = 4, .rs1 = 10, .rs2 = 11, .rs3 = 1}),
              CPU_EXCEPTION);
    EXPECT_EQ(b->h.exception_cause, RV_CAUSE_STORE_ACCESS);
    EXPECT_EQ(b->h.exception_tval, END + 8);
    EXPECT_EQ(b->h.vec.vstart, 2);
    EXPECT_MEM(b->ram + ONE_RAM - 24, reg(b, 4), 8);
    EXPECT_MEM(b->ram + ONE_RAM - 8, reg(b, 4) + 8, 8);
}

TEST(fault_first_shortens_vl)
{
    struct bare *b = start(0x00, 32); /* e8, m1 */

    b->h.x[10] = END - 5;
    EXPECT_EQ(one_run("vle8ff.v", (struct insn){.rd = 4, .rs1 = 10, .rs3 = 1}), CPU_OK);
    EXPECT_EQ(b->h.vec.vl, 5);
    EXPECT_EQ(b->h.vec.vstart, 0);
    EXPECT_TRUE(!b->h.exception_pending);
    b->h.x[10] = END;
    EXPECT_EQ(one_run("vle8ff.v", (struct insn){.rd = 4, .rs1 = 10, .rs3 = 1}), CPU_EXCEPTION);
    EXPECT_EQ(b->h.vec.vl, 5);
}

TEST(arithmetic_begins_at_vstart)
{
    struct bare *b = start(0x08, 16); /* e16, m1 */
    uint8_t want[32];

    memcpy(want, reg(b, 4), 32);
    for (unsigned n = 5; n < 16; n++)
        store_le16(want + 2 * n, (uint16_t)(load_le16(reg(b, 5) + 2 * n) + 3));
    b->h.vec.vstart = 5;
    EXPECT_EQ(one_run("vadd.vi", (struct insn){.rd = 4, .rs2 = 5, .imm = 3, .rs3 = 1}), CPU_OK);
    EXPECT_MEM(reg(b, 4), want, 32);
    EXPECT_EQ(b->h.vec.vstart, 0);
    b->h.vec.vstart = 1; /* a reduction always begins at 0 */
    EXPECT_EQ(one_run("vredsum.vs", (struct insn){.rd = 4, .rs1 = 5, .rs2 = 6, .rs3 = 1}),
              CPU_EXCEPTION);
    EXPECT_EQ(b->h.exception_cause, RV_CAUSE_ILLEGAL);
}

TEST(tail_and_other_registers_stay)
{
    struct bare *b = start(0x11, 3); /* e32, m2; vl 3 */
    uint8_t all[32 * RV_VLEN_MAX / 8];
    size_t bytes = 32u * b->h.vec.vlenb, at = 4u * b->h.vec.vlenb;

    memcpy(all, b->h.vec.v, bytes);
    EXPECT_EQ(one_run("vmul.vv", (struct insn){.rd = 4, .rs1 = 6, .rs2 = 8, .rs3 = 1}), CPU_OK);
    EXPECT_TRUE(memcmp(reg(b, 4), all + at, 12) != 0);
    memcpy(all + at, reg(b, 4), 12);
    EXPECT_MEM(b->h.vec.v, all, bytes);
}

TEST(off_is_illegal_and_use_makes_dirty)
{
    struct bare *b = start(0x00, 4);

    b->h.mstatus &= ~(3ULL << 9);
    rv_update_mode(&b->h);
    EXPECT_EQ(one_run("vadd.vv", (struct insn){.rd = 4, .rs3 = 1}), CPU_EXCEPTION);
    b->h.mstatus |= 2ULL << 9; /* Clean */
    rv_update_mode(&b->h);
    EXPECT_EQ(one_run("vadd.vv", (struct insn){.rd = 4, .rs3 = 1}), CPU_OK);
    EXPECT_EQ(b->h.mstatus >> 9 & 3, 3);
    EXPECT_TRUE(b->h.cpu.mode & RV_MODE_VS_DIRTY);
}

TEST(a_masked_off_operand_raises_no_flags)
{
    struct bare *b = start(0x18, 2); /* e64: signalling NaN and overflow in element 1, masked off */

    memset(reg(b, 0), 0, 32);
    reg(b, 0)[0] = 1;
    store_le64(reg(b, 5), 0x3ff0000000000000);
    store_le64(reg(b, 5) + 8, 0x7ff0000000000001);
    EXPECT_EQ(one_run("vfmul.vv", (struct insn){.rd = 4, .rs1 = 5, .rs2 = 5}), CPU_OK);
    EXPECT_EQ(load_le64(reg(b, 4)), 0x3ff0000000000000);
    EXPECT_EQ(b->h.cpu.fp_flags, 0);
    reg(b, 0)[0] = 2;
    EXPECT_EQ(one_run("vfmul.vv", (struct insn){.rd = 4, .rs1 = 5, .rs2 = 5}), CPU_OK);
    EXPECT_EQ(load_le64(reg(b, 4) + 8), 0x7ff8000000000000);
    EXPECT_EQ(b->h.cpu.fp_flags, 16);
}

/* The host's instructions for cryptography against plain C, which qemu10_test.py compares. */
TEST(the_hosts_cryptography_is_the_same)
{
    const struct rv_vc_table *best = rv_vc_best();
    uint64_t state = 1;
    uint8_t in[3][16], want[16], got[16];

#define SAME(name)                         \
    memcpy(want, in[0], 16);               \
    memcpy(got, in[0], 16);                \
    rv_vc_any.name(want, in[1], in[2], 0); \
    best->name(got, in[1], in[2], 0);      \
    if (memcmp(want, got, 16) != 0)        \
        test_fail(__FILE__, __LINE__, "%s: round %u", #name, round);
    for (unsigned round = 0; round < 2000; round++) {
        for (unsigned n = 0; n < sizeof(in); n++) {
            state = state * 6364136223846793005 + 1442695040888963407;
            in[n / 16][n % 16] = round < 3 ? (uint8_t)(round - 1) : (uint8_t)(state >> 56);
        }
        RV_VC_ALL(SAME)
    }
#undef SAME
}
