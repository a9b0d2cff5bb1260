/* Registers by number, and the comparison of two harts. */
#include "base/test.h"
#include "tests/isa/bare.h"

#include <errno.h>
TEST(list_names_what_can_be_read)
{
    struct bare *e = bare_new(0x80000000, 0x1000);
    size_t count;
    const struct vcpu_reg *regs = rv_cpu_ops.registers(&e->h.cpu, &count);
    uint64_t v;

    ASSERT_TRUE(count > 100);
    EXPECT_STR(regs[0].name, "zero");
    EXPECT_STR(regs[10].name, "a0");
    EXPECT_STR(regs[32].name, "pc");
    EXPECT_STR(regs[33].name, "ft0");
    for (size_t n = 0; n < count; n++) {
        EXPECT_TRUE(regs[n].name && *regs[n].name && strlen(regs[n].name) < 16);
        if (strcmp(regs[n].name, "seed") && rv_cpu_ops.get_reg(&e->h.cpu, regs[n].id, &v))
            test_fail(__FILE__, __LINE__, "%s cannot be read", regs[n].name);
        EXPECT_TRUE(!n || regs[n].id > regs[n - 1].id);
    }
    EXPECT_EQ(rv_cpu_ops.get_reg(&e->h.cpu, 65 + 4096, &v), -ENOENT);
    EXPECT_EQ(rv_cpu_ops.set_reg(&e->h.cpu, 65 + 4096, 0), -ENOENT);
    bare_free(e);
}

TEST(set_and_get)
{
    struct bare *e = bare_new(0x80000000, 0x1000);
    struct cpu *c = &e->h.cpu;
    uint64_t v = 1;

    EXPECT_EQ(rv_cpu_ops.set_reg(c, 0, 5), 0);
    EXPECT_EQ(rv_cpu_ops.get_reg(c, 0, &v), 0);
    EXPECT_EQ(v, 0u);
    EXPECT_EQ(rv_cpu_ops.set_reg(c, 10, 5), 0);
    EXPECT_EQ(e->h.x[10], 5u);
    EXPECT_EQ(rv_cpu_ops.set_reg(c, 32, 0x80000003), 0);
    EXPECT_EQ(c->pc, 0x80000002u);
    EXPECT_EQ(rv_cpu_ops.set_reg(c, 33 + 31, ~0ULL), 0);
    EXPECT_EQ(e->h.f[31], ~0ULL);
    EXPECT_EQ(rv_cpu_ops.set_reg(c, 65 + 0x340, 77), 0); /* mscratch */
    EXPECT_EQ(e->h.mscratch, 77u);
    bare_free(e);
}

TEST(diff_tells_the_first_difference)
{
    struct bare *a = bare_new(0x80000000, 0x1000), *b = bare_new(0x80000000, 0x1000);
    char text[128] = "";

    EXPECT_TRUE(!rv_cpu_ops.diff(&a->h.cpu, &b->h.cpu, text, sizeof(text)));
    b->h.x[10] = 0x1234;
    EXPECT_TRUE(rv_cpu_ops.diff(&a->h.cpu, &b->h.cpu, text, sizeof(text)));
    EXPECT_STR(text, "a0: 0 and 0x1234");
    b->h.cpu.pc += 4;
    EXPECT_TRUE(rv_cpu_ops.diff(&a->h.cpu, &b->h.cpu, text, sizeof(text)));
    EXPECT_TRUE(strstr(text, "pc"));
    bare_free(a);
    bare_free(b);
}
