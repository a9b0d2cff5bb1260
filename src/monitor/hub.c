/* The guest's console and who watches it.
 *
 *     vm ── pipe ──> hub (loop) ──> log file, terminal, clients
 *     clients ──> hub ──> input() ──> vm
 *
 * Invariants:
 *  1. The pipe is read only while the terminal has taken all that came before: then the pipe fills,
 *     and the guest waits. The log and the clients never make it wait.
 *  2. A client's bytes are read only while the guest has taken those before.
 *
 * Threads: all on the loop, but for hub_set_input() and hub_drain(). */
#include "monitor/hub.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/paths.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define RETRY_NS 10000000LL

enum { PIECE = 16384, CLIENT_OUT_MAX = 256 << 10, CLIENT_IN = 4096, CLIENTS_MAX = 16 };

struct client {
    struct hub *hub;
    struct loop_fd watch;
    struct client *next;
    char *out;
    size_t out_size;
    char in[CLIENT_IN];
    size_t in_size;
};

struct hub {
    struct loop *loop;
    struct loop_fd source; /* the pipe's reading end */
    int console_fd;        /* its writing end */
    char *log_path;        /* NULL = none */
    int log_fd;
    off_t log_size;
    struct loop_fd terminal; /* fd -1 = none */
    bool terminal_polls;     /* it can be watched; a file cannot, and always takes all */
    bool terminal_watched;
    bool source_watched;
    char pending[PIECE]; /* for the terminal */
    size_t pending_size;
    struct client *clients;
    unsigned client_count;
    struct loop_timer retry; /* of input */
    struct mutex lock;
    struct cond drained;
    bool drain_wanted;       /* [lock] */
    struct mutex input_lock; /* held over the call: hub_set_input() waits for it */
    size_t (*input)(void *arg, const void *data, size_t size); /* [input_lock] */
    void *input_arg;                                           /* [input_lock] */
};

/* --- The log --- */

static void open_log(struct hub *h)
{
    struct stat st;

    h->log_fd = open(h->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    h->log_size = h->log_fd >= 0 && !fstat(h->log_fd, &st) ? st.st_size : 0;
}

/** A log that cannot be written is one that says less: the guest goes on. */
static void put_log(struct hub *h, const char *data, size_t size)
{
    if (!h->log_path)
        return;
    if (h->log_size + (off_t)size > HUB_LOG_MAX) {
        cleanup(freep) char *older = paths_format(NULL, "%s.1", h->log_path);
        if (older)
            (void)rename(h->log_path, older);
        fd_close(h->log_fd);
        open_log(h);
    }
    if (h->log_fd >= 0 && !fd_write_all(h->log_fd, data, size))
        h->log_size += (off_t)size;
}

/* --- Clients --- */

static void client_close(struct client *c)
{
    struct hub *h = c->hub;
    struct client **at = &h->clients;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    h->client_count--;
    loop_fd_remove(h->loop, &c->watch);
    fd_close(c->watch.fd);
    free(c->out);
    free(c);
}

static void client_watch(struct client *c)
{
    loop_fd_change(c->hub->loop, &c->watch,
                   (c->in_size ? 0u : (unsigned)EPOLLIN) | (c->out_size ? EPOLLOUT : 0u));
}

/** False: it is no more. */
static bool client_send(struct client *c)
{
    ssize_t n =
        c->out_size ? send(c->watch.fd, c->out, c->out_size, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;

    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        client_close(c);
        return false;
    }
    if (n > 0) {
        c->out_size -= (size_t)n;
        memmove(c->out, c->out + n, c->out_size);
    }
    client_watch(c);
    return true;
}

static void put_clients(struct hub *h, const char *data, size_t size)
{
    struct client *next;

    for (struct client *c = h->clients; c; c = next) {
        next = c->next;
        if (!c->out)
            c->out = malloc(CLIENT_OUT_MAX);
        size_t n = c->out ? MIN(size, CLIENT_OUT_MAX - c->out_size) : 0;
        if (n)
            memcpy(c->out + c->out_size, data, n);
        c->out_size += n;
        (void)client_send(c);
    }
}

/** Pass on what it typed. */
static void client_type(struct client *c)
{
    struct hub *h = c->hub;

    mutex_lock(&h->input_lock);
    size_t n = h->input ? h->input(h->input_arg, c->in, c->in_size) : c->in_size;
    mutex_unlock(&h->input_lock);
    c->in_size -= n;
    memmove(c->in, c->in + n, c->in_size);
    if (c->in_size)
        loop_timer_set(h->loop, &h->retry, host_now_ns() + RETRY_NS);
}

static void client_ready(struct loop_fd *w, uint32_t events)
{
    struct client *c = w->arg;

    if ((events & EPOLLOUT) && !client_send(c))
        return;
    if (c->in_size) {
        if (events & EPOLLHUP) /* it would be told again and again */
            client_close(c);
        return;
    }
    ssize_t n = recv(w->fd, c->in, sizeof(c->in), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        client_close(c);
        return;
    }
    c->in_size = n > 0 ? (size_t)n : 0;
    if (c->in_size)
        client_type(c);
    client_watch(c);
}

static void retry_fired(struct loop_timer *t)
{
    struct hub *h = t->arg;

    for (struct client *c = h->clients; c; c = c->next) {
        if (c->in_size)
            client_type(c);
        client_watch(c);
    }
}

void hub_attach(struct hub *h, int fd)
{
    struct client *c = h->client_count < CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;

    if (!c) {
        fd_close(fd);
        return;
    }
    c->hub = h;
    c->watch = (struct loop_fd){.fd = fd, .fn = client_ready, .arg = c};
    if (loop_fd_add(h->loop, &c->watch, EPOLLIN)) {
        fd_close(fd);
        free(c);
        return;
    }
    c->next = h->clients;
    h->clients = c;
    h->client_count++;
}

/* --- From the guest --- */

static void watch_source(struct hub *h)
{
    bool wanted = !h->pending_size;

    if (wanted == h->source_watched)
        return;
    if (!wanted)
        loop_fd_remove(h->loop, &h->source);
    else if (loop_fd_add(h->loop, &h->source, EPOLLIN))
        return; /* out of memory in the kernel: tried again with the terminal's next turn */
    h->source_watched = wanted;
}

static void put_terminal(struct hub *h)
{
    while (h->pending_size) {
        /* no more than a pipe takes at once: a blocking one then does not block */
        size_t size = h->terminal_polls ? MIN(h->pending_size, (size_t)512) : h->pending_size;
        ssize_t n = write(h->terminal.fd, h->pending, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            h->pending_size = 0; /* nobody reads any more */
            break;
        }
        h->pending_size -= (size_t)n;
        memmove(h->pending, h->pending + n, h->pending_size);
        if (h->terminal_polls)
            break; /* until it says that it takes more */
    }
    if (h->terminal_polls && h->terminal_watched != (h->pending_size != 0)) {
        if (h->terminal_watched)
            loop_fd_remove(h->loop, &h->terminal);
        else if (loop_fd_add(h->loop, &h->terminal, EPOLLOUT))
            h->terminal_polls = false;
        h->terminal_watched = h->terminal_polls && !h->terminal_watched;
    }
}

/** Read one piece and pass it on. False: there was none. */
static bool read_piece(struct hub *h)
{
    char piece[PIECE];
    ssize_t n = h->pending_size ? 0 : read(h->source.fd, piece, sizeof(piece));

    if (n <= 0)
        return false;
    put_log(h, piece, (size_t)n);
    put_clients(h, piece, (size_t)n);
    if (h->terminal.fd >= 0) {
        memcpy(h->pending, piece, (size_t)n);
        h->pending_size = (size_t)n;
        put_terminal(h);
    }
    return true;
}

static void check_drained(struct hub *h)
{
    int left = 0;

    if (h->pending_size || (!ioctl(h->source.fd, FIONREAD, &left) && left))
        return;
    mutex_lock(&h->lock);
    h->drain_wanted = false;
    cond_broadcast(&h->drained);
    mutex_unlock(&h->lock);
}

static void source_ready(struct loop_fd *w, uint32_t events)
{
    struct hub *h = w->arg;

    (void)read_piece(h);
    watch_source(h);
    check_drained(h);
}

static void terminal_ready(struct loop_fd *w, uint32_t events)
{
    struct hub *h = w->arg;

    put_terminal(h);
    watch_source(h);
    check_drained(h);
}

static void drain_posted(void *arg)
{
    check_drained(arg);
}

void hub_drain(struct hub *h, int64_t deadline_ns)
{
    bool in_time = true;

    mutex_lock(&h->lock);
    h->drain_wanted = !loop_post(h->loop, drain_posted, h);
    while (h->drain_wanted && in_time)
        in_time = cond_wait_until(&h->drained, &h->lock, deadline_ns);
    mutex_unlock(&h->lock);
}

int hub_console_fd(const struct hub *h)
{
    return h->console_fd;
}

void hub_set_input(struct hub *h, size_t (*input)(void *arg, const void *data, size_t size),
                   void *arg)
{
    mutex_lock(&h->input_lock);
    h->input = input;
    h->input_arg = arg;
    mutex_unlock(&h->input_lock);
}

int hub_new(struct loop *loop, const char *log_path, int terminal_fd, struct hub **ret,
            struct error *err)
{
    struct hub *h = calloc(1, sizeof(*h));
    int fds[2] = {-1, -1};

    if (!h)
        return error_set(err, ENOMEM, "out of memory");
    h->loop = loop;
    h->log_fd = -1;
    h->log_path = log_path ? strdup(log_path) : NULL;
    h->terminal = (struct loop_fd){.fd = terminal_fd, .fn = terminal_ready, .arg = h};
    h->terminal_polls = true;
    h->retry = (struct loop_timer){.fn = retry_fired, .arg = h};
    mutex_init(&h->lock);
    mutex_init(&h->input_lock);
    cond_init(&h->drained);
    int r = pipe2(fds, O_CLOEXEC | O_NONBLOCK) ? -errno : 0;
    h->console_fd = fds[1];
    h->source = (struct loop_fd){.fd = fds[0], .fn = source_ready, .arg = h};
    if (!r)
        r = loop_fd_add(loop, &h->source, EPOLLIN);
    h->source_watched = !r;
    if (r) {
        hub_free(h);
        return error_set(err, -r, "cannot make the console: %s", strerror(-r));
    }
    if (h->log_path)
        open_log(h);
    *ret = h;
    return 0;
}

void hub_free(struct hub *h)
{
    if (!h)
        return;
    while (read_piece(h)) {
        /* what the guest said last */
    }
    while (h->clients)
        client_close(h->clients);
    loop_timer_cancel(h->loop, &h->retry);
    if (h->source_watched)
        loop_fd_remove(h->loop, &h->source);
    if (h->terminal_watched)
        loop_fd_remove(h->loop, &h->terminal);
    fd_close(h->source.fd);
    fd_close(h->console_fd);
    fd_close(h->log_fd);
    cond_done(&h->drained);
    mutex_done(&h->input_lock);
    mutex_done(&h->lock);
    free(h->log_path);
    free(h);
}
