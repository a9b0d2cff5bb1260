/* Physical memory protection: 16 entries of 4-byte granularity.
 *
 * pmpcfg and pmpaddr are decoded into byte ranges (hart.pmp) when they change. The lowest-numbered
 * entry that holds any byte of an access decides, and must hold all of it. As entries may be
 * smaller than a page, a check also tells whether its answer is that of the whole page: only then
 * may a translation be kept. Threads: the hart's own. Spec: Privileged 1.13 §3.7. */
#include "cpu/guest/riscv/csr_internal.h"

#define CFG_WRITABLE (PMP_R | PMP_W | PMP_X | PMP_A | PMP_L)
#define CFGS_PER_REG 8

static unsigned match_mode(uint8_t cfg)
{
    return (cfg & PMP_A) >> PMP_A_SHIFT;
}

static struct rv_pmp_range decode(const struct rv_hart *h, unsigned i)
{
    uint64_t addr = h->pmpaddr[i];
    struct rv_pmp_range r = {.first = 1, .last = 0, .cfg = h->pmpcfg[i]};

    switch (match_mode(h->pmpcfg[i])) {
    case PMP_TOR: {
        uint64_t below = i ? h->pmpaddr[i - 1] : 0;

        if (below < addr) {
            r.first = below << 2;
            r.last = (addr << 2) - 1;
        }
        break;
    }
    case PMP_NA4:
        r.first = addr << 2;
        r.last = r.first + 3;
        break;
    case PMP_NAPOT: {
        unsigned ones = (unsigned)__builtin_ctzll(~addr); /* at most 54: the size at most 2^57 */

        r.first = (addr & ~MASK(ones + 1)) << 2;
        r.last = r.first + MASK(ones + 3);
        break;
    }
    }
    return r;
}

void rv_pmp_update(struct rv_hart *h)
{
    h->pmp_active = false;
    for (unsigned i = 0; i < RV_PMP_ENTRIES; i++) {
        h->pmp[i] = decode(h, i);
        if (match_mode(h->pmpcfg[i]) != PMP_OFF)
            h->pmp_active = true;
    }
    cpu_flush_all(&h->cpu);
}

uint64_t rv_get_pmpcfg(const struct rv_hart *h, unsigned reg)
{
    return load_le64(&h->pmpcfg[reg * CFGS_PER_REG]);
}

void rv_set_pmpcfg(struct rv_hart *h, unsigned reg, uint64_t value)
{
    for (unsigned i = 0; i < CFGS_PER_REG; i++) {
        uint8_t *cfg = &h->pmpcfg[reg * CFGS_PER_REG + i];
        uint8_t v = (uint8_t)(value >> (8 * i)) & CFG_WRITABLE;

        if (*cfg & PMP_L)
            continue;
        if (!(v & PMP_R)) /* W without R is reserved */
            v &= (uint8_t)~PMP_W;
        *cfg = v;
    }
    rv_pmp_update(h);
}

void rv_set_pmpaddr(struct rv_hart *h, unsigned i, uint64_t value)
{
    bool next_locks = i + 1 < RV_PMP_ENTRIES && h->pmpcfg[i + 1] & PMP_L &&
                      match_mode(h->pmpcfg[i + 1]) == PMP_TOR;

    if (h->pmpcfg[i] & PMP_L || next_locks)
        return;
    h->pmpaddr[i] = value & PMPADDR_MASK;
    rv_pmp_update(h);
}

static unsigned entry_rights(uint8_t cfg, unsigned priv)
{
    if (priv == RV_M && !(cfg & PMP_L))
        return 1u << CPU_READ | 1u << CPU_WRITE | 1u << CPU_FETCH;
    return (cfg & PMP_R ? 1u << CPU_READ : 0) | (cfg & PMP_W ? 1u << CPU_WRITE : 0) |
           (cfg & PMP_X ? 1u << CPU_FETCH : 0);
}

unsigned rv_pmp_rights(const struct rv_hart *h, uint64_t gpa, unsigned priv, uint64_t *ret_span,
                       bool *ret_whole_page)
{
    uint64_t page = align_down(gpa, MEM_PAGE_SIZE);
    uint64_t page_last = page + MEM_PAGE_SIZE - 1;
    uint64_t last = page_last;
    const unsigned all = 1u << CPU_READ | 1u << CPU_WRITE | 1u << CPU_FETCH;

    *ret_whole_page = true;
    if (!h->pmp_active) {
        *ret_span = last - gpa + 1;
        return priv == RV_M || h->builtin_sbi ? all : 0;
    }
    for (unsigned i = 0; i < RV_PMP_ENTRIES; i++) {
        const struct rv_pmp_range *r = &h->pmp[i];

        if (r->first > r->last || r->first > page_last || r->last < page)
            continue;
        if (r->first > page || r->last < page_last)
            *ret_whole_page = false;
        if (r->first <= gpa && gpa <= r->last) {
            *ret_span = MIN(last, r->last) - gpa + 1;
            return entry_rights(r->cfg, priv);
        }
        if (r->first > gpa) /* a higher-priority entry begins further on */
            last = MIN(last, r->first - 1);
    }
    *ret_span = last - gpa + 1;
    return priv == RV_M ? all : 0;
}

bool rv_pmp_check(const struct rv_hart *h, gpa_t gpa, uint64_t size, enum cpu_access access,
                  unsigned priv, bool *ret_whole_page)
{
    uint64_t span;
    unsigned rights = rv_pmp_rights(h, gpa.v, priv, &span, ret_whole_page);

    return rights >> access & 1 && span >= size;
}
