/* What the files of riscv64 machines share. */
#ifndef VM_RISCV_H
#define VM_RISCV_H

#include "vm/vm_internal.h"

/* riscv_boot.c */

/** Put kernel, firmware, initrd and device tree into RAM and every hart into its first state. Harts
 * stand still. */
must_check int riscv_boot(struct vm *vm, struct error *err);
/** The device tree as a boot would have it, to config.dump_dtb. */
must_check int riscv_dump_dtb(struct vm *vm, struct error *err);

#endif
