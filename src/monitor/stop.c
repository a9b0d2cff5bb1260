/* How a machine's monitor ends it: powered off, pulled the plug, or saved.
 *
 * Threads: calls of the API that wait; the monitor's owner, who asks whether it is so. */
#include "base/clock.h"
#include "base/error.h"
#include "base/macros.h"
#include "monitor/keeper.h"
#include "monitor/monitor_state.h"
#include "store/store.h"

#include <errno.h>

#define STEP_NS   (100LL * 1000000)
#define NS_PER_MS 1000000LL

static void set_stopping(struct monitor *m, bool stopping)
{
    mutex_lock(&m->lock);
    m->stopping = stopping;
    cond_broadcast(&m->changed);
    mutex_unlock(&m->lock);
}

/** What is used from its next start on cannot be, if that goes on from here. */
static int check_unchanged(const struct monitor *m, const struct instance *in, struct error *err)
{
    struct instance_config now;
    int r = instance_config(in, &now, err);

    if (r)
        return r;
    const struct config_key *k = config_difference(&m->config, &now);
    config_done(&now);
    return k ? error_set(
                   err, EBUSY,
                   "'%s' of '%s' has been set and is used from its next start on, which cannot go "
                   "on from a state that it had before: stop it without saving, or set it back",
                   k->name, in->name)
             : 0;
}

int monitor_save(struct monitor *m, struct api_call *call, struct error *err)
{
    struct vm *vm = monitor_hold(m);
    struct instance *in = NULL;
    int r = vm ? 0 : error_set(err, EAGAIN, "the machine is being made anew");

    keeper_enter(m->keeper);
    if (!r)
        r = instance_open(m->instance->name, INSTANCE_CHANGE, &in, err);
    if (!r)
        r = check_unchanged(m, in, err);
    if (!r) {
        bool was_paused = vm_get_state(vm) == VM_PAUSED;
        vm_pause(vm);
        monitor_event(m, "saving", NULL);
        r = save_write(in, vm, call, err);
        if (!r) {
            set_stopping(m, true);
            vm_stop(vm);
        } else if (!was_paused) {
            vm_resume(vm);
        }
    }
    instance_close(in);
    keeper_leave(m->keeper);
    if (vm)
        monitor_release(m);
    return r;
}

bool monitor_is_stopping(struct monitor *m)
{
    mutex_lock(&m->lock);
    bool stopping = m->stopping;
    mutex_unlock(&m->lock);
    return stopping;
}

bool monitor_wait_stopping(struct monitor *m, int64_t deadline_ns)
{
    bool in_time = true;

    mutex_lock(&m->lock);
    while (!m->stopping && in_time)
        in_time = cond_wait_until(&m->changed, &m->lock, deadline_ns);
    bool stopping = m->stopping;
    mutex_unlock(&m->lock);
    return stopping;
}

/** Until @vm has stopped. -ETIMEDOUT; -ECANCELED: the caller has gone. */
static int wait_stopped(struct vm *vm, int64_t deadline_ns, const struct api_call *gone)
{
    struct vm_result result;

    for (;;) {
        int64_t now = host_now_ns();
        if (!vm_wait(vm, MIN(deadline_ns, now + STEP_NS), &result))
            return 0;
        if (now >= deadline_ns)
            return -ETIMEDOUT;
        if (gone && api_call_is_gone(gone))
            return -ECANCELED;
    }
}

int monitor_stop(struct monitor *m, int64_t timeout_ms, bool force, const struct api_call *gone,
                 struct error *err)
{
    int64_t deadline_ns = host_now_ns() + timeout_ms * NS_PER_MS;
    struct error why = {0};
    struct vm *vm;
    int r = 0;

    set_stopping(m, true);
    vm = monitor_hold(m);
    if (!vm)
        return 0; /* between two machines: the owner ends */
    if (timeout_ms > 0) {
        monitor_event(m, "stopping", NULL);
        r = power_ask(vm, monitor_vm_config(m), &why);
        if (!r)
            r = wait_stopped(vm, deadline_ns, gone);
    }
    if (force && (r || timeout_ms <= 0)) {
        vm_stop(vm);
        r = wait_stopped(vm, INT64_MAX, NULL);
    }
    monitor_release(m);
    if (!r)
        return 0;
    set_stopping(m, false);
    if (r == -ETIMEDOUT)
        return error_set(err, ETIMEDOUT,
                         "'%s' has not powered off within %g seconds, and goes on; --force pulls "
                         "the plug",
                         m->instance->name, (double)timeout_ms / 1000);
    return error_set(err, -r, "%s", why.code ? error_text(&why) : "given up");
}
