/* Interpreter handlers: floating-point vector conversions, and the estimates of reciprocals and
 * square roots. See vector.h, interp_v_fp.c. Spec: Unprivileged ISA 20240411, §31.13.9, .10, .17
 * to .19. */
#include "cpu/guest/riscv/vector_fp.h"

#define CVT(name, ta, td, expr)                                                                \
    static void name(void *d_, const void *a_, const void *b, size_t n, struct rv_vk_env *env) \
    {                                                                                          \
        unused_arg struct fp_env *e = env->fp;                                                 \
        const ta *a = a_;                                                                      \
        td *d = d_;                                                                            \
                                                                                               \
        for (size_t i = 0; i < n; i++) {                                                       \
            const ta A = a[i];                                                                 \
                                                                                               \
            d[i] = (td)(expr);                                                                 \
        }                                                                                      \
    }

/** Convert by @to (to int64_t), then saturate to @bits: out of range is invalid and no more. */
#define TO_INT(fw)                                                                        \
    static int64_t fp##fw##_to_signed(uint##fw##_t a, unsigned bits, struct fp_env *e)    \
    {                                                                                     \
        struct fp_env local = {.rm = e->rm};                                              \
        int64_t v = fp##fw##_to_i64(a, &local), max = (int64_t)(MASK(bits) >> 1);         \
                                                                                          \
        if (v > max || v < -max - 1) {                                                    \
            v = v > max ? max : -max - 1;                                                 \
            local.flags = FP_NV;                                                          \
        }                                                                                 \
        e->flags |= local.flags;                                                          \
        return v;                                                                         \
    }                                                                                     \
    static uint64_t fp##fw##_to_unsigned(uint##fw##_t a, unsigned bits, struct fp_env *e) \
    {                                                                                     \
        struct fp_env local = {.rm = e->rm};                                              \
        uint64_t v = fp##fw##_to_u64(a, &local);                                          \
                                                                                          \
        if (v > MASK(bits)) {                                                             \
            v = MASK(bits);                                                               \
            local.flags = FP_NV;                                                          \
        }                                                                                 \
        e->flags |= local.flags;                                                          \
        return v;                                                                         \
    }
TO_INT(16)
TO_INT(32)
TO_INT(64)

/** From binary @fw to integers of @iw bits and back. */
#define CVT_PAIR(fw, iw)                                                              \
    CVT(x_f_##fw##_##iw, uint##fw##_t, int##iw##_t, fp##fw##_to_signed(A, iw, e))     \
    CVT(xu_f_##fw##_##iw, uint##fw##_t, uint##iw##_t, fp##fw##_to_unsigned(A, iw, e)) \
    CVT(rtz_x_f_##fw##_##iw, uint##fw##_t, int##iw##_t,                               \
        (e->rm = FP_RTZ, fp##fw##_to_signed(A, iw, e)))                               \
    CVT(rtz_xu_f_##fw##_##iw, uint##fw##_t, uint##iw##_t,                             \
        (e->rm = FP_RTZ, fp##fw##_to_unsigned(A, iw, e)))                             \
    CVT(f_x_##iw##_##fw, int##iw##_t, uint##fw##_t, fp##fw##_from_i64(A, e))          \
    CVT(f_xu_##iw##_##fw, uint##iw##_t, uint##fw##_t, fp##fw##_from_u64(A, e))
CVT_PAIR(16, 16)
CVT_PAIR(32, 32)
CVT_PAIR(64, 64)
CVT_PAIR(16, 32)
CVT_PAIR(32, 64)
CVT_PAIR(16, 8)
CVT_PAIR(32, 16)
CVT_PAIR(64, 32)

static uint16_t odd16(uint32_t a, struct fp_env *e)
{
    struct fp_env local = {.rm = FP_RTZ};
    uint16_t v = fp32_to_fp16(a, &local);

    e->flags |= local.flags;
    return v | (local.flags & FP_NX ? 1 : 0);
}

static uint32_t odd32(uint64_t a, struct fp_env *e)
{
    struct fp_env local = {.rm = FP_RTZ};
    uint32_t v = fp64_to_fp32(a, &local);

    e->flags |= local.flags;
    return v | (local.flags & FP_NX ? 1 : 0);
}

CVT(f_f_16_32, uint16_t, uint32_t, fp16_to_fp32(A, e))
CVT(f_f_32_64, uint32_t, uint64_t, fp32_to_fp64(A, e))
CVT(f_f_32_16, uint32_t, uint16_t, fp32_to_fp16(A, e))
CVT(f_f_64_32, uint64_t, uint32_t, fp64_to_fp32(A, e))
CVT(rod_f_f_32_16, uint32_t, uint16_t, odd16(A, e))
CVT(rod_f_f_64_32, uint64_t, uint32_t, odd32(A, e))

/** A handler by the kernels for SEW of 8, 16, 32 and 64. */
#define CONVERT(name, shape, k8, k16, k32, k64) \
    RV_VECTOR(name, rv_v_run_fp(h, i, NULL, (rv_vk){k8, k16, k32, k64}, RV_V_##shape, RV_V_CVT))
CONVERT(vfcvt_xu_f_v, SAME, NULL, xu_f_16_16, xu_f_32_32, xu_f_64_64)
CONVERT(vfcvt_x_f_v, SAME, NULL, x_f_16_16, x_f_32_32, x_f_64_64)
CONVERT(vfcvt_rtz_xu_f_v, SAME, NULL, rtz_xu_f_16_16, rtz_xu_f_32_32, rtz_xu_f_64_64)
CONVERT(vfcvt_rtz_x_f_v, SAME, NULL, rtz_x_f_16_16, rtz_x_f_32_32, rtz_x_f_64_64)
CONVERT(vfcvt_f_xu_v, SAME, NULL, f_xu_16_16, f_xu_32_32, f_xu_64_64)
CONVERT(vfcvt_f_x_v, SAME, NULL, f_x_16_16, f_x_32_32, f_x_64_64)
CONVERT(vfwcvt_xu_f_v, WIDE, NULL, xu_f_16_32, xu_f_32_64, NULL)
CONVERT(vfwcvt_x_f_v, WIDE, NULL, x_f_16_32, x_f_32_64, NULL)
CONVERT(vfwcvt_rtz_xu_f_v, WIDE, NULL, rtz_xu_f_16_32, rtz_xu_f_32_64, NULL)
CONVERT(vfwcvt_rtz_x_f_v, WIDE, NULL, rtz_x_f_16_32, rtz_x_f_32_64, NULL)
CONVERT(vfwcvt_f_xu_v, WIDE, f_xu_8_16, f_xu_16_32, f_xu_32_64, NULL)
CONVERT(vfwcvt_f_x_v, WIDE, f_x_8_16, f_x_16_32, f_x_32_64, NULL)
CONVERT(vfwcvt_f_f_v, WIDE, NULL, f_f_16_32, f_f_32_64, NULL)
CONVERT(vfncvt_xu_f_w, NARROW, xu_f_16_8, xu_f_32_16, xu_f_64_32, NULL)
CONVERT(vfncvt_x_f_w, NARROW, x_f_16_8, x_f_32_16, x_f_64_32, NULL)
CONVERT(vfncvt_rtz_xu_f_w, NARROW, rtz_xu_f_16_8, rtz_xu_f_32_16, rtz_xu_f_64_32, NULL)
CONVERT(vfncvt_rtz_x_f_w, NARROW, rtz_x_f_16_8, rtz_x_f_32_16, rtz_x_f_64_32, NULL)
CONVERT(vfncvt_f_xu_w, NARROW, NULL, f_xu_32_16, f_xu_64_32, NULL)
CONVERT(vfncvt_f_x_w, NARROW, NULL, f_x_32_16, f_x_64_32, NULL)
CONVERT(vfncvt_f_f_w, NARROW, NULL, f_f_32_16, f_f_64_32, NULL)
CONVERT(vfncvt_rod_f_f_w, NARROW, NULL, rod_f_f_32_16, rod_f_f_64_32, NULL)

/* --- Estimates --- */

/** A binary format's fields. */
struct format {
    unsigned fraction_bits;
    unsigned exponent_bits;
};

struct parts {
    bool sign;
    int exponent; /* biased; below 1 for a subnormal, which is normalized */
    uint64_t fraction;
};

static struct parts split(uint64_t v, struct format f)
{
    struct parts p = {
        .sign = v >> (f.fraction_bits + f.exponent_bits) & 1,
        .exponent = (int)(v >> f.fraction_bits & MASK(f.exponent_bits)),
        .fraction = v & MASK(f.fraction_bits),
    };

    if (!p.exponent && p.fraction) {
        p.exponent = 1;
        while (!(p.fraction >> f.fraction_bits)) {
            p.fraction <<= 1;
            p.exponent--;
        }
        p.fraction &= MASK(f.fraction_bits);
    }
    return p;
}

/** The estimates' seven bits are those of the exact value at the middle of the interval that the
 * operand's leading bits name, rounded: which gives the tables of §31.13.9 and §31.13.10. */
static unsigned reciprocal_bits(unsigned index)
{
    /* 2 / (1 + (2 index + 1) / 256) - 1, in units of 1/128 */
    unsigned x = 257 + 2 * index;

    return (131072 + x) / (2 * x) - 128;
}

/** 2 / sqrt(x) - 1 in units of 1/128, for x in [1, 4): rounded: the largest n with
 * (n + 127.5)^2 x <= 2^16. */
static unsigned root_bits(unsigned index)
{
    unsigned n = 0;
    /* x in units of 1/128: index's upper bit is clear where x is in [2, 4) */
    unsigned x = index & 64 ? 129 + 2 * (index & 63) : 2 * (129 + 2 * (index & 63));

    while ((2 * n + 257) * (2 * n + 257) * x <= 4 * 65536u * 128)
        n++;
    return n;
}

static uint64_t infinity(bool sign, struct format f)
{
    return ((uint64_t)sign << f.exponent_bits | MASK(f.exponent_bits)) << f.fraction_bits;
}

static uint64_t estimate_root(uint64_t v, struct format f, unsigned class, struct fp_env *e)
{
    struct parts p = split(v, f);
    uint64_t nan = infinity(false, f) | 1ULL << (f.fraction_bits - 1);
    int bias = (int)MASK(f.exponent_bits - 1);

    if (class & 0x300) { /* NaN */
        e->flags |= class & 0x100 ? FP_NV : 0;
        return nan;
    }
    if (class & 0x18) {
        e->flags |= FP_DZ;
        return infinity(p.sign, f);
    }
    if (p.sign) {
        e->flags |= FP_NV;
        return nan;
    }
    if (class & 0x80)
        return 0;
    return (uint64_t)((3 * bias - 1 - p.exponent) / 2) << f.fraction_bits |
           (uint64_t)root_bits(((unsigned)p.exponent & 1) << 6 |
                               (unsigned)(p.fraction >> (f.fraction_bits - 6)))
               << (f.fraction_bits - 7);
}

static uint64_t estimate_reciprocal(uint64_t v, struct format f, unsigned class, struct fp_env *e)
{
    struct parts p = split(v, f);
    uint64_t sign = (uint64_t)p.sign << (f.fraction_bits + f.exponent_bits), fraction;
    int bias = (int)MASK(f.exponent_bits - 1), exponent = 2 * bias - 1 - p.exponent;

    if (class & 0x300) {
        e->flags |= class & 0x100 ? FP_NV : 0;
        return infinity(false, f) | 1ULL << (f.fraction_bits - 1);
    }
    if (class & 0x18) {
        e->flags |= FP_DZ;
        return infinity(p.sign, f);
    }
    if (class & 0x81)
        return sign;
    if (p.exponent < -1) { /* overflows: to infinity, or to the largest number below it */
        bool down = e->rm == FP_RTZ || e->rm == (p.sign ? FP_RUP : FP_RDN);

        e->flags |= FP_OF | FP_NX;
        return infinity(p.sign, f) - (down ? 1 : 0);
    }
    fraction = (uint64_t)reciprocal_bits((unsigned)(p.fraction >> (f.fraction_bits - 7)))
               << (f.fraction_bits - 7);
    if (exponent < 1) { /* subnormal */
        fraction = (fraction | 1ULL << f.fraction_bits) >> (1 - exponent);
        exponent = 0;
    }
    return sign | (uint64_t)exponent << f.fraction_bits | fraction;
}

#define ESTIMATE(w, fraction, exponent)                                             \
    CVT(rsqrt7_##w, uint##w##_t, uint##w##_t,                                       \
        estimate_root(A, (struct format){fraction, exponent}, fp##w##_class(A), e)) \
    CVT(rec7_##w, uint##w##_t, uint##w##_t,                                         \
        estimate_reciprocal(A, (struct format){fraction, exponent}, fp##w##_class(A), e))
ESTIMATE(16, 10, 5)
ESTIMATE(32, 23, 8)
ESTIMATE(64, 52, 11)
RV_VECTOR(vfrsqrt7_v, rv_v_run_fp(h, i, NULL, (rv_vk){NULL, rsqrt7_16, rsqrt7_32, rsqrt7_64},
                                  RV_V_SAME, RV_V_V))
RV_VECTOR(vfrec7_v,
          rv_v_run_fp(h, i, NULL, (rv_vk){NULL, rec7_16, rec7_32, rec7_64}, RV_V_SAME, RV_V_V))
