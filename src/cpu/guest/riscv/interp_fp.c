/* Interpreter handlers: F, D, Zfh, Zfa, over cpu/fp.
 *
 * 1. A value narrower than 64 bits is NaN-boxed in its register: upper bits all ones; what is not
 *    so boxed reads as the canonical NaN.
 * 2. Flags only accumulate; whatever writes an f register or raises a flag marks mstatus.FS dirty.
 *
 * Each operation is a function of the operands' bits (calc_*), called by its handler, so that no
 * address of a handler's local escapes (see interp_internal.h).
 * Spec: Unprivileged ISA 20240411, chapters 20, 21, 23, 24. */
#include "cpu/fp/fp.h"
#include "cpu/guest/riscv/interp_internal.h"

#define BOX16(v) ((uint64_t)(uint16_t)(v) | 0xffffffffffff0000ULL)
#define BOX32(v) ((uint64_t)(uint32_t)(v) | 0xffffffff00000000ULL)
#define BOX64(v) ((uint64_t)(v))

static inline uint16_t unbox16(uint64_t v)
{
    return v >= 0xffffffffffff0000ULL ? (uint16_t)v : FP16_NAN;
}

static inline uint32_t unbox32(uint64_t v)
{
    return v >= 0xffffffff00000000ULL ? (uint32_t)v : FP32_NAN;
}

static inline uint64_t unbox64(uint64_t v)
{
    return v;
}

static inline void mark_dirty(struct rv_hart *h)
{
    if (unlikely(!(h->cpu.mode & RV_MODE_FS_DIRTY)))
        rv_set_fs_dirty(h);
}

enum { RM_DYNAMIC = 7 };

static inline struct fp_env env_of(const struct rv_hart *h, const struct insn *i)
{
    return (struct fp_env){.rm = i->extra == RM_DYNAMIC ? h->frm : (uint8_t)i->extra};
}

/** Operands, by the width of the format at hand. */
#define A(w) unbox##w(h->f[i->rs1])
#define B(w) unbox##w(h->f[i->rs2])
#define C(w) unbox##w(h->f[i->rs3])

/** An op whose result @value (an expression that may use env) goes to f[rd]... */
#define RV_FP(name, value)                                                                     \
    static __attribute__((noinline)) void calc_##name(struct rv_hart *h, const struct insn *i) \
    {                                                                                          \
        unused_arg struct fp_env env = env_of(h, i);                                           \
                                                                                               \
        h->f[i->rd] = (value);                                                                 \
        h->cpu.fp_flags |= env.flags;                                                          \
        mark_dirty(h);                                                                         \
    }                                                                                          \
    RV_HANDLER(name, calc_##name(h, i))

/** ... and one whose result goes to x[rd]. It may raise flags, so the state counts as dirty. */
#define RV_FP_TO_X(name, value)                                                                \
    static __attribute__((noinline)) void calc_##name(struct rv_hart *h, const struct insn *i) \
    {                                                                                          \
        unused_arg struct fp_env env = env_of(h, i);                                           \
                                                                                               \
        rv_set_x(h, i->rd, (uint64_t)(int64_t)(value));                                        \
        h->cpu.fp_flags |= env.flags;                                                          \
        mark_dirty(h);                                                                         \
    }                                                                                          \
    RV_HANDLER(name, calc_##name(h, i))

#define SIGN(w)   (1ULL << ((w)-1))
#define NEG(w, v) ((__typeof__(v))((v) ^ SIGN(w)))

/** What every format has. @s is the suffix, @w the width. */
#define RV_FP_FORMAT(s, w)                                                         \
    RV_FP(fadd_##s, BOX##w(fp##w##_add(A(w), B(w), &env)))                         \
    RV_FP(fsub_##s, BOX##w(fp##w##_sub(A(w), B(w), &env)))                         \
    RV_FP(fmul_##s, BOX##w(fp##w##_mul(A(w), B(w), &env)))                         \
    RV_FP(fdiv_##s, BOX##w(fp##w##_div(A(w), B(w), &env)))                         \
    RV_FP(fsqrt_##s, BOX##w(fp##w##_sqrt(A(w), &env)))                             \
    RV_FP(fmadd_##s, BOX##w(fp##w##_fma(A(w), B(w), C(w), &env)))                  \
    RV_FP(fmsub_##s, BOX##w(fp##w##_fma(A(w), B(w), NEG(w, C(w)), &env)))          \
    RV_FP(fnmsub_##s, BOX##w(fp##w##_fma(NEG(w, A(w)), B(w), C(w), &env)))         \
    RV_FP(fnmadd_##s, BOX##w(fp##w##_fma(NEG(w, A(w)), B(w), NEG(w, C(w)), &env))) \
    RV_FP(fsgnj_##s, BOX##w((A(w) & ~SIGN(w)) | (B(w) & SIGN(w))))                 \
    RV_FP(fsgnjn_##s, BOX##w((A(w) & ~SIGN(w)) | (~(uint64_t)B(w) & SIGN(w))))     \
    RV_FP(fsgnjx_##s, BOX##w(A(w) ^ (B(w) & SIGN(w))))                             \
    RV_FP(fmin_##s, BOX##w(fp##w##_min(A(w), B(w), &env)))                         \
    RV_FP(fmax_##s, BOX##w(fp##w##_max(A(w), B(w), &env)))                         \
    RV_FP(fminm_##s, BOX##w(fp##w##_minm(A(w), B(w), &env)))                       \
    RV_FP(fmaxm_##s, BOX##w(fp##w##_maxm(A(w), B(w), &env)))                       \
    RV_FP(fround_##s, BOX##w(fp##w##_round(A(w), &env)))                           \
    RV_FP(froundnx_##s, BOX##w(fp##w##_roundnx(A(w), &env)))                       \
    RV_FP(fli_##s, BOX##w(fp##w##_constant(i->rs1)))                               \
    RV_FP_TO_X(feq_##s, fp##w##_eq(A(w), B(w), &env))                              \
    RV_FP_TO_X(flt_##s, fp##w##_lt(A(w), B(w), &env))                              \
    RV_FP_TO_X(fle_##s, fp##w##_le(A(w), B(w), &env))                              \
    RV_FP_TO_X(fltq_##s, fp##w##_ltq(A(w), B(w), &env))                            \
    RV_FP_TO_X(fleq_##s, fp##w##_leq(A(w), B(w), &env))                            \
    RV_ALU(fclass_##s, fp##w##_class(A(w)))                                        \
    RV_FP_TO_X(fcvt_w_##s, fp##w##_to_i32(A(w), &env))                             \
    RV_FP_TO_X(fcvt_wu_##s, (int32_t)fp##w##_to_u32(A(w), &env))                   \
    RV_FP_TO_X(fcvt_l_##s, fp##w##_to_i64(A(w), &env))                             \
    RV_FP_TO_X(fcvt_lu_##s, fp##w##_to_u64(A(w), &env))                            \
    RV_FP(fcvt_##s##_w, BOX##w(fp##w##_from_i32((int32_t)RV_X1, &env)))            \
    RV_FP(fcvt_##s##_wu, BOX##w(fp##w##_from_u32((uint32_t)RV_X1, &env)))          \
    RV_FP(fcvt_##s##_l, BOX##w(fp##w##_from_i64((int64_t)RV_X1, &env)))            \
    RV_FP(fcvt_##s##_lu, BOX##w(fp##w##_from_u64(RV_X1, &env)))

RV_FP_FORMAT(h, 16)
RV_FP_FORMAT(s, 32)
RV_FP_FORMAT(d, 64)

RV_FP(fcvt_s_d, BOX32(fp64_to_fp32(A(64), &env)))
RV_FP(fcvt_d_s, fp32_to_fp64(A(32), &env))
RV_FP(fcvt_s_h, BOX32(fp16_to_fp32(A(16), &env)))
RV_FP(fcvt_h_s, BOX16(fp32_to_fp16(A(32), &env)))
RV_FP(fcvt_d_h, fp16_to_fp64(A(16), &env))
RV_FP(fcvt_h_d, BOX16(fp64_to_fp16(A(64), &env)))
RV_FP_TO_X(fcvtmod_w_d, fp64_to_i32_mod(A(64), &env))

/* Moves of bits: neither boxing checks nor flags. */
RV_FP(fmv_h_x, BOX16(RV_X1))
RV_FP(fmv_w_x, BOX32(RV_X1))
RV_FP(fmv_d_x, RV_X1)
RV_ALU(fmv_x_h, (uint64_t)(int64_t)(int16_t)h->f[i->rs1])
RV_ALU(fmv_x_w, (uint64_t)(int64_t)(int32_t)h->f[i->rs1])
RV_ALU(fmv_x_d, h->f[i->rs1])

#define RV_FP_LOAD(name, w)                                             \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)                       \
    {                                                                   \
        struct rv_loaded v = rv_load(&h->cpu, RV_X1 + RV_IMM, (w) / 8); \
                                                                        \
        if (unlikely(v.status != CPU_OK))                               \
            return rv_leave_at(h, i, start, (enum cpu_status)v.status); \
        h->f[i->rd] = BOX##w(v.value);                                  \
        mark_dirty(h);                                                  \
        RV_NEXT();                                                      \
    }
RV_FP_LOAD(flh, 16)
RV_FP_LOAD(flw, 32)
RV_FP_LOAD(fld, 64)

#define RV_FP_STORE(name, w)                                                              \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)                                         \
    {                                                                                     \
        enum cpu_status status = cpu_store(&h->cpu, RV_X1 + RV_IMM, (w) / 8,              \
                                           h->cpu.mode & RV_MODE_MMU_MASK, h->f[i->rs2]); \
                                                                                          \
        if (unlikely(status != CPU_OK))                                                   \
            return rv_leave_at(h, i, start, status);                                      \
        RV_NEXT();                                                                        \
    }
RV_FP_STORE(fsh, 16)
RV_FP_STORE(fsw, 32)
RV_FP_STORE(fsd, 64)
