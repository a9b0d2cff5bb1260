/* The x86-64 encoder: bytes of one instruction, nothing more. Callers make sure of room.
 *
 * Operands: `reg` is an enum x86_reg (XMM numbers work the same way); the other operand is a
 * struct rm, a register or memory. @w = 64-bit. Spec: Intel SDM volume 2, chapter 2. */
#ifndef CPU_HOST_X86_64_EMIT_H
#define CPU_HOST_X86_64_EMIT_H

#include "base/macros.h"
#include "cpu/host/x86_64/target.h"

#include <string.h>

struct emit {
    uint8_t *p;
    uint8_t *end;
};

#define RM_NONE (-1)

struct rm {
    int8_t reg;         /* a register, or RM_NONE: memory at */
    int8_t base, index; /* base + (index << scale) + disp, RM_NONE = absent; */
    uint8_t scale;      /* without a base: */
    int32_t disp;       /* at `target`, relative to the next instruction */
    const uint8_t *target;
};

static inline struct rm rm_reg(unsigned reg)
{
    return (struct rm){.reg = (int8_t)reg, .base = RM_NONE, .index = RM_NONE};
}
static inline struct rm rm_mem(unsigned base, int64_t disp)
{
    return (struct rm){
        .reg = RM_NONE, .base = (int8_t)base, .index = RM_NONE, .disp = (int32_t)disp};
}
static inline struct rm rm_sib(unsigned base, unsigned index, unsigned scale, int64_t disp)
{
    return (struct rm){.reg = RM_NONE,
                       .base = (int8_t)base,
                       .index = (int8_t)index,
                       .scale = (uint8_t)scale,
                       .disp = (int32_t)disp};
}
static inline struct rm rm_rip(const uint8_t *target)
{
    return (struct rm){.reg = RM_NONE, .base = RM_NONE, .index = RM_NONE, .target = target};
}

static inline void emit8(struct emit *e, unsigned v)
{
    *e->p++ = (uint8_t)v;
}
static inline void emit16(struct emit *e, unsigned v)
{
    memcpy(e->p, &(uint16_t){(uint16_t)v}, 2);
    e->p += 2;
}
static inline void emit32(struct emit *e, uint32_t v)
{
    memcpy(e->p, &v, 4);
    e->p += 4;
}
static inline void emit64(struct emit *e, uint64_t v)
{
    memcpy(e->p, &v, 8);
    e->p += 8;
}

static inline bool fits8(int64_t v)
{
    return v == (int8_t)v;
}
static inline bool fits32(int64_t v)
{
    return v == (int32_t)v;
}

/** ModRM, SIB and displacement; @imm: bytes of immediate that follow (for target). */
static inline void emit_modrm(struct emit *e, unsigned reg, struct rm rm, unsigned imm)
{
    unsigned r = (reg & 7) << 3;

    if (rm.reg != RM_NONE) {
        emit8(e, 0xc0 | r | (rm.reg & 7));
        return;
    }
    if (rm.base == RM_NONE) {
        emit8(e, r | 5);
        emit32(e, (uint32_t)(rm.target - (e->p + 4 + imm)));
        return;
    }

    /* rbp and r13 as base have no form without displacement */
    unsigned mod = rm.disp == 0 && (rm.base & 7) != RBP ? 0 : fits8(rm.disp) ? 0x40 : 0x80;

    if (rm.index != RM_NONE) {
        emit8(e, mod | r | 4);
        emit8(e, (unsigned)rm.scale << 6 | (rm.index & 7) << 3 | (rm.base & 7));
    } else {
        emit8(e, mod | r | (rm.base & 7));
        if ((rm.base & 7) == RSP)
            emit8(e, 0x24);
    }
    if (mod == 0x40)
        emit8(e, (uint8_t)rm.disp);
    else if (mod == 0x80)
        emit32(e, (uint32_t)rm.disp);
}

/** Any instruction of the legacy encoding with a ModRM byte. */
static inline void emit_op_imm(struct emit *e, unsigned op, bool w, unsigned reg, struct rm rm,
                               unsigned imm)
{
    unsigned prefix = op >> 16 & 0xff, map = op >> 8 & 3, rex = w ? 0x48 : 0;

    if (prefix)
        emit8(e, prefix);
    if (reg & 8)
        rex |= 0x44;
    if (rm.reg != RM_NONE) {
        if (rm.reg & 8)
            rex |= 0x41;
        if ((op & X_BYTERM) && rm.reg >= RSP && rm.reg <= RDI)
            rex |= 0x40;
    } else {
        if (rm.base != RM_NONE && (rm.base & 8))
            rex |= 0x41;
        if (rm.index != RM_NONE && (rm.index & 8))
            rex |= 0x42;
    }
    if ((op & X_BYTE) && reg >= RSP && reg <= RDI)
        rex |= 0x40;
    if (rex)
        emit8(e, rex);
    if (map)
        emit8(e, 0x0f);
    if (map == 2)
        emit8(e, 0x38);
    else if (map == 3)
        emit8(e, 0x3a);
    emit8(e, op & 0xff);
    emit_modrm(e, reg, rm, imm);
}
static inline void emit_op(struct emit *e, unsigned op, bool w, unsigned reg, struct rm rm)
{
    emit_op_imm(e, op, w, reg, rm, 0);
}
/** reg, reg forms of ops whose destination is `reg` (loads, SSE), and of those whose is rm. */
static inline void emit_rr(struct emit *e, unsigned op, bool w, unsigned reg, unsigned rm)
{
    emit_op(e, op, w, reg, rm_reg(rm));
}

/** VEX: @vvvv the extra source; pp and map from the packed opcode's prefix and map. @l256. */
static inline void emit_vex(struct emit *e, unsigned op, bool w, unsigned reg, unsigned vvvv,
                            struct rm rm)
{
    unsigned prefix = op >> 16 & 0xff, map = op >> 8 & 3;
    unsigned pp = prefix == 0x66 ? 1 : prefix == 0xf3 ? 2 : prefix == 0xf2 ? 3 : 0;
    bool x = rm.reg == RM_NONE && rm.index != RM_NONE && (rm.index & 8);
    bool b = rm.reg != RM_NONE ? rm.reg & 8 : rm.base != RM_NONE && (rm.base & 8);

    if (map == 1 && !w && !x && !b) {
        emit8(e, 0xc5);
        emit8(e, (reg & 8 ? 0 : 0x80) | (~vvvv & 15) << 3 | pp);
    } else {
        emit8(e, 0xc4);
        emit8(e, (reg & 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | map);
        emit8(e, (w ? 0x80 : 0) | (~vvvv & 15) << 3 | pp);
    }
    emit8(e, op & 0xff);
    emit_modrm(e, reg, rm, 0);
}

/** add, or, and, sub, xor, cmp rm, imm. */
static inline void emit_group1(struct emit *e, enum x86_group1 g, bool w, struct rm rm, int32_t imm)
{
    if (fits8(imm)) {
        emit_op_imm(e, X_GROUP1B, w, g, rm, 1);
        emit8(e, (uint8_t)imm);
    } else {
        emit_op_imm(e, X_GROUP1, w, g, rm, 4);
        emit32(e, (uint32_t)imm);
    }
}
static inline void emit_shift(struct emit *e, enum x86_shift s, bool w, struct rm rm,
                              unsigned count)
{
    emit_op_imm(e, X_SHIFTI, w, s, rm, 1);
    emit8(e, count);
}
static inline void emit_mov(struct emit *e, bool w, unsigned dst, unsigned src)
{
    if (dst != src || !w)
        emit_rr(e, X_LOAD, w, dst, src);
}
/** The shortest way to a constant that leaves the flags alone. */
static inline void emit_const(struct emit *e, unsigned reg, uint64_t v)
{
    if (v <= UINT32_MAX) {
        if (reg & 8)
            emit8(e, 0x41);
        emit8(e, 0xb8 | (reg & 7));
        emit32(e, (uint32_t)v);
    } else if (fits32((int64_t)v)) {
        emit_op(e, X_STOREI, true, 0, rm_reg(reg));
        emit32(e, (uint32_t)v);
    } else {
        emit8(e, reg & 8 ? 0x49 : 0x48);
        emit8(e, 0xb8 | (reg & 7));
        emit64(e, v);
    }
}
/** mov [rm], imm32, sign-extended to 64 bits if @w. */
static inline void emit_store_imm(struct emit *e, bool w, struct rm rm, int32_t imm)
{
    emit_op_imm(e, X_STOREI, w, 0, rm, 4);
    emit32(e, (uint32_t)imm);
}
static inline void emit_lea(struct emit *e, bool w, unsigned dst, struct rm rm)
{
    emit_op(e, X_LEA, w, dst, rm);
}
static inline void emit_push(struct emit *e, unsigned reg)
{
    if (reg & 8)
        emit8(e, 0x41);
    emit8(e, 0x50 | (reg & 7));
}
static inline void emit_pop(struct emit *e, unsigned reg)
{
    if (reg & 8)
        emit8(e, 0x41);
    emit8(e, 0x58 | (reg & 7));
}
static inline void emit_push_imm(struct emit *e, uint32_t imm)
{
    emit8(e, 0x68);
    emit32(e, imm);
}

/** Set the rel32 that ends at @at + 4 to lead to @target. */
static inline void emit_fix(uint8_t *at, const uint8_t *target)
{
    memcpy(at, &(int32_t){(int32_t)(target - (at + 4))}, 4);
}
/** Jumps; they return where their rel32 is. @target NULL: to be fixed. */
static inline uint8_t *emit_jmp(struct emit *e, const uint8_t *target)
{
    uint8_t *at = e->p + 1;

    emit8(e, 0xe9);
    emit32(e, 0);
    if (target)
        emit_fix(at, target);
    return at;
}
static inline uint8_t *emit_jcc(struct emit *e, enum x86_cc cc, const uint8_t *target)
{
    uint8_t *at = e->p + 2;

    emit8(e, 0x0f);
    emit8(e, 0x80 | cc);
    emit32(e, 0);
    if (target)
        emit_fix(at, target);
    return at;
}
static inline void emit_call(struct emit *e, const uint8_t *target)
{
    emit8(e, 0xe8);
    emit32(e, 0);
    emit_fix(e->p - 4, target);
}
/** A short forward jump, fixed by emit_here(). */
static inline uint8_t *emit_jcc_short(struct emit *e, enum x86_cc cc)
{
    emit8(e, 0x70 | cc);
    emit8(e, 0);
    return e->p;
}
static inline uint8_t *emit_jmp_short(struct emit *e)
{
    emit8(e, 0xeb);
    emit8(e, 0);
    return e->p;
}
static inline void emit_here(struct emit *e, uint8_t *jump_end)
{
    dcheck(e->p - jump_end < 128);
    jump_end[-1] = (uint8_t)(e->p - jump_end);
}

/** One no-op of @n bytes, 0 to 9. */
static inline void emit_nop(struct emit *e, unsigned n)
{
    static const char *const nops[10] = {"",
                                         "\x90",
                                         "\x66\x90",
                                         "\x0f\x1f\x00",
                                         "\x0f\x1f\x40\x00",
                                         "\x0f\x1f\x44\x00\x00",
                                         "\x66\x0f\x1f\x44\x00\x00",
                                         "\x0f\x1f\x80\x00\x00\x00\x00",
                                         "\x0f\x1f\x84\x00\x00\x00\x00\x00",
                                         "\x66\x0f\x1f\x84\x00\x00\x00\x00\x00"};

    memcpy(e->p, nops[n], n);
    e->p += n;
}

#endif
