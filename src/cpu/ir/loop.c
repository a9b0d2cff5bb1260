/* Marking of loops, and choosing what regions keep in registers.
 *
 * Loops: a unit that may exit to its own start gets, before everything else, GETs of the
 * state it uses most and a LOOP mark. The forward pass then lets the body use these temps.
 *
 * State is worth a register for the whole loop if it is read before it is written (a value carried
 * around), and worth one, too, if it is only written: else each round would store it. */
#include "cpu/ir/ir.h"

#include <string.h>

#define SLOTS 512 /* 8-byte slots of state looked at */

/* Registers that a loop may bind, of the kinds: code generators have 11 and 14 or more, and the
 * body wants some. */
#define MAX_INTS   8
#define MAX_FLOATS 10

struct slot_use {
    uint16_t offset;
    uint8_t type;
    bool mixed; /* accessed as integer and as float, or in part */
    unsigned count;
};

static bool is_loop(const struct ir_func *f)
{
    const struct ir_insn *last = &f->insns[f->count - 1];

    if (f->count < 2 || last->op != IR_EXIT_DIRECT)
        return false;
    if (last->imm != f->start_offset &&
        (last[-1].op != IR_BRANCH || last[-1].imm != f->start_offset))
        return false;
    for (unsigned n = 0; n < f->count; n++) {
        const struct ir_insn *i = &f->insns[n];

        if (i->op == IR_INTERP || i->op == IR_LOOP ||
            (i->op == IR_CALL && (i->aux & (IR_CALL_READS | IR_CALL_WRITES))))
            return false;
    }
    return true;
}

/** Uses of each slot, in order of first use; @weight of those at each op, NULL = 1. Returns their
 * number. */
static unsigned collect(const struct ir_func *f, struct slot_use *uses, const uint16_t *weight)
{
    uint16_t seen[SLOTS] = {0};
    bool partly[SLOTS] = {false};
    unsigned count = 0;

    for (unsigned n = 0; n < f->count; n++) {
        const struct ir_insn *i = &f->insns[n];
        enum ir_type t = i->op == IR_SET ? f->insns[i->arg[0]].type : i->type;
        struct slot_use *u;

        if (i->op != IR_GET && i->op != IR_SET)
            continue;
        if (i->size != 8 || (i->disp & 7) || i->disp >= 8 * SLOTS) {
            for (int32_t s = i->disp / 8; s <= (i->disp + i->size - 1) / 8; s++)
                if (s < SLOTS)
                    partly[s] = true;
            continue;
        }
        if (!seen[i->disp / 8]) {
            uses[count] = (struct slot_use){.offset = (uint16_t)i->disp, .type = (uint8_t)t};
            seen[i->disp / 8] = (uint16_t)++count;
        }
        u = &uses[seen[i->disp / 8] - 1];
        if (!weight)
            u->count++;
        else if (weight[n] > 1) /* in a loop: elsewhere loads and stores cost what they save */
            u->count += weight[n];
        u->mixed |= u->type != t;
    }
    for (unsigned n = 0; n < count; n++)
        uses[n].mixed |= partly[uses[n].offset / 8];
    return count;
}

/** The slot of a type's kind that is used most among those not taken (count 0). */
static struct slot_use *best(struct slot_use *uses, unsigned count, bool is_float)
{
    struct slot_use *b = NULL;

    for (unsigned n = 0; n < count; n++)
        if (!uses[n].mixed && uses[n].count && ir_is_float(uses[n].type) == is_float &&
            (!b || uses[n].count > b->count))
            b = &uses[n];
    return b;
}

static unsigned choose(struct slot_use *uses, unsigned count, struct ir_insn *gets)
{
    unsigned n = 0;

    for (unsigned kind = 0; kind < 2; kind++)
        for (unsigned k = 0; k < (kind ? MAX_FLOATS : MAX_INTS); k++) {
            struct slot_use *u = best(uses, count, kind);

            if (!u)
                break;
            gets[n++] =
                (struct ir_insn){.op = IR_GET, .type = u->type, .size = 8, .disp = u->offset};
            u->count = 0;
        }
    return n;
}

void ir_pass_loop(struct ir_func *f)
{
    struct slot_use uses[SLOTS];
    struct ir_insn front[MAX_INTS + MAX_FLOATS + 1];
    unsigned n;

    if (!is_loop(f))
        return;
    n = choose(uses, collect(f, uses, NULL), front);
    front[n++] = (struct ir_insn){.op = IR_LOOP};
    if (f->count + n > f->capacity)
        return;
    memmove(f->insns + n, f->insns, f->count * sizeof(*f->insns));
    memcpy(f->insns, front, n * sizeof(*front));
    f->count += n;
    for (unsigned k = n; k < f->count; k++)
        for (unsigned a = 0; a < f->insns[k].nargs; a++)
            f->insns[k].arg[a] = (uint16_t)(f->insns[k].arg[a] + n);
}

/* --- Regions */

/** How often each op is likely to run: 8 times as often for each loop around it, by the exits that
 * go back. In f->uses. */
static void weigh(struct ir_func *f)
{
    enum { PER_LOOP = 8, MOST = 4096 };

    for (unsigned n = 0; n < f->count; n++)
        f->uses[n] = 1;
    for (unsigned n = 0; n < f->count; n++) {
        const struct ir_insn *i = &f->insns[n];
        int to = i->op == IR_BRANCH || i->op == IR_EXIT_DIRECT ? ir_label_at(f, i->imm) : -1;

        for (unsigned k = (unsigned)to; to >= 0 && k <= n; k++)
            if (f->uses[k] < MOST)
                f->uses[k] = (uint16_t)(f->uses[k] * PER_LOOP);
    }
}

/** Put @count @gets behind every label. */
static void insert_gets(struct ir_func *f, const struct ir_insn *gets, unsigned count)
{
    unsigned labels = 0;

    for (unsigned n = 0; n < f->count; n++)
        labels += f->insns[n].op == IR_LABEL;
    if (f->count + labels * count > f->capacity) {
        f->overflow = true;
        return;
    }
    unsigned end = f->count;
    f->count += labels * count;
    for (unsigned n = end; n--;) {
        struct ir_insn i = f->insns[n];
        unsigned shift = labels * count;

        for (unsigned a = 0; a < i.nargs; a++)
            i.arg[a] = (uint16_t)(i.arg[a] + shift);
        if (i.op == IR_LABEL) {
            memcpy(f->insns + n + shift - count + 1, gets, count * sizeof(*gets));
            labels--;
            shift -= count;
        }
        f->insns[n + shift] = i;
    }
}

/** Where a branch skips the jump behind it, both being within the unit, branch the other way. */
static void turn_branches(struct ir_func *f)
{
    for (unsigned n = 0; n + 2 < f->count; n++) {
        struct ir_insn *i = &f->insns[n], *jump = i + 1;
        int64_t target = jump->imm;

        if (i->op != IR_BRANCH || jump->op != IR_EXIT_DIRECT || i[2].op != IR_LABEL ||
            i[2].imm != i->imm || ir_label_at(f, target) < 0)
            continue;
        jump->imm = i->imm;
        i->imm = target;
        i->aux = (uint8_t)ir_cc_not(i->aux);
    }
}

void ir_pass_region(struct ir_func *f)
{
    struct slot_use uses[SLOTS];
    struct ir_insn gets[MAX_INTS + MAX_FLOATS];
    unsigned count;

    turn_branches(f);
    weigh(f);
    count = choose(uses, collect(f, uses, f->uses), gets);
    for (unsigned n = 0; n < count; n++)
        gets[n].aux = IR_BOUND;
    insert_gets(f, gets, count);
}
