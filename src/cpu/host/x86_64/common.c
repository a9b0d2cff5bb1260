/* Routines at the start of the code buffer that all units share: entering and leaving generated
 * code, calling slow paths with every register preserved.
 *
 * Slow path routines find the word of stub_word() on the stack below their return address, and take
 * it off when they return. If the helper's status is not CPU_OK they leave the unit: pc and instret
 * become those of the word's instruction; the unit has written its dirty state already. */
#include "cpu/host/x86_64/asm.h"

#include "base/bits.h"

/* What a slow path routine saves, from rsp: two stack arguments, result, MXCSR, registers. */
#define SAVE_RET   16
#define SAVE_MXCSR 24
#define SAVE_GPR   32
#define SAVE_XMM   (SAVE_GPR + 7 * 8 + 8)
#define SAVE_SIZE  (SAVE_XMM + 14 * 8)
static_assert(SAVE_SIZE % 16 == 0, "calls want an aligned stack");
static_assert(FRAME_SIZE % 16 == 8, "six pushes and a return address come before the frame");

#define SAVE_WORD  (SAVE_SIZE + 8)
#define SAVE_FRAME (SAVE_SIZE + 16) /* the unit's frame */

static const uint8_t saved_gprs[7] = {RDX, RSI, RDI, R8, R9, R10, R11};
static const uint8_t callee_saved[6] = {RBP, RBX, R12, R13, R14, R15};

static void begin(struct host *h, struct emit *e, enum common_routine r)
{
    while ((uintptr_t)e->p & 15)
        emit8(e, 0xcc);
    h->common[r] = e->p;
}

static void save_or_restore(struct emit *e, bool save)
{
    for (unsigned n = 0; n < 7; n++)
        emit_op(e, save ? X_STORE : X_LOAD, true, saved_gprs[n], rm_mem(RSP, SAVE_GPR + 8 * n));
    for (unsigned n = 0; n < 14; n++)
        emit_op(e, save ? X_MOVSD + 1 : X_MOVSD, false, XMM2 + n, rm_mem(RSP, SAVE_XMM + 8 * n));
}

/** reg = a field of the word. */
static void word_field(struct emit *e, unsigned reg, unsigned shift, unsigned mask)
{
    emit_op(e, X_LOAD, false, reg, rm_mem(RSP, SAVE_WORD));
    if (shift)
        emit_shift(e, SH_SHR, false, rm_reg(reg), shift);
    if (mask)
        emit_group1(e, G1_AND, false, rm_reg(reg), (int32_t)mask);
}

static void slow_prologue(struct host *h, struct emit *e)
{
    emit_group1(e, G1_SUB, true, rm_reg(RSP), SAVE_SIZE);
    save_or_restore(e, true);
    emit_op(e, X_MXCSR, false, 3, rm_mem(RSP, SAVE_MXCSR));
    word_field(e, RDX, 0, (1u << WORD_OFFSET_BITS) - 1);
    emit_op(e, X_ADD + 2, true, RDX, rm_state(h->env.code_page));
    emit_op(e, X_STORE, true, RDX, rm_state(h->env.pc));
}

static void call_c(struct emit *e, uint64_t fn)
{
    emit_const(e, RAX, fn);
    emit_op(e, X_GROUP5, false, 2, rm_reg(RAX));
}

static void slow_return(struct emit *e, bool restore_mxcsr)
{
    if (restore_mxcsr)
        emit_op(e, X_MXCSR, false, 2, rm_mem(RSP, SAVE_MXCSR));
    save_or_restore(e, false);
    emit_group1(e, G1_ADD, true, rm_reg(RSP), SAVE_SIZE);
    emit8(e, 0xc2); /* ret 8 */
    emit16(e, 8);
}

/** A memory slow path: fn(state, va, size, mmu, ...). */
static void slow_memory(struct host *h, struct emit *e, enum common_routine r, uint64_t fn)
{
    uint8_t *fail;

    begin(h, e, r);
    slow_prologue(h, e);
    emit_lea(e, true, R10, rm_mem(RSP, SAVE_RET));
    switch (r) {
    case COMMON_LOAD:
    case COMMON_LR:
        emit_mov(e, true, R8, R10);
        break;
    case COMMON_STORE:
        emit_mov(e, true, R8, RCX);
        break;
    case COMMON_ZERO:
        break;
    case COMMON_ATOMIC:
        emit_mov(e, true, R9, RCX);
        word_field(e, R8, WORD_OP_SHIFT, 15);
        emit_op(e, X_STORE, true, R10, rm_mem(RSP, 0));
        break;
    default:
        emit_mov(e, true, R8, RCX);
        emit_op(e, X_LOAD, true, R9, rm_mem(RSP, SAVE_FRAME + FRAME_ARG));
        emit_op(e, X_STORE, true, R10, rm_mem(RSP, 0));
        break;
    }
    emit_mov(e, true, RDI, REG_STATE);
    emit_mov(e, true, RSI, RAX);
    word_field(e, RCX, WORD_SIZE_SHIFT, 3);
    emit_const(e, RDX, 1);
    emit_op(e, X_SHIFTCL, false, SH_SHL, rm_reg(RDX));
    word_field(e, r == COMMON_ZERO ? RDX : RCX, WORD_MMU_SHIFT, 3);
    call_c(e, fn);
    emit_rr(e, X_TEST, false, RAX, RAX);
    fail = emit_jcc(e, CC_NE, NULL);
    emit_op(e, X_LOAD, true, RAX, rm_mem(RSP, SAVE_RET));
    slow_return(e, true);

    emit_fix(fail, e->p);
    emit_op(e, X_STORE, false, RAX, rm_state(h->env.status));
    emit_op(e, X_MXCSR, false, 2, rm_mem(RSP, SAVE_MXCSR));
    word_field(e, RCX, WORD_RETIRED, 0);
    emit_op(e, X_ADD, true, RCX, rm_state(h->env.instret));
    emit_group1(e, G1_ADD, true, rm_reg(RSP), SAVE_FRAME);
    emit_const(e, RAX, HOST_LEAVE_STATUS);
    emit_jmp(e, h->common[COMMON_LEAVE]);
}

/** A helper whose address is in rax, with up to four arguments in the frame. */
static void slow_call(struct host *h, struct emit *e, enum common_routine r)
{
    static const uint8_t args[4] = {RSI, RDX, RCX, R8};

    begin(h, e, r);
    slow_prologue(h, e);
    emit_mov(e, true, RDI, REG_STATE);
    for (unsigned n = 0; n < 4; n++)
        emit_op(e, X_LOAD, true, args[n], rm_mem(RSP, SAVE_FRAME + FRAME_ARG + 8 * n));
    emit_op(e, X_GROUP5, false, 2, rm_reg(RAX));
    slow_return(e, r == COMMON_CALL);
}

static void enter(struct host *h, struct emit *e)
{
    begin(h, e, COMMON_ENTER);
    for (unsigned n = 0; n < 6; n++)
        emit_push(e, callee_saved[n]);
    emit_group1(e, G1_SUB, true, rm_reg(RSP), FRAME_SIZE);
    emit_mov(e, true, REG_STATE, RDI);
    emit_op(e, X_LOAD, true, REG_CONTEXT, rm_state(h->env.context));
    emit_op(e, X_MXCSR, false, 2, rm_rip(h->constants + 16 * CONSTANT_MXCSR));
    emit_op(e, X_GROUP5, false, 4, rm_reg(RSI));
}

/** Accrued exceptions go to fp_flags, and MXCSR is as at entry again. Uses rcx, rdi. */
static void flags_home(struct host *h, struct emit *e)
{
    struct rm mxcsr = rm_state(h->env.mxcsr);
    uint8_t *none;

    emit_op(e, X_MXCSR, false, 3, mxcsr);
    emit_op(e, X_LOAD, false, RCX, mxcsr);
    emit_group1(e, G1_AND, false, rm_reg(RCX), 63);
    none = emit_jcc_short(e, CC_E);
    emit_lea(e, true, RDI, rm_rip(h->flags_map));
    emit_op(e, X_LOAD, false, RCX, rm_sib(RDI, RCX, 2, 0));
    emit_op(e, X_OR, false, RCX, rm_state(h->env.fp_flags));
    emit_op(e, X_MXCSR, false, 2, rm_rip(h->constants + 16 * CONSTANT_MXCSR));
    emit_here(e, none);
}

static void leave(struct host *h, struct emit *e)
{
    begin(h, e, COMMON_LEAVE);
    flags_home(h, e);
    emit_group1(e, G1_ADD, true, rm_reg(RSP), FRAME_SIZE);
    for (unsigned n = 6; n--;)
        emit_pop(e, callee_saved[n]);
    emit8(e, 0xc3);
}

/** Nothing is in registers but the instruction and where it is. */
static void system_insn(struct host *h, struct emit *e, enum common_routine r)
{
    uint8_t *out;

    begin(h, e, r);
    emit_op(e, X_ADD + 2, true, RDX, rm_state(h->env.code_page));
    emit_op(e, X_STORE, true, RDX, rm_state(h->env.pc));
    if (r == COMMON_SYSTEM_FP)
        flags_home(h, e);
    emit_mov(e, true, RDI, REG_STATE);
    call_c(e, (uint64_t)(uintptr_t)h->env.system);
    emit_op(e, X_LOAD, true, REG_CONTEXT, rm_state(h->env.context));
    emit_rr(e, X_TEST, true, RAX, RAX);
    out = emit_jcc_short(e, CC_E);
    emit_op(e, X_GROUP5, false, 4, rm_reg(RAX));
    emit_here(e, out);
    emit_mov(e, false, RAX, RDX);
    emit_jmp(e, h->common[COMMON_LEAVE]);
}

/** The other entry of the pair, or leave. */
static void indirect(struct host *h, struct emit *e)
{
    const struct host_env *v = &h->env;
    uint8_t *other_pc, *other_mode;

    begin(h, e, COMMON_INDIRECT);
    emit_op(e, X_LOAD, false, RDX, rm_state(v->mode));
    emit_mov(e, false, RSI, RDX);
    emit_shift(e, SH_SHR, false, rm_reg(RSI), 2);
    emit_group1(e, G1_AND, false, rm_reg(RSI), 3);
    emit_op_imm(e, X_IMULI, true, RSI, rm_reg(RSI), 4);
    emit32(e, v->jump_stride);
    emit_group1(e, G1_XOR, false, rm_reg(RCX), 1 << 5);
    emit_rr(e, X_ADD + 2, true, RSI, RCX);
    emit_op(e, X_CMP + 2, true, RAX, rm_sib(REG_CONTEXT, RSI, 0, v->jumps + v->jump_key));
    other_pc = emit_jcc_short(e, CC_NE);
    emit_group1(e, G1_OR, false, rm_reg(RDX), (int32_t)v->jump_valid);
    emit_op(e, X_CMP + 2, false, RDX, rm_sib(REG_CONTEXT, RSI, 0, v->jumps + v->jump_mode));
    other_mode = emit_jcc_short(e, CC_NE);
    emit_group1(e, G1_AND, true, rm_reg(RAX), -4096);
    emit_op(e, X_STORE, true, RAX, rm_state(v->code_page));
    emit_op(e, X_GROUP5, false, 4, rm_sib(REG_CONTEXT, RSI, 0, v->jumps + v->jump_code));
    emit_here(e, other_pc);
    emit_here(e, other_mode);
    emit_op(e, X_STORE, true, RAX, rm_state(h->env.pc));
    emit_const(e, RAX, HOST_LEAVE_INDIRECT);
    emit_jmp(e, h->common[COMMON_LEAVE]);

    begin(h, e, COMMON_EVEN);
    emit_group1(e, G1_AND, true, rm_reg(RAX), -2);
    emit_jmp(e, h->common[COMMON_INDIRECT]);
}

static void constants(struct host *h, struct emit *e)
{
    static const uint64_t values[CONSTANT_COUNT][2] = {
        [CONSTANT_SIGN64] = {BIT(63),               0},
        [CONSTANT_ABS64] = {~BIT(63),              0},
        [CONSTANT_SIGN32] = {BIT(31),               0},
        [CONSTANT_ABS32] = {0x7fffffff,            0},
        [CONSTANT_BOX] = {0xffffffff00000000ULL, 0},
        [CONSTANT_NAN64] = {0x7ff8000000000000ULL, 0},
        [CONSTANT_NAN32] = {0x7fc00000,            0},
        [CONSTANT_NAN_BOX] = {0xffffffff7fc00000ULL, 0},
        [CONSTANT_TWO63_64] = {0x43e0000000000000ULL, 0},
        [CONSTANT_TWO63_32] = {0x5f000000,            0},
        [CONSTANT_TWO32_64] = {0x41f0000000000000ULL, 0},
        [CONSTANT_TWO32_32] = {0x4f800000,            0},
        [CONSTANT_MXCSR] = {0x1f80,                0},
    };

    h->constants = e->p;
    memcpy(e->p, values, sizeof(values));
    e->p += sizeof(values);
}

void common_emit(struct host *h)
{
    const struct host_env *v = &h->env;
    struct emit e = {.p = codebuf_begin(h->code, 4096)};
    uint8_t *start = e.p;

    e.end = e.p + 4096;
    constants(h, &e);
    h->flags_map = e.p;
    memcpy(e.p, v->fp_flags_map, sizeof(v->fp_flags_map));
    e.p += sizeof(v->fp_flags_map);
    enter(h, &e);
    leave(h, &e);
    slow_memory(h, &e, COMMON_LOAD, (uint64_t)(uintptr_t)v->load);
    slow_memory(h, &e, COMMON_STORE, (uint64_t)(uintptr_t)v->store);
    slow_memory(h, &e, COMMON_LR, (uint64_t)(uintptr_t)v->load_reserved);
    slow_memory(h, &e, COMMON_ZERO, (uint64_t)(uintptr_t)v->zero);
    slow_memory(h, &e, COMMON_ATOMIC, (uint64_t)(uintptr_t)v->atomic);
    slow_memory(h, &e, COMMON_CAS, (uint64_t)(uintptr_t)v->cas);
    slow_call(h, &e, COMMON_CALL);
    slow_call(h, &e, COMMON_CALL_FP);
    indirect(h, &e);
    system_insn(h, &e, COMMON_SYSTEM);
    system_insn(h, &e, COMMON_SYSTEM_FP);
    h->common_size = (size_t)(e.p - start);
    codebuf_commit(h->code, h->common_size);
}
