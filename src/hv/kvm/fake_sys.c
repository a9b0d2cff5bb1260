/* The fake kernel: a table of what it keeps, and the few requests that do something. Threads: one,
 * but for KVM_RUN. */
#include "hv/kvm/fake_sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WINDOW 12288

static const uint32_t fake_msrs[4] = {0x6e0, 0x174, 0x10, 0xc0000082};

static int fake_open(void *arg, const char *path)
{
    struct fake_kernel *f = arg;

    if (f->open_rc)
        return f->open_rc;
    f->open_fds++;
    return FAKE_DEVICE_FD;
}

static void fake_close(void *arg, int fd)
{
    if (fd >= 0)
        ((struct fake_kernel *)arg)->open_fds--;
}

static int fake_map(void *arg, int fd, size_t size, void **ret)
{
    struct fake_kernel *f = arg;

    *ret = calloc(1, size);
    f->vcpus[fd - FAKE_VCPU_FD].run = *ret;
    return *ret ? 0 : -ENOMEM;
}

static void fake_unmap(void *arg, void *p, size_t size)
{
    free(p);
}

static int new_fd(struct fake_kernel *f, int rc, int fd)
{
    if (rc)
        return rc;
    f->open_fds++;
    return fd;
}

static int fake_read(void *arg, int fd, void *buf, size_t size, uint64_t offset)
{
    const struct fake_kernel *f = arg;

    if (fd < FAKE_STATS_FD || offset > sizeof(f->stats) || size > sizeof(f->stats) - offset)
        return -EIO;
    memcpy(buf, f->stats + offset, size);
    return 0;
}

static int supported_cpuid(struct kvm_cpuid2 *c)
{
    static const struct kvm_cpuid_entry2 rows[] = {
        {.function = 0,                    .eax = 0xd,               .ebx = 0x68747541},
        {.function = 1,                                .eax = 0x800f12,                                            .ebx = 0x12345678, .ecx = 0xffffffff, .edx = 0xffffffff},
        {.function = 7,               .flags = 1,.ebx = 0xffffffff & ~(1u << 16), .ecx = 0x10},
        {.function = 0xb,                                .flags = 1,                                            .edx = 77},
        {.function = 0x40000000, .eax = 0x40000001                                   },
        {.function = 0x40000001,                  .eax = 0xffffffff},
        {.function = 0x80000001,                                .ecx = 0xffffffff,                                   .edx = 0xffffffff},
        {.function = 0x80000008,                                .eax = 0x3030,.ecx = 0x7007},
        {.function = 0x8000000a,                                .eax = 1                                  },
    };

    if (c->nent < ARRAY_SIZE(rows))
        return -E2BIG;
    memcpy(c->entries, rows, sizeof(rows));
    c->nent = ARRAY_SIZE(rows);
    return 0;
}

static int device_ioctl(struct fake_kernel *f, unsigned long request, uintptr_t value)
{
    struct kvm_msr_list *list;

    switch (request) {
    case KVM_GET_API_VERSION:
        return f->api;
    case KVM_CHECK_EXTENSION:
        return (int)value == f->missing_cap ? 0 : 1;
    case KVM_GET_VCPU_MMAP_SIZE:
        return WINDOW;
    case KVM_CREATE_VM:
        return new_fd(f, f->vm_rc, FAKE_VM_FD);
    case KVM_GET_SUPPORTED_CPUID:
        return supported_cpuid((struct kvm_cpuid2 *)value);
    case KVM_GET_MSR_INDEX_LIST:
        list = (struct kvm_msr_list *)value;
        list->nmsrs = ARRAY_SIZE(fake_msrs);
        memcpy(list->indices, fake_msrs, sizeof(fake_msrs));
        return 0;
    default:
        return -ENOTTY;
    }
}

static int chip_ioctl(struct fake_kernel *f, struct kvm_irqchip *chip, bool set)
{
    if (chip->chip_id > 2)
        return -EINVAL;
    if (set)
        f->chips[chip->chip_id] = *chip;
    else
        *chip = f->chips[chip->chip_id];
    return 0;
}

static int vm_ioctl(struct fake_kernel *f, unsigned long request, uintptr_t value)
{
    const struct kvm_irq_level *irq = (const void *)value;

    switch (request) {
    case KVM_CHECK_EXTENSION:
        if (value == KVM_CAP_MULTI_ADDRESS_SPACE)
            return f->address_spaces;
        return value == KVM_CAP_SREGS2 ? f->has_sregs2 : value != KVM_CAP_XSAVE2;
    case KVM_SET_IDENTITY_MAP_ADDR:
    case KVM_SET_TSS_ADDR:
    case KVM_CREATE_IRQCHIP:
    case KVM_CREATE_PIT2:
        return 0;
    case KVM_SET_USER_MEMORY_REGION:
        if (!f->slot_rc)
            f->slots[f->slot_count++] = *(const struct kvm_userspace_memory_region *)value;
        return f->slot_rc;
    case KVM_CREATE_VCPU:
        return new_fd(f, f->vcpu_rc, FAKE_VCPU_FD + (int)value);
    case KVM_IRQ_LINE:
        f->gsi[irq->irq] = irq->level;
        return 0;
    case KVM_SIGNAL_MSI:
        f->msi = *(const struct kvm_msi *)value;
        return 1;
    case KVM_GET_IRQCHIP:
        return chip_ioctl(f, (struct kvm_irqchip *)value, false);
    case KVM_SET_IRQCHIP:
        return chip_ioctl(f, (struct kvm_irqchip *)value, true);
    case KVM_GET_PIT2:
        memcpy((void *)value, &f->pit, sizeof(f->pit));
        return 0;
    case KVM_SET_PIT2:
        memcpy(&f->pit, (const void *)value, sizeof(f->pit));
        return 0;
    case KVM_GET_CLOCK:
        memcpy((void *)value, &f->clock, sizeof(f->clock));
        return 0;
    case KVM_SET_CLOCK:
        memcpy(&f->clock, (const void *)value, sizeof(f->clock));
        f->clock.clock += f->clock_step;
        return 0;
    default:
        return -ENOTTY;
    }
}

static int find_msr(uint32_t index)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fake_msrs); i++) {
        if (fake_msrs[i] == index)
            return (int)i;
    }
    return -1;
}

static int msrs_ioctl(const struct fake_kernel *f, struct fake_vcpu *v, struct kvm_msrs *m,
                      bool set)
{
    unsigned i = 0;

    for (; i < m->nmsrs; i++) {
        int at = find_msr(m->entries[i].index);

        if (at < 0 || (set && m->entries[i].index == f->readonly_msr))
            break;
        if (set)
            v->msrs[at] = m->entries[i].data;
        else
            m->entries[i].data = v->msrs[at];
    }
    return (int)i;
}

static int wait_for_kick(struct fake_vcpu *v)
{
    const struct timespec ms = {.tv_nsec = 1000000};

    while (!__atomic_load_n(&v->run->immediate_exit, __ATOMIC_SEQ_CST)) {
        if (nanosleep(&ms, NULL))
            return -EINTR;
    }
    return -EINTR;
}

static int run_ioctl(struct fake_kernel *f, struct fake_vcpu *v)
{
    if (v->run->immediate_exit)
        return -EINTR;
    f->runs++;
    return f->run ? f->run(f, v) : wait_for_kick(v);
}

/** The counter, of which the fake's host's is 0 for ever, is its offset. */
static int offset_ioctl(const struct fake_kernel *f, struct fake_vcpu *v,
                        const struct kvm_device_attr *attr, bool set)
{
    uint64_t *tsc = &v->msrs[find_msr(KVM_MSR_TSC)];

    if (f->no_offsets)
        return -ENXIO;
    if (set)
        memcpy(tsc, (const void *)(uintptr_t)attr->addr, sizeof(*tsc));
    else
        memcpy((void *)(uintptr_t)attr->addr, tsc, sizeof(*tsc));
    return 0;
}

static int cpuid_ioctl(struct fake_vcpu *v, const struct kvm_cpuid2 *c)
{
    v->cpuid_count = MIN(c->nent, (uint32_t)ARRAY_SIZE(v->cpuid));
    memcpy(v->cpuid, c->entries, v->cpuid_count * sizeof(v->cpuid[0]));
    return 0;
}

/** What is only kept. */
static int kept_ioctl(struct fake_vcpu *v, unsigned long request, void *p)
{
    const struct {
        unsigned long get, set;
        void *at;
        size_t size;
    } kept[] = {
        {KVM_GET_REGS,        KVM_SET_REGS,        &v->regs,      sizeof(v->regs)     },
        {KVM_GET_SREGS,       KVM_SET_SREGS,       &v->sregs,     sizeof(v->sregs)    },
        {KVM_GET_SREGS2,      KVM_SET_SREGS2,      &v->sregs2,    sizeof(v->sregs2)   },
        {KVM_GET_FPU,         KVM_SET_FPU,         &v->fpu,       sizeof(v->fpu)      },
        {KVM_GET_XCRS,        KVM_SET_XCRS,        &v->xcrs,      sizeof(v->xcrs)     },
        {KVM_GET_XSAVE,       KVM_SET_XSAVE,       v->xsave,      sizeof(v->xsave)    },
        {KVM_GET_LAPIC,       KVM_SET_LAPIC,       &v->lapic,     sizeof(v->lapic)    },
        {KVM_GET_DEBUGREGS,   KVM_SET_DEBUGREGS,   &v->debugregs, sizeof(v->debugregs)},
        {KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, &v->events,    sizeof(v->events)   },
        {KVM_GET_MP_STATE,    KVM_SET_MP_STATE,    &v->mp,        sizeof(v->mp)       },
        {0,                   KVM_SET_GUEST_DEBUG, &v->debug,     sizeof(v->debug)    },
    };

    for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
        if (request == kept[i].get)
            memcpy(p, kept[i].at, kept[i].size);
        else if (request == kept[i].set)
            memcpy(kept[i].at, p, kept[i].size);
        else
            continue;
        return 0;
    }
    return -ENOTTY;
}

static int vcpu_ioctl(struct fake_kernel *f, struct fake_vcpu *v, unsigned long request,
                      uintptr_t value)
{
    switch (request) {
    case KVM_RUN:
        return run_ioctl(f, v);
    case KVM_SET_CPUID2:
        return cpuid_ioctl(v, (const struct kvm_cpuid2 *)value);
    case KVM_GET_MSRS:
        return msrs_ioctl(f, v, (struct kvm_msrs *)value, false);
    case KVM_SET_MSRS:
        return msrs_ioctl(f, v, (struct kvm_msrs *)value, true);
    case KVM_NMI:
        v->nmis++;
        return 0;
    case KVM_GET_STATS_FD:
        return new_fd(f, f->no_stats ? -ENOTTY : 0, FAKE_STATS_FD + (int)(v - f->vcpus));
    case KVM_GET_TSC_KHZ:
        return 1000000;
    case KVM_HAS_DEVICE_ATTR:
        return 0;
    case KVM_GET_DEVICE_ATTR:
    case KVM_SET_DEVICE_ATTR:
        return offset_ioctl(f, v, (const struct kvm_device_attr *)value,
                            request == KVM_SET_DEVICE_ATTR);
    case KVM_KVMCLOCK_CTRL:
        return -EINVAL;
    default:
        return kept_ioctl(v, request, (void *)value);
    }
}

static int fake_ioctl(void *arg, int fd, unsigned long request, uintptr_t value)
{
    struct fake_kernel *f = arg;

    if (fd == FAKE_DEVICE_FD)
        return device_ioctl(f, request, value);
    if (fd == FAKE_VM_FD)
        return vm_ioctl(f, request, value);
    return vcpu_ioctl(f, &f->vcpus[fd - FAKE_VCPU_FD], request, value);
}

static bool fake_has_extension(void *arg)
{
    return !((struct fake_kernel *)arg)->no_extension;
}

void fake_kernel_init(struct fake_kernel *f)
{
    *f = (struct fake_kernel){
        .sys = {.open = fake_open,
                .ioctl = fake_ioctl,
                .map = fake_map,
                .unmap = fake_unmap,
                .close = fake_close,
                .read = fake_read,
                .has_extension = fake_has_extension,
                .arg = f},
        .api = KVM_API_VERSION,
        .missing_cap = -1,
    };
    for (unsigned i = 1; i < FAKE_VCPUS; i++)
        f->vcpus[i].mp.mp_state = KVM_MP_STATE_UNINITIALIZED;
    for (unsigned i = 0; i < FAKE_VCPUS; i++)
        f->vcpus[i].regs.rip = 0xfff0;
}
