/* Values of options as people write them: sizes, durations, whole numbers; and the nearest word to
 * a mistyped one. No state. */
#include "base/opt.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NEAREST_WORD_MAX = 63 };

/** Digits of @base from *@text; advances it. -EINVAL without a digit, -ERANGE past 64 bits. */
static int parse_digits(const char **text, unsigned base, uint64_t *ret)
{
    const char *p = *text;
    uint64_t v = 0;

    for (;; p++) {
        unsigned digit = 99;
        if (isdigit((unsigned char)*p))
            digit = (unsigned)(*p - '0');
        else if (isxdigit((unsigned char)*p))
            digit = (unsigned)(tolower((unsigned char)*p) - 'a') + 10;
        if (digit >= base)
            break;
        if (!checked_mul(v, (uint64_t)base, &v) || !checked_add(v, (uint64_t)digit, &v))
            return -ERANGE;
    }
    if (p == *text)
        return -EINVAL;
    *text = p;
    *ret = v;
    return 0;
}

int opt_parse_int(const char *text, int64_t *ret)
{
    bool negative = *text == '-';
    unsigned base = 10;
    uint64_t v;

    text += negative;
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        text += 2;
    }
    int r = parse_digits(&text, base, &v);
    if (r)
        return r;
    if (*text)
        return -EINVAL;
    if (v > (uint64_t)INT64_MAX)
        return -ERANGE;
    *ret = negative ? -(int64_t)v : (int64_t)v;
    return 0;
}

int opt_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "KMGT";
    uint64_t v;
    int r = parse_digits(&text, 10, &v);

    if (r)
        return r;
    const char *unit = *text ? strchr(units, toupper((unsigned char)*text)) : NULL;
    if (unit) {
        text++;
        if (!strcmp(text, "iB") || !strcmp(text, "B"))
            text += strlen(text);
        if (!checked_mul(v, 1024ULL << (10 * (unit - units)), &v))
            return -ERANGE;
    }
    if (*text)
        return -EINVAL;
    *ret_bytes = v;
    return 0;
}

int opt_parse_duration(const char *text, int64_t *ret_ms)
{
    static const struct {
        const char *suffix;
        uint64_t ms;
    } units[] = {
        {"",   1000   },
        {"s",  1000   },
        {"ms", 1      },
        {"m",  60000  },
        {"h",  3600000}
    };
    uint64_t v;
    int r = parse_digits(&text, 10, &v);

    if (r)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (strcmp(text, units[i].suffix) != 0)
            continue;
        if (!checked_mul(v, units[i].ms, &v) || v > (uint64_t)INT64_MAX)
            return -ERANGE;
        *ret_ms = (int64_t)v;
        return 0;
    }
    return -EINVAL;
}

const char *opt_format_size(uint64_t bytes, char *buf, size_t size)
{
    static const char units[] = "TGMK";

    for (unsigned i = 0; bytes && i < 4; i++) {
        uint64_t unit = 1ULL << (10 * (4 - i));
        if (bytes % unit == 0) {
            (void)snprintf(buf, size, "%" PRIu64 "%c", bytes / unit, units[i]);
            return buf;
        }
    }
    (void)snprintf(buf, size, "%" PRIu64, bytes);
    return buf;
}

/** Edits (insert, delete, replace, swap neighbours) that make @b of @a; both at most
 * NEAREST_WORD_MAX long. */
static unsigned distance(const char *a, const char *b)
{
    unsigned rows[3][NEAREST_WORD_MAX + 1];
    unsigned *before = rows[0];
    unsigned *last = rows[1];
    unsigned *now = rows[2];
    size_t na = strlen(a);
    size_t nb = strlen(b);

    for (unsigned j = 0; j <= nb; j++)
        before[j] = last[j] = j;
    for (unsigned i = 1; i <= na; i++) {
        now[0] = i;
        for (unsigned j = 1; j <= nb; j++) {
            unsigned best = last[j - 1] + (a[i - 1] != b[j - 1]);
            best = MIN(best, last[j] + 1);
            best = MIN(best, now[j - 1] + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = MIN(best, before[j - 2] + 1);
            now[j] = best;
        }
        unsigned *free_row = before;
        before = last;
        last = now;
        now = free_row;
    }
    return last[nb];
}

const char *opt_nearest(const char *word, const char *(*next)(void *arg), void *arg)
{
    const char *best = NULL;
    unsigned best_distance =
        strlen(word) < 4 ? 2 : 3; /* at most one edit in a short word, else two */

    if (strlen(word) > NEAREST_WORD_MAX)
        return NULL;
    for (const char *w = next(arg); w; w = next(arg)) {
        if (strlen(w) > NEAREST_WORD_MAX)
            continue;
        unsigned d = distance(word, w);
        if (d < best_distance && d < strlen(w)) {
            best = w;
            best_distance = d;
        }
    }
    return best;
}
