/* Device tree builder: libfdt's sequential writer with one place for errors.
 * Spec: Devicetree Specification 0.4 §5. */
#include "boot/devtree.h"
#include "base/bits.h"

#include <errno.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int dt_init(struct dt_builder *b, size_t max_size)
{
    *b = (struct dt_builder){.blob = calloc(1, max_size), .size = max_size};
    if (!b->blob)
        return -ENOMEM;
    b->failed = fdt_create(b->blob, (int)max_size);
    if (!b->failed)
        b->failed = fdt_finish_reservemap(b->blob);
    dt_begin(b, "%s", "");
    return 0;
}

void dt_done(struct dt_builder *b)
{
    free(b->blob);
    b->blob = NULL;
}

void dt_begin(struct dt_builder *b, const char *name_format, ...)
{
    char name[64];
    va_list args;

    va_start(args, name_format);
    (void)vsnprintf(name, sizeof(name), name_format, args);
    va_end(args);
    if (!b->failed)
        b->failed = fdt_begin_node(b->blob, name);
}

void dt_end(struct dt_builder *b)
{
    if (!b->failed)
        b->failed = fdt_end_node(b->blob);
}

void dt_bytes(struct dt_builder *b, const char *name, const void *value, size_t size)
{
    if (!b->failed)
        b->failed = fdt_property(b->blob, name, value, (int)size);
}

void dt_flag(struct dt_builder *b, const char *name)
{
    dt_bytes(b, name, "", 0);
}

void dt_string(struct dt_builder *b, const char *name, const char *value)
{
    dt_bytes(b, name, value, strlen(value) + 1);
}

void dt_strings(struct dt_builder *b, const char *name, const char *strings, size_t size)
{
    dt_bytes(b, name, strings, size);
}

void dt_cells(struct dt_builder *b, const char *name, const uint32_t *cells, size_t count)
{
    void *p = NULL;

    if (!b->failed)
        b->failed = fdt_property_placeholder(b->blob, name, (int)(count * 4), &p);
    for (size_t i = 0; !b->failed && i < count; i++)
        store_be32((uint8_t *)p + 4 * i, cells[i]);
}

void dt_u32(struct dt_builder *b, const char *name, uint32_t value)
{
    dt_cells(b, name, &value, 1);
}

void dt_u64(struct dt_builder *b, const char *name, uint64_t value)
{
    DT_CELLS(b, name, (uint32_t)(value >> 32), (uint32_t)value);
}

void dt_reg(struct dt_builder *b, uint64_t base, uint64_t size)
{
    DT_CELLS(b, "reg", (uint32_t)(base >> 32), (uint32_t)base, (uint32_t)(size >> 32),
             (uint32_t)size);
}

int dt_finish(struct dt_builder *b, void **ret_blob, size_t *ret_size, struct error *err)
{
    dt_end(b);
    if (!b->failed)
        b->failed = fdt_finish(b->blob);
    if (b->failed)
        return error_set(err, b->failed == -FDT_ERR_NOSPACE ? ENOSPC : EINVAL,
                         "cannot build the device tree: %s", fdt_strerror(b->failed));
    *ret_size = fdt_totalsize(b->blob);
    *ret_blob = b->blob;
    b->blob = NULL;
    return 0;
}
