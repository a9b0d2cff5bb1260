/* The guest's time: its clock and its time stamp counters, which stand still while the machine
 * does, and go on together.
 *
 * Invariants:
 *  1. While paused, `clock` and `stopped_tsc` are the guest's clock and processor 0's counter at
 * one moment: when the machine stopped, or what its saved state says.
 *  2. After kvm_resume() both are as far apart as they were at that moment: a guest that watches
 * one by the other sees no jump. Counters of other processors keep their distance from the first's.
 *
 * The kernel tells its clock and the host's counter of one moment (KVM_CLOCK_HOST_TSC, Linux 5.16)
 * where its own clock is that counter; elsewhere the two are read one after the other. Counters are
 * moved by their offsets to the host's; a kernel without those (before 5.16) lets them run on.
 *
 * Spec: Linux Documentation/virt/kvm/api.rst §4.29, §4.30; devices/vcpu.rst §4.1.
 *
 * Threads: vCPUs stand still. */
#include "base/log.h"
#include "hv/kvm/kvm_internal.h"

#define TOLERANCE_PPM \
    250 /* by which a host's counter may differ from a saved one's: as clocks do */

static int offset_ioctl(const struct kvm_vcpu *v, unsigned long request, uint64_t *offset)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};

    return kvm_vcpu_ioctl(v, request, (uintptr_t)&attr);
}

static bool has_offset(const struct kvm_vcpu *v)
{
    return v && offset_ioctl(v, KVM_HAS_DEVICE_ATTR, NULL) >= 0;
}

uint64_t kvm_tsc_khz(const struct kvm_vcpu *v)
{
    int khz = kvm_vcpu_ioctl(v, KVM_GET_TSC_KHZ, 0);

    return khz < 0 ? 0 : (uint64_t)khz;
}

void kvm_set_tsc_khz(struct kvm_vcpu *v, uint64_t khz)
{
    uint64_t here = kvm_tsc_khz(v);
    uint64_t apart = here > khz ? here - khz : khz - here;

    if (!khz || !here || apart <= here / 1000000 * TOLERANCE_PPM + 1)
        return;
    if (khz <= INT32_MAX && kvm_vcpu_ioctl(v, KVM_SET_TSC_KHZ, khz) >= 0)
        v->kvm->tsc_scaled = true;
    else if (!v->vcpu.index)
        log_warn("the saved machine's time stamp counter runs at %llu MHz, this host's at %llu, "
                 "and the processor cannot scale it: a guest that tells time by it goes wrong",
                 (unsigned long long)khz / 1000, (unsigned long long)here / 1000);
}

/** The guest's clock and processor 0's counter, of one moment as far as can be. */
static bool read_time(const struct kvm *k, struct kvm_clock_data *ret, uint64_t *ret_tsc)
{
    const struct kvm_vcpu *v = k->vcpus[0];
    uint64_t offset;

    *ret_tsc = 0;
    if (kvm_vm_ioctl(k, KVM_GET_CLOCK, (uintptr_t)ret) < 0)
        return false;
    if (!v)
        return true;
    if (ret->flags & KVM_CLOCK_HOST_TSC && !k->tsc_scaled &&
        offset_ioctl(v, KVM_GET_DEVICE_ATTR, &offset) >= 0)
        *ret_tsc = ret->host_tsc + offset;
    else
        *ret_tsc = kvm_get_msr(v, KVM_MSR_TSC);
    return true;
}

void kvm_pause(struct kvm *k)
{
    if (!k->paused && read_time(k, &k->clock, &k->stopped_tsc))
        k->paused = true;
}

bool kvm_stopped_tsc(const struct kvm_vcpu *v, uint64_t *ret)
{
    const struct kvm *k = v->kvm;
    uint64_t first, own;

    if (!k->paused || !k->vcpus[0] || offset_ioctl(v, KVM_GET_DEVICE_ATTR, &own) < 0 ||
        offset_ioctl(k->vcpus[0], KVM_GET_DEVICE_ATTR, &first) < 0)
        return false;
    *ret = k->stopped_tsc + own - first;
    return true;
}

/** Move @v's counter back by @ticks; a timer that waits for a value of it is set anew. */
static void move_back(const struct kvm_vcpu *v, uint64_t ticks)
{
    uint64_t deadline = kvm_get_msr(v, KVM_MSR_TSC_DEADLINE);
    uint64_t offset;

    if (offset_ioctl(v, KVM_GET_DEVICE_ATTR, &offset) < 0)
        return;
    offset -= ticks;
    (void)offset_ioctl(v, KVM_SET_DEVICE_ATTR, &offset); /* it could be read */
    if (deadline)
        (void)kvm_set_msr(v, KVM_MSR_TSC_DEADLINE, deadline); /* it was so */
}

static void settle_tsc(const struct kvm *k)
{
    struct kvm_clock_data now = {0};
    uint64_t tsc;

    if (!has_offset(k->vcpus[0]) || !read_time(k, &now, &tsc))
        return;
    __extension__ typedef unsigned __int128 wide;
    wide ticks = (wide)(now.clock - k->clock.clock) * kvm_tsc_khz(k->vcpus[0]) / 1000000;
    for (unsigned i = 0; i < k->config.cpus; i++) {
        if (k->vcpus[i])
            move_back(k->vcpus[i], tsc - (k->stopped_tsc + (uint64_t)ticks));
    }
}

void kvm_resume(struct kvm *k)
{
    struct kvm_clock_data clock = {.clock = k->clock.clock};

    if (!k->paused)
        return;
    k->paused = false;
    (void)kvm_vm_ioctl(k, KVM_SET_CLOCK, (uintptr_t)&clock); /* it could be read */
    settle_tsc(k);
    for (unsigned i = 0; i < k->config.cpus; i++) {
        /* so that the guest's watchdogs know of the pause; -EINVAL: it has no such clock */
        if (k->vcpus[i])
            (void)kvm_vcpu_ioctl(k->vcpus[i], KVM_KVMCLOCK_CTRL, 0);
    }
}
