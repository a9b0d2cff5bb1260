/* The vCPU contract: what executes a guest processor's instructions, be it an engine of ours or the
 * host's extension.
 *
 * A vCPU is run by one thread (its own). Calls marked "any thread" may be made at any time; the
 * others only by its thread or while it is known not to be in vcpu_run(). */
#ifndef VCPU_VCPU_H
#define VCPU_VCPU_H

#include "base/counter.h"
#include "base/error.h"
#include "mem/mem.h"

struct state_in;
struct state_out;
struct vcpu;

enum vcpu_exit_reason {
    VCPU_EXIT_KICK, /* vcpu_kick() was called since the last return */
    VCPU_EXIT_SBI, /* RISC-V: S-mode ECALL with the built-in SBI; registers a0..a7 hold the call; pc
                      is already behind it */
    VCPU_EXIT_RESET, /* the processor asks for the machine's reset (x86: triple fault) */
    VCPU_EXIT_DEBUG, /* breakpoint, watchpoint or step: see debug */
    VCPU_EXIT_ERROR, /* cannot go on: see error (engine check mismatch, host fault) */
};

enum vcpu_debug_cause { VCPU_DEBUG_STEP, VCPU_DEBUG_BREAK, VCPU_DEBUG_WATCH, VCPU_DEBUG_EBREAK };

struct vcpu_exit {
    enum vcpu_exit_reason reason;
    struct {
        enum vcpu_debug_cause cause;
        gva_t addr;     /* watchpoint: address accessed; else the pc */
        unsigned watch; /* watchpoint: enum vcpu_watch of the one that fired */
    } debug;
    struct error error;
};

/** Requests that another thread may put to a vCPU; done before it executes another guest
 * instruction. */
enum vcpu_request {
    VCPU_REQ_TLB_FLUSH = 1 << 0, /* forget all address translations */
    VCPU_REQ_ICACHE = 1 << 1,    /* see new code, as fence.i */
};

/** Address translations to forget: of @size bytes from @start, UINT64_MAX for all, in the address
 * space @asid or, if not @has_asid, in all. As SFENCE.VMA. */
struct vcpu_fence {
    uint64_t start, size;
    bool has_asid;
    uint16_t asid;
};

/** Registers, as a debugger and a saved state know them. */
struct vcpu_reg {
    const char *name;    /* "a0" */
    const char *group;   /* "general", "float", "csr": as GDB's target description groups them */
    const char *feature; /* "org.gnu.gdb.riscv.cpu" */
    uint16_t bits;       /* up to 128: beyond 64, VCPU_REG_HIGH | id is the upper part */
    uint16_t id; /* for vcpu_get_reg(); for RISC-V: 0-31 x, 32 pc, 33-64 f, 65 + n = CSR n (GDB's
                    numbering); for x86-64: GDB's numbering, 0-15 general, 16 rip */
};

enum { VCPU_REG_HIGH = 0x8000 };

enum vcpu_watch { VCPU_WATCH_WRITE = 1, VCPU_WATCH_READ = 2, VCPU_WATCH_ACCESS = 3 };

struct vcpu_watchpoint {
    gva_t addr;
    uint64_t size;
    unsigned kind; /* enum vcpu_watch */
};

struct vcpu_debug {
    bool step;
    bool trap_ebreak; /* EBREAK stops with VCPU_DEBUG_EBREAK and is not delivered to the guest */
    const gva_t *breakpoints; /* borrowed until the next vcpu_set_debug() */
    size_t breakpoint_count;
    const struct vcpu_watchpoint *watchpoints; /* borrowed likewise */
    size_t watchpoint_count;
};

enum vcpu_access { VCPU_READ, VCPU_WRITE, VCPU_FETCH };

struct vcpu_ops {
    const char *name; /* "jit", "interp", "check", "kvm" */
    void (*run)(struct vcpu *v, struct vcpu_exit *ret);
    void (*kick)(struct vcpu *v);
    void (*set_irq)(struct vcpu *v, unsigned irq, bool level);
    void (*request)(struct vcpu *v, unsigned requests);
    void (*fence)(struct vcpu *v, const struct vcpu_fence *f);
    void (*reset)(struct vcpu *v);
    int (*get_reg)(struct vcpu *v, unsigned id, uint64_t *ret);
    int (*set_reg)(struct vcpu *v, unsigned id, uint64_t value);
    const struct vcpu_reg *(*registers)(struct vcpu *v, size_t *ret_count);
    int (*translate)(struct vcpu *v, gva_t va, enum vcpu_access access, gpa_t *ret);
    void (*set_debug)(struct vcpu *v, const struct vcpu_debug *debug);
    uint64_t (*instructions)(struct vcpu *v);
    size_t (*counters)(struct vcpu *v, struct counter *ret, size_t max);
    void (*save)(struct vcpu *v, struct state_out *out);
    int (*load)(struct vcpu *v, const struct state_in *in, struct error *err);
    void (*free)(struct vcpu *v);
};

struct vcpu {
    const struct vcpu_ops *ops; /* [init] */
    unsigned index;             /* [init] 0... */
};

/** Execute until there is something for the caller to do. Its own thread. */
static inline void vcpu_run(struct vcpu *v, struct vcpu_exit *ret)
{
    v->ops->run(v, ret);
}

/** Make vcpu_run() return VCPU_EXIT_KICK soon: the present call, or the next one if none is under
 * way. Never lost. Any thread. */
static inline void vcpu_kick(struct vcpu *v)
{
    v->ops->kick(v);
}

/** Interrupt inputs. RISC-V: the number is the bit in mip (SSIP 1, MSIP 3, STIP 5, MTIP 7, SEIP 9,
 * MEIP 11). Any thread. */
static inline void vcpu_set_irq(struct vcpu *v, unsigned irq, bool level)
{
    v->ops->set_irq(v, irq, level);
}

/** Put @requests (enum vcpu_request bits) to the vCPU and wait until it can no longer execute
 * without having honoured them. Any thread, also another vCPU's while outside vcpu_run(); not with
 * a lock held that the vCPU may take. */
static inline void vcpu_request(struct vcpu *v, unsigned requests)
{
    v->ops->request(v, requests);
}

/** The same for VCPU_REQ_TLB_FLUSH of less than everything. Emulated vCPUs only. */
static inline void vcpu_fence(struct vcpu *v, const struct vcpu_fence *f)
{
    v->ops->fence(v, f);
}

/** Architectural reset. RISC-V: M-mode at the reset vector given at creation; with the built-in
 * SBI: S-mode, stopped state is the caller's affair; pc, a0, a1 are set with vcpu_set_reg(). */
static inline void vcpu_reset(struct vcpu *v)
{
    v->ops->reset(v);
}

/** 0, or -ENOENT for a register that is not there. Setting a CSR applies its WARL rules. */
static inline int vcpu_get_reg(struct vcpu *v, unsigned id, uint64_t *ret)
{
    return v->ops->get_reg(v, id, ret);
}
static inline int vcpu_set_reg(struct vcpu *v, unsigned id, uint64_t value)
{
    return v->ops->set_reg(v, id, value);
}
static inline const struct vcpu_reg *vcpu_registers(struct vcpu *v, size_t *ret_count)
{
    return v->ops->registers(v, ret_count);
}

/** Where @va leads in the vCPU's present mode, for a debugger: no side effects (no A/D update, no
 * exception). 0 or -EFAULT. */
static inline int vcpu_translate(struct vcpu *v, gva_t va, enum vcpu_access access, gpa_t *ret)
{
    return v->ops->translate(v, va, access, ret);
}

/** Replace breakpoints, watchpoints and stepping. The vCPU must stand still. */
static inline void vcpu_set_debug(struct vcpu *v, const struct vcpu_debug *debug)
{
    v->ops->set_debug(v, debug);
}

/** Guest instructions retired since creation. Any thread (may lag). */
static inline uint64_t vcpu_instructions(struct vcpu *v)
{
    return v->ops->instructions(v);
}

#define VCPU_MAX_COUNTERS 64

/** Statistics since creation: at most @max rows to @ret, @max being VCPU_MAX_COUNTERS at most; how
 * many. All vCPUs of a machine give the same rows in the same order; what belongs to all of them is
 * in the first one's, so their sum is the machine's. Any thread (may lag). */
static inline size_t vcpu_counters(struct vcpu *v, struct counter *ret, size_t max)
{
    return v->ops->counters ? v->ops->counters(v, ret, max) : 0;
}

/** The architectural state, for a snapshot: independent of what kind of vCPU it is, and of the
 * host. Interrupt inputs are not in it: the devices drive them anew. The vCPU stands still. A
 * failed load (-EINVAL) leaves any state that software could have made: reset or free it. */
static inline void vcpu_save(struct vcpu *v, struct state_out *out)
{
    v->ops->save(v, out);
}
must_check static inline int vcpu_load(struct vcpu *v, const struct state_in *in, struct error *err)
{
    return v->ops->load(v, in, err);
}

static inline void vcpu_free(struct vcpu *v)
{
    if (v)
        v->ops->free(v);
}

#endif
