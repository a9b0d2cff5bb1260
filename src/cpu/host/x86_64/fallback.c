/* Operations as C functions, for hosts without the instruction and for rare operands. All have the
 * form uint64_t fn(void *state, uint64_t...), floating point operands as bits. Those that raise
 * exceptions do it in MXCSR, which their caller keeps. */
#include "cpu/host/x86_64/asm.h"

#include "base/bits.h"
#include "cpu/ir/eval.h"

#include <math.h>
#include <xmmintrin.h>

static double f64_of(uint64_t v)
{
    double d;

    memcpy(&d, &v, 8);
    return d;
}
static float f32_of(uint64_t v)
{
    float f;

    memcpy(&f, &v, 4);
    return f;
}
static uint64_t bits_f64(double d)
{
    uint64_t v;

    memcpy(&v, &d, 8);
    return d != d ? 0x7ff8000000000000ULL : v;
}
static uint64_t bits_f32(float f)
{
    uint32_t v;

    memcpy(&v, &f, 4);
    return f != f ? 0x7fc00000 : v;
}

/** Accrue an exception where generated code does: feraiseexcept() may do it in the x87 unit. */
static void raise(unsigned exception)
{
    _mm_setcsr(_mm_getcsr() | exception);
}

static uint64_t popcnt32(void *state, uint64_t v)
{
    return (uint64_t)__builtin_popcount((uint32_t)v);
}
static uint64_t popcnt64(void *state, uint64_t v)
{
    return (uint64_t)__builtin_popcountll(v);
}

static uint64_t brev8(void *state, uint64_t v)
{
    v = (v >> 1 & 0x5555555555555555ULL) | (v & 0x5555555555555555ULL) << 1;
    v = (v >> 2 & 0x3333333333333333ULL) | (v & 0x3333333333333333ULL) << 2;
    return (v >> 4 & 0x0f0f0f0f0f0f0f0fULL) | (v & 0x0f0f0f0f0f0f0f0fULL) << 4;
}

static uint64_t clmul(void *state, uint64_t x, uint64_t y)
{
    uint64_t r = 0;

    for (unsigned n = 0; n < 64; n++)
        r ^= y >> n & 1 ? x << n : 0;
    return r;
}
static uint64_t clmulr(void *state, uint64_t x, uint64_t y)
{
    uint64_t r = 0;

    for (unsigned n = 0; n < 64; n++)
        r ^= y >> n & 1 ? x >> (63 - n) : 0;
    return r;
}
static uint64_t clmulh(void *state, uint64_t x, uint64_t y)
{
    return clmulr(state, x, y) >> 1;
}

static uint64_t fclass(bool sign, uint64_t exponent, uint64_t exponent_max, uint64_t fraction,
                       bool quiet)
{
    if (exponent == exponent_max)
        return fraction ? (quiet ? BIT(9) : BIT(8)) : sign ? BIT(0) : BIT(7);
    if (exponent)
        return sign ? BIT(1) : BIT(6);
    if (fraction)
        return sign ? BIT(2) : BIT(5);
    return sign ? BIT(3) : BIT(4);
}
static uint64_t fclass64(void *state, uint64_t v)
{
    return fclass(v >> 63, BITS(v, 62, 52), 0x7ff, BITS(v, 51, 0), v >> 51 & 1);
}
static uint64_t fclass32(void *state, uint64_t v)
{
    return fclass(v >> 31 & 1, BITS(v, 30, 23), 0xff, BITS(v, 22, 0), v >> 22 & 1);
}

/* Negating an operand is exact, but for the sign of NaNs, which is gone in the result. */
static uint64_t fma64(uint64_t x, uint64_t y, uint64_t z)
{
    double a = f64_of(x), b = f64_of(y), c = f64_of(z);

    if ((isinf(a) && b == 0) || (a == 0 && isinf(b)))
        raise(_MM_EXCEPT_INVALID); /* even if c is a quiet NaN */
    return bits_f64(fma(a, b, c));
}
static uint64_t fma32(uint64_t x, uint64_t y, uint64_t z)
{
    float a = f32_of(x), b = f32_of(y), c = f32_of(z);

    if ((isinf(a) && b == 0) || (a == 0 && isinf(b)))
        raise(_MM_EXCEPT_INVALID);
    return bits_f32(fmaf(a, b, c));
}
#define FUSED(name, bits, flip_x, flip_z)                                                        \
    static uint64_t name##bits(void *state, uint64_t x, uint64_t y, uint64_t z)                  \
    {                                                                                            \
        return fma##bits((flip_x) ? x ^ BIT((bits)-1) : x, y, (flip_z) ? z ^ BIT((bits)-1) : z); \
    }
FUSED(fmadd, 64, 0, 0)
FUSED(fmsub, 64, 0, 1)
FUSED(fnmadd, 64, 1, 1)
FUSED(fnmsub, 64, 1, 0)
FUSED(fmadd, 32, 0, 0)
FUSED(fmsub, 32, 0, 1)
FUSED(fnmadd, 32, 1, 1)
FUSED(fnmsub, 32, 1, 0)

/** To an unsigned integer of @bits, with every special case. */
static uint64_t to_unsigned(bool is64, uint64_t v, uint64_t rm, uint64_t bits)
{
    bool negative = v >> (is64 ? 63 : 31) & 1, inexact;
    unsigned __int128 m;

    if (is64 ? isnan(f64_of(v)) : isnan(f32_of(v))) {
        raise(_MM_EXCEPT_INVALID);
        return MASK(bits);
    }
    m = ir_float_magnitude(is64, v, (enum ir_round)rm, &inexact);
    if (m > (negative ? 0 : MASK(bits))) {
        raise(_MM_EXCEPT_INVALID);
        return negative ? 0 : MASK(bits);
    }
    if (inexact)
        raise(_MM_EXCEPT_INEXACT);
    return (uint64_t)m;
}
static uint64_t ftou64(void *state, uint64_t v, uint64_t rm, uint64_t bits)
{
    return to_unsigned(true, v, rm, bits);
}
static uint64_t ftou32(void *state, uint64_t v, uint64_t rm, uint64_t bits)
{
    return to_unsigned(false, (uint32_t)v, rm, bits);
}

void (*fallback_for(enum ir_op op, enum ir_type type))(void)
{
    bool single = ir_type_size(type) == 4;

#define PICK(f32, f64) (single ? (void (*)(void))(f32) : (void (*)(void))(f64))
    switch (op) {
    case IR_POPCNT:
        return PICK(popcnt32, popcnt64);
    case IR_BREV8:
        return (void (*)(void))brev8;
    case IR_CLMUL:
        return (void (*)(void))clmul;
    case IR_CLMULH:
        return (void (*)(void))clmulh;
    case IR_CLMULR:
        return (void (*)(void))clmulr;
    case IR_FCLASS:
        return PICK(fclass32, fclass64);
    case IR_FMADD:
        return PICK(fmadd32, fmadd64);
    case IR_FMSUB:
        return PICK(fmsub32, fmsub64);
    case IR_FNMADD:
        return PICK(fnmadd32, fnmadd64);
    case IR_FNMSUB:
        return PICK(fnmsub32, fnmsub64);
    default: /* FTOU, by its operand's type */
        return PICK(ftou32, ftou64);
    }
#undef PICK
}
