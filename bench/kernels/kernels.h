/* Programs of a few lines that each stress one thing an emulator must be good at. They print
 * nothing and return a checksum, which must be the same on every machine. */
#ifndef BENCH_KERNELS_H
#define BENCH_KERNELS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))

struct kernel {
    const char *name;
    uint64_t (*run)(unsigned scale); /* time is proportional to scale */
    void (*prepare)(void);           /* not measured; may be NULL */
    unsigned scale;                  /* what takes a few hundredths of a second natively */
    const char *group;               /* integer, memory, float, system */
};

extern const struct kernel integer_kernels[], memory_kernels[], float_kernels[], system_kernels[];

/** A repeatable pseudo-random number (xorshift64). */
uint64_t next_random(void);
void restart_random(void);

/* cold.c */
extern uint64_t (*const cold_functions[512])(uint64_t);

#endif
