/* Power control register of the virt boards (SiFive test finisher). */
#ifndef DEVICE_POWER_SYSCON_H
#define DEVICE_POWER_SYSCON_H

#include "mem/mem.h"

#define SYSCON_SIZE     0x1000ULL
#define SYSCON_POWEROFF 0x5555u
#define SYSCON_FAIL     0x3333u
#define SYSCON_RESET    0x7777u

struct syscon;

/** What the guest asked for; called on a vCPU's thread. */
struct syscon_config {
    void (*poweroff)(void *arg, unsigned code); /* code 0 = pass, else 16 bits of failure code */
    void (*reset)(void *arg);
    void *arg;
};

/** Add the register at @base of @mem. *@ret is the caller's, freed after @mem. */
must_check int syscon_new(struct mem *mem, gpa_t base, const struct syscon_config *config,
                          struct syscon **ret, struct error *err);
void syscon_free(struct syscon *s);

#endif
