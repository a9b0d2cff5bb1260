/* What acpi.c and aml.c share. */
#ifndef BOOT_ACPI_INTERNAL_H
#define BOOT_ACPI_INTERNAL_H

#include "boot/acpi.h"

#define ACPI_MAX_POINTERS 64
#define ACPI_MAX_SUMS     32
#define ACPI_MAX_DEPTH    8

struct acpi_pointer {
    uint32_t at;
    unsigned size;
};

struct acpi_sum {
    uint32_t start, length, at;
};

/** An AML object that is not ended: where its length goes. */
struct acpi_open {
    uint32_t at;
    bool is_resources;
};

struct acpi_tables {
    uint8_t *data;
    uint32_t size;
    size_t room;
    bool failed;
    uint32_t begun; /* the table that is not ended */
    uint32_t xsdt;
    struct acpi_pointer pointers[ACPI_MAX_POINTERS];
    unsigned pointer_count;
    struct acpi_sum sums[ACPI_MAX_SUMS];
    unsigned sum_count;
    struct acpi_open open[ACPI_MAX_DEPTH];
    unsigned depth;
};

#endif
