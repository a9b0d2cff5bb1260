/* The moment of a snapshot: the machine stands still, its state is written into memory, and the
 * process forks; the child has the machine's memory as it was, copy-on-write.
 *
 *   freeze -> state -> at_rest -> fork -> thaw, resume        (the machine's pause)
 *                                  `- child_main()
 *
 * Threads: any but the machine's own; one capture of a machine at a time. */
#include "base/clock.h"
#include "snapshot/snapshot_internal.h"
#include "state/state.h"
#include "vm/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int save_state(struct capture *c, struct error *err)
{
    struct state_out *out = state_out_new();
    int rc = vm_save(c->vm, out, err);

    if (!rc)
        rc = state_out_take(out, &c->state, &c->state_size);
    state_out_free(out);
    return rc ? error_set(err, -rc, "cannot save the machine's state: %s", strerror(-rc)) : 0;
}

/** Everything that happens while the machine stands still. */
static int snap(struct capture *c, struct error *err)
{
    int rc = save_state(c, err);

    if (!rc && c->at_rest)
        rc = c->at_rest(c->arg, err);
    if (rc)
        return rc;
    pid_t child = vm_fork(c->vm, c->adopt);
    if (child == 0) {
        c->child_main(c);
        _exit(1);
    }
    if (child < 0)
        return error_set(err, -child, "cannot start a process for the snapshot: %s",
                         strerror(-child));
    c->child = child;
    return 0;
}

int capture(struct capture *c, struct error *err)
{
    bool was_running = vm_get_state(c->vm) == VM_RUNNING;
    int64_t start_ns = host_now_ns();

    c->parent = getpid();
    vm_freeze(c->vm);
    int rc = vm_get_state(c->vm) == VM_STOPPED
                 ? error_set(err, ESHUTDOWN, "the machine has stopped")
                 : snap(c, err);
    vm_thaw(c->vm);
    if (was_running)
        vm_resume(c->vm);
    c->pause_ns = host_now_ns() - start_ns;
    free(c->state);
    c->state = NULL;
    return rc;
}
