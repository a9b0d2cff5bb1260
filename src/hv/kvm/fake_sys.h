/* A kernel for tests of hv/kvm: one machine of up to four processors that keeps what it is given,
 * and whose KVM_RUN does what the test says. */
#ifndef HV_KVM_FAKE_SYS_H
#define HV_KVM_FAKE_SYS_H

#include "hv/kvm/kvm_internal.h"

enum {
    FAKE_VCPUS = 4,
    FAKE_DEVICE_FD = 1000,
    FAKE_VM_FD,
    FAKE_VCPU_FD,
    FAKE_STATS_FD = FAKE_VCPU_FD + FAKE_VCPUS
};

struct fake_vcpu {
    struct kvm_run *run;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_sregs2 sregs2;
    struct kvm_fpu fpu;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp;
    struct kvm_lapic_state lapic;
    struct kvm_guest_debug debug;
    uint8_t xsave[4096];
    uint64_t msrs[4];
    struct kvm_cpuid_entry2 cpuid[64];
    unsigned cpuid_count;
    unsigned nmis;
};

struct fake_kernel {
    struct kvm_sys sys;
    bool no_extension;
    int open_rc; /* -errno for KVM's device; 0 = opens */
    int api;
    int missing_cap;    /* absent; -1 = none */
    int vm_rc, vcpu_rc; /* -errno; 0 = works */
    int slot_rc;
    uint32_t readonly_msr; /* refuses every value but its own */
    struct kvm_userspace_memory_region slots[8];
    unsigned slot_count;
    struct kvm_irqchip chips[3];
    struct kvm_pit_state2 pit;
    struct kvm_clock_data clock;
    uint64_t clock_step; /* by which the clock has gone on when it is read after it was set */
    unsigned gsi[24];
    struct kvm_msi msi;
    int open_fds;       /* opened and not closed */
    uint8_t stats[256]; /* what a vCPU's statistics read as */
    bool no_stats;
    bool has_sregs2;
    int address_spaces;
    bool no_offsets; /* to the host's time stamp counter */
    /** What KVM_RUN does: 0 or -errno. NULL: waits for immediate_exit. */
    int (*run)(struct fake_kernel *f, struct fake_vcpu *v);
    unsigned runs;
    struct fake_vcpu vcpus[FAKE_VCPUS];
};

/** A kernel that has everything. The caller's storage. */
void fake_kernel_init(struct fake_kernel *f);

#endif
