/* A processor's whole state, read from and given to the kernel.
 *
 * Order of setting, by what the kernel checks against what: system registers (modes, APIC base)
 * first; extended control registers before the registers they enable; the local APIC before its
 * timer's deadline, which is an MSR; pending events and the waiting state last.
 *
 * An MSR that the kernel will not set is an error unless it has the wanted value already: some are
 * read-only, or fixed by the processor's features.
 *
 * Threads: the vCPU stands still. */
#include "hv/kvm/kvm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XSAVE_BASE 4096u
#define XSAVE_MAX  (64u << 10)

/* The kernel's structs, with room. */
struct msr_list {
    uint32_t nmsrs;
    uint32_t indices[KVM_MAX_MSRS];
};

struct msr_block {
    uint32_t nmsrs, pad;
    struct kvm_msr_entry entries[KVM_MAX_MSRS];
};
static_assert(offsetof(struct msr_list, indices) == offsetof(struct kvm_msr_list, indices) &&
                  offsetof(struct msr_block, entries) == offsetof(struct kvm_msrs, entries),
              "laid out as the kernel's");

/** The counter first and its deadline last. */
static int msr_rank(uint32_t msr)
{
    return msr == KVM_MSR_TSC ? 0 : msr == KVM_MSR_TSC_DEADLINE ? 2 : 1;
}

static int compare_msrs(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    int by_rank = msr_rank(x) - msr_rank(y);

    return by_rank ? by_rank : (x > y) - (x < y);
}

/** Memory types, which kernels before 6.3 know and do not list. */
static const struct {
    uint32_t first, last;
} unlisted_msrs[] = {
    {0x200, 0x20f},
    {0x250, 0x250},
    {0x258, 0x259},
    {0x268, 0x26f},
    {0x2ff, 0x2ff},
};

bool kvm_is_listed(const struct kvm *k, uint32_t msr)
{
    for (unsigned i = 0; i < k->msr_count; i++) {
        if (k->msrs[i] == msr)
            return true;
    }
    return false;
}

static void add_msrs(struct kvm *k)
{
    for (size_t i = 0; i < ARRAY_SIZE(unlisted_msrs); i++) {
        for (uint32_t m = unlisted_msrs[i].first; m <= unlisted_msrs[i].last; m++) {
            if (k->msr_count < KVM_MAX_MSRS && !kvm_is_listed(k, m))
                k->msrs[k->msr_count++] = m;
        }
    }
}

int kvm_list_msrs(struct kvm *k, struct error *err)
{
    struct msr_list *list = calloc(1, sizeof(*list));
    int rc;

    if (!list)
        return error_set(err, ENOMEM, "out of memory");
    list->nmsrs = KVM_MAX_MSRS;
    rc = kvm_sys_ioctl(k, KVM_GET_MSR_INDEX_LIST, (uintptr_t)list);
    if (rc < 0) {
        rc = error_set(err, -rc, "KVM does not list its registers: %s", strerror(-rc));
    } else {
        k->msr_count = MIN(list->nmsrs, (uint32_t)KVM_MAX_MSRS);
        memcpy(k->msrs, list->indices, k->msr_count * sizeof(k->msrs[0]));
        add_msrs(k);
        qsort(k->msrs, k->msr_count, sizeof(k->msrs[0]), compare_msrs);
        rc = 0;
    }
    free(list);
    int size = kvm_cap(k, KVM_CAP_XSAVE2);
    k->has_sregs2 = kvm_cap(k, KVM_CAP_SREGS2) > 0;
    k->xsave_size = MIN(MAX((unsigned)size, XSAVE_BASE), XSAVE_MAX);
    return rc;
}

struct kvm_image *kvm_image_new(const struct kvm *k)
{
    struct kvm_image *im = calloc(1, sizeof(*im) + k->xsave_size);

    if (im)
        im->xsave_size = k->xsave_size;
    return im;
}

/** Registers [first, msr_count) as far as the kernel goes; what it does not read is left out. */
static void get_msrs(struct kvm_vcpu *v, struct kvm_image *im, struct msr_block *b)
{
    const struct kvm *k = v->kvm;

    im->msr_count = 0;
    for (unsigned at = 0; at < k->msr_count;) {
        unsigned n = k->msr_count - at;

        b->nmsrs = n;
        for (unsigned i = 0; i < n; i++)
            b->entries[i] = (struct kvm_msr_entry){.index = k->msrs[at + i]};
        int got = kvm_vcpu_ioctl(v, KVM_GET_MSRS, (uintptr_t)b);
        got = got < 0 ? 0 : MIN(got, (int)n);
        memcpy(im->msrs + im->msr_count, b->entries, (size_t)got * sizeof(b->entries[0]));
        im->msr_count += (unsigned)got;
        at += (unsigned)got + 1; /* past the one that it stopped at */
    }
}

/** struct kvm_msrs with one register. */
struct one_msr {
    uint32_t nmsrs, pad;
    struct kvm_msr_entry entry;
};

uint64_t kvm_get_msr(const struct kvm_vcpu *v, uint32_t index)
{
    struct one_msr now = {.nmsrs = 1, .entry.index = index};

    return kvm_vcpu_ioctl(v, KVM_GET_MSRS, (uintptr_t)&now) == 1 ? now.entry.data : 0;
}

int kvm_set_msr(const struct kvm_vcpu *v, uint32_t index, uint64_t value)
{
    struct one_msr m = {
        .nmsrs = 1, .entry = {.index = index, .data = value}
    };

    return kvm_vcpu_ioctl(v, KVM_SET_MSRS, (uintptr_t)&m) == 1 ? 0 : -EINVAL;
}

/** What the kernel did not set may be so already. */
static int check_one(const struct kvm_vcpu *v, const struct kvm_msr_entry *e, struct error *err)
{
    struct one_msr now = {.nmsrs = 1, .entry.index = e->index};

    if (kvm_vcpu_ioctl(v, KVM_GET_MSRS, (uintptr_t)&now) == 1 && now.entry.data == e->data)
        return 0;
    return error_set(err, EINVAL, "KVM does not set register 0x%x to 0x%llx", e->index,
                     (unsigned long long)e->data);
}

static int set_msrs(struct kvm_vcpu *v, const struct kvm_image *im, bool reset, struct msr_block *b,
                    struct error *err)
{
    int rc = 0;

    for (unsigned at = 0; at < im->msr_count && !rc;) {
        unsigned n = 0;

        while (reset && at < im->msr_count && im->msrs[at].index == KVM_MSR_TSC)
            at++;
        for (; at + n < im->msr_count; n++)
            b->entries[n] = im->msrs[at + n];
        if (!n)
            break;
        b->nmsrs = n;
        int done = kvm_vcpu_ioctl(v, KVM_SET_MSRS, (uintptr_t)b);
        done = done < 0 ? 0 : MIN(done, (int)n);
        at += (unsigned)done;
        if (at < im->msr_count && (unsigned)done < n)
            rc = check_one(v, &im->msrs[at++], err);
    }
    return rc;
}

/** One part by one ioctl, in either direction. */
struct part {
    unsigned long get, set;
    size_t offset;
    const char *name;
};

#define PART(g, s, member, text)                                                             \
    {                                                                                        \
        .get = (g), .set = (s), .offset = offsetof(struct kvm_image, member), .name = (text) \
    }

static const struct part system_registers[] = {
    PART(KVM_GET_SREGS, KVM_SET_SREGS, sregs, "system registers"),
};
static const struct part system_registers2[] = {
    PART(KVM_GET_SREGS2, KVM_SET_SREGS2, sregs2, "system registers"),
};
static const struct part before_msrs[] = {
    PART(KVM_GET_XCRS, KVM_SET_XCRS, xcrs, "extended control registers"),
    PART(KVM_GET_XSAVE, KVM_SET_XSAVE, xsave, "vector registers"),
    PART(KVM_GET_REGS, KVM_SET_REGS, regs, "registers"),
    PART(KVM_GET_LAPIC, KVM_SET_LAPIC, lapic, "local APIC"),
};
static const struct part after_msrs[] = {
    PART(KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, events, "events"),
    PART(KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, debugregs, "debug registers"),
    PART(KVM_GET_MP_STATE, KVM_SET_MP_STATE, mp, "waiting state"),
};

static int get_parts(struct kvm_vcpu *v, struct kvm_image *im, const struct part *parts, size_t n,
                     struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        unsigned long request = parts[i].get;

        if (request == KVM_GET_XSAVE && im->xsave_size > XSAVE_BASE)
            request = KVM_GET_XSAVE2;
        int rc = kvm_vcpu_ioctl(v, request, (uintptr_t)im + parts[i].offset);
        if (rc < 0)
            return error_set(err, -rc, "KVM does not tell processor %u's %s: %s", v->vcpu.index,
                             parts[i].name, strerror(-rc));
    }
    return 0;
}

static int set_parts(struct kvm_vcpu *v, const struct kvm_image *im, const struct part *parts,
                     size_t n, struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        int rc = kvm_vcpu_ioctl(v, parts[i].set, (uintptr_t)im + parts[i].offset);

        if (rc < 0)
            return error_set(err, EINVAL, "KVM does not take processor %u's %s: %s", v->vcpu.index,
                             parts[i].name, strerror(-rc));
    }
    return 0;
}

int kvm_image_get(struct kvm_vcpu *v, struct kvm_image *im, struct error *err)
{
    struct msr_block *b = calloc(1, sizeof(*b));

    if (!b)
        return error_set(err, ENOMEM, "out of memory");
    im->has_sregs2 = v->kvm->has_sregs2;
    int rc = get_parts(v, im, system_registers, 1, err);
    if (!rc && im->has_sregs2)
        rc = get_parts(v, im, system_registers2, 1, err);
    if (!rc)
        rc = get_parts(v, im, before_msrs, ARRAY_SIZE(before_msrs), err);
    if (!rc)
        get_msrs(v, im, b);
    if (!rc)
        rc = get_parts(v, im, after_msrs, ARRAY_SIZE(after_msrs), err);
    free(b);
    return rc;
}

int kvm_image_set(struct kvm_vcpu *v, const struct kvm_image *im, bool reset, struct error *err)
{
    struct msr_block *b = calloc(1, sizeof(*b));

    if (!b)
        return error_set(err, ENOMEM, "out of memory");
    bool has_sregs2 = im->has_sregs2 && v->kvm->has_sregs2;
    int rc = set_parts(v, im, has_sregs2 ? system_registers2 : system_registers, 1, err);
    if (!rc)
        rc = set_parts(v, im, before_msrs, ARRAY_SIZE(before_msrs), err);
    if (!rc)
        rc = set_msrs(v, im, reset, b, err);
    if (!rc)
        rc = set_parts(v, im, after_msrs, ARRAY_SIZE(after_msrs), err);
    free(b);
    return rc;
}
