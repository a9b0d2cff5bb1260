/* Guest data accesses beyond the TLB's fast path.
 *
 * Invariants:
 *  1. A write tag is entered only while the page has no MEM_PAGE_CODE, and after MEM_PAGE_WMAP was
 * set: the engine sets CODE before it looks at WMAP, so (both sequentially consistent) one of the
 * two sees the other.
 *  2. With slow_memory data tags are marked so that only this file uses them; so are write tags of
 *     pages with MEM_PAGE_CODE.
 *  3. An access that crosses a page has both pages translated before either is touched: it happens
 * whole or faults. Threads: the CPU's own. Guest RAM is shared with other CPUs and devices.
 */
#include "base/thread.h"
#include "cpu/core/context.h"
#include "cpu/core/replay.h"

#include <stdio.h>

/** One page's piece of an access. */
struct place {
    uint8_t *host; /* NULL: a device or ROM written: use the bus */
    gpa_t gpa;
    uint8_t *flags; /* page flags if RAM */
};

/** The tag of an access that is allowed but must come here. No fast path's comparison matches. */
static uint64_t slow_tag(uint64_t va)
{
    return tlb_tag(va) - MEM_PAGE_SIZE / 2;
}

static void enter(struct cpu *c, uint64_t va, unsigned mmu, const struct cpu_translation *t,
                  const struct mem_region *r)
{
    struct cpu_table *table = &c->context->tables[mmu];
    uint64_t page = va & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    uint64_t offset = (t->gpa.v & ~(uint64_t)(MEM_PAGE_SIZE - 1)) - r->base.v;
    uint64_t data_tag = c->slow_memory ? slow_tag(va) : tlb_tag(va);
    struct tlb_entry n = {.addend = (uint64_t)(uintptr_t)(r->host + offset) - page};

    if (!t->global && !cpu_own_table(c, mmu))
        return;
    const struct tlb_entry *old = tlb_at(c, va, mmu);
    uint64_t there = old->tag[CPU_READ] | old->tag[CPU_WRITE] | old->tag[CPU_FETCH];
    if (there && tlb_tag(there) != tlb_tag(va))
        cpu_tlb_evicts(c, mmu);
    if (t->prot[CPU_FETCH])
        n.tag[CPU_FETCH] = tlb_tag(va);
    if (t->prot[CPU_READ])
        n.tag[CPU_READ] = data_tag;
    if (t->prot[CPU_WRITE] && r->writable) {
        uint8_t *flags = &r->page_flags[offset >> MEM_PAGE_BITS];

        /* seq-cst: see invariant 1 */
        if (!(__atomic_load_n(flags, __ATOMIC_SEQ_CST) & (MEM_PAGE_WMAP | MEM_PAGE_CODE)))
            __atomic_fetch_or(flags, MEM_PAGE_WMAP, __ATOMIC_SEQ_CST);
        n.tag[CPU_WRITE] =
            __atomic_load_n(flags, __ATOMIC_SEQ_CST) & MEM_PAGE_CODE ? slow_tag(va) : data_tag;
    }
    *tlb_at(c, va, mmu) = n;
    table->tlb_used = true;
    table->tlb_local |= !t->global;
    cpu_tlb_set_global(c->context, mmu, va, t->global);
    if (t->page_bits > 21) {
        table->huge |= t->page_bits > 30 ? ~0ULL : 1ULL << cpu_huge_bit(va);
        table->huge_bits = MAX(table->huge_bits, t->page_bits);
    } else if (t->page_bits > MEM_PAGE_BITS) {
        table->large[cpu_large_bit(va) / 64] |= 1ULL << (cpu_large_bit(va) % 64);
    }
    cpu_count(&c->stats.tlb_fills);
}

static struct place place_of(const struct mem *mem, uint8_t *host)
{
    const struct mem_region *r;

    for (size_t i = 0; (r = mem_next(mem, &i));) {
        uint64_t offset = (uint64_t)(host - r->host);

        if (r->host && host >= r->host && offset < r->size)
            return (struct place){.host = host,
                                  .gpa = GPA(r->base.v + offset),
                                  .flags =
                                      r->writable ? &r->page_flags[offset >> MEM_PAGE_BITS] : NULL};
    }
    assert(!"a translation leads outside guest memory");
    return (struct place){0};
}

/* Translate the page of @va for @access. CPU_OK with *ret, or CPU_EXCEPTION. */
static enum cpu_status find(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                            enum cpu_access access, struct place *ret)
{
    struct cpu_translation t = {.page_bits = MEM_PAGE_BITS};
    const struct tlb_entry *e = tlb_at(c, va, mmu);
    const struct mem_region *r;

    if (slow_tag(va) == e->tag[access]) {
        *ret = place_of(c->mem, (uint8_t *)(uintptr_t)(va + e->addend));
        return CPU_OK;
    }
    if (!c->ops->translate_address(c, va, access, mmu, false, &t))
        return CPU_EXCEPTION;
    r = mem_find(c->mem, t.gpa);
    if (!r || (t.uncached && size > t.span)) {
        c->ops->access_fault(c, va, access);
        return CPU_EXCEPTION;
    }
    *ret = (struct place){.gpa = t.gpa};
    if (r->host && (access != CPU_WRITE || r->writable)) {
        uint64_t offset = t.gpa.v - r->base.v;

        ret->host = r->host + offset;
        ret->flags = r->writable ? &r->page_flags[offset >> MEM_PAGE_BITS] : NULL;
    }
    if (r->host && !t.uncached)
        enter(c, va, mmu, &t, r);
    return CPU_OK;
}

static void after_write(struct cpu *c, const struct place *p, unsigned size)
{
    if (p->flags && (__atomic_load_n(p->flags, __ATOMIC_SEQ_CST) & MEM_PAGE_CODE))
        mem_written(c->mem, p->gpa, size);
}

static enum cpu_status load_place(struct cpu *c, uint64_t va, const struct place *p, unsigned size,
                                  uint64_t *ret)
{
    *ret = 0;
    if (p->host) {
        *ret = cpu_host_load(p->host, size);
        return CPU_OK;
    }
    if (mem_read(c->mem, p->gpa, size, ret) != BUS_OK) {
        c->ops->access_fault(c, va, CPU_READ);
        return CPU_EXCEPTION;
    }
    return CPU_OK;
}

static enum cpu_status store_place(struct cpu *c, uint64_t va, const struct place *p, unsigned size,
                                   uint64_t value)
{
    if (p->host) {
        cpu_host_store(p->host, size, value);
        after_write(c, p, size);
        return CPU_OK;
    }
    if (mem_write(c->mem, p->gpa, size, value) != BUS_OK) {
        c->ops->access_fault(c, va, CPU_WRITE);
        return CPU_EXCEPTION;
    }
    return CPU_OK;
}

/* A debugger's watchpoint hit by the access? Then the exit is stored. The access itself is done
 * first: GDB reports it after. */
static bool watch_hit(struct cpu *c, uint64_t va, unsigned size, enum cpu_access access)
{
    for (size_t i = 0; c->debug && i < c->debug->watchpoint_count; i++) {
        const struct vcpu_watchpoint *w = &c->debug->watchpoints[i];
        unsigned kind = access == CPU_READ ? VCPU_WATCH_READ : VCPU_WATCH_WRITE;

        if (!(w->kind & kind) || va >= w->addr.v + w->size || w->addr.v >= va + size)
            continue;
        if (c->exit) {
            c->exit->reason = VCPU_EXIT_DEBUG;
            c->exit->debug.cause = VCPU_DEBUG_WATCH;
            c->exit->debug.addr = w->addr;
            c->exit->debug.watch = w->kind;
        }
        return true;
    }
    return false;
}

static enum cpu_status load(struct cpu *c, uint64_t va, unsigned size, unsigned mmu, uint64_t *ret)
{
    struct place p;
    struct place q;
    unsigned first = MIN(size, MEM_PAGE_SIZE - (unsigned)(va & (MEM_PAGE_SIZE - 1)));
    enum cpu_status rc = find(c, va, first, mmu, CPU_READ, &p);

    if (rc != CPU_OK)
        return rc;
    if (first == size)
        return load_place(c, va, &p, size, ret);
    rc = find(c, va + first, size - first, mmu, CPU_READ, &q);
    if (rc != CPU_OK)
        return rc;
    if (!p.host || !q.host) { /* devices take aligned accesses only */
        c->ops->misaligned(c, va, CPU_READ);
        return CPU_EXCEPTION;
    }
    *ret = 0;
    memcpy(ret, p.host, first);
    memcpy((char *)ret + first, q.host, size - first);
    return CPU_OK;
}

static enum cpu_status store(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                             uint64_t value)
{
    struct place p;
    struct place q;
    unsigned first = MIN(size, MEM_PAGE_SIZE - (unsigned)(va & (MEM_PAGE_SIZE - 1)));
    enum cpu_status rc = find(c, va, first, mmu, CPU_WRITE, &p);

    if (rc != CPU_OK)
        return rc;
    if (first == size)
        return store_place(c, va, &p, size, value);
    rc = find(c, va + first, size - first, mmu, CPU_WRITE, &q);
    if (rc != CPU_OK)
        return rc;
    if (!p.host || !q.host) {
        c->ops->misaligned(c, va, CPU_WRITE);
        return CPU_EXCEPTION;
    }
    memcpy(p.host, &value, first);
    memcpy(q.host, (char *)&value + first, size - first);
    after_write(c, &p, first);
    after_write(c, &q, size - first);
    return CPU_OK;
}

enum cpu_status cpu_load_slow(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                              uint64_t *ret)
{
    struct replay_entry e = {.kind = REPLAY_LOAD, .size = size, .mmu = mmu, .va = va};

    if (c->replay && !c->replay->recording) {
        replay_repeat(c->replay, &e);
        *ret = e.out;
        return e.status;
    }
    uint64_t value = 0;
    enum cpu_status rc = load(c, va, size, mmu, &value);
    if (c->replay) {
        e.out = value;
        e.status = rc;
        replay_record(c->replay, &e);
    }
    if (rc == CPU_OK) {
        *ret = value;
        if (unlikely(c->debug) && watch_hit(c, va, size, CPU_READ))
            cpu_set_attention(c);
    }
    return rc;
}

enum cpu_status cpu_store_slow(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                               uint64_t value)
{
    uint64_t low = size == 8 ? value : value & ((1ULL << (size * 8)) - 1);
    struct replay_entry e = {.kind = REPLAY_STORE, .size = size, .mmu = mmu, .va = va, .in = {low}};

    if (c->replay && !c->replay->recording) {
        replay_repeat(c->replay, &e);
        return e.status;
    }
    enum cpu_status rc = store(c, va, size, mmu, value);
    if (c->replay) {
        e.status = rc;
        replay_record(c->replay, &e);
    }
    if (rc == CPU_OK && unlikely(c->debug) && watch_hit(c, va, size, CPU_WRITE))
        cpu_set_attention(c);
    return rc;
}

/* A host pointer for an atomic access of @size bytes: aligned, RAM, writable. */
static enum cpu_status find_atomic(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                                   struct place *ret)
{
    const struct tlb_entry *t = tlb_at(c, va, mmu);

    if (va & (size - 1)) {
        c->ops->misaligned(c, va, CPU_WRITE);
        return CPU_EXCEPTION;
    }
    if (tlb_tag(va) == t->tag[CPU_WRITE]) {
        *ret = (struct place){.host = (uint8_t *)(uintptr_t)(va + t->addend)};
        return CPU_OK;
    }
    enum cpu_status rc = find(c, va, size, mmu, CPU_WRITE, ret);
    if (rc == CPU_OK && !ret->host) {
        c->ops->access_fault(c, va, CPU_WRITE);
        return CPU_EXCEPTION;
    }
    return rc;
}

#define DEFINE_ATOMIC(bits)                                                                        \
    static uint##bits##_t combine##bits(enum cpu_atomic_op op, uint##bits##_t a, uint##bits##_t b) \
    {                                                                                              \
        switch (op) {                                                                              \
        case CPU_SWAP:                                                                             \
            return b;                                                                              \
        case CPU_ADD:                                                                              \
            return (uint##bits##_t)(a + b);                                                        \
        case CPU_AND:                                                                              \
            return a & b;                                                                          \
        case CPU_OR:                                                                               \
            return a | b;                                                                          \
        case CPU_XOR:                                                                              \
            return a ^ b;                                                                          \
        case CPU_MIN:                                                                              \
            return (int##bits##_t)a < (int##bits##_t)b ? a : b;                                    \
        case CPU_MAX:                                                                              \
            return (int##bits##_t)a > (int##bits##_t)b ? a : b;                                    \
        case CPU_MINU:                                                                             \
            return a < b ? a : b;                                                                  \
        case CPU_MAXU:                                                                             \
            return a > b ? a : b;                                                                  \
        }                                                                                          \
        return b;                                                                                  \
    }                                                                                              \
    static uint##bits##_t atomic##bits(void *p, enum cpu_atomic_op op, uint##bits##_t b)           \
    {                                                                                              \
        uint##bits##_t a = __atomic_load_n((uint##bits##_t *)p, __ATOMIC_RELAXED);                 \
                                                                                                   \
        while (!__atomic_compare_exchange_n((uint##bits##_t *)p, &a, combine##bits(op, a, b),      \
                                            true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))             \
            ;                                                                                      \
        return a;                                                                                  \
    }                                                                                              \
    static uint##bits##_t cas##bits(void *p, uint##bits##_t expected, uint##bits##_t desired)      \
    {                                                                                              \
        (void)__atomic_compare_exchange_n(                                                         \
            (uint##bits##_t *)p, &expected, desired, false, __ATOMIC_SEQ_CST,                      \
            __ATOMIC_SEQ_CST); /* @expected now holds what was there either way */                 \
        return expected;                                                                           \
    }
DEFINE_ATOMIC(8)
DEFINE_ATOMIC(16)
DEFINE_ATOMIC(32)
DEFINE_ATOMIC(64)

enum cpu_status cpu_atomic(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                           enum cpu_atomic_op op, uint64_t operand, uint64_t *ret_old)
{
    struct replay_entry e = {
        .kind = REPLAY_ATOMIC, .size = size, .mmu = mmu, .va = va, .in = {operand, op}
    };
    struct place p = {0};

    if (size < 8)
        e.in[0] &= (1ULL << (size * 8)) - 1;
    if (c->replay && !c->replay->recording) {
        replay_repeat(c->replay, &e);
        *ret_old = e.out;
        return e.status;
    }
    e.status = find_atomic(c, va, size, mmu, &p);
    if (e.status == CPU_OK) {
        switch (size) {
        case 1:
            e.out = atomic8(p.host, op, (uint8_t)operand);
            break;
        case 2:
            e.out = atomic16(p.host, op, (uint16_t)operand);
            break;
        case 4:
            e.out = atomic32(p.host, op, (uint32_t)operand);
            break;
        default:
            e.out = atomic64(p.host, op, operand);
            break;
        }
        after_write(c, &p, size);
        *ret_old = e.out;
        if (unlikely(c->debug) && watch_hit(c, va, size, CPU_WRITE))
            cpu_set_attention(c);
    }
    if (c->replay)
        replay_record(c->replay, &e);
    return e.status;
}

enum cpu_status cpu_cas(struct cpu *c, uint64_t va, unsigned size, unsigned mmu, uint64_t expected,
                        uint64_t desired, uint64_t *ret_old)
{
    struct replay_entry e = {
        .kind = REPLAY_CAS, .size = size, .mmu = mmu, .va = va, .in = {expected, desired}
    };
    struct place p = {0};

    if (size < 8) {
        e.in[0] &= (1ULL << (size * 8)) - 1;
        e.in[1] &= (1ULL << (size * 8)) - 1;
    }
    if (c->replay && !c->replay->recording) {
        replay_repeat(c->replay, &e);
        *ret_old = e.out;
        return e.status;
    }
    e.status = find_atomic(c, va, size, mmu, &p);
    if (e.status == CPU_OK) {
        switch (size) {
        case 1:
            e.out = cas8(p.host, (uint8_t)expected, (uint8_t)desired);
            break;
        case 2:
            e.out = cas16(p.host, (uint16_t)expected, (uint16_t)desired);
            break;
        case 4:
            e.out = cas32(p.host, (uint32_t)expected, (uint32_t)desired);
            break;
        default:
            e.out = cas64(p.host, expected, desired);
            break;
        }
        after_write(c, &p, size);
        *ret_old = e.out;
        if (unlikely(c->debug) && watch_hit(c, va, size, CPU_WRITE))
            cpu_set_attention(c);
    }
    if (c->replay)
        replay_record(c->replay, &e);
    return e.status;
}

typedef unsigned __int128 wide;

static void cas128(void *p, const uint64_t expected[2], const uint64_t desired[2],
                   uint64_t ret_old[2])
{
    /* __sync: the __atomic of 16 bytes is a call to a library, which may take locks */
    wide old = __sync_val_compare_and_swap((wide *)p, (wide)expected[1] << 64 | expected[0],
                                           (wide)desired[1] << 64 | desired[0]);

    ret_old[0] = (uint64_t)old;
    ret_old[1] = (uint64_t)(old >> 64);
}

enum cpu_status cpu_cas128(struct cpu *c, uint64_t va, unsigned mmu, const uint64_t expected[2],
                           const uint64_t desired[2], uint64_t ret_old[2])
{
    /* Two entries of the log: what is expected, desired and found, first of the lower half. */
    struct replay_entry e[2];
    struct place p = {0};

    for (int n = 0; n < 2; n++)
        e[n] = (struct replay_entry){
            .kind = REPLAY_CAS,
            .size = 16,
            .mmu = mmu,
            .va = va + 8 * (unsigned)n,
            .in = {expected[n], desired[n]}
        };
    if (c->replay && !c->replay->recording) {
        replay_repeat(c->replay, &e[0]);
        if (e[0].status == CPU_OK)
            replay_repeat(c->replay, &e[1]);
        ret_old[0] = e[0].out;
        ret_old[1] = e[1].out;
        return e[0].status == CPU_OK ? e[1].status : e[0].status;
    }
    e[0].status = e[1].status = find_atomic(c, va, 16, mmu, &p);
    if (e[0].status == CPU_OK) {
        cas128(p.host, expected, desired, ret_old);
        e[0].out = ret_old[0];
        e[1].out = ret_old[1];
        after_write(c, &p, 16);
        if (unlikely(c->debug) && watch_hit(c, va, 16, CPU_WRITE))
            cpu_set_attention(c);
    }
    for (int n = 0; c->replay && n < (e[0].status == CPU_OK ? 2 : 1); n++)
        replay_record(c->replay, &e[n]);
    return e[0].status;
}

enum cpu_status cpu_probe(struct cpu *c, uint64_t va, unsigned size, unsigned mmu,
                          enum cpu_access access)
{
    struct replay_entry e = {
        .kind = REPLAY_PROBE, .size = size, .mmu = mmu, .va = va, .in = {access}};
    struct place p;

    if (c->replay && !c->replay->recording) {
        replay_repeat(c->replay, &e);
        return e.status;
    }
    e.status = find(c, va, size, mmu, access, &p);
    if (c->replay)
        replay_record(c->replay, &e);
    return e.status;
}

enum cpu_status cpu_zero_block(struct cpu *c, uint64_t va, unsigned size, unsigned mmu)
{
    uint64_t base = va & ~(uint64_t)(size - 1);
    struct replay_entry e = {.kind = REPLAY_ZERO, .size = size, .mmu = mmu, .va = va};
    struct place p;

    if (c->replay && !c->replay->recording) {
        replay_repeat(c->replay, &e);
        return e.status;
    }
    const struct tlb_entry *t = tlb_at(c, va, mmu);
    if (tlb_tag(va) == t->tag[CPU_WRITE]) {
        p = (struct place){.host = (uint8_t *)(uintptr_t)(va + t->addend)};
        e.status = CPU_OK;
    } else {
        /* Faults report the address given, not the block's (CMO 1.0 §2.5.3): translate that one. */
        e.status = find(c, va, size - (unsigned)(va - base), mmu, CPU_WRITE, &p);
    }
    if (e.status == CPU_OK && !p.host) {
        c->ops->access_fault(c, va, CPU_WRITE);
        e.status = CPU_EXCEPTION;
    }
    if (e.status == CPU_OK) {
        memset(p.host - (va - base), 0, size);
        p.gpa.v -= va - base;
        after_write(c, &p, size);
        if (unlikely(c->debug) && watch_hit(c, base, size, CPU_WRITE))
            cpu_set_attention(c);
    }
    if (c->replay)
        replay_record(c->replay, &e);
    return e.status;
}

enum cpu_status cpu_fetch_host(struct cpu *c, uint64_t va, struct cpu_fetch *ret)
{
    unsigned mmu = cpu_fetch_mmu(c);
    const struct tlb_entry *t = tlb_at(c, va, mmu);
    struct place p;

    if (tlb_tag(va) == t->tag[CPU_FETCH]) {
        *ret = (struct cpu_fetch){.host = (const uint8_t *)(uintptr_t)(va + t->addend),
                                  .global = cpu_tlb_is_global(c->context, mmu, va)};
        return CPU_OK;
    }
    enum cpu_status rc = find(c, va, 2, mmu, CPU_FETCH, &p);
    if (rc != CPU_OK)
        return rc;
    if (!p.host) {
        c->ops->access_fault(c, va, CPU_FETCH);
        return CPU_EXCEPTION;
    }
    bool entered = tlb_tag(va) == tlb_at(c, va, mmu)->tag[CPU_FETCH];
    *ret = (struct cpu_fetch){.host = p.host,
                              .uncached = !entered,
                              .global = entered && cpu_tlb_is_global(c->context, mmu, va)};
    return CPU_OK;
}

enum cpu_status cpu_fetch16(struct cpu *c, uint64_t va, uint16_t *ret)
{
    struct cpu_fetch f;
    enum cpu_status rc = cpu_fetch_host(c, va, &f);

    if (rc == CPU_OK)
        memcpy(ret, f.host, sizeof(*ret));
    return rc;
}

enum bus_result cpu_walk_load(struct cpu *c, gpa_t gpa, uint64_t *ret)
{
    const uint64_t *p = mem_ptr(c->mem, gpa, sizeof(*p), false);

    if (!p)
        return BUS_FAULT;
    *ret = __atomic_load_n(
        p, __ATOMIC_RELAXED); /* ordering against stores to the table is SFENCE.VMA's */
    return BUS_OK;
}

enum bus_result cpu_walk_cas(struct cpu *c, gpa_t gpa, uint64_t expected, uint64_t desired,
                             bool *ret_stored)
{
    uint64_t *p = mem_ptr(c->mem, gpa, sizeof(*p), true);

    if (!p)
        return BUS_FAULT;
    *ret_stored = __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_SEQ_CST,
                                              __ATOMIC_SEQ_CST);
    if (*ret_stored)
        mem_written(c->mem, gpa, sizeof(*p));
    return BUS_OK;
}

int64_t cpu_now_ns(struct cpu *c)
{
    if (c->replay && !c->replay->recording)
        return (int64_t)cpu_log_value(c, 0);
    return (int64_t)cpu_log_value(c, (uint64_t)vclock_now_ns(c->clock));
}

uint64_t cpu_log_value(struct cpu *c, uint64_t value)
{
    struct replay_entry e = {.kind = REPLAY_VALUE, .out = value};

    if (c->replay && c->replay->recording)
        replay_record(c->replay, &e);
    else if (c->replay)
        replay_repeat(c->replay, &e);
    return e.out;
}

void cpu_set_attention(struct cpu *c)
{
    /* seq-cst on both words: either the CPU, going to sleep, sees attention, or we see it sleeping;
     * pairs with the run loop's wait */
    __atomic_store_n(&c->attention, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&c->sleeping, __ATOMIC_SEQ_CST))
        futex_wake(&c->attention);
}

bool cpu_doze(struct cpu *c, int64_t deadline_ns)
{
    /* seq-cst: pairs with cpu_set_attention() */
    __atomic_store_n(&c->sleeping, 1, __ATOMIC_SEQ_CST);
    bool idle = !__atomic_load_n(&c->attention, __ATOMIC_SEQ_CST);
    if (idle)
        futex_wait(&c->attention, 0, deadline_ns);
    __atomic_store_n(&c->sleeping, 0, __ATOMIC_SEQ_CST);
    return idle && !__atomic_load_n(&c->attention, __ATOMIC_ACQUIRE);
}
