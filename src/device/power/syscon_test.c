/* Tests of the power control register. */
#include "base/test.h"
#include "device/power/syscon.h"

static int poweroffs, resets;
static unsigned last_code;

static void poweroff(void *arg, unsigned code)
{
    poweroffs++;
    last_code = code;
}

static void reset(void *arg)
{
    resets++;
}

TEST(commands)
{
    struct syscon_config c = {.poweroff = poweroff, .reset = reset};
    struct mem *mem = mem_new();
    struct syscon *s;
    uint64_t v = 1;

    ASSERT_EQ(syscon_new(mem, GPA(0x100000), &c, &s, NULL), 0);
    EXPECT_EQ(mem_read(mem, GPA(0x100000), 4, &v), BUS_OK);
    EXPECT_EQ(v, 0);
    EXPECT_EQ(mem_write(mem, GPA(0x100000), 4, 0x1234), BUS_OK);
    EXPECT_EQ(mem_write(mem, GPA(0x100004), 4, 0x5555), BUS_OK);
    EXPECT_EQ(poweroffs, 0);
    EXPECT_EQ(mem_write(mem, GPA(0x100000), 4, 0x5555), BUS_OK);
    EXPECT_EQ(poweroffs, 1);
    EXPECT_EQ(last_code, 0);
    EXPECT_EQ(mem_write(mem, GPA(0x100000), 4, 0x00053333), BUS_OK);
    EXPECT_EQ(last_code, 5);
    EXPECT_EQ(mem_write(mem, GPA(0x100000), 4, 0x3333), BUS_OK);
    EXPECT_EQ(last_code, 1); /* a failure is never status 0 */
    EXPECT_EQ(resets, 0);
    EXPECT_EQ(mem_write(mem, GPA(0x100000), 4, 0x7777), BUS_OK);
    EXPECT_EQ(resets, 1);
    EXPECT_EQ(mem_write(mem, GPA(0x100000), 1, 0x77), BUS_FAULT);
    mem_free(mem);
    syscon_free(s);
}
