/* A program of the host's, while it runs: its streams to and from the wire, its end. See
 * guest_agent.h, docs/agent.md.
 *
 * Invariants:
 *  1. The wire is always read: input waits in `ring`, which holds what the window lets the host
 *     send ahead, so signals and the host's end are seen at once.
 *  2. Output is read from the program only while little waits to be sent.
 *  3. When the program has ended, what it had written by then is sent, and no more: others that it
 *     has left behind may hold its streams open for ever.
 *  4. When the host is gone, the program's group gets SIGHUP. */
#include "base/fd.h"
#include "guest_agent.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PENDING_MAX = WIRE_CHUNK, /* bytes that wait to be sent when output is no longer read */
    QUIET_MS = 50,            /* a terminal that says nothing for so long has said all */
    END_OF_FILE_KEY = 4,
};

struct exec {
    struct session *s;
    struct child c;
    bool tty;
    uint8_t *ring; /* WIRE_IN_WINDOW bytes */
    size_t ring_at, ring_size;
    bool in_ended;  /* the host has no more */
    bool in_broken; /* the program reads no more */
    size_t consumed;
    bool exited;
    int status;
    int out_left, err_left; /* once it has ended: bytes that are still to be sent */
};

static void close_fd(int *fd)
{
    fd_close(fd_take(fd));
}

static int take_input(struct exec *x, const struct wire_frame *f)
{
    if (x->in_ended || f->size > WIRE_IN_WINDOW - x->ring_size)
        return -EPROTO;
    if (!f->size) {
        x->in_ended = true;
        return 0;
    }
    for (size_t done = 0; done < f->size;) {
        size_t at = (x->ring_at + x->ring_size) % WIRE_IN_WINDOW;
        size_t n = MIN(f->size - done, WIRE_IN_WINDOW - at);

        memcpy(x->ring + at, f->body + done, n);
        x->ring_size += n;
        done += n;
    }
    return 0;
}

static int take_signal(struct exec *x, const struct wire_frame *f)
{
    int64_t signo;

    if (!wire_has_fields(f) || wire_find_int(f, "signal", 1, SIGRTMAX, 0, &signo) || !signo)
        return -EPROTO;
    if (!x->exited)
        (void)kill(-x->c.pid, (int)signo); /* it may be gone by now */
    return 0;
}

static int take_size(struct exec *x, const struct wire_frame *f)
{
    int64_t columns, rows;

    if (!wire_has_fields(f) || wire_find_int(f, "columns", 0, UINT16_MAX, 0, &columns) ||
        wire_find_int(f, "rows", 0, UINT16_MAX, 0, &rows))
        return -EPROTO;
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};
    if (x->tty)
        (void)ioctl(x->c.out_fd, TIOCSWINSZ, &size);
    return 0;
}

static int take_frames(struct exec *x)
{
    struct wire_frame f;
    int rc;

    while ((rc = wire_next(&x->s->wire, &f)) > 0) {
        if (f.kind == WIRE_IN)
            rc = take_input(x, &f);
        else if (f.kind == WIRE_SIGNAL)
            rc = take_signal(x, &f);
        else if (f.kind == WIRE_RESIZE)
            rc = take_size(x, &f);
        else
            rc = -EPROTO;
        if (rc)
            return rc;
    }
    return rc;
}

/** Give the program input. A write that fails ends its input; the host is given no more credit. */
static int write_input(struct exec *x)
{
    while (x->ring_size && x->c.in_fd >= 0) {
        size_t n = MIN(x->ring_size, WIRE_IN_WINDOW - x->ring_at);
        ssize_t done = write(x->c.in_fd, x->ring + x->ring_at, n);

        if (done < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (done < 0) {
            x->in_broken = true;
            close_fd(&x->c.in_fd);
            break;
        }
        x->ring_at = (x->ring_at + (size_t)done) % WIRE_IN_WINDOW;
        x->ring_size -= (size_t)done;
        x->consumed += (size_t)done;
    }
    if (x->in_ended && !x->ring_size && x->c.in_fd >= 0) {
        const char key = END_OF_FILE_KEY;

        if (x->tty && write(x->c.in_fd, &key, 1) < 0 && errno == EAGAIN)
            return 0;
        close_fd(&x->c.in_fd);
    }
    /* Not for every little piece, but before the host can run dry. */
    if (!x->consumed || (x->ring_size && x->consumed < WIRE_IN_WINDOW / 4))
        return 0;
    int rc = wire_add_int(&x->s->wire, WIRE_CREDIT, "bytes", (int64_t)x->consumed);
    x->consumed = 0;
    return rc;
}

/** Send what the program has written, at most @*left bytes if it has ended. */
static int read_output(struct exec *x, int *fd, enum wire_kind kind, int *left)
{
    struct wire *w = &x->s->wire;
    bool bounded = x->exited && !x->tty;
    size_t want = bounded ? MIN((size_t)*left, (size_t)WIRE_CHUNK) : WIRE_CHUNK;

    wire_begin(w, kind);
    void *p = wire_room(w, want);
    if (!p)
        return -ENOMEM;
    ssize_t n = want ? read(*fd, p, want) : 0;
    if (n <= 0) {
        bool later = n < 0 && (errno == EAGAIN || errno == EINTR);

        w->out_size = w->begun;
        if (!later)
            close_fd(fd); /* its end; of a terminal, EIO */
        return 0;
    }
    wire_grew(w, (size_t)n);
    *left -= bounded ? (int)n : 0;
    if (bounded && !*left)
        close_fd(fd);
    return wire_end(w);
}

/** Has it ended? Then see how much of its output is still to be read. */
static void check_exit(struct exec *x)
{
    struct signalfd_siginfo info;

    while (read(x->s->signal_fd, &info, sizeof(info)) > 0)
        ;
    if (x->exited || waitpid(x->c.pid, &x->status, WNOHANG) != x->c.pid)
        return;
    x->exited = true;
    close_fd(&x->c.slave_fd);
    close_fd(&x->c.in_fd);
    if (x->tty)
        return;
    if (ioctl(x->c.out_fd, FIONREAD, &x->out_left) || !x->out_left)
        close_fd(&x->c.out_fd);
    if (ioctl(x->c.err_fd, FIONREAD, &x->err_left) || !x->err_left)
        close_fd(&x->c.err_fd);
}

static int step(struct exec *x)
{
    enum { WIRE, IN, OUT, ERR, SIGNALS, COUNT };
    struct wire *w = &x->s->wire;
    bool reads = wire_pending(w) < PENDING_MAX;
    bool writes = x->ring_size || x->in_ended;
    struct pollfd fds[COUNT] = {
        [WIRE] = {.fd = w->fd,                            .events = (short)(POLLIN | (wire_pending(w) ? POLLOUT : 0))},
        [IN] = {.fd = writes ? x->c.in_fd : -1,         .events = POLLOUT                                          },
        [OUT] = {.fd = reads ? x->c.out_fd : -1,         .events = POLLIN                                           },
        [ERR] = {.fd = reads ? x->c.err_fd : -1,         .events = POLLIN                                           },
        [SIGNALS] = {.fd = x->exited ? -1 : x->s->signal_fd, .events = POLLIN                                           },
    };
    int n = poll(fds, COUNT, x->exited && x->tty && reads ? QUIET_MS : -1);
    int rc = 0;

    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    if (!n)
        close_fd(&x->c.out_fd);
    if (fds[SIGNALS].revents)
        check_exit(x);
    if (fds[WIRE].revents) {
        ssize_t got = wire_fill(w);
        rc = got < 0 ? (int)got : take_frames(x);
    }
    if (!rc && !x->in_broken)
        rc = write_input(x);
    if (!rc && fds[OUT].revents && x->c.out_fd >= 0)
        rc = read_output(x, &x->c.out_fd, WIRE_OUT, &x->out_left);
    if (!rc && fds[ERR].revents && x->c.err_fd >= 0)
        rc = read_output(x, &x->c.err_fd, WIRE_ERR, &x->err_left);
    return rc ? rc : wire_flush(w);
}

static int run(struct exec *x)
{
    int rc = take_frames(x);

    while (!rc && !(x->exited && x->c.out_fd < 0 && x->c.err_fd < 0))
        rc = step(x);
    if (!rc && WIFEXITED(x->status))
        rc = wire_add_int(&x->s->wire, WIRE_EXIT, "status", WEXITSTATUS(x->status));
    else if (!rc)
        rc = wire_add_int(&x->s->wire, WIRE_EXIT, "signal", WTERMSIG(x->status));
    return rc;
}

int exec_serve(struct session *s, const struct wire_frame *f, struct error *err)
{
    struct exec x = {.s = s};
    struct exec_spec spec;
    int rc = exec_spec_parse(&spec, f, err);

    if (!rc)
        rc = child_start(&x.c, &spec, err);
    x.tty = spec.tty;
    exec_spec_done(&spec);
    if (rc)
        return rc;
    x.ring = malloc(WIRE_IN_WINDOW);
    rc = x.ring ? session_reply(s) : -ENOMEM;
    if (!rc)
        rc = wire_flush(&s->wire);
    if (!rc)
        rc = run(&x);
    if (rc && !x.exited)
        (void)kill(-x.c.pid, SIGHUP); /* it may be gone by now */
    close_fd(&x.c.in_fd);
    close_fd(&x.c.out_fd);
    close_fd(&x.c.err_fd);
    close_fd(&x.c.slave_fd);
    free(x.ring);
    return rc ? -ECONNRESET : 0; /* in the middle of it, there is nothing else to be said */
}
