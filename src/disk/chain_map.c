/* One map over all the layers below a disk's top: which layer and which place of its file holds
 * each range. Reading then costs the same however many layers there are.
 *
 * The map is filled in region by region, when a region is first read: the highest layer is asked
 * what it holds, the next one for what is absent there, and so on. A region is an array of pieces
 * that follow each other without gaps.
 *
 *   region 5   | piece: layer 0, data at 0x90000 | layer 3, zero | layer 1, packed | absent |
 *
 * Invariants:
 *  1. Layers below the top are read-only, so a region never becomes wrong and is only dropped to
 *     make room: a stripe keeps at most STRIPE_BYTES, the least recently used go first.
 *  2. Pieces are copied out under the stripe's lock; no pointer into a region outlives it. Layers
 *     are asked and files are read without it, so two threads may fill in one region: the second
 *     drops its own.
 *  3. Beyond the end of a layer, the layers below it are hidden by zeroes.
 *
 * Threads: any. See docs/design/disk-chains.md.
 */
#include "base/thread.h"
#include "disk/disk_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REGION_BYTES (2u << 20)
#define STRIPES      32u
#define BUCKETS      256u
#define STRIPE_BYTES (1u << 20)
#define REGION_LEAST                                                             \
    256u /* a region counts as so many bytes at least, which bounds their number \
          */
#define PIECES_AT_ONCE 64u

struct piece {
    uint32_t end;   /* within the region, of its last byte plus one */
    uint16_t layer; /* 0 = the highest */
    uint8_t kind;   /* enum disk_extent_kind */
    struct file *file;
    uint64_t file_offset; /* of the piece's first byte */
};

struct region {
    struct region *next;          /* in the bucket */
    struct region *newer, *older; /* by last use; a ring with the stripe's head */
    uint64_t number;
    uint32_t count;
    struct piece pieces[];
};

struct stripe {
    struct mutex lock;
    struct region *buckets[BUCKETS]; /* [lock] */
    struct region *newest, *oldest;  /* [lock] */
    size_t bytes;                    /* [lock] what the regions count as */
};

struct chain_map {
    uint64_t size_bytes;  /* [init] of the highest layer */
    unsigned layer_count; /* [init] */
    struct disk **layers; /* [init] borrowed; 0 = the highest */
    struct stripe stripes[STRIPES];
};

/** A region that is being filled in. */
struct draft {
    struct chain_map *map;
    uint64_t start; /* of the region, on the disk */
    struct region *region;
    uint32_t room; /* for pieces */
};

static size_t weight(const struct region *r)
{
    return MAX(sizeof(*r) + r->count * sizeof(struct piece), (size_t)REGION_LEAST);
}

static int add_piece(struct draft *d, struct piece p)
{
    struct region *r = d->region;
    uint32_t start = r->count ? r->pieces[r->count - 1].end : 0;

    if (r->count) { /* the same going on? */
        struct piece *last = &r->pieces[r->count - 1];
        uint32_t last_start = r->count > 1 ? last[-1].end : 0;

        if (last->layer == p.layer && last->kind == p.kind && last->file == p.file &&
            (p.kind != DISK_DATA || last->file_offset + (start - last_start) == p.file_offset)) {
            last->end = p.end;
            return 0;
        }
    }
    if (r->count == d->room) {
        uint32_t room = d->room * 2;

        r = realloc(r, sizeof(*r) + room * sizeof(struct piece));
        if (!r)
            return -ENOMEM;
        d->region = r;
        d->room = room;
    }
    r->pieces[r->count++] = p;
    return 0;
}

/** Add what layers @layer and below hold of [@offset, @end), which lies within the region. */
static int resolve(struct draft *d, unsigned layer, uint64_t offset, uint64_t end)
{
    struct disk *disk = d->map->layers[layer];
    uint64_t layer_end = __atomic_load_n(&disk->size_bytes, __ATOMIC_RELAXED); /* never changes */
    int rc = 0;

    while (!rc && offset < end) {
        struct disk_extent e = {.kind = DISK_ZERO, .size = end - offset};

        if (offset < layer_end)
            rc = disk_status(disk, offset, MIN(end, layer_end) - offset, &e);
        if (rc)
            return rc;
        if (!e.size || e.size > end - offset)
            return -EIO; /* a format that breaks the contract must not lead us astray */
        if (e.kind == DISK_ABSENT && layer + 1 < d->map->layer_count) {
            rc = resolve(d, layer + 1, offset, offset + e.size);
        } else {
            struct piece p = {
                .end = (uint32_t)(offset + e.size - d->start),
                .layer = (uint16_t)layer,
                .kind = (uint8_t)e.kind,
                .file = e.kind == DISK_DATA ? e.file : NULL,
                .file_offset = e.kind == DISK_DATA ? e.file_offset : 0,
            };
            rc = add_piece(d, p);
        }
        offset += e.size;
    }
    return rc;
}

static int make_region(struct chain_map *m, uint64_t number, struct region **ret)
{
    struct draft d = {.map = m, .start = number * REGION_BYTES, .room = 8};
    uint64_t end = MIN(d.start + REGION_BYTES, m->size_bytes);

    d.region = malloc(sizeof(*d.region) + d.room * sizeof(struct piece));
    if (!d.region)
        return -ENOMEM;
    *d.region = (struct region){.number = number};
    int rc = resolve(&d, 0, d.start, end);
    if (rc) {
        free(d.region);
        return rc;
    }
    struct region *fitted =
        realloc(d.region, sizeof(*d.region) + d.region->count * sizeof(struct piece));
    *ret = fitted ? fitted : d.region;
    return 0;
}

static void unlink_use(struct stripe *s, struct region *r) REQUIRES(s->lock)
{
    *(r->newer ? &r->newer->older : &s->newest) = r->older;
    *(r->older ? &r->older->newer : &s->oldest) = r->newer;
}

static void link_newest(struct stripe *s, struct region *r) REQUIRES(s->lock)
{
    r->newer = NULL;
    r->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = r;
    s->newest = r;
}

static struct region **bucket_of(struct stripe *s, uint64_t number) REQUIRES(s->lock)
{
    return &s->buckets[number / STRIPES % BUCKETS];
}

static void drop(struct stripe *s, struct region *r) REQUIRES(s->lock)
{
    struct region **at = bucket_of(s, r->number);

    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    unlink_use(s, r);
    s->bytes -= weight(r);
    free(r);
}

static struct region *find(struct stripe *s, uint64_t number) REQUIRES(s->lock)
{
    struct region *r = *bucket_of(s, number);

    while (r && r->number != number)
        r = r->next;
    if (r && r != s->newest) {
        unlink_use(s, r);
        link_newest(s, r);
    }
    return r;
}

static struct region *insert(struct stripe *s, struct region *r) REQUIRES(s->lock)
{
    struct region *there = find(s, r->number);

    if (there) {
        free(r);
        return there;
    }
    r->next = *bucket_of(s, r->number);
    *bucket_of(s, r->number) = r;
    link_newest(s, r);
    s->bytes += weight(r);
    while (s->bytes > STRIPE_BYTES && s->oldest != r)
        drop(s, s->oldest);
    return r;
}

/** The index of the piece with byte @at of the region. */
static uint32_t piece_at(const struct region *r, uint32_t at)
{
    uint32_t low = 0;
    uint32_t high = r->count - 1;

    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (r->pieces[middle].end > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/** Copy out the piece with byte @at, cut to begin there, and as many after it as begin before
 * @limit, at most @max. */
static unsigned copy_pieces(const struct region *r, uint32_t at, uint32_t limit, struct piece *ret,
                            unsigned max)
{
    uint32_t i = piece_at(r, at);
    uint32_t start = i ? r->pieces[i - 1].end : 0;
    unsigned n = 0;

    for (; i < r->count && n < max && start < limit; i++) {
        ret[n] = r->pieces[i];
        if (start < at && ret[n].kind == DISK_DATA)
            ret[n].file_offset += at - start;
        start = ret[n++].end;
    }
    return n;
}

/** The pieces of the region of @offset, from there towards @end. The count, or -errno. */
static int get_pieces(struct chain_map *m, uint64_t offset, uint64_t end, struct piece *ret,
                      unsigned max)
{
    uint64_t number = offset / REGION_BYTES;
    uint32_t at = (uint32_t)(offset % REGION_BYTES);
    uint32_t limit = (uint32_t)MIN(end - number * REGION_BYTES, (uint64_t)REGION_BYTES);
    struct stripe *s = &m->stripes[number % STRIPES];
    struct region *made = NULL;

    mutex_lock(&s->lock);
    struct region *r = find(s, number);
    if (!r) {
        mutex_unlock(&s->lock);
        int rc = make_region(m, number, &made);
        if (rc)
            return rc;
        mutex_lock(&s->lock);
        r = insert(s, made);
    }
    int n = (int)copy_pieces(r, at, limit, ret, max);
    mutex_unlock(&s->lock);
    return n;
}

/** Read [@offset, @offset + bytes of the list), which is all of piece @p. */
static int read_piece(struct chain_map *m, const struct piece *p, const struct iovec *iov, int n,
                      uint64_t offset)
{
    switch ((enum disk_extent_kind)p->kind) {
    case DISK_ABSENT:
    case DISK_ZERO:
        iov_zero(iov, (unsigned)n);
        return 0;
    case DISK_DATA:
        return file_preadv(p->file, iov, n, p->file_offset);
    case DISK_PACKED:
        return disk_preadv(m->layers[p->layer], iov, n, offset);
    }
    return -EIO;
}

int chain_map_preadv(struct chain_map *m, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct piece pieces[PIECES_AT_ONCE];
    struct iovec part[DISK_MAX_IOV];
    uint64_t first = offset;
    uint64_t end = offset + iov_bytes(iov, (unsigned)iovcnt);

    while (offset < end) {
        uint64_t base = offset - offset % REGION_BYTES;
        int count = get_pieces(m, offset, end, pieces, PIECES_AT_ONCE);

        if (count < 0)
            return count;
        for (int i = 0; i < count; i++) {
            uint64_t stop = MIN(base + pieces[i].end, end);
            bool is_all = offset == first && stop == end;
            int n = is_all ? iovcnt
                           : (int)iov_slice(part, iov, (unsigned)iovcnt, (size_t)(offset - first),
                                            (size_t)(stop - offset));
            int rc = read_piece(m, &pieces[i], is_all ? iov : part, n, offset);

            if (rc)
                return rc;
            offset = stop;
        }
    }
    return 0;
}

int chain_map_find(struct chain_map *m, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct piece p;
    int rc = get_pieces(m, offset, offset + size, &p, 1);

    if (rc < 0)
        return rc;
    *ret = (struct disk_extent){
        .kind = p.kind,
        .size = MIN(size, p.end - offset % REGION_BYTES),
        .file = p.file,
        .file_offset = p.file_offset,
        .depth = p.layer,
    };
    return 0;
}

int chain_map_new(struct disk *highest, struct chain_map **ret)
{
    struct chain_map *m = calloc(1, sizeof(*m));
    unsigned count = 0;

    for (const struct disk *d = highest; d; d = d->below)
        count++;
    struct disk **layers = calloc(count, sizeof(struct disk *));
    if (!m || !layers || count > DISK_MAX_DEPTH) {
        free(m);
        free(layers);
        return count > DISK_MAX_DEPTH ? -ELOOP : -ENOMEM;
    }
    for (struct disk *d = highest; d; d = d->below)
        layers[m->layer_count++] = d;
    m->layers = layers;
    m->size_bytes = highest->size_bytes;
    for (unsigned i = 0; i < STRIPES; i++)
        mutex_init(&m->stripes[i].lock);
    *ret = m;
    return 0;
}

void chain_map_free(struct chain_map *m)
{
    for (unsigned i = 0; m && i < STRIPES; i++) {
        struct stripe *s = &m->stripes[i];

        mutex_lock(&s->lock);
        while (s->oldest)
            drop(s, s->oldest);
        mutex_unlock(&s->lock);
        mutex_done(&s->lock);
    }
    if (m)
        free(m->layers);
    free(m);
}
