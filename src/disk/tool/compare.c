/* Do two disks show the same? Any thread. */
#include "disk/tool/walk.h"

#include <stdio.h>
#include <string.h>

#define CHUNK (256u << 10)

struct compare {
    struct disk *disk[2];
    uint64_t size[2];
    uint64_t known_until[2]; /* no data of the disk before this offset, from the cursor on */
    struct mutex lock;
    uint64_t differs; /* [lock] the first offset found so far; UINT64_MAX = none */
};

/** How far from @offset on does disk @i show zeroes without holding data? 0 = data is there. */
static int zeroes_from(struct compare *c, int i, uint64_t offset, uint64_t left, uint64_t *ret)
{
    struct disk_extent e;

    if (offset >= c->size[i]) {
        *ret = left;
        return 0;
    }
    if (c->known_until[i] > offset) {
        *ret = c->known_until[i] - offset;
        return 0;
    }
    int rc = disk_map(c->disk[i], offset, c->size[i] - offset, &e);
    if (rc)
        return rc;
    bool is_zero = e.kind == DISK_ZERO || e.kind == DISK_ABSENT;
    if (is_zero)
        c->known_until[i] = offset + e.size;
    *ret = is_zero ? e.size : 0;
    return 0;
}

static int find(void *arg, struct piece *p)
{
    struct compare *c = arg;
    uint64_t left = MAX(c->size[0], c->size[1]) - p->offset;
    uint64_t zeroes[2];

    for (int i = 0; i < 2; i++) {
        int rc = zeroes_from(c, i, p->offset, left, &zeroes[i]);
        if (rc)
            return rc;
    }
    uint64_t both = MIN(zeroes[0], zeroes[1]);

    both = MIN(both, left);
    p->size = both ? both : MIN(left, CHUNK - p->offset % CHUNK);
    p->kind = both ? PIECE_SKIP : 1;
    return 0;
}

static int read_or_zero(struct compare *c, int i, uint64_t offset, uint8_t *buf, size_t size)
{
    size_t have = offset < c->size[i] ? (size_t)MIN((uint64_t)size, c->size[i] - offset) : 0;
    int rc = have ? disk_pread(c->disk[i], buf, have, offset) : 0;

    memset(buf + have, 0, size - have);
    return rc;
}

static int work(struct walk *w, const struct piece *p, uint8_t *buf)
{
    struct compare *c = w->arg;
    size_t size = (size_t)p->size;
    uint8_t *other = buf + CHUNK;
    int rc = read_or_zero(c, 0, p->offset, buf, size);

    if (!rc)
        rc = read_or_zero(c, 1, p->offset, other, size);
    if (rc || !memcmp(buf, other, size))
        return rc;
    size_t at = 0;
    while (buf[at] == other[at])
        at++;
    mutex_lock(&c->lock);
    c->differs = MIN(c->differs, p->offset + at);
    mutex_unlock(&c->lock);
    walk_stop(w); /* pieces before this one are finished still */
    return 0;
}

int disk_compare(struct disk *a, struct disk *b, const struct disk_job *job, bool *ret_equal,
                 uint64_t *ret_offset, struct error *err)
{
    struct compare c = {
        .disk = {a,             b            },
        .size = {a->size_bytes, b->size_bytes},
        .differs = UINT64_MAX,
    };
    struct walk w = {
        .size_bytes = MAX(c.size[0], c.size[1]),
        .buffer_bytes = (size_t)2 * CHUNK,
        .arg = &c,
        .find = find,
        .work = work,
    };
    uint64_t failed;

    mutex_init(&c.lock);
    int rc = walk_run(&w, job, &failed);
    mutex_done(&c.lock);
    if (rc)
        return error_set(err, -rc, "cannot compare '%s' with '%s' at offset %llu: %s", a->path,
                         b->path, (unsigned long long)failed, strerror(-rc));
    *ret_equal = c.differs == UINT64_MAX;
    if (!*ret_equal)
        *ret_offset = c.differs;
    return 0;
}
