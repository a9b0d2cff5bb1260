/* Writing saved state. Format: docs/formats/state.md.
 *
 * Threads: one. */
#include "base/bits.h"
#include "state/state_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

struct state_out {
    uint8_t *data;
    size_t size, room;
    size_t section; /* where the present section's body length stands; 0 = none is open */
    bool failed;
};

static const uint8_t sizes[STATE_TYPES] = {
    [STATE_BOOL] = 1, [STATE_U8] = 1, [STATE_U16] = 2, [STATE_U32] = 4, [STATE_U64] = 8,
};

size_t state_type_bytes(enum state_type type)
{
    return sizes[type];
}

static void *extend(struct state_out *out, size_t size)
{
    if (!out || out->failed)
        return NULL;
    if (size > out->room - out->size) {
        size_t room = MAX(out->room * 2, out->size + size);
        uint8_t *data = realloc(out->data, room);

        if (!data) {
            out->failed = true;
            return NULL;
        }
        out->data = data;
        out->room = room;
    }
    void *at = out->data + out->size;
    out->size += size;
    return at;
}

static void append(struct state_out *out, const void *data, size_t size)
{
    void *at = extend(out, size);

    if (at && size)
        memcpy(at, data, size);
}

static void append_name(struct state_out *out, const char *name)
{
    size_t n = strlen(name);
    uint8_t length = (uint8_t)n;

    assert(n >= 1 && n <= STATE_NAME_MAX);
    append(out, &length, 1);
    append(out, name, n);
}

static void append_u32(struct state_out *out, uint32_t value)
{
    uint8_t bytes[4];

    store_le32(bytes, value);
    append(out, bytes, sizeof(bytes));
}

struct state_out *state_out_new(void)
{
    struct state_out *out = calloc(1, sizeof(*out));
    uint8_t head[STATE_HEAD_BYTES] = {0}; /* filled by state_out_take() */

    append(out, head, sizeof(head));
    return out;
}

void state_out_free(struct state_out *out)
{
    if (!out)
        return;
    free(out->data);
    free(out);
}

void state_begin(struct state_out *out, const char *name, unsigned instance, unsigned version)
{
    if (!out)
        return;
    assert(!out->section && version);
    append_name(out, name);
    append_u32(out, instance);
    append_u32(out, version);
    out->section = out->size;
    append_u32(out, 0);
}

void state_end(struct state_out *out)
{
    if (!out)
        return;
    assert(out->section);
    if (!out->failed)
        store_le32(out->data + out->section, (uint32_t)(out->size - out->section - 4));
    out->section = 0;
}

static void begin_field(struct state_out *out, const char *name, enum state_type type, size_t count)
{
    uint8_t t = (uint8_t)type;

    assert(!out || out->section);
    assert(count <= UINT32_MAX);
    append_name(out, name);
    append(out, &t, 1);
    append_u32(out, (uint32_t)count);
}

static void put_elements(struct state_out *out, enum state_type type, size_t count,
                         const uint8_t *from)
{
    uint8_t *to = extend(out, count * sizes[type]);

    for (size_t i = 0; to && i < count; i++, from += sizes[type], to += sizes[type]) {
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;

        switch (type) {
        case STATE_BOOL:
        case STATE_U8:
            *to = *from;
            break;
        case STATE_U16:
            memcpy(&u16, from, 2);
            store_le16(to, u16);
            break;
        case STATE_U32:
            memcpy(&u32, from, 4);
            store_le32(to, u32);
            break;
        case STATE_U64:
            memcpy(&u64, from, 8);
            store_le64(to, u64);
            break;
        case STATE_END:
        case STATE_TYPES:
            break;
        }
    }
}

void state_put(struct state_out *out, const struct state_field *fields, const void *object)
{
    for (const struct state_field *f = fields; f->name; f++) {
        begin_field(out, f->name, f->type, f->count);
        put_elements(out, f->type, f->count, (const uint8_t *)object + f->offset);
    }
}

void state_put_u64(struct state_out *out, const char *name, uint64_t value)
{
    begin_field(out, name, STATE_U64, 1);
    put_elements(out, STATE_U64, 1, (const uint8_t *)&value);
}

void state_put_bytes(struct state_out *out, const char *name, const void *data, size_t size)
{
    begin_field(out, name, STATE_U8, size);
    append(out, data, size);
}

void state_save(struct state_out *out, const char *name, unsigned instance, unsigned version,
                const struct state_field *fields, const void *object)
{
    state_begin(out, name, instance, version);
    state_put(out, fields, object);
    state_end(out);
}

int state_out_take(struct state_out *out, uint8_t **ret_data, size_t *ret_size)
{
    if (!out || out->failed || out->size > UINT32_MAX)
        return -ENOMEM;
    memcpy(out->data, STATE_MAGIC, 8);
    store_le32(out->data + 8, (uint32_t)out->size);
    store_le32(out->data + 12, (uint32_t)crc32(0, out->data + STATE_HEAD_BYTES,
                                               (uInt)(out->size - STATE_HEAD_BYTES)));
    *ret_data = out->data;
    *ret_size = out->size;
    out->data = NULL;
    out->failed = true;
    return 0;
}
