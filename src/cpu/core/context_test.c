/* Address spaces: what is found in which, and what flushing leaves. */
#include "base/test.h"
#include "cpu/core/context.h"

enum { KERNEL = CPU_MMU_SHARED, USER = 0 };

static uint64_t key(unsigned n)
{
    return 8ULL << 60 | (uint64_t)n << 44 | (0x1000 + n);
}

static void begin(struct cpu *c)
{
    *c = (struct cpu){.mode = KERNEL | KERNEL << 2};
    ASSERT_EQ(cpu_contexts_init(c), 0);
    cpu_set_context(c, key(1));
}

static void enter_page(struct cpu *c, unsigned mmu, uint64_t va, bool global)
{
    struct cpu_table *t = &c->context->tables[mmu];

    ASSERT_TRUE(global || cpu_own_table(c, mmu));
    *tlb_at(c, va, mmu) = (struct tlb_entry){.tag = {tlb_tag(va)}};
    t->tlb_used = true;
    t->tlb_local |= !global;
}

static void enter(struct cpu *c, uint64_t pc, bool global)
{
    uint32_t mode = (uint32_t)c->mode | JUMP_VALID;
    struct jump_entry j = {.key = pc, .mode = mode, .code_mode = mode};

    cpu_enter_jump(c, &j, global);
}

static bool has_page(struct cpu *c, unsigned mmu, uint64_t va)
{
    return tlb_at(c, va, mmu)->tag[CPU_READ] == tlb_tag(va);
}

TEST(global_pages_are_everywhere_at_once)
{
    struct cpu c;

    begin(&c);
    enter(&c, 0x1000, true);
    enter_page(&c, KERNEL, 0x2000, true);
    enter_page(&c, USER, 0x3000, false);
    for (unsigned n = 2; n < 3 * CPU_CONTEXTS; n++) { /* old ones give way, too */
        cpu_set_context(&c, key(n));
        EXPECT_TRUE(cpu_find_jump(&c, 0x1000) != NULL);
        EXPECT_TRUE(has_page(&c, KERNEL, 0x2000));
        EXPECT_TRUE(!has_page(&c, USER, 0x3000));
        enter_page(&c, USER, 0x3000, false);
    }
    enter(&c, 0x5000, true);
    cpu_set_context(&c, key(1));
    EXPECT_TRUE(cpu_find_jump(&c, 0x5000) != NULL);
    cpu_set_context(&c, 0);
    EXPECT_TRUE(!cpu_find_jump(&c, 0x1000));
    EXPECT_TRUE(!has_page(&c, KERNEL, 0x2000));
    cpu_contexts_done(&c);
}

TEST(a_page_that_is_not_global_stays_where_it_is)
{
    struct cpu c;

    begin(&c);
    enter_page(&c, KERNEL, 0x2000, true);
    cpu_set_context(&c, key(2));
    enter_page(&c, KERNEL, 0x4000, false);
    enter(&c, 0x5000, false);
    EXPECT_TRUE(!c.context->shares);
    cpu_set_context(&c, key(1));
    EXPECT_TRUE(has_page(&c, KERNEL, 0x2000));
    EXPECT_TRUE(!has_page(&c, KERNEL, 0x4000));
    EXPECT_TRUE(!cpu_find_jump(&c, 0x5000));
    cpu_set_context(&c, key(2));
    EXPECT_TRUE(has_page(&c, KERNEL, 0x4000));
    EXPECT_TRUE(cpu_find_jump(&c, 0x5000) != NULL);
    for (unsigned n = 3; n < 3 + CPU_CONTEXTS; n++) /* it gives way, and the next one shares */
        cpu_set_context(&c, key(n));
    EXPECT_TRUE(c.context->shares && c.contexts[2].shares);
    EXPECT_TRUE(has_page(&c, KERNEL, 0x2000));
    EXPECT_TRUE(!has_page(&c, KERNEL, 0x4000));
    for (unsigned n = 20; n < 200; n++) { /* whose kernel never shares */
        cpu_set_context(&c, key(n));
        EXPECT_TRUE(!has_page(&c, KERNEL, 0x4000));
        enter_page(&c, KERNEL, 0x4000, false);
    }
    EXPECT_TRUE(c.contexts_owned < 100);
    cpu_contexts_done(&c);
}

static bool same(uint64_t k, uint64_t arg)
{
    return k == arg;
}

TEST(flushing_reaches_what_is_shared)
{
    struct cpu c;

    begin(&c);
    cpu_set_context(&c, key(2));
    enter_page(&c, KERNEL, 0x2000, true);
    enter_page(&c, USER, 0x3000, false);
    enter(&c, 0x1000, true);
    cpu_flush_contexts(&c, same, key(2));
    EXPECT_TRUE(has_page(&c, KERNEL, 0x2000));
    EXPECT_TRUE(!has_page(&c, USER, 0x3000));
    cpu_set_context(&c, key(1));
    cpu_flush_page(&c, 0x2000);
    cpu_flush_page(&c, 0x1000);
    cpu_set_context(&c, key(2));
    EXPECT_TRUE(!has_page(&c, KERNEL, 0x2000));
    EXPECT_TRUE(!cpu_find_jump(&c, 0x1000));
    enter_page(&c, KERNEL, 0x2000, true);
    enter(&c, 0x1000, true);
    enter(&c, 0x1100, true);
    cpu_set_context(&c, 0);
    cpu_flush_jumps(&c);
    cpu_flush_data(&c);
    cpu_set_context(&c, key(3));
    EXPECT_TRUE(!has_page(&c, KERNEL, 0x2000));
    EXPECT_TRUE(!cpu_find_jump(&c, 0x1000));
    enter_page(&c, KERNEL, 0x2000, true);
    cpu_flush_all(&c);
    EXPECT_TRUE(!has_page(&c, KERNEL, 0x2000));
    cpu_contexts_done(&c);
}

TEST(a_shared_table_grows_for_all)
{
    struct cpu c;

    begin(&c);
    cpu_set_context(&c, key(2));
    for (unsigned n = 0; n < 1u << TLB_MIN_BITS; n++)
        cpu_tlb_evicts(&c, KERNEL);
    uint32_t mask = c.context->tlb_mask[KERNEL];
    EXPECT_EQ(mask, (4 * sizeof(struct tlb_entry) << TLB_MIN_BITS) - sizeof(struct tlb_entry));
    cpu_set_context(&c, key(1));
    EXPECT_EQ(c.context->tlb_mask[KERNEL], mask);
    cpu_set_context(&c, key(9));
    EXPECT_EQ(c.context->tlb_mask[KERNEL], mask);
    EXPECT_TRUE(c.context->tlb_mask[USER] < mask);
    cpu_contexts_done(&c);
}
