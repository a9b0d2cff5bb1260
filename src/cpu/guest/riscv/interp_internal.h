/* How the interpreter's handlers are written and threaded: one function per op, named rv_do_<op>,
 * each of which ends by jumping (a tail call) to the handler of the next instruction.
 *
 * 1. h->x[0] is 0 whenever a handler starts.
 * 2. pc and instret are written only when the run of instructions ends: `i - start` of them have
 *    retired, so a handler that leaves early says whether its own is one of them.
 * 3. The FP state is on (the decoder saw to it) when an FP handler runs. */
#ifndef CPU_GUEST_RISCV_INTERP_INTERNAL_H
#define CPU_GUEST_RISCV_INTERP_INTERNAL_H

#include "base/bits.h"
#include "cpu/guest/riscv/hart.h"
#include "cpu/guest/riscv/rows.h"

#define RV_HANDLER_ARGS \
    struct rv_hart *h, const struct insn *i, const struct insn *start, const struct insn *end

#define RV_DECLARE_HANDLER(upper, lower) enum cpu_status rv_do_##lower(RV_HANDLER_ARGS);
RV_OPS(RV_DECLARE_HANDLER)
#undef RV_DECLARE_HANDLER

extern __attribute__((visibility("hidden"))) enum cpu_status (*const rv_handlers[RV_OP_COUNT])(
    RV_HANDLER_ARGS);

#ifdef __clang__
#define RV_TAIL_CALL __attribute__((musttail))
#else
#define RV_TAIL_CALL
#endif

static inline uint64_t rv_pc(const struct rv_hart *h, const struct insn *i)
{
    return h->cpu.code_page + i->page_offset;
}

/** Leave with @status: instructions before @stop have retired; the pc is set by the caller. */
static inline enum cpu_status rv_leave(struct rv_hart *h, const struct insn *start,
                                       const struct insn *stop, enum cpu_status status)
{
    h->cpu.instret += (uint64_t)(stop - start);
    return status;
}

/** Leave without retiring @i. */
static inline enum cpu_status rv_leave_at(struct rv_hart *h, const struct insn *i,
                                          const struct insn *start, enum cpu_status status)
{
    h->cpu.pc = rv_pc(h, i);
    return rv_leave(h, start, i, status);
}

/** Leave behind @i, which retires. */
static inline enum cpu_status rv_leave_behind(struct rv_hart *h, const struct insn *i,
                                              const struct insn *start, enum cpu_status status)
{
    h->cpu.pc = rv_pc(h, i) + i->size;
    return rv_leave(h, start, i + 1, status);
}

/** Raise an illegal-instruction exception at @i. */
enum cpu_status rv_illegal_insn(RV_HANDLER_ARGS);

#define RV_NEXT()                                                 \
    do {                                                          \
        if (unlikely(++i == end))                                 \
            return rv_leave_behind(h, i - 1, start, CPU_OK);      \
        RV_TAIL_CALL return rv_handlers[i->op](h, i, start, end); \
    } while (0)

#define RV_JUMP(target)                           \
    do {                                          \
        h->cpu.pc = (target);                     \
        return rv_leave(h, start, i + 1, CPU_OK); \
    } while (0)

/** A handler whose @body computes and falls through to the next instruction. */
#define RV_HANDLER(name, body)                    \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS) \
    {                                             \
        body;                                     \
        RV_NEXT();                                \
    }

#define RV_X1  (h->x[i->rs1])
#define RV_X2  (h->x[i->rs2])
#define RV_IMM ((uint64_t)(int64_t)i->imm)

static inline void rv_set_x(struct rv_hart *h, unsigned rd, uint64_t value)
{
    h->x[rd] = value;
    h->x[0] = 0;
}

/** rd = @value, and rd = the low 32 bits of @value sign-extended. */
#define RV_ALU(name, value) RV_HANDLER(name, rv_set_x(h, i->rd, (value)))
#define RV_ALU_W(name, value) \
    RV_HANDLER(name, rv_set_x(h, i->rd, (uint64_t)(int64_t)(int32_t)(value)))

/** A value and how getting it went, returned in registers so that no local's address escapes: else
 * the tail calls would not be jumps. */
struct rv_loaded {
    uint64_t value;
    uint64_t status; /* enum cpu_status */
};
struct rv_loaded rv_load_slow(struct cpu *c, uint64_t va, unsigned size);

/** What a reservation of @size bytes, 4 or 8, is called. */
static inline uint64_t rv_reservation(uint64_t va, unsigned size)
{
    return va + (size == 8);
}

/** Load @size bytes, zero-extended. */
static inline struct rv_loaded rv_load(struct cpu *c, uint64_t va, unsigned size)
{
    const struct tlb_entry *e = tlb_at(c, va, c->mode & RV_MODE_MMU_MASK);

    if (likely(tlb_tag(va + size - 1) == e->tag[CPU_READ])) {
        uint64_t value = cpu_host_load((const void *)(uintptr_t)(va + e->addend), size);

        return (struct rv_loaded){value, CPU_OK};
    }
    return rv_load_slow(c, va, size);
}

#endif
