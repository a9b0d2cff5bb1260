/* Text that comes from a mirror or a user: names, sources, Release, Packages. The first byte
 * chooses the parser. */
#include "image/image.h"
#include "image/mirror.h"
#include "image/resolve.h"
#include "image/suite.h"
#include "image/version.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_index(const char *data, size_t size)
{
    char *text = malloc(size + 1);
    struct index *index = NULL;
    const char *names[] = {"a", "libc6 (>= 2) | b", NULL};
    struct package_set set = {0};

    if (!text)
        return;
    memcpy(text, data, size);
    if (index_new(text, size, &index, NULL))
        return;
    for (int i = 0; i < 2; i++)
        if (package_set_resolve(&set, index, names + i, i, NULL))
            break;
    assert(set.count <= index_count(index));
    package_set_done(&set);
    index_free(index);
}

static void try_version(const char *data, size_t size)
{
    struct slice rest = {data, size}, a, b;

    if (!slice_cut(&rest, ' ', &a))
        return;
    b = rest;
    int forth = version_compare(a, b), back = version_compare(b, a);
    assert((forth < 0) == (back > 0) && (forth > 0) == (back < 0));
    assert(!version_compare(a, a));
}

static void try_spec(const char *data, size_t size)
{
    char *text = strndup(data, size);
    char name[IMAGE_NAME_MAX];
    struct image_spec spec;

    if (text && !image_spec_parse(text, NULL, NULL, &spec, NULL)) {
        image_spec_name(&spec, name);
        assert(image_spec_is_valid(name));
    }
    if (text)
        (void)!image_spec_parse("tiny", text, text, &spec, NULL);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;
    char mirror[IMAGE_MIRROR_MAX];
    struct release release;

    if (!size--)
        return 0;
    switch (data[0]) {
    case 'p':
        try_index(text, size);
        break;
    case 'r':
        (void)!release_parse((struct slice){text, size}, "trixie", "riscv64", &release, NULL);
        break;
    case 'm':
    case 'l':
        (void)!mirror_parse((struct slice){text, size}, data[0] == 'm', mirror);
        break;
    case 'v':
        try_version(text, size);
        break;
    case 's':
        try_spec(text, size);
        break;
    }
    return 0;
}
