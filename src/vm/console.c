/* The host's end of the serial console.
 *
 *     vCPU ── vm_console_write() ──> out ring ── loop ──> out_fd
 *     in_fd ── loop ──> in ring ──> UART (pushed, as far as its FIFO goes) or SBI (asked for)
 *
 * Invariants:
 *  1. A vCPU never waits for a descriptor: a full ring refuses bytes, and `out_refused` has the
 * UART told when there is room.
 *  2. Descriptors are written only when they are ready, at most PIPE_BUF bytes at a time, so that
 *     the loop does not block on a pipe or terminal that is shared in blocking mode.
 *
 * Threads: any; the lock is innermost but for the loop's. UART calls are made without it. */
#include "vm/console.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define OUT_SIZE (64u << 10)
#define IN_SIZE  4096u

struct ring {
    uint8_t *bytes;
    size_t size, head, count;
};

struct vm_console {
    struct loop *loop; /* [init] */
    struct uart *uart; /* [init] by vm_console_attach() */
    bool uart_input;   /* [init] likewise */
    struct loop_fd in_watch, out_watch;
    struct loop_timer retry;
    struct mutex lock;
    struct cond drained;
    struct ring in, out; /* [lock] */
    bool in_watched;     /* [loop] */
    bool in_end;         /* [loop] end of file or error */
    bool out_watched;    /* [loop] */
    bool out_always;     /* [init] a regular file: always ready, cannot be watched */
    bool out_posted;     /* [lock] flush() is posted or out_fd is being watched */
    bool out_refused;    /* [lock] */
    bool out_dead;       /* [lock] nobody reads any more: bytes vanish */
};

static size_t ring_put(struct ring *r, const void *data, size_t size)
{
    size = MIN(size, r->size - r->count);
    for (size_t i = 0; i < size; i++)
        r->bytes[(r->head + r->count + i) % r->size] = ((const uint8_t *)data)[i];
    r->count += size;
    return size;
}

static void ring_drop(struct ring *r, size_t size)
{
    r->head = (r->head + size) % r->size;
    r->count -= size;
}

/* The bytes that can be taken in one piece. */
static size_t ring_run(const struct ring *r)
{
    return MIN(r->count, r->size - r->head);
}

static void watch_out(struct vm_console *c, bool wanted)
{
    if (wanted == c->out_watched || c->out_always)
        return;
    if (wanted)
        c->out_always = loop_fd_add(c->loop, &c->out_watch, EPOLLOUT) != 0;
    else
        loop_fd_remove(c->loop, &c->out_watch);
    c->out_watched = wanted && !c->out_always;
}

/* Write one piece. False: nothing left, or not ready. */
static bool write_piece(struct vm_console *c)
{
    uint8_t piece[PIPE_BUF];

    mutex_lock(&c->lock);
    size_t size = MIN(ring_run(&c->out), sizeof(piece));
    memcpy(piece, c->out.bytes + c->out.head, size);
    mutex_unlock(&c->lock);
    if (!size)
        return false;
    ssize_t n = write(c->out_watch.fd, piece, size);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    mutex_lock(&c->lock);
    c->out_dead = n < 0;
    ring_drop(&c->out, n < 0 ? c->out.count : (size_t)n);
    mutex_unlock(&c->lock);
    return true;
}

/* The loop's turn to write; @ready: the descriptor said so. */
static void flush(struct vm_console *c, bool ready)
{
    while ((ready || c->out_always) && write_piece(c))
        ready = false;
    mutex_lock(&c->lock);
    bool left = c->out.count != 0;
    bool tell = c->out_refused && c->out.count < c->out.size / 2;
    if (tell)
        c->out_refused = false;
    c->out_posted = left;
    if (!left)
        cond_broadcast(&c->drained);
    mutex_unlock(&c->lock);
    watch_out(c, left);
    if (left && c->out_always)
        loop_timer_set(c->loop, &c->retry, 0); /* could not be watched after all: write now */
    if (tell && c->uart)
        uart_can_write(c->uart);
}

static void out_ready(struct loop_fd *w, uint32_t events)
{
    flush(w->arg, true);
}

static void flush_posted(void *arg)
{
    flush(arg, false);
}

static void retry_fired(struct loop_timer *t)
{
    flush(t->arg, false);
}

size_t vm_console_write(struct vm_console *c, const void *data, size_t size)
{
    bool post = false;

    if (c->out_watch.fd < 0)
        return size;
    mutex_lock(&c->lock);
    size_t taken = c->out_dead ? size : ring_put(&c->out, data, size);
    c->out_refused = c->out_refused || taken < size;
    if (c->out.count && !c->out_posted)
        post = c->out_posted = true;
    mutex_unlock(&c->lock);
    if (post && loop_post(c->loop, flush_posted, c)) {
        mutex_lock(&c->lock);
        c->out_posted = false; /* out of memory: the next write tries again */
        mutex_unlock(&c->lock);
    }
    return taken;
}

void vm_console_drain(struct vm_console *c, int64_t deadline_ns)
{
    bool in_time = true;

    mutex_lock(&c->lock);
    while (c->out.count && in_time)
        in_time = cond_wait_until(&c->drained, &c->lock, deadline_ns);
    mutex_unlock(&c->lock);
}

/* --- Input --- */

static void watch_in(struct vm_console *c);

/* Hand what the ring holds to the UART. The loop's thread. */
static void push_input(void *arg)
{
    struct vm_console *c = arg;
    uint8_t piece[64];

    for (;;) {
        mutex_lock(&c->lock);
        size_t size = MIN(ring_run(&c->in), sizeof(piece));
        memcpy(piece, c->in.bytes + c->in.head, size);
        mutex_unlock(&c->lock);
        if (!size || !c->uart_input)
            break;
        size_t taken = uart_receive(c->uart, piece, size);
        mutex_lock(&c->lock);
        ring_drop(&c->in, MIN(taken, c->in.count));
        mutex_unlock(&c->lock);
        if (taken < size)
            break;
    }
    watch_in(c);
}

static size_t in_room(struct vm_console *c)
{
    mutex_lock(&c->lock);
    size_t room = c->in.size - c->in.count;
    mutex_unlock(&c->lock);
    return room;
}

static void read_input(struct vm_console *c)
{
    uint8_t piece[512];
    size_t room = MIN(in_room(c), sizeof(piece));
    ssize_t n = room ? read(c->in_watch.fd, piece, room) : 0;

    if (!room)
        return;
    if (n <= 0) {
        c->in_end = n == 0 || (errno != EAGAIN && errno != EINTR);
        return;
    }
    mutex_lock(&c->lock);
    (void)ring_put(&c->in, piece, (size_t)n); /* there is room: this thread alone adds, or type() */
    mutex_unlock(&c->lock);
}

static void in_ready(struct loop_fd *w, uint32_t events)
{
    read_input(w->arg);
    push_input(w->arg);
}

/* Watch the input while there is room for it. A file that cannot be watched is read as it is asked
 * for. The loop's thread. */
static void watch_in(struct vm_console *c)
{
    bool wanted = c->in_watch.fd >= 0 && !c->in_end && in_room(c) != 0;

    if (wanted == c->in_watched)
        return;
    if (!wanted) {
        loop_fd_remove(c->loop, &c->in_watch);
        c->in_watched = false;
    } else if (loop_fd_add(c->loop, &c->in_watch, EPOLLIN) == 0) {
        c->in_watched = true;
    } else {
        read_input(c);
        if (!c->in_end && loop_post(c->loop, push_input, c))
            c->in_end = true; /* out of memory: input ends here */
    }
}

/* Out of memory: input waits for the next byte typed or read. */
static void post_push(struct vm_console *c)
{
    if (loop_post(c->loop, push_input, c))
        log_warn("out of memory: console input is delayed");
}

size_t vm_console_read(struct vm_console *c, void *data, size_t size)
{
    mutex_lock(&c->lock);
    size = MIN(size, ring_run(&c->in));
    memcpy(data, c->in.bytes + c->in.head, size);
    bool was_full = c->in.count == c->in.size;
    ring_drop(&c->in, size);
    mutex_unlock(&c->lock);
    if (was_full && size)
        post_push(c);
    return size;
}

size_t vm_console_type(struct vm_console *c, const void *data, size_t size)
{
    mutex_lock(&c->lock);
    size = ring_put(&c->in, data, size);
    mutex_unlock(&c->lock);
    if (size)
        post_push(c);
    return size;
}

/* The UART has room again; its lock is held, so its side is looked at later. */
static void can_receive(void *arg)
{
    struct vm_console *c = arg;

    post_push(c);
}

static size_t backend_write(void *arg, const void *data, size_t size)
{
    return vm_console_write(arg, data, size);
}

struct uart_backend vm_console_backend(struct vm_console *c)
{
    return (struct uart_backend){.write = backend_write, .can_receive = can_receive, .arg = c};
}

void vm_console_attach(struct vm_console *c, struct uart *uart, bool input)
{
    c->uart = uart;
    c->uart_input = input;
    post_push(c);
}

int vm_console_new(struct loop *loop, int in_fd, int out_fd, struct vm_console **ret,
                   struct error *err)
{
    struct vm_console *c = calloc(1, sizeof(*c));

    if (!c)
        return error_set(err, ENOMEM, "out of memory");
    c->loop = loop;
    c->in = (struct ring){.bytes = malloc(IN_SIZE), .size = IN_SIZE};
    c->out = (struct ring){.bytes = malloc(OUT_SIZE), .size = OUT_SIZE};
    c->in_watch = (struct loop_fd){.fd = in_fd, .fn = in_ready, .arg = c};
    c->out_watch = (struct loop_fd){.fd = out_fd, .fn = out_ready, .arg = c};
    c->retry = (struct loop_timer){.fn = retry_fired, .arg = c};
    mutex_init(&c->lock);
    cond_init(&c->drained);
    if (!c->in.bytes || !c->out.bytes) {
        vm_console_free(c);
        return error_set(err, ENOMEM, "out of memory");
    }
    *ret = c;
    return 0;
}

void vm_console_free(struct vm_console *c)
{
    if (!c)
        return;
    loop_timer_cancel(c->loop, &c->retry);
    if (c->in_watched)
        loop_fd_remove(c->loop, &c->in_watch);
    if (c->out_watched)
        loop_fd_remove(c->loop, &c->out_watch);
    cond_done(&c->drained);
    mutex_done(&c->lock);
    free(c->in.bytes);
    free(c->out.bytes);
    free(c);
}
