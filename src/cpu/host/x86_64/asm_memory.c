/* Code selection: guest memory. Every access probes the software TLB in line:
 *
 *     lea   ecx, [base + disp]              entry = (va >> 12 & mask) * 32
 *     shr   ecx, 7
 *     and   ecx, [context + mask]
 *     lea   rax, [base + disp + size - 1]   the end of its last byte's page
 *     or    rax, 4095
 *     cmp   rax, [context + rcx + tag]      is the page of the first one, and may be accessed?
 *     jne   stub
 *     mov   rax, [context + rcx + addend]
 *     mov   reg, [rax + base + disp]
 *
 * The stub writes dirty state home and calls the slow path, which raises the guest's fault or gives
 * the value. Accesses off one base share a probe (group.c); in loops some have a shorter one
 * (memo.c). Atomics want alignment, so they test the last byte's address with its low bits: ones if
 * the access is aligned. */
#include "cpu/host/x86_64/asm.h"

#include "base/bits.h"

#define ENTRY_BITS 5 /* log2 of a TLB entry's size */

uint8_t *asm_probe(struct asm_state *a, const struct ir_insn *i, unsigned base, int32_t lo,
                   int32_t hi, unsigned align, unsigned addend)
{
    const struct host_env *env = a->env;
    int64_t entry = env->tlb + (int64_t)i->aux * env->tlb_stride;
    bool write = i->op != IR_LOAD && i->op != IR_LOADS && i->op != IR_LR;
    int32_t last = hi - 1;
    uint8_t *miss;

    if (lo)
        emit_lea(&a->e, false, RCX, rm_mem(base, lo));
    else
        emit_mov(&a->e, false, RCX, base);
    emit_shift(&a->e, SH_SHR, false, rm_reg(RCX), 12 - ENTRY_BITS);
    emit_op(&a->e, X_AND + 2, false, RCX, rm_mem(REG_CONTEXT, env->tlb_mask + 4 * i->aux));
    if (last)
        emit_lea(&a->e, true, RAX, rm_mem(base, last));
    else
        emit_mov(&a->e, true, RAX, base);
    emit_group1(&a->e, G1_OR, true, rm_reg(RAX), 4095 & -(int32_t)align);
    emit_op(&a->e, X_CMP + 2, true, RAX,
            rm_sib(REG_CONTEXT, RCX, 0, entry + (write ? env->tlb_tag_write : env->tlb_tag_read)));
    miss = emit_jcc(&a->e, CC_NE, NULL);
    emit_op(&a->e, X_LOAD, true, addend, rm_sib(REG_CONTEXT, RCX, 0, entry + env->tlb_addend));
    return miss;
}

/** The group that the current access belongs to; -1: none. */
static int current_group(const struct asm_state *a)
{
    return (int)a->group_of[a->cur] - 1;
}

static struct stub *memory_stub(struct asm_state *a, enum stub_kind kind, unsigned base,
                                unsigned op)
{
    const struct ir_insn *i = asm_insn(a);
    int g = current_group(a), addend = -1;
    struct stub *s;

    if (g >= 0) {
        uint16_t v = (uint16_t)(a->f->count + (unsigned)g);

        addend = (int)(a->groups[g].leader == a->cur ? regs_def_value(a, v) : regs_use(a, v));
    }
    s = stub_new(a, kind);
    stub_snapshot(a, s);
    s->word = stub_word(a, i->op == IR_ZERO ? 1 : i->size, i->aux, op); /* it has one size */
    s->a = (int8_t)base;
    s->imm = i->disp;
    s->addend = (int8_t)addend;
    s->leads = g >= 0 && a->groups[g].leader == a->cur;
    return s;
}

/** Make sure that the access is in a page that is there, else go to @s; the register returned plus
 * the guest's address is the host's. */
static unsigned translate(struct asm_state *a, struct stub *s)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned base = (unsigned)s->a, addend = s->addend < 0 ? RAX : (unsigned)s->addend;
    int32_t lo = i->disp, hi = i->disp + i->size;

    if (s->addend >= 0 && !s->leads) {
        emit_rr(&a->e, X_TEST, true, addend, addend);
        s->from[0] = emit_jcc(&a->e, CC_E, NULL);
        return addend;
    }
    if (s->leads) {
        const struct group *g = &a->groups[current_group(a)];

        hi = lo + (g->hi - g->leader_at);
        lo += g->lo - g->leader_at;
    }
    if (a->has_memo[a->cur]) {
        s->memo = (int16_t)memo_new(a, i);
        s->lo = lo;
        s->hi = hi;
        memo_probe(a, s, base, addend);
        s->access = a->e.p;
    } else {
        s->from[0] = asm_probe(a, i, base, lo, hi, 1, addend);
    }
    return addend;
}

void asm_load_from(struct asm_state *a, const struct ir_insn *i, unsigned dst, struct rm m)
{
    bool sign = i->op == IR_LOADS, w = i->type == IR_I64;

    if (ir_is_float(i->type))
        emit_op(&a->e, i->size == 4 ? X_MOVSS : X_MOVSD, false, dst, m);
    else if (i->size == 1)
        emit_op(&a->e, sign ? X_MOVSX8 : X_MOVZX8, sign && w, dst, m);
    else if (i->size == 2)
        emit_op(&a->e, sign ? X_MOVSX16 : X_MOVZX16, sign && w, dst, m);
    else if (i->size == 4)
        emit_op(&a->e, sign && w ? X_MOVSXD : X_LOAD, sign && w, dst, m);
    else
        emit_op(&a->e, X_LOAD, true, dst, m);
}

static void load(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned base = regs_use(a, i->arg[0]), addend;
    struct stub *s = memory_stub(a, STUB_LOAD, base, 0);

    s->dst = (int8_t)regs_def_late(a, i->arg[0]);
    addend = translate(a, s);
    asm_load_from(a, i, (unsigned)s->dst, rm_sib(addend, base, 0, i->disp));
    s->resume = a->e.p;
}

static void store_imm(struct asm_state *a, unsigned size, struct rm m, int32_t imm)
{
    switch (size) {
    case 1:
        emit_op_imm(&a->e, X_STOREI8, false, 0, m, 1);
        emit8(&a->e, (uint8_t)imm);
        break;
    case 2:
        emit8(&a->e, 0x66);
        emit_op_imm(&a->e, X_STOREI, false, 0, m, 2);
        emit16(&a->e, (uint16_t)imm);
        break;
    default:
        emit_store_imm(&a->e, size == 8, m, imm);
        break;
    }
}

void asm_store_to(struct asm_state *a, const struct ir_insn *i, int value, struct rm m)
{
    if (value < 0) {
        store_imm(a, i->size, m, (int32_t)a->f->insns[i->arg[1]].imm);
    } else if (value >= XMM0) {
        emit_op(&a->e, (i->size == 4 ? X_MOVSS : X_MOVSD) + 1, false, (unsigned)value, m);
    } else {
        if (i->size == 2)
            emit8(&a->e, 0x66);
        emit_op(&a->e, i->size == 1 ? X_STORE8 : X_STORE, i->size == 8, (unsigned)value, m);
    }
}

static void store(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned base = regs_use(a, i->arg[0]), addend;
    int32_t imm;
    int value;
    struct stub *s;

    nan_settle(a, i->arg[1]);
    value = is_imm(a, i->arg[1], i->size, &imm) ? -1 : (int)regs_use(a, i->arg[1]);
    s = memory_stub(a, STUB_STORE, base, 0);

    s->b = (int8_t)value;
    addend = translate(a, s);
    asm_store_to(a, i, value, rm_sib(addend, base, 0, i->disp));
    s->resume = a->e.p;
    a->code->has_store = true;
}

void asm_memory(struct asm_state *a)
{
    switch (asm_insn(a)->op) {
    case IR_STORE:
        store(a);
        break;
    case IR_FENCE: /* a locked operation orders as mfence does, in less time */
        emit8(&a->e, 0xf0);
        emit_group1(&a->e, G1_OR, false, rm_frame(0), 0);
        break;
    default:
        load(a);
        break;
    }
}

/* --- Atomics: rcx = host address */

static void host_address(struct asm_state *a, unsigned base)
{
    emit_lea(&a->e, true, RCX, rm_sib(RAX, base, 0, 0));
}
static void lock(struct asm_state *a)
{
    emit8(&a->e, 0xf0);
}

static void load_reserved(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned base = regs_use(a, i->arg[0]), dst = regs_def(a);
    struct stub *s = memory_stub(a, STUB_LR, base, 0);

    s->dst = (int8_t)dst;
    s->from[0] = asm_probe(a, i, base, 0, i->size, i->size, RAX);
    emit_op(&a->e, X_LOAD, i->size == 8, dst, rm_sib(RAX, base, 0, 0));
    s->resume = a->e.p;
}

static void zero(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned base = regs_use(a, i->arg[0]);
    struct stub *s = memory_stub(a, STUB_ZERO, base, 0);

    s->from[0] = asm_probe(a, i, base, 0, 1, 1, RAX);
    host_address(a, base);
    emit_group1(&a->e, G1_AND, true, rm_reg(RCX), -(int32_t)i->size);
    emit_rr(&a->e, X_XORPS, false, XMM0, XMM0);
    for (int32_t n = 0; n < i->size; n += 16)
        emit_op(&a->e, X_MOVAPS + 1, false, XMM0, rm_mem(RCX, n));
    s->resume = a->e.p;
}

/** tmp = rax op operand, for the compare-and-swap loop. */
static void combine(struct asm_state *a, enum ir_amo op, bool w, unsigned tmp, unsigned operand)
{
    static const uint8_t keep[] = {
        [IR_AMO_MIN] = CC_G, [IR_AMO_MAX] = CC_L, [IR_AMO_MINU] = CC_A, [IR_AMO_MAXU] = CC_B};

    emit_mov(&a->e, true, tmp, RAX);
    switch (op) {
    case IR_AMO_AND:
        emit_rr(&a->e, X_AND + 2, w, tmp, operand);
        break;
    case IR_AMO_OR:
        emit_rr(&a->e, X_OR + 2, w, tmp, operand);
        break;
    case IR_AMO_XOR:
        emit_rr(&a->e, X_XOR + 2, w, tmp, operand);
        break;
    default:
        emit_rr(&a->e, X_CMP + 2, w, RAX, operand);
        emit_rr(&a->e, X_CMOV + keep[op], w, tmp, operand);
        break;
    }
}

/** AND, OR, XOR whose result nobody wants: one locked instruction. */
static bool amo_without_result(struct asm_state *a, const struct ir_insn *i, unsigned operand)
{
    static const uint8_t ops[IR_AMOS] = {
        [IR_AMO_ADD] = X_ADD, [IR_AMO_AND] = X_AND, [IR_AMO_OR] = X_OR, [IR_AMO_XOR] = X_XOR};

    if (!ops[i->aux2] || a->values[a->cur].last_use > a->cur)
        return false;
    lock(a);
    emit_op(&a->e, ops[i->aux2], i->size == 8, operand, rm_mem(RCX, 0));
    return true;
}

static void amo(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    bool w = i->size == 8;
    unsigned base = regs_use(a, i->arg[0]), operand = regs_use(a, i->arg[1]), dst, tmp;
    struct stub *s;
    uint8_t *again;

    dst = regs_def(a);
    tmp = regs_alloc(a, GPR_POOL);
    s = memory_stub(a, STUB_AMO, base, i->aux2);
    s->b = (int8_t)operand;
    s->dst = (int8_t)dst;
    s->from[0] = asm_probe(a, i, base, 0, i->size, i->size, RAX);
    host_address(a, base);
    if (i->aux2 == IR_AMO_SWAP || (i->aux2 == IR_AMO_ADD && a->values[a->cur].last_use > a->cur)) {
        emit_mov(&a->e, w, dst, operand);
        if (i->aux2 == IR_AMO_ADD)
            lock(a);
        emit_op(&a->e, i->aux2 == IR_AMO_ADD ? X_XADD : X_XCHG, w, dst, rm_mem(RCX, 0));
    } else if (!amo_without_result(a, i, operand)) {
        emit_op(&a->e, X_LOAD, w, RAX, rm_mem(RCX, 0));
        again = a->e.p;
        combine(a, i->aux2, w, tmp, operand);
        lock(a);
        emit_op(&a->e, X_CMPXCHG, w, tmp, rm_mem(RCX, 0));
        emit_jcc(&a->e, CC_NE, again);
        emit_mov(&a->e, w, dst, RAX);
    }
    s->resume = a->e.p;
}

static void cas(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    bool w = i->size == 8;
    unsigned base = regs_use(a, i->arg[0]), expected = regs_use(a, i->arg[1]);
    unsigned desired = regs_use(a, i->arg[2]), dst = regs_def(a);
    struct stub *s = memory_stub(a, STUB_CAS, base, 0);

    s->b = (int8_t)expected;
    s->arg = desired;
    s->dst = (int8_t)dst;
    s->from[0] = asm_probe(a, i, base, 0, i->size, i->size, RAX);
    host_address(a, base);
    emit_mov(&a->e, true, RAX, expected);
    lock(a);
    emit_op(&a->e, X_CMPXCHG, w, desired, rm_mem(RCX, 0));
    emit_mov(&a->e, w, dst, RAX);
    s->resume = a->e.p;
}

static void store_conditional(struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);
    unsigned base = regs_use(a, i->arg[0]), expected = regs_use(a, i->arg[1]);
    unsigned desired = regs_use(a, i->arg[2]), guard = regs_use(a, i->arg[3]), dst = regs_def(a);
    struct stub *s = memory_stub(a, STUB_SC, base, 0);
    uint8_t *fail;

    s->b = (int8_t)expected;
    s->arg = desired;
    s->dst = (int8_t)dst;
    emit_mov(&a->e, false, RAX, base);
    emit_group1(&a->e, G1_AND, false, rm_reg(RAX), i->size - 1);
    s->from[1] = emit_jcc(&a->e, CC_NE, NULL);
    emit_const(&a->e, dst, 1);
    emit_rr(&a->e, X_TEST, true, guard, guard);
    fail = emit_jcc(&a->e, CC_E, NULL);
    s->from[0] = asm_probe(a, i, base, 0, i->size, i->size, RAX);
    host_address(a, base);
    emit_mov(&a->e, true, RAX, expected);
    lock(a);
    emit_op(&a->e, X_CMPXCHG, i->size == 8, desired, rm_mem(RCX, 0));
    emit_op(&a->e, X_SETCC + CC_NE, false, 0, rm_reg(RAX));
    emit_rr(&a->e, X_MOVZX8, false, dst, RAX);
    emit_fix(fail, a->e.p);
    s->resume = a->e.p;
}

void asm_atomic(struct asm_state *a)
{
    a->code->has_store |= asm_insn(a)->op != IR_LR;
    switch (asm_insn(a)->op) {
    case IR_LR:
        load_reserved(a);
        break;
    case IR_ZERO:
        zero(a);
        break;
    case IR_AMO:
        amo(a);
        break;
    case IR_CAS:
        cas(a);
        break;
    default:
        store_conditional(a);
        break;
    }
}
