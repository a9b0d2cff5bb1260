/* Breakpoints, watchpoints and steps, by the guest debug interface (api.rst §4.87).
 *
 * Four points are the processor's own debug registers, which the guest's then are not. More than
 * four breakpoints make the processor step, and every step looks: slow, exact, and without a byte
 * changed in the guest's memory.
 *
 * Threads: set while the vCPU stands still; exits on its own thread. */
#include "base/bits.h"
#include "hv/kvm/kvm_internal.h"

#include <string.h>

#define DR6_STEP       BIT(14)
#define DR7_FIXED      BIT(10)
#define DR7_ENABLE(n)  (2ULL << 2 * (n)) /* global */
#define DR7_KIND(n, k) ((uint64_t)(k) << (16 + 4 * (n)))
#define DR7_SIZE(n, s) ((uint64_t)(s) << (18 + 4 * (n)))

enum { KIND_EXECUTE = 0, KIND_WRITE = 1, KIND_ACCESS = 3 };

enum { EXCEPTION_DEBUG = 1, EXCEPTION_BREAKPOINT = 3 };

/** SDM vol. 3 §17.2.4: LENn. */
static uint64_t size_code(uint64_t size)
{
    return size >= 8 ? 2 : size >= 4 ? 3 : size >= 2 ? 1 : 0;
}

static void set_points(struct kvm_vcpu *v, struct kvm_guest_debug *g)
{
    const struct vcpu_debug *d = &v->debug;
    unsigned n = 0;

    for (size_t i = 0; i < d->watchpoint_count && n < KVM_HW_POINTS; i++, n++) {
        const struct vcpu_watchpoint *w = &d->watchpoints[i];

        g->arch.debugreg[n] = w->addr.v;
        g->arch.debugreg[7] |= DR7_ENABLE(n) | DR7_SIZE(n, size_code(w->size)) |
                               DR7_KIND(n, w->kind == VCPU_WATCH_WRITE ? KIND_WRITE : KIND_ACCESS);
    }
    for (size_t i = 0; !v->by_steps && i < d->breakpoint_count && n < KVM_HW_POINTS; i++, n++) {
        g->arch.debugreg[n] = d->breakpoints[i].v;
        g->arch.debugreg[7] |= DR7_ENABLE(n) | DR7_KIND(n, KIND_EXECUTE);
    }
    if (n) {
        g->arch.debugreg[7] |= DR7_FIXED;
        g->control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    }
}

void kvm_vcpu_set_debug(struct vcpu *vcpu, const struct vcpu_debug *debug)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    struct kvm_guest_debug g = {0};

    v->debug = *debug;
    v->by_steps = debug->breakpoint_count + debug->watchpoint_count > KVM_HW_POINTS;
    set_points(v, &g);
    if (debug->step || v->by_steps)
        g.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
    if (debug->trap_ebreak)
        g.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
    (void)kvm_vcpu_ioctl(v, KVM_SET_GUEST_DEBUG, (uintptr_t)&g); /* then the guest runs on */
}

static bool is_breakpoint(const struct vcpu_debug *d, uint64_t pc)
{
    for (size_t i = 0; i < d->breakpoint_count; i++) {
        if (d->breakpoints[i].v == pc)
            return true;
    }
    return false;
}

bool kvm_debug_exit(struct kvm_vcpu *v, struct vcpu_exit *ret)
{
    const struct kvm_debug_exit_arch *a = &v->run->debug.arch;
    const struct vcpu_debug *d = &v->debug;

    ret->reason = VCPU_EXIT_DEBUG;
    ret->debug.addr = GVA(a->pc);
    ret->debug.cause = VCPU_DEBUG_STEP;
    if (a->exception == EXCEPTION_BREAKPOINT) {
        ret->debug.cause = VCPU_DEBUG_EBREAK;
        return true;
    }
    for (size_t i = 0; i < MIN(d->watchpoint_count, (size_t)KVM_HW_POINTS); i++) {
        if (a->dr6 & BIT(i)) {
            ret->debug.cause = VCPU_DEBUG_WATCH;
            ret->debug.addr = d->watchpoints[i].addr;
            ret->debug.watch = d->watchpoints[i].kind;
            return true;
        }
    }
    if (is_breakpoint(d, a->pc)) {
        ret->debug.cause = VCPU_DEBUG_BREAK;
        return true;
    }
    return d->step || !(a->dr6 & DR6_STEP); /* else a step on the way to a breakpoint */
}
