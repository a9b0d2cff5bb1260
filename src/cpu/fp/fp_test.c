/* Tests of fp: rules that RISC-V chose, by hand; every rounding mode, by an oracle for binary16
 * that finds the result by binary search over all values instead of by shifting. */
#include "base/bits.h"
#include "base/test.h"
#include "cpu/fp/fp.h"

typedef __int128 wide;

/* An exact result, known by how it compares with t * 2^-26 for any t >= 0. Its sign is apart. */
struct exact {
    enum { RATIO, ROOT, FIXED } kind;
    bool sign;
    wide n, d; /* RATIO: n/d. ROOT: sqrt(n * 2^-24). FIXED: n * 2^-48. */
};

static int sign_of(wide v)
{
    return (v > 0) - (v < 0);
}

static int exact_cmp(const struct exact *x, wide t)
{
    switch (x->kind) {
    case RATIO:
        return sign_of((x->n << 26) - t * x->d);
    case ROOT:
        return sign_of((x->n << 28) - t * t);
    default:
        return sign_of(x->n - (t << 22));
    }
}

/* Finite binary16 magnitudes in units of 2^-24; 0x7c00 stands for 2^16. */
static int64_t f16_units(unsigned magnitude)
{
    unsigned e = magnitude >> 10;

    return e ? (int64_t)(1024 + magnitude % 1024) << (e - 1) : (int64_t)magnitude;
}

static bool away(unsigned rm, bool sign, int cmp_middle, bool exact, bool odd)
{
    switch (rm) {
    case FP_RNE:
        return cmp_middle > 0 || (cmp_middle == 0 && odd);
    case FP_RMM:
        return cmp_middle >= 0;
    case FP_RTZ:
        return false;
    default:
        return !exact && sign == (rm == FP_RDN);
    }
}

static uint16_t oracle_round(const struct exact *x, unsigned rm, unsigned *ret_flags)
{
    unsigned lo = 0;
    unsigned hi = 0x7c00;

    while (hi - lo > 1) { /* greatest magnitude not above the exact one */
        unsigned mid = (lo + hi) / 2;

        if (exact_cmp(x, (wide)f16_units(mid) * 4) >= 0)
            lo = mid;
        else
            hi = mid;
    }
    wide below = (wide)f16_units(lo) * 4;
    wide above = (wide)f16_units(lo + 1) * 4;
    bool exact = exact_cmp(x, below) == 0;
    unsigned flags = exact ? 0 : FP_NX;
    unsigned result = lo + away(rm, x->sign, exact_cmp(x, (below + above) / 2), exact, lo & 1);
    if (lo == 0x7bff && exact_cmp(x, above) >= 0) { /* 2^16 or more */
        result = away(rm, x->sign, 1, false, true) ? 0x7c00 : 0x7bff;
        flags = FP_OF | FP_NX;
    } else if (result == 0x7c00) {
        flags |= FP_OF;
    }
    /* With an unbounded exponent the neighbours of 2^-14 below are 2^-25 apart. */
    wide normal = 1 << 12;
    if (!exact && exact_cmp(x, normal) < 0) {
        bool up = exact_cmp(x, normal - 2) > 0 &&
                  away(rm, x->sign, exact_cmp(x, normal - 1), false, true);
        flags |= up ? 0 : FP_UF;
    }
    *ret_flags = flags;
    return (uint16_t)(result | (x->sign ? 0x8000 : 0));
}

static int64_t f16_signed_units(uint16_t a)
{
    int64_t m = f16_units(a & 0x7fff);

    return a & 0x8000 ? -m : m;
}

static uint64_t rnd_state = 0x9e3779b97f4a7c15;

static uint64_t rnd(void)
{
    rnd_state ^= rnd_state << 13;
    rnd_state ^= rnd_state >> 7;
    rnd_state ^= rnd_state << 17;
    return rnd_state * 0x2545f4914f6cdd1d;
}

/* A finite binary16, often near a boundary. */
static uint16_t rnd_f16(void)
{
    static const uint16_t near[] = {0, 1, 0x3ff, 0x400, 0x3c00, 0x7bff, 0x5000, 0x2000};
    uint64_t r = rnd();
    uint16_t a = (uint16_t)(r >> 16);

    if (r % 4 == 0)
        a = (uint16_t)((near[(r >> 8) % 8] + (r >> 32) % 5 - 2) | (a & 0x8000));
    return (a & 0x7c00) == 0x7c00 ? a & 0x83ff : a;
}

static bool check16(const char *op, unsigned rm, uint16_t a, uint16_t b, uint16_t c,
                    const struct exact *x, uint16_t got, unsigned got_flags)
{
    unsigned flags;
    uint16_t want = oracle_round(x, rm, &flags);

    if (got == want && got_flags == flags)
        return true;
    test_fail(__FILE__, __LINE__, "%s rm %u %04x %04x %04x: %04x flags %x, want %04x flags %x", op,
              rm, a, b, c, got, got_flags, want, flags);
    return false;
}

static struct exact exact_sum(wide n)
{
    return (struct exact){.kind = FIXED, .sign = n < 0, .n = n < 0 ? -n : n, .d = 1};
}

static void check16_all(unsigned rm, uint16_t a, uint16_t b, uint16_t c)
{
    wide ua = f16_signed_units(a);
    wide ub = f16_signed_units(b);
    wide uc = f16_signed_units(c);
    struct fp_env e = {.rm = (uint8_t)rm};
    uint16_t r;
    struct exact x = exact_sum((ua + ub) * (1 << 24));

    r = fp16_add(a, b, &e);
    if (x.n) /* the sign of a zero is tested by hand */
        ASSERT_TRUE(check16("add", rm, a, b, 0, &x, r, e.flags));
    x = exact_sum((ua - ub) * (1 << 24));
    e.flags = 0;
    r = fp16_sub(a, b, &e);
    if (x.n)
        ASSERT_TRUE(check16("sub", rm, a, b, 0, &x, r, e.flags));
    x = exact_sum(ua * ub);
    x.sign = (a ^ b) >> 15;
    e.flags = 0;
    r = fp16_mul(a, b, &e);
    ASSERT_TRUE(check16("mul", rm, a, b, 0, &x, r, e.flags));
    x = exact_sum(ua * ub + uc * (1 << 24));
    e.flags = 0;
    r = fp16_fma(a, b, c, &e);
    if (x.n)
        ASSERT_TRUE(check16("fma", rm, a, b, c, &x, r, e.flags));
    x = (struct exact){RATIO, ((a ^ b) >> 15) != 0, f16_units(a & 0x7fff), f16_units(b & 0x7fff)};
    e.flags = 0;
    r = fp16_div(a, b, &e);
    if (ub)
        ASSERT_TRUE(check16("div", rm, a, b, 0, &x, r, e.flags));
}

TEST(binary16_random_in_all_modes)
{
    for (int i = 0; i < 300000; i++)
        check16_all((unsigned)i % 5, rnd_f16(), rnd_f16(), rnd_f16());
}

TEST(binary16_sqrt_of_all)
{
    for (unsigned a = 1; a < 0x7c00; a++) {
        for (unsigned rm = 0; rm < 5; rm++) {
            struct fp_env e = {.rm = (uint8_t)rm};
            struct exact x = {ROOT, false, f16_units(a), 1};
            uint16_t r = fp16_sqrt((uint16_t)a, &e);

            ASSERT_TRUE(check16("sqrt", rm, (uint16_t)a, 0, 0, &x, r, e.flags));
        }
    }
}

TEST(binary16_from_integers_and_wider_formats)
{
    for (int i = 0; i < 300000; i++) {
        unsigned rm = (unsigned)i % 5;
        struct fp_env e = {.rm = (uint8_t)rm};
        int32_t v = (int32_t)rnd() >> rnd() % 32;
        struct exact x = exact_sum((wide)v * ((wide)1 << 48));
        uint16_t r = fp16_from_i32(v, &e);

        ASSERT_TRUE(check16("from_i32", rm, 0, 0, 0, &x, r, e.flags));
        /* The 48-bit fixed-point value v * 2^-48 is a binary64. */
        int64_t fixed = (int64_t)(rnd() >> 11) >> rnd() % 52;
        struct fp_env exact_env = {.rm = FP_RTZ};
        uint64_t d = fp64_from_i64(fixed, &exact_env);
        ASSERT_EQ(exact_env.flags, 0);
        x = exact_sum(fixed);
        e.flags = 0;
        r = fp64_to_fp16(fixed ? d - ((uint64_t)48 << 52) : 0, &e);
        ASSERT_TRUE(check16("fp64_to_fp16", rm, 0, 0, 0, &x, r, e.flags));
    }
}

TEST(binary16_survives_wider_formats)
{
    for (unsigned a = 0; a < 0x10000; a++) {
        struct fp_env e = {.rm = FP_RNE};
        uint16_t back = fp32_to_fp16(fp64_to_fp32(fp16_to_fp64((uint16_t)a, &e), &e), &e);
        bool nan = (a & 0x7fff) > 0x7c00;

        ASSERT_EQ(back, nan ? FP16_NAN : a);
        ASSERT_EQ(e.flags, nan && !(a & 0x200) ? FP_NV : 0);
        e.flags = 0;
        ASSERT_EQ(fp32_to_fp16(fp16_to_fp32((uint16_t)a, &e), &e), back);
    }
}

TEST(binary16_to_integral_in_all_modes)
{
    for (unsigned i = 0; i < 0x7c00 * 2u * 5u; i++) {
        unsigned rm = i % 5;
        uint16_t a = (uint16_t)(i / 10 | (i / 5 % 2) << 15);
        bool sign = a >> 15;
        struct fp_env e = {.rm = (uint8_t)rm};
        int64_t units = f16_units(a & 0x7fff);
        int64_t v = units >> 24;
        int64_t rest = units & 0xffffff;
        int64_t magnitude = v + away(rm, sign, sign_of(rest - 0x800000), !rest, v & 1);

        ASSERT_EQ(fp16_to_i32(a, &e), sign ? -magnitude : magnitude);
        ASSERT_EQ(e.flags, rest ? FP_NX : 0);
        e.flags = 0;
        ASSERT_EQ(fp16_to_u64(a, &e), sign ? 0 : magnitude);
        ASSERT_EQ(e.flags, sign && magnitude ? FP_NV : rest ? FP_NX : 0);
        e.flags = 0;
        uint16_t r = fp16_roundnx(a, &e);
        ASSERT_EQ(r >> 15, sign);
        ASSERT_EQ(f16_units(r & 0x7fff), magnitude << 24);
        ASSERT_EQ(e.flags, rest ? FP_NX : 0);
        e.flags = 0;
        ASSERT_EQ(fp16_round(a, &e), r);
        ASSERT_EQ(e.flags, 0);
    }
}

#define CHECK(expr, want, want_flags)            \
    ({                                           \
        struct fp_env env = {.rm = rm};          \
        struct fp_env *e = &env;                 \
        EXPECT_EQ((expr), (want));               \
        EXPECT_EQ(env.flags, (want_flags) + 0u); \
    })

TEST(integer_conversion_bounds)
{
    const uint8_t rm = FP_RTZ;

    CHECK(fp64_to_i32(0x41dfffffffc00000, e), INT32_MAX, 0);     /* 2^31 - 1 */
    CHECK(fp64_to_i32(0x41e0000000000000, e), INT32_MAX, FP_NV); /* 2^31 */
    CHECK(fp64_to_i32(0xc1e0000000000000, e), (int64_t)INT32_MIN, 0);
    CHECK(fp64_to_i32(0xc1e00000001fffff, e), (int64_t)INT32_MIN, FP_NX);
    CHECK(fp64_to_i32(0xc1e0000000200000, e), (int64_t)INT32_MIN, FP_NV);
    CHECK(fp64_to_i32(FP64_NAN, e), INT32_MAX, FP_NV);
    CHECK(fp64_to_i32(0xfff8000000000000, e), INT32_MAX, FP_NV);
    CHECK(fp64_to_i32(0xfff0000000000000, e), (int64_t)INT32_MIN, FP_NV);
    CHECK(fp64_to_u32(0xbfefffffffffffff, e), 0, FP_NX); /* just above -1 */
    CHECK(fp64_to_u32(0xbff0000000000000, e), 0, FP_NV);
    CHECK(fp64_to_u32(0x41efffffffe00000, e), UINT32_MAX, 0);
    CHECK(fp64_to_u32(0x41f0000000000000, e), UINT32_MAX, FP_NV);
    CHECK(fp64_to_u32(0x8000000000000000, e), 0, 0);
    CHECK(fp64_to_i64(0x43e0000000000000, e), INT64_MAX, FP_NV); /* 2^63 */
    CHECK(fp64_to_i64(0xc3e0000000000000, e), INT64_MIN, 0);
    CHECK(fp64_to_i64(0xc3e0000000000001, e), INT64_MIN, FP_NV);
    CHECK(fp64_to_u64(0x43efffffffffffff, e), 0xfffffffffffff800, 0);
    CHECK(fp64_to_u64(0x43f0000000000000, e), UINT64_MAX, FP_NV); /* 2^64 */
    CHECK(fp64_to_u64(0xfff0000000000000, e), 0, FP_NV);
    CHECK(fp64_to_u64(0x7ff4000000000000, e), UINT64_MAX, FP_NV);
    CHECK(fp16_to_u32(0x7c00, e), UINT32_MAX, FP_NV);
    CHECK(fp16_from_u64(UINT64_MAX, e), 0x7bff, FP_OF | FP_NX);
}

TEST(truncation_modulo_2_32)
{
    const uint8_t rm = FP_RUP; /* ignored */

    CHECK(fp64_to_i32_mod(0x3ffe666666666666, e), 1, FP_NX); /* 1.9 */
    CHECK(fp64_to_i32_mod(0xbffe666666666666, e), -1, FP_NX);
    CHECK(fp64_to_i32_mod(0x3fe0000000000000, e), 0, FP_NX);
    CHECK(fp64_to_i32_mod(0x41f0000000500000, e), 5, FP_NV);                  /* 2^32 + 5 */
    CHECK(fp64_to_i32_mod(0x41e0000000000000, e), (int64_t)INT32_MIN, FP_NV); /* 2^31 */
    CHECK(fp64_to_i32_mod(0xc1e0000000000000, e), (int64_t)INT32_MIN, 0);     /* -2^31 */
    CHECK(fp64_to_i32_mod(0x4530000000000001, e), 0, FP_NV);
    CHECK(fp64_to_i32_mod(0x4520000000000001, e), (int64_t)INT32_MIN, FP_NV); /* 2^83 + 2^31 */
    CHECK(fp64_to_i32_mod(0xc340000000000001, e), -2, FP_NV);                 /* -(2^53 + 2) */
    CHECK(fp64_to_i32_mod(0x7ff0000000000000, e), 0, FP_NV);
    CHECK(fp64_to_i32_mod(FP64_NAN, e), 0, FP_NV);
    CHECK(fp64_to_i32_mod(0x8000000000000000, e), 0, 0);
    CHECK(fp64_to_i32_mod(1, e), 0, FP_NX);
}

TEST(minimum_and_maximum)
{
    const uint8_t rm = FP_RNE;
    const uint32_t one = 0x3f800000;
    const uint32_t minus = 0xbf800000;
    const uint32_t quiet = 0xffc00001;
    const uint32_t signaling = 0x7f800001;

    CHECK(fp32_min(one, minus, e), minus, 0);
    CHECK(fp32_max(one, minus, e), one, 0);
    CHECK(fp32_min(0, 0x80000000, e), 0x80000000, 0);
    CHECK(fp32_min(0x80000000, 0, e), 0x80000000, 0);
    CHECK(fp32_max(0x80000000, 0, e), 0, 0);
    CHECK(fp32_min(quiet, one, e), one, 0);
    CHECK(fp32_max(minus, quiet, e), minus, 0);
    CHECK(fp32_max(signaling, one, e), one, FP_NV);
    CHECK(fp32_min(quiet, quiet, e), FP32_NAN, 0);
    CHECK(fp32_min(quiet, signaling, e), FP32_NAN, FP_NV);
    CHECK(fp32_minm(quiet, one, e), FP32_NAN, 0);
    CHECK(fp32_maxm(one, signaling, e), FP32_NAN, FP_NV);
    CHECK(fp32_minm(0, 0x80000000, e), 0x80000000, 0);
    CHECK(fp32_maxm(minus, one, e), one, 0);
    CHECK(fp16_min(0x8001, 0xfc00, e), 0xfc00, 0);
}

TEST(comparisons)
{
    const uint8_t rm = FP_RNE;
    const uint64_t one = 0x3ff0000000000000;
    const uint64_t signaling = 0x7ff0000000000001;

    CHECK(fp64_eq(0, BIT(63), e), true, 0);
    CHECK(fp64_lt(BIT(63), 0, e), false, 0);
    CHECK(fp64_le(0, BIT(63), e), true, 0);
    CHECK(fp64_lt(one | BIT(63), one, e), true, 0);
    CHECK(fp64_lt(one | BIT(63), BIT(63), e), true, 0);
    CHECK(fp64_le(one, one, e), true, 0);
    CHECK(fp64_lt(one, one, e), false, 0);
    CHECK(fp64_eq(FP64_NAN, FP64_NAN, e), false, 0);
    CHECK(fp64_eq(one, signaling, e), false, FP_NV);
    CHECK(fp64_lt(one, FP64_NAN, e), false, FP_NV);
    CHECK(fp64_le(FP64_NAN, one, e), false, FP_NV);
    CHECK(fp64_ltq(one, FP64_NAN, e), false, 0);
    CHECK(fp64_leq(FP64_NAN, one, e), false, 0);
    CHECK(fp64_leq(signaling, one, e), false, FP_NV);
    CHECK(fp64_ltq(BIT(63) | 1, 0, e), true, 0);
}

TEST(special_operands)
{
    uint8_t rm = FP_RNE;
    const uint64_t inf = 0x7ff0000000000000;
    const uint64_t neg = BIT(63);
    const uint64_t one = 0x3ff0000000000000;
    const uint64_t quiet = 0xfff8000000001234;

    CHECK(fp64_add(inf, inf | neg, e), FP64_NAN, FP_NV);
    CHECK(fp64_add(quiet, one, e), FP64_NAN, 0);
    CHECK(fp64_add(quiet, inf | 1, e), FP64_NAN, FP_NV);
    CHECK(fp64_mul(inf, 0, e), FP64_NAN, FP_NV);
    CHECK(fp64_div(0, neg, e), FP64_NAN, FP_NV);
    CHECK(fp64_div(one, neg, e), inf | neg, FP_DZ);
    CHECK(fp64_div(inf, neg, e), inf | neg, 0);
    CHECK(fp64_sqrt(one | neg, e), FP64_NAN, FP_NV);
    CHECK(fp64_sqrt(neg, e), neg, 0);
    CHECK(fp64_sqrt(1, e), 0x1e60000000000000, 0); /* 2^-1074 -> 2^-537 */
    CHECK(fp64_fma(inf, 0, quiet, e), FP64_NAN, FP_NV);
    CHECK(fp64_fma(one, one, quiet, e), FP64_NAN, 0);
    CHECK(fp64_fma(inf, one, inf | neg, e), FP64_NAN, FP_NV);
    CHECK(fp64_fma(one, one, one | neg, e), 0, 0);
    CHECK(fp64_fma(0, one, neg, e), 0, 0);
    CHECK(fp64_fma(neg, one, neg, e), neg, 0);
    CHECK(fp64_add(0, neg, e), 0, 0);
    CHECK(fp64_add(neg, neg, e), neg, 0);
    CHECK(fp64_sub(one, one, e), 0, 0);
    rm = FP_RDN;
    CHECK(fp64_add(0, neg, e), neg, 0);
    CHECK(fp64_sub(one, one, e), neg, 0);
    CHECK(fp64_fma(one, one, one | neg, e), neg, 0);
    CHECK(fp64_fma(0, one, neg, e), neg, 0);
}

TEST(rounding_to_integral_keeps_specials)
{
    const uint8_t rm = FP_RNE;

    CHECK(fp32_round(0x7f800001, e), FP32_NAN, FP_NV);
    CHECK(fp32_round(0xffc00001, e), FP32_NAN, 0);
    CHECK(fp32_round(0xff800000, e), 0xff800000, 0);
    CHECK(fp32_roundnx(0x80000001, e), 0x80000000, FP_NX);
    CHECK(fp64_roundnx(0x4340000000000001, e), 0x4340000000000001, 0);
    CHECK(fp64_roundnx(0x4330000000000001, e), 0x4330000000000001, 0);
    CHECK(fp64_roundnx(0x4320000000000001, e), 0x4320000000000000, FP_NX);
    CHECK(fp64_roundnx(0x4320000000000003, e), 0x4320000000000004, FP_NX);
}

TEST(classes)
{
    static const uint16_t examples[10] = {0xfc00, 0xbc00, 0x8001, 0x8000, 0x0000,
                                          0x03ff, 0x0400, 0x7c00, 0x7c01, 0xfe00};

    for (unsigned i = 0; i < 10; i++) {
        uint64_t wide_bits = (uint64_t)(examples[i] & 0x8000) << 48;

        EXPECT_EQ(fp16_class(examples[i]), 1u << i);
        if (i == 2 || i == 5)
            EXPECT_EQ(fp64_class(wide_bits | 5), 1u << i);
        else if (i < 8) {
            struct fp_env e = {0};

            EXPECT_EQ(fp64_class(fp16_to_fp64(examples[i], &e)), 1u << i);
            EXPECT_EQ(fp32_class(fp16_to_fp32(examples[i], &e)), 1u << i);
        }
    }
    EXPECT_EQ(fp32_class(0x7fbfffff), 1u << 8);
    EXPECT_EQ(fp64_class(0x7ff7ffffffffffff), 1u << 8);
}

TEST(constants)
{
    EXPECT_EQ(fp16_constant(0), 0xbc00);
    EXPECT_EQ(fp16_constant(1), 0x0400);
    EXPECT_EQ(fp16_constant(2), 0x0100); /* 2^-16 is subnormal */
    EXPECT_EQ(fp16_constant(3), 0x0200);
    EXPECT_EQ(fp16_constant(29), 0x7c00);
    EXPECT_EQ(fp16_constant(31), FP16_NAN);
    EXPECT_EQ(fp32_constant(1), 0x00800000);
    EXPECT_EQ(fp32_constant(21), 0x40200000);
    EXPECT_EQ(fp32_constant(29), 0x47800000);
    EXPECT_EQ(fp32_constant(31), FP32_NAN);
    EXPECT_EQ(fp64_constant(1), 0x0010000000000000);
    EXPECT_EQ(fp64_constant(30), 0x7ff0000000000000);
}
