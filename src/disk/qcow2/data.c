/* Guest data to and from its place in the file. */
#include "base/iov.h"
#include "disk/qcow2/qcow2.h"

int qcow2_data_read(struct qcow2 *q, const struct iovec *iov, int n, uint64_t host)
{
    return file_preadv(q->data, iov, n, host);
}

int qcow2_data_write(struct qcow2 *q, const struct iovec *iov, int n, uint64_t host)
{
    return file_pwritev(q->data, iov, n, host);
}
