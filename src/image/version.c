/* Order of Debian package versions. Any thread. Spec: Debian Policy §5.6.12. */
#include "image/version.h"

#include <ctype.h>
#include <string.h>

/** '~' before the end of the string, before letters, before everything else. */
static int char_order(struct slice s, size_t i)
{
    if (i >= s.n || isdigit((unsigned char)s.p[i]))
        return 0;
    if (s.p[i] == '~')
        return -1;
    return isalpha((unsigned char)s.p[i]) ? (unsigned char)s.p[i] : (unsigned char)s.p[i] + 256;
}

static bool is_digit_at(struct slice s, size_t i)
{
    return i < s.n && isdigit((unsigned char)s.p[i]);
}

/** Compare the numbers at *@i and *@j without a limit on their length, and step over them. */
static int compare_digits(struct slice a, size_t *i, struct slice b, size_t *j)
{
    int first = 0;

    while (*i < a.n && a.p[*i] == '0')
        ++*i;
    while (*j < b.n && b.p[*j] == '0')
        ++*j;
    while (is_digit_at(a, *i) && is_digit_at(b, *j)) {
        if (!first)
            first = a.p[*i] - b.p[*j];
        ++*i;
        ++*j;
    }
    if (is_digit_at(a, *i))
        return 1;
    return is_digit_at(b, *j) ? -1 : first;
}

static int compare_part(struct slice a, struct slice b)
{
    size_t i = 0, j = 0;

    while (i < a.n || j < b.n) {
        while ((i < a.n && !is_digit_at(a, i)) || (j < b.n && !is_digit_at(b, j))) {
            int d = char_order(a, i) - char_order(b, j);

            if (d)
                return d;
            i++;
            j++;
        }
        int d = compare_digits(a, &i, b, &j);
        if (d)
            return d;
    }
    return 0;
}

/** [epoch:]upstream[-revision] */
static void split(struct slice v, struct slice part[3])
{
    const char *colon = memchr(v.p, ':', v.n);

    part[0] = (struct slice){v.p, colon ? (size_t)(colon - v.p) : 0};
    if (colon) {
        v.n -= (size_t)(colon + 1 - v.p);
        v.p = colon + 1;
    }
    const char *dash = memrchr(v.p, '-', v.n);
    part[1] = (struct slice){v.p, dash ? (size_t)(dash - v.p) : v.n};
    part[2] = (struct slice){dash ? dash + 1 : v.p + v.n, 0};
    part[2].n = (size_t)(v.p + v.n - part[2].p);
}

int version_compare(struct slice a, struct slice b)
{
    struct slice pa[3], pb[3];
    int d = 0;

    split(a, pa);
    split(b, pb);
    for (int i = 0; i < 3 && !d; i++)
        d = compare_part(pa[i], pb[i]);
    return d;
}

bool version_satisfies(struct slice version, struct slice op, struct slice wanted)
{
    int d = version_compare(version, wanted);

    if (slice_is(op, "="))
        return d == 0;
    if (slice_is(op, ">=") || slice_is(op, ">"))
        return d >= 0;
    if (slice_is(op, "<=") || slice_is(op, "<"))
        return d <= 0;
    if (slice_is(op, ">>"))
        return d > 0;
    return slice_is(op, "<<") && d < 0;
}
