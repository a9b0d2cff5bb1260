/* Register allocation: liveness beforehand, then as code is emitted, one op after the other.
 *
 * A value is loaded when first used (a GET emits nothing) and stored when memory must be exact. If
 * registers run out, the value goes whose next use is farthest: a dirty slot's by writing it home,
 * which is due anyway; others to the stack frame. Invariants: asm.h. */
#include "cpu/host/x86_64/asm.h"

#include "base/bits.h"

#include <errno.h>

static bool is_xmm(unsigned reg)
{
    return reg >= XMM0;
}
static uint32_t pool_of(enum ir_type t)
{
    return ir_is_float(t) ? XMM_POOL : GPR_POOL;
}
/** Registers for value @v. */
static uint32_t pool_for(const struct asm_state *a, uint16_t v)
{
    return v < a->f->count ? pool_of(a->f->insns[v].type) : GPR_POOL;
}

/* Made on first use; -1 also if there are too many. */
int regs_slot(struct asm_state *a, int32_t offset, unsigned size)
{
    unsigned n;

    if (size != 8 || offset < 0 || (offset & 7) || offset / 8 >= ASM_SLOT_MAP)
        return -1;
    n = a->slot_map[offset / 8];
    if (n)
        return (int)n - 1;
    if (a->slot_count == ASM_SLOTS)
        return -1;
    n = a->slot_count++;
    a->slots[n] = (struct slot){.offset = (uint32_t)offset,
                                .val = ASM_NONE,
                                .set = ASM_NONE,
                                .final = ASM_NONE,
                                .loop_reg = -1};
    a->slot_map[offset / 8] = (uint8_t)(n + 1);
    return (int)n;
}

/* --- Liveness */

static bool looks_at_state(const struct ir_insn *i)
{
    unsigned flags = ir_op_info[i->op].flags;

    if (flags & (IR_FAULT | IR_EXIT))
        return true;
    return (i->op == IR_GET || i->op == IR_SET) && (i->size != 8 || (i->disp & 7));
}

static void keep(struct asm_state *a, uint16_t v, unsigned at)
{
    if (a->values[v].last_use < at)
        a->values[v].last_use = (uint16_t)at;
}

/** The slot's pending value is overwritten: it was needed up to the last op that could look. */
static void end_pending(struct asm_state *a, struct slot *s, unsigned last_look)
{
    if (s->set != ASM_NONE && last_look > s->set_at)
        keep(a, s->set, last_look);
    s->set = ASM_NONE;
}

/** Do all uses take any NaN for a canonical one? Only arithmetic does. */
static bool takes_any_nan(const struct ir_insn *i)
{
    return (i->op >= IR_FADD && i->op <= IR_FCLASS) || i->op == IR_FTOI || i->op == IR_FTOU ||
           i->op == IR_FCVT;
}

/** Where the loop goes back, if @f has one. */
static unsigned find_loop_end(const struct ir_func *f)
{
    unsigned last = f->count - 1;

    if (f->insns[last].op == IR_EXIT_DIRECT && f->insns[last].imm == f->start_offset)
        return last;
    if (f->insns[last - 1].op == IR_BRANCH && f->insns[last - 1].imm == f->start_offset)
        return last - 1;
    return 0; /* it was a branch that is never taken */
}

/** At LOOP, @at: what was got is live around the loop, as the slot's value if it is written. */
static void loop_liveness(struct asm_state *a, unsigned at)
{
    const struct ir_func *f = a->f;

    a->loop_end = find_loop_end(f);
    for (unsigned n = at; n < f->count; n++)
        if (f->insns[n].op == IR_SET) {
            int s = regs_slot(a, f->insns[n].disp, f->insns[n].size);

            if (s >= 0)
                a->slots[s].modified = true;
        }
    for (unsigned n = 0; n < at; n++) {
        struct slot *s = &a->slots[regs_slot(a, f->insns[n].disp, 8)];

        if (s->modified) {
            s->set = (uint16_t)n;
            s->set_at = (uint16_t)at;
        } else {
            keep(a, (uint16_t)n, a->loop_end);
        }
    }
}

/** The slots of the region's bound state, and a register for each. */
static void bind_region(struct asm_state *a)
{
    const struct ir_func *f = a->f;
    int gpr = R15, xmm = XMM15;

    for (unsigned n = 1; n < f->count && f->insns[n].aux == IR_BOUND && f->insns[n].op == IR_GET;
         n++) {
        int s = regs_slot(a, f->insns[n].disp, 8);
        int *next = ir_is_float(f->insns[n].type) ? &xmm : &gpr;

        if (s < 0)
            continue;
        while (!((GPR_POOL | XMM_POOL) >> *next & 1))
            --*next;
        a->slots[s].loop_reg = (int8_t)(*next)--;
    }
    for (unsigned n = 0; n < f->count; n++)
        if (f->insns[n].op == IR_SET) {
            int s = regs_slot(a, f->insns[n].disp, f->insns[n].size);

            if (s >= 0)
                a->slots[s].modified = true;
        }
}

/** Between a region's stretches: values die, but for what bound slots hold up to the last exit. */
static void end_stretch(struct asm_state *a, unsigned last_look)
{
    for (unsigned n = 0; n < a->slot_count; n++) {
        struct slot *s = &a->slots[n];

        if (s->set != ASM_NONE && s->loop_reg >= 0 &&
            ir_is_float(a->f->insns[s->set].type) == is_xmm((unsigned)s->loop_reg))
            a->values[s->set].want = s->loop_reg;
        end_pending(a, s, last_look);
    }
}

/** What is computed in place of an operand that dies had best have that operand where it is wanted
 * itself. */
static void pass_wants(struct asm_state *a)
{
    const struct ir_func *f = a->f;

    for (unsigned n = f->count; n--;) {
        const struct ir_insn *i = &f->insns[n];
        const struct ir_insn *d = i->nargs ? &f->insns[i->arg[0]] : NULL;

        if (a->values[n].want >= 0 && d && a->values[i->arg[0]].last_use == n &&
            a->values[i->arg[0]].want < 0 && d->op != IR_GET && d->op != IR_CONST &&
            ir_is_float(d->type) == ir_is_float(i->type))
            a->values[i->arg[0]].want = a->values[n].want;
    }
}

void regs_liveness(struct asm_state *a)
{
    const struct ir_func *f = a->f;
    unsigned last_look = 0;

    a->loop = NULL;
    if (a->label_count)
        bind_region(a);
    for (unsigned n = 0; n < f->count; n++) {
        const struct ir_insn *i = &f->insns[n];
        int s = -1;

        a->values[n] = (struct value){.last_use = (uint16_t)n,
                                      .spill = -1,
                                      .home = -1,
                                      .reg = -1,
                                      .want = -1,
                                      .no_nan = true};
        for (unsigned k = 0; k < i->nargs; k++) {
            keep(a, i->op == IR_EXIT_INDIRECT ? before_even(f, i->arg[k]) : i->arg[k], n);
            if (!takes_any_nan(i))
                a->values[i->arg[k]].no_nan = false;
        }
        if (looks_at_state(i))
            last_look = n;
        if (i->op == IR_LOOP)
            loop_liveness(a, n);
        if (i->op == IR_LABEL)
            end_stretch(a, last_look);
        if (i->op == IR_GET || i->op == IR_SET)
            s = regs_slot(a, i->disp, i->size);
        if (s < 0)
            continue;
        if (i->op == IR_GET && i->aux == IR_BOUND) {
            a->slots[s].set = (uint16_t)n;
            a->slots[s].set_at = (uint16_t)n;
        } else if (i->op == IR_GET && a->slots[s].set != ASM_NONE) {
            keep(a, a->slots[s].set, n);
        } else if (i->op == IR_SET) {
            end_pending(a, &a->slots[s], last_look);
            a->slots[s].set = a->slots[s].final = i->arg[0];
            a->slots[s].set_at = (uint16_t)n;
        }
    }
    end_stretch(a, last_look);
    pass_wants(a);
}

/* --- Moving values */

static struct rm slot_rm(const struct asm_state *a, unsigned slot)
{
    return rm_state(a->slots[slot].offset);
}
static struct rm spill_rm(unsigned spill)
{
    return rm_frame(FRAME_SPILL + 8 * spill);
}

static void load_reg(struct asm_state *a, unsigned reg, struct rm from)
{
    if (is_xmm(reg))
        emit_op(&a->e, X_MOVSD, false, reg, from);
    else
        emit_op(&a->e, X_LOAD, true, reg, from);
}
static void store_reg(struct asm_state *a, struct rm to, unsigned reg)
{
    if (is_xmm(reg))
        emit_op(&a->e, X_MOVSD + 1, false, reg, to);
    else
        emit_op(&a->e, X_STORE, true, reg, to);
}
static void move_reg(struct asm_state *a, unsigned dst, unsigned src)
{
    if (is_xmm(dst))
        emit_rr(&a->e, X_MOVAPS, false, dst, src);
    else
        emit_mov(&a->e, true, dst, src);
}

/** Memory that holds @v; false if none does. */
static bool in_memory(const struct asm_state *a, const struct value *v, struct rm *ret)
{
    if (v->home >= 0)
        *ret = slot_rm(a, (unsigned)v->home);
    else if (v->spill >= 0)
        *ret = spill_rm((unsigned)v->spill);
    else
        return false;
    return true;
}

/** Emit @v's value into @reg, from wherever it is. */
static void fetch(struct asm_state *a, uint16_t n, unsigned reg)
{
    const struct value *v = &a->values[n];
    struct rm m;

    if (v->reg >= 0)
        move_reg(a, reg, (unsigned)v->reg);
    else if (in_memory(a, v, &m))
        load_reg(a, reg, m);
    else if (is_const(a, n))
        emit_const(&a->e, reg,
                   a->f->insns[n].type == IR_I32 ? (uint32_t)a->f->insns[n].imm
                                                 : (uint64_t)a->f->insns[n].imm);
    else if (!a->error)
        a->error = -EINVAL; /* used before it was computed: ir_verify() refuses that */
}

static void write_slot(struct asm_state *a, unsigned slot)
{
    struct slot *s = &a->slots[slot];
    struct value *v = &a->values[s->val];
    int32_t imm;

    nan_settle(a, s->val);
    if (v->reg >= 0) {
        store_reg(a, slot_rm(a, slot), (unsigned)v->reg);
    } else if (v->home < 0 && v->spill < 0 && is_imm(a, s->val, 8, &imm)) {
        emit_store_imm(&a->e, true, slot_rm(a, slot), imm);
    } else {
        fetch(a, s->val, RAX);
        store_reg(a, slot_rm(a, slot), RAX);
    }
    s->dirty = false;
    if (v->home < 0)
        v->home = (int16_t)slot;
}

static void release_spill(struct asm_state *a, struct value *v)
{
    if (v->spill >= 0)
        a->spills &= ~BIT(v->spill);
    v->spill = -1;
}

/** Number of a free stack spill; -1: none. */
static int free_spill(struct asm_state *a)
{
    if (!(~a->spills & MASK(ASM_SPILLS)))
        for (unsigned n = 0; n < a->f->count + a->group_count; n++)
            if ((n < a->cur || n >= a->f->count) && a->values[n].last_use < a->cur)
                release_spill(a, &a->values[n]);
    return ~a->spills & MASK(ASM_SPILLS) ? __builtin_ctzll(~a->spills) : -1;
}

/** Take the value out of @reg, keeping it somewhere. */
static void evict(struct asm_state *a, unsigned reg)
{
    uint16_t n = a->regs[reg];
    struct value *v = &a->values[n];
    int spill;

    nan_settle(a, n);
    for (unsigned s = 0; s < a->slot_count; s++)
        if (a->slots[s].dirty && a->slots[s].val == n)
            write_slot(a, s);
    if (v->home < 0 && v->spill < 0 && !is_const(a, n)) {
        spill = free_spill(a);
        if (spill < 0) {
            a->error = -E2BIG;
        } else {
            v->spill = (int16_t)spill;
            a->spills |= BIT(spill);
            store_reg(a, spill_rm((unsigned)spill), reg);
        }
    }
    v->reg = -1;
    a->regs[reg] = ASM_NONE;
}

bool regs_is_live(const struct asm_state *a, unsigned reg)
{
    return a->regs[reg] != ASM_NONE && a->values[a->regs[reg]].last_use > a->cur;
}

/** The register in @candidates whose value is used last. */
static unsigned farthest(const struct asm_state *a, uint32_t candidates)
{
    const struct ir_func *f = a->f;
    unsigned end = MIN(f->count, a->cur + 128);

    for (unsigned n = a->cur; n < end; n++) /* operands to come of this op, too */
        for (unsigned k = 0; k < f->insns[n].nargs + (a->group_of[n] ? 1u : 0); k++) {
            unsigned v = k < f->insns[n].nargs ? f->insns[n].arg[k] : f->count + a->group_of[n] - 1;
            int reg = a->values[v].reg;

            if (reg < 0 || !(candidates >> reg & 1))
                continue;
            if (!(candidates & (candidates - 1)))
                return (unsigned)__builtin_ctz(candidates);
            candidates &= ~(1u << reg);
        }
    return (unsigned)__builtin_ctz(candidates);
}

/** Forget that @reg holds a value that nobody needs any more. */
static void drop(struct asm_state *a, unsigned reg)
{
    uint16_t n = a->regs[reg];

    if (n == ASM_NONE)
        return;
    a->values[n].reg = -1;
    a->regs[reg] = ASM_NONE;
}

unsigned regs_alloc(struct asm_state *a, uint32_t pool)
{
    uint32_t candidates = pool & ~a->pinned, empty = 0;
    unsigned reg;

    for (uint32_t m = candidates; m; m &= m - 1) {
        unsigned r = (unsigned)__builtin_ctz(m);

        if (a->regs[r] == ASM_NONE)
            empty |= 1u << r;
        else if (a->values[a->regs[r]].last_use < a->cur) {
            release_spill(a, &a->values[a->regs[r]]);
            drop(a, r);
            empty |= 1u << r;
        }
    }
    if (empty) {
        reg = (unsigned)__builtin_ctz(empty);
    } else {
        reg = farthest(a, candidates);
        evict(a, reg);
    }
    a->pinned |= 1u << reg;
    return reg;
}

static void bind(struct asm_state *a, uint16_t n, unsigned reg)
{
    a->values[n].reg = (int8_t)reg;
    a->regs[reg] = n;
}

unsigned regs_use(struct asm_state *a, uint16_t n)
{
    struct value *v = &a->values[n];

    if (v->reg < 0) {
        unsigned reg = regs_alloc(a, pool_for(a, n));

        fetch(a, n, reg);
        bind(a, n, reg);
    }
    a->pinned |= 1u << v->reg;
    return (unsigned)v->reg;
}

struct rm regs_use_rm(struct asm_state *a, uint16_t n)
{
    struct rm m;

    if (a->values[n].reg < 0 && dies_here(a, n) && in_memory(a, &a->values[n], &m))
        return m;
    return rm_reg(regs_use(a, n));
}

/** Is @reg to be had for nothing? */
static bool is_free(const struct asm_state *a, unsigned reg)
{
    return !(a->pinned >> reg & 1) &&
           (a->regs[reg] == ASM_NONE || a->values[a->regs[reg]].last_use < a->cur);
}

/** Registers for the result, just the wanted one if it is free. */
static uint32_t result_pool(const struct asm_state *a)
{
    int want = a->values[a->cur].want;

    if (want >= 0 && is_free(a, (unsigned)want))
        return 1u << want;
    return pool_of(asm_insn(a)->type);
}

unsigned regs_def(struct asm_state *a)
{
    unsigned reg = regs_alloc(a, result_pool(a));

    bind(a, (uint16_t)a->cur, reg);
    return reg;
}

unsigned regs_def_reuse(struct asm_state *a, uint16_t n)
{
    struct value *v = &a->values[n];
    unsigned reg = (unsigned)v->reg;

    if (v->reg < 0 || !dies_here(a, n) || is_xmm(reg) != ir_is_float(asm_insn(a)->type) ||
        !(result_pool(a) >> reg & 1))
        return regs_def(a);
    v->reg = -1;
    bind(a, (uint16_t)a->cur, reg);
    a->pinned |= 1u << reg;
    return reg;
}

unsigned regs_def_late(struct asm_state *a, uint16_t n)
{
    int want = a->values[a->cur].want;
    uint16_t held = want >= 0 ? a->regs[want] : ASM_NONE;

    if (held == ASM_NONE || (a->pinned >> want & 1) || a->values[held].last_use != a->cur)
        return regs_def_reuse(a, n);
    release_spill(a, &a->values[held]);
    drop(a, (unsigned)want);
    bind(a, (uint16_t)a->cur, (unsigned)want);
    a->pinned |= 1u << want;
    return (unsigned)want;
}

bool regs_wants_other(const struct asm_state *a, uint16_t n)
{
    int want = a->values[a->cur].want;

    return want >= 0 && a->values[n].reg != want && is_free(a, (unsigned)want);
}

unsigned regs_def_from(struct asm_state *a, uint16_t n)
{
    struct value *v = &a->values[n];
    unsigned reg;

    if (v->reg >= 0 && dies_here(a, n)) {
        reg = (unsigned)v->reg;
        v->reg = -1;
        bind(a, (uint16_t)a->cur, reg);
        a->pinned |= 1u << reg;
        return reg;
    }
    if (v->reg >= 0)
        a->pinned |= 1u << v->reg;
    reg = regs_alloc(a, result_pool(a));
    fetch(a, n, reg);
    bind(a, (uint16_t)a->cur, reg);
    return reg;
}

unsigned regs_def_value(struct asm_state *a, uint16_t v)
{
    unsigned reg = regs_alloc(a, pool_for(a, v));

    bind(a, v, reg);
    return reg;
}

void regs_copy_to(struct asm_state *a, uint16_t v, unsigned reg)
{
    fetch(a, v, reg);
}

/* --- Guest state */

/** The slot is about to change: a value that lives only in its memory moves to a register. */
static void leave_home(struct asm_state *a, unsigned slot)
{
    uint16_t n = a->slots[slot].val;
    uint32_t pinned = a->pinned;

    if (n == ASM_NONE || a->values[n].home != (int16_t)slot)
        return;
    if (a->values[n].reg < 0 && a->values[n].spill < 0 && !is_const(a, n) &&
        a->values[n].last_use > a->cur)
        regs_use(a, n);
    a->values[n].home = -1;
    a->pinned = pinned;
}

/** Before a partial access to [@disp, @disp + @size): write back what is cached of it; with @stale,
 * forget it too. */
static void settle(struct asm_state *a, int32_t disp, unsigned size, bool stale)
{
    for (unsigned s = 0; s < a->slot_count; s++) {
        struct slot *slot = &a->slots[s];
        int64_t offset = slot->offset;

        if (slot->val == ASM_NONE || offset + 8 <= disp || disp + (int64_t)size <= offset)
            continue;
        if (slot->dirty)
            write_slot(a, s);
        if (!stale)
            continue;
        leave_home(a, s);
        slot->val = ASM_NONE;
    }
}

static void get_direct(struct asm_state *a, const struct ir_insn *i)
{
    struct rm m = rm_state(i->disp);
    unsigned reg;

    settle(a, i->disp, i->size, false);
    reg = regs_def(a);
    if (ir_is_float(i->type))
        emit_op(&a->e, i->size == 4 ? X_MOVSS : X_MOVSD, false, reg, m);
    else if (i->size == 1)
        emit_op(&a->e, X_MOVZX8, false, reg, m);
    else if (i->size == 2)
        emit_op(&a->e, X_MOVZX16, false, reg, m);
    else
        emit_op(&a->e, X_LOAD, i->size == 8, reg, m);
}

void regs_get(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    int n = regs_slot(a, i->disp, i->size);
    struct slot *s;
    struct rm m;

    if (n < 0) {
        get_direct(a, i);
        return;
    }
    s = &a->slots[n];
    if (s->val == ASM_NONE || (!s->dirty && dies_here(a, s->val))) {
        if (s->val != ASM_NONE && a->values[s->val].home == (int16_t)n)
            a->values[s->val].home = -1;
        s->val = (uint16_t)a->cur;
        s->dirty = false;
        a->values[a->cur].home = (int16_t)n;
        return;
    }
    /* another temp of the same slot: the optimizer leaves none, unless types differ */
    if (ir_is_float(i->type) == ir_is_float(a->f->insns[s->val].type)) {
        bool had_reg = a->values[s->val].reg >= 0;

        nan_settle(a, s->val);
        regs_def_from(a, s->val);
        if (s->dirty && had_reg && a->values[s->val].reg < 0)
            s->val = (uint16_t)a->cur; /* the temp took the register over */
        return;
    }
    if (s->dirty)
        write_slot(a, (unsigned)n);
    m = slot_rm(a, (unsigned)n);
    load_reg(a, regs_def(a), m);
}

static void set_direct(struct asm_state *a, const struct ir_insn *i)
{
    struct rm m = rm_state(i->disp);
    unsigned reg;

    nan_settle(a, i->arg[0]);
    reg = regs_use(a, i->arg[0]);
    settle(a, i->disp, i->size, true);
    if (is_xmm(reg)) {
        emit_op(&a->e, (i->size == 4 ? X_MOVSS : X_MOVSD) + 1, false, reg, m);
        return;
    }
    if (i->size == 2)
        emit8(&a->e, 0x66);
    emit_op(&a->e, i->size == 1 ? X_STORE8 : X_STORE, i->size == 8, reg, m);
}

void regs_set(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    uint16_t v = i->arg[0];
    int n = regs_slot(a, i->disp, i->size);

    if (n < 0) {
        set_direct(a, i);
        return;
    }
    if (a->slots[n].val == v && (a->slots[n].dirty || a->values[v].home == n))
        return;
    leave_home(a, (unsigned)n);
    a->slots[n].val = v;
    a->slots[n].dirty = true;
}

void regs_flush(struct asm_state *a)
{
    for (unsigned s = 0; s < a->slot_count; s++)
        if (a->slots[s].dirty)
            write_slot(a, s);
}

void regs_forget(struct asm_state *a)
{
    for (unsigned s = 0; s < a->slot_count; s++) {
        leave_home(a, s);
        a->slots[s].val = ASM_NONE;
    }
}

/* --- Loops */

void regs_loop(struct asm_state *a)
{
    for (unsigned n = 0; n < a->slot_count; n++) {
        struct slot *s = &a->slots[n];

        if (s->val == ASM_NONE || s->val > a->cur)
            continue;
        s->loop_reg = (int8_t)regs_use(a, s->val);
        if (!s->modified)
            continue;
        /* from the second round on, memory is stale */
        s->dirty = true;
        a->values[s->val].home = -1;
        if (s->final != ASM_NONE &&
            ir_is_float(a->f->insns[s->final].type) == is_xmm((unsigned)s->loop_reg))
            a->values[s->final].want = s->loop_reg;
    }
}

/* --- Regions */

void regs_enter_region(struct asm_state *a)
{
    for (unsigned n = 0; n < a->slot_count; n++)
        if (a->slots[n].loop_reg >= 0)
            load_reg(a, (unsigned)a->slots[n].loop_reg, slot_rm(a, n));
}

void regs_label(struct asm_state *a)
{
    const struct ir_func *f = a->f;

    /* what earlier stretches left in spills is nobody's any more */
    for (unsigned n = 0; n < a->cur; n++)
        a->values[n].spill = a->values[n].reg = -1;
    for (unsigned n = 0; n < a->group_count; n++)
        a->values[f->count + n].spill = a->values[f->count + n].reg = -1;
    a->spills = 0;
    memset(a->regs, 0xff, sizeof(a->regs));
    for (unsigned n = 0; n < a->slot_count; n++) {
        a->slots[n].val = ASM_NONE;
        a->slots[n].dirty = false;
    }
    for (unsigned n = a->cur + 1; n < f->count && f->insns[n].op == IR_GET; n++) {
        int s = f->insns[n].aux == IR_BOUND ? regs_slot(a, f->insns[n].disp, 8) : -1;

        if (s < 0 || a->slots[s].loop_reg < 0)
            continue;
        bind(a, (uint16_t)n, (unsigned)a->slots[s].loop_reg);
        a->slots[s].val = (uint16_t)n;
        a->slots[s].dirty = a->slots[s].modified;
        if (!a->slots[s].modified)
            a->values[n].home = (int16_t)s;
    }
}

/** Is @slot's value where the head of the loop wants it? */
static bool in_place(const struct asm_state *a, const struct slot *s)
{
    return s->loop_reg < 0 || (s->val != ASM_NONE && a->values[s->val].reg == s->loop_reg);
}

bool regs_loop_close(struct asm_state *a)
{
    bool moves = false;

    for (unsigned n = 0; n < a->slot_count; n++) {
        if (a->slots[n].loop_reg < 0 && a->slots[n].dirty)
            write_slot(a, n);
        else if (a->slots[n].dirty)
            nan_settle(a, a->slots[n].val);
        moves |= !in_place(a, &a->slots[n]);
    }
    return moves;
}

/** Emit the load of @slot's value into its register at the head, which no other move reads. */
static void restore(struct asm_state *a, unsigned slot)
{
    struct slot *s = &a->slots[slot];

    if (s->val == ASM_NONE)
        load_reg(a, (unsigned)s->loop_reg, slot_rm(a, slot));
    else
        fetch(a, s->val, (unsigned)s->loop_reg);
}

void regs_loop_moves(struct asm_state *a)
{
    int8_t from[ASM_SLOTS]; /* register that each pending move reads; -1: memory */
    bool pending[ASM_SLOTS];
    unsigned left = 0;

    for (unsigned n = 0; n < a->slot_count; n++) {
        const struct slot *s = &a->slots[n];

        pending[n] = !in_place(a, s);
        from[n] = s->val == ASM_NONE ? -1 : a->values[s->val].reg;
        left += pending[n];
    }
    while (left) {
        bool progress = false;

        for (unsigned n = 0; n < a->slot_count; n++) {
            bool read = false;

            for (unsigned k = 0; k < a->slot_count && pending[n]; k++)
                read |= k != n && pending[k] && from[k] == a->slots[n].loop_reg;
            if (!pending[n] || read)
                continue;
            if (from[n] >= 0)
                move_reg(a, (unsigned)a->slots[n].loop_reg, (unsigned)from[n]);
            else
                restore(a, n);
            pending[n] = false;
            left--;
            progress = true;
        }
        if (progress)
            continue;
        /* a cycle: free one of its registers by way of a scratch register */
        for (unsigned n = 0; n < a->slot_count; n++)
            if (pending[n] && from[n] >= 0) {
                unsigned scratch = is_xmm((unsigned)from[n]) ? XMM0 : RAX;
                int8_t moved = from[n];

                move_reg(a, scratch, (unsigned)moved);
                for (unsigned k = 0; k < a->slot_count; k++)
                    if (pending[k] && from[k] == moved)
                        from[k] = (int8_t)scratch;
                break;
            }
    }
}

void regs_dump(const struct asm_state *a, FILE *out)
{
    static const char *const names[X86_REGS] = {
        "rax",  "rcx",  "rdx",  "rbx",  "rsp",   "rbp",   "rsi",   "rdi",   "r8",    "r9",   "r10",
        "r11",  "r12",  "r13",  "r14",  "r15",   "xmm0",  "xmm1",  "xmm2",  "xmm3",  "xmm4", "xmm5",
        "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"};

    for (unsigned r = 0; r < X86_REGS; r++)
        if (a->regs[r] != ASM_NONE && a->values[a->regs[r]].last_use >= a->cur)
            fprintf(out, " %s=%%%u", names[r], a->regs[r]);
    for (unsigned s = 0; s < a->slot_count; s++)
        if (a->slots[s].dirty)
            fprintf(out, " [%u]=%%%u", a->slots[s].offset, a->slots[s].val);
    fprintf(out, "\n");
}
