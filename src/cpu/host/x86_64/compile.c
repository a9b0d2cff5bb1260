/* Compiling one unit: liveness, then ops in order, then stubs; and linking of what was compiled.
 *
 * Code goes straight into the code buffer; it is kept only if nothing went wrong. The first
 * instruction of a unit compares the attention word with zero; host_kill() changes the zero to a
 * value that the word never has, so that the unit leaves before it starts. */
#include "cpu/host/x86_64/asm.h"

#include <stdlib.h>

#define ATTENTION_NEVER 0x7f

int host_new(const struct host_env *env, struct codebuf *code, unsigned features, struct host **ret,
             struct error *err)
{
    struct host *h;

    if (code->size < 65536)
        return error_set(err, EINVAL, "translation cache of %zu bytes is too small", code->size);
    h = calloc(1, sizeof(*h));
    if (!h)
        return error_set(err, ENOMEM, "no memory for the code generator");
    h->env = *env;
    h->code = code;
    h->features = features & host_features();
    common_emit(h);
    *ret = h;
    return 0;
}

void host_free(struct host *h)
{
    free(h);
}

void host_restart(struct host *h)
{
    codebuf_reset(h->code);
    common_emit(h);
}

void host_dump_registers(struct host *h, FILE *out)
{
    h->dump = out;
}

static void guest_insn(struct asm_state *a)
{
    a->page_offset = (uint32_t)asm_insn(a)->imm & 4095;
    a->insns++;
}

static void compile_op(struct asm_state *a)
{
    enum ir_op op = asm_insn(a)->op;

    if (op <= IR_CONST) {
        return;
    } else if (op == IR_GET) {
        if (asm_insn(a)->aux != IR_BOUND) /* LABEL did those */
            regs_get(a);
    } else if (op == IR_SET) {
        regs_set(a);
    } else if ((op >= IR_MUL && op <= IR_REMU_RV)) {
        asm_muldiv(a);
    } else if (op >= IR_SHL && op <= IR_ROR) {
        asm_shift(a);
    } else if (op == IR_SETCC || op == IR_SELECT || (op >= IR_MIN && op <= IR_MAXU)) {
        asm_compare(a);
    } else if (op <= IR_XNOR || op == IR_SEXT || op == IR_ZEXT) {
        asm_integer(a);
    } else if (op < IR_LOAD) {
        asm_bits(a);
    } else if (op <= IR_STORE || op == IR_FENCE) {
        asm_memory(a);
    } else if (op <= IR_SC) {
        asm_atomic(a);
    } else if (op >= IR_FEQ && op <= IR_FCLASS) {
        asm_float_compare(a);
    } else if (op >= IR_FCVT && op <= IR_FUNBOX) {
        asm_float_convert(a);
    } else if (op <= IR_FSGNJX) {
        asm_float(a);
    } else if (op == IR_FLAGS || op == IR_SET_FLAGS) {
        asm_flags(a);
    } else if (op == IR_CALL) {
        asm_call(a);
    } else if (op == IR_INTERP) {
        asm_interp(a);
    } else if (op == IR_INSN) {
        guest_insn(a);
    } else if (op == IR_LOOP) {
        asm_loop(a);
    } else if (op == IR_LABEL) {
        asm_label(a);
    } else {
        asm_exit(a);
    }
}

/** Pure ops whose result nobody uses are left out; the optimizer leaves few. */
static bool is_dead(const struct asm_state *a)
{
    const struct ir_insn *i = asm_insn(a);

    return (ir_op_info[i->op].flags & (IR_PURE | IR_RAISES)) == IR_PURE &&
           a->values[a->cur].last_use == a->cur;
}

static void compile(struct asm_state *a)
{
    const struct ir_func *f = a->f;

    a->error = asm_find_labels(a);
    if (a->error)
        return;
    regs_liveness(a);
    groups_find(a);
    memos_find(a);
    asm_entry(a);
    if (a->label_count)
        regs_enter_region(a);
    for (a->cur = 0; a->cur < f->count && !a->error; a->cur++) {
        if (a->h->dump) {
            ir_print_insn(f, a->cur, a->h->dump);
            fprintf(a->h->dump, "    ;");
            regs_dump(a, a->h->dump);
        }
        if (!asm_has_room(a))
            return;
        a->pinned = 0;
        if (!is_dead(a))
            compile_op(a);
    }
    a->code->hot_size = (uint32_t)(a->e.p - a->entry);
    stubs_emit(a);
}

int host_compile(struct host *h, const struct ir_func *f, void *owner, struct host_code *ret)
{
    struct asm_state *a = &h->a;
    uint8_t *start = codebuf_begin(h->code, 2 * ASM_MARGIN);

    if (!start)
        return -ENOSPC;
    if (f->overflow || f->count > ASM_MAX_INSNS)
        return -E2BIG;
    a->e = (struct emit){.p = start, .end = h->code->rw + h->code->size};
    a->h = h;
    a->env = &h->env;
    a->f = f;
    a->features = h->features;
    a->owner = owner;
    a->error = 0;
    a->page_offset = f->start_offset;
    a->insns = a->counted = 0;
    a->call = false;
    a->entry = start;
    a->code = ret;
    a->values = h->values;
    a->spills = 0;
    a->slot_count = a->stub_count = a->place_count = 0;
    memset(a->regs, 0xff, sizeof(a->regs));
    memset(a->slot_map, 0, sizeof(a->slot_map));
    ret->exit_count = 0;
    ret->has_store = false;
    ret->to_start = false;
    for (unsigned n = 0; n < f->count; n++)
        ret->to_start |= (f->insns[n].op == IR_BRANCH || f->insns[n].op == IR_EXIT_DIRECT) &&
                         f->insns[n].imm == f->start_offset;
    compile(a);
    if (a->error)
        return a->error;
    ret->size = (uint32_t)(a->e.p - start);
    ret->entry = codebuf_commit(h->code, ret->size);
    return 0;
}

const void *host_count_entries(struct host *h, const struct host_code *code, int64_t start,
                               uint32_t *left)
{
    struct emit e = {.p = codebuf_begin(h->code, 128)};
    uint8_t *begin = e.p;

    if (!begin)
        return NULL;
    e.end = e.p + 128;
    emit_const(&e, RAX, (uint64_t)(uintptr_t)left);
    emit_group1(&e, G1_SUB, false, rm_mem(RAX, 0), 1);
    emit_jcc(&e, CC_NE, codebuf_writable(h->code, code->entry));
    emit_op(&e, X_LOAD, true, RAX, rm_state(h->env.code_page));
    emit_group1(&e, G1_ADD, true, rm_reg(RAX), (int32_t)start);
    emit_op(&e, X_STORE, true, RAX, rm_state(h->env.pc));
    emit_const(&e, RAX, HOST_LEAVE_ATTENTION);
    emit_jmp(&e, h->common[COMMON_LEAVE]);
    return codebuf_commit(h->code, (size_t)(e.p - begin));
}

struct host_leave host_enter(struct host *h, void *state, const void *entry)
{
    const uint8_t *rx = h->code->rx + (h->common[COMMON_ENTER] - h->code->rw);

    return ((struct host_leave(*)(void *, const void *))(uintptr_t)rx)(state, entry);
}

void host_link(struct host *h, const struct host_code *code, unsigned index, const void *target)
{
    const uint8_t *at = code->entry + code->exits[index].patch;

    codebuf_patch32(h->code, at, (uint32_t)((const uint8_t *)target - (at + 4)));
}

void host_unlink(struct host *h, const struct host_code *code, unsigned index)
{
    host_link(h, code, index, code->entry + code->exits[index].stub);
}

void host_kill(struct host *h, const struct host_code *code)
{
    /* the immediate is the last byte of `cmp dword [rbp + attention], imm8` */
    unsigned at = fits8(h->env.attention) ? 3 : 6, word = at & ~3u;
    uint32_t v;

    memcpy(&v, code->entry + word, 4);
    v &= ~(0xffu << (at & 3) * 8);
    v |= (uint32_t)ATTENTION_NEVER << (at & 3) * 8;
    codebuf_patch32(h->code, code->entry + word, v);
}
