/* The identity of the board `pc`: SMBIOS's tables, made once, for a kernel to find or for firmware
 * to place. Threads: one; vCPUs stand still. */
#include "board/pc_internal.h"

#include <errno.h>
#include <stdlib.h>

int pc_make_smbios(struct pc_board *b, struct error *err)
{
    static const struct smbios_config nameless;
    const struct pc_config *pc = &b->config;
    struct smbios_config c = pc->identity ? *pc->identity : nameless;
    uint64_t low = pc_board_low_ram(b);

    c.version = POSADA_VERSION;
    c.cpus = pc->cpus;
    c.ranges[c.range_count].base = 0;
    c.ranges[c.range_count++].size = low;
    if (pc->memory_bytes > low) {
        c.ranges[c.range_count].base = PC_HIGH_RAM;
        c.ranges[c.range_count++].size = pc->memory_bytes - low;
    }
    b->smbios = malloc(SMBIOS_MAX);
    if (!b->smbios)
        return error_set(err, ENOMEM, "out of memory");
    int size = smbios_build(&c, b->smbios, err);
    b->smbios_size = size < 0 ? 0 : (size_t)size;
    return size < 0 ? size : 0;
}

void pc_put_smbios(struct pc_board *b)
{
    uint8_t entry[SMBIOS_ENTRY_SIZE];
    uint64_t at = PC_SMBIOS + 32;

    static_assert(SMBIOS_MAX + 32 <= 0x10000, "it ends below 1 MiB");
    smbios_entry(at, b->smbios_size, entry);
    int rc = mem_copy_out(b->config.mem, GPA(PC_SMBIOS), entry, sizeof(entry));
    if (!rc)
        rc = mem_copy_out(b->config.mem, GPA(at), b->smbios, b->smbios_size);
    assert(!rc); /* every machine has RAM there */
}

int pc_add_smbios(struct pc_board *b, struct error *err)
{
    uint8_t entry[SMBIOS_ENTRY_SIZE];

    smbios_entry(0, b->smbios_size, entry);
    int rc = fw_cfg_add_file(b->fw_cfg, "etc/smbios/smbios-anchor", entry, sizeof(entry), err);
    return rc ? rc
              : fw_cfg_add_file(b->fw_cfg, "etc/smbios/smbios-tables", b->smbios, b->smbios_size,
                                err);
}
