/* Tests of the engines on a bare hart: programs encoded here, run in M-mode, under every engine. */
#include "base/bits.h"
#include "base/test.h"
#include "cpu/engine/engine_internal.h"
#include "cpu/guest/riscv/rows.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define BASE      0x80000000ULL
#define RAM_BYTES (1u << 20)
enum { ZERO, RA, SP, GP, TP, T0, T1, T2, S0, S1, A0, A1, A2, A3 };
enum { REG_PC = 32 };

struct machine {
    struct mem *mem;
    uint8_t *ram;
    struct loop *loop;
    struct vclock clock;
    struct engine *engine;
    struct vcpu *vcpus[2];
    uint64_t at; /* offset of the next instruction assembled */
    /* A device register: a store stops the machine, remembering the value. */
    struct vcpu *stopper;
    uint64_t stored;
};

/* What the next machines are made with, beside the usual; and what happens while they run, when the
 * device is written. */
static struct engine_config extra;
static void (*at_stop)(void);

static enum bus_result stop_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct machine *m = dev;

    __atomic_store_n(&m->stored, value, __ATOMIC_RELAXED);
    if (at_stop)
        at_stop();
    vcpu_kick(m->vcpus[offset / 8]);
    return BUS_OK;
}

static const struct mmio_ops stop_ops = {.name = "stop", .write = stop_write};
#define STOP_DEVICE 0x1000

static void machine_init_from(struct machine *m, enum engine_kind kind, unsigned cpus,
                              struct machine *from)
{
    struct error err = {0};
    void *ram;

    *m = (struct machine){.mem = mem_new(), .loop = loop_new("timers")};
    ASSERT_TRUE(m->mem && m->loop);
    if (from)
        mem_adopt(m->mem, from->mem);
    ASSERT_EQ(mem_add_ram(m->mem, GPA(BASE), RAM_BYTES, 0, "ram", NULL, NULL, &ram, NULL), 0);
    ASSERT_EQ(mem_add_mmio(m->mem, GPA(STOP_DEVICE), 0x1000, &stop_ops, m, NULL), 0);
    m->ram = ram;
    vclock_init(&m->clock, 0);
    struct engine_config config = {.kind = kind,
                                   .mem = m->mem,
                                   .clock = &m->clock,
                                   .loop = m->loop,
                                   .timebase_hz = 10000000,
                                   .max_vcpus = cpus,
                                   .reset_pc = BASE,
                                   .cache_bytes = extra.cache_bytes,
                                   .perf_map = extra.perf_map,
                                   .gdb_jit = extra.gdb_jit,
                                   .dump_elf = extra.dump_elf,
                                   .dump_fd = 2,
                                   .dump = getenv("DUMP") ? 31 : 0};
    ASSERT_EQ(engine_new(&config, &m->engine, &err), 0);
    mem_freeze(m->mem);
    if (from)
        ASSERT_EQ(engine_inherit(m->engine, from->engine, &err), 0);
    for (unsigned i = 0; i < cpus; i++)
        ASSERT_EQ(engine_new_vcpu(m->engine, i, &m->vcpus[i], &err), 0);
    ASSERT_EQ(loop_start(m->loop), 0);
}

static void machine_init(struct machine *m, enum engine_kind kind, unsigned cpus)
{
    machine_init_from(m, kind, cpus, NULL);
}

static void machine_done(struct machine *m)
{
    vcpu_free(m->vcpus[0]);
    vcpu_free(m->vcpus[1]);
    engine_free(m->engine);
    loop_free(m->loop);
    mem_free(m->mem);
}

static uint32_t encode(const char *name, unsigned rd, unsigned rs1, unsigned rs2, int64_t imm)
{
    const struct rv_row *row = rv_find_row(name);
    struct insn insn = {.rd = (uint8_t)rd,
                        .rs1 = (uint8_t)rs1,
                        .rs2 = (uint8_t)rs2,
                        .imm = (int32_t)imm,
                        .extra = (uint16_t)imm};

    if (!row) {
        test_fail(__FILE__, __LINE__, "no instruction '%s'", name);
        test_abort();
    }
    return rv_encode(row, &insn);
}

static void emit(struct machine *m, const char *name, unsigned rd, unsigned rs1, unsigned rs2,
                 int64_t imm)
{
    store_le32(m->ram + m->at, encode(name, rd, rs1, rs2, imm));
    m->at += 4;
}

static void emit_li(struct machine *m, unsigned rd, uint32_t value)
{
    emit(m, "lui", rd, 0, 0, (int32_t)((value + 0x800) & 0xfffff000));
    emit(m, "addiw", rd, rd, 0, sext(value & 0xfff, 12));
}

/* Store @value_reg to the stop device and spin. */
static void emit_stop(struct machine *m, unsigned value_reg)
{
    emit_li(m, T2, STOP_DEVICE);
    emit(m, "csrrs", T1, 0, 0, 0xf14); /* mhartid */
    emit(m, "slli", T1, T1, 0, 3);
    emit(m, "add", T2, T2, T1, 0);
    emit(m, "sd", 0, T2, value_reg, 0);
    emit(m, "jal", 0, 0, 0, 0);
}

static uint64_t reg(struct machine *m, unsigned id)
{
    uint64_t v = 0;

    EXPECT_EQ(vcpu_get_reg(m->vcpus[0], id, &v), 0);
    return v;
}

static void run_until_stopped(struct machine *m)
{
    struct vcpu_exit exit;

    vcpu_run(m->vcpus[0], &exit);
    if (exit.reason != VCPU_EXIT_KICK)
        test_fail(__FILE__, __LINE__, "exit %d: %s", exit.reason, error_text(&exit.error));
}

static void set_handler(struct machine *m, uint64_t offset)
{
    ASSERT_EQ(vcpu_set_reg(m->vcpus[0], 65 + 0x305, BASE + offset), 0); /* mtvec */
}

static const enum engine_kind kinds[] = {ENGINE_INTERP, ENGINE_JIT, ENGINE_CHECK};

static void loop_program(enum engine_kind kind)
{
    struct machine m;

    machine_init(&m, kind, 1);
    emit_li(&m, A0, 0);
    emit_li(&m, T0, 10000);
    emit(&m, "add", A0, A0, T0, 0);
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, -8);
    emit_stop(&m, A0);
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, 10000 * 10001 / 2);
    EXPECT_EQ(reg(&m, T0), 0);
    EXPECT_TRUE(vcpu_instructions(m.vcpus[0]) >= 4 + 30000 + 6);
    machine_done(&m);
}

TEST(a_loop_runs_under_every_engine)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        loop_program(kinds[i]);
}

static uint64_t counter(struct machine *m, const char *name)
{
    struct counter rows[VCPU_MAX_COUNTERS];
    size_t count = vcpu_counters(m->vcpus[0], rows, ARRAY_SIZE(rows));

    EXPECT_TRUE(count < ARRAY_SIZE(rows)); /* or some may be missing */
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(rows[i].name, name))
            return rows[i].value;
    }
    test_fail(__FILE__, __LINE__, "no counter is called %s", name);
    return 0;
}

static void counting_program(enum engine_kind kind)
{
    struct machine m;

    machine_init(&m, kind, 1);
    emit_li(&m, T0, 1000);
    emit(&m, "csrrw", ZERO, T0, 0, 0x340); /* mscratch: within the block */
    emit(&m, "csrrs", ZERO, T0, 0, 0x304); /* mie: ends it */
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, -12);
    emit_stop(&m, A0);
    run_until_stopped(&m);
    EXPECT_TRUE(counter(&m, "instructions") >= 4000);
    EXPECT_TRUE(counter(&m, "blocks_decoded") >= 3);
    EXPECT_EQ(counter(&m, "monitor_calls"), 1);
    EXPECT_TRUE(counter(&m, "cache_size") > 0);
    if (kind == ENGINE_JIT) { /* and but for the first rounds nothing comes to the run loop */
        EXPECT_TRUE(counter(&m, "system_insns") > 900);
        EXPECT_TRUE(counter(&m, "blocks_interpreted") + counter(&m, "exits_indirect") < 100);
        EXPECT_TRUE(counter(&m, "blocks_translated") >= 2);
    } else {
        EXPECT_EQ(counter(&m, "system_insns"), 0);
    }
    machine_done(&m);
}

TEST(what_was_done_is_counted)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        counting_program(kinds[i]);
}

/* --- Generated code, as the host sees it */

static unsigned maps_of_code, maps_both;

static void look_at_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512], perms[8];

    ASSERT_TRUE(f != NULL);
    while (fgets(line, sizeof(line), f)) {
        ASSERT_EQ(sscanf(line, "%*s %7s", perms), 1);
        maps_both += strchr(perms, 'w') && strchr(perms, 'x');
        maps_of_code += strstr(line, "posada-code") != NULL && strchr(perms, 'x');
    }
    (void)fclose(f); /* was read */
}

TEST(no_memory_is_writable_and_executable)
{
    maps_of_code = maps_both = 0;
    at_stop = look_at_maps;
    loop_program(ENGINE_JIT);
    at_stop = NULL;
    EXPECT_EQ(maps_of_code, 1);
    EXPECT_EQ(maps_both, 0);
}

/* Thousands of blocks, round and round, where there is room for some hundreds. */
TEST(a_full_cache_starts_over)
{
    enum { BLOCKS = 8000, ROUNDS = 12 };
    struct machine m;

    extra.cache_bytes = ENGINE_CACHE_MIN;
    machine_init(&m, ENGINE_JIT, 1);
    extra.cache_bytes = 0;
    emit_li(&m, T0, ROUNDS);
    emit_li(&m, A0, 0);
    for (unsigned i = 0; i < BLOCKS; i++) {
        emit(&m, "addi", A0, A0, 0, 1);
        emit(&m, "beq", 0, ZERO, ZERO, 4);
    }
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "beq", 0, T0, ZERO, 8);
    emit(&m, "jal", 0, 0, 0, -8 * BLOCKS - 8);
    emit_stop(&m, A0);
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, BLOCKS * ROUNDS);
    EXPECT_TRUE(counter(&m, "cache_evictions") > 1);
    EXPECT_TRUE(counter(&m, "cache_decoded_used") + counter(&m, "cache_code_used") <=
                counter(&m, "cache_size"));
    EXPECT_EQ(counter(&m, "cache_size"), ENGINE_CACHE_MIN);
    machine_done(&m);
}

static bool has_line(FILE *f, const char *what)
{
    char line[512];
    bool found = false;

    while (f && fgets(line, sizeof(line), f))
        found |= strstr(line, what) != NULL;
    return found;
}

/* gdb's interface; see symbols.c. */
struct jit_descriptor {
    uint32_t version, action_flag;
    void *relevant_entry, *first_entry;
};
extern struct jit_descriptor __jit_debug_descriptor;
static bool gdb_knows;

static void look_at_gdb(void)
{
    gdb_knows = __jit_debug_descriptor.first_entry != NULL;
}

TEST(host_tools_are_told_of_generated_code)
{
    char elf[] = "/tmp/posada-code-XXXXXX", map[64], command[128];
    int fd = mkstemp(elf);

    ASSERT_TRUE(fd >= 0);
    (void)snprintf(map, sizeof(map), "/tmp/perf-%d.map", (int)getpid());
    extra = (struct engine_config){.perf_map = true, .gdb_jit = true, .dump_elf = elf};
    at_stop = look_at_gdb;
    loop_program(ENGINE_JIT);
    extra = (struct engine_config){0};
    at_stop = NULL;
    EXPECT_TRUE(gdb_knows);
    EXPECT_TRUE(__jit_debug_descriptor.first_entry == NULL);
    FILE *f = fopen(map, "r");
    EXPECT_TRUE(has_line(f, " block_0x8000"));
    (void)(f && fclose(f)); /* was read */
    /* The loop's decrement, in the host's words. */
    (void)snprintf(command, sizeof(command), "objdump -d %s", elf);
    f = popen(command, "r");
    EXPECT_TRUE(has_line(f, "<block_0x8000"));
    EXPECT_TRUE(f && pclose(f) == 0);
    (void)unlink(map);
    (void)unlink(elf);
    (void)close(fd); /* empty */
}

static void expect_regions(struct machine *m, enum engine_kind kind)
{
    const struct cpu *c = engine_cpu_of(m->vcpus[0])->c;

    EXPECT_EQ(c->stats.regions_translated > 0, kind != ENGINE_INTERP);
}

/* Two nested loops with two ways through the inner one, which faults now and then: registers must
 * be exact for the handler and behind it. */
static void region_program(enum engine_kind kind)
{
    struct machine m;
    uint64_t want = 0;

    machine_init(&m, kind, 1);
    set_handler(&m, 0x800);
    emit_li(&m, S1, 0x4000); /* nothing there */
    emit(&m, "auipc", S0, 0, 0, 0x10000);
    emit_li(&m, A0, 0);
    emit_li(&m, T0, 60);
    uint64_t outer = m.at;
    emit_li(&m, T1, 50);
    uint64_t inner = m.at;
    emit(&m, "add", A1, T0, T1, 0);
    emit(&m, "andi", A2, A1, 0, 3);
    emit(&m, "beq", 0, A2, ZERO, 16);
    emit(&m, "add", A0, A0, A1, 0); /* odd way */
    emit(&m, "sd", 0, S0, A0, 0);
    emit(&m, "jal", 0, 0, 0, 20);
    emit(&m, "ld", A3, S0, 0, 0); /* every fourth */
    emit(&m, "sub", A0, A3, T1, 0);
    emit(&m, "sd", 0, S0, A0, 0);
    emit(&m, "sd", 0, S1, A0, 0); /* faults; the handler adds 1 to a0 and steps over */
    emit(&m, "addi", T1, T1, 0, -1);
    emit(&m, "bne", 0, T1, ZERO, (int64_t)inner - (int64_t)m.at);
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, (int64_t)outer - (int64_t)m.at);
    emit_stop(&m, A0);
    m.at = 0x800;
    emit(&m, "addi", A0, A0, 0, 1);
    emit(&m, "sd", 0, S0, A0, 0);
    emit(&m, "csrrs", A3, 0, 0, 0x341);
    emit(&m, "addi", A3, A3, 0, 4);
    emit(&m, "csrrw", 0, A3, 0, 0x341);
    emit(&m, "mret", 0, 0, 0, 0);
    for (unsigned i = 60; i; i--) {
        for (unsigned k = 50; k; k--)
            want = (i + k) & 3 ? want + i + k : want - k + 1;
    }
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, want);
    EXPECT_EQ(reg(&m, 65 + 0x343), 0x4000); /* mtval */
    expect_regions(&m, kind);
    machine_done(&m);
}

TEST(regions_fault_precisely)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        region_program(kinds[i]);
}

/* A loop whose second block is rewritten while it runs. */
static void rewritten_region_program(enum engine_kind kind)
{
    struct machine m;

    machine_init(&m, kind, 1);
    emit(&m, "auipc", S0, 0, 0, 0);
    emit_li(&m, S1, encode("addi", A0, A0, 0, 100));
    emit_li(&m, A0, 0);
    emit_li(&m, T0, 1000);
    emit_li(&m, T1, 400);
    uint64_t top = m.at;
    emit(&m, "beq", 0, T0, T1, 20); /* once: rewrite */
    uint64_t rewritten = m.at;
    emit(&m, "addi", A0, A0, 0, 1);
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, (int64_t)top - (int64_t)m.at);
    emit(&m, "jal", 0, 0, 0, 16);
    emit(&m, "sw", 0, S0, S1, (int64_t)rewritten);
    emit(&m, "fence.i", 0, 0, 0, 0);
    emit(&m, "jal", 0, 0, 0, (int64_t)rewritten - (int64_t)m.at);
    emit_stop(&m, A0);
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, 600 + 400 * 100);
    expect_regions(&m, kind);
    machine_done(&m);
}

TEST(a_region_dies_with_any_of_its_blocks)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        rewritten_region_program(kinds[i]);
}

/* A function with two ways through it, called often enough to become a region; one of its blocks
 * faults, and one is rewritten half way. */
static void called_program(enum engine_kind kind)
{
    enum { ROUNDS = 3000, FUNCTION = 0x400, HANDLER = 0x800, PAGE = 0x1000 };
    struct machine m;
    uint64_t want = 0;

    machine_init(&m, kind, 1);
    set_handler(&m, HANDLER);
    emit(&m, "auipc", S0, 0, 0, PAGE);
    emit_li(&m, S1, 0x4000); /* nothing there */
    emit_li(&m, A2, encode("addi", A0, A0, 0, 7));
    emit_li(&m, A3, ROUNDS / 2);
    emit_li(&m, A0, 0);
    emit_li(&m, T0, ROUNDS);
    uint64_t loop = m.at;
    emit(&m, "jalr", RA, S0, 0, FUNCTION);
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, (int64_t)loop - (int64_t)m.at);
    emit_stop(&m, A0);
    m.at = PAGE + FUNCTION;
    emit(&m, "andi", T1, T0, 0, 3);
    emit(&m, "beq", 0, T1, ZERO, 16);
    uint64_t rewritten = m.at;
    emit(&m, "addi", A0, A0, 0, 1);
    emit(&m, "add", A0, A0, T1, 0);
    emit(&m, "jal", 0, 0, 0, 16);
    emit(&m, "slli", T2, T0, 0, 1); /* every fourth */
    emit(&m, "sd", 0, S1, A0, 0);   /* faults; the handler adds t2 to a0 and steps over */
    emit(&m, "addi", A0, A0, 0, 3);
    emit(&m, "bne", 0, T0, A3, 12);
    emit(&m, "sw", 0, S0, A2, (int64_t)rewritten - PAGE); /* once */
    emit(&m, "fence.i", 0, 0, 0, 0);
    emit(&m, "jalr", 0, RA, 0, 0);
    m.at = HANDLER;
    emit(&m, "add", A0, A0, T2, 0);
    emit(&m, "csrrs", T1, 0, 0, 0x341);
    emit(&m, "addi", T1, T1, 0, 4);
    emit(&m, "csrrw", 0, T1, 0, 0x341);
    emit(&m, "mret", 0, 0, 0, 0);
    for (unsigned i = ROUNDS; i; i--)
        want += i & 3 ? (i < ROUNDS / 2 ? 7 : 1) + (i & 3) : 2 * i + 3;
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, want);
    expect_regions(&m, kind);
    machine_done(&m);
}

TEST(what_is_called_often_becomes_a_region)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        called_program(kinds[i]);
}

/* Floating point flags, saved, restored, set and cleared in a loop. */
static void flags_program(enum engine_kind kind)
{
    enum { FFLAGS = 1, INEXACT = 1, INVALID = 16, DYNAMIC = 7, ROUNDS = 1000 };
    struct machine m;

    machine_init(&m, kind, 1);
    emit_li(&m, T0, 0x6000); /* FS = dirty */
    emit(&m, "csrrs", 0, T0, 0, 0x300);
    emit_li(&m, A0, 0);
    emit_li(&m, T0, ROUNDS);
    emit_li(&m, A1, 3);
    emit(&m, "fcvt.d.l", 1, A1, 0, DYNAMIC);
    emit_li(&m, A1, 1);
    emit(&m, "fcvt.d.l", 2, A1, 0, DYNAMIC);
    emit(&m, "fmv.d.x", 3, ZERO, 0, 0);
    uint64_t loop = m.at;
    emit(&m, "csrrwi", 0, 0, 0, FFLAGS);
    emit(&m, "fdiv.d", 4, 2, 1, DYNAMIC); /* 1 / 3: inexact */
    emit(&m, "csrrs", A1, 0, 0, FFLAGS);
    emit(&m, "add", A0, A0, A1, 0);       /* 1 */
    emit(&m, "fdiv.d", 4, 3, 3, DYNAMIC); /* 0 / 0: invalid */
    emit(&m, "csrrw", A2, A1, 0, FFLAGS);
    emit(&m, "add", A0, A0, A2, 0); /* 17 */
    emit(&m, "csrrs", A2, 0, 0, FFLAGS);
    emit(&m, "add", A0, A0, A2, 0); /* 1 */
    emit(&m, "csrrci", A2, INEXACT, 0, FFLAGS);
    emit(&m, "csrrsi", A2, INVALID, 0, FFLAGS);
    emit(&m, "add", A0, A0, A2, 0); /* 0 */
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, (int64_t)loop - (int64_t)m.at);
    emit(&m, "csrrs", A2, 0, 0, FFLAGS);
    emit(&m, "add", A0, A0, A2, 0);
    emit_stop(&m, A0);
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, ROUNDS * 19 + INVALID);
    machine_done(&m);
}

TEST(floating_point_flags_are_saved_and_restored)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        flags_program(kinds[i]);
}

/* A loop that stores to a page, which between its runs becomes a page of code: every store must be
 * seen, though the loop remembers that it might write there. */
static void stores_to_code_program(enum engine_kind kind)
{
    struct machine m;

    machine_init(&m, kind, 1);
    emit_li(&m, A1, encode("addi", A0, A0, 0, 1));
    emit_li(&m, A2, encode("addi", A0, A0, 0, 100));
    emit(&m, "auipc", S0, 0, 0, 0x10000);
    emit_li(&m, A0, encode("jalr", 0, RA, 0, 0));
    emit(&m, "sw", 0, S0, A0, 4);
    emit_li(&m, A0, 0);
    emit_li(&m, T0, 40);
    uint64_t outer = m.at;
    emit_li(&m, T1, 50);
    emit(&m, "jal", 0, 0, 0, 4); /* its first round is the loop's, too */
    uint64_t inner = m.at;
    emit(&m, "sw", 0, S0, A2, 0);
    emit(&m, "sw", 0, S0, A1, 0);
    emit(&m, "addi", T1, T1, 0, -1);
    emit(&m, "bne", 0, T1, ZERO, (int64_t)inner - (int64_t)m.at);
    emit(&m, "fence.i", 0, 0, 0, 0);
    emit(&m, "jalr", RA, S0, 0, 0);
    emit(&m, "addi", A3, A1, 0, 0); /* the other instruction next time */
    emit(&m, "addi", A1, A2, 0, 0);
    emit(&m, "addi", A2, A3, 0, 0);
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, (int64_t)outer - (int64_t)m.at);
    emit_stop(&m, A0);
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, 20 * 101);
    machine_done(&m);
}

TEST(a_loop_stores_to_what_becomes_code)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        stores_to_code_program(kinds[i]);
}

/* Loads and stores in a loop, through a page table (MPRV) of which one entry is changed between its
 * runs: what the loop remembers must go with the SFENCE.VMA, of the page or of all. */
static void remapped_program(enum engine_kind kind, bool one_page)
{
    enum { ROOT = 0x80000, MIDDLE = 0x81000, LAST = 0x82000, PAGES = 0x90000, FLAGS = 0xcf };
    struct machine m;

    machine_init(&m, kind, 1);
    store_le64(m.ram + ROOT + 2 * 8, BASE >> 2 | FLAGS); /* RAM, as it is */
    store_le64(m.ram + ROOT, (BASE + MIDDLE) >> 2 | 1);
    store_le64(m.ram + MIDDLE, (BASE + LAST) >> 2 | 1);
    store_le64(m.ram + LAST + 8, (BASE + PAGES) >> 2 | FLAGS);
    for (unsigned i = 0; i < 512; i++)
        store_le64(m.ram + PAGES + 8 * i, i);
    ASSERT_EQ(vcpu_set_reg(m.vcpus[0], 65 + 0x180, 8ULL << 60 | (BASE + ROOT) >> 12), 0); /* satp */
    ASSERT_EQ(vcpu_set_reg(m.vcpus[0], 65 + 0x300, 1 << 17 | 1 << 11), 0); /* mstatus: MPRV, S */
    ASSERT_EQ(vcpu_set_reg(m.vcpus[0], 65 + 0x3b0, UINT64_MAX), 0); /* PMP: all is S-mode's, too */
    ASSERT_EQ(vcpu_set_reg(m.vcpus[0], 65 + 0x3a0, 0x1f), 0);
    emit(&m, "auipc", S0, 0, 0, LAST);
    emit_li(&m, A0, 0);
    emit_li(&m, A2, 0x1000 >> 2); /* from one page to the other */
    emit_li(&m, T0, 40);
    uint64_t outer = m.at;
    emit_li(&m, S1, 0x1000);
    emit_li(&m, T1, 512);
    uint64_t inner = m.at;
    emit(&m, "ld", A1, S1, 0, 0);
    emit(&m, "add", A0, A0, A1, 0);
    emit(&m, "addi", A1, A1, 0, 1);
    emit(&m, "sd", 0, S1, A1, 0);
    emit(&m, "addi", S1, S1, 0, 8);
    emit(&m, "addi", T1, T1, 0, -1);
    emit(&m, "bne", 0, T1, ZERO, (int64_t)inner - (int64_t)m.at);
    emit(&m, "ld", A1, S0, 0, 8);
    emit(&m, "xor", A1, A1, A2, 0);
    emit(&m, "sd", 0, S0, A1, 8);
    emit_li(&m, S1, 0x1000);
    emit(&m, "sfence.vma", 0, one_page ? S1 : ZERO, 0, 0);
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, (int64_t)outer - (int64_t)m.at);
    emit(&m, "lui", T1, 0, 0, 1 << 17);
    emit(&m, "csrrc", 0, T1, 0, 0x300);
    emit_stop(&m, A0);
    run_until_stopped(&m);
    /* 20 rounds each, of a page that begins with 0 to 511 and of one that begins with zeros */
    EXPECT_EQ(m.stored, 20 * (511 * 512 / 2) + 2 * 512 * (19 * 20 / 2));
    machine_done(&m);
}

TEST(a_loop_sees_what_is_mapped_elsewhere)
{
    for (unsigned i = 0; i < 2 * ARRAY_SIZE(kinds); i++)
        remapped_program(kinds[i / 2], i & 1);
}

static void memory_program(enum engine_kind kind)
{
    struct machine m;

    machine_init(&m, kind, 1);
    emit(&m, "auipc", S0, 0, 0, 0x10000);
    emit_li(&m, T0, 1000);
    emit(&m, "sd", 0, S0, T0, 0);
    emit(&m, "lhu", A1, S0, 0, 0);
    emit(&m, "add", A0, A0, A1, 0);
    emit(&m, "sw", 0, S0, A0, 0xff6 - 0x800); /* misaligned */
    emit(&m, "lw", A2, S0, 0, 0xff6 - 0x800);
    emit(&m, "addi", S0, S0, 0, 8); /* crosses pages in time */
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, -28);
    emit_stop(&m, A2);
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, 1000 * 1001 / 2);
    machine_done(&m);
}

TEST(memory_is_read_and_written)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        memory_program(kinds[i]);
}

static void fault_program(enum engine_kind kind)
{
    struct machine m;

    machine_init(&m, kind, 1);
    set_handler(&m, 0x800);
    emit_li(&m, A0, 0);
    emit_li(&m, A1, 0);
    emit_li(&m, T0, 100);
    emit_li(&m, S0, 0x4000); /* nothing there */
    uint64_t top = m.at;
    emit(&m, "addi", A0, A0, 0, 1);
    emit(&m, "ld", A3, S0, 0, 0); /* faults; the handler steps over */
    emit(&m, "addi", A0, A0, 0, 1);
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, -16);
    emit_stop(&m, A0);
    m.at = 0x800;
    emit(&m, "addi", A1, A1, 0, 1);
    emit(&m, "csrrs", T1, 0, 0, 0x341);
    emit(&m, "addi", T1, T1, 0, 4);
    emit(&m, "csrrw", 0, T1, 0, 0x341);
    emit(&m, "mret", 0, 0, 0, 0);
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, 200);
    EXPECT_EQ(reg(&m, A1), 100);
    EXPECT_EQ(reg(&m, 65 + 0x342), 5);      /* mcause: load access fault */
    EXPECT_EQ(reg(&m, 65 + 0x343), 0x4000); /* mtval */
    EXPECT_EQ(reg(&m, 65 + 0x341), BASE + top + 8);
    machine_done(&m);
}

TEST(faults_are_precise)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        fault_program(kinds[i]);
}

static void self_modifying_program(enum engine_kind kind)
{
    struct machine m;

    machine_init(&m, kind, 1);
    /* A function "li a0, imm; ret" at 0x400, whose immediate is rewritten each round. */
    emit_li(&m, T0, 200);
    emit_li(&m, A1, 0);
    emit(&m, "auipc", S0, 0, 0, 0);
    emit(&m, "addi", S0, S0, 0, 0x400 - 16);
    uint64_t top = m.at;
    emit_li(&m, T1, encode("addi", A0, ZERO, 0, 0));
    emit(&m, "slli", T2, T0, 0, 20);
    emit(&m, "add", T1, T1, T2, 0);
    emit(&m, "sw", 0, S0, T1, 0);
    emit(&m, "fence.i", 0, 0, 0, 0);
    emit(&m, "jalr", RA, S0, 0, 0);
    emit(&m, "add", A1, A1, A0, 0);
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, (int64_t)top - (int64_t)m.at);
    emit_stop(&m, A1);
    m.at = 0x400;
    emit(&m, "addi", A0, ZERO, 0, 0);
    emit(&m, "jalr", 0, RA, 0, 0);
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, 200 * 201 / 2);
    machine_done(&m);
}

TEST(self_modified_code_is_seen_after_fence_i)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        self_modifying_program(kinds[i]);
}

static void crossing_program(enum engine_kind kind)
{
    struct machine m;

    machine_init(&m, kind, 1);
    emit_li(&m, A0, 0);
    emit_li(&m, T0, 1000);
    emit(&m, "jal", 0, 0, 0, 0xff2 - 16);
    /* A loop over the page end, with a 4-byte instruction across it. */
    m.at = 0xff2;
    store_le16(m.ram + 0xff2, 0x0001); /* c.nop */
    m.at = 0xff4;
    emit(&m, "addi", A0, A0, 0, 1);
    store_le16(m.ram + 0xff8, 0x0001);
    store_le16(m.ram + 0xffa, 0x0001);
    store_le16(m.ram + 0xffc, 0x0001);
    m.at = 0xffe;
    emit(&m, "addi", A0, A0, 0, 16); /* 0xffe..0x1002 */
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, 0xff4 - 0x1006);
    emit_stop(&m, A0);
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, 17000);
    EXPECT_TRUE(counter(&m, "block_lookups") < 50);
    /* Its second half, in the other page, is overwritten: it adds 32. */
    ASSERT_EQ(mem_write(m.mem, GPA(BASE + 0x1000), 2, 32 << 4 | A0 >> 1), BUS_OK);
    ASSERT_EQ(vcpu_set_reg(m.vcpus[0], REG_PC, BASE), 0);
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, 33000);
    machine_done(&m);
}

TEST(an_instruction_may_cross_a_page)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        crossing_program(kinds[i]);
}

struct hart_run {
    struct machine *m;
    unsigned index;
};

static void *run_hart(void *arg)
{
    struct hart_run *r = arg;
    struct vcpu_exit exit;

    vcpu_run(r->m->vcpus[r->index], &exit);
    return NULL;
}

static void timer_program(enum engine_kind kind)
{
    struct machine m;

    machine_init(&m, kind, 1);
    set_handler(&m, 0x800);
    ASSERT_EQ(vcpu_set_reg(m.vcpus[0], 65 + 0x304, 1 << 7), 0); /* mie.MTIE */
    ASSERT_EQ(vcpu_set_reg(m.vcpus[0], 65 + 0x300, 1 << 3), 0); /* mstatus.MIE */
    emit_li(&m, A0, 0);
    emit(&m, "wfi", 0, 0, 0, 0);
    emit(&m, "jal", 0, 0, 0, -4);
    m.at = 0x800;
    emit(&m, "csrrs", A0, 0, 0, 0x342);
    emit_stop(&m, A0);
    struct vcpu *v = m.vcpus[0];
    pthread_t thread;
    struct hart_run run = {&m, 0};
    ASSERT_EQ(thread_start(&thread, "vcpu", run_hart, &run), 0);
    usleep(20000);
    vcpu_set_irq(v, 7, true);
    thread_join(thread);
    EXPECT_EQ(m.stored, (1ULL << 63) | 7);
    machine_done(&m);
}

TEST(an_interrupt_ends_wfi)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        timer_program(kinds[i]);
}

/* Both harts add to one word atomically while the translation cache is so small that it is emptied
 * again and again. */
static void atomic_program(enum engine_kind kind)
{
    struct machine m;
    pthread_t threads[2];
    struct hart_run runs[2] = {
        {&m, 0},
        {&m, 1}
    };

    machine_init(&m, kind, 2);
    emit(&m, "auipc", S0, 0, 0, 0x10000);
    emit_li(&m, T0, 20000);
    emit_li(&m, A1, 1);
    emit(&m, "amoadd.d", A2, S0, A1, 0);
    uint64_t retry = m.at;
    emit(&m, "lr.w", A2, S0, 0, 0);
    emit(&m, "addi", A2, A2, 0, 1);
    emit(&m, "sc.w", A3, S0, A2, 0);
    emit(&m, "bne", 0, A3, ZERO, (int64_t)retry - (int64_t)m.at);
    emit(&m, "addi", T0, T0, 0, -1);
    emit(&m, "bne", 0, T0, ZERO, -24);
    emit_stop(&m, A2);
    for (unsigned i = 0; i < 2; i++)
        ASSERT_EQ(thread_start(&threads[i], "vcpu", run_hart, &runs[i]), 0);
    thread_join(threads[0]);
    thread_join(threads[1]);
    EXPECT_EQ(load_le64(m.ram + 0x10000), 80000);
    machine_done(&m);
}

TEST(harts_add_atomically)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        atomic_program(kinds[i]);
}

TEST(breakpoints_steps_and_watchpoints_stop)
{
    struct machine m;
    struct vcpu_exit exit;

    machine_init(&m, ENGINE_INTERP, 1);
    emit(&m, "auipc", S0, 0, 0, 0x10000);
    emit(&m, "addi", A0, ZERO, 0, 1);
    emit(&m, "addi", A0, ZERO, 0, 2);
    emit(&m, "sd", 0, S0, A0, 16);
    emit(&m, "addi", A0, ZERO, 0, 3);
    emit_stop(&m, A0);
    const gva_t breakpoints[] = {GVA(BASE + 8)};
    const struct vcpu_watchpoint watch[] = {
        {.addr = GVA(BASE + 0x10010), .size = 4, .kind = VCPU_WATCH_WRITE}
    };
    struct vcpu_debug debug = {.breakpoints = breakpoints, .breakpoint_count = 1};
    vcpu_set_debug(m.vcpus[0], &debug);
    vcpu_run(m.vcpus[0], &exit);
    EXPECT_EQ(exit.reason, VCPU_EXIT_DEBUG);
    EXPECT_EQ(exit.debug.cause, VCPU_DEBUG_BREAK);
    EXPECT_EQ(reg(&m, REG_PC), BASE + 8);
    EXPECT_EQ(reg(&m, A0), 1);
    debug = (struct vcpu_debug){.step = true};
    vcpu_set_debug(m.vcpus[0], &debug);
    vcpu_run(m.vcpus[0], &exit);
    EXPECT_EQ(exit.debug.cause, VCPU_DEBUG_STEP);
    EXPECT_EQ(reg(&m, A0), 2);
    debug = (struct vcpu_debug){.watchpoints = watch, .watchpoint_count = 1};
    vcpu_set_debug(m.vcpus[0], &debug);
    vcpu_run(m.vcpus[0], &exit);
    EXPECT_EQ(exit.reason, VCPU_EXIT_DEBUG);
    EXPECT_EQ(exit.debug.cause, VCPU_DEBUG_WATCH);
    EXPECT_EQ(exit.debug.addr.v, BASE + 0x10010);
    EXPECT_EQ(reg(&m, REG_PC), BASE + 16);
    debug = (struct vcpu_debug){0};
    vcpu_set_debug(m.vcpus[0], &debug);
    run_until_stopped(&m);
    EXPECT_EQ(m.stored, 3);
    machine_done(&m);
}

/* --- Forked processes --- */

/* The sum of 1..A1, which is in a0 then; @step is what a round adds to t0. */
static void emit_sum(struct machine *m, int64_t step)
{
    m->at = 0;
    emit(m, "addi", A0, ZERO, 0, 0);
    emit(m, "addi", T0, A1, 0, 0);
    emit(m, "add", A0, A0, T0, 0);
    emit(m, "addi", T0, T0, 0, step);
    emit(m, "bne", 0, T0, ZERO, -8);
    emit_stop(m, A0);
}

static uint64_t sum(struct machine *m, uint64_t n)
{
    EXPECT_EQ(vcpu_set_reg(m->vcpus[0], A1, n), 0);
    EXPECT_EQ(vcpu_set_reg(m->vcpus[0], REG_PC, BASE), 0);
    run_until_stopped(m);
    return m->stored;
}

/* Code written by a device, as far as the engine knows. */
static void change_step(struct machine *m, int64_t step)
{
    uint32_t word = encode("addi", T0, T0, 0, step);

    EXPECT_EQ(mem_copy_out(m->mem, GPA(BASE + 12), &word, sizeof(word)), 0);
}

static bool heir(struct machine *from, enum engine_kind kind, bool alike)
{
    struct machine m;
    bool ok = true;

    extra.cache_bytes = alike ? 0 : 2 * ENGINE_CACHE_MIN;
    machine_init_from(&m, kind, 1, from);
    ok &= EXPECT_EQ(sum(&m, 2000), 2000 * 2001 / 2);
    if (kind == ENGINE_JIT && alike) {
        ok &= EXPECT_EQ(counter(&m, "blocks_decoded"), 0); /* it was all there */
        ok &= EXPECT_EQ(counter(&m, "blocks_translated"), 0);
    } else {
        ok &= EXPECT_TRUE(counter(&m, "blocks_decoded") > 0 || kind != ENGINE_JIT);
    }
    change_step(&m, -2);
    ok &= EXPECT_EQ(sum(&m, 2000), 1000 * 1001);
    machine_done(&m);
    return ok;
}

static void fork_machine(enum engine_kind kind, bool alike)
{
    struct machine m;
    int status = -1;

    machine_init(&m, kind, 1);
    emit_sum(&m, -1);
    EXPECT_EQ(sum(&m, 5000), 5000 * 5001 / 2);
    ASSERT_EQ(engine_share(m.engine, NULL), 0);
    pid_t child = fork();
    if (!child) {
        bool ok = heir(&m, kind, alike);
        (void)fflush(stdout); /* what it says is wrong */
        _exit(!ok);
    }
    engine_shared(m.engine);
    change_step(&m, -4);
    EXPECT_EQ(sum(&m, 2000), 500 * 2004 / 2);
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(sum(&m, 4000), 1000 * 4004 / 2);
    machine_done(&m);
}

TEST(a_forked_process_goes_on_with_what_was_translated)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        fork_machine(kinds[i], true);
}

static void trim(enum engine_kind kind)
{
    struct machine m;

    machine_init(&m, kind, 1);
    emit_sum(&m, -1);
    EXPECT_EQ(sum(&m, 5000), 5000 * 5001 / 2);
    EXPECT_TRUE(counter(&m, "cache_decoded_used") > 0);
    engine_trim(m.engine);
    EXPECT_EQ(counter(&m, "cache_decoded_used"), 0);
    EXPECT_EQ(sum(&m, 2000), 2000 * 2001 / 2);
    change_step(&m, -2);
    EXPECT_EQ(sum(&m, 2000), 1000 * 1001);
    machine_done(&m);
}

TEST(what_was_forgotten_is_translated_anew)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        trim(kinds[i]);
}

TEST(a_forked_machine_of_another_kind_begins_anew)
{
    fork_machine(ENGINE_JIT, false);
}
