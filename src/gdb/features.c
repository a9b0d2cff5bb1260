/* The target description: registers by feature, from the vCPU's own table. */
#include "gdb/gdb_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *gdb_target_xml(struct gdb_server *g)
{
    size_t count = 0;
    const struct vcpu_reg *regs = vcpu_registers(g->target.vcpus[0], &count);
    const char *feature = "";
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);

    if (!f)
        return NULL;
    fprintf(
        f,
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">"
        "<architecture>%s</architecture>",
        g->target.arch == GDB_X86_64 ? "i386:x86-64" : "riscv:rv64");
    for (size_t i = 0; i < count; i++) {
        const struct vcpu_reg *r = &regs[i];

        if (strcmp(feature, r->feature) != 0) {
            fprintf(f, "%s<feature name=\"%s\">", feature[0] ? "</feature>" : "", r->feature);
            feature = r->feature;
        }
        bool is_float = !strcmp(r->group, "float");
        bool is_pc = !strcmp(r->name, "pc") || !strcmp(r->name, "rip");
        bool is_sp = !strcmp(r->name, "sp") || !strcmp(r->name, "rsp");
        fprintf(f, "<reg name=\"%s\" bitsize=\"%u\" regnum=\"%u\" type=\"%s\" group=\"%s\"/>",
                r->name, r->bits, r->id,
                is_float ? (r->bits == 80   ? "i387_ext"
                            : r->bits == 64 ? "ieee_double"
                                            : "int")
                : is_pc  ? "code_ptr"
                : is_sp  ? "data_ptr"
                         : "int",
                r->group);
    }
    fprintf(f, "%s</target>", feature[0] ? "</feature>" : "");
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}
