/* Debian control files. Any bytes are accepted: what is no field is passed over; each call takes
 * time linear in what it consumes. Any thread. Format: deb822(5), Debian Policy §5.1. */
#include "image/control.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct slice slice_of(const char *s)
{
    return (struct slice){s, strlen(s)};
}

bool slice_equal(struct slice a, struct slice b)
{
    return a.n == b.n && !memcmp(a.p, b.p, a.n);
}

bool slice_is(struct slice a, const char *s)
{
    return slice_equal(a, slice_of(s));
}

bool slice_starts(struct slice a, const char *prefix)
{
    size_t n = strlen(prefix);

    return a.n >= n && !memcmp(a.p, prefix, n);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct slice slice_trim(struct slice a)
{
    while (a.n && is_blank(a.p[0])) {
        a.p++;
        a.n--;
    }
    while (a.n && is_blank(a.p[a.n - 1]))
        a.n--;
    return a;
}

bool slice_cut(struct slice *rest, char sep, struct slice *ret)
{
    if (!rest->n)
        return false;
    const char *at = memchr(rest->p, sep, rest->n);
    size_t n = at ? (size_t)(at - rest->p) : rest->n;

    *ret = (struct slice){rest->p, n};
    rest->p += n + (at ? 1 : 0);
    rest->n -= n + (at ? 1 : 0);
    return true;
}

bool slice_word(struct slice *rest, struct slice *ret)
{
    size_t n = 0;

    *rest = slice_trim(*rest);
    while (n < rest->n && !is_blank(rest->p[n]))
        n++;
    *ret = (struct slice){rest->p, n};
    rest->p += n;
    rest->n -= n;
    return n > 0;
}

bool slice_number(struct slice a, uint64_t *ret)
{
    uint64_t v = 0;

    if (!a.n || a.n > 18)
        return false;
    for (size_t i = 0; i < a.n; i++) {
        if (a.p[i] < '0' || a.p[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(a.p[i] - '0');
    }
    *ret = v;
    return true;
}

char *slice_dup(struct slice a)
{
    char *s = malloc(a.n + 1);

    if (s) {
        memcpy(s, a.p, a.n);
        s[a.n] = 0;
    }
    return s;
}

bool control_stanza(struct slice *text, struct slice *ret)
{
    struct slice line;
    const char *start = NULL, *end = NULL;

    while (text->n) {
        (void)slice_cut(text, '\n', &line); /* true: text is not empty */
        bool is_empty = !slice_trim(line).n;

        if (!is_empty && !start)
            start = line.p;
        if (!is_empty)
            end = line.p + line.n;
        if (is_empty && start)
            break;
    }
    if (!start)
        return false;
    *ret = (struct slice){start, (size_t)(end - start)};
    return true;
}

bool control_field(struct slice *stanza, struct slice *ret_name, struct slice *ret_value)
{
    struct slice line;

    while (slice_cut(stanza, '\n', &line)) {
        const char *colon = memchr(line.p, ':', line.n);

        if (!colon || colon == line.p || is_blank(line.p[0]) || line.p[0] == '#')
            continue;
        struct slice value = {colon + 1, (size_t)(line.p + line.n - colon - 1)};
        while (stanza->n && (stanza->p[0] == ' ' || stanza->p[0] == '\t')) {
            struct slice more;

            (void)slice_cut(stanza, '\n', &more); /* true: the stanza is not empty */
            value.n = (size_t)(more.p + more.n - value.p);
        }
        *ret_name = (struct slice){line.p, (size_t)(colon - line.p)};
        *ret_value = slice_trim(value);
        return true;
    }
    return false;
}

bool control_name_is(struct slice a, const char *name)
{
    return a.n == strlen(name) && !strncasecmp(a.p, name, a.n);
}

bool control_find(struct slice stanza, const char *name, struct slice *ret)
{
    struct slice n, value;

    while (control_field(&stanza, &n, &value)) {
        if (control_name_is(n, name)) {
            *ret = value;
            return true;
        }
    }
    return false;
}
