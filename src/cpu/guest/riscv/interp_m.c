/* Interpreter handlers: M, Zba, Zbb, Zbc, Zbs.
 * Spec: Unprivileged ISA 20240411, chapters 13 and 28. */
#include "cpu/guest/riscv/interp_internal.h"

/* --- M --- */

/** The high halves of 64 by 64 bit products. */
static uint64_t mul_high(uint64_t a, uint64_t b)
{
    return (uint64_t)(((unsigned __int128)a * b) >> 64);
}

static uint64_t mul_high_signed(int64_t a, int64_t b)
{
    return (uint64_t)(((__int128)a * b) >> 64);
}

/** Division as table 11 has it: by zero gives all ones and the dividend; overflow the dividend
 * and 0. */
static uint64_t div_signed(int64_t a, int64_t b)
{
    if (!b)
        return UINT64_MAX;
    if (a == INT64_MIN && b == -1)
        return (uint64_t)INT64_MIN;
    return (uint64_t)(a / b);
}

static uint64_t rem_signed(int64_t a, int64_t b)
{
    if (!b)
        return (uint64_t)a;
    if (b == -1)
        return 0;
    return (uint64_t)(a % b);
}

RV_ALU(mul, RV_X1 *RV_X2)
RV_ALU(mulh, mul_high_signed((int64_t)RV_X1, (int64_t)RV_X2))
RV_ALU(mulhu, mul_high(RV_X1, RV_X2))
RV_ALU(mulhsu, mul_high(RV_X1, RV_X2) - ((int64_t)RV_X1 < 0 ? RV_X2 : 0))
RV_ALU(div, div_signed((int64_t)RV_X1, (int64_t)RV_X2))
RV_ALU(divu, RV_X2 ? RV_X1 / RV_X2 : UINT64_MAX)
RV_ALU(rem, rem_signed((int64_t)RV_X1, (int64_t)RV_X2))
RV_ALU(remu, RV_X2 ? RV_X1 % RV_X2 : RV_X1)
RV_ALU_W(mulw, RV_X1 *RV_X2)
RV_ALU_W(divw, div_signed((int32_t)RV_X1, (int32_t)RV_X2))
RV_ALU_W(divuw, (uint32_t)RV_X2 ? (uint32_t)RV_X1 / (uint32_t)RV_X2 : UINT32_MAX)
RV_ALU_W(remw, rem_signed((int32_t)RV_X1, (int32_t)RV_X2))
RV_ALU_W(remuw, (uint32_t)RV_X2 ? (uint32_t)RV_X1 % (uint32_t)RV_X2 : (uint32_t)RV_X1)

/* --- Zba --- */

#define LOW32(v) ((uint64_t)(uint32_t)(v))

RV_ALU(add_uw, LOW32(RV_X1) + RV_X2)
RV_ALU(sh1add, (RV_X1 << 1) + RV_X2)
RV_ALU(sh2add, (RV_X1 << 2) + RV_X2)
RV_ALU(sh3add, (RV_X1 << 3) + RV_X2)
RV_ALU(sh1add_uw, (LOW32(RV_X1) << 1) + RV_X2)
RV_ALU(sh2add_uw, (LOW32(RV_X1) << 2) + RV_X2)
RV_ALU(sh3add_uw, (LOW32(RV_X1) << 3) + RV_X2)
RV_ALU(slli_uw, LOW32(RV_X1) << i->imm)

/* --- Zbb --- */

static uint64_t rotate_right(uint64_t v, unsigned n)
{
    n &= 63;
    return v >> n | v << (-n & 63);
}

static uint32_t rotate_right_w(uint32_t v, unsigned n)
{
    n &= 31;
    return v >> n | v << (-n & 31);
}

/** Each byte 0xff if it was not zero. */
static uint64_t or_combine_bytes(uint64_t v)
{
    const uint64_t low7 = 0x7f7f7f7f7f7f7f7fULL;
    uint64_t high = ((v & low7) + low7) | v; /* bit 7 of each byte: the byte is not zero */

    return ((high & ~low7) >> 7) * 0xff;
}

RV_ALU(andn, RV_X1 & ~RV_X2)
RV_ALU(orn, RV_X1 | ~RV_X2)
RV_ALU(xnor, ~(RV_X1 ^ RV_X2))
RV_ALU(clz, RV_X1 ? (uint64_t)__builtin_clzll(RV_X1) : 64)
RV_ALU(ctz, RV_X1 ? (uint64_t)__builtin_ctzll(RV_X1) : 64)
RV_ALU(cpop, (uint64_t)__builtin_popcountll(RV_X1))
RV_ALU(clzw, (uint32_t)RV_X1 ? (uint64_t)__builtin_clz((uint32_t)RV_X1) : 32)
RV_ALU(ctzw, (uint32_t)RV_X1 ? (uint64_t)__builtin_ctz((uint32_t)RV_X1) : 32)
RV_ALU(cpopw, (uint64_t)__builtin_popcount((uint32_t)RV_X1))
RV_ALU(max, (int64_t)RV_X1 > (int64_t)RV_X2 ? RV_X1 : RV_X2)
RV_ALU(maxu, RV_X1 > RV_X2 ? RV_X1 : RV_X2)
RV_ALU(min, (int64_t)RV_X1 < (int64_t)RV_X2 ? RV_X1 : RV_X2)
RV_ALU(minu, RV_X1 < RV_X2 ? RV_X1 : RV_X2)
RV_ALU(sext_b, (uint64_t)(int64_t)(int8_t)RV_X1)
RV_ALU(sext_h, (uint64_t)(int64_t)(int16_t)RV_X1)
RV_ALU(zext_h, (uint16_t)RV_X1)
RV_ALU(ror, rotate_right(RV_X1, (unsigned)RV_X2))
RV_ALU(rori, rotate_right(RV_X1, (unsigned)i->imm))
RV_ALU(rol, rotate_right(RV_X1, -(unsigned)RV_X2))
RV_ALU_W(rorw, rotate_right_w((uint32_t)RV_X1, (unsigned)RV_X2))
RV_ALU_W(roriw, rotate_right_w((uint32_t)RV_X1, (unsigned)i->imm))
RV_ALU_W(rolw, rotate_right_w((uint32_t)RV_X1, -(unsigned)RV_X2))
RV_ALU(orc_b, or_combine_bytes(RV_X1))
RV_ALU(rev8, __builtin_bswap64(RV_X1))

/* --- Zbc --- */

/** The low half of the carry-less product. */
static uint64_t clmul_low(uint64_t a, uint64_t b)
{
    uint64_t product = 0;

    for (; b; b &= b - 1)
        product ^= a << __builtin_ctzll(b);
    return product;
}

/** Bits 126..63 of the carry-less product. */
static uint64_t clmul_reversed(uint64_t a, uint64_t b)
{
    uint64_t product = 0;

    for (; b; b &= b - 1)
        product ^= a >> (63 - __builtin_ctzll(b));
    return product;
}

RV_ALU(clmul, clmul_low(RV_X1, RV_X2))
RV_ALU(clmulr, clmul_reversed(RV_X1, RV_X2))
RV_ALU(clmulh, clmul_reversed(RV_X1, RV_X2) >> 1)

/* --- Zbs --- */

RV_ALU(bclr, RV_X1 & ~BIT(RV_X2 & 63))
RV_ALU(bclri, RV_X1 & ~BIT(i->imm))
RV_ALU(bext, RV_X1 >> (RV_X2 & 63) & 1)
RV_ALU(bexti, RV_X1 >> i->imm & 1)
RV_ALU(binv, RV_X1 ^ BIT(RV_X2 & 63))
RV_ALU(binvi, RV_X1 ^ BIT(i->imm))
RV_ALU(bset, RV_X1 | BIT(RV_X2 & 63))
RV_ALU(bseti, RV_X1 | BIT(i->imm))
