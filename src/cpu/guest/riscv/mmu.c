/* Address translation: bare, Sv39, Sv48, Sv57, with Svnapot, Svpbmt and Svadu, then PMP.
 *
 * Invariants: 1. Page tables are guest memory, shared with other harts: each entry is read once and
 * the copy is used; accessed and dirty bits are set by compare-and-swap on that copy, and the walk
 * is repeated when it changed meanwhile; so some hart always gets on. 2. A walk reads at most
 * 5 entries. 3. With @debug nothing is written and nothing becomes pending. 4. What a translation
 * allows depends on satp, the mmu mode, menvcfg, PMP and memory only: MXR's pages are not kept.
 * Threads: the hart's own. Spec: Privileged 1.13 §12.3 to §12.8; Svadu; PMP on walks §3.7.2. */
#include "cpu/guest/riscv/csr_internal.h"

#define PTE_V          BIT(0)
#define PTE_R          BIT(1)
#define PTE_W          BIT(2)
#define PTE_X          BIT(3)
#define PTE_U          BIT(4)
#define PTE_G          BIT(5)
#define PTE_A          BIT(6)
#define PTE_D          BIT(7)
#define PTE_PPN(pte)   BITS(pte, 53, 10)
#define PTE_RESERVED   (MASK(7) << 54)
#define PTE_PBMT_SHIFT 61
#define PTE_PBMT       (3ULL << PTE_PBMT_SHIFT)
#define PTE_N          BIT(63)
#define NAPOT_64K_BITS 4 /* the only size: 16 pages, ppn[3:0] = 1000 */

#define VPN_BITS 9

enum walk_result { WALK_OK, WALK_PAGE_FAULT, WALK_ACCESS_FAULT, WALK_CHANGED };

struct walk {
    struct rv_hart *h;
    uint64_t va;
    enum cpu_access access;
    unsigned mmu;
    bool debug;
    bool by_mxr;       /* readable only because of MXR */
    bool global;       /* some entry on the way has G: so has all below it */
    uint64_t pte;      /* the leaf */
    uint64_t pte_addr; /* and where it is */
    unsigned level;
    uint64_t gpa;        /* where the address leads */
    unsigned page_bits;  /* log2 of the page's size */
    unsigned pmp_rights; /* what PMP allows there, bits 1 << enum cpu_access */
    uint64_t pmp_span;
    bool pmp_whole_page;
};

static unsigned priv_of(unsigned mmu)
{
    return mmu == RV_MMU_U ? RV_U : mmu == RV_MMU_M ? RV_M : RV_S;
}

static void raise_page_fault(struct rv_hart *h, uint64_t va, enum cpu_access access)
{
    static const enum rv_cause causes[] = {RV_CAUSE_LOAD_PAGE, RV_CAUSE_STORE_PAGE,
                                           RV_CAUSE_INSN_PAGE};

    rv_raise(h, causes[access], va);
}

static bool pte_is_table(uint64_t pte)
{
    return !(pte & (PTE_R | PTE_W | PTE_X));
}

/** Reserved encodings of any entry, and of one that points to a table. */
static bool pte_is_legal(const struct rv_hart *h, uint64_t pte)
{
    uint64_t pbmt = pte & PTE_PBMT;

    if (!(pte & PTE_V) || (pte & (PTE_R | PTE_W)) == PTE_W || pte & PTE_RESERVED)
        return false;
    if (pbmt && (!(h->menvcfg & MENVCFG_PBMTE) || pbmt == PTE_PBMT))
        return false;
    return !pte_is_table(pte) || !(pte & (PTE_A | PTE_D | PTE_U | PTE_PBMT | PTE_N));
}

/** Does the leaf's size agree with its page number? */
static bool leaf_is_aligned(uint64_t pte, unsigned level)
{
    if (pte & PTE_N)
        return level == 0 && BITS(PTE_PPN(pte), 3, 0) == 8;
    return !(PTE_PPN(pte) & MASK(VPN_BITS * level));
}

/** May the walk's mode touch the page in any way (U bit, SUM), for @access? */
static bool user_bit_allows(uint64_t pte, unsigned mmu, enum cpu_access access)
{
    if (mmu == RV_MMU_U)
        return pte & PTE_U;
    return !(pte & PTE_U) || (mmu == RV_MMU_S_SUM && access != CPU_FETCH);
}

static bool leaf_allows(struct walk *w)
{
    bool mxr = w->h->mstatus & MSTATUS_MXR;

    if (!user_bit_allows(w->pte, w->mmu, w->access))
        return false;
    switch (w->access) {
    case CPU_READ:
        w->by_mxr = mxr && !(w->pte & PTE_R);
        return w->pte & PTE_R || (mxr && w->pte & PTE_X);
    case CPU_WRITE:
        return w->pte & PTE_W;
    default:
        return w->pte & PTE_X;
    }
}

/** The entry at @addr may be accessed by the walk itself, which acts as S-mode. */
static bool pte_access_allowed(const struct walk *w, enum cpu_access access)
{
    bool whole;

    return rv_pmp_check(w->h, GPA(w->pte_addr), 8, access, RV_S, &whole);
}

/** Set the accessed and dirty bits that the access needs. */
static enum walk_result update_leaf(struct walk *w)
{
    uint64_t wanted = PTE_A | (w->access == CPU_WRITE ? PTE_D : 0);
    bool stored;

    if ((w->pte & wanted) == wanted || w->debug)
        return WALK_OK;
    if (!(w->h->menvcfg & MENVCFG_ADUE))
        return WALK_PAGE_FAULT;
    if (!pte_access_allowed(w, CPU_WRITE) ||
        cpu_walk_cas(&w->h->cpu, GPA(w->pte_addr), w->pte, w->pte | wanted, &stored) != BUS_OK)
        return WALK_ACCESS_FAULT;
    if (!stored)
        return WALK_CHANGED;
    w->pte |= wanted;
    return WALK_OK;
}

/** Does PMP allow the access to w->gpa? */
static bool target_allowed(struct walk *w)
{
    w->pmp_rights = rv_pmp_rights(w->h, w->gpa, priv_of(w->mmu), &w->pmp_span, &w->pmp_whole_page);
    return w->pmp_rights >> w->access & 1;
}

static enum walk_result check_leaf(struct walk *w)
{
    uint64_t ppn = PTE_PPN(w->pte);

    if (!leaf_is_aligned(w->pte, w->level) || !leaf_allows(w))
        return WALK_PAGE_FAULT;
    w->page_bits = MEM_PAGE_BITS + VPN_BITS * w->level;
    if (w->pte & PTE_N) {
        w->page_bits += NAPOT_64K_BITS;
        ppn &= ~MASK(NAPOT_64K_BITS);
    }
    w->gpa = ppn << MEM_PAGE_BITS | (w->va & MASK(w->page_bits));
    /* The dirty bit says that a store happened: so every check comes before it. */
    return target_allowed(w) ? update_leaf(w) : WALK_ACCESS_FAULT;
}

static unsigned satp_levels(uint64_t satp)
{
    switch (satp >> SATP_MODE_SHIFT) {
    case SATP_SV39:
        return 3;
    case SATP_SV48:
        return 4;
    default:
        return 5;
    }
}

/** One pass from the root to the leaf. */
static enum walk_result walk_once(struct walk *w)
{
    unsigned levels = satp_levels(w->h->satp);
    uint64_t ppn = w->h->satp & SATP_PPN_MASK;

    if ((uint64_t)sext(w->va, MEM_PAGE_BITS + VPN_BITS * levels) != w->va)
        return WALK_PAGE_FAULT;
    for (unsigned level = levels; level-- > 0;) {
        unsigned shift = MEM_PAGE_BITS + VPN_BITS * level;

        w->level = level;
        w->pte_addr = (ppn << MEM_PAGE_BITS) + (w->va >> shift & MASK(VPN_BITS)) * 8;
        if (!pte_access_allowed(w, CPU_READ) ||
            cpu_walk_load(&w->h->cpu, GPA(w->pte_addr), &w->pte) != BUS_OK)
            return WALK_ACCESS_FAULT;
        if (!pte_is_legal(w->h, w->pte))
            return WALK_PAGE_FAULT;
        w->global |= (w->pte & PTE_G) != 0;
        if (!pte_is_table(w->pte))
            return check_leaf(w);
        ppn = PTE_PPN(w->pte);
    }
    return WALK_PAGE_FAULT; /* a table where a page must be */
}

/** What the leaf lets the mode do, of which the TLB may remember. */
static unsigned leaf_rights(const struct walk *w)
{
    unsigned rights = 0;

    if (w->pte & PTE_R && user_bit_allows(w->pte, w->mmu, CPU_READ))
        rights |= 1u << CPU_READ;
    if (w->pte & PTE_W && w->pte & PTE_D && user_bit_allows(w->pte, w->mmu, CPU_WRITE))
        rights |= 1u << CPU_WRITE;
    if (w->pte & PTE_X && user_bit_allows(w->pte, w->mmu, CPU_FETCH))
        rights |= 1u << CPU_FETCH;
    return rights;
}

static enum walk_result translate(struct walk *w, unsigned *ret_rights)
{
    enum walk_result result;

    if (w->mmu == RV_MMU_M || w->h->satp >> SATP_MODE_SHIFT == SATP_BARE) {
        w->gpa = w->va;
        w->page_bits = MEM_PAGE_BITS;
        *ret_rights = 1u << CPU_READ | 1u << CPU_WRITE | 1u << CPU_FETCH;
        return target_allowed(w) ? WALK_OK : WALK_ACCESS_FAULT;
    }
    do {
        w->global = false;
        result = walk_once(w);
    } while (result == WALK_CHANGED);
    *ret_rights = leaf_rights(w);
    return result;
}

bool rv_translate_address(struct cpu *c, uint64_t va, enum cpu_access access, unsigned mmu,
                          bool debug, struct cpu_translation *ret)
{
    struct rv_hart *h = rv_hart_of(c);
    struct walk w = {.h = h, .va = va, .access = access, .mmu = mmu, .debug = debug};
    unsigned rights;

    if (!debug)
        h->events[RV_EVENT_LOAD_WALK + access]++;
    enum walk_result result = translate(&w, &rights);
    if (result != WALK_OK) {
        if (!debug && result == WALK_PAGE_FAULT)
            raise_page_fault(h, va, access);
        else if (!debug)
            rv_access_fault(c, va, access);
        return false;
    }
    ret->gpa = GPA(w.gpa);
    ret->page_bits = (uint8_t)w.page_bits;
    ret->global = w.global;
    ret->uncached = !w.pmp_whole_page || w.by_mxr;
    ret->span = (uint16_t)w.pmp_span;
    for (unsigned a = 0; a < ARRAY_SIZE(ret->prot); a++)
        ret->prot[a] = (rights & w.pmp_rights) >> a & 1;
    return true;
}
