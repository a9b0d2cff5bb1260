/* Dumps of generated code, with capstone if it was there at build time, else as bytes. */
#include "cpu/host/host.h"

#include <inttypes.h>

#ifdef HAVE_CAPSTONE
#include <capstone/capstone.h>
#endif

static void dump_bytes(const uint8_t *code, size_t size, FILE *out)
{
    for (size_t n = 0; n < size; n++)
        fprintf(out, "%s%02x%s", n % 16 ? " " : "    ", code[n],
                n % 16 == 15 || n + 1 == size ? "\n" : "");
}

void host_dump_code(const struct host *h, const struct host_code *code, FILE *out)
{
#ifdef HAVE_CAPSTONE
    csh cs;
    cs_insn *insn;
    size_t n;

    if (cs_open(CS_ARCH_X86, CS_MODE_64, &cs) == CS_ERR_OK) {
        n = cs_disasm(cs, code->entry, code->size, (uintptr_t)code->entry, 0, &insn);
        for (size_t k = 0; k < n; k++) {
            if (insn[k].address == (uintptr_t)code->entry + code->hot_size)
                fprintf(out, "    ; cold\n");
            fprintf(out, "    %#" PRIx64 "  %s %s\n", insn[k].address, insn[k].mnemonic,
                    insn[k].op_str);
        }
        cs_free(insn, n);
        cs_close(&cs);
        return;
    }
#endif
    dump_bytes(code->entry, code->size, out);
}
