/* Bitmaps of a QCOW2 image: what bitmap.c and bitmap_edit.c share. bitmap_lock is held. */
#ifndef DISK_QCOW2_BITMAP_H
#define DISK_QCOW2_BITMAP_H

#include "disk/qcow2/qcow2.h"

#define ENTRY_BYTES   24u
#define MAX_BITMAPS   65535u
#define MAX_NAME      1023u
#define MAX_DIRECTORY (64u << 20)
#define MAX_TABLE     (8u << 20)   /* bytes */
#define MAX_BITS      (256u << 20) /* bytes of a bitmap in memory */

enum { BITMAP_IN_USE = 1, BITMAP_AUTO = 2, BITMAP_EXTRA_OK = 4 };

void qcow2_bitmap_free(struct qcow2_bitmap *b);
/** NULL: there is none. */
struct qcow2_bitmap *qcow2_bitmap_named(struct qcow2 *q, const char *name);
/** Entries of the table that @b needs for a disk of @disk_bytes. */
uint64_t qcow2_bitmap_entries(const struct qcow2 *q, const struct qcow2_bitmap *b,
                              uint64_t disk_bytes);
/** Its bits into memory. -EUCLEAN: it is not consistent. */
must_check int qcow2_bitmap_read(struct qcow2 *q, struct qcow2_bitmap *b);
/** Its bits into the file, in place. */
must_check int qcow2_bitmap_write(struct qcow2 *q, struct qcow2_bitmap *b);
uint64_t qcow2_bitmap_directory_bytes(const struct qcow2 *q);
must_check int qcow2_bitmap_write_directory(struct qcow2 *q, uint64_t offset);

#endif
