/* The cold ends of operations, emitted behind the hot code: slow paths, side exits, rare operands.
 *
 * A stub that may leave the unit first writes dirty slots to memory from where they were when the
 * op ran (its snapshot). That does no harm if it then resumes: the hot code goes on believing that
 * they are dirty. */
#include "cpu/host/x86_64/asm.h"

#include <errno.h>

struct stub *stub_new(struct asm_state *a, enum stub_kind kind)
{
    struct stub *s;

    if (a->stub_count == ASM_STUBS) {
        a->error = -E2BIG;
        a->stub_count--; /* its contents don't matter any more */
    }
    s = &a->stubs[a->stub_count++];
    *s = (struct stub){.kind = (uint8_t)kind, .insn = (uint16_t)a->cur, .addend = -1, .memo = -1};
    return s;
}

void stub_snapshot(struct asm_state *a, struct stub *s)
{
    s->snap = (uint16_t)a->place_count;
    for (unsigned n = 0; n < a->slot_count; n++) {
        const struct slot *slot = &a->slots[n];
        const struct value *v;
        struct place *p;

        if (!slot->dirty)
            continue;
        if (a->place_count == ASM_SNAPSHOTS) {
            a->error = -E2BIG;
            return;
        }
        v = &a->values[slot->val];
        p = &a->places[a->place_count++];
        *p = (struct place){.offset = (uint16_t)slot->offset, .nan = nan_place(a, slot->val)};
        if (v->reg >= 0) {
            p->kind = PLACE_REG;
            p->reg = (uint8_t)v->reg;
        } else if (v->home >= 0) {
            p->kind = PLACE_HOME;
            p->disp = (int32_t)a->slots[v->home].offset;
        } else if (v->spill >= 0) {
            p->kind = PLACE_SPILL;
            p->disp = FRAME_SPILL + 8 * v->spill;
        } else {
            p->kind = PLACE_CONST;
            p->disp = slot->val;
        }
    }
    s->snap_count = (uint16_t)(a->place_count - s->snap);
}

uint32_t stub_word(const struct asm_state *a, unsigned size, unsigned mmu, unsigned op)
{
    unsigned retired = a->insns ? a->insns - 1 : 0;

    retired = retired > a->counted ? retired - a->counted : 0;
    return a->page_offset | (uint32_t)__builtin_ctz(size) << WORD_SIZE_SHIFT |
           mmu << WORD_MMU_SHIFT | op << WORD_OP_SHIFT | retired << WORD_RETIRED;
}

static void write_place(struct asm_state *a, const struct place *p)
{
    struct rm to = rm_state(p->offset);
    int32_t imm;

    switch ((enum place_kind)p->kind) {
    case PLACE_REG:
        nan_write_place(a, p);
        if (p->reg >= XMM0)
            emit_op(&a->e, X_MOVSD + 1, false, p->reg, to);
        else
            emit_op(&a->e, X_STORE, true, p->reg, to);
        return;
    case PLACE_CONST:
        if (is_imm(a, (uint16_t)p->disp, 8, &imm)) {
            emit_store_imm(&a->e, true, to, imm);
            return;
        }
        emit_const(&a->e, RAX, (uint64_t)a->f->insns[p->disp].imm);
        break;
    case PLACE_SPILL:
        emit_op(&a->e, X_LOAD, true, RAX, rm_frame(p->disp));
        break;
    case PLACE_HOME:
        emit_op(&a->e, X_LOAD, true, RAX, rm_state(p->disp));
        break;
    }
    emit_op(&a->e, X_STORE, true, RAX, to);
}

/** rax = value of register @reg of either kind. */
static void gpr_from(struct asm_state *a, unsigned dst, unsigned reg)
{
    if (reg >= XMM0)
        emit_rr(&a->e, X_MOVD_FROM, true, reg, dst);
    else
        emit_mov(&a->e, true, dst, reg);
}

static void slow_call(struct asm_state *a, const struct stub *s, enum common_routine r)
{
    emit_lea(&a->e, true, RAX, rm_mem((unsigned)s->a, s->imm));
    emit_push_imm(&a->e, s->word);
    emit_call(&a->e, a->h->common[r]);
}

/** The addend of the access's group does not serve: probe for this access alone. The leader says
 * so to the others. */
static void probe_alone(struct asm_state *a, const struct stub *s)
{
    const struct ir_insn *i = &a->f->insns[s->insn];
    struct rm m = rm_sib(RAX, (unsigned)s->a, 0, i->disp);
    uint8_t *miss;

    if (s->addend < 0)
        return;
    if (s->leads)
        emit_const(&a->e, (unsigned)s->addend, 0);
    miss = asm_probe(a, i, (unsigned)s->a, i->disp, i->disp + i->size, 1, RAX);
    if (s->kind == STUB_LOAD)
        asm_load_from(a, i, (unsigned)s->dst, m);
    else
        asm_store_to(a, i, s->b, m);
    emit_jmp(&a->e, s->resume);
    emit_fix(miss, a->e.p);
}

static void slow_load(struct asm_state *a, const struct stub *s)
{
    const struct ir_insn *i = &a->f->insns[s->insn];
    unsigned dst = (unsigned)s->dst;
    bool w = i->type == IR_I64;

    probe_alone(a, s);
    slow_call(a, s, COMMON_LOAD);
    if (ir_is_float(i->type))
        emit_rr(&a->e, X_MOVD_TO, i->size == 8, dst, RAX);
    else if (i->op == IR_LOADS && i->size == 1)
        emit_rr(&a->e, X_MOVSX8, w, dst, RAX);
    else if (i->op == IR_LOADS && i->size == 2)
        emit_rr(&a->e, X_MOVSX16, w, dst, RAX);
    else if (i->op == IR_LOADS && i->size == 4 && w)
        emit_rr(&a->e, X_MOVSXD, true, dst, RAX);
    else
        emit_mov(&a->e, true, dst, RAX);
}

static void slow_store(struct asm_state *a, const struct stub *s)
{
    const struct ir_insn *i = &a->f->insns[s->insn];

    probe_alone(a, s);
    if (s->b >= 0)
        gpr_from(a, RCX, (unsigned)s->b);
    else
        emit_const(&a->e, RCX, (uint64_t)a->f->insns[i->arg[1]].imm);
    slow_call(a, s, COMMON_STORE);
}

static void slow_lr(struct asm_state *a, const struct stub *s)
{
    slow_call(a, s, COMMON_LR);
    emit_mov(&a->e, true, (unsigned)s->dst, RAX);
}

static void slow_atomic(struct asm_state *a, const struct stub *s)
{
    bool w = a->f->insns[s->insn].size == 8;

    emit_mov(&a->e, true, RCX, (unsigned)s->b);
    if (s->kind != STUB_AMO)
        emit_op(&a->e, X_STORE, true, s->arg, rm_frame(FRAME_ARG));
    slow_call(a, s, s->kind == STUB_AMO ? COMMON_ATOMIC : COMMON_CAS);
    if (s->kind == STUB_SC) {
        emit_rr(&a->e, X_CMP + 2, w, RAX, (unsigned)s->b);
        emit_op(&a->e, X_SETCC + CC_NE, false, 0, rm_reg(RAX));
        emit_rr(&a->e, X_MOVZX8, false, (unsigned)s->dst, RAX);
    } else {
        emit_mov(&a->e, w, (unsigned)s->dst, RAX);
    }
}

/* --- Leaving */

/** pc = page base + @delta. */
static void set_pc(struct asm_state *a, int64_t delta)
{
    emit_op(&a->e, X_LOAD, true, RAX, rm_state(a->env->code_page));
    if (delta)
        emit_group1(&a->e, G1_ADD, true, rm_reg(RAX), (int32_t)delta);
    emit_op(&a->e, X_STORE, true, RAX, rm_state(a->env->pc));
}

static void count(struct asm_state *a, uint32_t retired)
{
    if (retired)
        emit_group1(&a->e, G1_ADD, true, rm_state(a->env->instret), (int32_t)retired);
}

static void leave(struct asm_state *a, enum host_leave_kind kind, uint32_t index, const void *owner)
{
    emit_const(&a->e, RAX, (uint64_t)index << 32 | kind);
    emit_const(&a->e, RDX, (uint64_t)(uintptr_t)owner);
    emit_jmp(&a->e, a->h->common[COMMON_LEAVE]);
}

static void exit_stub(struct asm_state *a, const struct stub *s)
{
    a->code->exits[s->arg].stub = (uint32_t)(a->e.p - a->entry);
    set_pc(a, s->imm);
    leave(a, HOST_LEAVE_DIRECT, s->arg, a->owner);
}

static void status_stub(struct asm_state *a, const struct stub *s)
{
    if (!s->a) {
        count(a, s->arg);
        set_pc(a, s->imm);
    }
    leave(a, HOST_LEAVE_STATUS, 0, NULL);
}

/* --- Rare operands */

/** Divisor (rcx) 0, or -1 if signed: rax, rdx = quotient, remainder. */
static void division(struct asm_state *a, const struct stub *s)
{
    bool w = s->a;
    uint8_t *minus_one = NULL, *done = NULL;

    if (s->b) {
        emit_rr(&a->e, X_TEST, w, RCX, RCX);
        minus_one = emit_jcc_short(&a->e, CC_NE);
    }
    emit_mov(&a->e, true, RDX, RAX);
    emit_const(&a->e, RAX, UINT64_MAX);
    if (s->b) {
        done = emit_jmp_short(&a->e);
        emit_here(&a->e, minus_one);
        emit_op(&a->e, X_GROUP3, w, G3_NEG, rm_reg(RAX));
        emit_const(&a->e, RDX, 0);
        emit_here(&a->e, done);
    }
}

static void load_nan(struct asm_state *a, const struct stub *s)
{
    bool is32 = a->f->insns[s->insn].type == IR_F32;

    emit_op(&a->e, is32 ? X_MOVSS : X_MOVSD, false, (unsigned)s->dst,
            rm_constant(a, is32 ? CONSTANT_NAN32 : CONSTANT_NAN64));
}

/** The result of a fused operation of a * b is a NaN. If the product alone is invalid, say so. */
static void fused_nan(struct asm_state *a, const struct stub *s)
{
    bool is32 = a->f->insns[s->insn].type == IR_F32;
    struct rm mxcsr = rm_state(a->env->mxcsr), save = rm_frame(FRAME_SAVE);

    emit_op(&a->e, X_MXCSR, false, 3, mxcsr);
    emit_rr(&a->e, X_MOVAPS, false, XMM0, (unsigned)s->a);
    emit_rr(&a->e, X_MULS | (is32 ? X_PF3 : X_PF2), false, XMM0, (unsigned)s->b);
    emit_op(&a->e, X_MXCSR, false, 3, save);
    emit_op(&a->e, X_LOAD, false, RAX, save);
    emit_group1(&a->e, G1_AND, false, rm_reg(RAX), 1);
    emit_op(&a->e, X_OR, false, RAX, mxcsr);
    emit_op(&a->e, X_MXCSR, false, 2, mxcsr);
    load_nan(a, s);
}

/** dst, a: the operands, of which ucomis said equal or unordered; dst = the minimum or maximum. */
static void min_max(struct asm_state *a, const struct stub *s)
{
    const struct ir_insn *i = &a->f->insns[s->insn];
    unsigned p66 = i->type == IR_F64 ? X_P66 : 0, x = (unsigned)s->dst, y = (unsigned)s->a;
    uint8_t *unordered, *done1, *done2, *y_nan, *x_ok;

    unordered = emit_jcc_short(&a->e, CC_P);
    emit_rr(&a->e, i->op == IR_FMIN ? X_ORPS : X_ANDPS, false, x, y); /* signs of zeros */
    done1 = emit_jmp_short(&a->e);
    emit_here(&a->e, unordered);
    emit_rr(&a->e, X_UCOMIS | p66, false, y, y);
    y_nan = emit_jcc_short(&a->e, CC_P);
    emit_rr(&a->e, X_MOVAPS, false, x, y);
    done2 = emit_jmp_short(&a->e);
    emit_here(&a->e, y_nan);
    emit_rr(&a->e, X_UCOMIS | p66, false, x, x);
    x_ok = emit_jcc_short(&a->e, CC_NP);
    emit_op(&a->e, p66 ? X_MOVSD : X_MOVSS, false, x,
            rm_constant(a, p66 ? CONSTANT_NAN64 : CONSTANT_NAN32));
    emit_here(&a->e, done1);
    emit_here(&a->e, done2);
    emit_here(&a->e, x_ok);
}

/** dst is the minimum of its type: right if a is below, else NaN or too large: the maximum. */
static void to_signed(struct asm_state *a, const struct stub *s)
{
    bool w = a->f->insns[s->insn].type == IR_I64;
    unsigned p66 = s->b ? 0 : X_P66;
    uint8_t *below;

    emit_rr(&a->e, X_XORPS, false, XMM0, XMM0);
    emit_rr(&a->e, X_UCOMIS | p66, false, XMM0, (unsigned)s->a);
    below = emit_jcc_short(&a->e, CC_A); /* 0 > a; not taken if unordered */
    emit_const(&a->e, (unsigned)s->dst, w ? INT64_MAX : INT32_MAX);
    emit_here(&a->e, below);
}

static void to_unsigned(struct asm_state *a, const struct stub *s)
{
    const struct ir_insn *i = &a->f->insns[s->insn];
    void (*fn)(void) = fallback_for(IR_FTOU, a->f->insns[i->arg[0]].type);

    emit_op(&a->e, X_MOVSD + 1, false, (unsigned)s->a, rm_frame(FRAME_ARG));
    emit_store_imm(&a->e, true, rm_frame(FRAME_ARG + 8), i->aux);
    emit_store_imm(&a->e, true, rm_frame(FRAME_ARG + 16), i->type == IR_I64 ? 64 : 32);
    emit_const(&a->e, RAX, (uint64_t)(uintptr_t)fn);
    emit_push_imm(&a->e, 0);
    emit_call(&a->e, a->h->common[COMMON_CALL_FP]);
    emit_mov(&a->e, true, (unsigned)s->dst, RAX);
}

/** From an unsigned integer of 2^63 or more: half of it, the lost bit kept sticky, doubled. */
static void from_unsigned(struct asm_state *a, const struct stub *s)
{
    unsigned prefix = a->f->insns[s->insn].type == IR_F32 ? X_PF3 : X_PF2, dst = (unsigned)s->dst;

    emit_mov(&a->e, true, RAX, (unsigned)s->a);
    emit_mov(&a->e, false, RCX, RAX);
    emit_group1(&a->e, G1_AND, false, rm_reg(RCX), 1);
    emit_shift(&a->e, SH_SHR, true, rm_reg(RAX), 1);
    emit_rr(&a->e, X_OR + 2, true, RAX, RCX);
    emit_rr(&a->e, X_CVTI2S | prefix, true, dst, RAX);
    emit_rr(&a->e, X_ADDS | prefix, false, dst, dst);
}

static void emit_stub(struct asm_state *a, const struct stub *s)
{
    switch ((enum stub_kind)s->kind) {
    case STUB_LOAD:
        slow_load(a, s);
        break;
    case STUB_STORE:
        slow_store(a, s);
        break;
    case STUB_LR:
        slow_lr(a, s);
        break;
    case STUB_ZERO:
        slow_call(a, s, COMMON_ZERO);
        break;
    case STUB_AMO:
    case STUB_CAS:
    case STUB_SC:
        slow_atomic(a, s);
        break;
    case STUB_BRANCH:
        count(a, s->arg);
        asm_exit_to(a, s->imm);
        break;
    case STUB_EXIT:
        exit_stub(a, s);
        break;
    case STUB_ATTENTION:
        set_pc(a, s->imm);
        leave(a, HOST_LEAVE_ATTENTION, 0, a->owner);
        break;
    case STUB_STATUS:
        status_stub(a, s);
        break;
    case STUB_DIV:
        division(a, s);
        break;
    case STUB_NAN:
        nan_stub(a, s);
        break;
    case STUB_FMA_NAN:
        fused_nan(a, s);
        break;
    case STUB_UNBOX:
        load_nan(a, s);
        break;
    case STUB_FMINMAX:
        min_max(a, s);
        break;
    case STUB_FTOI:
        to_signed(a, s);
        break;
    case STUB_FTOU:
        to_unsigned(a, s);
        break;
    case STUB_UTOF:
        from_unsigned(a, s);
        break;
    }
}

void stubs_emit(struct asm_state *a)
{
    for (unsigned n = 0; n < a->stub_count && !a->error; n++) {
        struct stub s = a->stubs[n]; /* emitting may add stubs */

        if (!s.from[0])
            continue;
        for (unsigned k = 0; k < 2; k++)
            if (s.from[k])
                emit_fix(s.from[k], a->e.p);
        if (s.memo >= 0) {
            if (!asm_has_room(a))
                return;
            memo_miss(a, &s);
        }
        for (unsigned k = 0; k < s.snap_count; k++) {
            if (!asm_has_room(a))
                return;
            write_place(a, &a->places[s.snap + k]);
        }
        if (!asm_has_room(a))
            return;
        emit_stub(a, &s);
        if (s.resume)
            emit_jmp(&a->e, s.resume);
    }
}
