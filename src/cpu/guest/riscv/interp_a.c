/* Interpreter handlers: A, Zacas, Zabha, Zawrs, Zihintpause.
 *
 * LR remembers the address and the value; SC compares and swaps that value. Another hart writing
 * the same value in between goes unnoticed, which no program that keeps to LR/SC can tell but by
 * the ABA pattern, against which the reservation would have to survive the value's return.
 * All atomics are sequentially consistent on the host, which covers every aq and rl.
 * Spec: Unprivileged ISA 20240411, chapters 10, 14, 15, 16; Zabha 1.0. */
#include "cpu/guest/riscv/interp_internal.h"

#include <sched.h>

static unsigned mmu_of(const struct rv_hart *h)
{
    return h->cpu.mode & RV_MODE_MMU_MASK;
}

/** An AMO: what was in memory, sign-extended from @size bytes. */
static __attribute__((noinline)) struct rv_loaded atomic(struct rv_hart *h, const struct insn *i,
                                                         unsigned size, enum cpu_atomic_op op)
{
    struct rv_loaded ret = {0};

    ret.status = cpu_atomic(&h->cpu, RV_X1, size, mmu_of(h), op, RV_X2, &ret.value);
    ret.value = (uint64_t)sext(ret.value, size * 8);
    return ret;
}

static __attribute__((noinline)) struct rv_loaded
compare_and_swap(struct rv_hart *h, const struct insn *i, unsigned size)
{
    struct rv_loaded ret = {0};

    ret.status = cpu_cas(&h->cpu, RV_X1, size, mmu_of(h), h->x[i->rd] & MASK(size * 8),
                         RV_X2 & MASK(size * 8), &ret.value);
    ret.value = (uint64_t)sext(ret.value, size * 8);
    return ret;
}

/** Register @reg and the next, as a quadword; the pair of x0 is 0. */
static void get_pair(const struct rv_hart *h, unsigned reg, uint64_t ret[2])
{
    ret[0] = h->x[reg];
    ret[1] = reg ? h->x[reg + 1] : 0;
}

static __attribute__((noinline)) enum cpu_status compare_and_swap_pair(struct rv_hart *h,
                                                                       const struct insn *i)
{
    uint64_t expected[2], desired[2], old[2];

    get_pair(h, i->rd, expected);
    get_pair(h, i->rs2, desired);
    enum cpu_status rc = cpu_cas128(&h->cpu, RV_X1, mmu_of(h), expected, desired, old);
    if (rc == CPU_OK && i->rd) {
        h->x[i->rd] = old[0];
        h->x[i->rd + 1] = old[1];
    }
    return rc;
}

static struct rv_loaded load_reserved(struct rv_hart *h, uint64_t va, unsigned size, bool release)
{
    struct rv_loaded ret = {0};

    if (va & (size - 1)) {
        rv_misaligned(&h->cpu, va, CPU_READ);
        ret.status = CPU_EXCEPTION;
        return ret;
    }
    if (release) /* of stores before it */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    ret.status = cpu_load(&h->cpu, va, size, mmu_of(h), &ret.value);
    if (ret.status != CPU_OK)
        return ret;
    /* acquire: what the hart does next is not seen before the reservation's load */
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    h->reservation = rv_reservation(va, size);
    h->reservation_value = ret.value;
    ret.value = (uint64_t)sext(ret.value, size * 8);
    return ret;
}

/* Fails without touching memory unless the reservation is for just this address and size. */
static struct rv_loaded store_conditional(struct rv_hart *h, uint64_t va, unsigned size,
                                          uint64_t value)
{
    uint64_t old;
    bool reserved = h->reservation == rv_reservation(va, size);
    struct rv_loaded ret = {.value = 1, .status = CPU_OK};

    h->reservation = RV_NO_RESERVATION;
    if (!reserved && !(va & (size - 1))) /* misaligned, it faults */
        return ret;
    ret.status =
        cpu_cas(&h->cpu, va, size, mmu_of(h), h->reservation_value, value & MASK(size * 8), &old);
    if (ret.status == CPU_OK && old == h->reservation_value)
        ret.value = 0;
    return ret;
}

/** A handler whose result is @call's. */
#define RV_ATOMIC(name, call)                                           \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)                       \
    {                                                                   \
        struct rv_loaded v = call;                                      \
                                                                        \
        if (unlikely(v.status != CPU_OK))                               \
            return rv_leave_at(h, i, start, (enum cpu_status)v.status); \
        rv_set_x(h, i->rd, v.value);                                    \
        RV_NEXT();                                                      \
    }

#define RV_ATOMICS(suffix, size)                              \
    RV_ATOMIC(amoswap_##suffix, atomic(h, i, size, CPU_SWAP)) \
    RV_ATOMIC(amoadd_##suffix, atomic(h, i, size, CPU_ADD))   \
    RV_ATOMIC(amoxor_##suffix, atomic(h, i, size, CPU_XOR))   \
    RV_ATOMIC(amoand_##suffix, atomic(h, i, size, CPU_AND))   \
    RV_ATOMIC(amoor_##suffix, atomic(h, i, size, CPU_OR))     \
    RV_ATOMIC(amomin_##suffix, atomic(h, i, size, CPU_MIN))   \
    RV_ATOMIC(amomax_##suffix, atomic(h, i, size, CPU_MAX))   \
    RV_ATOMIC(amominu_##suffix, atomic(h, i, size, CPU_MINU)) \
    RV_ATOMIC(amomaxu_##suffix, atomic(h, i, size, CPU_MAXU)) \
    RV_ATOMIC(amocas_##suffix, compare_and_swap(h, i, size))

RV_ATOMICS(b, 1)
RV_ATOMICS(h, 2)
RV_ATOMICS(w, 4)
RV_ATOMICS(d, 8)

enum cpu_status rv_do_amocas_q(RV_HANDLER_ARGS)
{
    enum cpu_status rc = compare_and_swap_pair(h, i);

    if (unlikely(rc != CPU_OK))
        return rv_leave_at(h, i, start, rc);
    RV_NEXT();
}

RV_ATOMIC(lr_w, load_reserved(h, RV_X1, 4, i->rs3 &RV_RL))
RV_ATOMIC(lr_d, load_reserved(h, RV_X1, 8, i->rs3 &RV_RL))
RV_ATOMIC(sc_w, store_conditional(h, RV_X1, 4, RV_X2))
RV_ATOMIC(sc_d, store_conditional(h, RV_X1, 8, RV_X2))

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/** A spinning hart may be waiting for one that has no host CPU just now: give ours away from time
 * to time, and if that was to no avail, sleep a little: a CPU given away to as many others
 * that spin is soon back. */
static __attribute__((noinline)) void spin(struct rv_hart *h)
{
    enum { SPINS_BEFORE = 64, INSNS_BETWEEN = 32 * SPINS_BEFORE, SLEEP_NS = 100000 };

    if (++h->spins % SPINS_BEFORE) {
        relax();
        return;
    }
    bool again = h->cpu.instret - h->gave_instret <= INSNS_BETWEEN;
    h->gave_instret = h->cpu.instret;
    if (!again)
        (void)sched_yield(); /* cannot fail */
    else
        (void)cpu_doze(&h->cpu, host_now_ns() + SLEEP_NS); /* whatever ends it */
}

/** Waiting on the reservation set may end at any time: at once. */
RV_HANDLER(wrs_nto, spin(h))
RV_HANDLER(wrs_sto, spin(h))
RV_HANDLER(pause, spin(h))
