/* RISC-V platform-level interrupt controller.
 * Spec: RISC-V PLIC 1.0.0; memory map of SiFive's, as the `virt` boards have it.
 *
 * Invariants:
 *  1. A source's gateway forwards one request at a time: `pending` is set from `level` only while
 *     the source is not `busy` (claimed, not completed). A request that was forwarded is not taken
 *     back when the level drops (§4).
 *  2. outputs[c] is up if and only if some source is pending, enabled in c and above c's threshold.
 *
 * Threads: any; one lock, held while outputs are driven. It is taken after any device's lock. */
#include "device/irq/plic.h"
#include "base/log.h"
#include "base/thread.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORDS        ((PLIC_MAX_SOURCES + 1) / 32)
#define MAX_PRIORITY 7

enum {
    PRIORITY_BASE = 0x0,
    PENDING_BASE = 0x1000,
    ENABLE_BASE = 0x2000,
    ENABLE_STRIDE = 0x80,
    CONTEXT_BASE = 0x200000,
    CONTEXT_STRIDE = 0x1000,
    CONTEXT_THRESHOLD = 0,
    CONTEXT_CLAIM = 4,
};

struct context {
    uint32_t enable[WORDS];
    uint32_t threshold;
    bool up; /* last level driven */
};

struct plic {
    struct plic_config config; /* [init] */
    struct mutex lock;
    uint32_t level[WORDS];                      /* [lock] inputs */
    uint32_t pending[WORDS];                    /* [lock] */
    uint32_t busy[WORDS];                       /* [lock] */
    uint8_t priority[PLIC_MAX_SOURCES + 1];     /* [lock] 0 = never */
    struct context contexts[PLIC_MAX_CONTEXTS]; /* [lock] */
};

/* The most urgent source that is pending, enabled in @c and above @threshold; the lowest ID among
 * equals. 0 = none. */
static unsigned best_source(const struct plic *p, const struct context *c, unsigned threshold)
    REQUIRES(p->lock)
{
    unsigned best = 0;
    unsigned priority = threshold;

    for (unsigned w = 0; w < WORDS; w++) {
        for (uint32_t bits = p->pending[w] & c->enable[w]; bits; bits &= bits - 1) {
            unsigned id = w * 32 + (unsigned)__builtin_ctz(bits);

            if (p->priority[id] > priority) {
                priority = p->priority[id];
                best = id;
            }
        }
    }
    return best;
}

static void update_locked(struct plic *p) REQUIRES(p->lock)
{
    for (unsigned w = 0; w < WORDS; w++)
        p->pending[w] |= p->level[w] & ~p->busy[w];
    for (unsigned i = 0; i < p->config.contexts; i++) {
        struct context *c = &p->contexts[i];
        bool up = best_source(p, c, c->threshold) != 0;

        if (up != c->up) {
            c->up = up;
            irq_set(&p->config.outputs[i], up);
        }
    }
}

static void set_input(void *controller, unsigned id, bool level)
{
    struct plic *p = controller;
    uint32_t bit = 1u << id % 32;

    mutex_lock(&p->lock);
    if (level && !(p->level[id / 32] & bit)) {
        p->level[id / 32] |= bit;
        update_locked(p);
    } else if (!level) {
        p->level[id / 32] &= ~bit;
    }
    mutex_unlock(&p->lock);
}

struct irq_line plic_input(struct plic *p, unsigned id)
{
    assert(id >= 1 && id <= p->config.sources);
    return (struct irq_line){.set = set_input, .controller = p, .input = id};
}

/* §8: the threshold does not matter to a claim. */
static uint32_t claim_locked(struct plic *p, struct context *c) REQUIRES(p->lock)
{
    unsigned id = best_source(p, c, 0);

    if (id) {
        p->pending[id / 32] &= ~(1u << id % 32);
        p->busy[id / 32] |= 1u << id % 32;
        update_locked(p);
    }
    return id;
}

/* §9: completing what is not enabled for the context is ignored. */
static void complete_locked(struct plic *p, struct context *c, uint32_t id) REQUIRES(p->lock)
{
    if (id == 0 || id > p->config.sources || !(c->enable[id / 32] & 1u << id % 32)) {
        guest_error("plic", "completion of interrupt %u, which is not enabled", id);
        return;
    }
    p->busy[id / 32] &= ~(1u << id % 32);
    update_locked(p);
}

/* Bits of word @w that stand for sources. */
static uint32_t valid_bits(const struct plic *p, unsigned w)
{
    uint32_t mask = w == 0 ? ~1u : ~0u;
    unsigned top = p->config.sources + 1;

    if (w * 32 >= top)
        return 0;
    return top - w * 32 >= 32 ? mask : mask & ((1u << (top - w * 32)) - 1);
}

static uint32_t read_locked(struct plic *p, uint64_t offset) REQUIRES(p->lock)
{
    if (offset < PENDING_BASE)
        return offset / 4 <= p->config.sources ? p->priority[offset / 4] : 0;
    if (offset < ENABLE_BASE)
        return (offset - PENDING_BASE) / 4 < WORDS ? p->pending[(offset - PENDING_BASE) / 4] : 0;
    if (offset < CONTEXT_BASE) {
        uint64_t i = (offset - ENABLE_BASE) / ENABLE_STRIDE;
        uint64_t w = (offset - ENABLE_BASE) % ENABLE_STRIDE / 4;

        return i < p->config.contexts && w < WORDS ? p->contexts[i].enable[w] : 0;
    }
    uint64_t i = (offset - CONTEXT_BASE) / CONTEXT_STRIDE;
    if (i >= p->config.contexts)
        return 0;
    switch ((offset - CONTEXT_BASE) % CONTEXT_STRIDE) {
    case CONTEXT_THRESHOLD:
        return p->contexts[i].threshold;
    case CONTEXT_CLAIM:
        return claim_locked(p, &p->contexts[i]);
    default:
        return 0;
    }
}

static void write_locked(struct plic *p, uint64_t offset, uint32_t value) REQUIRES(p->lock)
{
    if (offset < PENDING_BASE) {
        if (offset >= 4 && offset / 4 <= p->config.sources)
            p->priority[offset / 4] = (uint8_t)(value & MAX_PRIORITY);
    } else if (offset < ENABLE_BASE) {
        return; /* pending bits are read-only */
    } else if (offset < CONTEXT_BASE) {
        uint64_t i = (offset - ENABLE_BASE) / ENABLE_STRIDE;
        unsigned w = (unsigned)((offset - ENABLE_BASE) % ENABLE_STRIDE / 4);

        if (i < p->config.contexts && w < WORDS)
            p->contexts[i].enable[w] = value & valid_bits(p, w);
    } else {
        uint64_t i = (offset - CONTEXT_BASE) / CONTEXT_STRIDE;
        uint64_t reg = (offset - CONTEXT_BASE) % CONTEXT_STRIDE;

        if (i < p->config.contexts && reg == CONTEXT_THRESHOLD)
            p->contexts[i].threshold = value & MAX_PRIORITY;
        else if (i < p->config.contexts && reg == CONTEXT_CLAIM)
            complete_locked(p, &p->contexts[i], value);
    }
    update_locked(p);
}

static enum bus_result plic_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct plic *p = dev;

    mutex_lock(&p->lock);
    *ret = read_locked(p, offset);
    mutex_unlock(&p->lock);
    return BUS_OK;
}

static enum bus_result plic_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct plic *p = dev;

    mutex_lock(&p->lock);
    write_locked(p, offset, (uint32_t)value);
    mutex_unlock(&p->lock);
    return BUS_OK;
}

static const struct mmio_ops plic_ops = {
    .name = "plic",
    .read = plic_read,
    .write = plic_write,
    .min_size = 4,
    .max_size = 4,
};

int plic_new(struct mem *mem, gpa_t base, const struct plic_config *config, struct plic **ret,
             struct error *err)
{
    struct plic *p = calloc(1, sizeof(*p));

    assert(config->sources <= PLIC_MAX_SOURCES && config->contexts <= PLIC_MAX_CONTEXTS);
    if (!p)
        return error_set(err, ENOMEM, "out of memory");
    p->config = *config;
    mutex_init(&p->lock);
    int rc = mem_add_mmio(mem, base, PLIC_SIZE, &plic_ops, p, err);
    if (rc) {
        plic_free(p);
        return rc;
    }
    *ret = p;
    return 0;
}

void plic_free(struct plic *p)
{
    if (!p)
        return;
    mutex_done(&p->lock);
    free(p);
}

void plic_reset(struct plic *p)
{
    mutex_lock(&p->lock);
    memset(p->pending, 0, sizeof(p->pending));
    memset(p->busy, 0, sizeof(p->busy));
    memset(p->priority, 0, sizeof(p->priority));
    for (unsigned i = 0; i < p->config.contexts; i++) {
        memset(p->contexts[i].enable, 0, sizeof(p->contexts[i].enable));
        p->contexts[i].threshold = 0;
    }
    update_locked(p);
    mutex_unlock(&p->lock);
}

static const struct state_field plic_fields[] = {
    STATE_ARRAY(struct plic, level),
    STATE_ARRAY(struct plic, pending),
    STATE_ARRAY(struct plic, busy),
    STATE_ARRAY(struct plic, priority),
    {0},
};
static const struct state_field context_fields[] = {
    STATE_ARRAY(struct context, enable),
    STATE_FIELD(struct context, threshold),
    {0},
};

void plic_save(struct plic *p, struct state_out *out)
{
    mutex_lock(&p->lock);
    state_save(out, "plic", 0, 1, plic_fields, p);
    for (unsigned i = 0; i < p->config.contexts; i++)
        state_save(out, "plic-context", i, 1, context_fields, &p->contexts[i]);
    mutex_unlock(&p->lock);
}

int plic_load(struct plic *p, const struct state_in *in, struct error *err)
{
    mutex_lock(&p->lock);
    int rc = state_load(in, "plic", 0, 1, plic_fields, p, err);
    for (unsigned i = 0; i < p->config.contexts && !rc; i++)
        rc = state_load(in, "plic-context", i, 1, context_fields, &p->contexts[i], err);
    /* What a guest cannot have set is dropped, as a write of it would be. */
    for (unsigned w = 0; w < WORDS; w++) {
        p->level[w] &= valid_bits(p, w);
        p->pending[w] &= valid_bits(p, w);
        p->busy[w] &= valid_bits(p, w);
        for (unsigned i = 0; i < p->config.contexts; i++)
            p->contexts[i].enable[w] &= valid_bits(p, w);
    }
    for (unsigned i = 0; i <= PLIC_MAX_SOURCES; i++)
        p->priority[i] &= MAX_PRIORITY;
    for (unsigned i = 0; i < p->config.contexts; i++)
        p->contexts[i].threshold &= MAX_PRIORITY;
    update_locked(p);
    mutex_unlock(&p->lock);
    return rc;
}
