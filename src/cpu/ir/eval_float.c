/* Floating point operations of the IR in C, by the host's own arithmetic in C and <math.h>; the
 * generated code's special cases (NaNs, saturation, fused flags) are written out here. */
#include "base/bits.h"
#include "cpu/ir/eval.h"

#include <fenv.h>
#include <math.h>

#define NAN64 0x7ff8000000000000ULL
#define NAN32 0x7fc00000ULL

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
static uint64_t bits64(double d)
{
    uint64_t v;

    memcpy(&v, &d, 8);
    return d != d ? NAN64 : v;
}
static uint64_t bits32(float f)
{
    uint32_t v;

    memcpy(&v, &f, 4);
    return f != f ? NAN32 : v;
}
static bool is_nan(bool is64, uint64_t v)
{
    return is64 ? (v << 1) > 0xffe0000000000000ULL : (v << 33 >> 32) > 0xff000000ULL;
}
static bool is_signaling(bool is64, uint64_t v)
{
    return is_nan(is64, v) && !(v >> (is64 ? 51 : 22) & 1);
}

/* Two-operand arithmetic must happen at run time, in order, exactly once. */
static uint64_t arith64(enum ir_op op, uint64_t x, uint64_t y)
{
    volatile double a = f64_of(x), b = f64_of(y), r;

    r = op == IR_FADD ? a + b : op == IR_FSUB ? a - b : op == IR_FMUL ? a * b : a / b;
    return bits64(r);
}
static uint64_t arith32(enum ir_op op, uint64_t x, uint64_t y)
{
    volatile float a = f32_of(x), b = f32_of(y), r;

    r = op == IR_FADD ? a + b : op == IR_FSUB ? a - b : op == IR_FMUL ? a * b : a / b;
    return bits32(r);
}

static uint64_t fused(enum ir_op op, bool is64, const uint64_t *v)
{
    uint64_t sign = BIT(is64 ? 63 : 31), x = v[0], z = v[2];

    if (op == IR_FNMADD || op == IR_FNMSUB)
        x ^= sign;
    if (op == IR_FNMADD || op == IR_FMSUB)
        z ^= sign;
    if (is64) {
        volatile double a = f64_of(x), b = f64_of(v[1]), c = f64_of(z);

        if ((isinf(a) && b == 0) || (a == 0 && isinf(b)))
            feraiseexcept(FE_INVALID);
        return bits64(fma(a, b, c));
    }
    volatile float a = f32_of(x), b = f32_of(v[1]), c = f32_of(z);

    if ((isinf(a) && b == 0) || (a == 0 && isinf(b)))
        feraiseexcept(FE_INVALID);
    return bits32(fmaf(a, b, c));
}

/** Total order of non-NaNs as integers, with -0 below +0. */
static int64_t order(bool is64, uint64_t v)
{
    int64_t s = is64 ? (int64_t)v : (int32_t)v;

    return s < 0 ? INT64_MIN - s - 1 : s;
}
static bool is_zero(bool is64, uint64_t v)
{
    return !(v << (is64 ? 1 : 33));
}

static uint64_t min_max(bool is_min, bool is64, uint64_t x, uint64_t y)
{
    if (is_signaling(is64, x) || is_signaling(is64, y))
        feraiseexcept(FE_INVALID);
    if (is_nan(is64, x))
        return is_nan(is64, y) ? (is64 ? NAN64 : NAN32) : y;
    if (is_nan(is64, y))
        return x;
    if (!is64) {
        float a = f32_of(x), b = f32_of(y);

        if (a == b)
            return (x >> 31 & 1) == is_min ? x : y;
        return (a < b) == is_min ? x : y;
    }
    return (order(true, x) < order(true, y)) == is_min ? x : y;
}

static uint64_t compare(enum ir_op op, bool is64, uint64_t x, uint64_t y)
{
    bool nan = is_nan(is64, x) || is_nan(is64, y);
    double a, b;

    if (is_signaling(is64, x) || is_signaling(is64, y) || (nan && op != IR_FEQ))
        feraiseexcept(FE_INVALID);
    if (nan)
        return 0;
    if (is_zero(is64, x) && is_zero(is64, y))
        return op != IR_FLT;
    a = is64 ? f64_of(x) : (double)f32_of(x);
    b = is64 ? f64_of(y) : (double)f32_of(y);
    return op == IR_FEQ ? a == b : op == IR_FLT ? a < b : a <= b;
}

static uint64_t classify(bool is64, uint64_t v)
{
    unsigned sign = v >> (is64 ? 63 : 31) & 1;
    uint64_t exponent = is64 ? BITS(v, 62, 52) : BITS(v, 30, 23);
    uint64_t fraction = is64 ? BITS(v, 51, 0) : BITS(v, 22, 0);

    if (is_nan(is64, v))
        return is_signaling(is64, v) ? BIT(8) : BIT(9);
    if (exponent == (is64 ? 0x7ff : 0xff))
        return BIT(sign ? 0 : 7);
    if (exponent)
        return BIT(sign ? 1 : 6);
    return BIT(fraction ? (sign ? 2 : 5) : (sign ? 3 : 4));
}

unsigned __int128 ir_float_magnitude(bool is64, uint64_t v, enum ir_round rm, bool *ret_inexact)
{
    int exponent = (int)(is64 ? BITS(v, 62, 52) : BITS(v, 30, 23));
    uint64_t fraction = is64 ? BITS(v, 51, 0) : BITS(v, 22, 0), rest, half;
    unsigned __int128 r;

    if (exponent)
        fraction |= BIT(is64 ? 52 : 23);
    exponent = MAX(exponent, 1) - (is64 ? 1075 : 150);
    *ret_inexact = false;
    if (exponent >= 0)
        return exponent > 70 ? ~(unsigned __int128)0 : (unsigned __int128)fraction << exponent;
    if (exponent < -63) {
        *ret_inexact = fraction != 0;
        return 0;
    }
    r = fraction >> -exponent;
    rest = fraction & MASK(-exponent);
    half = BIT(-exponent - 1);
    *ret_inexact = rest != 0;
    if (rm == IR_RNE && (rest > half || (rest == half && (r & 1))))
        r++;
    return r;
}

static uint64_t to_integer(const struct ir_insn *i, bool is64, uint64_t v)
{
    bool is_signed = i->op == IR_FTOI, negative = v >> (is64 ? 63 : 31) & 1, inexact;
    unsigned bits = 8 * ir_type_size(i->type);
    uint64_t max = MASK(is_signed ? bits - 1 : bits);
    unsigned __int128 m, limit = negative ? (is_signed ? (unsigned __int128)max + 1 : 0) : max;

    if (is_nan(is64, v)) {
        feraiseexcept(FE_INVALID);
        return max;
    }
    m = ir_float_magnitude(is64, v, i->aux, &inexact);
    if (m > limit) {
        feraiseexcept(FE_INVALID);
        m = limit;
    } else if (inexact) {
        feraiseexcept(FE_INEXACT);
    }
    return (negative ? -(uint64_t)m : (uint64_t)m) & MASK(bits);
}

static uint64_t from_integer(const struct ir_insn *i, uint64_t v)
{
    int64_t s = sext(v, 8 * i->size);
    uint64_t u = v & MASK(8 * i->size);

    if (i->type == IR_F64) {
        volatile double d = i->op == IR_ITOF ? (double)s : (double)u;
        return bits64(d);
    }
    volatile float f = i->op == IR_ITOF ? (float)s : (float)u;
    return bits32(f);
}

static uint64_t sign_inject(enum ir_op op, bool is64, uint64_t x, uint64_t y)
{
    uint64_t mask = BIT(is64 ? 63 : 31);

    if (op == IR_FSGNJN)
        y = ~y;
    return op == IR_FSGNJX ? x ^ (y & mask) : (x & ~mask) | (y & mask);
}

static uint64_t convert(bool from64, uint64_t v)
{
    if (from64) {
        volatile double d = f64_of(v);
        volatile float f = (float)d;
        return bits32(f);
    }
    volatile float f = f32_of(v);
    volatile double d = (double)f;
    return bits64(d);
}

bool ir_eval_float(const struct ir_insn *i, const enum ir_type *types, const uint64_t *v,
                   uint64_t *ret)
{
    bool is64 = types[0] == IR_F64;

    switch ((enum ir_op)i->op) {
    case IR_FADD:
    case IR_FSUB:
    case IR_FMUL:
    case IR_FDIV:
        *ret = is64 ? arith64(i->op, v[0], v[1]) : arith32(i->op, v[0], v[1]);
        return true;
    case IR_FSQRT: {
        volatile double d = f64_of(v[0]);
        volatile float f = f32_of(v[0]);

        *ret = is64 ? bits64(sqrt(d)) : bits32(sqrtf(f));
        return true;
    }
    case IR_FMADD:
    case IR_FMSUB:
    case IR_FNMADD:
    case IR_FNMSUB:
        *ret = fused(i->op, is64, v);
        return true;
    case IR_FMIN:
    case IR_FMAX:
        *ret = min_max(i->op == IR_FMIN, is64, v[0], v[1]);
        return true;
    case IR_FEQ:
    case IR_FLT:
    case IR_FLE:
        *ret = compare(i->op, is64, v[0], v[1]);
        return true;
    case IR_FCLASS:
        *ret = classify(is64, v[0]);
        return true;
    case IR_FSGNJ:
    case IR_FSGNJN:
    case IR_FSGNJX:
        *ret = sign_inject(i->op, is64, v[0], v[1]);
        return true;
    case IR_FCVT:
        *ret = convert(is64, v[0]);
        return true;
    case IR_FTOI:
    case IR_FTOU:
        *ret = to_integer(i, is64, v[0]);
        return true;
    case IR_ITOF:
    case IR_UTOF:
        *ret = from_integer(i, v[0]);
        return true;
    case IR_BITCAST:
        *ret = v[0] & MASK(8 * ir_type_size(i->type));
        return true;
    case IR_FBOX:
        *ret = 0xffffffff00000000ULL | (uint32_t)v[0];
        return true;
    case IR_FUNBOX:
        *ret = v[0] >> 32 == 0xffffffff ? (uint32_t)v[0] : NAN32;
        return true;
    default:
        return false;
    }
}
