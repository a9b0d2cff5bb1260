/* Which vCPUs execute guest code, and how one makes the others pause, forget or go on.
 *
 * Invariant: a vCPU that is `running` looks at its attention word between any two blocks, so
 * whoever sets a request and the word and finds it running may wait for it. A vCPU never waits for
 * another while it is running itself: it leaves first.
 */
#include "cpu/engine/engine_internal.h"

static void honour(struct engine *e, struct engine_cpu *ec) REQUIRES(e->world.lock)
{
    struct cpu *c = ec->c;
    uint32_t requests = __atomic_exchange_n(&c->requests, 0, __ATOMIC_ACQ_REL);

    for (unsigned n = 0; n < ec->fence_count; n++)
        c->ops->fence(c, &ec->fences[n]);
    ec->fence_count = 0;
    if (!requests)
        return;
    if (requests & VCPU_REQ_TLB_FLUSH)
        cpu_flush_all(c);
    if (requests & CPU_REQ_WRITES)
        cpu_flush_writes(c);
    cond_broadcast(&e->world.changed);
}

void world_enter(struct engine_cpu *ec)
{
    struct engine *e = ec->engine;

    mutex_lock(&e->world.lock);
    while (e->world.exclusive)
        cond_wait(&e->world.changed, &e->world.lock);
    ec->running = true;
    honour(e, ec);
    mutex_unlock(&e->world.lock);
}

void world_leave(struct engine_cpu *ec)
{
    struct engine *e = ec->engine;

    ec->link_from = NULL; /* while we are outside, blocks may go */
    mutex_lock(&e->world.lock);
    ec->running = false;
    cond_broadcast(&e->world.changed);
    mutex_unlock(&e->world.lock);
}

void world_attend(struct engine_cpu *ec)
{
    struct engine *e = ec->engine;

    ec->link_from = NULL;
    mutex_lock(&e->world.lock);
    honour(e, ec);
    if (e->world.exclusive) {
        ec->running = false;
        cond_broadcast(&e->world.changed);
        while (e->world.exclusive)
            cond_wait(&e->world.changed, &e->world.lock);
        ec->running = true;
        honour(e, ec);
    }
    mutex_unlock(&e->world.lock);
}

void world_exclusive_begin(struct engine_cpu *ec)
{
    struct engine *e = ec->engine;

    ec->link_from = NULL;
    mutex_lock(&e->world.lock);
    ec->running = false;
    cond_broadcast(&e->world.changed);
    while (e->world.exclusive)
        cond_wait(&e->world.changed, &e->world.lock);
    e->world.exclusive = true;
    for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++) {
        while (e->cpus[i] && e->cpus[i]->running) {
            cpu_set_attention(e->cpus[i]->c);
            cond_wait(&e->world.changed, &e->world.lock);
        }
    }
    ec->running = true;
    honour(e, ec);
    mutex_unlock(&e->world.lock);
}

void world_exclusive_end(struct engine_cpu *ec)
{
    struct engine *e = ec->engine;

    mutex_lock(&e->world.lock);
    e->world.exclusive = false;
    cond_broadcast(&e->world.changed);
    mutex_unlock(&e->world.lock);
}

void world_request(struct engine_cpu *self, struct engine_cpu *target, uint32_t requests, bool wait)
{
    struct engine *e = target->engine;

    __atomic_fetch_or(&target->c->requests, requests, __ATOMIC_ACQ_REL);
    if (!wait || target == self) {
        cpu_set_attention(target->c);
        return;
    }
    if (self)
        world_leave(self);
    mutex_lock(&e->world.lock);
    if (target->running) /* else it honours them when it enters */
        cpu_set_attention(target->c);
    while (target->running && (__atomic_load_n(&target->c->requests, __ATOMIC_ACQUIRE) & requests))
        cond_wait(&e->world.changed, &e->world.lock);
    mutex_unlock(&e->world.lock);
    if (self)
        world_enter(self);
}

void world_fence(struct engine_cpu *target, const struct vcpu_fence *f)
{
    struct engine *e = target->engine;
    uint32_t request = CPU_REQ_FENCES;

    mutex_lock(&e->world.lock);
    if (target->fence_count < ENGINE_FENCES)
        target->fences[target->fence_count++] = *f;
    else
        request = VCPU_REQ_TLB_FLUSH;
    mutex_unlock(&e->world.lock);
    world_request(NULL, target, request, true);
}
