/* A running machine: configuration → board → threads. Creation, the callbacks by which the guest
 * ends or restarts its machine, and the calls of vm.h.
 *
 * Order of creation: loops, memory, engine, board, devices, freeze, vCPUs, SBI, debugger; vm_free()
 * goes backwards and copes with every half of it.
 *
 * Threads: see docs/locking.md. */
#include "device/virtio/console.h"
#include "vm/vm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIN_MEMORY  (16ULL << 20)
#define MEMORY_UNIT (1ULL << 20)

#define SBI_CONSOLE_NS (3LL * 1000000000) /* Linux looks every two seconds at most */

/* --- What the guest does to its machine; vCPU threads --- */

static void guest_poweroff(void *arg, unsigned code)
{
    if (code)
        vm_stop_with(arg, VM_STOP_PANIC, code & 0xff ? (int)(code & 0xff) : 1, NULL);
    else
        vm_stop_with(arg, VM_STOP_POWEROFF, 0, NULL);
}

void vm_guest_reset(void *arg)
{
    struct vm *vm = arg;

    if (vm->config.no_reboot)
        vm_stop_with(vm, VM_STOP_PANIC, 1, NULL);
    else
        vm_reset(vm);
}

static void guest_sbi_reset(void *arg, enum sbi_reset kind, bool failure)
{
    switch (kind) {
    case SBI_RESET_SHUTDOWN:
        guest_poweroff(arg, failure);
        break;
    case SBI_RESET_COLD:
    case SBI_RESET_WARM:
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

/* --- The debugger; the machine loop --- */

static uint64_t all_harts(const struct vm *vm)
{
    return (1ULL << vm->config.cpus) - 1;
}

static void wait_parked_locked(struct vm *vm) REQUIRES(vm->lock)
{
    while ((vm->parked < vm->running || vm->resetting) && !vm->stop_wanted &&
           (vm->pause_wanted || vm->held))
        cond_wait(&vm->changed, &vm->lock);
}

static void debug_stop(void *arg)
{
    struct vm *vm = arg;

    mutex_lock(&vm->lock);
    vm->held = all_harts(vm);
    vm_attend_locked(vm);
    wait_parked_locked(vm);
    vm_update_clock_locked(vm);
    mutex_unlock(&vm->lock);
}

static void debug_resume(void *arg, uint64_t mask)
{
    struct vm *vm = arg;

    mutex_lock(&vm->lock);
    vm->held = all_harts(vm) & ~mask;
    vm_update_clock_locked(vm);
    vm_attend_locked(vm);
    mutex_unlock(&vm->lock);
}

static void debug_kill(void *arg)
{
    vm_stop_with(arg, VM_STOP_REQUEST, 1, NULL);
}

static void debug_reset(void *arg)
{
    vm_reset(arg);
}

/* --- Creation --- */

static int check_config(const struct vm_config *c, struct error *err)
{
    if (c->cpus < 1 || c->cpus > VM_MAX_CPUS)
        return error_set(err, EINVAL, "%u CPUs: a machine has 1 to %d", c->cpus, VM_MAX_CPUS);
    if (c->memory_bytes < MIN_MEMORY || c->memory_bytes > VIRT_RAM_MAX ||
        c->memory_bytes % MEMORY_UNIT)
        return error_set(err, EINVAL, "memory must be a whole number of MiB, 16 MiB to 1 TiB");
    if (c->disk_count > VM_MAX_DISKS || c->share_count > VM_MAX_SHARES ||
        c->port_count > VM_MAX_PORTS)
        return error_set(err, EINVAL, "too many disks, shared folders or ports");
    return 0;
}

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
    };

    return rc ? rc : engine_new(&config, &vm->engine, err);
}

static int new_board(struct vm *vm, struct error *err)
{
    int in = vm->config.console_uart ? vm->config.console_in : -1;
    int rc = vm_console_new(vm->loop, in, vm->config.console_out, &vm->console, err);

    if (rc)
        return rc;
    vm->board_config = (struct virt_config){
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
        .poweroff = guest_poweroff,
        .reset = vm_guest_reset,
        .arg = vm,
    };
    rc = virt_board_new(&vm->board_config, &vm->board, err);
    if (!rc)
        vm_console_attach(vm->console, virt_board_uart(vm->board), vm->config.console_uart);
    return rc;
}

static int new_vcpus(struct vm *vm, struct error *err)
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
    int rc = 0;

    for (unsigned i = 0; i < vm->config.cpus && !rc; i++) {
        rc = engine_new_vcpu(vm->engine, i, &vm->vcpus[i], err);
        vm->harts[i] = (struct vm_hart){.vm = vm, .index = i, .vcpu = vm->vcpus[i]};
    }
    if (!rc && !vm->config.firmware)
        rc = sbi_new(&sbi, &vm->sbi, err);
    return rc;
}

static int new_debugger(struct vm *vm, struct error *err)
{
    struct gdb_target target = {
        .mem = vm->mem,
        .vcpus = vm->vcpus,
        .vcpu_count = vm->config.cpus,
        .stop = debug_stop,
        .resume = debug_resume,
        .kill = debug_kill,
        .reset = debug_reset,
        .arg = vm,
    };

    if (!vm->config.gdb)
        return 0;
    if (vm->config.gdb_wait)
        vm->held = all_harts(vm);
    return gdb_new(vm->loop, vm->config.gdb, &target, &vm->gdb, err);
}

static int build(struct vm *vm, struct error *err)
{
    int rc = check_config(&vm->config, err);

    if (rc)
        return rc;
    vm->loop = loop_new("machine");
    vm->io = loop_new("io");
    vm->mem = mem_new();
    if (!vm->loop || !vm->io || !vm->mem)
        return error_set(err, ENOMEM, "out of memory or file descriptors");
    if (vm->config.adopt)
        mem_adopt(vm->mem, vm->config.adopt);
    rc = new_engine(vm, err);
    if (!rc)
        rc = new_board(vm, err);
    if (!rc)
        rc = vm_add_devices(vm, err);
    if (rc)
        return rc;
    mem_freeze(vm->mem);
    rc = new_vcpus(vm, err);
    if (!rc)
        rc = vm->config.dump_dtb ? vm_dump_dtb(vm, err) : vm->config.no_boot ? 0 : vm_boot(vm, err);
    if (!rc)
        rc = new_debugger(vm, err);
    return rc;
}

int vm_new(const struct vm_config *config, struct vm **ret, struct error *err)
{
    struct vm *vm = calloc(1, sizeof(*vm));

    if (!vm)
        return error_set(err, ENOMEM, "out of memory");
    vm->config = *config;
    mutex_init(&vm->lock);
    cond_init(&vm->changed);
    vclock_init(&vm->clock, 0);
    vclock_pause(&vm->clock);
    int rc = build(vm, err);
    if (rc) {
        vm_free(vm);
        return rc;
    }
    *ret = vm;
    return 0;
}

/* From here on nothing runs on it, but timers may still be cancelled and watches removed. */
static void stop_loop(struct loop *loop)
{
    if (!loop)
        return;
    loop_stop(loop);
    loop_sync(loop);
}

void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    vm_stop(vm);
    vm_join_harts(vm);
    stop_loop(vm->io);
    stop_loop(vm->loop);
    gdb_free(vm->gdb);
    vm_remove_devices(vm);
    for (unsigned i = 0; i < VM_MAX_CPUS; i++)
        vcpu_free(vm->vcpus[i]);
    virt_board_free(vm->board);
    vm_console_free(vm->console);
    sbi_free(vm->sbi);
    loop_free(vm->io);
    loop_free(vm->loop);
    engine_free(vm->engine);
    mem_free(vm->mem);
    cond_done(&vm->changed);
    mutex_done(&vm->lock);
    free(vm);
}

/* --- Running --- */

int vm_start(struct vm *vm, struct error *err)
{
    int rc = loop_start(vm->loop);

    if (!rc)
        rc = loop_start(vm->io);
    if (rc)
        return error_set(err, -rc, "cannot start a thread: %s", strerror(-rc));
    mutex_lock(&vm->lock);
    if (vm->config.dump_dtb) {
        vm->state = VM_STOPPED; /* it was written when the machine was made */
        mutex_unlock(&vm->lock);
        return 0;
    }
    vm->state = VM_RUNNING;
    vm->started_ns = host_now_ns();
    vm_update_clock_locked(vm);
    vm_attend_locked(vm);
    mutex_unlock(&vm->lock);
    return vm_start_harts(vm, err);
}

static int64_t process_cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int vm_wait(struct vm *vm, int64_t deadline_ns, struct vm_result *ret)
{
    bool in_time = true;

    mutex_lock(&vm->lock);
    while (vm->state != VM_STOPPED && in_time) {
        if (deadline_ns == INT64_MAX)
            cond_wait(&vm->changed, &vm->lock);
        else
            in_time = cond_wait_until(&vm->changed, &vm->lock, deadline_ns);
    }
    bool stopped = vm->state == VM_STOPPED;
    if (stopped) {
        *ret = vm->result;
        ret->cpu_ns = process_cpu_ns();
        for (unsigned i = 0; i < vm->config.cpus; i++)
            ret->guest_instructions += vcpu_instructions(vm->vcpus[i]);
    }
    mutex_unlock(&vm->lock);
    return stopped ? 0 : -ETIMEDOUT;
}

void vm_stop(struct vm *vm)
{
    mutex_lock(&vm->lock);
    bool never_ran = vm->state == VM_CREATED;
    __atomic_store_n(&vm->abandon, vm->stop_wanted, __ATOMIC_RELAXED);
    if (never_ran) {
        vm->state = VM_STOPPED;
        vm->result.reason = VM_STOP_REQUEST;
        cond_broadcast(&vm->changed);
    }
    mutex_unlock(&vm->lock);
    if (!never_ran)
        vm_stop_with(vm, VM_STOP_REQUEST, 1, NULL);
}

void vm_reset(struct vm *vm)
{
    mutex_lock(&vm->lock);
    if (vm->state != VM_STOPPED) {
        vm->reset_wanted = true;
        vm_attend_locked(vm);
    }
    mutex_unlock(&vm->lock);
}

void vm_pause(struct vm *vm)
{
    mutex_lock(&vm->lock);
    if (vm->state == VM_RUNNING) {
        vm->pause_wanted = true;
        vm_attend_locked(vm);
        wait_parked_locked(vm);
        if (vm->pause_wanted && !vm->stop_wanted) {
            vm->state = VM_PAUSED;
            vm_update_clock_locked(vm);
        }
    }
    mutex_unlock(&vm->lock);
}

void vm_resume(struct vm *vm)
{
    mutex_lock(&vm->lock);
    if (vm->state == VM_PAUSED) {
        vm->pause_wanted = false;
        vm->state = VM_RUNNING;
        vm_update_clock_locked(vm);
        vm_attend_locked(vm);
    }
    mutex_unlock(&vm->lock);
}

enum vm_state vm_get_state(struct vm *vm)
{
    mutex_lock(&vm->lock);
    enum vm_state state = vm->state;
    mutex_unlock(&vm->lock);
    return state;
}

void vm_console_resize(struct vm *vm, unsigned columns, unsigned rows)
{
    if (vm->console_device)
        virtio_console_resize(vm->console_device, (uint16_t)MIN(columns, 65535u),
                              (uint16_t)MIN(rows, 65535u));
}

/* A kernel whose terminal is the SBI console polls it; then that is where the user's input goes,
 * although there is a virtio console. */
static bool sbi_console_is_read(const struct vm *vm)
{
    int64_t at = __atomic_load_n(&vm->sbi_read_ns, __ATOMIC_RELAXED);

    return at && host_now_ns() - at < SBI_CONSOLE_NS;
}

size_t vm_console_input(struct vm *vm, const void *data, size_t size)
{
    if (vm->console_device && !sbi_console_is_read(vm))
        return virtio_console_input(vm->console_device, data, size);
    return vm_console_type(vm->console, data, size);
}
