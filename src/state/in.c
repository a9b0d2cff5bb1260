/* Reading saved state. Format: docs/formats/state.md.
 *
 * Invariant: everything is checked against the data's length when it is indexed; later calls trust
 * the index.
 *
 * Threads: any number after state_in_new(); which fields were read is kept in atomics. */
#include "base/bits.h"
#include "base/fd.h"
#include "state/state_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#define SECTIONS_MAX 1024
#define FIELDS_MAX   512 /* of one section */

struct field {
    char name[STATE_NAME_MAX + 1];
    enum state_type type;
    uint32_t count;
    const uint8_t *data;
    bool read; /* [atomic] */
};

struct state_section {
    char name[STATE_NAME_MAX + 1];
    uint32_t instance, version;
    struct field *fields;
    size_t field_count;
};

struct state_in {
    struct state_section *sections;
    size_t section_count;
};

/** What is left to parse. */
struct cursor {
    const uint8_t *at;
    size_t left;
};

static bool take(struct cursor *c, size_t size, const uint8_t **ret)
{
    if (size > c->left)
        return false;
    *ret = c->at;
    c->at += size;
    c->left -= size;
    return true;
}

static bool take_u32(struct cursor *c, uint32_t *ret)
{
    const uint8_t *p;

    if (!take(c, 4, &p))
        return false;
    *ret = load_le32(p);
    return true;
}

static bool take_name(struct cursor *c, char *buf)
{
    const uint8_t *n;
    const uint8_t *text;

    if (!take(c, 1, &n) || !*n || *n > STATE_NAME_MAX || !take(c, *n, &text))
        return false;
    for (size_t i = 0; i < *n; i++) {
        if (text[i] <= ' ' || text[i] >= 0x7f)
            return false;
    }
    memcpy(buf, text, *n);
    buf[*n] = 0;
    return true;
}

static bool take_field(struct cursor *c, struct field *ret)
{
    const uint8_t *type;
    struct field f = {.read = false};
    size_t bytes;

    if (!take_name(c, f.name) || !take(c, 1, &type) || *type == STATE_END || *type >= STATE_TYPES ||
        !take_u32(c, &f.count))
        return false;
    f.type = (enum state_type) * type;
    if (!checked_mul((size_t)f.count, state_type_bytes(f.type), &bytes) || !take(c, bytes, &f.data))
        return false;
    *ret = f;
    return true;
}

static struct field *find_field(const struct state_section *s, const char *name)
{
    for (size_t i = 0; i < s->field_count; i++) {
        if (!strcmp(s->fields[i].name, name))
            return &s->fields[i];
    }
    return NULL;
}

static int damaged(struct error *err, const char *what)
{
    return error_set(err, EINVAL, "the saved state is damaged: %s", what);
}

static int parse_fields(struct state_section *s, struct cursor body, struct error *err)
{
    struct field f;

    while (body.left) {
        if (s->field_count == FIELDS_MAX || !take_field(&body, &f))
            return damaged(err, "a field is cut off");
        if (find_field(s, f.name))
            return damaged(err, "a field is there twice");
        struct field *fields = reallocarray(s->fields, s->field_count + 1, sizeof(*fields));
        if (!fields)
            return error_set(err, ENOMEM, "out of memory");
        s->fields = fields;
        fields[s->field_count++] = f;
    }
    return 0;
}

static int parse_section(struct state_in *in, struct cursor *c, struct error *err)
{
    struct state_section s = {.field_count = 0};
    struct cursor body;
    uint32_t size;

    if (in->section_count == SECTIONS_MAX || !take_name(c, s.name) || !take_u32(c, &s.instance) ||
        !take_u32(c, &s.version) || !take_u32(c, &size) || !take(c, size, &body.at))
        return damaged(err, "a section is cut off");
    body.left = size;
    if (state_has(in, s.name, s.instance))
        return damaged(err, "a section is there twice");
    struct state_section *sections =
        reallocarray(in->sections, in->section_count + 1, sizeof(*sections));
    if (!sections)
        return error_set(err, ENOMEM, "out of memory");
    in->sections = sections;
    sections[in->section_count] = s;
    return parse_fields(&sections[in->section_count++], body, err);
}

static int parse(struct state_in *in, const uint8_t *data, size_t size, struct error *err)
{
    struct cursor c = {.at = data, .left = size};
    const uint8_t *head;
    int rc = 0;

    if (!take(&c, STATE_HEAD_BYTES, &head) || memcmp(head, STATE_MAGIC, 8) != 0)
        return error_set(err, EINVAL, "this is not a saved state");
    if (load_le32(head + 8) != size)
        return damaged(err, "its length is not what it says");
    if (load_le32(head + 12) != (uint32_t)crc32(0, c.at, (uInt)c.left))
        return damaged(err, "its checksum does not match");
    while (!rc && c.left)
        rc = parse_section(in, &c, err);
    return rc;
}

int state_in_new(const void *data, size_t size, struct state_in **ret, struct error *err)
{
    struct state_in *in = calloc(1, sizeof(*in));

    if (!in)
        return error_set(err, ENOMEM, "out of memory");
    int rc = size > UINT32_MAX ? damaged(err, "it is too long") : parse(in, data, size, err);
    if (rc) {
        state_in_free(in);
        return rc;
    }
    *ret = in;
    return 0;
}

void state_in_free(struct state_in *in)
{
    if (!in)
        return;
    for (size_t i = 0; i < in->section_count; i++)
        free(in->sections[i].fields);
    free(in->sections);
    free(in);
}

static const struct state_section *find_section(const struct state_in *in, const char *name,
                                                unsigned instance)
{
    for (size_t i = 0; i < in->section_count; i++) {
        if (in->sections[i].instance == instance && !strcmp(in->sections[i].name, name))
            return &in->sections[i];
    }
    return NULL;
}

bool state_has(const struct state_in *in, const char *name, unsigned instance)
{
    return find_section(in, name, instance);
}

int state_find(const struct state_in *in, const char *name, unsigned instance, unsigned version,
               const struct state_section **ret, struct error *err)
{
    const struct state_section *s = find_section(in, name, instance);

    if (!s)
        return error_set(err, EINVAL, "the saved state lacks %s %u", name, instance);
    if (!s->version || s->version > version)
        return error_set(err, EINVAL,
                         "the saved state of %s %u has version %u, and this program knows up to %u",
                         name, instance, s->version, version);
    *ret = s;
    return 0;
}

bool state_has_field(const struct state_section *s, const char *name)
{
    return find_field(s, name);
}

unsigned state_version(const struct state_section *s)
{
    return s->version;
}

int state_bad(const struct state_section *s, struct error *err, const char *fmt, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return error_set(err, EINVAL, "saved state of %s %u: %s", s->name, s->instance, text);
}

static void get_elements(const struct field *f, uint8_t *to)
{
    size_t size = state_type_bytes(f->type);
    const uint8_t *from = f->data;

    for (uint32_t i = 0; i < f->count; i++, from += size, to += size) {
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;

        switch (f->type) {
        case STATE_BOOL:
        case STATE_U8:
            *to = *from;
            break;
        case STATE_U16:
            u16 = load_le16(from);
            memcpy(to, &u16, 2);
            break;
        case STATE_U32:
            u32 = load_le32(from);
            memcpy(to, &u32, 4);
            break;
        case STATE_U64:
            u64 = load_le64(from);
            memcpy(to, &u64, 8);
            break;
        case STATE_END:
        case STATE_TYPES:
            break;
        }
    }
}

/** Has the section what @want describes, in a form that can be stored? */
static int check_field(const struct state_section *s, const struct state_field *want,
                       struct error *err)
{
    const struct field *f = find_field(s, want->name);

    if (!f && want->flags & STATE_OPTIONAL)
        return 0;
    if (!f)
        return state_bad(s, err, "it lacks '%s'", want->name);
    if (f->type != want->type || f->count != want->count)
        return state_bad(s, err, "'%s' has another type", want->name);
    for (uint32_t i = 0; f->type == STATE_BOOL && i < f->count; i++) {
        if (f->data[i] > 1)
            return state_bad(s, err, "'%s' is neither true nor false", want->name);
    }
    return 0;
}

static void mark_read(struct field *f)
{
    __atomic_store_n(&f->read, true,
                     __ATOMIC_RELAXED); /* read by state_check_all_read(), orders nothing */
}

int state_get(const struct state_section *s, const struct state_field *fields, void *object,
              struct error *err)
{
    int rc = 0;

    for (const struct state_field *w = fields; w->name && !rc; w++)
        rc = check_field(s, w, err);
    for (const struct state_field *w = fields; w->name && !rc; w++) {
        struct field *f = find_field(s, w->name);

        if (!f)
            continue;
        get_elements(f, (uint8_t *)object + w->offset);
        mark_read(f);
    }
    return rc;
}

int state_get_u64(const struct state_section *s, const char *name, uint64_t *ret, struct error *err)
{
    struct state_field want = {.name = name, .type = STATE_U64, .count = 1};

    return state_get(s, (const struct state_field[]){want, {0}}, ret, err);
}

int state_get_bytes(const struct state_section *s, const char *name, size_t max,
                    const uint8_t **ret, size_t *ret_size, struct error *err)
{
    struct field *f = find_field(s, name);

    if (!f)
        return state_bad(s, err, "it lacks '%s'", name);
    if (f->type != STATE_U8 || f->count > max)
        return state_bad(s, err, "'%s' is too long or has another type", name);
    mark_read(f);
    *ret = f->data;
    *ret_size = f->count;
    return 0;
}

int state_check_all_read(const struct state_section *s, struct error *err)
{
    for (size_t i = 0; i < s->field_count; i++) {
        if (!__atomic_load_n(&s->fields[i].read, __ATOMIC_RELAXED))
            return state_bad(s, err, "'%s' is not known here", s->fields[i].name);
    }
    return 0;
}

int state_load(const struct state_in *in, const char *name, unsigned instance, unsigned version,
               const struct state_field *fields, void *object, struct error *err)
{
    const struct state_section *s;
    int rc = state_find(in, name, instance, version, &s, err);

    if (!rc)
        rc = state_get(s, fields, object, err);
    return rc ? rc : state_check_all_read(s, err);
}
