/* The serving end of the API.
 *
 * Invariants:
 *  1. A connection lives as long as the loop watches it or a call of it has not ended: `refs`. Its
 *     watch, input and descriptor are the loop's; what is to be sent is under its lock.
 *  2. What is to be sent is bounded: who does not read is cut off.
 *  3. A call ends exactly once.
 *
 * Threads: the loop; one for each method that may wait; api_reply() and the like on any. */
#include "api/internal.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

enum { CONNS_MAX = 64, CALLS_MAX = 16, WORKERS_MAX = 16, OUT_MAX = 4 << 20, READ_SIZE = 4096 };

struct conn {
    struct api_server *server; /* [init] */
    struct loop_fd watch;      /* [loop] fd -1: closed, or taken over */
    struct conn *next;         /* [loop] */
    char *in;                  /* [loop] */
    size_t in_size, in_room;   /* [loop] */
    unsigned refs;             /* [atomic] */
    unsigned calls;            /* [atomic] that have not ended; only the loop adds */
    bool is_gone;              /* [atomic] relaxed */
    bool wants_events;         /* [loop] */
    struct mutex lock;
    char *out;                 /* [lock] */
    size_t out_size, out_room; /* [lock] */
    bool overrun;              /* [lock] it is to be cut off */
    bool posted;               /* [lock] send_posted() is to run */
};

struct api_call {
    struct conn *conn;
    int64_t id;
    const struct api_method *method;
    json_t *args; /* owned */
};

struct worker {
    struct worker *next;
    pthread_t thread;
    struct api_call *call;
    bool
        done; /* [atomic] release, by the thread at its end; acquire, by the loop before it joins */
};

struct api_server {
    struct loop *loop;                /* [init] */
    const struct api_method *methods; /* [init] */
    void *arg;                        /* [init] */
    char *path;                       /* [init] */
    struct loop_fd listener;          /* [init] */
    struct conn *conns;               /* [loop] */
    unsigned conn_count;              /* [loop] */
    struct worker *workers;           /* [loop] */
    unsigned worker_count;            /* [loop] */
};

/* --- Sockets --- */

int api_address(const char *path, struct sockaddr_un *ret, socklen_t *ret_size, int *ret_dir_fd)
{
    const char *name = strrchr(path, '/');
    size_t n = strlen(path);

    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    *ret_dir_fd = -1;
    if (n < sizeof(ret->sun_path)) {
        memcpy(ret->sun_path, path, n + 1);
    } else {
        cleanup(freep) char *dir = name ? strndup(path, (size_t)(name - path)) : NULL;
        if (!dir || strlen(name) >= 64)
            return -ENAMETOOLONG;
        *ret_dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (*ret_dir_fd < 0)
            return -errno;
        (void)snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d%s", *ret_dir_fd,
                       name);
    }
    *ret_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(ret->sun_path) + 1);
    return 0;
}

bool api_peer_is_ours(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) &&
           (peer.uid == geteuid() || !peer.uid);
}

/* --- Connections --- */

static void conn_unref(struct conn *c)
{
    /* release: what was done to it comes before; acquire: before it is freed */
    if (__atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL))
        return;
    mutex_done(&c->lock);
    free(c->in);
    free(c->out);
    free(c);
}

/** Out of the loop and the list. The loop's thread. Its descriptor; the caller's reference stays.
 */
static int conn_detach(struct conn *c)
{
    struct api_server *s = c->server;
    struct conn **at = &s->conns;

    if (c->watch.fd < 0)
        return -1;
    __atomic_store_n(&c->is_gone, true, __ATOMIC_RELAXED);
    loop_fd_remove(s->loop, &c->watch);
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    s->conn_count--;
    return fd_take(&c->watch.fd);
}

static void conn_close(struct conn *c)
{
    int fd = conn_detach(c);

    if (fd < 0)
        return;
    fd_close(fd);
    conn_unref(c);
}

/** Send what there is. False: the connection is no more. The loop's thread. */
static bool conn_flush(struct conn *c)
{
    bool broken = false;

    if (c->watch.fd < 0)
        return false;
    mutex_lock(&c->lock);
    while (c->out_size && !broken) {
        ssize_t n = send(c->watch.fd, c->out, c->out_size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            break;
        broken = n < 0 && errno != EINTR;
        if (n > 0) {
            c->out_size -= (size_t)n;
            memmove(c->out, c->out + n, c->out_size);
        }
    }
    bool left = c->out_size != 0;
    broken |= c->overrun;
    mutex_unlock(&c->lock);
    if (broken) {
        conn_close(c);
        return false;
    }
    loop_fd_change(c->server->loop, &c->watch, left ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return true;
}

static void send_posted(void *arg)
{
    struct conn *c = arg;

    mutex_lock(&c->lock);
    c->posted = false;
    mutex_unlock(&c->lock);
    (void)conn_flush(c);
    conn_unref(c);
}

/** Put @message, which is taken, behind what is to be sent. Any thread. */
static void conn_put(struct conn *c, json_t *message)
{
    cleanup(freep) char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
    size_t size = text ? strlen(text) + 1 : 0;
    bool post = false;

    json_decref(message);
    mutex_lock(&c->lock);
    if (!text || size > API_LINE_MAX || c->out_size + size > OUT_MAX) {
        c->overrun = true; /* out of memory likewise: an answer that is missing must be noticed */
    } else {
        if (c->out_room - c->out_size < size) {
            char *grown = realloc(c->out, c->out_size + size);
            c->overrun |= !grown;
            c->out = grown ? grown : c->out;
            c->out_room = grown ? c->out_size + size : c->out_room;
        }
        if (!c->overrun) {
            text[size - 1] = '\n';
            memcpy(c->out + c->out_size, text, size);
            c->out_size += size;
        }
    }
    if (!c->posted)
        post = c->posted = true;
    mutex_unlock(&c->lock);
    if (!post)
        return;
    (void)__atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED); /* from a reference that is held */
    if (loop_post(c->server->loop, send_posted, c)) {
        mutex_lock(&c->lock);
        c->posted = false; /* out of memory: the next message tries again */
        mutex_unlock(&c->lock);
        conn_unref(c);
    }
}

/* --- Calls --- */

static void call_end(struct api_call *call)
{
    struct conn *c = call->conn;

    json_decref(call->args);
    free(call);
    (void)__atomic_sub_fetch(&c->calls, 1, __ATOMIC_RELAXED); /* only a bound */
    conn_unref(c);
}

static void answer(struct api_call *call, const char *key, json_t *body)
{
    conn_put(call->conn,
             json_pack("{s:I, s:o}", "id", (json_int_t)call->id, key, body ? body : json_object()));
}

void api_reply(struct api_call *call, json_t *result)
{
    answer(call, "result", result);
    call_end(call);
}

void api_fail(struct api_call *call, const struct error *err)
{
    answer(call, "error", api_error_json(err));
    call_end(call);
}

void api_progress(struct api_call *call, json_t *progress)
{
    answer(call, "progress", progress);
}

bool api_call_is_gone(const struct api_call *call)
{
    return __atomic_load_n(&call->conn->is_gone, __ATOMIC_RELAXED);
}

int api_take_fd(struct api_call *call, json_t *result)
{
    struct conn *c = call->conn;

    answer(call, "result", result);
    bool whole = conn_flush(c);
    mutex_lock(&c->lock);
    whole &= !c->out_size && !c->in_size;
    mutex_unlock(&c->lock);
    int fd = whole ? conn_detach(c) : -EPIPE;
    if (whole)
        conn_unref(c); /* the list's */
    else
        conn_close(c);
    call_end(call);
    return fd;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct api_call *call = w->call;

    call->method->fn(call, call->args, call->conn->server->arg);
    __atomic_store_n(&w->done, true, __ATOMIC_RELEASE);
    return NULL;
}

/** Join the threads that have ended, or all. */
static void reap(struct api_server *s, bool all)
{
    for (struct worker **at = &s->workers; *at;) {
        struct worker *w = *at;
        if (!all && !__atomic_load_n(&w->done, __ATOMIC_ACQUIRE)) {
            at = &w->next;
            continue;
        }
        thread_join(w->thread);
        *at = w->next;
        s->worker_count--;
        free(w);
    }
}

static int start_worker(struct api_server *s, struct api_call *call, struct error *err)
{
    reap(s, false);
    struct worker *w = s->worker_count < WORKERS_MAX ? calloc(1, sizeof(*w)) : NULL;
    if (!w)
        return error_set(err, EAGAIN, "too many calls are under way");
    w->call = call;
    int r = thread_start(&w->thread, "api-call", worker_main, w);
    if (r) {
        free(w);
        return error_set(err, -r, "cannot start a thread: %s", strerror(-r));
    }
    w->next = s->workers;
    s->workers = w;
    s->worker_count++;
    return 0;
}

static void serve_events(struct api_call *call, json_t *args, void *arg)
{
    call->conn->wants_events = true;
    api_reply(call, NULL);
}

static const struct api_method *find_method(const struct api_server *s, const char *name)
{
    static const struct api_method events = {.name = "events", .fn = serve_events};
    const struct api_method *m = s->methods;

    while (m->name && strcmp(m->name, name) != 0)
        m++;
    return m->name ? m : strcmp(name, events.name) ? NULL : &events;
}

/** Serve one message of @c. */
static void dispatch(struct conn *c, const struct api_message *m)
{
    struct api_call *call = calloc(1, sizeof(*call));
    struct error err = {0};

    if (!call) {
        mutex_lock(&c->lock);
        c->overrun = true;
        mutex_unlock(&c->lock);
        (void)conn_flush(c);
        return;
    }
    *call = (struct api_call){.conn = c, .id = m->id, .method = find_method(c->server, m->name)};
    call->args = m->body ? json_incref(m->body) : json_object();
    (void)__atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED); /* the list's is held */
    unsigned calls = __atomic_add_fetch(&c->calls, 1, __ATOMIC_RELAXED);
    int r = 0;
    if (!call->method)
        r = error_set(&err, ENOSYS, "there is no call '%s'", m->name);
    else if (calls > CALLS_MAX)
        r = error_set(&err, EAGAIN, "too many calls are under way");
    else if (call->method->may_wait)
        r = start_worker(c->server, call, &err);
    else
        call->method->fn(call, call->args, c->server->arg);
    if (r)
        api_fail(call, &err);
}

/** Serve the whole lines of the input. False: the connection is no more. */
static bool serve_lines(struct conn *c)
{
    size_t at = 0;
    char *eol;

    while (at < c->in_size && (eol = memchr(c->in + at, '\n', c->in_size - at))) {
        struct api_message m;
        struct error err = {0};
        size_t line = (size_t)(eol - c->in) - at;
        int r = api_parse(c->in + at, line, &m, &err);

        if (!r && m.kind != API_CALL) {
            r = error_set(&err, EINVAL, "expected a \"call\"");
            api_message_done(&m);
        }
        at += line + 1;
        if (r) {
            conn_put(c, json_pack("{s:i, s:o}", "id", 0, "error", api_error_json(&err)));
            continue;
        }
        if (at == c->in_size)
            at = c->in_size = 0; /* nothing lies behind it, if it takes over the connection */
        dispatch(c, &m);
        api_message_done(&m);
        if (c->watch.fd < 0)
            return false;
    }
    c->in_size -= at;
    memmove(c->in, c->in + at, c->in_size);
    return true;
}

static void conn_ready(struct loop_fd *w, uint32_t events)
{
    struct conn *c = w->arg;

    (void)__atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED); /* while we look at it */
    if ((events & EPOLLOUT) && !conn_flush(c)) {
        conn_unref(c);
        return;
    }
    if (c->in_room - c->in_size < READ_SIZE) {
        char *grown = realloc(c->in, c->in_room + c->in_room / 2 + READ_SIZE);
        if (grown) {
            c->in = grown;
            c->in_room += c->in_room / 2 + READ_SIZE;
        }
    }
    size_t room = c->in_room - c->in_size;
    ssize_t n = room ? recv(w->fd, c->in + c->in_size, room, MSG_DONTWAIT) : -1;
    if (n > 0)
        c->in_size += (size_t)n;
    if (n == 0 || (n < 0 && (!room || (errno != EAGAIN && errno != EINTR))))
        conn_close(c);
    else if (n > 0 && serve_lines(c) && c->in_size > API_LINE_MAX)
        conn_close(c);
    conn_unref(c);
}

static void accept_ready(struct loop_fd *w, uint32_t events)
{
    struct api_server *s = w->arg;
    int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct conn *c = NULL;

    if (fd >= 0 && s->conn_count < CONNS_MAX && api_peer_is_ours(fd))
        c = calloc(1, sizeof(*c));
    if (!c) {
        fd_close(fd);
        return;
    }
    c->server = s;
    c->refs = 1;
    c->watch = (struct loop_fd){.fd = fd, .fn = conn_ready, .arg = c};
    mutex_init(&c->lock);
    if (loop_fd_add(s->loop, &c->watch, EPOLLIN)) {
        fd_close(fd_take(&c->watch.fd));
        conn_unref(c);
        return;
    }
    c->next = s->conns;
    s->conns = c;
    s->conn_count++;
}

/* --- The server --- */

struct event {
    struct api_server *server;
    json_t *message;
};

static void send_event(void *arg)
{
    struct event *e = arg;

    for (struct conn *c = e->server->conns; c; c = c->next) {
        if (c->wants_events)
            conn_put(c, json_incref(e->message));
    }
    json_decref(e->message);
    free(e);
}

void api_server_event(struct api_server *s, const char *name, json_t *body)
{
    struct event *e = calloc(1, sizeof(*e));
    json_t *message = json_pack("{s:s}", "event", name);

    if (body)
        (void)json_object_update_missing(message, body); /* out of memory: it says less */
    json_decref(body);
    if (!e || !message)
        goto fail;
    *e = (struct event){.server = s, .message = message};
    if (!loop_post(s->loop, send_event, e))
        return;
fail:
    json_decref(message); /* out of memory: an event is lost */
    free(e);
}

static int listen_at(const char *path, struct error *err)
{
    struct sockaddr_un addr;
    socklen_t size;
    cleanup(fd_closep) int dir = -1;
    cleanup(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r = fd < 0 ? -errno : api_address(path, &addr, &size, &dir);

    if (!r && unlink(path) && errno != ENOENT)
        r = -errno;
    /* the folder is its owner's alone, so that nobody connects before the mode is set */
    if (!r && (bind(fd, (struct sockaddr *)&addr, size) || chmod(path, 0600) || listen(fd, 64)))
        r = -errno;
    return r ? error_set(err, -r, "cannot serve '%s': %s", path, strerror(-r)) : fd_take(&fd);
}

int api_server_new(struct loop *loop, const char *path, const struct api_method *methods, void *arg,
                   struct api_server **ret, struct error *err)
{
    struct api_server *s = calloc(1, sizeof(*s));

    if (!s)
        return error_set(err, ENOMEM, "out of memory");
    s->loop = loop;
    s->methods = methods;
    s->arg = arg;
    s->path = strdup(path);
    int fd = s->path ? listen_at(path, err) : error_set(err, ENOMEM, "out of memory");
    s->listener = (struct loop_fd){.fd = fd, .fn = accept_ready, .arg = s};
    int r = fd < 0 ? fd : loop_fd_add(loop, &s->listener, EPOLLIN);
    if (r) {
        if (fd >= 0)
            (void)error_set(err, -r, "cannot serve '%s': %s", path, strerror(-r));
        fd_close(fd);
        free(s->path);
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void api_server_free(struct api_server *s)
{
    if (!s)
        return;
    loop_fd_remove(s->loop, &s->listener);
    fd_close(s->listener.fd);
    (void)unlink(s->path);
    /* callers see their connection end; threads see that nobody waits */
    for (struct conn *c = s->conns; c; c = c->next)
        __atomic_store_n(&c->is_gone, true, __ATOMIC_RELAXED);
    reap(s, true);
    while (s->conns) {
        struct conn *c = s->conns;
        (void)conn_flush(c); /* the last answers and events; it may have closed it */
        if (s->conns == c)
            conn_close(c);
    }
    free(s->path);
    free(s);
}
