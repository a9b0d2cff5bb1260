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
 * 2. Which accesses have one is a guess: a wrong one costs time only. They are those whose address
 *    is near state that their innermost loop does not set, or only moves by small constants. */
#include "cpu/host/x86_64/asm.h"

#define MAX_STEP  128 /* bytes by which a round may move an address */
#define MAX_RINGS 32

/** Ops from where a loop begins to where it goes back. */
struct ring {
    unsigned from, to;
    bool looked;          /* fast is known */
    bool fast[ASM_SLOTS]; /* the slot changes, and not by small constants */
};

struct rings {
    struct ring rings[MAX_RINGS];
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

/** The slot whose value, give or take @step, @base + @disp is; -1: none. */
static int slot_near(struct asm_state *a, uint16_t base, int64_t disp, int64_t step)
{
    struct address r = address_of(a->f, base, disp);
    const struct ir_insn *d = &a->f->insns[r.root];

    if (d->op != IR_GET || r.at < -step || r.at > step)
        return -1;
    return regs_slot(a, d->disp, d->size);
}

static void find_fast(struct asm_state *a, struct ring *r)
{
    bool changed;

    r->looked = true;
    do {
        changed = false;
        for (unsigned n = r->from; n <= r->to; n++) {
            const struct ir_insn *i = &a->f->insns[n];
            int s = i->op == IR_SET ? regs_slot(a, i->disp, i->size) : -1;
            int from;

            if (s < 0 || r->fast[s])
                continue;
            from = slot_near(a, i->arg[0], 0, MAX_STEP);
            if (from < 0 || r->fast[from])
                changed = r->fast[s] = true;
        }
    } while (changed);
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

void memos_find(struct asm_state *a)
{
    const struct ir_func *f = a->f;
    struct rings rings;

    memset(a->has_memo, 0, f->count);
    if (!a->env->memo_count)
        return;
    find_rings(a, &rings);
    for (unsigned n = 0; n < f->count; n++) {
        const struct ir_insn *i = &f->insns[n];
        struct ring *r = innermost(&rings, n);
        int s;

        if (i->op != IR_LOAD && i->op != IR_LOADS && i->op != IR_STORE)
            continue;
        a->has_memo[n] = a->env->memo_all;
        if (!r)
            continue;
        if (!r->looked)
            find_fast(a, r);
        s = slot_near(a, i->arg[0], i->disp, INT32_MAX);
        a->has_memo[n] |= s >= 0 && !r->fast[s];
    }
}

int memo_new(struct asm_state *a, const struct ir_insn *i)
{
    bool write = i->op == IR_STORE;
    unsigned count = a->env->memo_count;

    return (int)((write ? count : 0) + (a->h->memos[write]++ & (count - 1)));
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
    if (group) /* of any size and alignment: look at both ends */
        s->from[1] = compare(a, s, base, s->lo, 1);
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
