/* isa_diff: run random programs on our interpreter and on qemu-riscv64, and compare every register
 * after every few instructions, and memory at the end.
 *
 *     isa_diff [-e EXTENSION] [-n INSTRUCTIONS] [-s SEED] [-q QEMU] [-c CPU] [-x NAME,...,] [-o
 * IMAGE] [-v VLEN] [-V]
 *
 * -n is the total; programs have 20,000 instructions each. -c is the emulator's CPU model with the
 * properties that turn extensions on. -x leaves instructions out; by default CTZW, which QEMU 7.2
 * gets wrong when the low half is 0 and the high half is not. -k is the number of
 * instructions between records (24; with 1, flags that the emulator loses when FROUND follows are
 * seen). -v: bits of a vector register here (128); give the
 * emulator the same with -c. -V: how many instructions were illegal, and skipped. -o writes the
 * last program's ELF file. Exit status: 0 all agree, 1 a difference (printed), 2 something else
 * went wrong, 77 no emulator. */
#include "base/bits.h"
#include "cpu/guest/riscv/rows.h"
#include "tests/isa/bare.h"
#include "tests/isa/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROGRAM_INSNS = 20000, EXIT_SKIP = 77 };

struct options {
    const char *extension, *qemu, *cpu, *image, *without;
    uint64_t insns, seed;
    unsigned chunk, vlen;
    bool verbose;
};

/** The program as a static Linux executable. */
static bool write_elf(const struct isa_program *p, const char *path)
{
    enum { CODE_AT = 0x1000 };
    const uint32_t data_at = CODE_AT + (uint32_t)align_up(p->size, 0x1000);
    struct {
        Elf64_Ehdr ehdr;
        Elf64_Phdr phdr[2];
    } head = {
        .ehdr = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
                             EV_CURRENT},
                 .e_type = ET_EXEC,
                 .e_machine = EM_RISCV,
                 .e_version = EV_CURRENT,
                 .e_entry = ISA_CODE + p->entry,
                 .e_phoff = sizeof(Elf64_Ehdr),
                 .e_flags = 5, /* RVC, double-float ABI */
                 .e_ehsize = sizeof(Elf64_Ehdr),
                 .e_phentsize = sizeof(Elf64_Phdr),
                 .e_phnum = 2},
        .phdr = {{.p_type = PT_LOAD,
                  .p_flags = PF_R | PF_X,
                  .p_offset = CODE_AT,
                  .p_vaddr = ISA_CODE,
                  .p_filesz = p->size,
                  .p_memsz = p->size,
                  .p_align = 0x1000},
                 {.p_type = PT_LOAD,
                  .p_flags = PF_R | PF_W,
                  .p_offset = data_at,
                  .p_vaddr = ISA_DATA,
                  .p_filesz = ISA_DATA_SIZE,
                  .p_memsz = ISA_DATA_SIZE + ISA_DUMP_SIZE + 0x10000, /* the signal stack */
                  .p_align = 0x1000}},
    };
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(&head, sizeof(head), 1, f) == 1 && !fseek(f, CODE_AT, SEEK_SET) &&
              fwrite(p->code, p->size, 1, f) == 1 && !fseek(f, (long)data_at, SEEK_SET) &&
              fwrite(p->data, ISA_DATA_SIZE, 1, f) == 1;

    if (f)
        ok &= !fclose(f) && !chmod(path, 0755);
    return ok;
}

/** Run @elf under the emulator; its output to @out. False if it did not end well. */
static bool run_qemu(const struct options *o, const char *elf, void *out, size_t size)
{
    int fds[2], status;
    size_t have = 0;
    ssize_t n;
    pid_t pid;

    if (pipe(fds))
        return false;
    pid = fork();
    if (!pid) {
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        close(fds[1]);
        execlp(o->qemu, o->qemu, "-cpu", o->cpu, elf, (char *)NULL);
        _exit(EXIT_SKIP);
    }
    close(fds[1]);
    while (have < size && (n = read(fds[0], (char *)out + have, size - have)) > 0)
        have += (size_t)n;
    close(fds[0]);
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return false;
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP) {
        fprintf(stderr, "isa_diff: no %s\n", o->qemu);
        exit(EXIT_SKIP);
    }
    if (have == size && WIFEXITED(status) && !WEXITSTATUS(status))
        return true;
    fprintf(stderr, "isa_diff: %s: status 0x%x after %zu of %zu bytes\n", o->qemu, status, have,
            size);
    return false;
}

/** Run on our interpreter; data and dump to @out. */
static bool run_ours(const struct options *o, const struct isa_program *p, void *out, size_t size)
{
    struct bare *b = bare_new(ISA_CODE, ISA_RAM_SIZE);
    enum cpu_status status;
    uint64_t skipped = 0;

    memcpy(b->ram, p->code, p->size);
    memcpy(b->ram + (ISA_DATA - ISA_CODE), p->data, ISA_DATA_SIZE);
    b->h.vec.vlenb = (uint16_t)(o->vlen / 8);
    rv_set_vtype(&b->h, 1ULL << 63, 0);
    do {
        status = bare_run(b, 100u * 1000 * 1000, true);
        if (status != CPU_EXCEPTION || b->h.exception_cause != RV_CAUSE_ILLEGAL || !p->vector)
            break;
        b->h.exception_pending = false;
        b->h.cpu.pc += 4;
        skipped++;
    } while (true);
    if (o->verbose)
        printf("%" PRIu64 " of %" PRIu64 " were illegal\n", skipped, b->h.cpu.instret + skipped);
    memcpy(out, b->ram + (ISA_DATA - ISA_CODE), size);
    if (status != CPU_EXIT || b->h.cpu.pc != ISA_CODE + p->end_offset) {
        fprintf(stderr,
                "isa_diff: interpreter: status %d at %#" PRIx64 ", cause %" PRIu64
                ", tval %#" PRIx64 "\n",
                status, b->h.cpu.pc, b->h.exception_cause, b->h.exception_tval);
        bare_free(b);
        return false;
    }
    bare_free(b);
    return true;
}

static void print_chunk(const struct isa_program *p, const struct isa_record *records, unsigned n)
{
    uint32_t start, end;

    isa_chunk_range(p, records, n, &start, &end);
    for (uint32_t at = start; at < end;)
        at += isa_print_insn(p, at);
}

/** Print the first difference; true if there is one. */
static bool compare(const struct isa_program *p, const uint8_t *ours, const uint8_t *theirs)
{
    const struct isa_record *a = (const void *)(ours + ISA_DATA_SIZE);
    const struct isa_record *b = (const void *)(theirs + ISA_DATA_SIZE);

    for (unsigned n = 0; n < p->chunks; n++) {
        if (!memcmp(&a[n], &b[n], sizeof(a[n])))
            continue;
        printf("%s: chunk %u differs (ours, theirs):\n", p->extension, n);
        isa_print_difference(&a[n], &b[n], n ? &a[n - 1] : NULL);
        print_chunk(p, a, n);
        return true;
    }
    for (unsigned n = 0; n < ISA_DATA_SIZE; n++) {
        if (ours[n] != theirs[n]) {
            printf("%s: memory differs at data + %#x: %#x %#x\n", p->extension, n, ours[n],
                   theirs[n]);
            return true;
        }
    }
    return false;
}

static int run_one(const struct options *o, struct isa_program *p, unsigned insns, uint64_t seed)
{
    static uint8_t ours[ISA_DATA_SIZE + ISA_DUMP_SIZE], theirs[sizeof(ours)];
    char elf[64];
    size_t size;
    int rc = 2;

    if (!isa_generate(p, o->extension, o->without, o->chunk, insns, seed)) {
        fprintf(stderr, "isa_diff: no instructions of '%s'\n", o->extension);
        return 2;
    }
    size = ISA_DATA_SIZE + p->chunks * sizeof(struct isa_record);
    (void)snprintf(elf, sizeof(elf), "/tmp/isa_diff.%d", (int)getpid());
    if (run_ours(o, p, ours, size)) {
        isa_end_for_linux(p);
        if (write_elf(p, o->image ? o->image : elf) &&
            run_qemu(o, o->image ? o->image : elf, theirs, size))
            rc = compare(p, ours, theirs);
    }
    (void)unlink(elf);
    if (rc)
        printf("%s: seed %" PRIu64 "\n", o->extension, seed);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o = {.extension = "all",
                        .qemu = "qemu-riscv64",
                        .cpu = "rv64,zba=true,zbb=true,zbc=true,zbs=true,Zfh=true",
                        .without = "ctzw,",
                        .insns = PROGRAM_INSNS,
                        .seed = 1,
                        .chunk = 24,
                        .vlen = 128};
    struct isa_program *p = malloc(sizeof(*p));
    uint64_t done = 0;
    int opt, rc = p ? 0 : 2;

    while ((opt = getopt(argc, argv, "e:n:s:q:c:x:k:o:v:V")) != -1) {
        switch (opt) {
        case 'e':
            o.extension = optarg;
            break;
        case 'n':
            o.insns = strtoull(optarg, NULL, 0);
            break;
        case 's':
            o.seed = strtoull(optarg, NULL, 0);
            break;
        case 'q':
            o.qemu = optarg;
            break;
        case 'c':
            o.cpu = optarg;
            break;
        case 'x':
            o.without = optarg;
            break;
        case 'k':
            o.chunk = (unsigned)MAX(atoi(optarg), 1);
            break;
        case 'v':
            o.vlen = (unsigned)atoi(optarg);
            break;
        case 'V':
            o.verbose = true;
            break;
        case 'o':
            o.image = optarg;
            break;
        default:
            return 2;
        }
    }
    while (!rc && done < o.insns) {
        rc = run_one(&o, p, (unsigned)MIN(o.insns - done, (uint64_t)PROGRAM_INSNS), o.seed++);
        if (!rc)
            done += p->insns;
    }
    printf("%s: %" PRIu64 " instructions agree\n", o.extension, done);
    free(p);
    return rc;
}
