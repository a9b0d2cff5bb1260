/* Every row of the instruction tables: encode, decode, encode again, disassemble. */
#include "base/bits.h"
#include "base/test.h"
#include "cpu/guest/riscv/hart.h"
#include "cpu/guest/riscv/rows.h"

#include <stdlib.h>

/* Everything legal: FP on and dirty, cbo.* allowed. */
static struct cpu any = {.mode = RV_MODE_FS | RV_MODE_FS_DIRTY | RV_MODE_VS |
                                 0xcULL << RV_MODE_CBO_SHIFT};

static unsigned decode(uint32_t w, struct insn *ret)
{
    uint8_t bytes[4];

    store_le32(bytes, w);
    return rv_decode(&any, bytes, 4, ret);
}

static const char *text_of(uint32_t w, uint64_t pc)
{
    static char text[96];
    struct insn insn;

    decode(w, &insn);
    rv_disassemble(&any, &insn, pc, text, sizeof(text));
    return text;
}

static uint32_t random32(uint64_t *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*state >> 32);
}

/** A row's bits with random operands that make it legal and keep it from being another row. */
static bool draw(const struct rv_row *row, uint64_t *state, uint32_t *ret_w, struct insn *ret)
{
    for (unsigned tries = 0; tries < 1000; tries++) {
        uint32_t w = row->match | (random32(state) & ~row->mask & (uint32_t)MASK(row->size * 8u));

        decode(w, ret);
        if (ret->op == row->op && ret->size == row->size) {
            *ret_w = w;
            return true;
        }
    }
    return false;
}

TEST(every_row_decodes_to_its_op_and_back)
{
    uint64_t state = 1;

    for (unsigned n = 0; n < rv_row_count; n++) {
        const struct rv_row *row = &rv_rows[n];

        for (unsigned times = 0; times < 200; times++) {
            struct insn insn, again;
            uint32_t w;

            if (!draw(row, &state, &w, &insn)) {
                test_fail(__FILE__, __LINE__, "%s: no legal encoding found", row->name);
                break;
            }
            /* Bits that the format ignores are lost; decoding again must give the same. */
            decode(rv_encode(row, &insn), &again);
            if (!EXPECT_MEM(&insn, &again, sizeof(insn)))
                test_fail(__FILE__, __LINE__, "%s: 0x%x", row->name, w);
        }
    }
}

TEST(compressed_expands_to_an_encodable_op)
{
    uint64_t state = 2;

    for (unsigned n = 0; n < rv_row_count; n++) {
        const struct rv_row *row = &rv_rows[n];
        struct insn insn, wide;
        uint32_t w;

        /* C.MOP has no 32-bit form. */
        if (row->size != 2 || row->op == RV_OP_C_MOP || !draw(row, &state, &w, &insn))
            continue;
        decode(rv_encode_op(&insn), &wide);
        EXPECT_EQ(wide.size, 4);
        wide.size = 2;
        if (!EXPECT_MEM(&insn, &wide, sizeof(insn)))
            test_fail(__FILE__, __LINE__, "%s: 0x%x", row->name, w);
    }
}

TEST(every_row_disassembles)
{
    uint64_t state = 3;

    for (unsigned n = 0; n < rv_row_count; n++) {
        const struct rv_row *row = &rv_rows[n];
        struct insn insn;
        uint32_t w;
        char text[96], small[8];

        if (!EXPECT_TRUE(draw(row, &state, &w, &insn)))
            continue;
        rv_disassemble(&any, &insn, 0x1000, text, sizeof(text));
        EXPECT_TRUE(strlen(text) > 1 && strlen(text) < sizeof(text) - 1);
        if (row->size == 4)
            EXPECT_TRUE(strstr(text, "seg") || !strncmp(text, row->name, strlen(row->name)));
        rv_disassemble(&any, &insn, 0x1000, small, sizeof(small));
        EXPECT_EQ(strlen(small) <= sizeof(small) - 1, 1);
    }
}

TEST(assembly_is_as_others_write_it)
{
    EXPECT_STR(text_of(0xff810113, 0), "addi\tsp,sp,-8");
    EXPECT_STR(text_of(0x00813083, 0), "ld\tra,8(sp)");
    EXPECT_STR(text_of(0xfe113c23, 0), "sd\tra,-8(sp)");
    EXPECT_STR(text_of(0xfea58ee3, 0x1000), "beq\ta1,a0,0xffc");
    EXPECT_STR(text_of(0x008000ef, 0x1000), "jal\tra,0x1008");
    EXPECT_STR(text_of(0xfffff537, 0), "lui\ta0,0xfffff");
    EXPECT_STR(text_of(0x43f55513, 0), "srai\ta0,a0,0x3f");
    EXPECT_STR(text_of(0x30051573, 0), "csrrw\ta0,mstatus,a0");
    EXPECT_STR(text_of(0x0330000f, 0), "fence\trw,rw");
    EXPECT_STR(text_of(0x0eb7352f, 0), "amoswap.d.aqrl\ta0,a1,(a4)");
    EXPECT_STR(text_of(0x100a252f, 0), "lr.w\ta0,(s4)");
    EXPECT_STR(text_of(0x02b57553, 0), "fadd.d\tfa0,fa0,fa1");
    EXPECT_STR(text_of(0x02b51553, 0), "fadd.d\tfa0,fa0,fa1,rtz");
    EXPECT_STR(text_of(0xc2051553, 0), "fcvt.w.d\ta0,fa0,rtz");
    EXPECT_STR(text_of(0x4505, 0), "addi\ta0,zero,1");
    EXPECT_STR(text_of(0x8082, 0), "jalr\tzero,0(ra)");
    EXPECT_STR(text_of(0x00000013, 0), "addi\tzero,zero,0");
    EXPECT_STR(text_of(0x0000, 0), ".2byte\t0x0");
    EXPECT_STR(text_of(0xffffffff, 0), ".4byte\t0xffffffff");
}

TEST(reserved_encodings_are_illegal)
{
    static const uint32_t words[] = {
        0x0000,     /* defined to be illegal */
        0x0001ffff, /* C.ADDI4SPN and the rest are below; a 32-bit one with a bad opcode */
        0x0004,     /* C.ADDI4SPN of 0: only with register bits */
        0x6101,     /* C.ADDI16SP of 0 */
        0x6501,     /* C.LUI of 0 */
        0x2001,     /* C.ADDIW x0 */
        0x4002,     /* C.LWSP x0 */
        0x6002,     /* C.LDSP x0 */
        0x8002,     /* C.JR x0 */
        0x9c41,     /* quadrant 1, 100, 1 11 .. 10: C.MUL is legal, below is not */
        0x02001013, /* SLLI by 32 is legal in RV64: see below */
        0x4200101b, /* SLLIW with bit 30 */
        0x02b55553, /* FADD.D with rounding mode 5 */
        0x02b56553, /* and 6 */
        0x1000252f | 1 << 20, /* LR.W with rs2 */
        0x00004073,           /* CSR funct3 4 */
        0x30200073 | 1 << 7,  /* MRET with rd */
    };
    struct insn insn;

    for (unsigned n = 0; n < ARRAY_SIZE(words); n++) {
        decode(words[n], &insn);
        if (words[n] == 0x9c41 || words[n] == 0x02001013)
            EXPECT_TRUE(insn.op != RV_OP_ILLEGAL);
        else if (!EXPECT_EQ(insn.op, RV_OP_ILLEGAL))
            test_fail(__FILE__, __LINE__, "0x%x is %s", words[n], text_of(words[n], 0));
        else /* the trap value */
            EXPECT_EQ((uint32_t)insn.imm, insn.size == 2 ? words[n] & 0xffff : words[n]);
    }
}

TEST(mode_decides_what_is_legal)
{
    static const struct {
        uint32_t w;
        uint64_t mode;
        bool legal;
    } cases[] = {
        {0x02b57553, 0,                            false}, /* FADD.D, FS off */
        {0x02b57553, RV_MODE_FS,                   true }, /* dynamic rounding */
        {0x02b57553, RV_MODE_FS | RV_MODE_FRM_BAD, false}, /* of a reserved kind */
        {0x02b51553, RV_MODE_FS | RV_MODE_FRM_BAD, true }, /* static rounding */
        {0x2108,     0,                            false}, /* C.FLD */
        {0x2108,     RV_MODE_FS,                   true },
        {0x0015200f, 0,                            false}, /* CBO.CLEAN */
        {0x0015200f, 4ULL << RV_MODE_CBO_SHIFT,    true },
        {0x0005200f, 0,                            true }, /* CBO.INVAL */
        {0x0005200f, 1ULL << RV_MODE_CBO_SHIFT,    false},
        {0x0045200f, 0,                            false}, /* CBO.ZERO */
        {0x0045200f, 8ULL << RV_MODE_CBO_SHIFT,    true },
    };

    for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
        struct cpu c = {.mode = cases[n].mode};
        uint8_t bytes[4];
        struct insn insn;

        store_le32(bytes, cases[n].w);
        rv_decode(&c, bytes, 4, &insn);
        if (!EXPECT_EQ(insn.op != RV_OP_ILLEGAL, cases[n].legal))
            test_fail(__FILE__, __LINE__, "case %u", n);
    }
}

TEST(short_input_is_not_decoded)
{
    struct insn insn;
    static const uint8_t bytes[4] = {0x13, 0, 0, 0};

    EXPECT_EQ(rv_decode(&any, bytes, 0, &insn), 0u);
    EXPECT_EQ(rv_decode(&any, bytes, 1, &insn), 0u);
    EXPECT_EQ(rv_decode(&any, bytes, 3, &insn), 0u);
    EXPECT_EQ(rv_decode(&any, bytes, 4, &insn), 4u);
    EXPECT_EQ(rv_decode(&any, (const uint8_t[]){0x01, 0}, 2, &insn), 2u);
}

TEST(every_word_decodes)
{
    uint64_t state = 5;

    for (unsigned n = 0; n < 2000000; n++) {
        struct insn insn;
        uint32_t w = n < 65536 ? n : random32(&state);

        if (!EXPECT_TRUE(decode(w, &insn) == ((w & 3) == 3 ? 4u : 2u) && insn.op < RV_OP_COUNT))
            break;
    }
}
