/* VMDK (VMware virtual disks): what its files share.
 *
 * A disk is a text, the descriptor, and extents: parts of the disk that lie one after the other,
 * each flat (bytes of a file) or sparse (grains that tables place in a file). A disk of one sparse
 * extent keeps the descriptor within it.
 *
 * Spec: VMware "Virtual Disk Format 1.1" and "5.0" technical notes. Numbers are little-endian; a
 * "sector" is 512 bytes. */
#ifndef DISK_VMDK_VMDK_H
#define DISK_VMDK_VMDK_H

#include "base/thread.h"
#include "disk/blocks.h"

#define VMDK_MAGIC         0x564d444bu /* "KDMV" */
#define VMDK_COWD_MAGIC    0x44574f43u /* "COWD" */
#define VMDK_TEXT_MAGIC    "# Disk DescriptorFile"
#define VMDK_AT_END        UINT64_MAX /* gdOffset of a stream: look in the footer */
#define VMDK_NO_CID        0xffffffffu
#define VMDK_GRAIN_SECTORS 128u
#define VMDK_GTES          512u /* entries of a grain table */
#define VMDK_DESC_SECTORS  20u  /* room for the descriptor in images that we make */
#define VMDK_MAX_TEXT      (1u << 20)
#define VMDK_MAX_EXTENTS   4000u
#define VMDK_MAX_TABLES    (1u << 20)         /* of one extent: 32 TiB in grains of 64 KiB */
#define VMDK_MAX_SECTORS   (1ULL << 32)       /* of a sparse extent's file: entries have 32 bits */
#define VMDK_CACHE_BYTES   ((size_t)64 << 20) /* of tables, for one extent */

enum vmdk_flags {
    VMDK_NEWLINES = 1 << 0,  /* the newline bytes are there to be checked */
    VMDK_REDUNDANT = 1 << 1, /* there is a second grain directory */
    VMDK_ZEROED = 1 << 2,    /* an entry of 1 means zeroes */
    VMDK_PACKED = 1 << 16,   /* grains are compressed */
    VMDK_MARKERS = 1 << 17,  /* grains and tables are preceded by markers */
};

/** Bytes of a sparse extent's header. */
enum {
    VMDK_AT_MAGIC = 0,
    VMDK_AT_VERSION = 4,
    VMDK_AT_FLAGS = 8,
    VMDK_AT_CAPACITY = 12,
    VMDK_AT_GRAIN = 20,
    VMDK_AT_DESC = 28,
    VMDK_AT_DESC_SIZE = 36,
    VMDK_AT_GTES = 44,
    VMDK_AT_RGD = 48,
    VMDK_AT_GD = 56,
    VMDK_AT_OVERHEAD = 64,
    VMDK_AT_UNCLEAN = 72,
    VMDK_AT_NEWLINES = 73,
    VMDK_AT_COMPRESSION = 77,
};

enum vmdk_marker { VMDK_MARK_END, VMDK_MARK_TABLE, VMDK_MARK_DIRECTORY, VMDK_MARK_FOOTER };

/** A grain table in memory. */
struct vmdk_table {
    uint64_t dirty; /* one bit a sector */
    bool busy;      /* a flush is writing it: it must not be read from the file */
    uint32_t entries[];
};

/** A sparse extent. */
struct vmdk_sparse {
    struct blocks b;
    struct file *file;         /* [init] the vmdk_extent's */
    uint8_t head[DISK_SECTOR]; /* [lock] as it is in the file, or its footer */
    uint32_t grain_sectors;    /* [init] */
    uint32_t table_entries;    /* [init] */
    uint32_t table_count;      /* changed by resize() only, as what follows */
    uint32_t *gd, *rgd;        /* sectors of the tables; rgd NULL: none */
    bool has_zero;             /* [init] entry 1 = zeroes */
    bool is_packed;            /* [init] */
    bool has_markers;          /* [init] */
    const char *damage;        /* why nothing may be written; NULL = sound */
    struct mutex flush_lock;   /* one flush at a time; before `lock` */
    struct mutex lock;
    struct vmdk_table **tables; /* [lock] NULL = not in memory */
    uint32_t loaded, dirty;     /* [lock] tables */
    uint32_t hand;              /* [lock] where to look for one to drop */
    uint64_t next_sector;       /* [lock] where the next grain goes */
    uint64_t end_bytes;         /* [lock] length that the file is known to have at least */
    bool is_cowd;               /* [init] ESX's older format: another header */
    struct vmdk_stream *stream; /* [lock] to unpack and to append; NULL = plain grains */
};

enum vmdk_extent_kind { VMDK_FLAT, VMDK_SPARSE, VMDK_ZERO };

struct vmdk_extent {
    enum vmdk_extent_kind kind;
    uint64_t start, size_bytes; /* of the disk; changed by resize() only */
    struct file *file;          /* owned, unless it is the disk's own; NULL = VMDK_ZERO */
    uint64_t flat_offset;       /* VMDK_FLAT: bytes */
    bool readonly;
    bool touched;               /* [atomic] may have been written to: to be flushed from then on */
    struct vmdk_sparse *sparse; /* VMDK_SPARSE */
};

/** What a descriptor says of an extent. */
struct vmdk_line {
    char kind[16];
    bool readonly;
    uint64_t sectors;
    char *name; /* NULL = none */
    uint64_t offset_sectors;
};

struct vmdk_desc {
    char *text; /* NUL-terminated */
    uint32_t cid, parent_cid;
    char *parent; /* NULL = none */
    char create_type[40];
    struct vmdk_line *lines;
    unsigned count;
};

struct vmdk {
    struct disk d;     /* must be first */
    struct file *file; /* [init] the one that was opened: descriptor, or the only extent */
    struct vmdk_desc desc;
    uint64_t text_offset, text_room; /* [init] where the descriptor lies; no room: there is none */
    struct vmdk_extent *extents;
    unsigned count;
    struct mutex lock;   /* the descriptor */
    bool modified;       /* [atomic] the CID has been changed */
    bool text_unflushed; /* [lock] */
};

static inline struct vmdk *vmdk_of(struct disk *d)
{
    return (struct vmdk *)d;
}

static inline uint64_t vmdk_table_bytes(const struct vmdk_sparse *s)
{
    return (uint64_t)s->table_entries * 4;
}

/* vmdk_desc.c: nothing of it touches a file */

/** Read a descriptor of @size bytes. */
must_check int vmdk_desc_parse(const char *text, size_t size, const char *path,
                               struct vmdk_desc *ret, struct error *err);
void vmdk_desc_done(struct vmdk_desc *desc);

/** @text with the line of @key saying @value (quoted if @quote; NULL: no such line; where there was
 * none it comes after createType). Heap, or NULL. */
char *vmdk_desc_set(const char *text, const char *key, const char *value, bool quote);

/** @text with @sectors in the first line of an extent. Heap, or NULL. */
char *vmdk_desc_set_sectors(const char *text, uint64_t sectors);

/** Where the hexadecimal digits of the CID are in @text, and how many; false: nowhere. */
bool vmdk_desc_find_cid(const char *text, size_t *ret_at, size_t *ret_digits);

/* vmdk_sparse.c */

/** Open the sparse extent in @file, with the disk's bytes from @start on. It must be at least
 * @sectors large, unless that is 0. */
must_check int vmdk_sparse_open(struct vmdk *v, struct file *file, uint64_t start, uint64_t sectors,
                                const struct disk_open *open, struct vmdk_sparse **ret,
                                struct error *err);
void vmdk_sparse_close(struct vmdk_sparse *s);
must_check int vmdk_sparse_flush(struct vmdk_sparse *s);

/** Mark it in use, or cleanly closed. */
must_check int vmdk_sparse_set_unclean(struct vmdk_sparse *s, bool unclean);
must_check int vmdk_sparse_write_head(struct vmdk_sparse *s, const uint8_t *head) REQUIRES(s->lock);

/* vmdk_table.c */
extern const struct blocks_ops vmdk_blocks_ops;

/** The table @index, from the file if need be. */
must_check int vmdk_table_get(struct vmdk_sparse *s, uint32_t index, struct vmdk_table **ret)
    REQUIRES(s->lock);
void vmdk_table_set(struct vmdk_sparse *s, uint32_t table, uint32_t entry, uint32_t value)
    REQUIRES(s->lock);
void vmdk_tables_drop(struct vmdk_sparse *s);

/* vmdk_scan.c */
struct vmdk_scan {
    bool mend;
    void (*report)(void *arg, const char *text);
    void *arg;
    uint64_t errors, leaks, differing, grains, fragmented;
    uint64_t end_sector;   /* behind everything that is used */
    struct file *leaks_in; /* != NULL: give back what nothing names */
    uint64_t leaks_given_back;
};

/** Look at all entries of @s: is each grain within the file, apart from the tables and from the
 * others? *@scan is filled in. With scan->mend, wrong entries are changed in memory. */
must_check int vmdk_scan(struct vmdk_sparse *s, struct vmdk_scan *scan);

/* vmdk_stream.c */
must_check int vmdk_stream_open(struct vmdk_sparse *s, bool write, struct error *err);
void vmdk_stream_close(struct vmdk_sparse *s);
must_check int vmdk_stream_read(struct blocks *b, uint64_t index, uint64_t skip,
                                const struct iovec *iov, int iovcnt);
must_check int vmdk_stream_pack(struct vmdk_sparse *s, const void *data, void *dst, size_t dst_size,
                                size_t *ret_size);
must_check int vmdk_stream_append(struct vmdk_sparse *s, uint64_t index, const void *packed,
                                  size_t size);

/** Whole grains, one after the other. */
must_check int vmdk_stream_write(struct vmdk_sparse *s, const struct iovec *iov, int iovcnt,
                                 uint64_t offset);

/** Tables, directory and footer, after the grains that are there. */
must_check int vmdk_stream_finish(struct vmdk_sparse *s);

/* vmdk_open.c */

/** Frees the disk; its own file too, if @with_file. */
void vmdk_free(struct vmdk *v, bool with_file);

/* vmdk.c */
extern const struct disk_ops vmdk_ops;

/** Before the first change of content since the disk was opened: a new CID. */
must_check int vmdk_modify(struct vmdk *v);
must_check int vmdk_flush(struct disk *d);

/** Write @text (taken, also on failure) as the descriptor. */
must_check int vmdk_write_text(struct vmdk *v, char *text) REQUIRES(v->lock);

/* vmdk_check.c */
must_check int vmdk_check(struct disk *d, unsigned flags, struct disk_check *check,
                          struct error *err);

/* vmdk_resize.c */
must_check int vmdk_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err);
must_check int vmdk_make_empty(struct disk *d, struct error *err);
must_check int vmdk_set_backing(struct disk *d, const char *path, const char *format,
                                struct error *err);

/* vmdk_create.c */
extern const struct disk_create_option vmdk_options[];
must_check int vmdk_create(const struct disk_create *create, struct file *file,
                           struct disk_files *files, struct error *err);
must_check int vmdk_measure(const struct disk_create *create, uint64_t data_bytes, uint64_t *ret,
                            struct error *err);

#endif
