/* Bit fields, alignment, and loads and stores of fixed byte order. Header only. */
#ifndef BASE_BITS_H
#define BASE_BITS_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define BIT(n)  (1ULL << (n))
#define MASK(n) ((n) >= 64 ? ~0ULL : (1ULL << (n)) - 1)

/** Bits @hi..@lo of @v, moved down to bit 0. */
#define BITS(v, hi, lo) (((uint64_t)(v) >> (lo)) & MASK((hi) - (lo) + 1))

/** Sign-extend the low @n bits of @v, 1 <= n <= 64. */
static inline int64_t sext(uint64_t v, unsigned n)
{
    return (int64_t)(v << (64 - n)) >> (64 - n);
}

static inline bool is_pow2(uint64_t v)
{
    return v && !(v & (v - 1));
}

/** Round to a multiple of @a, a power of two. align_up() wraps past 2^64: check the length first.
 */
static inline uint64_t align_down(uint64_t v, uint64_t a)
{
    return v & ~(a - 1);
}
static inline uint64_t align_up(uint64_t v, uint64_t a)
{
    return (v + a - 1) & ~(a - 1);
}

#define BASE_DEFINE_ACCESS(bits, order)                               \
    static inline uint##bits##_t load_##order##bits(const void *p)    \
    {                                                                 \
        uint##bits##_t v;                                             \
        memcpy(&v, p, sizeof(v));                                     \
        return order##bits##toh(v);                                   \
    }                                                                 \
    static inline void store_##order##bits(void *p, uint##bits##_t v) \
    {                                                                 \
        v = hto##order##bits(v);                                      \
        memcpy(p, &v, sizeof(v));                                     \
    }
BASE_DEFINE_ACCESS(16, le)
BASE_DEFINE_ACCESS(32, le)
BASE_DEFINE_ACCESS(64, le)
BASE_DEFINE_ACCESS(16, be)
BASE_DEFINE_ACCESS(32, be)
BASE_DEFINE_ACCESS(64, be)

#endif
