/* NOR flash with the Common Flash Interface, Intel command set. */
#ifndef DEVICE_FLASH_CFI_H
#define DEVICE_FLASH_CFI_H

#include "mem/mem.h"

#define CFI_FLASH_SIZE (32ULL << 20)

struct state_in;
struct state_out;
struct cfi_flash;

/** Add a bank of CFI_FLASH_SIZE bytes (two 16-bit chips side by side: bank width 4) at @base of
 * @mem. With @path, the file's bytes are its content and what the guest changes within the file's
 * size is written back at once; else it starts erased and is forgotten. The file is locked against
 * a second machine. *@ret is the caller's, freed after @mem. Errors: of opening; -EFBIG (file
 * larger than the bank), -EBUSY (locked). */
must_check int cfi_flash_new(struct mem *mem, gpa_t base, const char *path, struct cfi_flash **ret,
                             struct error *err);
void cfi_flash_free(struct cfi_flash *f);

/** Back to reading the array; content stays. */
void cfi_flash_reset(struct cfi_flash *f);

/** State for a snapshot: vCPUs and loops stand still. A failed load leaves the device in any state:
 * reset or free it. */
void cfi_flash_save(struct cfi_flash *f, unsigned instance, struct state_out *out);
must_check int cfi_flash_load(struct cfi_flash *f, unsigned instance, const struct state_in *in,
                              struct error *err);

#endif
