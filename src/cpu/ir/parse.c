/* The IR's text form, reading side: what text.c prints, plus blank lines and comments from `;` to
 * the end of the line. Temp numbers in the text may have gaps; operands refer to them by name.
 *
 * Untrusted text is fine: errors come back with a line number. The result is checked by nobody:
 * call ir_verify(). */
#include "cpu/ir/text.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct parser {
    const char *p;
    unsigned line;
    struct ir_func *f;
    struct ir_insn insn;
    struct error *err;
    uint16_t *names; /* number in the text → temp + 1 */
};

#define MAX_NAME 65535u

static int bad(struct parser *s, const char *what)
{
    return error_set(s->err, EINVAL, "line %u: %s", s->line, what);
}

static void skip_blanks(struct parser *s)
{
    while (*s->p == ' ' || *s->p == '\t')
        s->p++;
}
static bool take(struct parser *s, const char *text)
{
    size_t n = strlen(text);

    skip_blanks(s);
    if (strncmp(s->p, text, n) != 0)
        return false;
    s->p += n;
    return true;
}
static bool at_end(struct parser *s)
{
    skip_blanks(s);
    return *s->p == '\n' || *s->p == '\0' || *s->p == ';';
}

static bool number(struct parser *s, int64_t *ret)
{
    char *end;
    bool negative = take(s, "-");
    uint64_t v;

    skip_blanks(s);
    if (!isdigit((unsigned char)*s->p))
        return false;
    errno = 0;
    v = strtoull(s->p, &end, 0);
    if (errno)
        return false;
    s->p = end;
    *ret = (int64_t)(negative ? -v : v);
    return true;
}

/** Index in @names of the word at the cursor (letters, digits, '_'); -1: none. */
static int word(struct parser *s, const char *const *names, unsigned count)
{
    size_t n = 0;

    while (isalnum((unsigned char)s->p[n]) || s->p[n] == '_')
        n++;
    for (unsigned k = 0; k < count; k++)
        if (strlen(names[k]) == n && strncmp(names[k], s->p, n) == 0) {
            s->p += n;
            return (int)k;
        }
    return -1;
}

static int operation(struct parser *s)
{
    const char *names[IR_OPS];

    for (unsigned k = 0; k < IR_OPS; k++)
        names[k] = ir_op_info[k].name;
    return word(s, names, IR_OPS);
}

static int temp(struct parser *s, uint16_t *ret)
{
    int64_t n;

    if (!take(s, "%") || !number(s, &n) || n < 0 || n >= MAX_NAME)
        return bad(s, "expected a temp");
    if (!s->names[n])
        return bad(s, "temp is not defined yet");
    *ret = (uint16_t)(s->names[n] - 1);
    return 0;
}

/** .type.size.cc.amo, as far as the op has them. */
static int suffixes(struct parser *s, unsigned fields, bool has_result)
{
    int64_t n;
    int k;

    if (has_result) {
        k = take(s, ".") ? word(s, ir_type_names, IR_TYPES) : -1;
        if (k <= IR_NONE)
            return bad(s, "expected the result's type");
        s->insn.type = (uint8_t)k;
    }
    if (fields & FIELD_SIZE) {
        if (!take(s, ".") || !number(s, &n) || n < 0 || n > 64)
            return bad(s, "expected a size");
        s->insn.size = (uint8_t)n;
    }
    if (fields & FIELD_CC) {
        k = take(s, ".") ? word(s, ir_cc_names, IR_CCS) : -1;
        if (k < 0)
            return bad(s, "expected a condition");
        s->insn.aux = (uint8_t)k;
    }
    if (fields & FIELD_AMO) {
        k = take(s, ".") ? word(s, ir_amo_names, IR_AMOS) : -1;
        if (k < 0)
            return bad(s, "expected an atomic operation");
        s->insn.aux2 = (uint8_t)k;
    }
    return 0;
}

static int address(struct parser *s)
{
    int64_t n;
    int r;

    if (!take(s, "m") || !number(s, &n) || n < 0 || n > 3 || !take(s, "["))
        return bad(s, "expected an mmu mode and an address");
    s->insn.aux = (uint8_t)n;
    r = temp(s, &s->insn.arg[0]);
    if (r)
        return r;
    s->insn.nargs = 1;
    if (take(s, "+")) {
        if (!number(s, &n) || n != (int32_t)n)
            return bad(s, "expected a displacement");
        s->insn.disp = (int32_t)n;
    }
    return take(s, "]") ? 0 : bad(s, "expected ]");
}

static int operands(struct parser *s, unsigned fields)
{
    int64_t n;
    int r = fields & FIELD_MEMORY ? address(s) : 0;

    if (!r && (fields & FIELD_STATE)) {
        if (!take(s, "[") || !number(s, &n) || n != (int32_t)n || !take(s, "]"))
            return bad(s, "expected a state offset");
        s->insn.disp = (int32_t)n;
    }
    skip_blanks(s);
    while (!r && *s->p == '%') {
        if (s->insn.nargs == IR_MAX_ARGS)
            return bad(s, "too many operands");
        r = temp(s, &s->insn.arg[s->insn.nargs++]);
        skip_blanks(s);
    }
    if (!r && (fields & FIELD_IMM) && !number(s, &s->insn.imm))
        return bad(s, "expected a number");
    if (!r && (fields & FIELD_AUX)) {
        if (!take(s, "#") || !number(s, &n) || n < 0 || n > 255)
            return bad(s, "expected #N");
        s->insn.aux = (uint8_t)n;
    }
    if (!r && (fields & FIELD_TARGET) && (!take(s, "->") || !number(s, &s->insn.imm)))
        return bad(s, "expected a target");
    return r;
}

static int header(struct parser *s)
{
    int64_t offset, mode;

    if (!number(s, &offset) || offset < 0 || offset > 4095 || !take(s, "mode") || !number(s, &mode))
        return bad(s, "expected 'unit OFFSET mode MODE'");
    s->f->start_offset = (uint32_t)offset;
    s->f->mode = (uint64_t)mode;
    return 0;
}

static int line(struct parser *s)
{
    int64_t name = -1;
    int op, r;

    if (at_end(s))
        return 0;
    if (take(s, "unit"))
        return header(s);
    s->insn = (struct ir_insn){0};
    if (take(s, "%") && (!number(s, &name) || name < 0 || name >= MAX_NAME || !take(s, "=")))
        return bad(s, "expected '%N ='");
    skip_blanks(s);
    op = operation(s);
    if (op < 0)
        return bad(s, "no such operation");
    s->insn.op = (uint8_t)op;
    r = suffixes(s, ir_op_fields(op), name >= 0);
    if (!r)
        r = operands(s, ir_op_fields(op));
    if (r)
        return r;
    if (!at_end(s))
        return bad(s, "something is left over");
    *ir_append(s->f, op, IR_NONE, 0) = s->insn;
    if (s->f->overflow)
        return bad(s, "too many operations");
    if (name >= 0)
        s->names[name] = (uint16_t)s->f->count;
    return 0;
}

int ir_parse(const char *text, struct ir_func *ret, struct error *err)
{
    struct parser s = {.p = text, .line = 1, .f = ret, .err = err};
    int r = 0;

    s.names = calloc(MAX_NAME, sizeof(*s.names));
    if (!s.names)
        return error_set(err, ENOMEM, "no memory to parse IR");
    ir_reset(ret);
    while (*s.p && !r) {
        r = line(&s);
        s.p += strcspn(s.p, "\n");
        s.p += *s.p == '\n';
        s.line++;
    }
    free(s.names);
    return r;
}
