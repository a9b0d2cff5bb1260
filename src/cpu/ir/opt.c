/* The optimizer over one unit: a forward pass that rewrites each op once, knowing what its operands
 * are, and a backward pass that drops what nobody needs.
 *
 * 1. Temps keep their numbers during the forward pass: a removed op becomes a NOP, and `scratch`
 *    maps its number to the temp that replaces it. The backward pass renumbers.
 * 2. Nothing moves across an op with an effect, and no op that may raise floating point exceptions
 *    is dropped. */
#include "cpu/ir/opt_internal.h"

#include "base/bits.h"
#include "cpu/ir/eval.h"

#include <string.h>

/** The current op is the same as temp @v: drop it. */
static void replace(struct pass *p, uint16_t v)
{
    p->f->scratch[p->n] = v;
    p->f->uses[v] = (uint16_t)(p->f->uses[v] + p->f->uses[p->n]);
    *p->i = (struct ir_insn){.op = IR_NOP};
}
static void become_const(struct pass *p, int64_t value)
{
    enum ir_type t = p->i->type;

    *p->i = (struct ir_insn){.op = IR_CONST, .type = (uint8_t)t, .imm = value};
    if (t == IR_I32)
        p->i->imm = (int32_t)value;
}
void opt_become(struct pass *p, enum ir_op op, uint16_t a, uint16_t b)
{
    p->i->op = (uint8_t)op;
    p->i->arg[0] = a;
    p->i->arg[1] = b;
}

/** A temp of constant @value of the current op's type, put in the place of the NOP or constant @at
 * that nobody else uses; NONE if that is not possible. */
uint16_t opt_reuse_const(struct pass *p, uint16_t at, int64_t value)
{
    if (!is_const(p, at) || p->f->uses[at] != 1)
        return NONE;
    def(p, at)->imm = def(p, at)->type == IR_I32 ? (int32_t)value : value;
    return at;
}

/* --- Guest state */

static int slot_of(const struct ir_insn *i)
{
    return i->size == 8 && !(i->disp & 7) && i->disp < 8 * MAX_SLOTS ? i->disp / 8 : -1;
}

static void forget_range(struct pass *p, int32_t disp, unsigned size)
{
    for (int32_t s = disp / 8; s <= (disp + (int32_t)size - 1) / 8; s++)
        if (s < MAX_SLOTS)
            p->known[s] = NONE;
}

static void get(struct pass *p)
{
    int s = slot_of(p->i);
    uint16_t v;

    if (s < 0)
        return;
    v = p->known[s];
    if (v == NONE) {
        p->known[s] = (uint16_t)p->n;
    } else if (def(p, v)->type == p->i->type) {
        replace(p, v);
    } else {
        *p->i =
            (struct ir_insn){.op = IR_BITCAST, .type = p->i->type, .nargs = 1, .arg = {use(p, v)}};
    }
}

static void set(struct pass *p)
{
    int s = slot_of(p->i);

    if (s < 0) {
        forget_range(p, p->i->disp, p->i->size);
        return;
    }
    if (p->known[s] == p->i->arg[0])
        *p->i = (struct ir_insn){.op = IR_NOP};
    else
        p->known[s] = p->i->arg[0];
}

/* --- Integers */

/** @v without extensions that leave its low @bytes alone. */
static uint16_t strip(const struct pass *p, uint16_t v, unsigned bytes)
{
    for (;;) {
        const struct ir_insn *d = def(p, v);

        if ((d->op != IR_SEXT && d->op != IR_ZEXT) || d->size < bytes ||
            ir_type_size(def(p, d->arg[0])->type) < bytes)
            return v;
        v = d->arg[0];
    }
}

/** Let operands of narrow operations skip extensions. */
static void strip_operands(struct pass *p)
{
    struct ir_insn *i = p->i;
    unsigned bytes = 0, first = 0;

    switch ((enum ir_op)i->op) {
    case IR_SETCC:
    case IR_BRANCH:
        bytes = i->size;
        break;
    case IR_SEXT: /* extension() does it */
    case IR_ZEXT:
        break;
    case IR_STORE:
        bytes = ir_is_int(def(p, i->arg[1])->type) ? i->size : 0;
        first = 1;
        break;
    case IR_SELECT:
        break;
    default:
        if ((ir_op_info[i->op].flags & IR_PURE) && i->type == IR_I32 &&
            ir_op_info[i->op].args[0] == 'i')
            bytes = 4;
        break;
    }
    if (!bytes || bytes == 8)
        return;
    for (unsigned k = first; k < i->nargs; k++)
        i->arg[k] = use(p, strip(p, i->arg[k], bytes));
}

/** How far the value of @d is known to be an extension of its low bytes; 0 = not. */
static unsigned extended_from(const struct ir_insn *d, bool sign)
{
    switch ((enum ir_op)d->op) {
    case IR_SEXT:
        return sign ? d->size : 0;
    case IR_ZEXT:
        return sign ? 0 : d->size;
    case IR_LOADS:
        return sign ? d->size : 0;
    case IR_LOAD:
    case IR_GET:
        return sign || !ir_is_int(d->type) ? 0 : d->size;
    default:
        return 0;
    }
}

void opt_extension(struct pass *p)
{
    struct ir_insn *i = p->i;
    const struct ir_insn *d = def(p, i->arg[0]);
    bool sign = i->op == IR_SEXT;
    unsigned from = extended_from(d, sign);

    if (from && from <= i->size && d->type == i->type)
        replace(p, i->arg[0]);
    else if (d->op == IR_SETCC && d->type == i->type)
        replace(p, i->arg[0]);
    else if (i->type == IR_I32 && i->size == 4 && d->type == IR_I32)
        replace(p, i->arg[0]);
    else
        i->arg[0] = use(p, strip(p, i->arg[0], i->size));
}

/** (x op c1) op c2 = x op (c1 op c2) for the associative @op; the current op's second operand is
 * constant. If others use the first result, it had best be used here, too: x may die there. */
static bool reassociate(struct pass *p)
{
    struct ir_insn *i = p->i, *d = def(p, i->arg[0]), folded;
    uint64_t v[2], r;
    uint16_t c;

    if (d->op != i->op || d->type != i->type || !is_const(p, d->arg[1]) ||
        p->f->uses[i->arg[0]] != 1)
        return false;
    v[0] = (uint64_t)def(p, d->arg[1])->imm;
    v[1] = (uint64_t)def(p, i->arg[1])->imm;
    folded = *i;
    if (!ir_eval_integer(&folded, v, &r))
        return false;
    c = opt_reuse_const(p, i->arg[1], (int64_t)r);
    if (c == NONE)
        return false;
    i->arg[0] = use(p, d->arg[0]);
    return true;
}

/** Ops whose second operand is the constant @c. */
static void with_constant(struct pass *p, int64_t c)
{
    struct ir_insn *i = p->i;
    uint16_t x = i->arg[0], k;
    bool wide_x = ir_type_size(def(p, x)->type) == ir_type_size(i->type);

    switch ((enum ir_op)i->op) {
    case IR_SUB:
        k = c != INT64_MIN ? opt_reuse_const(p, i->arg[1], -c) : NONE;
        if (k == NONE)
            break;
        opt_become(p, IR_ADD, x, k);
        c = -c;
        __attribute__((fallthrough));
    case IR_ADD:
    case IR_XOR:
    case IR_OR:
        if (c == 0 && wide_x)
            replace(p, x);
        else if (i->op == IR_OR && c == -1)
            become_const(p, -1);
        else
            reassociate(p);
        break;
    case IR_AND:
        if (c == -1 && wide_x)
            replace(p, x);
        else if (c == 0)
            become_const(p, 0);
        else
            reassociate(p);
        break;
    case IR_SHL:
    case IR_SHR:
    case IR_SAR:
    case IR_ROL:
    case IR_ROR:
        c &= 8 * ir_type_size(i->type) - 1;
        if (!c && wide_x)
            replace(p, x);
        else if (i->op == IR_SHR || i->op == IR_SAR)
            opt_shift_back(p, (unsigned)c);
        break;
    case IR_MUL:
        if (c == 0) {
            become_const(p, 0);
        } else if (c == 1 && wide_x) {
            replace(p, x);
        } else if (c > 1 && is_pow2((uint64_t)c)) {
            k = opt_reuse_const(p, i->arg[1], __builtin_ctzll((uint64_t)c));
            if (k != NONE)
                opt_become(p, IR_SHL, x, k);
        }
        break;
    default:
        break;
    }
}

static void same_operands(struct pass *p)
{
    struct ir_insn *i = p->i;

    switch ((enum ir_op)i->op) {
    case IR_SUB:
    case IR_XOR:
        become_const(p, 0);
        break;
    case IR_AND:
    case IR_OR:
        if (def(p, i->arg[0])->type == i->type)
            replace(p, i->arg[0]);
        break;
    default:
        break;
    }
}

/** A comparison of SETCC's result with zero is the comparison itself. */
static void compare(struct pass *p)
{
    struct ir_insn *i = p->i;
    const struct ir_insn *d;

    if (is_const(p, i->arg[0]) && !is_const(p, i->arg[1])) {
        uint16_t t = i->arg[0];

        i->arg[0] = i->arg[1];
        i->arg[1] = t;
        i->aux = (uint8_t)ir_cc_swap(i->aux);
    }
    d = def(p, i->arg[0]);
    if (d->op != IR_SETCC || !is_value(p, i->arg[1], 0) || (i->aux != IR_EQ && i->aux != IR_NE))
        return;
    i->aux = (uint8_t)(i->aux == IR_NE ? d->aux : ir_cc_not(d->aux));
    i->size = d->size;
    i->arg[0] = use(p, d->arg[0]);
    i->arg[1] = use(p, d->arg[1]);
}

/** All operands constant: so is the result. */
static bool fold(struct pass *p)
{
    uint64_t v[IR_MAX_ARGS] = {0}, r;

    for (unsigned k = 0; k < p->i->nargs; k++) {
        if (!is_const(p, p->i->arg[k]))
            return false;
        v[k] = (uint64_t)def(p, p->i->arg[k])->imm;
    }
    if (!p->i->nargs || !ir_eval_integer(p->i, v, &r))
        return false;
    if (p->i->op == IR_BRANCH) {
        int64_t target = p->i->imm;

        *p->i = (struct ir_insn){.op = r ? IR_EXIT_DIRECT : IR_NOP, .imm = target};
        for (unsigned n = p->n + 1; r && n < p->f->count && p->f->insns[n].op != IR_LABEL; n++)
            p->f->insns[n] = (struct ir_insn){.op = IR_NOP};
        return true;
    }
    become_const(p, (int64_t)r);
    return true;
}

static void integer(struct pass *p)
{
    struct ir_insn *i = p->i;

    if (fold(p))
        return;
    if ((ir_op_info[i->op].flags & IR_COMM) && is_const(p, i->arg[0]))
        opt_become(p, i->op, i->arg[1], i->arg[0]);
    if (i->op == IR_SETCC || i->op == IR_BRANCH || i->op == IR_SELECT)
        compare(p);
    else if (i->op == IR_SEXT || i->op == IR_ZEXT)
        opt_extension(p);
    else if (i->nargs == 2 && is_const(p, i->arg[1]))
        with_constant(p, def(p, i->arg[1])->imm);
    else if (i->nargs == 2 && i->arg[0] == i->arg[1])
        same_operands(p);
    else if (i->op == IR_ADD)
        opt_scaled_sum(p);
    else if (i->op == IR_OR)
        opt_rotate(p);
    else if (i->op == IR_AND)
        opt_and_not(p);
}

/* --- The rest */

/** Fold an addition that only this access uses into its displacement. */
static void address(struct pass *p)
{
    struct ir_insn *i = p->i, *d = def(p, i->arg[0]);
    int64_t disp;

    if (d->op != IR_ADD || p->f->uses[i->arg[0]] != 1 || !is_const(p, d->arg[1]) ||
        def(p, d->arg[0])->type != IR_I64)
        return;
    disp = i->disp + def(p, d->arg[1])->imm;
    if (def(p, d->arg[1])->imm != (int32_t)def(p, d->arg[1])->imm || disp != (int32_t)disp ||
        disp > INT32_MAX - 16)
        return;
    i->arg[0] = use(p, d->arg[0]);
    i->disp = (int32_t)disp;
}

/** The bits of a float may be stored from where it is. */
static void store(struct pass *p)
{
    struct ir_insn *i = p->i;
    const struct ir_insn *d = def(p, i->arg[1]);

    address(p);
    if (d->op != IR_BITCAST || i->size < 4)
        return;
    if (i->size == 4 && def(p, d->arg[0])->op == IR_FBOX)
        d = def(p, d->arg[0]);
    i->arg[1] = use(p, d->arg[0]);
}

/** To unbox takes a test, so one that was done is remembered. */
static void unbox_once(struct pass *p)
{
    for (unsigned n = 0; n < ARRAY_SIZE(p->unboxed); n++) {
        if (p->unboxed[n] != NONE && def(p, p->unboxed[n])->arg[0] == p->i->arg[0]) {
            replace(p, p->unboxed[n]);
            return;
        }
    }
    p->unboxed[p->next_unboxed++ % ARRAY_SIZE(p->unboxed)] = (uint16_t)p->n;
}

static void conversion(struct pass *p)
{
    struct ir_insn *i = p->i, *d = def(p, i->arg[0]);

    if (i->op == IR_FUNBOX && d->op == IR_FBOX)
        replace(p, d->arg[0]);
    else if (i->op == IR_FUNBOX)
        unbox_once(p);
    else if (i->op == IR_BITCAST && d->op == IR_BITCAST && def(p, d->arg[0])->type == i->type)
        replace(p, d->arg[0]);
}

static void rewrite(struct pass *p)
{
    struct ir_insn *i = p->i;
    unsigned flags = ir_op_info[i->op].flags;

    strip_operands(p);
    switch ((enum ir_op)i->op) {
    case IR_GET:
        get(p);
        break;
    case IR_SET:
        set(p);
        break;
    case IR_LOAD:
    case IR_LOADS:
        address(p);
        break;
    case IR_STORE:
        store(p);
        break;
    case IR_CALL:
        if (i->aux & IR_CALL_WRITES)
            memset(p->known, 0xff, sizeof(p->known));
        break;
    case IR_LABEL: /* the temps before are not to be used any more */
        memset(p->unboxed, 0xff, sizeof(p->unboxed));
        __attribute__((fallthrough));
    case IR_INTERP:
        memset(p->known, 0xff, sizeof(p->known));
        break;
    case IR_FUNBOX:
    case IR_BITCAST:
        conversion(p);
        break;
    default:
        if (i->op == IR_BRANCH || ((flags & IR_PURE) && ir_op_info[i->op].args[0] == 'i' &&
                                   i->op != IR_ITOF && i->op != IR_UTOF))
            integer(p);
        break;
    }
}

static void count_uses(struct ir_func *f)
{
    memset(f->uses, 0, f->count * sizeof(*f->uses));
    for (unsigned n = 0; n < f->count; n++)
        for (unsigned k = 0; k < f->insns[n].nargs; k++)
            f->uses[f->insns[n].arg[k]]++;
}

void ir_pass_forward(struct ir_func *f)
{
    struct pass p = {.f = f};

    count_uses(f);
    memset(p.known, 0xff, sizeof(p.known));
    memset(p.unboxed, 0xff, sizeof(p.unboxed));
    for (p.n = 0; p.n < f->count; p.n++) {
        p.i = &f->insns[p.n];
        f->scratch[p.n] = (uint16_t)p.n;
        for (unsigned k = 0; k < p.i->nargs; k++)
            p.i->arg[k] = f->scratch[p.i->arg[k]];
        rewrite(&p);
    }
}

/* --- Dead code */

static bool looks_at_state(const struct ir_insn *i)
{
    return (ir_op_info[i->op].flags & (IR_FAULT | IR_EXIT)) ||
           ((i->op == IR_GET || i->op == IR_SET) && slot_of(i) < 0);
}

/** May @i go if nobody uses its result? */
static bool is_removable(const struct ir_insn *i)
{
    unsigned flags = ir_op_info[i->op].flags;

    return (i->op == IR_GET && i->aux != IR_BOUND) || (flags & (IR_PURE | IR_RAISES)) == IR_PURE;
}

static void renumber(struct ir_func *f)
{
    unsigned to = 0;

    for (unsigned n = 0; n < f->count; n++) {
        struct ir_insn i = f->insns[n];

        if (i.op == IR_NOP)
            continue;
        for (unsigned k = 0; k < i.nargs; k++)
            i.arg[k] = f->scratch[i.arg[k]];
        f->scratch[n] = (uint16_t)to;
        f->insns[to++] = i;
    }
    f->count = to;
}

void ir_pass_dead(struct ir_func *f)
{
    uint64_t overwritten[MAX_SLOTS / 64] = {0}; /* slots that are set again before anyone looks */

    bool before_loop = false;

    count_uses(f);
    for (unsigned n = f->count; n--;) {
        struct ir_insn *i = &f->insns[n];
        bool dead = is_removable(i) && !f->uses[n] && !before_loop;
        int s = i->op == IR_GET || i->op == IR_SET ? slot_of(i) : -1;

        before_loop |= i->op == IR_LOOP;
        if (i->op == IR_SET && s >= 0) {
            dead = overwritten[s / 64] >> (s % 64) & 1;
            overwritten[s / 64] |= BIT(s % 64);
        } else if (!dead && looks_at_state(i)) {
            memset(overwritten, 0, sizeof(overwritten));
        } else if (!dead && s >= 0) {
            overwritten[s / 64] &= ~BIT(s % 64);
        }
        if (!dead)
            continue;
        for (unsigned k = 0; k < i->nargs; k++)
            f->uses[i->arg[k]]--;
        *i = (struct ir_insn){.op = IR_NOP};
    }
    renumber(f);
}

void ir_optimize(struct ir_func *f)
{
    if (f->count && f->insns[0].op == IR_LABEL)
        ir_pass_region(f);
    else if (f->loops)
        ir_pass_loop(f);
    ir_pass_forward(f);
    ir_pass_dead(f);
}
