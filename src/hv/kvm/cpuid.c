/* What the guest is told of its processors: the host's features as far as KVM supports them, or a
 * baseline of them; and the topology, which is one package with a core for each vCPU.
 *
 * Not offered: nested virtualization (VMX, SVM), performance counters with a named baseline.
 *
 * Spec: Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E; x86-64 psABI "Micro-Architecture
 * Levels"; Linux Documentation/virt/kvm/x86/cpuid.rst. */
#include "base/bits.h"
#include "hv/kvm/kvm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum word { EAX, EBX, ECX, EDX };

#define MASK32 0xffffffffu

/** A feature of a baseline. */
struct feature {
    const char *name;
    uint32_t leaf, index;
    enum word word;
    unsigned bit;
    enum kvm_cpu from; /* the first baseline that has it */
};

static const struct feature features[] = {
    {"sse3",     1,          0, ECX, 0,  KVM_CPU_X86_64_V2},
    {"ssse3",    1,          0, ECX, 9,  KVM_CPU_X86_64_V2},
    {"cx16",     1,          0, ECX, 13, KVM_CPU_X86_64_V2},
    {"sse4.1",   1,          0, ECX, 19, KVM_CPU_X86_64_V2},
    {"sse4.2",   1,          0, ECX, 20, KVM_CPU_X86_64_V2},
    {"popcnt",   1,          0, ECX, 23, KVM_CPU_X86_64_V2},
    {"lahf_lm",  0x80000001, 0, ECX, 0,  KVM_CPU_X86_64_V2},
    {"fma",      1,          0, ECX, 12, KVM_CPU_X86_64_V3},
    {"movbe",    1,          0, ECX, 22, KVM_CPU_X86_64_V3},
    {"xsave",    1,          0, ECX, 26, KVM_CPU_X86_64_V3},
    {"avx",      1,          0, ECX, 28, KVM_CPU_X86_64_V3},
    {"f16c",     1,          0, ECX, 29, KVM_CPU_X86_64_V3},
    {"bmi1",     7,          0, EBX, 3,  KVM_CPU_X86_64_V3},
    {"avx2",     7,          0, EBX, 5,  KVM_CPU_X86_64_V3},
    {"bmi2",     7,          0, EBX, 8,  KVM_CPU_X86_64_V3},
    {"lzcnt",    0x80000001, 0, ECX, 5,  KVM_CPU_X86_64_V3},
    {"avx512f",  7,          0, EBX, 16, KVM_CPU_X86_64_V4},
    {"avx512dq", 7,          0, EBX, 17, KVM_CPU_X86_64_V4},
    {"avx512cd", 7,          0, EBX, 28, KVM_CPU_X86_64_V4},
    {"avx512bw", 7,          0, EBX, 30, KVM_CPU_X86_64_V4},
    {"avx512vl", 7,          0, EBX, 31, KVM_CPU_X86_64_V4},
};

/** Beyond the features above, what every baseline lets through: what x86-64 itself has, the
 * hypervisor's own, and what makes a guest safe or fast without being seen by programs. */
static const struct {
    uint32_t leaf, index;
    uint32_t word[4];
} always[] = {
  /* ecx: x2apic, tsc deadline, hypervisor, pcid; edx: the first x86-64's, without ds, acpi, tm */
    {1,          0, {MASK32, MASK32, BIT(21) | BIT(24) | BIT(31) | BIT(17), 0x178bfbff | BIT(28)}},
 /* ebx: smep, erms, invpcid, smap; ecx: umip, la57; edx: the mitigations' */
    {7,
     0,             {0, BIT(7) | BIT(9) | BIT(10) | BIT(20), BIT(2) | BIT(16),
      BIT(10) | BIT(26) | BIT(27) | BIT(28) | BIT(29) | BIT(31)}                          },
 /* ecx: cr8, cmp_legacy, topology extensions; edx: syscall, nx, 1 GiB pages, rdtscp, lm */
    {0x80000001,
     0,             {MASK32, MASK32, BIT(1) | BIT(4) | BIT(22),
      0x0183fbff | BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29)}                       },
    {0x80000008, 0, {MASK32, MASK32, MASK32, MASK32}                                             },
};

/** KVM's own features that a baseline lets through: those of Linux 5.10, which came long ago enough
 * for any host; later ones would tie a machine to hosts that have them. */
#define PARAVIRT_LEAF     0x40000001
#define PARAVIRT_BASELINE (BIT(24) | 0x7efb)

static uint32_t *word_of(struct kvm_cpuid_entry2 *e, enum word w)
{
    uint32_t *const words[4] = {&e->eax, &e->ebx, &e->ecx, &e->edx};

    return words[w];
}

static struct kvm_cpuid_entry2 *find(const struct kvm_features *c, uint32_t leaf, uint32_t index)
{
    for (uint32_t i = 0; i < c->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &c->entries[i];

        if (e->function == leaf &&
            (e->index == index || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
            return (struct kvm_cpuid_entry2 *)(uintptr_t)e;
    }
    return NULL;
}

static void remove_leaf(struct kvm_features *c, uint32_t leaf)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < c->nent; i++) {
        if (c->entries[i].function != leaf)
            c->entries[kept++] = c->entries[i];
    }
    c->nent = kept;
}

static void add(struct kvm_features *c, const struct kvm_cpuid_entry2 *e)
{
    if (c->nent < KVM_MAX_CPUID)
        c->entries[c->nent++] = *e;
}

unsigned kvm_cpuid_missing(const struct kvm_features *c, enum kvm_cpu cpu, const char **ret)
{
    unsigned missing = 0;

    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        const struct feature *f = &features[i];
        struct kvm_cpuid_entry2 *e = find(c, f->leaf, f->index);

        if (f->from > cpu || (e && *word_of(e, f->word) & BIT(f->bit)))
            continue;
        if (!missing++)
            *ret = f->name;
    }
    return missing;
}

/** Only what the baseline has: features above, and what is always there. */
static void apply_baseline(struct kvm_features *c, enum kvm_cpu cpu)
{
    for (size_t i = 0; i < ARRAY_SIZE(always); i++) {
        struct kvm_cpuid_entry2 *e = find(c, always[i].leaf, always[i].index);

        for (enum word w = EAX; e && w <= EDX; w++) {
            uint32_t allowed = always[i].word[w];

            for (size_t n = 0; n < ARRAY_SIZE(features); n++) {
                const struct feature *f = &features[n];

                if (f->leaf == e->function && f->index == e->index && f->word == w &&
                    f->from <= cpu)
                    allowed |= (uint32_t)BIT(f->bit);
            }
            *word_of(e, w) &= allowed;
        }
    }
    struct kvm_cpuid_entry2 *seven = find(c, 7, 0);
    if (seven)
        seven->eax = 0; /* no further sub-leaves */
    struct kvm_cpuid_entry2 *paravirt = find(c, PARAVIRT_LEAF, 0);
    if (paravirt)
        paravirt->eax &= (uint32_t)PARAVIRT_BASELINE;
    remove_leaf(c, 0xa);
    remove_leaf(c, 0x14);
    remove_leaf(c, 0x19);
    remove_leaf(c, 0x1d);
    remove_leaf(c, 0x1e);
    if (cpu < KVM_CPU_X86_64_V3)
        remove_leaf(c, 0xd);
}

/** With 2^n APIC IDs a package, n. */
static unsigned id_bits(unsigned cpus)
{
    unsigned n = 0;

    while (1u << n < cpus)
        n++;
    return n;
}

/** A core's level and the package's, in leaf 0xb (SDM: "Extended Topology Enumeration"). */
static void add_topology(struct kvm_features *c, unsigned cpus)
{
    struct kvm_cpuid_entry2 e = {.function = 0xb, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};

    remove_leaf(c, 0xb);
    remove_leaf(c, 0x1f);
    e.ebx = 1;
    e.ecx = 1u << 8; /* level 0: threads of a core */
    add(c, &e);
    e.index = 1;
    e.eax = id_bits(cpus);
    e.ebx = cpus;
    e.ecx = 2u << 8 | 1;
    add(c, &e);
}

static void set_cores(struct kvm_features *c, unsigned cpus)
{
    struct kvm_cpuid_entry2 *e = find(c, 0x80000008, 0);

    if (e)
        e->ecx = (e->ecx & ~0xffffu) | id_bits(cpus) << 12 | (cpus - 1);
    for (uint32_t i = 0; i < c->nent; i++) {
        e = &c->entries[i];
        if (e->function == 4 && e->eax & 31) { /* Intel: cores of the package, sharers of a cache */
            unsigned level = e->eax >> 5 & 7;

            e->eax = (e->eax & 0x3fff) | (cpus - 1) << 26 |
                     (level >= 3 ? ((1u << id_bits(cpus)) - 1) << 14 : 0);
        }
        if (e->function == 0x8000001d && e->eax & 31) { /* AMD: sharers of a cache */
            unsigned level = e->eax >> 5 & 7;

            e->eax = (e->eax & 0x3fff) | (level >= 3 ? (cpus - 1) << 14 : 0);
        }
    }
}

void kvm_cpuid_policy(struct kvm_features *c, enum kvm_cpu cpu, unsigned cpus, bool tsc_deadline)
{
    struct kvm_cpuid_entry2 *one = find(c, 1, 0);
    struct kvm_cpuid_entry2 *extended = find(c, 0x80000001, 0);

    if (one) {
        one->ecx |= BIT(31) | BIT(21);            /* hypervisor, x2APIC: KVM's own */
        one->ecx &= ~(uint32_t)(BIT(5) | BIT(3)); /* VMX, MONITOR */
        if (tsc_deadline)
            one->ecx |= BIT(24);
        one->edx = (one->edx & ~(uint32_t)BIT(28)) | (cpus > 1 ? (uint32_t)BIT(28) : 0);
    }
    if (extended) {
        extended->ecx &= ~(uint32_t)BIT(2); /* SVM */
        extended->ecx = (extended->ecx & ~(uint32_t)BIT(1)) | (cpus > 1 ? 2u : 0);
    }
    remove_leaf(c, 0x8000000a);
    remove_leaf(c, 0x12); /* SGX */
    if (cpu != KVM_CPU_HOST)
        apply_baseline(c, cpu);
    add_topology(c, cpus);
    set_cores(c, cpus);
}

void kvm_cpuid_of(const struct kvm *k, unsigned index, struct kvm_features *ret)
{
    *ret = k->cpuid;
    for (uint32_t i = 0; i < ret->nent; i++) {
        struct kvm_cpuid_entry2 *e = &ret->entries[i];

        switch (e->function) {
        case 1:
            e->ebx = (e->ebx & 0xffff) | index << 24 | 1u << (16 + id_bits(k->config.cpus));
            break;
        case 0xb:
            e->edx = index;
            break;
        case 0x8000001e: /* AMD: extended APIC ID, core ID */
            e->eax = index;
            e->ebx = index;
            e->ecx = 0;
            break;
        default:
            break;
        }
    }
}

int kvm_make_cpuid(struct kvm *k, struct error *err)
{
    static const char *const names[] = {
        [KVM_CPU_X86_64_V2] = "x86-64-v2",
        [KVM_CPU_X86_64_V3] = "x86-64-v3",
        [KVM_CPU_X86_64_V4] = "x86-64-v4",
    };
    const char *missing = "";

    k->cpuid.nent = KVM_MAX_CPUID;
    int rc = kvm_sys_ioctl(k, KVM_GET_SUPPORTED_CPUID, (uintptr_t)&k->cpuid);
    if (rc < 0)
        return error_set(err, -rc, "KVM does not tell which processor features it supports: %s",
                         strerror(-rc));
    if (k->config.cpu != KVM_CPU_HOST && kvm_cpuid_missing(&k->cpuid, k->config.cpu, &missing))
        return error_set(err, ENOTSUP,
                         "this host's processor lacks '%s', which processors of kind %s have",
                         missing, names[k->config.cpu]);
    kvm_cpuid_policy(&k->cpuid, k->config.cpu, k->config.cpus,
                     kvm_cap(k, KVM_CAP_TSC_DEADLINE_TIMER) > 0);
    return 0;
}
