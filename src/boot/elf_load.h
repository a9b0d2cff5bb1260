/* ELF programs: segments and entry. Private to boot but for tests. */
#ifndef BOOT_ELF_LOAD_H
#define BOOT_ELF_LOAD_H

#include "boot/boot_image.h"

/** Fill in format, segments, entry, absolute and end_addr of @k from the riscv64 ELF file in
 * k->data. Errors: -ENOEXEC, -EINVAL. */
must_check int elf_parse(struct boot_image *k, struct error *err);

/** Likewise an x86 one, of 32 or 64 bits; its addresses are always physical. *@ret_pvh is the
 * address of the PVH entry point that its notes name, or 0 (xen/include/public/elfnote.h,
 * XEN_ELFNOTE_PHYS32_ENTRY). */
must_check int elf_parse_x86(struct boot_image *k, uint64_t *ret_pvh, struct error *err);

#endif
