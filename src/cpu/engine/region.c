/* Which blocks make a region: of a loop's head, those of its page among which control can come back
 * to it; of what is entered from elsewhere, all those of its page that it leads to.
 *
 * Only blocks that have been translated count, so what has hardly run stays out; and calls are no
 * way: a loop that calls comes back by way of another page, mostly. So everything in a loop's
 * region runs about as often as its head, or more often.
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

/* What two blocks share belongs to the one that begins there. */
static void cut(struct region *r)
{
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

/* Where control goes from block @k of the region, after cutting, without leaving: up to @MAX_WAYS,
 * what follows in memory last. Returns their number. */
#define MAX_WAYS 4
static unsigned ways(struct engine *e, const struct region *r, unsigned k, unsigned *ret)
    REQUIRES(e->cache.lock)
{
    const struct block *b = r->blocks[k];
    unsigned count = 0;
    int behind = -1;

    if (r->insns[k] < b->count) { /* the others' exits are not its own any more */
        for (unsigned i = 0; i < r->count; i++) {
            if (r->blocks[i]->page_offset == b->insns[r->insns[k]].page_offset)
                ret[count++] = i;
        }
        return count;
    }
    if (jit_code(b)->to_start)
        ret[count++] = k;
    for (unsigned i = 0; i < jit_code(b)->exit_count; i++) {
        const struct block *to = successor(e, b, i);
        int n = to ? index_of(r, to) : -1;

        if (n >= 0 && behind < 0 && to->page_offset == b->page_offset + b->bytes)
            behind = n; /* a second exit to there is a way of its own */
        else if (n >= 0 && count < MAX_WAYS - 1)
            ret[count++] = (unsigned)n;
    }
    if (behind >= 0)
        ret[count++] = (unsigned)behind;
    return count;
}

/* Put @k into @order, which is filled from its end, behind all that it leads to. */
static void place(struct engine *e, const struct region *r, unsigned k, uint32_t *placed,
                  uint8_t *order, unsigned *first) REQUIRES(e->cache.lock)
{
    unsigned to[MAX_WAYS];
    unsigned count = ways(e, r, k, to);

    *placed |= 1u << k;
    for (unsigned i = 0; i < count; i++) {
        if (!(*placed >> to[i] & 1))
            place(e, r, to[i], placed, order, first);
    }
    order[--*first] = (uint8_t)k;
}

/* So that control goes forward but where it circles, and on to the next block where it can: a depth
 * first search's order. A block that is reached from the one before it alone is part of that one.
 */
static void arrange(struct engine *e, struct region *r) REQUIRES(e->cache.lock)
{
    struct region from = *r;
    uint8_t order[REGION_BLOCKS];
    unsigned first = REGION_BLOCKS;
    uint32_t placed = 0;
    unsigned to[MAX_WAYS];
    unsigned entries[REGION_BLOCKS] = {1};

    place(e, &from, 0, &placed, order, &first);
    r->count = REGION_BLOCKS - first;
    for (unsigned k = 0; k < r->count; k++) {
        unsigned n = order[first + k];
        unsigned count = ways(e, &from, n, to);

        r->blocks[k] = from.blocks[n];
        r->insns[k] = from.insns[n];
        for (unsigned i = 0; i < count; i++)
            entries[to[i]]++;
    }
    for (unsigned k = 0; k < r->count; k++)
        r->labels[k] = entries[order[first + k]] > 1 || k == 0;
    for (unsigned k = 1; k < r->count; k++) {
        unsigned count = ways(e, &from, order[first + k - 1], to);
        bool follows = false;

        for (unsigned i = 0; i < count; i++)
            follows |= to[i] == order[first + k];
        r->labels[k] |= !follows;
    }
}

bool region_find(struct engine *e, struct block *head, bool circles, struct region *ret)
{
    *ret = (struct region){.blocks = {head}, .count = 1};
    reach(e, ret);
    if (ret->count == 1 || (circles && !keep_circles(e, ret)))
        return false;
    cut(ret);
    arrange(e, ret);
    return true;
}
