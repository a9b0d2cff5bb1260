/* Tests of the goldfish clock, in real time. */
#include "base/test.h"
#include "device/rtc/goldfish.h"
#include "state/test_state.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#define BASE 0x101000ULL

static struct mem *mem;
static struct loop *loop;
static struct goldfish_rtc *rtc;
static int irq; /* [atomic] */

static void set_irq(void *controller, unsigned input, bool level)
{
    __atomic_store_n(&irq, level, __ATOMIC_SEQ_CST);
}

static void setup(void)
{
    struct goldfish_rtc_config c = {.irq = {.set = set_irq}};

    mem = mem_new();
    c.loop = loop = loop_new("test");
    ASSERT_TRUE(mem && loop);
    ASSERT_EQ(loop_start(loop), 0);
    ASSERT_EQ(goldfish_rtc_new(mem, GPA(BASE), &c, &rtc, NULL), 0);
}

static uint64_t rd(uint64_t offset)
{
    uint64_t v = 0;

    EXPECT_EQ(mem_read(mem, GPA(BASE + offset), 4, &v), BUS_OK);
    return v;
}

static void wr(uint64_t offset, uint64_t v)
{
    EXPECT_EQ(mem_write(mem, GPA(BASE + offset), 4, v), BUS_OK);
}

static uint64_t now(void)
{
    uint64_t low = rd(0);

    return rd(4) << 32 | low;
}

TEST(shows_the_hosts_time)
{
    setup();
    int64_t s = (int64_t)(now() / 1000000000);
    EXPECT_TRUE(s - time(NULL) <= 1 && time(NULL) - s <= 1);
}

TEST(can_be_set)
{
    setup();
    wr(4, 0x1000);
    wr(0, 0);
    EXPECT_EQ(now() >> 36, 0x100);
    usleep(1000);
    EXPECT_TRUE(now() > 0x100000000000);
    EXPECT_EQ(now() >> 36, 0x100);
}

TEST(alarm_interrupts_once)
{
    setup();
    uint64_t at = now() + 20000000;
    wr(0x10, 1);
    wr(0x0c, at >> 32);
    wr(0x08, at);
    EXPECT_EQ(rd(0x18), 1);
    EXPECT_TRUE(!__atomic_load_n(&irq, __ATOMIC_SEQ_CST));
    for (int i = 0; i < 2000 && !__atomic_load_n(&irq, __ATOMIC_SEQ_CST); i++)
        usleep(1000);
    EXPECT_TRUE(__atomic_load_n(&irq, __ATOMIC_SEQ_CST));
    EXPECT_TRUE(now() >= at);
    EXPECT_EQ(rd(0x18), 0);
    wr(0x1c, 1);
    EXPECT_TRUE(!__atomic_load_n(&irq, __ATOMIC_SEQ_CST));
}

TEST(alarm_is_cleared_and_masked)
{
    setup();
    uint64_t at = now() + 10000000;
    wr(0x0c, at >> 32);
    wr(0x08, at);
    wr(0x14, 1);
    EXPECT_EQ(rd(0x18), 0);
    wr(0x0c, 0);
    wr(0x08, 1); /* long ago */
    EXPECT_TRUE(!__atomic_load_n(&irq, __ATOMIC_SEQ_CST));
    wr(0x10, 1);
    EXPECT_TRUE(__atomic_load_n(&irq, __ATOMIC_SEQ_CST));
    goldfish_rtc_reset(rtc);
    EXPECT_TRUE(!__atomic_load_n(&irq, __ATOMIC_SEQ_CST));
    mem_free(mem);
    goldfish_rtc_free(rtc);
    loop_free(loop);
}

TEST(saved_state_loads)
{
    struct state_out *out = state_out_new();
    struct error err = {0};

    setup();
    wr(0x04, 1); /* set the clock: 1 << 32 ns */
    wr(0x00, 0);
    wr(0x10, 1);
    wr(0x0c, 0); /* an alarm that has passed */
    wr(0x08, 1);
    EXPECT_TRUE(__atomic_load_n(&irq, __ATOMIC_SEQ_CST));
    goldfish_rtc_save(rtc, out);
    struct state_in *in = test_state_turn(out);
    goldfish_rtc_reset(rtc);
    wr(0x04, 0x70000000);
    wr(0x00, 0);
    EXPECT_TRUE(!__atomic_load_n(&irq, __ATOMIC_SEQ_CST));
    if (goldfish_rtc_load(rtc, in, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    EXPECT_TRUE(__atomic_load_n(&irq, __ATOMIC_SEQ_CST));
    (void)rd(0x00);
    EXPECT_EQ(rd(0x04), 1); /* within four seconds */
    state_in_free(in);
}
