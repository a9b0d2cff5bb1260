/* Conversions: between formats, to and from integers, rounding to integral values, constants.
 *
 * Threads: pure functions. Spec: IEEE 754-2019 §5.4.2, §5.8, §5.9; RISC-V "F" §21.7, Zfh, Zfa. */
#include "cpu/fp/fp_internal.h"

fp_inline uint64_t generic_convert(const struct fp_format *from, const struct fp_format *to,
                                   uint64_t abits, struct fp_env *env)
{
    struct fp_num a = fp_unpack(from, abits);

    switch (a.kind) {
    case FP_FINITE:
        return fp_round_pack(to, a.sign, a.exp, a.sig, env);
    case FP_INF:
        return fp_inf(to, a.sign);
    case FP_ZERO:
        return fp_zero(to, a.sign);
    default:
        return a.signaling ? fp_invalid(to, env) : fp_nan(to);
    }
}

/** The magnitude of finite @a (exp <= 63) rounded to an integer by @rm. The result may be 2^64,
 * hence the wide type. *@ret_inexact = it differs from the value. */
fp_inline fp_wide_t round_to_integer(const struct fp_num *a, unsigned rm, bool *ret_inexact)
{
    /* Two fraction bits, the last one sticky, are enough to round by. */
    int shift = 61 - a->exp;
    fp_wide_t fixed = shift <= 0 ? (fp_wide_t)a->sig << -shift : fp_shr_sticky(a->sig, shift);
    uint64_t low = (uint64_t)fixed & 7; /* the integer's last bit decides ties */

    *ret_inexact = (low & 3) != 0;
    return (fixed >> 2) + fp_rounds_up(low, 2, a->sign, rm);
}

/** To an integer in [-@min_magnitude, @max], as a two's complement pattern. */
fp_inline uint64_t generic_to_int(const struct fp_format *f, uint64_t abits, uint64_t min_magnitude,
                                  uint64_t max, struct fp_env *env)
{
    struct fp_num a = fp_unpack(f, abits);
    bool inexact = false;

    if (a.kind == FP_ZERO)
        return 0;
    if (a.kind == FP_FINITE && a.exp <= 63) {
        fp_wide_t v = round_to_integer(&a, env->rm, &inexact);

        if (v <= (a.sign ? min_magnitude : max)) {
            env->flags |= inexact ? FP_NX : 0;
            return a.sign ? -(uint64_t)v : (uint64_t)v;
        }
    }
    env->flags |= FP_NV;
    return a.sign && a.kind != FP_NAN ? -min_magnitude : max;
}

fp_inline uint64_t generic_from_int(const struct fp_format *f, bool sign, uint64_t magnitude,
                                    struct fp_env *env)
{
    if (!magnitude)
        return 0;
    int shift = __builtin_clzll(magnitude);
    return fp_round_pack(f, sign, 63 - shift, magnitude << shift, env);
}

fp_inline uint64_t generic_from_signed(const struct fp_format *f, int64_t v, struct fp_env *env)
{
    return generic_from_int(f, v < 0, v < 0 ? -(uint64_t)v : (uint64_t)v, env);
}

/** Flags other than NX and NV cannot arise: an integral value of @f's own range is representable.
 */
fp_inline uint64_t generic_round(const struct fp_format *f, uint64_t abits, bool raise_nx,
                                 struct fp_env *env)
{
    struct fp_num a = fp_unpack(f, abits);
    bool inexact;

    if (a.kind == FP_NAN)
        return a.signaling ? fp_invalid(f, env) : fp_nan(f);
    if (a.kind != FP_FINITE || a.exp >= (int)f->frac_bits)
        return abits;
    uint64_t v = (uint64_t)round_to_integer(&a, env->rm, &inexact);
    if (inexact && raise_nx)
        env->flags |= FP_NX;
    return v ? generic_from_int(f, a.sign, v, env) : fp_zero(f, a.sign);
}

#define FP_CONVERT(w)                                                               \
    int32_t fp##w##_to_i32(uint##w##_t a, struct fp_env *env)                       \
    {                                                                               \
        return (int32_t)generic_to_int(&fp_format_##w, a, BIT(31), INT32_MAX, env); \
    }                                                                               \
    uint32_t fp##w##_to_u32(uint##w##_t a, struct fp_env *env)                      \
    {                                                                               \
        return (uint32_t)generic_to_int(&fp_format_##w, a, 0, UINT32_MAX, env);     \
    }                                                                               \
    int64_t fp##w##_to_i64(uint##w##_t a, struct fp_env *env)                       \
    {                                                                               \
        return (int64_t)generic_to_int(&fp_format_##w, a, BIT(63), INT64_MAX, env); \
    }                                                                               \
    uint64_t fp##w##_to_u64(uint##w##_t a, struct fp_env *env)                      \
    {                                                                               \
        return generic_to_int(&fp_format_##w, a, 0, UINT64_MAX, env);               \
    }                                                                               \
    uint##w##_t fp##w##_from_i32(int32_t v, struct fp_env *env)                     \
    {                                                                               \
        return (uint##w##_t)generic_from_signed(&fp_format_##w, v, env);            \
    }                                                                               \
    uint##w##_t fp##w##_from_u32(uint32_t v, struct fp_env *env)                    \
    {                                                                               \
        return (uint##w##_t)generic_from_int(&fp_format_##w, false, v, env);        \
    }                                                                               \
    uint##w##_t fp##w##_from_i64(int64_t v, struct fp_env *env)                     \
    {                                                                               \
        return (uint##w##_t)generic_from_signed(&fp_format_##w, v, env);            \
    }                                                                               \
    uint##w##_t fp##w##_from_u64(uint64_t v, struct fp_env *env)                    \
    {                                                                               \
        return (uint##w##_t)generic_from_int(&fp_format_##w, false, v, env);        \
    }                                                                               \
    uint##w##_t fp##w##_round(uint##w##_t a, struct fp_env *env)                    \
    {                                                                               \
        return (uint##w##_t)generic_round(&fp_format_##w, a, false, env);           \
    }                                                                               \
    uint##w##_t fp##w##_roundnx(uint##w##_t a, struct fp_env *env)                  \
    {                                                                               \
        return (uint##w##_t)generic_round(&fp_format_##w, a, true, env);            \
    }
FP_CONVERT(16)
FP_CONVERT(32)
FP_CONVERT(64)

#define FP_BETWEEN(from, to)                                                              \
    uint##to##_t fp##from##_to_fp##to(uint##from##_t a, struct fp_env *env)               \
    {                                                                                     \
        return (uint##to##_t)generic_convert(&fp_format_##from, &fp_format_##to, a, env); \
    }
FP_BETWEEN(16, 32)
FP_BETWEEN(16, 64)
FP_BETWEEN(32, 16)
FP_BETWEEN(32, 64)
FP_BETWEEN(64, 16)
FP_BETWEEN(64, 32)

int32_t fp64_to_i32_mod(uint64_t abits, struct fp_env *env)
{
    struct fp_env rtz = {.rm = FP_RTZ};
    struct fp_num a = fp_unpack(&fp_format_64, abits);

    fp64_to_i32(abits, &rtz);
    env->flags |= rtz.flags;
    /* At 2^84 and above, the last of the 53 significand bits weighs 2^32 or more. */
    if (a.kind != FP_FINITE || a.exp < 0 || a.exp >= 84)
        return 0;
    uint64_t v = a.exp <= 63 ? a.sig >> (63 - a.exp) : a.sig << (a.exp - 63);
    return (int32_t)(a.sign ? -v : v);
}

/* As binary64; entry 1 stands for the format's least positive normal number. */
static const uint64_t constants[32] = {
    0xbff0000000000000, /* -1 */
    0x0010000000000000, /* least normal */
    0x3ef0000000000000, /* 2^-16 */
    0x3f00000000000000, /* 2^-15 */
    0x3f70000000000000, /* 2^-8 */
    0x3f80000000000000, /* 2^-7 */
    0x3fb0000000000000, /* 0.0625 */
    0x3fc0000000000000, /* 0.125 */
    0x3fd0000000000000, /* 0.25 */
    0x3fd4000000000000, /* 0.3125 */
    0x3fd8000000000000, /* 0.375 */
    0x3fdc000000000000, /* 0.4375 */
    0x3fe0000000000000, /* 0.5 */
    0x3fe4000000000000, /* 0.625 */
    0x3fe8000000000000, /* 0.75 */
    0x3fec000000000000, /* 0.875 */
    0x3ff0000000000000, /* 1 */
    0x3ff4000000000000, /* 1.25 */
    0x3ff8000000000000, /* 1.5 */
    0x3ffc000000000000, /* 1.75 */
    0x4000000000000000, /* 2 */
    0x4004000000000000, /* 2.5 */
    0x4008000000000000, /* 3 */
    0x4010000000000000, /* 4 */
    0x4020000000000000, /* 8 */
    0x4030000000000000, /* 16 */
    0x4060000000000000, /* 128 */
    0x4070000000000000, /* 256 */
    0x40e0000000000000, /* 2^15 */
    0x40f0000000000000, /* 2^16: infinity in binary16 */
    0x7ff0000000000000, /* infinity */
    0x7ff8000000000000, /* NaN */
};

uint64_t fp64_constant(unsigned index)
{
    return constants[index % 32];
}

uint32_t fp32_constant(unsigned index)
{
    struct fp_env env = {.rm = FP_RNE};

    return index % 32 == 1 ? BIT(23) : fp64_to_fp32(constants[index % 32], &env);
}

uint16_t fp16_constant(unsigned index)
{
    struct fp_env env = {.rm = FP_RNE};

    return index % 32 == 1 ? BIT(10) : fp64_to_fp16(constants[index % 32], &env);
}
