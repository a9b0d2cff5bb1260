/* AML, the part of it that a DSDT without logic needs. Spec: ACPI 6.5 §20.2 (encoding), §6.4
 * (resource descriptors).
 *
 * An object's length stands before its content, so it is put in when the object ends, and the
 * content moved up by the one to four bytes that it takes. Threads: one. */
#include "base/bits.h"
#include "boot/acpi_internal.h"

#include <string.h>

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_DUAL_NAME = 0x2e,
    OP_MULTI_NAME = 0x2f,
    OP_EXTENDED = 0x5b,
    OP_DEVICE = 0x82,
    OP_NOTIFY = 0x86,
    OP_RETURN = 0xa4,
};

static void put8(struct acpi_tables *t, unsigned value)
{
    acpi_put_number(t, 1, value);
}

/** A path: root, then segments. */
static void put_path(struct acpi_tables *t, const char *path)
{
    unsigned segments = 1;

    if (*path == '\\')
        put8(t, (unsigned char)*path++);
    for (const char *p = path; *p; p++)
        segments += *p == '.';
    if (segments == 2) {
        put8(t, OP_DUAL_NAME);
    } else if (segments > 2) {
        put8(t, OP_MULTI_NAME);
        put8(t, segments);
    }
    while (*path) {
        size_t n = strcspn(path, ".");
        char segment[4] = {'_', '_', '_', '_'};

        assert(n >= 1 && n <= sizeof(segment));
        memcpy(segment, path, n);
        acpi_put(t, segment, sizeof(segment));
        path += n + (path[n] == '.');
    }
}

/** What follows is the content of an object whose length is yet unknown. */
static void open_object(struct acpi_tables *t, bool is_resources)
{
    if (!t || t->failed)
        return;
    assert(t->depth < ACPI_MAX_DEPTH);
    t->open[t->depth++] = (struct acpi_open){t->size, is_resources};
}

void aml_begin_scope(struct acpi_tables *t, const char *path)
{
    put8(t, OP_SCOPE);
    open_object(t, false);
    put_path(t, path);
}

void aml_begin_device(struct acpi_tables *t, const char *name)
{
    put8(t, OP_EXTENDED);
    put8(t, OP_DEVICE);
    open_object(t, false);
    put_path(t, name);
}

void aml_begin_method(struct acpi_tables *t, const char *name, unsigned arguments)
{
    put8(t, OP_METHOD);
    open_object(t, false);
    put_path(t, name);
    put8(t, arguments);
}

void aml_begin_package(struct acpi_tables *t, unsigned count)
{
    put8(t, OP_PACKAGE);
    open_object(t, false);
    put8(t, count);
}

void aml_begin_resources(struct acpi_tables *t)
{
    put8(t, OP_BUFFER);
    open_object(t, true);
}

/** Make room for @size bytes at @at. */
static bool insert(struct acpi_tables *t, uint32_t at, const uint8_t *bytes, size_t size)
{
    acpi_put(t, NULL, size);
    if (t->failed)
        return false;
    memmove(t->data + at + size, t->data + at, t->size - size - at);
    memcpy(t->data + at, bytes, size);
    for (unsigned i = 0; i < t->pointer_count; i++)
        assert(t->pointers[i].at < at); /* AML has none */
    return true;
}

/** §20.2.4: the length counts itself. */
static void insert_length(struct acpi_tables *t, uint32_t at)
{
    uint32_t content = t->size - at;
    uint8_t bytes[4];
    unsigned n = content + 1 < 1u << 6    ? 1
                 : content + 2 < 1u << 12 ? 2
                 : content + 3 < 1u << 20 ? 3
                                          : 4;
    uint32_t length = content + n;

    if (n == 1) {
        bytes[0] = (uint8_t)length;
    } else {
        bytes[0] = (uint8_t)((n - 1) << 6 | (length & 15));
        for (unsigned i = 1; i < n; i++)
            bytes[i] = (uint8_t)(length >> (8 * i - 4));
    }
    (void)insert(t, at, bytes, n); /* failure is remembered */
}

void aml_end(struct acpi_tables *t)
{
    static const uint8_t end_tag[2] = {0x79, 0}; /* §6.4.2.9; 0: no checksum */

    if (!t || t->failed)
        return;
    assert(t->depth);
    struct acpi_open o = t->open[--t->depth];
    if (o.is_resources) {
        uint8_t size[3] = {OP_WORD};

        acpi_put(t, end_tag, sizeof(end_tag));
        store_le16(size + 1, (uint16_t)(t->size - o.at));
        if (!insert(t, o.at, size, sizeof(size)))
            return;
    }
    insert_length(t, o.at);
}

void aml_name(struct acpi_tables *t, const char *name)
{
    put8(t, OP_NAME);
    put_path(t, name);
}

void aml_number(struct acpi_tables *t, uint64_t value)
{
    if (value <= 1) {
        put8(t, value ? OP_ONE : OP_ZERO);
        return;
    }
    unsigned size = value <= UINT8_MAX ? 1 : value <= UINT16_MAX ? 2 : value <= UINT32_MAX ? 4 : 8;
    put8(t, size == 1 ? OP_BYTE : size == 2 ? OP_WORD : size == 4 ? OP_DWORD : OP_QWORD);
    acpi_put_number(t, size, value);
}

void aml_string(struct acpi_tables *t, const char *text)
{
    put8(t, OP_STRING);
    acpi_put(t, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

/** §19.3.4: three letters of five bits, four hexadecimal digits; big-endian. */
void aml_eisa_id(struct acpi_tables *t, const char *id)
{
    uint32_t value =
        (uint32_t)(id[0] & 31) << 26 | (uint32_t)(id[1] & 31) << 21 | (uint32_t)(id[2] & 31) << 16;

    for (unsigned i = 0; i < 4; i++)
        value |= hex_digit(id[3 + i]) << (12 - 4 * i);
    put8(t, OP_DWORD);
    acpi_put_number(t, 4, htobe32(value));
}

void aml_return_number(struct acpi_tables *t, uint64_t value)
{
    put8(t, OP_RETURN);
    aml_number(t, value);
}

void aml_notify(struct acpi_tables *t, const char *device, uint64_t value)
{
    put8(t, OP_NOTIFY);
    put_path(t, device);
    aml_number(t, value);
}

/* --- Resource descriptors --- */

void aml_res_io(struct acpi_tables *t, uint16_t base, uint8_t size)
{
    put8(t, 0x47); /* §6.4.2.5 */
    put8(t, 1);    /* 16-bit decode */
    acpi_put_number(t, 2, base);
    acpi_put_number(t, 2, base);
    put8(t, 1);
    put8(t, size);
}

void aml_res_irq(struct acpi_tables *t, unsigned irq)
{
    put8(t, 0x22); /* §6.4.2.1: edge, high */
    acpi_put_number(t, 2, BIT(irq));
}

void aml_res_memory(struct acpi_tables *t, uint32_t base, uint32_t size)
{
    put8(t, 0x86); /* §6.4.3.4 */
    acpi_put_number(t, 2, 9);
    put8(t, 1); /* writable */
    acpi_put_number(t, 4, base);
    acpi_put_number(t, 4, size);
}

/** §6.4.3.5: an address space descriptor, all of it fixed. @kind: 0 memory, 1 I/O, 2 buses. */
static void put_space(struct acpi_tables *t, unsigned tag, unsigned width, unsigned kind,
                      unsigned flags, uint64_t first, uint64_t last)
{
    put8(t, tag);
    acpi_put_number(t, 2, 3 + 5ULL * width);
    put8(t, kind);
    put8(t, 0xc); /* minimum and maximum are fixed; positive decode; producer */
    put8(t, flags);
    acpi_put_number(t, width, 0);
    acpi_put_number(t, width, first);
    acpi_put_number(t, width, last);
    acpi_put_number(t, width, 0);
    acpi_put_number(t, width, last - first + 1);
}

void aml_res_buses(struct acpi_tables *t, uint16_t first, uint16_t last)
{
    put_space(t, 0x88, 2, 2, 0, first, last);
}

void aml_res_io_window(struct acpi_tables *t, uint16_t first, uint16_t last)
{
    put_space(t, 0x88, 2, 1, 3, first, last); /* all of the range */
}

void aml_res_window(struct acpi_tables *t, uint64_t base, uint64_t size)
{
    uint64_t last = base + size - 1;
    bool wide = last > UINT32_MAX;

    put_space(t, wide ? 0x8a : 0x87, wide ? 8 : 4, 0, 1, base, last); /* uncached, writable */
}
