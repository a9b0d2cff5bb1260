/* Interpreter handlers: configuration, integer and fixed-point vector instructions. See vector.h.
 * Spec: Unprivileged ISA 20240411, §31.6, §31.11, §31.12. */
#include "cpu/guest/riscv/vector.h"

/* --- Configuration --- */

/** AVL by register: x0 asks for VLMAX, or, without a destination, for what vl is. */
static uint64_t avl_of(const struct rv_hart *h, const struct insn *i)
{
    if (i->rs1)
        return RV_X1;
    return i->rd ? UINT64_MAX : h->vec.vl;
}

RV_HANDLER(vsetvli, rv_set_vtype(h, (uint32_t)i->imm, avl_of(h, i)); rv_set_x(h, i->rd, h->vec.vl))
RV_HANDLER(vsetvl, rv_set_vtype(h, RV_X2, avl_of(h, i)); rv_set_x(h, i->rd, h->vec.vl))
RV_HANDLER(vsetivli, rv_set_vtype(h, (uint32_t)i->imm, i->rs1); rv_set_x(h, i->rd, h->vec.vl))

/* --- Element by element --- */

RV_V_VXI(vadd, add, SAME)
RV_V_VX(vsub, sub, SAME)
RV_V_XI(vrsub, rsub, SAME)
RV_V_VXI(vand, and, SAME)
RV_V_VXI(vor, or, SAME)
RV_V_VXI(vxor, xor, SAME)
RV_V_VX(vminu, minu, SAME)
RV_V_VX(vmin, min, SAME)
RV_V_VX(vmaxu, maxu, SAME)
RV_V_VX(vmax, max, SAME)
RV_V_VX(vmul, mul, SAME)
RV_V_VX(vmulh, mulh, SAME)
RV_V_VX(vmulhu, mulhu, SAME)
RV_V_VX(vmulhsu, mulhsu, SAME)
RV_V_VX(vdivu, divu, SAME)
RV_V_VX(vdiv, div, SAME)
RV_V_VX(vremu, remu, SAME)
RV_V_VX(vrem, rem, SAME)
RV_V_VXI(vsll, sll, SAME)
RV_V_VXI(vsrl, srl, SAME)
RV_V_VXI(vsra, sra, SAME)
RV_V_VX(vmacc, macc, SAME)
RV_V_VX(vnmsac, nmsac, SAME)
RV_V_VX(vmadd, madd, SAME)
RV_V_VX(vnmsub, nmsub, SAME)

RV_V_VX(vwaddu, waddu, WIDE)
RV_V_VX(vwadd, wadd, WIDE)
RV_V_VX(vwsubu, wsubu, WIDE)
RV_V_VX(vwsub, wsub, WIDE)
RV_V_OP(vwaddu, wv, waddu_w, WIDE_2, VV)
RV_V_OP(vwaddu, wx, waddu_w, WIDE_2, VX)
RV_V_OP(vwadd, wv, wadd_w, WIDE_2, VV)
RV_V_OP(vwadd, wx, wadd_w, WIDE_2, VX)
RV_V_OP(vwsubu, wv, wsubu_w, WIDE_2, VV)
RV_V_OP(vwsubu, wx, wsubu_w, WIDE_2, VX)
RV_V_OP(vwsub, wv, wsub_w, WIDE_2, VV)
RV_V_OP(vwsub, wx, wsub_w, WIDE_2, VX)
RV_V_VX(vwmul, wmul, WIDE)
RV_V_VX(vwmulu, wmulu, WIDE)
RV_V_VX(vwmulsu, wmulsu, WIDE)
RV_V_VX(vwmaccu, wmaccu, WIDE_ACC)
RV_V_VX(vwmacc, wmacc, WIDE_ACC)
RV_V_VX(vwmaccsu, wmaccsu, WIDE_ACC)
RV_V_OP(vwmaccus, vx, wmaccus, WIDE_ACC, VX)
#define RV_V_NARROWING(name, kernel)      \
    RV_V_OP(name, wv, kernel, NARROW, VV) \
    RV_V_OP(name, wx, kernel, NARROW, VX) \
    RV_V_OP(name, wi, kernel, NARROW, VI)
RV_V_NARROWING(vnsrl, nsrl)
RV_V_NARROWING(vnsra, nsra)
RV_V_NARROWING(vnclipu, nclipu)
RV_V_NARROWING(vnclip, nclip)

RV_V_VXI(vmseq, seq, COMPARE)
RV_V_VXI(vmsne, sne, COMPARE)
RV_V_VX(vmsltu, sltu, COMPARE)
RV_V_VX(vmslt, slt, COMPARE)
RV_V_VXI(vmsleu, sleu, COMPARE)
RV_V_VXI(vmsle, sle, COMPARE)
RV_V_XI(vmsgtu, sgtu, COMPARE)
RV_V_XI(vmsgt, sgt, COMPARE)

RV_V_VXI(vsaddu, saddu, SAME)
RV_V_VXI(vsadd, sadd, SAME)
RV_V_VX(vssubu, ssubu, SAME)
RV_V_VX(vssub, ssub, SAME)
RV_V_VX(vaaddu, aaddu, SAME)
RV_V_VX(vaadd, aadd, SAME)
RV_V_VX(vasubu, asubu, SAME)
RV_V_VX(vasub, asub, SAME)
RV_V_VX(vsmul, smul, SAME)
RV_V_VXI(vssrl, ssrl, SAME)
RV_V_VXI(vssra, ssra, SAME)

/* --- Extension --- */

/** Elements of 1 << (SEW - @by) bytes, extended to SEW. */
static bool extend(struct rv_hart *h, const struct insn *i, int by, bool is_signed)
{
    struct rv_vector *v = &h->vec;
    int width = v->sew - by, lmul = v->lmul - by;
    union rv_v_group d;
    const uint8_t *s = rv_v_reg(h, i->rs2);

    if (!rv_v_legal_vtype(h) || width < 0 || lmul < -3 || (rv_v_is_masked(i) && !i->rd) ||
        !rv_v_aligned(i->rd, v->lmul) || !rv_v_aligned(i->rs2, lmul) ||
        !rv_v_apart_from_mask(i, i->rs2) ||
        !rv_v_overlap_ok(i->rd, v->lmul, v->sew, i->rs2, lmul, width))
        return false;
    for (size_t n = v->vstart; n < v->vl; n++)
        rv_v_put(d.b, v->sew, n,
                 is_signed ? (uint64_t)rv_v_get_signed(s, (unsigned)width, n)
                           : rv_v_get(s, (unsigned)width, n));
    if (v->vstart < v->vl)
        rv_v_merge(h, i, i->rd, v->sew, d.b);
    rv_v_done(h);
    return true;
}

RV_VECTOR(vzext_vf2, extend(h, i, 1, false))
RV_VECTOR(vzext_vf4, extend(h, i, 2, false))
RV_VECTOR(vzext_vf8, extend(h, i, 3, false))
RV_VECTOR(vsext_vf2, extend(h, i, 1, true))
RV_VECTOR(vsext_vf4, extend(h, i, 2, true))
RV_VECTOR(vsext_vf8, extend(h, i, 3, true))

/* --- With carry --- */

/** The carry or borrow out of @a + @b + @carry, @a - @b - @carry, of elements of @width. */
static bool carry_out(uint64_t a, uint64_t b, unsigned carry, unsigned width, bool subtract)
{
    uint64_t sum = (a + b + carry) & MASK(8u << width);

    if (subtract)
        return a < b || (a == b && carry);
    return sum < a || (sum == a && carry);
}

/** vadc, vsbc and, with @to_mask, vmadc, vmsbc, which have a carry-in or not (vm). */
static bool add_carry(struct rv_hart *h, const struct insn *i, enum rv_v_form form, bool subtract,
                      bool to_mask)
{
    struct rv_vector *v = &h->vec;
    bool carry_in = !to_mask || rv_v_is_masked(i);
    struct insn whole = *i; /* the mask is an operand: all elements are computed */
    union rv_v_group d, b;
    uint8_t in[RV_VLEN_MAX / 8];
    const uint8_t *vs1 = rv_v_reg(h, i->rs1), *vs2 = rv_v_reg(h, i->rs2);

    whole.rs3 = 1;
    if (!rv_v_operands_ok(h, &whole, to_mask ? RV_V_COMPARE : RV_V_SAME, form) ||
        (!to_mask && !i->rd))
        return false;
    memcpy(in, rv_v_reg(h, 0), v->vlenb);
    if (form != RV_V_VV) {
        rv_v_splat(b.b, v->sew, v->vl, rv_v_scalar(h, i, form));
        vs1 = b.b;
    }
    for (size_t n = v->vstart; n < v->vl; n++) {
        uint64_t x = rv_v_get(vs2, v->sew, n), y = rv_v_get(vs1, v->sew, n);
        unsigned carry = carry_in && rv_v_bit(in, n);

        if (to_mask)
            d.b[n] = carry_out(x, y, carry, v->sew, subtract);
        else
            rv_v_put(d.b, v->sew, n, subtract ? x - y - carry : x + y + carry);
    }
    if (v->vstart >= v->vl)
        (void)0;
    else if (to_mask)
        rv_v_merge_mask(h, &whole, i->rd, d.b);
    else
        rv_v_merge(h, &whole, i->rd, v->sew, d.b);
    rv_v_done(h);
    return true;
}

RV_VECTOR(vadc_vvm, add_carry(h, i, RV_V_VV, false, false))
RV_VECTOR(vadc_vxm, add_carry(h, i, RV_V_VX, false, false))
RV_VECTOR(vadc_vim, add_carry(h, i, RV_V_VI, false, false))
RV_VECTOR(vsbc_vvm, add_carry(h, i, RV_V_VV, true, false))
RV_VECTOR(vsbc_vxm, add_carry(h, i, RV_V_VX, true, false))
RV_VECTOR(vmadc_vvm, add_carry(h, i, RV_V_VV, false, true))
RV_VECTOR(vmadc_vxm, add_carry(h, i, RV_V_VX, false, true))
RV_VECTOR(vmadc_vim, add_carry(h, i, RV_V_VI, false, true))
RV_VECTOR(vmadc_vv, add_carry(h, i, RV_V_VV, false, true))
RV_VECTOR(vmadc_vx, add_carry(h, i, RV_V_VX, false, true))
RV_VECTOR(vmadc_vi, add_carry(h, i, RV_V_VI, false, true))
RV_VECTOR(vmsbc_vvm, add_carry(h, i, RV_V_VV, true, true))
RV_VECTOR(vmsbc_vxm, add_carry(h, i, RV_V_VX, true, true))
RV_VECTOR(vmsbc_vv, add_carry(h, i, RV_V_VV, true, true))
RV_VECTOR(vmsbc_vx, add_carry(h, i, RV_V_VX, true, true))

/* --- Merge and move --- */

/** vd = mask ? vs1, x, imm or f : vs2. */
static bool merge(struct rv_hart *h, const struct insn *i, enum rv_v_form form)
{
    struct rv_vector *v = &h->vec;
    struct insn whole = *i;
    union rv_v_group d, b;
    const uint8_t *vs1 = rv_v_reg(h, i->rs1), *mask = rv_v_reg(h, 0);

    whole.rs3 = 1;
    if (!rv_v_operands_ok(h, &whole, RV_V_SAME, form) || !i->rd || !i->rs2 ||
        (form == RV_V_VV && !i->rs1) || (form == RV_V_VF && v->sew == 0))
        return false;
    if (form != RV_V_VV) {
        rv_v_splat(b.b, v->sew, v->vl, rv_v_scalar(h, i, form));
        vs1 = b.b;
    }
    memcpy(d.b, rv_v_reg(h, i->rs2), v->vl << v->sew);
    for (size_t n = v->vstart; n < v->vl; n++)
        if (rv_v_bit(mask, n))
            rv_v_put(d.b, v->sew, n, rv_v_get(vs1, v->sew, n));
    if (v->vstart < v->vl)
        rv_v_merge(h, &whole, i->rd, v->sew, d.b);
    rv_v_done(h);
    return true;
}

RV_VECTOR(vmerge_vvm, merge(h, i, RV_V_VV))
RV_VECTOR(vmerge_vxm, merge(h, i, RV_V_VX))
RV_VECTOR(vmerge_vim, merge(h, i, RV_V_VI))
RV_VECTOR(vfmerge_vfm, merge(h, i, RV_V_VF))
RV_VECTOR(vmv_v_v, rv_v_run(h, i, h->vec.kernels->mov, RV_V_SAME, RV_V_VV))
RV_VECTOR(vmv_v_x, rv_v_run(h, i, h->vec.kernels->mov, RV_V_SAME, RV_V_VX))
RV_VECTOR(vmv_v_i, rv_v_run(h, i, h->vec.kernels->mov, RV_V_SAME, RV_V_VI))
RV_VECTOR(vfmv_v_f, h->vec.sew > 0 && rv_v_run(h, i, h->vec.kernels->mov, RV_V_SAME, RV_V_VF))
