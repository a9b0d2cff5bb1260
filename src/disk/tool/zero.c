/* Is a piece of memory all zero? Any thread. */
#include "disk/tool/tool.h"

#include <string.h>

typedef uint64_t vec __attribute__((vector_size(32), aligned(1), may_alias));

#define STEP (4 * sizeof(vec))

bool disk_is_zero(const void *p, size_t size)
{
    const uint8_t *at = p;
    const uint8_t *end = at + size;
    uint8_t rest = 0;

    for (; (size_t)(end - at) >= STEP; at += STEP) {
        const vec *v = (const vec *)at;
        vec all = v[0] | v[1] | v[2] | v[3];

        if (all[0] | all[1] | all[2] | all[3])
            return false;
    }
    while (at < end)
        rest |= *at++;
    return !rest;
}
