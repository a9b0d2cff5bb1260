/* riscv64 machines: the engine and its vCPUs, the built-in SBI, the board `virt`. What they start
 * with is riscv_boot.c's.
 *
 * Threads: creation by one; SBI and interrupts on vCPU threads. */
#include "vm/riscv.h"
#include "state/state.h"

#include <errno.h>
#include <string.h>

#define SBI_CONSOLE_NS (3LL * 1000000000) /* Linux looks every two seconds at most */

/* --- What the guest does to its machine; vCPU threads --- */

static void guest_sbi_reset(void *arg, enum sbi_reset kind, bool failure)
{
    struct vm *vm = arg;

    switch (kind) {
    case SBI_RESET_SHUTDOWN:
        vm_guest_poweroff(arg, failure);
        break;
    case SBI_RESET_WARM:
        if (vm->config.warm_is_panic) {
            vm_stop_with(vm, VM_STOP_PANIC, 1, NULL);
            break;
        }
        vm_guest_reset(arg);
        break;
    case SBI_RESET_COLD:
        vm_guest_reset(arg);
        break;
    }
}

static size_t sbi_console_write(void *arg, const void *data, size_t size)
{
    return vm_console_write(((struct vm *)arg)->console, data, size);
}

static size_t sbi_console_read(void *arg, void *data, size_t size)
{
    struct vm *vm = arg;

    __atomic_store_n(&vm->sbi_read_ns, host_now_ns(), __ATOMIC_RELAXED); /* a hint */
    return vm_console_read(vm->console, data, size);
}

static void sbi_wake(void *arg, unsigned index)
{
    vm_wake_hart(arg, index);
}

static void set_irq(void *arg, unsigned hart, unsigned irq, bool level)
{
    struct vm *vm = arg;

    vcpu_set_irq(vm->vcpus[hart], irq, level);
    if (level && vm->sbi)
        vm_wake_hart(vm, hart); /* one that is suspended looks at its interrupts itself */
}

/* A kernel whose terminal is the SBI console polls it; then that is where the user's input goes,
 * although there is a virtio console. */
static bool sbi_console_is_read(const struct vm *vm)
{
    int64_t at = __atomic_load_n(&vm->sbi_read_ns, __ATOMIC_RELAXED);

    return at && host_now_ns() - at < SBI_CONSOLE_NS;
}

/* --- Creation --- */

static unsigned parse_dump(const char *words, struct error *err, int *ret_rc)
{
    static const char *const names[] = {"guest", "ir", "opt", "regs", "host"};
    unsigned bits = 0;

    *ret_rc = 0;
    while (words && *words) {
        size_t n = strcspn(words, ",");
        size_t i = 0;

        while (i < ARRAY_SIZE(names) && (strncmp(words, names[i], n) || names[i][n]))
            i++;
        if (i == ARRAY_SIZE(names)) {
            *ret_rc = error_set(err, EINVAL, "nothing called '%.*s' can be dumped", (int)n, words);
            return 0;
        }
        bits |= 1u << i;
        words += n + (words[n] == ',');
    }
    return bits;
}

static int new_engine(struct vm *vm, struct error *err)
{
    static const enum engine_kind kinds[] = {
        [VM_ENGINE_JIT] = ENGINE_JIT,
        [VM_ENGINE_INTERP] = ENGINE_INTERP,
        [VM_ENGINE_CHECK] = ENGINE_CHECK,
    };
    static const enum engine_profile profiles[] = {
        [VM_CPU_MAX] = ENGINE_PROFILE_MAX,
        [VM_CPU_RVA23] = ENGINE_PROFILE_RVA23,
        [VM_CPU_RVA22] = ENGINE_PROFILE_RVA22,
    };
    int rc;

    if (vm->config.engine == VM_ENGINE_KVM)
        return error_set(err, ENOTSUP, "riscv64 machines do not run under KVM on this host");
    if (vm->config.cpu > VM_CPU_RVA22)
        return error_set(err, EINVAL, "a riscv64 machine has no processors of an x86-64 level");
    struct engine_config config = {
        .kind = kinds[vm->config.engine],
        .mem = vm->mem,
        .clock = &vm->clock,
        .loop = vm->loop,
        .timebase_hz = VIRT_TIMEBASE_HZ,
        .max_vcpus = vm->config.cpus,
        .builtin_sbi = !vm->config.firmware,
        .reset_pc = VIRT_ROM_BASE,
        .profile = profiles[vm->config.cpu],
        .vlen = vm->config.vlen,
        .dump = parse_dump(vm->config.dump, err, &rc),
        .dump_fd = vm->config.dump_fd,
        .stats = vm->config.stats,
        .cache_bytes = vm->config.cache_bytes,
        .perf_map = vm->config.perf_map,
        .gdb_jit = vm->config.gdb_jit,
        .dump_elf = vm->config.dump_elf,
    };

    return rc ? rc : engine_new(&config, &vm->engine, err);
}

static int new_board(struct vm *vm, struct error *err)
{
    vm->virt_config = (struct virt_config){
        .mem = vm->mem,
        .harts = vm->config.cpus,
        .memory_bytes = vm->config.memory_bytes,
        .clock = &vm->clock,
        .loop = vm->loop,
        .isa = engine_isa_string(vm->engine),
        .mmu_type = engine_mmu_type(vm->engine),
        .flash_path = vm->config.flash,
        .uart = vm_console_backend(vm->console),
        .set_irq = set_irq,
        .poweroff = vm_guest_poweroff,
        .reset = vm_guest_reset,
        .arg = vm,
    };
    int rc = virt_board_new(&vm->virt_config, &vm->virt, err);
    if (!rc)
        vm->board = virt_board_base(vm->virt);
    return rc;
}

static int new_vcpu(struct vm *vm, unsigned index, struct vcpu **ret, struct error *err)
{
    return engine_new_vcpu(vm->engine, index, ret, err);
}

static int vcpus_made(struct vm *vm, struct error *err)
{
    struct sbi_config sbi = {
        .mem = vm->mem,
        .vcpus = vm->vcpus,
        .count = vm->config.cpus,
        .clock = &vm->clock,
        .timebase_hz = VIRT_TIMEBASE_HZ,
        .host = {.reset = guest_sbi_reset,
                 .console_write = sbi_console_write,
                 .console_read = sbi_console_read,
                 .wake = sbi_wake,
                 .arg = vm},
    };

    return vm->config.firmware ? 0 : sbi_new(&sbi, &vm->sbi, err);
}

static void trim(struct vm *vm)
{
    engine_trim(vm->engine);
}

static int share(struct vm *vm, struct error *err)
{
    return engine_share(vm->engine, err);
}

static void shared(struct vm *vm)
{
    engine_shared(vm->engine);
}

static int inherit(struct vm *vm, struct vm *from, struct error *err)
{
    return engine_inherit(vm->engine, from->engine, err);
}

static void save(struct vm *vm, struct state_out *out)
{
    if (vm->sbi)
        sbi_save(vm->sbi, out);
}

static int load(struct vm *vm, const struct state_in *in, struct error *err)
{
    return vm->sbi ? sbi_load(vm->sbi, in, err) : 0;
}

static void done(struct vm *vm)
{
    sbi_free(vm->sbi);
    engine_free(vm->engine);
}

const struct vm_arch vm_arch_riscv64 = {
    .name = "riscv64",
    .new_processors = new_engine,
    .new_board = new_board,
    .new_vcpu = new_vcpu,
    .vcpus_made = vcpus_made,
    .trim = trim,
    .share = share,
    .shared = shared,
    .inherit = inherit,
    .boot = riscv_boot,
    .dump_dtb = riscv_dump_dtb,
    .reads_serial = sbi_console_is_read,
    .save = save,
    .load = load,
    .free = done,
};
