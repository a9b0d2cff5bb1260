/* Saved state of a hart: its registers by name, so that a state saved under one engine loads under
 * another.
 *
 * Control and status registers are set as a debugger would, by their own rules: a hostile state
 * makes a hart that software could have made. From high numbers down, because of what one register
 * locks in another: pmpaddr comes before pmpcfg, mstatus again at the end.
 *
 * Of mip the bits that software sets are saved, and SSIP, which stays until software clears it,
 * whoever raised it.
 *
 * Not saved: a reservation (SC may fail at any time), interrupt inputs (the devices drive them
 * anew), translations.
 *
 * Threads: the hart stands still. */
#include "state/state.h"
#include "cpu/guest/riscv/csr_bits.h"
#include "cpu/guest/riscv/regs_internal.h"

#include <errno.h>

#define FIRST_CSR      65 /* register number of CSR 0 */
#define CSR_READ_ONLY  0xc00
#define MAX_NAMED_CSRS 300

static const struct state_field hart_fields[] = {
    STATE_ARRAY(struct rv_hart, x),
    STATE_ARRAY(struct rv_hart, f),
    STATE_FIELD(struct rv_hart, priv),
    {0},
};

static const struct state_field vector_fields[] = {
    STATE_FIELD(struct rv_vector, vlenb),
    STATE_FIELD(struct rv_vector, vl),
    STATE_FIELD(struct rv_vector, vtype),
    STATE_ARRAY(struct rv_vector, v),
    {0},
};

/** A control and status register that can be set, and is more than a view of others? */
static bool is_saved(const struct vcpu_reg *r)
{
    return r->id >= FIRST_CSR && r->id - FIRST_CSR < CSR_READ_ONLY &&
           r->id != FIRST_CSR + CSR_MIP && r->id != FIRST_CSR + CSR_SIP;
}

void rv_save(struct cpu *c, struct state_out *out)
{
    struct rv_hart *h = rv_hart_of(c);
    size_t count;
    const struct vcpu_reg *regs = rv_registers(c, &count);

    state_begin(out, "riscv-hart", c->index, 1);
    state_put(out, hart_fields, h);
    state_put_u64(out, "pc", c->pc);
    state_put_u64(out, "mip", h->mip | (__atomic_load_n(&c->irqs, __ATOMIC_ACQUIRE) & MIP_SSIP));
    for (size_t i = 0; i < count; i++) {
        uint64_t value;

        if (is_saved(&regs[i]) && !rv_get_reg(c, regs[i].id, &value))
            state_put_u64(out, regs[i].name, value);
    }
    state_end(out);
    if (h->profile == RV_PROFILE_RVA22)
        return;
    state_begin(out, "riscv-vector", c->index, 1);
    state_put(out, vector_fields, &h->vec);
    state_end(out);
}

/** What the section of vectors has, if there is one: before the CSRs, of which mstatus.VS is one.
 */
static int load_vector(struct rv_hart *h, const struct state_in *in, struct error *err)
{
    const struct state_section *s;
    struct rv_vector loaded;
    int rc;

    if (!state_has(in, "riscv-vector", h->cpu.index))
        return 0;
    rc = state_find(in, "riscv-vector", h->cpu.index, 1, &s, err);
    if (!rc)
        rc = state_get(s, vector_fields, &loaded, err);
    if (!rc)
        rc = state_check_all_read(s, err);
    if (!rc && (h->profile == RV_PROFILE_RVA22 || loaded.vlenb != h->vec.vlenb))
        rc = state_bad(s, err, "vector registers of %u bits, the processor has %u",
                       8u * loaded.vlenb, h->profile == RV_PROFILE_RVA22 ? 0 : 8u * h->vec.vlenb);
    if (rc)
        return rc;
    rv_set_vtype(h, loaded.vtype, loaded.vl);
    memcpy(h->vec.v, loaded.v, sizeof(h->vec.v));
    return 0;
}

static int load_registers(struct rv_hart *h, const struct state_section *s, struct error *err)
{
    struct rv_hart loaded;
    uint64_t pc;
    int rc = state_get(s, hart_fields, &loaded, err);

    if (!rc)
        rc = state_get_u64(s, "pc", &pc, err);
    if (!rc && loaded.priv != RV_U && loaded.priv != RV_S &&
        (loaded.priv != RV_M || h->builtin_sbi))
        rc = state_bad(s, err, "privilege mode %u", loaded.priv);
    if (rc)
        return rc;
    memcpy(h->x, loaded.x, sizeof(h->x));
    memcpy(h->f, loaded.f, sizeof(h->f));
    h->x[0] = 0;
    h->priv = loaded.priv;
    h->cpu.pc = pc & ~1ULL;
    return 0;
}

static int load_csrs(struct rv_hart *h, const struct state_section *s, struct error *err)
{
    uint64_t mstatus = 0;
    uint64_t mip = 0;
    size_t count;
    const struct vcpu_reg *regs = rv_registers(&h->cpu, &count);
    int rc = state_get_u64(s, "mstatus", &mstatus, err);

    if (!rc)
        rc = state_get_u64(s, "mip", &mip, err);

    for (size_t i = count; i-- > 0 && !rc;) {
        uint64_t value;

        if (!is_saved(&regs[i]) || !state_has_field(s, regs[i].name))
            continue; /* a register newer than the state keeps its reset value */
        rc = state_get_u64(s, regs[i].name, &value, err);
        if (!rc)
            (void)rv_csr_poke(h, regs[i].id - FIRST_CSR, value); /* it is in the list: it exists */
    }
    (void)rv_csr_poke(h, CSR_MSTATUS, mstatus);
    (void)rv_csr_poke(h, CSR_MIP, mip);
    return rc;
}

int rv_load(struct cpu *c, const struct state_in *in, struct error *err)
{
    struct rv_hart *h = rv_hart_of(c);
    const struct state_section *s;
    int rc = state_find(in, "riscv-hart", c->index, 1, &s, err);

    if (rc)
        return rc;
    c->ops->reset(c);
    rc = load_registers(h, s, err);
    if (!rc)
        rc = load_vector(h, in, err);
    if (!rc)
        rc = load_csrs(h, s, err);
    if (!rc)
        rc = state_check_all_read(s, err);
    h->exception_pending = false;
    h->reservation = RV_NO_RESERVATION;
    rv_update_mode(h);
    cpu_flush_all(c);
    cpu_timer_changed(c);
    cpu_set_attention(c);
    return rc;
}
