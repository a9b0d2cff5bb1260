/* Tests of the generation ID. */
#include "base/test.h"
#include "device/vmgenid/vmgenid.h"

#include <string.h>

static unsigned edges;
static bool line;

static void set_line(void *controller, unsigned input, bool level)
{
    edges += level != line;
    line = level;
}

static void read_all(struct mem *mem, uint64_t id[2])
{
    EXPECT_EQ(mem_read(mem, GPA(0x1000), 8, &id[0]), BUS_OK);
    EXPECT_EQ(mem_read(mem, GPA(0x1008), 8, &id[1]), BUS_OK);
}

TEST(id_is_random_read_only_and_changes_with_a_pulse)
{
    struct mem *mem = mem_new();
    struct vmgenid *v;
    uint64_t first[2];
    uint64_t again[2];
    uint64_t byte;

    ASSERT_EQ(vmgenid_new(mem, GPA(0x1000), (struct irq_line){.set = set_line}, &v, NULL), 0);
    mem_freeze(mem);
    read_all(mem, first);
    EXPECT_TRUE(first[0] && first[1]);
    EXPECT_EQ(mem_read(mem, GPA(0x1009), 1, &byte), BUS_OK);
    EXPECT_EQ(byte, first[1] >> 8 & 0xff);
    EXPECT_EQ(mem_write(mem, GPA(0x1000), 8, 0), BUS_OK);
    read_all(mem, again);
    EXPECT_TRUE(!memcmp(first, again, sizeof(first)));
    EXPECT_EQ(edges, 0);

    vmgenid_change(v);
    read_all(mem, again);
    EXPECT_TRUE(first[0] != again[0] && first[1] != again[1]);
    EXPECT_EQ(edges, 2);
    EXPECT_TRUE(!line);
    mem_free(mem);
    vmgenid_free(v);
}
