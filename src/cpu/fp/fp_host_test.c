/* Differential test of fp against the host's SSE unit, flags included, for binary32 and binary64 in
 * the four modes that it has. x86-64 detects tininess after rounding, as RISC-V does. */
#include "base/bits.h"
#include "base/test.h"
#include "cpu/fp/fp.h"

#ifdef __x86_64__
#include <stdlib.h>

#ifndef ROUNDS
#define ROUNDS 400000
#endif

static uint64_t rnd_state = 0x853c49e6748fea9b;

static uint64_t rnd(void)
{
    rnd_state ^= rnd_state << 13;
    rnd_state ^= rnd_state >> 7;
    rnd_state ^= rnd_state << 17;
    return rnd_state * 0x2545f4914f6cdd1d;
}

static const uint64_t specials64[] = {
    0x0000000000000000, 0x0000000000000001, 0x0000000000000002, 0x000fffffffffffff,
    0x0010000000000000, 0x0010000000000001, 0x001fffffffffffff, 0x0020000000000000,
    0x3fe0000000000000, 0x3fefffffffffffff, 0x3ff0000000000000, 0x3ff0000000000001,
    0x3ff8000000000000, 0x4000000000000000, 0x4340000000000000, 0x4330000000000001,
    0x41dfffffffc00000, 0x41e0000000000000, 0x43e0000000000000, 0x7fe0000000000000,
    0x7fefffffffffffff, 0x7ff0000000000000, 0x7ff0000000000001, 0x7ff8000000000000,
    0x380fffffffffffff, 0x36a0000000000000, 0x47efffffe0000000, 0x47efffffefffffff,
};
static const uint32_t specials32[] = {
    0x00000000, 0x00000001, 0x00000002, 0x007fffff, 0x00800000, 0x00800001, 0x00ffffff,
    0x01000000, 0x3f000000, 0x3f7fffff, 0x3f800000, 0x3f800001, 0x3fc00000, 0x40000000,
    0x4b800000, 0x4b000001, 0x4effffff, 0x4f000000, 0x5f000000, 0x7f000000, 0x7f7fffff,
    0x7f800000, 0x7f800001, 0x7fc00000, 0x33800000, 0x38800000, 0x477fe000, 0x477ff000,
};

/* Random operands: specials, one random significand at an exponent near @base, anything. */
static uint64_t rnd64(unsigned base)
{
    uint64_t r = rnd();
    uint64_t sign = rnd() & BIT(63);

    switch (r % 8) {
    case 0:
        return specials64[(r >> 8) % ARRAY_SIZE(specials64)] | sign;
    case 1:
        return rnd();
    case 2: /* few significand bits: exact results and ties */
        return sign | (uint64_t)((base + (r >> 8) % 8) & 0x7ff) << 52 | (rnd() & 0xe000000000007);
    default:
        return sign | (uint64_t)((base + (r >> 8) % 64 - 32) & 0x7ff) << 52 | rnd() >> 12;
    }
}

static uint32_t rnd32(unsigned base)
{
    uint64_t r = rnd();
    uint32_t sign = (uint32_t)rnd() & 0x80000000;

    switch (r % 8) {
    case 0:
        return specials32[(r >> 8) % ARRAY_SIZE(specials32)] | sign;
    case 1:
        return (uint32_t)rnd();
    case 2:
        return sign | ((base + (r >> 8) % 8) & 0xff) << 23 | ((uint32_t)rnd() & 0x700007);
    default:
        return sign | ((base + (r >> 8) % 32 - 16) & 0xff) << 23 | (uint32_t)(rnd() >> 41);
    }
}

static uint32_t mxcsr_before(unsigned rm)
{
    static const uint32_t modes[] = {[FP_RNE] = 0, [FP_RTZ] = 3, [FP_RDN] = 1, [FP_RUP] = 2};

    return 0x1f80 | modes[rm] << 13;
}

static unsigned flags_of(uint32_t mxcsr)
{
    return (mxcsr & 1 ? FP_NV : 0) | (mxcsr & 4 ? FP_DZ : 0) | (mxcsr & 8 ? FP_OF : 0) |
           (mxcsr & 16 ? FP_UF : 0) | (mxcsr & 32 ? FP_NX : 0);
}

static uint64_t canonical64(uint64_t a)
{
    return (a & ~BIT(63)) > 0x7ff0000000000000 ? FP64_NAN : a;
}

static uint32_t canonical32(uint32_t a)
{
    return (a & 0x7fffffff) > 0x7f800000 ? FP32_NAN : a;
}

/* @ret = instruction @insn applied to @a and @b in mode @rm; evaluates to the flags. */
#define HOST(insn, rm, ret, a, b)                                             \
    ({                                                                        \
        uint32_t mx_ = mxcsr_before(rm);                                      \
        uint32_t normal_ = 0x1f80;                                            \
        __asm__ volatile("ldmxcsr %1\n\t" insn "\n\tstmxcsr %1\n\tldmxcsr %3" \
                         : "=&x"(ret), "+m"(mx_)                              \
                         : "x"(b), "m"(normal_), "0"(a));                     \
        flags_of(mx_);                                                        \
    })
#define HOST_TO_INT(insn, rm, ret, a)                                         \
    ({                                                                        \
        uint32_t mx_ = mxcsr_before(rm);                                      \
        uint32_t normal_ = 0x1f80;                                            \
        __asm__ volatile("ldmxcsr %1\n\t" insn "\n\tstmxcsr %1\n\tldmxcsr %3" \
                         : "=&r"(ret), "+m"(mx_)                              \
                         : "x"(a), "m"(normal_));                             \
        flags_of(mx_);                                                        \
    })
#define HOST_FROM_INT(insn, rm, ret, a)                                                      \
    ({                                                                                       \
        uint32_t mx_ = mxcsr_before(rm);                                                     \
        uint32_t normal_ = 0x1f80;                                                           \
        __asm__ volatile("ldmxcsr %1\n\tpxor %0, %0\n\t" insn "\n\tstmxcsr %1\n\tldmxcsr %3" \
                         : "=&x"(ret), "+m"(mx_)                                             \
                         : "r"(a), "m"(normal_));                                            \
        flags_of(mx_);                                                                       \
    })

static double d_of(uint64_t a)
{
    double d;

    memcpy(&d, &a, sizeof(d));
    return d;
}
static uint64_t bits_of_d(double d)
{
    uint64_t a;

    memcpy(&a, &d, sizeof(a));
    return a;
}
static float f_of(uint32_t a)
{
    float f;

    memcpy(&f, &a, sizeof(f));
    return f;
}
static uint32_t bits_of_f(float f)
{
    uint32_t a;

    memcpy(&a, &f, sizeof(a));
    return a;
}

static void same(const char *op, unsigned rm, uint64_t a, uint64_t b, uint64_t c, uint64_t got,
                 const struct fp_env *env, uint64_t want, unsigned want_flags)
{
    if (got == want && env->flags == want_flags)
        return;
    test_fail(__FILE__, __LINE__,
              "%s rm %u %016llx %016llx %016llx: %016llx flags %x, want %016llx flags %x", op, rm,
              (unsigned long long)a, (unsigned long long)b, (unsigned long long)c,
              (unsigned long long)got, env->flags, (unsigned long long)want, want_flags);
    test_abort();
}

#define CHECK64(op, insn)                                                   \
    do {                                                                    \
        struct fp_env e_ = {.rm = (uint8_t)rm};                             \
        double r_;                                                          \
        unsigned hf_ = HOST(insn, rm, r_, d_of(a), d_of(b));                \
        uint64_t got_ = op;                                                 \
        same(#op, rm, a, b, 0, got_, &e_, canonical64(bits_of_d(r_)), hf_); \
    } while (0)
#define CHECK32(op, insn)                                                   \
    do {                                                                    \
        struct fp_env e_ = {.rm = (uint8_t)rm};                             \
        float r_;                                                           \
        unsigned hf_ = HOST(insn, rm, r_, f_of(a), f_of(b));                \
        uint32_t got_ = op;                                                 \
        same(#op, rm, a, b, 0, got_, &e_, canonical32(bits_of_f(r_)), hf_); \
    } while (0)

static void check_pair64(unsigned rm, uint64_t a, uint64_t b)
{
    CHECK64(fp64_add(a, b, &e_), "addsd %2, %0");
    CHECK64(fp64_sub(a, b, &e_), "subsd %2, %0");
    CHECK64(fp64_mul(a, b, &e_), "mulsd %2, %0");
    CHECK64(fp64_div(a, b, &e_), "divsd %2, %0");
    CHECK64(fp64_sqrt(b, &e_), "sqrtsd %2, %0");
}

static void check_pair32(unsigned rm, uint32_t a, uint32_t b)
{
    CHECK32(fp32_add(a, b, &e_), "addss %2, %0");
    CHECK32(fp32_sub(a, b, &e_), "subss %2, %0");
    CHECK32(fp32_mul(a, b, &e_), "mulss %2, %0");
    CHECK32(fp32_div(a, b, &e_), "divss %2, %0");
    CHECK32(fp32_sqrt(b, &e_), "sqrtss %2, %0");
}

TEST(binary64_pairs)
{
    unsigned n = ARRAY_SIZE(specials64);

    for (unsigned i = 0; i < n * n * 4 * 4; i++) {
        uint64_t a = specials64[i / 16 % n] | (i & 4 ? BIT(63) : 0);
        uint64_t b = specials64[i / 16 / n] | (i & 8 ? BIT(63) : 0);

        check_pair64(i % 4, a, b);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned base = (unsigned)rnd() % 0x800;
        uint64_t a = rnd64(base);

        /* Half of the time the partner makes sums cancel, products or quotients underflow. */
        check_pair64(i % 4, a, rnd64(i & 4 ? base : i & 8 ? 0x3ff - base : 0x3ff + base));
    }
}

TEST(binary32_pairs)
{
    unsigned n = ARRAY_SIZE(specials32);

    for (unsigned i = 0; i < n * n * 4 * 4; i++) {
        uint32_t a = specials32[i / 16 % n] | (i & 4 ? 0x80000000 : 0);
        uint32_t b = specials32[i / 16 / n] | (i & 8 ? 0x80000000 : 0);

        check_pair32(i % 4, a, b);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned base = (unsigned)rnd() % 0x100;
        uint32_t a = rnd32(base);

        check_pair32(i % 4, a, rnd32(i & 4 ? base : i & 8 ? 0x7f - base : 0x7f + base));
    }
}

static void check_fma64(unsigned rm, uint64_t a, uint64_t b, uint64_t c)
{
    struct fp_env e = {.rm = (uint8_t)rm};
    double r = d_of(a);
    uint32_t mx = mxcsr_before(rm);
    uint32_t normal = 0x1f80;
    bool inf_times_zero = ((a << 1) == 0 && b << 1 == 0xffe0000000000000) ||
                          ((b << 1) == 0 && a << 1 == 0xffe0000000000000);

    __asm__ volatile("ldmxcsr %1\n\tvfmadd213sd %3, %2, %0\n\tstmxcsr %1\n\tldmxcsr %4"
                     : "+x"(r), "+m"(mx)
                     : "x"(d_of(b)), "x"(d_of(c)), "m"(normal));
    uint64_t got = fp64_fma(a, b, c, &e);
    same("fma64", rm, a, b, c, got, &e, canonical64(bits_of_d(r)),
         flags_of(mx) | (inf_times_zero ? FP_NV : 0));
}

static void check_fma32(unsigned rm, uint32_t a, uint32_t b, uint32_t c)
{
    struct fp_env e = {.rm = (uint8_t)rm};
    float r = f_of(a);
    uint32_t mx = mxcsr_before(rm);
    uint32_t normal = 0x1f80;
    bool inf_times_zero =
        ((a << 1) == 0 && b << 1 == 0xff000000) || ((b << 1) == 0 && a << 1 == 0xff000000);

    __asm__ volatile("ldmxcsr %1\n\tvfmadd213ss %3, %2, %0\n\tstmxcsr %1\n\tldmxcsr %4"
                     : "+x"(r), "+m"(mx)
                     : "x"(f_of(b)), "x"(f_of(c)), "m"(normal));
    uint32_t got = fp32_fma(a, b, c, &e);
    same("fma32", rm, a, b, c, got, &e, canonical32(bits_of_f(r)),
         flags_of(mx) | (inf_times_zero ? FP_NV : 0));
}

TEST(fused_multiply_add)
{
    if (!__builtin_cpu_supports("fma"))
        test_skip("the host CPU has no FMA");
    unsigned n = ARRAY_SIZE(specials64);
    for (unsigned i = 0; i < n * n * n * 4; i++) {
        uint64_t signs = rnd();
        unsigned x = i / 4 % n;
        unsigned y = i / 4 / n % n;
        unsigned z = i / 4 / n / n;

        check_fma64(i % 4, specials64[x] | (signs & BIT(63)),
                    specials64[y] | (signs << 1 & BIT(63)), specials64[z] | (signs << 2 & BIT(63)));
        uint32_t top = (uint32_t)BIT(31);
        check_fma32(i % 4, specials32[x] | ((uint32_t)signs & top),
                    specials32[y] | ((uint32_t)signs << 1 & top),
                    specials32[z] | ((uint32_t)signs << 2 & top));
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned ea = (unsigned)rnd() % 0x800;
        unsigned eb = (unsigned)rnd() % 0x800;
        check_fma64(i % 4, rnd64(ea), rnd64(eb), rnd64(ea + eb - 0x3ff));
        ea = (unsigned)rnd() % 0x100;
        eb = (unsigned)rnd() % 0x100;
        check_fma32(i % 4, rnd32(ea), rnd32(eb), rnd32(ea + eb - 0x7f));
    }
}

/* x86 gives 0x80... and NV where RISC-V saturates. */
static void check_to_int(unsigned rm, uint64_t a, uint32_t s)
{
    struct fp_env e = {.rm = (uint8_t)rm};
    int64_t wide;
    int32_t narrow;

    unsigned hf = HOST_TO_INT("cvtsd2siq %2, %0", rm, wide, d_of(a));
    int64_t got = fp64_to_i64(a, &e);
    bool max = hf & FP_NV && (!(a >> 63) || canonical64(a) == FP64_NAN);
    same("fp64_to_i64", rm, a, 0, 0, (uint64_t)got, &e, max ? INT64_MAX : (uint64_t)wide, hf);
    e.flags = 0;
    hf = HOST_TO_INT("cvtss2sil %2, %0", rm, narrow, f_of(s));
    max = hf & FP_NV && (!(s >> 31) || canonical32(s) == FP32_NAN);
    same("fp32_to_i32", rm, s, 0, 0, (uint32_t)fp32_to_i32(s, &e), &e,
         max ? INT32_MAX : (uint32_t)narrow, hf);
    e.flags = 0;
    /* A 32-bit unsigned result is the 64-bit one when that fits. */
    hf = HOST_TO_INT("cvtsd2siq %2, %0", rm, wide, d_of(a));
    if (hf & FP_NV || wide < 0 || wide > UINT32_MAX) {
        bool low = a >> 63 && canonical64(a) != FP64_NAN;

        same("fp64_to_u32", rm, a, 0, 0, fp64_to_u32(a, &e), &e, low ? 0 : UINT32_MAX, FP_NV);
    } else {
        same("fp64_to_u32", rm, a, 0, 0, fp64_to_u32(a, &e), &e, (uint64_t)wide, hf);
    }
}

static void check_formats(unsigned rm, uint64_t a, uint32_t s)
{
    struct fp_env e = {.rm = (uint8_t)rm};
    uint64_t narrow;
    double d;

    unsigned hf = HOST("cvtsd2ss %2, %0", rm, d, 0.0, d_of(a));
    narrow = bits_of_d(d) & UINT32_MAX;
    same("fp64_to_fp32", rm, a, 0, 0, fp64_to_fp32(a, &e), &e, canonical32((uint32_t)narrow), hf);
    e.flags = 0;
    hf = HOST("cvtss2sd %2, %0", rm, d, 0.0, f_of(s));
    same("fp32_to_fp64", rm, s, 0, 0, fp32_to_fp64(s, &e), &e, canonical64(bits_of_d(d)), hf);
}

static void check_from_int(unsigned rm, int64_t v)
{
    struct fp_env e = {.rm = (uint8_t)rm};
    double d;
    float f;

    unsigned hf = HOST_FROM_INT("cvtsi2sdq %2, %0", rm, d, v);
    same("fp64_from_i64", rm, (uint64_t)v, 0, 0, fp64_from_i64(v, &e), &e, bits_of_d(d), hf);
    e.flags = 0;
    hf = HOST_FROM_INT("cvtsi2ssq %2, %0", rm, f, v);
    same("fp32_from_i64", rm, (uint64_t)v, 0, 0, fp32_from_i64(v, &e), &e, bits_of_f(f), hf);
    e.flags = 0;
    hf = HOST_FROM_INT("cvtsi2ssl %2, %0", rm, f, (int32_t)v);
    same("fp32_from_i32", rm, (uint64_t)v, 0, 0, fp32_from_i32((int32_t)v, &e), &e, bits_of_f(f),
         hf);
    e.flags = 0;
    hf = HOST_FROM_INT("cvtsi2ssq %2, %0", rm, f, (int64_t)(uint32_t)v);
    same("fp32_from_u32", rm, (uint64_t)v, 0, 0, fp32_from_u32((uint32_t)v, &e), &e, bits_of_f(f),
         hf);
}

TEST(conversions)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t a = rnd64(i & 4 ? 0x3ff + (unsigned)rnd() % 70 : (unsigned)rnd() % 0x800);
        uint32_t s = rnd32(i & 4 ? 0x7f + (unsigned)rnd() % 40 : (unsigned)rnd() % 0x100);

        check_to_int(i % 4, a, s);
        check_formats(i % 4, a, s);
        /* near the subnormals of binary32 */
        check_formats(i % 4, rnd64(0x36f + (unsigned)rnd() % 32), s);
        check_from_int(i % 4, (int64_t)rnd() >> rnd() % 64);
    }
}

TEST(unsigned_64_bit_integers)
{
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        struct fp_env e = {.rm = (uint8_t)(i % 4)};
        struct fp_env e2 = {.rm = (uint8_t)(i % 4)};
        uint64_t v = rnd() | BIT(63);

        /* Halve with a sticky bit, convert as signed, double: the same rounding. */
        uint64_t half = fp64_from_i64((int64_t)(v >> 1 | (v & 1)), &e2) + BIT(52);
        ASSERT_EQ(fp64_from_u64(v, &e), half);
        ASSERT_EQ(e.flags, e2.flags);
        e.flags = e2.flags = 0;
        uint64_t a = 0x43e0000000000000 | rnd() >> 12; /* 2^63 .. 2^64 */
        ASSERT_EQ(fp64_to_u64(a, &e), (uint64_t)fp64_to_i64(a - BIT(52), &e2) << 1);
        ASSERT_EQ(e.flags, 0);
    }
}

TEST(round_to_integral)
{
    if (!__builtin_cpu_supports("sse4.1"))
        test_skip("the host CPU has no SSE4.1");
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned rm = i % 4;
        uint64_t a = rnd64(0x3ff - 4 + (unsigned)rnd() % 64);
        uint64_t b = a;

        CHECK64(fp64_roundnx(a, &e_), "roundsd $4, %2, %0");
        a = rnd32(0x7f - 4 + (unsigned)rnd() % 32);
        struct fp_env e = {.rm = (uint8_t)rm};
        float r;
        unsigned hf = HOST("roundss $4, %2, %0", rm, r, 0.0f, f_of((uint32_t)a));
        same("fp32_roundnx", rm, a, 0, 0, fp32_roundnx((uint32_t)a, &e), &e,
             canonical32(bits_of_f(r)), hf);
    }
}

/* Round to nearest, ties away: the neighbour by RTZ or the next one, by an exact difference. */
TEST(ties_away_binary32)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct fp_env rmm = {.rm = FP_RMM};
        struct fp_env rtz = {.rm = FP_RTZ};
        uint32_t a = 0x3f800000 | (uint32_t)(rnd() >> 41 & ~(uint64_t)MASK(rnd() % 20));
        uint32_t b = 0x3f800000 | (uint32_t)(rnd() >> 41 & ~(uint64_t)MASK(rnd() % 20));
        uint32_t lo = fp32_mul(a, b, &rtz);
        double exact = (double)f_of(a) * (double)f_of(b); /* 48 bits: exact */
        double down = exact - (double)f_of(lo);
        double up = (double)f_of(lo + 1) - exact;

        ASSERT_EQ(fp32_mul(a, b, &rmm), down >= up ? lo + 1 : lo);
        ASSERT_EQ(rmm.flags, rtz.flags);
    }
}
#else
TEST(host)
{
    test_skip("needs an x86-64 host");
}
#endif
