/* The server: accepts clients, at most so many at a time, each with a thread of its own.
 *
 * Threads: nbd_server_run()'s thread accepts and joins; connection threads take themselves off
 * nothing: they say that they have ended, through left_fd.
 */
#include "base/fd.h"
#include "base/log.h"
#include "disk/disk.h"
#include "nbd/nbd_internal.h"

#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

/** They are read once now, so that errors come before clients. */
static int check_bitmaps(const struct nbd_config *config, struct error *err)
{
    struct disk *d = config->disk;
    uint64_t size;
    bool set;

    if (config->bitmap_count > NBD_MAX_BITMAPS)
        return error_set(err, EINVAL, "at most %d bitmaps can be served", NBD_MAX_BITMAPS);
    for (unsigned i = 0; i < config->bitmap_count; i++) {
        const char *name = config->bitmaps[i];
        int rc = disk_bitmap_find(d, name, 0, d->size_bytes, &set, &size);

        if (rc == -ENOENT)
            return error_set(err, ENOENT, "'%s' has no bitmap '%s'", d->path, name);
        if (rc == -EUCLEAN)
            return error_set(err, EINVAL,
                             "bitmap '%s' of '%s' is not consistent: it was in use when its "
                             "program ended",
                             name, d->path);
        if (rc)
            return error_set(err, -rc, "cannot read bitmap '%s' of '%s': %s", name, d->path,
                             strerror(-rc));
    }
    return 0;
}

int nbd_server_new(const struct nbd_config *config, struct nbd_server **ret, struct error *err)
{
    assert(config->max_clients >= 1 && config->max_clients <= NBD_MAX_CLIENTS);
    if (strlen(config->name) > NBD_NAME_MAX)
        return error_set(err, EINVAL, "the name of an export has at most %d bytes", NBD_NAME_MAX);
    int rc = check_bitmaps(config, err);
    if (rc)
        return rc;
    struct nbd_server *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, ENOMEM, "out of memory");
    s->config = *config;
    s->config.readonly |= config->disk->readonly;
    s->config.name = strdup(config->name);
    s->config.description = config->description ? strdup(config->description) : NULL;
    s->left_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    mutex_init(&s->lock);
    if (!s->config.name || (config->description && !s->config.description) || s->left_fd < 0) {
        nbd_server_free(s);
        return error_set(err, ENOMEM, "out of memory");
    }
    *ret = s;
    return 0;
}

void nbd_server_free(struct nbd_server *s)
{
    if (!s)
        return;
    assert(!s->count);
    fd_close(s->left_fd);
    free((char *)s->config.name);
    free((char *)s->config.description);
    mutex_done(&s->lock);
    free(s);
}

static void *run_conn(void *arg)
{
    struct nbd_conn *c = arg;
    struct nbd_server *s = c->server;
    uint64_t one = 1;

    nbd_conn_run(c);
    mutex_lock(&s->lock);
    c->ended = true;
    nbd_shutdown(c->stream); /* the client need not wait until we are joined */
    mutex_unlock(&s->lock);
    (void)!write(s->left_fd, &one, sizeof(one)); /* full = it is readable anyway */
    return NULL;
}

/** Join those that have ended; with @all, those that are still there too. */
static void reap(struct nbd_server *s, bool all)
{
    struct nbd_conn *done = NULL;

    mutex_lock(&s->lock);
    for (struct nbd_conn **at = &s->conns; *at;) {
        struct nbd_conn *c = *at;

        if (all && !c->ended)
            nbd_shutdown(c->stream);
        if (all || c->ended) {
            *at = c->next;
            c->next = done;
            done = c;
            s->count--;
        } else {
            at = &c->next;
        }
    }
    mutex_unlock(&s->lock);
    while (done) {
        struct nbd_conn *c = done;

        done = c->next;
        thread_join(c->thread);
        nbd_conn_free(c);
    }
}

static void accept_one(struct nbd_server *s, int listen_fd)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    struct nbd_conn *c = fd < 0 ? NULL : nbd_conn_new(s, nbd_stream_new(fd));

    if (!c)
        return; /* gone again, or no memory: the client sees a closed connection */
    mutex_lock(&s->lock);
    if (thread_start(&c->thread, "nbd", run_conn, c)) {
        mutex_unlock(&s->lock);
        nbd_conn_free(c);
        return;
    }
    c->next = s->conns;
    s->conns = c;
    s->count++;
    mutex_unlock(&s->lock);
}

void nbd_server_serve(struct nbd_server *s, int fd)
{
    struct nbd_conn *c = nbd_conn_new(s, nbd_stream_new(fd));

    if (c) {
        nbd_conn_run(c);
        nbd_conn_free(c);
    }
}

int nbd_server_run(struct nbd_server *s, int listen_fd, int stop_fd, struct error *err)
{
    bool had_one = false;
    int rc = 0;

    while (!rc) {
        bool is_full = s->count >= s->config.max_clients;
        struct pollfd p[] = {
            {.fd = stop_fd,                  .events = POLLIN},
            {.fd = s->left_fd,               .events = POLLIN},
            {.fd = is_full ? -1 : listen_fd, .events = POLLIN},
        };
        uint64_t n;

        if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
            rc = error_set(err, errno, "cannot wait for clients: %s", strerror(errno));
        if (rc || p[0].revents)
            break;
        if (p[1].revents) {
            (void)!read(s->left_fd, &n, sizeof(n)); /* a count nobody needs */
            reap(s, false);
        }
        if (p[2].revents) {
            accept_one(s, listen_fd);
            had_one |= s->count > 0;
        }
        if (had_one && !s->count && !s->config.persistent)
            break;
    }
    reap(s, true);
    return rc;
}
