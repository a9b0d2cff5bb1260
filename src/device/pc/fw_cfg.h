/* Firmware configuration: named blobs that unmodified firmware reads, by ports or by DMA. */
#ifndef DEVICE_PC_FW_CFG_H
#define DEVICE_PC_FW_CFG_H

#include "base/error.h"
#include "mem/mem.h"

#define FW_CFG_PORT      0x510
#define FW_CFG_MAX_FILES 32
#define FW_CFG_NAME_MAX  56 /* with the final NUL */

/** Keys that firmware knows without a name. */
enum {
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_CPUS = 0x05,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
};

struct fw_cfg;
struct state_in;
struct state_out;

/** Add the ports to @ports; DMA goes to RAM of @mem. *@ret is the caller's, freed after both. */
must_check int fw_cfg_new(struct mem *ports, struct mem *mem, struct fw_cfg **ret,
                          struct error *err);
void fw_cfg_free(struct fw_cfg *f);
void fw_cfg_reset(struct fw_cfg *f);

/** An item of 2, 4 or 8 little-endian bytes. Before the machine runs. */
must_check int fw_cfg_add_number(struct fw_cfg *f, unsigned key, uint64_t value, unsigned size,
                                 struct error *err);

/** A file, a copy of @size bytes. Before the machine runs, or while vCPUs stand still: a file of
 * that name is replaced. -ENOSPC, -ENOMEM. */
must_check int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t size,
                               struct error *err);

/** Called on a vCPU's thread, with no lock held, when the guest selects a file whose name begins
 * with @prefix: the time to make it, by fw_cfg_add_file() with the size it has had. */
void fw_cfg_on_select(struct fw_cfg *f, const char *prefix, void (*fn)(void *arg), void *arg);

/** State for a snapshot: vCPUs stand still. A failed load leaves any state. */
void fw_cfg_save(struct fw_cfg *f, struct state_out *out);
must_check int fw_cfg_load(struct fw_cfg *f, const struct state_in *in, struct error *err);

#endif
