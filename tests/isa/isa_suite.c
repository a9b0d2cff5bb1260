/* isa_suite: run bare-metal test programs that report through `tohost` (riscv-tests,
 * riscv-arch-test's, and the like) on a hart on flat RAM, in M-mode at first.
 *
 *     isa_suite [-E interp|jit|check] [-t SECONDS] [-d SIGNATURE] ELF...
 *
 * tohost = 1 is a pass, any other odd value a failure, of test value >> 1. With -d, the memory
 * between begin_signature and end_signature is written to SIGNATURE, a word a line. Exit status 0
 * when all pass.
 *
 * The hart runs on a thread of its own; this one watches tohost and stops it. */
#include "base/bits.h"
#include "cpu/engine/engine.h"

#include <elf.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define RAM_BASE 0x80000000ULL
enum { RAM_SIZE = 64 << 20, POLL_US = 500 };
enum { REG_PC = 32, REG_MEPC = 65 + 0x341, REG_MCAUSE = 65 + 0x342 };

struct image {
    uint8_t *bytes;
    size_t size;
    uint64_t entry, tohost, begin_signature, end_signature;
};

struct machine {
    struct mem *mem;
    uint8_t *ram;
    struct loop *loop;
    struct vclock clock;
    struct engine *engine;
    struct vcpu *vcpu;
    struct vcpu_exit exit;
    uint32_t stop; /* [atomic] */
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
static bool load(uint8_t *ram, const char *path, struct image *m)
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
        memcpy(ram + (p[n].p_paddr - RAM_BASE), m->bytes + p[n].p_offset, p[n].p_filesz);
    }
    m->entry = e->e_entry;
    find_symbols(m, e);
    return m->tohost >= RAM_BASE && m->tohost < RAM_BASE + RAM_SIZE;
}

static void dump_signature(const uint8_t *ram, const struct image *m, const char *path)
{
    FILE *f = fopen(path, "w");

    for (uint64_t at = m->begin_signature; f && at + 4 <= m->end_signature; at += 4)
        fprintf(f, "%08x\n", load_le32(ram + (at - RAM_BASE)));
    if (f)
        (void)fclose(f);
}

static void machine_init(struct machine *m, enum engine_kind kind)
{
    struct error err = {0};
    void *ram = NULL;
    struct engine_config config;

    *m = (struct machine){.mem = mem_new(), .loop = loop_new("timers")};
    if (!m->mem || !m->loop ||
        mem_add_ram(m->mem, GPA(RAM_BASE), RAM_SIZE, 0, "ram", NULL, NULL, &ram, &err))
        abort();
    m->ram = ram;
    vclock_init(&m->clock, 0);
    config = (struct engine_config){.kind = kind,
                                    .mem = m->mem,
                                    .clock = &m->clock,
                                    .loop = m->loop,
                                    .timebase_hz = 10000000,
                                    .max_vcpus = 1,
                                    .reset_pc = RAM_BASE};
    if (engine_new(&config, &m->engine, &err) || engine_new_vcpu(m->engine, 0, &m->vcpu, &err))
        abort();
    mem_freeze(m->mem);
    if (loop_start(m->loop))
        abort();
}

static void machine_done(struct machine *m)
{
    vcpu_free(m->vcpu);
    engine_free(m->engine);
    loop_free(m->loop);
    mem_free(m->mem);
}

static void *hart_thread(void *arg)
{
    struct machine *m = arg;

    do
        vcpu_run(m->vcpu, &m->exit);
    while (m->exit.reason == VCPU_EXIT_KICK && !__atomic_load_n(&m->stop, __ATOMIC_ACQUIRE));
    return NULL;
}

/** Run until tohost is written or @seconds have passed; what is in tohost. */
static uint64_t run_until_told(struct machine *m, const struct image *image, unsigned seconds)
{
    const volatile uint64_t *tohost = (const void *)(m->ram + (image->tohost - RAM_BASE));
    pthread_t thread;
    uint64_t told = 0;

    (void)vcpu_set_reg(m->vcpu, REG_PC, image->entry); /* there is a pc */
    if (pthread_create(&thread, NULL, hart_thread, m))
        abort();
    for (unsigned n = 0; !told && n < seconds * (1000000 / POLL_US); n++) {
        (void)usleep(POLL_US);
        told = *tohost;
    }
    (void)usleep(POLL_US); /* a second half of the store */
    told = *tohost;
    __atomic_store_n(&m->stop, 1, __ATOMIC_RELEASE); /* seen after the kick */
    vcpu_kick(m->vcpu);
    (void)pthread_join(thread, NULL);
    return told;
}

/** True if the program says it passed. */
static bool run(const char *path, enum engine_kind kind, unsigned seconds, const char *signature)
{
    struct machine m;
    struct image image = {0};
    uint64_t tohost = 0, pc = 0, mcause = 0, mepc = 0;

    machine_init(&m, kind);
    if (load(m.ram, path, &image)) {
        tohost = run_until_told(&m, &image, seconds);
        if (signature)
            dump_signature(m.ram, &image, signature);
    }
    if (tohost != 1) {
        (void)vcpu_get_reg(m.vcpu, REG_PC, &pc); /* these exist */
        (void)vcpu_get_reg(m.vcpu, REG_MCAUSE, &mcause);
        (void)vcpu_get_reg(m.vcpu, REG_MEPC, &mepc);
        printf("FAIL %s: tohost %" PRIu64 " (test %" PRIu64 "), pc %#" PRIx64 ", mcause %" PRIu64
               ", mepc %#" PRIx64 " %s\n",
               path, tohost, tohost >> 1, pc, mcause, mepc,
               m.exit.reason == VCPU_EXIT_ERROR ? error_text(&m.exit.error) : "");
    }
    free(image.bytes);
    machine_done(&m);
    return tohost == 1;
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {"interp", "jit", "check"};
    enum engine_kind kind = ENGINE_INTERP;
    unsigned seconds = 10, passed = 0, all = 0;
    const char *signature = NULL;
    int opt;

    while ((opt = getopt(argc, argv, "E:t:d:")) != -1) {
        if (opt == 'E')
            for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
                kind = strcmp(optarg, kinds[k]) ? kind : (enum engine_kind)k;
        else if (opt == 't')
            seconds = (unsigned)MAX(atoi(optarg), 1);
        else if (opt == 'd')
            signature = optarg;
        else
            return 2;
    }
    for (int n = optind; n < argc; n++, all++)
        passed += run(argv[n], kind, seconds, signature);
    printf("%u of %u passed\n", passed, all);
    return passed == all ? 0 : 1;
}
