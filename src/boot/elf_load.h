/* ELF64 programs for riscv64: segments and entry. Private to boot but for tests. */
#ifndef BOOT_ELF_LOAD_H
#define BOOT_ELF_LOAD_H

#include "boot/kernel.h"

/** Fill in format, segments, entry, absolute and end_addr of @k from the ELF file in k->data.
 * Errors: -ENOEXEC, -EINVAL. */
must_check int elf_parse(struct kernel *k, struct error *err);

#endif
