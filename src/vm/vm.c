/* A running machine: configuration → board → threads. Creation, the callbacks by which the guest
 * ends or restarts its machine, and the calls of vm.h.
 *
 * Order of creation: loops, memory, what executes, board, devices, freeze, vCPUs, debugger;
 * vm_free() goes backwards and copes with every half of it.
 *
 * Threads: see docs/locking.md. */
#include "device/virtio/balloon.h"
#include "device/virtio/console.h"
#include "vm/vm_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIN_MEMORY  (16ULL << 20)
#define MEMORY_UNIT (1ULL << 20)

/* --- What the guest does to its machine; vCPU threads --- */

void vm_guest_poweroff(void *arg, unsigned code)
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
    if (c->memory_bytes < MIN_MEMORY || c->memory_bytes > VM_MAX_MEMORY ||
        c->memory_bytes % MEMORY_UNIT)
        return error_set(err, EINVAL, "memory must be a whole number of MiB, 16 MiB to 1 TiB");
    if (c->disk_count > VM_MAX_DISKS || c->share_count > VM_MAX_SHARES ||
        c->port_count > VM_MAX_PORTS)
        return error_set(err, EINVAL, "too many disks, shared folders or ports");
    return 0;
}

static int new_board(struct vm *vm, struct error *err)
{
    int in = vm->config.console_uart ? vm->config.console_in : -1;
    int rc = vm_console_new(vm->loop, in, vm->config.console_out, &vm->console, err);

    if (!rc)
        rc = vm->arch->new_board(vm, err);
    if (!rc)
        vm_console_attach(vm->console, vm->board->uart, vm->config.console_uart);
    return rc;
}

static int new_vcpus(struct vm *vm, struct error *err)
{
    int rc = 0;

    for (unsigned i = 0; i < vm->config.cpus && !rc; i++) {
        rc = vm->arch->new_vcpu(vm, i, &vm->vcpus[i], err);
        vm->harts[i] = (struct vm_hart){.vm = vm, .index = i, .vcpu = vm->vcpus[i]};
    }
    return !rc && vm->arch->vcpus_made ? vm->arch->vcpus_made(vm, err) : rc;
}

static int new_debugger(struct vm *vm, struct error *err)
{
    struct gdb_target target = {
        .arch = vm->config.machine == VM_AMD64 ? GDB_X86_64 : GDB_RISCV64,
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
        mem_adopt(vm->mem, vm->config.adopt->mem);
    rc = vm->arch->new_processors(vm, err);
    if (!rc)
        rc = new_board(vm, err);
    if (!rc)
        rc = vm_add_devices(vm, err);
    if (rc)
        return rc;
    mem_freeze(vm->mem);
    if (vm->config.adopt && vm->config.adopt->arch == vm->arch && vm->arch->inherit)
        rc = vm->arch->inherit(vm, vm->config.adopt, err);
    if (!rc)
        rc = new_vcpus(vm, err);
    if (!rc)
        rc = vm->config.dump_dtb  ? vm->arch->dump_dtb(vm, err)
             : vm->config.no_boot ? 0
                                  : vm->arch->boot(vm, err);
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
    vm->arch = config->machine == VM_AMD64 ? &vm_arch_amd64 : &vm_arch_riscv64;
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
    board_free(vm->board);
    vm_console_free(vm->console);
    loop_free(vm->io);
    loop_free(vm->loop);
    vm->arch->free(vm);
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

size_t vm_counters(struct vm *vm, struct counter *ret, size_t max)
{
    struct counter rows[VCPU_MAX_COUNTERS];
    size_t count = 0;

    for (unsigned i = 0; i < vm->config.cpus; i++) {
        count = vcpu_counters(vm->vcpus[i], rows, MIN(max, ARRAY_SIZE(rows)));
        for (size_t n = 0; n < count; n++) {
            rows[n].value += i ? ret[n].value : 0;
            ret[n] = rows[n];
        }
    }
    return count;
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
    bool was_paused = vm->state == VM_PAUSED;
    if (was_paused) {
        vm->pause_wanted = false;
        vm->state = VM_RUNNING;
        vm_update_clock_locked(vm);
        vm_attend_locked(vm);
    }
    mutex_unlock(&vm->lock);
    if (was_paused)
        vm_retry_disks(vm); /* which may pause it again */
}

enum vm_state vm_get_state(struct vm *vm)
{
    mutex_lock(&vm->lock);
    enum vm_state state = vm->state;
    mutex_unlock(&vm->lock);
    return state;
}

bool vm_set_memory(struct vm *vm, uint64_t bytes)
{
    uint64_t all = vm->config.memory_bytes;

    if (vm->balloon_device)
        virtio_balloon_set_target(vm->balloon_device, bytes < all ? all - bytes : 0);
    return vm->balloon_device;
}

bool vm_guest_address(struct vm *vm, char ret[16])
{
    return vm->net && vm->net->ops->get_address && vm->net->ops->get_address(vm->net, ret);
}

void vm_console_resize(struct vm *vm, unsigned columns, unsigned rows)
{
    if (vm->console_device)
        virtio_console_resize(vm->console_device, (uint16_t)MIN(columns, 65535u),
                              (uint16_t)MIN(rows, 65535u));
}

size_t vm_console_input(struct vm *vm, const void *data, size_t size)
{
    if (vm->console_device && !(vm->arch->reads_serial && vm->arch->reads_serial(vm)))
        return virtio_console_input(vm->console_device, data, size);
    return vm_console_type(vm->console, data, size);
}
