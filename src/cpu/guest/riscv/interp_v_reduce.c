/* Interpreter handlers: vector reductions. See vector.h. The unordered sums are done in order, too.
 * Spec: Unprivileged ISA 20240411, §31.14. */
#include "cpu/guest/riscv/vector_fp.h"

/** vs2 is a group of SEW elements; vd and vs1 are single elements of 1 << @width bytes. */
static bool reduction_ok(const struct rv_hart *h, const struct insn *i, unsigned width)
{
    return rv_v_legal_vtype(h) && width <= 3 && !h->vec.vstart && rv_v_aligned(i->rs2, h->vec.lmul);
}

/** vd[0] = fold of vs1[0] (ACC) and every active element of vs2 (E). No elements: no change. */
#define REDUCE(name, extra_width, is_signed, expr)                                                \
    static bool name##_vs(struct rv_hart *h, const struct insn *i)                                \
    {                                                                                             \
        unsigned sew = h->vec.sew, width = sew + (extra_width);                                   \
        const uint8_t *s = rv_v_reg(h, i->rs2);                                                   \
                                                                                                  \
        if (!reduction_ok(h, i, width))                                                           \
            return false;                                                                         \
        if (h->vec.vl) {                                                                          \
            uint64_t ACC = (is_signed) ? (uint64_t)rv_v_get_signed(rv_v_reg(h, i->rs1), width, 0) \
                                       : rv_v_get(rv_v_reg(h, i->rs1), width, 0);                 \
                                                                                                  \
            for (size_t n = 0; n < h->vec.vl; n++) {                                              \
                uint64_t E =                                                                      \
                    (is_signed) ? (uint64_t)rv_v_get_signed(s, sew, n) : rv_v_get(s, sew, n);     \
                                                                                                  \
                if (rv_v_active(h, i, n))                                                         \
                    ACC = (expr);                                                                 \
            }                                                                                     \
            rv_v_put(rv_v_reg(h, i->rd), width, 0, ACC);                                          \
        }                                                                                         \
        rv_v_done(h);                                                                             \
        return true;                                                                              \
    }                                                                                             \
    RV_VECTOR(name##_vs, name##_vs(h, i))
REDUCE(vredsum, 0, false, ACC + E)
REDUCE(vredand, 0, false, ACC &E)
REDUCE(vredor, 0, false, ACC | E)
REDUCE(vredxor, 0, false, ACC ^ E)
REDUCE(vredminu, 0, false, MIN(ACC, E))
REDUCE(vredmaxu, 0, false, MAX(ACC, E))
REDUCE(vredmin, 0, true, (uint64_t)MIN((int64_t)ACC, (int64_t)E))
REDUCE(vredmax, 0, true, (uint64_t)MAX((int64_t)ACC, (int64_t)E))
REDUCE(vwredsumu, 1, false, ACC + E)
REDUCE(vwredsum, 1, true, ACC + E)

/* --- Floating point --- */

/** One step, by SEW: @acc op @element. */
typedef uint64_t fp_step(uint64_t acc, uint64_t element, struct fp_env *e);

#define STEP(name, expr)                                                   \
    static uint64_t name(uint64_t acc, uint64_t element, struct fp_env *e) \
    {                                                                      \
        return (expr);                                                     \
    }
STEP(sum16, fp16_add((uint16_t)acc, (uint16_t)element, e))
STEP(sum32, fp32_add((uint32_t)acc, (uint32_t)element, e))
STEP(sum64, fp64_add(acc, element, e))
STEP(min16, fp16_min((uint16_t)acc, (uint16_t)element, e))
STEP(min32, fp32_min((uint32_t)acc, (uint32_t)element, e))
STEP(min64, fp64_min(acc, element, e))
STEP(max16, fp16_max((uint16_t)acc, (uint16_t)element, e))
STEP(max32, fp32_max((uint32_t)acc, (uint32_t)element, e))
STEP(max64, fp64_max(acc, element, e))
STEP(wsum16, fp32_add((uint32_t)acc, fp16_to_fp32((uint16_t)element, e), e))
STEP(wsum32, fp64_add(acc, fp32_to_fp64((uint32_t)element, e), e))

static bool reduce_fp(struct rv_hart *h, const struct insn *i, unsigned extra_width,
                      fp_step *const steps[4])
{
    unsigned sew = h->vec.sew, width = sew + extra_width;
    struct fp_env e = {.rm = h->frm};
    const uint8_t *s = rv_v_reg(h, i->rs2);

    if (!reduction_ok(h, i, width) || !steps[sew])
        return false;
    if (h->vec.vl) {
        uint64_t acc = rv_v_get(rv_v_reg(h, i->rs1), width, 0);

        for (size_t n = 0; n < h->vec.vl; n++)
            if (rv_v_active(h, i, n))
                acc = steps[sew](acc, rv_v_get(s, sew, n), &e);
        rv_v_put(rv_v_reg(h, i->rd), width, 0, acc);
        rv_v_raise(h, e.flags);
    }
    rv_v_done(h);
    return true;
}

static fp_step *const sum[] = {NULL, sum16, sum32, sum64};
static fp_step *const min[] = {NULL, min16, min32, min64};
static fp_step *const max[] = {NULL, max16, max32, max64};
static fp_step *const wsum[] = {NULL, wsum16, wsum32, NULL};

RV_VECTOR(vfredusum_vs, reduce_fp(h, i, 0, sum))
RV_VECTOR(vfredosum_vs, reduce_fp(h, i, 0, sum))
RV_VECTOR(vfredmin_vs, reduce_fp(h, i, 0, min))
RV_VECTOR(vfredmax_vs, reduce_fp(h, i, 0, max))
RV_VECTOR(vfwredusum_vs, reduce_fp(h, i, 1, wsum))
RV_VECTOR(vfwredosum_vs, reduce_fp(h, i, 1, wsum))
