/* Memos: an access in a loop that walks through memory by small steps, or stays where it is, finds
 * itself in the page of last time. So it has a place of its own in the address space's context,
 * which says what the TLB had then; that it compares with first:
 *
 *     lea   rax, [base + disp + size - 1]
 *     or    rax, 4095 & -size               ones below the page's number if the access is aligned
 *     cmp   rax, [context + memo]
 *     jne   stub
 *     mov   rax, [context + memo + 8]
 *     mov   reg, [rax + base + disp]
 *
 * Besides being shorter than the TLB's probe, this lets the access go ahead without waiting for
 * what its address finds in the TLB. The stub looks there and fills the memo.
 *
 * 1. A memo says what a TLB entry of the same context, mode and kind of access said; whatever takes
 *    entries from a TLB, other than for want of room, clears the memos (cpu/core/context.c).
 * 2. Which accesses have one is a guess: a wrong one costs time only. They are those in loops whose
 *    address the innermost loop does not change, only moves by small steps, or lets hop within a
 *    short range (an index that is a byte). A loop may leave the unit, by a jump through a table or
 *    by a call that comes back to the unit's start. And in all code they are those off registers
 * that stay where they are by convention: one memo serves all that are off the stack pointer. */
#include "cpu/host/x86_64/asm.h"

#include "base/bits.h"

#define MAX_STEP  128  /* bytes by which a round may move an address */
#define MAX_RANGE 2048 /* bytes within which it may hop */
#define MAX_FRAME 1024 /* of accesses off the stack pointer */
#define MAX_RINGS 32
#define MAX_DEPTH 8 /* of expressions looked at */
#define STILL     4 /* the first memos, of each kind: of registers that stay where they are */
#define FAST      INT16_MAX

/** How much a value changes from round to round. */
struct pace {
    int64_t step;  /* it moves by that much at most, FAST: who knows */
    int64_t range; /* and hops within that much */
};

/** Ops from where a loop begins to where it goes back. */
struct ring {
    unsigned from, to;
    bool looked; /* pace is known */
    bool calls;  /* it goes by way of other functions */
    struct {
        int16_t step, range;
    } pace[ASM_SLOTS]; /* of state */
};

struct rings {
    struct ring rings[MAX_RINGS + 1];
    unsigned count;
};

static void find_rings(const struct asm_state *a, struct rings *r)
{
    const struct ir_func *f = a->f;
    unsigned start = 0;

    r->count = 0;
    for (unsigned n = 0; n < f->count && r->count < MAX_RINGS; n++) {
        const struct ir_insn *i = &f->insns[n];
        int to = -1;

        if (i->op == IR_LOOP)
            start = n;
        if (i->op != IR_BRANCH && i->op != IR_EXIT_DIRECT)
            continue;
        if (start && i->imm == f->start_offset)
            to = (int)start;
        else if (a->label_count)
            to = ir_label_at(f, i->imm);
        if (to >= 0 && (unsigned)to <= n)
            r->rings[r->count++] = (struct ring){.from = (unsigned)to, .to = n};
    }
}

/* --- Paces */

static bool is_fast(struct pace p)
{
    return p.step > MAX_STEP || p.range > MAX_RANGE;
}
static struct pace pace_of(struct asm_state *a, const struct ring *r, uint16_t v, unsigned depth);

static struct pace pace(int64_t step, int64_t range)
{
    return (struct pace){MIN(step, FAST), MIN(range, FAST)};
}

static struct pace sum(struct asm_state *a, const struct ring *r, const struct ir_insn *i,
                       unsigned shift, unsigned depth)
{
    struct pace x = pace_of(a, r, i->arg[0], depth), y = pace_of(a, r, i->arg[1], depth);

    return pace((x.step << shift) + y.step, (x.range << shift) + y.range);
}

/** Of an op with a constant second operand @c. */
static struct pace with_constant(struct asm_state *a, const struct ring *r, const struct ir_insn *i,
                                 int64_t c, unsigned depth)
{
    unsigned bits = 8 * ir_type_size(i->type);
    struct pace x;

    if (i->op == IR_AND && c >= 0)
        return pace(0, c);
    c &= bits - 1;
    if (i->op == IR_SHR && bits - c < 16)
        return pace(0, (1 << (bits - c)) - 1);
    if (i->op != IR_SHL || c > 12)
        return pace(FAST, 0);
    x = pace_of(a, r, i->arg[0], depth);
    return pace(x.step << c, x.range << c);
}

static struct pace pace_of(struct asm_state *a, const struct ring *r, uint16_t v, unsigned depth)
{
    const struct ir_insn *i = &a->f->insns[v];
    int s;

    if (!depth--)
        return pace(FAST, 0);
    switch (i->op) {
    case IR_CONST:
    case IR_PCREL:
        return pace(0, 0);
    case IR_GET:
        s = regs_slot(a, i->disp, i->size);
        return s < 0 ? pace(FAST, 0) : pace(r->pace[s].step, r->pace[s].range);
    case IR_LOAD:
    case IR_LOADS:
        return pace(i->size == 1 ? 0 : FAST, 255);
    case IR_ZEXT:
    case IR_SEXT:
        if (i->size == 1)
            return pace(0, 255);
        return i->size == 4 ? pace_of(a, r, i->arg[0], depth) : pace(FAST, 0);
    case IR_ADD:
    case IR_SUB:
        return sum(a, r, i, 0, depth);
    case IR_ADDSHL:
        return sum(a, r, i, (unsigned)i->imm, depth);
    case IR_AND:
    case IR_SHL:
    case IR_SHR:
        if (is_const(a, i->arg[1]))
            return with_constant(a, r, i, a->f->insns[i->arg[1]].imm, depth);
        return pace(FAST, 0);
    default:
        return pace(FAST, 0);
    }
}

/** What SET @i, of slot @s, makes of the slot's pace. */
static struct pace pace_after(struct asm_state *a, const struct ring *r, const struct ir_insn *i,
                              int s)
{
    struct address d = address_of(a->f, i->arg[0], 0);
    const struct ir_insn *root = &a->f->insns[d.root];

    if (root->op != IR_GET)
        return pace_of(a, r, i->arg[0], MAX_DEPTH);
    if (d.at < -MAX_STEP || d.at > MAX_STEP)
        return pace(FAST, 0);
    if (regs_slot(a, root->disp, root->size) == s)
        return pace(d.at < 0 ? -d.at : d.at, 0);
    return pace_of(a, r, d.root, 1);
}

/** Functions keep only some registers. */
static void lose_unkept(struct asm_state *a, struct ring *r)
{
    const struct ir_habits *h = a->f->habits;

    for (unsigned n = 0; n < a->slot_count; n++) {
        uint32_t reg = (a->slots[n].offset - h->base) / 8;

        if (a->slots[n].offset < h->base || reg > 31 || !(h->kept >> reg & 1))
            r->pace[n].step = FAST;
    }
}

static void find_paces(struct asm_state *a, struct ring *r)
{
    bool changed;

    r->looked = true;
    memset(r->pace, 0, sizeof(r->pace));
    if (r->calls)
        lose_unkept(a, r);
    do {
        changed = false;
        for (unsigned n = r->from; n <= r->to; n++) {
            const struct ir_insn *i = &a->f->insns[n];
            int s = i->op == IR_SET ? regs_slot(a, i->disp, i->size) : -1;
            struct pace p;

            if (s < 0 || r->pace[s].step == FAST)
                continue;
            p = pace_after(a, r, i, s);
            if (is_fast(p))
                p = pace(FAST, 0);
            if (p.step <= r->pace[s].step && p.range <= r->pace[s].range)
                continue;
            r->pace[s].step = (int16_t)MAX(p.step, r->pace[s].step);
            r->pace[s].range = (int16_t)MAX(p.range, r->pace[s].range);
            changed = true;
        }
    } while (changed);
}

/* --- Loops that leave the unit */

static bool is_indexed(const struct asm_state *a, uint16_t v)
{
    const struct ir_insn *i = &a->f->insns[v];

    return i->op == IR_ADDSHL || (i->op == IR_ADD && (a->f->insns[i->arg[0]].op == IR_SHL ||
                                                      a->f->insns[i->arg[1]].op == IR_SHL));
}

/** Is jump target @v from a table? Such code is the body of a switch, mostly in a loop. */
static bool is_from_table(const struct asm_state *a, uint16_t v)
{
    const struct ir_insn *i = &a->f->insns[v];

    if (i->op == IR_AND)
        i = &a->f->insns[i->arg[0]];
    for (unsigned k = 0; k < (i->op == IR_ADD ? 2 : 0); k++) {
        const struct ir_insn *d = &a->f->insns[i->arg[k]];

        if ((d->op == IR_LOADS || d->op == IR_LOAD) && is_indexed(a, d->arg[0]))
            return true;
    }
    return i->op == IR_LOAD && is_indexed(a, i->arg[0]);
}

/** Is the whole unit part of a loop? Either it goes on to a case of a switch, or calls a function
 * that comes back to where it starts. */
static void find_far_ring(struct asm_state *a, struct rings *r)
{
    const struct ir_func *f = a->f;
    struct ring whole = {.from = 0, .to = f->count - 1};
    bool found = false, returns = false;

    for (unsigned n = 0; n < f->count; n++) {
        const struct ir_insn *i = &f->insns[n];

        returns |= i->op == IR_PCREL && i->imm == f->start_offset;
        if (i->op == IR_EXIT_INDIRECT && i->aux == IR_HINT_NONE)
            found |= is_from_table(a, i->arg[0]);
        else if ((i->op == IR_EXIT_INDIRECT || i->op == IR_EXIT_DIRECT) && i->aux == IR_HINT_CALL &&
                 returns && f->habits)
            found = whole.calls = true;
    }
    if (found)
        r->rings[r->count++] = whole;
}

static struct ring *innermost(struct rings *r, unsigned n)
{
    struct ring *best = NULL;

    for (unsigned k = 0; k < r->count; k++) {
        struct ring *x = &r->rings[k];

        if (x->from <= n && n <= x->to && (!best || x->to - x->from < best->to - best->from))
            best = x;
    }
    return best;
}

/** The register among those that stay where they are, which the address is off; -1: none. */
static int still_register(const struct asm_state *a, const struct ir_insn *i)
{
    const struct ir_habits *h = a->f->habits;
    struct address r = address_of(a->f, i->arg[0], i->disp);
    const struct ir_insn *d = &a->f->insns[r.root];
    uint32_t reg;

    if (!h || d->op != IR_GET || d->disp < (int32_t)h->base || r.at < -MAX_FRAME ||
        r.at > MAX_FRAME)
        return -1;
    reg = ((uint32_t)d->disp - h->base) / 8;
    if (reg == h->frame && r.at < 0)
        reg = h->stack;
    return reg < 32 && (h->still >> reg & 1) ? (int)reg : -1;
}

void memos_find(struct asm_state *a)
{
    const struct ir_func *f = a->f;
    struct rings rings;

    memset(a->has_memo, 0, f->count);
    if (!a->env->memo_count)
        return;
    find_rings(a, &rings);
    find_far_ring(a, &rings);
    for (unsigned n = 0; n < f->count; n++) {
        const struct ir_insn *i = &f->insns[n];
        struct ring *r;

        if (i->op != IR_LOAD && i->op != IR_LOADS && i->op != IR_STORE)
            continue;
        r = innermost(&rings, n);
        if (r && !r->looked)
            find_paces(a, r);
        if (a->env->memo_all ||
            (r && !is_fast(pace_of(a, r, address_of(f, i->arg[0], i->disp).root, MAX_DEPTH))))
            a->has_memo[n] = MEMO_OWN;
        else if (still_register(a, i) >= 0)
            a->has_memo[n] = MEMO_SHARED;
    }
}

int memo_new(struct asm_state *a, const struct ir_insn *i)
{
    bool write = i->op == IR_STORE;
    unsigned count = a->env->memo_count;
    unsigned n;

    if (a->has_memo[a->cur] == MEMO_SHARED)
        n = (unsigned)__builtin_popcount(a->f->habits->still & MASK(still_register(a, i))) % STILL;
    else
        n = STILL + a->h->memos[write]++ % (count - STILL);
    return (int)((write ? count : 0) + n);
}

static struct rm memo_field(const struct asm_state *a, const struct stub *s, unsigned field)
{
    const struct host_env *env = a->env;
    int64_t at = env->memo + (int64_t)env->memo_stride * a->f->insns[s->insn].aux;

    return rm_mem(REG_CONTEXT, at + 16 * s->memo + field);
}
#define MEMO_TAG    0
#define MEMO_ADDEND 8

/** Go to the stub unless base + @disp, with @align - 1 as low bits, is in the memo's page. */
static uint8_t *compare(struct asm_state *a, const struct stub *s, unsigned base, int32_t disp,
                        unsigned align)
{
    if (disp)
        emit_lea(&a->e, true, RAX, rm_mem(base, disp));
    else
        emit_mov(&a->e, true, RAX, base);
    emit_group1(&a->e, G1_OR, true, rm_reg(RAX), 4095 & -(int32_t)align);
    emit_op(&a->e, X_CMP + 2, true, RAX, memo_field(a, s, MEMO_TAG));
    return emit_jcc(&a->e, CC_NE, NULL);
}

void memo_probe(struct asm_state *a, struct stub *s, unsigned base, unsigned addend)
{
    unsigned size = (unsigned)(s->hi - s->lo);
    bool group = size != asm_insn(a)->size;

    s->from[0] = compare(a, s, base, s->hi - 1, group ? 1 : size);
    if (group) { /* of any size and alignment: is the other end less than 4096 before the page's? */
        emit_rr(&a->e, X_SUB + 2, true, RAX, base);
        emit_group1(&a->e, G1_CMP, true, rm_reg(RAX), 4095 + s->lo);
        s->from[1] = emit_jcc(&a->e, CC_G, NULL);
    }
    emit_op(&a->e, X_LOAD, true, addend, memo_field(a, s, MEMO_ADDEND));
}

void memo_miss(struct asm_state *a, const struct stub *s)
{
    const struct host_env *env = a->env;
    const struct ir_insn *i = &a->f->insns[s->insn];
    unsigned addend = s->addend < 0 ? RAX : (unsigned)s->addend;
    int64_t entry = env->tlb + (int64_t)i->aux * env->tlb_stride;
    uint8_t *miss = asm_probe(a, i, (unsigned)s->a, s->lo, s->hi, 1, addend);

    /* rcx says where the entry is, still */
    emit_op(&a->e, X_LOAD, true, RCX,
            rm_sib(REG_CONTEXT, RCX, 0,
                   entry + (i->op == IR_STORE ? env->tlb_tag_write : env->tlb_tag_read)));
    emit_op(&a->e, X_STORE, true, RCX, memo_field(a, s, MEMO_TAG));
    emit_op(&a->e, X_STORE, true, addend, memo_field(a, s, MEMO_ADDEND));
    emit_op_imm(&a->e, X_GROUP1, false, G1_OR,
                rm_mem(REG_CONTEXT, env->memo_used + (int64_t)env->memo_stride * i->aux), 4);
    emit32(&a->e, 1u << ((unsigned)s->memo / (env->memo_count / 16)));
    emit_jmp(&a->e, s->access);
    emit_fix(miss, a->e.p);
}
