/* Which blocks make a region: those of one page among which control can come back to where it
 * started, the head.
 *
 * Only blocks that have been translated count, so what has hardly run stays out; and calls are no
 * way: a loop that calls comes back by way of another page, mostly. So everything in a region runs
 * about as often as its head, or more often.
 *
 * Threads: under cache.lock. */
#include "cpu/engine/engine_internal.h"
#include "cpu/host/host.h"

#define MAX_INSNS 250

static int index_of(const struct region *r, const struct block *b)
{
    for (unsigned i = 0; i < r->count; i++) {
        if (r->blocks[i] == b)
            return (int)i;
    }
    return -1;
}

/* The block that exit @i of @b leads to; NULL if it was not translated. */
static struct block *successor(struct engine *e, const struct block *b, unsigned i)
    REQUIRES(e->cache.lock)
{
    const struct host_exit *x = &jit_code(b)->exits[i];
    const uint8_t *page = b->host - b->page_offset;
    struct block *to = x->call ? NULL : cache_look_up(&e->cache, page + x->delta, b->mode);

    return to && jit_code(to) && !to->system ? to : NULL;
}

/* All blocks that the head leads to, nearest first. */
static void reach(struct engine *e, struct region *r) REQUIRES(e->cache.lock)
{
    unsigned insns = r->blocks[0]->count;

    for (unsigned k = 0; k < r->count; k++) {
        for (unsigned i = 0; i < jit_code(r->blocks[k])->exit_count; i++) {
            struct block *to = successor(e, r->blocks[k], i);

            if (!to || index_of(r, to) >= 0 || r->count == REGION_BLOCKS ||
                insns + to->count > MAX_INSNS)
                continue;
            insns += to->count;
            r->blocks[r->count++] = to;
        }
    }
}

/* Keep those that lead back to the head. False: none does. */
static bool keep_circles(struct engine *e, struct region *r) REQUIRES(e->cache.lock)
{
    uint32_t back = 0; /* bit i: block i does */
    uint32_t before;
    unsigned kept = 1;

    static_assert(REGION_BLOCKS <= 32, "bits");
    do {
        before = back;
        for (unsigned k = 0; k < r->count; k++) {
            for (unsigned i = 0; i < jit_code(r->blocks[k])->exit_count; i++) {
                const struct block *to = successor(e, r->blocks[k], i);
                int n = to ? index_of(r, to) : -1;

                if (n == 0 || (n > 0 && (back >> n & 1)))
                    back |= 1u << k;
            }
        }
    } while (back != before);
    for (unsigned k = 1; k < r->count; k++) {
        if (back >> k & 1)
            r->blocks[kept++] = r->blocks[k];
    }
    r->count = kept;
    return kept > 1;
}

/* Behind the head by address; and what two blocks share belongs to the one that begins there. */
static void arrange(struct region *r)
{
    for (unsigned k = 2; k < r->count; k++) {
        struct block *b = r->blocks[k];
        unsigned i = k;

        for (; i > 1 && r->blocks[i - 1]->page_offset > b->page_offset; i--)
            r->blocks[i] = r->blocks[i - 1];
        r->blocks[i] = b;
    }
    for (unsigned k = 0; k < r->count; k++) {
        const struct block *b = r->blocks[k];
        unsigned n = 1;

        for (; n < b->count; n++) {
            unsigned i = 0;

            while (i < r->count && r->blocks[i]->page_offset != b->insns[n].page_offset)
                i++;
            if (i < r->count)
                break;
        }
        r->insns[k] = (uint16_t)n;
    }
}

bool region_find(struct engine *e, struct block *head, struct region *ret)
{
    *ret = (struct region){.blocks = {head}, .count = 1};
    reach(e, ret);
    if (!keep_circles(e, ret))
        return false;
    arrange(ret);
    return true;
}
