/* Tests of the guest-physical address space. */
#include "base/test.h"
#include "mem/mem.h"

#include <errno.h>
#include <string.h>

struct fake {
    uint64_t last_offset;
    uint64_t last_value;
    unsigned calls;
};

static enum bus_result fake_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    struct fake *f = dev;

    f->calls++;
    *ret = 0x1000 + offset + size;
    return BUS_OK;
}

static enum bus_result fake_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct fake *f = dev;

    f->calls++;
    f->last_offset = offset;
    f->last_value = value;
    return BUS_OK;
}

static const struct mmio_ops fake_ops = {
    .name = "fake", .read = fake_read, .write = fake_write, .min_size = 2, .max_size = 4};

static unsigned code_writes;

static void code_written(void *arg, gpa_t gpa, uint64_t size)
{
    code_writes++;
}

TEST(regions_are_found_and_never_overlap)
{
    struct mem *mem = mem_new();
    struct fake dev = {0};
    struct error err = {0};

    ASSERT_EQ(mem_add_ram(mem, GPA(0x80000000), 0x10000, 0, "ram", NULL, NULL, NULL, &err), 0);
    ASSERT_EQ(mem_add_mmio(mem, GPA(0x1000), 0x100, &fake_ops, &dev, &err), 0);
    EXPECT_EQ(mem_add_mmio(mem, GPA(0x10ff), 1, &fake_ops, &dev, NULL), -EINVAL);
    EXPECT_EQ(mem_add_ram(mem, GPA(0x8000f000), 0x1000, 0, "x", NULL, NULL, NULL, NULL), -EINVAL);
    EXPECT_EQ(mem_add_mmio(mem, GPA(~0ULL), 2, &fake_ops, &dev, NULL), -EINVAL);
    EXPECT_TRUE(!mem_find(mem, GPA(0xfff)));
    EXPECT_TRUE(!mem_find(mem, GPA(0x1100)));
    EXPECT_TRUE(mem_find(mem, GPA(0x8000ffff)) == mem_find(mem, GPA(0x80000000)));
    EXPECT_EQ(mem_ram_bytes(mem), 0x10000);
    mem_free(mem);
}

TEST(mmio_is_split_and_checked)
{
    struct mem *mem = mem_new();
    struct fake dev = {0};
    uint64_t v = 0;

    ASSERT_EQ(mem_add_mmio(mem, GPA(0x1000), 0x100, &fake_ops, &dev, NULL), 0);
    EXPECT_EQ(mem_read(mem, GPA(0x1008), 8, &v), BUS_OK);
    EXPECT_EQ(v, 0x000010100000100cULL);
    EXPECT_EQ(dev.calls, 2);
    EXPECT_EQ(mem_read(mem, GPA(0x1008), 1, &v), BUS_FAULT); /* narrower than min_size */
    EXPECT_EQ(mem_read(mem, GPA(0x1002), 4, &v), BUS_FAULT); /* misaligned */
    EXPECT_EQ(mem_read(mem, GPA(0x2000), 4, &v), BUS_UNHANDLED);
    EXPECT_EQ(mem_write(mem, GPA(0x1004), 2, 0x12345), BUS_OK);
    EXPECT_EQ(dev.last_value, 0x2345);
    mem_free(mem);
}

TEST(ram_copies_stay_inside)
{
    struct mem *mem = mem_new();
    uint8_t buf[16] = {1, 2, 3};
    uint64_t v;

    ASSERT_EQ(mem_add_ram(mem, GPA(0x1000), 0x1000, 0, "ram", NULL, NULL, NULL, NULL), 0);
    EXPECT_EQ(mem_copy_out(mem, GPA(0x1ff0), buf, 16), 0);
    EXPECT_EQ(mem_copy_out(mem, GPA(0x1ff1), buf, 16), -EFAULT);
    EXPECT_EQ(mem_copy_in(mem, GPA(0xfff), buf, 2), -EFAULT);
    EXPECT_EQ(mem_read(mem, GPA(0x1ff0), 4, &v), BUS_OK);
    EXPECT_EQ(v, 0x030201);
    EXPECT_EQ(mem_read(mem, GPA(0x1ffe), 4, &v), BUS_FAULT);
    EXPECT_TRUE(!mem_ptr(mem, GPA(0x1000), ~0ULL, false));
    EXPECT_EQ(mem_discard(mem, GPA(0x1000), 0x1000), 0);
    EXPECT_EQ(mem_read(mem, GPA(0x1ff0), 4, &v), BUS_OK);
    EXPECT_EQ(v, 0);
    mem_free(mem);
}

TEST(rom_is_read_directly_and_written_through_its_device)
{
    struct mem *mem = mem_new();
    struct fake dev = {0};
    void *host = NULL;
    uint64_t v;

    ASSERT_EQ(mem_add_ram(mem, GPA(0), 0x1000, MEM_READONLY, "rom", &fake_ops, &dev, &host, NULL),
              0);
    ((uint8_t *)host)[4] = 0x55;
    EXPECT_EQ(mem_read(mem, GPA(4), 1, &v), BUS_OK);
    EXPECT_EQ(v, 0x55);
    EXPECT_EQ(mem_write(mem, GPA(4), 4, 9), BUS_OK);
    EXPECT_EQ(dev.last_offset, 4);
    EXPECT_EQ(((uint8_t *)host)[4], 0x55);
    EXPECT_TRUE(!mem_ptr(mem, GPA(0), 4, true));
    mem_free(mem);
}

TEST(writes_to_code_pages_are_reported)
{
    struct mem *mem = mem_new();
    struct mem_code_listener listener = {.written = code_written};

    ASSERT_EQ(mem_add_ram(mem, GPA(0), 0x4000, 0, "ram", NULL, NULL, NULL, NULL), 0);
    mem_set_code_listener(mem, &listener);
    mem_freeze(mem);
    mem_written(mem, GPA(0), 0x4000);
    EXPECT_EQ(code_writes, 0);
    mem_find(mem, GPA(0))->page_flags[1] |= MEM_PAGE_CODE;
    mem_written(mem, GPA(0xfff), 1);
    EXPECT_EQ(code_writes, 0);
    mem_written(mem, GPA(0xfff), 2);
    EXPECT_EQ(code_writes, 1);
    mem_free(mem);
}

TEST(huge_pages_of_the_guest_lie_in_those_of_the_host)
{
    const uint64_t huge = 2 << 20;
    struct mem *mem = mem_new();
    void *ram;
    void *high;

    ASSERT_EQ(mem_add_ram(mem, GPA(0x80000000), 4 * huge, 0, "ram", NULL, NULL, &ram, NULL), 0);
    ASSERT_EQ(mem_add_ram(mem, GPA(0x100001000), huge, 0, "high", NULL, NULL, &high, NULL), 0);
    EXPECT_EQ((uintptr_t)ram % huge, 0);
    EXPECT_EQ((uintptr_t)high % huge, 0x1000);
    memset(ram, 1, 4 * huge); /* all of it is there */
    memset(high, 1, huge);
    mem_free(mem);
}

TEST(zeroes_are_given_back)
{
    const uint64_t huge = 2 << 20;
    struct mem *mem = mem_new();
    void *host;
    uint8_t *ram;

    ASSERT_EQ(mem_add_ram(mem, GPA(0x80000000), 4 * huge, 0, "ram", NULL, NULL, &host, NULL), 0);
    ram = host;
    mem_freeze(mem);
    EXPECT_EQ(mem_trim(mem), 0); /* nothing is there */
    memset(ram, 0, 3 * huge);
    ram[2 * huge - 1] = 1;
    EXPECT_EQ(mem_trim(mem), 2 * huge);
    EXPECT_EQ(mem_trim(mem), 0);
    EXPECT_EQ(ram[2 * huge - 1], 1);
    EXPECT_EQ(ram[0] | ram[2 * huge], 0);
    mem_free(mem);
}

TEST(memory_is_adopted_with_its_content)
{
    struct mem *old = mem_new();
    struct mem *heir = mem_new();
    void *was;
    void *is;
    void *other;

    ASSERT_EQ(mem_add_ram(old, GPA(0x10000), 0x4000, 0, "ram", NULL, NULL, &was, NULL), 0);
    ASSERT_EQ(mem_add_ram(old, GPA(0x20000), 0x4000, 0, "x", NULL, NULL, &other, NULL), 0);
    mem_freeze(old);
    ASSERT_EQ(mem_copy_out(old, GPA(0x10000), "guest", 5), 0);
    mem_adopt(heir, old);
    ASSERT_EQ(mem_add_ram(heir, GPA(0x10000), 0x4000, 0, "ram", NULL, NULL, &is, NULL), 0);
    EXPECT_TRUE(is == was);
    ASSERT_EQ(mem_add_ram(heir, GPA(0x20000), 0x2000, 0, "x", NULL, NULL, &is, NULL), 0);
    EXPECT_TRUE(is != other); /* another size */
    mem_freeze(heir);
    mem_free(old);
    EXPECT_TRUE(!memcmp(mem_ptr(heir, GPA(0x10000), 5, false), "guest", 5));
    mem_free(heir);
}
