/* Reading of kernels for x86-64 machines. See x86.h.
 *
 * Invariant: everything in the file is untrusted; what a parsed kernel says lies inside the file,
 * and its addresses do not wrap.
 *
 * Threads: one. */
#include "base/bits.h"
#include "boot/decompress.h"
#include "boot/elf_load.h"
#include "boot/x86.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* boot.rst, "The Real-Mode Kernel Header" */
#define SETUP_SECTS      0x1f1
#define HEADER_MAGIC     0x202
#define HEADER_END       0x268
#define PROTOCOL_VERSION 0x206
#define INITRD_ADDR_MAX  0x22c
#define RELOCATABLE      0x234
#define XLOADFLAGS       0x236
#define CMDLINE_SIZE     0x238
#define PREF_ADDRESS     0x258
#define INIT_SIZE        0x260
#define PROTOCOL_NEEDED  0x20c
#define XLF_KERNEL_64    1
#define SECTOR           512
#define LOWEST           (1ULL << 20)

#define MULTIBOOT_MAGIC  0x1badb002
#define MULTIBOOT_SEARCH 8192

void x86_kernel_done(struct x86_kernel *k)
{
    boot_image_done(&k->image);
}

static int parse_bzimage(struct x86_kernel *k, struct error *err)
{
    const uint8_t *p = k->image.data;
    unsigned version = load_le16(p + PROTOCOL_VERSION);
    unsigned sectors = p[SETUP_SECTS] ? p[SETUP_SECTS] : 4;

    if (version < PROTOCOL_NEEDED || !(load_le16(p + XLOADFLAGS) & XLF_KERNEL_64))
        return error_set(err, ENOEXEC,
                         "it has no 64-bit entry (boot protocol %u.%02u): a 32-bit kernel, or one "
                         "before Linux 3.8",
                         version >> 8, version & 0xff);
    k->protocol = X86_LINUX64;
    k->payload = (uint64_t)(sectors + 1) * SECTOR;
    k->load_addr = load_le64(p + PREF_ADDRESS);
    k->init_size = load_le32(p + INIT_SIZE);
    k->initrd_max = load_le32(p + INITRD_ADDR_MAX);
    k->cmdline_max = load_le32(p + CMDLINE_SIZE);
    if (k->payload >= k->image.size)
        return error_set(err, EINVAL, "it is cut short (%zu bytes, and its kernel begins at %llu)",
                         k->image.size, (unsigned long long)k->payload);
    k->init_size = MAX(k->init_size, (uint64_t)k->image.size - k->payload);
    if (k->load_addr < LOWEST || k->load_addr > BOOT_MAX_BYTES)
        return error_set(err, EINVAL, "its header asks for the address 0x%llx",
                         (unsigned long long)k->load_addr);
    return 0;
}

/** Is there a multiboot header, on a 4-byte boundary of the first 8 KiB (§3.1)? */
static bool is_multiboot(const uint8_t *p, size_t size)
{
    for (size_t i = 0; i + 12 <= MIN(size, (size_t)MULTIBOOT_SEARCH); i += 4) {
        if (load_le32(p + i) == MULTIBOOT_MAGIC &&
            load_le32(p + i) + load_le32(p + i + 4) + load_le32(p + i + 8) == 0)
            return true;
    }
    return false;
}

static int parse_elf(struct x86_kernel *k, struct error *err)
{
    uint64_t pvh;
    int rc = elf_parse_x86(&k->image, &pvh, err);

    if (rc)
        return rc;
    k->initrd_max = UINT32_MAX;
    k->cmdline_max = 2047;
    k->protocol = pvh ? X86_PVH : X86_MULTIBOOT;
    k->entry = pvh ? pvh : k->image.entry;
    if (!pvh && !is_multiboot(k->image.data, k->image.size))
        return error_set(err, ENOEXEC, "it has neither a PVH entry nor a multiboot header");
    if (k->entry > UINT32_MAX)
        return error_set(err, EINVAL, "its entry is above 4 GiB");
    return 0;
}

static int parse(struct x86_kernel *k, struct error *err)
{
    struct boot_image *im = &k->image;
    enum compression c = compression_probe(im->data, im->size);

    if (c != COMPRESSION_NONE) {
        uint8_t *data;
        size_t size;
        int rc = decompress(c, im->data, im->size, BOOT_MAX_BYTES, &data, &size, err);

        if (rc)
            return rc;
        free(im->data);
        im->data = data;
        im->size = size;
    }
    if (im->size >= 4 && !memcmp(im->data,
                                 "\x7f"
                                 "ELF",
                                 4))
        return parse_elf(k, err);
    if (im->size >= HEADER_END && !memcmp(im->data + HEADER_MAGIC, "HdrS", 4))
        return parse_bzimage(k, err);
    if (im->size >= 64 && !memcmp(im->data + 56, "RSC\x05", 4))
        return error_set(err, ENOEXEC, "it is a riscv64 kernel, not an x86-64 one");
    return error_set(err, ENOEXEC, im->size ? "it is not an x86-64 kernel" : "it is empty");
}

int x86_kernel_parse(uint8_t *data, size_t size, struct x86_kernel *ret, struct error *err)
{
    struct x86_kernel k = {
        .image = {.data = data, .size = size}
    };
    int rc = parse(&k, err);

    if (rc) {
        x86_kernel_done(&k);
        return rc;
    }
    *ret = k;
    return 0;
}

int x86_kernel_open(const char *path, struct x86_kernel *ret, struct error *err)
{
    uint8_t *data;
    size_t size;
    int rc = boot_read_file(path, BOOT_MAX_BYTES, &data, &size, err);

    if (rc)
        return rc;
    rc = x86_kernel_parse(data, size, ret, err);
    if (rc)
        error_prefix(err, "cannot boot '%s'", path);
    return rc;
}
