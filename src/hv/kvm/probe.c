/* Is KVM here, and does it have what a machine needs? One sentence for each way in which not.
 *
 * Spec: Linux Documentation/virt/kvm/api.rst §4.1 to 4.5. Threads: any. */
#include "hv/kvm/kvm_internal.h"

#include <errno.h>
#include <string.h>

#define DEVICE "/dev/kvm"

/** What no machine can do without, beyond what API version 12 promises. */
static const struct {
    int cap;
    const char *what;
} needed[] = {
    {KVM_CAP_USER_MEMORY,           "memory of the monitor's own"     },
    {KVM_CAP_IRQCHIP,               "interrupt controllers"           },
    {KVM_CAP_PIT2,                  "the interval timer"              },
    {KVM_CAP_EXT_CPUID,             "processor identification"        },
    {KVM_CAP_MP_STATE,              "the state of several processors" },
    {KVM_CAP_IMMEDIATE_EXIT,        "exits that cannot be lost"       },
    {KVM_CAP_SIGNAL_MSI,            "message-signalled interrupts"    },
    {KVM_CAP_VCPU_EVENTS,           "saved interrupts"                },
    {KVM_CAP_XSAVE,                 "saved vector registers"          },
    {KVM_CAP_XCRS,                  "saved extended control registers"},
    {KVM_CAP_DEBUGREGS,             "saved debug registers"           },
    {KVM_CAP_ADJUST_CLOCK,          "a clock that can stand still"    },
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, "real mode"                       },
    {KVM_CAP_READONLY_MEM,          "read-only memory"                },
};

static int open_error(int rc, struct error *err)
{
    switch (-rc) {
    case ENOENT:
        return error_set(err, ENOENT,
                         "there is no " DEVICE ": the kernel's KVM is not loaded, or this host's "
                         "processor does not offer virtualization");
    case ENODEV:
    case ENXIO:
        return error_set(err, ENODEV, DEVICE " is there, but the kernel has no KVM behind it");
    case EACCES:
    case EPERM:
        return error_set(err, EACCES, DEVICE " may not be opened by this user");
    default:
        return error_set(err, -rc, "cannot open " DEVICE ": %s", strerror(-rc));
    }
}

int kvm_open(struct kvm *k, struct error *err)
{
    k->fd = k->sys->open(k->sys->arg, DEVICE);
    if (k->fd < 0)
        return open_error(k->fd, err);
    int version = kvm_sys_ioctl(k, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return error_set(err, ENODEV, DEVICE " is not KVM: %s", strerror(-version));
    if (version != KVM_API_VERSION)
        return error_set(err, ENOTSUP, DEVICE " speaks version %d of KVM's interface, not %d",
                         version, KVM_API_VERSION);
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
        if (kvm_sys_ioctl(k, KVM_CHECK_EXTENSION, (uintptr_t)needed[i].cap) <= 0)
            return error_set(err, ENOTSUP, "this kernel's KVM lacks %s (capability %d)",
                             needed[i].what, needed[i].cap);
    }
    int size = kvm_sys_ioctl(k, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return error_set(err, ENOTSUP, "this kernel's KVM gives no window to its processors");
    k->run_size = (size_t)size;
    k->vm_fd = kvm_sys_ioctl(k, KVM_CREATE_VM, 0);
    if (k->vm_fd == -EINTR) /* a signal while the kernel waited for other processors */
        k->vm_fd = kvm_sys_ioctl(k, KVM_CREATE_VM, 0);
    if (k->vm_fd < 0)
        return error_set(err, -k->vm_fd, "KVM makes no machine: %s", strerror(-k->vm_fd));
    return 0;
}

int kvm_probe(const struct kvm_sys *sys, struct error *err)
{
    struct kvm k = {.sys = sys ? sys : &kvm_sys_host, .fd = -1, .vm_fd = -1};
    int rc = kvm_open(&k, err);

    if (!rc)
        rc = kvm_make_chips(&k, err);
    if (!rc) {
        int fd = kvm_vm_ioctl(&k, KVM_CREATE_VCPU, 0);

        if (fd < 0)
            rc = error_set(err, ENODEV,
                           "KVM makes a machine but no processor (%s): this host's processor has "
                           "no working virtualization extension",
                           strerror(-fd));
        else
            k.sys->close(k.sys->arg, fd);
    }
    if (!rc && !k.sys->has_extension(k.sys->arg))
        rc = error_set(err, ENODEV,
                       "this host's processor has no VT-x or SVM, and KVM only emulates it in "
                       "software, too slowly to be of use");
    k.sys->close(k.sys->arg, k.vm_fd);
    k.sys->close(k.sys->arg, k.fd);
    return rc;
}

const char *kvm_remedy(int rc)
{
    switch (-rc) {
    case ENOENT:
        return "as root: modprobe kvm-intel or kvm-amd; switch virtualization (VT-x, SVM) on in the "
               "firmware setup; in a virtual machine, have nested virtualization switched on";
    case ENODEV:
        return "switch virtualization (VT-x, SVM) on in the firmware setup; in a virtual machine, "
               "have nested virtualization switched on";
    case EACCES:
        return "as root: usermod -aG kvm USER, and log in again";
    case ENOTSUP:
        return "use a newer kernel: Linux 4.12 or later";
    default:
        return "see what else uses the processor's virtualization extension, and dmesg";
    }
}
