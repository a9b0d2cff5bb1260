/* One machine under KVM: creation, memory, interrupt lines and messages, saved chips.
 *
 * Invariants:
 *  1. Every region of mem with host memory is one slot of the kernel's in each of its address
 *     spaces, from the first vCPU on;
 *     ROM is read-only there, and writes to it leave the kernel as MMIO does.
 *  2. The in-kernel chips exist before the first vCPU (api.rst §4.24).
 *
 * Memory map that is the kernel's: 0xfeffc000 one page of identity map, 0xfeffd000 three pages of
 * task state, for real mode on Intel's processors.
 *
 * Threads: creation by one; lines, messages and counts by any; state while vCPUs stand still. */
#include "hv/kvm/kvm_internal.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IDENTITY_MAP 0xfeffc000ULL
#define TASK_STATE   0xfeffd000ULL

int kvm_sys_ioctl(const struct kvm *k, unsigned long request, uintptr_t value)
{
    return k->sys->ioctl(k->sys->arg, k->fd, request, value);
}

int kvm_vm_ioctl(const struct kvm *k, unsigned long request, uintptr_t value)
{
    return k->sys->ioctl(k->sys->arg, k->vm_fd, request, value);
}

int kvm_vcpu_ioctl(const struct kvm_vcpu *v, unsigned long request, uintptr_t value)
{
    return v->kvm->sys->ioctl(v->kvm->sys->arg, v->fd, request, value);
}

int kvm_cap(const struct kvm *k, unsigned cap)
{
    int rc = kvm_vm_ioctl(k, KVM_CHECK_EXTENSION, cap);

    return rc < 0 ? 0 : rc;
}

int kvm_make_chips(struct kvm *k, struct error *err)
{
    uint64_t identity = IDENTITY_MAP;
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    int rc = kvm_vm_ioctl(k, KVM_SET_IDENTITY_MAP_ADDR, (uintptr_t)&identity);

    if (rc >= 0)
        rc = kvm_vm_ioctl(k, KVM_SET_TSS_ADDR, TASK_STATE);
    if (rc >= 0)
        rc = kvm_vm_ioctl(k, KVM_CREATE_IRQCHIP, 0);
    if (rc >= 0)
        rc = kvm_vm_ioctl(k, KVM_CREATE_PIT2, (uintptr_t)&pit);
    return rc < 0 ? error_set(err, -rc, "KVM makes no interrupt controllers: %s", strerror(-rc))
                  : 0;
}

int kvm_new(const struct kvm_config *config, struct kvm **ret, struct error *err)
{
    struct kvm *k = calloc(1, sizeof(*k));

    assert(config->cpus >= 1 && config->cpus <= KVM_MAX_VCPUS);
    if (!k)
        return error_set(err, ENOMEM, "out of memory");
    k->config = *config;
    k->sys = config->sys ? config->sys : &kvm_sys_host;
    k->fd = k->vm_fd = -1;
    int rc = kvm_open(k, err);
    if (!rc)
        rc = kvm_make_chips(k, err);
    if (!rc)
        rc = kvm_make_cpuid(k, err);
    if (!rc)
        rc = kvm_list_msrs(k, err);
    if (rc) {
        kvm_free(k);
        return rc;
    }
    *ret = k;
    return 0;
}

void kvm_free(struct kvm *k)
{
    if (!k)
        return;
    k->sys->close(k->sys->arg, k->vm_fd);
    k->sys->close(k->sys->arg, k->fd);
    free(k);
}

static int map_region(struct kvm *k, const struct mem_region *r, uint32_t space, struct error *err)
{
    struct kvm_userspace_memory_region slot = {
        .slot = space << 16 | k->slots,
        .flags = r->writable ? 0 : KVM_MEM_READONLY,
        .guest_phys_addr = r->base.v,
        .memory_size = r->size,
        .userspace_addr = (uintptr_t)r->host,
    };
    int rc = kvm_vm_ioctl(k, KVM_SET_USER_MEMORY_REGION, (uintptr_t)&slot);

    return rc < 0 ? error_set(err, -rc, "KVM does not take the machine's memory '%s': %s", r->name,
                              strerror(-rc))
                  : 0;
}

/** Into every address space that there is: what the processor sees, and what it sees in system
 * management mode (api.rst §4.35), which here is the same. */
static int map_memory(struct kvm *k, struct error *err)
{
    uint32_t spaces = MAX((uint32_t)kvm_cap(k, KVM_CAP_MULTI_ADDRESS_SPACE), 1u);
    const struct mem_region *r;
    size_t i = 0;

    while ((r = mem_next(k->config.mem, &i))) {
        if (!r->host)
            continue;
        for (uint32_t space = 0; space < spaces; space++) {
            int rc = map_region(k, r, space, err);
            if (rc)
                return rc;
        }
        k->slots++;
    }
    k->mapped = true;
    return 0;
}

static int set_cpuid(struct kvm_vcpu *v, struct error *err)
{
    struct kvm_features *c = malloc(sizeof(*c));

    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    kvm_cpuid_of(v->kvm, v->vcpu.index, c);
    int rc = kvm_vcpu_ioctl(v, KVM_SET_CPUID2, (uintptr_t)c);
    free(c);
    return rc < 0 ? error_set(err, -rc, "KVM does not take the processor's features: %s",
                              strerror(-rc))
                  : 0;
}

int kvm_new_vcpu(struct kvm *k, unsigned index, struct vcpu **ret, struct error *err)
{
    assert(index < k->config.cpus && !k->vcpus[index]);
    int rc = k->mapped ? 0 : map_memory(k, err);
    struct kvm_vcpu *v = rc ? NULL : calloc(1, sizeof(*v));

    if (!v)
        return rc ? rc : error_set(err, ENOMEM, "out of memory");
    v->vcpu = (struct vcpu){.ops = &kvm_vcpu_ops, .index = index};
    v->kvm = k;
    v->run_size = k->run_size;
    v->fd = kvm_vm_ioctl(k, KVM_CREATE_VCPU, index);
    if (v->fd < 0) {
        rc = error_set(err, -v->fd,
                       "KVM makes no processor (%s): this host's processor has no working "
                       "virtualization extension",
                       strerror(-v->fd));
    } else {
        void *run = NULL;

        rc = k->sys->map(k->sys->arg, v->fd, v->run_size, &run);
        v->run = run;
        if (rc)
            rc = error_set(err, -rc, "cannot map a KVM processor's window: %s", strerror(-rc));
    }
    if (!rc)
        rc = set_cpuid(v, err);
    if (!rc) {
        v->initial = kvm_image_new(k);
        rc = v->initial ? kvm_image_get(v, v->initial, err)
                        : error_set(err, ENOMEM, "out of memory");
    }
    if (rc) {
        vcpu_free(&v->vcpu);
        return rc;
    }
    k->vcpus[index] = v;
    *ret = &v->vcpu;
    return 0;
}

void kvm_set_gsi(struct kvm *k, unsigned gsi, bool level)
{
    struct kvm_irq_level irq = {.irq = gsi, .level = level};

    dcheck(gsi < KVM_GSIS);
    (void)kvm_vm_ioctl(k, KVM_IRQ_LINE, (uintptr_t)&irq); /* a GSI that is there cannot fail */
}

void kvm_signal_msi(struct kvm *k, uint64_t addr, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)addr,
        .address_hi = (uint32_t)(addr >> 32),
        .data = data,
    };

    (void)kvm_vm_ioctl(k, KVM_SIGNAL_MSI, (uintptr_t)&msi); /* 0: nobody takes it, as on a bus */
}

int kvm_ioeventfd(struct kvm *k, gpa_t addr, unsigned size, int fd, bool on)
{
    struct kvm_ioeventfd e = {
        .addr = addr.v,
        .len = size,
        .fd = fd,
        .flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
    };
    int rc = kvm_vm_ioctl(k, KVM_IOEVENTFD, (uintptr_t)&e);

    return rc < 0 ? rc : 0;
}

/* --- Saved state of the chips --- */

static const unsigned chip_ids[] = {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
                                    KVM_IRQCHIP_IOAPIC};

/** As the contract has it for a part that cannot fail to save: zeroes, which loading refuses. */
void kvm_save(struct kvm *k, struct state_out *out)
{
    struct kvm_pit_state2 pit = {0};
    struct kvm_clock_data clock = k->clock;

    state_begin(out, "kvm-chips", 0, 1);
    for (size_t i = 0; i < ARRAY_SIZE(chip_ids); i++) {
        struct kvm_irqchip chip = {.chip_id = chip_ids[i]};
        static const char *const names[] = {"pic-master", "pic-slave", "ioapic"};

        (void)kvm_vm_ioctl(k, KVM_GET_IRQCHIP, (uintptr_t)&chip);
        state_put_bytes(out, names[i], &chip.chip, sizeof(chip.chip));
    }
    (void)kvm_vm_ioctl(k, KVM_GET_PIT2, (uintptr_t)&pit);
    state_put_bytes(out, "pit", &pit, sizeof(pit));
    if (!k->paused)
        (void)kvm_vm_ioctl(k, KVM_GET_CLOCK, (uintptr_t)&clock);
    state_put_u64(out, "clock", clock.clock);
    state_end(out);
}

/** Exactly @size bytes of field @name. */
static int get_exact(const struct state_section *s, const char *name, void *ret, size_t size,
                     struct error *err)
{
    const uint8_t *data;
    size_t got;
    int rc = state_get_bytes(s, name, size, &data, &got, err);

    if (!rc && got != size)
        rc = state_bad(s, err, "'%s' has %zu bytes, not %zu", name, got, size);
    if (!rc)
        memcpy(ret, data, size);
    return rc;
}

static int load_chips(struct kvm *k, const struct state_section *s, struct error *err)
{
    static const char *const names[] = {"pic-master", "pic-slave", "ioapic"};
    struct kvm_pit_state2 pit;
    int rc = 0;

    for (size_t i = 0; i < ARRAY_SIZE(chip_ids) && !rc; i++) {
        struct kvm_irqchip chip = {.chip_id = chip_ids[i]};

        rc = get_exact(s, names[i], &chip.chip, sizeof(chip.chip), err);
        if (!rc && kvm_vm_ioctl(k, KVM_SET_IRQCHIP, (uintptr_t)&chip) < 0)
            rc = state_bad(s, err, "KVM does not take '%s'", names[i]);
    }
    if (!rc)
        rc = get_exact(s, "pit", &pit, sizeof(pit), err);
    if (!rc && kvm_vm_ioctl(k, KVM_SET_PIT2, (uintptr_t)&pit) < 0)
        rc = state_bad(s, err, "KVM does not take 'pit'");
    return rc;
}

int kvm_load(struct kvm *k, const struct state_in *in, struct error *err)
{
    const struct state_section *s;
    uint64_t clock;
    int rc = state_find(in, "kvm-chips", 0, 1, &s, err);

    if (!rc)
        rc = load_chips(k, s, err);
    if (!rc)
        rc = state_get_u64(s, "clock", &clock, err);
    if (!rc)
        rc = state_check_all_read(s, err);
    if (rc)
        return rc;
    k->clock = (struct kvm_clock_data){.clock = clock};
    k->paused = true; /* kvm_resume() sets it */
    return 0;
}

void kvm_reset_chips(struct kvm *k)
{
    struct kvm_pit_state2 pit = {0};

    for (size_t i = 0; i < ARRAY_SIZE(chip_ids); i++) {
        struct kvm_irqchip chip = {.chip_id = chip_ids[i]};

        if (chip_ids[i] == KVM_IRQCHIP_IOAPIC) {
            chip.chip.ioapic.base_address = 0xfec00000;
            for (unsigned pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++)
                chip.chip.ioapic.redirtbl[pin].fields.mask = 1;
        }
        (void)kvm_vm_ioctl(k, KVM_SET_IRQCHIP, (uintptr_t)&chip); /* a state that is its own */
    }
    for (unsigned i = 0; i < ARRAY_SIZE(pit.channels); i++) {
        pit.channels[i].gate = i != 2;
        pit.channels[i].mode = 0xff;
        pit.channels[i].count = 0x10000;
    }
    (void)kvm_vm_ioctl(k, KVM_SET_PIT2, (uintptr_t)&pit);
}
