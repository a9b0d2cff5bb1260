/* The engines' face: creation, and the vcpu ops but for run. */
#include "cpu/engine/engine.h"
#include "cpu/engine/engine_internal.h"
#include "cpu/guest/riscv/hart.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* The bound of the translation cache if none is given. A compiler run in the guest fills 350 MiB;
 * with less, its code is translated over and over. It takes what is used of it. */
#define CACHE_DEFAULT_LEAST (128ULL << 20)
#define CACHE_DEFAULT_MOST  (1ULL << 30)

static void code_written(void *arg, gpa_t gpa, uint64_t size)
{
    cache_written(arg, gpa, size);
}

static size_t default_cache_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    uint64_t eighth = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) / 8 : 0;

    return (size_t)MIN(MAX(eighth, CACHE_DEFAULT_LEAST), CACHE_DEFAULT_MOST);
}

int engine_new(const struct engine_config *config, struct engine **ret, struct error *err)
{
    struct engine *e = calloc(1, sizeof(*e));
    int rc;

    if (!e)
        return error_set(err, ENOMEM, "out of memory");
    assert(config->max_vcpus <= ENGINE_MAX_CPUS);
    e->config = *config;
    if (!e->config.cache_bytes)
        e->config.cache_bytes = default_cache_bytes();
    rv_isa_string((enum rv_profile)config->profile, e->isa, sizeof(e->isa));
    static_assert(sizeof(e->isa) >= RV_ISA_BYTES, "every ISA string fits");
    mutex_init(&e->world.lock);
    cond_init(&e->world.changed);
    rc = cache_init(&e->cache, e->config.cache_bytes / 2);
    if (rc)
        (void)error_set(err, -rc, "out of memory for the translation cache");
    if (!rc && config->kind != ENGINE_INTERP)
        rc = jit_new(e, err);
    if (rc) {
        engine_free(e);
        return rc;
    }
    struct mem_code_listener listener = {.written = code_written, .arg = e};
    mem_set_code_listener(config->mem, &listener);
    *ret = e;
    return 0;
}

void engine_free(struct engine *e)
{
    if (!e)
        return;
    jit_free(e);
    cache_done(&e->cache);
    cond_done(&e->world.changed);
    mutex_done(&e->world.lock);
    free(e);
}

void engine_trim(struct engine *e)
{
    mutex_lock(&e->cache.lock);
    cache_reset(e);
    cache_give_back(&e->cache);
    jit_trim(e);
    mutex_unlock(&e->cache.lock);
    for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++) {
        if (e->cpus[i])
            cpu_contexts_trim(e->cpus[i]->c);
    }
}

void cpu_timer_changed(struct cpu *c)
{
    struct engine *e = c->engine;

    if (!e || !e->config.loop || (c->replay && !c->replay->recording))
        return;
    struct engine_cpu *ec = e->cpus[c->index];
    int64_t ns = c->ops->next_timer_ns(c);
    /* relaxed: a stale value only arms once too often or is corrected by the alarm, which comes
     * back here */
    if (ns >= __atomic_load_n(&ec->armed_ns, __ATOMIC_RELAXED))
        return;
    __atomic_store_n(&ec->armed_ns, ns, __ATOMIC_RELAXED);
    loop_timer_set(e->config.loop, &ec->timer, ns);
}

void cpu_sync_code(struct cpu *c)
{
    /* A store to a code page kills its blocks before the storing hart goes on: who meets a dead
     * block then looks its pc up anew, and translated code of one leaves at its entry. So there is
     * nothing left to do here but to end the block. */
    (void)c;
}

static void timer_fired(struct loop_timer *t)
{
    struct engine_cpu *ec = t->arg;

    __atomic_store_n(&ec->armed_ns, INT64_MAX, __ATOMIC_RELAXED);
    cpu_set_attention(ec->c);
}

static void kick(struct vcpu *v)
{
    struct engine_cpu *ec = engine_cpu_of(v);

    __atomic_store_n(&ec->kicked, 1, __ATOMIC_RELEASE); /* pairs with the exchange in attend() */
    cpu_set_attention(ec->c);
}

static void set_irq(struct vcpu *v, unsigned irq, bool level)
{
    struct cpu *c = engine_cpu_of(v)->c;
    uint64_t bit = 1ULL << irq;

    /* acq_rel: what the device did before is seen by the handler */
    if (level) {
        __atomic_store_n(&engine_cpu_of(v)->raised, 1, __ATOMIC_RELEASE); /* pairs with nap() */
        if (!(__atomic_fetch_or(&c->irqs, bit, __ATOMIC_ACQ_REL) & bit) ||
            __atomic_load_n(&c->sleeping, __ATOMIC_SEQ_CST))
            cpu_set_attention(c);
    } else {
        __atomic_fetch_and(&c->irqs, ~bit, __ATOMIC_ACQ_REL);
    }
}

static void request(struct vcpu *v, unsigned requests)
{
    world_request(NULL, engine_cpu_of(v), requests, true);
}

static void fence(struct vcpu *v, const struct vcpu_fence *f)
{
    world_fence(engine_cpu_of(v), f);
}

static void reset(struct vcpu *v)
{
    struct cpu *c = engine_cpu_of(v)->c;

    cpu_flush_all(c);
    c->ops->reset(c);
}

static int get_reg(struct vcpu *v, unsigned id, uint64_t *ret)
{
    struct cpu *c = engine_cpu_of(v)->c;

    return c->ops->get_reg(c, id, ret);
}

static int set_reg(struct vcpu *v, unsigned id, uint64_t value)
{
    struct cpu *c = engine_cpu_of(v)->c;

    return c->ops->set_reg(c, id, value);
}

static const struct vcpu_reg *registers(struct vcpu *v, size_t *ret_count)
{
    struct cpu *c = engine_cpu_of(v)->c;

    return c->ops->registers(c, ret_count);
}

static int translate(struct vcpu *v, gva_t va, enum vcpu_access access, gpa_t *ret)
{
    struct cpu *c = engine_cpu_of(v)->c;
    struct cpu_translation t;
    static const enum cpu_access map[] = {
        [VCPU_READ] = CPU_READ, [VCPU_WRITE] = CPU_WRITE, [VCPU_FETCH] = CPU_FETCH};
    unsigned mmu = access == VCPU_FETCH ? cpu_fetch_mmu(c) : (unsigned)c->mode & 3;

    if (!c->ops->translate_address(c, va.v, map[access], mmu, true, &t))
        return -EFAULT;
    *ret = t.gpa;
    return 0;
}

static void set_debug(struct vcpu *v, const struct vcpu_debug *debug)
{
    struct engine_cpu *ec = engine_cpu_of(v);
    struct cpu *c = ec->c;

    ec->debug = *debug;
    ec->debugging = debug->step || debug->breakpoint_count || debug->watchpoint_count;
    c->trap_ebreak = debug->trap_ebreak;
    c->debug = debug->watchpoint_count ? &ec->debug : NULL;
    c->slow_memory = c->debug || ec->replay;
    if (c->slow_memory)
        cpu_flush_data(c);
}

static uint64_t instructions(struct vcpu *v)
{
    return __atomic_load_n(&engine_cpu_of(v)->c->instret, __ATOMIC_RELAXED); /* a statistic */
}

static void save(struct vcpu *v, struct state_out *out)
{
    struct cpu *c = engine_cpu_of(v)->c;

    c->ops->save(c, out);
}

static int load(struct vcpu *v, const struct state_in *in, struct error *err)
{
    struct cpu *c = engine_cpu_of(v)->c;

    return c->ops->load(c, in, err);
}

static void vcpu_destroy(struct vcpu *v)
{
    struct engine_cpu *ec = engine_cpu_of(v);
    struct engine *e = ec->engine;

    if (e->config.loop) {
        loop_timer_cancel(e->config.loop, &ec->timer);
        stats_stop(ec);
    }
    mutex_lock(&e->world.lock);
    e->cpus[v->index] = NULL;
    mutex_unlock(&e->world.lock);
    check_done(ec);
    if (ec->c)
        cpu_contexts_done(ec->c);
    free(ec->c);
    free(ec);
}

#define VCPU_OPS(kind_name)                                                               \
    {                                                                                     \
        .name = (kind_name), .run = engine_run, .kick = kick, .set_irq = set_irq,         \
        .request = request, .fence = fence, .reset = reset, .get_reg = get_reg,           \
        .set_reg = set_reg, .registers = registers, .translate = translate,               \
        .set_debug = set_debug, .instructions = instructions, .counters = stats_counters, \
        .save = save, .load = load, .free = vcpu_destroy,                                 \
    }

static const struct vcpu_ops vcpu_ops[] = {
    [ENGINE_INTERP] = VCPU_OPS("interp"),
    [ENGINE_JIT] = VCPU_OPS("jit"),
    [ENGINE_CHECK] = VCPU_OPS("check"),
};

int engine_new_vcpu(struct engine *e, unsigned index, struct vcpu **ret, struct error *err)
{
    struct engine_cpu *ec = calloc(1, sizeof(*ec));
    struct rv_hart *h = aligned_alloc(64, (sizeof(*h) + 63) & ~(size_t)63);

    assert(index < e->config.max_vcpus);
    if (!ec || !h) {
        free(ec);
        free(h);
        return error_set(err, ENOMEM, "out of memory for a vCPU");
    }
    memset(h, 0, sizeof(*h));
    ec->vcpu = (struct vcpu){.ops = &vcpu_ops[e->config.kind], .index = index};
    ec->engine = e;
    ec->c = &h->cpu;
    ec->armed_ns = INT64_MAX;
    ec->timer = (struct loop_timer){.fn = timer_fired, .arg = ec};
    h->cpu = (struct cpu){.ops = &rv_cpu_ops,
                          .mem = e->config.mem,
                          .clock = e->config.clock,
                          .engine = e,
                          .index = index};
    e->cpus[index] = ec;
    if (cpu_contexts_init(&h->cpu) || (e->config.kind == ENGINE_CHECK && check_init(ec))) {
        vcpu_destroy(&ec->vcpu);
        return error_set(err, ENOMEM, "out of memory for a vCPU");
    }
    h->profile = (enum rv_profile)e->config.profile; /* the same values */
    h->vec.vlenb = (uint16_t)(e->config.vlen / 8);
    rv_hart_init(h, e->config.builtin_sbi, e->config.reset_pc, e->config.timebase_hz);
    stats_start(ec);
    *ret = &ec->vcpu;
    return 0;
}

const char *engine_isa_string(const struct engine *e)
{
    return e->isa;
}

const char *engine_mmu_type(const struct engine *e)
{
    return rv_mmu_type();
}
