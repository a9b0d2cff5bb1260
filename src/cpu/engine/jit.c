/* Translation of blocks to host code, and links between them.
 *
 * Tiers: a block that was interpreted a few times is translated by itself. An exit that goes back
 * in its page, to a block that may be a loop's head, is not linked before it was taken
 * REGION_HITS times; then the blocks of that loop are translated together (region.c), and the
 * head's code is the region's from then on: what the head was translated to leaves at its entry.
 * Code that is entered by calls or by the jump cache (functions, the ways back to their callers,
 * the cases of a switch) counts its entries, and after ENTRY_HITS of them begins a region of all
 * that it leads to in its page.
 *
 * Invariants:
 *  1. A link leads from an exit of a block to another block of the same page and mode, at the
 * exit's offset in the page; so it holds at whatever virtual address the page is mapped. Exits to
 * other pages go through the jump cache.
 *  2. Every link is in its target's `incoming` list until the cache is reset; a dead block is
 * unlinked and its entry leaves.
 *  3. When a block of a page dies, so do all that begin regions in that page.
 * Threads: translation and linking under cache.lock; running on any vCPU's thread.
 */
#include "cpu/engine/engine_internal.h"
#include "cpu/engine/symbols.h"
#include "cpu/engine/trace_engine.h"
#include "cpu/host/codebuf.h"
#include "cpu/host/host.h"
#include "cpu/ir/ir.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define REGION_HITS     16
#define ENTRY_HITS      100
#define ENTRIES_COUNTED UINT32_MAX /* of entries_left: it does not matter any more */
#define IR_CAPACITY     4096
#define FROZEN_HITS     16 /* a chunk of code is unshared for a link that is taken so often */
#define FROZEN_COUNTERS 4096

struct jit {
    struct host *host;
    struct codebuf code;
    struct ir_func *ir;            /* [cache.lock] reused */
    FILE *dump;                    /* NULL: no dumps */
    struct symbols *symbols;       /* [cache.lock] NULL: nobody wants them */
    uint8_t hits[FROZEN_COUNTERS]; /* [cache.lock] of exits in frozen chunks, by a hash */
};

struct jit_link {
    struct jit_block *from;
    unsigned exit;
    struct jit_link *next;
};

/** What a block, or the region that it begins, was translated to. */
struct jit_block {
    struct block *block;
    struct jit_link *incoming; /* [cache.lock] of the block, whichever code it has */
    struct host_code code;     /* last: only the exits there are were allocated */
};

static unsigned slow_load(void *state, uint64_t va, unsigned size, unsigned mmu, uint64_t *ret)
{
    return cpu_load_slow(state, va, size, mmu, ret);
}

static unsigned slow_store(void *state, uint64_t va, unsigned size, unsigned mmu, uint64_t value)
{
    return cpu_store_slow(state, va, size, mmu, value);
}

static unsigned slow_load_reserved(void *state, uint64_t va, unsigned size, unsigned mmu,
                                   uint64_t *ret)
{
    struct cpu *c = state;

    if (!(va & (size - 1)))
        return cpu_load_slow(c, va, size, mmu, ret);
    c->ops->misaligned(c, va, CPU_READ);
    return CPU_EXCEPTION;
}

static unsigned slow_zero(void *state, uint64_t va, unsigned mmu)
{
    return cpu_zero_block(state, va, 64, mmu); /* as IR_ZERO */
}

static unsigned slow_atomic(void *state, uint64_t va, unsigned size, unsigned mmu, unsigned op,
                            uint64_t operand, uint64_t *ret_old)
{
    static_assert((int)IR_AMO_SWAP == (int)CPU_SWAP && (int)IR_AMO_ADD == (int)CPU_ADD &&
                      (int)IR_AMO_AND == (int)CPU_AND && (int)IR_AMO_OR == (int)CPU_OR &&
                      (int)IR_AMO_XOR == (int)CPU_XOR && (int)IR_AMO_MIN == (int)CPU_MIN &&
                      (int)IR_AMO_MAX == (int)CPU_MAX && (int)IR_AMO_MINU == (int)CPU_MINU &&
                      (int)IR_AMO_MAXU == (int)CPU_MAXU,
                  "the IR's atomic operations are numbered as the memory's");
    return cpu_atomic(state, va, size, mmu, (enum cpu_atomic_op)op, operand, ret_old);
}

static unsigned slow_cas(void *state, uint64_t va, unsigned size, unsigned mmu, uint64_t expected,
                         uint64_t desired, uint64_t *ret_old)
{
    return cpu_cas(state, va, size, mmu, expected, desired, ret_old);
}

static unsigned interp_one(void *state, const void *insn)
{
    struct cpu *c = state;

    c->code_page = c->pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    return c->ops->interp(c, insn, 1);
}

/* Where to go on, from generated code that has executed @insn. */
static struct host_next system_one(void *state, const void *insn)
{
    struct cpu *c = state;

    c->code_page = c->pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    enum cpu_status status = c->ops->interp(c, insn, 1);
    cpu_count(&c->stats.system_insns);
    if (status == CPU_EXCEPTION) {
        c->ops->take_exception(c);
    } else if (status != CPU_OK && status != CPU_RETRANSLATE) {
        c->status = status;
        return (struct host_next){NULL, HOST_LEAVE_STATUS};
    }
    const struct jump_entry *j = cpu_find_jump(c, c->pc);
    if (!j || !j->code_mode)
        return (struct host_next){NULL, HOST_LEAVE_INDIRECT};
    c->code_page = c->pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    return (struct host_next){j->code, 0};
}

static void fill_env(struct host_env *env)
{
    *env = (struct host_env){
        .attention = offsetof(struct cpu, attention),
        .status = offsetof(struct cpu, status),
        .pc = offsetof(struct cpu, pc),
        .code_page = offsetof(struct cpu, code_page),
        .instret = offsetof(struct cpu, instret),
        .mode = offsetof(struct cpu, mode),
        .context = offsetof(struct cpu, context),
        .fp_flags = offsetof(struct cpu, fp_flags),
        .mxcsr = offsetof(struct cpu, mxcsr),
        .tlb = offsetof(struct cpu_context, tables[0].tlb),
        .tlb_stride = sizeof(struct cpu_table),
        .tlb_mask = offsetof(struct cpu_context, tlb_mask),
        .tlb_tag_read = offsetof(struct tlb_entry, tag[CPU_READ]),
        .tlb_tag_write = offsetof(struct tlb_entry, tag[CPU_WRITE]),
        .tlb_addend = offsetof(struct tlb_entry, addend),
        .memo = offsetof(struct cpu_context, tables[0].memos),
        .memo_stride = sizeof(struct cpu_table),
        .memo_count = TLB_MEMOS,
        .memo_used = offsetof(struct cpu_context, tables[0].memo_used),
        .jumps = offsetof(struct cpu_context, tables[0].jumps),
        .jump_stride = sizeof(struct cpu_table),
        .jump_bits = JUMP_BITS,
        .jump_key = offsetof(struct jump_entry, key),
        .jump_code = offsetof(struct jump_entry, code),
        .jump_mode = offsetof(struct jump_entry, code_mode),
        .jump_valid = JUMP_VALID,
        .load = slow_load,
        .store = slow_store,
        .load_reserved = slow_load_reserved,
        .zero = slow_zero,
        .atomic = slow_atomic,
        .cas = slow_cas,
        .interp = interp_one,
        .system = system_one,
    };
    /* MXCSR: invalid, denormal, zero divide, overflow, underflow, precision. RISC-V fflags: NV 16,
     * DZ 8, OF 4, UF 2, NX 1. */
    static const uint8_t flag[6] = {16, 0, 8, 4, 2, 1};

    for (unsigned i = 0; i < 64; i++) {
        for (unsigned bit = 0; bit < 6; bit++)
            env->fp_flags_map[i] |= i & (1u << bit) ? flag[bit] : 0;
    }
}

int jit_new(struct engine *e, struct error *err)
{
    struct host_env env;
    struct jit *j = calloc(1, sizeof(*j));
    int rc;

    static_assert(sizeof(struct tlb_entry) == 32 && sizeof(struct jump_entry) == 32,
                  "generated code scales by 32");
    if (!j)
        return error_set(err, ENOMEM, "out of memory");
    e->jit = j;
    fill_env(&env);
    env.single_pass = e->config.kind == ENGINE_CHECK;
    rc = codebuf_init(&j->code, e->config.cache_bytes / 2, err);
    if (!rc)
        rc = host_new(&env, &j->code, host_features(), &j->host, err);
    j->ir = rc ? NULL : ir_new(IR_CAPACITY);
    if (!rc && !j->ir)
        rc = error_set(err, ENOMEM, "out of memory");
    if (!rc) {
        struct symbols_config symbols = {
            .perf_map = e->config.perf_map, .gdb = e->config.gdb_jit, .elf = e->config.dump_elf};

        rc = symbols_new(&symbols, &j->symbols, err);
    }
    if (!rc && e->config.dump) {
        j->dump = fdopen(dup(e->config.dump_fd), "w");
        if (j->dump && (e->config.dump & DUMP_REGS))
            host_dump_registers(j->host, j->dump);
    }
    return rc; /* on failure engine_free() undoes it */
}

void jit_free(struct engine *e)
{
    struct jit *j = e->jit;

    if (!j)
        return;
    if (j->dump)
        fclose(j->dump);
    symbols_free(j->symbols, j->code.rx, j->code.used);
    ir_free(j->ir);
    host_free(j->host);
    codebuf_done(&j->code);
    free(j);
    e->jit = NULL;
}

void jit_trim(struct engine *e)
{
    if (e->jit)
        codebuf_trim(&e->jit->code);
}

int jit_share(struct engine *e, struct error *err)
{
    return e->jit ? codebuf_share(&e->jit->code, err) : 0;
}

bool jit_fits(const struct engine *e, const struct engine *from)
{
    const struct jit *a = e->jit;
    const struct jit *b = from->jit;

    /* who watches the code sees all of it made */
    return a && b ? !a->dump && !b->dump && !a->symbols && !b->symbols : !a && !b;
}

int jit_inherit(struct engine *e, struct engine *from, struct error *err)
{
    int rc = from->jit ? codebuf_inherit(&from->jit->code, err) : 0;

    if (rc)
        return rc;
    jit_free(e);
    e->jit = from->jit;
    from->jit = NULL;
    return 0;
}

void jit_usage(struct engine *e, struct cache_usage *ret)
{
    ret->code_used = e->jit->code.used;
    ret->size += e->jit->code.size;
}

void jit_reset(struct engine *e)
{
    if (e->jit->symbols)
        symbols_reset(e->jit->symbols);
    host_restart(e->jit->host);
}

static void dump_guest(struct jit *j, struct cpu *c, const struct block *b)
{
    char text[96];

    fprintf(j->dump, "\n--- block host %p mode 0x%llx: %u instructions, page offset 0x%x\n",
            (const void *)b->host, (unsigned long long)b->mode, b->count, b->page_offset);
    for (unsigned i = 0; i < b->count; i++) {
        c->ops->disassemble(c, &b->insns[i], c->code_page + b->insns[i].page_offset, text,
                            sizeof(text));
        fprintf(j->dump, "%03x  %s\n", b->insns[i].page_offset, text);
    }
}

/* Let @f, which ends by an exit for @offset or may leave for it just before, go on to what is put
 * behind it. False: it does not go there. */
static bool flows_to(struct ir_func *f, int64_t offset)
{
    struct ir_insn *last = &f->insns[f->count - 1];

    if (f->overflow || f->count < 2 || last->op != IR_EXIT_DIRECT || last->aux == IR_HINT_CALL)
        return false;
    if (last->imm != offset) {
        int64_t other = last->imm;

        if (last[-1].op != IR_BRANCH || last[-1].imm != offset)
            return false;
        last[-1].aux = (uint8_t)ir_cc_not(last[-1].aux);
        last[-1].imm = other;
    }
    f->count--;
    return true;
}

/* Write the IR of @b, or of the whole region @r. */
static bool translate(struct engine *e, struct cpu *c, struct block *b, const struct region *r)
    REQUIRES(e->cache.lock)
{
    struct jit *j = e->jit;

    ir_reset(j->ir);
    j->ir->start_offset = b->page_offset;
    j->ir->mode = b->mode;
    j->ir->loops = e->config.kind != ENGINE_CHECK;
    if (!r)
        return c->ops->translate(c, b->insns, b->count, j->ir) && !j->ir->overflow;
    for (unsigned i = 0; i < r->count; i++) {
        if (r->labels[i] || !flows_to(j->ir, r->blocks[i]->page_offset))
            ir_label(j->ir, r->blocks[i]->page_offset);
        if (!c->ops->translate(c, r->blocks[i]->insns, r->insns[i], j->ir))
            return false;
    }
    return !j->ir->overflow;
}

/* 0 with *ret; -ENOTSUP: interpret this block; -ENOSPC: the buffer is full. */
static int compile(struct engine *e, struct cpu *c, struct block *b, const struct region *r,
                   void *owner, struct host_code *ret) REQUIRES(e->cache.lock)
{
    struct jit *j = e->jit;
    unsigned dump = j->dump ? e->config.dump : 0;
    struct error err = {0};

    for (unsigned i = 0; (dump & DUMP_GUEST) && i < (r ? r->count : 1); i++)
        dump_guest(j, c, r ? r->blocks[i] : b);
    if (!translate(e, c, b, r))
        return -ENOTSUP;
    if (dump & DUMP_IR)
        ir_print(j->ir, j->dump);
#ifdef POSADA_DCHECK
    if (ir_verify(j->ir, &err)) {
        fprintf(stderr, "%s\n", error_text(&err));
        ir_print(j->ir, stderr);
        abort();
    }
#else
    (void)err;
#endif
    ir_optimize(j->ir);
    if (dump & DUMP_OPT)
        ir_print(j->ir, j->dump);
    int rc = host_compile(j->host, j->ir, owner, ret);
    if (!rc && (dump & DUMP_HOST))
        host_dump_code(j->host, ret, j->dump);
    if (j->dump)
        fflush(j->dump);
    return rc == -E2BIG ? -ENOTSUP : rc;
}

/* Translate @b, or the region @r that it begins; 0 with *ret, or an error as above. */
static int make(struct engine *e, struct cpu *c, struct block *b, const struct region *r,
                struct jit_block **ret) REQUIRES(e->cache.lock)
{
    struct jit_block *jb = cache_take(&e->cache, sizeof(*jb));
    int rc;

    if (!jb)
        return -ENOSPC;
    *jb = (struct jit_block){.block = b};
    rc = compile(e, c, b, r, jb, &jb->code);
    cache_trim(
        &e->cache, jb,
        rc ? 0 : sizeof(*jb) - (HOST_MAX_EXITS - jb->code.exit_count) * sizeof(jb->code.exits[0]));
    if (rc)
        return rc;
    if (e->jit->symbols)
        symbols_add(e->jit->symbols, jb->code.entry, jb->code.size,
                    (c->pc & ~(uint64_t)(MEM_PAGE_SIZE - 1)) + b->page_offset,
                    r ? "region" : "block");
    *ret = jb;
    return 0;
}

/* The code that is @b's now. */
static const void *entry_of(const struct block *b)
{
    return b->region ? b->region->code.entry : b->jit->code.entry;
}

/* Where the jump cache shall lead for @b at first: by way of a counter, so that what is entered
 * often becomes a region. */
static const void *first_entry(struct engine *e, struct block *b) REQUIRES(e->cache.lock)
{
    const void *counted = NULL;

    if (e->config.kind == ENGINE_JIT)
        counted = host_count_entries(e->jit->host, &b->jit->code, b->page_offset, b->entries_left);
    return counted ? counted : entry_of(b);
}

enum jit_result jit_translate(struct engine_cpu *ec, struct block *b)
{
    struct engine *e = ec->engine;
    enum jit_result result = JIT_REFUSED;

    engine_tier(ec, TIER_TRANSLATOR);
    mutex_lock(&e->cache.lock);
    if (b->code) {
        result = JIT_DONE;
    } else if (!b->no_code && !b->dead) {
        b->entries_left = cache_take_counter(&e->cache);
        int rc = b->entries_left ? make(e, ec->c, b, NULL, &b->jit) : -ENOSPC;

        if (!rc) {
            __atomic_store_n(b->entries_left, ENTRY_HITS, __ATOMIC_RELAXED);
            __atomic_store_n(&b->code, first_entry(e, b),
                             __ATOMIC_RELEASE); /* pairs with the acquire loads */
            trace_block_translate(ec->c->index, ec->c->pc, b->jit->code.size);
            cpu_count(&ec->c->stats.blocks_translated);
            result = JIT_DONE;
        } else if (rc == -ENOSPC) {
            result = JIT_FULL;
        } else {
            b->no_code = true;
        }
    }
    mutex_unlock(&e->cache.lock);
    engine_tier(ec, TIER_ENGINE);
    if (result == JIT_FULL)
        cache_start_over(ec);
    return result;
}

const struct host_code *jit_code(const struct block *b)
{
    return b->jit ? &b->jit->code : NULL;
}

/* All exits that lead to @b lead to @entry. */
static void move_links(struct engine *e, struct block *b, const void *entry) REQUIRES(e->cache.lock)
{
    for (struct jit_link *l = b->jit->incoming; l; l = l->next)
        host_link(e->jit->host, &l->from->code, l->exit, entry);
}

/* Make @head's code that of the region that it begins, if it begins one. */
static void make_region(struct engine *e, struct cpu *c, struct block *head, bool circles)
    REQUIRES(e->cache.lock)
{
    struct region r;
    struct region *plan = NULL;

    head->no_region = true;
    if (head->region || !region_find(e, head, circles, &r))
        return;
    if (e->config.kind == ENGINE_CHECK) {
        plan = cache_take(&e->cache, sizeof(*plan));
        if (!plan)
            return;
        *plan = r;
    }
    if (make(e, c, head, &r, &head->region))
        return;
    head->plan = plan;
    move_links(e, head, head->region->code.entry);
    host_kill(e->jit->host, &head->jit->code);
    __atomic_store_n(&head->code, head->region->code.entry, __ATOMIC_RELEASE); /* as above */
    trace_region_translate(c->index, (const void *)head->host, r.count, head->region->code.size);
    cpu_count(&c->stats.regions_translated);
}

/* Is the exit, which goes back to @to, to stay unlinked for now? */
static bool wait_for_region(struct engine *e, struct cpu *c, struct block *to)
    REQUIRES(e->cache.lock)
{
    if (to->no_region || e->config.kind != ENGINE_JIT)
        return false;
    if (++to->back_hits < REGION_HITS)
        return true;
    make_region(e, c, to, true);
    return false;
}

void jit_check_region(struct engine_cpu *ec, struct block *b)
{
    struct engine *e = ec->engine;

    mutex_lock(&e->cache.lock);
    if (!b->dead && !b->no_region && ++b->back_hits >= REGION_HITS) {
        make_region(e, ec->c, b, true);
        make_region(e, ec->c, b, false);
    }
    mutex_unlock(&e->cache.lock);
}

void jit_entered_often(struct engine_cpu *ec, struct block *b)
{
    struct engine *e = ec->engine;

    mutex_lock(&e->cache.lock);
    if (!b->dead && !__atomic_load_n(b->entries_left, __ATOMIC_RELAXED)) {
        __atomic_store_n(b->entries_left, ENTRIES_COUNTED, __ATOMIC_RELAXED);
        __atomic_store_n(&b->code, entry_of(b), __ATOMIC_RELEASE); /* as above */
        make_region(e, ec->c, b, false);
    }
    mutex_unlock(&e->cache.lock);
}

/* Is the exit, in code that is shared with another process, to stay unlinked for now? What is taken
 * a few times would cost more by unsharing than it saves. */
static bool wait_for_chunk(struct jit *j, const struct jit_block *from, unsigned exit)
{
    const uint8_t *at = from->code.entry + from->code.exits[exit].patch;

    return codebuf_is_frozen(&j->code, at) &&
           ++j->hits[(uintptr_t)at / 4 % FROZEN_COUNTERS] % FROZEN_HITS;
}

static void link_exit(struct engine *e, struct cpu *c, struct jit_block *from, unsigned exit,
                      struct block *to)
{
    const struct host_exit *x = &from->code.exits[exit];
    const struct block *b = from->block;
    uintptr_t page = (uintptr_t)b->host & ~(uintptr_t)(MEM_PAGE_SIZE - 1);

    mutex_lock(&e->cache.lock);
    if (!b->dead && !to->dead && to->jit && !to->second && b->mode == to->mode &&
        (uintptr_t)to->host == page + (uintptr_t)x->delta &&
        !(to->page_offset <= b->page_offset && !x->call && wait_for_region(e, c, to)) &&
        !wait_for_chunk(e->jit, from, exit)) {
        struct jit_link *l = cache_take(&e->cache, sizeof(*l));

        if (l) {
            *l = (struct jit_link){.from = from, .exit = exit, .next = to->jit->incoming};
            to->jit->incoming = l;
            host_link(e->jit->host, &from->code, exit, x->call ? to->code : entry_of(to));
        }
    }
    mutex_unlock(&e->cache.lock);
}

void jit_unlink(struct engine *e, struct block *b)
{
    if (!b->jit)
        return;
    for (struct jit_link *l = b->jit->incoming; l; l = l->next)
        host_unlink(e->jit->host, &l->from->code, l->exit);
    b->jit->incoming = NULL;
    host_kill(e->jit->host, &b->jit->code);
    if (b->region)
        host_kill(e->jit->host, &b->region->code);
}

enum cpu_status jit_run(struct engine_cpu *ec, struct cpu *c, struct block *b, bool chain)
{
    struct host_leave leave;
    uint64_t *const exits[] = {[HOST_LEAVE_DIRECT] = &c->stats.exits_direct,
                               [HOST_LEAVE_INDIRECT] = &c->stats.exits_indirect,
                               [HOST_LEAVE_ATTENTION] = &c->stats.exits_attention,
                               [HOST_LEAVE_STATUS] = &c->stats.exits_status};

    if (chain && ec->link_from)
        link_exit(ec->engine, c, ec->link_from, ec->link_exit, b);
    ec->link_from = NULL;
    c->code_page = c->pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    engine_tier(ec, TIER_CODE);
    leave = host_enter(ec->engine->jit->host, c, b->code);
    engine_tier(ec, TIER_ENGINE);
    cpu_count(exits[leave.kind]);
    if (leave.kind == HOST_LEAVE_STATUS)
        return (enum cpu_status)c->status;
    if (leave.kind == HOST_LEAVE_DIRECT && chain) {
        ec->link_from = leave.owner;
        ec->link_exit = leave.index;
    }
    return CPU_OK;
}
