/* The build machine as a Posada machine. Runs on the caller's thread; the machine has its own. */
#include "image/machine.h"

#include "base/clock.h"
#include "base/fd.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define TICK_NS 100000000

static int wait_for(struct vm *vm, const struct image_machine *m, struct error *err)
{
    struct vm_result result;

    while (vm_wait(vm, host_now_ns() + TICK_NS, &result) == -ETIMEDOUT) {
        if (m->tick && m->tick(m->arg)) {
            vm_stop(vm);
            (void)!vm_wait(vm, INT64_MAX, &result); /* how it ended does not matter any more */
            return error_set(err, ECANCELED, "cancelled");
        }
    }
    switch (result.reason) {
    case VM_STOP_POWEROFF:
        return 0;
    case VM_STOP_ERROR:
        return error_set(err, EIO, "%s", error_text(&result.error));
    case VM_STOP_REQUEST:
    case VM_STOP_PANIC:
        break;
    }
    return error_set(err, EIO, "the build machine crashed");
}

static bool is_amd64(const char *arch)
{
    return !strcmp(arch, "amd64");
}

int image_machine_check(const char *arch, struct error *err)
{
    struct error why = {0};

    if (!is_amd64(arch))
        return strcmp(arch, "riscv64")
                   ? error_set(err, ENOTSUP,
                               "an image of architecture '%s' cannot be set up: there is no "
                               "machine for it",
                               arch)
                   : 0;
    int r = vm_kvm_check(&why);
    if (!r)
        return 0;
    return error_set(err, -r,
                     "an amd64 image is set up in an amd64 machine, which takes KVM, but %s; "
                     "remedy: %s; or build it on a host that has KVM and copy the folder",
                     error_text(&why), vm_kvm_remedy(r));
}

int image_machine_run(const struct image_machine *m, struct error *err)
{
    char append[512];
    cleanup(fd_closep) int console =
        open(m->console_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
    struct vm_config config = {
        .name = "posada-build",
        .cpus = m->cpus,
        .memory_bytes = m->memory_bytes,
        .machine = is_amd64(m->arch) ? VM_AMD64 : VM_RISCV64,
        .engine = is_amd64(m->arch) ? VM_ENGINE_KVM : VM_ENGINE_JIT,
        .console_uart = is_amd64(m->arch),
        .kernel = m->kernel,
        .initrd = m->initrd,
        .append = append,
        .disk_count = m->disk_count,
        .console_in = -1,
        .console_out = console,
        .no_reboot = true,
        .no_balloon = true,
    };
    struct vm *vm = NULL;

    if (console < 0)
        return error_set(err, errno, "cannot create '%s': %s", m->console_path, strerror(errno));
    (void)snprintf(append, sizeof(append), "console=%s panic=-1 %s",
                   is_amd64(m->arch) ? "ttyS0" : "hvc0", m->append);
    for (unsigned i = 0; i < m->disk_count; i++) {
        config.disks[i] = (struct vm_disk_config){
            .path = m->disks[i].path,
            .format = "raw",
            .readonly = m->disks[i].read_only,
        };
    }
    int r = vm_new(&config, &vm, err);
    if (!r)
        r = vm_start(vm, err);
    if (!r)
        r = wait_for(vm, m, err);
    vm_free(vm);
    if (r)
        error_prefix(err, "build machine");
    return r;
}
