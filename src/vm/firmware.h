/* Firmware of PCs by name: where distributions install it. */
#ifndef VM_FIRMWARE_H
#define VM_FIRMWARE_H

#include "base/error.h"

/** Is @text the name of a firmware, and not of a file? */
bool vm_firmware_is_name(const char *text);

/** The files of firmware @name, static strings: its code, and what its variables are at first
 * (NULL: it keeps none). -ENOENT: it is not installed, with the remedy. */
must_check int vm_firmware_find(const char *name, const char **ret_code, const char **ret_vars,
                                struct error *err);

#endif
