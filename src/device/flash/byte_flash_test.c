/* Tests of the byte-wide flash, driven as OVMF's QemuFlashFvbServicesRuntimeDxe drives one. */
#include "base/fd.h"
#include "base/test.h"
#include "device/flash/byte_flash.h"
#include "state/test_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#define END  0x100000ULL
#define SIZE 0x3000u
#define BASE (END - SIZE)

static char path[] = "/tmp/posada-flash-test-XXXXXX";
static struct mem *mem;
static struct byte_flash *flash;

static void make_file(size_t size)
{
    memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
    cleanup(fd_closep) int fd = mkstemp(path);
    uint8_t byte = 0xa5;

    ASSERT_TRUE(fd >= 0);
    ASSERT_EQ(ftruncate(fd, (off_t)size), 0);
    for (size_t i = 0; i < size; i += 4096)
        ASSERT_EQ(fd_pwrite_all(fd, &byte, 1, (off_t)i), 0);
}

static void setup(void)
{
    struct error err = {0};

    make_file(SIZE);
    mem = mem_new();
    if (byte_flash_new(mem, GPA(END), path, &flash, &err)) {
        test_fail(__FILE__, __LINE__, "%s", err.text);
        test_abort();
    }
    mem_freeze(mem);
}

static void end(void)
{
    mem_free(mem);
    byte_flash_free(flash);
    (void)unlink(path);
}

static uint64_t rd(uint64_t offset, unsigned size)
{
    uint64_t v = 0;

    EXPECT_EQ(mem_read(mem, GPA(BASE + offset), size, &v), BUS_OK);
    return v;
}

static void wr(uint64_t offset, uint8_t v)
{
    EXPECT_EQ(mem_write(mem, GPA(BASE + offset), 1, v), BUS_OK);
}

static uint8_t in_file(off_t offset)
{
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t byte = 0;

    EXPECT_EQ(fd_pread_all(fd, &byte, 1, offset), 0);
    return byte;
}

TEST(a_driver_finds_a_flash)
{
    setup();
    EXPECT_EQ(rd(0, 1), 0xa5);
    EXPECT_EQ(rd(0, 8), 0xa5);
    wr(0, 0x50); /* clear status: in RAM it would be read back */
    EXPECT_TRUE(rd(0, 1) != 0x50);
    wr(0, 0x70); /* status: neither the old byte, as in ROM, nor this one */
    EXPECT_EQ(rd(0, 1), 0);
    wr(0, 0xff);
    EXPECT_EQ(rd(0, 1), 0xa5);
    end();
}

TEST(programming_clears_bits_erasing_sets_them_and_the_file_follows)
{
    setup();
    wr(0x1001, 0x10);
    wr(0x1001, 0xff); /* zeroes stay */
    wr(0x1000, 0x10);
    wr(0x1000, 0x0f);
    EXPECT_EQ(rd(0x1000, 1), 0x80); /* ready */
    wr(0x1000, 0xff);
    EXPECT_EQ(rd(0x1000, 2), 0x05);
    EXPECT_EQ(in_file(0x1000), 0x05);
    wr(0x1234, 0x20);
    wr(0x1234, 0xd0);
    wr(0x1234, 0xff);
    EXPECT_EQ(rd(0x1000, 8), UINT64_MAX);
    EXPECT_EQ(rd(0x1ff8, 8), UINT64_MAX);
    EXPECT_EQ(in_file(0x1fff), 0xff);
    EXPECT_EQ(rd(0x2000, 1), 0xa5); /* not the next block */
    EXPECT_EQ(rd(0x0ff8, 8), 0);
    wr(0, 0x20);
    wr(0, 0x00); /* not confirmed */
    EXPECT_EQ(rd(0, 1), 0xb0);
    wr(0, 0x50);
    EXPECT_EQ(rd(0, 1), 0);
    end();
}

TEST(what_cannot_be_a_flash_is_refused)
{
    struct byte_flash *second;
    struct error err = {0};

    setup();
    EXPECT_EQ(byte_flash_new(mem, GPA(END), path, &second, &err), -EBUSY);
    end();
    mem = mem_new();
    EXPECT_EQ(byte_flash_new(mem, GPA(END), "/nowhere", &flash, &err), -ENOENT);
    make_file(1000);
    EXPECT_EQ(byte_flash_new(mem, GPA(END), path, &flash, &err), -EINVAL);
    (void)unlink(path);
    mem_free(mem);
}

TEST(saved_state_loads)
{
    struct state_out *save = state_out_new();
    struct error err = {0};

    setup();
    wr(0x10, 0x10);
    byte_flash_save(flash, save); /* in the middle of programming */
    struct state_in *load = test_state_turn(save);
    wr(0x10, 0x77);
    wr(0x2000, 0x20);
    wr(0x2000, 0xd0);
    ASSERT_EQ(byte_flash_load(flash, load, &err), 0);
    EXPECT_EQ(in_file(0x2000), 0xa5);
    wr(0, 0x81); /* its data */
    wr(0, 0xff);
    EXPECT_EQ(rd(0, 1), 0x81);
    state_in_free(load);
    end();
}
