/* The header of a QCOW2 file: its first cluster.
 *
 * The fields that change while the disk is in use all lie in the first 512 bytes, which a power cut
 * does not tear: qcow2_header_update() writes only those. Extensions that are not known are kept.
 *
 * Threads: the callers'. Spec: qcow2.txt, "Header", "Header extensions". */
#include "base/fd.h"
#include "disk/qcow2/qcow2.h"

#include <stdio.h>
#include <string.h>

#define V2_BYTES      72u
#define V3_BYTES      104u
#define OUR_BYTES     112u /* with the compression type, padded */
#define MAX_NAME      1023u
#define MAX_CRYPT     (64u << 20)
#define FEATURE_BYTES 48u

enum {
    EXT_END = 0,
    EXT_BACKING_FORMAT = 0xe2792aca,
    EXT_FEATURES = 0x6803f857,
    EXT_BITMAPS = 0x23852875,
    EXT_CRYPT = 0x0537be77,
    EXT_DATA_FILE = 0x44415441,
};

static const struct {
    uint8_t kind, bit;
    char name[FEATURE_BYTES - 2];
} features[] = {
    {0, 0, "dirty bit"          },
    {0, 1, "corrupt bit"        },
    {0, 2, "external data file" },
    {0, 3, "compression type"   },
    {0, 4, "extended L2 entries"},
    {1, 0, "lazy refcounts"     },
    {2, 0, "bitmaps"            },
    {2, 1, "raw external data"  },
};

void qcow2_header_done(struct qcow2_header *h)
{
    free(h->backing);
    free(h->backing_format);
    free(h->data_file);
    free(h->unknown);
    *h = (struct qcow2_header){0};
}

static char *copy_text(const uint8_t *from, size_t n)
{
    char *s = memchr(from, 0, n) ? NULL : malloc(n + 1);

    if (s) {
        memcpy(s, from, n);
        s[n] = 0;
    }
    return s;
}

static int keep_unknown(struct qcow2_header *h, const uint8_t *ext, uint32_t bytes)
{
    uint8_t *v = realloc(h->unknown, h->unknown_bytes + bytes);

    if (!v)
        return -ENOMEM;
    memcpy(v + h->unknown_bytes, ext, bytes);
    h->unknown = v;
    h->unknown_bytes += bytes;
    return 0;
}

static int take_text(char **to, const uint8_t *from, uint32_t size)
{
    if (*to || !size || size > MAX_NAME)
        return -EINVAL;
    *to = copy_text(from, size);
    return *to ? 0 : -EINVAL;
}

static int parse_extension(struct qcow2_header *h, uint32_t type, const uint8_t *data,
                           uint32_t size)
{
    switch (type) {
    case EXT_BACKING_FORMAT:
        return take_text(&h->backing_format, data, size);
    case EXT_DATA_FILE:
        return take_text(&h->data_file, data, size);
    case EXT_FEATURES:
        return 0; /* written anew */
    case EXT_BITMAPS:
        if (h->has_bitmaps || size != 24)
            return -EINVAL;
        h->has_bitmaps = true;
        h->bitmap_count = load_be32(data);
        h->bitmap_dir_bytes = load_be64(data + 8);
        h->bitmap_dir_offset = load_be64(data + 16);
        return 0;
    case EXT_CRYPT:
        if (h->crypt_offset || size != 16)
            return -EINVAL;
        h->crypt_offset = load_be64(data);
        h->crypt_bytes = load_be64(data + 8);
        return 0;
    default:
        return keep_unknown(h, data - 8, 8 + (uint32_t)align_up(size, 8));
    }
}

/** @head is the first cluster. Extensions end where the backing name begins, or the cluster. */
static int parse_extensions(struct qcow2_header *h, const uint8_t *head, uint64_t backing_offset,
                            struct error *err)
{
    uint32_t end = 1u << h->cluster_bits;
    uint32_t at = h->length;

    if (backing_offset)
        end = (uint32_t)backing_offset;
    while (end - at >= 8) {
        uint32_t type = load_be32(head + at);
        uint32_t size = load_be32(head + at + 4);

        if (type == EXT_END)
            return 0;
        at += 8;
        if (size > end - at)
            return error_set(err, EINVAL, "a header extension of %u bytes goes beyond the header",
                             size);
        /* The last one's padding may be missing. */
        uint32_t padded = MIN((uint32_t)align_up(size, 8), end - at);
        int rc = padded < align_up(size, 8) && type != EXT_BACKING_FORMAT
                     ? -EINVAL
                     : parse_extension(h, type, head + at, size);
        if (rc)
            return error_set(err, -rc, "header extension 0x%08x makes no sense", type);
        at += padded;
    }
    return 0;
}

/** The feature's name, from the file's own table if it has it. */
static void feature_name(const uint8_t *head, const struct qcow2_header *h, unsigned bit, char *buf,
                         size_t size)
{
    uint32_t end = 1u << h->cluster_bits;
    uint32_t at = h->length;

    (void)snprintf(buf, size, "feature bit %u", bit);
    while (end - at >= 8 && load_be32(head + at) != EXT_END) {
        uint32_t bytes = load_be32(head + at + 4);

        if (bytes > end - at - 8)
            return;
        for (uint32_t i = 0; load_be32(head + at) == EXT_FEATURES && i + FEATURE_BYTES <= bytes;
             i += FEATURE_BYTES) {
            const uint8_t *f = head + at + 8 + i;

            if (f[0] == 0 && f[1] == bit) {
                (void)snprintf(buf, size, "feature '%.46s'", (const char *)f + 2);
                for (char *c = buf; *c; c++)
                    *c = *c < ' ' || *c > '~' ? '?' : *c;
                return;
            }
        }
        if (align_up(bytes, 8) > end - at - 8)
            return;
        at += 8 + (uint32_t)align_up(bytes, 8);
    }
}

static int check_features(const struct qcow2_header *h, const uint8_t *head, struct error *err)
{
    uint64_t unknown = h->incompatible & ~(uint64_t)QCOW2_KNOWN_INCOMPATIBLE;
    char name[80];

    if (unknown) {
        feature_name(head, h, (unsigned)__builtin_ctzll(unknown), name, sizeof(name));
        return error_set(err, ENOTSUP, "it needs %s, which is not known", name);
    }
    if (!!(h->incompatible & QCOW2_COMPRESSION) != !!h->compression)
        return error_set(err, EINVAL, "its compression type contradicts its features");
    if (h->compression > QCOW2_ZSTD)
        return error_set(err, ENOTSUP, "its compression type %u is not known", h->compression);
    if (h->incompatible & QCOW2_EXTENDED_L2 && h->cluster_bits < 14)
        return error_set(err, EINVAL, "extended L2 entries need clusters of 16 KiB or more");
    if (h->crypt > QCOW2_CRYPT_LUKS)
        return error_set(err, EINVAL, "its encryption method %u is not known", h->crypt);
    if (h->crypt == 1)
        return error_set(err, ENOTSUP,
                         "it has the AES encryption of old, which is not supported: convert it "
                         "with qemu-img");
    if (h->crypt && (h->incompatible & QCOW2_DATA_FILE || !h->crypt_offset))
        return error_set(err, EINVAL, "its encryption header is missing");
    return 0;
}

static int check_table(const struct qcow2_header *h, uint64_t offset, uint64_t bytes,
                       uint64_t file_bytes, const char *what, struct error *err)
{
    uint64_t end;

    if (offset & MASK(h->cluster_bits) || (bytes && !offset))
        return error_set(err, EINVAL, "its %s is at no cluster's beginning", what);
    if (bytes && (!checked_add(offset, bytes, &end) || end > file_bytes))
        return error_set(err, EINVAL, "its %s goes beyond the end of the file", what);
    return 0;
}

static int check_header(const struct qcow2_header *h, uint64_t file_bytes, struct error *err)
{
    uint64_t entry_bytes = h->incompatible & QCOW2_EXTENDED_L2 ? 16 : 8;
    uint64_t per_l1 = (1ULL << h->cluster_bits) / entry_bytes << h->cluster_bits;
    uint64_t needed = h->size_bytes / per_l1 + !!(h->size_bytes % per_l1);
    uint64_t room = align_up(file_bytes, 1ULL << h->cluster_bits);

    if (h->size_bytes > DISK_MAX_BYTES)
        return error_set(err, EINVAL, "its size is %llu bytes, which is too large",
                         (unsigned long long)h->size_bytes);
    if (h->l1_entries > QCOW2_MAX_L1 / 8 || needed > h->l1_entries)
        return error_set(err, EINVAL, "its L1 table has %u entries, %llu are needed", h->l1_entries,
                         (unsigned long long)needed);
    if ((uint64_t)h->reftable_clusters << h->cluster_bits > QCOW2_MAX_RT || !h->reftable_clusters)
        return error_set(err, EINVAL, "its refcount table of %u clusters is too large or none",
                         h->reftable_clusters);
    int rc = check_table(h, h->l1_offset, (uint64_t)h->l1_entries * 8, room, "L1 table", err);
    if (!rc)
        rc = check_table(h, h->reftable_offset, (uint64_t)h->reftable_clusters << h->cluster_bits,
                         room, "refcount table", err);
    if (!rc && h->snapshot_count > 65536)
        rc = error_set(err, EINVAL, "it has %u snapshots, which is too many", h->snapshot_count);
    if (!rc)
        rc = check_table(h, h->snapshots_offset, (uint64_t)h->snapshot_count * 40, room,
                         "snapshot table", err);
    if (!rc && h->crypt && h->crypt_bytes > MAX_CRYPT)
        rc = error_set(err, EINVAL, "its encryption header is too large");
    if (!rc && h->crypt)
        rc = check_table(h, h->crypt_offset, h->crypt_bytes, room, "encryption header", err);
    return rc;
}

static void parse_fields(struct qcow2_header *h, const uint8_t *p)
{
    h->size_bytes = load_be64(p + 24);
    h->crypt = load_be32(p + 32);
    h->l1_entries = load_be32(p + 36);
    h->l1_offset = load_be64(p + 40);
    h->reftable_offset = load_be64(p + 48);
    h->reftable_clusters = load_be32(p + 56);
    h->snapshot_count = load_be32(p + 60);
    h->snapshots_offset = load_be64(p + 64);
    h->refcount_order = 4;
    h->length = V2_BYTES;
    if (h->version == 2)
        return;
    h->incompatible = load_be64(p + 72);
    h->compatible = load_be64(p + 80);
    h->autoclear = load_be64(p + 88);
    h->refcount_order = load_be32(p + 96);
    h->length = load_be32(p + 100);
    h->compression = h->length > V3_BYTES ? p[V3_BYTES] : 0;
}

static int parse_head(struct qcow2_header *h, const uint8_t *head, uint64_t file_bytes,
                      struct error *err)
{
    uint64_t backing_offset = load_be64(head + 8);
    uint32_t backing_bytes = load_be32(head + 16);
    uint32_t cluster_bytes = 1u << h->cluster_bits;

    parse_fields(h, head);
    if (h->version > 2 && (h->length < V3_BYTES || h->length % 8 || h->length > cluster_bytes))
        return error_set(err, EINVAL, "its header is %u bytes long, which is impossible",
                         h->length);
    if (h->refcount_order > 6)
        return error_set(err, EINVAL, "its refcounts have 2^%u bits, more than 64",
                         h->refcount_order);
    if (backing_offset &&
        (backing_bytes > MAX_NAME || backing_offset > cluster_bytes ||
         backing_bytes > cluster_bytes - backing_offset || backing_offset < h->length))
        return error_set(err, EINVAL, "the name of its backing image lies outside of its header");
    int rc = parse_extensions(h, head, backing_offset, err);
    if (!rc && backing_offset && backing_bytes) {
        h->backing = copy_text(head + backing_offset, backing_bytes);
        if (!h->backing)
            rc = error_set(err, EINVAL, "the name of its backing image makes no sense");
    }
    if (!rc)
        rc = check_features(h, head, err);
    return rc ? rc : check_header(h, file_bytes, err);
}

int qcow2_header_read(struct file *file, struct qcow2_header *h, uint8_t **ret_head,
                      struct error *err)
{
    uint8_t first[V3_BYTES];
    uint64_t file_bytes = 0;
    int rc = file_get_size(file, &file_bytes);

    *h = (struct qcow2_header){0};
    if (!rc)
        rc = file_pread(file, first, sizeof(first), 0);
    if (rc)
        return error_set(err, -rc, "cannot read it: %s", strerror(-rc));
    h->version = load_be32(first + 4);
    h->cluster_bits = load_be32(first + 20);
    if (load_be32(first) != QCOW2_MAGIC)
        return error_set(err, EINVAL, "it is no QCOW2 image");
    if (h->version != 2 && h->version != 3)
        return error_set(err, ENOTSUP, "it is of QCOW version %u; 2 and 3 are supported",
                         h->version);
    if (h->cluster_bits < 9 || h->cluster_bits > 21)
        return error_set(err, EINVAL, "its clusters have 2^%u bytes, not 2^9 to 2^21",
                         h->cluster_bits);
    cleanup(freep) uint8_t *head = malloc(1u << h->cluster_bits);
    if (!head)
        return error_set(err, ENOMEM, "out of memory");
    rc = file_pread(file, head, 1u << h->cluster_bits, 0);
    if (rc)
        return error_set(err, -rc, "cannot read it: %s", strerror(-rc));
    rc = parse_head(h, head, file_bytes, err);
    if (rc)
        qcow2_header_done(h);
    else
        *ret_head = ptr_take(&head);
    return rc;
}

static void store_fields(const struct qcow2_header *h, uint8_t *p)
{
    store_be32(p, QCOW2_MAGIC);
    store_be32(p + 4, h->version);
    store_be32(p + 20, h->cluster_bits);
    store_be64(p + 24, h->size_bytes);
    store_be32(p + 32, h->crypt);
    store_be32(p + 36, h->l1_entries);
    store_be64(p + 40, h->l1_offset);
    store_be64(p + 48, h->reftable_offset);
    store_be32(p + 56, h->reftable_clusters);
    store_be32(p + 60, h->snapshot_count);
    store_be64(p + 64, h->snapshots_offset);
    if (h->version == 2)
        return;
    store_be64(p + 72, h->incompatible);
    store_be64(p + 80, h->compatible);
    store_be64(p + 88, h->autoclear);
    store_be32(p + 96, h->refcount_order);
    store_be32(p + 100, h->length);
    if (h->length > V3_BYTES)
        p[V3_BYTES] = h->compression;
}

struct builder {
    uint8_t *buf;
    size_t at, room;
    bool failed;
};

static uint8_t *add_extension(struct builder *b, uint32_t type, size_t size)
{
    size_t padded = (size_t)align_up(size, 8);

    if (b->failed || b->room - b->at < 8 + padded) {
        b->failed = true;
        return NULL;
    }
    uint8_t *p = b->buf + b->at;
    store_be32(p, type);
    store_be32(p + 4, (uint32_t)size);
    b->at += 8 + padded;
    return p + 8;
}

static void add_text(struct builder *b, uint32_t type, const char *text)
{
    uint8_t *p = text ? add_extension(b, type, strlen(text)) : NULL;

    if (p)
        memcpy(p, text, strlen(text));
}

static void add_features(struct builder *b)
{
    uint8_t *p = add_extension(b, EXT_FEATURES, ARRAY_SIZE(features) * FEATURE_BYTES);

    for (size_t i = 0; p && i < ARRAY_SIZE(features); i++, p += FEATURE_BYTES) {
        p[0] = features[i].kind;
        p[1] = features[i].bit;
        memcpy(p + 2, features[i].name, sizeof(features[i].name));
    }
}

static void add_extensions(struct builder *b, const struct qcow2_header *h)
{
    size_t names = h->backing ? strlen(h->backing) : 0;
    uint8_t *p;

    add_text(b, EXT_BACKING_FORMAT, h->backing_format);
    add_text(b, EXT_DATA_FILE, h->data_file);
    p = h->crypt_offset ? add_extension(b, EXT_CRYPT, 16) : NULL;
    if (p) {
        store_be64(p, h->crypt_offset);
        store_be64(p + 8, h->crypt_bytes);
    }
    p = h->has_bitmaps ? add_extension(b, EXT_BITMAPS, 24) : NULL;
    if (p) {
        store_be32(p, h->bitmap_count);
        store_be64(p + 8, h->bitmap_dir_bytes);
        store_be64(p + 16, h->bitmap_dir_offset);
    }
    if (b->room - b->at >= h->unknown_bytes && h->unknown_bytes) {
        memcpy(b->buf + b->at, h->unknown, h->unknown_bytes);
        b->at += h->unknown_bytes;
    } else if (h->unknown_bytes) {
        b->failed = true;
    }
    /* Names help readers that know less; small clusters have no room for them. */
    if (h->version > 2 && !b->failed &&
        b->room - b->at >= names + 16 + ARRAY_SIZE(features) * FEATURE_BYTES)
        add_features(b);
    (void)add_extension(b, EXT_END, 0);
}

int qcow2_header_build(const struct qcow2_header *h, uint8_t *buf)
{
    struct builder b = {.buf = buf, .at = h->length, .room = (size_t)1 << h->cluster_bits};

    memset(buf, 0, b.room);
    store_fields(h, buf);
    add_extensions(&b, h);
    if (h->backing && !b.failed) {
        size_t n = strlen(h->backing);

        if (n > MAX_NAME || b.room - b.at < n)
            return -EFBIG;
        memcpy(buf + b.at, h->backing, n);
        store_be64(buf + 8, b.at);
        store_be32(buf + 16, (uint32_t)n);
    }
    return b.failed ? -EFBIG : 0;
}

int qcow2_header_update(struct qcow2 *q)
{
    uint8_t first[DISK_SECTOR];

    memcpy(first, q->head, sizeof(first));
    store_fields(&q->h, first);
    if (!memcmp(first, q->head, sizeof(first)))
        return 0;
    int rc = file_pwrite(q->file, first, sizeof(first), 0);
    if (!rc)
        memcpy(q->head, first, sizeof(first));
    return rc;
}

int qcow2_header_rewrite(struct qcow2 *q)
{
    cleanup(freep) uint8_t *buf = malloc(q->cluster_bytes);
    int rc = buf ? qcow2_header_build(&q->h, buf) : -ENOMEM;
    uint32_t from = OUR_BYTES;

    if (rc)
        return rc;
    if (q->h.length > from) /* fields that are not known */
        memcpy(buf + from, q->head + from, q->h.length - from);
    if (!memcmp(buf, q->head, q->cluster_bytes))
        return 0;
    rc = file_pwrite(q->file, buf, q->cluster_bytes, 0);
    if (!rc)
        memcpy(q->head, buf, q->cluster_bytes);
    return rc;
}
