/* Evaluates a unit op by op: state is written as SETs come, so a fault or exit needs no repair. */
#include "cpu/ir/eval.h"

#include "base/bits.h"

#include <string.h>

struct run {
    const struct ir_func *f;
    const struct ir_eval *env;
    uint64_t *temps;
    const struct ir_insn *i;
    uint64_t v[IR_MAX_ARGS];
    enum ir_type types[IR_MAX_ARGS];
    uint32_t offset; /* of the current guest instruction */
    unsigned insns;
    unsigned next; /* op to evaluate next */
    bool done;
    struct ir_eval_result result;
};

static void finish(struct run *r, enum ir_eval_kind kind, uint64_t pc, unsigned retired,
                   unsigned status)
{
    r->result = (struct ir_eval_result){kind, pc, retired, status};
    r->done = true;
}
static void fault(struct run *r)
{
    finish(r, IR_EVAL_FAULT, r->env->code_page + r->offset, r->insns - 1, 0);
}

static void memory(struct run *r, uint64_t *ret)
{
    const struct ir_insn *i = r->i;
    const struct ir_eval *e = r->env;
    uint64_t va = r->v[0] + (uint64_t)(int64_t)i->disp, old;
    bool write = true;

    if (i->op == IR_LOAD || i->op == IR_LOADS) {
        if (!e->load(e->arg, va, i->size, i->aux, ret))
            fault(r);
        else if (i->op == IR_LOADS)
            *ret = (uint64_t)sext(*ret, 8 * i->size) & MASK(8 * ir_type_size(i->type));
        return;
    }
    if (i->op == IR_STORE) {
        if (!e->store(e->arg, va, i->size, i->aux, r->v[1] & MASK(8 * i->size)))
            fault(r);
        return;
    }
    if (i->op == IR_ZERO) {
        for (unsigned n = 0; n < i->size && !r->done; n += 8)
            if (!e->store(e->arg, (va & ~(i->size - 1ULL)) + n, 8, i->aux, 0))
                fault(r);
        return;
    }
    if (va & (i->size - 1)) {
        fault(r);
        return;
    }
    if (i->op == IR_SC && !r->v[3]) {
        *ret = 1;
        return;
    }
    if (!e->load(e->arg, va, i->size, i->aux, &old)) {
        fault(r);
        return;
    }
    if (i->op == IR_LR) {
        *ret = old;
        return;
    }
    if (i->op != IR_AMO)
        write = old == (r->v[1] & MASK(8 * i->size));
    /* without a match the old value is stored again: permission is needed in any case */
    if (!e->store(e->arg, va, i->size, i->aux,
                  (!write            ? old
                   : i->op == IR_AMO ? ir_eval_amo(i->aux2, i->size, old, r->v[1])
                                     : r->v[2]) &
                      MASK(8 * i->size)))
        fault(r);
    *ret = i->op == IR_SC ? !write : old;
}

static void call(struct run *r, uint64_t *ret)
{
    uint64_t (*fn)(void *, uint64_t, uint64_t, uint64_t, uint64_t) =
        (uint64_t(*)(void *, uint64_t, uint64_t, uint64_t, uint64_t))(uintptr_t)r->i->imm;

    *ret = fn(r->env->state, r->v[0], r->v[1], r->v[2], r->v[3]);
    if ((r->i->aux & IR_CALL_EXITS) && r->env->status && *r->env->status)
        finish(r, IR_EVAL_STATUS, r->env->code_page + r->offset, r->insns - 1, *r->env->status);
}

static void go_to(struct run *r, int64_t delta)
{
    int label = ir_label_at(r->f, delta);

    if (label < 0)
        finish(r, IR_EVAL_DIRECT, r->env->code_page + (uint64_t)delta, r->insns, 0);
    else
        r->next = (unsigned)label;
}

static void structure(struct run *r, uint64_t *ret)
{
    const struct ir_insn *i = r->i;
    uint64_t target = r->env->code_page + (uint64_t)i->imm;

    switch ((enum ir_op)i->op) {
    case IR_INSN:
        r->offset = (uint32_t)i->imm;
        r->insns++;
        break;
    case IR_PCREL:
        *ret = target;
        break;
    case IR_GET:
        *ret = 0;
        memcpy(ret, r->env->state + i->disp, i->size);
        break;
    case IR_SET:
        memcpy(r->env->state + i->disp, &r->v[0], i->size);
        break;
    case IR_BRANCH:
        ir_eval_integer(i, r->v, ret);
        if (*ret)
            go_to(r, i->imm);
        break;
    case IR_EXIT_DIRECT:
        go_to(r, i->imm);
        break;
    case IR_EXIT_INDIRECT:
        finish(r, IR_EVAL_INDIRECT, r->v[0], r->insns, 0);
        break;
    case IR_EXIT_SYSTEM:
        finish(r, IR_EVAL_SYSTEM, r->env->code_page + r->offset, r->insns - 1, 0);
        r->result.insn = (const void *)(uintptr_t)i->imm;
        break;
    case IR_EXIT_STATUS:
        finish(r, IR_EVAL_STATUS, target, r->insns, i->aux);
        break;
    case IR_CALL:
        call(r, ret);
        break;
    case IR_FLAGS:
        *ret = r->env->flags(r->env->arg);
        break;
    case IR_SET_FLAGS:
        r->env->set_flags(r->env->arg, r->v[0]);
        break;
    case IR_INTERP:
        if (!r->env->interp(r->env->arg, (const void *)(uintptr_t)i->imm,
                            r->env->code_page + r->offset, r->insns - 1))
            fault(r);
        break;
    default:
        break;
    }
}

struct ir_eval_result ir_eval(const struct ir_func *f, const struct ir_eval *env, uint64_t *temps)
{
    struct run r = {
        .f = f, .env = env, .temps = temps, .result = {IR_EVAL_END, 0, 0, 0}
    };

    for (unsigned n = 0; n < f->count && !r.done; n = r.next) {
        uint64_t ret = 0;

        r.next = n + 1;

        r.i = &f->insns[n];
        for (unsigned k = 0; k < IR_MAX_ARGS; k++) {
            r.v[k] = k < r.i->nargs ? temps[r.i->arg[k]] : 0;
            r.types[k] = k < r.i->nargs ? f->insns[r.i->arg[k]].type : IR_NONE;
        }
        if (r.i->op >= IR_LOAD && r.i->op <= IR_SC)
            memory(&r, &ret);
        else if (r.i->op == IR_BRANCH ||
                 (!ir_eval_integer(r.i, r.v, &ret) && !ir_eval_float(r.i, r.types, r.v, &ret)))
            structure(&r, &ret);
        temps[n] = ret;
    }
    return r.result;
}
