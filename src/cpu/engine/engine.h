/* The emulating engines as implementations of the vCPU contract. */
#ifndef CPU_ENGINE_ENGINE_H
#define CPU_ENGINE_ENGINE_H

#include "base/clock.h"
#include "base/loop.h"
#include "vcpu/vcpu.h"

struct engine;

enum engine_kind { ENGINE_INTERP, ENGINE_JIT, ENGINE_CHECK };

enum engine_dump { DUMP_GUEST = 1, DUMP_IR = 2, DUMP_OPT = 4, DUMP_REGS = 8, DUMP_HOST = 16 };

/** Which extensions a hart has: all there are, or those of RVA23S64, RVA22S64. */
enum engine_profile { ENGINE_PROFILE_MAX, ENGINE_PROFILE_RVA23, ENGINE_PROFILE_RVA22 };

#define ENGINE_CACHE_MIN (1u << 20)

struct engine_config {
    enum engine_kind kind;
    struct mem *mem;            /* frozen after engine_new(), before the first vcpu_run() */
    const struct vclock *clock; /* guest time; the time CSR counts timebase_hz of it */
    struct loop *loop;          /* timers run here */
    uint64_t timebase_hz;
    unsigned max_vcpus;
    bool builtin_sbi;  /* harts start in S-mode, S-mode ECALL exits with VCPU_EXIT_SBI */
    uint64_t reset_pc; /* M-mode reset vector */
    unsigned dump;     /* enum engine_dump bits */
    int dump_fd;
    unsigned profile;   /* enum engine_profile */
    unsigned vlen;      /* bits of a vector register, 128, 256 or 512; 0 = 256 */
    size_t cache_bytes; /* translation cache bound: half for what blocks are, half for their code;
                           at least ENGINE_CACHE_MIN; 0 = an eighth of the host's memory, but
                           128 MiB at least and 1 GiB at most */
    bool perf_map, gdb_jit; /* name generated code for perf, for gdb */
    const char *dump_elf;   /* write it to this ELF file in the end; NULL = no; borrowed */
    bool stats;             /* measure where time goes, for vcpu_counters() */
};

/** One engine a machine: the translation cache that its vCPUs share. Registers itself as the mem's
 * code listener, so call it before mem_freeze(). *@ret is the caller's, freed after all its vCPUs.
 */
must_check int engine_new(const struct engine_config *config, struct engine **ret,
                          struct error *err);
void engine_free(struct engine *e);

/** Around a fork whose child is to go on with what @e has translated, while all vCPUs stand still
 * and no device writes to memory: engine_share() before, engine_shared() after it in the parent.
 * -ENOMEM: nothing has changed, and the child begins anew. */
must_check int engine_share(struct engine *e, struct error *err);
void engine_shared(struct engine *e);

/** In that child: @e, new, its memory frozen, goes on with what @from, the parent's engine, had
 * translated, if their machines are alike and memory was adopted whole (mem_adopt()); else it is as
 * it was. @from then only is memory that is not looked at again. Errors: -ENOMEM, @e can only be
 * freed. */
must_check int engine_inherit(struct engine *e, struct engine *from, struct error *err);

/** Forget what was translated and give back the memory that it took: code that runs is translated
 * anew. While all vCPUs stand still; any thread. */
void engine_trim(struct engine *e);

/** A riscv64 vCPU with hart ID @index, in reset state. Free with vcpu_free(). */
must_check int engine_new_vcpu(struct engine *e, unsigned index, struct vcpu **ret,
                               struct error *err);

/** The ISA that engine_new_vcpu() gives: "rv64imafdc_zicsr..." (device tree riscv,isa), and the
 * widest translation mode "riscv,sv57". */
const char *engine_isa_string(const struct engine *e);
const char *engine_mmu_type(const struct engine *e);

#endif
