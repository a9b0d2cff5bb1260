/* Saved state from anywhere: index it, look for sections and fields, read them. The checksum is
 * made right first, so that what is behind it is reached. */
#include "base/bits.h"
#include "state/state.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct part {
    bool flag;
    uint8_t bytes[4];
    uint64_t word;
};

static const struct state_field fields[] = {
    STATE_FIELD(struct part, flag),
    STATE_ARRAY(struct part, bytes),
    STATE_FIELD_FLAGS(struct part, word, STATE_OPTIONAL),
    {0},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct state_section *s = NULL;
    struct state_in *in = NULL;
    struct error err = {0};
    struct part part = {0};
    const uint8_t *bytes;
    uint64_t value;
    size_t n;
    uint8_t *copy = malloc(size + 1);

    if (!copy)
        return 0;
    memcpy(copy, data, size);
    if (size >= 16) {
        memcpy(copy, "PSDSTATE", 8);
        store_le32(copy + 8, (uint32_t)size);
        store_le32(copy + 12, (uint32_t)crc32(0, copy + 16, (uInt)(size - 16)));
    }
    if (state_in_new(copy, size, &in, &err) == 0) {
        if (state_find(in, "part", 0, 2, &s, &err) == 0) {
            uint8_t flag = 0;
            if (state_get(s, fields, &part, &err) == 0)
                memcpy(&flag, &part.flag, 1);
            if (flag > 1)
                abort();
            if (state_get_bytes(s, "bytes", 1000, &bytes, &n, &err) == 0 && n &&
                bytes[n - 1] == 0x5a)
                err.code = 0;
            if (state_get_u64(s, "word", &value, &err) != 0 || state_check_all_read(s, &err) != 0)
                err.code = 0;
        }
        state_in_free(in);
    }
    free(copy);
    return 0;
}
