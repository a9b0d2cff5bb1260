/* isa_engines: run random programs on the three engines and compare every register after every few
 * instructions, and memory at the end.
 *
 *     isa_engines [-e EXTENSION] [-n INSTRUCTIONS] [-s SEED] [-k CHUNK] [-x NAME,...,] [-d]
 *
 * -n is the total; programs have 20,000 instructions each. The interpreter runs a program once,
 * the JIT until its code is translated, and "check" compares the two block by block. -d dumps what
 * the JIT makes. Exit status: 0 all agree, 1 a difference (printed), 2 something else went wrong.
 */
#include "cpu/guest/riscv/rows.h"
#include "tests/isa/machine.h"
#include "tests/isa/program.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PROGRAM_INSNS = 20000, HOT_RUNS = 10 };
enum { REG_MTVEC = 65 + 0x305, REG_VCSR = 65 + 0xf, REG_VTYPE = 65 + 0xc21 };

static const char *const kind_names[] = {"interp", "jit", "check"};

/** Run from the start to the EBREAK. */
static bool run_once(struct machine *m, const struct isa_program *p, const char *kind)
{
    struct vcpu_exit exit = {0};
    uint64_t status = 0, pc = 0;

    memcpy(m->ram + (ISA_DATA - ISA_CODE), p->data, ISA_DATA_SIZE);
    (void)vcpu_get_reg(m->vcpu, MACHINE_MSTATUS, &status); /* these registers exist */
    (void)vcpu_set_reg(m->vcpu, MACHINE_MSTATUS, status | 3 << 13 | 3 << 9);
    (void)vcpu_set_reg(m->vcpu, REG_MTVEC, ISA_CODE + p->handler);
    (void)vcpu_set_reg(m->vcpu, MACHINE_FCSR, 0);
    (void)vcpu_set_reg(m->vcpu, MACHINE_PC, ISA_CODE);
    for (unsigned r = 1; r < 32; r++)
        (void)vcpu_set_reg(m->vcpu, r, 0);
    (void)vcpu_set_reg(m->vcpu, REG_VTYPE, 1ULL << 63);
    (void)vcpu_set_reg(m->vcpu, REG_VCSR, 0);
    machine_run(m, &exit);
    (void)vcpu_get_reg(m->vcpu, MACHINE_PC, &pc);
    if (exit.reason == VCPU_EXIT_DEBUG && pc == ISA_CODE + p->end_offset)
        return true;
    printf("%s: %s: exit %d at %#" PRIx64 ": %s\n", p->extension, kind, exit.reason, pc,
           exit.reason == VCPU_EXIT_ERROR ? error_text(&exit.error) : "");
    return false;
}

/** Run @p on an engine; data and dump to @out. */
static bool run_on(enum engine_kind kind, const struct isa_program *p, unsigned dump, uint8_t *out,
                   size_t size)
{
    struct machine m;
    bool ok = machine_init(&m, kind, ISA_CODE, ISA_RAM_SIZE, dump);

    if (ok)
        memcpy(m.ram, p->code, p->size);
    for (unsigned n = 0; ok && n < (kind == ENGINE_JIT ? HOT_RUNS : 1); n++)
        ok = run_once(&m, p, kind_names[kind]);
    if (ok)
        memcpy(out, m.ram + (ISA_DATA - ISA_CODE), size);
    machine_done(&m);
    return ok;
}

static void print_chunk(const struct isa_program *p, const struct isa_record *records, unsigned n)
{
    uint32_t start, end;

    isa_chunk_range(p, records, n, &start, &end);
    for (uint32_t at = start; at < end;)
        at += isa_print_insn(p, at);
}

/** Print the first difference; true if there is one. */
static bool compare(const struct isa_program *p, const uint8_t *want, const uint8_t *got,
                    const char *kind)
{
    const struct isa_record *a = (const void *)(want + ISA_DATA_SIZE);
    const struct isa_record *b = (const void *)(got + ISA_DATA_SIZE);

    for (unsigned n = 0; n < p->chunks; n++) {
        if (!memcmp(&a[n], &b[n], sizeof(a[n])))
            continue;
        printf("%s: chunk %u differs (interp, %s):\n", p->extension, n, kind);
        isa_print_difference(&a[n], &b[n], n ? &a[n - 1] : NULL);
        print_chunk(p, a, n);
        return true;
    }
    if (memcmp(want, got, ISA_DATA_SIZE)) {
        printf("%s: data memory differs (interp, %s)\n", p->extension, kind);
        return true;
    }
    return false;
}

static int run_one(struct isa_program *p, unsigned dump)
{
    static uint8_t want[ISA_DATA_SIZE + ISA_DUMP_SIZE], got[sizeof(want)];
    size_t size = ISA_DATA_SIZE + p->chunks * sizeof(struct isa_record);

    if (!run_on(ENGINE_INTERP, p, 0, want, size))
        return 2;
    for (unsigned kind = ENGINE_JIT; kind <= ENGINE_CHECK; kind++) {
        if (!run_on(kind, p, kind == ENGINE_JIT ? dump : 0, got, size) ||
            compare(p, want, got, kind_names[kind]))
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    const char *extension = "all", *without = NULL;
    struct isa_program *p = malloc(sizeof(*p));
    uint64_t insns = PROGRAM_INSNS, seed = 1, done = 0;
    unsigned chunk = 24, dump = 0;
    int opt, rc = p ? 0 : 2;

    while ((opt = getopt(argc, argv, "e:n:s:k:x:d")) != -1) {
        switch (opt) {
        case 'e':
            extension = optarg;
            break;
        case 'n':
            insns = strtoull(optarg, NULL, 0);
            break;
        case 's':
            seed = strtoull(optarg, NULL, 0);
            break;
        case 'k':
            chunk = (unsigned)MAX(atoi(optarg), 1);
            break;
        case 'x':
            without = optarg;
            break;
        case 'd':
            dump = DUMP_GUEST | DUMP_IR | DUMP_OPT | DUMP_REGS | DUMP_HOST;
            break;
        default:
            return 2;
        }
    }
    for (; !rc && done < insns; seed++) {
        if (!isa_generate(p, extension, without, chunk,
                          (unsigned)MIN(insns - done, (uint64_t)PROGRAM_INSNS), seed)) {
            fprintf(stderr, "isa_engines: no instructions of '%s'\n", extension);
            return 2;
        }
        rc = run_one(p, dump);
        if (rc)
            printf("%s: seed %" PRIu64 "\n", extension, seed);
        else
            done += p->insns;
    }
    printf("%s: %" PRIu64 " instructions agree\n", extension, done);
    free(p);
    return rc;
}
