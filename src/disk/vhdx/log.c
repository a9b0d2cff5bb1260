/* Writing through the VHDX log. Spec: [MS-VHDX] 2.3.
 *
 * Each entry is a sequence of its own: its tail is itself. So that this is right, what the entry
 * before it described has been applied and made durable before the entry is written: by the flush
 * that every commit begins with, and by one between the entries of a large commit. An entry takes
 * at most a third of the log, so two of them never share space.
 *
 * The header names the log only once a whole entry is durable, since a named log without one is
 * damage.
 *
 * Threads: commit_lock, or no request runs.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "disk/vhdx/vhdx.h"

#include <string.h>

enum { HEADER_BYTES = 64, DESCRIPTOR_BYTES = 32, FIRST_DESCRIPTORS = 126, DESCRIPTORS = 128 };

void vhdx_pages_done(struct vhdx_pages *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->v[i]);
    free(p->v);
    *p = (struct vhdx_pages){0};
}

static int get_page(struct vhdx *v, struct vhdx_pages *p, uint64_t offset, struct vhdx_page **ret)
{
    for (size_t i = p->n; i-- > 0;) { /* most likely the last one */
        if (p->v[i]->offset == offset) {
            *ret = p->v[i];
            return 0;
        }
    }
    if (p->n == p->room) {
        size_t room = MAX(p->room * 2, (size_t)16);
        struct vhdx_page **grown = realloc(p->v, room * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        p->v = grown;
        p->room = room;
    }
    struct vhdx_page *page = malloc(sizeof(*page));
    int rc = page ? file_pread(v->m.file, page->data, VHDX_PAGE, offset) : -ENOMEM;
    if (rc) {
        free(page);
        return rc;
    }
    page->offset = offset;
    p->v[p->n++] = page;
    *ret = page;
    return 0;
}

int vhdx_pages_patch(struct vhdx *v, struct vhdx_pages *p, uint64_t offset, const void *data,
                     size_t size)
{
    const uint8_t *from = data;
    int rc = 0;

    while (size && !rc) {
        struct vhdx_page *page;
        size_t in = offset % VHDX_PAGE;
        size_t part = MIN(size, VHDX_PAGE - in);

        rc = get_page(v, p, offset - in, &page);
        if (!rc)
            memcpy(page->data + in, from, part);
        from += part;
        offset += part;
        size -= part;
    }
    return rc;
}

static uint32_t descriptor_pages(size_t n)
{
    return n <= FIRST_DESCRIPTORS
               ? 1
               : (uint32_t)(1 + (n - FIRST_DESCRIPTORS + DESCRIPTORS - 1) / DESCRIPTORS);
}

/** Fill an entry for @n pages; *@ret is heap. */
static int make_entry(struct vhdx *v, struct vhdx_page *const *pages, size_t n, uint32_t at,
                      uint64_t end_bytes, uint8_t **ret, uint32_t *ret_size)
{
    uint32_t size = (uint32_t)(descriptor_pages(n) + n) * VHDX_PAGE;
    uint64_t sequence = v->log_sequence + 1;
    uint64_t file_bytes = align_up(end_bytes, VHDX_MIB);
    uint8_t *e = calloc(1, size);

    if (!e)
        return -ENOMEM;
    memcpy(e, "loge", 4);
    store_le32(e + 8, size);
    store_le32(e + 12, at); /* the tail */
    store_le64(e + 16, sequence);
    store_le32(e + 24, (uint32_t)n);
    memcpy(e + 32, v->log_guid, VHDX_GUID_BYTES);
    store_le64(e + 48, file_bytes);
    store_le64(e + 56, file_bytes);
    for (size_t i = 0; i < n; i++) {
        uint8_t *d = e + HEADER_BYTES + i * DESCRIPTOR_BYTES;
        uint8_t *data = e + (descriptor_pages(n) + i) * VHDX_PAGE;

        memcpy(d, "desc", 4);
        memcpy(d + 4, pages[i]->data + VHDX_PAGE - 4, 4);
        memcpy(d + 8, pages[i]->data, 8);
        store_le64(d + 16, pages[i]->offset);
        store_le64(d + 24, sequence);
        memcpy(data, pages[i]->data, VHDX_PAGE);
        memcpy(data, "data", 4);
        store_le32(data + 4, (uint32_t)(sequence >> 32));
        store_le32(data + VHDX_PAGE - 4, (uint32_t)sequence);
    }
    store_le32(e + 4, vhdx_crc(e, size, 4));
    *ret = e;
    *ret_size = size;
    return 0;
}

/** Write one entry, make it durable, and apply it. */
static int write_entry(struct vhdx *v, struct vhdx_page *const *pages, size_t n, uint64_t end_bytes)
{
    uint8_t *e = NULL;
    uint32_t size = (uint32_t)(descriptor_pages(n) + n) * VHDX_PAGE;
    uint32_t at = v->log_at + v->log_size;
    int rc = 0;

    if (at > v->h.log_bytes - size)
        at = 0;
    if (!v->log_sequence)
        rc = vhdx_new_guid(v->log_guid);
    if (!rc)
        rc = make_entry(v, pages, n, at, end_bytes, &e, &size);
    if (!rc)
        rc = file_pwrite(v->m.file, e, size, v->h.log_offset + at);
    free(e);
    if (!rc)
        rc = file_flush(v->m.file);
    if (rc)
        return rc;
    v->log_sequence++;
    v->log_at = at;
    v->log_size = size;
    if (memcmp(v->h.log_guid, v->log_guid, VHDX_GUID_BYTES) != 0) {
        memcpy(v->h.log_guid, v->log_guid, VHDX_GUID_BYTES);
        rc = vhdx_header_update(v);
    }
    for (size_t i = 0; i < n && !rc; i++)
        rc = file_pwrite(v->m.file, pages[i]->data, VHDX_PAGE, pages[i]->offset);
    return rc;
}

int vhdx_log_write(struct vhdx *v, const struct vhdx_pages *p, uint64_t end_bytes)
{
    size_t room = v->h.log_bytes / 3 / VHDX_PAGE;
    int rc = v->h.log_bytes < VHDX_MIB ? -ENOSPC : 0;
    size_t done = 0;

    while (done < p->n && !rc) {
        size_t n = MIN(p->n - done, room - descriptor_pages(room));

        if (done)
            rc = file_flush(v->m.file); /* what was applied */
        if (!rc)
            rc = write_entry(v, p->v + done, n, end_bytes);
        done += n;
    }
    return rc;
}

int vhdx_log_close(struct vhdx *v)
{
    if (vhdx_is_zero(v->h.log_guid))
        return 0;
    int rc = file_flush(v->m.file);
    if (rc)
        return rc;
    memset(v->h.log_guid, 0, VHDX_GUID_BYTES);
    v->log_sequence = 0;
    v->log_at = v->log_size = 0;
    return vhdx_header_update(v);
}
