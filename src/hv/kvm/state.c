/* Saved state of a vCPU: the kernel's own blocks, by name.
 *
 * What loads is checked by the kernel, part by part, as it would check a guest's own writes; here
 * only sizes are, and that no register is set that the kernel does not count as a processor's
 * state.
 *
 * Threads: the vCPU stands still. */
#include "state/state.h"
#include "hv/kvm/kvm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 2 /* from 2 on: tsc_khz, and sregs2 where the kernel has them */

#define BLOCK(member)                                                  \
    {                                                                  \
        .name = #member, .offset = offsetof(struct kvm_image, member), \
        .size = sizeof(((struct kvm_image *)0)->member)                \
    }

static const struct {
    const char *name;
    size_t offset, size;
} blocks[] = {
    BLOCK(regs),   BLOCK(sregs), BLOCK(xcrs),  BLOCK(debugregs),
    BLOCK(events), BLOCK(mp),    BLOCK(lapic),
};

static struct kvm_msr_entry *find_msr(struct kvm_image *im, uint32_t index)
{
    for (unsigned i = 0; i < im->msr_count; i++) {
        if (im->msrs[i].index == index)
            return &im->msrs[i];
    }
    return NULL;
}

/** The counter as it was when the machine stopped, not when it was read. */
static void stop_tsc(const struct kvm_vcpu *v, struct kvm_image *im)
{
    struct kvm_msr_entry *e = find_msr(im, KVM_MSR_TSC);
    uint64_t tsc;

    if (e && kvm_stopped_tsc(v, &tsc))
        e->data = tsc;
}

/** A processor that cannot be read is saved without registers, which loading refuses. */
void kvm_vcpu_save(struct vcpu *vcpu, struct state_out *out)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    struct kvm_image *im = kvm_image_new(v->kvm);

    state_begin(out, "kvm-vcpu", vcpu->index, VERSION);
    if (im && !kvm_image_get(v, im, NULL)) {
        stop_tsc(v, im);
        for (size_t i = 0; i < ARRAY_SIZE(blocks); i++)
            state_put_bytes(out, blocks[i].name, (uint8_t *)im + blocks[i].offset, blocks[i].size);
        state_put_bytes(out, "msrs", im->msrs, im->msr_count * sizeof(im->msrs[0]));
        state_put_bytes(out, "xsave", im->xsave, im->xsave_size);
        if (im->has_sregs2)
            state_put_bytes(out, "sregs2", &im->sregs2, sizeof(im->sregs2));
        state_put_u64(out, "tsc_khz", kvm_tsc_khz(v));
    }
    state_end(out);
    free(im);
}

static int get_msrs(const struct kvm *k, const struct state_section *s, struct kvm_image *im,
                    struct error *err)
{
    const uint8_t *data;
    size_t size;
    int rc = state_get_bytes(s, "msrs", sizeof(im->msrs), &data, &size, err);

    if (rc)
        return rc;
    if (size % sizeof(im->msrs[0]))
        return state_bad(s, err, "'msrs' ends within a register");
    memcpy(im->msrs, data, size);
    im->msr_count = (unsigned)(size / sizeof(im->msrs[0]));
    for (unsigned i = 0; i < im->msr_count; i++) {
        if (!kvm_is_listed(k, im->msrs[i].index))
            return state_bad(s, err, "this host's KVM has no register 0x%x", im->msrs[i].index);
    }
    return 0;
}

/** Version 2's. */
static int get_newer(const struct state_section *s, struct kvm_image *im, uint64_t *ret_khz,
                     struct error *err)
{
    const uint8_t *data;
    size_t size;
    int rc = state_get_u64(s, "tsc_khz", ret_khz, err);

    if (rc || !state_has_field(s, "sregs2"))
        return rc;
    rc = state_get_bytes(s, "sregs2", sizeof(im->sregs2), &data, &size, err);
    if (!rc && size != sizeof(im->sregs2))
        rc = state_bad(s, err, "'sregs2' has %zu bytes, not %zu", size, sizeof(im->sregs2));
    if (rc)
        return rc;
    memcpy(&im->sregs2, data, size);
    im->has_sregs2 = true;
    return 0;
}

static int get_image(const struct kvm *k, const struct state_section *s, struct kvm_image *im,
                     uint64_t *ret_khz, struct error *err)
{
    const uint8_t *data;
    size_t size;
    int rc = 0;

    for (size_t i = 0; i < ARRAY_SIZE(blocks) && !rc; i++) {
        rc = state_get_bytes(s, blocks[i].name, blocks[i].size, &data, &size, err);
        if (!rc && size != blocks[i].size)
            rc = state_bad(s, err, "'%s' has %zu bytes, not %zu", blocks[i].name, size,
                           blocks[i].size);
        if (!rc)
            memcpy((uint8_t *)im + blocks[i].offset, data, size);
    }
    if (!rc)
        rc = get_msrs(k, s, im, err);
    if (!rc)
        rc = state_get_bytes(s, "xsave", im->xsave_size, &data, &size, err);
    if (!rc)
        memcpy(im->xsave, data, size); /* a smaller block than this host's is extended by zeroes */
    *ret_khz = 0;
    if (!rc && state_version(s) >= 2)
        rc = get_newer(s, im, ret_khz, err);
    return rc ? rc : state_check_all_read(s, err);
}

int kvm_vcpu_load(struct vcpu *vcpu, const struct state_in *in, struct error *err)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    struct kvm_image *im = kvm_image_new(v->kvm);
    const struct state_section *s;

    if (!im)
        return error_set(err, ENOMEM, "out of memory");
    uint64_t khz = 0;
    int rc = state_find(in, "kvm-vcpu", vcpu->index, VERSION, &s, err);
    if (!rc)
        rc = get_image(v->kvm, s, im, &khz, err);
    if (!rc) {
        kvm_set_tsc_khz(v, khz);
        rc = kvm_image_set(v, im, false, err);
    }
    const struct kvm_msr_entry *tsc = find_msr(im, KVM_MSR_TSC);
    if (!vcpu->index && tsc)
        v->kvm->stopped_tsc = tsc->data;
    free(im);
    return rc;
}
