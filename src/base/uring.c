/* io_uring on a loop: the ring's own descriptor is readable when something has ended.
 *
 * Invariant: at most `entries` transfers are in flight, and the completion queue is twice as large,
 * so neither queue is ever full.
 *
 * Threads: the loop's; uring_new() and uring_free() while it does not use the ring.
 */
#include "base/uring.h"
#include "base/loop.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

struct uring {
    struct io_uring uring;
    struct loop *loop;    /* [init] */
    struct loop_fd watch; /* [init] */
    unsigned entries;     /* [init] */
    unsigned in_flight;   /* [loop] */
    unsigned prepared;    /* [loop] of these, not submitted yet */
};

int uring_probe(void)
{
    struct io_uring uring;
    int rc = io_uring_queue_init(1, &uring, 0);

    if (!rc)
        io_uring_queue_exit(&uring);
    return rc;
}

static void on_readable(struct loop_fd *w, uint32_t events)
{
    struct uring *r = w->arg;
    struct io_uring_cqe *cqe;

    (void)events;
    while (!io_uring_peek_cqe(&r->uring, &cqe)) {
        struct uring_op *op = io_uring_cqe_get_data(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&r->uring, cqe);
        r->in_flight--;
        op->fn(op, result);
    }
    uring_submit(r); /* what the callbacks began, and what the kernel did not take before */
}

struct uring *uring_new(struct loop *loop, unsigned entries)
{
    struct uring *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    if (io_uring_queue_init(entries, &r->uring, 0)) {
        free(r);
        return NULL;
    }
    /* a forked process with the ring's memory would keep its files open */
    (void)io_uring_ring_dontfork(&r->uring);
    r->loop = loop;
    r->entries = entries;
    r->watch = (struct loop_fd){.fd = r->uring.ring_fd, .fn = on_readable, .arg = r};
    if (loop_fd_add(loop, &r->watch, EPOLLIN)) {
        io_uring_queue_exit(&r->uring);
        free(r);
        return NULL;
    }
    return r;
}

void uring_free(struct uring *r)
{
    if (!r)
        return;
    loop_fd_remove(r->loop, &r->watch);
    loop_sync(r->loop);
    io_uring_queue_exit(&r->uring);
    free(r);
}

unsigned uring_left(const struct uring *r)
{
    return r->entries - r->in_flight;
}

void uring_transfer(struct uring *r, int fd, const struct iovec *iov, int iovcnt, uint64_t offset,
                    bool write, struct uring_op *op)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);

    assert(sqe && r->in_flight < r->entries);
    if (write)
        io_uring_prep_writev(sqe, fd, iov, (unsigned)iovcnt, offset);
    else
        io_uring_prep_readv(sqe, fd, iov, (unsigned)iovcnt, offset);
    io_uring_sqe_set_data(sqe, op);
    r->in_flight++;
    r->prepared++;
}

void uring_submit(struct uring *r)
{
    while (r->prepared) {
        int n = io_uring_submit(&r->uring);

        if (n < 0 && n != -EINTR && n != -EAGAIN && n != -EBUSY)
            abort(); /* our own mistake: nothing the kernel may refuse as a whole */
        if ((n == -EAGAIN || n == -EBUSY) && r->in_flight > r->prepared)
            return; /* what is in flight ends first, and then we come here again */
        if (n == -EAGAIN || n == -EBUSY)
            (void)usleep(1000); /* the host is out of memory for a moment */
        r->prepared -= n > 0 ? (unsigned)n : 0;
    }
}
