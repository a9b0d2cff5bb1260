/* Live clones: a second machine with the memory and state of a running one, in a process of its
 * own.
 *
 * The child of a capture keeps the machine's memory, copy-on-write, and what was translated of it,
 * and throws away the rest of what it was: descriptors are closed (locks on disks are the parent's
 * alone then), and the parent's structures are never looked at again but to take these over.
 *
 * Threads: see snapshot.h. */
#include "base/fd.h"
#include "snapshot/snapshot.h"
#include "snapshot/snapshot_internal.h"
#include "state/state.h"
#include "vm/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct snapshot_seed {
    struct vm *vm;
    const uint8_t *state;
    size_t state_size;
};

struct clone {
    struct capture capture;
    const struct snapshot_clone *options;
};

static int compare_ints(const void *a, const void *b)
{
    const int *x = a;
    const int *y = b;

    return *x < *y ? -1 : *x > *y;
}

/** Close everything but the standard descriptors and @keep, which gets sorted. */
static void close_others(int *keep, size_t count)
{
    unsigned from = STDERR_FILENO + 1;

    qsort(keep, count, sizeof(*keep), compare_ints);
    for (size_t i = 0; i < count; i++) {
        if (keep[i] < (int)from)
            continue;
        if (keep[i] > (int)from)
            (void)close_range(from, (unsigned)keep[i] - 1, 0); /* what is open there is ours */
        from = (unsigned)keep[i] + 1;
    }
    (void)close_range(from, ~0u, 0);
}

static void child_main(struct capture *c)
{
    const struct snapshot_clone *o = container_of(c, struct clone, capture)->options;
    struct snapshot_seed seed = {
        .vm = c->vm,
        .state = c->state,
        .state_size = c->state_size,
    };

    close_others(o->keep_fds, o->keep_count);
    _exit(o->main(o->arg, &seed));
}

static int at_rest(void *arg, struct error *err)
{
    const struct snapshot_clone *o = arg;

    return o->at_rest ? o->at_rest(o->at_rest_arg, err) : 0;
}

int snapshot_clone(struct vm *vm, const struct snapshot_clone *options, pid_t *ret_child,
                   int64_t *ret_pause_ns, struct error *err)
{
    struct clone clone = {
        .capture = {.vm = vm,
                    .at_rest = at_rest,
                    .child_main = child_main,
                    .adopt = true,
                    .arg = (void *)(uintptr_t)options},
        .options = options,
    };
    int rc = capture(&clone.capture, err);

    if (rc)
        return rc;
    *ret_child = clone.capture.child;
    if (ret_pause_ns)
        *ret_pause_ns = clone.capture.pause_ns;
    return 0;
}

int snapshot_grow(const struct snapshot_seed *seed, struct vm_config *config, struct vm **ret,
                  struct error *err)
{
    struct state_in *in = NULL;
    struct vm *vm = NULL;

    config->no_boot = true;
    config->adopt = seed->vm;
    int rc = vm_new(config, &vm, err);
    if (!rc)
        rc = state_in_new(seed->state, seed->state_size, &in, err);
    if (!rc)
        rc = vm_load(vm, in, err);
    state_in_free(in);
    if (rc) {
        vm_free(vm);
        return rc;
    }
    *ret = vm;
    return 0;
}
