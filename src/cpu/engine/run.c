/* The run loop: find the block at pc, execute it by the tier it has reached, deal with what it came
 * to. The vCPU's own thread. */
#include "base/clock.h"
#include "cpu/engine/engine_internal.h"
#include "cpu/engine/trace_engine.h"

#include <unistd.h>

/* Interpretations after which a block is translated: most of a boot's code runs once or twice. */
#define HOT_HITS 8

/* WFIs in a row that found an interrupt pending which was not taken, after which the hart naps. */
#define IDLE_TURNS  16
#define IDLE_NAP_NS 5000000

enum cpu_status engine_step(struct cpu *c)
{
    uint8_t bytes[4];
    uint16_t half;
    struct insn insn;
    enum cpu_status rc = cpu_fetch16(c, c->pc, &half);

    if (rc != CPU_OK)
        return rc;
    memcpy(bytes, &half, 2);
    if (!c->ops->decode(c, bytes, 2, &insn)) {
        rc = cpu_fetch16(c, c->pc + 2, &half);
        if (rc != CPU_OK)
            return rc;
        memcpy(bytes + 2, &half, 2);
        (void)c->ops->decode(
            c, bytes, 4, &insn); /* four bytes always decode, if only to an illegal instruction */
    }
    insn.page_offset = (uint16_t)(c->pc & (MEM_PAGE_SIZE - 1));
    c->code_page = c->pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    return c->ops->interp(c, &insn, 1);
}

/* Sleep for IDLE_NAP_NS at most, through other vCPUs' requests, until an interrupt input is raised
 * (again) or we are kicked. OpenSBI 1.1 asks a waiting hart to start before it says where, and
 * sends its interrupt last: a hart that looks in between starts at the wrong place. */
static void nap(struct engine_cpu *ec)
{
    struct cpu *c = ec->c;
    int64_t end = host_now_ns() + IDLE_NAP_NS;

    __atomic_store_n(&ec->raised, 0, __ATOMIC_RELAXED);
    while (host_now_ns() < end && !cpu_doze(c, end)) {
        (void)__atomic_exchange_n(&c->attention, 0, __ATOMIC_SEQ_CST);
        world_attend(ec);
        if (__atomic_load_n(&ec->kicked, __ATOMIC_ACQUIRE) ||
            __atomic_load_n(&ec->raised, __ATOMIC_ACQUIRE))
            return;
    }
}

/* WFI may end at any time, so when attention is wanted the loop goes on. Who sleeps is out of the
 * world: others need not wait for it. */
static void wait_for_interrupt(struct engine_cpu *ec)
{
    struct cpu *c = ec->c;
    bool slept = false, wanted = false;

    engine_tier(ec, TIER_IDLE);
    world_leave(ec);
    for (; !wanted && !c->ops->wakes(c); slept = true)
        wanted = !cpu_doze(c, c->ops->next_timer_ns(c));
    world_enter(ec);
    if (wanted)
        return;
    /* An interrupt that is pending and never taken: the guest polls memory around its WFI, as
     * firmware's waiting harts do. They must not keep the others from the host's CPUs. */
    if (slept)
        ec->idle_turns = 0;
    else if (++ec->idle_turns > IDLE_TURNS)
        nap(ec);
    __atomic_store_n(&c->attention, 1, __ATOMIC_RELAXED); /* own thread: take the interrupt now */
}

/* Something was asked for: true to leave run(). */
static bool attend(struct engine_cpu *ec, struct vcpu_exit *exit)
{
    struct cpu *c = ec->c;

    /* acquire: pairs with the stores of attention; what was asked for before is seen below */
    (void)__atomic_exchange_n(&c->attention, 0, __ATOMIC_SEQ_CST);
    world_attend(ec);
    if (exit->reason == VCPU_EXIT_DEBUG)
        return true;
    if (__atomic_exchange_n(&ec->kicked, 0, __ATOMIC_ACQ_REL)) {
        exit->reason = VCPU_EXIT_KICK;
        return true;
    }
    cpu_timer_changed(c);
    if (!ec->debug.step)
        ec->idle_turns = c->ops->take_interrupt(c) ? 0 : ec->idle_turns; /* the loop finds pc */
    return false;
}

static bool at_breakpoint(const struct engine_cpu *ec)
{
    for (size_t i = 0; i < ec->debug.breakpoint_count; i++) {
        if (ec->debug.breakpoints[i].v == ec->c->pc)
            return true;
    }
    return false;
}

/* Is @b to be run as host code? JIT_FULL: @b is gone. */
static enum jit_result ready(struct engine_cpu *ec, struct block *b)
{
    struct cpu *c = ec->c;
    struct jump_entry *j = cpu_find_jump(c, c->pc);

    if (!b->code) {
        enum jit_result rc = JIT_REFUSED;

        if (__atomic_add_fetch(&b->hits, 1, __ATOMIC_RELAXED) >= HOT_HITS)
            rc = jit_translate(ec, b);
        if (rc != JIT_DONE)
            return rc;
    }
    if (unlikely(!__atomic_load_n(b->entries_left, __ATOMIC_RELAXED)))
        jit_entered_often(ec, b);
    if (j && j->block == b) /* now generated code finds it too */
        j->code = b->code, j->code_mode = j->mode;
    return JIT_DONE;
}

static enum cpu_status run_block(struct engine_cpu *ec, struct block *b)
{
    struct cpu *c = ec->c;

    if (ec->replay && !b->system)
        return check_run(ec, b);
    if (ec->engine->jit && !ec->replay) {
        switch (ready(ec, b)) {
        case JIT_DONE:
            return jit_run(ec, c, b, true);
        case JIT_FULL:
            return CPU_RETRANSLATE;
        case JIT_REFUSED:
            break;
        }
    }
    ec->link_from = NULL;
    c->code_page = c->pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    cpu_count(&c->stats.blocks_interpreted);
    engine_tier(ec, TIER_INTERPRETER);
    enum cpu_status status = c->ops->interp(c, b->insns, b->count);
    engine_tier(ec, TIER_ENGINE);
    return status;
}

/* With breakpoints: interpret @b, or only its first instruction if a later one has a breakpoint. */
static enum cpu_status run_watched(struct engine_cpu *ec, struct block *b)
{
    struct cpu *c = ec->c;
    unsigned count = b->count;

    for (size_t i = 0; i < ec->debug.breakpoint_count; i++) {
        if (ec->debug.breakpoints[i].v - c->pc < b->bytes)
            count = 1;
    }
    c->code_page = c->pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    return c->ops->interp(c, b->insns, count);
}

static enum cpu_status run_next(struct engine_cpu *ec)
{
    struct cpu *c = ec->c;
    const struct jump_entry *j = cpu_find_jump(c, c->pc);
    struct block *b = j ? j->block : NULL;

    if (unlikely(ec->debugging && (ec->debug.step || ec->debug.watchpoint_count)))
        return engine_step(c);
    if (unlikely(!b || __atomic_load_n(&b->dead, __ATOMIC_RELAXED))) {
        enum cpu_status rc = cache_find(ec, &b);

        if (rc != CPU_OK)
            return rc;
        if (!b)
            return engine_step(c);
    }
    return unlikely(ec->debugging) ? run_watched(ec, b) : run_block(ec, b);
}

/* One step of the loop; true to leave run(). */
static bool turn(struct engine_cpu *ec, struct vcpu_exit *exit)
{
    struct cpu *c = ec->c;

    if (unlikely(__atomic_load_n(&c->attention, __ATOMIC_RELAXED)) && attend(ec, exit))
        return true;
    if (unlikely(ec->debugging) && at_breakpoint(ec)) {
        exit->reason = VCPU_EXIT_DEBUG;
        exit->debug.cause = VCPU_DEBUG_BREAK;
        exit->debug.addr = GVA(c->pc);
        return true;
    }
    switch (run_next(ec)) {
    case CPU_OK:
    case CPU_RETRANSLATE:
        break;
    case CPU_EXCEPTION:
        cpu_count(&c->stats.exceptions);
        c->ops->take_exception(c);
        break;
    case CPU_WFI:
        cpu_count(&c->stats.waits);
        if (!ec->debug.step)
            wait_for_interrupt(ec);
        break;
    case CPU_EXIT:
        return true;
    }
    if (unlikely(ec->debugging)) {
        if (exit->reason == VCPU_EXIT_DEBUG)
            return true;
        if (ec->debug.step) {
            exit->reason = VCPU_EXIT_DEBUG;
            exit->debug.cause = VCPU_DEBUG_STEP;
            exit->debug.addr = GVA(c->pc);
            return true;
        }
    }
    return false;
}

void engine_run(struct vcpu *v, struct vcpu_exit *ret)
{
    struct engine_cpu *ec = engine_cpu_of(v);

    *ret = (struct vcpu_exit){.reason = VCPU_EXIT_KICK};
    ec->c->exit = ret;
    __atomic_store_n(&ec->tid, gettid(), __ATOMIC_RELAXED); /* for the sampler */
    __atomic_store_n(&ec->c->attention, 1,
                     __ATOMIC_RELAXED); /* look at everything once; our own thread reads it */
    world_enter(ec);
    while (!turn(ec, ret))
        ;
    world_leave(ec);
    cpu_count(&ec->c->stats.monitor_calls);
    trace_cpu_exit(ec->c->index, (int)ret->reason, ec->c->pc);
    ec->c->exit = NULL;
}
