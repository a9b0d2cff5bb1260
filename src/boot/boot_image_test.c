/* Tests of the kernel loader on files made here. */
#include "base/bits.h"
#include "base/test.h"
#include "boot/boot_image.h"

#include <elf.h>
#include <errno.h>
#include <lzma.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define RAM 0x80000000ULL

static struct boot_image image;
static struct error err;

static int parse(const void *bytes, size_t size, bool allow_raw)
{
    uint8_t *copy = malloc(size ? size : 1);

    ASSERT_TRUE(copy != NULL);
    memcpy(copy, bytes, size);
    err = (struct error){0};
    return boot_image_parse(copy, size, allow_raw, &image, &err);
}

/* An Image of 256 bytes whose byte 100 is 0x5a. */
static void make_image(uint8_t *p)
{
    memset(p, 0, 256);
    store_le64(p + 8, 0x200000);
    store_le64(p + 16, 0x10000);
    memcpy(p + 48, "RISCV\0\0\0RSC\x05", 12);
    p[100] = 0x5a;
}

static size_t gzip(const uint8_t *in, size_t size, uint8_t *out, size_t room)
{
    z_stream z = {.next_in = (uint8_t *)in,
                  .avail_in = (unsigned)size,
                  .next_out = out,
                  .avail_out = (unsigned)room};

    ASSERT_TRUE(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    ASSERT_TRUE(deflate(&z, Z_FINISH) == Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

static void expect_image(void)
{
    struct mem *mem = mem_new();
    gpa_t entry;
    gpa_t end;
    uint64_t v = 0;

    EXPECT_EQ(image.format, BOOT_IMAGE);
    EXPECT_EQ(image.end_addr, 0x210000);
    ASSERT_EQ(mem_add_ram(mem, GPA(RAM), 0x400000, 0, "ram", NULL, NULL, NULL, NULL), 0);
    ASSERT_EQ(boot_image_load(&image, mem, GPA(RAM), &entry, &end, NULL), 0);
    EXPECT_EQ(entry.v, RAM + 0x200000);
    EXPECT_EQ(end.v, RAM + 0x210000);
    EXPECT_EQ(mem_read(mem, GPA(RAM + 0x200000 + 100), 1, &v), BUS_OK);
    EXPECT_EQ(v, 0x5a);
    boot_image_done(&image);
    mem_free(mem);
}

TEST(plain_image)
{
    uint8_t p[256];

    make_image(p);
    ASSERT_EQ(parse(p, sizeof(p), false), 0);
    expect_image();
}

TEST(image_needs_its_memory)
{
    struct mem *mem = mem_new();
    uint8_t p[256];
    gpa_t entry;
    gpa_t end;

    make_image(p);
    ASSERT_EQ(parse(p, sizeof(p), false), 0);
    /* the bytes fit, the bss does not */
    ASSERT_EQ(mem_add_ram(mem, GPA(RAM), 0x208000, 0, "ram", NULL, NULL, NULL, NULL), 0);
    EXPECT_EQ(boot_image_load(&image, mem, GPA(RAM), &entry, &end, &err), -ENOSPC);
    boot_image_done(&image);
    mem_free(mem);
}

TEST(truncated_image_is_refused)
{
    uint8_t file[256];

    make_image(file);
    memcpy(file, "MZ", 2);
    store_le32(file + 0x3c, 64);
    memcpy(file + 64, "PE\0\0", 4);
    store_le16(file + 64 + 6, 2);             /* sections */
    store_le32(file + 64 + 24 + 16, 100);     /* bytes of the first */
    store_le32(file + 64 + 24 + 40 + 16, 56); /* of the second */
    store_le32(file + 64 + 24 + 40 + 20, 200);
    EXPECT_EQ(parse(file, 256, false), 0);
    boot_image_done(&image);
    EXPECT_EQ(parse(file, 255, false), -EINVAL);
    EXPECT_STR(error_text(&err), "it is truncated: 255 of 256 bytes are there");
    store_le32(file + 0x3c, 0xfffffff0); /* no such header: not an EFI program */
    EXPECT_EQ(parse(file, 255, false), 0);
    boot_image_done(&image);
}

TEST(gzip_zstd_and_xz_are_unpacked)
{
    uint8_t p[256];
    uint8_t packed[512];
    size_t at = 0;

    make_image(p);
    size_t n = gzip(p, sizeof(p), packed, sizeof(packed));
    ASSERT_EQ(parse(packed, n, false), 0);
    expect_image();
    EXPECT_EQ(parse(packed, n / 2, false), -EINVAL);
    EXPECT_EQ(parse(packed, 20, false), -EINVAL);
    packed[n - 8] ^= 1; /* checksum */
    EXPECT_EQ(parse(packed, n, false), -EINVAL);

    n = ZSTD_compress(packed, sizeof(packed), p, sizeof(p), 3);
    ASSERT_TRUE(!ZSTD_isError(n));
    ASSERT_EQ(parse(packed, n, false), 0);
    expect_image();
    EXPECT_EQ(parse(packed, n - 4, false), -EINVAL);

    ASSERT_TRUE(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, NULL, p, sizeof(p), packed, &at,
                                        sizeof(packed)) == LZMA_OK);
    ASSERT_EQ(parse(packed, at, false), 0);
    expect_image();
    EXPECT_EQ(parse(packed, at / 2, false), -EINVAL);
}

TEST(efi_zboot)
{
    uint8_t p[256];
    uint8_t z[1024] = "MZ\0\0zimg";

    make_image(p);
    size_t n = gzip(p, sizeof(p), z + 512, 512);
    store_le32(z + 8, 512);
    store_le32(z + 12, (uint32_t)n);
    memcpy(z + 24, "gzip", 5);
    ASSERT_EQ(parse(z, sizeof(z), false), 0);
    expect_image();
    EXPECT_EQ(parse(z, 520, false), -EINVAL);
    store_le32(z + 8, 0xfffffff0);
    EXPECT_EQ(parse(z, sizeof(z), false), -EINVAL);
    store_le32(z + 8, 512);
    memcpy(z + 24, "lz4\0", 5);
    EXPECT_EQ(parse(z, sizeof(z), false), -ENOEXEC);
}

TEST(foreign_and_damaged_files_are_refused_by_name)
{
    uint8_t p[1024] = {0};

    EXPECT_EQ(parse(p, 0, true), -ENOEXEC);
    EXPECT_EQ(parse(p, sizeof(p), false), -ENOEXEC);
    memcpy(p + 56, "ARM\x64", 4);
    EXPECT_EQ(parse(p, sizeof(p), false), -ENOEXEC);
    EXPECT_TRUE(strstr(err.text, "arm64") != NULL);
    memset(p + 56, 0, 4);
    memcpy(p + 0x202, "HdrS", 4);
    EXPECT_EQ(parse(p, sizeof(p), true), -ENOEXEC);
    EXPECT_TRUE(strstr(err.text, "x86") != NULL);
    make_image(p);
    store_le64(p + 16, UINT64_MAX);
    EXPECT_EQ(parse(p, 256, false), -EINVAL);
    make_image(p);
    store_le64(p + 24, 1);
    EXPECT_EQ(parse(p, 256, false), -ENOEXEC);
}

struct elf_file {
    Elf64_Ehdr h;
    Elf64_Phdr p[2];
    uint8_t code[16];
};

static struct elf_file make_elf(void)
{
    return (struct elf_file){
        .h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1},
              .e_type = ET_EXEC,
              .e_machine = EM_RISCV,
              .e_entry = 0xffffffff80000008,
              .e_phoff = offsetof(struct elf_file,                                                                                                  p),
              .e_phentsize = sizeof(Elf64_Phdr),
              .e_phnum = 2                                                                                                                                                                                               },
        .p = {{.p_type = PT_LOAD,
               .p_offset = offsetof(struct elf_file, code),
               .p_vaddr = 0xffffffff80000000,
               .p_paddr = RAM + 0x1000,
               .p_filesz = 16,
               .p_memsz = 64},
              {.p_type = PT_NOTE, .p_offset = UINT64_MAX, .p_filesz = UINT64_MAX}},
        .code = {1,                                                           2,                                                               3, 4, 5, 6, 7, 8},
    };
}

TEST(elf_is_loaded_by_physical_addresses)
{
    struct elf_file e = make_elf();
    struct mem *mem = mem_new();
    gpa_t entry;
    gpa_t end;
    uint64_t v;

    ASSERT_EQ(mem_add_ram(mem, GPA(RAM), 0x400000, 0, "ram", NULL, NULL, NULL, NULL), 0);
    ASSERT_EQ(mem_write(mem, GPA(RAM + 0x1020), 8, 99), BUS_OK);
    ASSERT_EQ(parse(&e, sizeof(e), false), 0);
    ASSERT_EQ(boot_image_load(&image, mem, GPA(RAM), &entry, &end, NULL), 0);
    EXPECT_EQ(entry.v, RAM + 0x1008);
    EXPECT_EQ(end.v, RAM + 0x1040);
    EXPECT_EQ(mem_read(mem, GPA(RAM + 0x1000), 8, &v), BUS_OK);
    EXPECT_EQ(v, 0x0807060504030201);
    EXPECT_EQ(mem_read(mem, GPA(RAM + 0x1020), 8, &v), BUS_OK);
    EXPECT_EQ(v, 0); /* bss */
    boot_image_done(&image);
    e.p[0].p_paddr = 0x4000; /* linked from 0: moved to the base */
    ASSERT_EQ(parse(&e, sizeof(e), false), 0);
    ASSERT_EQ(boot_image_load(&image, mem, GPA(RAM + 0x200000), &entry, &end, NULL), 0);
    EXPECT_EQ(entry.v, RAM + 0x200008);
    boot_image_done(&image);
    mem_free(mem);
}

TEST(hostile_elf)
{
    struct elf_file e = make_elf();

    for (size_t n = 4; n < offsetof(struct elf_file, code) + 16; n++)
        EXPECT_TRUE(parse(&e, n, false) < 0);
    e.p[0].p_filesz = 65; /* more than memsz */
    EXPECT_EQ(parse(&e, sizeof(e), false), -EINVAL);
    e = make_elf();
    e.p[0].p_paddr = UINT64_MAX - 10;
    EXPECT_EQ(parse(&e, sizeof(e), false), -EINVAL);
    e = make_elf();
    e.p[0].p_memsz = 1ULL << 40;
    EXPECT_EQ(parse(&e, sizeof(e), false), -EINVAL);
    e = make_elf();
    e.h.e_phoff = UINT64_MAX - 8;
    EXPECT_EQ(parse(&e, sizeof(e), false), -EINVAL);
    e = make_elf();
    e.h.e_entry = 0;
    EXPECT_EQ(parse(&e, sizeof(e), false), -EINVAL);
    e = make_elf();
    e.h.e_machine = EM_X86_64;
    EXPECT_EQ(parse(&e, sizeof(e), false), -ENOEXEC);
    EXPECT_TRUE(strstr(err.text, "x86-64") != NULL);
}

TEST(raw_binary)
{
    ASSERT_EQ(parse("\x01\x02\x03\x04", 4, true), 0);
    EXPECT_EQ(image.format, BOOT_RAW);
    EXPECT_EQ(image.entry, 0);
    EXPECT_EQ(image.end_addr, 4);
    boot_image_done(&image);
    EXPECT_EQ(boot_image_open("/nonexistent/kernel", false, &image, &err), -ENOENT);
    EXPECT_TRUE(strstr(err.text, "/nonexistent/kernel") != NULL);
    EXPECT_EQ(boot_image_open("/dev", false, &image, NULL), -EINVAL);
}
