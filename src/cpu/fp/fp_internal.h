/* The unpacked form that all formats share, unpacking, and the one rounding step. */
#ifndef CPU_FP_FP_INTERNAL_H
#define CPU_FP_FP_INTERNAL_H

#include "base/bits.h"
#include "base/macros.h"
#include "cpu/fp/fp.h"

/* Everything is inlined into one instance per format, where the format is a constant. */
#define fp_inline static inline __attribute__((always_inline))

typedef unsigned __int128 fp_wide_t;

struct fp_format {
    unsigned exp_bits;
    unsigned frac_bits;
};

static const struct fp_format fp_format_16 = {5, 10};
static const struct fp_format fp_format_32 = {8, 23};
static const struct fp_format fp_format_64 = {11, 52};

enum fp_kind { FP_ZERO, FP_FINITE, FP_INF, FP_NAN };

/* FP_FINITE: the value is (-1)^sign * sig * 2^(exp - 63), with bit 63 of sig set. */
struct fp_num {
    enum fp_kind kind;
    bool sign;
    bool signaling; /* FP_NAN only */
    int exp;
    uint64_t sig;
};

fp_inline int fp_bias(const struct fp_format *f)
{
    return (1 << (f->exp_bits - 1)) - 1;
}

fp_inline uint64_t fp_sign_bit(const struct fp_format *f)
{
    return BIT(f->exp_bits + f->frac_bits);
}

fp_inline uint64_t fp_inf(const struct fp_format *f, bool sign)
{
    return MASK(f->exp_bits) << f->frac_bits | (sign ? fp_sign_bit(f) : 0);
}

fp_inline uint64_t fp_zero(const struct fp_format *f, bool sign)
{
    return sign ? fp_sign_bit(f) : 0;
}

fp_inline uint64_t fp_nan(const struct fp_format *f)
{
    return fp_inf(f, false) | BIT(f->frac_bits - 1);
}

fp_inline bool fp_is_nan(const struct fp_format *f, uint64_t a)
{
    return (a & (fp_sign_bit(f) - 1)) > fp_inf(f, false);
}

fp_inline bool fp_is_snan(const struct fp_format *f, uint64_t a)
{
    return fp_is_nan(f, a) && !(a & BIT(f->frac_bits - 1));
}

fp_inline uint64_t fp_invalid(const struct fp_format *f, struct fp_env *env)
{
    env->flags |= FP_NV;
    return fp_nan(f);
}

fp_inline struct fp_num fp_unpack(const struct fp_format *f, uint64_t a)
{
    int biased = (int)((a >> f->frac_bits) & MASK(f->exp_bits));
    uint64_t frac = a & MASK(f->frac_bits);
    struct fp_num n = {.kind = FP_FINITE, .sign = (a & fp_sign_bit(f)) != 0};

    if (biased == (int)MASK(f->exp_bits)) {
        n.kind = frac ? FP_NAN : FP_INF;
        n.signaling = frac && !(frac & BIT(f->frac_bits - 1));
    } else if (biased) {
        n.exp = biased - fp_bias(f);
        n.sig = (frac | BIT(f->frac_bits)) << (63 - f->frac_bits);
    } else if (frac) {
        int shift = __builtin_clzll(frac);

        n.exp = 1 - fp_bias(f) + (63 - (int)f->frac_bits) - shift;
        n.sig = frac << shift;
    } else {
        n.kind = FP_ZERO;
    }
    return n;
}

/** @v >> @n for any @n >= 0; bits that fall off are kept as a one in bit 0 ("sticky"). */
fp_inline uint64_t fp_shr_sticky(uint64_t v, int n)
{
    if (n == 0)
        return v;
    if (n > 63)
        return v != 0;
    return v >> n | ((v & MASK(n)) != 0);
}

fp_inline fp_wide_t fp_shr_sticky_wide(fp_wide_t v, int n)
{
    if (n == 0)
        return v;
    if (n > 127)
        return v != 0;
    return v >> n | ((v & (((fp_wide_t)1 << n) - 1)) != 0);
}

/** Must the magnitude @v >> @drop be increased by one to round away its low @drop bits? 1 <= @drop
 * <= 63. */
fp_inline bool fp_rounds_up(uint64_t v, unsigned drop, bool sign, unsigned rm)
{
    uint64_t low = v & MASK(drop);
    uint64_t half = BIT(drop - 1);

    switch (rm) {
    case FP_RTZ:
        return false;
    case FP_RDN:
        return sign && low;
    case FP_RUP:
        return !sign && low;
    case FP_RMM:
        return low >= half;
    default:
        return low > half || (low == half && (v >> drop & 1));
    }
}

fp_inline uint64_t fp_overflow(const struct fp_format *f, bool sign, struct fp_env *env)
{
    bool to_max = env->rm == FP_RTZ || (env->rm == FP_RDN && !sign) || (env->rm == FP_RUP && sign);

    env->flags |= FP_OF | FP_NX;
    return fp_inf(f, sign) - to_max;
}

/** Round (-1)^@sign * @sig * 2^(@exp - 63) to format @f and pack it. Bit 63 of @sig is set; its bit
 * 0 may be sticky. */
fp_inline uint64_t fp_round_pack(const struct fp_format *f, bool sign, int exp, uint64_t sig,
                                 struct fp_env *env)
{
    unsigned drop = 63 - f->frac_bits;
    int biased = exp + fp_bias(f);
    bool tiny = false;

    if (biased < 1) {
        /* Tiny after rounding: would the value stay below 2^emin with an unbounded exponent? */
        tiny = biased < 0 || !fp_rounds_up(sig, drop, sign, env->rm) ||
               (sig >> drop) != MASK(f->frac_bits + 1);
        sig = fp_shr_sticky(sig, 1 - biased);
        biased = 1;
    }
    if (sig & MASK(drop))
        env->flags |= FP_NX | (tiny ? FP_UF : 0);
    uint64_t kept = (sig >> drop) + fp_rounds_up(sig, drop, sign, env->rm);
    /* The implicit bit (absent from a subnormal) and any carry add to the exponent field. */
    uint64_t bits = ((uint64_t)(biased - 1) << f->frac_bits) + kept;
    if (biased > (int)MASK(f->exp_bits) || bits >= fp_inf(f, false))
        return fp_overflow(f, sign, env);
    return bits | fp_zero(f, sign);
}

#endif
