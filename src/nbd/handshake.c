/* Fixed newstyle negotiation. Spec: proto.md, "Fixed newstyle negotiation", "Option types",
 * "Metadata querying".
 *
 * Invariants:
 *  1. Where the server has certificates, every option but STARTTLS and ABORT is refused before TLS;
 *     what was sent in plain text ahead of TLS ends the connection.
 *  2. A client has HANDSHAKE_S seconds and MAX_OPTIONS options, each of at most MAX_OPTION_BYTES.
 *
 * Threads: the connection's.
 */
#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"
#include "disk/disk.h"
#include "nbd/nbd_internal.h"

#include <stdio.h>
#include <string.h>

#define HANDSHAKE_S      30
#define MAX_OPTIONS      128u
#define MAX_OPTION_BYTES (64u << 10)
#define GO_ON            1

static const char allocation_name[] = "base:allocation";
static const char depth_name[] = "qemu:allocation-depth";
static const char bitmap_prefix[] = "qemu:dirty-bitmap:";

uint16_t nbd_export_flags(const struct nbd_server *s)
{
    unsigned flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_SEND_DF | NBD_SEND_CACHE;

    /* A flush is of the disk, whichever connection asks. */
    flags |= s->config.max_clients > 1 ? NBD_CAN_MULTI_CONN : 0;
    flags |= s->config.readonly ? NBD_READ_ONLY
                                : NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO;
    return (uint16_t)flags;
}

static int reply(struct nbd_conn *c, uint32_t option, uint32_t type, const void *data,
                 uint32_t size)
{
    uint8_t head[20];

    store_be64(head, NBD_OPTION_REPLY);
    store_be32(head + 8, option);
    store_be32(head + 12, type);
    store_be32(head + 16, size);
    int rc = nbd_conn_queue(c, head, sizeof(head));
    return rc || !size ? rc : nbd_conn_queue(c, data, size);
}

static int refuse(struct nbd_conn *c, uint32_t option, uint32_t type, const char *why)
{
    int rc = reply(c, option, type, why, (uint32_t)strlen(why));

    return rc ? rc : GO_ON;
}

static bool is_name(const struct nbd_conn *c, const uint8_t *name, size_t size)
{
    const char *ours = c->server->config.name;

    return size == strlen(ours) && !memcmp(name, ours, size);
}

/** The oldest way to choose an export: no answer but the export, or the end. */
static int choose(struct nbd_conn *c, const uint8_t *name, size_t size)
{
    uint8_t answer[10 + 124] = {0};

    if (!is_name(c, name, size))
        return -ENOENT;
    store_be64(answer, c->server->config.disk->size_bytes);
    store_be16(answer + 8, nbd_export_flags(c->server));
    return nbd_conn_queue(c, answer, c->no_zeroes ? 10 : sizeof(answer));
}

static int list(struct nbd_conn *c, size_t size)
{
    const struct nbd_config *config = &c->server->config;
    const char *note = config->description ? config->description : "";
    uint8_t item[4 + NBD_NAME_MAX + 1024];
    size_t name_size = strlen(config->name);
    size_t note_size = MIN(strlen(note), (size_t)1024);

    if (size)
        return refuse(c, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST takes no data");
    store_be32(item, (uint32_t)name_size);
    memcpy(item + 4, config->name, name_size);
    memcpy(item + 4 + name_size, note, note_size);
    int rc = reply(c, NBD_OPT_LIST, NBD_REP_SERVER, item, (uint32_t)(4 + name_size + note_size));
    if (!rc)
        rc = reply(c, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
    return rc ? rc : GO_ON;
}

static int send_info(struct nbd_conn *c, uint32_t option)
{
    const struct nbd_config *config = &c->server->config;
    uint8_t size[12];
    uint8_t block[14];

    store_be16(size, NBD_INFO_EXPORT);
    store_be64(size + 2, config->disk->size_bytes);
    store_be16(size + 10, nbd_export_flags(c->server));
    store_be16(block, NBD_INFO_BLOCK_SIZE);
    store_be32(block + 2, 1); /* any alignment */
    store_be32(block + 6, 4096);
    store_be32(block + 10, NBD_MAX_PAYLOAD);
    int rc = reply(c, option, NBD_REP_INFO, size, sizeof(size));
    return rc ? rc : reply(c, option, NBD_REP_INFO, block, sizeof(block));
}

static int send_text(struct nbd_conn *c, uint32_t option, uint16_t type, const char *text)
{
    uint8_t info[2 + 1024];
    size_t size = MIN(strlen(text), (size_t)1024);

    store_be16(info, type);
    memcpy(info + 2, text, size);
    return reply(c, option, NBD_REP_INFO, info, (uint32_t)(2 + size));
}

/** INFO and GO. */
static int inform(struct nbd_conn *c, uint32_t option, const uint8_t *data, size_t size)
{
    uint32_t name_size = size >= 6 ? load_be32(data) : 0;
    int rc = 0;

    if (size < 6 || name_size > size - 6 ||
        load_be16(data + 4 + name_size) * 2ULL != size - 6 - name_size)
        return refuse(c, option, NBD_REP_ERR_INVALID, "the lengths do not fit each other");
    if (!is_name(c, data + 4, name_size))
        return refuse(c, option, NBD_REP_ERR_UNKNOWN, "there is no export of that name");
    for (const uint8_t *p = data + 6 + name_size; !rc && p < data + size; p += 2) {
        const struct nbd_config *config = &c->server->config;

        if (load_be16(p) == NBD_INFO_NAME)
            rc = send_text(c, option, NBD_INFO_NAME, config->name);
        else if (load_be16(p) == NBD_INFO_DESCRIPTION && config->description)
            rc = send_text(c, option, NBD_INFO_DESCRIPTION, config->description);
    }
    if (!rc)
        rc = send_info(c, option);
    if (!rc)
        rc = reply(c, option, NBD_REP_ACK, NULL, 0);
    return rc ? rc : option == NBD_OPT_GO ? 0 : GO_ON;
}

/** The name of the context whose bit is 1 << @i; false: there are no more. */
static bool context_name(const struct nbd_config *config, unsigned i,
                         char name[NBD_CONTEXT_NAME_BYTES])
{
    static const char *const fixed[] = {allocation_name, depth_name};
    bool is_fixed = i < ARRAY_SIZE(fixed);

    if (!is_fixed && i - ARRAY_SIZE(fixed) >= config->bitmap_count)
        return false;
    (void)snprintf(name, NBD_CONTEXT_NAME_BYTES, "%s%s", is_fixed ? fixed[i] : bitmap_prefix,
                   is_fixed ? "" : config->bitmaps[i - ARRAY_SIZE(fixed)]);
    return true;
}

/** The contexts that one query means: "base:allocation", or when listing "base:" for all of a
 * namespace, and "qemu:dirty-bitmap:" likewise. */
static unsigned match(const struct nbd_config *config, const uint8_t *query, size_t size,
                      bool listing)
{
    char name[NBD_CONTEXT_NAME_BYTES];
    unsigned found = 0;

    for (unsigned i = 0; context_name(config, i, name); i++) {
        size_t space = (size_t)(strchr(name, ':') - name) + 1;
        bool is_start = size <= strlen(name) && !memcmp(query, name, size);
        bool is_bitmap = i >= 2 && size == strlen(bitmap_prefix);

        if (is_start && (size == strlen(name) || (listing && (size == space || is_bitmap))))
            found |= 1u << i;
    }
    return found;
}

static int send_context(struct nbd_conn *c, uint32_t option, unsigned bit, const char *name)
{
    uint8_t data[4 + NBD_CONTEXT_NAME_BYTES];
    size_t size = strlen(name);

    store_be32(data, option == NBD_OPT_SET_META_CONTEXT ? bit : 0);
    memcpy(data + 4, name, size);
    return reply(c, option, NBD_REP_META_CONTEXT, data, (uint32_t)(4 + size));
}

static int send_contexts(struct nbd_conn *c, uint32_t option, unsigned contexts)
{
    char name[NBD_CONTEXT_NAME_BYTES];
    int rc = 0;

    for (unsigned i = 0; !rc && context_name(&c->server->config, i, name); i++) {
        if (contexts & 1u << i)
            rc = send_context(c, option, 1u << i, name);
    }
    return rc ? rc : reply(c, option, NBD_REP_ACK, NULL, 0);
}

/** LIST_META_CONTEXT and SET_META_CONTEXT. */
static int choose_contexts(struct nbd_conn *c, uint32_t option, const uint8_t *data, size_t size)
{
    bool listing = option == NBD_OPT_LIST_META_CONTEXT;
    uint32_t name_size = size >= 8 ? load_be32(data) : 0;
    unsigned found = 0;

    if (!listing)
        c->contexts = 0; /* a failed attempt takes back an earlier one */
    if (!c->structured)
        return refuse(c, option, NBD_REP_ERR_INVALID, "structured replies come first");
    if (size < 8 || name_size > size - 8)
        return refuse(c, option, NBD_REP_ERR_INVALID, "the lengths do not fit each other");
    if (!is_name(c, data + 4, name_size))
        return refuse(c, option, NBD_REP_ERR_UNKNOWN, "there is no export of that name");
    uint32_t count = load_be32(data + 4 + name_size);
    const uint8_t *p = data + 8 + name_size;
    const uint8_t *end = data + size;
    if (listing && !count)
        found = ~0u;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = end - p >= 4 ? load_be32(p) : 0;

        if (end - p < 4 || length > (size_t)(end - p) - 4)
            return refuse(c, option, NBD_REP_ERR_INVALID, "the lengths do not fit each other");
        found |= match(&c->server->config, p + 4, length, listing);
        p += 4 + length;
    }
    if (p != end)
        return refuse(c, option, NBD_REP_ERR_INVALID, "the lengths do not fit each other");
    int rc = send_contexts(c, option, found);
    if (!listing)
        c->contexts = found;
    return rc ? rc : GO_ON;
}

static int start_tls(struct nbd_conn *c, size_t size)
{
    struct nbd_tls *tls = c->server->config.tls;
    struct nbd_stream *secure = NULL;

    if (!tls || nbd_stream_fd(c->stream) < 0)
        return refuse(c, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY, "TLS is not offered");
    if (size)
        return refuse(c, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, "STARTTLS takes no data");
    if (c->in_pos != c->in_end)
        return -EPROTO; /* whoever put that there is not whom TLS will authenticate */
    int rc = reply(c, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
    if (!rc)
        rc = nbd_conn_drain(c);
    if (!rc)
        rc = nbd_stream_tls(c->stream, tls, &secure);
    if (rc)
        return rc;
    mutex_lock(&c->server->lock); /* the server may be about to shut it down */
    c->stream = secure;
    mutex_unlock(&c->server->lock);
    c->structured = false;
    c->contexts = 0;
    return GO_ON;
}

static int handle(struct nbd_conn *c, uint32_t option, const uint8_t *data, size_t size)
{
    bool is_open = !c->server->config.tls || nbd_stream_fd(c->stream) < 0;

    if (!is_open && option == NBD_OPT_EXPORT_NAME)
        return -EPERM; /* it has no way to say no */
    if (!is_open && option != NBD_OPT_STARTTLS && option != NBD_OPT_ABORT)
        return refuse(c, option, NBD_REP_ERR_TLS_REQD, "TLS comes first");
    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        return choose(c, data, size);
    case NBD_OPT_ABORT:
        (void)reply(c, option, NBD_REP_ACK, NULL, 0); /* it may not wait for this */
        return -ECONNABORTED;
    case NBD_OPT_LIST:
        return list(c, size);
    case NBD_OPT_STARTTLS:
        return start_tls(c, size);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return inform(c, option, data, size);
    case NBD_OPT_STRUCTURED_REPLY:
        if (size)
            return refuse(c, option, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY takes no data");
        c->structured = true;
        return reply(c, option, NBD_REP_ACK, NULL, 0) ? -EPIPE : GO_ON;
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return choose_contexts(c, option, data, size);
    default:
        return refuse(c, option, NBD_REP_ERR_UNSUP, "the option is not known");
    }
}

/** One option: GO_ON, 0 (requests follow) or -errno. */
static int next_option(struct nbd_conn *c)
{
    uint8_t head[16];
    int rc = nbd_conn_recv(c, head, sizeof(head));

    if (rc)
        return rc;
    uint32_t option = load_be32(head + 8);
    uint32_t size = load_be32(head + 12);
    if (load_be64(head) != NBD_OPTION_MAGIC || (option == NBD_OPT_EXPORT_NAME && size > 4096))
        return -EPROTO;
    if (size > MAX_OPTION_BYTES) {
        if (size > NBD_MAX_PAYLOAD)
            return -EPROTO;
        rc = nbd_conn_skip(c, size);
        return rc ? rc : refuse(c, option, NBD_REP_ERR_TOO_BIG, "the option is too long");
    }
    cleanup(freep) uint8_t *data = malloc(size + 1);
    rc = data ? nbd_conn_recv(c, data, size) : -ENOMEM;
    return rc ? rc : handle(c, option, data, size);
}

int nbd_handshake(struct nbd_conn *c)
{
    uint8_t hello[18];
    uint8_t flags[4];

    c->stream->deadline_ns = host_now_ns() + HANDSHAKE_S * 1000000000LL;
    store_be64(hello, NBD_MAGIC);
    store_be64(hello + 8, NBD_OPTION_MAGIC);
    store_be16(hello + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    int rc = nbd_conn_queue(c, hello, sizeof(hello));
    if (!rc)
        rc = nbd_conn_recv(c, flags, sizeof(flags));
    if (!rc && load_be32(flags) & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
        rc = -EPROTO;
    if (rc)
        return rc;
    c->no_zeroes = load_be32(flags) & NBD_NO_ZEROES;
    rc = GO_ON;
    for (unsigned i = 0; rc == GO_ON && i < MAX_OPTIONS; i++)
        rc = next_option(c);
    c->stream->deadline_ns = 0;
    return rc == GO_ON ? -EPROTO : rc;
}
