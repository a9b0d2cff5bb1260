/* SMBIOS tables: what a machine says it is, for its system's inventory.
 * Spec: DMTF DSP0134 3.6. */
#ifndef BOOT_SMBIOS_H
#define BOOT_SMBIOS_H

#include "base/error.h"
#include "base/macros.h"

#define SMBIOS_ENTRY_SIZE 24
#define SMBIOS_MAX        (32u << 10) /* bytes of tables */
#define SMBIOS_RANGES     2

/** Strings are borrowed; NULL or "" = not said. */
struct smbios_config {
    const char *name;    /* the machine's: its serial number, for people */
    uint8_t uuid[16];    /* in the order in which it is written */
    const char *version; /* of Posada */
    unsigned cpus;
    /** RAM, as it lies. */
    struct {
        uint64_t base, size;
    } ranges[SMBIOS_RANGES];
    unsigned range_count;
    const char *const *oem; /* strings for whoever looks for them, such as systemd's credentials */
    size_t oem_count;       /* at most 255 */
};

/** The tables into @ret; how many bytes, or -E2BIG with a sentence. */
must_check int smbios_build(const struct smbios_config *c, uint8_t ret[SMBIOS_MAX],
                            struct error *err);

/** The entry point for tables of @size bytes at @base (0 if firmware will place them). */
void smbios_entry(uint64_t base, size_t size, uint8_t ret[SMBIOS_ENTRY_SIZE]);

#endif
