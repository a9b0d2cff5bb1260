/* Integer operations of the IR in C: the reference, and the constant folder's arithmetic. */
#include "base/bits.h"
#include "cpu/ir/eval.h"

static bool holds(enum ir_cc cc, unsigned size, uint64_t x, uint64_t y)
{
    int64_t sx = sext(x, 8 * size), sy = sext(y, 8 * size);

    x &= MASK(8 * size);
    y &= MASK(8 * size);
    switch (cc) {
    case IR_EQ:
        return x == y;
    case IR_NE:
        return x != y;
    case IR_LT:
        return sx < sy;
    case IR_GE:
        return sx >= sy;
    case IR_LE:
        return sx <= sy;
    case IR_GT:
        return sx > sy;
    case IR_LTU:
        return x < y;
    case IR_GEU:
        return x >= y;
    case IR_LEU:
        return x <= y;
    default:
        return x > y;
    }
}

static uint64_t divide(enum ir_op op, unsigned bits, uint64_t x, uint64_t y)
{
    int64_t sx = sext(x, bits), sy = sext(y, bits);
    bool overflow = sy == -1 && sx == sext(BIT(bits - 1), bits);

    x &= MASK(bits);
    y &= MASK(bits);
    switch (op) {
    case IR_DIV_RV:
        return !sy ? UINT64_MAX : overflow ? x : (uint64_t)(sx / sy);
    case IR_REM_RV:
        return !sy ? x : overflow ? 0 : (uint64_t)(sx % sy);
    case IR_DIVU_RV:
        return y ? x / y : UINT64_MAX;
    default:
        return y ? x % y : x;
    }
}

static uint64_t multiply_high(enum ir_op op, uint64_t x, uint64_t y)
{
    uint64_t high = (uint64_t)((unsigned __int128)x * y >> 64);

    if (op != IR_MULHU && (int64_t)x < 0)
        high -= y;
    if (op == IR_MULH && (int64_t)y < 0)
        high -= x;
    return high;
}

static uint64_t carryless(enum ir_op op, uint64_t x, uint64_t y)
{
    unsigned __int128 r = 0;

    for (unsigned n = 0; n < 64; n++)
        if (y >> n & 1)
            r ^= (unsigned __int128)x << n;
    return (uint64_t)(op == IR_CLMUL ? r : op == IR_CLMULH ? r >> 64 : r >> 63);
}

static uint64_t rotate_left(unsigned bits, uint64_t x, unsigned count)
{
    x &= MASK(bits);
    return count ? x << count | x >> (bits - count) : x;
}

static uint64_t bytewise(enum ir_op op, unsigned bits, uint64_t x)
{
    uint64_t r = 0;

    for (unsigned n = 0; n < bits; n += 8) {
        uint64_t byte = x >> n & 0xff, v = 0;

        if (op == IR_ORCB)
            v = byte ? 0xff : 0;
        else if (op == IR_BREV8)
            for (unsigned b = 0; b < 8; b++)
                v |= (byte >> b & 1) << (7 - b);
        else
            v = x >> (bits - 8 - n) & 0xff;
        r |= v << n;
    }
    return r;
}

static uint64_t unary(const struct ir_insn *i, unsigned bits, uint64_t x)
{
    uint64_t low = x & MASK(bits);

    switch (i->op) {
    case IR_CLZ:
        return low ? (unsigned)__builtin_clzll(low) - (64 - bits) : bits;
    case IR_CTZ:
        return low ? (unsigned)__builtin_ctzll(low) : bits;
    case IR_POPCNT:
        return (unsigned)__builtin_popcountll(low);
    case IR_SEXT:
        return (uint64_t)sext(x, 8 * i->size);
    case IR_ZEXT:
        return x & MASK(8 * i->size);
    default:
        return bytewise(i->op, bits, x);
    }
}

static uint64_t shift(enum ir_op op, unsigned bits, uint64_t x, unsigned count)
{
    count &= bits - 1;
    switch (op) {
    case IR_SHL:
        return x << count;
    case IR_SHR:
        return (x & MASK(bits)) >> count;
    case IR_SAR:
        return (uint64_t)(sext(x, bits) >> count);
    case IR_ROL:
        return rotate_left(bits, x, count);
    default:
        return rotate_left(bits, x, (bits - count) & (bits - 1));
    }
}

static uint64_t logic(enum ir_op op, unsigned bits, uint64_t x, uint64_t y)
{
    uint64_t bit = BIT(y & (bits - 1));

    switch (op) {
    case IR_AND:
        return x & y;
    case IR_OR:
        return x | y;
    case IR_XOR:
        return x ^ y;
    case IR_ANDN:
        return x & ~y;
    case IR_ORN:
        return x | ~y;
    case IR_XNOR:
        return ~(x ^ y);
    case IR_BSET:
        return x | bit;
    case IR_BCLR:
        return x & ~bit;
    case IR_BINV:
        return x ^ bit;
    default: /* BEXT */
        return !!(x & bit);
    }
}

bool ir_eval_integer(const struct ir_insn *i, const uint64_t *v, uint64_t *ret)
{
    unsigned bits = 8 * ir_type_size(i->type);
    uint64_t r;

    switch ((enum ir_op)i->op) {
    case IR_CONST:
        r = (uint64_t)i->imm;
        break;
    case IR_ADD:
        r = v[0] + v[1];
        break;
    case IR_SUB:
        r = v[0] - v[1];
        break;
    case IR_ADDSHL:
        r = (v[0] << i->imm) + v[1];
        break;
    case IR_MUL:
        r = v[0] * v[1];
        break;
    case IR_MULH:
    case IR_MULHSU:
    case IR_MULHU:
        r = multiply_high(i->op, v[0], v[1]);
        break;
    case IR_DIV_RV:
    case IR_DIVU_RV:
    case IR_REM_RV:
    case IR_REMU_RV:
        r = divide(i->op, bits, v[0], v[1]);
        break;
    case IR_SHL:
    case IR_SHR:
    case IR_SAR:
    case IR_ROL:
    case IR_ROR:
        r = shift(i->op, bits, v[0], (unsigned)v[1]);
        break;
    case IR_AND:
    case IR_OR:
    case IR_XOR:
    case IR_ANDN:
    case IR_ORN:
    case IR_XNOR:
    case IR_BSET:
    case IR_BCLR:
    case IR_BINV:
    case IR_BEXT:
        r = logic(i->op, bits, v[0], v[1]);
        break;
    case IR_CLZ:
    case IR_CTZ:
    case IR_POPCNT:
    case IR_BSWAP:
    case IR_ORCB:
    case IR_BREV8:
    case IR_SEXT:
    case IR_ZEXT:
        r = unary(i, bits, v[0]);
        break;
    case IR_SETCC:
        r = holds(i->aux, i->size, v[0], v[1]);
        break;
    case IR_SELECT:
        r = holds(i->aux, i->size, v[0], v[1]) ? v[2] : v[3];
        break;
    case IR_MIN:
    case IR_MAX:
        r = holds(i->op == IR_MIN ? IR_LT : IR_GT, bits / 8, v[0], v[1]) ? v[0] : v[1];
        break;
    case IR_MINU:
    case IR_MAXU:
        r = holds(i->op == IR_MINU ? IR_LTU : IR_GTU, bits / 8, v[0], v[1]) ? v[0] : v[1];
        break;
    case IR_CLMUL:
    case IR_CLMULH:
    case IR_CLMULR:
        r = carryless(i->op, v[0], v[1]);
        break;
    case IR_BRANCH: /* taken? */
        r = holds(i->aux, i->size, v[0], v[1]);
        break;
    default:
        return false;
    }
    *ret = i->op == IR_BRANCH ? r : r & MASK(bits);
    return true;
}

uint64_t ir_eval_amo(enum ir_amo op, unsigned size, uint64_t old, uint64_t operand)
{
    static const uint8_t cc[IR_AMOS] = {
        [IR_AMO_MIN] = IR_LT, [IR_AMO_MAX] = IR_GT, [IR_AMO_MINU] = IR_LTU, [IR_AMO_MAXU] = IR_GTU};

    switch (op) {
    case IR_AMO_SWAP:
        return operand;
    case IR_AMO_ADD:
        return old + operand;
    case IR_AMO_AND:
        return old & operand;
    case IR_AMO_OR:
        return old | operand;
    case IR_AMO_XOR:
        return old ^ operand;
    default:
        return holds(cc[op], size, old, operand) ? old : operand;
    }
}
