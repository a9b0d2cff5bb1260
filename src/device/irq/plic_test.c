/* Tests of the PLIC, through its registers. */
#include "base/test.h"
#include "device/irq/plic.h"
#include "state/test_state.h"

#define BASE 0x0c000000ULL

static struct mem *mem;
static struct plic *plic;
static bool up[PLIC_MAX_CONTEXTS];

static void output(void *controller, unsigned input, bool level)
{
    up[input] = level;
}

static void setup(void)
{
    struct plic_config c = {.sources = 96, .contexts = 4};

    for (unsigned i = 0; i < 4; i++)
        c.outputs[i] = (struct irq_line){.set = output, .input = i};
    mem = mem_new();
    ASSERT_EQ(plic_new(mem, GPA(BASE), &c, &plic, NULL), 0);
}

static uint32_t rd(uint64_t offset)
{
    uint64_t v = 0;

    EXPECT_EQ(mem_read(mem, GPA(BASE + offset), 4, &v), BUS_OK);
    return (uint32_t)v;
}

static void wr(uint64_t offset, uint32_t v)
{
    EXPECT_EQ(mem_write(mem, GPA(BASE + offset), 4, v), BUS_OK);
}

static uint32_t claim(unsigned context)
{
    return rd(0x200004 + 0x1000 * context);
}

static void complete(unsigned context, uint32_t id)
{
    wr(0x200004 + 0x1000 * context, id);
}

static void enable(unsigned context, unsigned id, unsigned priority)
{
    uint64_t reg = 0x2000 + 0x80 * context + id / 32 * 4;

    wr(reg, rd(reg) | 1u << id % 32);
    wr(4 * id, priority);
}

static void set(unsigned id, bool level)
{
    struct irq_line line = plic_input(plic, id);

    irq_set(&line, level);
}

TEST(registers_keep_only_what_exists)
{
    setup();
    wr(0, 7);
    EXPECT_EQ(rd(0), 0);
    wr(4 * 96, 0xff);
    EXPECT_EQ(rd(4 * 96), 7);
    wr(4 * 97, 7);
    EXPECT_EQ(rd(4 * 97), 0);
    wr(0x2000, ~0u);
    EXPECT_EQ(rd(0x2000), 0xfffffffe);
    wr(0x200c, ~0u);
    EXPECT_EQ(rd(0x200c), 1);
    wr(0x2000 + 4 * 0x80, ~0u); /* no such context */
    EXPECT_EQ(rd(0x2000 + 4 * 0x80), 0);
    wr(0x200000, 0xff);
    EXPECT_EQ(rd(0x200000), 7);
    wr(0x1000, ~0u);
    EXPECT_EQ(rd(0x1000), 0);
    uint64_t v;
    EXPECT_EQ(mem_read(mem, GPA(BASE), 1, &v), BUS_FAULT);
}

TEST(claim_complete_and_level_repeats)
{
    setup();
    enable(1, 10, 1);
    set(10, true);
    EXPECT_TRUE(up[1] && !up[0]);
    EXPECT_EQ(rd(0x1000), 1 << 10);
    EXPECT_EQ(claim(0), 0);
    EXPECT_EQ(claim(1), 10);
    EXPECT_TRUE(!up[1]);
    EXPECT_EQ(claim(1), 0);
    complete(0, 10); /* not enabled there: ignored */
    EXPECT_TRUE(!up[1]);
    complete(1, 10); /* the level is still up */
    EXPECT_TRUE(up[1]);
    EXPECT_EQ(claim(1), 10);
    set(10, false);
    complete(1, 10);
    EXPECT_TRUE(!up[1]);
    EXPECT_EQ(claim(1), 0);
}

TEST(a_forwarded_request_stays)
{
    setup();
    enable(1, 10, 1);
    set(10, true);
    set(10, false);
    EXPECT_TRUE(up[1]);
    EXPECT_EQ(claim(1), 10);
    set(10, true);
    set(10, false); /* a pulse while in service leaves nothing behind */
    complete(1, 10);
    EXPECT_TRUE(!up[1]);
}

TEST(priorities_ties_and_threshold)
{
    setup();
    enable(1, 5, 2);
    enable(1, 40, 3);
    enable(1, 3, 2);
    enable(1, 7, 0); /* priority 0 never interrupts */
    set(7, true);
    EXPECT_TRUE(!up[1]);
    EXPECT_EQ(claim(1), 0);
    set(5, true);
    set(3, true);
    set(40, true);
    wr(0x201000, 3);
    EXPECT_TRUE(!up[1]);
    EXPECT_EQ(claim(1), 40); /* the threshold does not matter to a claim */
    wr(0x201000, 1);
    EXPECT_TRUE(up[1]);
    EXPECT_EQ(claim(1), 3);
    EXPECT_EQ(claim(1), 5);
    EXPECT_EQ(claim(1), 0);
}

TEST(one_of_several_contexts_wins)
{
    setup();
    enable(1, 33, 1);
    enable(3, 33, 1);
    set(33, true);
    EXPECT_TRUE(up[1] && up[3]);
    EXPECT_EQ(claim(3), 33);
    EXPECT_TRUE(!up[1] && !up[3]);
    EXPECT_EQ(claim(1), 0);
    plic_reset(plic);
    EXPECT_TRUE(!up[1] && !up[3]);
    EXPECT_EQ(rd(4 * 33), 0);
    enable(1, 33, 1); /* the wire is still up */
    EXPECT_TRUE(up[1]);
}

TEST(saved_state_loads)
{
    struct state_out *out = state_out_new();
    struct error err = {0};

    setup();
    enable(1, 33, 5);
    enable(0, 7, 3);
    wr(0x200000, 2);
    set(33, true);
    set(7, true);
    EXPECT_EQ(claim(1), 33); /* under service */
    plic_save(plic, out);
    struct state_in *in = test_state_turn(out);
    set(33, false);
    set(7, false);
    plic_reset(plic);
    EXPECT_TRUE(!up[0]);
    if (plic_load(plic, in, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    EXPECT_TRUE(up[0] && !up[1]);
    EXPECT_EQ(rd(4 * 33), 5);
    EXPECT_EQ(rd(0x200000), 2);
    complete(1, 33); /* its line is still up: once more */
    EXPECT_TRUE(up[1]);
    EXPECT_EQ(claim(1), 33);
    EXPECT_EQ(claim(0), 7);
    state_in_free(in);
}
