/* Device tree builder: libfdt's sequential writer with one place for errors. */
#ifndef BOOT_FDT_H
#define BOOT_FDT_H

#include "base/error.h"
#include "base/macros.h"

/** Calls after a failure do nothing; fdt_builder_finish() reports the first one. One thread. */
struct fdt_builder {
    void *blob;
    size_t size;
    int failed; /* libfdt error, 0 = none */
};

/** Start a tree (its root node is open) that will fit in @max_size bytes. 0 or -ENOMEM. */
must_check int fdt_builder_init(struct fdt_builder *b, size_t max_size);
/** Free what fdt_builder_finish() did not give away. */
void fdt_builder_done(struct fdt_builder *b);

void fdt_begin(struct fdt_builder *b, const char *name_format, ...) printf_like(2, 3);
void fdt_end(struct fdt_builder *b);

void fdt_flag(struct fdt_builder *b, const char *name);
void fdt_string(struct fdt_builder *b, const char *name, const char *value);
/** @strings: one after the other, each with its final zero, @size bytes in all. */
void fdt_strings(struct fdt_builder *b, const char *name, const char *strings, size_t size);
void fdt_bytes(struct fdt_builder *b, const char *name, const void *value, size_t size);
void fdt_cells(struct fdt_builder *b, const char *name, const uint32_t *cells, size_t count);
void fdt_u32(struct fdt_builder *b, const char *name, uint32_t value);
void fdt_u64(struct fdt_builder *b, const char *name, uint64_t value);
/** reg of one region, two address and two size cells. */
void fdt_reg(struct fdt_builder *b, uint64_t base, uint64_t size);

#define FDT_CELLS(b, name, ...)                         \
    fdt_cells(b, name, (const uint32_t[]){__VA_ARGS__}, \
              sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/** Close the root. On success *@ret_blob (for free()) of *@ret_size bytes is the caller's. */
must_check int fdt_builder_finish(struct fdt_builder *b, void **ret_blob, size_t *ret_size,
                                  struct error *err);

#endif
