/* Integer instructions with results worked out by hand or from the specification's text:
 * I, M, Zba, Zbb, Zbc, Zbs, Zicond, Zimop, C. */
#include "tests/isa/one.h"

#define MIN64 0x8000000000000000ULL
#define ONES  0xffffffffffffffffULL

struct alu_case {
    const char *name;
    uint64_t a, b, want;
    int32_t imm;
};

static void check(const struct alu_case *cases, unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        const struct alu_case *c = &cases[n];

        if (!EXPECT_EQ(one_alu(c->name, c->a, c->b, c->imm), c->want))
            test_fail(__FILE__, __LINE__, "case %u: %s", n, c->name);
    }
}

TEST(base_integer)
{
    static const struct alu_case cases[] = {
        {"add",       1,           ONES,    0,                  0        },
        {"sub",       0,           1,       ONES,               0        },
        {"sll",       1,           64 + 63, MIN64,              0        },
        {"srl",       MIN64,       63,      1,                  0        },
        {"sra",       MIN64,       63,      ONES,               0        },
        {"slt",       ONES,        0,       1,                  0        },
        {"sltu",      ONES,        0,       0,                  0        },
        {"xor",       0xff00,      0x0ff0,  0xf0f0,             0        },
        {"or",        0xff00,      0x0ff0,  0xfff0,             0        },
        {"and",       0xff00,      0x0ff0,  0x0f00,             0        },
        {"addi",      5,           0,       ~0ULL - 2042,       -2048    },
        {"slti",      ONES,        0,       0,                  -1       },
        {"sltiu",     5,           0,       1,                  -1       },
        {"xori",      0,           0,       ONES,               -1       },
        {"slli",      3,           0,       0x8000000000000000, 63       },
        {"srai",      MIN64,       0,       0xc000000000000000, 1        },
        {"addw",      0x7fffffff,  1,       0xffffffff80000000, 0        },
        {"subw",      0x100000000, 1,       ONES,               0        },
        {"sllw",      1,           32 + 31, 0xffffffff80000000, 0        },
        {"srlw",      0xf80000000, 31,      1,                  0        },
        {"sraw",      0x80000000,  31,      ONES,               0        },
        {"addiw",     0xffffffff,  0,       0,                  1        },
        {"sraiw",     0x180000000, 0,       0xffffffffc0000000, 1        },
        {"lui",       0,           0,       0xffffffff80000000, INT32_MIN},
        {"auipc",     0,           0,       ONE_BASE + 0x1000,  0x1000   },
        {"mop.r",     7,           0,       0,                  0        },
        {"czero.eqz", 7,           0,       0,                  0        },
        {"czero.eqz", 7,           MIN64,   7,                  0        },
        {"czero.nez", 7,           0,       7,                  0        },
        {"czero.nez", 7,           MIN64,   0,                  0        },
    };

    check(cases, ARRAY_SIZE(cases));
}

TEST(multiplication_and_division)
{
    static const struct alu_case cases[] = {
        {"mul",    MIN64,      2,           0,                  0},
        {"mulh",   MIN64,      MIN64,       1ULL << 62,         0},
        {"mulh",   ONES,       ONES,        0,                  0},
        {"mulhu",  ONES,       ONES,        ONES - 1,           0},
        {"mulhsu", ONES,       ONES,        ONES,               0},
        {"mulhsu", 1,          ONES,        0,                  0},
        {"div",    7,          0,           ONES,               0},
        {"div",    MIN64,      ONES,        MIN64,              0},
        {"div",    -7ULL,      2,           -3ULL,              0},
        {"divu",   7,          0,           ONES,               0},
        {"rem",    7,          0,           7,                  0},
        {"rem",    MIN64,      ONES,        0,                  0},
        {"rem",    -7ULL,      2,           ONES,               0},
        {"remu",   7,          0,           7,                  0},
        {"mulw",   0x10000,    0x8000,      0xffffffff80000000, 0},
        {"divw",   0x80000000, ONES,        0xffffffff80000000, 0},
        {"divw",   5,          0x100000000, ONES,               0},
        {"divuw",  0xffffffff, 0,           ONES,               0},
        {"remw",   0x80000000, ONES,        0,                  0},
        {"remuw",  0x80000005, 0,           0xffffffff80000005, 0},
    };

    check(cases, ARRAY_SIZE(cases));
}

TEST(bit_manipulation)
{
    static const struct alu_case cases[] = {
        {"add.uw",    ONES,               1,        0x100000000,        0 },
        {"sh3add",    1,                  2,        10,                 0 },
        {"sh1add.uw", ONES,               0,        0x1fffffffe,        0 },
        {"slli.uw",   ONES,               0,        0xffffffff00,       8 },
        {"andn",      0xff,               0x0f,     0xf0,               0 },
        {"orn",       0,                  ONES - 1, 1,                  0 },
        {"xnor",      5,                  5,        ONES,               0 },
        {"clz",       0,                  0,        64,                 0 },
        {"clz",       1,                  0,        63,                 0 },
        {"ctz",       0,                  0,        64,                 0 },
        {"ctzw",      0x100000000,        0,        32,                 0 },
        {"clzw",      ONES << 31,         0,        0,                  0 },
        {"cpop",      ONES,               0,        64,                 0 },
        {"cpopw",     ONES,               0,        32,                 0 },
        {"max",       ONES,               1,        1,                  0 },
        {"maxu",      ONES,               1,        ONES,               0 },
        {"min",       ONES,               1,        ONES,               0 },
        {"minu",      ONES,               1,        1,                  0 },
        {"sext.b",    0x80,               0,        ONES << 7,          0 },
        {"sext.h",    0x18000,            0,        ONES << 15,         0 },
        {"zext.h",    ONES,               0,        0xffff,             0 },
        {"rol",       MIN64,              1,        1,                  0 },
        {"ror",       1,                  64 + 1,   MIN64,              0 },
        {"rori",      1,                  0,        2,                  63},
        {"rolw",      0x80000000,         1,        1,                  0 },
        {"rorw",      1,                  1,        0xffffffff80000000, 0 },
        {"roriw",     0x100000002,        0,        1,                  1 },
        {"orc.b",     0x0100000000800001, 0,        0xff00000000ff00ff, 0 },
        {"rev8",      0x0102030405060708, 0,        0x0807060504030201, 0 },
        {"clmul",     3,                  3,        5,                  0 },
        {"clmul",     MIN64,              2,        0,                  0 },
        {"clmulh",    MIN64,              2,        1,                  0 },
        {"clmulr",    MIN64,              1,        1,                  0 },
        {"clmulr",    ONES,               MIN64,    ONES,               0 },
        {"bclr",      ONES,               64 + 3,   ONES - 8,           0 },
        {"bexti",     MIN64,              0,        1,                  63},
        {"binv",      8,                  3,        0,                  0 },
        {"bseti",     0,                  0,        MIN64,              63},
    };

    check(cases, ARRAY_SIZE(cases));
}

TEST(x0_stays_zero)
{
    struct bare *b = one_bare();

    b->h.x[10] = 5;
    EXPECT_EQ(one_run("addi", (struct insn){.rd = 0, .rs1 = 10, .imm = 7}), CPU_OK);
    EXPECT_EQ(b->h.x[0], 0u);
    EXPECT_EQ(one_run("jal", (struct insn){.rd = 0, .imm = 16}), CPU_OK);
    EXPECT_EQ(b->h.x[0], 0u);
    EXPECT_EQ(b->h.cpu.pc, ONE_BASE + 16);
}

TEST(jumps_and_branches)
{
    struct bare *b = one_bare();

    EXPECT_EQ(one_run("jal", (struct insn){.rd = 1, .imm = 0x100}), CPU_OK);
    EXPECT_EQ(b->h.cpu.pc, ONE_BASE + 0x100);
    EXPECT_EQ(b->h.x[1], ONE_BASE + 4);
    b->h.x[1] = ONE_BASE + 0x201;
    EXPECT_EQ(one_run("jalr", (struct insn){.rd = 1, .rs1 = 1, .imm = 2}), CPU_OK);
    EXPECT_EQ(b->h.cpu.pc, ONE_BASE + 0x202); /* bit 0 cleared; old rs1 used */
    EXPECT_EQ(b->h.x[1], ONE_BASE + 4);
    b->h.x[10] = ONES;
    b->h.x[11] = 1;
    EXPECT_EQ(one_run("blt", (struct insn){.rs1 = 10, .rs2 = 11, .imm = -16}), CPU_OK);
    EXPECT_EQ(b->h.cpu.pc, ONE_BASE - 16);
    EXPECT_EQ(one_run("bltu", (struct insn){.rs1 = 10, .rs2 = 11, .imm = -16}), CPU_OK);
    EXPECT_TRUE(b->h.cpu.pc > ONE_BASE); /* not taken */
    EXPECT_EQ(one_run("c.jalr", (struct insn){.rs1 = 11}), CPU_OK);
    EXPECT_EQ(b->h.x[1], ONE_BASE + 2);
    EXPECT_EQ(b->h.cpu.pc, 0u);
}

TEST(loads_extend_and_stores_truncate)
{
    static const struct {
        const char *name;
        uint64_t want;
    } loads[] = {
        {"lb",  0xffffffffffffff88},
        {"lbu", 0x88              },
        {"lh",  0xffffffffffff8788},
        {"lhu", 0x8788            },
        {"lw",  0xffffffff85868788},
        {"lwu", 0x85868788        },
        {"ld",  0x8182838485868788},
    };
    struct bare *b = one_bare();

    /* Aligned, misaligned within a page, and across two pages. */
    for (uint64_t at = ONE_DATA + 0xff0; at <= ONE_DATA + 0xfff; at++) {
        b->h.x[10] = at + 5;
        b->h.x[11] = 0x8182838485868788;
        ASSERT_EQ(one_run("sd", (struct insn){.rs1 = 10, .rs2 = 11, .imm = -5}), CPU_OK);
        for (unsigned n = 0; n < ARRAY_SIZE(loads); n++) {
            EXPECT_EQ(one_run(loads[n].name, (struct insn){.rd = 12, .rs1 = 10, .imm = -5}),
                      CPU_OK);
            EXPECT_EQ(b->h.x[12], loads[n].want);
        }
        EXPECT_EQ(one_run("sb", (struct insn){.rs1 = 10, .rs2 = 0, .imm = -5}), CPU_OK);
        EXPECT_EQ(one_run("ld", (struct insn){.rd = 12, .rs1 = 10, .imm = -5}), CPU_OK);
        EXPECT_EQ(b->h.x[12], 0x8182838485868700ULL);
    }
}

/** Unprivileged ISA 20240411 §16.1: "for AMOCAS.Q ... rd and rs2 specify even-odd pairs"; the pair
 * of x0 is 0 and is not written; the address is a multiple of 16. */
TEST(quadwords_are_compared_and_swapped)
{
    struct bare *b = one_bare();
    const struct insn insn = {.rd = 12, .rs1 = 10, .rs2 = 14};
    uint8_t *at = b->ram + (ONE_DATA - ONE_BASE);
    const uint64_t found[] = {0x1111, 0x2222};

    b->h.x[10] = ONE_DATA;
    b->h.x[14] = 0x3333;
    b->h.x[15] = 0x4444;
    memcpy(at, found, 16);
    b->h.x[12] = 0x1111; /* only half of it is right */
    b->h.x[13] = 0;
    EXPECT_EQ(one_run("amocas.q", insn), CPU_OK);
    EXPECT_EQ(b->h.x[12], 0x1111u);
    EXPECT_EQ(b->h.x[13], 0x2222u);
    EXPECT_MEM(at, found, 16);
    EXPECT_EQ(one_run("amocas.q", insn), CPU_OK); /* now both are */
    EXPECT_EQ(b->h.x[13], 0x2222u);
    EXPECT_MEM(at, &b->h.x[14], 16);

    memset(at, 0, 16);
    b->h.x[1] = 7; /* not part of x0's pair */
    EXPECT_EQ(one_run("amocas.q", (struct insn){.rd = 0, .rs1 = 10, .rs2 = 14}), CPU_OK);
    EXPECT_MEM(at, &b->h.x[14], 16);
    EXPECT_EQ(b->h.x[0], 0u);
    EXPECT_EQ(b->h.x[1], 7u);
    EXPECT_EQ(one_run("amocas.q", (struct insn){.rd = 14, .rs1 = 10, .rs2 = 0}), CPU_OK);
    EXPECT_TRUE(!load_le64(at) && !load_le64(at + 8));
    b->h.x[10] = ONE_DATA + 8;
    EXPECT_EQ(one_run("amocas.q", insn), CPU_EXCEPTION);
}

/** "Encodings with odd-numbered registers specified in rs2 and rd are reserved." */
TEST(quadwords_take_even_registers)
{
    const uint32_t good = rv_encode(rv_find_row("amocas.q"), &(struct insn){.rd = 12, .rs2 = 14});
    struct cpu *c = &one_bare()->h.cpu;
    uint8_t bytes[4];
    struct insn insn;

    for (unsigned n = 0; n < 3; n++) {
        store_le32(bytes, good | (n == 1 ? 1u << 7 : 0) | (n == 2 ? 1u << 20 : 0));
        (void)c->ops->decode(c, bytes, 4, &insn);
        EXPECT_EQ(insn.op, n ? RV_OP_ILLEGAL : RV_OP_AMOCAS_Q);
    }
}
