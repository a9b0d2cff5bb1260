/* VHD: Microsoft's Virtual Hard Disk Image Format Specification, version 1.0. Inside of disk/vhd/.
 *
 *     fixed:     data | footer
 *     dynamic:   copy of footer | header | table | blocks, each bitmap and data ... | footer
 *
 * All numbers are big-endian, offsets count from the beginning of the file. */
#ifndef DISK_VHD_VHD_H
#define DISK_VHD_VHD_H

#include "disk/vhd/map.h"

#define VHD_FOOTER_BYTES  512u
#define VHD_HEADER_BYTES  1024u
#define VHD_BLOCK_DEFAULT (2u << 20)
#define VHD_MAX_BYTES     (2040ULL << 30) /* of a disk */
#define VHD_UNUSED        0xffffffffu     /* in the table */
#define VHD_ID_BYTES      16u
#define VHD_LOCATORS      8u
#define VHD_PATH_BYTES    8192u /* of a parent's path in UTF-16 */

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

/** What a footer says. */
struct vhd_footer {
    uint64_t header_offset;
    uint64_t size_bytes;
    uint32_t type;
    uint32_t stamp; /* of creation */
    uint8_t id[VHD_ID_BYTES];
};

/** What a header says. */
struct vhd_header {
    uint64_t table_offset;
    uint32_t max_entries;
    uint32_t block_bytes;
    uint8_t parent_id[VHD_ID_BYTES];
    uint32_t parent_stamp;
};

struct vhd {
    struct vhd_map m; /* must be first; of a fixed disk only m.d and m.file are used */
    uint8_t footer[VHD_FOOTER_BYTES]; /* [commit_lock] as it shall be */
    uint8_t header[VHD_HEADER_BYTES]; /* [commit_lock] */
    struct vhd_footer f;              /* [commit_lock] */
    struct vhd_header h;              /* [commit_lock] */
    uint64_t footer_offset; /* [commit_lock] of the last one on the disk; 0 = must be written */
    bool is_head_bad;       /* [commit_lock] the copy at 0 must be written */
    bool was_damaged;       /* [init] a footer was, when it was opened */
    bool is_map_ready;      /* [init] */
};

static inline struct vhd *vhd_of(struct disk *d)
{
    return (struct vhd *)d;
}

/* footer.c */
bool vhd_footer_parse(const uint8_t *b, struct vhd_footer *ret);
/** Fill @b; id and stamp are @f's. */
void vhd_footer_make(uint8_t *b, const struct vhd_footer *f);
/** Change size, type and header of @b, and nothing else that is there. */
void vhd_footer_update(uint8_t *b, const struct vhd_footer *f);
uint32_t vhd_checksum(const uint8_t *b, size_t size, size_t checksum_at);
uint32_t vhd_time(int64_t unix_s);
must_check int vhd_new_id(uint8_t *id);
void vhd_id_text(const uint8_t *id, char *buf, size_t size);

/* header.c */
bool vhd_header_parse(const uint8_t *b, struct vhd_header *ret);
/** Fill @b but for the parent. */
void vhd_header_make(uint8_t *b, const struct vhd_header *h);
/** The parent's path as the header and its locators say it, on the heap; NULL = none. */
must_check int vhd_header_get_parent(struct file *file, const uint8_t *b, char **ret);
/** Name the parent in @b and write its locators to [@at, *@ret_end) of the file. NULL: no parent.
 */
must_check int vhd_header_set_parent(uint8_t *b, const char *path, const uint8_t *id,
                                     uint32_t stamp, struct file *file, uint64_t at,
                                     uint64_t *ret_end, struct error *err);
/** Identity and time of change of the VHD image @d. */
void vhd_get_identity(const struct disk *d, uint8_t *id, uint32_t *ret_stamp);

/* table.c */
extern const struct vhd_map_ops vhd_map_format_ops;
must_check int vhd_table_load(struct vhd *v, struct error *err);
must_check int vhd_write_footers(struct vhd *v, uint64_t end_bytes);
/** Parts of the file that are no blocks; room for VHD_REGIONS. */
#define VHD_REGIONS (3u + VHD_LOCATORS)
size_t vhd_regions(const struct vhd *v, uint64_t file_bytes, struct vhd_region *ret);

/* fixed.c */
extern const struct disk_ops vhd_fixed_ops;

/* edit.c */
int vhd_check(struct disk *d, unsigned flags, struct disk_check *check, struct error *err);
int vhd_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err);
int vhd_set_backing(struct disk *d, const char *path, const char *format, struct error *err);
int vhd_make_empty(struct disk *d, struct error *err);

/* create.c */
extern const struct disk_create_option vhd_options[];
int vhd_create(const struct disk_create *create, struct file *file, struct disk_files *files,
               struct error *err);
int vhd_measure(const struct disk_create *create, uint64_t data_bytes, uint64_t *ret,
                struct error *err);

#endif
