/* isa_suite: run bare-metal test programs that report through `tohost` (riscv-tests,
 * riscv-arch-test's RVTEST, and the like) on a hart on flat RAM.
 *
 *     isa_suite [-n MAX_INSNS] [-d SIGNATURE] ELF...
 *
 * tohost = 1 is a pass, any other odd value a failure, of test value >> 1. With -d, the memory
 * between begin_signature and end_signature is written to SIGNATURE, a word a line. Exit status 0
 * when all pass. */
#include "base/bits.h"
#include "tests/isa/bare.h"

#include <elf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { RAM_BASE = 0x80000000, RAM_SIZE = 64 << 20, SLICE = 2000 };

struct image {
    uint8_t *bytes;
    size_t size;
    uint64_t tohost, begin_signature, end_signature;
};

static bool read_file(const char *path, struct image *ret)
{
    FILE *f = fopen(path, "rb");
    bool ok = false;

    if (f && !fseek(f, 0, SEEK_END)) {
        ret->size = (size_t)ftell(f);
        rewind(f);
        ret->bytes = malloc(ret->size + 1);
        ok = ret->bytes && fread(ret->bytes, 1, ret->size, f) == ret->size;
    }
    if (f)
        (void)fclose(f); /* read only */
    return ok;
}

static void find_symbols(struct image *m, const Elf64_Ehdr *e)
{
    const Elf64_Shdr *sections = (const void *)(m->bytes + e->e_shoff);

    for (unsigned s = 0; s < e->e_shnum; s++) {
        const Elf64_Sym *syms = (const void *)(m->bytes + sections[s].sh_offset);
        const char *names;

        if (sections[s].sh_type != SHT_SYMTAB)
            continue;
        names = (const char *)m->bytes + sections[sections[s].sh_link].sh_offset;
        for (size_t n = 0; n < sections[s].sh_size / sizeof(*syms); n++) {
            const char *name = names + syms[n].st_name;

            if (!strcmp(name, "tohost"))
                m->tohost = syms[n].st_value;
            else if (!strcmp(name, "begin_signature"))
                m->begin_signature = syms[n].st_value;
            else if (!strcmp(name, "end_signature"))
                m->end_signature = syms[n].st_value;
        }
    }
}

/** Load @path into RAM; the test suites' files are trusted to be well-formed. */
static bool load(struct bare *b, const char *path, struct image *m)
{
    const Elf64_Ehdr *e;
    const Elf64_Phdr *p;

    if (!read_file(path, m) || m->size < sizeof(*e) || memcmp(m->bytes, ELFMAG, 4))
        return false;
    e = (const void *)m->bytes;
    p = (const void *)(m->bytes + e->e_phoff);
    for (unsigned n = 0; n < e->e_phnum; n++) {
        if (p[n].p_type != PT_LOAD || p[n].p_paddr < RAM_BASE ||
            p[n].p_paddr - RAM_BASE + p[n].p_memsz > RAM_SIZE)
            continue;
        memcpy(b->ram + (p[n].p_paddr - RAM_BASE), m->bytes + p[n].p_offset, p[n].p_filesz);
    }
    b->h.cpu.pc = e->e_entry;
    find_symbols(m, e);
    return m->tohost >= RAM_BASE && m->tohost < RAM_BASE + RAM_SIZE;
}

static void dump_signature(const struct bare *b, const struct image *m, const char *path)
{
    FILE *f = fopen(path, "w");

    for (uint64_t at = m->begin_signature; f && at + 4 <= m->end_signature; at += 4)
        fprintf(f, "%08x\n", load_le32(b->ram + (at - RAM_BASE)));
    if (f)
        (void)fclose(f);
}

/** True if the program says it passed. */
static bool run(const char *path, uint64_t max_insns, const char *signature)
{
    struct bare *b = bare_new(RAM_BASE, RAM_SIZE);
    struct image m = {0};
    uint64_t tohost = 0;

    b->h.cpu.trap_ebreak = false;
    b->h.mstatus &= ~(3ULL << 13);
    rv_update_mode(&b->h);
    if (load(b, path, &m)) {
        while (!tohost && b->h.cpu.instret < max_insns) {
            if (bare_run(b, SLICE, false) == CPU_EXCEPTION)
                break;
            tohost = load_le64(b->ram + (m.tohost - RAM_BASE));
        }
        if (signature)
            dump_signature(b, &m, signature);
    }
    if (tohost != 1)
        printf("FAIL %s: tohost %" PRIu64 " (test %" PRIu64 "), pc %#" PRIx64 ", mcause %" PRIu64
               ", mepc %#" PRIx64 "\n",
               path, tohost, tohost >> 1, b->h.cpu.pc, b->h.mcause, b->h.mepc);
    free(m.bytes);
    bare_free(b);
    return tohost == 1;
}

int main(int argc, char **argv)
{
    uint64_t max_insns = 20 * 1000 * 1000;
    const char *signature = NULL;
    unsigned passed = 0, all = 0;
    int opt;

    while ((opt = getopt(argc, argv, "n:d:")) != -1) {
        if (opt == 'n')
            max_insns = strtoull(optarg, NULL, 0);
        else if (opt == 'd')
            signature = optarg;
        else
            return 2;
    }
    for (int n = optind; n < argc; n++, all++)
        passed += run(argv[n], max_insns, signature);
    printf("%u of %u passed\n", passed, all);
    return passed == all ? 0 : 1;
}
