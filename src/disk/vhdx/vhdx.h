/* VHDX: [MS-VHDX], Virtual Hard Disk v2 File Format. Inside of disk/vhdx/.
 *
 *     identifier | header 1 | header 2 | region table 1 | region table 2 | (1 MiB)
 *     log, metadata region, block allocation table, payload and sector bitmap blocks: anywhere
 *     after, in units of 1 MiB
 *
 * All numbers are little-endian. */
#ifndef DISK_VHDX_VHDX_H
#define DISK_VHDX_VHDX_H

#include "disk/vhd/map.h"

#define VHDX_MIB           (1u << 20)
#define VHDX_PAGE          4096u /* unit of the log */
#define VHDX_HEADER_BYTES  4096u
#define VHDX_GUID_BYTES    16u
#define VHDX_MAX_BYTES     (64ULL << 40) /* of a disk */
#define VHDX_MAX_OFFSET    (1ULL << 60)  /* of anything in a file */
#define VHDX_MAX_LOG       (64u << 20)
#define VHDX_MAX_REGIONS   64u
#define VHDX_LOCATOR_BYTES 65536u /* of a parent locator */
#define VHDX_REGION_TABLE1 (192u << 10)
#define VHDX_REGION_TABLE2 (256u << 10)
#define VHDX_REGION_BYTES  65536u
#define VHDX_TABLE_BYTES   65536u /* of the metadata table */

enum {
    VHDX_NOT_PRESENT = 0,
    VHDX_UNDEFINED = 1,
    VHDX_ZERO_STATE = 2,
    VHDX_UNMAPPED = 3,
    VHDX_PRESENT = 6,
    VHDX_PARTLY = 7,
};

struct vhdx_header {
    uint64_t sequence;
    uint8_t file_guid[VHDX_GUID_BYTES];
    uint8_t data_guid[VHDX_GUID_BYTES];
    uint8_t log_guid[VHDX_GUID_BYTES]; /* zero: nothing to replay */
    uint16_t log_version;
    uint32_t log_bytes;
    uint64_t log_offset;
};

/** Where a metadata item lies. */
struct vhdx_item {
    uint32_t entry;  /* number in the table */
    uint64_t offset; /* in the file */
    uint32_t size;   /* 0 = there is none */
};

struct vhdx_metadata {
    uint32_t block_bytes;
    bool is_fixed, has_parent;
    uint64_t size_bytes;
    uint32_t sector_bytes, physical_bytes;
    uint8_t id[VHDX_GUID_BYTES];
    struct vhdx_item parameters, size_item, locator;
};

struct vhdx {
    struct vhd_map m;                  /* must be first */
    struct vhdx_header h;              /* [commit_lock] the current one */
    unsigned header_slot;              /* [commit_lock] 0 or 1: where it lies */
    struct vhdx_metadata md;           /* [commit_lock] */
    struct vhd_region metadata, table; /* [commit_lock] in the file */
    struct vhd_region *used; /* [commit_lock] what is no payload block: regions, bitmap blocks */
    size_t used_count;
    size_t region_count; /* [init] of them, those that are no bitmap blocks */
    uint64_t *bitmaps;   /* [commit_lock] of each chunk: place of its bitmap block, 0 = none */
    uint64_t chunks;
    uint32_t ratio; /* [init] payload blocks of a chunk */
    /* The log as this opening writes it. */
    uint64_t log_sequence;             /* [commit_lock] of the last entry, 0 = none */
    uint32_t log_at, log_size;         /* [commit_lock] of the last entry */
    uint8_t log_guid[VHDX_GUID_BYTES]; /* [commit_lock] */
    bool was_dirty;                    /* [init] a log was replayed */
    bool is_map_ready;                 /* [init] */
};

static inline struct vhdx *vhdx_of(struct disk *d)
{
    return (struct vhdx *)d;
}

/* header.c */
extern const uint8_t vhdx_guid_table[VHDX_GUID_BYTES];
extern const uint8_t vhdx_guid_metadata[VHDX_GUID_BYTES];
uint32_t vhdx_crc(const uint8_t *b, size_t size, size_t checksum_at);
must_check int vhdx_new_guid(uint8_t *guid);
/** "{...}", at least 39 bytes. */
void vhdx_guid_text(const uint8_t *guid, char *buf, size_t size);
bool vhdx_is_zero(const uint8_t *guid);
/** The current header of @file and its slot. */
must_check int vhdx_header_read(struct file *file, struct vhdx_header *ret, unsigned *ret_slot,
                                struct error *err);
/** Make @v->h, changed, durable in both slots, the older one first. */
must_check int vhdx_header_update(struct vhdx *v);
void vhdx_header_make(const struct vhdx_header *h, uint8_t *b);
/** Find the regions and fill v->used with what is known so far. */
must_check int vhdx_regions_read(struct vhdx *v, uint64_t file_bytes, struct error *err);
void vhdx_region_table_make(const struct vhd_region *table, const struct vhd_region *metadata,
                            uint8_t *b);

/* metadata.c */
must_check int vhdx_metadata_read(struct vhdx *v, struct error *err);
/** What a new image's region begins with: table and items, @size bytes of @b. */
void vhdx_metadata_make(const struct vhdx_metadata *md, const uint8_t *locator,
                        uint32_t locator_size, uint8_t *b);
/** A parent locator for @path; VHDX_LOCATOR_BYTES at @b. */
must_check int vhdx_locator_make(const char *path, const uint8_t *guid, uint8_t *b,
                                 uint32_t *ret_size, struct error *err);
/** Key @key of the locator as text on the heap, NULL = it has none. */
must_check int vhdx_locator_get(struct vhdx *v, const char *key, char **ret);
/** The metadata table with (or without, size 0) a locator at @offset of the region: its first
 * VHDX_TABLE_BYTES in @b are changed. */
must_check int vhdx_metadata_set_locator(struct vhdx *v, uint8_t *b, uint32_t offset,
                                         uint32_t size);
/** A part of the metadata region that no item uses. 0: there is none. */
uint32_t vhdx_metadata_find_room(const uint8_t *table, uint64_t region_bytes, uint32_t size);

/* log.c */
struct vhdx_page {
    uint64_t offset;
    uint8_t data[VHDX_PAGE];
};

struct vhdx_pages {
    struct vhdx_page **v;
    size_t n, room;
};

void vhdx_pages_done(struct vhdx_pages *p);
/** Change [offset, offset+size) of the pages, which are read as needed. */
must_check int vhdx_pages_patch(struct vhdx *v, struct vhdx_pages *p, uint64_t offset,
                                const void *data, size_t size);
/** Write the pages through the log, in order: everything before is durable already. Applied when it
 * returns, but durable only by the log. */
must_check int vhdx_log_write(struct vhdx *v, const struct vhdx_pages *p, uint64_t end_bytes);
/** Make what was applied durable and declare the log empty. */
int vhdx_log_close(struct vhdx *v);

/* replay.c */
/** Replay the log: into the file, or, if @readonly, into a file over it, which *@file becomes and
 * which must be given to vhdx_patched_free() or closed. */
must_check int vhdx_replay(struct file **file, const struct vhdx_header *h, bool readonly,
                           struct error *err);

/* patched.c */
/** A read-only file that shows @below with patches. */
must_check int vhdx_patched_new(struct file *below, struct file **ret);
must_check int vhdx_patched_add(struct file *f, uint64_t offset, uint64_t size,
                                const uint8_t *data); /* NULL: zeroes */
void vhdx_patched_extend(struct file *f, uint64_t size);
/** Give up the patches but not what is below. */
struct file *vhdx_patched_free(struct file *f);

/* table.c */
extern const struct vhd_map_ops vhdx_map_ops;
must_check int vhdx_table_load(struct vhdx *v, struct error *err);
uint64_t vhdx_table_entries(uint64_t size_bytes, uint32_t block_bytes, uint32_t sector_bytes,
                            bool has_parent);
must_check int vhdx_add_used(struct vhdx *v, uint64_t offset, uint64_t size);

/* edit.c */
int vhdx_check(struct disk *d, unsigned flags, struct disk_check *check, struct error *err);
int vhdx_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err);
int vhdx_set_backing(struct disk *d, const char *path, const char *format, struct error *err);
int vhdx_make_empty(struct disk *d, struct error *err);

/* create.c */
extern const struct disk_create_option vhdx_options[];
int vhdx_create(const struct disk_create *create, struct file *file, struct disk_files *files,
                struct error *err);
int vhdx_measure(const struct disk_create *create, uint64_t data_bytes, uint64_t *ret,
                 struct error *err);

#endif
