/* Index of packages.
 *
 * Invariants:
 *  1. Every slice of a package points into index->text.
 *  2. packages[] is never moved once the hash tables point into it (its size is counted first).
 *  3. The text is hostile: a stanza without the needed fields is left out, and memory stays
 *     proportional to the text.
 * One thread. Format: Debian repository format, "Packages" indices; relations: Policy §7.1. */
#include "image/index.h"

#include "image/version.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct provide {
    struct slice name, version;
    struct package *package;
    struct provide *next;
};

struct index {
    char *text;
    struct package *packages;
    size_t package_count;
    struct provide *provides;
    size_t provide_count;
    size_t mask; /* buckets - 1 of both tables */
    struct package **by_name;
    struct provide **by_provide;
};

static uint64_t hash(struct slice s)
{
    uint64_t h = 0xcbf29ce484222325; /* FNV-1a */

    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3;
    return h ^ h >> 32;
}

static void set_field(struct package *p, struct slice name, struct slice value)
{
    static const struct {
        const char *name;
        size_t offset;
    } slices[] = {
        {"Package",      offsetof(struct package, name)       },
        {"Version",      offsetof(struct package, version)    },
        {"Architecture", offsetof(struct package, arch)       },
        {"Filename",     offsetof(struct package, filename)   },
        {"SHA256",       offsetof(struct package, sha256)     },
        {"Depends",      offsetof(struct package, depends)    },
        {"Pre-Depends",  offsetof(struct package, pre_depends)},
        {"Provides",     offsetof(struct package, provides)   },
    };

    for (size_t i = 0; i < ARRAY_SIZE(slices); i++) {
        if (control_name_is(name, slices[i].name)) {
            memcpy((char *)p + slices[i].offset, &value, sizeof(value));
            return;
        }
    }
    if (control_name_is(name, "Size"))
        (void)slice_number(value, &p->size); /* malformed stays 0, which the caller rejects */
    else if (control_name_is(name, "Priority"))
        p->priority = slice_is(value, "required")    ? PRIORITY_REQUIRED
                      : slice_is(value, "important") ? PRIORITY_IMPORTANT
                                                     : PRIORITY_OTHER;
    else if (control_name_is(name, "Essential"))
        p->essential = slice_is(value, "yes");
}

/** A path of the mirror: relative, within it, without bytes that a URL or a file name gives a
 * meaning to. */
static bool is_safe_path(struct slice path)
{
    if (!path.n || path.p[0] == '/' || path.n > 1000)
        return false;
    for (size_t i = 0; i < path.n; i++) {
        char c = path.p[i];

        if (c <= ' ' || c == '?' || c == '#' || c == 0x7f || c == '\\')
            return false;
        if (c == '.' && i + 1 < path.n && path.p[i + 1] == '.' && (!i || path.p[i - 1] == '/') &&
            (i + 2 == path.n || path.p[i + 2] == '/'))
            return false;
    }
    return true;
}

/** Names go into file names and shell scripts: Policy §5.6.7's alphabet only. */
static bool is_safe_name(struct slice name)
{
    if (!name.n || name.n > 200 || strchr("+-.", name.p[0]))
        return false;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.'))
            return false;
    }
    return true;
}

static bool parse_package(struct slice stanza, struct package *ret)
{
    static const struct slice empty = {"", 0};
    struct package p = {.name = empty,
                        .version = empty,
                        .arch = empty,
                        .filename = empty,
                        .sha256 = empty,
                        .depends = empty,
                        .pre_depends = empty,
                        .provides = empty};
    struct slice name, value;

    while (control_field(&stanza, &name, &value))
        set_field(&p, name, value);
    if (!is_safe_name(p.name) || !p.version.n || !is_safe_path(p.filename) || p.sha256.n != 64 ||
        !p.size)
        return false;
    *ret = p;
    return true;
}

bool relation_parse(struct slice text, struct relation *ret)
{
    struct relation r = {
        .op = {"", 0},
          .version = {"", 0}
    };
    size_t n = 0;

    text = slice_trim(text);
    while (n < text.n && !strchr(" \t\r\n(:[<", text.p[n]))
        n++;
    r.name = (struct slice){text.p, n};
    if (!is_safe_name(r.name))
        return false;
    const char *open = memchr(text.p, '(', text.n);
    if (open) {
        struct slice in = {open + 1, (size_t)(text.p + text.n - open - 1)};
        const char *close = memchr(in.p, ')', in.n);

        if (!close)
            return false;
        in.n = (size_t)(close - in.p);
        in = slice_trim(in);
        n = 0;
        while (n < in.n && strchr("<>=", in.p[n]) && in.p[n])
            n++;
        r.op = (struct slice){in.p, n};
        r.version = slice_trim((struct slice){in.p + n, in.n - n});
        if (!n || !r.version.n)
            return false;
    }
    *ret = r;
    return true;
}

static void add_package(struct index *index, struct package *p)
{
    size_t bucket = hash(p->name) & index->mask;

    p->next = index->by_name[bucket];
    index->by_name[bucket] = p;
    for (struct slice rest = p->provides, one; slice_cut(&rest, ',', &one);) {
        struct relation r;

        if (!relation_parse(one, &r))
            continue;
        struct provide *v = &index->provides[index->provide_count++];
        bucket = hash(r.name) & index->mask;
        *v = (struct provide){r.name, r.version, p, index->by_provide[bucket]};
        index->by_provide[bucket] = v;
    }
}

static int allocate(struct index *index, size_t packages, size_t provides)
{
    size_t buckets = 64;

    while (buckets < packages)
        buckets *= 2;
    index->mask = buckets - 1;
    index->packages = calloc(packages + 1, sizeof(*index->packages));
    index->provides = calloc(provides + 1, sizeof(*index->provides));
    index->by_name = calloc(buckets, sizeof(struct package *));
    index->by_provide = calloc(buckets, sizeof(struct provide *));
    return index->packages && index->provides && index->by_name && index->by_provide ? 0 : -ENOMEM;
}

int index_new(char *text, size_t size, struct index **ret, struct error *err)
{
    struct index *index = calloc(1, sizeof(*index));
    struct slice rest, stanza, one;
    struct package p;
    size_t packages = 0, provides = 0;

    if (!index) {
        free(text);
        return error_set(err, ENOMEM, "out of memory");
    }
    index->text = text;
    for (rest = (struct slice){text, size}; control_stanza(&rest, &stanza);) {
        if (!parse_package(stanza, &p))
            continue;
        packages++;
        for (struct slice list = p.provides; slice_cut(&list, ',', &one);)
            provides++;
    }
    if (!packages || allocate(index, packages, provides)) {
        index_free(index);
        return packages ? error_set(err, ENOMEM, "out of memory")
                        : error_set(err, EINVAL, "the package index holds no package");
    }
    for (rest = (struct slice){text, size}; control_stanza(&rest, &stanza);) {
        if (!parse_package(stanza, &p))
            continue;
        index->packages[index->package_count] = p;
        add_package(index, &index->packages[index->package_count++]);
    }
    *ret = index;
    return 0;
}

void index_free(struct index *index)
{
    if (!index)
        return;
    free(index->text);
    free(index->packages);
    free(index->provides);
    free(index->by_name);
    free(index->by_provide);
    free(index);
}

struct package *index_find(struct index *index, struct slice name)
{
    struct package *best = NULL;

    for (struct package *p = index->by_name[hash(name) & index->mask]; p; p = p->next)
        if (slice_equal(p->name, name) && (!best || version_compare(p->version, best->version) > 0))
            best = p;
    return best;
}

bool index_each_provider(struct index *index, struct slice name,
                         bool (*fn)(struct package *p, struct slice version, void *arg), void *arg)
{
    for (struct provide *v = index->by_provide[hash(name) & index->mask]; v; v = v->next)
        if (slice_equal(v->name, name) && fn(v->package, v->version, arg))
            return true;
    return false;
}

size_t index_count(const struct index *index)
{
    return index->package_count;
}

struct package *index_at(struct index *index, size_t i)
{
    assert(i < index->package_count);
    return &index->packages[i];
}
