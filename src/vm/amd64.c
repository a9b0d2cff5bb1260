/* amd64 machines: KVM and its vCPUs, the board `pc`. What they start with is amd64_boot.c's.
 *
 * Threads: creation by one; interrupts by any. */
#include "vm/amd64.h"

#include <errno.h>
#include <string.h>

static void set_gsi(void *arg, unsigned gsi, bool level)
{
    kvm_set_gsi(((struct vm *)arg)->kvm, gsi, level);
}

static void signal_msi(void *arg, uint64_t addr, uint32_t data)
{
    kvm_signal_msi(((struct vm *)arg)->kvm, addr, data);
}

static int doorbell(void *arg, uint64_t addr, int fd, bool on)
{
    return kvm_ioeventfd(((struct vm *)arg)->kvm, GPA(addr), 0, fd, on);
}

static void reset_chips(void *arg)
{
    kvm_reset_chips(((struct vm *)arg)->kvm);
}

static void pause_clock(void *arg)
{
    kvm_pause(((struct vm *)arg)->kvm);
}

static void resume_clock(void *arg)
{
    kvm_resume(((struct vm *)arg)->kvm);
}

static int check(const struct vm_config *c, struct error *err)
{
    if (c->engine != VM_ENGINE_KVM)
        return error_set(err, ENOTSUP, "amd64 machines run under KVM only");
    if (c->firmware_payload || c->dump)
        return error_set(err, ENOTSUP,
                         "a firmware's payload and dumps of the engine are for riscv64 machines");
    if (c->flash && !c->firmware)
        return error_set(err, EINVAL, "a flash needs firmware, which keeps its variables there");
    if (c->cpu == VM_CPU_RVA23 || c->cpu == VM_CPU_RVA22)
        return error_set(err, EINVAL, "an amd64 machine has no processors of a RISC-V profile");
    if (c->memory_bytes < 32ULL << 20)
        return error_set(err, EINVAL, "an amd64 machine needs 32 MiB of memory at least");
    return 0;
}

static int new_kvm(struct vm *vm, struct error *err)
{
    static const enum kvm_cpu cpus[] = {
        [VM_CPU_MAX] = KVM_CPU_HOST,
        [VM_CPU_X86_64_V2] = KVM_CPU_X86_64_V2,
        [VM_CPU_X86_64_V3] = KVM_CPU_X86_64_V3,
        [VM_CPU_X86_64_V4] = KVM_CPU_X86_64_V4,
    };
    int rc = check(&vm->config, err);

    if (rc)
        return rc;
    vm->ports = mem_new();
    if (!vm->ports)
        return error_set(err, ENOMEM, "out of memory");
    struct kvm_config config = {
        .mem = vm->mem,
        .ports = vm->ports,
        .cpus = vm->config.cpus,
        .cpu = cpus[vm->config.cpu],
    };
    return kvm_new(&config, &vm->kvm, err);
}

static int new_board(struct vm *vm, struct error *err)
{
    const struct vm_config *c = &vm->config;
    struct smbios_config identity = {.name = c->name, .oem = c->oem, .oem_count = c->oem_count};
    struct pc_config config = {
        .mem = vm->mem,
        .ports = vm->ports,
        .cpus = vm->config.cpus,
        .memory_bytes = vm->config.memory_bytes,
        .clock = &vm->clock,
        .loop = vm->loop,
        .identity = &identity,
        .firmware = vm->config.firmware,
        .flash = vm->config.flash,
        .uart = vm_console_backend(vm->console),
        .set_gsi = set_gsi,
        .signal_msi = signal_msi,
        .doorbell = doorbell,
        .reset_chips = reset_chips,
        .pause = pause_clock,
        .resume = resume_clock,
        .poweroff = vm_guest_poweroff,
        .reset = vm_guest_reset,
        .arg = vm,
    };

    memcpy(identity.uuid, c->uuid, sizeof(identity.uuid));
    int rc = pc_board_new(&config, &vm->pc, err);

    if (!rc)
        vm->board = pc_board_base(vm->pc);
    mem_freeze(vm->ports);
    return rc;
}

static int new_vcpu(struct vm *vm, unsigned index, struct vcpu **ret, struct error *err)
{
    return kvm_new_vcpu(vm->kvm, index, ret, err);
}

static int dump_dtb(struct vm *vm, struct error *err)
{
    return error_set(err, ENOTSUP, "an amd64 machine has no device tree");
}

static void save(struct vm *vm, struct state_out *out)
{
    kvm_save(vm->kvm, out);
}

static int load(struct vm *vm, const struct state_in *in, struct error *err)
{
    return kvm_load(vm->kvm, in, err);
}

static void done(struct vm *vm)
{
    kvm_free(vm->kvm);
    mem_free(vm->ports);
}

const struct vm_arch vm_arch_amd64 = {
    .name = "amd64",
    .new_processors = new_kvm,
    .new_board = new_board,
    .new_vcpu = new_vcpu,
    .boot = amd64_boot,
    .dump_dtb = dump_dtb,
    .save = save,
    .load = load,
    .free = done,
};

bool vm_press_power(struct vm *vm)
{
    return vm->pc && pc_board_press_power(vm->pc);
}

int vm_kvm_check(struct error *err)
{
    return kvm_probe(NULL, err);
}

const char *vm_kvm_remedy(int rc)
{
    return kvm_remedy(rc);
}
