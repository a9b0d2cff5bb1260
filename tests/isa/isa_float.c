/* isa_float: every floating point instruction on systematic operands, in every rounding mode,
 * static and dynamic: the JIT's results and flags against the interpreter's, whose arithmetic is
 * src/cpu/fp.
 *
 *     isa_float [-n RANDOM] [-s SEED] [NAME...]    all instructions, or those named
 *     isa_float -f NAME [-m MODE]                  cases from standard input, MODE 0 to 4 (enum
 * fp_rm)
 *
 * The operands are all combinations of zeros, subnormals, numbers around every power of two that a
 * conversion or a rounding could turn on, significands with few ones or few zeros, infinities and
 * NaNs, wrongly boxed values, and RANDOM further ones of each instruction. Standard input has a
 * line of hexadecimal numbers for each case: operands, result, flags (TestFloat's generator writes
 * them so); NaN results count as equal to each other there, and the flags are RISC-V's.
 *
 * An instruction runs in two loops: one takes the flags of every case, the other those of four
 * cases together, which lets the translator do otherwise. Exit status: 0 all agree, 1 a difference
 * (printed), 2 something else went wrong. */
#include "base/bits.h"
#include "cpu/fp/fp.h"
#include "cpu/guest/riscv/rows.h"
#include "tests/isa/machine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RAM        0x80000000ULL
#define RAM_SIZE   0x800000u
#define CASES_AT   0x100000u
#define RESULTS_AT 0x400000u

enum { BATCH = 8192, UNROLLED = 4, RM_DYNAMIC = 7, CODE_STEP = 512, MAX_VALUES = 2048 };

/** An instruction and what its operands are. */
struct subject {
    const struct rv_row *row;
    unsigned inputs; /* 1 to 3 */
    unsigned width;  /* of the floating point inputs: 16, 32, 64; 0: an integer */
    bool to_integer; /* the result is an x register */
    bool rounds;     /* has a rounding mode */
};

struct test_case {
    uint64_t operand[3];
};

struct result {
    uint64_t value, flags;
};

struct values {
    unsigned count;
    uint64_t v[MAX_VALUES];
};

static struct machine machines[2]; /* interpreter, JIT */
static const enum engine_kind kinds[] = {ENGINE_INTERP, ENGINE_JIT};
static uint64_t random_state = 1, case_count;
static uint32_t next_code;

static uint64_t rnd(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1d;
}

/** With its floating point unit on. */
static bool machine_start(struct machine *m, enum engine_kind kind)
{
    uint64_t status = 0;

    if (!machine_init(m, kind, RAM, RAM_SIZE, 0))
        return false;
    (void)vcpu_get_reg(m->vcpu, MACHINE_MSTATUS, &status); /* these registers exist */
    (void)vcpu_set_reg(m->vcpu, MACHINE_MSTATUS, status | 3 << 13);
    return true;
}

/* ---- Subjects ---- */

static bool is_integer_suffix(const char *s)
{
    return !strcmp(s, "w") || !strcmp(s, "wu") || !strcmp(s, "l") || !strcmp(s, "lu") ||
           !strcmp(s, "x");
}

static unsigned suffix_width(const char *s)
{
    return *s == 'h' ? 16 : *s == 's' || *s == 'w' ? 32 : 64;
}

/** Fill in @ret if @row is an instruction on floating point registers that is to be tested. */
static bool subject_init(const struct rv_row *row, struct subject *ret)
{
    static const char *const extensions[] = {"f", "d", "zfh", "zfhmin", "zfa"};
    const struct rv_format *format = &rv_formats[row->format];
    const char *last = strrchr(row->name, '.');
    char first[16] = "";
    bool known = false;

    for (unsigned n = 0; n < ARRAY_SIZE(extensions); n++)
        known |= !strcmp(row->extension, extensions[n]);
    if (!known || row->size != 4 || row->flags & INSN_MEMORY || !last)
        return false;
    snprintf(first, sizeof(first), "%s", strchr(row->name, '.') + 1);
    first[strcspn(first, ".")] = '\0';
    *ret = (struct subject){.row = row, .rounds = (row->needs & RV_NEED_RM) != 0};
    for (unsigned n = 0; n < format->field_count; n++)
        ret->inputs +=
            format->fields[n].segment_count && (format->fields[n].member == RV_MEMBER_RS1 ||
                                                format->fields[n].member == RV_MEMBER_RS2 ||
                                                format->fields[n].member == RV_MEMBER_RS3);
    ret->width = is_integer_suffix(last + 1) ? 0 : suffix_width(last + 1);
    if (!strncmp(row->name, "fmv.x.", 6))
        ret->width = suffix_width(last + 1);
    ret->to_integer =
        !strncmp(row->name, "feq", 3) || !strncmp(row->name, "flt", 3) ||
        !strncmp(row->name, "fle", 3) || !strncmp(row->name, "fclass", 6) ||
        !strncmp(row->name, "fmvh", 4) ||
        (strchr(row->name, '.') != last && is_integer_suffix(first) && strcmp(last, ".x"));
    return ret->inputs > 0 && strncmp(row->name, "fli", 3) && strncmp(row->name, "fmvp", 4);
}

/* ---- Programs ---- */

static uint32_t load(bool integer, unsigned reg, unsigned offset)
{
    return offset << 20 | 10 << 15 | 3 << 12 | reg << 7 | (integer ? 0x03 : 0x07);
}

static uint32_t store(bool integer, unsigned reg, unsigned offset)
{
    return (offset >> 5) << 25 | reg << 20 | 11 << 15 | 3 << 12 | (offset & 31) << 7 |
           (integer ? 0x23 : 0x27);
}

static uint32_t addi(unsigned reg, int32_t by)
{
    return (uint32_t)by << 20 | reg << 15 | reg << 7 | 0x13;
}

/** A loop over cases at a0, results to a1, a2 rounds of @unroll cases. Returns its bytes. */
static unsigned assemble(const struct subject *s, unsigned rm, unsigned unroll, uint8_t *code)
{
    const bool from_integer = !s->width;
    uint32_t w[CODE_STEP / 4], back;
    unsigned n = 0;

    w[n++] = 0x00105073; /* csrwi fflags, 0 */
    for (unsigned i = 0; i < unroll; i++)
        for (unsigned k = 0; k < s->inputs; k++)
            w[n++] = load(from_integer, (from_integer ? 16 : 0) + 4 * i + k,
                          (unsigned)(i * sizeof(struct test_case) + k * 8));
    for (unsigned i = 0; i < unroll; i++) {
        const unsigned in = (from_integer ? 16 : 0) + 4 * i,
                       out = (s->to_integer ? 16 : 0) + 4 * i + 3;
        const struct insn insn = {.rd = (uint8_t)out,
                                  .rs1 = (uint8_t)in,
                                  .rs2 = (uint8_t)(in + 1),
                                  .rs3 = (uint8_t)(in + 2),
                                  .extra = (uint16_t)rm};

        w[n++] = rv_encode(s->row, &insn);
    }
    w[n++] = 0x001022f3; /* csrr t0, fflags */
    for (unsigned i = 0; i < unroll; i++) {
        w[n++] = store(s->to_integer, (s->to_integer ? 16 : 0) + 4 * i + 3,
                       (unsigned)(i * sizeof(struct result)));
        w[n++] = store(true, 5, (unsigned)(i * sizeof(struct result) + 8));
    }
    w[n++] = addi(10, (int32_t)(unroll * sizeof(struct test_case)));
    w[n++] = addi(11, (int32_t)(unroll * sizeof(struct result)));
    w[n++] = addi(12, -1);
    back = 0u - n * 4; /* bnez a2, the start */
    w[n] = (back >> 12 & 1) << 31 | (back >> 5 & 63) << 25 | 12 << 15 | 1 << 12 |
           (back >> 1 & 15) << 8 | (back >> 11 & 1) << 7 | 0x63;
    w[++n] = 0x00100073; /* ebreak */
    n++;
    for (unsigned i = 0; i < n; i++)
        store_le32(code + 4 * i, w[i]);
    return 4 * n;
}

/** Run the loop at @at over @count cases with frm = @frm. */
static bool run(struct machine *m, uint32_t at, unsigned end, unsigned frm,
                const struct test_case *cases, unsigned count, unsigned unroll, struct result *ret)
{
    struct vcpu_exit exit = {0};
    uint64_t pc = 0;

    memcpy(m->ram + CASES_AT, cases, count * sizeof(*cases));
    (void)vcpu_set_reg(m->vcpu, MACHINE_FCSR, frm << 5);
    (void)vcpu_set_reg(m->vcpu, MACHINE_PC, RAM + at);
    (void)vcpu_set_reg(m->vcpu, 10, RAM + CASES_AT);
    (void)vcpu_set_reg(m->vcpu, 11, RAM + RESULTS_AT);
    (void)vcpu_set_reg(m->vcpu, 12, count / unroll);
    machine_run(m, &exit);
    (void)vcpu_get_reg(m->vcpu, MACHINE_PC, &pc);
    if (exit.reason != VCPU_EXIT_DEBUG || pc != RAM + at + end - 4) {
        printf("exit %d at %#" PRIx64 "\n", exit.reason, pc);
        return false;
    }
    memcpy(ret, m->ram + RESULTS_AT, count * sizeof(*ret));
    return true;
}

/** Run @count cases (a multiple of UNROLLED) on both engines, in both loops; false at a difference.
 * @ret has the interpreter's results, the flags of each. */
static bool run_cases(const struct subject *s, unsigned rm, unsigned frm,
                      const struct test_case *cases, unsigned count, struct result *ret)
{
    static struct result got[BATCH];
    static const struct subject *last;
    static unsigned last_rm, end[2];
    static uint32_t at;

    if (s != last || rm != last_rm) { /* code that was hot stays so for the next batch */
        at = next_code;
        next_code = (next_code + 2 * CODE_STEP) % (CASES_AT - 2 * CODE_STEP);
        for (unsigned n = 0; n < ARRAY_SIZE(machines); n++) {
            end[0] = assemble(s, rm, 1, machines[n].ram + at);
            end[1] = assemble(s, rm, UNROLLED, machines[n].ram + at + CODE_STEP);
        }
        last = s;
        last_rm = rm;
    }
    case_count += count;
    for (unsigned unrolled = 0; unrolled < 2; unrolled++) {
        for (unsigned n = 0; n < ARRAY_SIZE(machines); n++) {
            struct result *to = n || unrolled ? got : ret;

            if (!run(&machines[n], at + unrolled * CODE_STEP, end[unrolled], frm, cases, count,
                     unrolled ? UNROLLED : 1, to))
                return false;
            for (unsigned i = 0; to == got && i < count; i++) {
                uint64_t flags = ret[i].flags;

                if (unrolled)
                    for (unsigned k = i - i % UNROLLED; k < i - i % UNROLLED + UNROLLED; k++)
                        flags |= ret[k].flags;
                if (got[i].value == ret[i].value && got[i].flags == flags)
                    continue;
                printf("%s rm=%u frm=%u %s loop, %s: %#" PRIx64 " %#" PRIx64 " %#" PRIx64
                       " gives %#" PRIx64 " flags %#" PRIx64 ", wanted %#" PRIx64 " %#" PRIx64 "\n",
                       s->row->name, rm, frm, unrolled ? "long" : "short", n ? "jit" : "interp",
                       cases[i].operand[0], cases[i].operand[1], cases[i].operand[2], got[i].value,
                       got[i].flags, ret[i].value, flags);
                return false;
            }
        }
    }
    return true;
}

/* ---- Operands ---- */

static uint64_t box(uint64_t v, unsigned width)
{
    return width == 64 ? v : v | ~0ULL << width;
}

static void add(struct values *to, uint64_t v, unsigned width)
{
    if (to->count < MAX_VALUES)
        to->v[to->count++] = box(v, width);
}

/** Numbers of format @width; with @few only those at which something changes. */
static void add_floats(struct values *to, unsigned width, bool few)
{
    const unsigned fraction = width == 16 ? 10 : width == 32 ? 23 : 52;
    const unsigned max = width == 16 ? 31 : width == 32 ? 255 : 2047, bias = max / 2;
    const uint64_t ones = (1ULL << fraction) - 1, half = 1ULL << (fraction - 1);
    const uint64_t fractions[] = {0, ones, 1, half, half | 1, half - 1, ones - 1, 2, half >> 1, 5};
    /* around 1, the precision, the bounds of the integers, of the narrower formats, and the ends */
    const int exponents[] = {0,
                             1,
                             (int)max - 1,
                             (int)max,
                             (int)bias,
                             (int)bias - 1,
                             (int)bias + 1,
                             (int)(bias + fraction),
                             (int)(bias - fraction),
                             2,
                             (int)max - 2,
                             (int)(bias + fraction) + 1,
                             (int)(bias - fraction) - 1,
                             (int)bias + 31,
                             (int)bias + 32,
                             (int)bias + 63,
                             (int)bias + 64,
                             (int)bias + 30,
                             (int)bias + 62,
                             (int)bias - 2,
                             (int)bias + 15,
                             (int)bias + 16,
                             (int)bias - 14,
                             (int)bias - 15,
                             (int)bias - 24,
                             (int)bias - 25,
                             (int)bias + 127,
                             (int)bias + 128,
                             (int)bias - 126,
                             (int)bias - 127,
                             (int)bias - 149,
                             (int)bias - 150};
    const unsigned exponent_count = few ? 7 : ARRAY_SIZE(exponents);
    const unsigned fraction_count = few ? 3 : ARRAY_SIZE(fractions);

    for (unsigned e = 0; e < exponent_count; e++) {
        if (exponents[e] < 0 || exponents[e] > (int)max)
            continue;
        for (unsigned f = 0; f < fraction_count; f++)
            for (uint64_t sign = 0; sign < 2; sign++)
                add(to, sign << (width - 1) | (uint64_t)exponents[e] << fraction | fractions[f],
                    width);
    }
    if (width < 64) {
        const uint64_t one = (uint64_t)bias << fraction;

        add(to, one, 64); /* not boxed: a NaN to most */
        add(to, box(one, width) & ~BIT(63), 64);
    }
}

static void add_integers(struct values *to)
{
    add(to, 0, 64);
    for (unsigned bit = 0; bit < 64; bit++)
        for (int by = -1; by < 2; by++) {
            add(to, (1ULL << bit) + (uint64_t)by, 64);
            add(to, 0 - (1ULL << bit) + (uint64_t)by, 64);
        }
}

static uint64_t random_operand(unsigned width)
{
    const unsigned fraction = width == 16 ? 10 : width == 32 ? 23 : 52;
    const uint64_t max = width == 16 ? 31 : width == 32 ? 255 : 2047;
    uint64_t r = rnd(), significand = rnd() & ((1ULL << fraction) - 1), exponent;

    if (!width)
        return rnd() >> r % 64;
    if (r % 4 == 0)
        significand &= ~0ULL << (r >> 8) % fraction; /* exact results and ties */
    if (r % 16 < 12) /* near enough to each other to meet in an addition */
        exponent = (max / 2 + (r >> 16) % (fraction + 8) - (fraction + 8) / 2) & max;
    else
        exponent = (r >> 16) & max;
    return box((r >> 63) << (width - 1) | exponent << fraction | significand, width);
}

/** Case @index of @s: all combinations of @values first, random ones then. */
static struct test_case make_case(const struct subject *s, const struct values *values,
                                  uint64_t index)
{
    struct test_case c = {{0}};
    bool random = false;

    for (unsigned k = 0; k < s->inputs; k++) {
        c.operand[k] = values->v[index % values->count];
        index /= values->count;
    }
    random = index > 0;
    for (unsigned k = 0; random && k < s->inputs; k++)
        c.operand[k] = random_operand(s->width);
    return c;
}

/** An instruction that gives the same for everything is one whose result is not where we look. */
static bool varies(const struct subject *s, const struct result *results, unsigned count)
{
    for (unsigned n = 1; n < count; n++)
        if (results[n].value != results[0].value)
            return true;
    printf("%s: always %#" PRIx64 "\n", s->row->name, results[0].value);
    return false;
}

static bool test_systematically(const struct subject *s, uint64_t random)
{
    static struct test_case cases[BATCH];
    static struct result results[BATCH];
    static struct values values;
    uint64_t total = 1;

    values.count = 0;
    if (s->width)
        add_floats(&values, s->width, s->inputs == 3);
    else
        add_integers(&values);
    for (unsigned k = 0; k < s->inputs; k++)
        total *= values.count;
    total += random;
    for (unsigned mode = 0; mode < (s->rounds ? 10 : 1); mode++) {
        const unsigned rm = !s->rounds ? 0 : mode < 5 ? mode : RM_DYNAMIC;

        /* FCVTMOD has one mode alone */
        if (!strncmp(s->row->name, "fcvtmod", 7) && rm != FP_RTZ)
            continue;
        for (uint64_t n = 0; n < total; n += BATCH) {
            for (unsigned i = 0; i < BATCH; i++) /* the last batch has random ones more */
                cases[i] = make_case(s, &values, n + i);
            if (!run_cases(s, rm, rm == RM_DYNAMIC ? mode - 5 : (mode + 1) % 5, cases, BATCH,
                           results) ||
                (!n && !varies(s, results, BATCH)))
                return false;
        }
    }
    return true;
}

/* ---- Cases from a file ---- */

static bool is_nan(uint64_t v, unsigned width)
{
    const unsigned fraction = width == 16 ? 10 : width == 32 ? 23 : 52;
    const uint64_t magnitude = v & (BIT(width - 1) - 1);

    return magnitude > (BIT(width - 1) - 1) - ((1ULL << fraction) - 1);
}

static bool as_wanted(const struct subject *s, const struct result *got, const struct result *want)
{
    const char *first = strchr(s->row->name, '.') + 1;
    const unsigned width = suffix_width(first);
    const uint64_t mask = width == 64 ? ~0ULL : (1ULL << width) - 1;

    if (got->flags != want->flags)
        return false;
    if (s->to_integer)
        return !((got->value ^ want->value) & (first[0] == 'l' ? ~0ULL : 0xffffffff));
    if (got->value != box(got->value & mask, width))
        return false;
    return !((got->value ^ want->value) & mask) ||
           (is_nan(got->value & mask, width) && is_nan(want->value & mask, width));
}

static bool test_from_input(const struct subject *s, unsigned mode)
{
    static struct test_case cases[BATCH];
    static struct result want[BATCH], got[BATCH];
    char line[256];
    bool more = true;

    while (more) {
        unsigned count = 0, rm = s->rounds ? mode : 0;

        while (count < BATCH && (more = fgets(line, sizeof(line), stdin) != NULL)) {
            char *p = line;

            cases[count] = (struct test_case){{0}};
            for (unsigned k = 0; k < s->inputs; k++)
                cases[count].operand[k] =
                    s->width ? box(strtoull(p, &p, 16), s->width) : strtoull(p, &p, 16);
            want[count].value = strtoull(p, &p, 16);
            want[count++].flags = strtoull(p, &p, 16);
        }
        for (unsigned n = count; n % UNROLLED; n++)
            cases[n] = cases[0];
        if (count && !run_cases(s, rm, 0, cases, (count + UNROLLED - 1) / UNROLLED * UNROLLED, got))
            return false;
        for (unsigned n = 0; n < count; n++) {
            if (as_wanted(s, &got[n], &want[n]))
                continue;
            printf("%s mode %u: %#" PRIx64 " %#" PRIx64 " %#" PRIx64 " gives %#" PRIx64
                   " flags %#" PRIx64 ", wanted %#" PRIx64 " %#" PRIx64 "\n",
                   s->row->name, mode, cases[n].operand[0], cases[n].operand[1],
                   cases[n].operand[2], got[n].value, got[n].flags, want[n].value, want[n].flags);
            return false;
        }
    }
    return true;
}

static bool is_asked_for(const char *name, char *const *names, int count)
{
    for (int n = 0; n < count; n++)
        if (!strcmp(names[n], name))
            return true;
    return count == 0;
}

int main(int argc, char **argv)
{
    const char *from_input = NULL;
    uint64_t random = 0;
    unsigned mode = 0, tested = 0;
    bool ok = true;
    int opt;

    while ((opt = getopt(argc, argv, "f:m:n:s:")) != -1) {
        switch (opt) {
        case 'f':
            from_input = optarg;
            break;
        case 'm':
            mode = (unsigned)atoi(optarg);
            break;
        case 'n':
            random = strtoull(optarg, NULL, 0);
            break;
        case 's':
            random_state = strtoull(optarg, NULL, 0) | 1;
            break;
        default:
            return 2;
        }
    }
    for (unsigned n = 0; n < ARRAY_SIZE(machines); n++)
        if (!machine_start(&machines[n], kinds[n]))
            return 2;
    for (unsigned n = 0; ok && n < rv_row_count; n++) {
        static struct subject s[1024];
        const char *name = rv_rows[n].name;

        if (n >= ARRAY_SIZE(s) || !subject_init(&rv_rows[n], &s[n]))
            continue;
        if (from_input ? strcmp(from_input, name)
                       : !is_asked_for(name, argv + optind, argc - optind))
            continue;
        ok = from_input ? test_from_input(&s[n], mode) : test_systematically(&s[n], random);
        tested++;
    }
    for (unsigned n = 0; n < ARRAY_SIZE(machines); n++)
        machine_done(&machines[n]);
    printf("%u instructions, %" PRIu64 " cases%s\n", tested, case_count, ok ? " agree" : "");
    return !ok ? 1 : tested ? 0 : 2;
}
