/* Requests: received, checked, carried out here or by a worker, answered. Spec: proto.md,
 * "Transmission phase", "Request types".
 *
 * What the host has in memory is read and answered on the connection's thread: handing it over
 * would cost more than the reading. Everything else goes to workers, started as they are needed, so
 * that one slow request does not hold up the next; but a client that never has two requests under
 * way gains nothing from that, and is served on the connection's thread too.
 *
 * Invariants:
 *  1. Of one connection at most NBD_MAX_IN_FLIGHT requests with NBD_MAX_BYTES of data wait for
 *     workers or are executed by them; beyond that its thread stops receiving.
 *  2. Lengths and ranges are checked before memory is taken; a write's data is always taken out of
 *     the stream, also if it is refused.
 *
 * Threads: the connection's, and its workers.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/disk.h"
#include "nbd/nbd_internal.h"

#include <string.h>

/* So many requests without company make a client one that has but one at a time. */
#define ALONE_ENOUGH 16

/** Clusters are looked up and read, for the host to have them. */
static int execute_cache(struct disk *d, const struct nbd_request *r)
{
    uint64_t end = r->offset + r->length;
    cleanup(freep) uint8_t *buf = malloc(1u << 20);
    int rc = buf ? 0 : -ENOMEM;

    for (uint64_t at = r->offset; !rc && at < end; at += 1u << 20)
        rc = disk_pread(d, buf, (size_t)MIN(end - at, (uint64_t)1 << 20), at);
    return rc;
}

/** Zeroes without writing them, or -ENOTSUP: what is zero already, and formats and files that keep
 * zeroes as such. */
static int execute_fast_zero(struct nbd_conn *c, const struct nbd_request *r)
{
    struct disk *d = c->server->config.disk;
    bool no_hole = r->flags & NBD_FLAG_NO_HOLE;

    if (!no_hole && nbd_is_zero(c, r->offset, r->length))
        return 0;
    bool is_plain = !d->cluster_bytes; /* a file's hole */
    bool has_zeroes = d->format && !strcmp(disk_format_name(d->format), "qcow2");
    if (no_hole || !(is_plain || has_zeroes))
        return -ENOTSUP;
    return disk_write_zeroes(d, r->offset, r->length, true);
}

static int execute_change(struct nbd_conn *c, const struct nbd_request *r)
{
    struct disk *d = c->server->config.disk;
    int rc = 0;

    switch (r->type) {
    case NBD_CMD_WRITE:
        rc = disk_pwrite(d, r->buf + NBD_HEADER_ROOM, r->length, r->offset);
        break;
    case NBD_CMD_TRIM:
        rc = disk_discard(d, r->offset, r->length);
        break;
    case NBD_CMD_WRITE_ZEROES:
        rc = r->flags & NBD_FLAG_FAST_ZERO
                 ? execute_fast_zero(c, r)
                 : disk_write_zeroes(d, r->offset, r->length, !(r->flags & NBD_FLAG_NO_HOLE));
        break;
    case NBD_CMD_FLUSH:
    case NBD_CMD_READ:
    case NBD_CMD_DISC:
    case NBD_CMD_CACHE:
    case NBD_CMD_BLOCK_STATUS:
        break;
    }
    if (!rc && (r->type == NBD_CMD_FLUSH || r->flags & NBD_FLAG_FUA))
        rc = disk_flush(d);
    return rc;
}

static void execute_read(struct nbd_conn *c, const struct nbd_request *r, bool own_thread)
{
    int rc = disk_pread(c->server->config.disk, r->buf + NBD_HEADER_ROOM, r->length, r->offset);

    if (rc)
        nbd_reply(c, r, -rc, own_thread);
    else
        nbd_reply_data(c, r, r->buf, own_thread);
}

void nbd_execute(struct nbd_conn *c, struct nbd_request *r, bool own_thread)
{
    switch (r->type) {
    case NBD_CMD_READ:
        execute_read(c, r, own_thread);
        return;
    case NBD_CMD_BLOCK_STATUS:
        nbd_block_status(c, r, own_thread);
        return;
    case NBD_CMD_CACHE:
        nbd_reply(c, r, -execute_cache(c->server->config.disk, r), own_thread);
        return;
    case NBD_CMD_WRITE:
    case NBD_CMD_FLUSH:
    case NBD_CMD_TRIM:
    case NBD_CMD_WRITE_ZEROES:
    case NBD_CMD_DISC:
        nbd_reply(c, r, -execute_change(c, r), own_thread);
        return;
    }
}

/** On a worker's thread. */
static void work(struct pool_job *job)
{
    struct nbd_request *r = container_of(job, struct nbd_request, job);
    struct nbd_conn *c = r->conn;

    nbd_execute(c, r, false);
    mutex_lock(&c->lock);
    c->in_flight--;
    c->bytes -= r->data_bytes;
    cond_signal(&c->room);
    mutex_unlock(&c->lock);
    free(r->buf);
    free(r);
}

/** Give @r away, a copy of it. False: it is to be done here. */
static bool give(struct nbd_conn *c, const struct nbd_request *r)
{
    if (!c->workers)
        c->workers = pool_new("nbd-worker", NBD_MAX_WORKERS);
    struct nbd_request *copy = c->workers ? malloc(sizeof(*copy)) : NULL;

    if (!copy)
        return false;
    *copy = *r;
    copy->job.fn = work;
    copy->conn = c;
    (void)nbd_conn_drain(c); /* we may wait below, and what follows is not to be held up */
    mutex_lock(&c->lock);
    while (c->in_flight == NBD_MAX_IN_FLIGHT ||
           (c->in_flight && c->bytes + r->data_bytes > NBD_MAX_BYTES))
        cond_wait(&c->room, &c->lock);
    c->in_flight++;
    c->bytes += copy->data_bytes;
    mutex_unlock(&c->lock);
    pool_add(c->workers, &copy->job);
    return true;
}

/** Has the client other requests under way? */
static bool has_company(struct nbd_conn *c)
{
    if (c->in_pos != c->in_end)
        return true;
    mutex_lock(&c->lock);
    bool busy = c->in_flight;
    mutex_unlock(&c->lock);
    return busy;
}

/** Room for @size bytes of data in the scratch buffer. */
static bool reserve_scratch(struct nbd_conn *c, size_t size)
{
    if (c->scratch && size <= c->scratch_bytes)
        return true;
    free(c->scratch);
    c->scratch_bytes = MAX(size, (size_t)65536);
    c->scratch = malloc(c->scratch_bytes + NBD_HEADER_ROOM);
    if (!c->scratch)
        c->scratch_bytes = 0;
    return c->scratch;
}

/** A read that does not have to wait. */
static bool read_cached(struct nbd_conn *c, const struct nbd_request *r)
{
    if (r->length > NBD_OUT_BYTES || !reserve_scratch(c, r->length))
        return false;
    struct iovec iov = {.iov_base = c->scratch + NBD_HEADER_ROOM, .iov_len = r->length};
    if (disk_preadv_cached(c->server->config.disk, &iov, 1, r->offset))
        return false;
    nbd_reply_data(c, r, c->scratch, true);
    return true;
}

/** Here, or by a worker. Takes r->buf. */
static void dispatch(struct nbd_conn *c, struct nbd_request *r)
{
    if (r->type == NBD_CMD_READ && read_cached(c, r))
        return;
    if (has_company(c))
        c->alone = 0;
    if (r->type == NBD_CMD_READ) {
        r->data_bytes = r->length;
        r->buf = malloc(r->data_bytes + NBD_HEADER_ROOM);
        if (!r->buf) {
            nbd_reply(c, r, ENOMEM, true);
            return;
        }
    }
    if (c->alone < ALONE_ENOUGH && give(c, r)) {
        c->alone++;
        return;
    }
    (void)nbd_conn_drain(c); /* this may take long */
    nbd_execute(c, r, true);
    free(r->buf);
    c->alone = nbd_has_more(c->stream) ? 0 : MIN(c->alone + 1, (unsigned)ALONE_ENOUGH);
}

/** The positive errno of what is wrong with @r, 0 = nothing. */
static int check(const struct nbd_conn *c, const struct nbd_request *r)
{
    const struct nbd_config *config = &c->server->config;
    uint64_t size = config->disk->size_bytes;
    static const uint16_t flags[] = {
        [NBD_CMD_READ] = NBD_FLAG_FUA | NBD_FLAG_DF,
        [NBD_CMD_WRITE] = NBD_FLAG_FUA,
        [NBD_CMD_FLUSH] = NBD_FLAG_FUA,
        [NBD_CMD_TRIM] = NBD_FLAG_FUA,
        [NBD_CMD_CACHE] = NBD_FLAG_FUA,
        [NBD_CMD_WRITE_ZEROES] = NBD_FLAG_FUA | NBD_FLAG_NO_HOLE | NBD_FLAG_FAST_ZERO,
        [NBD_CMD_BLOCK_STATUS] = NBD_FLAG_FUA | NBD_FLAG_REQ_ONE,
    };
    bool changes =
        r->type == NBD_CMD_WRITE || r->type == NBD_CMD_TRIM || r->type == NBD_CMD_WRITE_ZEROES;

    if (r->type > NBD_CMD_BLOCK_STATUS || r->flags & ~flags[r->type])
        return EINVAL;
    if (changes && config->readonly)
        return EPERM;
    if (r->type == NBD_CMD_FLUSH)
        return r->offset || r->length ? EINVAL : 0;
    if (r->offset > size || r->length > size - r->offset)
        return changes ? ENOSPC : EINVAL;
    if (r->type == NBD_CMD_READ && r->length > NBD_MAX_PAYLOAD)
        return EOVERFLOW;
    return 0;
}

/** One request. False: the connection ends. */
static bool next_request(struct nbd_conn *c)
{
    uint8_t head[NBD_REQUEST_SIZE];

    if (nbd_conn_recv(c, head, sizeof(head)) || load_be32(head) != NBD_REQUEST_MAGIC)
        return false;
    struct nbd_request r = {
        .flags = load_be16(head + 4),
        .type = load_be16(head + 6),
        .cookie = load_be64(head + 8),
        .offset = load_be64(head + 16),
        .length = load_be32(head + 24),
    };
    if (r.type == NBD_CMD_DISC)
        return false;
    int code = check(c, &r);
    if (r.type == NBD_CMD_WRITE) {
        if (r.length > NBD_MAX_PAYLOAD)
            return false; /* too much to be skipped for the sake of an answer */
        if (!code) {
            r.buf = malloc((size_t)r.length + NBD_HEADER_ROOM);
            r.data_bytes = r.length;
            code = r.buf ? 0 : ENOMEM;
        }
        if (r.buf ? nbd_conn_recv(c, r.buf + NBD_HEADER_ROOM, r.length)
                  : nbd_conn_skip(c, r.length)) {
            free(r.buf);
            return false;
        }
    }
    if (code)
        nbd_reply(c, &r, code, true);
    else
        dispatch(c, &r);
    return !__atomic_load_n(&c->broken, __ATOMIC_RELAXED); /* a hint: the next receiving fails */
}

void nbd_serve_requests(struct nbd_conn *c)
{
    while (next_request(c)) {
    }
    pool_free(c->workers); /* they finish what was begun */
    c->workers = NULL;
}
