/* Reading and writing files without waiting, by io_uring, for the thread of one loop. */
#ifndef BASE_URING_H
#define BASE_URING_H

#include "base/macros.h"

#include <sys/uio.h>

struct loop;
struct uring;

/** One transfer, in the caller's storage until @fn is called on the loop's thread with the bytes
 * moved or -errno. */
struct uring_op {
    void (*fn)(struct uring_op *op, int result);
};

/** May this process use io_uring? 0, -ENOSYS (the kernel has none), -EPERM (forbidden: seccomp,
 * kernel.io_uring_disabled), -ENOMEM. */
must_check int uring_probe(void);

/** Room for @entries transfers at once. NULL where uring_probe() fails, or out of memory. */
struct uring *uring_new(struct loop *loop, unsigned entries);

/** Nothing is in flight any more, and the loop's thread does not run. Takes NULL. */
void uring_free(struct uring *r);

/** How many more transfers can be begun. The loop's thread, as all below. */
unsigned uring_left(const struct uring *r);

/** Begin a transfer (there is room); @iov must live until it ends. It starts at uring_submit(). */
void uring_transfer(struct uring *r, int fd, const struct iovec *iov, int iovcnt, uint64_t offset,
                    bool write, struct uring_op *op);

/** Tell the kernel of all that was begun. */
void uring_submit(struct uring *r);

#endif
