/* Code bound by memory, its translation, or moving it. */
#include "kernels.h"

#include <sys/mman.h>

static uint64_t *words;

static void map_words(void)
{
    words = mmap(NULL, 64u << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED)
        abort();
}

/* A cycle through all of 64 MiB in an order that no prefetcher guesses: one load after the other.
 */
static void prepare_chase(void)
{
    enum { N = 8u << 20 };

    map_words();
    for (uint64_t i = 0; i < N; i++) /* a full period: Knuth, TAOCP 2, 3.2.1.2, theorem A */
        words[i] = (i * 0x5851F42DULL + 0x14057B7FULL) & (N - 1);
}
static NOINLINE uint64_t chase(unsigned scale)
{
    uint64_t p = 0;

    for (uint64_t i = 0; i < 10000ULL * scale; i++)
        p = words[p];
    return p;
}

/* An open hash table of 64 MiB: accesses that do not wait for each other. */
static void prepare_hash(void)
{
    map_words();
    memset(words, 0, 64u << 20);
}
static NOINLINE uint64_t hash(unsigned scale)
{
    uint64_t hits = 0, x = 12345;

    for (uint64_t i = 0; i < 10000ULL * scale; i++) {
        uint64_t key, h;

        x = x * 6364136223846793005ULL + 1442695040888963407ULL;
        key = (x >> 33 & 0x3fffff) + 1;
        h = key * 0x9E3779B97F4A7C15ULL >> 41;
        while (words[h & 0x7fffff] && words[h & 0x7fffff] != key)
            h++;
        hits += words[h & 0x7fffff] == key;
        words[h & 0x7fffff] = key;
    }
    return hits;
}

enum { TEXT = 1 << 16 };
static char *text, *copy;

static void prepare_text(void)
{
    text = malloc(TEXT + 64);
    copy = malloc(TEXT + 64);
    memset(copy, 0, TEXT + 64);
    for (unsigned i = 0; i < TEXT; i++) {
        uint64_t r = next_random() >> 20;

        text[i] = (char)(r % 6 == 0 ? ' ' : 'A' + r % 50);
    }
    text[TEXT] = '\0';
}

/* Byte by byte: lower case, words, a hash. */
static NOINLINE uint64_t string(unsigned scale)
{
    uint64_t sum = 0;

    for (unsigned r = 0; r < scale; r++) {
        const char *p = text;
        char *q = copy;
        uint64_t count = 0;
        uint32_t w = 5381;
        int inside = 0;

        while (*p) {
            unsigned c = (uint8_t)*p++;

            if (c >= 'A' && c <= 'Z')
                c += 32;
            *q++ = (char)c;
            if (c == ' ') {
                if (inside) {
                    count++;
                    sum ^= w;
                    w = 5381;
                }
                inside = 0;
            } else {
                inside = 1;
                w = w * 33 + c;
            }
        }
        *q = '\0';
        sum = sum * 3 + count;
        for (unsigned i = 0; i < TEXT; i++)
            sum += text[i] != copy[i];
    }
    return sum;
}

/* The C library's own routines. */
static NOINLINE uint64_t library(unsigned scale)
{
    uint64_t sum = 0;

    for (unsigned r = 0; r < 10 * scale; r++) {
        for (unsigned o = 0; o < TEXT - 256; o += 64) {
            memcpy(copy + o, text + o, 40 + (o >> 6) % 200);
            sum += (uint8_t)copy[o];
        }
        memcpy(copy, text, TEXT);
        memmove(copy + 8, copy, TEXT - 64);
        sum += strlen(text) + (memchr(text, 1, TEXT) != NULL) + (memcmp(text, copy, TEXT) != 0);
    }
    return sum;
}

/* Three arrays at once, as numerical code walks them. */
static NOINLINE uint64_t stream(unsigned scale)
{
    enum { N = 64 << 10 };
    uint64_t sum = 0;

    for (unsigned r = 0; r < scale; r++) {
        uint64_t *a = words, *b = words + N, *c = words + 2 * N;

        for (unsigned i = 0; i < N; i++)
            a[i] = b[i] + 3 * c[i] + r;
        sum ^= a[r % N];
    }
    return sum;
}

const struct kernel memory_kernels[] = {
    {"chase",   chase,   prepare_chase, 60,  "memory"},
    {"hash",    hash,    prepare_hash,  200, "memory"},
    {"string",  string,  prepare_text,  150, "memory"},
    {"library", library, prepare_text,  300, "memory"},
    {"stream",  stream,  prepare_hash,  500, "memory"},
    {NULL,      NULL,    NULL,          0,   NULL    },
};
