/* Fuzz target: decoder, disassembler, interpreter. The input is a mode byte, initial register
 * values and code, run on a bare hart in M, S or U mode with all its system registers in reach. */
#include "base/bits.h"
#include "cpu/guest/riscv/rows.h"
#include "tests/isa/bare.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BASE = 0x80000000, RAM = 64 << 10, CODE = 0x1000, REGS = 8, MAX_INSNS = 500 };

static void disassemble_all(const struct cpu *c, const uint8_t *code, size_t size)
{
    for (size_t at = 0; at < size;) {
        struct insn insn;
        char text[128];
        unsigned n = rv_decode(c, code + at, (unsigned)MIN(size - at, (size_t)4), &insn);

        if (!n)
            break;
        if (insn.op >= RV_OP_COUNT)
            abort();
        rv_disassemble(c, &insn, at, text, sizeof(text));
        if (!*text)
            abort();
        at += n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct bare *b;
    size_t code_size;

    if (size < 1 + REGS * 8)
        return 0;
    if (!b)
        b = bare_new(BASE, RAM);
    bare_reset(b);
    for (unsigned r = 0; r < REGS; r++)
        b->h.x[8 + r] = load_le64(data + 1 + 8 * r);
    b->h.x[2] = BASE + RAM / 2;
    code_size = MIN(size - (1 + REGS * 8), (size_t)(RAM - CODE));
    memcpy(b->ram + CODE, data + 1 + REGS * 8, code_size);
    b->h.cpu.pc = BASE + CODE;
    b->h.mtvec = BASE + CODE;
    b->h.stvec = BASE + CODE;
    b->h.priv = data[0] % 3 == 2 ? RV_M : data[0] % 3;
    b->h.medeleg = data[0] & 4 ? 0xb3ff : 0;
    (void)rv_csr_poke(&b->h, 0x3b0, ~0ULL); /* pmpaddr0, pmpcfg0: all memory for S and U */
    (void)rv_csr_poke(&b->h, 0x3a0, 0x1f);
    rv_update_mode(&b->h);
    disassemble_all(&b->h.cpu, b->ram + CODE, code_size);
    (void)bare_run(b, MAX_INSNS, false); /* any way to stop will do */
    if (b->h.x[0])
        abort();
    return 0;
}
