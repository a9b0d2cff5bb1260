/* Generated code against the reference evaluator: random units, every feature set; linking, kill,
 * attention, the jump cache. `HOST_TEST_UNITS=n` changes the number of random units. */
#include "base/test.h"
#include "cpu/host/x86_64/random_ir.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static struct codebuf code;
static struct host *host;
static struct ir_func *unit;
static struct m_machine machines[2];

static void setup(unsigned features)
{
    struct host_env env;

    m_env(&env);
    ASSERT_EQ(codebuf_init(&code, 1 << 20, NULL), 0);
    ASSERT_EQ(host_new(&env, &code, features, &host, NULL), 0);
    unit = ir_new(8192);
    ASSERT_TRUE(unit != NULL);
}
static void teardown(void)
{
    ir_free(unit);
    host_free(host);
    codebuf_done(&code);
}

/** Text of the first difference; NULL: none. */
static const char *differs(const struct m_state *a, const struct m_state *b)
{
    static char text[200];

#define CHECK(field)                                                                               \
    if (a->field != b->field) {                                                                    \
        snprintf(text, sizeof(text), #field ": 0x%llx, want 0x%llx", (unsigned long long)a->field, \
                 (unsigned long long)b->field);                                                    \
        return text;                                                                               \
    }
    CHECK(pc);
    CHECK(instret);
    CHECK(fp_flags);
    CHECK(calls);
    CHECK(rounds);
    for (unsigned n = 0; n < M_INTS; n++)
        if (a->x[n] != b->x[n]) {
            snprintf(text, sizeof(text), "x[%u]: 0x%llx, want 0x%llx", n,
                     (unsigned long long)a->x[n], (unsigned long long)b->x[n]);
            return text;
        }
    for (unsigned n = 0; n < M_FLOATS; n++)
        if (a->f[n] != b->f[n]) {
            snprintf(text, sizeof(text), "f[%u]: 0x%llx, want 0x%llx", n,
                     (unsigned long long)a->f[n], (unsigned long long)b->f[n]);
            return text;
        }
    return memcmp(a->ram, b->ram, sizeof(machines[0].ram)) ? "memory differs" : NULL;
#undef CHECK
}

enum shape { LINE, LOOP, REGION };

/** Run one random unit both ways. */
static bool agrees(uint64_t seed, unsigned length, bool optimize, enum shape shape)
{
    struct m_state got, want;
    struct host_code c;
    struct host_leave leave;
    struct ir_eval_result r;
    const char *diff;
    struct error err = {0};
    int e;

    if (shape == LOOP)
        m_random_loop(unit, seed, length);
    else if (shape == REGION)
        m_random_region(unit, seed, length);
    else
        m_random_unit(unit, seed, length);
    m_init(&want, &machines[0], seed);
    m_init(&got, &machines[1], seed);
    if (ir_verify(unit, &err)) {
        test_fail(__FILE__, __LINE__, "seed %llu: %s", (unsigned long long)seed, err.text);
        return false;
    }
    do
        r = m_eval(unit, &want);
    while (shape == LOOP && r.kind == IR_EVAL_DIRECT &&
           want.pc == M_CODE_PAGE + unit->start_offset);
    if (optimize) {
        ir_optimize(unit);
        if (ir_verify(unit, &err)) {
            test_fail(__FILE__, __LINE__, "seed %llu, optimized: %s", (unsigned long long)seed,
                      err.text);
            return false;
        }
    }
    if (code.size - code.used < 400000)
        host_restart(host);
    if (getenv("HOST_TEST_DUMP") && getenv("HOST_TEST_SEED"))
        host_dump_registers(host, stderr);
    e = host_compile(host, unit, &machines, &c);
    if (e == -E2BIG && length > 500)
        return true; /* too many exits or spills: as documented */
    if (e) {
        test_fail(__FILE__, __LINE__, "seed %llu length %u: error %d", (unsigned long long)seed,
                  length, e);
        return false;
    }
    leave = host_enter(host, &got, c.entry);
    diff = differs(&got, &want);
    if (!diff && r.kind != IR_EVAL_DIRECT && r.kind != IR_EVAL_INDIRECT &&
        (leave.kind != HOST_LEAVE_STATUS || got.status != want.status))
        diff = "kind of exit or status";
    if (!diff && leave.kind == HOST_LEAVE_DIRECT &&
        (leave.owner != (void *)&machines || got.code_page + c.exits[leave.index].delta != got.pc))
        diff = "exit's identity";
    if (!diff)
        return true;
    test_fail(__FILE__, __LINE__, "seed %llu length %u: %s", (unsigned long long)seed, length,
              diff);
    if (getenv("HOST_TEST_DUMP"))
        host_dump_code(host, &c, stderr);
    return false;
}

static void random_units(unsigned features, unsigned count, unsigned length, bool optimize,
                         enum shape shape)
{
    const char *n = getenv("HOST_TEST_UNITS"), *seed = getenv("HOST_TEST_SEED");
    unsigned failures = 0;

    if (n)
        count = (unsigned)atoi(n);
    setup(features);
    if (seed) {
        agrees(strtoull(seed, NULL, 0), length, optimize, shape);
        teardown();
        return;
    }
    for (unsigned k = 0; k < count && failures < 5; k++)
        failures += !agrees(k + 1, length, optimize, shape);
    teardown();
}

TEST(short_random_units)
{
    random_units(~0u, 20000, 12, false, LINE);
}
TEST(random_units)
{
    random_units(~0u, 10000, 60, false, LINE);
}
TEST(optimized_random_units)
{
    random_units(~0u, 20000, 60, true, LINE);
}
TEST(loops)
{
    random_units(~0u, 5000, 10, true, LOOP);
}
TEST(longer_loops)
{
    random_units(~0u, 10000, 50, true, LOOP);
}
TEST(regions)
{
    random_units(~0u, 20000, 12, true, REGION);
}
TEST(longer_regions)
{
    random_units(~0u, 10000, 80, true, REGION);
}
TEST(regions_without_bound_state)
{
    random_units(~0u, 5000, 30, false, REGION);
}
TEST(long_random_units)
{
    random_units(~0u, 1000, 600, false, LINE);
}
TEST(random_units_on_a_baseline_host)
{
    random_units(0, 10000, 60, false, LINE);
}
TEST(random_units_without_fma)
{
    random_units(~(unsigned)(HOST_FMA | HOST_AVX), 5000, 40, false, LINE);
}

/** Where an indirect exit goes if its pc's place in the jump cache is another's and @other is in
 * the second one. */
static struct host_leave leave_by_pair(const struct m_jump *other)
{
    const uint64_t pc = M_CODE_PAGE + 0x5008;
    unsigned place = (unsigned)((pc ^ pc >> M_JUMP_BITS) >> 1) & ((1 << M_JUMP_BITS) - 1);
    struct m_jump *pair = machines[0].context.jumps;
    struct host_code c;
    struct m_state s;

    ir_reset(unit);
    ir_guest_insn(unit, 0);
    ir_exit_indirect(unit, ir_const(unit, IR_I64, (int64_t)pc), IR_HINT_NONE);
    ASSERT_EQ(host_compile(host, unit, NULL, &c), 0);
    m_init(&s, &machines[0], 1);
    pair[place] = (struct m_jump){.key = pc + 4096, .code = c.entry, .code_mode = 1u << 31};
    pair[place ^ 1] = *other;
    struct host_leave leave = host_enter(host, &s, c.entry);
    EXPECT_EQ(s.pc, leave.kind == HOST_LEAVE_STATUS ? (pc & ~4095ULL) + 0x100 : pc);
    return leave;
}

TEST(the_jump_cache_has_pairs)
{
    struct host_code there;
    struct m_jump other = {.key = M_CODE_PAGE + 0x5008, .code_mode = 1u << 31};

    setup(host_features());
    ir_reset(unit);
    ir_guest_insn(unit, 8);
    ir_exit_status(unit, 0x100, 2);
    ASSERT_EQ(host_compile(host, unit, NULL, &there), 0);
    other.code = there.entry;
    EXPECT_EQ(leave_by_pair(&other).kind, HOST_LEAVE_STATUS);
    other.code_mode |= 4; /* of another mode */
    EXPECT_EQ(leave_by_pair(&other).kind, HOST_LEAVE_INDIRECT);
    other.code_mode = 1u << 31;
    other.key += 2;
    EXPECT_EQ(leave_by_pair(&other).kind, HOST_LEAVE_INDIRECT);
    teardown();
}
