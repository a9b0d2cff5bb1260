/* Image names: "KIND[:SUITE]" with an architecture and a mirror, parsed and printed.
 *
 * Invariant: every word accepted here is safe as part of a file name, of a URL path and of a line
 * in a sources.list. Any thread. */
#include "image/image.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/** With less memory than least_mib the kernel has no room for its initrd, unpacked, or the guest
 * not for what it starts: it would panic, or be slow without end. */
static const struct {
    const char *word;
    enum image_kind kind;
    unsigned least_mib;
} kinds[] = {
    {"tiny",   IMAGE_TINY,   128},
    {"debian", IMAGE_DEBIAN, 256},
};

/** Lower-case letters, digits, '.', '+', '-', beginning with a letter or a digit. */
static bool is_word(const char *s, size_t n)
{
    if (!n || n >= IMAGE_WORD_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        bool plain = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= '0' && s[i] <= '9');

        if (!plain && (!i || !strchr(".+-", s[i]) || !s[i]))
            return false;
    }
    return true;
}

/** An http, https or file URL without bytes that have a meaning elsewhere. */
static bool is_mirror(const char *s)
{
    size_t n = strlen(s);

    if (n >= IMAGE_MIRROR_MAX || strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                           "0123456789:/.-_~+%@,[]") != n)
        return false;
    return (!strncmp(s, "http://", 7) && s[7] && s[7] != '/') ||
           (!strncmp(s, "https://", 8) && s[8] && s[8] != '/') || !strncmp(s, "file:///", 8);
}

static int parse_mirror(const char *mirror, struct image_spec *spec, struct error *err)
{
    char stripped[IMAGE_MIRROR_MAX];
    size_t n = strlen(mirror);

    while (n && mirror[n - 1] == '/')
        n--;
    if (n < sizeof(stripped)) {
        memcpy(stripped, mirror, n);
        stripped[n] = 0;
    }
    if (n >= sizeof(stripped) || !is_mirror(stripped))
        return error_set(err, EINVAL,
                         "'%.200s' is not a mirror's address: expected http://HOST/PATH, "
                         "https://HOST/PATH or file:///PATH",
                         mirror);
    memcpy(spec->mirror, stripped, n + 1);
    return 0;
}

/** "KIND[:SUITE][/ARCH]" into @spec; false if malformed. */
static bool parse_text(const char *text, struct image_spec *spec)
{
    size_t kind_size = strcspn(text, ":/");
    size_t i;

    for (i = 0; i < ARRAY_SIZE(kinds); i++)
        if (strlen(kinds[i].word) == kind_size && !memcmp(kinds[i].word, text, kind_size))
            break;
    if (i == ARRAY_SIZE(kinds))
        return false;
    spec->kind = kinds[i].kind;
    text += kind_size;
    if (*text == ':') {
        size_t n = strcspn(++text, "/");

        if (!is_word(text, n))
            return false;
        memcpy(spec->suite, text, n);
        spec->suite[n] = 0;
        text += n;
    }
    if (*text == '/') {
        size_t n = strlen(++text);

        if (!is_word(text, n))
            return false;
        memcpy(spec->arch, text, n + 1);
    }
    return true;
}

static void spec_init(struct image_spec *spec)
{
    *spec = (struct image_spec){
        .suite = IMAGE_DEFAULT_SUITE,
        .arch = IMAGE_DEFAULT_ARCH,
        .disk_bytes = IMAGE_DEFAULT_DISK_BYTES,
    };
}

int image_spec_parse(const char *text, const char *arch, const char *mirror, struct image_spec *ret,
                     struct error *err)
{
    struct image_spec spec;

    spec_init(&spec);
    if (!parse_text(text, &spec))
        return error_set(err, EINVAL,
                         "'%.100s' is not an image: expected tiny or debian, with an optional "
                         "suite, as in debian:sid",
                         text);
    if (arch) {
        if (!is_word(arch, strlen(arch)))
            return error_set(err, EINVAL,
                             "'%.100s' is not an architecture: expected Debian's name for one, as "
                             "riscv64",
                             arch);
        memcpy(spec.arch, arch, strlen(arch) + 1);
    }
    if (mirror) {
        int r = parse_mirror(mirror, &spec, err);

        if (r)
            return r;
    }
    *ret = spec;
    return 0;
}

bool image_spec_is_valid(const char *text)
{
    struct image_spec spec;

    spec_init(&spec);
    return parse_text(text, &spec);
}

void image_spec_name(const struct image_spec *spec, char ret[IMAGE_NAME_MAX])
{
    const char *kind = kinds[spec->kind].word;
    bool has_suite = spec->kind != IMAGE_TINY || strcmp(spec->suite, IMAGE_DEFAULT_SUITE);
    bool has_arch = strcmp(spec->arch, IMAGE_DEFAULT_ARCH);

    (void)snprintf(ret, IMAGE_NAME_MAX, "%s%s%s%s%s", kind, has_suite ? ":" : "",
                   has_suite ? spec->suite : "", has_arch ? "/" : "", has_arch ? spec->arch : "");
}

int image_check_memory(const char *name, uint64_t bytes, struct error *err)
{
    size_t n = strcspn(name, ":/");

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strlen(kinds[i].word) == n && !strncmp(kinds[i].word, name, n) &&
            bytes >> 20 < kinds[i].least_mib)
            return error_set(err, EINVAL, "memory: a guest of image '%s' needs at least %uM", name,
                             kinds[i].least_mib);
    }
    return 0;
}
