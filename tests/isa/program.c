/* Generator of random programs: see program.h. One thread. */
#include "tests/isa/program.h"

#include "base/bits.h"
#include "base/macros.h"
#include "cpu/guest/riscv/hart.h"
#include "cpu/guest/riscv/rows.h"

#include <inttypes.h>
#include <stdio.h>

enum { ZERO = 0, SP = 2, GP = 3, TP = 4, LINK = 5, A0 = 10, A1 = 11, A2 = 12, A7 = 17 };

static const struct cpu everything = {.mode = RV_MODE_FS | RV_MODE_FS_DIRTY | RV_MODE_VS |
                                              0xcULL << RV_MODE_CBO_SHIFT};

/* --- Random numbers (splitmix64) --- */

static uint64_t next_random(struct isa_program *p)
{
    uint64_t z = p->random += 0x9e3779b97f4a7c15ULL;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

static unsigned below(struct isa_program *p, unsigned n)
{
    return (unsigned)(next_random(p) % n);
}

/** A value of the kinds that go wrong: small, extreme, one bit, special floating point, any. */
static uint64_t interesting(struct isa_program *p)
{
    static const uint64_t doubles[] = {
        0,
        0x8000000000000000,
        0x3ff0000000000000,
        0xbff0000000000000,
        0x7ff0000000000000,
        0xfff0000000000000,
        0x7ff8000000000000,
        0x7ff0000000000001,
        0xfff8000000000123,
        0x0000000000000001,
        0x000fffffffffffff,
        0x0010000000000000,
        0x7fefffffffffffff,
        0x43e0000000000000,
        0xc3e0000000000000,
        0x41dfffffffc00000,
        0x41e0000000000000,
        0x3fe0000000000000,
        0x3ff8000000000000,
        0x4330000000000001,
        0x36a0000000000000,
        0x47efffffe0000000,
        0x3810000000000000,
        0x3ff0000000000001,
        0x43f0000000000000,
    };
    static const uint32_t singles[] = {
        0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000,
        0x7f800001, 0xffc00123, 0x00000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0x4f000000,
        0xcf000000, 0x5f000000, 0x3f000000, 0x3fc00000, 0x4b000001, 0x3f800001, 0x5f800000,
    };
    static const uint16_t halves[] = {0,      0x8000, 0x3c00, 0xbc00, 0x7c00, 0xfc00, 0x7e00,
                                      0x7c01, 0x0001, 0x03ff, 0x0400, 0x7bff, 0x3800, 0x3e00};

    switch (below(p, 10)) {
    case 0:
        return below(p, 16) - 8ULL;
    case 1:
        return BIT(below(p, 64)) - below(p, 2);
    case 2:
        return (uint64_t)(int64_t)(int32_t)next_random(p);
    case 3:
        return doubles[below(p, ARRAY_SIZE(doubles))];
    case 4:
        return singles[below(p, ARRAY_SIZE(singles))] | 0xffffffff00000000;
    case 5:
        return halves[below(p, ARRAY_SIZE(halves))] | 0xffffffffffff0000;
    case 6: /* a double, a single, a half of moderate exponent */
        return (next_random(p) & 0x800fffffffffffff) | (1023ULL - 40 + below(p, 80)) << 52;
    case 7:
        return (next_random(p) & 0x807fffff) | (127ULL - 30 + below(p, 60)) << 23 |
               0xffffffff00000000;
    case 8:
        return (next_random(p) & 0xffff) | 0xffffffffffff0000;
    default:
        return next_random(p);
    }
}

/* --- Emitting --- */

static void emit(struct isa_program *p, uint32_t w)
{
    unsigned size = (w & 3) == 3 ? 4 : 2;

    if (p->size + size > ISA_CODE_SIZE)
        return;
    memcpy(p->code + p->size, &w, size); /* little-endian hosts, as everything here */
    p->size += size;
}

static uint32_t encode(const char *name, struct insn insn)
{
    const struct rv_row *row = rv_find_row(name);

    assert(row);
    return rv_encode(row, &insn);
}

static void emit_i(struct isa_program *p, const char *name, unsigned rd, unsigned rs1, int imm)
{
    emit(p, encode(name, (struct insn){.rd = (uint8_t)rd, .rs1 = (uint8_t)rs1, .imm = imm}));
}

static void emit_s(struct isa_program *p, const char *name, unsigned rs2, unsigned rs1, int imm)
{
    emit(p, encode(name, (struct insn){.rs2 = (uint8_t)rs2, .rs1 = (uint8_t)rs1, .imm = imm}));
}

/** rd = the address @offset from the start of the code. */
static void emit_address(struct isa_program *p, unsigned rd, uint32_t offset)
{
    int delta = (int)(offset - p->size);
    int low = (int)sext((uint64_t)delta, 12);

    emit_i(p, "auipc", rd, 0, delta - low);
    emit_i(p, "addi", rd, rd, low);
}

/* --- Choosing instructions --- */

/** Has the op's first operand the integer register rd? */
static bool writes_x(const struct insn *insn)
{
    return !strncmp(rv_formats[rv_rows[rv_op_rows[insn->op]].format].syntax, "rd", 2);
}

static bool reserved(unsigned reg)
{
    return reg == GP || reg == TP || reg == LINK;
}

/** A random encoding of @row that decodes to it. */
static bool draw(struct isa_program *p, const struct rv_row *row, uint32_t *ret_w, struct insn *ret)
{
    for (unsigned tries = 0; tries < 200; tries++) {
        uint32_t w = row->match | ((uint32_t)next_random(p) & ~row->mask & MASK(row->size * 8u));

        rv_decode(&everything, (const uint8_t *)&w, row->size, ret);
        if (ret->op != row->op || ret->size != row->size || (writes_x(ret) && reserved(ret->rd)))
            continue;
        if (ret->op == RV_OP_AMOCAS_Q && reserved(ret->rd + 1)) /* a pair of registers */
            continue;
        *ret_w = w;
        return true;
    }
    return false;
}

static const struct rv_row *pick_row(struct isa_program *p)
{
    if (below(p, 4) == 0)
        return &rv_rows[p->base_rows[below(p, p->base_count)]];
    return &rv_rows[p->rows[below(p, p->row_count)]];
}

static void emit_plain(struct isa_program *p)
{
    uint32_t w;
    struct insn insn;

    do {
        while (!draw(p, pick_row(p), &w, &insn))
            continue;
    } while (insn.flags & (INSN_END | INSN_MEMORY) ||
             !strncmp(rv_rows[rv_op_rows[insn.op]].name, "v", 1));
    emit(p, w);
    p->insns++;
}

/** Is this an op of the kinds that need an aligned address? */
static bool is_atomic(const struct insn *insn)
{
    const char *format = rv_formats[rv_rows[rv_op_rows[insn->op]].format].name;

    return !strncmp(format, "amo", 3) || !strcmp(format, "lr");
}

/** Is @name in the list @names, each of which a comma follows? */
static bool listed(const char *names, const char *name)
{
    size_t len = strlen(name);

    for (const char *at = names; at && *at; at = strchr(at, ',') + 1)
        if (!strncmp(at, name, len) && at[len] == ',')
            return true;
    return false;
}

/** A memory access: point its base register into the data area first. */
static bool emit_memory(struct isa_program *p, uint32_t w, const struct insn *insn)
{
    int offset = (int)below(p, 4096) - 2048;
    unsigned base = insn->rs1;

    if (base == ZERO || base == TP || base == LINK)
        return false;
    if (insn->op == RV_OP_SC_W || insn->op == RV_OP_SC_D)
        return false; /* only behind their LR */
    if (!insn->rd && listed(p->without, "x0"))
        return false;
    if (is_atomic(insn) || below(p, 4))
        offset &= insn->op == RV_OP_AMOCAS_Q ? ~15 : ~7;
    if (base != GP)
        emit_i(p, "addi", base, GP, offset);
    emit(p, w);
    if (insn->op == RV_OP_LR_W || insn->op == RV_OP_LR_D) {
        const char *sc = insn->op == RV_OP_LR_W ? "sc.w" : "sc.d";
        uint8_t rd = (uint8_t)(6 + below(p, 26));

        if (insn->rd != base && below(p, 8))
            emit(p, encode(sc, (struct insn){.rd = rd, .rs1 = (uint8_t)base, .rs2 = insn->rd}));
    }
    return true;
}

/** A jump or branch forward, over a few instructions that are executed or not. */
static bool emit_jump(struct isa_program *p, const struct rv_row *row, uint32_t w, struct insn insn)
{
    uint32_t at, from;

    if (insn.op == RV_OP_JALR) {
        unsigned base = insn.rs1;
        bool full = row->size == 4;

        if (base == ZERO || reserved(base))
            return false;
        from = p->size;
        emit_i(p, "auipc", base, 0, 0);
        if (!full)
            emit_i(p, "addi", base, base, 0); /* imm: below */
        at = full ? p->size : p->size - 4;
    } else {
        from = at = p->size;
    }
    if (insn.op != RV_OP_JALR || row->size == 4)
        p->size += row->size;
    else
        emit(p, w);
    for (unsigned n = below(p, 4); n > 0; n--)
        emit_plain(p);
    insn.imm = (int32_t)(p->size - from);
    if (insn.op == RV_OP_JALR && row->size == 2)
        w = encode("addi", (struct insn){.rd = insn.rs1, .rs1 = insn.rs1, .imm = insn.imm});
    else
        w = rv_encode(row, &insn);
    memcpy(p->code + at, &w, (w & 3) == 3 ? 4 : 2);
    return true;
}

/* --- Vectors --- */

static const char *format_name(const struct rv_row *row)
{
    return rv_formats[row->format].name;
}

/** Set vtype and vl, mostly to something legal. */
static void emit_vtype(struct isa_program *p)
{
    static const uint8_t reserved_vtype[] = {0x04, 0x20, 0x1d, 0x16};
    unsigned sew = below(p, 4);
    int lmul = (int)below(p, 4 + 3 - sew) - (int)(3 - sew);
    uint8_t rd;
    int vtype = (int)(sew << 3 | ((unsigned)lmul & 7) | below(p, 4) << 6);

    do
        rd = (uint8_t)(6 + below(p, 26));
    while (reserved(rd));
    if (below(p, 50) == 0)
        vtype = reserved_vtype[below(p, ARRAY_SIZE(reserved_vtype))];
    p->group = lmul > 0 ? 1u << lmul : 1;
    switch (below(p, 4)) {
    case 0: /* VLMAX */
        emit(p, encode("vsetvli", (struct insn){.rd = rd, .imm = vtype}));
        break;
    case 1:
        emit(p, encode("vsetivli",
                       (struct insn){.rd = rd, .rs1 = (uint8_t)below(p, 32), .imm = vtype}));
        break;
    case 2:
        emit_i(p, "addi", rd, 0, (int)below(p, 160));
        emit(p, encode("vsetvli", (struct insn){.rd = rd, .rs1 = rd, .imm = vtype}));
        break;
    default:
        emit_i(p, "addi", LINK, 0, vtype);
        emit(p, encode("vsetvl", (struct insn){.rd = rd, .rs2 = LINK}));
        break;
    }
}

/** Make most register operands such that groups may begin there. */
static void align_groups(struct isa_program *p, const struct rv_row *row, struct insn *insn)
{
    const char *syntax = rv_formats[row->format].syntax;
    unsigned group = p->group << (p->group < 8 ? below(p, 2) : 0);
    uint8_t mask = (uint8_t) ~(group - 1);

    if (below(p, 8) == 0)
        return;
    if (strstr(syntax, "vd"))
        insn->rd &= mask;
    if (strstr(syntax, "vs2"))
        insn->rs2 &= mask;
    if (strstr(syntax, "vs1"))
        insn->rs1 &= mask;
    if (row->flags & INSN_MEMORY && below(p, 4))
        insn->imm = (int)below(p, 8 / p->group);
}

static bool emit_vector_memory(struct isa_program *p, const struct rv_row *row, struct insn insn)
{
    int offset = (int)below(p, 2048) - 1024;
    unsigned base = insn.rs1;

    if (base == ZERO || reserved(base))
        return false;
    if (below(p, 4))
        offset &= ~7;
    if (!strcmp(format_name(row), "vstride")) {
        if (reserved(insn.rs2) || insn.rs2 == base)
            return false;
        emit_i(p, "addi", insn.rs2, 0, (int)below(p, 48) - 24);
    }
    if (!strcmp(format_name(row), "vindex")) {
        static const char *const loads[] = {"vl1re8.v", "vl2re8.v", "vl4re8.v", "vl8re8.v"};
        unsigned width = row->match >> 12 & 7, table = width ? width - 4 : 0;

        emit_address(p, base, p->indices + table * ISA_INDEX_TABLE + below(p, 64) * 8);
        emit(p, encode(loads[__builtin_ctz(insn.rs2 | 8)],
                       (struct insn){.rd = insn.rs2, .rs1 = (uint8_t)base}));
    }
    emit_i(p, "addi", base, GP, offset);
    emit(p, rv_encode(row, &insn));
    return true;
}

static bool emit_vector(struct isa_program *p, const struct rv_row *row, struct insn insn)
{
    if (!strncmp(row->name, "vset", 4)) {
        emit_vtype(p);
        return true;
    }
    if (below(p, 5) == 0)
        emit_vtype(p);
    align_groups(p, row, &insn);
    if (insn.flags & INSN_MEMORY)
        return emit_vector_memory(p, row, insn);
    emit(p, rv_encode(row, &insn));
    return true;
}

/** Tables of offsets that stay within the data area, as code that is never executed. */
static void emit_indices(struct isa_program *p)
{
    while (p->size & 7)
        emit_i(p, "addi", 0, 0, 0);
    p->indices = p->size;
    for (unsigned width = 0; width < 4; width++) {
        for (unsigned n = 0; n < ISA_INDEX_TABLE >> width; n++) {
            uint64_t v = below(p, width ? 2048 : 256);

            memcpy(p->code + p->size, &v, (size_t)1 << width);
            p->size += 1u << width;
        }
    }
}

static void emit_vector_dump(struct isa_program *p)
{
    static const struct {
        uint16_t csr;
        uint16_t offset;
    } csrs[] = {
        {0xc20, offsetof(struct isa_record, vl)   },
        {0xc21, offsetof(struct isa_record, vtype)},
        {0x00f, offsetof(struct isa_record, vcsr) },
    };

    for (unsigned n = 0; n < ARRAY_SIZE(csrs); n++) {
        emit(p, encode("csrrs", (struct insn){.rd = LINK, .extra = csrs[n].csr}));
        emit_s(p, "sd", LINK, TP, csrs[n].offset);
    }
    emit_i(p, "addi", LINK, TP, (int)offsetof(struct isa_record, v));
    for (uint8_t r = 0; r < 32; r += 8) {
        emit(p, encode("vs8r.v", (struct insn){.rd = r, .rs1 = LINK}));
        emit_i(p, "addi", LINK, LINK, 512);
    }
}

static void emit_vector_refresh(struct isa_program *p)
{
    for (unsigned n = 0; n < 6; n++) {
        emit_i(p, "addi", LINK, GP, ((int)below(p, 480) * 8) - 2048);
        emit(p, encode("vl1re8.v", (struct insn){.rd = (uint8_t)below(p, 32), .rs1 = LINK}));
    }
    if (below(p, 2)) /* vxrm */
        emit(p, encode("csrrwi", (struct insn){.rs1 = (uint8_t)below(p, 4), .extra = 0xa}));
    if (below(p, 4) == 0) /* vxsat */
        emit(p, encode("csrrwi", (struct insn){.extra = 9}));
}

/** For M-mode: skip the instruction that trapped. */
static void emit_handler(struct isa_program *p)
{
    enum { MSCRATCH = 0x340, MEPC = 0x341 };
    const struct insn swap = {.rd = LINK, .rs1 = LINK, .extra = MSCRATCH};

    while (p->size & 3)
        emit(p, 1); /* C.NOP */
    p->handler = p->size;
    emit(p, encode("csrrw", swap));
    emit(p, encode("csrrs", (struct insn){.rd = LINK, .extra = MEPC}));
    emit_i(p, "addi", LINK, LINK, 4);
    emit(p, encode("csrrw", (struct insn){.rs1 = LINK, .extra = MEPC}));
    emit(p, encode("csrrw", swap));
    emit(p, encode("mret", (struct insn){0}));
}

static void emit_random(struct isa_program *p)
{
    for (;;) {
        const struct rv_row *row = pick_row(p);
        uint32_t w;
        struct insn insn;

        if (!draw(p, row, &w, &insn))
            continue;
        if (row->needs & RV_NEED_VECTOR) {
            if (!emit_vector(p, row, insn))
                continue;
        } else if (insn.flags & INSN_MEMORY) {
            if (!emit_memory(p, w, &insn))
                continue;
        } else if (insn.flags & INSN_END) {
            if (!emit_jump(p, row, w, insn))
                continue;
        } else {
            emit(p, w);
        }
        p->insns++;
        return;
    }
}

/** Fresh values in a few registers, so that they do not all become NaN, 0 or -1. */
static void emit_refresh(struct isa_program *p)
{
    for (unsigned n = 0; n < 4; n++) {
        unsigned rd = 6 + below(p, 26);

        emit_i(p, "ld", rd, GP, (int)below(p, 512) * 8 - 2048);
    }
    if (p->vector)
        emit_vector_refresh(p);
    if (!p->fp)
        return;
    for (unsigned n = 0; n < 10; n++)
        emit_i(p, "fld", below(p, 32), GP, (int)below(p, 512) * 8 - 2048);
    if (below(p, 4) == 0) /* fsrmi: a valid rounding mode */
        emit(p, encode("csrrwi", (struct insn){.rs1 = (uint8_t)below(p, 5), .extra = 2}));
    if (below(p, 4) == 0) /* fsflagsi 0 */
        emit(p, encode("csrrwi", (struct insn){.extra = 1}));
}

/** The subroutine that appends a record: called with the link in t0. */
static void emit_dumper(struct isa_program *p)
{
    for (unsigned r = 1; r < 32; r++)
        emit_s(p, "sd", r, TP, (int)(offsetof(struct isa_record, x) + 8 * r));
    for (unsigned r = 0; r < 32; r++)
        emit_s(p, "fsd", r, TP, (int)(offsetof(struct isa_record, f) + 8 * r));
    emit(p, encode("csrrs", (struct insn){.rd = LINK, .extra = 3}));
    emit_s(p, "sd", LINK, TP, (int)offsetof(struct isa_record, fcsr));
    if (p->vector)
        emit_vector_dump(p);
    emit_i(p, "ld", LINK, TP, (int)(offsetof(struct isa_record, x) + 8 * LINK));
    emit_i(p, "addi", TP, TP, (int)sizeof(struct isa_record) / 2);
    emit_i(p, "addi", TP, TP, (int)sizeof(struct isa_record) / 2);
    emit_i(p, "jalr", 0, LINK, 0);
}

static bool choose_rows(struct isa_program *p, const char *extension)
{
    bool all = !strcmp(extension, "all");

    for (unsigned n = 0; n < rv_row_count; n++) {
        const struct rv_row *row = &rv_rows[n];

        if (row->flags & INSN_SYSTEM || !strcmp(row->extension, "priv") ||
            listed(p->without, row->name) || (all && row->needs & RV_NEED_VECTOR))
            continue;
        if (!strcmp(row->extension, "i") && !(row->flags & (INSN_MEMORY | INSN_END)) &&
            p->base_count < ARRAY_SIZE(p->base_rows))
            p->base_rows[p->base_count++] = n;
        if ((all || !strcmp(row->extension, extension)) && strcmp(row->name, "sc.w") &&
            strcmp(row->name, "sc.d") && p->row_count < ARRAY_SIZE(p->rows)) {
            p->rows[p->row_count++] = (unsigned short)n;
            p->fp |= (row->needs & RV_NEED_FP) != 0;
            p->vector |= (row->needs & RV_NEED_VECTOR) != 0;
        }
    }
    return p->row_count > 0;
}

bool isa_generate(struct isa_program *p, const char *extension, const char *without, unsigned chunk,
                  unsigned insns, uint64_t seed)
{
    uint32_t dumper;

    memset(p, 0, sizeof(*p));
    p->random = seed;
    p->extension = extension;
    p->without = without;
    if (!choose_rows(p, extension))
        return false;
    for (unsigned n = 0; n < ISA_DATA_SIZE; n += 8) {
        uint64_t v = interesting(p);

        memcpy(p->data + n, &v, 8);
    }
    emit_i(p, "jal", 0, 0, 4); /* over the dumper: patched below */
    dumper = p->size;
    emit_dumper(p);
    if (p->vector)
        emit_indices(p);
    {
        uint32_t w = encode("jal", (struct insn){.imm = (int32_t)p->size});

        memcpy(p->code, &w, 4);
    }
    emit_address(p, GP, (uint32_t)(ISA_DATA - ISA_CODE) + ISA_DATA_SIZE / 2);
    emit_address(p, TP, (uint32_t)(ISA_DUMP - ISA_CODE));
    for (unsigned r = 1; r < 32; r++)
        if (!reserved(r))
            emit_i(p, "ld", r, GP, (int)(8 * r));
    for (unsigned r = 0; r < 32; r++)
        emit_i(p, "fld", r, GP, (int)(8 * r) - 1024);
    for (uint8_t r = 0; p->vector && r < 32; r += 8) {
        emit_i(p, "addi", LINK, GP, (int)(64 * r) - 2048);
        emit(p, encode("vl8re8.v", (struct insn){.rd = r, .rs1 = LINK}));
    }
    while (p->insns < insns && p->size < ISA_CODE_SIZE - 4096 &&
           (p->chunks + 2) * sizeof(struct isa_record) < ISA_DUMP_SIZE) {
        unsigned until = p->insns + chunk;

        emit_refresh(p);
        if (p->vector)
            emit_vtype(p);
        while (p->insns < until)
            emit_random(p);
        /* JAL reaches 1 MiB: go by a register. */
        int delta = (int)(dumper - p->size), low = (int)sext((uint64_t)delta, 12);

        emit_i(p, "auipc", LINK, 0, delta - low);
        emit_i(p, "jalr", LINK, LINK, low);
        p->chunks++;
    }
    p->end_offset = p->size;
    emit(p, encode("ebreak", (struct insn){0}));
    if (p->vector)
        emit_handler(p);
    return true;
}

/** A signal handler that skips the instruction, on a stack of its own, and going on to the start.
 */
static void emit_linux_start(struct isa_program *p)
{
    enum { SIGILL = 4, SA_ONSTACK_SIGINFO = 0x08000004, UCONTEXT_PC = 176, STACK_BYTES = 0x10000 };
    uint64_t action[3] = {0, SA_ONSTACK_SIGINFO, 0};
    uint64_t stack[3] = {ISA_DUMP + ISA_DUMP_SIZE, 0, STACK_BYTES};
    uint32_t at;

    while (p->size & 7)
        emit(p, 1);
    at = p->size;
    p->size += sizeof(action) + sizeof(stack);
    action[0] = ISA_CODE + p->size;
    memcpy(p->code + at, action, sizeof(action));
    memcpy(p->code + at + sizeof(action), stack, sizeof(stack));
    emit_i(p, "ld", LINK, A2, UCONTEXT_PC);
    emit_i(p, "addi", LINK, LINK, 4);
    emit_s(p, "sd", LINK, A2, UCONTEXT_PC);
    emit_i(p, "jalr", 0, 1, 0);
    p->entry = p->size;
    emit_address(p, A0, at + (uint32_t)sizeof(action));
    emit_i(p, "addi", A1, ZERO, 0);
    emit_i(p, "addi", A7, ZERO, 132); /* sigaltstack */
    emit(p, encode("ecall", (struct insn){0}));
    emit_i(p, "addi", A0, ZERO, SIGILL);
    emit_address(p, A1, at);
    emit_i(p, "addi", A2, ZERO, 0);
    emit_i(p, "addi", A2 + 1, ZERO, 8);
    emit_i(p, "addi", A7, ZERO, 134); /* rt_sigaction */
    emit(p, encode("ecall", (struct insn){0}));
    emit_address(p, A0, 0);
    emit_i(p, "jalr", 0, A0, 0);
}

void isa_end_for_linux(struct isa_program *p)
{
    uint32_t size = (uint32_t)(ISA_DUMP - ISA_DATA + p->chunks * sizeof(struct isa_record));
    int low = (int)sext(size, 12);

    p->size = p->end_offset;
    emit_address(p, A1, (uint32_t)(ISA_DATA - ISA_CODE));
    emit_i(p, "lui", A2, 0, (int)size - low);
    emit_i(p, "addi", A2, A2, low);
    emit_i(p, "addi", A0, ZERO, 1);
    emit_i(p, "addi", A7, ZERO, 64); /* write */
    emit(p, encode("ecall", (struct insn){0}));
    emit_i(p, "addi", A0, ZERO, 0);
    emit_i(p, "addi", A7, ZERO, 93); /* exit */
    emit(p, encode("ecall", (struct insn){0}));
    if (p->vector)
        emit_linux_start(p);
}

void isa_chunk_range(const struct isa_program *p, const struct isa_record *records, unsigned n,
                     uint32_t *start, uint32_t *end)
{
    *end = (uint32_t)(records[n].x[LINK] - ISA_CODE);
    *start = n ? (uint32_t)(records[n - 1].x[LINK] - ISA_CODE) : 0;
}

unsigned isa_print_insn(const struct isa_program *p, uint32_t offset)
{
    struct insn insn;
    char text[96];
    unsigned size = rv_decode(&everything, p->code + offset, 4, &insn);

    rv_disassemble(&everything, &insn, ISA_CODE + offset, text, sizeof(text));
    printf("  %8" PRIx64 ":  %s\n", (uint64_t)(ISA_CODE + offset), text);
    return size;
}

void isa_print_difference(const struct isa_record *a, const struct isa_record *b,
                          const struct isa_record *before)
{
    for (unsigned r = 0; r < sizeof(*a) / 8; r++) { /* x, f, fcsr... lie one after another */
        uint64_t va, vb, old = 0;

        memcpy(&va, (const char *)a + 8 * r, 8);
        memcpy(&vb, (const char *)b + 8 * r, 8);
        if (before)
            memcpy(&old, (const char *)before + 8 * r, 8);
        if (va != vb && r >= 68)
            printf("  v%u and on, + %u: %#" PRIx64 " %#" PRIx64 " (before: %#" PRIx64 ")\n",
                   (r - 68) / 64 * 8, (r - 68) % 64 * 8, va, vb, old);
        else if (va != vb)
            printf("  %c%u: %#" PRIx64 " %#" PRIx64 " (before: %#" PRIx64 ")\n", "xfc"[r / 32],
                   r % 32, va, vb, old);
    }
}
