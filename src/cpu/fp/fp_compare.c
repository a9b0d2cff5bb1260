/* Minimum, maximum, comparison and classification: on the bit patterns, without unpacking.
 *
 * Threads: pure functions. Spec: IEEE 754-2019 §5.7.2, §5.11, §9.6; RISC-V "F" §21.6, §21.8, §21.9,
 * Zfa. */
#include "cpu/fp/fp_internal.h"

/** A key that orders as the values do, with -0 below +0. */
fp_inline uint64_t order_key(const struct fp_format *f, uint64_t a)
{
    return a & fp_sign_bit(f) ? ~a & (fp_sign_bit(f) - 1) : a | fp_sign_bit(f);
}

fp_inline bool is_zero(const struct fp_format *f, uint64_t a)
{
    return !(a & (fp_sign_bit(f) - 1));
}

/** Raise NV for operands that signal, or for any NaN when @signaling. Returns whether @a and @b are
 * ordered. */
fp_inline bool check_ordered(const struct fp_format *f, uint64_t a, uint64_t b, bool signaling,
                             struct fp_env *env)
{
    if (likely(!fp_is_nan(f, a) && !fp_is_nan(f, b)))
        return true;
    if (signaling || fp_is_snan(f, a) || fp_is_snan(f, b))
        env->flags |= FP_NV;
    return false;
}

fp_inline bool generic_eq(const struct fp_format *f, uint64_t a, uint64_t b, struct fp_env *env)
{
    return check_ordered(f, a, b, false, env) && (a == b || (is_zero(f, a) && is_zero(f, b)));
}

fp_inline bool generic_lt(const struct fp_format *f, uint64_t a, uint64_t b, bool signaling,
                          struct fp_env *env)
{
    return check_ordered(f, a, b, signaling, env) && order_key(f, a) < order_key(f, b) &&
           !(is_zero(f, a) && is_zero(f, b));
}

fp_inline bool generic_le(const struct fp_format *f, uint64_t a, uint64_t b, bool signaling,
                          struct fp_env *env)
{
    return check_ordered(f, a, b, signaling, env) &&
           (order_key(f, a) <= order_key(f, b) || (is_zero(f, a) && is_zero(f, b)));
}

fp_inline uint64_t smaller(const struct fp_format *f, uint64_t a, uint64_t b, bool want_max)
{
    return (order_key(f, a) < order_key(f, b)) != want_max ? a : b;
}

/** minimumNumber, maximumNumber. */
fp_inline uint64_t generic_min_num(const struct fp_format *f, uint64_t a, uint64_t b, bool want_max,
                                   struct fp_env *env)
{
    if (check_ordered(f, a, b, false, env))
        return smaller(f, a, b, want_max);
    if (!fp_is_nan(f, a))
        return a;
    return fp_is_nan(f, b) ? fp_nan(f) : b;
}

/** minimum, maximum. */
fp_inline uint64_t generic_min_nan(const struct fp_format *f, uint64_t a, uint64_t b, bool want_max,
                                   struct fp_env *env)
{
    return check_ordered(f, a, b, false, env) ? smaller(f, a, b, want_max) : fp_nan(f);
}

fp_inline unsigned generic_class(const struct fp_format *f, uint64_t a)
{
    bool sign = (a & fp_sign_bit(f)) != 0;
    uint64_t magnitude = a & (fp_sign_bit(f) - 1);

    if (magnitude > fp_inf(f, false))
        return fp_is_snan(f, a) ? 1u << 8 : 1u << 9;
    if (magnitude == fp_inf(f, false))
        return sign ? 1u << 0 : 1u << 7;
    if (magnitude >> f->frac_bits)
        return sign ? 1u << 1 : 1u << 6;
    if (magnitude)
        return sign ? 1u << 2 : 1u << 5;
    return sign ? 1u << 3 : 1u << 4;
}

#define FP_COMPARE(w)                                                          \
    uint##w##_t fp##w##_min(uint##w##_t a, uint##w##_t b, struct fp_env *env)  \
    {                                                                          \
        return (uint##w##_t)generic_min_num(&fp_format_##w, a, b, false, env); \
    }                                                                          \
    uint##w##_t fp##w##_max(uint##w##_t a, uint##w##_t b, struct fp_env *env)  \
    {                                                                          \
        return (uint##w##_t)generic_min_num(&fp_format_##w, a, b, true, env);  \
    }                                                                          \
    uint##w##_t fp##w##_minm(uint##w##_t a, uint##w##_t b, struct fp_env *env) \
    {                                                                          \
        return (uint##w##_t)generic_min_nan(&fp_format_##w, a, b, false, env); \
    }                                                                          \
    uint##w##_t fp##w##_maxm(uint##w##_t a, uint##w##_t b, struct fp_env *env) \
    {                                                                          \
        return (uint##w##_t)generic_min_nan(&fp_format_##w, a, b, true, env);  \
    }                                                                          \
    bool fp##w##_eq(uint##w##_t a, uint##w##_t b, struct fp_env *env)          \
    {                                                                          \
        return generic_eq(&fp_format_##w, a, b, env);                          \
    }                                                                          \
    bool fp##w##_lt(uint##w##_t a, uint##w##_t b, struct fp_env *env)          \
    {                                                                          \
        return generic_lt(&fp_format_##w, a, b, true, env);                    \
    }                                                                          \
    bool fp##w##_le(uint##w##_t a, uint##w##_t b, struct fp_env *env)          \
    {                                                                          \
        return generic_le(&fp_format_##w, a, b, true, env);                    \
    }                                                                          \
    bool fp##w##_ltq(uint##w##_t a, uint##w##_t b, struct fp_env *env)         \
    {                                                                          \
        return generic_lt(&fp_format_##w, a, b, false, env);                   \
    }                                                                          \
    bool fp##w##_leq(uint##w##_t a, uint##w##_t b, struct fp_env *env)         \
    {                                                                          \
        return generic_le(&fp_format_##w, a, b, false, env);                   \
    }                                                                          \
    unsigned fp##w##_class(uint##w##_t a)                                      \
    {                                                                          \
        return generic_class(&fp_format_##w, a);                               \
    }
FP_COMPARE(16)
FP_COMPARE(32)
FP_COMPARE(64)
