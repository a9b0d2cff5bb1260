/* See bare.h. */
#include "tests/isa/bare.h"

#include "base/bits.h"
#include "cpu/core/context.h"

#include <stdlib.h>

void cpu_timer_changed(struct cpu *c)
{
    cpu_set_attention(c);
}

void cpu_sync_code(struct cpu *c)
{
}

struct bare *bare_new(uint64_t base, uint64_t ram_size)
{
    struct bare *b = aligned_alloc(64, align_up(sizeof(*b), 64));
    struct mem *mem = mem_new();
    struct error err = {0};
    void *host;

    if (!b || !mem)
        abort();
    memset(b, 0, sizeof(*b));
    if (mem_add_ram(mem, GPA(base), ram_size, 0, "ram", NULL, NULL, &host, &err))
        abort();
    mem_freeze(mem);
    b->ram = host;
    b->ram_size = ram_size;
    vclock_init(&b->clock, 0);
    b->h.cpu = (struct cpu){.ops = &rv_cpu_ops, .mem = mem, .clock = &b->clock, .exit = &b->exit};
    if (cpu_contexts_init(&b->h.cpu))
        abort();
    rv_hart_init(&b->h, false, base, 10000000);
    bare_reset(b);
    return b;
}

void bare_reset(struct bare *b)
{
    struct rv_hart *h = &b->h;

    rv_reset(&h->cpu);
    memset(h->x, 0, sizeof(h->x));
    memset(h->f, 0, sizeof(h->f));
    memset(b->ram, 0, b->ram_size);
    h->cpu.fp_flags = 0;
    h->cpu.instret = 0;
    h->cpu.attention = 0;
    h->cpu.pc = h->reset_pc;
    h->cpu.trap_ebreak = true;
    h->mstatus |= 3 << 13 | 3 << 9; /* FS, VS = Dirty */
    cpu_flush_all(&h->cpu);
    rv_update_mode(h);
}

void bare_free(struct bare *b)
{
    if (!b)
        return;
    cpu_contexts_done(&b->h.cpu);
    mem_free(b->h.cpu.mem);
    free(b);
}

/** Decode from pc up to the end of a block; within a page but for its last instruction. */
static enum cpu_status fetch_block(struct cpu *c, struct insn *insns, unsigned max,
                                   unsigned *ret_count)
{
    uint64_t pc = c->pc;
    unsigned n = 0;

    do {
        uint8_t bytes[4];
        uint16_t half;
        enum cpu_status rc = cpu_fetch16(c, pc, &half);

        if (rc == CPU_OK) {
            memcpy(bytes, &half, 2);
            if (!c->ops->decode(c, bytes, 2, &insns[n])) {
                rc = cpu_fetch16(c, pc + 2, &half);
                if (rc == CPU_OK) {
                    memcpy(bytes + 2, &half, 2);
                    (void)c->ops->decode(c, bytes, 4, &insns[n]);
                }
            }
        }
        if (rc != CPU_OK) {
            *ret_count = n;
            return n ? CPU_OK : rc;
        }
        insns[n].page_offset = (uint16_t)(pc & (MEM_PAGE_SIZE - 1));
        pc += insns[n].size;
        if (insns[n].flags & INSN_SYSTEM && n) /* a block of its own */
            break;
        n++;
    } while (n < max && !(insns[n - 1].flags & INSN_END) && (pc ^ c->pc) < MEM_PAGE_SIZE);
    *ret_count = n;
    return CPU_OK;
}

enum cpu_status bare_run(struct bare *b, uint64_t max_insns, bool stop_at_exceptions)
{
    struct cpu *c = &b->h.cpu;
    uint64_t end = c->instret + max_insns;
    unsigned idle = 0;

    while (c->instret < end) {
        struct insn insns[32];
        unsigned count;
        uint64_t before = c->instret;
        enum cpu_status rc;

        if (c->attention) {
            c->attention = 0;
            (void)c->ops->take_interrupt(c);
        }
        rc = fetch_block(c, insns, ARRAY_SIZE(insns), &count);
        if (rc == CPU_OK) {
            c->code_page = c->pc & ~(uint64_t)(MEM_PAGE_SIZE - 1);
            rc = c->ops->interp(c, insns, count);
        }
        if (rc == CPU_EXCEPTION && !stop_at_exceptions) {
            c->ops->take_exception(c);
            /* A handler that itself faults retires nothing for ever. */
            idle = c->instret == before ? idle + 1 : 0;
            if (idle > 1000)
                return CPU_EXCEPTION;
        } else if (rc != CPU_OK && rc != CPU_RETRANSLATE) {
            return rc;
        }
    }
    return CPU_OK;
}
