/* What a bitmap of a QCOW2 image has recorded. Threads: any; bitmap_lock. */
#include "disk/qcow2/bitmap.h"

#include <errno.h>

static bool get_bit(const uint8_t *bits, uint64_t i)
{
    return __atomic_load_n(&bits[i / 8], __ATOMIC_RELAXED) >> i % 8 & 1; /* orders nothing */
}

/** The first bit from @from on, below @end, that is not @value; or @end. */
static uint64_t run_end(const uint8_t *bits, uint64_t from, uint64_t end, bool value)
{
    uint8_t alike = value ? 0xff : 0;

    while (from < end && get_bit(bits, from) == value) {
        bool skip = !(from % 8) && from + 8 <= end &&
                    __atomic_load_n(&bits[from / 8], __ATOMIC_RELAXED) == alike; /* as above */

        from += skip ? 8 : 1;
    }
    return from;
}

int qcow2_bitmap_find(struct disk *d, const char *name, uint64_t offset, uint64_t size,
                      bool *ret_set, uint64_t *ret_size)
{
    struct qcow2 *q = qcow2_of(d);

    if (offset >= d->size_bytes) { /* the layer above is longer */
        *ret_set = false;
        *ret_size = size;
        return 0;
    }
    mutex_lock(&q->bitmap_lock);
    struct qcow2_bitmap *b = qcow2_bitmap_named(q, name);
    int rc = b ? qcow2_bitmap_read(q, b) : -ENOENT;
    if (!rc) {
        uint64_t end = MIN(offset + size, d->size_bytes);
        uint64_t first = offset >> b->granularity_bits;
        uint64_t last = (end - 1) >> b->granularity_bits;

        *ret_set = get_bit(b->bits, first);
        uint64_t stop = run_end(b->bits, first, last + 1, *ret_set);
        *ret_size = stop > last ? end - offset : (stop << b->granularity_bits) - offset;
    }
    mutex_unlock(&q->bitmap_lock);
    return rc;
}
