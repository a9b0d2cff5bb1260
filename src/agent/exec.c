/* A program in the guest and its streams, the host's side. See agent/agent.h.
 *
 * Invariants:
 *  1. No more than WIRE_IN_WINDOW bytes of input are ahead of what the guest says was consumed, so
 *     signals and sizes never wait behind input that nobody reads.
 *  2. Output is written in the order it came, a message at a time (`writing`); the next message is
 *     looked at when it has gone, so a slow reader slows the program down, and nothing is kept.
 *  3. Nothing here waits but poll(): a reader that takes nothing does not keep signals from the
 *     guest.
 * One thread. */
#include "agent/agent_internal.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct run {
    struct agent *a;
    const struct agent_streams *s;
    bool in_open;
    bool out_broken[2]; /* out, err */
    int writing_fd;     /* index into out_broken, of what is being written */
    const uint8_t *writing;
    size_t writing_size;
    bool ended;
    struct agent_exit exit;
};

int agent_exec_start(struct agent *a, const struct agent_exec *e, int64_t deadline_ns,
                     struct error *err)
{
    struct wire_frame f;

    agent_begin(a, "exec");
    for (const char *const *p = e->argv; p && *p; p++)
        wire_field(&a->wire, "arg", *p);
    if (!e->argv)
        wire_field_int(&a->wire, "shell", 1);
    for (const char *const *p = e->env; p && *p; p++)
        wire_field(&a->wire, "env", *p);
    if (e->cwd)
        wire_field(&a->wire, "cwd", e->cwd);
    if (e->user)
        wire_field(&a->wire, "user", e->user);
    if (e->tty) {
        wire_field_int(&a->wire, "tty", 1);
        wire_field_int(&a->wire, "columns", MIN(e->columns, (unsigned)UINT16_MAX));
        wire_field_int(&a->wire, "rows", MIN(e->rows, (unsigned)UINT16_MAX));
    }
    int rc = agent_call(a, deadline_ns, &f, err);
    if (!rc) {
        a->running = true;
        a->in_sent = 0;
    }
    return rc;
}

int agent_exec_signal(struct agent *a, int signo)
{
    int rc = wire_add_int(&a->wire, WIRE_SIGNAL, "signal", signo);

    return rc ? rc : wire_flush(&a->wire);
}

int agent_exec_resize(struct agent *a, unsigned columns, unsigned rows)
{
    wire_begin(&a->wire, WIRE_RESIZE);
    wire_field_int(&a->wire, "columns", MIN(columns, (unsigned)UINT16_MAX));
    wire_field_int(&a->wire, "rows", MIN(rows, (unsigned)UINT16_MAX));
    int rc = wire_end(&a->wire);
    return rc ? rc : wire_flush(&a->wire);
}

static int stream_fd(const struct run *r, int which)
{
    return which ? r->s->err_fd : r->s->out_fd;
}

static int take_exit(struct run *r, const struct wire_frame *f)
{
    int64_t status, signo;

    if (!wire_has_fields(f) || wire_find_int(f, "status", 0, 255, -1, &status) ||
        wire_find_int(f, "signal", 1, 127, -1, &signo) || (status < 0) == (signo < 0))
        return -EPROTO;
    r->exit = (struct agent_exit){.by_signal = signo > 0, .value = (int)MAX(status, signo)};
    r->ended = true;
    r->a->running = false;
    return 0;
}

static int take_output(struct run *r, const struct wire_frame *f)
{
    int which = f->kind == WIRE_ERR;

    if (f->size && stream_fd(r, which) >= 0 && !r->out_broken[which]) {
        r->writing_fd = which;
        r->writing = f->body;
        r->writing_size = f->size;
    }
    return 0;
}

static int take_frame(struct run *r, const struct wire_frame *f, struct error *err)
{
    int64_t bytes;

    if (f->kind == WIRE_OUT || f->kind == WIRE_ERR)
        return take_output(r, f);
    if (f->kind == WIRE_EXIT)
        return take_exit(r, f);
    if (f->kind == WIRE_ERROR)
        return wire_error_take(f, "the guest's agent", err);
    if (f->kind != WIRE_CREDIT || !wire_has_fields(f) ||
        wire_find_int(f, "bytes", 0, (int64_t)r->a->in_sent, 0, &bytes))
        return -EPROTO;
    r->a->in_sent -= (size_t)bytes;
    return 0;
}

/** Look at what came, until there is something to be written. */
static int take_frames(struct run *r, struct error *err)
{
    struct wire_frame f;
    int rc = 1;

    while (!r->writing_size && !r->ended && (rc = wire_next(&r->a->wire, &f)) > 0) {
        rc = take_frame(r, &f, err);
        if (rc)
            return rc;
    }
    return MIN(rc, 0);
}

/** A piece that a pipe that poll() calls writable takes without waiting; files take all. */
static int write_output(struct run *r)
{
    int fd = stream_fd(r, r->writing_fd);
    struct stat st;
    bool is_file = !fstat(fd, &st) && S_ISREG(st.st_mode);
    ssize_t n =
        write(fd, r->writing, is_file ? r->writing_size : MIN(r->writing_size, (size_t)PIPE_BUF));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n < 0) {
        r->out_broken[r->writing_fd] = true;
        r->writing_size = 0;
        return agent_exec_signal(r->a, SIGPIPE);
    }
    r->writing += n;
    r->writing_size -= (size_t)n;
    return 0;
}

static bool wants_input(const struct run *r)
{
    return r->in_open && r->a->in_sent < WIRE_IN_WINDOW && wire_pending(&r->a->wire) < WIRE_CHUNK;
}

static int send_input(struct run *r)
{
    struct wire *w = &r->a->wire;
    size_t want = MIN((size_t)WIRE_CHUNK, WIRE_IN_WINDOW - r->a->in_sent);

    wire_begin(w, WIRE_IN);
    void *p = wire_room(w, want);
    if (!p)
        return -ENOMEM;
    ssize_t n = read(r->s->in_fd, p, want);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
        w->out_size = w->begun; /* not now, then */
        return 0;
    }
    /* An error is an end as well: as for a program that reads it itself, there is no more. */
    r->in_open = n > 0;
    wire_grew(w, n > 0 ? (size_t)n : 0);
    r->a->in_sent += n > 0 ? (size_t)n : 0;
    return wire_end(w);
}

static int step(struct run *r, struct error *err)
{
    enum { WIRE, IN, OUT, EVENT, COUNT };
    struct wire *w = &r->a->wire;
    bool writing = r->writing_size;
    short wire_events = (short)((writing ? 0 : POLLIN) | (wire_pending(w) ? POLLOUT : 0));
    struct pollfd fds[COUNT] = {
        [WIRE] = {.fd = wire_events ? w->fd : -1,          .events = wire_events},
        [IN] = {.fd = wants_input(r) ? r->s->in_fd : -1, .events = POLLIN     },
        [OUT] = {.fd = writing ? stream_fd(r,             r->writing_fd) : -1,   .events = POLLOUT},
        [EVENT] = {.fd = r->s->event_fd,                                       .events = POLLIN                                        },
    };
    int rc = 0;

    if (poll(fds, COUNT, -1) < 0)
        return errno == EINTR ? 0 : -errno;
    if (fds[EVENT].revents)
        rc = r->s->event(r->a, r->s->arg);
    if (!rc && fds[IN].revents)
        rc = send_input(r);
    if (!rc && fds[OUT].revents)
        rc = write_output(r);
    if (!rc && wire_pending(w))
        rc = wire_flush(w);
    if (!rc && !writing && (fds[WIRE].revents & (POLLIN | POLLHUP | POLLERR))) {
        ssize_t n = wire_fill(w);
        rc = n < 0 ? (int)n : 0;
    }
    return rc ? rc : take_frames(r, err);
}

int agent_exec_run(struct agent *a, const struct agent_streams *s, struct agent_exit *ret,
                   struct error *err)
{
    struct run r = {.a = a, .s = s, .in_open = s->in_fd >= 0};
    struct error said = {0};
    int rc = a->running ? 0 : -EINVAL;

    if (!rc && !r.in_open)
        rc = wire_add(&a->wire, WIRE_IN, NULL, 0);
    if (!rc)
        rc = take_frames(&r, &said); /* what came together with the answer */
    while (!rc && !(r.ended && !r.writing_size))
        rc = step(&r, &said);
    if (rc && said.code)
        return error_set(err, said.code, "%s", said.text);
    if (rc)
        return agent_lost(rc, err);
    *ret = r.exit;
    return 0;
}
