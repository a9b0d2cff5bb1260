/* engine=check: every block runs twice, by the interpreter for real and by translated code against
 * the log of the first run, and the two states are compared. What runs often becomes a region as in
 * engine=jit; its code leaves wherever it goes back, so that both runs end. */
#include "cpu/engine/engine_internal.h"
#include "cpu/host/host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int check_init(struct engine_cpu *ec)
{
    ec->replay = calloc(1, sizeof(*ec->replay));
    ec->shadow = aligned_alloc(64, (ec->c->ops->state_size + 63) & ~(size_t)63);
    if (!ec->replay || !ec->shadow)
        return -ENOMEM;
    memset(ec->shadow, 0, ec->c->ops->state_size);
    ec->c->slow_memory = true;
    return cpu_contexts_init(
        ec->shadow); /* stays empty: every access of translated code misses and comes to the log */
}

void check_done(struct engine_cpu *ec)
{
    if (ec->shadow)
        cpu_contexts_done(ec->shadow);
    free(ec->shadow);
    free(ec->replay);
}

static void report(struct engine_cpu *ec, const struct block *b, uint64_t pc, const char *what)
{
    struct vcpu_exit *exit = ec->c->exit;
    struct error *err = &exit->error;
    char text[160];
    size_t n;

    exit->reason = VCPU_EXIT_ERROR;
    (void)error_set(err, EILSEQ, "engine check: hart %u, block of %u instructions at 0x%llx: %s",
                    ec->c->index, b->count, (unsigned long long)pc, what);
    for (unsigned i = 0; i < b->count; i++) {
        ec->c->ops->disassemble(ec->c, &b->insns[i], pc - b->page_offset + b->insns[i].page_offset,
                                text, sizeof(text));
        n = strlen(err->text);
        (void)snprintf(err->text + n, sizeof(err->text) - n, "\n  %03x: %s",
                       b->insns[i].page_offset, text);
    }
}

/* The block of @plan that follows block @k in a region's code when control has come to @offset of
 * the page; -1: that has left the region. */
static int follow(const struct region *plan, unsigned k, uint64_t offset)
{
    const struct block *b = plan->blocks[k];
    const struct host_code *code = jit_code(b);
    bool direct = plan->insns[k] < b->count; /* goes on where another begins */

    for (unsigned i = 0; i < code->exit_count && !direct; i++)
        direct = code->exits[i].delta == (int64_t)offset;
    for (unsigned j = k + 1; j < plan->count && direct; j++) {
        if (plan->blocks[j]->page_offset == offset && (plan->labels[j] || j == k + 1))
            return (int)j;
    }
    return -1;
}

/* What translated code of @b is to do: a block; of a region as much as it does without going back.
 */
static enum cpu_status reference(struct cpu *c, const struct block *b, const struct region *plan)
{
    enum cpu_status status;
    int k = 0;

    c->code_page = c->pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    if (!plan)
        return c->ops->interp(c, b->insns, b->count);
    do {
        status = c->ops->interp(c, plan->blocks[k]->insns, plan->insns[k]);
        if (status != CPU_OK || __atomic_load_n(&b->dead, __ATOMIC_RELAXED))
            return status;
        k = follow(plan, (unsigned)k, c->pc - c->code_page);
    } while (k >= 0);
    return status;
}

enum cpu_status check_run(struct engine_cpu *ec, struct block *b)
{
    struct cpu *c = ec->c;
    struct cpu *s = ec->shadow;
    struct cpu_context *contexts = s->contexts;
    struct replay *log = ec->replay;
    uint64_t pc = c->pc;
    char what[320];

    enum jit_result rc = jit_translate(ec, b);
    if (rc == JIT_FULL)
        return CPU_RETRANSLATE;
    if (rc == JIT_REFUSED) {
        c->code_page = pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
        return c->ops->interp(c, b->insns, b->count);
    }
    jit_check_region(ec, b);
    const struct region *plan = __atomic_load_n(&b->plan, __ATOMIC_ACQUIRE);
    log->count = log->next = 0;
    log->mismatch[0] = '\0';
    memcpy(s, c, c->ops->state_size);
    s->contexts = s->context = contexts;
    s->attention = 0;
    s->exit = &ec->shadow_exit;

    c->replay = log;
    log->recording = true;
    enum cpu_status want = reference(c, b, plan);
    c->replay = NULL;
    if (__atomic_load_n(&b->dead, __ATOMIC_RELAXED))
        return want; /* it overwrote itself: its translation is no longer entered */

    s->replay = log;
    log->recording = false;
    enum cpu_status got = jit_run(ec, s, b, false);

    /* Another hart may have made a region of it meanwhile, whose plan is set before its code. */
    if (__atomic_load_n(&b->plan, __ATOMIC_ACQUIRE) != plan)
        return want;
    if (log->mismatch[0])
        (void)snprintf(what, sizeof(what), "translated code does a %s", log->mismatch);
    else if (got != want)
        (void)snprintf(what, sizeof(what),
                       "translated code ends with status %d, the reference with %d", got, want);
    else if (log->next != log->count)
        (void)snprintf(what, sizeof(what), "translated code makes %u accesses, the reference %u",
                       log->next, log->count);
    else if (!c->ops->diff(s, c, what, sizeof(what)))
        return want;
    report(ec, b, pc, what);
    return CPU_EXIT;
}
