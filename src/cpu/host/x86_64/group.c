/* Accesses that share a TLB probe.
 *
 * Code accesses several fields off one base: a stack frame, a struct, an unrolled copy. The first
 * access of such a group probes for the range of all; if it lies in one page that is there, the
 * page's addend serves the others, which only test that it is not 0. Otherwise all probe for
 * themselves, in their stubs.
 *
 * 1. Between members nothing runs that may change translations: calls end all groups. A slow path
 *    may replace a TLB entry, but what the entry said stays true.
 * 2. Reads may use a write's probe (what may be written may be read), never the other way round: a
 *    write that does not happen must not slow down reads of a read-only page. */
#include "cpu/host/x86_64/asm.h"

#define MAX_RANGE 256 /* bytes: the longer, the more often a page ends within */
#define MAX_FAR   (1 << 20)
#define MAX_OPEN  12

struct address address_of(const struct ir_func *f, uint16_t base, int64_t disp)
{
    struct address r = {base, disp};

    for (unsigned depth = 0; depth < 16; depth++) {
        const struct ir_insn *d = &f->insns[r.root];

        if (d->op != IR_ADD || d->type != IR_I64 || f->insns[d->arg[1]].op != IR_CONST ||
            !fits32(f->insns[d->arg[1]].imm) || f->insns[d->arg[0]].type != IR_I64)
            break;
        r.at += f->insns[d->arg[1]].imm;
        r.root = d->arg[0];
    }
    return r;
}

/** May access @i at @r join @g? */
static bool joins(const struct group *g, const struct ir_insn *i, struct address r)
{
    bool write = i->op == IR_STORE;

    return g->root == r.root && g->mmu == i->aux && (g->write || !write) &&
           MAX(g->hi, r.at + i->size) - MIN(g->lo, r.at) <= MAX_RANGE;
}

static void access(struct asm_state *a, unsigned n, uint8_t *open, unsigned *open_count)
{
    const struct ir_insn *i = &a->f->insns[n];
    struct address r = address_of(a->f, i->arg[0], i->disp);
    struct group *g;

    if (r.at < -MAX_FAR || r.at > MAX_FAR)
        return;
    for (unsigned k = *open_count; k--;) {
        g = &a->groups[open[k]];
        if (!joins(g, i, r))
            continue;
        g->lo = MIN(g->lo, (int32_t)r.at);
        g->hi = MAX(g->hi, (int32_t)r.at + i->size);
        g->last = (uint16_t)n;
        g->members++;
        a->group_of[n] = (uint8_t)(open[k] + 1);
        return;
    }
    if (a->group_count == ASM_GROUPS || *open_count == MAX_OPEN)
        return;
    g = &a->groups[a->group_count];
    *g = (struct group){.root = r.root,
                        .leader = (uint16_t)n,
                        .last = (uint16_t)n,
                        .members = 1,
                        .lo = (int32_t)r.at,
                        .hi = (int32_t)r.at + i->size,
                        .leader_at = (int32_t)r.at,
                        .mmu = i->aux,
                        .write = i->op == IR_STORE};
    open[(*open_count)++] = (uint8_t)a->group_count++;
    a->group_of[n] = (uint8_t)a->group_count;
}

void groups_find(struct asm_state *a)
{
    const struct ir_func *f = a->f;
    uint8_t open[MAX_OPEN];
    unsigned open_count = 0;

    a->group_count = 0;
    memset(a->group_of, 0, f->count);
    for (unsigned n = 0; n < f->count; n++) {
        enum ir_op op = f->insns[n].op;

        if (op == IR_LOAD || op == IR_LOADS || op == IR_STORE)
            access(a, n, open, &open_count);
        else if (op == IR_CALL || op == IR_INTERP || op == IR_LABEL)
            open_count = 0;
    }
    for (unsigned k = 0; k < a->group_count; k++) {
        const struct group *g = &a->groups[k];

        a->values[f->count + k] =
            (struct value){.last_use = g->last, .spill = -1, .home = -1, .reg = -1, .want = -1};
        if (g->members == 1)
            a->group_of[g->leader] = 0;
    }
}
