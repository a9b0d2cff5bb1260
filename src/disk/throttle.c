/* Limits before a disk.
 *
 * Each limit is a bucket, kept as one time: when it will have run empty. A request adds the time
 * that its cost takes at the limit's rate, and waits until no more than the burst's time is left in
 * the bucket. So requests are served in the order they come, each knows at once how long it waits,
 * and a large one is paid for by those after it.
 *
 * Invariant: what is let through early (disk_hurry()) is paid all the same, by later requests.
 *
 * Threads: any.
 */
#include "disk/throttle.h"
#include "base/clock.h"
#include "base/iov.h"
#include "base/opt.h"
#include "base/thread.h"
#include "disk/disk_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS 1000000000LL

struct throttle {
    struct disk d;             /* must be first; `below` is the disk */
    struct disk_limits limits; /* [init] */
    struct mutex lock;
    struct cond hurried;
    bool hurry;                               /* [lock] */
    int64_t byte_due_ns[DISK_LIMIT_KINDS];    /* [lock] */
    int64_t request_due_ns[DISK_LIMIT_KINDS]; /* [lock] */
};

/** @units at @rate, in ns; at most about a year, which nobody waits for. */
static int64_t time_of(uint64_t units, uint64_t rate)
{
    unsigned __int128 ns = (unsigned __int128)units * SECOND_NS / rate;

    return (int64_t)MIN(ns, (unsigned __int128)SECOND_NS * 86400 * 365);
}

int64_t disk_limit_admit(const struct disk_limit *l, int64_t *due_ns, int64_t now_ns, uint64_t cost)
{
    if (!l->rate)
        return now_ns;
    int64_t burst_ns = l->burst ? time_of(l->burst, l->rate) : SECOND_NS / 10;
    int64_t start_ns = MAX(*due_ns - burst_ns, now_ns); /* when there is room for any */
    *due_ns = MAX(*due_ns, now_ns) + time_of(cost, l->rate);
    return start_ns;
}

/** Wait until one more request of @size bytes may go. */
static void admit(struct throttle *t, enum disk_limit_kind kind, uint64_t size)
{
    const enum disk_limit_kind kinds[] = {DISK_LIMIT_ALL, kind};

    mutex_lock(&t->lock);
    int64_t now = host_now_ns();
    int64_t start = now;
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        enum disk_limit_kind k = kinds[i];

        start = MAX(start, disk_limit_admit(&t->limits.bytes[k], &t->byte_due_ns[k], now, size));
        start = MAX(start, disk_limit_admit(&t->limits.requests[k], &t->request_due_ns[k], now, 1));
    }
    while (!t->hurry && host_now_ns() < start)
        (void)cond_wait_until(&t->hurried, &t->lock, start);
    mutex_unlock(&t->lock);
}

static struct throttle *throttle_of(struct disk *d)
{
    return (struct throttle *)d;
}

static int throttle_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    admit(throttle_of(d), DISK_LIMIT_READ, iov_bytes(iov, (unsigned)iovcnt));
    return disk_preadv(d->below, iov, iovcnt, offset);
}

static int throttle_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    admit(throttle_of(d), DISK_LIMIT_WRITE, iov_bytes(iov, (unsigned)iovcnt));
    return disk_pwritev(d->below, iov, iovcnt, offset);
}

static int throttle_flush(struct disk *d)
{
    return disk_flush(d->below);
}

static int throttle_discard(struct disk *d, uint64_t offset, uint64_t size)
{
    admit(throttle_of(d), DISK_LIMIT_WRITE, 0);
    return disk_discard(d->below, offset, size);
}

static int throttle_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap)
{
    admit(throttle_of(d), DISK_LIMIT_WRITE, 0);
    return disk_write_zeroes(d->below, offset, size, may_unmap);
}

/** Nothing may go past the limits. */
static int throttle_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    (void)d;
    (void)offset;
    *ret = (struct disk_extent){.kind = DISK_PACKED, .size = size};
    return 0;
}

static int throttle_get_info(struct disk *d, struct disk_info *info, struct error *err)
{
    return disk_get_info(d->below, info, err);
}

static void throttle_hurry(struct disk *d, bool on)
{
    struct throttle *t = throttle_of(d);

    mutex_lock(&t->lock);
    t->hurry = on;
    cond_broadcast(&t->hurried);
    mutex_unlock(&t->lock);
}

static void throttle_close(struct disk *d)
{
    struct throttle *t = throttle_of(d);

    mutex_done(&t->lock);
    cond_done(&t->hurried);
    free(t);
}

static const struct disk_ops throttle_ops = {
    .preadv = throttle_preadv,
    .pwritev = throttle_pwritev,
    .flush = throttle_flush,
    .discard = throttle_discard,
    .write_zeroes = throttle_write_zeroes,
    .status = throttle_status,
    .get_info = throttle_get_info,
    .hurry = throttle_hurry,
    .close = throttle_close,
};

bool disk_is_throttled(const struct disk *d)
{
    return d->ops == &throttle_ops;
}

int disk_throttle(struct disk *d, const struct disk_limits *limits, struct disk **ret,
                  struct error *err)
{
    struct throttle *t = calloc(1, sizeof(*t));
    char *path = d->path ? strdup(d->path) : NULL;

    if (!t || (d->path && !path)) {
        free(t);
        free(path);
        return error_set(err, ENOMEM, "out of memory");
    }
    t->d = (struct disk){
        .ops = &throttle_ops,
        .size_bytes = d->size_bytes,
        .readonly = d->readonly,
        .below = d,
        .path = path,
    };
    t->limits = *limits;
    mutex_init(&t->lock);
    cond_init(&t->hurried);
    *ret = &t->d;
    return 0;
}

/** If @text begins with @prefix, the rest. */
static const char *after(const char *text, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(text, prefix, n) ? NULL : text + n;
}

int disk_limits_parse(struct disk_limits *limits, const char *word)
{
    const char *bytes = after(word, "bps");
    const char *rest = bytes ? bytes : after(word, "iops");
    enum disk_limit_kind kind = DISK_LIMIT_ALL;
    const char *next;
    uint64_t value = 0;

    if (!rest)
        return 0;
    if ((next = after(rest, "-rd")))
        kind = DISK_LIMIT_READ;
    else if ((next = after(rest, "-wr")))
        kind = DISK_LIMIT_WRITE;
    rest = next ? next : rest;
    const char *burst = after(rest, "-burst");
    const char *text = after(burst ? burst : rest, "=");
    if (!text)
        return 0;
    if (opt_parse_size(text, &value) || !value)
        return -EINVAL;
    struct disk_limit *l = bytes ? &limits->bytes[kind] : &limits->requests[kind];
    *(burst ? &l->burst : &l->rate) = value;
    return 1;
}

bool disk_limits_any(const struct disk_limits *limits)
{
    for (unsigned k = 0; k < DISK_LIMIT_KINDS; k++) {
        if (limits->bytes[k].rate || limits->requests[k].rate)
            return true;
    }
    return false;
}
