/* ELF64 programs for riscv64: segments and entry. Private to boot but for tests. */
#ifndef BOOT_ELF_LOAD_H
#define BOOT_ELF_LOAD_H

#include "boot/boot_image.h"

/** Fill in format, segments, entry, absolute and end_addr of @k from the ELF file in k->data.
 * Errors: -ENOEXEC, -EINVAL. */
must_check int elf_parse(struct boot_image *k, struct error *err);

#endif
