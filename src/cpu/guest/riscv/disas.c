/* The disassembler: an op's name and its format's syntax, as binutils' objdump -M no-aliases writes
 * them; a compressed instruction is written as what it expands to.
 *
 * Words of a syntax: rd rs1 rs2, fd fs1 fs2 fs3 (registers), imm (decimal), hex, upper (imm >> 12),
 * target (pc + imm), zimm (rs1 as a number), csr, rm (unless dynamic), rmexact (unless RNE),
 * pred, succ (of FENCE), const (of FLI), vd vs1 vs2, vm (unless not masked), vtype. Everything else
 * is literal. Any thread. */
#include "cpu/guest/riscv/regs_internal.h"
#include "cpu/guest/riscv/rows.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

static const char rm_names[8][8] = {"rne", "rtz", "rdn", "rup", "rmm", "unknown", "unknown", "dyn"};
static const char fli_names[32][20] = {"-1.0",
                                       "min",
                                       "1.52587890625e-05",
                                       "3.0517578125e-05",
                                       "0.00390625",
                                       "0.0078125",
                                       "0.0625",
                                       "0.125",
                                       "0.25",
                                       "0.3125",
                                       "0.375",
                                       "0.4375",
                                       "0.5",
                                       "0.625",
                                       "0.75",
                                       "0.875",
                                       "1.0",
                                       "1.25",
                                       "1.5",
                                       "1.75",
                                       "2.0",
                                       "2.5",
                                       "3.0",
                                       "4.0",
                                       "8.0",
                                       "16.0",
                                       "128.0",
                                       "256.0",
                                       "32768.0",
                                       "65536.0",
                                       "inf",
                                       "nan"};

static const char v_names[32][4] = {"v0",  "v1",  "v2",  "v3",  "v4",  "v5",  "v6",  "v7",
                                    "v8",  "v9",  "v10", "v11", "v12", "v13", "v14", "v15",
                                    "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23",
                                    "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31"};

/** Text being written, always terminated. */
struct out {
    char *buf;
    size_t size, len;
};

printf_like(2, 3) static void put(struct out *o, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(o->buf + o->len, o->size - o->len, fmt, args);
    va_end(args);
    if (n > 0)
        o->len = MIN(o->len + (size_t)n, o->size - 1);
}

static void put_order(struct out *o, unsigned set)
{
    static const char letters[] = "wroi";

    if (!set)
        put(o, "unknown");
    for (unsigned bit = 4; bit-- > 0;)
        if (set & 1u << bit)
            put(o, "%c", letters[bit]);
}

static void put_csr(struct out *o, unsigned csr)
{
    char name[24];

    if (rv_csr_name(csr, name, sizeof(name)))
        put(o, "%s", name);
    else
        put(o, "0x%x", csr);
}

/** An operand after which nothing may be written: drop the comma before it. */
static void put_rm(struct out *o, const struct insn *insn, unsigned implied)
{
    if ((insn->extra & 7) != implied)
        put(o, "%s", rm_names[insn->extra & 7]);
    else if (o->len && o->buf[o->len - 1] == ',')
        o->buf[--o->len] = '\0';
}

static void put_mask(struct out *o, const struct insn *insn)
{
    if (!(insn->rs3 & 1))
        put(o, "v0.t");
    else if (o->len && o->buf[o->len - 1] == ',')
        o->buf[--o->len] = '\0';
}

/** As binutils writes it: a number where a field is reserved. */
static void put_vtype(struct out *o, unsigned vtype)
{
    static const char lmul[8][4] = {"m1", "m2", "m4", "m8", "", "mf8", "mf4", "mf2"};

    if (vtype >> 8 || (vtype >> 3 & 7) > 3 || (vtype & 7) == 4)
        put(o, "%u", vtype);
    else
        put(o, "e%u,%s,%s,%s", 8u << (vtype >> 3 & 7), lmul[vtype & 7], vtype & 64 ? "ta" : "tu",
            vtype & 128 ? "ma" : "mu");
}

/** A vector memory access of several fields: vlse8.v is vlsseg2e8.v. */
static void put_segment_name(struct out *o, const char *name, unsigned fields)
{
    const char *e = name;

    for (const char *p = name; *p; p++)
        if (*p == 'e' && (p[1] == 'i' || (p[1] >= '0' && p[1] <= '9')))
            e = p;
    put(o, "%.*sseg%u%s", (int)(e - name), name, fields, e);
}

/** Write the operand called @word; false if there is none of that name. */
static bool put_operand(struct out *o, const char *word, const struct insn *insn, uint64_t pc)
{
    const struct {
        const char *word;
        const char *text;
    } registers[] = {
        {"rd",    rv_x_names[insn->rd & 31] },
        {"rs1",   rv_x_names[insn->rs1 & 31]},
        {"rs2",   rv_x_names[insn->rs2 & 31]},
        {"fd",    rv_f_names[insn->rd & 31] },
        {"fs1",   rv_f_names[insn->rs1 & 31]},
        {"fs2",   rv_f_names[insn->rs2 & 31]},
        {"fs3",   rv_f_names[insn->rs3 & 31]},
        {"vd",    v_names[insn->rd & 31]    },
        {"vs1",   v_names[insn->rs1 & 31]   },
        {"vs2",   v_names[insn->rs2 & 31]   },
        {"const", fli_names[insn->rs1 & 31] },
    };

    for (unsigned n = 0; n < ARRAY_SIZE(registers); n++) {
        if (!strcmp(word, registers[n].word)) {
            put(o, "%s", registers[n].text);
            return true;
        }
    }
    if (!strcmp(word, "imm"))
        put(o, "%d", insn->imm);
    else if (!strcmp(word, "hex"))
        put(o, "0x%x", (unsigned)insn->imm);
    else if (!strcmp(word, "upper"))
        put(o, "0x%x", (unsigned)insn->imm >> 12);
    else if (!strcmp(word, "target"))
        put(o, "0x%" PRIx64, pc + (uint64_t)(int64_t)insn->imm);
    else if (!strcmp(word, "zimm"))
        put(o, "%u", insn->rs1);
    else if (!strcmp(word, "csr"))
        put_csr(o, insn->extra);
    else if (!strcmp(word, "rm"))
        put_rm(o, insn, 7);
    else if (!strcmp(word, "vm"))
        put_mask(o, insn);
    else if (!strcmp(word, "vtype"))
        put_vtype(o, (unsigned)insn->imm);
    else if (!strcmp(word, "rmexact"))
        put_rm(o, insn, 0);
    else if (!strcmp(word, "pred"))
        put_order(o, (unsigned)insn->imm >> 4 & 15);
    else if (!strcmp(word, "succ"))
        put_order(o, (unsigned)insn->imm & 15);
    else
        return false;
    return true;
}

static void put_operands(struct out *o, const char *syntax, const struct insn *insn, uint64_t pc)
{
    while (*syntax) {
        size_t len = strspn(syntax, "abcdefghijklmnopqrstuvwxyz0123456789");
        char word[12];

        if (!len || len >= sizeof(word)) {
            put(o, "%c", *syntax++);
            continue;
        }
        memcpy(word, syntax, len);
        word[len] = '\0';
        syntax += len;
        if (!put_operand(o, word, insn, pc))
            put(o, "%s", word);
    }
}

void rv_disassemble(const struct cpu *c, const struct insn *insn, uint64_t pc, char *buf,
                    size_t size)
{
    static const char *const order_names[4] = {"", ".rl", ".aq", ".aqrl"};
    struct out o = {.buf = buf, .size = size};
    const struct rv_row *row;
    const struct rv_format *format;

    if (!size)
        return;
    buf[0] = '\0';
    if (insn->op == RV_OP_ILLEGAL || insn->op >= RV_OP_COUNT) {
        put(&o, ".%ubyte\t0x%x", insn->size, (unsigned)insn->imm);
        return;
    }
    row = &rv_rows[rv_op_rows[insn->op]];
    format = &rv_formats[row->format];
    if (insn->imm && !strncmp(row->extension, "v", 2) && insn->flags & INSN_MEMORY)
        put_segment_name(&o, row->name, (unsigned)insn->imm + 1);
    else
        put(&o, "%s", row->name);
    if (!strncmp(format->name, "amo", 3) || !strcmp(format->name, "lr"))
        put(&o, "%s", order_names[insn->rs3 & 3]);
    if (*format->syntax) {
        put(&o, "\t");
        put_operands(&o, format->syntax, insn, pc);
    }
}
