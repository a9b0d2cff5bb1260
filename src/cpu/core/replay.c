/* Record and repeat of data accesses. One CPU's thread. */
#include "cpu/core/replay.h"

#include <stdio.h>

static const char *const kind_names[] = {"load",  "store", "atomic", "cas",
                                         "probe", "zero",  "value"};

void replay_record(struct replay *r, const struct replay_entry *e)
{
    if (r->count < REPLAY_MAX)
        r->entries[r->count++] = *e;
}

static void describe(const struct replay_entry *e, char *buf, size_t size)
{
    (void)snprintf(buf, size, "%s of %u bytes at 0x%llx in mode %u (0x%llx, 0x%llx)",
                   kind_names[e->kind], e->size, (unsigned long long)e->va, e->mmu,
                   (unsigned long long)e->in[0], (unsigned long long)e->in[1]);
}

void replay_repeat(struct replay *r, struct replay_entry *e)
{
    const struct replay_entry *ref = r->next < r->count ? &r->entries[r->next] : NULL;
    char got[120];
    char want[120] = "no further access";

    if (ref && ref->kind == e->kind && ref->size == e->size && ref->mmu == e->mmu &&
        ref->va == e->va && ref->in[0] == e->in[0] && ref->in[1] == e->in[1]) {
        r->next++;
        e->out = ref->out;
        e->status = ref->status;
        return;
    }
    if (!r->mismatch[0]) {
        describe(e, got, sizeof(got));
        if (ref)
            describe(ref, want, sizeof(want));
        (void)snprintf(r->mismatch, sizeof(r->mismatch), "%s, where the reference has %s", got,
                       want);
    }
    e->status = CPU_EXIT;
    e->out = 0;
}
