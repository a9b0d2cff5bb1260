/* A read-only view of a file with patches over it: what a log replay would write, kept in memory.
 *
 * Threads: patches are added before others read.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "base/iov.h"
#include "disk/vhdx/vhdx.h"

#include <string.h>

struct patch {
    uint64_t offset, size;
    uint8_t *data; /* NULL: zeroes */
};

struct patched {
    struct file f; /* must be first */
    struct file *below;
    struct patch *v;
    size_t n, room;
    uint64_t least_bytes; /* the file is at least so long */
};

/** Copy what @p holds of [offset, offset+size) into @buf. */
static void lay_over(const struct patch *p, uint8_t *buf, uint64_t size, uint64_t offset)
{
    uint64_t from = MAX(offset, p->offset);
    uint64_t to = MIN(offset + size, p->offset + p->size);

    if (from >= to)
        return;
    if (p->data)
        memcpy(buf + (from - offset), p->data + (from - p->offset), (size_t)(to - from));
    else
        memset(buf + (from - offset), 0, (size_t)(to - from));
}

static int patched_preadv(struct file *f, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct patched *p = (struct patched *)f;
    int rc = file_preadv(p->below, iov, iovcnt, offset);

    for (int i = 0; i < iovcnt && !rc; i++) {
        for (size_t n = 0; n < p->n; n++)
            lay_over(&p->v[n], iov[i].iov_base, iov[i].iov_len, offset);
        offset += iov[i].iov_len;
    }
    return rc;
}

static int patched_get_size(struct file *f, uint64_t *ret)
{
    struct patched *p = (struct patched *)f;
    int rc = file_get_size(p->below, ret);

    if (!rc)
        *ret = MAX(*ret, p->least_bytes);
    return rc;
}

static int patched_find_data(struct file *f, uint64_t offset, uint64_t *ret_start,
                             uint64_t *ret_end)
{
    int rc = patched_get_size(f, ret_end);

    if (rc || offset >= *ret_end)
        return rc ? rc : -ENXIO;
    *ret_start = offset; /* it cannot tell */
    return 0;
}

struct file *vhdx_patched_free(struct file *f)
{
    struct patched *p = (struct patched *)f;
    struct file *below = p->below;

    for (size_t i = 0; i < p->n; i++)
        free(p->v[i].data);
    free(p->v);
    free(p->f.path);
    free(p);
    return below;
}

static void patched_close(struct file *f)
{
    file_close(vhdx_patched_free(f));
}

/* Nothing writes to it: file_*() refuse by `readonly`. */
static const struct file_ops patched_ops = {
    .preadv = patched_preadv,
    .get_size = patched_get_size,
    .find_data = patched_find_data,
    .close = patched_close,
};

int vhdx_patched_new(struct file *below, struct file **ret)
{
    struct patched *p = calloc(1, sizeof(*p));
    char *path = strdup(below->path);

    if (!p || !path) {
        free(p);
        free(path);
        return -ENOMEM;
    }
    p->f = (struct file){.ops = &patched_ops, .path = path, .fd = -1, .readonly = true};
    p->below = below;
    *ret = &p->f;
    return 0;
}

int vhdx_patched_add(struct file *f, uint64_t offset, uint64_t size, const uint8_t *data)
{
    struct patched *p = (struct patched *)f;

    if (p->n == p->room) {
        size_t room = MAX(p->room * 2, (size_t)64);
        struct patch *v = realloc(p->v, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        p->v = v;
        p->room = room;
    }
    uint8_t *copy = data ? malloc((size_t)size) : NULL;
    if (data && !copy)
        return -ENOMEM;
    if (data)
        memcpy(copy, data, (size_t)size);
    p->v[p->n++] = (struct patch){offset, size, copy};
    return 0;
}

void vhdx_patched_extend(struct file *f, uint64_t size)
{
    struct patched *p = (struct patched *)f;

    p->least_bytes = MAX(p->least_bytes, size);
}
