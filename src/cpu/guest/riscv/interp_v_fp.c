/* Interpreter handlers: floating-point vector instructions, but for reductions and conversions.
 * See vector.h.
 *
 * 1. The exact reference is cpu/fp (soft_*). What the host's unit does as IEEE 754 has it goes
 *    there (rv_vk_run_float()), unless a NaN comes out, or the rounding mode is not one of its.
 * 2. Elements that are not computed are replaced by 1.0 (in conversions 0), so that they raise no
 *    flags: 1 op 1 is exact for every operation here.
 * Spec: Unprivileged ISA 20240411, §31.13. */
#include "cpu/guest/riscv/vector_fp.h"

/** Operand lists of the soft kernels, as in vec_kernels.c. */
#define SOFT(name, w, td, expr)                                                       \
    static void soft_##name##_##w(void *d_, const void *a_, const void *b_, size_t n, \
                                  struct rv_vk_env *env)                              \
    {                                                                                 \
        unused_arg struct fp_env *e = env->fp;                                        \
        td *d = d_;                                                                   \
        const uint##w##_t *a = a_, *b = b_;                                           \
                                                                                      \
        for (size_t i = 0; i < n; i++) {                                              \
            unused_arg const uint##w##_t A = a[i], B = b[i];                          \
            unused_arg const td D = d[i];                                             \
                                                                                      \
            d[i] = (td)(expr);                                                        \
        }                                                                             \
    }
#define NEG(w, v) ((uint##w##_t)((v) ^ 1ULL << ((w)-1)))
#define SIGN(w)   (1ULL << ((w)-1))

#define SOFT_FORMAT(w)                                                      \
    SOFT(fadd, w, uint##w##_t, fp##w##_add(A, B, e))                        \
    SOFT(fsub, w, uint##w##_t, fp##w##_sub(A, B, e))                        \
    SOFT(frsub, w, uint##w##_t, fp##w##_sub(B, A, e))                       \
    SOFT(fmul, w, uint##w##_t, fp##w##_mul(A, B, e))                        \
    SOFT(fdiv, w, uint##w##_t, fp##w##_div(A, B, e))                        \
    SOFT(frdiv, w, uint##w##_t, fp##w##_div(B, A, e))                       \
    SOFT(fsqrt, w, uint##w##_t, fp##w##_sqrt(A, e))                         \
    SOFT(fmin, w, uint##w##_t, fp##w##_min(A, B, e))                        \
    SOFT(fmax, w, uint##w##_t, fp##w##_max(A, B, e))                        \
    SOFT(fsgnj, w, uint##w##_t, (A & ~SIGN(w)) | (B & SIGN(w)))             \
    SOFT(fsgnjn, w, uint##w##_t, (A & ~SIGN(w)) | (~(uint64_t)B & SIGN(w))) \
    SOFT(fsgnjx, w, uint##w##_t, A ^ (B & SIGN(w)))                         \
    SOFT(fclass, w, uint##w##_t, fp##w##_class(A))                          \
    SOFT(fmacc, w, uint##w##_t, fp##w##_fma(B, A, D, e))                    \
    SOFT(fnmacc, w, uint##w##_t, fp##w##_fma(NEG(w, B), A, NEG(w, D), e))   \
    SOFT(fmsac, w, uint##w##_t, fp##w##_fma(B, A, NEG(w, D), e))            \
    SOFT(fnmsac, w, uint##w##_t, fp##w##_fma(NEG(w, B), A, D, e))           \
    SOFT(fmadd, w, uint##w##_t, fp##w##_fma(B, D, A, e))                    \
    SOFT(fnmadd, w, uint##w##_t, fp##w##_fma(NEG(w, B), D, NEG(w, A), e))   \
    SOFT(fmsub, w, uint##w##_t, fp##w##_fma(B, D, NEG(w, A), e))            \
    SOFT(fnmsub, w, uint##w##_t, fp##w##_fma(NEG(w, B), D, A, e))           \
    SOFT(mfeq, w, uint8_t, fp##w##_eq(A, B, e))                             \
    SOFT(mfne, w, uint8_t, !fp##w##_eq(A, B, e))                            \
    SOFT(mflt, w, uint8_t, fp##w##_lt(A, B, e))                             \
    SOFT(mfle, w, uint8_t, fp##w##_le(A, B, e))                             \
    SOFT(mfgt, w, uint8_t, fp##w##_lt(B, A, e))                             \
    SOFT(mfge, w, uint8_t, fp##w##_le(B, A, e))
SOFT_FORMAT(16)
SOFT_FORMAT(32)
SOFT_FORMAT(64)

/** Widening: to binary32 or binary64 exactly, then as there. */
#define SOFT_W(name, n, w, a_wide, expr)                                                        \
    static void soft_##name##_##n(void *d_, const void *a_, const void *b_, size_t count,       \
                                  struct rv_vk_env *env)                                        \
    {                                                                                           \
        struct fp_env *e = env->fp;                                                             \
        uint##w##_t *d = d_;                                                                    \
                                                                                                \
        for (size_t i = 0; i < count; i++) {                                                    \
            const uint##w##_t A = (a_wide) ? ((const uint##w##_t *)a_)[i]                       \
                                           : fp##n##_to_fp##w(((const uint##n##_t *)a_)[i], e); \
            const uint##w##_t B = fp##n##_to_fp##w(((const uint##n##_t *)b_)[i], e);            \
            unused_arg const uint##w##_t D = d[i];                                              \
                                                                                                \
            d[i] = (expr);                                                                      \
        }                                                                                       \
    }
#define SOFT_WIDEN(n, w)                                                  \
    SOFT_W(fwadd, n, w, false, fp##w##_add(A, B, e))                      \
    SOFT_W(fwsub, n, w, false, fp##w##_sub(A, B, e))                      \
    SOFT_W(fwadd_w, n, w, true, fp##w##_add(A, B, e))                     \
    SOFT_W(fwsub_w, n, w, true, fp##w##_sub(A, B, e))                     \
    SOFT_W(fwmul, n, w, false, fp##w##_mul(A, B, e))                      \
    SOFT_W(fwmacc, n, w, false, fp##w##_fma(B, A, D, e))                  \
    SOFT_W(fwnmacc, n, w, false, fp##w##_fma(NEG(w, B), A, NEG(w, D), e)) \
    SOFT_W(fwmsac, n, w, false, fp##w##_fma(B, A, NEG(w, D), e))          \
    SOFT_W(fwnmsac, n, w, false, fp##w##_fma(NEG(w, B), A, D, e))
SOFT_WIDEN(16, 32)
SOFT_WIDEN(32, 64)

static const uint64_t one[] = {1, 0x3c00, 0x3f800000, 0x3ff0000000000000};

void rv_v_raise(struct rv_hart *h, unsigned flags)
{
    if (!(flags & ~h->cpu.fp_flags))
        return;
    h->cpu.fp_flags |= flags;
    rv_set_fs_dirty(h);
}

/** Run the kernels into @d: the host's if it can, else @soft. */
static void compute(struct rv_hart *h, const rv_vk host, rv_vk_fn *soft, void *d, const void *a,
                    const void *b, size_t d_bytes)
{
    struct fp_env fp = {.rm = h->frm};
    struct rv_vk_env env = {.fp = &fp};
    union rv_v_group old;
    uint8_t flags;

    if (host && h->vec.sew >= 2) {
        memcpy(old.b, d, d_bytes);
        if (rv_vk_run_float(host[h->vec.sew], d, a, b, h->vec.vl, h->frm, &env, &flags)) {
            if (!env.nan) {
                rv_v_raise(h, flags);
                return;
            }
            memcpy(d, old.b, d_bytes);
        }
    }
    soft(d, a, b, h->vec.vl, &env);
    rv_v_raise(h, fp.flags);
}

bool rv_v_run_fp(struct rv_hart *h, const struct insn *i, const rv_vk host, const rv_vk soft,
                 enum rv_v_shape shape, enum rv_v_form form)
{
    struct rv_vector *v = &h->vec;
    unsigned sew = v->sew;
    unsigned d_width = rv_v_is_wide(shape) ? sew + 1 : sew;
    unsigned a_width = shape == RV_V_NARROW || shape == RV_V_WIDE_2 ? sew + 1 : sew;
    union rv_v_group a, b, d;
    const uint8_t *vs2 = rv_v_reg(h, i->rs2), *vs1 = rv_v_reg(h, i->rs1);

    if (!rv_v_operands_ok(h, i, shape, form) || !soft[sew])
        return false;
    if (v->vstart >= v->vl) {
        rv_v_done(h);
        return true;
    }
    if (form == RV_V_VF) {
        rv_v_splat(b.b, sew, v->vl, rv_v_scalar(h, i, form));
        vs1 = b.b;
    }
    if (shape != RV_V_COMPARE)
        memcpy(d.b, rv_v_reg(h, i->rd), v->vl << d_width);
    if (rv_v_is_masked(i) || v->vstart) {
        memcpy(a.b, vs2, v->vl << a_width);
        rv_v_neutral(h, i, a.b, a_width, form == RV_V_CVT ? 0 : one[a_width]);
        if (form == RV_V_VV)
            memcpy(b.b, vs1, v->vl << sew);
        rv_v_neutral(h, i, b.b, sew, one[sew]);
        if (shape != RV_V_COMPARE)
            rv_v_neutral(h, i, d.b, d_width, one[d_width]);
        vs2 = a.b;
        vs1 = b.b;
    }
    compute(h, host, soft[sew], d.b, vs2, vs1, shape == RV_V_COMPARE ? 0 : v->vl << d_width);
    if (shape == RV_V_COMPARE)
        rv_v_merge_mask(h, i, i->rd, d.b);
    else
        rv_v_merge(h, i, i->rd, d_width, d.b);
    rv_v_done(h);
    return true;
}

#define TABLE(name)      ((rv_vk){NULL, soft_##name##_16, soft_##name##_32, soft_##name##_64})
#define TABLE_WIDE(name) ((rv_vk){NULL, soft_##name##_16, soft_##name##_32, NULL})
#define FP(name, suffix, kernel, form) \
    RV_VECTOR(name##_##suffix,         \
              rv_v_run_fp(h, i, h->vec.kernels->kernel, TABLE(kernel), RV_V_SAME, RV_V_##form))
#define FP_VF(name, kernel)  \
    FP(name, vv, kernel, VV) \
    FP(name, vf, kernel, VF)
#define FP_SOFT(name, suffix, kernel, shape, form) \
    RV_VECTOR(name##_##suffix, rv_v_run_fp(h, i, NULL, TABLE(kernel), RV_V_##shape, RV_V_##form))
#define FP_SOFT_VF(name, kernel, shape)  \
    FP_SOFT(name, vv, kernel, shape, VV) \
    FP_SOFT(name, vf, kernel, shape, VF)
#define FP_WIDE(name, suffix, kernel, shape, form) \
    RV_VECTOR(name##_##suffix,                     \
              rv_v_run_fp(h, i, NULL, TABLE_WIDE(kernel), RV_V_##shape, RV_V_##form))
#define FP_WIDE_VF(name, kernel, shape)  \
    FP_WIDE(name, vv, kernel, shape, VV) \
    FP_WIDE(name, vf, kernel, shape, VF)

FP_VF(vfadd, fadd)
FP_VF(vfsub, fsub)
FP(vfrsub, vf, frsub, VF)
FP_VF(vfmul, fmul)
FP_VF(vfdiv, fdiv)
FP(vfrdiv, vf, frdiv, VF)
FP_VF(vfmacc, fmacc)
FP_VF(vfnmacc, fnmacc)
FP_VF(vfmsac, fmsac)
FP_VF(vfnmsac, fnmsac)
FP_VF(vfmadd, fmadd)
FP_VF(vfnmadd, fnmadd)
FP_VF(vfmsub, fmsub)
FP_VF(vfnmsub, fnmsub)
FP(vfsqrt, v, fsqrt, V)
FP_SOFT_VF(vfmin, fmin, SAME)
FP_SOFT_VF(vfmax, fmax, SAME)
FP_SOFT_VF(vfsgnj, fsgnj, SAME)
FP_SOFT_VF(vfsgnjn, fsgnjn, SAME)
FP_SOFT_VF(vfsgnjx, fsgnjx, SAME)
FP_SOFT(vfclass, v, fclass, SAME, V)
FP_SOFT_VF(vmfeq, mfeq, COMPARE)
FP_SOFT_VF(vmfne, mfne, COMPARE)
FP_SOFT_VF(vmflt, mflt, COMPARE)
FP_SOFT_VF(vmfle, mfle, COMPARE)
FP_SOFT(vmfgt, vf, mfgt, COMPARE, VF)
FP_SOFT(vmfge, vf, mfge, COMPARE, VF)
FP_WIDE_VF(vfwadd, fwadd, WIDE)
FP_WIDE_VF(vfwsub, fwsub, WIDE)
FP_WIDE(vfwadd, wv, fwadd_w, WIDE_2, VV)
FP_WIDE(vfwadd, wf, fwadd_w, WIDE_2, VF)
FP_WIDE(vfwsub, wv, fwsub_w, WIDE_2, VV)
FP_WIDE(vfwsub, wf, fwsub_w, WIDE_2, VF)
FP_WIDE_VF(vfwmul, fwmul, WIDE)
FP_WIDE_VF(vfwmacc, fwmacc, WIDE_ACC)
FP_WIDE_VF(vfwnmacc, fwnmacc, WIDE_ACC)
FP_WIDE_VF(vfwmsac, fwmsac, WIDE_ACC)
FP_WIDE_VF(vfwnmsac, fwnmsac, WIDE_ACC)

/* --- Moves of one element --- */

static bool move_to_f(struct rv_hart *h, const struct insn *i)
{
    unsigned sew = h->vec.sew;

    if (!rv_v_legal_vtype(h) || !sew)
        return false;
    h->f[i->rd] = rv_v_get(rv_v_reg(h, i->rs2), sew, 0) | (sew < 3 ? ~0ULL << (8u << sew) : 0);
    rv_set_fs_dirty(h);
    rv_v_done(h);
    return true;
}

static bool move_from_f(struct rv_hart *h, const struct insn *i)
{
    if (!rv_v_legal_vtype(h) || !h->vec.sew)
        return false;
    if (h->vec.vstart < h->vec.vl)
        rv_v_put(rv_v_reg(h, i->rd), h->vec.sew, 0, rv_v_scalar(h, i, RV_V_VF));
    rv_v_done(h);
    return true;
}

RV_VECTOR(vfmv_f_s, move_to_f(h, i))
RV_VECTOR(vfmv_s_f, move_from_f(h, i))
