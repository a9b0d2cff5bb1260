/* Replaying a VHDX log. Spec: [MS-VHDX] 2.3.
 *
 * The log is hostile like the rest of the file: it is read whole (at most VHDX_MAX_LOG), and the
 * bytes that are checksummed in search of a sequence are counted, since many entries may claim the
 * same space.
 *
 * Threads: opening.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhdx/vhdx.h"

#include <string.h>

#define WORK_FACTOR 16u /* times the log's size */

enum {
    AT_CHECKSUM = 4,
    AT_LENGTH = 8,
    AT_TAIL = 12,
    AT_SEQUENCE = 16,
    AT_COUNT = 24,
    AT_GUID = 32,
    AT_FLUSHED = 48,
    AT_LAST = 56,
    HEADER_BYTES = 64,
    DESCRIPTOR_BYTES = 32,
};

struct replay {
    const struct vhdx_header *h;
    uint8_t *log;
    uint8_t *entry; /* room for one, put together if it wraps */
    uint32_t size;
    uint64_t work; /* bytes that may still be looked at */
};

/** A run of entries, or none: `sequence` 0. */
struct sequence {
    uint32_t tail, head; /* of the oldest and the newest entry */
    uint32_t end;        /* behind the newest */
    uint64_t bytes;
    uint64_t sequence; /* the newest entry's number */
};

/** The bytes [at, at+size) of the ring. */
static const uint8_t *get_bytes(struct replay *r, uint32_t at, uint32_t size)
{
    if (size <= r->size - at)
        return r->log + at;
    memcpy(r->entry, r->log + at, r->size - at);
    memcpy(r->entry + (r->size - at), r->log, size - (r->size - at));
    return r->entry;
}

static uint32_t descriptor_pages(uint32_t count)
{
    return (uint32_t)((HEADER_BYTES + (uint64_t)count * DESCRIPTOR_BYTES + VHDX_PAGE - 1) /
                      VHDX_PAGE);
}

/** Are descriptor @i of entry @e and its data page @page (if it has one) the entry's? */
static bool is_descriptor_good(const uint8_t *e, uint32_t i, const uint8_t *page)
{
    const uint8_t *d = e + HEADER_BYTES + (size_t)i * DESCRIPTOR_BYTES;
    uint64_t sequence = load_le64(e + AT_SEQUENCE);
    uint64_t size = page ? VHDX_PAGE : load_le64(d + 8);
    uint64_t offset = load_le64(d + 16);

    if (load_le64(d + 24) != sequence || offset % VHDX_PAGE || size % VHDX_PAGE ||
        offset > VHDX_MAX_OFFSET || size > VHDX_MAX_OFFSET)
        return false;
    return !page || (!memcmp(page, "data", 4) && load_le32(page + 4) == sequence >> 32 &&
                     load_le32(page + VHDX_PAGE - 4) == (uint32_t)sequence);
}

static bool is_entry_whole(const uint8_t *e, uint32_t size, uint32_t count)
{
    uint32_t page = descriptor_pages(count);

    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *d = e + HEADER_BYTES + (size_t)i * DESCRIPTOR_BYTES;
        bool is_data = !memcmp(d, "desc", 4);

        if (!is_data && memcmp(d, "zero", 4) != 0)
            return false;
        if (is_data && (uint64_t)page * VHDX_PAGE + VHDX_PAGE > size)
            return false;
        if (!is_descriptor_good(e, i, is_data ? e + (size_t)page * VHDX_PAGE : NULL))
            return false;
        page += is_data;
    }
    return (uint64_t)page * VHDX_PAGE == size;
}

/** The entry at @at if it is valid, else NULL. */
static const uint8_t *get_entry(struct replay *r, uint32_t at)
{
    const uint8_t *e = r->log + at;
    uint32_t size = load_le32(e + AT_LENGTH);
    uint32_t count = load_le32(e + AT_COUNT);
    uint32_t tail = load_le32(e + AT_TAIL);

    if (memcmp(e, "loge", 4) != 0 || memcmp(e + AT_GUID, r->h->log_guid, VHDX_GUID_BYTES) != 0)
        return NULL;
    if (!size || size % VHDX_PAGE || size > r->size || tail % VHDX_PAGE || tail >= r->size ||
        !load_le64(e + AT_SEQUENCE) || count > r->size / DESCRIPTOR_BYTES ||
        descriptor_pages(count) > size / VHDX_PAGE || size > r->work)
        return NULL;
    r->work -= size;
    uint32_t checksum = load_le32(e + AT_CHECKSUM);
    e = get_bytes(r, at, size);
    if (checksum != vhdx_crc(e, size, AT_CHECKSUM) || !is_entry_whole(e, size, count))
        return NULL;
    return e;
}

/** The longest sequence that begins at @tail. */
static struct sequence follow(struct replay *r, uint32_t tail)
{
    struct sequence s = {.tail = tail, .head = tail, .end = tail};
    const uint8_t *e;
    uint32_t last_tail = 0;

    while (s.bytes < r->size && (e = get_entry(r, s.end)) != NULL &&
           (!s.sequence || load_le64(e + AT_SEQUENCE) == s.sequence + 1)) {
        uint32_t size = load_le32(e + AT_LENGTH);

        if (size > r->size - s.bytes)
            break;
        s.sequence = load_le64(e + AT_SEQUENCE);
        last_tail = load_le32(e + AT_TAIL);
        s.head = s.end;
        s.end = (s.end + size) % r->size;
        s.bytes += size;
    }
    /* The newest entry's tail must lie in the sequence; what is older than it has been applied. */
    if (s.sequence && (last_tail + r->size - tail) % r->size >= s.bytes)
        s.sequence = 0;
    if (s.sequence)
        s.tail = last_tail;
    return s;
}

static bool find_active(struct replay *r, struct sequence *ret)
{
    uint32_t tail = 0;
    struct sequence best = {.sequence = 0};

    while (tail < r->size) {
        struct sequence s = follow(r, tail);
        uint32_t next = tail + VHDX_PAGE;

        if (s.sequence > best.sequence)
            best = s;
        if (s.sequence)
            next = s.end > tail ? s.end : r->size; /* it wrapped: all has been seen */
        tail = next;
    }
    *ret = best;
    return best.sequence;
}

/** Write one update to the file, or to the patches over it. */
static int put(struct file *f, bool is_patched, uint64_t offset, uint64_t size, const uint8_t *data)
{
    if (is_patched)
        return vhdx_patched_add(f, offset, size, data);
    return data ? file_pwrite(f, data, (size_t)size, offset)
                : file_write_zeroes(f, offset, size, false);
}

static int apply_entry(const uint8_t *e, struct file *f, bool is_patched)
{
    uint32_t count = load_le32(e + AT_COUNT);
    uint32_t page = descriptor_pages(count);
    int rc = 0;

    for (uint32_t i = 0; i < count && !rc; i++) {
        const uint8_t *d = e + HEADER_BYTES + (size_t)i * DESCRIPTOR_BYTES;
        uint64_t offset = load_le64(d + 16);
        uint8_t data[VHDX_PAGE];

        if (!memcmp(d, "zero", 4)) {
            rc = put(f, is_patched, offset, load_le64(d + 8), NULL);
            continue;
        }
        memcpy(data, e + (size_t)page++ * VHDX_PAGE, VHDX_PAGE);
        memcpy(data, d + 8, 8);
        memcpy(data + VHDX_PAGE - 4, d + 4, 4);
        rc = put(f, is_patched, offset, VHDX_PAGE, data);
    }
    return rc;
}

static int apply(struct replay *r, const struct sequence *s, struct file *f, bool is_patched,
                 struct error *err)
{
    uint32_t at = s->tail;
    uint64_t file_bytes = 0;
    int rc = file_get_size(f, &file_bytes);
    const uint8_t *e = NULL;

    r->work = (uint64_t)r->size * 2;
    while (!rc) {
        e = get_entry(r, at);
        if (!e)
            return error_set(err, EINVAL, "the log of VHDX image '%s' is damaged", f->path);
        if (load_le64(e + AT_SEQUENCE) == s->sequence &&
            (load_le64(e + AT_FLUSHED) > file_bytes || load_le64(e + AT_LAST) > VHDX_MAX_OFFSET))
            return error_set(err, EINVAL, "VHDX image '%s' is truncated", f->path);
        rc = apply_entry(e, f, is_patched);
        if (load_le64(e + AT_SEQUENCE) == s->sequence)
            break;
        at = (at + load_le32(e + AT_LENGTH)) % r->size;
    }
    uint64_t last = rc ? 0 : load_le64(e + AT_LAST);
    if (!rc && is_patched)
        vhdx_patched_extend(f, last);
    else if (!rc)
        rc = file_get_size(f, &file_bytes);
    if (!rc && !is_patched && last > file_bytes)
        rc = file_truncate(f, last);
    if (!rc && !is_patched)
        rc = file_flush(f);
    return rc ? error_set(err, -rc, "cannot replay the log of VHDX image '%s': %s", f->path,
                          strerror(-rc))
              : 0;
}

static int replay(struct replay *r, struct file **file, bool readonly, struct error *err)
{
    struct file *over = NULL;
    struct sequence s;
    int rc = file_pread(*file, r->log, r->size, r->h->log_offset);

    if (rc)
        return error_set(err, -rc, "cannot read '%s': %s", (*file)->path, strerror(-rc));
    if (!find_active(r, &s))
        return error_set(err, EINVAL, "VHDX image '%s' has a log without a whole sequence",
                         (*file)->path);
    if (!readonly)
        return apply(r, &s, *file, false, err);
    if (vhdx_patched_new(*file, &over))
        return error_set(err, ENOMEM, "out of memory");
    rc = apply(r, &s, over, true, err);
    if (rc)
        (void)vhdx_patched_free(over); /* what is below is the caller's */
    else
        *file = over;
    return rc;
}

int vhdx_replay(struct file **file, const struct vhdx_header *h, bool readonly, struct error *err)
{
    struct replay r = {.h = h, .size = h->log_bytes, .work = (uint64_t)h->log_bytes * WORK_FACTOR};
    uint64_t file_bytes = 0;
    int rc = file_get_size(*file, &file_bytes);

    if (rc)
        return error_set(err, -rc, "cannot read '%s': %s", (*file)->path, strerror(-rc));
    if (h->log_version || !r.size || r.size > VHDX_MAX_LOG || h->log_offset > file_bytes ||
        r.size > file_bytes - h->log_offset)
        return error_set(err, EINVAL, "VHDX image '%s' has a log that makes no sense",
                         (*file)->path);
    r.log = malloc(r.size);
    r.entry = malloc(r.size);
    rc = r.log && r.entry ? replay(&r, file, readonly, err)
                          : error_set(err, ENOMEM, "out of memory");
    free(r.log);
    free(r.entry);
    return rc;
}
