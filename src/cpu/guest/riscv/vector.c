/* The rules that vector operands must keep, and the common course of element-wise integer
 * instructions. See vector.h. Threads: the hart's own.
 * Spec: Unprivileged ISA 20240411, §31.3.4, §31.5, §31.10. */
#include "cpu/guest/riscv/vector.h"

bool rv_v_overlap_ok(unsigned d, int d_lmul, int d_width, unsigned s, int s_lmul, int s_width)
{
    if (d_width == s_width || !rv_v_overlap(d, d_lmul, s, s_lmul))
        return true;
    if (d_width < s_width)
        return d == s;
    return s_lmul >= 0 && s + (1u << s_lmul) == d + (1u << MAX(d_lmul, 0));
}

bool rv_v_operands_ok(const struct rv_hart *h, const struct insn *i, enum rv_v_shape shape,
                      enum rv_v_form form)
{
    int lmul = h->vec.lmul, sew = h->vec.sew;
    int wide = lmul + 1;
    bool wide_d = rv_v_is_wide(shape);
    bool wide_2 = shape == RV_V_WIDE_2 || shape == RV_V_NARROW;
    int d_lmul = wide_d ? wide : lmul, d_width = wide_d ? sew + 1 : sew;

    if (!rv_v_legal_vtype(h) || ((wide_d || wide_2) && (sew == 3 || lmul == 3)))
        return false;
    if (shape == RV_V_COMPARE) {
        d_lmul = 0;
        d_width = RV_V_MASK_WIDTH;
    } else if (rv_v_is_masked(i) && !i->rd) {
        return false;
    }
    if (!rv_v_aligned(i->rd, d_lmul) || !rv_v_aligned(i->rs2, wide_2 ? wide : lmul) ||
        !rv_v_overlap_ok(i->rd, d_lmul, d_width, i->rs2, wide_2 ? wide : lmul,
                         wide_2 ? sew + 1 : sew))
        return false;
    if (shape == RV_V_WIDE_ACC && (rv_v_overlap(i->rd, wide, i->rs2, lmul) ||
                                   (form == RV_V_VV && rv_v_overlap(i->rd, wide, i->rs1, lmul))))
        return false;
    if (shape != RV_V_COMPARE &&
        !(rv_v_apart_from_mask(i, i->rs2) && (form != RV_V_VV || rv_v_apart_from_mask(i, i->rs1))))
        return false;
    return form != RV_V_VV || (rv_v_aligned(i->rs1, lmul) &&
                               rv_v_sources_ok(i->rs1, lmul, sew, i->rs2, wide_2 ? wide : lmul,
                                               wide_2 ? sew + 1 : sew) &&
                               rv_v_overlap_ok(i->rd, d_lmul, d_width, i->rs1, lmul, sew));
}

void rv_v_splat(uint8_t *p, unsigned width, size_t n, uint64_t value)
{
    static const uint64_t ones[] = {0x0101010101010101, 0x0001000100010001, 0x0000000100000001, 1};
    uint64_t pattern = width == 3 ? value : (value & MASK(8u << width)) * ones[width];

    for (size_t at = 0; at < n << width; at += 8)
        memcpy(p + at, &pattern, 8);
}

void rv_v_merge(struct rv_hart *h, const struct insn *i, unsigned vd, unsigned width,
                const uint8_t *from)
{
    uint8_t *d = rv_v_reg(h, vd);
    size_t start = h->vec.vstart, vl = h->vec.vl;

    if (!rv_v_is_masked(i)) {
        memcpy(d + (start << width), from + (start << width), (vl - start) << width);
        return;
    }
    for (size_t n = start; n < vl; n++)
        if (rv_v_bit(rv_v_reg(h, 0), n))
            memcpy(d + (n << width), from + (n << width), (size_t)1 << width);
}

void rv_v_merge_mask(struct rv_hart *h, const struct insn *i, unsigned vd, const uint8_t *from)
{
    uint8_t *d = rv_v_reg(h, vd);
    uint8_t mask[RV_VLEN_MAX / 8];
    size_t n = h->vec.vstart;

    memcpy(mask, rv_v_reg(h, 0), h->vec.vlenb); /* vd may be v0 */
    if (!rv_v_is_masked(i) && !n)               /* eight bits at a time */
        for (; n + 8 <= h->vec.vl; n += 8)
            d[n >> 3] = (uint8_t)(rv_v_get(from, 3, n >> 3) * 0x0102040810204080 >> 56);
    for (; n < h->vec.vl; n++)
        if (!rv_v_is_masked(i) || rv_v_bit(mask, n))
            rv_v_put_bit(d, n, from[n]);
}

void rv_v_neutral(struct rv_hart *h, const struct insn *i, uint8_t *p, unsigned width,
                  uint64_t value)
{
    for (size_t n = 0; n < h->vec.vl; n++)
        if (n < h->vec.vstart || !rv_v_active(h, i, n))
            rv_v_put(p, width, n, value);
}

uint64_t rv_v_scalar(const struct rv_hart *h, const struct insn *i, enum rv_v_form form)
{
    uint64_t f;

    switch (form) {
    case RV_V_VX:
        return RV_X1;
    case RV_V_VI:
        return RV_IMM;
    case RV_V_VF:
        f = h->f[i->rs1];
        if (h->vec.sew == 2)
            return f >= 0xffffffff00000000 ? (uint32_t)f : FP32_NAN;
        if (h->vec.sew == 1)
            return f >= 0xffffffffffff0000 ? (uint16_t)f : FP16_NAN;
        return f;
    case RV_V_VV:
    case RV_V_V:
    case RV_V_CVT:
        break;
    }
    return 0;
}

bool rv_v_run(struct rv_hart *h, const struct insn *i, const rv_vk k, enum rv_v_shape shape,
              enum rv_v_form form)
{
    struct rv_vector *v = &h->vec;
    struct rv_vk_env env = {.vxrm = v->vxrm};
    unsigned sew = v->sew;
    bool wide_d = rv_v_is_wide(shape);
    bool wide_2 = shape == RV_V_WIDE_2 || shape == RV_V_NARROW;
    unsigned d_width = wide_d ? sew + 1 : sew;
    union rv_v_group a, b, d;
    const uint8_t *vs2, *vs1;
    bool partial = rv_v_is_masked(i) || v->vstart;

    if (!rv_v_operands_ok(h, i, shape, form) || !k[sew])
        return false;
    if (v->vstart >= v->vl) {
        rv_v_done(h);
        return true;
    }
    vs2 = rv_v_reg(h, i->rs2);
    vs1 = rv_v_reg(h, i->rs1);
    if (form != RV_V_VV) {
        rv_v_splat(b.b, sew, v->vl, rv_v_scalar(h, i, form));
        vs1 = b.b;
    }
    if (shape == RV_V_SAME && !partial) {
        k[sew](rv_v_reg(h, i->rd), vs2, vs1, v->vl, &env);
    } else {
        if (partial && shape != RV_V_COMPARE) { /* 0 op 0 does not saturate */
            memcpy(a.b, vs2, v->vl << (wide_2 ? sew + 1 : sew));
            rv_v_neutral(h, i, a.b, wide_2 ? sew + 1 : sew, 0);
            if (vs1 != b.b)
                memcpy(b.b, vs1, v->vl << sew);
            rv_v_neutral(h, i, b.b, sew, 0);
            vs2 = a.b;
            vs1 = b.b;
        }
        if (shape != RV_V_COMPARE)
            memcpy(d.b, rv_v_reg(h, i->rd), v->vl << d_width);
        k[sew](d.b, vs2, vs1, v->vl, &env);
        if (shape == RV_V_COMPARE)
            rv_v_merge_mask(h, i, i->rd, d.b);
        else
            rv_v_merge(h, i, i->rd, d_width, d.b);
    }
    v->vxsat |= env.vxsat;
    rv_v_done(h);
    return true;
}
