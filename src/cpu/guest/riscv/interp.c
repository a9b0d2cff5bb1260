/* The interpreter: entry, RV64I, and what all handlers share. See interp_internal.h for how
 * handlers are threaded.
 *
 * This is the reference that generated code is compared with (engine=check).
 *
 * Threads: the hart's own. Spec: Unprivileged ISA 20240411, chapters 2 and 4; 6; 7; 15; 19. */
#include "cpu/guest/riscv/interp_internal.h"

#define RV_HANDLER_ENTRY(upper, lower) [RV_OP_##upper] = rv_do_##lower,
enum cpu_status (*const rv_handlers[RV_OP_COUNT])(RV_HANDLER_ARGS) = {RV_OPS(RV_HANDLER_ENTRY)};
#undef RV_HANDLER_ENTRY

enum cpu_status rv_interp(struct cpu *c, const struct insn *insns, unsigned count)
{
    if (unlikely(!count))
        return CPU_OK;
    return rv_handlers[insns->op](rv_hart_of(c), insns, insns, insns + count);
}

cold_path struct rv_loaded rv_load_slow(struct cpu *c, uint64_t va, unsigned size)
{
    struct rv_loaded ret = {0};

    ret.status = cpu_load_slow(c, va, size, c->mode & RV_MODE_MMU_MASK, &ret.value);
    return ret;
}

cold_path enum cpu_status rv_illegal_insn(RV_HANDLER_ARGS)
{
    rv_raise(h, RV_CAUSE_ILLEGAL, rv_encode_op(i));
    return rv_leave_at(h, i, start, CPU_EXCEPTION);
}

enum cpu_status rv_do_illegal(RV_HANDLER_ARGS)
{
    return rv_illegal_insn(h, i, start, end);
}

/* --- Integer computation --- */

RV_ALU(lui, RV_IMM)
RV_ALU(auipc, rv_pc(h, i) + RV_IMM)
RV_ALU(addi, RV_X1 + RV_IMM)
RV_ALU(slti, (int64_t)RV_X1 < (int64_t)RV_IMM)
RV_ALU(sltiu, RV_X1 < RV_IMM)
RV_ALU(xori, RV_X1 ^ RV_IMM)
RV_ALU(ori, RV_X1 | RV_IMM)
RV_ALU(andi, RV_X1 &RV_IMM)
RV_ALU(slli, RV_X1 << i->imm)
RV_ALU(srli, RV_X1 >> i->imm)
RV_ALU(srai, (uint64_t)((int64_t)RV_X1 >> i->imm))
RV_ALU(add, RV_X1 + RV_X2)
RV_ALU(sub, RV_X1 - RV_X2)
RV_ALU(sll, RV_X1 << (RV_X2 & 63))
RV_ALU(slt, (int64_t)RV_X1 < (int64_t)RV_X2)
RV_ALU(sltu, RV_X1 < RV_X2)
RV_ALU(xor, RV_X1 ^ RV_X2)
RV_ALU(srl, RV_X1 >> (RV_X2 & 63))
RV_ALU(sra, (uint64_t)((int64_t)RV_X1 >> (RV_X2 & 63)))
RV_ALU(or, RV_X1 | RV_X2)
RV_ALU(and, RV_X1 &RV_X2)
RV_ALU_W(addiw, RV_X1 + RV_IMM)
RV_ALU_W(slliw, (uint32_t)RV_X1 << i->imm)
RV_ALU_W(srliw, (uint32_t)RV_X1 >> i->imm)
RV_ALU_W(sraiw, (int32_t)RV_X1 >> i->imm)
RV_ALU_W(addw, RV_X1 + RV_X2)
RV_ALU_W(subw, RV_X1 - RV_X2)
RV_ALU_W(sllw, (uint32_t)RV_X1 << (RV_X2 & 31))
RV_ALU_W(srlw, (uint32_t)RV_X1 >> (RV_X2 & 31))
RV_ALU_W(sraw, (int32_t)RV_X1 >> (RV_X2 & 31))

RV_ALU(czero_eqz, RV_X2 ? RV_X1 : 0)
RV_ALU(czero_nez, RV_X2 ? 0 : RV_X1)
RV_ALU(mop_r, 0)
RV_ALU(mop_rr, 0)
RV_HANDLER(c_mop, (void)0)
RV_HANDLER(ntl_p1, (void)0)
RV_HANDLER(ntl_pall, (void)0)
RV_HANDLER(ntl_s1, (void)0)
RV_HANDLER(ntl_all, (void)0)
RV_HANDLER(prefetch_i, (void)0)
RV_HANDLER(prefetch_r, (void)0)
RV_HANDLER(prefetch_w, (void)0)

/* --- Branches --- */

enum cpu_status rv_do_jal(RV_HANDLER_ARGS)
{
    uint64_t pc = rv_pc(h, i);

    rv_set_x(h, i->rd, pc + i->size);
    RV_JUMP(pc + RV_IMM);
}

enum cpu_status rv_do_jalr(RV_HANDLER_ARGS)
{
    uint64_t target = (RV_X1 + RV_IMM) & ~1ULL;

    rv_set_x(h, i->rd, rv_pc(h, i) + i->size);
    RV_JUMP(target);
}

/** A branch ends its block whether taken or not; but should more follow, they are executed. */
#define RV_BRANCH(name, taken)                    \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS) \
    {                                             \
        if (taken)                                \
            RV_JUMP(rv_pc(h, i) + RV_IMM);        \
        RV_NEXT();                                \
    }
RV_BRANCH(beq, RV_X1 == RV_X2)
RV_BRANCH(bne, RV_X1 != RV_X2)
RV_BRANCH(blt, (int64_t)RV_X1 < (int64_t)RV_X2)
RV_BRANCH(bge, (int64_t)RV_X1 >= (int64_t)RV_X2)
RV_BRANCH(bltu, RV_X1 < RV_X2)
RV_BRANCH(bgeu, RV_X1 >= RV_X2)

/* --- Memory --- */

#define RV_LOAD(name, type)                                                  \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)                            \
    {                                                                        \
        struct rv_loaded v = rv_load(&h->cpu, RV_X1 + RV_IMM, sizeof(type)); \
                                                                             \
        if (unlikely(v.status != CPU_OK))                                    \
            return rv_leave_at(h, i, start, (enum cpu_status)v.status);      \
        rv_set_x(h, i->rd, (uint64_t)(int64_t)(type)v.value);                \
        RV_NEXT();                                                           \
    }
RV_LOAD(lb, int8_t)
RV_LOAD(lh, int16_t)
RV_LOAD(lw, int32_t)
RV_LOAD(ld, int64_t)
RV_LOAD(lbu, uint8_t)
RV_LOAD(lhu, uint16_t)
RV_LOAD(lwu, uint32_t)

#define RV_STORE(name, size)                                                                 \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)                                            \
    {                                                                                        \
        enum cpu_status status =                                                             \
            cpu_store(&h->cpu, RV_X1 + RV_IMM, size, h->cpu.mode & RV_MODE_MMU_MASK, RV_X2); \
                                                                                             \
        if (unlikely(status != CPU_OK))                                                      \
            return rv_leave_at(h, i, start, status);                                         \
        RV_NEXT();                                                                           \
    }
RV_STORE(sb, 1)
RV_STORE(sh, 2)
RV_STORE(sw, 4)
RV_STORE(sd, 8)

/** FENCE: only a store followed by a load needs more than the host's own order on x86; but the
 * interpreter is portable. */
RV_HANDLER(fence, __atomic_thread_fence(__ATOMIC_SEQ_CST))
RV_HANDLER(fence_tso, __atomic_thread_fence(__ATOMIC_ACQ_REL))

enum cpu_status rv_do_fence_i(RV_HANDLER_ARGS)
{
    cpu_sync_code(&h->cpu);
    return rv_leave_behind(h, i, start, CPU_RETRANSLATE);
}

/* --- Cache blocks: the host's caches are coherent, so only permissions matter --- */

enum cpu_status rv_do_cbo_clean(RV_HANDLER_ARGS)
{
    enum cpu_status status = cpu_probe(&h->cpu, RV_X1, 1, h->cpu.mode & RV_MODE_MMU_MASK, CPU_READ);

    if (unlikely(status != CPU_OK)) {
        /* What a load would raise is reported as for a store (19.4.2). */
        if (status == CPU_EXCEPTION && h->exception_cause == RV_CAUSE_LOAD_PAGE)
            h->exception_cause = RV_CAUSE_STORE_PAGE;
        else if (status == CPU_EXCEPTION && h->exception_cause == RV_CAUSE_LOAD_ACCESS)
            h->exception_cause = RV_CAUSE_STORE_ACCESS;
        return rv_leave_at(h, i, start, status);
    }
    RV_NEXT();
}

enum cpu_status rv_do_cbo_flush(RV_HANDLER_ARGS)
{
    return rv_do_cbo_clean(h, i, start, end);
}

enum cpu_status rv_do_cbo_inval(RV_HANDLER_ARGS)
{
    return rv_do_cbo_clean(h, i, start, end);
}

enum cpu_status rv_do_cbo_zero(RV_HANDLER_ARGS)
{
    enum cpu_status status =
        cpu_zero_block(&h->cpu, RV_X1, RV_CBO_BLOCK, h->cpu.mode & RV_MODE_MMU_MASK);

    if (unlikely(status != CPU_OK))
        return rv_leave_at(h, i, start, status);
    RV_NEXT();
}
