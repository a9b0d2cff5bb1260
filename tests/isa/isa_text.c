/* isa_text: random instructions and our disassembly of them, for objdump_test.py.
 *
 *     isa_text COUNT SEED
 *
 * A line has the encoding in hex, a tab, its 32-bit form in hex (the same unless compressed), a
 * tab, and the text at address 0. */
#include "base/bits.h"
#include "cpu/guest/riscv/hart.h"
#include "cpu/guest/riscv/rows.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    static const struct cpu everything = {.mode = RV_MODE_FS | RV_MODE_FS_DIRTY | RV_MODE_VS |
                                                  0xcULL << RV_MODE_CBO_SHIFT};
    unsigned count = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;

    srandom(argc > 2 ? (unsigned)atoi(argv[2]) : 1);
    for (unsigned n = 0; n < count;) {
        const struct rv_row *row = &rv_rows[(unsigned)random() % rv_row_count];
        uint32_t noise = (uint32_t)random() ^ (uint32_t)random() << 16;
        uint32_t w = row->match | (noise & ~row->mask & (uint32_t)MASK(row->size * 8u));
        uint8_t bytes[4];
        struct insn insn;
        char text[96];

        store_le32(bytes, w);
        rv_decode(&everything, bytes, 4, &insn);
        if (insn.op == RV_OP_ILLEGAL || insn.op == RV_OP_C_MOP || insn.size != row->size)
            continue;
        rv_disassemble(&everything, &insn, 0, text, sizeof(text));
        printf("%0*x\t%08x\t%s\t%s\n", row->size * 2, w, rv_encode_op(&insn), row->extension, text);
        n++;
    }
    return 0;
}
