/* x86-64 as the code generator sees it: registers and their roles, opcodes, condition codes.
 *
 * Opcodes are packed: bits 0-7 opcode, 8-9 map (0 = one byte, 1 = 0F, 2 = 0F38, 3 = 0F3A), 16-23
 * mandatory prefix, X_BYTE = a byte register is in `reg` or `rm` (forces REX for sil, dil). */
#ifndef CPU_HOST_X86_64_TARGET_H
#define CPU_HOST_X86_64_TARGET_H

enum x86_reg {
    RAX,
    RCX,
    RDX,
    RBX,
    RSP,
    RBP,
    RSI,
    RDI,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    XMM0,
    XMM1,
    XMM2,
    XMM15 = 31,
    X86_REGS = 32
};

/* Roles. RAX, RCX, XMM0, XMM1 are scratch of one operation; the rest is allocated. */
#define REG_STATE   RBP
#define REG_CONTEXT R14
#define GPR_POOL                                                                                   \
    (1u << RDX | 1u << RBX | 1u << RSI | 1u << RDI | 1u << R8 | 1u << R9 | 1u << R10 | 1u << R11 | \
     1u << R12 | 1u << R13 | 1u << R15)
#define XMM_POOL (0xfffcu << 16)

/* Condition codes as in Jcc, SETcc, CMOVcc. */
enum x86_cc {
    CC_O,
    CC_NO,
    CC_B,
    CC_AE,
    CC_E,
    CC_NE,
    CC_BE,
    CC_A,
    CC_S,
    CC_NS,
    CC_P,
    CC_NP,
    CC_L,
    CC_GE,
    CC_LE,
    CC_G
};

#define X_0F     (1u << 8)
#define X_0F38   (2u << 8)
#define X_0F3A   (3u << 8)
#define X_P66    (0x66u << 16)
#define X_PF2    (0xf2u << 16)
#define X_PF3    (0xf3u << 16)
#define X_BYTE   (1u << 24)
#define X_BYTERM (1u << 25)

enum x86_op {
    X_ADD = 0x01, /* rm, reg; +2: reg, rm */
    X_OR = 0x09,
    X_AND = 0x21,
    X_SUB = 0x29,
    X_XOR = 0x31,
    X_CMP = 0x39,
    X_TEST = 0x85,
    X_XCHG = 0x87,
    X_XCHG8 = 0x86 | X_BYTE | X_BYTERM,
    X_STORE8 = 0x88 | X_BYTE | X_BYTERM,
    X_STORE = 0x89,
    X_LOAD = 0x8b,
    X_LEA = 0x8d,
    X_MOVSXD = 0x63,
    X_IMULI = 0x69,
    X_IMULI8 = 0x6b,
    X_IMUL = 0xaf | X_0F,
    X_MOVZX8 = 0xb6 | X_0F | X_BYTERM,
    X_MOVZX16 = 0xb7 | X_0F,
    X_MOVSX8 = 0xbe | X_0F | X_BYTERM,
    X_MOVSX16 = 0xbf | X_0F,
    X_BT = 0xa3 | X_0F,
    X_BTS = 0xab | X_0F,
    X_BTR = 0xb3 | X_0F,
    X_BTC = 0xbb | X_0F,
    X_BTI = 0xba | X_0F, /* /4 bt, /5 bts, /6 btr, /7 btc, imm8 */
    X_BSF = 0xbc | X_0F,
    X_BSR = 0xbd | X_0F,
    X_TZCNT = 0xbc | X_0F | X_PF3,
    X_LZCNT = 0xbd | X_0F | X_PF3,
    X_POPCNT = 0xb8 | X_0F | X_PF3,
    X_CMPXCHG = 0xb1 | X_0F,
    X_XADD = 0xc1 | X_0F,
    X_GROUP1 = 0x81,  /* imm32 */
    X_GROUP1B = 0x83, /* imm8 */
    X_GROUP3 = 0xf7,  /* /0 test, /2 not, /3 neg, /4 mul, /5 imul, /6 div, /7 idiv */
    X_GROUP5 = 0xff,  /* /2 call, /4 jmp */
    X_SHIFTI = 0xc1,  /* /0 rol, /1 ror, /4 shl, /5 shr, /7 sar, imm8 */
    X_SHIFTCL = 0xd3,
    X_STOREI8 = 0xc6,
    X_STOREI = 0xc7,
    X_CMOV = 0x40 | X_0F,
    X_SETCC = 0x90 | X_0F | X_BYTERM,

    X_MOVAPS = 0x28 | X_0F,
    X_MOVSS = 0x10 | X_0F | X_PF3, /* load; +1: store */
    X_MOVSD = 0x10 | X_0F | X_PF2,
    X_MOVD_TO = 0x6e | X_0F | X_P66,
    X_MOVD_FROM = 0x7e | X_0F | X_P66,
    X_ADDS = 0x58 | X_0F, /* with the scalar prefix F3 or F2 */
    X_MULS = 0x59 | X_0F,
    X_SUBS = 0x5c | X_0F,
    X_MINS = 0x5d | X_0F,
    X_DIVS = 0x5e | X_0F,
    X_MAXS = 0x5f | X_0F,
    X_SQRTS = 0x51 | X_0F,
    X_UCOMIS = 0x2e | X_0F, /* with prefix 66 for double, none for single */
    X_COMIS = 0x2f | X_0F,
    X_CVTS = 0x5a | X_0F,   /* prefix = the source's */
    X_CVTTSI = 0x2c | X_0F, /* to integer */
    X_CVTSI = 0x2d | X_0F,
    X_CVTI2S = 0x2a | X_0F, /* from integer */
    X_ANDPS = 0x54 | X_0F,
    X_ANDNPS = 0x55 | X_0F,
    X_ORPS = 0x56 | X_0F,
    X_XORPS = 0x57 | X_0F,
    X_PCMPEQB = 0x74 | X_0F | X_P66,
    X_PXOR = 0xef | X_0F | X_P66,
    X_PCLMUL = 0x44 | X_0F3A | X_P66,
    X_MXCSR = 0xae | X_0F, /* /2 ldmxcsr, /3 stmxcsr */
};

/* Fields of an opcode extension in `reg`. */
enum x86_group1 { G1_ADD, G1_OR, G1_ADC, G1_SBB, G1_AND, G1_SUB, G1_XOR, G1_CMP };
enum x86_group3 { G3_TEST, G3_NOT = 2, G3_NEG, G3_MUL, G3_IMUL, G3_DIV, G3_IDIV };
enum x86_shift { SH_ROL = 0, SH_ROR = 1, SH_SHL = 4, SH_SHR = 5, SH_SAR = 7 };

#endif
