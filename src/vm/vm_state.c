/* Freezing a machine, and its saved state.
 *
 * Order of loading: the clock, which the others read; the harts; the board, the interrupt
 * controller first; the devices, which drive its inputs.
 *
 * Threads: any but the machine's own; vCPUs stand still. */
#include "base/loop.h"
#include "base/thread.h"
#include "device/virtio/transport.h"
#include "state/state.h"
#include "vm/vm_internal.h"

#include <errno.h>
#include <malloc.h>
#include <unistd.h>

/** What must be the same in the machine that loads it. */
struct machine {
    uint32_t cpus, devices;
    uint64_t memory_bytes;
    int64_t clock_ns;
    bool builtin_sbi;
};

static const struct state_field machine_fields[] = {
    STATE_FIELD(struct machine, cpus),         STATE_FIELD(struct machine, devices),
    STATE_FIELD(struct machine, memory_bytes), STATE_FIELD(struct machine, clock_ns),
    STATE_FIELD(struct machine, builtin_sbi),  {0},
};

void vm_freeze(struct vm *vm)
{
    vm_pause(vm);
    for (size_t i = 0; i < vm->transport_count; i++)
        virtio_freeze(vm->transports[i]->dev);
    if (vm->ahci)
        ahci_freeze(vm->ahci);
}

void vm_thaw(struct vm *vm)
{
    if (vm->ahci)
        ahci_thaw(vm->ahci);
    for (size_t i = 0; i < vm->transport_count; i++)
        virtio_thaw(vm->transports[i]->dev);
}

void vm_trim(struct vm *vm)
{
    bool was_running = vm_get_state(vm) == VM_RUNNING;

    vm_freeze(vm);
    if (vm_get_state(vm) != VM_STOPPED) {
        if (vm->arch->trim)
            vm->arch->trim(vm);
        (void)mem_trim(vm->mem);
    }
    vm_thaw(vm);
    if (was_running)
        vm_resume(vm);
    (void)malloc_trim(0);
}

/** Two loops that stand still while the process forks. */
struct standstill {
    struct mutex lock;
    struct cond changed;
    unsigned standing; /* [lock] */
    bool over;         /* [lock] */
};

static void stand_still(void *arg)
{
    struct standstill *s = arg;

    mutex_lock(&s->lock);
    s->standing++;
    cond_broadcast(&s->changed);
    while (!s->over)
        cond_wait(&s->changed, &s->lock);
    s->standing--;
    cond_broadcast(&s->changed);
    mutex_unlock(&s->lock);
}

/** What executes is in the child, too, if @adopt. */
static pid_t fork_shared(struct vm *vm, bool adopt)
{
    struct error err = {0};

    adopt = adopt && vm->arch->share;
    if (adopt && vm->arch->share(vm, &err))
        return -ENOMEM;
    pid_t child = fork();
    int rc = -errno;
    if (child && adopt)
        vm->arch->shared(vm);
    return child < 0 ? rc : child;
}

pid_t vm_fork(struct vm *vm, bool adopt)
{
    struct loop *loops[] = {vm->loop, vm->io};
    struct standstill s = {0};
    unsigned posted = 0;
    int rc = 0;

    mutex_init(&s.lock);
    cond_init(&s.changed);
    for (size_t i = 0; i < ARRAY_SIZE(loops) && !rc; i++) {
        if (loop_is_self(loops[i])) /* it has no thread: the machine was never started */
            continue;
        rc = loop_post(loops[i], stand_still, &s);
        posted += !rc;
    }
    mutex_lock(&s.lock);
    while (s.standing < posted)
        cond_wait(&s.changed, &s.lock);
    pid_t child = rc ? rc : fork_shared(vm, adopt);
    if (child) {
        s.over = true;
        cond_broadcast(&s.changed);
        while (s.standing)
            cond_wait(&s.changed, &s.lock);
    }
    mutex_unlock(&s.lock);
    if (child) {
        cond_done(&s.changed);
        mutex_done(&s.lock);
    }
    return child;
}

struct mem *vm_mem(struct vm *vm)
{
    return vm->mem;
}

int vm_save(struct vm *vm, struct state_out *out, struct error *err)
{
    struct machine m = {
        .cpus = vm->config.cpus,
        .devices = (uint32_t)vm->transport_count,
        .memory_bytes = vm->config.memory_bytes,
        .clock_ns = vclock_now_ns(&vm->clock),
        .builtin_sbi = vm->sbi,
    };
    int rc = 0;

    state_save(out, "machine", 0, 1, machine_fields, &m);
    for (unsigned i = 0; i < vm->config.cpus; i++)
        vcpu_save(vm->vcpus[i], out);
    vm->arch->save(vm, out);
    board_save(vm->board, out);
    if (vm->ahci)
        ahci_save(vm->ahci, out);
    for (size_t i = 0; i < vm->transport_count && !rc; i++)
        rc = virtio_save(vm->transports[i], (unsigned)i, out, err);
    return rc;
}

static int check_machine(const struct vm *vm, const struct machine *m, struct error *err)
{
    if (m->cpus != vm->config.cpus || m->memory_bytes != vm->config.memory_bytes)
        return error_set(
            err, EINVAL,
            "the saved state is of a machine with %u CPUs and %llu MiB, not %u and %llu", m->cpus,
            (unsigned long long)(m->memory_bytes >> 20), vm->config.cpus,
            (unsigned long long)(vm->config.memory_bytes >> 20));
    if (m->devices != vm->transport_count)
        return error_set(err, EINVAL, "the saved state is of a machine with %u devices, not %zu",
                         m->devices, vm->transport_count);
    if (m->builtin_sbi != !!vm->sbi)
        return error_set(err, EINVAL, "the saved state is of a machine with%s firmware",
                         m->builtin_sbi ? "out" : "");
    if (m->clock_ns < 0)
        return error_set(err, EINVAL, "the saved state's clock is before its start");
    return 0;
}

int vm_load(struct vm *vm, const struct state_in *in, struct error *err)
{
    struct machine m;
    int rc = state_load(in, "machine", 0, 1, machine_fields, &m, err);

    if (!rc)
        rc = check_machine(vm, &m, err);
    if (rc)
        return rc;
    vclock_init(&vm->clock, m.clock_ns);
    vclock_pause(&vm->clock);
    for (unsigned i = 0; i < vm->config.cpus && !rc; i++)
        rc = vcpu_load(vm->vcpus[i], in, err);
    if (!rc)
        rc = vm->arch->load(vm, in, err);
    if (!rc)
        rc = board_load(vm->board, in, err);
    if (vm->ahci)
        ahci_freeze(vm->ahci); /* nothing is written to disks before all has been loaded */
    if (!rc && vm->ahci)
        rc = ahci_load(vm->ahci, in, err);
    for (size_t i = 0; i < vm->transport_count && !rc; i++)
        rc = virtio_load(vm->transports[i], (unsigned)i, in, err);
    if (!rc)
        board_changed_generation(vm->board);
    if (!rc && vm->ahci)
        ahci_thaw(vm->ahci);
    for (size_t i = 0; i < vm->transport_count && !rc; i++)
        virtio_thaw(vm->transports[i]->dev); /* to look at its queues when its loop starts */
    return rc;
}
