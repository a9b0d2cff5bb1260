/* Reading a QCOW2 disk, and telling what it holds.
 *
 * Threads: any. A place is looked up under `lock` for reading; data moves without a lock.
 */
#include "base/iov.h"
#include "disk/qcow2/qcow2.h"

#include <errno.h>

#include <string.h>

static int read_run(struct qcow2 *q, const struct qcow2_run *run, const struct iovec *iov, int n,
                    uint64_t offset)
{
    switch (run->kind) {
    case QCOW2_RUN_ABSENT:
        return disk_below_preadv(&q->d, iov, n, offset);
    case QCOW2_RUN_ZERO:
        for (int i = 0; i < n; i++)
            memset(iov[i].iov_base, 0, iov[i].iov_len);
        return 0;
    case QCOW2_RUN_DATA:
        return qcow2_data_read(q, iov, n, run->host);
    case QCOW2_RUN_PACKED:
        return qcow2_read_packed(q, run->host, offset & (q->cluster_bytes - 1), iov, n);
    }
    return -EIO;
}

int qcow2_preadv(struct disk *d, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    struct qcow2 *q = qcow2_of(d);
    uint64_t total = iov_bytes(iov, (unsigned)iovcnt);
    uint64_t done = 0;

    while (done < total) {
        struct qcow2_run run;
        int rc = qcow2_look(q, offset + done, total - done, false, &run);

        if (rc)
            return rc;
        if (run.bytes == total) {
            rc = read_run(q, &run, iov, iovcnt, offset);
        } else {
            struct iovec part[DISK_MAX_IOV];
            int n = (int)iov_slice(part, iov, (unsigned)iovcnt, (size_t)done, (size_t)run.bytes);

            rc = read_run(q, &run, part, n, offset + done);
        }
        if (rc)
            return rc;
        done += run.bytes;
    }
    return 0;
}

int qcow2_status(struct disk *d, uint64_t offset, uint64_t size, struct disk_extent *ret)
{
    struct qcow2 *q = qcow2_of(d);
    struct qcow2_run run;
    int rc = qcow2_look(q, offset, size, false, &run);

    if (rc)
        return rc;
    *ret = (struct disk_extent){.size = run.bytes};
    switch (run.kind) {
    case QCOW2_RUN_ABSENT:
        ret->kind = DISK_ABSENT;
        break;
    case QCOW2_RUN_ZERO:
        ret->kind = DISK_ZERO;
        break;
    case QCOW2_RUN_PACKED:
        ret->kind = DISK_PACKED;
        break;
    case QCOW2_RUN_DATA:
        ret->kind = q->luks ? DISK_PACKED : DISK_DATA;
        ret->file = q->data;
        ret->file_offset = run.host;
        break;
    }
    return 0;
}
