/* Reading of kernels and firmware.
 * Specs: Linux Documentation/arch/riscv/boot-image-header.rst; drivers' EFI zboot header ("zimg");
 * System V ABI (ELF), RISC-V psABI.
 *
 * Invariant: everything in the file is untrusted; every segment of a parsed kernel lies inside
 * `data`, and addr + memory_size does not wrap.
 *
 * Threads: one. */
#include "boot/boot_image.h"
#include "base/bits.h"
#include "base/fd.h"
#include "boot/decompress.h"
#include "boot/elf_load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define IMAGE_HEADER      64
#define IMAGE_TEXT_OFFSET 8
#define IMAGE_SIZE        16
#define IMAGE_FLAGS       24
#define IMAGE_MAGIC       48
#define IMAGE_MAGIC2      56
#define IMAGE_BIG_ENDIAN  1

#define PE_OFFSET        0x3c
#define PE_SECTIONS      6
#define PE_OPTIONAL_SIZE 20
#define PE_HEADER        24
#define PE_SECTION       40
#define PE_RAW_SIZE      16
#define PE_RAW_OFFSET    20

#define ZBOOT_MAGIC   4
#define ZBOOT_OFFSET  8
#define ZBOOT_SIZE    12
#define ZBOOT_TYPE    24
#define ZBOOT_HEADER  64
#define UNPACK_ROUNDS 3 /* a gzip of a zboot of a gzip is the most that anyone would build */

void boot_image_done(struct boot_image *k)
{
    free(k->data);
    k->data = NULL;
}

static bool has(const struct boot_image *k, size_t offset, const char *bytes, size_t size)
{
    return k->size >= offset + size && !memcmp(k->data + offset, bytes, size);
}

/* Replace the data by what its bytes [offset, offset + size) unpack to. */
static int unpack(struct boot_image *k, enum compression c, size_t offset, size_t size,
                  struct error *err)
{
    uint8_t *data;
    size_t unpacked;
    int rc = decompress(c, k->data + offset, size, BOOT_MAX_BYTES, &data, &unpacked, err);

    if (rc)
        return rc;
    free(k->data);
    k->data = data;
    k->size = unpacked;
    return 0;
}

static int unpack_zboot(struct boot_image *k, struct error *err)
{
    uint32_t offset = load_le32(k->data + ZBOOT_OFFSET);
    uint32_t size = load_le32(k->data + ZBOOT_SIZE);
    char name[33] = {0};

    memcpy(name, k->data + ZBOOT_TYPE, 32);
    enum compression c = compression_by_name(name);
    if (c == COMPRESSION_NONE)
        return error_set(err, ENOEXEC, "its EFI zboot header names an unknown compression");
    if (offset > k->size || size > k->size - offset)
        return error_set(err, EINVAL, "it is cut short (the EFI zboot payload ends at byte %llu)",
                         (unsigned long long)offset + size);
    return unpack(k, c, offset, size, err);
}

/* A kernel that is an EFI program as well has a table of what the file holds: the header above
 * counts bss, so that it cannot tell a file that was cut off. Spec: Microsoft PE format, section
 * headers. What is not such a table is nobody's business here. */
static int check_whole(const struct boot_image *k, struct error *err)
{
    if (!has(k, 0, "MZ", 2))
        return 0;
    uint64_t pe = load_le32(k->data + PE_OFFSET);
    if (pe + PE_HEADER > k->size || !has(k, pe, "PE\0\0", 4))
        return 0;
    uint64_t section = pe + PE_HEADER + load_le16(k->data + pe + PE_OPTIONAL_SIZE);
    unsigned count = load_le16(k->data + pe + PE_SECTIONS);
    uint64_t end = 0;
    for (unsigned i = 0; i < count && section + PE_SECTION <= k->size; i++, section += PE_SECTION)
        end = MAX(end, (uint64_t)load_le32(k->data + section + PE_RAW_SIZE) +
                           load_le32(k->data + section + PE_RAW_OFFSET));
    if (end > k->size)
        return error_set(err, EINVAL, "it is truncated: %zu of %llu bytes are there", k->size,
                         (unsigned long long)end);
    return 0;
}

static int parse_image(struct boot_image *k, struct error *err)
{
    uint64_t text_offset = load_le64(k->data + IMAGE_TEXT_OFFSET);
    uint64_t image_size = load_le64(k->data + IMAGE_SIZE);

    if (load_le64(k->data + IMAGE_FLAGS) & IMAGE_BIG_ENDIAN)
        return error_set(err, ENOEXEC, "it is a big-endian kernel");
    if (text_offset > BOOT_MAX_BYTES || image_size > BOOT_MAX_BYTES)
        return error_set(err, EINVAL, "its header is damaged");
    if (!image_size) /* before Linux 4.20's header had it */
        image_size = k->size;
    /* The file may be shorter than the image (the rest is bss), but not longer than its header
     * says by more than a signature. */
    int rc = check_whole(k, err);
    if (rc)
        return rc;
    k->format = BOOT_IMAGE;
    k->segments[0] = (struct boot_segment){
        .addr = text_offset,
        .size = k->size,
        .memory_size = MAX(image_size, (uint64_t)k->size),
    };
    k->segment_count = 1;
    k->entry = text_offset;
    k->end_addr = text_offset + k->segments[0].memory_size;
    return 0;
}

static int refuse_foreign(const struct boot_image *k, struct error *err)
{
    if (has(k, IMAGE_MAGIC2, "ARM\x64", 4))
        return error_set(err, ENOEXEC, "it is an arm64 kernel, not a riscv64 one");
    if (has(k, 0x202, "HdrS", 4))
        return error_set(err, ENOEXEC, "it is an x86 kernel, not a riscv64 one");
    if (has(k, 0, "\x27\x05\x19\x56", 4))
        return error_set(err, ENOEXEC, "it is a U-Boot image; extract the kernel from it");
    return 0;
}

static int parse(struct boot_image *k, bool allow_raw, struct error *err)
{
    int rc = 0;

    for (int round = 0; !rc && round < UNPACK_ROUNDS; round++) {
        enum compression c = compression_probe(k->data, k->size);

        if (c != COMPRESSION_NONE)
            rc = unpack(k, c, 0, k->size, err);
        else if (k->size >= ZBOOT_HEADER && has(k, 0, "MZ", 2) && has(k, ZBOOT_MAGIC, "zimg", 4))
            rc = unpack_zboot(k, err);
        else
            break;
    }
    if (rc)
        return rc;
    if (has(k, 0,
            "\x7f"
            "ELF",
            4))
        return elf_parse(k, err);
    if (k->size >= IMAGE_HEADER && has(k, IMAGE_MAGIC2, "RSC\x05", 4))
        return parse_image(k, err);
    rc = refuse_foreign(k, err);
    if (rc)
        return rc;
    if (!allow_raw || !k->size)
        return error_set(err, ENOEXEC, k->size ? "it is not a riscv64 kernel" : "it is empty");
    k->format = BOOT_RAW;
    k->segments[0] = (struct boot_segment){.size = k->size, .memory_size = k->size};
    k->segment_count = 1;
    k->end_addr = k->size;
    return 0;
}

int boot_image_parse(uint8_t *data, size_t size, bool allow_raw, struct boot_image *ret,
                     struct error *err)
{
    struct boot_image k = {.data = data, .size = size};
    int rc = parse(&k, allow_raw, err);

    if (rc) {
        boot_image_done(&k);
        return rc;
    }
    *ret = k;
    return 0;
}

int boot_read_file(const char *path, uint64_t max, uint8_t **ret, size_t *ret_size,
                   struct error *err)
{
    cleanup(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st))
        return error_set(err, errno, "cannot open '%s': %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "'%s' is not a regular file", path);
    if ((uint64_t)st.st_size > max)
        return error_set(err, EFBIG, "'%s' is larger than %llu MiB", path,
                         (unsigned long long)(max >> 20));
    size_t size = (size_t)st.st_size;
    cleanup(freep) uint8_t *data = malloc(MAX(size, (size_t)1));
    if (!data)
        return error_set(err, ENOMEM, "out of memory for '%s'", path);
    int rc = fd_read_all(fd, data, size);
    if (rc)
        return error_set(err, -rc, "cannot read '%s': %s", path, strerror(-rc));
    *ret = ptr_take(&data);
    *ret_size = size;
    return 0;
}

int boot_image_open(const char *path, bool allow_raw, struct boot_image *ret, struct error *err)
{
    uint8_t *data;
    size_t size;
    int rc = boot_read_file(path, BOOT_MAX_BYTES, &data, &size, err);

    if (rc)
        return rc;
    rc = boot_image_parse(data, size, allow_raw, ret, err);
    if (rc)
        error_prefix(err, "cannot boot '%s'", path);
    return rc;
}

/* Zero through the host mapping of guest RAM: pages never touched stay so. */
static int clear(struct mem *mem, gpa_t gpa, uint64_t size)
{
    void *p = size ? mem_ptr(mem, gpa, size, true) : NULL;

    if (!size)
        return 0;
    if (!p)
        return -EFAULT;
    memset(p, 0, size);
    mem_written(mem, gpa, size);
    return 0;
}

int boot_image_load(const struct boot_image *k, struct mem *mem, gpa_t base, gpa_t *ret_entry,
                    gpa_t *ret_end, struct error *err)
{
    uint64_t offset = k->absolute ? 0 : base.v;

    for (size_t i = 0; i < k->segment_count; i++) {
        const struct boot_segment *s = &k->segments[i];
        uint64_t addr;
        bool fits = checked_add(s->addr, offset, &addr) &&
                    mem_ptr(mem, GPA(addr), s->memory_size, true) != NULL;

        if (!fits || mem_copy_out(mem, GPA(addr), k->data + s->offset, s->size) ||
            clear(mem, GPA(addr + s->size), s->memory_size - s->size))
            return error_set(err, ENOSPC,
                             "the program needs memory at 0x%llx (%llu KiB), which the machine "
                             "does not have",
                             (unsigned long long)(s->addr + offset),
                             (unsigned long long)(s->memory_size >> 10));
    }
    *ret_entry = GPA(k->entry + offset);
    *ret_end = GPA(k->end_addr + offset);
    return 0;
}
