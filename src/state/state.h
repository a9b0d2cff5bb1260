/* Saved state: what a machine's parts say of themselves, in named, versioned sections of named
 * fields.
 *
 *     static const struct state_field rtc_fields[] = {
 *         STATE_FIELD(struct rtc, offset_ns), STATE_FIELD(struct rtc, alarm_armed),
 * STATE_ARRAY(struct rtc, regs), {0},
 *     };
 *     void rtc_save(struct rtc *r, struct state_out *out)
 *     {
 *         state_save(out, "rtc", 0, 1, rtc_fields, r);
 *     }
 *     int rtc_load(struct rtc *r, const struct state_in *in, struct error *err)
 *     {
 *         int rc = state_load(in, "rtc", 0, 1, rtc_fields, r, err);      all fields or none
 *         ... then check what they mean, and drive outputs
 *     }
 *
 * A saved state is hostile: its structure is checked here, what the values mean by the part that
 * loads them. Names, not offsets, bind a field to its value, so fields may be added: one marked
 * STATE_OPTIONAL keeps its value when a state of an older version lacks it. A field that the reader
 * does not know is an error, since dropping it would lose state. Format: docs/formats/state.md. */
#ifndef STATE_STATE_H
#define STATE_STATE_H

#include "base/error.h"
#include "base/macros.h"

enum state_type { STATE_END, STATE_BOOL, STATE_U8, STATE_U16, STATE_U32, STATE_U64, STATE_TYPES };

enum { STATE_OPTIONAL = 1 };

/** One field of a struct: use the macros. */
struct state_field {
    const char *name; /* NULL ends a table */
    enum state_type type;
    unsigned flags;
    size_t offset;
    size_t count; /* elements */
};

/** The type of an integer or bool; signed ones are saved as their bits. */
#define STATE_TYPE_OF(x)           \
    _Generic((x), bool             \
             : STATE_BOOL, uint8_t \
             : STATE_U8, int8_t    \
             : STATE_U8, uint16_t  \
             : STATE_U16, int16_t  \
             : STATE_U16, uint32_t \
             : STATE_U32, int32_t  \
             : STATE_U32, uint64_t \
             : STATE_U64, int64_t  \
             : STATE_U64)

#define STATE_FIELD_FLAGS(s, member, f)                                         \
    {                                                                           \
        .name = #member, .type = STATE_TYPE_OF(((s *)0)->member), .flags = (f), \
        .offset = offsetof(s, member), .count = 1                               \
    }
#define STATE_ARRAY_FLAGS(s, member, f)                                            \
    {                                                                              \
        .name = #member, .type = STATE_TYPE_OF(((s *)0)->member[0]), .flags = (f), \
        .offset = offsetof(s, member), .count = ARRAY_SIZE(((s *)0)->member)       \
    }
#define STATE_FIELD(s, member) STATE_FIELD_FLAGS(s, member, 0)
#define STATE_ARRAY(s, member) STATE_ARRAY_FLAGS(s, member, 0)

/* Saving. One thread. Running out of memory is remembered, and told by state_out_take(). */

struct state_out;

/** NULL when out of memory; the other calls take that. */
struct state_out *state_out_new(void);
void state_out_free(struct state_out *out);

/** A section named @name (1 to 63 letters), of the @instance-th such part, in the part's own format
 * @version (from 1). Sections do not nest. */
void state_begin(struct state_out *out, const char *name, unsigned instance, unsigned version);
void state_end(struct state_out *out);

void state_put(struct state_out *out, const struct state_field *fields, const void *object);
void state_put_u64(struct state_out *out, const char *name, uint64_t value);
void state_put_bytes(struct state_out *out, const char *name, const void *data, size_t size);

/** The finished state; the caller's, for free(). 0 or -ENOMEM. @out can only be freed after this.
 */
must_check int state_out_take(struct state_out *out, uint8_t **ret_data, size_t *ret_size);

/* Loading. Any number of threads may read one. */

struct state_in;
struct state_section;

/** Check the structure of @size bytes at @data and index them; both borrowed until state_in_free().
 * -EINVAL with a sentence. */
must_check int state_in_new(const void *data, size_t size, struct state_in **ret,
                            struct error *err);
void state_in_free(struct state_in *in);

/** The section; -EINVAL if there is none, or if its version is above @version. */
must_check int state_find(const struct state_in *in, const char *name, unsigned instance,
                          unsigned version, const struct state_section **ret, struct error *err);
bool state_has(const struct state_in *in, const char *name, unsigned instance);
/** Is there such a field? */
bool state_has_field(const struct state_section *s, const char *name);
unsigned state_version(const struct state_section *s);

/** All fields of the table into @object, or, with -EINVAL, none. */
must_check int state_get(const struct state_section *s, const struct state_field *fields,
                         void *object, struct error *err);
must_check int state_get_u64(const struct state_section *s, const char *name, uint64_t *ret,
                             struct error *err);

/** Borrowed from the data. At most @max bytes, else -EINVAL. */
must_check int state_get_bytes(const struct state_section *s, const char *name, size_t max,
                               const uint8_t **ret, size_t *ret_size, struct error *err);

/** Is every field of the section one that was asked for? For the end of a load: -EINVAL names the
 * first that was not. */
must_check int state_check_all_read(const struct state_section *s, struct error *err);

/** A section that is one table and nothing else: find, get, check that all was read. */
must_check int state_load(const struct state_in *in, const char *name, unsigned instance,
                          unsigned version, const struct state_field *fields, void *object,
                          struct error *err);

/** A section that is one table: begin, put, end. */
void state_save(struct state_out *out, const char *name, unsigned instance, unsigned version,
                const struct state_field *fields, const void *object);

/** -EINVAL: "saved state of NAME: ...", for what a loader finds wrong with values. */
int state_bad(const struct state_section *s, struct error *err, const char *fmt, ...)
    printf_like(3, 4);

#endif
