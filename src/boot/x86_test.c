/* Tests of kernels for x86-64 machines: what is read of a file, and what a kernel finds in memory.
 */
#include "base/bits.h"
#include "base/test.h"
#include "boot/x86.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>

static struct mem *mem;

static void setup(void)
{
    mem = mem_new();
    ASSERT_EQ(mem_add_ram(mem, GPA(0), 64 << 20, 0, "ram", NULL, NULL, NULL, NULL), 0);
    mem_freeze(mem);
}

static uint64_t rd(uint64_t at, unsigned size)
{
    uint64_t v = 0;

    EXPECT_EQ(mem_read(mem, GPA(at), size, &v), BUS_OK);
    return v & MASK(8 * size);
}

static uint8_t *bzimage(size_t *ret_size)
{
    size_t size = 5 * 512 + 1000;
    uint8_t *p = calloc(1, size);

    ASSERT_TRUE(p);
    p[0x1f1] = 4;
    p[0x201] = 0x66;
    memcpy(p + 0x202, "HdrS", 4);
    store_le16(p + 0x206, 0x20f);
    store_le32(p + 0x22c, 0x7fffffff);
    p[0x234] = 1;
    store_le16(p + 0x236, 0x3f);
    store_le32(p + 0x238, 2047);
    store_le64(p + 0x258, 0x1000000);
    store_le32(p + 0x260, 0x200000);
    memset(p + 5 * 512, 0xab, 1000);
    *ret_size = size;
    return p;
}

static const struct x86_range map[] = {
    {0,        0x9fc00,  X86_RAM},
    {0x100000, 63 << 20, X86_RAM}
};
static const uint8_t seed[32] = {1, 2, 3};

static struct x86_boot machine(const char *cmdline, const void *initrd, size_t size)
{
    return (struct x86_boot){
        .cmdline = cmdline,
        .initrd = initrd,
        .initrd_size = size,
        .rsdp = 0xe0000,
        .low_ram = 64 << 20,
        .ranges = map,
        .range_count = ARRAY_SIZE(map),
        .seed = seed,
    };
}

TEST(bzimage_gets_its_zero_page_and_starts_in_long_mode)
{
    struct x86_boot b = machine("console=ttyS0", "initrd", 6);
    struct x86_kernel k;
    struct x86_start s;
    size_t size;
    uint8_t *data = bzimage(&size);

    setup();
    ASSERT_EQ(x86_kernel_parse(data, size, &k, NULL), 0);
    EXPECT_EQ(k.protocol, X86_LINUX64);
    ASSERT_EQ(x86_load(&k, &b, mem, &s, NULL), 0);
    EXPECT_TRUE(s.long_mode);
    EXPECT_EQ(s.rip, 0x1000200);
    EXPECT_EQ(rd(0x1000000, 4), 0xabababab);
    EXPECT_EQ(rd(0x1000000 + 999, 2), 0xab);
    EXPECT_EQ(rd(s.rsi + 0x202, 4), 0x53726448);
    EXPECT_EQ(rd(s.rsi + 0x210, 1), 0xff);
    EXPECT_EQ(rd(s.rsi + 0x70, 8), 0xe0000);
    uint64_t cmdline = rd(s.rsi + 0x228, 4);
    EXPECT_STR((const char *)mem_ptr(mem, GPA(cmdline), 14, false), "console=ttyS0");
    uint64_t initrd = rd(s.rsi + 0x218, 4);
    EXPECT_EQ(initrd, (64 << 20) - 4096);
    EXPECT_EQ(rd(s.rsi + 0x21c, 4), 6);
    EXPECT_MEM(mem_ptr(mem, GPA(initrd), 6, false), "initrd", 6);
    EXPECT_EQ(rd(s.rsi + 0x1e8, 1), 2);
    EXPECT_EQ(rd(s.rsi + 0x2d0 + 20, 8), 0x100000);
    uint64_t setup_data = rd(s.rsi + 0x250, 8);
    EXPECT_EQ(rd(setup_data + 8, 4), 9); /* SETUP_RNG_SEED */
    EXPECT_EQ(rd(setup_data + 12, 4), 32);
    EXPECT_MEM(mem_ptr(mem, GPA(setup_data + 16), 32, false), seed, 32);
    /* the walk for 3 GiB + 2 MiB leads there */
    uint64_t pdpt = rd(s.cr3, 8) & ~0xfffULL;
    uint64_t pd = rd(pdpt + 8 * 3, 8) & ~0xfffULL;
    EXPECT_EQ(rd(pd + 8, 8), 0xc0200083);
    EXPECT_EQ(rd(s.gdt + 0x10, 8), 0x00af9b000000ffff);
    x86_kernel_done(&k);
    mem_free(mem);
}

static void refuse(uint8_t *data, size_t size, int code, const char *words)
{
    struct error err = {0};
    struct x86_kernel k;

    EXPECT_EQ(x86_kernel_parse(data, size, &k, &err), -code);
    if (!strstr(err.text, words))
        test_fail(__FILE__, __LINE__, "'%s' does not say '%s'", err.text, words);
}

TEST(damaged_and_foreign_kernels_are_refused)
{
    size_t size;
    uint8_t *p = bzimage(&size);

    store_le16(p + 0x236, 0);
    refuse(p, size, ENOEXEC, "64-bit entry");
    p = bzimage(&size);
    refuse(p, 5 * 512, EINVAL, "cut short");
    p = bzimage(&size);
    store_le64(p + 0x258, UINT64_MAX - 5);
    refuse(p, size, EINVAL, "0xfffffffffffffffa");
    p = bzimage(&size);
    memcpy(p + 0x202, "hdrs", 4);
    refuse(p, size, ENOEXEC, "not an x86-64 kernel");
    p = bzimage(&size);
    memcpy(p + 0x202, "hdrs", 4);
    memcpy(p + 56, "RSC\x05", 4);
    refuse(p, size, ENOEXEC, "riscv64");
    refuse(calloc(1, 1), 0, ENOEXEC, "empty");
}

TEST(what_does_not_fit_is_said)
{
    static char long_line[3000];
    struct x86_boot b = machine("", NULL, 0);
    struct error err = {0};
    struct x86_kernel k;
    struct x86_start s;
    size_t size;
    uint8_t *data = bzimage(&size);

    setup();
    ASSERT_EQ(x86_kernel_parse(data, size, &k, NULL), 0);
    memset(long_line, 'x', sizeof(long_line) - 1);
    b.cmdline = long_line;
    EXPECT_EQ(x86_load(&k, &b, mem, &s, &err), -EINVAL);
    EXPECT_TRUE(strstr(err.text, "2999 bytes") && strstr(err.text, "2047"));
    err = (struct error){0};
    b.cmdline = NULL;
    b.initrd = k.image.data;
    b.initrd_size = 60 << 20;
    EXPECT_EQ(x86_load(&k, &b, mem, &s, &err), -ENOSPC);
    EXPECT_TRUE(strstr(err.text, "initrd (60 MiB)"));
    b.initrd_size = 0;
    b.low_ram = 8 << 20;
    EXPECT_EQ(x86_load(&k, &b, mem, &s, NULL), -ENOSPC);
    x86_kernel_done(&k);
    mem_free(mem);
}

/** A 64-bit program at 16 MiB with a PVH note. */
static uint8_t *pvh_elf(size_t *ret_size)
{
    size_t size = 0x400;
    uint8_t *p = calloc(1, size);
    Elf64_Ehdr h = {
        .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_entry = 0xffffffff81000000,
        .e_phoff = 64,
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 2,
    };
    Elf64_Phdr ph[2] = {
        {.p_type = PT_LOAD,
         .p_offset = 0x200,
         .p_vaddr = 0xffffffff81000000,
         .p_paddr = 0x1000000,
         .p_filesz = 0x100,
         .p_memsz = 0x1000},
        {.p_type = PT_NOTE, .p_offset = 0x300, .p_filesz = 20          },
    };

    ASSERT_TRUE(p);
    memcpy(p, &h, sizeof(h));
    memcpy(p + 64, ph, sizeof(ph));
    memset(p + 0x200, 0xcd, 0x100);
    store_le32(p + 0x300, 4);
    store_le32(p + 0x304, 4);
    store_le32(p + 0x308, 18);
    memcpy(p + 0x30c, "Xen", 4);
    store_le32(p + 0x310, 0x1000040);
    *ret_size = size;
    return p;
}

TEST(vmlinux_starts_by_its_pvh_note)
{
    struct x86_boot b = machine("quiet", "ramdisk", 7);
    struct x86_kernel k;
    struct x86_start s;
    size_t size;
    uint8_t *data = pvh_elf(&size);

    setup();
    ASSERT_EQ(x86_kernel_parse(data, size, &k, NULL), 0);
    EXPECT_EQ(k.protocol, X86_PVH);
    ASSERT_EQ(x86_load(&k, &b, mem, &s, NULL), 0);
    EXPECT_TRUE(!s.long_mode);
    EXPECT_EQ(s.rip, 0x1000040);
    EXPECT_EQ(rd(0x1000000, 1), 0xcd);
    EXPECT_EQ(rd(s.rbx, 4), 0x336ec578);
    EXPECT_EQ(rd(s.rbx + 12, 4), 1);
    uint64_t module = rd(s.rbx + 16, 8);
    EXPECT_MEM(mem_ptr(mem, GPA(rd(module, 8)), 7, false), "ramdisk", 7);
    EXPECT_EQ(rd(module + 8, 8), 7);
    EXPECT_EQ(rd(s.rbx + 32, 8), 0xe0000);
    EXPECT_EQ(rd(s.rbx + 48, 4), 2);
    EXPECT_EQ(rd(rd(s.rbx + 40, 8) + 24, 8), 0x100000);
    x86_kernel_done(&k);
    mem_free(mem);
}

TEST(notes_and_segments_that_lie_are_refused_or_ignored)
{
    size_t size;
    uint8_t *p = pvh_elf(&size);

    store_le32(p + 0x304, 0xfffffff0); /* the note's size */
    refuse(p, size, ENOEXEC, "neither a PVH entry nor a multiboot header");
    p = pvh_elf(&size);
    store_le64(p + 64 + 32, 0x10000); /* p_filesz */
    refuse(p, size, EINVAL, "cut short");
    p = pvh_elf(&size);
    store_le64(p + 64 + 24, UINT64_MAX - 16); /* p_paddr */
    refuse(p, size, EINVAL, "impossible bounds");
    p = pvh_elf(&size);
    store_le16(p + 56, 200); /* e_phnum */
    refuse(p, size, EINVAL, "damaged");
}

TEST(a_32_bit_program_starts_by_multiboot)
{
    struct x86_boot b = machine("test", NULL, 0);
    Elf32_Ehdr h = {
        .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, 1},
        .e_type = ET_EXEC,
        .e_machine = EM_386,
        .e_entry = 0x400000,
        .e_phoff = 52,
        .e_phentsize = sizeof(Elf32_Phdr),
        .e_phnum = 1,
    };
    Elf32_Phdr ph = {.p_type = PT_LOAD,
                     .p_offset = 0x100,
                     .p_vaddr = 0x400000,
                     .p_paddr = 0x400000,
                     .p_filesz = 0x40,
                     .p_memsz = 0x40};
    uint8_t *p = calloc(1, 0x200);
    struct x86_kernel k;
    struct x86_start s;

    ASSERT_TRUE(p);
    memcpy(p, &h, sizeof(h));
    memcpy(p + 52, &ph, sizeof(ph));
    store_le32(p + 0x100, 0x1badb002);
    store_le32(p + 0x108, (uint32_t)-0x1badb002);
    setup();
    ASSERT_EQ(x86_kernel_parse(p, 0x200, &k, NULL), 0);
    EXPECT_EQ(k.protocol, X86_MULTIBOOT);
    ASSERT_EQ(x86_load(&k, &b, mem, &s, NULL), 0);
    EXPECT_EQ(s.rip, 0x400000);
    EXPECT_EQ(s.rax, 0x2badb002);
    EXPECT_EQ(rd(s.rbx, 4), 1 | 4 | 64);
    EXPECT_STR((const char *)mem_ptr(mem, GPA(rd(s.rbx + 16, 4)), 5, false), "test");
    EXPECT_EQ(rd(s.rbx + 44, 4), 48);
    x86_kernel_done(&k);
    mem_free(mem);
}
