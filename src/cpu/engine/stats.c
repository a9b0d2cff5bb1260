/* Statistics of the engine, as rows for vcpu_counters(): what each vCPU counts, and, in the first
 * vCPU's rows, the state of the cache that all share.
 *
 * Time by tier is sampled: every vCPU says what it is at in one byte, and a timer gives the host
 * CPU time that its thread has used since the last look to what it is at now. Only with
 * config.stats; else these rows are 0 and nothing is looked at.
 *
 * Threads: any, for reading; counters have one writer each and are relaxed. Samples are taken on
 * the loop's. */
#include "cpu/engine/engine_internal.h"

#include <time.h>

#define SAMPLE_NS 1000000

static const char *const tier_names[] = {
    [TIER_ENGINE] = "time_engine", [TIER_INTERPRETER] = "time_interpreter",
    [TIER_CODE] = "time_code",     [TIER_TRANSLATOR] = "time_translator",
    [TIER_IDLE] = "time_idle",
};

static uint64_t read_counter(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED); /* may lag */
}

/* CPU time of a thread of ours; -1: it is gone. See clock_getcpuclockid(3), of threads. */
static int64_t thread_cpu_ns(pid_t tid)
{
    enum { OF_THREAD_SCHEDULED = 6 };
    clockid_t clock = (clockid_t)(~(unsigned)tid << 3 | OF_THREAD_SCHEDULED);
    struct timespec t;

    if (!tid || clock_gettime(clock, &t))
        return -1;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void sample(struct loop_timer *timer)
{
    struct engine_cpu *ec = timer->arg;
    int64_t now = thread_cpu_ns(__atomic_load_n(&ec->tid, __ATOMIC_RELAXED));
    uint64_t *ns = &ec->tier_ns[__atomic_load_n(&ec->tier, __ATOMIC_RELAXED)];

    if (now >= 0) {
        __atomic_store_n(ns, *ns + (uint64_t)(now - MIN(ec->sampled_ns, now)), __ATOMIC_RELAXED);
        ec->sampled_ns = now;
    }
    loop_timer_set(ec->engine->config.loop, timer, host_now_ns() + SAMPLE_NS);
}

void stats_start(struct engine_cpu *ec)
{
    ec->sampler = (struct loop_timer){.fn = sample, .arg = ec};
    if (ec->engine->config.stats && ec->engine->config.loop)
        loop_timer_set(ec->engine->config.loop, &ec->sampler, host_now_ns() + SAMPLE_NS);
}

void stats_stop(struct engine_cpu *ec)
{
    struct loop *loop = ec->engine->config.loop;

    loop_timer_cancel(loop, &ec->sampler);
    loop_sync(loop);
    loop_timer_cancel(loop, &ec->sampler); /* the last call may have set it again */
}

struct rows {
    struct counter *rows;
    size_t count, max;
};

static void add(struct rows *r, const char *name, enum counter_unit unit, uint64_t value)
{
    if (r->count < r->max)
        r->rows[r->count++] = (struct counter){.name = name, .unit = unit, .value = value};
}

static void add_cache(struct rows *r, struct engine *e, bool mine)
{
    struct cache_usage u = {0};

    if (mine)
        cache_usage(e, &u);
    add(r, "blocks_live", COUNTER_NUMBER, u.blocks);
    add(r, "blocks_killed", COUNTER_NUMBER, u.killed);
    add(r, "cache_evictions", COUNTER_NUMBER, u.evictions);
    add(r, "cache_longest_stall", COUNTER_NS, u.longest_stall_ns);
    add(r, "cache_decoded_used", COUNTER_BYTES, u.decoded_used);
    add(r, "cache_code_used", COUNTER_BYTES, u.code_used);
    add(r, "cache_size", COUNTER_BYTES, u.size);
}

size_t stats_counters(struct vcpu *v, struct counter *ret, size_t max)
{
    struct engine_cpu *ec = engine_cpu_of(v);
    const struct cpu_stats *s = &ec->c->stats;
    struct rows r = {.rows = ret, .max = max};

    add(&r, "instructions", COUNTER_NUMBER, read_counter(&ec->c->instret));
#define ADD(member) add(&r, #member, COUNTER_NUMBER, read_counter(&s->member));
    CPU_STATS(ADD)
#undef ADD
    for (unsigned t = 0; t < TIERS; t++)
        add(&r, tier_names[t], COUNTER_NS, read_counter(&ec->tier_ns[t]));
    add_cache(&r, ec->engine, v->index == 0);
    return r.count;
}
