/* Kernels for x86-64 machines: reading them, and putting them into memory with what they expect to
 * find there.
 *
 * Specs: Linux Documentation/arch/x86/boot.rst (bzImage, 64-bit protocol) and zero-page.rst; Xen
 * docs/misc/pvh.pandoc (PVH start information); Multiboot Specification 0.6.96. */
#ifndef BOOT_X86_H
#define BOOT_X86_H

#include "boot/boot_image.h"

enum x86_protocol { X86_LINUX64, X86_PVH, X86_MULTIBOOT };

/** A kernel's file. */
struct x86_kernel {
    enum x86_protocol protocol;
    struct boot_image image; /* ELF: its segments; bzImage: the whole file */
    uint64_t entry;          /* PVH, multiboot: physical */
    uint64_t payload;        /* bzImage: where its protected-mode part begins, */
    uint64_t load_addr;      /* ...goes, */
    uint64_t init_size;      /* ...and how much memory it needs from there on */
    uint64_t initrd_max;     /* highest address that the initrd may use */
    uint32_t cmdline_max;    /* bytes without the NUL */
};

/** What @size bytes at @data hold; they are malloc'ed and become *@ret's, also on failure they are
 * freed. Errors: -ENOEXEC (no kernel for us), -EINVAL (damaged), -ENOMEM. */
must_check int x86_kernel_parse(uint8_t *data, size_t size, struct x86_kernel *ret,
                                struct error *err);
/** Read and parse the file @path. */
must_check int x86_kernel_open(const char *path, struct x86_kernel *ret, struct error *err);
void x86_kernel_done(struct x86_kernel *k);

/** A range of the memory map. */
enum x86_memory { X86_RAM = 1, X86_RESERVED = 2, X86_ACPI = 3 };
struct x86_range {
    uint64_t base, size;
    enum x86_memory type;
};
#define X86_RANGES 16

/** The machine that it starts in. */
struct x86_boot {
    const char *cmdline; /* NULL = none */
    const uint8_t *initrd;
    size_t initrd_size;
    uint64_t rsdp;    /* address of ACPI's root pointer */
    uint64_t low_ram; /* bytes of RAM from address 0 on */
    const struct x86_range *ranges;
    size_t range_count;
    const uint8_t *seed; /* 32 bytes for the kernel's random numbers; NULL = none */
};

/** Where the first processor begins. */
struct x86_start {
    bool long_mode;
    uint64_t rip, rax, rbx, rsi, cr3, gdt;
    uint16_t gdt_limit;
};

/** Load @k as @b says. -ENOSPC: not enough memory; -EINVAL: the command line is too long. */
must_check int x86_load(const struct x86_kernel *k, const struct x86_boot *b, struct mem *mem,
                        struct x86_start *ret, struct error *err);

#endif
