/* x86-64 machines on the host's own processors, by the kernel's KVM: an implementation of the vCPU
 * contract, and the chips that KVM has in the kernel (local APICs, IOAPIC, PICs, PIT).
 *
 * Spec: Linux Documentation/virt/kvm/api.rst; Intel SDM; AMD APM. */
#ifndef HV_KVM_KVM_H
#define HV_KVM_KVM_H

#include "base/error.h"
#include "mem/mem.h"
#include "vcpu/vcpu.h"

struct kvm;
struct kvm_sys;
struct state_in;
struct state_out;

/** What the guest's processors are: the host's, or a baseline that many hosts have, so that a saved
 * machine can move between them. */
enum kvm_cpu { KVM_CPU_HOST, KVM_CPU_X86_64_V2, KVM_CPU_X86_64_V3, KVM_CPU_X86_64_V4 };

struct kvm_config {
    struct mem *mem;   /* guest-physical space; frozen before the first kvm_new_vcpu() */
    struct mem *ports; /* I/O ports, as an address space of 64 KiB; frozen likewise */
    unsigned cpus;
    enum kvm_cpu cpu;
    const struct kvm_sys *sys; /* NULL: the host's; tests have a fake */
};

/** Can machines run under KVM here? Opens the device, makes a machine and a processor, and looks
 * for every capability that is needed; leaves nothing behind. 0, or -errno with a sentence of what
 * is missing. @sys as in the configuration. A kernel that emulates the extension in software is
 * refused here, though machines can be made on it: kvm_new() does. Any thread. */
must_check int kvm_probe(const struct kvm_sys *sys, struct error *err);

/** What to do about what kvm_probe() returned. Static. */
const char *kvm_remedy(int rc);

/** A machine without memory or processors. *@ret is the caller's, freed after its vCPUs. */
must_check int kvm_new(const struct kvm_config *config, struct kvm **ret, struct error *err);
void kvm_free(struct kvm *k);

/** Processor @index (its APIC ID), in reset state: 0 at the reset vector, the others waiting for
 * INIT and SIPI. The first call gives the kernel the machine's memory. Free with vcpu_free(). */
must_check int kvm_new_vcpu(struct kvm *k, unsigned index, struct vcpu **ret, struct error *err);

/** vcpu_set_irq() inputs of a KVM vCPU: edges, @level false is ignored. */
enum { KVM_INPUT_NMI, KVM_INPUT_SMI };

/** Drive an input of the interrupt controllers: 0 to 15 PIC and IOAPIC, 16 to 23 IOAPIC alone. Any
 * thread. */
void kvm_set_gsi(struct kvm *k, unsigned gsi, bool level);

/** A message-signalled interrupt: a write of @data to @addr (0xfee.....). Any thread. */
void kvm_signal_msi(struct kvm *k, uint64_t addr, uint32_t data);

/** Have writes of @size bytes (0: any size) to @addr signal eventfd @fd without leaving the kernel,
 * or no longer. -EEXIST: it is so already. Any thread. */
must_check int kvm_ioeventfd(struct kvm *k, gpa_t addr, unsigned size, int fd, bool on);

/** The chips, not the vCPUs, in their reset state. vCPUs stand still. */
void kvm_reset_chips(struct kvm *k);

/** The guest's time, its clock and time stamp counters, stops and goes on; vCPUs stand still. */
void kvm_pause(struct kvm *k);
void kvm_resume(struct kvm *k);

/** State of the chips and the clock. The vCPUs' own is vcpu_save()'s; load those first. */
void kvm_save(struct kvm *k, struct state_out *out);
must_check int kvm_load(struct kvm *k, const struct state_in *in, struct error *err);

/** First state for a program loaded by us, in place of the reset vector's. vCPU @v is processor 0
 * and stands still. */
struct kvm_entry {
    bool long_mode; /* else 32-bit protected mode without paging */
    uint64_t rip;
    uint64_t rax; /* multiboot: its magic number */
    uint64_t rbx; /* PVH: start_info */
    uint64_t rsi; /* Linux: boot_params */
    uint64_t cr3; /* long mode */
    uint64_t gdt; /* address of the table of KVM_ENTRY_GDT_* selectors */
    uint16_t gdt_limit;
};
enum { KVM_ENTRY_CS = 0x10, KVM_ENTRY_DS = 0x18, KVM_ENTRY_TSS = 0x20 };
must_check int kvm_vcpu_enter_at(struct vcpu *v, const struct kvm_entry *entry, struct error *err);

#endif
