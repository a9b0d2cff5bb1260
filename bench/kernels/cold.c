/* 512 functions, no two alike: code that does not fit where hot loops do. */
#include "kernels.h"

#define F(n)                                      \
    static NOINLINE uint64_t cold_##n(uint64_t x) \
    {                                             \
        enum { N = 0x##n };                       \
        x ^= x << (1 + N % 8);                    \
        if (x & (N + 1))                          \
            x += 57266229ULL + 19088743ULL * N;   \
        else                                      \
            x -= N;                               \
        x *= 2 * N + 1;                           \
        x ^= x >> (5 + N % 16);                   \
        if (x >> 7 & 1)                           \
            x = ~x;                               \
        x += (x << 3) ^ 77ULL * N;                \
        if (x < N)                                \
            x = N;                                \
        return x << 9 | x >> 55;                  \
    }
#define NAME(n) cold_##n,

#define ROW(m, h)                                                                           \
    m(h##0) m(h##1) m(h##2) m(h##3) m(h##4) m(h##5) m(h##6) m(h##7) m(h##8) m(h##9) m(h##a) \
        m(h##b) m(h##c) m(h##d) m(h##e) m(h##f)
#define TABLE(m, h) \
    ROW(m, h##0)    \
    ROW(m, h##1)    \
    ROW(m, h##2)    \
    ROW(m, h##3)    \
    ROW(m, h##4)    \
    ROW(m, h##5)    \
    ROW(m, h##6)    \
    ROW(m, h##7)    \
    ROW(m, h##8)    \
    ROW(m, h##9) ROW(m, h##a) ROW(m, h##b) ROW(m, h##c) ROW(m, h##d) ROW(m, h##e) ROW(m, h##f)

TABLE(F, 0)
TABLE(F, 1)

uint64_t (*const cold_functions[512])(uint64_t) = {TABLE(NAME, 0) TABLE(NAME, 1)};
