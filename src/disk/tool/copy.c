/* Copying what a disk shows to another: sparse, in parallel, compressed where wanted.
 *
 * The disk is cut into chunks. What the source's map calls zero or absent for whole chunks is
 * passed over without reading; the rest is read chunk by chunk, and each unit (4 KiB, or a sector
 * where only some layers are copied) is found to be data, zero, or not to be written at all.
 *
 * Invariants: (1) a chunk is a multiple of the target's clusters wherever whole clusters matter
 * (compression, a base); (2) two threads never write to the same chunk; (3) compressed clusters are
 * written in the order of their offsets.
 *
 * Threads: any; the workers of walk.c. */
#include "base/bits.h"
#include "disk/format.h"
#include "disk/packing.h"
#include "disk/tool/clone.h"
#include "disk/tool/walk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define UNIT         4096u
#define CHUNK_MIN    (2u << 20) /* a request to storage that is worth its cost */
#define CHUNK_MAX    (2u << 20)
#define CHUNK_PACKED (512u << 10) /* compressing takes long: the threads are to end together */
#define UNITS_MAX    (CHUNK_MAX / UNIT)
#define SECTOR       512u /* the unit where layers are told apart: what they hold is in sectors */

#define CLONE_MIN (64u << 10)
#define CLONE_MAX (16u << 20)

enum { KIND_ZERO = 1, KIND_MIXED, KIND_DATA, KIND_CLONE };

enum unit_state { UNIT_SKIP, UNIT_ZERO, UNIT_DATA };

struct copier {
    const struct disk_copy *c;
    uint64_t size_bytes;
    uint32_t unit;
    uint32_t chunk;
    uint32_t cluster;        /* of the target; a unit if it does not matter */
    size_t buffers_bytes;    /* the bytes of a chunk: as read, of the base, compressed */
    struct disk_extent last; /* [walk's lock] of the source, as found for the piece before */
    uint64_t last_offset;    /* [walk's lock] */
    bool write_failed;       /* [atomic] the failure was the target's */
    struct clone clone;
};

/** A chunk on its way. */
struct chunk {
    uint64_t offset;
    size_t size;
    uint32_t unit;
    unsigned units;
    uint8_t *data, *base, *packed;
    size_t packed_sizes[UNITS_MAX]; /* by cluster; 0 = written as it is */
    uint8_t state[UNITS_MAX];
    bool known_zero[UNITS_MAX];
    bool was_packed[UNITS_MAX];
};

static int write_result(struct copier *s, int rc)
{
    if (rc)
        __atomic_store_n(&s->write_failed, true, __ATOMIC_RELAXED); /* read after the threads end */
    return rc;
}

/** Does what extent @e of the source holds concern the copy at all? */
static bool is_wanted(const struct copier *s, const struct disk_extent *e)
{
    if (s->c->depth)
        return e->kind != DISK_ABSENT && e->depth < s->c->depth;
    if (s->c->from_depth)
        return (e->depth >= s->c->from_depth || e->kind == DISK_ABSENT) &&
               (!s->c->to_depth || e->depth < s->c->to_depth);
    /* what both read in the same layer below needs no comparison */
    return !(s->c->base && s->c->base == s->c->source->below && e->depth > 0);
}

static bool is_zero_extent(const struct disk_extent *e)
{
    return e->kind == DISK_ZERO || e->kind == DISK_ABSENT;
}

/** Of [offset, offset+size), where the source shows zeroes: *@ret_kind for as much as is returned
 * in *@ret_size. */
static int find_zero_piece(struct copier *s, uint64_t offset, uint64_t size, int *ret_kind,
                           uint64_t *ret_size)
{
    const struct disk_copy *c = s->c;
    struct disk_extent e = {.kind = DISK_ABSENT};

    *ret_size = size;
    if (!c->sparse_bytes)
        *ret_kind = KIND_MIXED;
    else if (!c->base)
        *ret_kind = c->target_is_zero ? PIECE_SKIP : KIND_ZERO;
    else if (offset >= c->base->size_bytes)
        *ret_kind = PIECE_SKIP;
    else {
        uint64_t in_base = MIN(size, c->base->size_bytes - offset);
        int rc = disk_map(c->base, offset, in_base, &e);

        if (rc)
            return rc;
        *ret_kind = is_zero_extent(&e) ? PIECE_SKIP : KIND_MIXED;
        *ret_size = is_zero_extent(&e) && e.size == in_base ? size : e.size;
    }
    return 0;
}

/** Cut a piece of at most @size bytes to whole multiples of @step. */
static uint64_t whole_steps(const struct copier *s, uint64_t offset, uint64_t size, uint32_t step)
{
    return offset + size >= s->size_bytes ? s->size_bytes - offset : size - size % step;
}

static int find(void *arg, struct piece *p)
{
    struct copier *s = arg;
    uint64_t left = s->size_bytes - p->offset;
    uint64_t chunk = MIN(left, (uint64_t)s->chunk);
    uint64_t size = 0;
    int kind = KIND_MIXED;
    int rc = 0;

    if (p->offset >= s->last_offset + s->last.size) {
        rc = disk_map(s->c->source, p->offset, left, &s->last);
        s->last_offset = p->offset;
    }
    if (rc)
        return rc;
    uint64_t alike = MIN(s->last.size - (p->offset - s->last_offset), left);
    /* Where blocks can be shared, also extents are that do not fill a chunk. */
    bool may_clone = clone_may(&s->clone);
    p->size = chunk;
    p->kind = KIND_MIXED;
    if (alike < (may_clone ? MIN(chunk, (uint64_t)CLONE_MIN) : chunk))
        return 0;
    if (!is_wanted(s, &s->last)) {
        size = alike;
        kind = PIECE_SKIP;
    } else if (is_zero_extent(&s->last)) {
        rc = find_zero_piece(s, p->offset, alike, &kind, &size);
    } else if (clone_fits(&s->clone, &s->last, p->offset - s->last_offset)) {
        size = MIN(alike, (uint64_t)CLONE_MAX);
        kind = KIND_CLONE;
    } else {
        p->kind = s->last.kind == DISK_DATA && alike >= chunk ? KIND_DATA : KIND_MIXED;
    }
    size = whole_steps(s, p->offset, size, may_clone ? UNIT : s->chunk);
    if (!rc && size && kind != KIND_MIXED) {
        p->size = size;
        p->kind = kind;
    }
    return rc;
}

/** Mark the units that [from, to) of the chunk touches, or with @whole those that lie within. */
static void mark(const struct chunk *k, bool *flags, uint64_t from, uint64_t to, bool whole)
{
    uint32_t unit = k->unit;
    uint64_t first = whole ? (from + unit - 1) / unit : from / unit;
    uint64_t end = !whole || to == k->size ? (to + unit - 1) / unit : to / unit;

    for (uint64_t i = first; i < end; i++)
        flags[i] = true;
}

/** [at, at+size) of the chunk shows zeroes. Most of them are never looked at, so of whole units
 * this is only noted; see zero_unit(). */
static void note_zeroes(struct chunk *k, uint64_t at, uint64_t size)
{
    uint64_t end = at + size;
    uint64_t first = MIN(align_up(at, k->unit), end);
    uint64_t last = end == k->size ? end : MAX(first, align_down(end, k->unit));

    memset(k->data + at, 0, (size_t)(first - at));
    memset(k->data + last, 0, (size_t)(end - last));
    mark(k, k->known_zero, at, end, true);
}

/** Read the parts of the chunk that hold data; say of which units that is not needed. */
static int read_mixed(struct copier *s, struct chunk *k)
{
    struct disk_extent e;
    bool wanted[UNITS_MAX] = {0};

    for (uint64_t at = 0; at < k->size; at += e.size) {
        int rc = disk_map(s->c->source, k->offset + at, k->size - at, &e);

        if (rc)
            return rc;
        if (is_wanted(s, &e))
            mark(k, wanted, at, at + e.size, false);
        if (e.kind == DISK_PACKED && !e.depth)
            mark(k, k->was_packed, at, at + e.size, false);
        if (s->c->depth && !is_wanted(s, &e))
            continue; /* the target's own: it changes as we go */
        if (is_zero_extent(&e)) {
            note_zeroes(k, at, e.size);
        } else {
            rc = disk_pread(s->c->source, k->data + at, (size_t)e.size, k->offset + at);
            if (rc)
                return rc;
        }
    }
    for (unsigned i = 0; i < k->units; i++)
        k->state[i] = wanted[i] ? UNIT_DATA : UNIT_SKIP;
    return 0;
}

static int read_chunk(struct copier *s, const struct piece *p, struct chunk *k)
{
    k->unit = s->unit;
    k->units = (unsigned)((k->size + s->unit - 1) / s->unit);
    memset(k->known_zero, 0, k->units);
    memset(k->was_packed, 0, k->units);
    if (p->kind != KIND_DATA)
        return read_mixed(s, k);
    memset(k->state, UNIT_DATA, k->units);
    return disk_pread(s->c->source, k->data, k->size, k->offset);
}

/** What of the base lies under the chunk; zeroes beyond its end. */
static int read_base(const struct copier *s, struct chunk *k)
{
    struct disk *base = s->c->base;
    uint64_t end = base->size_bytes;
    size_t have = k->offset < end ? (size_t)MIN((uint64_t)k->size, end - k->offset) : 0;

    memset(k->base + have, 0, k->size - have);
    return have ? disk_pread(base, k->base, have, k->offset) : 0;
}

static size_t unit_size(const struct chunk *k, unsigned i)
{
    return MIN((size_t)k->unit, k->size - (size_t)i * k->unit);
}

/** The bytes of unit @i are needed: make those that were only noted. */
static void zero_unit(struct chunk *k, unsigned i)
{
    if (k->known_zero[i])
        memset(k->data + (size_t)i * k->unit, 0, unit_size(k, i));
}

static void make_data(struct chunk *k, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++) {
        if (k->state[i] != UNIT_DATA)
            zero_unit(k, i);
        k->state[i] = UNIT_DATA;
    }
}

/** Which of the wanted units must be written, and which of them as zeroes. */
static int sort_units(const struct copier *s, struct chunk *k)
{
    const struct disk_copy *c = s->c;
    int rc = c->base ? read_base(s, k) : 0;

    for (unsigned i = 0; !rc && i < k->units; i++) {
        const uint8_t *data = k->data + (size_t)i * k->unit;
        size_t size = unit_size(k, i);

        if (k->state[i] == UNIT_SKIP)
            continue;
        if (c->base || !c->sparse_bytes)
            zero_unit(k, i);
        if (c->base && !memcmp(data, k->base + (size_t)i * k->unit, size))
            k->state[i] = UNIT_SKIP;
        else if (c->sparse_bytes && (k->known_zero[i] || disk_is_zero(data, size)))
            k->state[i] = !c->base && c->target_is_zero ? UNIT_SKIP : UNIT_ZERO;
    }
    return rc;
}

/** Runs of other units, too short to be worth a write of their own, become data. */
static void join_short_runs(const struct copier *s, struct chunk *k)
{
    unsigned least = (unsigned)((s->c->sparse_bytes + s->unit - 1) / s->unit);

    if (s->c->depth)
        return; /* what is not held by the upper layers is not ours to write */
    for (unsigned i = 0; i < k->units;) {
        unsigned end = i;

        while (end < k->units && k->state[end] != UNIT_DATA)
            end++;
        if (end > i && i > 0 && end < k->units && end - i < least)
            make_data(k, i, end);
        i = end + 1;
    }
}

/** A cluster that is written is written whole: @return whether any unit of it is data. */
static bool fill_cluster(const struct copier *s, struct chunk *k, unsigned first, bool write)
{
    unsigned end = MIN(k->units, first + s->cluster / s->unit);
    bool any = false;

    for (unsigned i = first; i < end; i++)
        any |= k->state[i] == UNIT_DATA;
    if (any && write)
        make_data(k, first, end);
    return any;
}

static void fill_clusters(const struct copier *s, struct chunk *k)
{
    for (unsigned i = 0; i < k->units && s->cluster > s->unit; i += s->cluster / s->unit)
        (void)fill_cluster(s, k, i, true);
}

/** Write units [first, end), all alike. */
static int write_run(struct copier *s, struct chunk *k, unsigned first, unsigned end)
{
    uint64_t from = (uint64_t)first * s->unit;
    uint64_t to = MIN((uint64_t)end * s->unit, (uint64_t)k->size);

    switch ((enum unit_state)k->state[first]) {
    case UNIT_SKIP:
        return 0;
    case UNIT_ZERO:
        return write_result(s, disk_write_zeroes(s->c->target, k->offset + from, to - from, true));
    case UNIT_DATA:
        return write_result(
            s, disk_pwrite(s->c->target, k->data + from, (size_t)(to - from), k->offset + from));
    }
    return -EINVAL;
}

static int write_units(struct copier *s, struct chunk *k, unsigned first, unsigned end)
{
    int rc = 0;

    while (!rc && first < end) {
        unsigned stop = first + 1;

        while (stop < end && k->state[stop] == k->state[first])
            stop++;
        rc = write_run(s, k, first, stop);
        first = stop;
    }
    return rc;
}

static bool is_to_be_packed(const struct copier *s, const struct chunk *k, unsigned first)
{
    unsigned end = MIN(k->units, first + s->cluster / s->unit);
    bool was = false;

    for (unsigned i = first; i < end; i++)
        was |= k->was_packed[i];
    return s->c->packing == DISK_PACK_ALL || was;
}

/** Room for cluster @n, compressed. */
static uint8_t *packed_at(const struct copier *s, const struct chunk *k, unsigned n)
{
    return k->packed + (size_t)n * (s->cluster + PACK_SLACK);
}

/** Compress the clusters that hold data. */
static int pack_chunk(struct copier *s, struct chunk *k)
{
    struct disk *target = s->c->target;
    unsigned step = s->cluster / s->unit;
    unsigned n = 0;

    memset(k->data + k->size, 0, s->chunk - k->size); /* the disk's last cluster may be short */
    for (unsigned i = 0; i < k->units; i += step, n++) {
        size_t at = (size_t)n * s->cluster;

        k->packed_sizes[n] = 0;
        if (!fill_cluster(s, k, i, true) || !is_to_be_packed(s, k, i))
            continue;
        int rc = target->ops->pack(target, k->data + at, packed_at(s, k, n),
                                   s->cluster + PACK_SLACK, &k->packed_sizes[n]);
        if (rc == -E2BIG)
            k->packed_sizes[n] = 0;
        else if (rc)
            return write_result(s, rc);
    }
    return 0;
}

static int write_packed(struct copier *s, struct chunk *k)
{
    struct disk *target = s->c->target;
    unsigned step = s->cluster / s->unit;
    unsigned n = 0;
    int rc = 0;

    for (unsigned i = 0; !rc && i < k->units; i += step, n++) {
        uint64_t offset = k->offset + (uint64_t)n * s->cluster;
        size_t size = k->packed_sizes[n];

        rc = size ? write_result(
                        s, target->ops->write_packed(target, offset, packed_at(s, k, n), size))
                  : write_units(s, k, i, MIN(i + step, k->units));
    }
    return rc;
}

static int write_zero_piece(struct copier *s, const struct piece *p)
{
    return write_result(s, disk_write_zeroes(s->c->target, p->offset, p->size, true));
}

/** The chunk whose bytes are at @buf, with what belongs to it behind them. */
static struct chunk *chunk_in(const struct copier *s, uint8_t *buf)
{
    return (struct chunk *)(void *)(buf + s->buffers_bytes);
}

/** Read it, find out what is to be written, and compress that or write it. */
static int work_on_chunk(struct copier *s, const struct piece *p, uint8_t *buf)
{
    struct chunk *k = chunk_in(s, buf); /* large, and not zeroed as a whole */

    k->offset = p->offset;
    k->size = (size_t)p->size;
    k->data = buf;
    k->base = buf + s->chunk;
    k->packed = buf + (s->c->base ? 2 : 1) * (size_t)s->chunk;
    int rc = read_chunk(s, p, k);
    if (!rc)
        rc = sort_units(s, k);
    if (rc)
        return rc;
    join_short_runs(s, k);
    if (s->c->packing != DISK_PACK_NONE)
        return pack_chunk(s, k);
    if (s->c->base)
        fill_clusters(s, k);
    return write_units(s, k, 0, k->units);
}

static int work(struct walk *w, const struct piece *p, uint8_t *buf)
{
    struct copier *s = w->arg;
    struct piece part = {.kind = KIND_DATA};
    int rc = 0;

    if (p->kind == KIND_ZERO)
        return w->finish ? 0 : write_zero_piece(s, p);
    if (p->kind != KIND_CLONE)
        return work_on_chunk(s, p, buf);
    for (uint64_t at = clone_run(&s->clone, p->offset, p->size); !rc && at < p->size;
         at += part.size) {
        part.offset = p->offset + at;
        part.size = MIN(p->size - at, (uint64_t)s->chunk);
        rc = work_on_chunk(s, &part, buf);
    }
    return rc;
}

/** What is compressed is written in order. */
static int finish(struct walk *w, const struct piece *p, uint8_t *buf)
{
    struct copier *s = w->arg;

    return p->kind == KIND_ZERO ? write_zero_piece(s, p) : write_packed(s, chunk_in(s, buf));
}

/** Sizes of chunks and clusters, and what cannot be done. */
static int plan(struct copier *s, struct error *err)
{
    const struct disk_copy *c = s->c;
    uint32_t cluster = c->target->cluster_bytes;
    bool packs = c->packing != DISK_PACK_NONE;

    if (c->target->size_bytes < c->source->size_bytes)
        return error_set(err, ENOSPC, "'%s' is smaller than '%s'", c->target->path,
                         c->source->path);
    if (packs && (!c->target->ops->pack || !is_pow2(cluster) || cluster > CHUNK_MAX))
        return error_set(err, ENOTSUP, "'%s' is of a format or variant without compression",
                         c->target->path);
    if (packs && cluster < UNIT)
        return error_set(err, ENOTSUP, "'%s' has clusters too small to be worth compressing",
                         c->target->path);
    bool whole = is_pow2(cluster) && cluster > UNIT && cluster <= CHUNK_MAX &&
                 (packs || c->base || c->from_depth);
    s->unit = c->depth ? SECTOR : UNIT;
    s->cluster = whole && !c->depth ? cluster : s->unit;
    s->chunk = c->depth ? SECTOR * UNITS_MAX : MAX(s->cluster, packs ? CHUNK_PACKED : CHUNK_MIN);
    s->buffers_bytes = (size_t)s->chunk * (c->base ? 2u : 1u);
    if (packs)
        s->buffers_bytes += (size_t)(s->chunk / s->cluster) * (s->cluster + PACK_SLACK);
    s->size_bytes = c->source->size_bytes;
    if (!c->base && !c->depth && !c->from_depth && !packs && c->sparse_bytes)
        clone_init(&s->clone, c->source, c->target);
    return 0;
}

int disk_copy(const struct disk_copy *copy, const struct disk_job *job, struct error *err)
{
    struct copier s = {.c = copy};
    uint64_t failed = 0;
    int rc = plan(&s, err);

    if (rc)
        return rc;
    struct walk w = {
        .size_bytes = s.size_bytes,
        .buffer_bytes = s.buffers_bytes + sizeof(struct chunk),
        .arg = &s,
        .find = find,
        .work = work,
        .finish = copy->packing != DISK_PACK_NONE ? finish : NULL,
    };
    rc = walk_run(&w, job, &failed);
    if (rc == -ECANCELED)
        return error_set(err, ECANCELED, "cancelled");
    if (rc && s.write_failed)
        return error_set(err, -rc, "cannot write '%s' at offset %llu: %s", copy->target->path,
                         (unsigned long long)failed, strerror(-rc));
    return rc ? error_set(err, -rc, "cannot read '%s' at offset %llu: %s", copy->source->path,
                          (unsigned long long)failed, strerror(-rc))
              : 0;
}
