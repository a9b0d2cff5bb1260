/* What the generated stubs and lazy.c share. */
#ifndef MAIN_LAZY_H
#define MAIN_LAZY_H

#include <stdint.h>

struct lazy_row {
    const char *library;  /* as dlopen() wants it */
    const char *function; /* of it */
};

extern const struct lazy_row lazy_rows[];
extern void **const lazy_slots; /* where the stubs lead */

/** Stub @n is called for the first time: the function that it stands for. Ends the process without
 * it. Any thread. */
void *lazy_find(uint64_t n);

#endif
