/* The mirror of the host's apt. Unreadable or odd files count as empty: there is a default. Any
 * thread. Formats: sources.list(5). */
#include "image/mirror.h"

#include "base/fd.h"
#include "base/paths.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define SOURCES_MAX (1u << 20)

/** A usable Debian archive? Copies it to @ret without a final '/'. */
static bool take_uri(struct slice uri, char ret[IMAGE_MIRROR_MAX])
{
    struct image_spec spec;
    char text[IMAGE_MIRROR_MAX];

    while (uri.n && uri.p[uri.n - 1] == '/')
        uri.n--;
    if (uri.n >= sizeof(text) || uri.n < 7 || memcmp(uri.p + uri.n - 7, "/debian", 7) ||
        !slice_starts(uri, "http"))
        return false;
    memcpy(text, uri.p, uri.n);
    text[uri.n] = 0;
    if (image_spec_parse("debian", NULL, text, &spec, NULL))
        return false;
    memcpy(ret, spec.mirror, sizeof(spec.mirror));
    return true;
}

static bool has_word(struct slice list, const char *word)
{
    for (struct slice w; slice_word(&list, &w);)
        if (slice_is(w, word))
            return true;
    return false;
}

static bool parse_deb822(struct slice text, char ret[IMAGE_MIRROR_MAX])
{
    for (struct slice stanza; control_stanza(&text, &stanza);) {
        struct slice value, uri;

        if (control_find(stanza, "Enabled", &value) &&
            (slice_is(value, "no") || slice_is(value, "false")))
            continue;
        if (!control_find(stanza, "Types", &value) || !has_word(value, "deb"))
            continue;
        if (!control_find(stanza, "URIs", &value))
            continue;
        while (slice_word(&value, &uri))
            if (take_uri(uri, ret))
                return true;
    }
    return false;
}

/** Lines "deb [options] URI SUITE COMPONENT...". */
static bool parse_lines(struct slice text, char ret[IMAGE_MIRROR_MAX])
{
    for (struct slice line; slice_cut(&text, '\n', &line);) {
        struct slice word;

        if (!slice_word(&line, &word) || !slice_is(word, "deb"))
            continue;
        line = slice_trim(line);
        if (line.n && line.p[0] == '[') {
            const char *end = memchr(line.p, ']', line.n);

            if (!end)
                continue;
            line.n -= (size_t)(end + 1 - line.p);
            line.p = end + 1;
        }
        if (slice_word(&line, &word) && take_uri(word, ret))
            return true;
    }
    return false;
}

bool mirror_parse(struct slice text, bool is_deb822, char ret[IMAGE_MIRROR_MAX])
{
    return is_deb822 ? parse_deb822(text, ret) : parse_lines(text, ret);
}

static bool try_file(const char *path, char ret[IMAGE_MIRROR_MAX])
{
    cleanup(freep) char *text = NULL;
    const char *dot = strrchr(path, '.');
    size_t size = 0;
    bool is_deb822 = dot && !strcmp(dot, ".sources");

    if (!is_deb822 && (!dot || strcmp(dot, ".list")))
        return false;
    return !paths_read(path, SOURCES_MAX, &text, &size, NULL) &&
           mirror_parse((struct slice){text, size}, is_deb822, ret);
}

void mirror_of_host(const char *root, char ret[IMAGE_MIRROR_MAX])
{
    char path[512];
    struct dirent **names = NULL;
    bool found;

    (void)snprintf(path, sizeof(path), "%s/etc/apt/sources.list", root);
    found = try_file(path, ret);
    (void)snprintf(path, sizeof(path), "%s/etc/apt/sources.list.d", root);
    int n = found ? 0 : scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        (void)snprintf(path, sizeof(path), "%s/etc/apt/sources.list.d/%s", root, names[i]->d_name);
        found = found || try_file(path, ret);
        free(names[i]);
    }
    free(names);
    if (!found)
        (void)snprintf(ret, IMAGE_MIRROR_MAX, "%s", MIRROR_DEFAULT);
}
