/* Sum, product, quotient, square root and fused multiply-add.
 *
 * Each operation computes the exact result, or a prefix of it with a sticky last bit that is longer
 * than any format's significand by at least two bits, and rounds once in fp_round_pack().
 * Threads: pure functions. Spec: IEEE 754-2019 §5.4.1, §6, §7; RISC-V "F" §21.3, §21.6. */
#include "cpu/fp/fp_internal.h"

/* (-1)^sign * sig * 2^(exp - 126), with bit 126 of sig set: room for a carry above, and for any
 * product of two significands below. */
struct fp_sum_term {
    bool sign;
    int exp;
    fp_wide_t sig;
};

fp_inline struct fp_sum_term term_of(const struct fp_num *n)
{
    return (struct fp_sum_term){n->sign, n->exp, (fp_wide_t)n->sig << 63};
}

fp_inline struct fp_sum_term product_of(const struct fp_num *a, const struct fp_num *b)
{
    fp_wide_t sig = (fp_wide_t)a->sig * b->sig;
    int exp = a->exp + b->exp;

    /* The low bits are zero (2 * 53 < 127), so the shift loses nothing. */
    if (sig >> 127) {
        exp++;
        sig >>= 1;
    }
    return (struct fp_sum_term){a->sign != b->sign, exp, sig};
}

fp_inline uint64_t round_term(const struct fp_format *f, const struct fp_sum_term *t,
                              struct fp_env *env)
{
    return fp_round_pack(f, t->sign, t->exp, (uint64_t)fp_shr_sticky_wide(t->sig, 63), env);
}

fp_inline int clz_wide(fp_wide_t v)
{
    uint64_t hi = (uint64_t)(v >> 64);

    return hi ? __builtin_clzll(hi) : 64 + __builtin_clzll((uint64_t)v);
}

/** Sum of two terms that are not zero. */
fp_inline uint64_t sum_terms(const struct fp_format *f, struct fp_sum_term a, struct fp_sum_term b,
                             struct fp_env *env)
{
    if (a.exp < b.exp || (a.exp == b.exp && a.sig < b.sig)) {
        struct fp_sum_term t = a;

        a = b;
        b = t;
    }
    /* Terms hold at least 21 zero bits at the bottom. So a shift that loses bits is one by more
     * than 21, after which a difference cancels at most one bit and the sticky bit stays below the
     * rounding position. */
    fp_wide_t small = fp_shr_sticky_wide(b.sig, a.exp - b.exp);
    if (a.sign == b.sign) {
        a.sig += small;
        if (a.sig >> 127) {
            a.sig = fp_shr_sticky_wide(a.sig, 1);
            a.exp++;
        }
    } else {
        a.sig -= small;
        if (!a.sig)
            return fp_zero(f, env->rm == FP_RDN);
        int shift = clz_wide(a.sig) - 1;
        a.sig <<= shift;
        a.exp -= shift;
    }
    return round_term(f, &a, env);
}

/** The quiet NaN that any operation with a NaN operand gives; NV if one signals. */
fp_inline uint64_t propagate_nan(const struct fp_format *f, bool signaling, struct fp_env *env)
{
    return signaling ? fp_invalid(f, env) : fp_nan(f);
}

fp_inline uint64_t generic_add(const struct fp_format *f, uint64_t abits, uint64_t bbits,
                               struct fp_env *env)
{
    struct fp_num a = fp_unpack(f, abits);
    struct fp_num b = fp_unpack(f, bbits);

    if (a.kind == FP_FINITE && b.kind == FP_FINITE)
        return sum_terms(f, term_of(&a), term_of(&b), env);
    if (a.kind == FP_NAN || b.kind == FP_NAN)
        return propagate_nan(f, a.signaling || b.signaling, env);
    if (a.kind == FP_INF)
        return b.kind == FP_INF && a.sign != b.sign ? fp_invalid(f, env) : abits;
    if (b.kind == FP_INF || b.kind == FP_FINITE)
        return bbits;
    if (a.kind == FP_FINITE)
        return abits;
    return a.sign == b.sign ? abits : fp_zero(f, env->rm == FP_RDN);
}

fp_inline uint64_t generic_mul(const struct fp_format *f, uint64_t abits, uint64_t bbits,
                               struct fp_env *env)
{
    struct fp_num a = fp_unpack(f, abits);
    struct fp_num b = fp_unpack(f, bbits);
    bool sign = a.sign != b.sign;

    if (a.kind == FP_FINITE && b.kind == FP_FINITE) {
        struct fp_sum_term t = product_of(&a, &b);

        return round_term(f, &t, env);
    }
    if (a.kind == FP_NAN || b.kind == FP_NAN)
        return propagate_nan(f, a.signaling || b.signaling, env);
    if (a.kind == FP_INF || b.kind == FP_INF)
        return a.kind == FP_ZERO || b.kind == FP_ZERO ? fp_invalid(f, env) : fp_inf(f, sign);
    return fp_zero(f, sign);
}

fp_inline uint64_t generic_div(const struct fp_format *f, uint64_t abits, uint64_t bbits,
                               struct fp_env *env)
{
    struct fp_num a = fp_unpack(f, abits);
    struct fp_num b = fp_unpack(f, bbits);
    bool sign = a.sign != b.sign;

    if (a.kind == FP_FINITE && b.kind == FP_FINITE) {
        /* Scale the dividend so that the quotient has exactly 64 bits. */
        bool less = a.sig < b.sig;
        fp_wide_t n = (fp_wide_t)a.sig << (less ? 64 : 63);
        uint64_t q = (uint64_t)(n / b.sig);
        uint64_t sticky = (fp_wide_t)q * b.sig != n;

        return fp_round_pack(f, sign, a.exp - b.exp - less, q | sticky, env);
    }
    if (a.kind == FP_NAN || b.kind == FP_NAN)
        return propagate_nan(f, a.signaling || b.signaling, env);
    if (a.kind == b.kind)
        return fp_invalid(f, env); /* 0/0, inf/inf */
    if (a.kind == FP_INF)
        return fp_inf(f, sign);
    if (b.kind == FP_ZERO) {
        env->flags |= FP_DZ;
        return fp_inf(f, sign);
    }
    return fp_zero(f, sign);
}

/** floor(sqrt(@v)) for @v >= 2^126, digit by digit; *@ret_exact = no remainder. */
static uint64_t sqrt_wide(fp_wide_t v, bool *ret_exact)
{
    fp_wide_t rest = v;
    fp_wide_t root = 0;

    for (int i = 126; i >= 0; i -= 2) {
        fp_wide_t trial = root + ((fp_wide_t)1 << i);

        root >>= 1;
        if (rest >= trial) {
            rest -= trial;
            root += (fp_wide_t)1 << i;
        }
    }
    *ret_exact = rest == 0;
    return (uint64_t)root;
}

fp_inline uint64_t generic_sqrt(const struct fp_format *f, uint64_t abits, struct fp_env *env)
{
    struct fp_num a = fp_unpack(f, abits);
    bool exact;

    if (a.kind == FP_NAN)
        return propagate_nan(f, a.signaling, env);
    if (a.kind == FP_ZERO)
        return abits;
    if (a.sign)
        return fp_invalid(f, env);
    if (a.kind == FP_INF)
        return abits;
    int odd = a.exp & 1;
    uint64_t root = sqrt_wide((fp_wide_t)a.sig << (63 + odd), &exact);
    return fp_round_pack(f, false, (a.exp - odd) / 2, root | !exact, env);
}

fp_inline uint64_t generic_fma(const struct fp_format *f, uint64_t abits, uint64_t bbits,
                               uint64_t cbits, struct fp_env *env)
{
    struct fp_num a = fp_unpack(f, abits);
    struct fp_num b = fp_unpack(f, bbits);
    struct fp_num c = fp_unpack(f, cbits);
    bool sign = a.sign != b.sign;
    bool inf_times_zero =
        (a.kind == FP_INF && b.kind == FP_ZERO) || (a.kind == FP_ZERO && b.kind == FP_INF);

    /* RISC-V: NV for inf * 0 + NaN even when the addend is quiet. */
    if (inf_times_zero)
        return fp_invalid(f, env);
    if (a.kind == FP_NAN || b.kind == FP_NAN || c.kind == FP_NAN)
        return propagate_nan(f, a.signaling || b.signaling || c.signaling, env);
    if (a.kind == FP_INF || b.kind == FP_INF)
        return c.kind == FP_INF && c.sign != sign ? fp_invalid(f, env) : fp_inf(f, sign);
    if (c.kind == FP_INF)
        return cbits;
    if (a.kind == FP_ZERO || b.kind == FP_ZERO) {
        if (c.kind == FP_ZERO && c.sign != sign)
            return fp_zero(f, env->rm == FP_RDN);
        return cbits;
    }
    struct fp_sum_term product = product_of(&a, &b);
    if (c.kind == FP_ZERO)
        return round_term(f, &product, env);
    return sum_terms(f, product, term_of(&c), env);
}

#define FP_ARITH(w)                                                                               \
    uint##w##_t fp##w##_add(uint##w##_t a, uint##w##_t b, struct fp_env *env)                     \
    {                                                                                             \
        return (uint##w##_t)generic_add(&fp_format_##w, a, b, env);                               \
    }                                                                                             \
    uint##w##_t fp##w##_sub(uint##w##_t a, uint##w##_t b, struct fp_env *env)                     \
    {                                                                                             \
        return (uint##w##_t)generic_add(&fp_format_##w, a, b ^ fp_sign_bit(&fp_format_##w), env); \
    }                                                                                             \
    uint##w##_t fp##w##_mul(uint##w##_t a, uint##w##_t b, struct fp_env *env)                     \
    {                                                                                             \
        return (uint##w##_t)generic_mul(&fp_format_##w, a, b, env);                               \
    }                                                                                             \
    uint##w##_t fp##w##_div(uint##w##_t a, uint##w##_t b, struct fp_env *env)                     \
    {                                                                                             \
        return (uint##w##_t)generic_div(&fp_format_##w, a, b, env);                               \
    }                                                                                             \
    uint##w##_t fp##w##_sqrt(uint##w##_t a, struct fp_env *env)                                   \
    {                                                                                             \
        return (uint##w##_t)generic_sqrt(&fp_format_##w, a, env);                                 \
    }                                                                                             \
    uint##w##_t fp##w##_fma(uint##w##_t a, uint##w##_t b, uint##w##_t c, struct fp_env *env)      \
    {                                                                                             \
        return (uint##w##_t)generic_fma(&fp_format_##w, a, b, c, env);                            \
    }
FP_ARITH(16)
FP_ARITH(32)
FP_ARITH(64)
