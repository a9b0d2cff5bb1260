/* A vCPU's run loop: into the guest and out again.
 *
 * Kicks: whoever wants the vCPU out sets immediate_exit and sends its thread a signal. If the
 * thread is in the guest, the signal ends KVM_RUN; if it is about to enter, immediate_exit does;
 * so none is lost (api.rst §5, "immediate_exit"). Only after KVM_RUN has returned -EINTR is
 * immediate_exit cleared, and then vcpu_run() returns: an access that left the kernel for us is
 * always completed by the next entry, and what a stopped vCPU's registers say is whole.
 *
 * Threads: its own, but for kick, set_irq, request, instructions. */
#include "base/bits.h"
#include "base/log.h"
#include "hv/kvm/kvm_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct kvm_vcpu *kvm_vcpu_of(struct vcpu *v)
{
    return container_of(v, struct kvm_vcpu, vcpu);
}

static void count(struct kvm_vcpu *v, enum kvm_count what)
{
    /* relaxed: one writer, and readers that only look */
    __atomic_store_n(&v->counts[what], v->counts[what] + 1, __ATOMIC_RELAXED);
}

/* --- Kicks --- */

static int kick_signal(void)
{
    return SIGRTMIN;
}

static void ignore_signal(int signo)
{
    /* its arrival is all that is wanted: KVM_RUN returns */
}

static void install_handler(void)
{
    struct sigaction action = {.sa_handler = ignore_signal, .sa_flags = SA_RESTART};

    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(kick_signal(), &action, NULL); /* fails only for signals that do not exist */
}

/** This thread is the vCPU's from now on. */
static void adopt_thread(struct kvm_vcpu *v)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pid_t tid = (pid_t)syscall(SYS_gettid);
    sigset_t set;

    if (likely(__atomic_load_n(&v->tid, __ATOMIC_RELAXED) == tid))
        return;
    (void)pthread_once(&once, install_handler);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, kick_signal());
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    /* seq-cst: pairs with kick(); a kick that does not see the thread yet has set immediate_exit,
     * which the entry to come sees */
    __atomic_store_n(&v->tid, tid, __ATOMIC_SEQ_CST);
}

static void kick(struct vcpu *vcpu)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    pid_t tid = __atomic_load_n(&v->tid, __ATOMIC_SEQ_CST);
    if (tid && tid != (pid_t)syscall(SYS_gettid))
        (void)syscall(SYS_tgkill, getpid(), tid, kick_signal()); /* gone: nothing to get out */
}

/* --- Exits --- */

/** A bus access of any length at any address, in naturally aligned pieces; what nobody answers
 * reads as ones. */
static void access_bus(struct mem *bus, uint64_t addr, uint8_t *data, unsigned size, bool write)
{
    for (unsigned done = 0; done < size;) {
        unsigned piece = 8;

        while (piece > size - done || (addr + done) % piece)
            piece /= 2;
        uint64_t value = 0;
        if (write) {
            memcpy(&value, data + done, piece);
            (void)mem_write(bus, GPA(addr + done), piece, value); /* lost, as on a real bus */
        } else {
            if (mem_read(bus, GPA(addr + done), piece, &value) != BUS_OK)
                value = UINT64_MAX;
            memcpy(data + done, &value, piece);
        }
        done += piece;
    }
}

static void serve_io(struct kvm_vcpu *v)
{
    struct kvm_run *run = v->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    size_t bytes = (size_t)run->io.size * run->io.count;

    if (run->io.data_offset > v->run_size || bytes > v->run_size - run->io.data_offset)
        return; /* not this kernel's window */
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size)
        access_bus(v->kvm->config.ports, run->io.port, data, run->io.size,
                   run->io.direction == KVM_EXIT_IO_OUT);
}

static int error_at(struct kvm_vcpu *v, struct vcpu_exit *ret, const char *what,
                    unsigned long long number)
{
    struct kvm_regs regs = {0};

    (void)kvm_vcpu_ioctl(v, KVM_GET_REGS, (uintptr_t)&regs); /* 0 then */
    ret->reason = VCPU_EXIT_ERROR;
    return error_set(&ret->error, EIO, "processor %u at rip 0x%llx: %s (0x%llx)", v->vcpu.index,
                     (unsigned long long)regs.rip, what, number);
}

bool kvm_serve_exit(struct kvm_vcpu *v, struct vcpu_exit *ret)
{
    struct kvm_run *run = v->run;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        count(v, KVM_COUNT_IO);
        serve_io(v);
        return false;
    case KVM_EXIT_MMIO:
        count(v, KVM_COUNT_MMIO);
        access_bus(v->kvm->config.mem, run->mmio.phys_addr, run->mmio.data, MIN(run->mmio.len, 8u),
                   run->mmio.is_write);
        return false;
    case KVM_EXIT_DEBUG:
        count(v, KVM_COUNT_DEBUG);
        return kvm_debug_exit(v, ret);
    case KVM_EXIT_SHUTDOWN: /* triple fault */
        ret->reason = VCPU_EXIT_RESET;
        return true;
    case KVM_EXIT_SYSTEM_EVENT:
        ret->reason = VCPU_EXIT_RESET;
        return true;
    case KVM_EXIT_INTERNAL_ERROR:
        (void)error_at(v, ret,
                       run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION
                           ? "KVM cannot emulate this instruction"
                           : "KVM gave up",
                       run->internal.suberror);
        return true;
    case KVM_EXIT_FAIL_ENTRY:
        (void)error_at(v, ret, "the processor refuses to run the guest",
                       run->fail_entry.hardware_entry_failure_reason);
        return true;
    case KVM_EXIT_HYPERCALL:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
    case KVM_EXIT_NMI:
        count(v, KVM_COUNT_OTHER);
        return false;
    default:
        (void)error_at(v, ret, "KVM returned for a reason that is not known here",
                       run->exit_reason);
        return true;
    }
}

static void run(struct vcpu *vcpu, struct vcpu_exit *ret)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

    adopt_thread(v);
    for (;;) {
        count(v, KVM_COUNT_RUN);
        int rc = kvm_vcpu_ioctl(v, KVM_RUN, 0);

        if (rc >= 0) {
            if (kvm_serve_exit(v, ret))
                return;
        } else if (rc == -EINTR) {
            count(v, KVM_COUNT_SIGNAL);
            __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
            ret->reason = VCPU_EXIT_KICK;
            return;
        } else if (rc != -EAGAIN) { /* -EAGAIN: a processor that waited for SIPI has it */
            (void)error_at(v, ret, strerror(-rc), (unsigned)-rc);
            return;
        }
    }
}

static void set_irq(struct vcpu *vcpu, unsigned irq, bool level)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

    if (!level)
        return;
    if (irq == KVM_INPUT_NMI)
        (void)kvm_vcpu_ioctl(v, KVM_NMI, 0);
    else if (irq == KVM_INPUT_SMI)
        (void)kvm_vcpu_ioctl(v, KVM_SMI, 0); /* a kernel without SMM: as if there were no handler */
}

/** The hardware's caches are coherent, and the kernel sees to its own. */
static void request(struct vcpu *vcpu, unsigned requests)
{
}

/** Not counted: the processor does not stop to. */
static uint64_t instructions(struct vcpu *vcpu)
{
    return 0;
}

static void vcpu_kvm_free(struct vcpu *vcpu)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    const struct kvm_sys *sys = v->kvm->sys;

    v->kvm->vcpus[vcpu->index] = NULL;
    if (v->run)
        sys->unmap(sys->arg, v->run, v->run_size);
    sys->close(sys->arg, v->fd);
    free(v->initial);
    free(v);
}

const struct vcpu_ops kvm_vcpu_ops = {
    .name = "kvm",
    .run = run,
    .kick = kick,
    .set_irq = set_irq,
    .request = request,
    .reset = kvm_vcpu_reset,
    .get_reg = kvm_vcpu_get_reg,
    .set_reg = kvm_vcpu_set_reg,
    .registers = kvm_vcpu_registers,
    .translate = kvm_vcpu_translate,
    .set_debug = kvm_vcpu_set_debug,
    .instructions = instructions,
    .counters = kvm_vcpu_counters,
    .save = kvm_vcpu_save,
    .load = kvm_vcpu_load,
    .free = vcpu_kvm_free,
};
