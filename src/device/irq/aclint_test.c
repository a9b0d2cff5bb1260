/* Tests of the ACLINT, through its registers and in real time. */
#include "base/test.h"
#include "device/irq/aclint.h"
#include "state/test_state.h"

#include <errno.h>
#include <unistd.h>

#define BASE 0x02000000ULL

static struct mem *mem;
static struct loop *loop;
static struct vclock guest_clock;
static struct aclint *aclint;
static int msip[2], mtip[2]; /* [atomic] */

static void set_msip(void *controller, unsigned input, bool level)
{
    __atomic_store_n(&msip[input], level, __ATOMIC_SEQ_CST);
}

static void set_mtip(void *controller, unsigned input, bool level)
{
    __atomic_store_n(&mtip[input], level, __ATOMIC_SEQ_CST);
}

static void setup(void)
{
    struct aclint_config c = {.harts = 2, .timebase_hz = 10000000, .clock = &guest_clock};

    for (unsigned i = 0; i < 2; i++) {
        c.msip[i] = (struct irq_line){.set = set_msip, .input = i};
        c.mtip[i] = (struct irq_line){.set = set_mtip, .input = i};
    }
    vclock_init(&guest_clock, 0);
    mem = mem_new();
    loop = loop_new("test");
    ASSERT_TRUE(mem && loop);
    ASSERT_EQ(loop_start(loop), 0);
    c.loop = loop;
    ASSERT_EQ(aclint_new(mem, GPA(BASE), &c, &aclint, NULL), 0);
}

static uint64_t rd(uint64_t offset, unsigned size)
{
    uint64_t v = 0;

    EXPECT_EQ(mem_read(mem, GPA(BASE + offset), size, &v), BUS_OK);
    return v;
}

static void wr(uint64_t offset, unsigned size, uint64_t v)
{
    EXPECT_EQ(mem_write(mem, GPA(BASE + offset), size, v), BUS_OK);
}

static bool up(const int *flag)
{
    return __atomic_load_n(flag, __ATOMIC_SEQ_CST);
}

static bool wait_for(const int *flag)
{
    for (int i = 0; i < 2000 && !__atomic_load_n(flag, __ATOMIC_SEQ_CST); i++)
        usleep(1000);
    return __atomic_load_n(flag, __ATOMIC_SEQ_CST);
}

TEST(software_interrupts)
{
    setup();
    wr(4, 4, 0xffffffff);
    EXPECT_TRUE(up(&msip[1]) && !up(&msip[0]));
    EXPECT_EQ(rd(4, 4), 1);
    EXPECT_EQ(rd(0, 4), 0);
    wr(4, 4, 0);
    EXPECT_TRUE(!up(&msip[1]));
    wr(8, 4, 1); /* no such hart */
    EXPECT_EQ(rd(8, 4), 0);
    wr(0, 4, 1);
    aclint_reset(aclint);
    EXPECT_TRUE(!up(&msip[0]));
}

TEST(time_runs_at_10_mhz)
{
    setup();
    uint64_t a = rd(0xbff8, 8);
    usleep(20000);
    uint64_t b = rd(0xbff8, 8);
    EXPECT_TRUE(b - a >= 200000 && b - a < 50000000);
    EXPECT_EQ(rd(0xbffc, 4), 0);
    wr(0xbff8, 8, 0); /* ignored: the time CSR shows the same guest_clock */
    EXPECT_TRUE(rd(0xbff8, 8) >= b);
}

TEST(timer_interrupt_comes_and_goes)
{
    setup();
    EXPECT_EQ(rd(0x4000, 8), UINT64_MAX);
    wr(0x4008, 8, rd(0xbff8, 8) + 100000);
    EXPECT_TRUE(!up(&mtip[1]));
    EXPECT_TRUE(wait_for(&mtip[1]));
    EXPECT_TRUE(rd(0xbff8, 8) >= rd(0x4008, 8));
    EXPECT_TRUE(!up(&mtip[0]));
    wr(0x400c, 4, 0x12345678);
    EXPECT_TRUE(!up(&mtip[1]));
    EXPECT_EQ(rd(0x400c, 4), 0x12345678);
    wr(0x4008, 8, 0);
    EXPECT_TRUE(up(&mtip[1]));
}

TEST(no_timer_interrupt_while_paused)
{
    setup();
    wr(0x4000, 8, rd(0xbff8, 8) + 100000);
    vclock_pause(&guest_clock);
    usleep(40000);
    EXPECT_TRUE(!up(&mtip[0]));
    vclock_resume(&guest_clock);
    aclint_resume(aclint);
    EXPECT_TRUE(wait_for(&mtip[0]));
    aclint_free(aclint);
    loop_free(loop);
}

TEST(saved_state_loads)
{
    struct state_out *out = state_out_new();
    struct error err = {0};

    setup();
    wr(4, 4, 1);
    wr(0x4000, 8, 0); /* reached */
    wr(0x4008, 8, 1ULL << 60);
    aclint_save(aclint, out);
    struct state_in *in = test_state_turn(out);
    aclint_reset(aclint);
    EXPECT_TRUE(!up(&msip[1]) && !up(&mtip[0]));
    if (aclint_load(aclint, in, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    EXPECT_TRUE(up(&msip[1]) && up(&mtip[0]) && !up(&msip[0]) && !up(&mtip[1]));
    EXPECT_EQ(rd(0x4008, 8), 1ULL << 60);
    EXPECT_EQ(rd(4, 4), 1);
    state_in_free(in);
}
