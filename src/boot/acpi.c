/* ACPI tables in one block. See acpi.h.
 *
 * Invariant: until they are placed, pointers hold offsets into the block, and checksums are 0.
 * Threads: one. */
#include "base/bits.h"
#include "boot/acpi_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEADER        36
#define OFFSET_LENGTH 4
#define OFFSET_SUM    9
#define MAX_BYTES     (1u << 20)
#define COMMAND_SIZE  128
#define FILE_NAME     56

struct acpi_tables *acpi_new(void)
{
    return calloc(1, sizeof(struct acpi_tables));
}

void acpi_free(struct acpi_tables *t)
{
    if (!t)
        return;
    free(t->data);
    free(t);
}

void acpi_put(struct acpi_tables *t, const void *data, size_t size)
{
    if (!t || t->failed || !size)
        return;
    if (t->size + size > t->room) {
        size_t room = MAX(2 * t->room, t->size + size + 4096);
        uint8_t *grown = room > MAX_BYTES ? NULL : realloc(t->data, room);

        if (!grown) {
            t->failed = true;
            return;
        }
        t->data = grown;
        t->room = room;
    }
    if (data)
        memcpy(t->data + t->size, data, size);
    else
        memset(t->data + t->size, 0, size);
    t->size += (uint32_t)size;
}

void acpi_put_number(struct acpi_tables *t, unsigned size, uint64_t value)
{
    uint8_t bytes[8];

    store_le64(bytes, value);
    acpi_put(t, bytes, size);
}

uint32_t acpi_put_block(struct acpi_tables *t, const void *data, size_t size, size_t align)
{
    if (!t)
        return 0;
    acpi_put(t, NULL, (size_t)align_up(t->size, align) - t->size);
    uint32_t at = t->size;
    acpi_put(t, data, size);
    return at;
}

uint32_t acpi_begin(struct acpi_tables *t, const char *sig, uint8_t revision)
{
    uint8_t h[HEADER] = {0};

    memcpy(h, sig, 4);
    h[8] = revision;
    memcpy(h + 10, "POSADA", 6);
    memcpy(h + 16, "POSADAVM", 8);
    store_le32(h + 24, 1);
    memcpy(h + 28, "PSDA", 4);
    store_le32(h + 32, 1);
    uint32_t at = acpi_put_block(t, h, sizeof(h), 16);
    if (t)
        t->begun = at;
    return at;
}

static void add_sum(struct acpi_tables *t, uint32_t start, uint32_t length, uint32_t at)
{
    if (t->sum_count == ACPI_MAX_SUMS)
        t->failed = true;
    else
        t->sums[t->sum_count++] = (struct acpi_sum){start, length, at};
}

void acpi_end(struct acpi_tables *t)
{
    if (!t || t->failed)
        return;
    assert(!t->depth);
    store_le32(t->data + t->begun + OFFSET_LENGTH, t->size - t->begun);
    add_sum(t, t->begun, t->size - t->begun, t->begun + OFFSET_SUM);
}

void acpi_put_pointer(struct acpi_tables *t, unsigned size, uint32_t target)
{
    if (!t || t->failed)
        return;
    if (t->pointer_count == ACPI_MAX_POINTERS)
        t->failed = true;
    else
        t->pointers[t->pointer_count++] = (struct acpi_pointer){t->size, size};
    acpi_put_number(t, size, target);
}

void acpi_put_address(struct acpi_tables *t, unsigned space, unsigned bytes, uint64_t address)
{
    static const uint8_t access[9] = {[1] = 1, [2] = 2, [4] = 3, [8] = 4};

    acpi_put_number(t, 1, space);
    acpi_put_number(t, 1, 8ULL * bytes);
    acpi_put_number(t, 1, 0);
    acpi_put_number(t, 1, bytes <= 8 ? access[bytes] : 0);
    acpi_put_number(t, 8, address);
}

int acpi_end_all(struct acpi_tables *t, uint32_t xsdt, struct error *err)
{
    if (!t || t->failed)
        return error_set(err, ENOMEM, "no room for the ACPI tables");
    t->xsdt = xsdt;
    return 0;
}

const uint8_t *acpi_data(const struct acpi_tables *t, size_t *ret_size)
{
    *ret_size = t->size;
    return t->data;
}

static uint8_t checksum(const uint8_t *p, size_t size)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + p[i]);
    return (uint8_t)-sum;
}

/** §5.2.5.3, revision 2; sums are not in yet. */
static void make_rsdp(uint64_t xsdt, uint8_t rsdp[ACPI_RSDP_SIZE])
{
    memset(rsdp, 0, ACPI_RSDP_SIZE);
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "POSADA", 6);
    rsdp[15] = 2;
    store_le32(rsdp + 20, ACPI_RSDP_SIZE);
    store_le64(rsdp + 24, xsdt);
}

void acpi_place(struct acpi_tables *t, uint64_t base, uint8_t ret_rsdp[ACPI_RSDP_SIZE])
{
    for (unsigned i = 0; i < t->pointer_count; i++) {
        uint8_t *p = t->data + t->pointers[i].at;

        if (t->pointers[i].size == 8)
            store_le64(p, load_le64(p) + base);
        else
            store_le32(p, (uint32_t)(load_le32(p) + base));
    }
    for (unsigned i = 0; i < t->sum_count; i++)
        t->data[t->sums[i].at] = checksum(t->data + t->sums[i].start, t->sums[i].length);
    make_rsdp(base + t->xsdt, ret_rsdp);
    ret_rsdp[8] = checksum(ret_rsdp, 20);
    ret_rsdp[32] = checksum(ret_rsdp, ACPI_RSDP_SIZE);
}

/* --- Commands for firmware --- */

enum { CMD_ALLOCATE = 1, CMD_POINTER = 2, CMD_SUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

struct commands {
    uint8_t *data;
    size_t count;
};

static uint8_t *next_command(struct commands *c, uint32_t command, const char *file)
{
    uint8_t *p = c->data + COMMAND_SIZE * c->count++;

    store_le32(p, command);
    memcpy(p + 4, file, strlen(file));
    return p + 4 + FILE_NAME;
}

static void allocate(struct commands *c, const char *file, uint32_t align, uint8_t zone)
{
    uint8_t *p = next_command(c, CMD_ALLOCATE, file);

    store_le32(p, align);
    p[4] = zone;
}

static void pointer(struct commands *c, const char *file, const char *to, uint32_t at, uint8_t size)
{
    uint8_t *p = next_command(c, CMD_POINTER, file);

    memcpy(p, to, strlen(to));
    store_le32(p + FILE_NAME, at);
    p[FILE_NAME + 4] = size;
}

static void sum(struct commands *c, const char *file, uint32_t at, uint32_t start, uint32_t length)
{
    uint8_t *p = next_command(c, CMD_SUM, file);

    store_le32(p, at);
    store_le32(p + 4, start);
    store_le32(p + 8, length);
}

int acpi_loader(struct acpi_tables *t, const char *tables, const char *rsdp,
                uint8_t ret_rsdp[ACPI_RSDP_SIZE], uint8_t **ret_commands, size_t *ret_size,
                struct error *err)
{
    size_t most = 5 + t->pointer_count + t->sum_count;
    struct commands c = {.data = calloc(most, COMMAND_SIZE)};

    assert(strlen(tables) < FILE_NAME && strlen(rsdp) < FILE_NAME);
    if (!c.data)
        return error_set(err, ENOMEM, "out of memory");
    make_rsdp(t->xsdt, ret_rsdp);
    allocate(&c, rsdp, 16, ZONE_FSEG);
    allocate(&c, tables, 64, ZONE_HIGH);
    for (unsigned i = 0; i < t->pointer_count; i++)
        pointer(&c, tables, tables, t->pointers[i].at, (uint8_t)t->pointers[i].size);
    for (unsigned i = 0; i < t->sum_count; i++)
        sum(&c, tables, t->sums[i].at, t->sums[i].start, t->sums[i].length);
    pointer(&c, rsdp, tables, 24, 8);
    sum(&c, rsdp, 8, 0, 20);
    sum(&c, rsdp, 32, 0, ACPI_RSDP_SIZE);
    assert(c.count == most);
    *ret_commands = c.data;
    *ret_size = COMMAND_SIZE * c.count;
    return 0;
}
