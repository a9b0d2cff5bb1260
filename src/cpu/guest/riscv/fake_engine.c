/* See fake_engine.h. One thread. */
#include "cpu/guest/riscv/fake_engine.h"

#include "base/bits.h"

#include <stdlib.h>

static struct fake_engine *engine_of(struct cpu *c)
{
    return container_of(rv_hart_of(c), struct fake_engine, h);
}

struct fake_engine *fake_engine_new(bool builtin_sbi)
{
    struct fake_engine *e = aligned_alloc(_Alignof(struct fake_engine), sizeof(*e));

    if (!e)
        abort();
    memset(e, 0, sizeof(*e));
    vclock_init(&e->clock, 0);
    e->h.cpu.context = &e->context;
    e->h.cpu.clock = &e->clock;
    e->h.cpu.exit = &e->exit;
    e->h.cpu.index = 5;
    e->h.builtin_sbi = builtin_sbi;
    e->h.timebase_hz = 10000000;
    e->h.reset_pc = 0x1000;
    rv_reset(&e->h.cpu);
    return e;
}

static uint8_t *ram_at(struct fake_engine *e, uint64_t gpa)
{
    if (gpa < FAKE_RAM_BASE || gpa - FAKE_RAM_BASE > FAKE_RAM_SIZE - 8 || gpa % 8) {
        e->strays++;
        return NULL;
    }
    return e->ram + (gpa - FAKE_RAM_BASE);
}

uint64_t fake_ram_get(const struct fake_engine *e, uint64_t gpa)
{
    return load_le64(e->ram + (gpa - FAKE_RAM_BASE));
}

void fake_ram_set(struct fake_engine *e, uint64_t gpa, uint64_t value)
{
    store_le64(e->ram + (gpa - FAKE_RAM_BASE), value);
}

enum bus_result cpu_walk_load(struct cpu *c, gpa_t gpa, uint64_t *ret)
{
    struct fake_engine *e = engine_of(c);
    const uint8_t *p = ram_at(e, gpa.v);

    if (!p)
        return BUS_FAULT;
    e->loads++;
    *ret = load_le64(p);
    return BUS_OK;
}

enum bus_result cpu_walk_cas(struct cpu *c, gpa_t gpa, uint64_t expected, uint64_t desired,
                             bool *ret_stored)
{
    struct fake_engine *e = engine_of(c);
    uint8_t *p = ram_at(e, gpa.v);

    if (!p)
        return BUS_FAULT;
    if (e->before_cas)
        e->before_cas(e, gpa.v);
    *ret_stored = load_le64(p) == expected;
    if (*ret_stored) {
        store_le64(p, desired);
        e->updates++;
    }
    return BUS_OK;
}

void cpu_set_context(struct cpu *c, uint64_t key)
{
    struct fake_engine *e = engine_of(c);

    e->context_switches++;
    e->context.key = key;
    c->context = &e->context;
}

void cpu_flush_all(struct cpu *c)
{
    engine_of(c)->flushes++;
}

void cpu_flush_page(struct cpu *c, uint64_t va)
{
    engine_of(c)->page_flushes++;
    engine_of(c)->flushed_va = va;
}

void cpu_flush_page_in(struct cpu *c, uint64_t va, bool (*match)(uint64_t key, uint64_t arg),
                       uint64_t arg)
{
    struct fake_engine *e = engine_of(c);

    e->page_in_flushes++;
    e->flushed_va = va;
    e->flushed_asid = arg;
    e->flushed_current = match(e->context.key, arg);
}

void cpu_flush_contexts(struct cpu *c, bool (*match)(uint64_t key, uint64_t arg), uint64_t arg)
{
    struct fake_engine *e = engine_of(c);

    e->context_flushes++;
    e->flushed_asid = arg;
    e->flushed_current = match(e->context.key, arg);
}

int64_t cpu_now_ns(struct cpu *c)
{
    return engine_of(c)->now_ns;
}

void cpu_timer_changed(struct cpu *c)
{
    engine_of(c)->timer_changes++;
}

uint64_t cpu_log_value(struct cpu *c, uint64_t value)
{
    return value;
}

void cpu_set_attention(struct cpu *c)
{
    c->attention = 1;
}
