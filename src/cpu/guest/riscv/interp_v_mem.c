/* Interpreter handlers: vector loads and stores. See vector.h.
 *
 * 1. An access that traps leaves vstart at its element; those before are done, so the instruction
 *    goes on where it was. Fields of one element may have been loaded: they are again.
 * 2. Elements that lie in RAM in one page, one after another, are moved at once when the TLB has
 *    the page; else each comes to cpu_load() or cpu_store(), which also honour devices, watchpoints
 *    and the check log.
 *
 * Spec: Unprivileged ISA 20240411, §31.7. */
#include "cpu/guest/riscv/vector.h"

/** A vector memory access. */
struct access {
    unsigned width; /* log2 of the bytes of an element */
    int lmul;       /* log2 of the registers of a field */
    size_t count;   /* elements */
    bool store;
};

static unsigned mmu_of(const struct rv_hart *h)
{
    return (unsigned)h->cpu.mode & RV_MODE_MMU_MASK;
}

static enum cpu_status move_element(struct rv_hart *h, uint64_t va, unsigned width, uint8_t *p,
                                    bool store)
{
    uint64_t v = 0;
    enum cpu_status status;

    if (store) {
        memcpy(&v, p, (size_t)1 << width);
        return cpu_store(&h->cpu, va, 1u << width, mmu_of(h), v);
    }
    status = cpu_load(&h->cpu, va, 1u << width, mmu_of(h), &v);
    if (status == CPU_OK)
        memcpy(p, &v, (size_t)1 << width);
    return status;
}

/** Elements [vstart, count) of one array at @va and at @p. On a trap vstart is its element. */
static enum cpu_status move_array(struct rv_hart *h, uint64_t va, uint8_t *p, unsigned width,
                                  size_t count, bool store)
{
    uint64_t *n = &h->vec.vstart;

    while (*n < count) {
        uint64_t at = va + (*n << width);
        size_t rest = (size_t)(MEM_PAGE_SIZE - (at & (MEM_PAGE_SIZE - 1))) >> width;
        size_t whole = MIN(rest, count - *n); /* elements within this page */
        const struct tlb_entry *e = tlb_at(&h->cpu, at, mmu_of(h));
        uint8_t *q = p + (*n << width);

        if (likely(tlb_tag(at) == e->tag[store ? CPU_WRITE : CPU_READ] && whole)) {
            void *host = (void *)(uintptr_t)(at + e->addend);

            if (store)
                memcpy(host, q, whole << width);
            else
                memcpy(q, host, whole << width);
            *n += whole;
        } else {
            enum cpu_status status = move_element(h, at, width, q, store);

            if (status != CPU_OK)
                return status;
            ++*n;
        }
    }
    return CPU_OK;
}

/** The fields of element @n, at @va one after another. */
static enum cpu_status move_fields(struct rv_hart *h, const struct insn *i, const struct access *a,
                                   uint64_t va, size_t n)
{
    unsigned registers = 1u << MAX(a->lmul, 0);

    for (unsigned field = 0; field <= (unsigned)i->imm; field++) {
        uint8_t *p = rv_v_reg(h, i->rd + field * registers) + (n << a->width);
        enum cpu_status status =
            move_element(h, va + ((uint64_t)field << a->width), a->width, p, a->store);

        if (status != CPU_OK)
            return status;
    }
    return CPU_OK;
}

/** The rules for the registers of @a: vd, the fields', the mask. */
static bool access_ok(const struct rv_hart *h, const struct insn *i, const struct access *a)
{
    unsigned registers = (unsigned)(i->imm + 1) << MAX(a->lmul, 0);

    return rv_v_legal_vtype(h) && a->lmul >= -3 && a->lmul <= 3 && rv_v_aligned(i->rd, a->lmul) &&
           registers <= 8 && i->rd + registers <= 32 &&
           (a->store || rv_v_apart_from_mask(i, i->rd));
}

static struct access access_of(const struct rv_hart *h, unsigned width, bool store)
{
    return (struct access){.width = width,
                           .lmul = h->vec.lmul + (int)width - h->vec.sew,
                           .count = h->vec.vl,
                           .store = store};
}

/** Leave with @status, with vstart where the access stopped. */
static enum cpu_status stop(RV_HANDLER_ARGS, enum cpu_status status)
{
    if (h->vec.vstart)
        rv_set_vs_dirty(h);
    return rv_leave_at(h, i, start, status);
}

/* The end of every handler. A macro: the jump to the next one must stand in the handler itself. */
#define FINISH(status)                              \
    do {                                            \
        enum cpu_status status_ = (status);         \
                                                    \
        if (unlikely(status_ != CPU_OK))            \
            return stop(h, i, start, end, status_); \
        RV_NEXT();                                  \
    } while (0)

/** Elements at @stride bytes from each other. */
static enum cpu_status strided(struct rv_hart *h, const struct insn *i, const struct access *a,
                               uint64_t stride)
{
    uint64_t va = RV_X1;

    for (uint64_t *n = &h->vec.vstart; *n < a->count; ++*n) {
        enum cpu_status status =
            rv_v_active(h, i, *n) ? move_fields(h, i, a, va + *n * stride, *n) : CPU_OK;

        if (status != CPU_OK)
            return status;
    }
    rv_v_done(h);
    return CPU_OK;
}

static enum cpu_status unit(struct rv_hart *h, const struct insn *i, const struct access *a)
{
    enum cpu_status status;

    if (i->imm || rv_v_is_masked(i))
        return strided(h, i, a, (uint64_t)(i->imm + 1) << a->width);
    status = move_array(h, RV_X1, rv_v_reg(h, i->rd), a->width, a->count, a->store);
    if (status == CPU_OK)
        rv_v_done(h);
    return status;
}

/** A fault behind the first element shortens vl instead. */
static enum cpu_status fault_first(struct rv_hart *h, const struct insn *i, const struct access *a)
{
    enum cpu_status status = unit(h, i, a);

    if (status == CPU_EXCEPTION && h->vec.vstart) {
        h->exception_pending = false;
        h->vec.vl = h->vec.vstart;
        rv_v_done(h);
        return CPU_OK;
    }
    return status;
}

#define ILLEGAL_UNLESS(condition) \
    if (unlikely(!(condition)))   \
    return rv_illegal_insn(h, i, start, end)

#define UNIT(name, width, store, how)                 \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)     \
    {                                                 \
        struct access a = access_of(h, width, store); \
                                                      \
        ILLEGAL_UNLESS(access_ok(h, i, &a));          \
        FINISH(how(h, i, &a));                        \
    }
#define STRIDED(name, width, store)                   \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)     \
    {                                                 \
        struct access a = access_of(h, width, store); \
                                                      \
        ILLEGAL_UNLESS(access_ok(h, i, &a));          \
        FINISH(strided(h, i, &a, RV_X2));             \
    }
#define BY_WIDTH(bits, width)                        \
    UNIT(vle##bits##_v, width, false, unit)          \
    UNIT(vse##bits##_v, width, true, unit)           \
    UNIT(vle##bits##ff_v, width, false, fault_first) \
    STRIDED(vlse##bits##_v, width, false)            \
    STRIDED(vsse##bits##_v, width, true)
BY_WIDTH(8, 0)
BY_WIDTH(16, 1)
BY_WIDTH(32, 2)
BY_WIDTH(64, 3)

/* --- Indexed: elements of SEW at offsets of 1 << width bytes --- */

static bool indexed_ok(const struct rv_hart *h, const struct insn *i, const struct access *a,
                       unsigned width)
{
    int lmul = h->vec.lmul + (int)width - h->vec.sew;
    int registers = (i->imm + 1) << MAX(a->lmul, 0);

    if (!access_ok(h, i, a) || lmul < -3 || lmul > 3 || !rv_v_aligned(i->rs2, lmul) ||
        !rv_v_apart_from_mask(i, i->rs2))
        return false;
    if (a->store)
        return rv_v_apart_from_mask(i, i->rd) &&
               rv_v_sources_ok(i->rd, a->lmul, (int)a->width, i->rs2, lmul, (int)width);
    if (i->imm) /* no overlap with any field */
        return i->rd + registers <= i->rs2 || i->rs2 + (1 << MAX(lmul, 0)) <= i->rd;
    return rv_v_overlap_ok(i->rd, a->lmul, (int)a->width, i->rs2, lmul, (int)width);
}

static enum cpu_status indexed(struct rv_hart *h, const struct insn *i, const struct access *a,
                               unsigned width)
{
    uint64_t va = RV_X1;

    for (uint64_t *n = &h->vec.vstart; *n < a->count; ++*n) {
        uint64_t offset = rv_v_get(rv_v_reg(h, i->rs2), width, *n);
        enum cpu_status status =
            rv_v_active(h, i, *n) ? move_fields(h, i, a, va + offset, *n) : CPU_OK;

        if (status != CPU_OK)
            return status;
    }
    rv_v_done(h);
    return CPU_OK;
}

#define INDEXED(name, index_width, store)                  \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)          \
    {                                                      \
        struct access a = access_of(h, h->vec.sew, store); \
                                                           \
        ILLEGAL_UNLESS(indexed_ok(h, i, &a, index_width)); \
        FINISH(indexed(h, i, &a, index_width));            \
    }
#define INDEXED_BY(bits, width)             \
    INDEXED(vluxei##bits##_v, width, false) \
    INDEXED(vloxei##bits##_v, width, false) \
    INDEXED(vsuxei##bits##_v, width, true)  \
    INDEXED(vsoxei##bits##_v, width, true)
INDEXED_BY(8, 0)
INDEXED_BY(16, 1)
INDEXED_BY(32, 2)
INDEXED_BY(64, 3)

/* --- Masks and whole registers: whatever vtype is --- */

static enum cpu_status whole(struct rv_hart *h, const struct insn *i, unsigned width, size_t count,
                             bool store)
{
    enum cpu_status status = move_array(h, RV_X1, rv_v_reg(h, i->rd), width, count, store);

    if (status == CPU_OK)
        rv_v_done(h);
    return status;
}

#define MASK_ACCESS(name, store)                                      \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)                     \
    {                                                                 \
        ILLEGAL_UNLESS(rv_v_legal_vtype(h));                          \
        FINISH(whole(h, i, 0, (size_t)(h->vec.vl + 7) / 8, (store))); \
    }
MASK_ACCESS(vlm_v, false)
MASK_ACCESS(vsm_v, true)

#define WHOLE(name, registers, width, store)                                                \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)                                           \
    {                                                                                       \
        ILLEGAL_UNLESS(!(i->rd & ((registers)-1)));                                         \
        FINISH(whole(h, i, width, ((size_t)(registers)*h->vec.vlenb) >> (width), (store))); \
    }
#define WHOLE_REGISTERS(n)            \
    WHOLE(vl##n##re8_v, n, 0, false)  \
    WHOLE(vl##n##re16_v, n, 1, false) \
    WHOLE(vl##n##re32_v, n, 2, false) \
    WHOLE(vl##n##re64_v, n, 3, false) \
    WHOLE(vs##n##r_v, n, 0, true)
WHOLE_REGISTERS(1)
WHOLE_REGISTERS(2)
WHOLE_REGISTERS(4)
WHOLE_REGISTERS(8)
