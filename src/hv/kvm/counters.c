/* Statistics of a vCPU: what came back to us, which we count, and what the kernel counts where it
 * tells (Linux 5.14): every time the processor left the guest, most of which it serves itself.
 *
 * Spec: Linux Documentation/virt/kvm/api.rst, "KVM_GET_STATS_FD". What the kernel's descriptor
 * gives is compared with its sizes before it is used: a kernel may have other rows in other places.
 *
 * Threads: any; counters of ours are relaxed. */
#include "hv/kvm/kvm_internal.h"

#include <stdlib.h>
#include <string.h>

#define MAX_DESCRIPTORS 512
#define MAX_NAME        128

static const char *const own_names[KVM_COUNTS] = {
    [KVM_COUNT_RUN] = "kvm_runs",          [KVM_COUNT_IO] = "kvm_io_exits",
    [KVM_COUNT_MMIO] = "kvm_mmio_exits",   [KVM_COUNT_SIGNAL] = "kvm_signal_exits",
    [KVM_COUNT_DEBUG] = "kvm_debug_exits", [KVM_COUNT_OTHER] = "kvm_other_exits",
};

/** The kernel's rows that are shown. */
static const struct {
    const char *kernel;
    struct counter row;
} kernel_rows[] = {
    {"exits",            {.name = "kvm_all_exits"}                 },
    {"halt_exits",       {.name = "kvm_halts"}                     },
    {"irq_exits",        {.name = "kvm_host_irq_exits"}            },
    {"irq_window_exits", {.name = "kvm_irq_window_exits"}          },
    {"pf_taken",         {.name = "kvm_page_faults"}               },
    {"insn_emulation",   {.name = "kvm_emulated"}                  },
    {"hypercalls",       {.name = "kvm_hypercalls"}                },
    {"irq_injections",   {.name = "kvm_irqs_injected"}             },
    {"halt_wait_ns",     {.name = "kvm_halted", .unit = COUNTER_NS}},
};

/** The kernel's struct with its name, of at most MAX_NAME bytes. */
struct descriptor {
    char name[MAX_NAME + 1];
    struct kvm_stats_desc desc; /* last: its own name would follow */
};

static int read_at(const struct kvm_vcpu *v, int fd, void *buf, size_t size, uint64_t offset)
{
    const struct kvm_sys *sys = v->kvm->sys;

    return sys->read(sys->arg, fd, buf, size, offset);
}

static void fill_row(const struct kvm_vcpu *v, int fd, const struct kvm_stats_header *h,
                     const struct descriptor *d, struct counter *rows)
{
    for (size_t i = 0; i < ARRAY_SIZE(kernel_rows); i++) {
        if (strcmp(d->name, kernel_rows[i].kernel) != 0 || d->desc.size < 1)
            continue;
        if (read_at(v, fd, &rows[i].value, sizeof(rows[i].value),
                    (uint64_t)h->data_offset + d->desc.offset))
            rows[i].value = 0;
    }
}

/** Into @rows, one for each of kernel_rows; what this kernel does not count stays 0. */
static void read_kernel(const struct kvm_vcpu *v, int fd, struct counter *rows)
{
    struct kvm_stats_header h;

    if (read_at(v, fd, &h, sizeof(h), 0) || h.num_desc > MAX_DESCRIPTORS || h.name_size > MAX_NAME)
        return;
    for (uint32_t i = 0; i < h.num_desc; i++) {
        struct descriptor d = {0};
        size_t size = sizeof(d.desc) + h.name_size;
        uint8_t bytes[sizeof(d.desc) + MAX_NAME];

        if (read_at(v, fd, bytes, size, h.desc_offset + (uint64_t)i * size))
            return;
        memcpy(&d.desc, bytes, sizeof(d.desc));
        memcpy(d.name, bytes + sizeof(d.desc), h.name_size);
        fill_row(v, fd, &h, &d, rows);
    }
}

size_t kvm_vcpu_counters(struct vcpu *vcpu, struct counter *ret, size_t max)
{
    const struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    struct counter rows[KVM_COUNTS + ARRAY_SIZE(kernel_rows)] = {0};
    size_t count = KVM_COUNTS;

    for (size_t i = 0; i < KVM_COUNTS; i++)
        rows[i] = (struct counter){
            .name = own_names[i],
            .value = __atomic_load_n(&v->counts[i], __ATOMIC_RELAXED),
        };
    int fd = kvm_vcpu_ioctl(v, KVM_GET_STATS_FD, 0);
    if (fd >= 0) {
        for (size_t i = 0; i < ARRAY_SIZE(kernel_rows); i++)
            rows[count++] = kernel_rows[i].row;
        read_kernel(v, fd, rows + KVM_COUNTS);
        v->kvm->sys->close(v->kvm->sys->arg, fd);
    }
    count = MIN(count, max);
    memcpy(ret, rows, count * sizeof(*ret));
    return count;
}
