/* The loops of vec_kernels.h, written for the compiler to turn into the host's vector instructions:
 * built once per table, with RV_VK_NAME and options of its own.
 *
 * 1. Element i of the result depends on elements i of the operands only, all are read before it is
 *    written: so equal operands are fine, and the loops have no dependences (VK_LOOP says so).
 * 2. Shift counts are taken modulo the width; division follows RISC-V where the divisor is 0.
 *
 * Spec: Unprivileged ISA 20240411, chapter 31; Vector Cryptography 1.0 §3. */
#include "cpu/guest/riscv/vec_kernels.h"

#include "base/macros.h"

#include <math.h>
#include <string.h>

#ifdef __clang__
#define VK_LOOP _Pragma("clang loop vectorize(assume_safety)")
#else
#define VK_LOOP _Pragma("GCC ivdep")
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef unsigned __int128 u128;
typedef __int128 s128;

/** d[i] = @expr of A, B, D (elements as types @ta, @tb, @td) for all i. */
#define VK(name, td, ta, tb, expr)                                                              \
    static void name(void *d_, const void *a_, const void *b_, size_t n, struct rv_vk_env *env) \
    {                                                                                           \
        td *d = d_;                                                                             \
        const ta *a = a_;                                                                       \
        const tb *b = b_;                                                                       \
                                                                                                \
        VK_LOOP                                                                                 \
        for (size_t i = 0; i < n; i++) {                                                        \
            unused_arg const ta A = a[i];                                                       \
            unused_arg const tb B = b[i];                                                       \
            unused_arg const td D = d[i];                                                       \
                                                                                                \
            d[i] = (td)(expr);                                                                  \
        }                                                                                       \
    }

/** For widths 8 to 64, on unsigned and on signed elements. W is the width in bits. */
#define VK_U(name, expr) VK4(name, u, expr)
#define VK_S(name, expr) VK4(name, s, expr)
#define VK4(name, t, expr)                   \
    VK(name##_8, t##8, t##8, t##8, expr)     \
    VK(name##_16, t##16, t##16, t##16, expr) \
    VK(name##_32, t##32, t##32, t##32, expr) \
    VK(name##_64, t##64, t##64, t##64, expr)
#define W ((unsigned)sizeof(A) * 8)

/** Widening from @t elements to @w ones, of each width. */
#define VK_W(name, w, ta, tb, expr)            \
    VK(name##_8, w##16, ta##8, tb##8, expr)    \
    VK(name##_16, w##32, ta##16, tb##16, expr) \
    VK(name##_32, w##64, ta##32, tb##32, expr)
#define VK_WW(name, w, tb, expr)              \
    VK(name##_8, w##16, w##16, tb##8, expr)   \
    VK(name##_16, w##32, w##32, tb##16, expr) \
    VK(name##_32, w##64, w##64, tb##32, expr)
#define VK_N(name, t, ta, expr)             \
    VK(name##_8, t##8, ta##16, u8, expr)    \
    VK(name##_16, t##16, ta##32, u16, expr) \
    VK(name##_32, t##32, ta##64, u32, expr)
#define VK_C(name, t, expr)               \
    VK(name##_8, u8, t##8, t##8, expr)    \
    VK(name##_16, u8, t##16, t##16, expr) \
    VK(name##_32, u8, t##32, t##32, expr) \
    VK(name##_64, u8, t##64, t##64, expr)

VK_U(add, A + B)
VK_U(sub, A - B)
VK_U(rsub, B - A)
VK_U(and, A &B)
VK_U(or, A | B)
VK_U(xor, A ^ B)
VK_U(andn, A & ~B)
VK_U(mov, B)
VK_U(minu, A < B ? A : B)
VK_S(min, A < B ? A : B)
VK_U(maxu, A > B ? A : B)
VK_S(max, A > B ? A : B)
/* 1u: else the product of two uint16_t is an int, and may overflow it. */
VK_U(mul, 1u * A * B)
VK_U(macc, D + 1u * A * B)
VK_U(nmsac, D - 1u * A * B)
VK_U(madd, 1u * D * B + A)
VK_U(nmsub, A - 1u * D * B)
VK_U(sll, A << (B & (W - 1)))
VK_U(srl, A >> (B & (W - 1)))
VK_S(sra, A >> (B & (W - 1)))
VK_U(rol, (u64)A << (B & (W - 1)) | (u64)A >> (-B & (W - 1)))
VK_U(ror, (u64)A >> (B & (W - 1)) | (u64)A << (-B & (W - 1)))

VK(mulh_8, s8, s8, s8, (s32)A *B >> 8)
VK(mulh_16, s16, s16, s16, (s32)A *B >> 16)
VK(mulh_32, s32, s32, s32, (s64)A *B >> 32)
VK(mulh_64, s64, s64, s64, (s128)A *B >> 64)
VK(mulhu_8, u8, u8, u8, (u32)A *B >> 8)
VK(mulhu_16, u16, u16, u16, (u32)A *B >> 16)
VK(mulhu_32, u32, u32, u32, (u64)A *B >> 32)
VK(mulhu_64, u64, u64, u64, (u128)A *B >> 64)
VK(mulhsu_8, s8, s8, u8, (s32)A *B >> 8)
VK(mulhsu_16, s16, s16, u16, (s32)A *(s32)B >> 16)
VK(mulhsu_32, s32, s32, u32, (s64)A *(s64)B >> 32)
VK(mulhsu_64, s64, s64, u64, (s128)A *(s128)B >> 64)

VK_U(divu, B ? A / B : (u64)-1)
VK_U(remu, B ? A % B : A)
VK_S(div, B == 0 ? -1 : B == -1 ? (s64)(0 - (u64)A) : A / B)
VK_S(rem, B == 0 ? A : B == -1 ? 0 : A % B)

VK_W(waddu, u, u, u, (u64)A + B)
VK_W(wadd, s, s, s, (s64)A + B)
VK_W(wsubu, u, u, u, (u64)A - B)
VK_W(wsub, s, s, s, (s64)A - B)
VK_WW(waddu_w, u, u, A + B)
VK_WW(wadd_w, u, s, A + (u64)(s64)B)
VK_WW(wsubu_w, u, u, A - B)
VK_WW(wsub_w, u, s, A - (u64)(s64)B)
VK_W(wmulu, u, u, u, (u64)A *B)
VK_W(wmul, s, s, s, (s64)A *B)
VK_W(wmulsu, s, s, u, (s64)A *(s64)B)
VK_W(wmaccu, u, u, u, D + (u64)A * B)
VK_W(wmacc, u, s, s, D + (u64)((s64)A * B))
/* vs1 (B) signed, vs2 (A) unsigned, and the other way */
VK_W(wmaccsu, u, u, s, D + (u64)((s64)A * (s64)B))
VK_W(wmaccus, u, s, u, D + (u64)((s64)A * (s64)B))
VK_W(wsll, u, u, u, (u64)A << (B & (2 * W - 1)))
VK_N(nsrl, u, u, A >> (B & (W - 1)))
VK_N(nsra, u, s, A >> (B & (W - 1)))

VK_C(seq, u, A == B)
VK_C(sne, u, A != B)
VK_C(sltu, u, A < B)
VK_C(slt, s, A < B)
VK_C(sleu, u, A <= B)
VK_C(sle, s, A <= B)
VK_C(sgtu, u, A > B)
VK_C(sgt, s, A > B)

/* --- Fixed point --- */

/** @v >> @shift, rounded as @vxrm says (31.3.8): nearest up, nearest even, down, odd. */
static inline u128 round_u(u128 v, unsigned shift, unsigned vxrm)
{
    u128 half, low;

    if (!shift)
        return v;
    half = (u128)1 << (shift - 1);
    low = v & (half * 2 - 1);
    v >>= shift;
    switch (vxrm) {
    case 0:
        return v + (low >= half);
    case 1:
        return v + (low > half || (low == half && (v & 1)));
    case 2:
        return v;
    default:
        return v | (low != 0);
    }
}

static inline s128 round_s(s128 v, unsigned shift, unsigned vxrm)
{
    const s128 bias = (s128)1 << 126; /* a multiple of every 2 << shift: makes it positive */

    return (s128)(round_u((u128)v + (u128)bias, shift, vxrm) - (u128)(bias >> shift));
}

static inline s128 clip_s(s128 v, unsigned bits, struct rv_vk_env *env)
{
    s128 max = ((s128)1 << (bits - 1)) - 1;

    if (v > max || v < -max - 1) {
        env->vxsat = 1;
        return v > max ? max : -max - 1;
    }
    return v;
}

static inline u128 clip_u(u128 v, unsigned bits, struct rv_vk_env *env)
{
    u128 max = ((u128)1 << bits) - 1;

    if (v > max) {
        env->vxsat = 1;
        return max;
    }
    return v;
}

VK_U(saddu, clip_u((u128)A + B, W, env))
VK_S(sadd, clip_s((s128)A + B, W, env))
VK_U(ssubu, A < B ? (env->vxsat = 1, 0) : A - B)
VK_S(ssub, clip_s((s128)A - B, W, env))
VK_U(aaddu, round_u((u128)A + B, 1, env->vxrm))
VK_S(aadd, round_s((s128)A + B, 1, env->vxrm))
VK_U(asubu, round_s((s128)A - B, 1, env->vxrm))
VK_S(asub, round_s((s128)A - B, 1, env->vxrm))
VK_S(smul, clip_s(round_s((s128)A *B, W - 1, env->vxrm), W, env))
VK_U(ssrl, round_u(A, B &(W - 1), env->vxrm))
VK_S(ssra, round_s(A, B &(W - 1), env->vxrm))
VK_N(nclipu, u, u, clip_u(round_u(A, B &(W - 1), env->vxrm), W / 2, env))
VK_N(nclip, s, s, clip_s(round_s(A, B &(W - 1), env->vxrm), W / 2, env))

/* --- Bits --- */

static inline u64 brev8_of(u64 v)
{
    v = (v >> 1 & 0x5555555555555555) | (v & 0x5555555555555555) << 1;
    v = (v >> 2 & 0x3333333333333333) | (v & 0x3333333333333333) << 2;
    return (v >> 4 & 0x0f0f0f0f0f0f0f0f) | (v & 0x0f0f0f0f0f0f0f0f) << 4;
}

VK_U(brev8, brev8_of(A))
VK_U(rev8, __builtin_bswap64(A) >> (64 - W))
VK_U(brev, brev8_of(__builtin_bswap64(A)) >> (64 - W))
VK_U(clz, A ? (unsigned)__builtin_clzll(A) - (64 - W) : W)
VK_U(ctz, A ? (unsigned)__builtin_ctzll(A) : W)
VK_U(cpop, __builtin_popcountll(A))

/* --- Floating point --- */

/** Results to d; env->nan if any of @test is a NaN. */
#define VF(name, type, td, expr, test)                                                          \
    static void name(void *d_, const void *a_, const void *b_, size_t n, struct rv_vk_env *env) \
    {                                                                                           \
        td *d = d_;                                                                             \
        const type *a = a_;                                                                     \
        const type *b = b_;                                                                     \
        unsigned nan = 0;                                                                       \
                                                                                                \
        VK_LOOP                                                                                 \
        for (size_t i = 0; i < n; i++) {                                                        \
            unused_arg const type A = a[i];                                                     \
            unused_arg const type B = b[i];                                                     \
            unused_arg const td D = d[i];                                                       \
            td r = (expr);                                                                      \
                                                                                                \
            nan |= __builtin_isunordered((test), (test));                                       \
            d[i] = r;                                                                           \
        }                                                                                       \
        env->nan |= nan != 0;                                                                   \
    }
#define VF2(name, expr)                  \
    VF(name##_32, float, float, expr, r) \
    VF(name##_64, double, double, expr, r)

VF2(fadd, A + B)
VF2(fsub, A - B)
VF2(frsub, B - A)
VF2(fmul, A *B)
VF2(fdiv, A / B)
VF2(frdiv, B / A)
VF(fsqrt_32, float, float, sqrtf(A), r)
VF(fsqrt_64, double, double, sqrt(A), r)

#ifdef __FMA__
#define FMA(x, y, z) _Generic((x), float : fmaf((x), (y), (z)), double : fma((x), (y), (z)))
VF2(fmacc, FMA(B, A, D))
VF2(fnmacc, FMA(-B, A, -D))
VF2(fmsac, FMA(B, A, -D))
VF2(fnmsac, FMA(-B, A, D))
VF2(fmadd, FMA(B, D, A))
VF2(fnmadd, FMA(-B, D, -A))
VF2(fmsub, FMA(B, D, -A))
VF2(fnmsub, FMA(-B, D, A))
#endif

/* --- The table --- */

#define ROW_INT(name)   .name = {name##_8, name##_16, name##_32, name##_64},
#define ROW_WIDEN(name) .name = {name##_8, name##_16, name##_32},
#define ROW_FLOAT(name) .name = {[2] = name##_32, [3] = name##_64},
#define TEXT_OF(name)   #name
#define TEXT(name)      TEXT_OF(name)

const struct rv_vk_table RV_VK_NAME = {
    .name = TEXT(RV_VK_NAME),
    /* clang-format off */
    RV_VK_SAME(ROW_INT)
    RV_VK_WIDEN(ROW_WIDEN)
    RV_VK_NARROW(ROW_WIDEN)
    RV_VK_COMPARE(ROW_INT)
    ROW_FLOAT(fadd) ROW_FLOAT(fsub) ROW_FLOAT(frsub) ROW_FLOAT(fmul) ROW_FLOAT(fdiv)
    ROW_FLOAT(frdiv) ROW_FLOAT(fsqrt)
#ifdef __FMA__
    ROW_FLOAT(fmacc) ROW_FLOAT(fnmacc) ROW_FLOAT(fmsac) ROW_FLOAT(fnmsac)
    ROW_FLOAT(fmadd) ROW_FLOAT(fnmadd) ROW_FLOAT(fmsub) ROW_FLOAT(fnmsub)
#endif
    /* clang-format on */
};
