/* Code selection: entry, exits, calls of helpers.
 *
 * A direct exit within the page is a jump whose rel32 is 4-byte aligned, so host_link() can patch
 * it under running code; other exits look their pc up in the jump cache. */
#include "cpu/host/x86_64/asm.h"

#include "base/bits.h"

#include <errno.h>

/** May an exit for page base + @delta be linked? An instruction right at the page's end may depend
 * on the next one. */
static bool same_page(const struct asm_state *a, int64_t delta)
{
    return delta >= 0 && delta < 4094;
}

/** The label that the exit @from for page base + @delta leads to; -1: it leaves. */
static int label_of(const struct asm_state *a, unsigned from, int64_t delta)
{
    for (unsigned n = 0; n < a->label_count; n++)
        if (a->f->insns[a->labels[n].insn].imm == delta)
            return a->labels[n].insn <= from && a->env->single_pass ? -1 : (int)n;
    return -1;
}

/** Leave if attention is wanted; pc is page base + @delta. */
static void attention(struct asm_state *a, int64_t delta)
{
    struct stub *s = stub_new(a, STUB_ATTENTION);

    stub_snapshot(a, s);
    s->imm = delta;
    emit_group1(&a->e, G1_CMP, false, rm_state(a->env->attention), 0);
    s->from[0] = emit_jcc(&a->e, CC_NE, NULL);
}

void asm_entry(struct asm_state *a)
{
    struct stub *s = stub_new(a, STUB_ATTENTION);

    emit_group1(&a->e, G1_CMP, false, rm_state(a->env->attention), 0);
    s->from[0] = emit_jcc(&a->e, CC_NE, NULL);
    s->imm = a->f->start_offset;
}

void asm_loop(struct asm_state *a)
{
    regs_loop(a);
    emit_nop(&a->e, -(uintptr_t)a->e.p & 7);
    a->loop = a->e.p;
    attention(a, a->f->start_offset);
}

/* --- Labels */

int asm_find_labels(struct asm_state *a)
{
    const struct ir_func *f = a->f;

    a->label_count = a->fixup_count = 0;
    for (unsigned n = 0; n < f->count && f->insns[0].op == IR_LABEL; n++) {
        if (f->insns[n].op != IR_LABEL)
            continue;
        if (a->label_count == ASM_LABELS)
            return -E2BIG;
        a->labels[a->label_count++] = (struct label){.insn = (uint16_t)n};
    }
    for (unsigned n = 0; n < f->count && a->label_count; n++) {
        const struct ir_insn *i = &f->insns[n];
        int l = i->op == IR_BRANCH || i->op == IR_EXIT_DIRECT ? label_of(a, n, i->imm) : -1;

        if (l >= 0 && a->labels[l].insn < n)
            a->labels[l].back = true;
    }
    return 0;
}

void asm_label(struct asm_state *a)
{
    unsigned l = 0;

    while (a->labels[l].insn != a->cur)
        l++;
    regs_label(a);
    a->counted = a->insns;
    if (a->labels[l].back)
        emit_nop(&a->e, -(uintptr_t)a->e.p & 7);
    a->labels[l].at = a->e.p;
    for (unsigned n = 0; n < a->fixup_count; n++)
        if (a->fixups[n].label == l)
            emit_fix(a->fixups[n].rel32, a->e.p);
    if (a->labels[l].back)
        attention(a, asm_insn(a)->imm);
}

/** Jump to label @l, conditional on @cc unless that is -1. */
static void jump_label(struct asm_state *a, int cc, unsigned l)
{
    uint8_t *at = a->labels[l].at, *rel32;

    rel32 = cc < 0 ? emit_jmp(&a->e, at) : emit_jcc(&a->e, (enum x86_cc)cc, at);
    if (at)
        return;
    if (a->fixup_count == ASM_FIXUPS) {
        a->error = -E2BIG;
        return;
    }
    a->fixups[a->fixup_count++] = (struct fixup){rel32, l};
}

/** An exit to label @l. */
static void exit_to_label(struct asm_state *a, unsigned l)
{
    const struct ir_insn *i = asm_insn(a);
    bool moves = regs_loop_close(a);
    enum x86_cc cc;
    uint8_t *out;

    asm_count_retired(a, a->insns);
    a->counted = a->insns;
    if (i->op == IR_EXIT_DIRECT) {
        regs_loop_moves(a);
        if (a->labels[l].insn != a->cur + 1)
            jump_label(a, -1, l);
        return;
    }
    cc = asm_cmp(a, i->aux, i->size, i->arg[0], i->arg[1]);
    if (regs_loop_close(a) || moves) { /* operands of the comparison may have moved values */
        out = emit_jcc(&a->e, cc ^ 1, NULL);
        regs_loop_moves(a);
        jump_label(a, -1, l);
        emit_fix(out, a->e.p);
    } else {
        jump_label(a, (int)cc, l);
    }
}

void asm_count_retired(struct asm_state *a, unsigned retired)
{
    if (retired > a->counted)
        emit_group1(&a->e, G1_ADD, true, rm_state(a->env->instret),
                    (int32_t)(retired - a->counted));
}

/** A jump to the direct exit @delta, conditional on @cc unless that is -1. State is exact. */
static void jump_direct(struct asm_state *a, int cc, int64_t delta)
{
    unsigned opcode = cc < 0 ? 1 : 2;
    struct stub *s;
    struct host_exit *x;
    uint8_t *at;

    if (delta == a->f->start_offset && !a->env->single_pass) {
        if (cc < 0)
            emit_jmp(&a->e, a->entry);
        else
            emit_jcc(&a->e, (enum x86_cc)cc, a->entry);
        return;
    }
    if (a->code->exit_count == HOST_MAX_EXITS) {
        a->error = -E2BIG;
        return;
    }
    emit_nop(&a->e, (unsigned)-((uintptr_t)a->e.p + opcode) & 3);
    at = cc < 0 ? emit_jmp(&a->e, NULL) : emit_jcc(&a->e, (enum x86_cc)cc, NULL);
    x = &a->code->exits[a->code->exit_count];
    x->patch = (uint32_t)(at - a->entry);
    x->delta = delta;
    x->call = a->call;
    s = stub_new(a, STUB_EXIT);
    s->from[0] = at;
    s->arg = a->code->exit_count++;
    s->imm = delta;
}

/** rax = pc: go to its code if the jump cache knows it. State is exact. @even: its lowest bit is to
 * be cleared; as it mostly is 0, that is done where the pc is not found. */
static void jump_cached(struct asm_state *a, bool even)
{
    const struct host_env *v = a->env;
    const uint8_t *miss = a->h->common[even ? COMMON_EVEN : COMMON_INDIRECT];
    int64_t jumps = v->jumps + (int64_t)v->jump_stride * (int64_t)(a->f->mode >> 2 & 3);

    emit_mov(&a->e, false, RCX, RAX);
    emit_shift(&a->e, SH_SHR, false, rm_reg(RCX), v->jump_bits);
    emit_rr(&a->e, X_XOR + 2, false, RCX, RAX);
    emit_group1(&a->e, G1_AND, false, rm_reg(RCX), (int32_t)(MASK(v->jump_bits) << 1));
    emit_shift(&a->e, SH_SHL, false, rm_reg(RCX), 4);
    emit_op(&a->e, X_CMP + 2, true, RAX, rm_sib(REG_CONTEXT, RCX, 0, jumps + v->jump_key));
    emit_jcc(&a->e, CC_NE, miss);
    emit_group1(&a->e, G1_CMP, false, rm_sib(REG_CONTEXT, RCX, 0, jumps + v->jump_mode),
                (int32_t)((uint32_t)a->f->mode | v->jump_valid));
    emit_jcc(&a->e, CC_NE, miss);
    emit_group1(&a->e, G1_AND, true, rm_reg(RAX), -4096);
    emit_op(&a->e, X_STORE, true, RAX, rm_state(v->code_page));
    emit_op(&a->e, X_GROUP5, false, 4, rm_sib(REG_CONTEXT, RCX, 0, jumps + v->jump_code));
}

/** Go to the exit @delta by the jump cache. */
static void jump_far(struct asm_state *a, int64_t delta)
{
    emit_op(&a->e, X_LOAD, true, RAX, rm_state(a->env->code_page));
    if (fits32(delta)) {
        emit_group1(&a->e, G1_ADD, true, rm_reg(RAX), (int32_t)delta);
    } else {
        emit_const(&a->e, RCX, (uint64_t)delta);
        emit_rr(&a->e, X_ADD + 2, true, RAX, RCX);
    }
    jump_cached(a, false);
}

void asm_exit_to(struct asm_state *a, int64_t delta)
{
    if (same_page(a, delta))
        jump_direct(a, -1, delta);
    else
        jump_far(a, delta);
}

/** The branch or exit that closes the loop. What follows a branch is the way out. */
static void loop_back(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    bool moves = regs_loop_close(a);
    enum x86_cc cc;
    uint8_t *out;

    asm_count_retired(a, a->insns);
    a->counted = a->insns;
    if (i->op == IR_EXIT_DIRECT) {
        regs_loop_moves(a);
        emit_jmp(&a->e, a->loop);
        return;
    }
    cc = asm_cmp(a, i->aux, i->size, i->arg[0], i->arg[1]);
    if (regs_loop_close(a) || moves) { /* operands of the comparison may have moved values */
        out = emit_jcc(&a->e, cc ^ 1, NULL);
        regs_loop_moves(a);
        emit_jmp(&a->e, a->loop);
        emit_fix(out, a->e.p);
    } else {
        emit_jcc(&a->e, cc, a->loop);
    }
}

static void branch(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    bool last = i[1].op == IR_EXIT_DIRECT && label_of(a, a->cur + 1, i[1].imm) < 0;
    enum x86_cc cc;
    struct stub *s;

    if (last) { /* both ways out want state written: do it once, before */
        regs_flush(a);
        asm_count_retired(a, a->insns);
        a->counted = a->insns;
    }
    cc = asm_cmp(a, i->aux, i->size, i->arg[0], i->arg[1]);
    if (last && same_page(a, i->imm)) {
        jump_direct(a, (int)cc, i->imm);
        return;
    }
    s = stub_new(a, STUB_BRANCH);
    stub_snapshot(a, s);
    s->from[0] = emit_jcc(&a->e, cc, NULL);
    s->arg = a->insns - a->counted;
    s->imm = i->imm;
}

/** The instruction counts itself. */
static void system_insn(struct asm_state *a)
{
    emit_const(&a->e, RSI, (uint64_t)asm_insn(a)->imm);
    emit_const(&a->e, RDX, a->page_offset);
    emit_jmp(&a->e,
             a->h->common[asm_insn(a)->aux == IR_SYSTEM_FLAGS ? COMMON_SYSTEM_FP : COMMON_SYSTEM]);
}

static void leave_status(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);

    emit_op(&a->e, X_LOAD, true, RAX, rm_state(a->env->code_page));
    emit_const(&a->e, RCX, (uint64_t)i->imm);
    emit_rr(&a->e, X_ADD + 2, true, RAX, RCX);
    emit_op(&a->e, X_STORE, true, RAX, rm_state(a->env->pc));
    emit_store_imm(&a->e, false, rm_state(a->env->status), i->aux);
    emit_const(&a->e, RAX, HOST_LEAVE_STATUS);
    emit_jmp(&a->e, a->h->common[COMMON_LEAVE]);
}

void asm_exit(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    uint16_t pc;

    if (a->loop && a->cur == a->loop_end) {
        loop_back(a);
        return;
    }
    if (i->op == IR_BRANCH || i->op == IR_EXIT_DIRECT) {
        int l = label_of(a, a->cur, i->imm);

        if (l >= 0) {
            exit_to_label(a, (unsigned)l);
            return;
        }
    }
    if (i->op == IR_BRANCH) {
        branch(a);
        return;
    }
    regs_flush(a);
    asm_count_retired(a, i->op == IR_EXIT_SYSTEM ? a->insns - 1 : a->insns);
    switch (i->op) {
    case IR_EXIT_SYSTEM:
        system_insn(a);
        break;
    case IR_EXIT_DIRECT:
        a->call = i->aux == IR_HINT_CALL;
        asm_exit_to(a, i->imm);
        a->call = false;
        break;
    case IR_EXIT_INDIRECT:
        pc = before_even(a->f, i->arg[0]);
        regs_copy_to(a, pc, RAX);
        jump_cached(a, pc != i->arg[0]);
        break;
    default:
        leave_status(a);
        break;
    }
}

/* --- Calls */

static void pass(struct asm_state *a, unsigned n, uint16_t v)
{
    struct rm to = rm_frame(FRAME_ARG + 8 * n);
    int reg = a->values[v].reg;
    int32_t imm;

    if (reg < 0 && is_imm(a, v, ir_type_size(a->f->insns[v].type), &imm)) {
        emit_store_imm(&a->e, true, to, imm);
        return;
    }
    if (reg < 0) {
        regs_copy_to(a, v, RAX);
        reg = RAX;
    }
    if (reg >= XMM0)
        emit_op(&a->e, X_MOVSD + 1, false, (unsigned)reg, to);
    else
        emit_op(&a->e, X_STORE, true, (unsigned)reg, to);
}

static void call_routine(struct asm_state *a, enum common_routine r, uint64_t fn)
{
    emit_const(&a->e, RAX, fn);
    emit_push_imm(&a->e, stub_word(a, 1, 0, 0));
    emit_call(&a->e, a->h->common[r]);
}

static void take_result(struct asm_state *a)
{
    enum ir_type t = asm_insn(a)->type;
    unsigned dst;

    if (t == IR_NONE)
        return;
    dst = regs_def(a);
    if (ir_is_float(t))
        emit_rr(&a->e, X_MOVD_TO, t == IR_F64, dst, RAX);
    else
        emit_mov(&a->e, true, dst, RAX);
}

void asm_helper(struct asm_state *a, void (*fn)(void), bool flags)
{
    const struct ir_insn *i = asm_insn(a);

    for (unsigned n = 0; n < i->nargs; n++)
        pass(a, n, i->arg[n]);
    call_routine(a, flags ? COMMON_CALL_FP : COMMON_CALL, (uint64_t)(uintptr_t)fn);
    take_result(a);
}

void asm_call(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    struct stub *s;

    for (unsigned n = 0; n < i->nargs; n++)
        pass(a, n, i->arg[n]);
    if (i->aux & (IR_CALL_READS | IR_CALL_WRITES))
        regs_flush(a);
    if (i->aux & IR_CALL_WRITES)
        regs_forget(a);
    call_routine(a, COMMON_CALL, (uint64_t)i->imm);
    if (i->aux & IR_CALL_EXITS) {
        s = stub_new(a, STUB_STATUS);
        stub_snapshot(a, s);
        s->arg = a->insns - 1 - a->counted;
        s->imm = a->page_offset;
        emit_group1(&a->e, G1_CMP, false, rm_state(a->env->status), 0);
        s->from[0] = emit_jcc(&a->e, CC_NE, NULL);
    }
    take_result(a);
}

void asm_interp(struct asm_state *a)
{
    struct stub *s;

    regs_flush(a);
    regs_forget(a);
    asm_count_retired(a, a->insns - 1);
    a->counted = a->insns; /* the interpreter counts this one */
    emit_const(&a->e, RAX, (uint64_t)asm_insn(a)->imm);
    emit_op(&a->e, X_STORE, true, RAX, rm_frame(FRAME_ARG));
    call_routine(a, COMMON_CALL, (uint64_t)(uintptr_t)a->env->interp);
    s = stub_new(a, STUB_STATUS);
    s->a = 1; /* pc and instret are set */
    emit_op(&a->e, X_STORE, false, RAX, rm_state(a->env->status));
    emit_rr(&a->e, X_TEST, false, RAX, RAX);
    s->from[0] = emit_jcc(&a->e, CC_NE, NULL);
}
