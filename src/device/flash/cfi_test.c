/* Tests of the flash bank, as a driver of bank width 4 sees it. */
#include "base/fd.h"
#include "base/test.h"
#include "device/flash/cfi.h"
#include "state/test_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define BASE 0x22000000ULL

static struct mem *mem;
static struct cfi_flash *flash;

static void setup(const char *path)
{
    mem = mem_new();
    ASSERT_TRUE(mem);
    ASSERT_EQ(cfi_flash_new(mem, GPA(BASE), path, &flash, NULL), 0);
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

TEST(query_and_id)
{
    setup(NULL);
    wr(0x55 * 4, 0x00980098);
    EXPECT_EQ(rd(0x10 * 4), 'Q' | 'Q' << 16);
    EXPECT_EQ(rd(0x11 * 4), 'R' | 'R' << 16);
    EXPECT_EQ(rd(0x12 * 4), 'Y' | 'Y' << 16);
    EXPECT_EQ(rd(0x13 * 4), 0x00010001);
    EXPECT_EQ(1ULL << (rd(0x27 * 4) & 0xff), CFI_FLASH_SIZE / 2);
    EXPECT_EQ((rd(0x2d * 4) & 0xff) + 1, 128);
    EXPECT_EQ((rd(0x30 * 4) & 0xff) * 65536, 128 << 10);
    EXPECT_EQ(rd(0x31 * 4) & 0xff, 'P');
    wr(0, 0x00900090);
    EXPECT_EQ(rd(0), 0x00890089);
    EXPECT_EQ(rd(4), 0x00180018);
    wr(0, 0x00ff00ff);
    EXPECT_EQ(rd(0), 0xffffffff);
}

TEST(program_clears_bits_and_erase_sets_them)
{
    setup(NULL);
    wr(0x1000, 0x00400040);
    wr(0x1000, 0x12345678);
    EXPECT_EQ(rd(0), 0x00800080); /* status */
    wr(0, 0x00ff00ff);
    EXPECT_EQ(rd(0x1000), 0x12345678);
    EXPECT_EQ(rd(0x1004), 0xffffffff);
    wr(0x1000, 0x00100010);
    wr(0x1000, 0xffff0000);
    wr(0, 0x00ff00ff);
    EXPECT_EQ(rd(0x1000), 0x12340000);
    wr(0x40000, 0x00400040); /* the next block */
    wr(0x40000, 0);
    wr(0x1234, 0x00200020);
    wr(0x1234, 0x00d000d0);
    EXPECT_EQ(rd(0), 0x00800080);
    wr(0, 0x00ff00ff);
    EXPECT_EQ(rd(0x1000), 0xffffffff);
    EXPECT_EQ(rd(0x40000), 0);
}

TEST(chips_are_separate)
{
    setup(NULL);
    EXPECT_EQ(mem_write(mem, GPA(BASE + 2), 2, 0x90), BUS_OK);
    EXPECT_EQ(rd(0), 0x0089ffff);
}

TEST(buffered_program)
{
    setup(NULL);
    wr(0x40000, 0x00e800e8);
    EXPECT_EQ(rd(0x40000) & 0x00800080, 0x00800080);
    wr(0x40000, 0x00030003);
    for (uint32_t i = 0; i < 4; i++)
        wr(0x40000 + 4 * i, 0x11110000 + i);
    wr(0x40000, 0x00d000d0);
    EXPECT_EQ(rd(0), 0x00800080);
    wr(0, 0x00ff00ff);
    for (uint32_t i = 0; i < 4; i++)
        EXPECT_EQ(rd(0x40000 + 4 * i), 0x11110000 + i);
    EXPECT_EQ(rd(0x40010), 0xffffffff);
}

TEST(broken_sequences_set_status)
{
    setup(NULL);
    wr(0, 0x00200020);
    wr(0, 0x00ff00ff); /* not the confirmation */
    EXPECT_EQ(rd(0), 0x00b000b0);
    wr(0, 0x00500050);
    wr(0, 0x00700070);
    EXPECT_EQ(rd(0), 0x00800080);
    wr(0, 0x00e800e8);
    wr(0, 0xffffffff); /* more than the buffer */
    EXPECT_EQ(rd(0), 0x00b000b0);
    wr(0, 0x00500050);
    wr(0, 0x00e800e8);
    wr(0, 0);
    wr(0x80000, 0x12341234); /* another block than named */
    wr(0, 0x00d000d0);
    EXPECT_EQ(rd(0), 0x00900090);
    wr(0, 0x00ff00ff);
    EXPECT_EQ(rd(0x80000), 0xffffffff);
    cfi_flash_reset(flash);
    EXPECT_EQ(rd(0), 0xffffffff);
}

TEST(file_keeps_what_was_written)
{
    char path[] = "/tmp/cfi_test.XXXXXX";
    int fd = mkstemp(path);
    uint8_t bytes[8];
    struct cfi_flash *second;

    ASSERT_TRUE(fd >= 0);
    ASSERT_EQ(fd_pwrite_all(fd, "abcdefgh", 8, 0), 0);
    setup(path);
    EXPECT_EQ(rd(0), 'a' | 'b' << 8 | 'c' << 16 | 'd' << 24);
    EXPECT_EQ(rd(8), 0xffffffff);
    EXPECT_EQ(cfi_flash_new(mem, GPA(0), path, &second, NULL), -EBUSY);
    wr(4, 0x00400040);
    wr(4, 0x00ff00ff & ('e' | 'f' << 8 | 'g' << 16 | (uint32_t)'h' << 24));
    EXPECT_EQ(fd_pread_all(fd, bytes, 8, 0), 0);
    EXPECT_MEM(bytes, "abcde\0g\0", 8);
    wr(0, 0x00200020);
    wr(0, 0x00d000d0);
    EXPECT_EQ(fd_pread_all(fd, bytes, 8, 0), 0);
    EXPECT_MEM(bytes, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    EXPECT_EQ(lseek(fd, 0, SEEK_END), 8); /* never grows */
    mem_free(mem);
    cfi_flash_free(flash);
    fd_close(fd);
    (void)unlink(path);
}

TEST(saved_state_loads)
{
    struct state_out *out = state_out_new();
    struct error err = {0};

    setup(NULL);
    wr(0x40000, 0x00400040); /* program */
    wr(0x40000, 0x12345678);
    wr(0x80000, 0x00e800e8); /* a buffer of two words, one of which has come */
    wr(0x80000, 0x00010001);
    wr(0x80000, 0xaaaabbbb);
    cfi_flash_save(flash, 1, out);
    struct state_in *in = test_state_turn(out);
    cfi_flash_reset(flash);
    wr(0x40000, 0x00200020); /* erase */
    wr(0x40000, 0x00d000d0);
    if (cfi_flash_load(flash, 1, in, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    wr(0x80004, 0xccccdddd);
    wr(0x80000, 0x00d000d0);
    wr(0, 0x00ff00ff);
    EXPECT_EQ(rd(0x40000), 0x12345678);
    EXPECT_EQ(rd(0x80000), 0xaaaabbbb);
    EXPECT_EQ(rd(0x80004), 0xccccdddd);
    EXPECT_EQ(cfi_flash_load(flash, 0, in, &err), -EINVAL);
    state_in_free(in);
}
