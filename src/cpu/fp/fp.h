/* IEEE 754 arithmetic in integers: the reference for guest floating point, independent of the host.
 *
 * Values are bit patterns (uint16_t, uint32_t, uint64_t) of binary16, binary32 and binary64. The
 * rules that IEEE 754 leaves open are RISC-V's: every NaN result is the canonical quiet NaN,
 * tininess is detected after rounding, and conversions to integers saturate. NaN boxing is the
 * caller's. All functions are pure but for @env: they read env->rm and OR into env->flags. Any
 * thread. Spec: IEEE 754-2019; RISC-V unprivileged ISA, chapters F, D, Zfh, Zfa. */
#ifndef CPU_FP_FP_H
#define CPU_FP_FP_H

#include <stdbool.h>
#include <stdint.h>

/* Rounding modes, RISC-V's encoding. The caller has refused 5, 6 and resolved 7 (dynamic). */
enum fp_rm { FP_RNE = 0, FP_RTZ = 1, FP_RDN = 2, FP_RUP = 3, FP_RMM = 4 };

/* Accrued exception flags, RISC-V's encoding. */
enum fp_flag { FP_NX = 1, FP_UF = 2, FP_OF = 4, FP_DZ = 8, FP_NV = 16 };

struct fp_env {
    uint8_t rm;
    uint8_t flags;
};

#define FP16_NAN 0x7e00u
#define FP32_NAN 0x7fc00000u
#define FP64_NAN 0x7ff8000000000000u

/* Per format @w:
 * add, sub, mul, div, sqrt, fma (a * b + c, rounded once).
 * min, max: IEEE 754-2019 minimumNumber, maximumNumber (a NaN operand loses; -0 < +0).
 * minm, maxm: IEEE 754-2019 minimum, maximum (a NaN operand wins).
 * eq, ltq, leq: quiet comparisons; lt, le: a quiet NaN operand raises NV too.
 * class: the ten-bit mask of FCLASS.
 * round: to an integral value, never raising NX; roundnx: raising NX when the value changes.
 * to_iN, to_uN: by env->rm; out of range and NaN give the nearest bound (NaN: the upper) and NV. */
#define FP_DECLARE(w)                                                                         \
    uint##w##_t fp##w##_add(uint##w##_t a, uint##w##_t b, struct fp_env *env);                \
    uint##w##_t fp##w##_sub(uint##w##_t a, uint##w##_t b, struct fp_env *env);                \
    uint##w##_t fp##w##_mul(uint##w##_t a, uint##w##_t b, struct fp_env *env);                \
    uint##w##_t fp##w##_div(uint##w##_t a, uint##w##_t b, struct fp_env *env);                \
    uint##w##_t fp##w##_sqrt(uint##w##_t a, struct fp_env *env);                              \
    uint##w##_t fp##w##_fma(uint##w##_t a, uint##w##_t b, uint##w##_t c, struct fp_env *env); \
    uint##w##_t fp##w##_min(uint##w##_t a, uint##w##_t b, struct fp_env *env);                \
    uint##w##_t fp##w##_max(uint##w##_t a, uint##w##_t b, struct fp_env *env);                \
    uint##w##_t fp##w##_minm(uint##w##_t a, uint##w##_t b, struct fp_env *env);               \
    uint##w##_t fp##w##_maxm(uint##w##_t a, uint##w##_t b, struct fp_env *env);               \
    bool fp##w##_eq(uint##w##_t a, uint##w##_t b, struct fp_env *env);                        \
    bool fp##w##_lt(uint##w##_t a, uint##w##_t b, struct fp_env *env);                        \
    bool fp##w##_le(uint##w##_t a, uint##w##_t b, struct fp_env *env);                        \
    bool fp##w##_ltq(uint##w##_t a, uint##w##_t b, struct fp_env *env);                       \
    bool fp##w##_leq(uint##w##_t a, uint##w##_t b, struct fp_env *env);                       \
    unsigned fp##w##_class(uint##w##_t a);                                                    \
    uint##w##_t fp##w##_round(uint##w##_t a, struct fp_env *env);                             \
    uint##w##_t fp##w##_roundnx(uint##w##_t a, struct fp_env *env);                           \
    int32_t fp##w##_to_i32(uint##w##_t a, struct fp_env *env);                                \
    uint32_t fp##w##_to_u32(uint##w##_t a, struct fp_env *env);                               \
    int64_t fp##w##_to_i64(uint##w##_t a, struct fp_env *env);                                \
    uint64_t fp##w##_to_u64(uint##w##_t a, struct fp_env *env);                               \
    uint##w##_t fp##w##_from_i32(int32_t v, struct fp_env *env);                              \
    uint##w##_t fp##w##_from_u32(uint32_t v, struct fp_env *env);                             \
    uint##w##_t fp##w##_from_i64(int64_t v, struct fp_env *env);                              \
    uint##w##_t fp##w##_from_u64(uint64_t v, struct fp_env *env);
FP_DECLARE(16)
FP_DECLARE(32)
FP_DECLARE(64)
#undef FP_DECLARE

uint32_t fp16_to_fp32(uint16_t a, struct fp_env *env);
uint64_t fp16_to_fp64(uint16_t a, struct fp_env *env);
uint16_t fp32_to_fp16(uint32_t a, struct fp_env *env);
uint64_t fp32_to_fp64(uint32_t a, struct fp_env *env);
uint16_t fp64_to_fp16(uint64_t a, struct fp_env *env);
uint32_t fp64_to_fp32(uint64_t a, struct fp_env *env);

/** FCVTMOD.W.D: @a truncated, modulo 2^32; 0 for NaN and infinity. Flags are those of an RTZ
 * conversion to int32_t, whatever env->rm is. */
int32_t fp64_to_i32_mod(uint64_t a, struct fp_env *env);

/** The constant that Zfa's FLI loads for @index (0 to 31; higher bits are ignored). */
uint16_t fp16_constant(unsigned index);
uint32_t fp32_constant(unsigned index);
uint64_t fp64_constant(unsigned index);

#endif
