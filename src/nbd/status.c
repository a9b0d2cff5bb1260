/* Block status: which ranges are holes, zeroes or data, and which layer has them. Spec: proto.md,
 * "Metadata querying", "base:allocation metadata context"; "qemu:allocation-depth" and
 * "qemu:dirty-bitmap:NAME" as qemu's docs/interop/nbd.txt. Any thread. */
#include "base/bits.h"
#include "disk/disk.h"
#include "nbd/nbd_internal.h"

#include <errno.h>
#include <string.h>

#define MAX_EXTENTS 1024u
#define MAX_LOOKS   8192u /* pieces of the disk looked at for one reply: bounds the work */

static bool is_zero(const struct disk_extent *e)
{
    return e->kind == DISK_ABSENT || e->kind == DISK_ZERO;
}

static uint32_t value_of(unsigned context, const struct disk_extent *e)
{
    if (context == NBD_CONTEXT_DEPTH)
        return e->kind == DISK_ABSENT ? 0 : e->depth + 1;
    return is_zero(e) ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0;
}

/** What @context says of the disk's byte at @offset, and of how many behind it. */
static int look(struct nbd_conn *c, unsigned context, uint64_t offset, uint64_t size,
                uint32_t *ret_value, uint64_t *ret_size)
{
    const struct nbd_config *config = &c->server->config;
    struct disk_extent e;
    bool set = false;

    if (context >= NBD_CONTEXT_BITMAPS) {
        unsigned i = (unsigned)__builtin_ctz(context / NBD_CONTEXT_BITMAPS);
        int rc = disk_bitmap_find(config->disk, config->bitmaps[i], offset, size, &set, ret_size);

        *ret_value = set ? NBD_STATE_DIRTY : 0;
        return rc;
    }
    int rc = disk_map(config->disk, offset, size, &e);
    if (rc)
        return rc;
    *ret_value = value_of(context, &e);
    *ret_size = e.size;
    return 0;
}

/** The extents of @context for @r into @list, after the context's number. Their count, or -errno.
 */
static int collect(struct nbd_conn *c, const struct nbd_request *r, unsigned context, uint8_t *list)
{
    unsigned max = r->flags & NBD_FLAG_REQ_ONE ? 1 : MAX_EXTENTS;
    unsigned count = 0;
    uint32_t done = 0;

    for (unsigned looks = 0; done < r->length && looks < MAX_LOOKS; looks++) {
        uint8_t *last = list + 8 * (count - 1);
        uint32_t value;
        uint64_t size;
        int rc = look(c, context, r->offset + done, r->length - done, &value, &size);

        if (rc)
            return rc;
        if (count && load_be32(last + 4) == value) {
            store_be32(last, load_be32(last) + (uint32_t)size);
        } else if (count == max) {
            break;
        } else {
            store_be32(list + 8 * count, (uint32_t)size);
            store_be32(list + 8 * count++ + 4, value);
        }
        done += (uint32_t)size;
    }
    return (int)count;
}

void nbd_block_status(struct nbd_conn *c, const struct nbd_request *r, bool own_thread)
{
    unsigned left = c->contexts;
    uint8_t payload[4 + 8 * MAX_EXTENTS];

    if (!left || !r->length) {
        nbd_reply(c, r, EINVAL, own_thread);
        return;
    }
    for (unsigned bit = NBD_CONTEXT_ALLOCATION; left; bit <<= 1) {
        if (!(left & bit))
            continue;
        left &= ~bit;
        store_be32(payload, bit);
        int n = collect(c, r, bit, payload + 4);
        if (n < 0) {
            nbd_reply(c, r, -n, own_thread);
            return;
        }
        nbd_reply_chunk(c, r, NBD_CHUNK_BLOCK_STATUS, !left, payload, 4 + 8 * (uint32_t)n,
                        own_thread);
    }
}

bool nbd_is_zero(struct nbd_conn *c, uint64_t offset, uint64_t size)
{
    for (unsigned looks = 0; size && looks < 64; looks++) {
        struct disk_extent e;

        if (disk_map(c->server->config.disk, offset, size, &e) || !is_zero(&e))
            return false;
        offset += e.size;
        size -= e.size;
    }
    return !size;
}
