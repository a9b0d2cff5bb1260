/* Interpreter handlers: Zicsr, environment calls, privileged instructions, Svinval. Each ends its
 * block (INSN_SYSTEM): what it changes decides how the next block is looked up. CSR instructions
 * that rv_csr_in_line() are the exception: they go on to the next instruction. Spec: Unprivileged
 * ISA 20240411, chapter 7; Privileged Architecture 20240411, sections 3.3, 10.6, and chapter 12. */
#include "cpu/guest/riscv/interp_internal.h"

/** Make the pc and the instruction count those before @i, as the system part wants them. */
static void sync(struct rv_hart *h, const struct insn *i, const struct insn *start)
{
    h->cpu.pc = rv_pc(h, i);
    h->cpu.instret += (uint64_t)(i - start);
}

/** End the run after sync() and @i: it retired unless @status is an exception. */
static enum cpu_status done(struct rv_hart *h, const struct insn *i, enum cpu_status status)
{
    if (status != CPU_EXCEPTION)
        h->cpu.instret++;
    else if (h->exception_cause == RV_CAUSE_ILLEGAL)
        h->exception_tval = rv_encode_op(i);
    return status;
}

/** Of an instruction that rv_csr_in_line(): it cannot fail. Returns the old value. */
static __attribute__((noinline)) uint64_t
csr_in_line(struct rv_hart *h, unsigned csr, enum rv_csr_op op, bool write, uint64_t operand)
{
    uint64_t old = 0;
    enum cpu_status status = rv_csr_access(h, csr, op, write, operand, &old);

    dcheck(status == CPU_OK);
    (void)status;
    return old;
}

static bool csr_writes(const struct insn *i, enum rv_csr_op op)
{
    return op == RV_CSR_WRITE || i->rs1;
}

/** All six CSR instructions, where they end a block. @operand is x[rs1] or the immediate; that
 * rs1's number is not 0 says whether set and clear write at all. */
static enum cpu_status csr_insn(RV_HANDLER_ARGS, enum rv_csr_op op, uint64_t operand)
{
    uint64_t mode = h->cpu.mode, old = 0;
    const struct cpu_context *context = h->cpu.context;
    bool read = op != RV_CSR_WRITE || i->rd;

    sync(h, i, start);
    enum cpu_status status =
        rv_csr_access(h, i->extra, op, csr_writes(i, op), operand, read ? &old : NULL);
    if (status != CPU_EXCEPTION) {
        rv_set_x(h, i->rd, old);
        h->cpu.pc += i->size;
        if (status == CPU_OK && (mode != h->cpu.mode || context != h->cpu.context))
            status = CPU_RETRANSLATE;
    }
    return done(h, i, status);
}

#define RV_CSR(name, op, operand)                                                           \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)                                           \
    {                                                                                       \
        if (i->flags & INSN_SYSTEM)                                                         \
            return csr_insn(h, i, start, end, (op), (operand));                             \
        rv_set_x(h, i->rd, csr_in_line(h, i->extra, (op), csr_writes(i, (op)), (operand))); \
        RV_NEXT();                                                                          \
    }
RV_CSR(csrrw, RV_CSR_WRITE, RV_X1)
RV_CSR(csrrs, RV_CSR_SET, RV_X1)
RV_CSR(csrrc, RV_CSR_CLEAR, RV_X1)
RV_CSR(csrrwi, RV_CSR_WRITE, i->rs1)
RV_CSR(csrrsi, RV_CSR_SET, i->rs1)
RV_CSR(csrrci, RV_CSR_CLEAR, i->rs1)

enum cpu_status rv_do_ebreak(RV_HANDLER_ARGS)
{
    uint64_t pc = rv_pc(h, i);

    if (h->cpu.trap_ebreak) {
        h->cpu.exit->reason = VCPU_EXIT_DEBUG;
        h->cpu.exit->debug.cause = VCPU_DEBUG_EBREAK;
        h->cpu.exit->debug.addr = (gva_t){pc};
        return rv_leave_at(h, i, start, CPU_EXIT);
    }
    rv_raise(h, RV_CAUSE_BREAKPOINT, pc);
    return rv_leave_at(h, i, start, CPU_EXCEPTION);
}

/** An instruction that the system part executes as @call, setting the pc. */
#define RV_SYSTEM(name, call)                     \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS) \
    {                                             \
        sync(h, i, start);                        \
        return done(h, i, call);                  \
    }
RV_SYSTEM(ecall, rv_ecall(h))
RV_SYSTEM(mret, rv_mret(h))
RV_SYSTEM(sret, rv_sret(h))
RV_SYSTEM(wfi, rv_wfi(h))
RV_SYSTEM(sfence_vma, rv_sfence_vma(h, i->rs1 != 0, RV_X1, i->rs2 != 0, RV_X2))
/* May do at once what the two fences only order. */
RV_SYSTEM(sinval_vma, rv_sfence_vma(h, i->rs1 != 0, RV_X1, i->rs2 != 0, RV_X2))
RV_SYSTEM(sfence_w_inval, rv_sfence_order(h))
RV_SYSTEM(sfence_inval_ir, rv_sfence_order(h))
