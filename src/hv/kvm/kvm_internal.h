/* What the files of hv/kvm share. */
#ifndef HV_KVM_KVM_INTERNAL_H
#define HV_KVM_KVM_INTERNAL_H

#include "hv/kvm/kvm.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <sys/types.h>

#define KVM_MAX_VCPUS 16
#define KVM_GSIS      24
#define KVM_MAX_CPUID 256
#define KVM_MAX_MSRS  512
#define KVM_HW_POINTS 4

/** How the kernel is reached: the one seam for tests. All return -errno, never errno. */
struct kvm_sys {
    int (*open)(void *arg, const char *path);
    int (*ioctl)(void *arg, int fd, unsigned long request, uintptr_t value);
    int (*map)(void *arg, int fd, size_t size, void **ret); /* MAP_SHARED, read and write */
    void (*unmap)(void *arg, void *p, size_t size);
    void (*close)(void *arg, int fd);
    /** All of @size bytes at @offset: 0, or -errno. */
    int (*read)(void *arg, int fd, void *buf, size_t size, uint64_t offset);
    bool (*has_extension)(void *arg); /* the processor's: VT-x or SVM */
    void *arg;
};

/** The host's kernel. */
extern const struct kvm_sys kvm_sys_host;

/** Why a run ended; rows of the count. */
enum kvm_count {
    KVM_COUNT_RUN, /* ioctl KVM_RUN calls */
    KVM_COUNT_IO,
    KVM_COUNT_MMIO,
    KVM_COUNT_SIGNAL,
    KVM_COUNT_DEBUG,
    KVM_COUNT_OTHER,
    KVM_COUNTS,
};

/** struct kvm_cpuid2 with room: the kernel's has a flexible array, which cannot be embedded. */
struct kvm_features {
    uint32_t nent, padding;
    struct kvm_cpuid_entry2 entries[KVM_MAX_CPUID];
};
static_assert(offsetof(struct kvm_features, entries) == offsetof(struct kvm_cpuid2, entries),
              "laid out as the kernel's");

struct kvm_vcpu {
    struct vcpu vcpu;            /* ops->run on its own thread */
    struct kvm *kvm;             /* [init] */
    int fd;                      /* [init] */
    struct kvm_run *run;         /* [init] mapped; immediate_exit is [atomic], the rest [vcpu] */
    size_t run_size;             /* [init] */
    pid_t tid;                   /* [atomic] of the thread in vcpu_run(), 0 = not known yet */
    uint64_t counts[KVM_COUNTS]; /* [atomic] relaxed */
    struct vcpu_debug debug;     /* vCPU stands still; its arrays are borrowed */
    bool by_steps;               /* likewise: more points than the hardware has */
    struct kvm_image *initial;   /* [init] what a reset goes back to */
};

struct kvm {
    struct kvm_config config; /* [init] */
    const struct kvm_sys *sys;
    int fd, vm_fd;               /* [init] */
    size_t run_size;             /* [init] */
    struct kvm_features cpuid;   /* [init] policy for processor 0 */
    uint32_t msrs[KVM_MAX_MSRS]; /* [init] those that make up a processor's state */
    unsigned msr_count;
    bool has_sregs2;                       /* [init] */
    unsigned xsave_size;                   /* [init] bytes of KVM_GET_XSAVE2's block */
    uint32_t slots;                        /* [init] memory slots given to the kernel */
    bool mapped;                           /* [init] */
    struct kvm_vcpu *vcpus[KVM_MAX_VCPUS]; /* [init] */
    bool paused;
    struct kvm_clock_data clock; /* while paused; see clock.c for both */
    uint64_t stopped_tsc;
    bool tsc_scaled; /* the guest's counter is not as fast as the host's */
};

/** Machine ioctls: 0 or more, or -errno. */
int kvm_sys_ioctl(const struct kvm *k, unsigned long request, uintptr_t value);
int kvm_vm_ioctl(const struct kvm *k, unsigned long request, uintptr_t value);
int kvm_vcpu_ioctl(const struct kvm_vcpu *v, unsigned long request, uintptr_t value);
/** Value of a machine's capability; 0 = absent. */
int kvm_cap(const struct kvm *k, unsigned cap);

/* probe.c */

/** Open KVM and check all that its device tells. Used by kvm_new() too. */
must_check int kvm_open(struct kvm *k, struct error *err);

/* kvm.c */

/** The in-kernel interrupt controllers and timer: before processors. */
must_check int kvm_make_chips(struct kvm *k, struct error *err);

/* clock.c */

/** How fast @v's time stamp counter is; 0 = not known. */
uint64_t kvm_tsc_khz(const struct kvm_vcpu *v);
/** Have it as fast as in a saved state; warns if that cannot be. 0 = not known. */
void kvm_set_tsc_khz(struct kvm_vcpu *v, uint64_t khz);
/** @v's counter at the moment at which the machine stopped. False: it runs on. */
bool kvm_stopped_tsc(const struct kvm_vcpu *v, uint64_t *ret);

/* cpuid.c */

/** The table for processor 0 into k->cpuid. */
must_check int kvm_make_cpuid(struct kvm *k, struct error *err);
/** k->cpuid with what differs for processor @index. */
void kvm_cpuid_of(const struct kvm *k, unsigned index, struct kvm_features *ret);
/** The policy itself: @c holds what the kernel supports. */
void kvm_cpuid_policy(struct kvm_features *c, enum kvm_cpu cpu, unsigned cpus, bool tsc_deadline);
/** Baseline features of @cpu that are missing in @c: their number, the first's name in @ret. */
unsigned kvm_cpuid_missing(const struct kvm_features *c, enum kvm_cpu cpu, const char **ret);

/* vcpu.c */

extern const struct vcpu_ops kvm_vcpu_ops;
struct kvm_vcpu *kvm_vcpu_of(struct vcpu *v);
/** Serve what KVM_RUN returned with. True: @ret is filled, and vcpu_run() returns. */
bool kvm_serve_exit(struct kvm_vcpu *v, struct vcpu_exit *ret);

/* regs.c */

void kvm_vcpu_reset(struct vcpu *vcpu);
int kvm_vcpu_get_reg(struct vcpu *vcpu, unsigned id, uint64_t *ret);
int kvm_vcpu_set_reg(struct vcpu *vcpu, unsigned id, uint64_t value);
const struct vcpu_reg *kvm_vcpu_registers(struct vcpu *vcpu, size_t *ret_count);
int kvm_vcpu_translate(struct vcpu *vcpu, gva_t va, enum vcpu_access access, gpa_t *ret);

/* counters.c */

size_t kvm_vcpu_counters(struct vcpu *vcpu, struct counter *ret, size_t max);

/* debug.c */

void kvm_vcpu_set_debug(struct vcpu *vcpu, const struct vcpu_debug *debug);
/** A KVM_EXIT_DEBUG in terms of the contract. False: it is the guest's own INT3 or debug register,
 * which was given back to it. */
bool kvm_debug_exit(struct kvm_vcpu *v, struct vcpu_exit *ret);

/* image.c */

/** All of a processor's state, as the kernel gives and takes it. */
struct kvm_image {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    bool has_sregs2; /* then these are meant, with the page directory pointers of PAE paging */
    struct kvm_sregs2 sregs2;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp;
    struct kvm_lapic_state lapic;
    unsigned msr_count;
    struct kvm_msr_entry msrs[KVM_MAX_MSRS];
    size_t xsave_size;
    uint8_t xsave[]; /* k->xsave_size bytes */
};

enum { KVM_MSR_TSC = 0x10, KVM_MSR_TSC_DEADLINE = 0x6e0 };

/** A register by number; 0 if the kernel does not give it. */
uint64_t kvm_get_msr(const struct kvm_vcpu *v, uint32_t index);
/** 0, or -EINVAL. */
int kvm_set_msr(const struct kvm_vcpu *v, uint32_t index, uint64_t value);

/** Fill k->msrs with what the kernel knows and a processor's state consists of. */
must_check int kvm_list_msrs(struct kvm *k, struct error *err);
/** Is it one of k->msrs? */
bool kvm_is_listed(const struct kvm *k, uint32_t msr);
/** A zeroed image for @k's processors, for free(); NULL = no memory. */
struct kvm_image *kvm_image_new(const struct kvm *k);
/** Read the processor's state. */
must_check int kvm_image_get(struct kvm_vcpu *v, struct kvm_image *im, struct error *err);
/** Set it. With @reset the time stamp counter goes on. -EINVAL: the kernel refuses a part. */
must_check int kvm_image_set(struct kvm_vcpu *v, const struct kvm_image *im, bool reset,
                             struct error *err);

/* state.c */

void kvm_vcpu_save(struct vcpu *vcpu, struct state_out *out);
int kvm_vcpu_load(struct vcpu *vcpu, const struct state_in *in, struct error *err);
#endif
