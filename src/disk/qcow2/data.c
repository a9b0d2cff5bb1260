/* Guest data to and from its place in the file: as it is, or encrypted.
 *
 * Encrypted data goes through a buffer, in whole sectors. A write to a part of one reads the rest
 * of it first: such writes are alone (`crypt_lock`), or one could bring back what another has just
 * replaced. Any thread. */
#include "base/bits.h"
#include "base/iov.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>

#define PIECE_BYTES (1u << 20)

/** One piece: bytes of the file, and the whole sectors that they are in. */
struct piece {
    uint64_t from, to;
    uint64_t host;
    size_t skip, size; /* of the request */
};

static void copy_iov(const struct iovec *iov, int n, const struct piece *p, uint8_t *buf,
                     bool to_iov)
{
    struct iovec part[DISK_MAX_IOV];
    unsigned count = iov_slice(part, iov, (unsigned)n, p->skip, p->size);
    uint8_t *at = buf + (p->host - p->from);

    for (unsigned i = 0; i < count; at += part[i++].iov_len) {
        if (to_iov)
            memcpy(part[i].iov_base, at, part[i].iov_len);
        else
            memcpy(at, part[i].iov_base, part[i].iov_len);
    }
}

static int read_piece(struct qcow2 *q, const struct iovec *iov, int n, const struct piece *p,
                      uint8_t *buf)
{
    size_t size = (size_t)(p->to - p->from);
    int rc = file_pread(q->data, buf, size, p->from);

    rc = rc ? rc : qcow2_luks_crypt(q->luks, buf, size, p->from, false);
    if (!rc)
        copy_iov(iov, n, p, buf, true);
    return rc;
}

static int write_piece(struct qcow2 *q, const struct iovec *iov, int n, const struct piece *p,
                       uint8_t *buf)
{
    size_t size = (size_t)(p->to - p->from);
    bool is_part = p->host != p->from || p->host + p->size != p->to;
    int rc = 0;

    if (is_part)
        (void)pthread_rwlock_wrlock(&q->crypt_lock);
    else
        (void)pthread_rwlock_rdlock(&q->crypt_lock);
    if (is_part) {
        rc = file_pread(q->data, buf, size, p->from);
        rc = rc ? rc : qcow2_luks_crypt(q->luks, buf, size, p->from, false);
    }
    if (!rc) {
        copy_iov(iov, n, p, buf, false);
        rc = qcow2_luks_crypt(q->luks, buf, size, p->from, true);
    }
    rc = rc ? rc : file_pwrite(q->data, buf, size, p->from);
    (void)pthread_rwlock_unlock(&q->crypt_lock);
    return rc;
}

static int transfer(struct qcow2 *q, const struct iovec *iov, int n, uint64_t host, bool write)
{
    size_t total = iov_bytes(iov, (unsigned)n);
    uint64_t from = align_down(host, DISK_SECTOR);
    size_t room = (size_t)MIN(align_up(host + total, DISK_SECTOR) - from, (uint64_t)PIECE_BYTES);
    uint8_t *buf = aligned_alloc(4096, align_up(MAX(room, (size_t)1), 4096));
    int rc = buf ? 0 : -ENOMEM;

    for (size_t done = 0; done < total && !rc;) {
        struct piece p = {.host = host + done, .skip = done};

        p.from = align_down(p.host, DISK_SECTOR);
        p.size = MIN(total - done, (size_t)(p.from + room - p.host));
        p.to = align_up(p.host + p.size, DISK_SECTOR);
        rc = write ? write_piece(q, iov, n, &p, buf) : read_piece(q, iov, n, &p, buf);
        done += p.size;
    }
    free(buf);
    return rc;
}

int qcow2_data_read(struct qcow2 *q, const struct iovec *iov, int n, uint64_t host)
{
    return q->luks ? transfer(q, iov, n, host, false) : file_preadv(q->data, iov, n, host);
}

int qcow2_data_write(struct qcow2 *q, const struct iovec *iov, int n, uint64_t host)
{
    return q->luks ? transfer(q, iov, n, host, true) : file_pwritev(q->data, iov, n, host);
}
