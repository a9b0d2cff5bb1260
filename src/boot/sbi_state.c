/* Built-in SBI: saved state of the harts' states and of the counters.
 *
 * Threads: the harts stand still. */
#include "boot/sbi_internal.h"
#include "state/state.h"

#include <errno.h>

#define COUNTERS (SBI_HW_COUNTERS + SBI_FW_COUNTERS)

/** What is saved of a hart. */
struct saved {
    uint32_t state;
    bool retentive;
    uint64_t start_addr, start_value;
    uint64_t events[SBI_EVENTS];
    bool configured[COUNTERS], started[COUNTERS];
    uint32_t event[COUNTERS];
    uint64_t value[COUNTERS];
};

static const struct state_field saved_fields[] = {
    STATE_FIELD(struct saved, state),      STATE_FIELD(struct saved, retentive),
    STATE_FIELD(struct saved, start_addr), STATE_FIELD(struct saved, start_value),
    STATE_ARRAY(struct saved, events),     STATE_ARRAY(struct saved, configured),
    STATE_ARRAY(struct saved, started),    STATE_ARRAY(struct saved, event),
    STATE_ARRAY(struct saved, value),      {0},
};

static struct sbi_counter *counter_at(struct sbi_hart *h, unsigned i)
{
    return i < SBI_HW_COUNTERS ? &h->hw[i] : &h->fw[i - SBI_HW_COUNTERS];
}

void sbi_save(struct sbi *s, struct state_out *out)
{
    mutex_lock(&s->lock);
    for (unsigned n = 0; n < s->config.count; n++) {
        struct sbi_hart *h = &s->harts[n];
        struct saved saved = {
            .state = (uint32_t)h->state,
            .retentive = h->retentive,
            .start_addr = h->start_addr,
            .start_value = h->start_value,
        };

        memcpy(saved.events, h->events, sizeof(saved.events));
        for (unsigned i = 0; i < COUNTERS; i++) {
            const struct sbi_counter *c = counter_at(h, i);

            saved.configured[i] = c->configured;
            saved.started[i] = c->started;
            saved.event[i] = c->event;
            saved.value[i] = c->value;
        }
        state_save(out, "sbi", n, 1, saved_fields, &saved);
    }
    mutex_unlock(&s->lock);
}

static int check(const struct sbi *s, const struct saved *saved, unsigned n, struct error *err)
{
    bool known = saved->state == SBI_HART_STARTED || saved->state == SBI_HART_STOPPED ||
                 saved->state == SBI_HART_START_PENDING || saved->state == SBI_HART_SUSPENDED;

    if (!known)
        return error_set(err, EINVAL, "saved state of sbi %u: hart state %u", n, saved->state);
    if (saved->state == SBI_HART_START_PENDING && !sbi_can_execute(s, saved->start_addr))
        return error_set(err, EINVAL, "saved state of sbi %u: a start outside of RAM", n);
    for (unsigned i = SBI_HW_COUNTERS; i < COUNTERS; i++) {
        if (saved->event[i] >= SBI_EVENTS)
            return error_set(err, EINVAL, "saved state of sbi %u: counter event %u", n,
                             saved->event[i]);
    }
    return 0;
}

static void apply(struct sbi_hart *h, const struct saved *saved)
{
    /* release: as where hart states change otherwise */
    __atomic_store_n(&h->state, (int)saved->state, __ATOMIC_RELEASE);
    h->retentive = saved->retentive;
    h->start_addr = saved->start_addr;
    h->start_value = saved->start_value;
    memcpy(h->events, saved->events, sizeof(h->events));
    for (unsigned i = 0; i < COUNTERS; i++)
        *counter_at(h, i) = (struct sbi_counter){
            .configured = saved->configured[i],
            .started = saved->started[i],
            .event = saved->event[i],
            .value = saved->value[i],
        };
}

int sbi_load(struct sbi *s, const struct state_in *in, struct error *err)
{
    int rc = 0;

    for (unsigned n = 0; n < s->config.count && !rc; n++) {
        struct saved saved;

        rc = state_load(in, "sbi", n, 1, saved_fields, &saved, err);
        if (!rc)
            rc = check(s, &saved, n, err);
        if (rc)
            break;
        mutex_lock(&s->lock);
        apply(&s->harts[n], &saved);
        mutex_unlock(&s->lock);
    }
    return rc;
}
