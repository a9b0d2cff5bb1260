/* What the handlers of vector instructions (interp_v_*.c) share: operands, their rules, masks.
 *
 * 1. A handler calls a function that does the whole instruction, or does nothing and returns false:
 *    then the encoding is illegal with the present vtype.
 * 2. Inactive and tail elements keep their values, which is one of the things that "agnostic"
 *    allows.
 * 3. On return from a completed instruction vstart is 0 and mstatus.VS dirty.
 * 4. vl <= vlmax, so a group never holds more than RV_GROUP_BYTES, nor more elements.
 *
 * Spec: Unprivileged ISA 20240411, chapter 31. */
#ifndef CPU_GUEST_RISCV_VECTOR_H
#define CPU_GUEST_RISCV_VECTOR_H

#include "cpu/guest/riscv/interp_internal.h"
#include "cpu/guest/riscv/vec_kernels.h"

#define RV_GROUP_BYTES (RV_VLEN_MAX)

/** How the elements of the operands relate to SEW. */
enum rv_v_shape {
    RV_V_SAME,
    RV_V_WIDE,     /* vd twice as wide */
    RV_V_WIDE_ACC, /* the same, and read */
    RV_V_WIDE_2,   /* vd and vs2 twice as wide */
    RV_V_NARROW,   /* vs2 twice as wide */
    RV_V_COMPARE,  /* vd is a mask */
};

/** What stands in the place of vs1. */
enum rv_v_form { RV_V_VV, RV_V_VX, RV_V_VI, RV_V_VF, RV_V_V, RV_V_CVT /* as V; 0 is harmless */ };

/** A group's or array's worth of elements. */
union rv_v_group {
    uint8_t b[RV_GROUP_BYTES];
    uint64_t align[RV_GROUP_BYTES / 8];
};

static inline uint8_t *rv_v_reg(struct rv_hart *h, unsigned r)
{
    return (uint8_t *)h->vec.v + (size_t)r * h->vec.vlenb;
}

static inline bool rv_v_bit(const uint8_t *mask, size_t i)
{
    return mask[i >> 3] >> (i & 7) & 1;
}

static inline void rv_v_put_bit(uint8_t *mask, size_t i, bool value)
{
    mask[i >> 3] = (uint8_t)((mask[i >> 3] & ~(1u << (i & 7))) | (unsigned)value << (i & 7));
}

static inline bool rv_v_is_masked(const struct insn *i)
{
    return !(i->rs3 & 1);
}

/** Is element @n to be computed, as the mask says? */
static inline bool rv_v_active(struct rv_hart *h, const struct insn *i, size_t n)
{
    return !rv_v_is_masked(i) || rv_v_bit(rv_v_reg(h, 0), n);
}

/** Element @n of an array of elements of 1 << @width bytes, zero-extended. */
static inline uint64_t rv_v_get(const uint8_t *p, unsigned width, size_t n)
{
    uint64_t v = 0;

    memcpy(&v, p + (n << width), (size_t)1 << width);
    return v;
}

static inline int64_t rv_v_get_signed(const uint8_t *p, unsigned width, size_t n)
{
    return sext(rv_v_get(p, width, n), 8u << width);
}

static inline void rv_v_put(uint8_t *p, unsigned width, size_t n, uint64_t v)
{
    memcpy(p + (n << width), &v, (size_t)1 << width);
}

static inline void rv_v_done(struct rv_hart *h)
{
    h->vec.vstart = 0;
    if (unlikely(!(h->cpu.mode & RV_MODE_VS_DIRTY)))
        rv_set_vs_dirty(h);
}

static inline bool rv_v_legal_vtype(const struct rv_hart *h)
{
    return !(h->vec.vtype >> 63);
}

/** Can a group of 1 << @lmul registers begin at @reg? Fractions can anywhere. */
static inline bool rv_v_aligned(unsigned reg, int lmul)
{
    return lmul <= 0 || !(reg & ((1u << lmul) - 1));
}

/** May a group of results at @d overlap a group of operands at @s, whose elements have 1 <<
 * @d_width and 1 << @s_width bytes (31.5.2)? */
bool rv_v_overlap_ok(unsigned d, int d_lmul, int d_width, unsigned s, int s_lmul, int s_width);

/** Do the two groups share a register? */
static inline bool rv_v_overlap(unsigned a, int a_lmul, unsigned b, int b_lmul)
{
    return a < b + (1u << MAX(b_lmul, 0)) && b < a + (1u << MAX(a_lmul, 0));
}

/** May two groups of operands, of elements of 1 << width bytes, be read by one instruction? One
 * register cannot be read as elements of two widths (31.5.2). */
static inline bool rv_v_sources_ok(unsigned a, int a_lmul, int a_width, unsigned b, int b_lmul,
                                   int b_width)
{
    return a_width == b_width || !rv_v_overlap(a, a_lmul, b, b_lmul);
}

/** The same of a group and the mask, if the instruction has one. */
static inline bool rv_v_apart_from_mask(const struct insn *i, unsigned reg)
{
    return reg || !rv_v_is_masked(i);
}

/** A mask as an operand or result: one register of elements narrower than a byte. */
#define RV_V_MASK_WIDTH (-3)

static inline bool rv_v_is_wide(enum rv_v_shape shape)
{
    return shape == RV_V_WIDE || shape == RV_V_WIDE_ACC || shape == RV_V_WIDE_2;
}

/** The rules on vd, vs2 and (if @form has it) vs1 of an instruction of @shape; vtype; the mask. */
bool rv_v_operands_ok(const struct rv_hart *h, const struct insn *i, enum rv_v_shape shape,
                      enum rv_v_form form);

/** Fill @n elements of 1 << @width bytes with @value. */
void rv_v_splat(uint8_t *p, unsigned width, size_t n, uint64_t value);

/** Copy elements [vstart, vl) of @from to register @vd, but for those the mask leaves out. */
void rv_v_merge(struct rv_hart *h, const struct insn *i, unsigned vd, unsigned width,
                const uint8_t *from);

/** The same of a mask register, from bytes 0 and 1. */
void rv_v_merge_mask(struct rv_hart *h, const struct insn *i, unsigned vd, const uint8_t *from);

/** Replace elements that are not computed by @value, so that they raise no flags. */
void rv_v_neutral(struct rv_hart *h, const struct insn *i, uint8_t *p, unsigned width,
                  uint64_t value);

/** The scalar or immediate operand; the value of an f register of SEW, unboxed. */
uint64_t rv_v_scalar(const struct rv_hart *h, const struct insn *i, enum rv_v_form form);

/** Execute an integer instruction of @shape by kernels @k. False: illegal. */
bool rv_v_run(struct rv_hart *h, const struct insn *i, const rv_vk k, enum rv_v_shape shape,
              enum rv_v_form form);

/** A handler that executes by @call (false: illegal). */
#define RV_VECTOR(name, call)                         \
    enum cpu_status rv_do_##name(RV_HANDLER_ARGS)     \
    {                                                 \
        if (unlikely(!(call)))                        \
            return rv_illegal_insn(h, i, start, end); \
        RV_NEXT();                                    \
    }

/** Handlers for the forms of an instruction. */
#define RV_V_OP(name, suffix, kernel, shape, form) \
    RV_VECTOR(name##_##suffix, rv_v_run(h, i, h->vec.kernels->kernel, RV_V_##shape, RV_V_##form))
#define RV_V_VX(name, kernel, shape)     \
    RV_V_OP(name, vv, kernel, shape, VV) \
    RV_V_OP(name, vx, kernel, shape, VX)
#define RV_V_VXI(name, kernel, shape) \
    RV_V_VX(name, kernel, shape)      \
    RV_V_OP(name, vi, kernel, shape, VI)
#define RV_V_XI(name, kernel, shape)     \
    RV_V_OP(name, vx, kernel, shape, VX) \
    RV_V_OP(name, vi, kernel, shape, VI)

#endif
