/* Integer code: calls, branches, indirect jumps, byte loops. */
#include "kernels.h"

static NOINLINE uint64_t sieve(unsigned scale)
{
    enum { N = 1 << 20 };
    uint8_t *prime = malloc(N);
    uint64_t count = 0;

    for (unsigned r = 0; r < scale; r++) {
        memset(prime, 1, N);
        for (uint32_t i = 2; i * i < N; i++) {
            for (uint32_t j = i * i; prime[i] && j < N; j += i)
                prime[j] = 0;
        }
        for (uint32_t i = 2; i < N; i++)
            count += prime[i];
    }
    free(prime);
    return count;
}

static uint64_t fib_b(uint64_t n);
static __attribute__((noipa)) uint64_t fib_a(uint64_t n)
{
    return n < 2 ? n : fib_b(n - 1) + fib_b(n - 2);
}
static __attribute__((noipa)) uint64_t fib_b(uint64_t n)
{
    return n < 2 ? n : fib_a(n - 1) + fib_a(n - 2);
}
static NOINLINE uint64_t fib(unsigned scale)
{
    uint64_t sum = 0;

    for (unsigned r = 0; r < scale; r++)
        sum += fib_a(25);
    return sum;
}

/* A byte-code interpreter: one hot indirect jump with many targets. */
static NOINLINE uint64_t run_code(const uint8_t *pc, uint64_t *r)
{
    for (;;) {
        uint8_t op = *pc++;

        switch (op) {
        case 0:
            return r[0];
        case 1:
            r[pc[0]] = r[pc[1]] + r[pc[2]];
            pc += 3;
            break;
        case 2:
            r[pc[0]] = r[pc[1]] - r[pc[2]];
            pc += 3;
            break;
        case 3:
            r[pc[0]] = r[pc[1]] ^ r[pc[2]];
            pc += 3;
            break;
        case 4:
            r[pc[0]] = r[pc[1]] * r[pc[2]];
            pc += 3;
            break;
        case 5:
            r[pc[0]] = pc[1];
            pc += 2;
            break;
        case 6:
            r[pc[0]] = r[pc[1]] >> (pc[2] & 63);
            pc += 3;
            break;
        case 7:
            pc += r[pc[0]] ? (int8_t)pc[1] : 2;
            break;
        case 8:
            r[pc[0]]--;
            pc += 1;
            break;
        case 9:
            r[pc[0]] = r[pc[1]] << (pc[2] & 63);
            pc += 3;
            break;
        case 10:
            r[pc[0]] |= r[pc[1]];
            pc += 2;
            break;
        default:
            return ~0ULL;
        }
    }
}
static NOINLINE uint64_t bytecode(unsigned scale)
{
    static const uint8_t program[] = {5, 1, 3, 5, 2, 7, 1,  3, 1, 2, 4, 4, 3, 0,
                                      3, 0, 0, 4, 6, 5, 0,  7, 1, 0, 0, 5, 9, 6,
                                      0, 3, 2, 0, 0, 6, 10, 0, 1, 8, 7, 7, 7, (uint8_t)-34,
                                      0};
    uint64_t r[16] = {1};

    r[7] = 10000ULL * scale;
    return run_code(program, r);
}

/* Calls through function pointers, 8 classes in an order that depends on data. */
struct object {
    uint64_t (*call)(struct object *, uint64_t);
    uint64_t a;
};
#define METHOD(n, e)                                                  \
    static NOINLINE uint64_t method_##n(struct object *o, uint64_t x) \
    {                                                                 \
        return e;                                                     \
    }
METHOD(0, x + o->a)
METHOD(1, x ^ o->a)
METHOD(2, x * 3 + o->a)
METHOD(3, (x >> 3) + o->a)
METHOD(4, x - (o->a << 1))
METHOD(5, (x << 1) ^ o->a)
METHOD(6, x | o->a)
METHOD(7, (x & 0xffffffffULL) + o->a)
static NOINLINE uint64_t virtual_calls(unsigned scale)
{
    static uint64_t (*const methods[8])(struct object *, uint64_t) = {
        method_0, method_1, method_2, method_3, method_4, method_5, method_6, method_7};
    static struct object objects[64];
    uint64_t x = 1;

    for (unsigned i = 0; i < 64; i++) {
        objects[i].call = methods[next_random() >> 20 & 7];
        objects[i].a = next_random() & 0xff;
    }
    for (unsigned r = 0; r < 1000 * scale; r++) {
        for (unsigned i = 0; i < 64; i++)
            x = objects[i].call(&objects[i], x);
    }
    return x;
}

static NOINLINE uint64_t hot_code(unsigned scale)
{
    uint64_t x = 1;

    for (unsigned r = 0; r < 50 * scale; r++) {
        for (unsigned i = 0; i < 512; i++)
            x = cold_functions[i](x);
    }
    return x;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}
static NOINLINE uint64_t sort(unsigned scale)
{
    enum { N = 10000 };
    uint32_t *v = malloc(N * sizeof(*v));
    uint64_t sum = 0;

    for (unsigned r = 0; r < scale; r++) {
        for (unsigned i = 0; i < N; i++)
            v[i] = (uint32_t)next_random();
        qsort(v, N, sizeof(*v), compare);
        sum = sum * 31 + v[N / 2];
    }
    free(v);
    return sum;
}

static uint32_t rotate(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}
static void sha256_block(uint32_t *h, const uint32_t *k, const uint32_t *words)
{
    uint32_t w[64], s[8];

    memcpy(w, words, 64);
    for (unsigned i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] +
               (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, h, 32);
    for (unsigned i = 0; i < 64; i++) {
        uint32_t t = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
                     ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
        uint32_t u = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
                     ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

        memmove(s + 1, s, 28);
        s[4] += t;
        s[0] = t + u;
    }
    for (unsigned i = 0; i < 8; i++)
        h[i] += s[i];
}
/* The computation of SHA-256, with other constants. */
static NOINLINE uint64_t hash_function(unsigned scale)
{
    uint32_t h[8], k[64], words[16];

    for (unsigned i = 0; i < 64; i++)
        k[i] = (uint32_t)next_random();
    memcpy(h, k, sizeof(h));
    memcpy(words, k + 16, sizeof(words));
    for (unsigned r = 0; r < 1000 * scale; r++) {
        words[r % 16] ^= r;
        sha256_block(h, k, words);
    }
    return (uint64_t)h[0] << 32 | h[7];
}

const struct kernel integer_kernels[] = {
    {"sieve",    sieve,         NULL, 30,  "integer"},
    {"fib",      fib,           NULL, 70,  "integer"},
    {"bytecode", bytecode,      NULL, 180, "integer"},
    {"virtual",  virtual_calls, NULL, 200, "integer"},
    {"hotcode",  hot_code,      NULL, 100, "integer"},
    {"sort",     sort,          NULL, 50,  "integer"},
    {"sha256",   hash_function, NULL, 80,  "integer"},
    {NULL,       NULL,          NULL, 0,   NULL     },
};
