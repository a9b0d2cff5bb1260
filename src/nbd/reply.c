/* Replies, simple or structured. Spec: proto.md, "Simple reply message", "Structured reply chunk
 * message". Any thread; see nbd_internal.h. */
#include "base/bits.h"
#include "nbd/nbd_internal.h"

#include <errno.h>
#include <string.h>

static_assert(NBD_HEADER_ROOM >= NBD_CHUNK_SIZE + 8, "a chunk's header with the data's offset");

/** A failure ends the connection by itself. */
static void send_one(struct nbd_conn *c, const void *buf, size_t size, bool own_thread)
{
    (void)(own_thread ? nbd_conn_queue(c, buf, size) : nbd_conn_send(c, buf, size));
}

static uint32_t error_number(int code)
{
    switch (code) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

static void put_chunk(uint8_t *to, const struct nbd_request *r, unsigned type, bool done,
                      uint32_t size)
{
    store_be32(to, NBD_STRUCTURED_REPLY);
    store_be16(to + 4, done ? NBD_CHUNK_DONE : 0);
    store_be16(to + 6, (uint16_t)type);
    store_be64(to + 8, r->cookie);
    store_be32(to + 16, size);
}

static void put_simple(uint8_t *to, const struct nbd_request *r, int code)
{
    store_be32(to, NBD_SIMPLE_REPLY);
    store_be32(to + 4, error_number(code));
    store_be64(to + 8, r->cookie);
}

void nbd_reply_chunk(struct nbd_conn *c, const struct nbd_request *r, unsigned type, bool done,
                     const void *payload, uint32_t size, bool own_thread)
{
    uint8_t buf[NBD_CHUNK_SIZE + 8192 + 64];

    assert(size <= sizeof(buf) - NBD_CHUNK_SIZE);
    put_chunk(buf, r, type, done, size);
    if (size)
        memcpy(buf + NBD_CHUNK_SIZE, payload, size);
    send_one(c, buf, NBD_CHUNK_SIZE + size, own_thread);
}

void nbd_reply(struct nbd_conn *c, const struct nbd_request *r, int code, bool own_thread)
{
    uint8_t buf[NBD_SIMPLE_SIZE];

    if (c->structured && code) {
        uint8_t payload[6];

        store_be32(payload, error_number(code));
        store_be16(payload + 4, 0); /* no words */
        nbd_reply_chunk(c, r, NBD_CHUNK_ERROR, true, payload, sizeof(payload), own_thread);
        return;
    }
    put_simple(buf, r, code);
    send_one(c, buf, sizeof(buf), own_thread);
}

void nbd_reply_data(struct nbd_conn *c, const struct nbd_request *r, uint8_t *buf, bool own_thread)
{
    size_t head = c->structured ? NBD_CHUNK_SIZE + 8 : NBD_SIMPLE_SIZE;
    uint8_t *at = buf + NBD_HEADER_ROOM - head;

    if (c->structured) {
        put_chunk(at, r, NBD_CHUNK_OFFSET_DATA, true, 8 + r->length);
        store_be64(at + NBD_CHUNK_SIZE, r->offset);
    } else {
        put_simple(at, r, 0);
    }
    send_one(c, at, head + r->length, own_thread);
}
