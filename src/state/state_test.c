/* Saved state: what is put is got, and nothing else gets through. */
#include "base/bits.h"
#include "base/test.h"
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

struct part {
    bool armed;
    uint8_t small;
    uint16_t half;
    int32_t signed_word;
    uint64_t words[3];
    uint32_t added; /* in version 2 */
};

static const struct state_field fields[] = {
    STATE_FIELD(struct part, armed),
    STATE_FIELD(struct part, small),
    STATE_FIELD(struct part, half),
    STATE_FIELD(struct part, signed_word),
    STATE_ARRAY(struct part, words),
    STATE_FIELD_FLAGS(struct part, added, STATE_OPTIONAL),
    {0},
};

static const struct part sample = {
    true, 0xab, 0xbeef, -5, {1, UINT64_MAX, 3},
        77
};

static uint8_t *data;
static size_t size;
static struct error err;

static void save(const struct state_field *table, unsigned version)
{
    struct state_out *out = state_out_new();

    state_begin(out, "part", 2, version);
    state_put(out, table, &sample);
    state_put_bytes(out, "blob", "hello", 5);
    state_end(out);
    state_begin(out, "other", 0, 1);
    state_put_u64(out, "n", 42);
    state_end(out);
    ASSERT_EQ(state_out_take(out, &data, &size), 0);
    state_out_free(out);
}

static void fix_checksum(void)
{
    store_le32(data + 8, (uint32_t)size);
    store_le32(data + 12, (uint32_t)crc32(0, data + 16, (uInt)(size - 16)));
}

TEST(what_is_put_is_got)
{
    struct state_in *in = NULL;
    const struct state_section *s = NULL;
    struct part got = {0};
    const uint8_t *bytes = NULL;
    size_t n = 0;
    uint64_t v = 0;

    save(fields, 2);
    ASSERT_EQ(state_in_new(data, size, &in, &err), 0);
    ASSERT_EQ(state_find(in, "part", 2, 2, &s, &err), 0);
    ASSERT_EQ(state_get(s, fields, &got, &err), 0);
    EXPECT_TRUE(got.armed);
    EXPECT_EQ(got.small, 0xab);
    EXPECT_EQ(got.half, 0xbeef);
    EXPECT_EQ(got.signed_word, -5);
    EXPECT_MEM(got.words, sample.words, sizeof(got.words));
    EXPECT_EQ(got.added, 77);
    EXPECT_EQ(state_check_all_read(s, &err), -EINVAL); /* the blob */
    ASSERT_EQ(state_get_bytes(s, "blob", 5, &bytes, &n, &err), 0);
    EXPECT_TRUE(n == 5 && !memcmp(bytes, "hello", 5));
    EXPECT_EQ(state_check_all_read(s, &err), 0);
    EXPECT_EQ(state_get_bytes(s, "blob", 4, &bytes, &n, NULL), -EINVAL);
    ASSERT_EQ(state_find(in, "other", 0, 1, &s, &err), 0);
    ASSERT_EQ(state_get_u64(s, "n", &v, &err), 0);
    EXPECT_EQ(v, 42);
    EXPECT_TRUE(!state_has(in, "part", 0));
    state_in_free(in);
    free(data);
}

TEST(an_older_state_lacks_only_what_is_optional)
{
    struct state_field old[ARRAY_SIZE(fields)];
    struct state_in *in = NULL;
    const struct state_section *s = NULL;
    struct part got = {.added = 123, .half = 9};

    memcpy(old, fields, sizeof(old));
    old[5].name = NULL;
    save(old, 1);
    ASSERT_EQ(state_in_new(data, size, &in, &err), 0);
    ASSERT_EQ(state_find(in, "part", 2, 2, &s, &err), 0);
    EXPECT_EQ(state_version(s), 1);
    ASSERT_EQ(state_get(s, fields, &got, &err), 0);
    EXPECT_EQ(got.added, 123);
    state_in_free(in);
    free(data);
    old[4].name = NULL; /* and now one that is needed */
    got.half = 9;
    save(old, 1);
    ASSERT_EQ(state_in_new(data, size, &in, &err), 0);
    ASSERT_EQ(state_find(in, "part", 2, 2, &s, &err), 0);
    EXPECT_EQ(state_get(s, fields, &got, &err), -EINVAL);
    EXPECT_STR(err.text, "saved state of part 2: it lacks 'words'");
    EXPECT_EQ(got.half, 9); /* nothing was stored */
    state_in_free(in);
    free(data);
}

TEST(a_newer_version_is_refused)
{
    struct state_in *in = NULL;
    const struct state_section *s = NULL;

    save(fields, 3);
    ASSERT_EQ(state_in_new(data, size, &in, &err), 0);
    EXPECT_EQ(state_find(in, "part", 2, 2, &s, &err), -EINVAL);
    EXPECT_STR(err.text, "the saved state of part 2 has version 3, and this program knows up to 2");
    state_in_free(in);
    free(data);
}

TEST(damage_is_noticed)
{
    struct state_in *in = NULL;

    save(fields, 1);
    for (size_t i = 0; i < size; i++) {
        data[i] ^= 0x10;
        EXPECT_EQ(state_in_new(data, size, &in, NULL), -EINVAL);
        data[i] ^= 0x10;
    }
    for (size_t n = 0; n < size; n++)
        EXPECT_EQ(state_in_new(data, n, &in, NULL), -EINVAL);
    free(data);
}

TEST(with_a_right_checksum_structure_is_checked_all_the_same)
{
    save(fields, 1);
    size_t whole = size;
    for (size = 16; size < whole; size++) { /* every truncation, but at the sections' ends */
        struct state_in *in = NULL;
        uint8_t *copy = malloc(size);

        fix_checksum();
        memcpy(copy, data, size);
        if (state_in_new(copy, size, &in, NULL) == 0)
            state_in_free(in);
        free(copy);
    }
    for (size_t i = 16; i < whole; i++) { /* every byte another */
        struct state_in *in = NULL;
        const struct state_section *s = NULL;
        struct part got;

        size = whole;
        data[i] ^= 0xff;
        fix_checksum();
        if (state_in_new(data, size, &in, NULL) == 0) {
            if (state_find(in, "part", 2, 9, &s, NULL) == 0)
                EXPECT_TRUE(state_get(s, fields, &got, NULL) <= 0);
            state_in_free(in);
        }
        data[i] ^= 0xff;
    }
    free(data);
}
