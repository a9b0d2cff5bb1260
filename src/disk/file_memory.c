/* A file in memory with a log. Threads: any, one lock. */
#include "disk/file_memory.h"
#include "base/bits.h"
#include "base/iov.h"
#include "base/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 65536u

struct memory_file {
    struct file f; /* must be first */
    struct mutex lock;
    uint8_t **chunks;           /* [lock] NULL = zeroes */
    uint64_t chunk_count;       /* [init] */
    uint64_t size;              /* [lock] */
    uint64_t max_bytes;         /* [init] */
    bool recording;             /* [lock] */
    struct file_memory_log log; /* [lock] */
    uint64_t calls_left;        /* [lock] until calls fail */
    int fail_code;              /* [lock] 0 = none */
    bool fail_reads;            /* [lock] */
};

static struct memory_file *memory_of(struct file *f)
{
    return (struct memory_file *)f;
}

static void *must_alloc(void *p)
{
    if (!p)
        abort();
    return p;
}

static int count_down(struct memory_file *m) REQUIRES(m->lock)
{
    if (!m->fail_code)
        return 0;
    if (!m->calls_left)
        return -m->fail_code;
    m->calls_left--;
    return 0;
}

static void add_op(struct memory_file *m, enum file_memory_kind kind, uint64_t offset,
                   uint64_t size, uint8_t *data) REQUIRES(m->lock)
{
    struct file_memory_log *l = &m->log;

    if (!(l->count & (l->count - 1))) /* room doubles at each power of two */
        l->v = must_alloc(realloc(l->v, MAX(l->count * 2, (size_t)1) * sizeof(*l->v)));
    l->v[l->count++] =
        (struct file_memory_op){.kind = kind, .offset = offset, .size = size, .data = data};
}

static void get_bytes(const struct memory_file *m, uint8_t *to, size_t size, uint64_t offset)
{
    while (size) {
        size_t part = (size_t)MIN((uint64_t)size, CHUNK - offset % CHUNK);
        const uint8_t *chunk = offset < m->max_bytes ? m->chunks[offset / CHUNK] : NULL;

        if (chunk)
            memcpy(to, chunk + offset % CHUNK, part);
        else
            memset(to, 0, part);
        to += part;
        offset += part;
        size -= part;
    }
}

/** @from NULL: zeroes. The range lies within max_bytes. */
static void put_bytes(struct memory_file *m, const uint8_t *from, uint64_t size, uint64_t offset)
{
    while (size) {
        size_t part = (size_t)MIN(size, CHUNK - offset % CHUNK);
        uint8_t **chunk = &m->chunks[offset / CHUNK];

        if (!from && part == CHUNK) {
            free(*chunk);
            *chunk = NULL;
        } else if (!from && *chunk) {
            memset(*chunk + offset % CHUNK, 0, part);
        } else if (from) {
            if (!*chunk)
                *chunk = must_alloc(calloc(1, CHUNK));
            memcpy(*chunk + offset % CHUNK, from, part);
        }
        from = from ? from + part : NULL;
        offset += part;
        size -= part;
    }
}

static int memory_preadv(struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct memory_file *m = memory_of(f);

    mutex_lock(&m->lock);
    int rc = m->fail_reads ? count_down(m) : 0;
    for (int i = 0; i < iovcnt && !rc; i++) {
        get_bytes(m, iov[i].iov_base, iov[i].iov_len, offset);
        offset += iov[i].iov_len;
    }
    mutex_unlock(&m->lock);
    return rc;
}

static int memory_pwritev(struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct memory_file *m = memory_of(f);
    uint64_t total = iov_bytes(iov, (unsigned)iovcnt);
    uint64_t start = offset;

    mutex_lock(&m->lock);
    int rc = count_down(m);
    if (!rc && (offset > m->max_bytes || total > m->max_bytes - offset))
        rc = -ENOSPC;
    if (!rc) {
        for (int i = 0; i < iovcnt; i++) {
            put_bytes(m, iov[i].iov_base, iov[i].iov_len, offset);
            offset += iov[i].iov_len;
        }
        m->size = MAX(m->size, offset);
        if (m->recording) {
            uint8_t *data = must_alloc(malloc(total + 1));

            get_bytes(m, data, total, start);
            add_op(m, FILE_MEMORY_WRITE, start, total, data);
        }
    }
    mutex_unlock(&m->lock);
    return rc;
}

static int memory_flush(struct file *f)
{
    struct memory_file *m = memory_of(f);

    mutex_lock(&m->lock);
    int rc = count_down(m);
    if (!rc && m->recording)
        add_op(m, FILE_MEMORY_FLUSH, 0, 0, NULL);
    mutex_unlock(&m->lock);
    return rc;
}

static void set_size(struct memory_file *m, uint64_t size)
{
    if (size < m->size)
        put_bytes(m, NULL, m->size - size, size);
    m->size = size;
}

static int memory_truncate(struct file *f, uint64_t size)
{
    struct memory_file *m = memory_of(f);

    mutex_lock(&m->lock);
    int rc = count_down(m);
    if (!rc && size > m->max_bytes)
        rc = -ENOSPC;
    if (!rc) {
        set_size(m, size);
        if (m->recording)
            add_op(m, FILE_MEMORY_TRUNCATE, 0, size, NULL);
    }
    mutex_unlock(&m->lock);
    return rc;
}

static int memory_write_zeroes(struct file *f, uint64_t offset, uint64_t size, bool may_unmap)
{
    struct memory_file *m = memory_of(f);

    (void)may_unmap;
    mutex_lock(&m->lock);
    int rc = count_down(m);
    if (!rc && (offset > m->max_bytes || size > m->max_bytes - offset))
        rc = -ENOSPC;
    if (!rc) {
        put_bytes(m, NULL, size, offset);
        m->size = MAX(m->size, offset + size);
        if (m->recording)
            add_op(m, FILE_MEMORY_ZERO, offset, size, NULL);
    }
    mutex_unlock(&m->lock);
    return rc;
}

static int memory_discard(struct file *f, uint64_t offset, uint64_t size)
{
    struct memory_file *m = memory_of(f);
    uint64_t end;

    mutex_lock(&m->lock);
    end = MIN(m->size, offset + size);
    mutex_unlock(&m->lock);
    return offset < end ? memory_write_zeroes(f, offset, end - offset, true) : 0;
}

static int memory_find_data(struct file *f, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end)
{
    struct memory_file *m = memory_of(f);

    mutex_lock(&m->lock);
    uint64_t start = offset;
    while (start < m->size && !m->chunks[start / CHUNK])
        start = align_down(start, CHUNK) + CHUNK;
    uint64_t end = start;
    while (end < m->size && m->chunks[end / CHUNK])
        end = align_down(end, CHUNK) + CHUNK;
    end = MIN(end, m->size);
    mutex_unlock(&m->lock);
    if (start >= end)
        return -ENXIO;
    *ret_start = start;
    *ret_end = end;
    return 0;
}

static int memory_get_size(struct file *f, uint64_t *ret)
{
    struct memory_file *m = memory_of(f);

    mutex_lock(&m->lock);
    *ret = m->size;
    mutex_unlock(&m->lock);
    return 0;
}

static void memory_close(struct file *f)
{
    struct memory_file *m = memory_of(f);

    for (uint64_t i = 0; i < m->chunk_count; i++)
        free(m->chunks[i]);
    for (size_t i = 0; i < m->log.count; i++)
        free(m->log.v[i].data);
    free(m->log.v);
    free(m->chunks);
    mutex_done(&m->lock);
    free(m->f.path);
    free(m);
}

static const struct file_ops memory_ops = {
    .preadv = memory_preadv,
    .pwritev = memory_pwritev,
    .flush = memory_flush,
    .truncate = memory_truncate,
    .discard = memory_discard,
    .write_zeroes = memory_write_zeroes,
    .find_data = memory_find_data,
    .get_size = memory_get_size,
    .close = memory_close,
};

struct file *file_memory_new(const void *data, uint64_t size, uint64_t max_bytes)
{
    struct memory_file *m = must_alloc(calloc(1, sizeof(*m)));

    assert(size <= max_bytes);
    m->f = (struct file){.ops = &memory_ops, .path = must_alloc(strdup("memory")), .fd = -1};
    m->max_bytes = max_bytes;
    m->chunk_count = max_bytes / CHUNK + 1;
    m->chunks = must_alloc(calloc(m->chunk_count, sizeof(*m->chunks)));
    m->size = size;
    mutex_init(&m->lock);
    if (data)
        put_bytes(m, data, size, 0);
    return &m->f;
}

void file_memory_record(struct file *f)
{
    struct memory_file *m = memory_of(f);

    mutex_lock(&m->lock);
    m->recording = true;
    mutex_unlock(&m->lock);
}

const struct file_memory_log *file_memory_get_log(const struct file *f)
{
    return &((const struct memory_file *)f)->log;
}

struct file *file_memory_take_log(struct file *f)
{
    struct memory_file *m = memory_of(f);
    struct file *owner = file_memory_new(NULL, 0, 0);

    mutex_lock(&m->lock);
    memory_of(owner)->log = m->log;
    m->log = (struct file_memory_log){0};
    m->recording = false;
    mutex_unlock(&m->lock);
    return owner;
}

struct file *file_memory_copy(struct file *f)
{
    struct memory_file *m = memory_of(f);

    mutex_lock(&m->lock);
    struct file *copy = file_memory_new(NULL, m->size, m->max_bytes);
    for (uint64_t i = 0; i < m->chunk_count; i++) {
        if (m->chunks[i]) {
            uint8_t *chunk = must_alloc(malloc(CHUNK));

            memcpy(chunk, m->chunks[i], CHUNK);
            memory_of(copy)->chunks[i] = chunk;
        }
    }
    mutex_unlock(&m->lock);
    return copy;
}

void file_memory_apply(struct file *f, const struct file_memory_op *op, uint64_t first_sector,
                       uint64_t end_sector)
{
    struct memory_file *m = memory_of(f);
    uint64_t from = MIN(op->size, first_sector * 512);
    uint64_t to = MIN(op->size, end_sector > UINT64_MAX / 512 ? op->size : end_sector * 512);

    mutex_lock(&m->lock);
    switch (op->kind) {
    case FILE_MEMORY_WRITE:
    case FILE_MEMORY_ZERO:
        if (from < to) {
            put_bytes(m, op->data ? op->data + from : NULL, to - from, op->offset + from);
            m->size = MAX(m->size, op->offset + to);
        }
        break;
    case FILE_MEMORY_TRUNCATE:
        set_size(m, op->size);
        break;
    case FILE_MEMORY_FLUSH:
        break;
    }
    mutex_unlock(&m->lock);
}

void file_memory_fail(struct file *f, uint64_t count, int code, bool reads)
{
    struct memory_file *m = memory_of(f);

    mutex_lock(&m->lock);
    m->calls_left = count;
    m->fail_code = code;
    m->fail_reads = reads;
    mutex_unlock(&m->lock);
}
