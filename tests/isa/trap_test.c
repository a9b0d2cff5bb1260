/* What is left behind when an instruction traps: pc, count of instructions, cause, value; atomics;
 * the floating-point unit's state; CSR instructions. */
#include "tests/isa/one.h"

#define NOWHERE 0x1000ULL /* no memory here */

static uint64_t cause(void)
{
    return one_bare()->h.exception_cause;
}

static uint64_t tval(void)
{
    return one_bare()->h.exception_tval;
}

TEST(a_fault_in_mid_block_is_precise)
{
    struct bare *b = one_bare();
    uint32_t code[4];
    uint64_t before;

    code[0] = rv_encode(rv_find_row("addi"), &(struct insn){.rd = 5, .rs1 = 5, .imm = 1});
    code[1] = code[0];
    code[2] = rv_encode(rv_find_row("ld"), &(struct insn){.rd = 5, .rs1 = 6, .imm = 8});
    code[3] = code[0];
    memcpy(b->ram, code, sizeof(code));
    b->h.x[5] = 0;
    b->h.x[6] = NOWHERE;
    before = b->h.cpu.instret;
    b->h.cpu.pc = ONE_BASE;
    EXPECT_EQ(bare_run(b, 100, true), CPU_EXCEPTION);
    EXPECT_EQ(b->h.cpu.pc, ONE_BASE + 8);
    EXPECT_EQ(b->h.cpu.instret - before, 2u);
    EXPECT_EQ(b->h.x[5], 2u);
    EXPECT_EQ(cause(), RV_CAUSE_LOAD_ACCESS);
    EXPECT_EQ(tval(), NOWHERE + 8);
}

TEST(illegal_instructions_carry_their_encoding)
{
    struct bare *b = one_bare();

    memset(b->ram, 0, 16);
    b->h.cpu.pc = ONE_BASE;
    EXPECT_EQ(bare_run(b, 1, true), CPU_EXCEPTION);
    EXPECT_EQ(cause(), RV_CAUSE_ILLEGAL);
    EXPECT_EQ(tval(), 0u);
    memset(b->ram, 0xff, 16);
    EXPECT_EQ(bare_run(b, 1, true), CPU_EXCEPTION);
    EXPECT_EQ(tval(), 0xffffffffu);
    /* A CSR that is not there; a read-only one written. */
    EXPECT_EQ(one_run("csrrs", (struct insn){.rd = 5, .extra = 0x5ff}), CPU_EXCEPTION);
    EXPECT_EQ(tval(), 0x5ff022f3u);
    EXPECT_EQ(one_run("csrrw", (struct insn){.rd = 5, .extra = 0xf14}), CPU_EXCEPTION);
    EXPECT_EQ(tval(), 0xf14012f3u);
    EXPECT_EQ(one_run("csrrs", (struct insn){.rd = 5, .extra = 0xf14}), CPU_OK);
}

TEST(floating_point_off_is_illegal)
{
    struct bare *b = one_bare();

    b->h.mstatus &= ~(3ULL << 13);
    rv_update_mode(&b->h);
    EXPECT_EQ(one_run("fmv.d.x", (struct insn){.rd = 1, .rs1 = 2}), CPU_EXCEPTION);
    EXPECT_EQ(cause(), RV_CAUSE_ILLEGAL);
    EXPECT_EQ(tval(), rv_encode(rv_find_row("fmv.d.x"), &(struct insn){.rd = 1, .rs1 = 2}));
    EXPECT_EQ(one_run("csrrs", (struct insn){.rd = 5, .extra = 3}), CPU_EXCEPTION); /* fcsr */
    /* Initial: the first write makes it dirty; a read does not. */
    b->h.mstatus |= 1 << 13;
    rv_update_mode(&b->h);
    EXPECT_EQ(one_run("fmv.x.d", (struct insn){.rd = 5, .rs1 = 2}), CPU_OK);
    EXPECT_EQ(b->h.mstatus >> 13 & 3, 1u);
    EXPECT_EQ(one_run("fmv.d.x", (struct insn){.rd = 1, .rs1 = 2}), CPU_OK);
    EXPECT_EQ(b->h.mstatus >> 13 & 3, 3u);
    EXPECT_TRUE(b->h.cpu.mode & RV_MODE_FS_DIRTY);
}

TEST(rounding_modes)
{
    struct bare *b = one_bare();
    struct insn third = {.rd = 3, .rs1 = 1, .rs2 = 2, .extra = 7};

    b->h.f[1] = 0x3ff0000000000000; /* 1 */
    b->h.f[2] = 0x4008000000000000; /* 3 */
    EXPECT_EQ(one_run("fdiv.d", third), CPU_OK);
    EXPECT_EQ(b->h.f[3], 0x3fd5555555555555u);
    EXPECT_EQ(b->h.cpu.fp_flags, 1u);
    EXPECT_EQ(one_run("csrrwi", (struct insn){.rs1 = 3, .extra = 2}), CPU_RETRANSLATE); /* RUP */
    EXPECT_EQ(one_run("fdiv.d", third), CPU_OK);
    EXPECT_EQ(b->h.f[3], 0x3fd5555555555556u);
    EXPECT_EQ(one_run("csrrwi", (struct insn){.rs1 = 5, .extra = 2}), CPU_RETRANSLATE);
    EXPECT_EQ(one_run("fdiv.d", third), CPU_EXCEPTION); /* reserved */
    third.extra = 1;
    EXPECT_EQ(one_run("fdiv.d", third), CPU_OK); /* static */
    EXPECT_EQ(b->h.f[3], 0x3fd5555555555555u);
}

TEST(narrow_values_are_boxed)
{
    struct bare *b = one_bare();
    struct insn add = {.rd = 3, .rs1 = 1, .rs2 = 2, .extra = 7};

    b->h.f[1] = 0x3f800000; /* 1, not boxed: a NaN */
    b->h.f[2] = 0xffffffff3f800000;
    EXPECT_EQ(one_run("fadd.s", add), CPU_OK);
    EXPECT_EQ(b->h.f[3], 0xffffffff7fc00000u);
    b->h.f[1] = 0xffffffff3f800000;
    EXPECT_EQ(one_run("fadd.s", add), CPU_OK);
    EXPECT_EQ(b->h.f[3], 0xffffffff40000000u);
    EXPECT_EQ(one_run("fsgnjn.s", add), CPU_OK);
    EXPECT_EQ(b->h.f[3], 0xffffffffbf800000u);
    /* Moves take the bits as they are. */
    b->h.f[1] = 0x80000001;
    EXPECT_EQ(one_run("fmv.x.w", (struct insn){.rd = 5, .rs1 = 1}), CPU_OK);
    EXPECT_EQ(b->h.x[5], 0xffffffff80000001u);
}

TEST(atomics)
{
    struct bare *b = one_bare();
    struct insn amo = {.rd = 12, .rs1 = 10, .rs2 = 11};
    uint8_t *p = b->ram + (ONE_DATA - ONE_BASE);

    b->h.x[10] = ONE_DATA;
    b->h.x[11] = 1;
    store_le64(p, 0xffffffff7fffffff);
    EXPECT_EQ(one_run("amoadd.w", amo), CPU_OK);
    EXPECT_EQ(b->h.x[12], 0x7fffffffu);
    EXPECT_EQ(load_le64(p), 0xffffffff80000000u);
    EXPECT_EQ(one_run("amomin.w", amo), CPU_OK);
    EXPECT_EQ(b->h.x[12], 0xffffffff80000000u);
    EXPECT_EQ(load_le64(p), 0xffffffff80000000u);
    EXPECT_EQ(one_run("amomaxu.d", amo), CPU_OK);
    EXPECT_EQ(load_le64(p), 0xffffffff80000000u);
    EXPECT_EQ(one_run("amoswap.b", amo), CPU_OK);
    EXPECT_EQ(load_le64(p), 0xffffffff80000001u);
    b->h.x[12] = 0x1234567880000001ULL; /* compares the low half */
    EXPECT_EQ(one_run("amocas.w", amo), CPU_OK);
    EXPECT_EQ(load_le64(p), 0xffffffff00000001u);
    b->h.x[10] = ONE_DATA + 2;
    EXPECT_EQ(one_run("amoadd.w", amo), CPU_EXCEPTION);
    EXPECT_EQ(cause(), RV_CAUSE_STORE_MISALIGNED);
    EXPECT_EQ(tval(), ONE_DATA + 2);
    EXPECT_EQ(one_run("lr.w", amo), CPU_EXCEPTION);
    EXPECT_EQ(cause(), RV_CAUSE_LOAD_MISALIGNED);
    EXPECT_EQ(one_run("sc.d", amo), CPU_EXCEPTION);
    EXPECT_EQ(cause(), RV_CAUSE_STORE_MISALIGNED);
}

TEST(reservations)
{
    struct bare *b = one_bare();
    struct insn at = {.rd = 12, .rs1 = 10, .rs2 = 11};
    uint8_t *p = b->ram + (ONE_DATA - ONE_BASE);

    b->h.x[10] = ONE_DATA;
    b->h.x[11] = 5;
    store_le64(p, 0x80000000);
    EXPECT_EQ(one_run("sc.w", at), CPU_OK);
    EXPECT_EQ(b->h.x[12], 1u); /* none held */
    EXPECT_EQ(one_run("lr.w", at), CPU_OK);
    EXPECT_EQ(b->h.x[12], 0xffffffff80000000u);
    EXPECT_EQ(one_run("sc.w", at), CPU_OK);
    EXPECT_EQ(b->h.x[12], 0u);
    EXPECT_EQ(load_le64(p), 5u);
    EXPECT_EQ(one_run("sc.w", at), CPU_OK);
    EXPECT_EQ(b->h.x[12], 1u); /* used up */
    EXPECT_EQ(one_run("lr.d", at), CPU_OK);
    store_le64(p, 6); /* someone else writes */
    EXPECT_EQ(one_run("sc.d", at), CPU_OK);
    EXPECT_EQ(b->h.x[12], 1u);
    EXPECT_EQ(load_le64(p), 6u);
    EXPECT_EQ(one_run("lr.d", at), CPU_OK);
    EXPECT_EQ(one_run("sc.w", at), CPU_OK);
    EXPECT_EQ(b->h.x[12], 1u); /* another size */
}

TEST(csr_instructions)
{
    struct bare *b = one_bare();
    struct insn i = {.rd = 12, .rs1 = 10, .extra = 0x340}; /* mscratch */

    b->h.x[10] = 0xf0;
    EXPECT_EQ(one_run("csrrw", i), CPU_OK);
    EXPECT_EQ(b->h.mscratch, 0xf0u);
    b->h.x[10] = 0x0f;
    EXPECT_EQ(one_run("csrrs", i), CPU_OK);
    EXPECT_EQ(b->h.x[12], 0xf0u);
    EXPECT_EQ(b->h.mscratch, 0xffu);
    EXPECT_EQ(one_run("csrrc", i), CPU_OK);
    EXPECT_EQ(b->h.mscratch, 0xf0u);
    i.rs1 = 16;
    EXPECT_EQ(one_run("csrrsi", i), CPU_OK);
    EXPECT_EQ(b->h.mscratch, 0xf0u | 16);
    EXPECT_EQ(one_run("csrrci", i), CPU_OK);
    EXPECT_EQ(b->h.mscratch, 0xe0u);
    i.rd = i.rs1 = 10; /* the old rs1 is written */
    b->h.x[10] = 77;
    EXPECT_EQ(one_run("csrrw", i), CPU_OK);
    EXPECT_EQ(b->h.mscratch, 77u);
    EXPECT_EQ(b->h.x[10], 0xe0u);
}

TEST(counters_are_those_before_the_instruction)
{
    struct bare *b = one_bare();
    uint64_t before = b->h.cpu.instret;

    EXPECT_EQ(one_run("csrrs", (struct insn){.rd = 12, .extra = 0xb02}), CPU_OK); /* minstret */
    EXPECT_EQ(b->h.x[12], before);
    EXPECT_EQ(b->h.cpu.instret, before + 1);
}

TEST(environment_calls_and_breakpoints)
{
    struct bare *b = one_bare();

    EXPECT_EQ(one_run("ecall", (struct insn){0}), CPU_EXCEPTION);
    EXPECT_EQ(cause(), RV_CAUSE_ECALL_M);
    EXPECT_EQ(b->h.cpu.pc, ONE_BASE);
    EXPECT_EQ(one_run("ebreak", (struct insn){0}), CPU_EXIT); /* the debugger wants it */
    EXPECT_EQ(b->exit.debug.cause, VCPU_DEBUG_EBREAK);
    EXPECT_EQ(b->h.cpu.pc, ONE_BASE);
    b->h.cpu.trap_ebreak = false;
    EXPECT_EQ(one_run("c.ebreak", (struct insn){0}), CPU_EXCEPTION);
    EXPECT_EQ(cause(), RV_CAUSE_BREAKPOINT);
    EXPECT_EQ(one_run("wfi", (struct insn){0}), CPU_WFI);
    EXPECT_EQ(b->h.cpu.pc, ONE_BASE + 4);
    EXPECT_EQ(one_run("fence.i", (struct insn){0}), CPU_RETRANSLATE);
    EXPECT_EQ(b->h.cpu.pc, ONE_BASE + 4);
}

TEST(cache_blocks)
{
    struct bare *b = one_bare();
    uint8_t *p = b->ram + (ONE_DATA - ONE_BASE);

    memset(p, 0xaa, 256);
    b->h.x[10] = ONE_DATA + 64 + 13;
    EXPECT_EQ(one_run("cbo.zero", (struct insn){.rs1 = 10}), CPU_OK);
    EXPECT_EQ(p[63], 0xaau);
    EXPECT_EQ(load_le64(p + 64) | load_le64(p + 120), 0u);
    EXPECT_EQ(p[128], 0xaau);
    b->h.x[10] = NOWHERE;
    EXPECT_EQ(one_run("cbo.zero", (struct insn){.rs1 = 10}), CPU_EXCEPTION);
    EXPECT_EQ(cause(), RV_CAUSE_STORE_ACCESS);
    EXPECT_EQ(one_run("cbo.flush", (struct insn){.rs1 = 10}), CPU_EXCEPTION);
    EXPECT_EQ(cause(), RV_CAUSE_STORE_ACCESS);
    EXPECT_EQ(one_run("prefetch.r", (struct insn){.rs1 = 10}), CPU_OK);
}
