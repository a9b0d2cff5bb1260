/* Names for generated code, for the host's tools. See symbols.c. Calls under the engine's
 * cache.lock. */
#ifndef CPU_ENGINE_SYMBOLS_H
#define CPU_ENGINE_SYMBOLS_H

#include "base/error.h"
#include "base/log.h"
#include "base/macros.h"

struct symbols;

struct symbols_config {
    bool perf_map; /* /tmp/perf-PID.map, where perf looks */
    bool gdb;      /* tell a debugger of this process */
    const char
        *elf; /* write an ELF file with code and names there in the end; NULL = no; borrowed */
};

/** *@ret is NULL if nobody wants names, else to be freed by symbols_free(). */
must_check int symbols_new(const struct symbols_config *config, struct symbols **ret,
                           struct error *err);
/** Write what is to be written in the end; the code buffer is @size bytes at @code. NULL allowed.
 */
void symbols_free(struct symbols *s, const void *code, size_t size);
/** The unit of @size bytes at @code is of guest code at @pc; @kind: "block", "region". */
void symbols_add(struct symbols *s, const void *code, size_t size, uint64_t pc, const char *kind);
/** All code was forgotten. */
void symbols_reset(struct symbols *s);

#endif
