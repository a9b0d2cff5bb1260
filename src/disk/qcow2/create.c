/* Making QCOW2 images, and what they take.
 *
 * The new file: header, refcount table, refcount blocks, L1 table. Preallocation then opens it and
 * places every cluster.
 *
 * Threads: any. */
#include "base/fd.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

#define DEFAULT_CLUSTER 65536u

const struct disk_create_option qcow2_options[] = {
    {"cluster_size",                                             "SIZE", "bytes of a cluster, 512 to 2M (default 64K)"},
    {"refcount_bits",             "N", "bits of a refcount: 1, 2, 4, 8, 16, 32, 64 (default 16)"},
    {"extended_l2",                                            "on|off", "32 sub-clusters for each cluster (default off)"},
    {"lazy_refcounts", "on|off", "other programs may put off refcounts (default off)"},
    {"compat",                                              "0.10|1.1", "version: 2 or 3 (default 1.1)"},
    {"compression_type",          "zlib|zstd", "of compressed clusters (default zlib)"},
    {"data_file",                                           "NAME", "keep the guest's data in another file beside the image"},
    {"data_file_raw",      "on|off", "that file is a raw image by itself (default off)"},
    {"preallocation",                                                   "off|metadata|falloc|full",
     "place all clusters now; reserve or write their space, too (default off)"},
    {0                          },
};

enum preallocation { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };

struct plan {
    struct qcow2_header h;
    enum preallocation preallocation;
    uint32_t cluster_bytes;
    uint64_t blocks; /* refcount blocks */
    uint64_t l1_clusters;
};

static int choose(const struct disk_create *c, const char *name, const char *const *words,
                  unsigned *ret, struct error *err)
{
    const char *text = disk_create_get(c, name);

    *ret = 0;
    for (unsigned i = 0; text && words[i]; i++) {
        *ret = i;
        if (!strcmp(words[i], text))
            return 0;
    }
    return text ? error_set(err, EINVAL, "option %s: '%s' is none of its values", name, text) : 0;
}

/** The options that are a word of several. */
static int parse_words(const struct disk_create *c, struct plan *p, struct error *err)
{
    static const char *const versions[] = {"1.1", "v3", "0.10", "v2", NULL};
    static const char *const types[] = {"zlib", "zstd", NULL};
    static const char *const preallocations[] = {"off", "metadata", "falloc", "full", NULL};
    unsigned version;
    unsigned type = 0;
    unsigned preallocation = 0;
    int rc = choose(c, "compat", versions, &version, err);

    if (!rc)
        rc = choose(c, "compression_type", types, &type, err);
    if (!rc)
        rc = choose(c, "preallocation", preallocations, &preallocation, err);
    if (rc)
        return rc;
    p->h.version = version < 2 ? 3 : 2;
    p->h.compression = (uint8_t)type;
    p->preallocation = (enum preallocation)preallocation;
    return 0;
}

static int parse_numbers(const struct disk_create *c, struct plan *p, struct error *err)
{
    uint64_t cluster = DEFAULT_CLUSTER;
    uint64_t bits = 16;
    int rc = disk_create_get_size(c, "cluster_size", DEFAULT_CLUSTER, &cluster, err);

    if (!rc)
        rc = disk_create_get_size(c, "refcount_bits", 16, &bits, err);
    if (rc)
        return rc;
    if (!is_pow2(cluster) || cluster < 512 || cluster > 2 << 20)
        return error_set(err, EINVAL, "option cluster_size: a power of two from 512 to 2M");
    if (!is_pow2(bits) || bits > 64)
        return error_set(err, EINVAL, "option refcount_bits: a power of two up to 64");
    p->cluster_bytes = (uint32_t)cluster;
    p->h.cluster_bits = (uint32_t)__builtin_ctzll(cluster);
    p->h.refcount_order = (uint32_t)__builtin_ctzll(bits);
    return 0;
}

static int parse_flags(const struct disk_create *c, struct plan *p, struct error *err)
{
    bool extended = false;
    bool lazy = false;
    bool raw = false;
    const char *data_file = disk_create_get(c, "data_file");
    int rc = disk_create_get_bool(c, "extended_l2", false, &extended, err);

    if (!rc)
        rc = disk_create_get_bool(c, "lazy_refcounts", false, &lazy, err);
    if (!rc)
        rc = disk_create_get_bool(c, "data_file_raw", false, &raw, err);
    if (rc)
        return rc;
    if (raw && !data_file)
        return error_set(err, EINVAL, "option data_file_raw needs data_file");
    if (raw && c->backing_path)
        return error_set(err, EINVAL, "a raw data file cannot lie over a backing image");
    if (data_file && (!*data_file || strchr(data_file, '/')))
        return error_set(err, EINVAL, "option data_file: a name without a folder");
    if (extended && p->h.cluster_bits < 14)
        return error_set(err, EINVAL, "option extended_l2 needs clusters of 16 KiB or more");
    p->h.incompatible = (extended ? QCOW2_EXTENDED_L2 : 0) | (data_file ? QCOW2_DATA_FILE : 0) |
                        (p->h.compression ? QCOW2_COMPRESSION : 0);
    p->h.compatible = lazy ? QCOW2_LAZY : 0;
    p->h.autoclear = raw ? QCOW2_AUTO_RAW_DATA : 0;
    if (p->h.version == 2 && (p->h.incompatible || p->h.compatible || p->h.refcount_order != 4))
        return error_set(err, EINVAL,
                         "version 2 (compat=0.10) has none of these features: "
                         "extended_l2, lazy_refcounts, refcount_bits, data_file, zstd");
    if (p->preallocation && c->backing_path && !extended)
        return error_set(err, EINVAL, "preallocation over a backing image needs extended_l2");
    return 0;
}

/** Clusters of the refcount table for @blocks blocks. */
static uint64_t table_clusters(const struct plan *p, uint64_t blocks)
{
    return (blocks * 8 + p->cluster_bytes - 1) >> p->h.cluster_bits;
}

/** Blocks that count @others clusters, themselves and their table. */
static uint64_t count_blocks(const struct plan *p, uint64_t others)
{
    unsigned bits = p->h.cluster_bits + 3 - p->h.refcount_order;
    uint64_t blocks = 1;

    for (;;) {
        uint64_t all = others + blocks + table_clusters(p, blocks);
        uint64_t need = (all >> bits) + !!(all & MASK(bits));

        if (need <= blocks)
            return blocks;
        blocks = need;
    }
}

static int plan_layout(const struct disk_create *c, struct plan *p, struct error *err)
{
    unsigned l2_bits = p->h.cluster_bits - (p->h.incompatible & QCOW2_EXTENDED_L2 ? 4 : 3);
    unsigned span_bits = l2_bits + p->h.cluster_bits;
    uint64_t entries = (c->size_bytes >> span_bits) + !!(c->size_bytes & MASK(span_bits));
    uint64_t mask = MASK(p->h.cluster_bits);

    if (entries > QCOW2_MAX_L1 / 8)
        return error_set(err, EINVAL,
                         "a disk of %llu GiB needs larger clusters (option cluster_size)",
                         (unsigned long long)(c->size_bytes >> 30));
    p->l1_clusters = (entries * 8 + mask) >> p->h.cluster_bits;
    p->blocks = count_blocks(p, 1 + p->l1_clusters);
    p->h.size_bytes = c->size_bytes;
    p->h.length = p->h.version == 2 ? 72 : 112;
    p->h.l1_entries = (uint32_t)entries;
    p->h.reftable_offset = p->cluster_bytes;
    p->h.reftable_clusters = (uint32_t)table_clusters(p, p->blocks);
    p->h.l1_offset = (1 + p->h.reftable_clusters + p->blocks) << p->h.cluster_bits;
    p->h.backing = (char *)c->backing_path; /* borrowed */
    p->h.backing_format = (char *)c->backing_format;
    p->h.data_file = (char *)disk_create_get(c, "data_file");
    return 0;
}

static int parse(const struct disk_create *c, struct plan *p, struct error *err)
{
    int rc = parse_words(c, p, err);

    if (!rc)
        rc = parse_numbers(c, p, err);
    if (!rc)
        rc = parse_flags(c, p, err);
    return rc ? rc : plan_layout(c, p, err);
}

/** Header, refcounts, and zeroes up to the end of L1. */
static int write_image(const struct plan *p, struct file *file)
{
    uint64_t used = 1 + p->h.reftable_clusters + p->blocks + p->l1_clusters;
    unsigned block_bits = p->h.cluster_bits + 3 - p->h.refcount_order;
    cleanup(freep) uint8_t *buf = malloc(p->cluster_bytes);
    int rc = buf ? qcow2_header_build(&p->h, buf) : -ENOMEM;

    if (!rc)
        rc = file_write_zeroes(file, 0, used << p->h.cluster_bits, true);
    if (!rc)
        rc = file_pwrite(file, buf, p->cluster_bytes, 0);
    for (uint64_t b = 0; b < p->blocks && !rc; b++) {
        uint64_t offset = (1 + p->h.reftable_clusters + b) << p->h.cluster_bits;
        uint64_t first = b << block_bits;
        uint8_t entry[8];

        memset(buf, 0, p->cluster_bytes);
        for (uint64_t c = first; c < MIN(used, first + BIT(block_bits)); c++)
            qcow2_refcount_put(buf, p->h.refcount_order, c - first, 1);
        store_be64(entry, offset);
        rc = file_pwrite(file, buf, p->cluster_bytes, offset);
        if (!rc)
            rc = file_pwrite(file, entry, sizeof(entry), p->h.reftable_offset + b * 8);
    }
    return rc;
}

/** Give every cluster a place in the file. */
static int place_all(struct qcow2 *q, enum preallocation how)
{
    uint64_t clusters = qcow2_clusters(q, q->d.size_bytes);
    int rc = 0;

    for (uint64_t c = 0; c < clusters && !rc;) {
        uint64_t n = MIN(clusters - c, BIT(q->l2_bits) - (c & MASK(q->l2_bits)));
        uint64_t host = c;
        struct qcow2_table *t = NULL;

        rc = qcow2_flush_if_much(q);
        qcow2_wrlock(q);
        if (!rc && !q->has_data_file)
            rc = qcow2_alloc(q, n, &host, &n);
        if (!rc)
            rc = qcow2_own_l2(q, c, &t);
        for (uint64_t i = 0; i < n && !rc; i++) /* extended: placed, but what is below shows */
            qcow2_set_entry(q, t, qcow2_l2_index(q, c + i),
                            (host + i) << q->cluster_bits | QCOW2_COPIED,
                            q->h.backing ? 0 : QCOW2_ALL_SUBS);
        qcow2_unlock(q);
        if (!rc && !q->has_data_file && how >= PREALLOC_FALLOC)
            rc = file_write_zeroes(q->file, host << q->cluster_bits, n << q->cluster_bits, false);
        c += n;
    }
    return rc;
}

static int preallocate(const struct plan *p, struct file *file, struct file *data,
                       struct error *err)
{
    struct disk_open open = {.dir_fd = -1, .refs = DISK_REFS_NONE};
    struct disk *d = NULL;
    struct qcow2 *q;
    uint64_t size = 0;
    int rc = qcow2_open_with(&open, file, data, &d, err);

    if (rc)
        return rc;
    q = qcow2_of(d);
    rc = place_all(q, p->preallocation);
    if (!rc)
        rc = qcow2_flush_all(q);
    if (!rc)
        rc = file_get_size(file, &size);
    if (!rc && size < q->end << q->cluster_bits)
        rc = file_truncate(file, q->end << q->cluster_bits);
    if (!rc && data && p->preallocation >= PREALLOC_FALLOC)
        rc = file_write_zeroes(data, 0, d->size_bytes, false);
    if (data)
        q->data = q->file; /* both are the caller's */
    free(d->backing_path);
    free(d->backing_format);
    qcow2_free(q);
    return rc ? error_set(err, -rc, "cannot reserve its space: %s", strerror(-rc)) : 0;
}

int qcow2_create(const struct disk_create *create, struct file *file, struct disk_files *files,
                 struct error *err)
{
    struct plan p = {.h = {0}};
    struct file *data = NULL;
    int rc = parse(create, &p, err);

    if (rc)
        return rc;
    rc = write_image(&p, file);
    if (rc == -EFBIG)
        return error_set(err, EINVAL,
                         "the names of other files do not fit into the header of "
                         "'%s': use larger clusters",
                         file->path);
    if (rc)
        return error_set(err, -rc, "cannot write '%s': %s", file->path, strerror(-rc));
    if (p.h.data_file) {
        rc = disk_files_add(files, p.h.data_file, &data, err);
        if (rc)
            return rc;
        rc = file_truncate(data, create->size_bytes);
        if (rc)
            return error_set(err, -rc, "cannot write '%s': %s", p.h.data_file, strerror(-rc));
    }
    /* A raw data file is whole by itself: every cluster is there from the beginning. */
    if (!p.preallocation && p.h.autoclear & QCOW2_AUTO_RAW_DATA)
        p.preallocation = PREALLOC_METADATA;
    return p.preallocation ? preallocate(&p, file, data, err) : 0;
}

int qcow2_measure(const struct disk_create *create, uint64_t data_bytes, uint64_t *ret,
                  struct error *err)
{
    struct plan p = {.h = {0}};
    int rc = parse(create, &p, err);

    if (rc)
        return rc;
    unsigned bits = p.h.cluster_bits;
    unsigned l2_bits = bits - (p.h.incompatible & QCOW2_EXTENDED_L2 ? 4 : 3);
    uint64_t data = (MIN(data_bytes, create->size_bytes) + MASK(bits)) >> bits;
    uint64_t all = (create->size_bytes + MASK(bits)) >> bits;
    uint64_t tables =
        ((p.preallocation ? all : MIN(all, (uint64_t)p.h.l1_entries << l2_bits)) + MASK(l2_bits)) >>
        l2_bits;

    if (p.preallocation)
        data = all;
    if (p.h.data_file)
        data = 0;
    uint64_t others = 1 + p.l1_clusters + tables + data;
    uint64_t blocks = count_blocks(&p, others);
    *ret = (others + blocks + table_clusters(&p, blocks)) << bits;
    return 0;
}
