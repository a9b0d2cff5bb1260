/* Random user-mode RISC-V programs, as machine code: for running the same one on our engines and on
 * an independent emulator, and comparing the registers after every few instructions.
 *
 * A program is made of chunks of random instructions; after each it stores all registers and fcsr
 * as a record at the end of its dump. Vector instructions may be illegal with the vtype at hand:
 * who runs the program skips those. It ends by EBREAK (ours) or by writing out its memory and
 * exiting (Linux). Reserved registers: gp = middle of the data area, tp = dump pointer, t0 = link.
 */
#ifndef TESTS_ISA_PROGRAM_H
#define TESTS_ISA_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ISA_CODE      0x80000000ULL
#define ISA_CODE_SIZE 0x400000u
#define ISA_DATA      (ISA_CODE + ISA_CODE_SIZE)
#define ISA_DATA_SIZE 0x8000u
#define ISA_DUMP      (ISA_DATA + ISA_DATA_SIZE)
#define ISA_DUMP_SIZE 0x400000u
#define ISA_RAM_SIZE  0x1000000u

struct isa_record {
    uint64_t x[32]; /* x[5] is the link: where the chunk ends */
    uint64_t f[32];
    uint64_t fcsr;
    uint64_t vl, vtype, vcsr; /* these and v: of programs with vector instructions */
    uint64_t v[4][64];        /* eight registers each, one after another */
};

struct isa_program {
    uint8_t code[ISA_CODE_SIZE];
    uint8_t data[ISA_DATA_SIZE];
    uint32_t size;       /* bytes of code */
    uint32_t end_offset; /* where the EBREAK is */
    uint32_t entry;      /* where Linux starts it */
    uint32_t handler;    /* trap handler that skips an instruction, for M-mode */
    unsigned chunks, insns;
    uint64_t random; /* generator's state */
    unsigned chunk;  /* random instructions in a chunk */
    /* what to draw from */
    const char *extension, *without;
    unsigned short rows[1024];
    unsigned row_count;
    unsigned base_rows[64], base_count;
    bool fp, vector;
    uint32_t indices; /* where tables of small offsets are: one for each of the widths 8 to 64 */
    unsigned group;   /* registers in a group as vtype says, at least 1 */
};

#define ISA_INDEX_TABLE 1024u /* bytes of a table of indices */

/** A program of about @insns random instructions of @extension (as rv_rows[] names it, or "all"),
 * a quarter of them RV64I's; none of @without (names, each followed by a comma; "x0," =
 * memory accesses with rd = x0; NULL = none left out). @chunk instructions to a chunk.
 * False if no such instructions. */
bool isa_generate(struct isa_program *p, const char *extension, const char *without, unsigned chunk,
                  unsigned insns, uint64_t seed);

/** Turn the end of @p from EBREAK into the Linux system calls that write data and dump to standard
 * output and exit. */
void isa_end_for_linux(struct isa_program *p);

/** Chunk @n's code: [*start, *end) as offsets. */
void isa_chunk_range(const struct isa_program *p, const struct isa_record *records, unsigned n,
                     uint32_t *start, uint32_t *end);

/** Print the instruction at @offset; returns its size. */
unsigned isa_print_insn(const struct isa_program *p, uint32_t offset);

/** Print the registers that differ, and what they were in @before (may be NULL). */
void isa_print_difference(const struct isa_record *a, const struct isa_record *b,
                          const struct isa_record *before);

#endif
