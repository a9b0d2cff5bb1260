/* See random_ir.h. The helpers that units call are deterministic in the state, so that reference
 * and generated code see the same. */
#include "cpu/host/x86_64/random_ir.h"

#include "base/bits.h"

#include <fenv.h>

uint64_t m_random(uint64_t *rng)
{
    *rng ^= *rng << 13;
    *rng ^= *rng >> 7;
    *rng ^= *rng << 17;
    return *rng * 0x9e3779b97f4a7c15ULL >> 7;
}

/* --- The machine */

static bool allowed(uint64_t va, unsigned size, bool write)
{
    uint64_t first = va - M_DATA, last = first + size - 1;

    if (first >= 3 * 4096 || last >= 3 * 4096)
        return false;
    return !write || (first < 2 * 4096 && last < 2 * 4096);
}
static unsigned m_load(void *p, uint64_t va, unsigned size, unsigned mmu, uint64_t *ret)
{
    struct m_state *s = p;

    if (!allowed(va, size, false))
        return 1;
    *ret = 0;
    memcpy(ret, s->ram + (va - M_DATA), size);
    return 0;
}
static unsigned m_store(void *p, uint64_t va, unsigned size, unsigned mmu, uint64_t value)
{
    struct m_state *s = p;

    if (!allowed(va, size, true))
        return 1;
    memcpy(s->ram + (va - M_DATA), &value, size);
    return 0;
}
static unsigned m_load_reserved(void *p, uint64_t va, unsigned size, unsigned mmu, uint64_t *ret)
{
    return va & (size - 1) ? 1 : m_load(p, va, size, mmu, ret);
}
static unsigned m_zero(void *p, uint64_t va, unsigned mmu)
{
    struct m_state *s = p;

    if (!allowed(va & ~63ULL, 64, true))
        return 1;
    memset(s->ram + ((va & ~63ULL) - M_DATA), 0, 64);
    return 0;
}
static unsigned m_atomic(void *p, uint64_t va, unsigned size, unsigned mmu, unsigned op,
                         uint64_t operand, uint64_t *ret_old)
{
    if ((va & (size - 1)) || !allowed(va, size, true))
        return 1;
    m_load(p, va, size, mmu, ret_old);
    return m_store(p, va, size, mmu, ir_eval_amo(op, size, *ret_old, operand));
}
static unsigned m_cas(void *p, uint64_t va, unsigned size, unsigned mmu, uint64_t expected,
                      uint64_t desired, uint64_t *ret_old)
{
    if ((va & (size - 1)) || !allowed(va, size, true))
        return 1;
    m_load(p, va, size, mmu, ret_old);
    if (*ret_old == (expected & MASK(8 * size)))
        return m_store(p, va, size, mmu, desired);
    return 0;
}
static unsigned m_interp(void *p, const void *insn)
{
    struct m_state *s = p;

    if (((uintptr_t)insn & 7) == 7)
        return 1;
    s->x[1] = s->x[1] * 3 + (uintptr_t)insn + s->instret;
    s->instret++;
    s->pc += 4;
    return 0;
}

/* Sometimes to where there is no code, sometimes with a status. */
static struct host_next m_system(void *p, const void *insn)
{
    struct m_state *s = p;

    s->status = m_interp(p, insn);
    return (struct host_next){NULL, s->status ? HOST_LEAVE_STATUS : HOST_LEAVE_INDIRECT};
}

void m_env(struct host_env *ret)
{
#define AT(field) .field = offsetof(struct m_state, field)
    *ret = (struct host_env){
        AT(attention),
        AT(status),
        AT(pc),
        AT(code_page),
        AT(instret),
        AT(mode),
        AT(context),
        AT(fp_flags),
        AT(mxcsr),
        .tlb = offsetof(struct m_context, tlb),
        .tlb_stride = sizeof(struct m_tlb_entry) << M_TLB_BITS,
        .tlb_mask = offsetof(struct m_context, tlb_mask),
        .tlb_tag_read = offsetof(struct m_tlb_entry, tag[0]),
        .tlb_tag_write = offsetof(struct m_tlb_entry, tag[1]),
        .tlb_addend = offsetof(struct m_tlb_entry, addend),
        .memo = offsetof(struct m_context, memo[0].memos),
        .memo_stride = sizeof(((struct m_context *)0)->memo[0]),
        .memo_count = M_MEMOS,
        .memo_used = offsetof(struct m_context, memo[0].used),
        .memo_all = true,
        .jumps = offsetof(struct m_context, jumps),
        .jump_bits = M_JUMP_BITS,
        .jump_key = offsetof(struct m_jump, key),
        .jump_code = offsetof(struct m_jump, code),
        .jump_mode = offsetof(struct m_jump, code_mode),
        .jump_valid = 1u << 31,
        .load = m_load,
        .store = m_store,
        .load_reserved = m_load_reserved,
        .zero = m_zero,
        .atomic = m_atomic,
        .cas = m_cas,
        .interp = m_interp,
        .system = m_system,
    };
#undef AT
    for (unsigned n = 0; n < 64; n++)
        ret->fp_flags_map[n] = n & ~2u; /* all but "denormal operand" */
}

static uint64_t interesting(uint64_t *rng)
{
    static const uint64_t values[] = {
        0,          1,          UINT64_MAX,         0x7fffffffffffffff, 0x8000000000000000,
        0x80000000, 0x7fffffff, 0xffffffff80000000, 0xff00ff,
    };
    uint64_t v = m_random(rng);

    switch (m_random(rng) % 4) {
    case 0:
        return values[v % ARRAY_SIZE(values)];
    case 1:
        return (uint64_t)sext(v, 12);
    default:
        return v << m_random(rng) % 40;
    }
}

static uint64_t interesting_float(uint64_t *rng)
{
    static const uint64_t values[] = {
        0,
        0x8000000000000000,
        0x3ff0000000000000,
        0xbff0000000000000,
        0x7ff0000000000000,
        0xfff0000000000000,
        0x7ff8000000000000,
        0xfff8000000000123,
        0x7ff0000000000001,
        0x0000000000000001,
        0x800fffffffffffff,
        0x7fefffffffffffff,
        0x0010000000000000,
        0x3fe0000000000000,
        0x43e0000000000000,
        0xc1e0000000200000,
        0x41efffffffe00000,
    };
    static const uint32_t singles[] = {0,          0x80000000, 0x3f800000, 0xbf000000,
                                       0x7f800000, 0xff800000, 0x7fc00000, 0xffc00001,
                                       0x7f800001, 1,          0x807fffff, 0x7f7fffff,
                                       0x00800000, 0x4f000000, 0xcf000000, 0x5f000000};
    uint64_t v = m_random(rng);

    switch (m_random(rng) % 5) {
    case 0:
        return values[v % ARRAY_SIZE(values)];
    case 1:
        return 0xffffffff00000000 | singles[v % ARRAY_SIZE(singles)];
    case 2:
        return 0xffffffff00000000 | (uint32_t)v;
    case 3: /* of moderate size */
        return (v & 0x800fffffffffffff) | (0x3f0 + m_random(rng) % 80) << 52;
    default:
        return v << 7 ^ v;
    }
}

void m_init(struct m_state *s, struct m_machine *m, uint64_t seed)
{
    uint64_t rng = seed * 2 + 1;

    memset(s, 0, sizeof(*s));
    s->context = &m->context;
    s->ram = m->ram;
    s->code_page = M_CODE_PAGE;
    s->instret = m_random(&rng);
    s->rounds = m_random(&rng) % 10;
    for (unsigned n = 0; n < M_INTS; n++)
        s->x[n] = interesting(&rng);
    for (unsigned n = 0; n < M_FLOATS; n++)
        s->f[n] = interesting_float(&rng);
    for (unsigned n = 0; n < sizeof(m->ram); n += 8)
        memcpy(m->ram + n, &(uint64_t){interesting_float(&rng)}, 8);
    for (unsigned mode = 0; mode < 2; mode++)
        m->context.tlb_mask[mode] = ((1 << M_TLB_BITS) - 1) * sizeof(struct m_tlb_entry);
    memset(m->context.tlb, 0, sizeof(m->context.tlb));
    for (unsigned mode = 0; mode < 2; mode++)
        for (unsigned page = 0; page < 3; page += 2) {
            uint64_t va = M_DATA + 4096 * page;
            struct m_tlb_entry *e = &m->context.tlb[mode][va >> 12 & ((1 << M_TLB_BITS) - 1)];

            e->tag[0] = va | 4095;
            e->tag[1] = page ? 0 : va | 4095;
            e->addend = (uint64_t)(uintptr_t)m->ram - M_DATA;
        }
    memset(m->context.jumps, 0, sizeof(m->context.jumps));
    memset(m->context.memo, 0, sizeof(m->context.memo));
}

/* --- Units */

#define STATE_X(n) (offsetof(struct m_state, x) + 8 * (n))
#define STATE_F(n) (offsetof(struct m_state, f) + 8 * (n))

struct generator {
    struct ir_func *f;
    uint64_t rng;
    uint16_t values[IR_TYPES][256];
    unsigned counts[IR_TYPES];
    uint16_t address[4]; /* computed for accesses */
    unsigned addresses;
    uint32_t offset;
};

static unsigned below(struct generator *g, unsigned n)
{
    return (unsigned)(m_random(&g->rng) % n);
}

static uint16_t note(struct generator *g, uint16_t v)
{
    unsigned t = g->f->insns[v].type;

    g->values[t][g->counts[t]++ & 255] = v;
    return v;
}

static uint16_t fresh(struct generator *g, enum ir_type t)
{
    struct ir_func *f = g->f;
    uint16_t v;

    switch (t) {
    case IR_I32:
        v = ir_const(f, IR_I32, (int32_t)interesting(&g->rng));
        break;
    case IR_I64:
        v = below(g, 3) ? ir_get(f, IR_I64, STATE_X(below(g, M_INTS)), 8)
                        : ir_const(f, IR_I64, (int64_t)interesting(&g->rng));
        break;
    case IR_F64:
        v = ir_get(f, IR_F64, STATE_F(below(g, M_FLOATS)), 8);
        break;
    default:
        v = ir_un(f, IR_FUNBOX, IR_F32, ir_get(f, IR_F64, STATE_F(below(g, M_FLOATS)), 8));
        break;
    }
    return note(g, v);
}

static uint16_t pick(struct generator *g, enum ir_type t)
{
    unsigned n = MIN(g->counts[t], 256u);

    if (!n || !below(g, 6))
        return fresh(g, t);
    if (below(g, 2)) /* mostly recent ones */
        return g->values[t][(g->counts[t] - 1 - below(g, MIN(n, 6u))) & 255];
    return g->values[t][below(g, n)];
}

static uint16_t pick_int(struct generator *g, enum ir_type at_least)
{
    return pick(g, at_least == IR_I32 && below(g, 2) ? IR_I32 : IR_I64);
}

/** A guest address, mostly in or near the machine's pages; aligned to @align often. */
static uint16_t address(struct generator *g, unsigned align)
{
    struct ir_func *f = g->f;
    uint16_t v, mask, base;

    if (g->addresses && below(g, 3)) { /* off an earlier one */
        v = g->address[below(g, MIN(g->addresses, 4u))];
        return below(g, 3) ? v
                           : ir_bin(f, IR_ADD, IR_I64, v,
                                    ir_const(f, IR_I64, 8 * (int64_t)below(g, 20) - 64));
    }
    v = pick(g, IR_I64);
    mask = ir_const(f, IR_I64, below(g, 8) ? 0x1fff & -(int64_t)align : 0x3fff);
    if (!below(g, 4)) /* about the end of a page */
        mask = ir_const(f, IR_I64, 0x78);
    v = ir_bin(f, IR_AND, IR_I64, v, mask);
    base = ir_const(f, IR_I64,
                    (int64_t)M_DATA + 4096 * (int64_t)below(g, 2) +
                        (f->insns[mask].imm == 0x78 ? 4096 - 64 : 0));
    v = ir_bin(f, IR_ADD, IR_I64, v, base);
    g->address[g->addresses++ & 3] = v;
    return note(g, v);
}

static void memory_op(struct generator *g, enum ir_op op)
{
    struct ir_func *f = g->f;
    unsigned size = 1u << below(g, 4), mmu = below(g, 2);
    enum ir_type t = size == 8 || below(g, 2) ? IR_I64 : IR_I32;
    int32_t disp = below(g, 2) ? 0 : (int32_t)below(g, 64) - 20;

    switch (op) {
    case IR_LOAD:
    case IR_LOADS:
        if (op == IR_LOAD && size >= 4 && !below(g, 3))
            t = size == 4 ? IR_F32 : IR_F64;
        note(g, ir_load(f, t, size, op == IR_LOADS, mmu, address(g, size), disp));
        return;
    case IR_STORE:
        if (size >= 4 && !below(g, 3))
            t = size == 4 ? IR_F32 : IR_F64;
        ir_store(f, size, mmu, address(g, size), disp, pick(g, t));
        return;
    default:
        break;
    }
    if (op == IR_ZERO) {
        ir_zero(f, 64, mmu, address(g, 1));
        return;
    }
    size = 4u << below(g, 2);
    t = size == 8 || below(g, 2) ? IR_I64 : IR_I32;
    uint16_t at = address(g, size), y = pick_int(g, size == 4 ? IR_I32 : IR_I64);

    if (op == IR_LR)
        note(g, ir_lr(f, t, size, mmu, at));
    else if (op == IR_AMO)
        note(g, ir_amo(f, t, below(g, IR_AMOS), size, mmu, at, y));
    else if (op == IR_CAS)
        note(g, ir_cas(f, t, size, mmu, at,
                       below(g, 2) ? y : ir_load(f, IR_I64, size, false, mmu, at, 0),
                       pick_int(g, size == 4 ? IR_I32 : IR_I64)));
    else
        note(g, ir_sc(f, t, size, mmu, at,
                      below(g, 2) ? y : ir_load(f, IR_I64, size, false, mmu, at, 0),
                      pick_int(g, size == 4 ? IR_I32 : IR_I64), pick(g, IR_I64)));
}

static uint64_t helper_mix(void *p, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    struct m_state *s = p;

    s->calls++;
    return a + 3 * b + 5 * c + 7 * d + s->calls;
}
static uint64_t helper_state(void *p, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    struct m_state *s = p;

    s->x[2] += s->x[3] ^ a;
    s->f[1] = s->f[2] ^ b;
    return s->x[4] + s->f[3];
}
static uint64_t helper_exits(void *p, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    struct m_state *s = p;

    s->status = (a & 15) == 3 ? 2 : 0;
    return a ^ b;
}

static void call_op(struct generator *g)
{
    static uint64_t (*const fns[])(void *, uint64_t, uint64_t, uint64_t,
                                   uint64_t) = {helper_mix, helper_state, helper_exits};
    static const uint8_t flags[] = {0, IR_CALL_READS | IR_CALL_WRITES, IR_CALL_EXITS};
    unsigned k = below(g, 3);
    uint16_t args[4] = {pick(g, IR_I64), pick(g, IR_I64), pick(g, IR_I64), pick(g, IR_I64)};
    enum ir_type t = below(g, 4) ? IR_I64 : IR_NONE;
    uint16_t v = ir_call(g->f, t, (void (*)(void))fns[k], flags[k], 4, args);

    if (t != IR_NONE)
        note(g, v);
}

static enum ir_type any_float(struct generator *g)
{
    return below(g, 2) ? IR_F32 : IR_F64;
}

static void special_op(struct generator *g, enum ir_op op)
{
    static const uint8_t ext_sizes[] = {1, 2, 4};
    struct ir_func *f = g->f;
    enum ir_type t = below(g, 3) ? IR_I64 : IR_I32, ft = any_float(g);
    unsigned size = below(g, 2) ? 8 : 4;

    switch (op) {
    case IR_ADDSHL:
        note(g, ir_addshl(f, t, pick_int(g, t), 1 + below(g, 3), pick_int(g, t)));
        break;
    case IR_SEXT:
    case IR_ZEXT:
        note(g, ir_ext(f, op, t, ext_sizes[below(g, 3)], pick_int(g, IR_I32)));
        break;
    case IR_SETCC:
        note(g, ir_setcc(f, t, below(g, IR_CCS), size, pick_int(g, size == 4 ? IR_I32 : IR_I64),
                         pick_int(g, size == 4 ? IR_I32 : IR_I64)));
        break;
    case IR_SELECT:
        note(g,
             ir_select(f, t, below(g, IR_CCS), size, pick_int(g, size == 4 ? IR_I32 : IR_I64),
                       pick_int(g, size == 4 ? IR_I32 : IR_I64), pick_int(g, t), pick_int(g, t)));
        break;
    case IR_PCREL:
        note(g, ir_pcrel(f, (int64_t)(m_random(&g->rng) % 100000) - 50000));
        break;
    case IR_FTOI:
    case IR_FTOU:
        note(g, ir_ftoi(f, op, t, below(g, 2) ? IR_RTZ : IR_RNE, pick(g, ft)));
        break;
    case IR_ITOF:
    case IR_UTOF:
        note(g, ir_itof(f, op, ft, size, pick_int(g, size == 4 ? IR_I32 : IR_I64)));
        break;
    case IR_FCVT:
        note(g, ir_un(f, op, ft, pick(g, ft == IR_F32 ? IR_F64 : IR_F32)));
        break;
    case IR_BITCAST:
        if (below(g, 2))
            note(g, ir_un(f, op, ft, pick(g, ft == IR_F32 ? IR_I32 : IR_I64)));
        else
            note(g, ir_un(f, op, ft == IR_F32 ? IR_I32 : IR_I64, pick(g, ft)));
        break;
    case IR_FBOX:
        note(g, ir_un(f, op, IR_F64, pick(g, IR_F32)));
        break;
    case IR_FUNBOX:
        note(g, ir_un(f, op, IR_F32, pick(g, IR_F64)));
        break;
    case IR_FEQ:
    case IR_FLT:
    case IR_FLE:
        note(g, ir_bin(f, op, t, pick(g, ft), pick(g, ft)));
        break;
    case IR_FCLASS:
        note(g, ir_un(f, op, t, pick(g, ft)));
        break;
    default:
        break;
    }
}

static void state_op(struct generator *g, bool set)
{
    unsigned kind = below(g, 16);

    if (!kind) { /* part of a slot */
        unsigned size = 1u << below(g, 3);
        size_t at = STATE_X(below(g, M_INTS)) + size * below(g, 8 / size);

        if (set)
            ir_set(g->f, at, size, pick(g, IR_I64));
        else
            note(g, ir_get(g->f, IR_I64, at, size));
    } else if (kind < 10) {
        if (set)
            ir_set(g->f, STATE_X(below(g, M_INTS)), 8, pick(g, IR_I64));
        else
            note(g, ir_get(g->f, IR_I64, STATE_X(below(g, M_INTS)), 8));
    } else if (set) {
        bool other = !below(g, 8); /* an integer into a float's slot */

        ir_set(g->f, STATE_F(below(g, M_FLOATS)), 8, pick(g, other ? IR_I64 : IR_F64));
    } else {
        note(g, ir_get(g->f, below(g, 8) ? IR_F64 : IR_I64, STATE_F(below(g, M_FLOATS)), 8));
    }
}

static void random_op(struct generator *g)
{
    enum ir_op op = 1 + below(g, IR_OPS - 1);
    const struct ir_op_info *info = &ir_op_info[op];
    enum ir_type t;

    if (!below(g, 3))
        op = below(g, 3) ? IR_SET : IR_GET;
    if (op == IR_GET || op == IR_SET) {
        state_op(g, op == IR_SET);
    } else if (op >= IR_LOAD && op <= IR_SC) {
        memory_op(g, op);
    } else if (op == IR_FENCE) {
        ir_fence(g->f);
    } else if (op == IR_FLAGS) {
        note(g, ir_flags(g->f));
    } else if (op == IR_SET_FLAGS) { /* some, mostly those that there are */
        uint16_t v = below(g, 3) ? ir_flags(g->f) : pick(g, IR_I64);

        ir_set_flags(g->f, ir_bin(g->f, IR_AND, IR_I64, v, ir_const(g->f, IR_I64, 0x3d)));
    } else if (op == IR_CALL) {
        call_op(g);
    } else if (op == IR_INTERP) {
        if (!below(g, 4)) { /* alone in its guest instruction */
            ir_guest_insn(g->f, g->offset += 2);
            ir_interp(g->f, (const void *)(uintptr_t)(m_random(&g->rng) & 0xffff));
            ir_guest_insn(g->f, g->offset += 2);
        }
    } else if (op == IR_BRANCH) {
        if (!below(g, 3))
            ir_branch(g->f, below(g, IR_CCS), 8, pick(g, IR_I64), pick(g, IR_I64),
                      2048 + 4 * (int64_t)below(g, 1000));
    } else if (op == IR_INSN || op >= IR_EXIT_DIRECT || op == IR_CONST) {
        return;
    } else if (info->args[0] == 'i' && op != IR_SETCC && op != IR_SELECT && op != IR_ADDSHL &&
               op != IR_SEXT && op != IR_ZEXT && op != IR_ITOF && op != IR_UTOF) {
        t = info->result == IR_RESULT_I64 || below(g, 3) ? IR_I64 : IR_I32;
        if (info->nargs == 1)
            note(g, ir_un(g->f, op, t, pick_int(g, t)));
        else
            note(g, ir_bin(g->f, op, t, pick_int(g, t), pick_int(g, t)));
    } else if (info->args[0] == 'f') {
        t = any_float(g);
        if (info->nargs == 1)
            note(g, ir_un(g->f, op, t, pick(g, t)));
        else if (info->nargs == 2)
            note(g, ir_bin(g->f, op, t, pick(g, t), pick(g, t)));
        else
            note(g, ir_tri(g->f, op, t, pick(g, t), pick(g, t), pick(g, t)));
    } else {
        special_op(g, op);
    }
}

/** Everything but the exit at the end. */
static void begin_unit(struct generator *g, struct ir_func *f, uint64_t seed, unsigned length)
{
    *g = (struct generator){.f = f, .rng = seed * 2 + 1};
    for (unsigned n = 0; n < 5; n++)
        m_random(&g->rng);
    ir_reset(f);
    g->offset = f->start_offset = 4 * below(g, 256);
    ir_guest_insn(f, g->offset);
    while (f->count < length) {
        random_op(g);
        if (!below(g, 3)) {
            g->offset += 2 + 2 * below(g, 2);
            ir_guest_insn(f, g->offset);
        }
    }
}

/** Make the unit a loop: it goes back while a counter is positive. */
static void close_loop(struct generator *g)
{
    struct ir_func *f = g->f;
    uint16_t count, zero = ir_const(f, IR_I64, 0);

    count = ir_get(f, IR_I64, offsetof(struct m_state, rounds), 8);
    count = ir_bin(f, IR_SUB, IR_I64, count, ir_const(f, IR_I64, 1));
    ir_set(f, offsetof(struct m_state, rounds), 8, count);
    if (below(g, 2)) {
        ir_branch(f, IR_GT, 8, count, zero, f->start_offset);
        ir_exit_direct(f, 3000, IR_HINT_NONE);
    } else {
        ir_branch(f, IR_LE, 8, count, zero, 3004);
        ir_exit_direct(f, f->start_offset, IR_HINT_NONE);
    }
}

void m_random_loop(struct ir_func *f, uint64_t seed, unsigned length)
{
    struct generator g;

    begin_unit(&g, f, seed, length);
    close_loop(&g);
    f->loops = true;
}

enum { STRETCH_BYTES = 64 }; /* between two labels' offsets */

/** Leave, or go to one of the region's @count stretches. */
static int64_t region_target(struct generator *g, unsigned count)
{
    return below(g, 4) ? g->f->start_offset + STRETCH_BYTES * (int64_t)below(g, count)
                       : 3000 + 4 * (int64_t)below(g, 20);
}

void m_random_region(struct ir_func *f, uint64_t seed, unsigned length)
{
    struct generator g = {.f = f, .rng = seed * 2 + 1};
    unsigned count = 2 + below(&g, 5);
    uint16_t left, zero;

    ir_reset(f);
    f->start_offset = 4 * below(&g, 256);
    for (unsigned k = 0; k < count; k++) {
        unsigned end = f->count + below(&g, length) + 4;

        memset(g.counts, 0, sizeof(g.counts));
        g.addresses = 0;
        g.offset = f->start_offset + STRETCH_BYTES * k;
        ir_label(f, g.offset);
        ir_guest_insn(f, g.offset);
        left = ir_get(f, IR_I64, offsetof(struct m_state, rounds), 8);
        left = ir_bin(f, IR_SUB, IR_I64, left, ir_const(f, IR_I64, 1));
        ir_set(f, offsetof(struct m_state, rounds), 8, left);
        zero = ir_const(f, IR_I64, 0);
        ir_branch(f, IR_LE, 8, left, zero, 3004);
        while (f->count < end) {
            random_op(&g);
            if (!below(&g, 3)) {
                g.offset += 2;
                ir_guest_insn(f, g.offset & 4095);
            }
        }
        if (below(&g, 4))
            ir_branch(f, below(&g, IR_CCS), below(&g, 2) ? 4 : 8, pick(&g, IR_I64),
                      pick(&g, IR_I64), region_target(&g, count));
        if (below(&g, 8))
            ir_exit_direct(f, region_target(&g, count), IR_HINT_NONE);
        else
            ir_exit_indirect(f, pick(&g, IR_I64), IR_HINT_NONE);
    }
}

void m_random_unit(struct ir_func *f, uint64_t seed, unsigned length)
{
    struct generator g;

    begin_unit(&g, f, seed, length);
    switch (below(&g, 6)) {
    case 5: /* alone in its guest instruction */
        ir_guest_insn(f, g.offset += 2);
        ir_exit_system(f, (const void *)(uintptr_t)(m_random(&g.rng) & 0xffff),
                       below(&g, 2) ? IR_SYSTEM_FLAGS : IR_SYSTEM_PLAIN);
        return;
    case 0:
        ir_exit_indirect(f, pick(&g, IR_I64), IR_HINT_NONE);
        return;
    case 1:
        ir_exit_status(f, g.offset + 4, 1 + below(&g, 3));
        return;
    case 2:
        ir_branch(f, below(&g, IR_CCS), below(&g, 2) ? 4 : 8, pick(&g, IR_I64), pick(&g, IR_I64),
                  below(&g, 2) ? 2048 + 4 * (int64_t)below(&g, 400) : -400);
        break;
    default:
        break;
    }
    ir_exit_direct(f, below(&g, 2) ? 2048 + 4 * (int64_t)below(&g, 400) : 0x123456, IR_HINT_NONE);
}

/* --- Reference run */

struct reference {
    struct m_state *s;
    const struct ir_func *f;
    bool stopped; /* by the interpreter's status */
};

static bool r_load(void *arg, uint64_t va, unsigned size, unsigned mmu, uint64_t *ret)
{
    return !m_load(((struct reference *)arg)->s, va, size, mmu, ret);
}
static bool r_store(void *arg, uint64_t va, unsigned size, unsigned mmu, uint64_t value)
{
    return !m_store(((struct reference *)arg)->s, va, size, mmu, value);
}
static bool r_interp(void *arg, const void *insn, uint64_t pc, unsigned retired)
{
    struct m_state *s = ((struct reference *)arg)->s;
    uint64_t instret = s->instret;
    unsigned status;

    s->instret += retired;
    s->pc = pc;
    status = m_interp(s, insn);
    s->instret = instret;
    s->status = status;
    return !status;
}

static uint64_t r_flags(void *arg)
{
    struct m_state *s = ((struct reference *)arg)->s;

    return s->fp_flags | ((uint32_t)fetestexcept(FE_ALL_EXCEPT) & ~2u);
}
static void r_set_flags(void *arg, uint64_t value)
{
    ((struct reference *)arg)->s->fp_flags = (uint32_t)value;
    feclearexcept(FE_ALL_EXCEPT);
}

struct ir_eval_result m_eval(const struct ir_func *f, struct m_state *s)
{
    struct reference r = {.s = s, .f = f};
    struct ir_eval env = {.state = (uint8_t *)s,
                          .code_page = s->code_page,
                          .status = &s->status,
                          .load = r_load,
                          .store = r_store,
                          .interp = r_interp,
                          .flags = r_flags,
                          .set_flags = r_set_flags,
                          .arg = &r};
    static uint64_t temps[65536];
    struct ir_eval_result res;

    feclearexcept(FE_ALL_EXCEPT);
    res = ir_eval(f, &env, temps);
    s->fp_flags |= (uint32_t)fetestexcept(FE_ALL_EXCEPT) & ~2u;
    feclearexcept(FE_ALL_EXCEPT);
    s->pc = res.pc;
    s->instret += res.retired;
    if (res.kind == IR_EVAL_SYSTEM)
        res.kind =
            m_system(s, res.insn).kind == HOST_LEAVE_STATUS ? IR_EVAL_STATUS : IR_EVAL_INDIRECT;
    else if (res.kind == IR_EVAL_FAULT)
        s->status = 1;
    else if (res.kind == IR_EVAL_STATUS)
        s->status = res.status;
    return res;
}
