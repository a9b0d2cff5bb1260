/* What the files of amd64 machines share. */
#ifndef VM_AMD64_H
#define VM_AMD64_H

#include "vm/vm_internal.h"

/* amd64_boot.c */

/** Put kernel, initrd and tables, or firmware, into memory and every processor into its first
 * state. They stand still. */
must_check int amd64_boot(struct vm *vm, struct error *err);

#endif
