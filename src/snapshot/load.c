/* Reading a snapshot: the file is hostile.
 *
 * Everything that the file gives as a number is compared with the machine that is there or with a
 * fixed limit before it is used; a chunk is decompressed into memory of a fixed size, and copied
 * page by page into RAM that it names.
 *
 * Threads: one; the machine does not run. */
#include "base/bits.h"
#include "base/fd.h"
#include "mem/mem.h"
#include "snapshot/snapshot_internal.h"
#include "state/state.h"
#include "vm/vm.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

struct load {
    struct vm *vm;
    const char *path;
    int fd;
    uint64_t left; /* bytes of the file not yet read */
    uint8_t *state;
    size_t state_size;
    uint32_t regions;
    ZSTD_DCtx *zstd;
    uint8_t *pages;  /* SNAPSHOT_CHUNK_BYTES */
    uint8_t *packed; /* packed_room bytes */
    size_t packed_room;
};

static int damaged(const struct load *l, const char *what, struct error *err)
{
    return error_set(err, EINVAL, "snapshot '%s' is damaged: %s", l->path, what);
}

static int take(struct load *l, void *buf, size_t size, struct error *err)
{
    if (size > l->left)
        return damaged(l, "it is cut off", err);
    l->left -= size;
    int rc = fd_read_all(l->fd, buf, size);
    return rc ? error_set(err, -rc, "cannot read snapshot '%s': %s", l->path, strerror(-rc)) : 0;
}

static int read_header(struct load *l, uint32_t *ret_regions_crc, struct error *err)
{
    uint8_t h[SNAPSHOT_HEADER];
    int rc = take(l, h, sizeof(h), err);

    if (rc)
        return rc;
    if (memcmp(h, SNAPSHOT_MAGIC, 8) != 0)
        return error_set(err, EINVAL, "'%s' is not a snapshot", l->path);
    if (load_le32(h + 28) != (uint32_t)crc32(0, h, 28))
        return damaged(l, "the checksum of its header does not match", err);
    if (load_le32(h + 8) != SNAPSHOT_VERSION)
        return error_set(err, EINVAL, "snapshot '%s' has version %u, and this program knows %u",
                         l->path, load_le32(h + 8), SNAPSHOT_VERSION);
    l->regions = load_le32(h + 12);
    if (load_le64(h + 16) > SNAPSHOT_STATE_MAX || load_le64(h + 16) > l->left ||
        l->regions > SNAPSHOT_REGIONS_MAX)
        return damaged(l, "its header is out of bounds", err);
    l->state_size = load_le64(h + 16);
    *ret_regions_crc = load_le32(h + 24);
    return 0;
}

static int read_state(struct load *l, struct error *err)
{
    l->state = malloc(l->state_size + 1);
    if (!l->state)
        return error_set(err, ENOMEM, "out of memory");
    return take(l, l->state, l->state_size, err);
}

/** The machine's memory must be laid out as the snapshot's was. */
static int check_regions(struct load *l, uint32_t crc, struct error *err)
{
    uint8_t raw[SNAPSHOT_REGIONS_MAX * SNAPSHOT_REGION];
    const struct mem_region *r;
    size_t i = 0;
    uint32_t count = 0;
    int rc = take(l, raw, (size_t)l->regions * SNAPSHOT_REGION, err);

    if (rc)
        return rc;
    if ((uint32_t)crc32(0, raw, l->regions * SNAPSHOT_REGION) != crc)
        return damaged(l, "the checksum of its regions does not match", err);
    while ((r = mem_next(vm_mem(l->vm), &i))) {
        if (!r->host)
            continue;
        const uint8_t *at = raw + (size_t)count * SNAPSHOT_REGION;
        if (count++ == l->regions || load_le64(at) != r->base.v || load_le64(at + 8) != r->size)
            break;
    }
    if (r || count != l->regions)
        return error_set(err, EINVAL, "snapshot '%s' is of a machine with other memory", l->path);
    return 0;
}

static int store_pages(struct load *l, uint64_t gpa, const uint8_t *bitmap, size_t size,
                       struct error *err)
{
    const uint8_t *from = l->pages;

    for (size_t i = 0; i < SNAPSHOT_CHUNK_PAGES; i++) {
        if (!(bitmap[i / 8] >> i % 8 & 1))
            continue;
        uint64_t at = gpa + i * MEM_PAGE_SIZE;
        const struct mem_region *r = mem_find(vm_mem(l->vm), GPA(at));
        if (size < MEM_PAGE_SIZE || !r || !r->host || at % MEM_PAGE_SIZE)
            return damaged(l, "a page is not in memory", err);
        memcpy(r->host + (at - r->base.v), from, MEM_PAGE_SIZE);
        from += MEM_PAGE_SIZE;
        size -= MEM_PAGE_SIZE;
    }
    return size ? damaged(l, "a chunk holds more than its pages", err) : 0;
}

/** One chunk. *@ret_end: it was the last one. */
static int read_chunk(struct load *l, bool *ret_end, struct error *err)
{
    uint8_t head[SNAPSHOT_CHUNK_HEAD];
    int rc = take(l, head, sizeof(head), err);

    if (rc)
        return rc;
    uint64_t gpa = load_le64(head);
    uint32_t packed = load_le32(head + 8);
    *ret_end = gpa == SNAPSHOT_END;
    if (*ret_end)
        return l->left ? damaged(l, "there is something behind its end", err) : 0;
    if (packed > l->packed_room || gpa > UINT64_MAX - SNAPSHOT_CHUNK_BYTES)
        return damaged(l, "a chunk is out of bounds", err);
    rc = take(l, l->packed, packed, err);
    if (rc)
        return rc;
    if (load_le32(head + 12) != (uint32_t)crc32(0, l->packed, packed))
        return damaged(l, "the checksum of a chunk does not match", err);
    size_t size = ZSTD_decompressDCtx(l->zstd, l->pages, SNAPSHOT_CHUNK_BYTES, l->packed, packed);
    if (ZSTD_isError(size))
        return damaged(l, "a chunk does not unpack", err);
    return store_pages(l, gpa, head + 16, size, err);
}

static int read_memory(struct load *l, struct error *err)
{
    bool end = false;
    int rc = 0;

    l->packed_room = ZSTD_compressBound(SNAPSHOT_CHUNK_BYTES);
    l->zstd = ZSTD_createDCtx();
    l->pages = malloc(SNAPSHOT_CHUNK_BYTES);
    l->packed = malloc(l->packed_room);
    if (!l->zstd || !l->pages || !l->packed)
        return error_set(err, ENOMEM, "out of memory");
    while (!rc && !end)
        rc = read_chunk(l, &end, err);
    return rc;
}

static int load_file(struct load *l, struct error *err)
{
    struct state_in *in = NULL;
    uint32_t crc = 0;
    int rc = read_header(l, &crc, err);

    if (!rc)
        rc = read_state(l, err);
    if (!rc)
        rc = check_regions(l, crc, err);
    if (!rc)
        rc = read_memory(l, err);
    if (!rc)
        rc = state_in_new(l->state, l->state_size, &in, err);
    if (!rc)
        rc = vm_load(l->vm, in, err);
    state_in_free(in);
    return rc;
}

int snapshot_load(struct vm *vm, const char *path, struct error *err)
{
    struct load l = {.vm = vm, .path = path};
    struct stat st;

    l.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (l.fd < 0 || fstat(l.fd, &st)) {
        fd_close(l.fd);
        return error_set(err, errno, "cannot open snapshot '%s': %s", path, strerror(errno));
    }
    l.left = (uint64_t)st.st_size;
    int rc = S_ISREG(st.st_mode)
                 ? load_file(&l, err)
                 : error_set(err, EINVAL, "snapshot '%s' is not a regular file", path);
    fd_close(l.fd);
    ZSTD_freeDCtx(l.zstd);
    free(l.state);
    free(l.pages);
    free(l.packed);
    return rc;
}
