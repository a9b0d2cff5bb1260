/* A small NOR flash, byte by byte, as firmware of a PC keeps its variables in. */
#ifndef DEVICE_FLASH_BYTE_FLASH_H
#define DEVICE_FLASH_BYTE_FLASH_H

#include "mem/mem.h"

#define BYTE_FLASH_MAX (4ULL << 20)

struct state_in;
struct state_out;
struct byte_flash;

/** Add the flash that holds @path, a whole number of 4 KiB blocks, at the end of what lies below
 * @end of @mem. What the guest changes is written back at once; the file is locked against a second
 * machine. *@ret is the caller's, freed after @mem. Errors: of opening; -EINVAL (size), -EBUSY
 * (locked). */
must_check int byte_flash_new(struct mem *mem, gpa_t end, const char *path, struct byte_flash **ret,
                              struct error *err);
void byte_flash_free(struct byte_flash *f);

/** Back to reading the array; content stays. */
void byte_flash_reset(struct byte_flash *f);

/** State for a snapshot, content and all: vCPUs stand still. A failed load leaves the device in any
 * state: reset or free it. */
void byte_flash_save(struct byte_flash *f, struct state_out *out);
must_check int byte_flash_load(struct byte_flash *f, const struct state_in *in, struct error *err);

#endif
