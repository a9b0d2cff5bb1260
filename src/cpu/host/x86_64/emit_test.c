/* The encoder against an independent disassembler (capstone): every form, with the registers that
 * have encodings of their own. */
#include "base/test.h"
#include "cpu/host/host.h"

#ifdef HAVE_CAPSTONE
#include <capstone/capstone.h>
#include <stdio.h>

/* capstone has an enum of the same name */
#define x86_reg host_x86_reg
#define x86_op  host_x86_op
#define x86_cc  host_x86_cc
#include "cpu/host/x86_64/emit.h"

static uint8_t code[64];

static void check(struct emit *e, const char *want, const char *file, int line)
{
    csh cs;
    cs_insn *insn;
    size_t n, size = (size_t)(e->p - code);
    char got[256] = "nothing";

    ASSERT_EQ(cs_open(CS_ARCH_X86, CS_MODE_64, &cs), CS_ERR_OK);
    n = cs_disasm(cs, code, size, 0x1000, 1, &insn);
    if (n)
        snprintf(got, sizeof(got), "%s%s%s", insn->mnemonic, insn->op_str[0] ? " " : "",
                 insn->op_str);
    if (!n || insn->size != size || strcmp(got, want) != 0)
        test_fail(file, line, "%zu bytes are '%s' (%u), want '%s'", size, got, n ? insn->size : 0,
                  want);
    if (n)
        cs_free(insn, n);
    cs_close(&cs);
}

#define EMITS(call, want)                                                   \
    do {                                                                    \
        struct emit e_ = {.p = code, .end = code + sizeof(code)}, *e = &e_; \
        call;                                                               \
        check(e, want, __FILE__, __LINE__);                                 \
    } while (0)

TEST(addressing_modes)
{
    EMITS(emit_op(e, X_LOAD, true, RDX, rm_mem(RBX, 0)), "mov rdx, qword ptr [rbx]");
    EMITS(emit_op(e, X_LOAD, true, RDX, rm_mem(RBP, 0)), "mov rdx, qword ptr [rbp]");
    EMITS(emit_op(e, X_LOAD, true, RDX, rm_mem(R13, 0)), "mov rdx, qword ptr [r13]");
    EMITS(emit_op(e, X_LOAD, true, R8, rm_mem(RSP, 8)), "mov r8, qword ptr [rsp + 8]");
    EMITS(emit_op(e, X_LOAD, false, R15, rm_mem(R12, -128)), "mov r15d, dword ptr [r12 - 0x80]");
    EMITS(emit_op(e, X_LOAD, true, RDX, rm_mem(R14, 128)), "mov rdx, qword ptr [r14 + 0x80]");
    EMITS(emit_op(e, X_LOAD, true, RDX, rm_sib(RBP, R12, 3, 0)),
          "mov rdx, qword ptr [rbp + r12*8]");
    EMITS(emit_op(e, X_LOAD, true, R9, rm_sib(R13, RCX, 0, 0x12345)),
          "mov r9, qword ptr [r13 + rcx + 0x12345]");
    EMITS(emit_op(e, X_LOAD, true, RDX, rm_rip(code + 0x107)), "mov rdx, qword ptr [rip + 0x100]");
    EMITS(emit_lea(e, true, R10, rm_sib(RAX, R15, 2, -1)), "lea r10, [rax + r15*4 - 1]");
    EMITS(emit_lea(e, false, RCX, rm_mem(RSI, 7)), "lea ecx, [rsi + 7]");
}

TEST(integers)
{
    EMITS(emit_rr(e, X_ADD, true, RSI, R11), "add r11, rsi");
    EMITS(emit_rr(e, X_ADD + 2, true, RSI, R11), "add rsi, r11");
    EMITS(emit_rr(e, X_XOR + 2, false, R8, R9), "xor r8d, r9d");
    EMITS(emit_group1(e, G1_CMP, true, rm_reg(R13), -1), "cmp r13, -1");
    EMITS(emit_group1(e, G1_AND, false, rm_reg(RCX), 0x3fe0), "and ecx, 0x3fe0");
    EMITS(emit_group1(e, G1_ADD, true, rm_mem(RBP, 24), 1000), "add qword ptr [rbp + 0x18], 0x3e8");
    EMITS(emit_shift(e, SH_SAR, true, rm_reg(R12), 63), "sar r12, 0x3f");
    EMITS(emit_op(e, X_SHIFTCL, false, SH_SHL, rm_reg(RDX)), "shl edx, cl");
    EMITS(emit_op(e, X_GROUP3, true, G3_IDIV, rm_reg(RCX)), "idiv rcx");
    EMITS(emit_rr(e, X_IMUL, true, RDI, R8), "imul rdi, r8");
    EMITS(emit_rr(e, X_CMOV + CC_BE, true, R15, RDX), "cmovbe r15, rdx");
    EMITS(emit_op(e, X_SETCC + CC_G, false, 0, rm_reg(RSI)), "setg sil");
    EMITS(emit_op(e, X_SETCC + CC_E, false, 0, rm_reg(R9)), "sete r9b");
    EMITS(emit_rr(e, X_MOVZX8, false, R8, RDI), "movzx r8d, dil");
    EMITS(emit_rr(e, X_MOVSX16, true, RDX, RBX), "movsx rdx, bx");
    EMITS(emit_rr(e, X_MOVSXD, true, RBX, R10), "movsxd rbx, r10d");
    EMITS(emit_rr(e, X_POPCNT, true, R8, R9), "popcnt r8, r9");
    EMITS(emit_rr(e, X_LZCNT, false, RDX, RDI), "lzcnt edx, edi");
    EMITS(emit_rr(e, X_TZCNT, true, RDX, R15), "tzcnt rdx, r15");
    EMITS(emit_op(e, X_CMPXCHG, true, R8, rm_mem(RCX, 0)), "cmpxchg qword ptr [rcx], r8");
    EMITS(emit_op(e, X_XADD, false, RSI, rm_mem(RCX, 0)), "xadd dword ptr [rcx], esi");
}

TEST(moves)
{
    EMITS(emit_mov(e, true, RDX, R9), "mov rdx, r9");
    EMITS(emit_mov(e, false, RDX, RDX), "mov edx, edx");
    EMITS(emit_const(e, R9, 5), "mov r9d, 5");
    EMITS(emit_const(e, RAX, UINT32_MAX), "mov eax, 0xffffffff");
    EMITS(emit_const(e, RBX, (uint64_t)-2), "mov rbx, -2");
    EMITS(emit_const(e, R12, 0x123456789abcdef0), "movabs r12, 0x123456789abcdef0");
    EMITS(emit_op(e, X_STORE8, false, RSI, rm_mem(RAX, 1)), "mov byte ptr [rax + 1], sil");
    EMITS(emit_op(e, X_STORE8, false, R10, rm_mem(RAX, 1)), "mov byte ptr [rax + 1], r10b");
    EMITS(emit_store_imm(e, true, rm_mem(RBP, 64), -1), "mov qword ptr [rbp + 0x40], -1");
    EMITS(emit_push(e, R12), "push r12");
    EMITS(emit_pop(e, RBX), "pop rbx");
    EMITS(emit_push_imm(e, 0x12345), "push 0x12345");
}

TEST(vectors)
{
    EMITS(emit_rr(e, X_ADDS | X_PF2, false, XMM0 + 2, XMM0 + 9), "addsd xmm2, xmm9");
    EMITS(emit_op(e, X_MULS | X_PF3, false, XMM0 + 12, rm_mem(RBP, 8)),
          "mulss xmm12, dword ptr [rbp + 8]");
    EMITS(emit_rr(e, X_UCOMIS | X_P66, false, XMM0 + 8, XMM1), "ucomisd xmm8, xmm1");
    EMITS(emit_rr(e, X_CVTTSI | X_PF2, true, R8, XMM0 + 3), "cvttsd2si r8, xmm3");
    EMITS(emit_rr(e, X_CVTI2S | X_PF3, true, XMM0 + 10, RDX), "cvtsi2ss xmm10, rdx");
    EMITS(emit_rr(e, X_MOVD_TO, true, XMM0 + 15, R8), "movq xmm15, r8");
    EMITS(emit_rr(e, X_MOVD_FROM, true, XMM0 + 15, R8), "movq r8, xmm15");
    EMITS(emit_op(e, X_MOVSD + 1, false, XMM0 + 4, rm_mem(RSP, 0)), "movsd qword ptr [rsp], xmm4");
    EMITS(emit_op(e, X_MXCSR, false, 2, rm_mem(RBP, 4)), "ldmxcsr dword ptr [rbp + 4]");
    EMITS(emit_vex(e, X_ADDS | X_PF2, false, XMM0 + 2, XMM0 + 9, rm_reg(XMM0 + 3)),
          "vaddsd xmm2, xmm9, xmm3");
    EMITS(emit_vex(e, 0xb9 | X_0F38 | X_P66, true, XMM0 + 8, XMM0 + 2, rm_reg(XMM0 + 14)),
          "vfmadd231sd xmm8, xmm2, xmm14");
    EMITS(emit_vex(e, 0xf7 | X_0F38 | X_P66, true, RDX, R9, rm_mem(RBP, 16)),
          "shlx rdx, qword ptr [rbp + 0x10], r9");
    EMITS(emit_vex(e, 0xf2 | X_0F38, false, R8, RDI, rm_reg(R12)), "andn r8d, edi, r12d");
}

TEST(jumps)
{
    EMITS(emit_jmp(e, code + 5 + 0x100), "jmp 0x1105");
    EMITS(emit_jcc(e, CC_A, code + 6), "ja 0x1006");
    EMITS(emit_call(e, code), "call 0x1000");
    EMITS(emit_op(e, X_GROUP5, false, 4, rm_reg(R11)), "jmp r11");
    for (unsigned n = 1; n < 10; n++) {
        struct emit e_ = {.p = code, .end = code + sizeof(code)};

        emit_nop(&e_, n);
        EXPECT_EQ(e_.p - code, n);
    }
    EMITS(emit_nop(e, 9), "nop word ptr [rax + rax]");
}
#else
TEST(encodings)
{
    test_skip("built without capstone");
}
#endif
