/* Release files. Any bytes are taken. Any thread. Format: Debian repository format, "Release"
 * files.
 */
#include "image/suite.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool has_word(struct slice list, const char *word)
{
    for (struct slice w; slice_word(&list, &w);)
        if (slice_is(w, word))
            return true;
    return false;
}

/** Find "DIGEST SIZE PATH" for @path among the lines of the SHA256 field. */
static bool find_file(struct slice list, const char *path, struct release *ret)
{
    for (struct slice line; slice_cut(&list, '\n', &line);) {
        struct slice sum, size, name;

        if (!slice_word(&line, &sum) || !slice_word(&line, &size) || !slice_word(&line, &name))
            continue;
        if (!slice_is(name, path) || sum.n != DIGEST_HEX_MAX - 1 ||
            !slice_number(size, &ret->index_bytes) || !ret->index_bytes)
            continue;
        for (size_t i = 0; i < sum.n; i++)
            if (!strchr("0123456789abcdef", sum.p[i]) || !sum.p[i])
                return false;
        memcpy(ret->index_sha256, sum.p, sum.n);
        ret->index_sha256[sum.n] = 0;
        (void)snprintf(ret->index_path, sizeof(ret->index_path), "%s", path); /* it fits: a literal
                                                                                 and an arch */
        return true;
    }
    return false;
}

/** RFC 1123 as the archive writes it: "Fri, 06 Nov 2026 08:08:01 UTC". 0 if it is not that. */
static time_t parse_date(struct slice s)
{
    char text[64];
    struct tm tm = {0};

    if (s.n >= sizeof(text))
        return 0;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S", &tm);
    return end ? timegm(&tm) : 0;
}

int release_parse(struct slice text, const char *suite, const char *arch, struct release *ret,
                  struct error *err)
{
    struct release r = {0};
    struct slice stanza, value, codename = {"", 0}, sums = {"", 0};
    char path[sizeof(r.index_path)];

    if (!control_stanza(&text, &stanza) || !control_find(stanza, "SHA256", &sums))
        return error_set(err, EINVAL, "the mirror's Release file of '%s' lists no SHA256 digests",
                         suite);
    bool found = control_find(stanza, "Suite", &value) && slice_is(value, suite);
    if (control_find(stanza, "Codename", &codename))
        found |= slice_is(codename, suite);
    if (!found)
        return error_set(err, EINVAL, "the mirror's Release file is not that of suite '%s'", suite);
    if (codename.n < sizeof(r.codename))
        memcpy(r.codename, codename.p, codename.n);
    if (control_find(stanza, "Valid-Until", &value))
        r.valid_until = parse_date(value);
    r.by_hash = control_find(stanza, "Acquire-By-Hash", &value) && slice_is(value, "yes");
    if (control_find(stanza, "Architectures", &value) && !has_word(value, arch))
        return error_set(err, ENOENT,
                         "suite '%s' of the mirror has no packages for '%s', only for: %.*s", suite,
                         arch, (int)MIN(value.n, 200u), value.p);
    static const char *const names[] = {"Packages.xz", "Packages.gz", "Packages"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        (void)snprintf(path, sizeof(path), "main/binary-%s/%s", arch, names[i]);
        if (find_file(sums, path, &r)) {
            *ret = r;
            return 0;
        }
    }
    return error_set(err, ENOENT, "suite '%s' of the mirror has no package index for '%s'", suite,
                     arch);
}
