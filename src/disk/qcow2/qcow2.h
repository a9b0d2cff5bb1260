/* QCOW2 in memory, for the files of this folder.
 *
 * Invariants
 *  1. `lock` held for reading is enough to look at the mapping, held for writing it allows to
 *     change it, to load tables and to allocate. No guest data moves under it.
 *  2. A guest cluster whose place is being changed by a writer is in `busy`; another change of it
 *     waits. Readers go by the old place meanwhile.
 *  3. An L2 entry is set in memory only after the data it points to has been written, and reaches
 *     the file only after a flush of the file that follows (flush.c).
 *  4. A cluster that loses a reference goes to `freed`; its refcount falls after the flush that
 *     made the loss durable and after all requests that could know the old place (alloc.c).
 *  5. `meta` holds every cluster with metadata: guest data is never written there.
 *  6. `end` is above every cluster in use; what lies past it reads as zeroes (not on block
 *     devices).
 *
 * Spec: QEMU's docs/interop/qcow2.txt. */
#ifndef DISK_QCOW2_QCOW2_H
#define DISK_QCOW2_QCOW2_H

#include "base/bits.h"
#include "base/thread.h"
#include "disk/format.h"

#include <pthread.h>

#define QCOW2_MAGIC       0x514649fbu
#define QCOW2_COPIED      BIT(63)
#define QCOW2_PACKED      BIT(62)
#define QCOW2_ZERO        ((uint64_t)1)
#define QCOW2_OFFSET      0x00fffffffffffe00ULL
#define QCOW2_RT_OFFSET   0xfffffffffffffe00ULL
#define QCOW2_MAX_L1      (32u << 20) /* bytes */
#define QCOW2_MAX_RT      (8u << 20)  /* bytes */
#define QCOW2_CACHE_BYTES (32u << 20) /* tables in memory */
#define QCOW2_MUCH_DIRTY  (QCOW2_CACHE_BYTES / 2)
#define QCOW2_MUCH_FREED  65536u       /* extents */
#define QCOW2_MAX_HOST    (1ULL << 56) /* offsets in the file */
#define QCOW2_SUBS        32u          /* sub-clusters of an extended L2 entry */
#define QCOW2_ALL_SUBS    ((uint64_t)0xffffffff)

enum qcow2_incompatible {
    QCOW2_DIRTY = 1 << 0,
    QCOW2_CORRUPT = 1 << 1,
    QCOW2_DATA_FILE = 1 << 2,
    QCOW2_COMPRESSION = 1 << 3,
    QCOW2_EXTENDED_L2 = 1 << 4,
    QCOW2_KNOWN_INCOMPATIBLE = 0x1f,
};
enum qcow2_autoclear {
    QCOW2_AUTO_BITMAPS = 1 << 0,
    QCOW2_AUTO_RAW_DATA = 1 << 1,
};
enum { QCOW2_LAZY = 1 };
enum { QCOW2_ZLIB = 0, QCOW2_ZSTD = 1 };
enum { QCOW2_CRYPT_LUKS = 2 };

/** The header's fields, and its extensions. */
struct qcow2_header {
    uint32_t version;
    uint32_t cluster_bits;
    uint32_t crypt;
    uint64_t size_bytes;
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order;
    uint32_t length;
    uint8_t compression;
    char *backing, *backing_format, *data_file; /* heap, NULL = none */
    bool has_bitmaps;
    uint32_t bitmap_count;
    uint64_t bitmap_dir_bytes, bitmap_dir_offset;
    uint64_t crypt_offset, crypt_bytes;
    uint8_t *unknown; /* extensions that are kept as they are, with their heads; heap */
    uint32_t unknown_bytes;
};

/** An L2 table or refcount block in memory, as it is in the file. */
struct qcow2_table {
    struct qcow2_table *next, *prev; /* [lock] ring of all, for the eviction's hand */
    struct qcow2_table *next_dirty;  /* [lock] */
    uint64_t offset;                 /* [lock] in the file */
    uint32_t index;                  /* [init] in L1 or the refcount table */
    bool is_block;                   /* [init] a refcount block */
    bool is_dirty;                   /* [lock] in the list of dirty ones */
    bool is_new;     /* [lock] nothing durable points to it: written before pointers are */
    bool in_flush;   /* [lock] a copy is on its way to the file */
    bool used;       /* [atomic] since the hand came by */
    uint64_t *dirty; /* [lock] a bit for each 512 bytes */
    uint8_t data[];
};

/** Numbers of clusters: open addressing, 0 = empty. */
struct qcow2_set {
    uint64_t *v;
    size_t room, count;
};

struct qcow2_extent {
    uint64_t first, count; /* clusters */
    bool unclean;          /* may hold old bytes */
};

struct qcow2_extents {
    struct qcow2_extent *v;
    size_t count, room;
};

/** Guest clusters whose place is being changed. */
struct qcow2_busy {
    struct qcow2_busy *next;
    uint64_t first, end;
};

struct qcow2_bitmap {
    struct qcow2_bitmap *next;
    char *name;
    uint64_t table_offset;
    uint32_t table_entries;
    uint32_t flags;
    uint8_t granularity_bits;
    uint8_t *extra;
    uint32_t extra_bytes;
    uint8_t *bits; /* [init] while the disk is written to; updated atomically; NULL = not loaded */
    uint64_t bits_bytes;
};

struct qcow2_unpacked; /* packed.c: clusters that have been unpacked */
struct qcow2_luks;     /* luks.c */

struct qcow2 {
    struct disk d;               /* must be first */
    struct file *file;           /* [init] */
    struct file *data;           /* [init] where guest data is; = file, or the external data file */
    struct qcow2_header h;       /* [lock] */
    uint8_t *head;               /* [lock] first cluster as it is in the file */
    uint32_t cluster_bytes;      /* [init] */
    unsigned cluster_bits;       /* [init] */
    unsigned entry_bits;         /* [init] of an L2 entry: 3, extended: 4 */
    unsigned l2_bits;            /* [init] entries of an L2 table */
    unsigned sub_bits;           /* [init] bytes of a sub-cluster; = cluster_bits if not extended */
    unsigned block_bits;         /* [init] entries of a refcount block */
    bool is_extended;            /* [init] */
    bool has_data_file;          /* [init] */
    bool is_raw_data;            /* [init] the data file is a raw image by itself */
    bool is_broken;              /* [atomic] found damaged: no more writing */
    struct qcow2_luks *luks;     /* [init] NULL = not encrypted */
    pthread_rwlock_t crypt_lock; /* for writing: parts of encrypted sectors are written */

    pthread_rwlock_t lock;
    uint64_t *l1;                /* [lock] host order */
    uint64_t *l1_dirty;          /* [lock] a bit for each 512 bytes */
    bool l1_is_dirty;            /* [lock] */
    struct qcow2_table **l2;     /* [lock] by L1 index; NULL = not in memory */
    uint64_t *reftable;          /* [lock] host order */
    uint32_t reftable_entries;   /* [lock] */
    struct qcow2_table **blocks; /* [lock] by refcount table index */
    struct qcow2_table *hand;    /* [lock] ring of tables */
    struct qcow2_table *dirty;   /* [lock] list */
    uint64_t cache_bytes;        /* [lock] */
    uint64_t dirty_bytes;        /* [lock] */
    bool is_much;                /* [atomic] a flush would relieve memory */
    struct qcow2_set meta;       /* [lock] */

    uint64_t end;                  /* [lock] cluster number, see invariant 6 */
    uint64_t scan, scan_end;       /* [lock] where clusters were not yet looked at for being free */
    struct qcow2_extents pool;     /* [lock] free clusters */
    struct qcow2_extents freed;    /* [lock] lost a reference since the last flush began */
    struct qcow2_extents flushing; /* [flush_lock] of the flush under way */
    struct qcow2_extents draining; /* [flush_lock] durable, requests may still use them */
    bool has_draining;             /* [flush_lock] */
    uint64_t drain_stamp;          /* [flush_lock] disk_io_stamp() when they were freed */
    uint64_t packed_at, packed_end; /* [lock] room for packed data, in bytes of the file */

    struct qcow2_busy *busy; /* [lock] */
    struct mutex busy_lock;  /* for waiting */
    struct cond busy_cond;
    uint64_t busy_generation; /* [busy_lock] counts ends */

    struct mutex flush_lock; /* taken before `lock` */
    uint64_t flush_started;  /* [atomic] */
    uint64_t flush_done;     /* [flush_lock] number of the last one that succeeded */

    struct qcow2_bitmap *bitmaps; /* [init] */
    bool bitmaps_tracked;         /* [atomic] marked in use in the file, bits in memory */
    struct mutex bitmap_lock;     /* the change of bitmaps_tracked; taken before flush_lock */

    struct qcow2_unpacked *unpacked;
};

static inline struct qcow2 *qcow2_of(struct disk *d)
{
    return (struct qcow2 *)d;
}

static inline uint64_t qcow2_clusters(const struct qcow2 *q, uint64_t bytes)
{
    return (bytes >> q->cluster_bits) + !!(bytes & (q->cluster_bytes - 1));
}

static inline void qcow2_rdlock(struct qcow2 *q)
{
    (void)pthread_rwlock_rdlock(&q->lock); /* cannot fail: initialized, not held */
}
static inline void qcow2_wrlock(struct qcow2 *q)
{
    (void)pthread_rwlock_wrlock(&q->lock);
}
static inline void qcow2_unlock(struct qcow2 *q)
{
    (void)pthread_rwlock_unlock(&q->lock);
}

static inline bool qcow2_is_broken(const struct qcow2 *q)
{
    return __atomic_load_n(&q->is_broken, __ATOMIC_RELAXED); /* a hint: orders nothing */
}

/* header.c */

/** Read and check the header of @file; *@ret_head is its first cluster. The caller frees both. */
must_check int qcow2_header_read(struct file *file, struct qcow2_header *h, uint8_t **ret_head,
                                 struct error *err);
void qcow2_header_done(struct qcow2_header *h);
/** The first cluster for @h, into @buf of cluster size. -EFBIG if it does not fit. */
must_check int qcow2_header_build(const struct qcow2_header *h, uint8_t *buf);
/** Write the fields of the first 512 bytes (torn nowhere) if they changed. `lock` for writing. */
must_check int qcow2_header_update(struct qcow2 *q);
/** Write the header anew with its extensions and names. `lock` for writing. */
must_check int qcow2_header_rewrite(struct qcow2 *q);

/* open.c */

int qcow2_open(const struct disk_open *open, struct file *file, struct disk **ret,
               struct error *err);
/** The same with the data file @data (NULL: the one that the image names). */
must_check int qcow2_open_with(const struct disk_open *open, struct file *file, struct file *data,
                               struct disk **ret, struct error *err);
/** Everything but the image's file. */
void qcow2_free(struct qcow2 *q);
/** Remember that the image is damaged, in the file too: no more writing. Returns -EIO. `lock` for
 * writing. */
int qcow2_break(struct qcow2 *q);

/** Forget what is in memory and read the tables again. Nothing is dirty; flush_lock and `lock` for
 * writing. */
must_check int qcow2_reload(struct qcow2 *q, struct error *err);

/* table.c */

int qcow2_set_add(struct qcow2_set *s, uint64_t n); /* 1 = was there, 0, -ENOMEM */
void qcow2_set_remove(struct qcow2_set *s, uint64_t n);
bool qcow2_set_has(const struct qcow2_set *s, uint64_t n);
int qcow2_extents_add(struct qcow2_extents *e, uint64_t first, uint64_t count);
/** Sort by place; neighbours become one (not duplicates). */
void qcow2_extents_sort(struct qcow2_extents *e);

/** The L2 table of L1 index @index, which has one, loaded if need be. `lock` for writing. */
must_check int qcow2_load_l2(struct qcow2 *q, uint32_t index, struct qcow2_table **ret);
must_check int qcow2_load_block(struct qcow2 *q, uint32_t index, struct qcow2_table **ret);
/** A table of zeroes at @offset, which nothing in the file points to. `lock` for writing. */
must_check int qcow2_new_table(struct qcow2 *q, bool is_block, uint32_t index, uint64_t offset,
                               struct qcow2_table **ret);
void qcow2_table_dirty(struct qcow2 *q, struct qcow2_table *t, uint32_t byte, uint32_t size);
void qcow2_forget_table(struct qcow2 *q, struct qcow2_table *t);
/** Drop all tables; none is dirty or they do not matter. */
void qcow2_forget_tables(struct qcow2 *q);

/* refcount.c: `lock` for writing */

must_check int qcow2_get_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *ret);
must_check int qcow2_set_refcount(struct qcow2 *q, uint64_t cluster, uint64_t value);
/** Make refcounts for the clusters [end, end+count) possible, which may move `end`. */
must_check int qcow2_cover(struct qcow2 *q, uint64_t count);
uint64_t qcow2_refcount_at(const uint8_t *block, unsigned order, uint64_t index);
void qcow2_refcount_put(uint8_t *block, unsigned order, uint64_t index, uint64_t value);
uint64_t qcow2_max_refcount(const struct qcow2 *q);

/* alloc.c: `lock` for writing */

/** Up to @count clusters in a row, at least one; they read as zeroes. */
must_check int qcow2_alloc(struct qcow2 *q, uint64_t count, uint64_t *ret, uint64_t *ret_count);
/** Exactly @count in a row, for metadata. */
must_check int qcow2_alloc_meta(struct qcow2 *q, uint64_t count, uint64_t *ret_offset);
/** The clusters of [offset, offset+bytes) lose a reference each. */
void qcow2_release(struct qcow2 *q, uint64_t offset, uint64_t bytes);
/** After a flush that covered `flushing`; flush_lock held, `lock` not. */
void qcow2_settle(struct qcow2 *q, bool success);
/** Cut free clusters off the file's end. flush_lock and `lock` for writing. */
must_check int qcow2_trim(struct qcow2 *q);

/* map.c */

enum qcow2_kind { QCOW2_RUN_ABSENT, QCOW2_RUN_ZERO, QCOW2_RUN_DATA, QCOW2_RUN_PACKED };

struct qcow2_run {
    enum qcow2_kind kind;
    bool is_ours;   /* DATA: may be written in place */
    uint64_t bytes; /* alike from the asked offset */
    uint64_t host;  /* DATA: of the asked byte; PACKED: the descriptor */
};

/** What is at guest @offset, at most @size bytes. `lock` for reading. -EAGAIN: the table has to be
 * loaded first. -EBADMSG: the entry makes no sense. */
must_check int qcow2_find(struct qcow2 *q, uint64_t offset, uint64_t size, struct qcow2_run *ret);
/** The same without a lock, loading what is missing. The place stays what it is until the end of
 * the request (disk_io_begin()). To @write there, that must not hit metadata (-EIO, and the image
 * is marked). */
must_check int qcow2_look(struct qcow2 *q, uint64_t offset, uint64_t size, bool write,
                          struct qcow2_run *ret);

/** The L2 table for guest cluster @cluster, its own and in memory, made if there is none. `lock`
 * for writing. */
must_check int qcow2_own_l2(struct qcow2 *q, uint64_t cluster, struct qcow2_table **ret);
/** The same if there is one; *@ret NULL if not. */
must_check int qcow2_find_l2(struct qcow2 *q, uint64_t cluster, bool own, struct qcow2_table **ret);
static inline uint32_t qcow2_l2_index(const struct qcow2 *q, uint64_t cluster)
{
    return (uint32_t)(cluster & MASK(q->l2_bits));
}
static inline uint64_t qcow2_entry(const struct qcow2 *q, const struct qcow2_table *t, uint32_t i)
{
    return load_be64(t->data + ((size_t)i << q->entry_bits));
}
static inline uint64_t qcow2_subs(const struct qcow2 *q, const struct qcow2_table *t, uint32_t i)
{
    return q->is_extended ? load_be64(t->data + ((size_t)i << q->entry_bits) + 8) : 0;
}
/** Everything under L1 entry @index, which has a table, loses a reference; the entry is empty then.
 * `lock` for writing. */
must_check int qcow2_drop_l2(struct qcow2 *q, uint32_t index);
void qcow2_set_entry(struct qcow2 *q, struct qcow2_table *t, uint32_t i, uint64_t entry,
                     uint64_t subs);
/** A cluster that @entry points to loses this reference. `lock` for writing. */
void qcow2_release_entry(struct qcow2 *q, uint64_t entry);
/** Place and length of packed data. */
void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *ret_offset,
                        uint64_t *ret_bytes);

/** Do the guest's [from, to), which others do not change now, read as zeroes, as far as can be told
 * without reading data? */
must_check int qcow2_reads_zero(struct qcow2 *q, uint64_t from, uint64_t to, bool *ret);

/** Wait until no guest cluster of [first, end) is busy, then have `lock` for writing. */
void qcow2_wrlock_idle(struct qcow2 *q, uint64_t first, uint64_t end);
void qcow2_busy_begin(struct qcow2 *q, struct qcow2_busy *b);
void qcow2_busy_end(struct qcow2 *q, struct qcow2_busy *b);

/* io.c, write.c, fill.c, zero.c, flush.c, packed.c */

int qcow2_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
int qcow2_pwritev(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset);
int qcow2_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret);
int qcow2_allocate(struct disk *d, uint64_t offset, uint64_t size);
int qcow2_place(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret);
int qcow2_discard(struct disk *d, uint64_t offset, uint64_t size);
int qcow2_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool may_unmap);
int qcow2_fill(struct disk *d, uint64_t offset, uint64_t size);
int qcow2_flush(struct disk *d);
/** The same by who holds flush_lock and `lock` for writing already: refcounts and tables, without
 * freeing anything. */
must_check int qcow2_flush_tables(struct qcow2 *q);
/** Flush, and again until what was freed is really free. */
must_check int qcow2_flush_all(struct qcow2 *q);
/** Flush if more metadata waits than memory should hold. No lock held. */
must_check int qcow2_flush_if_much(struct qcow2 *q);
must_check int qcow2_unpacked_new(struct qcow2 *q);
int qcow2_pack(struct disk *d, const void *data, void *dst, size_t dst_size, size_t *ret_size);
int qcow2_write_packed(struct disk *d, uint64_t offset, const void *packed, size_t size);
/** Bytes [skip, skip+iov) of the packed cluster of descriptor @entry. */
must_check int qcow2_read_packed(struct qcow2 *q, uint64_t entry, uint64_t skip,
                                 const struct iovec *iov, int iovcnt);
void qcow2_unpacked_drop(struct qcow2 *q);
void qcow2_unpacked_free(struct qcow2 *q);
/** Guest data of @q->data at @host; decrypts, encrypts. */
must_check int qcow2_data_read(struct qcow2 *q, const struct iovec *iov, int n, uint64_t host);
must_check int qcow2_data_write(struct qcow2 *q, const struct iovec *iov, int n, uint64_t host);

/* check.c, repair.c */

int qcow2_check(struct disk *d, unsigned flags, struct disk_check *check, struct error *err);
/** Make all refcounts anew from what is referred to, at open of a dirty image. */
must_check int qcow2_rebuild(struct qcow2 *q, struct error *err);

/* snapshot.c */

struct qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_entries;
    char *id, *name; /* heap */
    uint64_t size_bytes, state_bytes;
    int64_t date_s, clock_ns;
};

/** Call @visit for each internal snapshot; it stops at the first result that is not 0.
 * *@ret_bytes (may be NULL) is the table's length. */
must_check int qcow2_for_snapshots(struct qcow2 *q,
                                   int (*visit)(void *arg, const struct qcow2_snapshot *s),
                                   void *arg, uint64_t *ret_bytes, struct error *err);
must_check int qcow2_read_l1(struct qcow2 *q, uint64_t offset, uint32_t entries, uint64_t **ret);

/* bitmap.c */

must_check int qcow2_bitmaps_load(struct qcow2 *q, struct error *err);
void qcow2_bitmaps_free(struct qcow2 *q);
/** Guest bytes change: to be called before each change. */
must_check int qcow2_bitmaps_mark(struct qcow2 *q, uint64_t offset, uint64_t size);
/** At close: bits into the file, no longer in use. */
must_check int qcow2_bitmaps_store(struct qcow2 *q);
/** The disk's size has changed. */
must_check int qcow2_bitmaps_resize(struct qcow2 *q, uint64_t size_bytes);
int qcow2_bitmap_action(struct disk *d, enum disk_bitmap_action action, const char *name,
                        uint64_t granularity_bytes, struct disk *source_disk, const char *source,
                        struct error *err);
int qcow2_bitmap_find(struct disk *d, const char *name, uint64_t offset, uint64_t size,
                      bool *ret_set, uint64_t *ret_size);
/** Call @visit for each run of clusters that bitmaps take. */
must_check int qcow2_for_bitmap_clusters(struct qcow2 *q,
                                         int (*visit)(void *arg, uint64_t offset, uint64_t bytes),
                                         void *arg);

/* create.c, resize.c, info.c */

int qcow2_create(const struct disk_create *create, struct file *file, struct disk_files *files,
                 struct error *err);
int qcow2_measure(const struct disk_create *create, uint64_t data_bytes, uint64_t *ret,
                  struct error *err);
extern const struct disk_create_option qcow2_options[];
int qcow2_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err);
int qcow2_set_backing(struct disk *d, const char *path, const char *format, struct error *err);
int qcow2_make_empty(struct disk *d, struct error *err);
int qcow2_get_info(struct disk *d, struct disk_info *info, struct error *err);

/* luks.c */

/** Recover the key of @q's image by the passphrase in @key_file. Without a file: -ENOKEY, or, if
 * the image is only @to_examine, what cannot read data. */
must_check int qcow2_luks_open(struct qcow2 *q, const char *key_file, bool to_examine,
                               struct qcow2_luks **ret, struct error *err);
/** Takes NULL. */
void qcow2_luks_free(struct qcow2_luks *l);
/** En- or decrypt @size bytes, whole sectors, that lie at @host of the file. -ENOKEY: there is no
 * key. */
must_check int qcow2_luks_crypt(const struct qcow2_luks *l, uint8_t *buf, size_t size,
                                uint64_t host, bool encrypt);

#endif
