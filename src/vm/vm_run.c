/* The harts' threads: run, deal with what a run came to, stand still when asked.
 *
 * Every wish (stop, reset, pause, the debugger's hold) is a field under the lock;
 * vm_attend_locked() sets the attention word and gets every hart out of the guest. A hart that
 * finds the word set goes to park(), where it stays while a wish concerns it. The last one to park
 * performs a reset, since nobody else runs then.
 *
 * Threads: one per hart; wishes from any. */
#include "vm/vm_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DRAIN_NS (2LL * 1000000000)

void vm_wake_hart(struct vm *vm, unsigned index)
{
    struct vm_hart *h = &vm->harts[index];

    /* seq-cst: pairs with wait_for_wake(); either it sees the new count or we see it waiting */
    __atomic_fetch_add(&h->wake_count, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&h->waiting, __ATOMIC_SEQ_CST))
        futex_wake(&h->wake_count);
}

static void wait_for_wake(struct vm_hart *h, uint32_t count, int64_t deadline_ns)
{
    __atomic_store_n(&h->waiting, 1, __ATOMIC_SEQ_CST);
    futex_wait(&h->wake_count, count, deadline_ns); /* returns at once if the count has changed */
    __atomic_store_n(&h->waiting, 0, __ATOMIC_SEQ_CST);
}

void vm_update_clock_locked(struct vm *vm)
{
    uint64_t all = vm->config.cpus >= 64 ? UINT64_MAX : (1ULL << vm->config.cpus) - 1;

    if (vm->pause_wanted || vm->held == all) {
        vclock_pause(&vm->clock);
        board_pause(vm->board);
    } else {
        vclock_resume(&vm->clock);
        board_resume(vm->board);
    }
}

void vm_attend_locked(struct vm *vm)
{
    bool wanted =
        vm->stop_wanted || vm->reset_wanted || vm->resetting || vm->pause_wanted || vm->held;

    /* release: pairs with the acquire load in hart_main(); park() looks under the lock anyway */
    __atomic_store_n(&vm->attention, wanted, __ATOMIC_RELEASE);
    cond_broadcast(&vm->changed);
    for (unsigned i = 0; wanted && i < vm->config.cpus; i++) {
        vcpu_kick(vm->vcpus[i]);
        vm_wake_hart(vm, i);
    }
}

void vm_stop_with(struct vm *vm, enum vm_stop_reason reason, int status, const struct error *err)
{
    mutex_lock(&vm->lock);
    if (!vm->stop_wanted && vm->state != VM_STOPPED) {
        vm->stop_wanted = true;
        vm->result.reason = reason;
        vm->result.status = status;
        if (err)
            vm->result.error = *err;
        vm_attend_locked(vm);
    }
    mutex_unlock(&vm->lock);
}

/* All harts stand still in park(), this thread's included. */
static void perform_reset_locked(struct vm *vm) REQUIRES(vm->lock)
{
    struct error err = {0};

    vm->reset_wanted = false;
    vm->resetting = true;
    mutex_unlock(&vm->lock);
    board_reset(vm->board);
    int rc = vm->arch->boot(vm, &err);
    if (rc)
        vm_stop_with(vm, VM_STOP_ERROR, 1, &err);
    mutex_lock(&vm->lock);
    vm->resetting = false;
    vm_attend_locked(vm);
}

/* Stand still while somebody wants it. False: the machine stops. */
static bool park(struct vm_hart *h)
{
    struct vm *vm = h->vm;

    mutex_lock(&vm->lock);
    vm->parked++;
    cond_broadcast(&vm->changed);
    while (vm->resetting || (!vm->stop_wanted && (vm->reset_wanted || vm->pause_wanted ||
                                                  vm->held & 1ULL << h->index))) {
        if (vm->reset_wanted && !vm->resetting && vm->parked == vm->config.cpus)
            perform_reset_locked(vm);
        else
            cond_wait(&vm->changed, &vm->lock);
    }
    vm->parked--;
    bool go_on = !vm->stop_wanted;
    mutex_unlock(&vm->lock);
    return go_on;
}

static void debug_exit(struct vm_hart *h, const struct vcpu_exit *exit)
{
    struct vm *vm = h->vm;

    mutex_lock(&vm->lock);
    vm->held |= 1ULL << h->index;
    vm_attend_locked(vm);
    mutex_unlock(&vm->lock);
    gdb_stopped(vm->gdb, h->index, exit);
}

static void handle_exit(struct vm_hart *h, const struct vcpu_exit *exit)
{
    switch (exit->reason) {
    case VCPU_EXIT_KICK:
        break;
    case VCPU_EXIT_SBI:
        sbi_call(h->vm->sbi, h->index);
        break;
    case VCPU_EXIT_RESET:
        vm_guest_reset(h->vm);
        break;
    case VCPU_EXIT_DEBUG:
        debug_exit(h, exit);
        break;
    case VCPU_EXIT_ERROR:
        vm_stop_with(h->vm, VM_STOP_ERROR, 1, &exit->error);
        break;
    }
}

static void gdb_end(void *arg)
{
    struct vm *vm = arg;

    gdb_exited(vm->gdb, vm->result.status);
}

/* This thread was the last one: the machine has stopped. */
static void finish(struct vm *vm)
{
    vm_drain_devices(vm, host_now_ns() + DRAIN_NS);
    if (vm->gdb && loop_post(vm->loop, gdb_end, vm) == 0)
        loop_sync(vm->loop);
    mutex_lock(&vm->lock);
    vm->result.wall_ns = host_now_ns() - vm->started_ns;
    vm->state = VM_STOPPED;
    cond_broadcast(&vm->changed);
    mutex_unlock(&vm->lock);
}

static void *hart_main(void *arg)
{
    struct vm_hart *h = arg;
    struct vm *vm = h->vm;
    struct vcpu_exit exit;

    for (;;) {
        int64_t deadline_ns;
        /* acquire: what the waker did before is seen below */
        uint32_t count = __atomic_load_n(&h->wake_count, __ATOMIC_ACQUIRE);

        if (__atomic_load_n(&vm->attention, __ATOMIC_ACQUIRE) && !park(h))
            break;
        if (vm->sbi && !sbi_hart_ready(vm->sbi, h->index, &deadline_ns)) {
            wait_for_wake(h, count, deadline_ns);
            continue;
        }
        vcpu_run(h->vcpu, &exit);
        handle_exit(h, &exit);
    }
    mutex_lock(&vm->lock);
    bool last = --vm->running == 0;
    mutex_unlock(&vm->lock);
    if (last)
        finish(vm);
    return NULL;
}

int vm_start_harts(struct vm *vm, struct error *err)
{
    mutex_lock(&vm->lock);
    vm->running = vm->config.cpus;
    mutex_unlock(&vm->lock);
    for (unsigned i = 0; i < vm->config.cpus; i++) {
        struct vm_hart *h = &vm->harts[i];
        char name[16];

        (void)snprintf(name, sizeof(name), "vcpu%u", i);
        int rc = thread_start(&h->thread, name, hart_main, h);
        if (rc) {
            mutex_lock(&vm->lock);
            vm->running -= vm->config.cpus - i;
            bool none = vm->running == 0;
            mutex_unlock(&vm->lock);
            vm_stop_with(vm, VM_STOP_ERROR, 1, NULL);
            if (none)
                finish(vm);
            return error_set(err, -rc, "cannot start a thread for a vCPU: %s", strerror(-rc));
        }
        h->started = true;
    }
    return 0;
}

void vm_join_harts(struct vm *vm)
{
    for (unsigned i = 0; i < VM_MAX_CPUS; i++) {
        if (vm->harts[i].started)
            thread_join(vm->harts[i].thread);
        vm->harts[i].started = false;
    }
}
