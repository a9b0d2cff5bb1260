/* Interpreter handlers: vector instructions on masks. See vector.h.
 * Spec: Unprivileged ISA 20240411, §31.15. */
#include "cpu/guest/riscv/vector.h"

/** Bits [vstart, vl) of vd = @expr of those of vs2 (A) and vs1 (B); whole bytes where they can be.
 */
#define LOGICAL(name, expr)                                               \
    static bool name##_mm(struct rv_hart *h, const struct insn *i)        \
    {                                                                     \
        uint8_t *d = rv_v_reg(h, i->rd);                                  \
        const uint8_t *a = rv_v_reg(h, i->rs2), *b = rv_v_reg(h, i->rs1); \
                                                                          \
        if (!rv_v_legal_vtype(h))                                         \
            return false;                                                 \
        for (size_t n = h->vec.vstart; n < h->vec.vl;) {                  \
            const unsigned A = a[n >> 3], B = b[n >> 3], r = (expr);      \
                                                                          \
            if (!(n & 7) && n + 8 <= h->vec.vl) {                         \
                d[n >> 3] = (uint8_t)r;                                   \
                n += 8;                                                   \
            } else {                                                      \
                unsigned bit = 1u << (n & 7);                             \
                                                                          \
                d[n >> 3] = (uint8_t)((d[n >> 3] & ~bit) | (r & bit));    \
                n++;                                                      \
            }                                                             \
        }                                                                 \
        rv_v_done(h);                                                     \
        return true;                                                      \
    }                                                                     \
    RV_VECTOR(name##_mm, name##_mm(h, i))
LOGICAL(vmand, A &B)
LOGICAL(vmnand, ~(A &B))
LOGICAL(vmandn, A & ~B)
LOGICAL(vmxor, A ^ B)
LOGICAL(vmor, A | B)
LOGICAL(vmnor, ~(A | B))
LOGICAL(vmorn, A | ~B)
LOGICAL(vmxnor, ~(A ^ B))

/** vcpop and vfirst: how many active bits are set, or which is first. */
static bool count(struct rv_hart *h, const struct insn *i, bool first)
{
    const uint8_t *s = rv_v_reg(h, i->rs2);
    uint64_t found = 0;
    size_t n;

    if (!rv_v_legal_vtype(h) || h->vec.vstart)
        return false;
    for (n = 0; n < h->vec.vl; n++) {
        if (!rv_v_bit(s, n) || !rv_v_active(h, i, n))
            continue;
        found++;
        if (first)
            break;
    }
    rv_set_x(h, i->rd, !first ? found : found ? n : UINT64_MAX);
    rv_v_done(h);
    return true;
}

RV_VECTOR(vcpop_m, count(h, i, false))
RV_VECTOR(vfirst_m, count(h, i, true))

/** Set what lies before the first set bit, at it, or both. */
static bool set_first(struct rv_hart *h, const struct insn *i, bool before, bool at)
{
    uint8_t *d = rv_v_reg(h, i->rd);
    const uint8_t *s = rv_v_reg(h, i->rs2);
    bool seen = false;

    if (!rv_v_legal_vtype(h) || h->vec.vstart || i->rd == i->rs2 || (rv_v_is_masked(i) && !i->rd))
        return false;
    for (size_t n = 0; n < h->vec.vl; n++) {
        bool bit = rv_v_bit(s, n);

        if (!rv_v_active(h, i, n))
            continue;
        rv_v_put_bit(d, n, !seen && (bit ? at : before));
        seen |= bit;
    }
    rv_v_done(h);
    return true;
}

RV_VECTOR(vmsbf_m, set_first(h, i, true, false))
RV_VECTOR(vmsif_m, set_first(h, i, true, true))
RV_VECTOR(vmsof_m, set_first(h, i, false, true))

static bool iota(struct rv_hart *h, const struct insn *i)
{
    uint8_t *d = rv_v_reg(h, i->rd);
    const uint8_t *s = rv_v_reg(h, i->rs2);
    uint64_t sum = 0;

    if (!rv_v_legal_vtype(h) || h->vec.vstart || !rv_v_aligned(i->rd, h->vec.lmul) ||
        rv_v_overlap(i->rd, h->vec.lmul, i->rs2, 0) || (rv_v_is_masked(i) && !i->rd))
        return false;
    for (size_t n = 0; n < h->vec.vl; n++) {
        if (!rv_v_active(h, i, n))
            continue;
        rv_v_put(d, h->vec.sew, n, sum);
        sum += rv_v_bit(s, n);
    }
    rv_v_done(h);
    return true;
}

RV_VECTOR(viota_m, iota(h, i))

static bool identity(struct rv_hart *h, const struct insn *i)
{
    uint8_t *d = rv_v_reg(h, i->rd);

    if (!rv_v_legal_vtype(h) || !rv_v_aligned(i->rd, h->vec.lmul) || (rv_v_is_masked(i) && !i->rd))
        return false;
    for (size_t n = h->vec.vstart; n < h->vec.vl; n++)
        if (rv_v_active(h, i, n))
            rv_v_put(d, h->vec.sew, n, n);
    rv_v_done(h);
    return true;
}

RV_VECTOR(vid_v, identity(h, i))
