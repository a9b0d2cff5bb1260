/* ACPI tables, built in one block of memory, and AML, the code of a DSDT.
 *
 *     struct acpi_tables *t = acpi_new();
 *     uint32_t dsdt = acpi_begin(t, "DSDT", 2);
 *     aml_begin_scope(t, "\\_SB_"); ... aml_end(t);
 *     acpi_end(t);
 *     ... further tables, pointers by acpi_put_pointer(t, 8, dsdt)
 *     acpi_end_all(t, err)  then  acpi_place(t, base)  or  acpi_loader(t, ...)
 *
 * Running out of memory is remembered, and told by acpi_end_all(). One thread.
 * Spec: ACPI 6.5, §5.2 (tables), §20 (AML). */
#ifndef BOOT_ACPI_H
#define BOOT_ACPI_H

#include "base/error.h"

#define ACPI_RSDP_SIZE 36

struct acpi_tables;

struct acpi_tables *acpi_new(void); /* NULL: no memory; the other calls take that */
void acpi_free(struct acpi_tables *t);

/** A table with signature @sig and revision @revision begins; its offset. The header is filled in,
 * the length and checksum by acpi_end(). */
uint32_t acpi_begin(struct acpi_tables *t, const char *sig, uint8_t revision);
void acpi_end(struct acpi_tables *t);

/** Room without a header, on a boundary of @align bytes, such as FACS wants; its offset. */
uint32_t acpi_put_block(struct acpi_tables *t, const void *data, size_t size, size_t align);

/** The next bytes of the table. Numbers are little-endian, @size is 1, 2, 4 or 8. */
void acpi_put(struct acpi_tables *t, const void *data, size_t size);
void acpi_put_number(struct acpi_tables *t, unsigned size, uint64_t value);
/** The address, @size bytes wide, at which the table at offset @target will be. */
void acpi_put_pointer(struct acpi_tables *t, unsigned size, uint32_t target);
/** A generic address (§5.2.3.2): @space 0 memory, 1 I/O. */
void acpi_put_address(struct acpi_tables *t, unsigned space, unsigned bytes, uint64_t address);

/** Everything is there; @xsdt is the root table. -ENOMEM, or -E2BIG past a limit of ours. */
must_check int acpi_end_all(struct acpi_tables *t, uint32_t xsdt, struct error *err);

/** The finished tables, borrowed. */
const uint8_t *acpi_data(const struct acpi_tables *t, size_t *ret_size);

/** Put addresses in, for tables that will be at @base, and make the root pointer for them. Once. */
void acpi_place(struct acpi_tables *t, uint64_t base, uint8_t ret_rsdp[ACPI_RSDP_SIZE]);

/** Instead: the root pointer and the commands by which firmware places the two files @tables and
 * @rsdp. *@ret_commands, of *@ret_size bytes, is for free(). Spec: QEMU, "table loader". */
must_check int acpi_loader(struct acpi_tables *t, const char *tables, const char *rsdp,
                           uint8_t ret_rsdp[ACPI_RSDP_SIZE], uint8_t **ret_commands,
                           size_t *ret_size, struct error *err);

/* AML. Objects that have an end are ended by aml_end(), inner ones first. A name is a path of
 * segments of four letters, shorter ones filled up: "_HID", "\\_SB_", "PCI0.COM1". */

void aml_begin_scope(struct acpi_tables *t, const char *path);
void aml_begin_device(struct acpi_tables *t, const char *name);
void aml_begin_method(struct acpi_tables *t, const char *name, unsigned arguments);
/** A package of @count elements: numbers and packages follow. */
void aml_begin_package(struct acpi_tables *t, unsigned count);
void aml_end(struct acpi_tables *t);

/** Name(@name, ...): what follows is its value. */
void aml_name(struct acpi_tables *t, const char *name);
void aml_number(struct acpi_tables *t, uint64_t value);
void aml_string(struct acpi_tables *t, const char *text);
/** A compressed EISA ID such as "PNP0A08", as a number. */
void aml_eisa_id(struct acpi_tables *t, const char *id);
void aml_return_number(struct acpi_tables *t, uint64_t value);

/** Notify(@device, @value): its driver is told. */
void aml_notify(struct acpi_tables *t, const char *device, uint64_t value);

/** A resource template: rows follow, then aml_end(). */
void aml_begin_resources(struct acpi_tables *t);
void aml_res_io(struct acpi_tables *t, uint16_t base, uint8_t size);
void aml_res_irq(struct acpi_tables *t, unsigned irq);
void aml_res_memory(struct acpi_tables *t, uint32_t base, uint32_t size);
void aml_res_buses(struct acpi_tables *t, uint16_t first, uint16_t last);
void aml_res_io_window(struct acpi_tables *t, uint16_t first, uint16_t last);
/** A window that a bridge passes on, of 32 or 64 bits by what it takes. */
void aml_res_window(struct acpi_tables *t, uint64_t base, uint64_t size);

#endif
