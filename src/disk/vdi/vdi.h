/* VDI (VirtualBox Disk Image), version 1.1: what its files share.
 *
 * A header in the first sector, a map of one little-endian 32-bit number a block (0xffffffff:
 * absent, 0xfffffffe: zero, else the slot behind offset_data that holds it), then the slots. Other
 * programs take the slot numbered `blocks_allocated` for a fresh block: so no slot at or after it
 * may be in use, at any time, in the file.
 *
 * Fields of the header by their byte: see enum below. All numbers little-endian. */
#ifndef DISK_VDI_VDI_H
#define DISK_VDI_VDI_H

#include "base/thread.h"
#include "disk/blocks.h"

#define VDI_SIGNATURE   0xbeda107fu
#define VDI_VERSION     0x00010001u
#define VDI_HEADER_SIZE 0x190u /* from VDI_AT_HEADER_SIZE on */
#define VDI_ABSENT      0xffffffffu
#define VDI_ZERO        0xfffffffeu
#define VDI_UUID        16u
#define VDI_MAX_BLOCKS  (1u << 24) /* a map of 64 MiB: 16 TiB in blocks of 1 MiB */
#define VDI_BLOCK_BYTES (1u << 20) /* the only size that others know */
#define VDI_ALIGN       (1u << 20) /* of map and slots in images that we make */
#define VDI_SPARE_SLOTS 16384u     /* a map of 64 MiB in the smallest blocks; see vdi_resize.c */
#define VDI_PER_SECTOR  (DISK_SECTOR / 4)

enum vdi_type { VDI_DYNAMIC = 1, VDI_FIXED = 2, VDI_UNDO = 3, VDI_DIFF = 4 };

enum {
    VDI_AT_TEXT = 0x00,
    VDI_AT_SIGNATURE = 0x40,
    VDI_AT_VERSION = 0x44,
    VDI_AT_HEADER_SIZE = 0x48,
    VDI_AT_TYPE = 0x4c,
    VDI_AT_FLAGS = 0x50,
    VDI_AT_OFFSET_MAP = 0x154,
    VDI_AT_OFFSET_DATA = 0x158,
    VDI_AT_SECTOR_SIZE = 0x168,
    VDI_AT_DISK_SIZE = 0x170,
    VDI_AT_BLOCK_SIZE = 0x178,
    VDI_AT_BLOCK_EXTRA = 0x17c,
    VDI_AT_BLOCKS = 0x180,
    VDI_AT_ALLOCATED = 0x184,
    VDI_AT_UUID = 0x188,
    VDI_AT_UUID_MODIFY = 0x198,
    VDI_AT_UUID_LINK = 0x1a8,
    VDI_AT_UUID_PARENT_MODIFY = 0x1b8,
};

struct vdi {
    struct disk d; /* must be first */
    struct blocks b;
    struct file *file;         /* [init] */
    struct mutex flush_lock;   /* one flush at a time; before `lock` */
    struct mutex lock;         /* the map's changes, the slots, the header */
    uint32_t *map;             /* [lock] to change; [atomic] entries: read without it */
    uint64_t *dirty;           /* [lock] one bit a sector of the map */
    uint64_t *used;            /* [lock] one bit a slot, claimed ones included; NULL: read-only */
    uint32_t blocks;           /* of the disk; changed by resize() only */
    uint32_t slots;            /* [lock] all used slots lie before this one */
    uint32_t holes;            /* [lock] slots before it that are not used */
    uint32_t next_hole;        /* [lock] no hole before this one */
    uint32_t slots_in_file;    /* [lock] what the header in the file says */
    uint64_t end_bytes;        /* [lock] length that the file is known to have at least */
    uint32_t offset_map;       /* changed by resize() only, as offset_data */
    uint32_t offset_data;      /* */
    bool modified;             /* [atomic] the modification UUID has been changed */
    bool cut_tail;             /* [lock] what lies behind the last slot has been looked at */
    const char *damage;        /* [init] why nothing may be written; NULL = sound */
    uint8_t head[DISK_SECTOR]; /* [lock] the header as it is in the file */
};

static inline struct vdi *vdi_of(struct disk *d)
{
    return (struct vdi *)d;
}

static inline uint32_t vdi_entry(const struct vdi *v, uint64_t index)
{
    return __atomic_load_n(&v->map[index], __ATOMIC_ACQUIRE); /* pairs with vdi_set() */
}

static inline bool vdi_is_slot(uint32_t entry)
{
    return entry < VDI_ZERO;
}

static inline uint64_t vdi_slot_offset(const struct vdi *v, uint32_t slot)
{
    return v->offset_data + (uint64_t)slot * v->b.block_bytes;
}

/** Slots there can be. More than blocks only when a power cut has stopped a change of size. */
static inline uint32_t vdi_max_slots(uint32_t blocks)
{
    return blocks + VDI_SPARE_SLOTS;
}

static inline uint64_t vdi_map_sectors(uint32_t blocks)
{
    return ((uint64_t)blocks + VDI_PER_SECTOR - 1) / VDI_PER_SECTOR;
}

/* vdi_map.c */
extern const struct blocks_ops vdi_blocks_ops;

/** Read the map. For writing, find out which slots are used too; v->damage says if two blocks claim
 * one, or a slot lies beyond the end. */
must_check int vdi_map_load(struct vdi *v, bool write, struct error *err);
void vdi_map_done(struct vdi *v);
void vdi_set(struct vdi *v, uint32_t index, uint32_t entry) REQUIRES(v->lock);

/** Find the used slots anew from the map. -EUCLEAN, with v->damage set, if it is not sound. */
must_check int vdi_scan(struct vdi *v);

/** Before the first change of content since the image was opened: a new modification UUID. */
must_check int vdi_modify(struct vdi *v);

/** Write @head to the file, and keep it. */
must_check int vdi_write_head(struct vdi *v, const uint8_t *head) REQUIRES(v->lock);
must_check int vdi_flush(struct disk *d);

/* vdi_check.c */
must_check int vdi_check(struct disk *d, unsigned flags, struct disk_check *check,
                         struct error *err);

/** Move the last slots into the holes and cut off the file behind. For exclusive use. */
must_check int vdi_close_holes(struct vdi *v);

/* vdi_resize.c */
must_check int vdi_resize(struct disk *d, uint64_t size_bytes, bool shrink, struct error *err);
must_check int vdi_make_empty(struct disk *d, struct error *err);

/* vdi_link.c */
bool vdi_is_null_uuid(const uint8_t *uuid);
void vdi_uuid_text(const uint8_t *uuid, char ret[37]);
must_check int vdi_new_uuid(uint8_t *ret);
must_check int vdi_find_backing(const struct disk_open *open, struct disk *d, char **ret,
                                struct error *err);
must_check int vdi_match_below(struct disk *d, const struct disk *below, struct error *err);
must_check int vdi_set_backing(struct disk *d, const char *path, const char *format,
                               struct error *err);

/* vdi_create.c */
extern const struct disk_create_option vdi_options[];
must_check int vdi_create(const struct disk_create *create, struct file *file,
                          struct disk_files *files, struct error *err);
must_check int vdi_measure(const struct disk_create *create, uint64_t data_bytes, uint64_t *ret,
                           struct error *err);

#endif
