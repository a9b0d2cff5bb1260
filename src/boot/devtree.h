/* Device tree builder: libfdt's sequential writer with one place for errors. */
#ifndef BOOT_DEVTREE_H
#define BOOT_DEVTREE_H

#include "base/error.h"
#include "base/macros.h"

/** Calls after a failure do nothing; dt_finish() reports the first one. One thread. */
struct dt_builder {
    void *blob;
    size_t size;
    int failed; /* libfdt error, 0 = none */
};

/** Start a tree (its root node is open) that will fit in @max_size bytes. 0 or -ENOMEM. */
must_check int dt_init(struct dt_builder *b, size_t max_size);
/** Free what dt_finish() did not give away. */
void dt_done(struct dt_builder *b);

void dt_begin(struct dt_builder *b, const char *name_format, ...) printf_like(2, 3);
void dt_end(struct dt_builder *b);

void dt_flag(struct dt_builder *b, const char *name);
void dt_string(struct dt_builder *b, const char *name, const char *value);
/** @strings: one after the other, each with its final zero, @size bytes in all. */
void dt_strings(struct dt_builder *b, const char *name, const char *strings, size_t size);
void dt_bytes(struct dt_builder *b, const char *name, const void *value, size_t size);
void dt_cells(struct dt_builder *b, const char *name, const uint32_t *cells, size_t count);
void dt_u32(struct dt_builder *b, const char *name, uint32_t value);
void dt_u64(struct dt_builder *b, const char *name, uint64_t value);
/** reg of one region, two address and two size cells. */
void dt_reg(struct dt_builder *b, uint64_t base, uint64_t size);

#define DT_CELLS(b, name, ...)                         \
    dt_cells(b, name, (const uint32_t[]){__VA_ARGS__}, \
             sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/** Close the root. On success *@ret_blob (for free()) of *@ret_size bytes is the caller's. */
must_check int dt_finish(struct dt_builder *b, void **ret_blob, size_t *ret_size,
                         struct error *err);

#endif
