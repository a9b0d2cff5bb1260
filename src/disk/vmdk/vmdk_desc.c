/* VMDK: the descriptor, a text of `key=value` lines and lines that name extents.
 *
 *     # Disk DescriptorFile
 *     CID=123a681c
 *     parentCID=ffffffff
 *     createType="monolithicSparse"
 *     RW 6291456 SPARSE "disk.vmdk"
 *     RW 4194304 FLAT "disk-f001.vmdk" 0
 *     ddb.adapterType = "ide"
 *
 * Hostile: it may hold anything. What is unknown is kept, and does not matter.
 *
 * Threads: any. Spec: Virtual Disk Format 5.0, "The Descriptor File". */
#include "base/fd.h"
#include "disk/vmdk/vmdk.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *skip_blanks(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

static const char *next_line(const char *p)
{
    p += strcspn(p, "\r\n");
    return p + strspn(p, "\r\n");
}

/** The value on the line at @p, if its key is @key. */
static const char *value_of(const char *p, const char *key)
{
    size_t n = strlen(key);

    p = skip_blanks(p);
    if (strncasecmp(p, key, n) != 0)
        return NULL;
    p = skip_blanks(p + n);
    return *p == '=' ? skip_blanks(p + 1) : NULL;
}

/** The line of @key and its value; false: there is none. */
static bool find(const char *text, const char *key, const char **ret_line, const char **ret_value)
{
    for (const char *p = text; *p; p = next_line(p)) {
        const char *value = value_of(p, key);

        if (!value)
            continue;
        *ret_line = p;
        *ret_value = value;
        return true;
    }
    return false;
}

/** A copy of the value at @p, without its quotes. */
static char *copy_value(const char *p)
{
    if (*p == '"')
        return strndup(p + 1, strcspn(p + 1, "\"\r\n"));
    size_t n = strcspn(p, "\r\n");
    while (n && (p[n - 1] == ' ' || p[n - 1] == '\t'))
        n--;
    return strndup(p, n);
}

static uint32_t parse_cid(const char *text, const char *key)
{
    const char *line;
    const char *value;
    uint32_t cid = 0;

    if (!find(text, key, &line, &value) || !isxdigit((unsigned char)*value))
        return VMDK_NO_CID;
    for (unsigned i = 0; i < 8 && isxdigit((unsigned char)value[i]); i++)
        cid = cid << 4 | (uint32_t)(isdigit((unsigned char)value[i])
                                        ? value[i] - '0'
                                        : tolower((unsigned char)value[i]) - 'a' + 10);
    return cid;
}

static bool parse_number(const char **p, uint64_t *ret)
{
    const char *at = skip_blanks(*p);

    *ret = 0;
    if (!isdigit((unsigned char)*at))
        return false;
    for (; isdigit((unsigned char)*at); at++) {
        if (!checked_mul(*ret, (uint64_t)10, ret) || !checked_add(*ret, (uint64_t)(*at - '0'), ret))
            return false;
    }
    *p = at;
    return true;
}

/** Does the line at @p name an extent? Then @p is moved behind the access. */
static bool is_extent(const char **p, bool *ret_readonly)
{
    static const struct {
        const char *name;
        bool readonly;
    } access[] = {
        {"RW ",       false},
        {"RDONLY ",   true },
        {"NOACCESS ", true },
    };
    const char *at = skip_blanks(*p);

    for (size_t i = 0; i < ARRAY_SIZE(access); i++) {
        size_t n = strlen(access[i].name);

        if (strncmp(at, access[i].name, n) != 0)
            continue;
        *p = at + n;
        *ret_readonly = access[i].readonly;
        return true;
    }
    return false;
}

/** `SIZE KIND "NAME" OFFSET`. */
static int parse_extent(const char *p, struct vmdk_line *l)
{
    if (!parse_number(&p, &l->sectors) || l->sectors > DISK_MAX_BYTES / DISK_SECTOR)
        return -EINVAL;
    p = skip_blanks(p);
    size_t n = strcspn(p, " \t\r\n");
    if (!n || n >= sizeof(l->kind))
        return -EINVAL;
    memcpy(l->kind, p, n);
    p = skip_blanks(p + n);
    if (*p != '"')
        return strcmp(l->kind, "ZERO") != 0 ? -EINVAL : 0;
    n = strcspn(p + 1, "\"\r\n");
    if (!n || p[1 + n] != '"')
        return -EINVAL;
    l->name = strndup(p + 1, n);
    if (!l->name)
        return -ENOMEM;
    p = skip_blanks(p + 1 + n + 1);
    if (isdigit((unsigned char)*p) &&
        (!parse_number(&p, &l->offset_sectors) || l->offset_sectors > DISK_MAX_BYTES / DISK_SECTOR))
        return -EINVAL;
    return 0;
}

static int parse_extents(struct vmdk_desc *d, const char *path, struct error *err)
{
    unsigned line = 1;

    for (const char *p = d->text; *p; p = next_line(p), line++) {
        struct vmdk_line l = {.sectors = 0};
        const char *at = p;

        if (!is_extent(&at, &l.readonly))
            continue;
        if (d->count == VMDK_MAX_EXTENTS)
            return error_set(err, EFBIG, "disk '%s' has more than %u extents", path,
                             VMDK_MAX_EXTENTS);
        struct vmdk_line *lines = realloc(d->lines, (d->count + 1) * sizeof(*lines));
        if (!lines)
            return error_set(err, ENOMEM, "out of memory");
        d->lines = lines;
        int rc = parse_extent(at, &l);
        lines[d->count++] = l;
        if (rc)
            return error_set(err, -rc, "disk '%s': line %u of its descriptor, an extent, is wrong",
                             path, line);
    }
    return 0;
}

int vmdk_desc_parse(const char *text, size_t size, const char *path, struct vmdk_desc *ret,
                    struct error *err)
{
    struct vmdk_desc d = {.text = strndup(text, size)};
    const char *line;
    const char *value;
    int rc = 0;

    if (!d.text)
        return error_set(err, ENOMEM, "out of memory");
    d.cid = parse_cid(d.text, "CID");
    d.parent_cid = parse_cid(d.text, "parentCID");
    if (d.parent_cid != VMDK_NO_CID && find(d.text, "parentFileNameHint", &line, &value)) {
        d.parent = copy_value(value);
        if (!d.parent)
            rc = error_set(err, ENOMEM, "out of memory");
    }
    if (find(d.text, "createType", &line, &value)) {
        cleanup(freep) char *type = copy_value(value);

        (void)snprintf(d.create_type, sizeof(d.create_type), "%s", type ? type : "");
    }
    if (!rc)
        rc = parse_extents(&d, path, err);
    if (!rc && d.parent_cid != VMDK_NO_CID && (!d.parent || !*d.parent))
        rc = error_set(err, EINVAL, "disk '%s' has a parent, but does not say which", path);
    if (rc)
        vmdk_desc_done(&d);
    else
        *ret = d;
    return rc;
}

void vmdk_desc_done(struct vmdk_desc *desc)
{
    for (unsigned i = 0; i < desc->count; i++)
        free(desc->lines[i].name);
    free(desc->lines);
    free(desc->parent);
    free(desc->text);
    *desc = (struct vmdk_desc){.text = NULL};
}

bool vmdk_desc_find_cid(const char *text, size_t *ret_at, size_t *ret_digits)
{
    const char *line;
    const char *value;

    if (!find(text, "CID", &line, &value))
        return false;
    *ret_at = (size_t)(value - text);
    *ret_digits = 0;
    while (*ret_digits < 8 && isxdigit((unsigned char)value[*ret_digits]))
        ++*ret_digits;
    return *ret_digits > 0;
}

char *vmdk_desc_set(const char *text, const char *key, const char *value, bool quote)
{
    const char *q = quote ? "\"" : "";
    const char *line;
    const char *old;
    char *ret = NULL;

    if (find(text, key, &line, &old)) {
        const char *rest = next_line(line);
        int rc = value ? asprintf(&ret, "%.*s%s=%s%s%s\n%s", (int)(line - text), text, key, q,
                                  value, q, rest)
                       : asprintf(&ret, "%.*s%s", (int)(line - text), text, rest);

        return rc < 0 ? NULL : ret;
    }
    if (!value)
        return strdup(text);
    if (find(text, "createType", &line, &old))
        line = next_line(line);
    else
        line = text + strlen(text);
    if (asprintf(&ret, "%.*s%s=%s%s%s\n%s", (int)(line - text), text, key, q, value, q, line) < 0)
        return NULL;
    return ret;
}

char *vmdk_desc_set_sectors(const char *text, uint64_t sectors)
{
    char *ret = NULL;
    bool readonly;

    for (const char *p = text; *p; p = next_line(p)) {
        const char *at = p;

        if (!is_extent(&at, &readonly))
            continue;
        at = skip_blanks(at);
        const char *rest = at + strspn(at, "0123456789");
        if (asprintf(&ret, "%.*s%" PRIu64 "%s", (int)(at - text), text, sectors, rest) < 0)
            return NULL;
        return ret;
    }
    return strdup(text);
}
