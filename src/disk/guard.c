/* Which requests may still use a place of a file: epochs.
 *
 * A request belongs to the epoch in which it began; requests are counted for the current epoch and
 * the one before it. The epoch moves on only when none of the one before is left, so when it has
 * moved on twice since a place was given up, nobody who could have known the place is still there.
 *
 * Invariant: in_flight[e % 2] counts requests of epoch e, where e is the current epoch or the one
 * before; a request that is about to begin may be counted there for a moment, which only delays.
 *
 * Threads: any.
 */
#include "disk/format.h"

/* All sequentially consistent: a request's count must be visible before it looks anything up, and a
 * place's removal before its stamp is taken. */

unsigned disk_io_begin(struct disk *d)
{
    struct disk_guard *g = &d->guard;

    for (;;) {
        uint64_t epoch = __atomic_load_n(&g->epoch, __ATOMIC_SEQ_CST);
        unsigned slot = (unsigned)(epoch & 1);

        (void)__atomic_fetch_add(&g->in_flight[slot], 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&g->epoch, __ATOMIC_SEQ_CST) == epoch)
            return slot;
        (void)__atomic_fetch_sub(&g->in_flight[slot], 1, __ATOMIC_SEQ_CST);
    }
}

void disk_io_end(struct disk *d, unsigned ticket)
{
    (void)__atomic_fetch_sub(&d->guard.in_flight[ticket & 1], 1, __ATOMIC_SEQ_CST);
}

uint64_t disk_io_stamp(struct disk *d)
{
    return __atomic_load_n(&d->guard.epoch, __ATOMIC_SEQ_CST);
}

bool disk_io_is_past(struct disk *d, uint64_t stamp)
{
    struct disk_guard *g = &d->guard;
    uint64_t epoch = __atomic_load_n(&g->epoch, __ATOMIC_SEQ_CST);

    while (epoch < stamp + 2) {
        if (__atomic_load_n(&g->in_flight[(epoch + 1) & 1], __ATOMIC_SEQ_CST))
            return false;
        if (__atomic_compare_exchange_n(&g->epoch, &epoch, epoch + 1, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
            epoch++;
    }
    return true;
}
