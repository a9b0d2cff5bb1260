/* A file in memory that keeps a log of what was done to it and fails on demand: for tests and fuzz
 * targets. */
#ifndef DISK_FILE_MEMORY_H
#define DISK_FILE_MEMORY_H

#include "disk/file.h"

enum file_memory_kind {
    FILE_MEMORY_WRITE,
    FILE_MEMORY_ZERO,     /* write_zeroes or discard of [offset, offset+size) */
    FILE_MEMORY_TRUNCATE, /* to `size` */
    FILE_MEMORY_FLUSH,
};

struct file_memory_op {
    enum file_memory_kind kind;
    uint64_t offset, size;
    uint8_t *data; /* FILE_MEMORY_WRITE */
};

struct file_memory_log {
    struct file_memory_op *v;
    size_t count;
};

/** A writable file of @size bytes copied from @data (NULL: zeroes) that may grow to @max_bytes
 * (then -ENOSPC). Sparse: what was never written takes no memory. Aborts when memory is out. */
struct file *file_memory_new(const void *data, uint64_t size, uint64_t max_bytes);

/** Log from now on; the log is the file's. */
void file_memory_record(struct file *f);
const struct file_memory_log *file_memory_get_log(const struct file *f);

/** A new empty file that owns @f's log; @f logs no more. So the log outlives @f. */
struct file *file_memory_take_log(struct file *f);

/** A new file with the content that @f has now (no log). */
struct file *file_memory_copy(struct file *f);

/** Do one logged operation, or a part of a write: its sectors [@first, @end) of 512 bytes. */
void file_memory_apply(struct file *f, const struct file_memory_op *op, uint64_t first_sector,
                       uint64_t end_sector);

/** After @count more writing calls, each fails with @code (positive errno); 0 turns it off. Reading
 * too, if
 * @reads. */
void file_memory_fail(struct file *f, uint64_t count, int code, bool reads);

#endif
