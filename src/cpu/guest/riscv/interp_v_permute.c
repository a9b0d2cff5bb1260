/* Interpreter handlers: vector permutations. See vector.h.
 * Spec: Unprivileged ISA 20240411, §31.16. */
#include "cpu/guest/riscv/vector.h"

static bool move_to_x(struct rv_hart *h, const struct insn *i)
{
    if (!rv_v_legal_vtype(h))
        return false;
    rv_set_x(h, i->rd, (uint64_t)rv_v_get_signed(rv_v_reg(h, i->rs2), h->vec.sew, 0));
    rv_v_done(h);
    return true;
}

static bool move_from_x(struct rv_hart *h, const struct insn *i)
{
    if (!rv_v_legal_vtype(h))
        return false;
    if (h->vec.vstart < h->vec.vl)
        rv_v_put(rv_v_reg(h, i->rd), h->vec.sew, 0, RV_X1);
    rv_v_done(h);
    return true;
}

RV_VECTOR(vmv_x_s, move_to_x(h, i))
RV_VECTOR(vmv_s_x, move_from_x(h, i))

/** vd and vs2 groups, vd not v0 under a mask, and (with @apart) the two without a register in
 * common. */
static bool groups_ok(const struct rv_hart *h, const struct insn *i, bool apart)
{
    int lmul = h->vec.lmul;

    return rv_v_legal_vtype(h) && rv_v_aligned(i->rd, lmul) && rv_v_aligned(i->rs2, lmul) &&
           rv_v_apart_from_mask(i, i->rd) && rv_v_apart_from_mask(i, i->rs2) &&
           !(apart && rv_v_overlap(i->rd, lmul, i->rs2, lmul));
}

static bool slide_up(struct rv_hart *h, const struct insn *i, uint64_t by)
{
    unsigned sew = h->vec.sew;
    uint8_t *d = rv_v_reg(h, i->rd);
    const uint8_t *s = rv_v_reg(h, i->rs2);

    if (!groups_ok(h, i, true))
        return false;
    for (size_t n = MAX(h->vec.vstart, by); n < h->vec.vl; n++)
        if (rv_v_active(h, i, n))
            rv_v_put(d, sew, n, rv_v_get(s, sew, n - by));
    rv_v_done(h);
    return true;
}

static bool slide_down(struct rv_hart *h, const struct insn *i, uint64_t by)
{
    unsigned sew = h->vec.sew;
    union rv_v_group d;
    const uint8_t *s = rv_v_reg(h, i->rs2);

    if (!groups_ok(h, i, false))
        return false;
    for (size_t n = h->vec.vstart; n < h->vec.vl; n++)
        rv_v_put(d.b, sew, n, by < h->vec.vlmax - n ? rv_v_get(s, sew, n + by) : 0);
    if (h->vec.vstart < h->vec.vl)
        rv_v_merge(h, i, i->rd, sew, d.b);
    rv_v_done(h);
    return true;
}

RV_VECTOR(vslideup_vx, slide_up(h, i, RV_X1))
RV_VECTOR(vslideup_vi, slide_up(h, i, RV_IMM))
RV_VECTOR(vslidedown_vx, slide_down(h, i, RV_X1))
RV_VECTOR(vslidedown_vi, slide_down(h, i, RV_IMM))

static bool slide_1_up(struct rv_hart *h, const struct insn *i, enum rv_v_form form)
{
    unsigned sew = h->vec.sew;
    uint8_t *d = rv_v_reg(h, i->rd);
    const uint8_t *s = rv_v_reg(h, i->rs2);

    if (!groups_ok(h, i, true) || (form == RV_V_VF && !sew))
        return false;
    for (size_t n = h->vec.vstart; n < h->vec.vl; n++)
        if (rv_v_active(h, i, n))
            rv_v_put(d, sew, n, n ? rv_v_get(s, sew, n - 1) : rv_v_scalar(h, i, form));
    rv_v_done(h);
    return true;
}

static bool slide_1_down(struct rv_hart *h, const struct insn *i, enum rv_v_form form)
{
    unsigned sew = h->vec.sew;
    union rv_v_group d;
    const uint8_t *s = rv_v_reg(h, i->rs2);

    if (!groups_ok(h, i, false) || (form == RV_V_VF && !sew))
        return false;
    for (size_t n = h->vec.vstart; n < h->vec.vl; n++)
        rv_v_put(d.b, sew, n,
                 n + 1 < h->vec.vl ? rv_v_get(s, sew, n + 1) : rv_v_scalar(h, i, form));
    if (h->vec.vstart < h->vec.vl)
        rv_v_merge(h, i, i->rd, sew, d.b);
    rv_v_done(h);
    return true;
}

RV_VECTOR(vslide1up_vx, slide_1_up(h, i, RV_V_VX))
RV_VECTOR(vfslide1up_vf, slide_1_up(h, i, RV_V_VF))
RV_VECTOR(vslide1down_vx, slide_1_down(h, i, RV_V_VX))
RV_VECTOR(vfslide1down_vf, slide_1_down(h, i, RV_V_VF))

/** Indices of 1 << @width bytes in vs1. */
static bool gather(struct rv_hart *h, const struct insn *i, unsigned width)
{
    unsigned sew = h->vec.sew;
    int lmul = h->vec.lmul + (int)width - (int)sew;
    uint8_t *d = rv_v_reg(h, i->rd);
    const uint8_t *s = rv_v_reg(h, i->rs2), *indices = rv_v_reg(h, i->rs1);

    if (!groups_ok(h, i, true) || lmul < -3 || lmul > 3 || !rv_v_aligned(i->rs1, lmul) ||
        !rv_v_apart_from_mask(i, i->rs1) ||
        !rv_v_sources_ok(i->rs1, lmul, (int)width, i->rs2, h->vec.lmul, (int)sew) ||
        rv_v_overlap(i->rd, h->vec.lmul, i->rs1, lmul))
        return false;
    for (size_t n = h->vec.vstart; n < h->vec.vl; n++) {
        uint64_t index = rv_v_get(indices, width, n);

        if (rv_v_active(h, i, n))
            rv_v_put(d, sew, n, index < h->vec.vlmax ? rv_v_get(s, sew, index) : 0);
    }
    rv_v_done(h);
    return true;
}

static bool gather_one(struct rv_hart *h, const struct insn *i, uint64_t index)
{
    unsigned sew = h->vec.sew;
    uint8_t *d = rv_v_reg(h, i->rd);
    uint64_t v;

    if (!groups_ok(h, i, true))
        return false;
    v = index < h->vec.vlmax ? rv_v_get(rv_v_reg(h, i->rs2), sew, index) : 0;
    for (size_t n = h->vec.vstart; n < h->vec.vl; n++)
        if (rv_v_active(h, i, n))
            rv_v_put(d, sew, n, v);
    rv_v_done(h);
    return true;
}

RV_VECTOR(vrgather_vv, gather(h, i, h->vec.sew))
RV_VECTOR(vrgatherei16_vv, gather(h, i, 1))
RV_VECTOR(vrgather_vx, gather_one(h, i, RV_X1))
RV_VECTOR(vrgather_vi, gather_one(h, i, RV_IMM))

static bool compress(struct rv_hart *h, const struct insn *i)
{
    unsigned sew = h->vec.sew;
    uint8_t *d = rv_v_reg(h, i->rd);
    const uint8_t *s = rv_v_reg(h, i->rs2), *mask = rv_v_reg(h, i->rs1);
    size_t to = 0;

    if (!groups_ok(h, i, true) || h->vec.vstart || rv_v_overlap(i->rd, h->vec.lmul, i->rs1, 0))
        return false;
    for (size_t n = 0; n < h->vec.vl; n++)
        if (rv_v_bit(mask, n))
            rv_v_put(d, sew, to++, rv_v_get(s, sew, n));
    rv_v_done(h);
    return true;
}

RV_VECTOR(vcompress_vm, compress(h, i))

/** Copy @registers; vstart counts elements of SEW. */
static bool move_whole(struct rv_hart *h, const struct insn *i, unsigned registers)
{
    size_t from = h->vec.vstart << h->vec.sew, bytes = (size_t)registers * h->vec.vlenb;

    if (!rv_v_legal_vtype(h) || (i->rd | i->rs2) & (registers - 1))
        return false;
    if (from < bytes)
        memmove(rv_v_reg(h, i->rd) + from, rv_v_reg(h, i->rs2) + from, bytes - from);
    rv_v_done(h);
    return true;
}

RV_VECTOR(vmv1r_v, move_whole(h, i, 1))
RV_VECTOR(vmv2r_v, move_whole(h, i, 2))
RV_VECTOR(vmv4r_v, move_whole(h, i, 4))
RV_VECTOR(vmv8r_v, move_whole(h, i, 8))
